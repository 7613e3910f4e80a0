/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The option table, and the parsers of its types.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "td_config.h"
#include "td_log.h"


static const char *td_parse_string(const char *value, void *field);
static const char *td_parse_bool(const char *value, void *field);
static const char *td_parse_count(const char *value, void *field);
static const char *td_parse_size(const char *value, void *field);
static const char *td_parse_time(const char *value, void *field);
static const char *td_parse_mode(const char *value, void *field);
static const char *td_parse_level(const char *value, void *field);
static const char *td_parse_list(const char *value, void *field);
static const char *td_parse_cidrs(const char *value, void *field);
static const char *td_parse_networks(const char *value, void *field);
static const char *td_parse_ports(const char *value, void *field);
static const char *td_parse_users(const char *value, void *field);
static const char *td_parse_driver(const char *value, void *field);
static const char *td_parse_source(const char *value, void *field);
static const char *td_parse_unknown(const char *value, void *field);
static void td_clear_string(void *field);
static void td_clear_list(void *field);
static void td_clear_cidrs(void *field);


static const td_option_type_t  td_type_string = {
    td_parse_string, td_clear_string, 0
};
static const td_option_type_t  td_type_list = { td_parse_list, td_clear_list, 1 };
static const td_option_type_t  td_type_cidrs = {
    td_parse_cidrs, td_clear_cidrs, 1
};
static const td_option_type_t  td_type_networks = {
    td_parse_networks, td_clear_list, 1
};
static const td_option_type_t  td_type_ports = { td_parse_ports, NULL, 0 };
static const td_option_type_t  td_type_users = { td_parse_users, NULL, 0 };
static const td_option_type_t  td_type_driver = { td_parse_driver, NULL, 0 };
static const td_option_type_t  td_type_source = {
    td_parse_source, td_clear_string, 0
};
static const td_option_type_t  td_type_unknown = { td_parse_unknown, NULL, 0 };
static const td_option_type_t  td_type_bool = { td_parse_bool, NULL, 0 };
static const td_option_type_t  td_type_count = { td_parse_count, NULL, 0 };
static const td_option_type_t  td_type_size = { td_parse_size, NULL, 0 };
static const td_option_type_t  td_type_time = { td_parse_time, NULL, 0 };
static const td_option_type_t  td_type_mode = { td_parse_mode, NULL, 0 };
static const td_option_type_t  td_type_level = { td_parse_level, NULL, 0 };

/* clang-format off */
#define ROW(section, key, fallback, type, reloadable, help)                   \
    { #section, #key, fallback, &td_type_##type,                              \
      offsetof(td_config_t, section.key), reloadable, help }
/* clang-format on */

/* FIXED options need a restart, LIVE ones are reloaded by SIGHUP. */
#define FIXED(section, key, fallback, type, help)                             \
    ROW(section, key, fallback, type, 0, help)
#define LIVE(section, key, fallback, type, help)                              \
    ROW(section, key, fallback, type, 1, help)


const td_option_t  td_options[] = {
    FIXED(listen, socket, "/run/tiergate/tenantd.sock", string,
          "unix socket to listen on; empty for none"),
    FIXED(listen, socket_mode, "0660", mode, "permissions of the socket"),
    FIXED(listen, socket_group, "", string, "group of the socket"),
    LIVE(listen, socket_admin_users, "root", list,
          "users who are admin on the socket without a token"),
    LIVE(listen, socket_gateway_users, "", list,
          "users who are gateways on the socket without a token"),
    FIXED(listen, addresses, "", list,
          "host:port to listen on without TLS; loopback only"),
    FIXED(listen, insecure_listen, "no", bool,
          "allow listening without TLS beyond loopback"),
    FIXED(listen, tls_addresses, "", list,
          "host:port to listen on with TLS"),
    LIVE(listen, tls_certificate, "", string,
          "certificate chain of the TLS listener, PEM"),
    LIVE(listen, tls_key, "", string, "its private key, PEM"),
    LIVE(listen, tls_client_ca, "", string,
          "CA that client certificates must come from, PEM; empty: none asked"),
    LIVE(listen, tls_admin_subjects, "", list,
          "client certificate CNs or URI names that are admin"),
    LIVE(listen, tls_gateway_subjects, "", list,
          "subject=gateway: client certificates that are that gateway"),

    FIXED(http, max_connections, "1024", count,
          "connections at once; more wait in the backlog"),
    FIXED(http, max_header, "32k", size, "size of a request's head"),
    LIVE(http, max_body, "4m", size, "size of a request's body"),
    LIVE(http, import_max_body, "256m", size,
          "size of the body of POST /v1/import, which is held in memory"),
    LIVE(http, imports, "2", count, "imports at once"),
    LIVE(http, request_timeout, "30s", time,
          "from a request's first byte to its last"),
    LIVE(http, import_timeout, "10m", time, "the same for POST /v1/import"),
    FIXED(http, keepalive_timeout, "75s", time,
          "how long a connection may be idle, or not take its answer"),
    LIVE(http, drain_timeout, "10s", time,
          "how long requests may go on after SIGTERM"),
    FIXED(http, openapi, TIERGATE_OPENAPI, string,
          "file served as /v1/openapi.yaml"),

    FIXED(database, conninfo, "dbname=tiergate", string,
          "libpq connection string; its login can SET ROLE to role"),
    FIXED(database, role, "tiergate_daemon", string,
          "role that tenantd takes"),
    FIXED(database, connections, "16", count, "connections for requests"),
    FIXED(database, writers, "4", count,
          "requests at once that change something"),
    FIXED(database, queue, "1024", count,
          "requests that wait for a connection; more get 503"),
    FIXED(database, connect_timeout, "5s", time, "for one connection attempt"),
    FIXED(database, statement_timeout, "10s", time, "for one statement"),
    FIXED(database, sql_dir, TIERGATE_SQL_DIR, string,
          "where tenantd migrate finds the migrations"),

    FIXED(watch, ring_lines, "16384", count,
          "recent changes kept in memory for streams that resume"),
    FIXED(watch, ring_size, "64m", size, "their size"),
    FIXED(watch, list_connections, "2", count,
          "database connections for streams that list or catch up"),
    LIVE(watch, max_pending, "8m", size,
          "what may wait for a slow reader before it is dropped"),
    LIVE(watch, stall_timeout, "10s", time,
          "how long a reader may read nothing before it is dropped"),
    LIVE(watch, recheck_interval, "30s", time,
          "how often the credential of an open stream is checked again"),

    LIVE(jwks, allow_http, "no", bool, "fetch key sets over plain http too"),
    LIVE(jwks, allow_cidrs, "", cidrs,
          "networks that are not public, but may be fetched from"),
    LIVE(jwks, ca_file, "", string,
          "CA bundle for fetching, PEM; empty: the system's"),
    LIVE(jwks, connect_timeout, "3s", time, "for connecting"),
    LIVE(jwks, timeout, "10s", time, "for a whole fetch"),
    LIVE(jwks, max_size, "256k", size, "size of a key set"),
    FIXED(jwks, parallel, "16", count, "fetches at once"),
    FIXED(jwks, poll_interval, "2s", time,
          "how often the registry is asked which key sets are due"),

    LIVE(secrets, key_file, "", string,
          "64 hex digits: seals HMAC keys of issuers; empty: they are refused"),

    FIXED(provisioner, driver, "none", driver,
          "none, or process: runs dedicated gateways on this machine"),
    FIXED(provisioner, node, "", string,
          "this machine's name in the registry; empty: the host's name"),
    FIXED(provisioner, directory, "/var/lib/tiergate/instances", string,
          "where the instances' prefixes are"),
    FIXED(provisioner, nginx, "/usr/sbin/nginx", string, "the nginx to run"),
    FIXED(provisioner, modules, TIERGATE_MODULES_DIR, string,
          "directory of ngx_http_tenant_module.so"),
    FIXED(provisioner, plugin_modules, "/usr/lib/nginx/modules", string,
          "directory of the modules that plugins load"),
    FIXED(provisioner, template, "", string,
          "template of nginx.conf; empty: the one built in"),
    FIXED(provisioner, user, "", string,
          "user of nginx's workers, when tenantd is root"),
    FIXED(provisioner, users, "", users,
          "user numbers of which each instance has its own; empty: user"),
    FIXED(provisioner, address, "127.0.0.1", string,
          "address that instances listen on"),
    FIXED(provisioner, ports, "20000-29999", ports, "ports for them"),
    FIXED(provisioner, advertise, "", string,
          "address at which shared gateways reach them; empty: address"),
    FIXED(provisioner, source, "", string,
          "where instances reach tenantd; empty: [listen] socket"),
    FIXED(provisioner, trusted, "", networks,
          "networks whose X-Forwarded-For instances believe"),
    FIXED(provisioner, workers, "1", count,
          "workers of an instance whose tier does not say"),
    FIXED(provisioner, start_timeout, "10s", time,
          "how long a start or a change may take"),
    FIXED(provisioner, drain_timeout, "600s", time,
          "how long requests may go on when an instance ends"),
    FIXED(provisioner, backoff_min, "500ms", time,
          "wait after a failure; doubled with each"),
    FIXED(provisioner, backoff_max, "60s", time, "but not longer than this"),
    FIXED(provisioner, cgroup, "tiergate.instances", string,
          "cgroup of the instances below the cgroup2 mount; empty: none"),
    FIXED(provisioner, poll, "2s", time,
          "how often the registry is looked at without a notification"),

    FIXED(agent, node, "", string,
          "this machine's name in the registry; empty: the host's name"),
    FIXED(agent, tenantd, "unix:/run/tiergate/tenantd.sock", source,
          "where the registry is: unix:PATH or https://HOST:PORT"),
    FIXED(agent, ca, "", string,
          "CA that tenantd's certificate must come from, PEM; empty: the "
          "system's"),
    FIXED(agent, certificate, "", string,
          "certificate that the agent shows, PEM; empty: none"),
    FIXED(agent, key, "", string, "its private key, PEM"),
    FIXED(agent, token_file, "", string,
          "file with the agent's token; empty: none is sent"),
    FIXED(agent, cgroup, "", string,
          "cgroup that the mesh is attached to; empty: the cgroup2 mount"),
    FIXED(agent, workload_cgroup, "tiergate.mesh", string,
          "cgroup of workloads of tenantd exec, below the cgroup2 mount"),
    FIXED(agent, pins, "/sys/fs/bpf/tiergate", string,
          "where maps and links are pinned, below a bpf file system"),
    FIXED(agent, socket, "/run/tiergate/agent.sock", string,
          "unix socket for tenantd exec; empty: none"),
    FIXED(agent, socket_mode, "0660", mode, "its permissions"),
    FIXED(agent, exec_group, "", string,
          "group that may use tenantd exec beside root; empty: none"),
    FIXED(agent, exec_limit, "1024", count,
          "workloads of tenantd exec at once"),
    FIXED(agent, state, "/var/lib/tiergate/agent", string,
          "directory of the snapshot and the list of workloads of exec"),
    FIXED(agent, metrics, "", string,
          "host:port or unix:PATH of the metrics; empty: none"),
    FIXED(agent, pairs, "4096", count,
          "pairs of services with metrics of their own"),
    FIXED(agent, unknown, "host", unknown,
          "calls of processes that are no workload: host, outside or deny"),
    FIXED(agent, event_rate, "1000", count,
          "records a second of one tenant"),
    FIXED(agent, event_burst, "512", count, "and at once"),
    FIXED(agent, services, "32768", count,
          "room for addresses of services; of pinned maps it stays"),
    FIXED(agent, endpoints, "131072", count,
          "room for endpoints, and for addresses of workloads"),
    FIXED(agent, workloads, "16384", count, "room for workloads of this node"),
    FIXED(agent, tenants, "16384", count, "room for tenants"),
    FIXED(agent, rules, "131072", count, "room for rules"),
    FIXED(agent, flows, "65536", count, "room for flows of this node"),
    FIXED(agent, ring, "4m", size,
          "room for records the agent has not read; a power of two"),
    FIXED(agent, uplink, "yes", bool, "send records to the registry"),
    FIXED(agent, uplink_queue, "65536", count,
          "records that may wait for the registry"),
    FIXED(agent, checks, "256", count, "health checks at once"),

    LIVE(log, level, "notice", level,
          "alert, crit, error, warn, notice, info or debug"),
    LIVE(log, access, "yes", bool, "a line for each request"),
};

const size_t  td_options_n = sizeof(td_options) / sizeof(td_options[0]);


static const char *
td_parse_string(const char *value, void *field)
{
    char  **s = field;

    *s = strdup(value);

    return *s != NULL ? NULL : "is too long for memory";
}


static void
td_clear_string(void *field)
{
    char  **s = field;

    free(*s);
    *s = NULL;
}


static const char *
td_parse_bool(const char *value, void *field)
{
    int                       *flag = field;
    size_t                     i;
    static const char *const   words[] = {
        "no", "yes", "off", "on", "false", "true", "0", "1"
    };

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(value, words[i]) == 0) {
            *flag = (int) (i % 2);
            return NULL;
        }
    }

    return "must be yes or no";
}


typedef struct {
    const char  *name;
    long         factor;
} td_unit_t;


/* A number from low up, followed by one of the units. */
static const char *
td_parse_number(const char *value, long low, const td_unit_t *units, long *out)
{
    char       *end;
    long long   n;

    if (*value < '0' || *value > '9') {
        return "must be a number";
    }

    errno = 0;
    n = strtoll(value, &end, 10);

    for ( ; units->name != NULL; units++) {
        if (strcasecmp(end, units->name) != 0) {
            continue;
        }

        if (errno != 0 || n > LONG_MAX / 4096 / units->factor) {
            return "is too large";
        }

        if (n * units->factor < low) {
            return "is too small";
        }

        *out = (long) n * units->factor;
        return NULL;
    }

    return "has an unknown unit";
}


static const char *
td_parse_count(const char *value, void *field)
{
    static const td_unit_t  units[] = { { "", 1 }, { NULL, 0 } };

    return td_parse_number(value, 1, units, field);
}


static const char *
td_parse_size(const char *value, void *field)
{
    static const td_unit_t  units[] = {
        { "", 1 }, { "k", 1024 }, { "m", 1024 * 1024 },
        { "g", 1024 * 1024 * 1024 }, { NULL, 0 }
    };

    return td_parse_number(value, 1024, units, field);
}


static const char *
td_parse_time(const char *value, void *field)
{
    static const td_unit_t  units[] = {
        { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 },
        { "h", 60 * 60 * 1000 }, { NULL, 0 }
    };

    return td_parse_number(value, 10, units, field);
}


static const char *
td_parse_mode(const char *value, void *field)
{
    char  *end;
    long   mode;

    mode = strtol(value, &end, 8);

    if (*value == '\0' || *end != '\0' || mode < 0 || mode > 0777) {
        return "must be permissions in octal, as in 0660";
    }

    *(long *) field = mode;

    return NULL;
}


static const char *
td_parse_level(const char *value, void *field)
{
    int  level;

    level = td_log_parse_level(value);

    if (level < 0) {
        return "must be alert, crit, error, warn, notice, info or debug";
    }

    *(long *) field = level;

    return NULL;
}


/* Items are separated by commas or white space. */
static const char *
td_parse_list(const char *value, void *field)
{
    char       *copy, *word, *save, **item;
    td_list_t  *list = field;

    copy = strdup(value);
    if (copy == NULL) {
        return "is too long for memory";
    }

    for (word = strtok_r(copy, ", \t\n", &save);
         word != NULL;
         word = strtok_r(NULL, ", \t\n", &save))
    {
        item = realloc(list->item, (list->n + 1) * sizeof(char *));
        if (item == NULL) {
            free(copy);
            return "is too long for memory";
        }

        list->item = item;
        list->item[list->n++] = strdup(word);
    }

    free(copy);

    return NULL;
}


static void
td_clear_list(void *field)
{
    td_list_t  *list = field;

    while (list->n > 0) {
        free(list->item[--list->n]);
    }

    free(list->item);
    list->item = NULL;
}


static const char *
td_parse_cidrs(const char *value, void *field)
{
    size_t       i;
    td_list_t    words = { NULL, 0 };
    td_cidrs_t  *cidrs = field;
    const char  *problem;

    problem = td_parse_list(value, &words);
    cidrs->item = calloc(words.n + 1, sizeof(td_cidr_t));
    cidrs->n = words.n;

    for (i = 0; problem == NULL && i < words.n; i++) {
        if (td_cidr_parse(words.item[i], &cidrs->item[i]) != 0) {
            problem = "must be networks as in 10.0.0.0/8 or fd00::/8, host "
                      "bits 0";
        }
    }

    td_clear_list(&words);

    return problem;
}


/* As a list, of which each must be a network. */
static const char *
td_parse_networks(const char *value, void *field)
{
    td_cidrs_t   cidrs = { NULL, 0 };
    const char  *problem;

    problem = td_parse_cidrs(value, &cidrs);
    td_clear_cidrs(&cidrs);

    return problem != NULL ? problem : td_parse_list(value, field);
}


static const char *
td_parse_ports(const char *value, void *field)
{
    int          n;
    td_range_t  *range = field;

    n = 0;

    if (sscanf(value, "%5ld-%5ld%n", &range->first, &range->last, &n) != 2
        || value[n] != '\0' || range->first < 1 || range->last > 65535
        || range->first > range->last)
    {
        return "must be ports as in 20000-29999";
    }

    return NULL;
}


/* As many as td_users.c keeps in mind at a time; never root. */
static const char *
td_parse_users(const char *value, void *field)
{
    int          n;
    td_range_t  *range = field;

    n = 0;
    range->first = 0;
    range->last = 0;

    if (value[0] == '\0') {
        return NULL;
    }

    if (sscanf(value, "%10ld-%10ld%n", &range->first, &range->last, &n) != 2
        || value[n] != '\0' || range->first < 1 || range->last > 4294967293
        || range->first > range->last || range->last - range->first >= 1000000)
    {
        return "must be user numbers as in 700000-709999, at most a million";
    }

    return NULL;
}


static const char *
td_parse_driver(const char *value, void *field)
{
    long  *driver = field;

    if (strcmp(value, "none") == 0) {
        *driver = TD_DRIVER_NONE;

    } else if (strcmp(value, "process") == 0) {
        *driver = TD_DRIVER_PROCESS;

    } else {
        return "must be none or process";
    }

    return NULL;
}


static const char *
td_parse_source(const char *value, void *field)
{
    if (strncmp(value, "unix:/", 6) != 0 && strncmp(value, "https://", 8) != 0) {
        return "must be unix:PATH or https://HOST:PORT";
    }

    return td_parse_string(value, field);
}


/* As enum tg_unknown counts them. */
static const char *
td_parse_unknown(const char *value, void *field)
{
    long                       i;
    long                      *unknown = field;
    static const char *const   words[] = { "host", "outside", "deny" };

    for (i = 0; i < 3; i++) {
        if (strcmp(value, words[i]) == 0) {
            *unknown = i;
            return NULL;
        }
    }

    return "must be host, outside or deny";
}


static void
td_clear_cidrs(void *field)
{
    td_cidrs_t  *cidrs = field;

    free(cidrs->item);
    cidrs->item = NULL;
    cidrs->n = 0;
}
