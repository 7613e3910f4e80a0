/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_gateway.h"
#include "td_render.h"


#define TD_GATEWAY_PATH  512

/* examples/shared-gateway/nginx.conf, for one tenant and within a prefix. */
static const char  td_gateway_template[] =
    "{{@modules}}\n"
    "{{@user}}\n"
    "worker_processes        {{workers}};\n"
    "worker_shutdown_timeout {{drain_timeout}};\n"
    "daemon                  off;\n"
    "pid                     {{pid}};\n"
    "error_log               {{error_log}} notice;\n"
    "{{@main}}\n"
    "events {\n"
    "    worker_connections {{connections}};\n"
    "}\n"
    "\n"
    "http {\n"
    "    client_body_temp_path {{body_temp}};\n"
    "    proxy_temp_path       {{proxy_temp}};\n"
    "    fastcgi_temp_path     {{fastcgi_temp}};\n"
    "    uwsgi_temp_path       {{uwsgi_temp}};\n"
    "    scgi_temp_path        {{scgi_temp}};\n"
    "\n"
    "    tenant_zone     registry {{zone}};\n"
    "    tenant_source   {{source}} {{source_gateway}} {{source_token}};\n"
    "    tenant_snapshot {{snapshot}};\n"
    "    {{@secret_key}}\n"
    "\n"
    "    log_format tenant '$remote_addr $tenant_name $tenant_route '\n"
    "                      '$tenant_auth_method \"$tenant_consumer\" '\n"
    "                      '\"$request_method $uri\" $status $tenant_refusal '\n"
    "                      '$request_time $tenant_endpoint '\n"
    "                      '$tenant_upstream_source $request_id';\n"
    "    access_log {{access_log}} tenant buffer=64k flush=1s;\n"
    "\n"
    "    {{@trusted}}\n"
    "    {{@http}}\n"
    "\n"
    "    upstream tenants {\n"
    "        tenant_balancer;\n"
    "        keepalive 64;\n"
    "        keepalive_timeout 30s;\n"
    "    }\n"
    "\n"
    "    server {\n"
    "        listen {{listen}};\n"
    "        {{@server}}\n"
    "\n"
    "        location / {\n"
    "            tenant       host;\n"
    "            tenant_auth  on;\n"
    "            tenant_quota on;\n"
    "            {{@location}}\n"
    "\n"
    "            proxy_pass         http://tenants;\n"
    "            proxy_http_version 1.1;\n"
    "            proxy_set_header   Host       $tenant_upstream_host;\n"
    "            proxy_set_header   Connection $tenant_connection;\n"
    "            proxy_set_header   Upgrade    $tenant_upgrade;\n"
    "        }\n"
    "    }\n"
    "\n"
    "    server {\n"
    "        listen {{admin}};\n"
    "        access_log off;\n"
    "\n"
    "        location = /metrics { tenant_metrics; }\n"
    "\n"
    "        location = /readyz {\n"
    "            tenant_ready;\n"
    "            add_header Tiergate-Generation {{generation}} always;\n"
    "        }\n"
    "\n"
    "        location = /generation {\n"
    "            default_type text/plain;\n"
    "            return 200 {{generation}};\n"
    "        }\n"
    "    }\n"
    "}\n";

typedef enum {
    TD_BLOCK_MODULES, TD_BLOCK_USER, TD_BLOCK_SECRET_KEY, TD_BLOCK_TRUSTED,
    TD_BLOCK_MAIN, TD_BLOCK_HTTP, TD_BLOCK_SERVER, TD_BLOCK_LOCATION, TD_BLOCK_N
} td_gateway_block_e;

static const char *const  td_gateway_blocks[TD_BLOCK_N] = {
    "modules", "user", "secret_key", "trusted", "main", "http", "server",
    "location"
};

typedef struct {
    const td_config_t  *config;
    const td_work_t    *work;
    const char         *prefix;
    int                 own;
    tg_text_t           block[TD_BLOCK_N];
    json_t             *parameters;
    tg_error_t         *err;
} td_gateway_t;


static long long
td_gateway_number(const json_t *object, const char *name, long long fallback)
{
    const json_t  *value;

    value = json_object_get(object, name);

    return json_is_integer(value) && json_integer_value(value) > 0
           ? (long long) json_integer_value(value) : fallback;
}


int64_t
td_gateway_restart(const json_t *spec)
{
    return td_gateway_number(spec, "restart", 0);
}


void
td_gateway_limits(const json_t *spec, td_cgroup_limits_t *limits, long *nofile)
{
    const json_t  *given;

    given = json_object_get(spec, "limits");
    limits->memory = td_gateway_number(given, "memory", 0);
    limits->pids = (long) td_gateway_number(given, "pids", 0);
    limits->cpu = (long) td_gateway_number(given, "cpu", 0);
    *nofile = (long) td_gateway_number(given, "nofile", 0);
}


/* A directive with one argument; nothing if it is empty. */
static int
td_gateway_directive(td_gateway_t *g, td_gateway_block_e block,
    const char *name, const char *argument)
{
    if (argument[0] == '\0') {
        return 0;
    }

    tg_text_printf(&g->block[block], "%s ", name);

    if (td_render_string(&g->block[block], argument, strlen(argument), NULL,
                         g->err) != 0)
    {
        return -1;
    }

    tg_text_str(&g->block[block], ";\n");

    return 0;
}


static int
td_gateway_load(td_gateway_t *g, const char *directory, const char *module)
{
    char  path[TD_GATEWAY_PATH];

    snprintf(path, sizeof(path), "%s/%s", directory, module);

    return td_gateway_directive(g, TD_BLOCK_MODULES, "load_module", path);
}


/* A file's name, no path: the operator's directory is the only one. */
static int
td_gateway_is_module(const char *name)
{
    size_t  len;

    len = strlen(name);

    return len > 3 && len < 128 && name[0] != '.'
           && strcmp(name + len - 3, ".so") == 0
           && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789_.-") == len;
}


/* Modules of all plugins, each once, in the order in which they come. */
static int
td_gateway_load_plugins(td_gateway_t *g, const json_t *plugins)
{
    int            rc;
    size_t         i, j;
    json_t        *seen;
    const char    *name;
    const json_t  *plugin, *module;

    rc = 0;
    seen = json_object();

    json_array_foreach(plugins, i, plugin) {
        json_array_foreach(json_object_get(plugin, "modules"), j, module) {
            name = json_string_value(module);

            if (name == NULL || !td_gateway_is_module(name)) {
                tg_error_set(g->err, "", "plugin %.60s names a module that is "
                             "no file's name", json_string_value(
                                 json_object_get(plugin, "name")));
                rc = -1;

            } else if (rc == 0 && json_object_get(seen, name) == NULL) {
                json_object_set_new(seen, name, json_true());
                rc = td_gateway_load(g, g->config->provisioner.plugin_modules,
                                     name);
            }
        }
    }

    json_decref(seen);

    return rc;
}


/* Says what err is about, a parameter of which is its pointer: -1. */
static int __attribute__((format(printf, 2, 3)))
td_gateway_blame(td_gateway_t *g, const char *fmt, ...)
{
    char        what[128];
    va_list     args;
    tg_error_t  err;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);

    err = *g->err;
    tg_error_set(g->err, "", "%s: %.60s %.100s", what, err.pointer, err.message);

    return -1;
}


static int
td_gateway_snippet(td_gateway_t *g, const json_t *plugin,
    td_gateway_block_e block)
{
    const char          *snippet, *name;
    td_render_values_t   values;

    snippet = json_string_value(json_object_get(
                  json_object_get(plugin, "snippets"),
                  td_gateway_blocks[block]));
    name = json_string_value(json_object_get(plugin, "name"));

    if (snippet == NULL || snippet[0] == '\0') {
        return 0;
    }

    values.parameters = json_object_get(plugin, "parameters");
    values.schema = json_object_get(plugin, "schema");
    values.blocks = NULL;

    if (td_render(&g->block[block], snippet, &values, g->err) == 0) {
        return 0;
    }

    return td_gateway_blame(g, "plugin %.60s, %s", name != NULL ? name : "",
                            td_gateway_blocks[block]);
}


static int
td_gateway_plugins(td_gateway_t *g)
{
    int            block;
    size_t         i;
    const json_t  *plugins, *plugin;

    plugins = json_object_get(g->work->spec, "plugins");

    if (td_gateway_load_plugins(g, plugins) != 0) {
        return -1;
    }

    json_array_foreach(plugins, i, plugin) {
        for (block = TD_BLOCK_MAIN; block <= TD_BLOCK_LOCATION; block++) {
            if (td_gateway_snippet(g, plugin, (td_gateway_block_e) block) != 0) {
                return -1;
            }
        }
    }

    return 0;
}


static int
td_gateway_trust(td_gateway_t *g)
{
    size_t            i;
    const td_list_t  *trusted;

    trusted = &g->config->provisioner.trusted;

    for (i = 0; i < trusted->n; i++) {
        if (td_gateway_directive(g, TD_BLOCK_TRUSTED, "set_real_ip_from",
                                 trusted->item[i]) != 0)
        {
            return -1;
        }
    }

    if (trusted->n > 0) {
        tg_text_str(&g->block[TD_BLOCK_TRUSTED],
                    "real_ip_header X-Forwarded-For;\n"
                    "real_ip_recursive on;\n");
    }

    return 0;
}


static void
td_gateway_set(td_gateway_t *g, const char *name, const char *fmt,
    const char *value)
{
    char  text[TD_GATEWAY_PATH];

    snprintf(text, sizeof(text), fmt, value);
    json_object_set_new(g->parameters, name, json_string(text));
}


static void
td_gateway_set_number(td_gateway_t *g, const char *name, long long value)
{
    json_object_set_new(g->parameters, name, json_integer(value));
}


static void
td_gateway_parameters(td_gateway_t *g)
{
    size_t              i;
    char                text[TD_GATEWAY_PATH], port[16];
    const char         *address, *zone;
    const td_config_t  *config;
    static const struct {
        const char  *name;
        const char  *fmt;
    } paths[] = {
        { "error_log", "%s/logs/error.log" },
        { "access_log", "%s/logs/access.log" }, { "body_temp", "%s/tmp/body" },
        { "proxy_temp", "%s/tmp/proxy" }, { "uwsgi_temp", "%s/tmp/uwsgi" },
        { "fastcgi_temp", "%s/tmp/fastcgi" }, { "scgi_temp", "%s/tmp/scgi" },
        { "snapshot", "%s/data/registry.jsonl" }, { "prefix", "%s" },
        { "source_token", "token=%s/token" },
    };

    config = g->config;

    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        td_gateway_set(g, paths[i].name, paths[i].fmt, g->prefix);
    }

    td_gateway_set(g, "pid", g->own ? "%s/run/nginx.pid" : "%s/nginx.pid",
                   g->prefix);
    td_gateway_set(g, "admin", g->own ? "unix:%s/run/admin.sock"
                   : "unix:%s/admin.sock", g->prefix);
    td_gateway_set(g, "source_gateway", "gateway=%s", g->work->name);
    td_gateway_set(g, "source", config->provisioner.source[0] != '\0' ? "%s"
                   : "unix:%s", config->provisioner.source[0] != '\0'
                   ? config->provisioner.source : config->listen.socket);

    address = config->provisioner.address;
    snprintf(port, sizeof(port), "%d", g->work->port);
    snprintf(text, sizeof(text), strchr(address, ':') != NULL
             && address[0] != '[' ? "[%.100s]:%s" : "%.100s:%s", address, port);
    td_gateway_set(g, "listen", "%s", text);

    snprintf(text, sizeof(text), "%ldms", config->provisioner.drain_timeout);
    td_gateway_set(g, "drain_timeout", "%s", text);

    zone = json_string_value(json_object_get(g->work->spec, "zone"));
    td_gateway_set(g, "zone", "%s", zone != NULL ? zone : "8m");
    td_gateway_set(g, "tenant", "%s", g->work->tenant);

    td_gateway_set_number(g, "generation", g->work->generation);
    td_gateway_set_number(g, "workers",
        td_gateway_number(g->work->spec, "workers",
                          config->provisioner.workers));
    td_gateway_set_number(g, "connections",
        td_gateway_number(g->work->spec, "connections", 1024));
}


static int
td_gateway_name_user(td_gateway_t *g, const char *user, const char *group)
{
    tg_text_t  *block;

    if (user == NULL) {
        return 0;
    }

    block = &g->block[TD_BLOCK_USER];
    tg_text_str(block, "user ");

    if (td_render_string(block, user, strlen(user), NULL, g->err) != 0) {
        return -1;
    }

    tg_text_str(block, " ");

    if (td_render_string(block, group, strlen(group), NULL, g->err) != 0) {
        return -1;
    }

    tg_text_str(block, ";\n");

    return 0;
}


static int
td_gateway_fill(td_gateway_t *g, const char *template, tg_text_t *out)
{
    int                 i;
    char                key[TD_GATEWAY_PATH];
    td_render_block_t   blocks[TD_BLOCK_N + 1];
    td_render_values_t  values = { g->parameters, NULL, blocks };

    /* the site's file is not for everybody: there is a copy in the prefix */
    snprintf(key, sizeof(key), "%s/secret.key", g->prefix);

    if (td_gateway_load(g, g->config->provisioner.modules,
                        "ngx_http_tenant_module.so") != 0
        || td_gateway_directive(g, TD_BLOCK_SECRET_KEY, "tenant_secret_key",
                                g->own && g->config->secrets.key_file[0] != '\0'
                                ? key : g->config->secrets.key_file) != 0
        || td_gateway_trust(g) != 0
        || td_gateway_plugins(g) != 0)
    {
        return -1;
    }

    memset(blocks, 0, sizeof(blocks));

    for (i = 0; i < TD_BLOCK_N; i++) {
        tg_text_add(&g->block[i], "", 1);       /* NUL */
        blocks[i].name = td_gateway_blocks[i];
        blocks[i].text = g->block[i].data;

        if (g->block[i].failed) {
            tg_error_set(g->err, "", "out of memory");
            return -1;
        }
    }

    if (td_render(out, template != NULL ? template : td_gateway_template,
                  &values, g->err) == 0)
    {
        return 0;
    }

    return td_gateway_blame(g, "template");
}


int
td_gateway_render(tg_text_t *out, const td_config_t *config,
    const char *template, const char *user, const char *group, int own,
    const char *prefix, const td_work_t *work, tg_error_t *err)
{
    int           i, rc;
    td_gateway_t  g;

    memset(&g, 0, sizeof(g));
    memset(err, 0, sizeof(tg_error_t));
    g.config = config;
    g.work = work;
    g.prefix = prefix;
    g.own = own;
    g.err = err;
    g.parameters = json_object();

    for (i = 0; i < TD_BLOCK_N; i++) {
        tg_text_init(&g.block[i]);
    }

    td_gateway_parameters(&g);
    rc = td_gateway_name_user(&g, user, group);

    if (rc == 0) {
        rc = td_gateway_fill(&g, template, out);
    }

    for (i = 0; i < TD_BLOCK_N; i++) {
        tg_text_free(&g.block[i]);
    }

    json_decref(g.parameters);

    return rc;
}
