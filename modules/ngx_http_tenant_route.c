/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From the request to its route, and from the route to what is sent upstream.
 *
 * The path that is matched is r->uri: decoded, dot segments and repeated slashes
 * resolved by nginx.  Exactly that path, rewritten as the route says and escaped
 * again, goes upstream; the client's own spelling never does, so what was
 * authorised is what the upstream sees.
 */

#include "ngx_http_tenant.h"

#include "../lib/tg_match.h"


static ngx_uint_t ngx_http_tenant_hidden_dots(const ngx_str_t *path);
static uint32_t ngx_http_tenant_method(ngx_http_request_t *r);
static int ngx_http_tenant_header_value(void *data, const char *name,
    size_t name_len, const char **value, size_t *value_len);
static ngx_int_t ngx_http_tenant_bad_method(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, uint32_t allowed);
static void ngx_http_tenant_path(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_str_t *path);
static ngx_int_t ngx_http_tenant_rewrite(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_int_t ngx_http_tenant_join(ngx_http_request_t *r,
    ngx_str_t head, ngx_str_t tail, ngx_str_t *path);
static ngx_int_t ngx_http_tenant_add_identity(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);


static const ngx_str_t  ngx_http_tenant_root = ngx_string("/");

/* In the order of TG_METHOD_*. */
static const ngx_str_t  ngx_http_tenant_methods[] = {
    ngx_string("GET"),
    ngx_string("HEAD"),
    ngx_string("POST"),
    ngx_string("PUT"),
    ngx_string("DELETE"),
    ngx_string("PATCH"),
    ngx_string("OPTIONS")
};

typedef enum {
    NGX_HTTP_TENANT_HEADER_TENANT = 0,
    NGX_HTTP_TENANT_HEADER_AUTH,
    NGX_HTTP_TENANT_HEADER_CONSUMER,
    NGX_HTTP_TENANT_HEADER_SCOPES,
    NGX_HTTP_TENANT_HEADERS
} ngx_http_tenant_header_e;

/* The hashes are filled in at start. */
static ngx_http_tenant_header_t  ngx_http_tenant_headers[] = {
    { ngx_string("X-Tenant"), (u_char *) "x-tenant", 0 },
    { ngx_string("X-Tenant-Auth"), (u_char *) "x-tenant-auth", 0 },
    { ngx_string("X-Tenant-Consumer"), (u_char *) "x-tenant-consumer", 0 },
    { ngx_string("X-Tenant-Scopes"), (u_char *) "x-tenant-scopes", 0 }
};

static const ngx_str_t  ngx_http_tenant_auth_names[] = {
    ngx_string("anonymous"),
    ngx_string("jwt"),
    ngx_string("api_key")
};


ngx_int_t
ngx_http_tenant_match(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    int                           index;
    ngx_str_t                     path;
    tg_match_result_t             result;
    tg_match_request_t            request;
    ngx_http_tenant_main_conf_t  *tmcf;

    ngx_http_tenant_path(r, ctx, &path);

    if (ngx_http_tenant_hidden_dots(&path)) {
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_BAD_REQUEST,
                                      NULL);
    }

    ngx_memzero(&request, sizeof(request));
    request.path = (char *) path.data;
    request.path_len = path.len;
    request.host = (char *) r->headers_in.server.data;
    request.host_len = r->headers_in.server.len;
    request.method = ngx_http_tenant_method(r);
    request.header = ngx_http_tenant_header_value;
    request.data = r;

    index = tg_match_route(ctx->block, &request, &result);

    switch (index) {

    case TG_MATCH_NONE:
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_NO_ROUTE, NULL);

    case TG_MATCH_METHOD:
        return ngx_http_tenant_bad_method(r, ctx, result.allowed);

    case TG_MATCH_ERROR:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tenant \"%*s\": a route's regular expression is too "
                      "costly for \"%V\"", (size_t) ctx->block->name.len,
                      tg_str(ctx->block, ctx->block->name), &path);
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_BAD_REQUEST,
                                      NULL);
    }

    ctx->route = tg_vec(ctx->block, ctx->block->routes, tg_route_t) + index;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);
    ctx->counters = tg_zone_ptr(tmcf->zone, ctx->route->counters);
    tg_zone_fetch(tmcf->zone, ctx->block, ctx->route);
    tg_hints_learn(tmcf->hints, tmcf->zone, ngx_http_tenant_slot, ctx->block,
                   ctx->route);

    return NGX_DECLINED;
}


/*
 * Whether an upstream could find a dot segment that nginx has not: some cut
 * parameters off each segment ("/public/..;/private"), some take "\" for "/".
 * They would see another path than the one that was authorised.
 */
static ngx_uint_t
ngx_http_tenant_hidden_dots(const ngx_str_t *path)
{
    u_char  *p, *last;
    size_t   dots;

    last = path->data + path->len;

    if (ngx_strlchr(path->data, last, ';') == NULL
        && ngx_strlchr(path->data, last, '\\') == NULL)
    {
        return 0;
    }

    for (p = path->data; p < last; p++) {

        if (*p != '/' && *p != '\\') {
            continue;
        }

        dots = 0;

        while (p + dots + 1 < last && p[dots + 1] == '.') {
            dots++;
        }

        if ((dots == 1 || dots == 2)
            && (p + dots + 1 == last || p[dots + 1] == '/'
                || p[dots + 1] == '\\' || p[dots + 1] == ';'))
        {
            return 1;
        }
    }

    return 0;
}


static uint32_t
ngx_http_tenant_method(ngx_http_request_t *r)
{
    switch (r->method) {
    case NGX_HTTP_GET:      return TG_METHOD_GET;
    case NGX_HTTP_HEAD:     return TG_METHOD_HEAD;
    case NGX_HTTP_POST:     return TG_METHOD_POST;
    case NGX_HTTP_PUT:      return TG_METHOD_PUT;
    case NGX_HTTP_DELETE:   return TG_METHOD_DELETE;
    case NGX_HTTP_PATCH:    return TG_METHOD_PATCH;
    case NGX_HTTP_OPTIONS:  return TG_METHOD_OPTIONS;
    default:                return TG_METHOD_OTHER;
    }
}


/* The first header of that name (name is lower case): 1, or 0 if there is none. */
static int
ngx_http_tenant_header_value(void *data, const char *name, size_t name_len,
    const char **value, size_t *value_len)
{
    ngx_http_request_t  *r = data;

    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (header[i].key.len == name_len
                && ngx_strncasecmp(header[i].key.data, (u_char *) name,
                                   name_len) == 0)
            {
                *value = (char *) header[i].value.data;
                *value_len = header[i].value.len;
                return 1;
            }
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_tenant_bad_method(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    uint32_t allowed)
{
    u_char                    *p;
    ngx_uint_t                 i;
    ngx_http_tenant_refuse_t   more;

    ngx_memzero(&more, sizeof(more));

    p = ngx_pnalloc(r->pool, sizeof("GET, HEAD, POST, PUT, DELETE, PATCH, "
                                    "OPTIONS, "));
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    more.allow.data = p;

    for (i = 0; i < sizeof(ngx_http_tenant_methods) / sizeof(ngx_str_t); i++) {
        if (allowed & (1u << i)) {
            p = ngx_sprintf(p, "%V, ", &ngx_http_tenant_methods[i]);
        }
    }

    if (p > more.allow.data) {
        more.allow.len = p - more.allow.data - (sizeof(", ") - 1);
    }

    return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_BAD_METHOD, &more);
}


/* The path within the tenant: without the prefix that named it. */
static void
ngx_http_tenant_path(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_str_t *path)
{
    path->data = r->uri.data + ctx->prefix.len;
    path->len = r->uri.len - ctx->prefix.len;

    if (path->len == 0) {
        *path = ngx_http_tenant_root;
    }
}


ngx_int_t
ngx_http_tenant_prepare_upstream(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    if (ctx->rewritten) {
        return NGX_OK;
    }

    ctx->rewritten = 1;

    if (ngx_http_tenant_rewrite(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    /* r->uri, escaped, is what the proxy module sends from here on */
    r->valid_unparsed_uri = 0;
    r->quoted_uri = 1;

    return ngx_http_tenant_add_identity(r, ctx);
}


static ngx_int_t
ngx_http_tenant_rewrite(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_str_t          path, rest, value;
    const tg_route_t  *route;

    route = ctx->route;
    value = ngx_http_tenant_str(ctx->block, route->rewrite);

    ngx_http_tenant_path(r, ctx, &path);

    rest = path;

    if (route->path_type != TG_PATH_REGEX) {
        /* an exact path has no rest; a prefix may end in the slash it shares */
        rest.data += ngx_min(route->path.len, rest.len);
        rest.len -= ngx_min(route->path.len, rest.len);
    }

    switch (route->rewrite_type) {

    case TG_REWRITE_STRIP_PREFIX:
        return ngx_http_tenant_join(r, ngx_http_tenant_root, rest, &r->uri);

    case TG_REWRITE_REPLACE_PREFIX:
        return ngx_http_tenant_join(r, value, rest, &r->uri);

    case TG_REWRITE_REPLACE_PATH:
        r->uri = value;
        return NGX_OK;

    default:
        r->uri = path;
        return NGX_OK;
    }
}


/* head and tail with exactly one slash between them, if tail is not empty: the
 * slash at the end of a path stays (Gateway API, ReplacePrefixMatch). */
static ngx_int_t
ngx_http_tenant_join(ngx_http_request_t *r, ngx_str_t head, ngx_str_t tail,
    ngx_str_t *path)
{
    u_char  *p;

    if (tail.len && head.len && head.data[head.len - 1] == '/') {
        head.len--;
    }

    p = ngx_pnalloc(r->pool, head.len + 1 + tail.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    path->data = p;
    p = ngx_cpymem(p, head.data, head.len);

    if (tail.len && tail.data[0] != '/') {
        *p++ = '/';
    }

    p = ngx_cpymem(p, tail.data, tail.len);
    path->len = p - path->data;

    return NGX_OK;
}


void
ngx_http_tenant_init_identity(void)
{
    ngx_uint_t                 i;
    ngx_http_tenant_header_t  *header;

    for (i = 0; i < NGX_HTTP_TENANT_HEADERS; i++) {
        header = &ngx_http_tenant_headers[i];
        header->hash = ngx_hash_key(header->lowcase, header->key.len);
    }
}


/* An empty value adds nothing. */
static ngx_int_t
ngx_http_tenant_add_identity_header(ngx_http_request_t *r,
    ngx_http_tenant_header_e header, const ngx_str_t *value)
{
    return value->len == 0
           ? NGX_OK
           : ngx_http_tenant_add_header(r, &ngx_http_tenant_headers[header],
                                        value);
}


static ngx_int_t
ngx_http_tenant_add_identity(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_str_t  name;

    name = ngx_http_tenant_str(ctx->block, ctx->block->name);

    if (ngx_http_tenant_add_identity_header(r, NGX_HTTP_TENANT_HEADER_TENANT,
                                            &name) != NGX_OK
        || ngx_http_tenant_add_identity_header(r, NGX_HTTP_TENANT_HEADER_AUTH,
                              &ngx_http_tenant_auth_names[ctx->auth]) != NGX_OK
        || ngx_http_tenant_add_identity_header(r,
                              NGX_HTTP_TENANT_HEADER_CONSUMER, &ctx->consumer)
           != NGX_OK
        || ngx_http_tenant_add_identity_header(r,
                              NGX_HTTP_TENANT_HEADER_SCOPES, &ctx->scopes)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
