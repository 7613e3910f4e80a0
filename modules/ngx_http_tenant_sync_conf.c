/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The directives that say where the registry is, and what a gateway is in it.
 */

#include "ngx_http_tenant_sync.h"

#include "../lib/tg_secret.h"


#define NGX_HTTP_TENANT_TOKEN_MAX    512


void *
ngx_http_tenant_sync_create_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_sync_conf_t));
    if (tscf == NULL) {
        return NULL;
    }

    tscf->snapshot_interval = 1000;
    tscf->metrics_tenants = 1000;

    return tscf;
}


/* The first word of a file: nothing but visible characters. */
static char *
ngx_http_tenant_token(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *token)
{
    ssize_t    n;
    u_char     buf[NGX_HTTP_TENANT_TOKEN_MAX + 3], *p;
    ngx_fd_t   fd;

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    n = (fd == NGX_INVALID_FILE) ? -1 : ngx_read_fd(fd, buf, sizeof(buf));

    if (n == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "token file \"%V\" cannot be read", name);
    }

    if (fd != NGX_INVALID_FILE) {
        (void) ngx_close_file(fd);
    }

    if (n == -1) {
        return NGX_CONF_ERROR;
    }

    while (n > 0 && (buf[n - 1] == LF || buf[n - 1] == CR)) {
        n--;
    }

    for (p = buf; p < buf + n; p++) {
        if (*p < 0x21 || *p > 0x7e) {
            n = 0;
        }
    }

    if (n == 0 || n > NGX_HTTP_TENANT_TOKEN_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must hold one token and nothing else", name);
        return NGX_CONF_ERROR;
    }

    token->len = n;
    token->data = ngx_pstrdup(cf->pool, &(ngx_str_t) { (size_t) n, buf });
    ngx_explicit_memzero(buf, sizeof(buf));

    return token->data ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_tenant_gateway_name(const ngx_str_t *name)
{
    size_t  i;

    for (i = 0; i < name->len; i++) {
        if (!((name->data[i] >= 'a' && name->data[i] <= 'z')
              || (name->data[i] >= '0' && name->data[i] <= '9')
              || (name->data[i] == '-' && i != 0 && i != name->len - 1)))
        {
            return NGX_ERROR;
        }
    }

    return name->len && name->len <= TG_SNAPSHOT_GATEWAY ? NGX_OK : NGX_ERROR;
}


static char *
ngx_http_tenant_source_url(ngx_conf_t *cf, ngx_http_tenant_main_conf_t *tmcf,
    ngx_str_t *value)
{
    ngx_url_t  *u;

    u = ngx_pcalloc(cf->pool, sizeof(ngx_url_t));
    if (u == NULL) {
        return NGX_CONF_ERROR;
    }

    u->url = *value;
    u->default_port = 80;

    if (ngx_strncmp(value->data, "http://", 7) == 0) {
        u->url.data += 7;
        u->url.len -= 7;

    } else if (ngx_strncmp(value->data, "unix:", 5) != 0) {
        return "takes unix:/PATH or http://HOST:PORT";
    }

    if (ngx_parse_url(cf->pool, u) != NGX_OK) {
        if (u->err) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s in \"%V\"", u->err,
                               value);
        }

        return NGX_CONF_ERROR;
    }

    if (u->uri.len) {
        return "takes an address without a path";
    }

    tmcf->source = u;

    return NGX_CONF_OK;
}


char *
ngx_http_tenant_source(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                         *rv;
    ngx_str_t                    *value, name;
    ngx_uint_t                    i;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);
    value = cf->args->elts;

    if (tmcf->source) {
        return "is duplicate";
    }

    rv = ngx_http_tenant_source_url(cf, tmcf, &value[1]);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "gateway=", 8) == 0) {
            tmcf->gateway.data = value[i].data + 8;
            tmcf->gateway.len = value[i].len - 8;

            if (ngx_http_tenant_gateway_name(&tmcf->gateway) != NGX_OK) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "gateway name \"%V\" is not of a-z, 0-9 and "
                                   "\"-\", or too long", &tmcf->gateway);
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "token=", 6) == 0) {
            name.data = value[i].data + 6;
            name.len = value[i].len - 6;

            rv = ngx_http_tenant_token(cf, &name, &tmcf->token);
            if (rv != NGX_CONF_OK) {
                return rv;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                           &value[i]);
        return NGX_CONF_ERROR;
    }

    return tmcf->gateway.len ? NGX_CONF_OK : "needs gateway=NAME";
}


char *
ngx_http_tenant_snapshot_path(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_sync_conf_t  *tscf = conf;

    ngx_str_t                    *value, s;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);
    value = cf->args->elts;

    if (tmcf->snapshot.len) {
        return "is duplicate";
    }

    tmcf->snapshot = value[1];

    if (tmcf->snapshot.len == 0
        || ngx_conf_full_name(cf->cycle, &tmcf->snapshot, 0) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (tmcf->snapshot.len > NGX_MAX_PATH - 16) {
        return "has too long a path";
    }

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value[2].data, "interval=", 9) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    s.data = value[2].data + 9;
    s.len = value[2].len - 9;
    tscf->snapshot_interval = ngx_parse_time(&s, 0);

    if (tscf->snapshot_interval == (ngx_msec_t) NGX_ERROR
        || tscf->snapshot_interval == 0)
    {
        return "has an invalid interval";
    }

    return NGX_CONF_OK;
}


char *
ngx_http_tenant_secret_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                    *value;
    tg_error_t                    err;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);
    value = cf->args->elts;

    if (tmcf->secret_key.len) {
        return "is duplicate";
    }

    if (ngx_conf_full_name(cf->cycle, &value[1], 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    tmcf->secret_key.data = ngx_palloc(cf->pool, TG_SECRET_KEY_SIZE);
    if (tmcf->secret_key.data == NULL) {
        return NGX_CONF_ERROR;
    }

    if (tg_secret_load_key((char *) value[1].data, tmcf->secret_key.data, &err)
        != 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "secret key \"%V\": %s",
                           &value[1], err.message);
        return NGX_CONF_ERROR;
    }

    tmcf->secret_key.len = TG_SECRET_KEY_SIZE;

    return NGX_CONF_OK;
}
