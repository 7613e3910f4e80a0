/* SPDX-License-Identifier: BSD-2-Clause */

/* What proxy_set_header and logs need to know of the choice of upstream. */

#include "ngx_http_tenant.h"

#include "../lib/tg_host.h"


static ngx_int_t ngx_http_tenant_balancer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_uint_t ngx_http_tenant_balancer_connection(ngx_http_request_t *r);
static ngx_uint_t ngx_http_tenant_balancer_upgrades(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static void ngx_http_tenant_balancer_host(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_str_t *host);


typedef enum {
    NGX_HTTP_TENANT_VAR_UPSTREAM = 0,
    NGX_HTTP_TENANT_VAR_UPSTREAM_HOST,
    NGX_HTTP_TENANT_VAR_ENDPOINT,
    NGX_HTTP_TENANT_VAR_CONNECTION,
    NGX_HTTP_TENANT_VAR_UPGRADE
} ngx_http_tenant_balancer_variable_e;


static ngx_http_variable_t  ngx_http_tenant_balancer_vars[] = {

    { ngx_string("tenant_upstream"), NULL, ngx_http_tenant_balancer_variable,
      NGX_HTTP_TENANT_VAR_UPSTREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_upstream_host"), NULL,
      ngx_http_tenant_balancer_variable,
      NGX_HTTP_TENANT_VAR_UPSTREAM_HOST, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_endpoint"), NULL, ngx_http_tenant_balancer_variable,
      NGX_HTTP_TENANT_VAR_ENDPOINT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_connection"), NULL, ngx_http_tenant_balancer_variable,
      NGX_HTTP_TENANT_VAR_CONNECTION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_upgrade"), NULL, ngx_http_tenant_balancer_variable,
      NGX_HTTP_TENANT_VAR_UPGRADE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_tenant_balancer_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               s;
    ngx_http_tenant_ctx_t  *ctx;

    ctx = ngx_http_tenant_get_ctx(r);
    ngx_str_null(&s);

    switch (data) {

    case NGX_HTTP_TENANT_VAR_UPSTREAM:
        if (ctx && ctx->upstream) {
            s = ngx_http_tenant_str(ctx->block, ctx->upstream->name);
        }
        break;

    case NGX_HTTP_TENANT_VAR_ENDPOINT:
        if (ctx && ctx->endpoint) {
            s = ngx_http_tenant_str(ctx->block, ctx->endpoint->text);
        }
        break;

    case NGX_HTTP_TENANT_VAR_UPSTREAM_HOST:
        ngx_http_tenant_balancer_host(r, ctx, &s);
        break;

    case NGX_HTTP_TENANT_VAR_CONNECTION:
        if (ngx_http_tenant_balancer_upgrades(r, ctx)) {
            ngx_str_set(&s, "upgrade");
        }
        break;

    default: /* NGX_HTTP_TENANT_VAR_UPGRADE */
        if (ngx_http_tenant_balancer_upgrades(r, ctx)) {
            ngx_str_set(&s, "websocket");
        }
    }

    /* Empty is a value: proxy_set_header then sends no header at all. */
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = s.len;
    v->data = s.data;

    return NGX_OK;
}


/* The upstream's own, or the client's: as it was sent if it names the host that
 * the tenant was found by, which an absolute target overrides. */
static void
ngx_http_tenant_balancer_host(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_str_t *host)
{
    char       name[TG_HOST_SIZE];
    ssize_t    n;
    ngx_str_t  sent;

    if (ctx && ctx->upstream && ctx->upstream->host.len) {
        *host = ngx_http_tenant_str(ctx->block, ctx->upstream->host);
        return;
    }

    *host = r->headers_in.server;

    if (r->headers_in.host == NULL) {
        return;
    }

    sent = r->headers_in.host->value;

    if (sent.len == host->len
        && ngx_memcmp(sent.data, host->data, sent.len) == 0)
    {
        return;
    }

    n = tg_host_normalize((char *) sent.data, sent.len, name, sizeof(name));

    if (n == (ssize_t) host->len && ngx_memcmp(name, host->data, n) == 0) {
        *host = sent;
    }
}


/* Whether a Connection header lists "upgrade".  nginx 1.22 does not fill
 * headers_in.connection. */
static ngx_uint_t
ngx_http_tenant_balancer_connection(ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (header[i].key.len == sizeof("Connection") - 1
                && ngx_strncasecmp(header[i].key.data, (u_char *) "Connection",
                                   sizeof("Connection") - 1) == 0
                && ngx_strcasestrn(header[i].value.data, "upgrade",
                                   sizeof("upgrade") - 2))
            {
                return 1;
            }
        }
    }

    return 0;
}


/* RFC 6455, section 4.2.1, as far as a proxy has to know. */
static ngx_uint_t
ngx_http_tenant_balancer_upgrades(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    ngx_str_t  *upgrade;

    if (ctx == NULL || ctx->route == NULL || !ctx->route->websocket
        || r->method != NGX_HTTP_GET || r->http_version != NGX_HTTP_VERSION_11
        || r->headers_in.upgrade == NULL)
    {
        return 0;
    }

    upgrade = &r->headers_in.upgrade->value;

    return upgrade->len == sizeof("websocket") - 1
           && ngx_strncasecmp(upgrade->data, (u_char *) "websocket",
                              sizeof("websocket") - 1) == 0
           && ngx_http_tenant_balancer_connection(r);
}


ngx_int_t
ngx_http_tenant_balancer_add_variables(ngx_conf_t *cf)
{
    if (ngx_http_tenant_add_table(cf, ngx_http_tenant_balancer_vars) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_tenant_balancer_source_add(cf);
}
