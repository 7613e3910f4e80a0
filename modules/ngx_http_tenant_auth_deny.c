/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Refusals of the auth module: the challenge of RFC 6750 section 3, the sentence
 * for the tenant's developer, and the line in the log.
 */

#include "ngx_http_tenant_auth.h"


static ngx_int_t ngx_http_tenant_auth_realm(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_str_t *realm);
static ngx_int_t ngx_http_tenant_auth_challenge(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_http_tenant_denial_t *denial,
    ngx_str_t *challenge);
static size_t ngx_http_tenant_auth_scopes_len(const tg_block_t *block,
    const tg_route_t *route);
static u_char *ngx_http_tenant_auth_quote(u_char *p, const u_char *data,
    size_t len);
static u_char *ngx_http_tenant_auth_scopes(u_char *p, const tg_block_t *block,
    const tg_route_t *route);
static ngx_int_t ngx_http_tenant_auth_detail(ngx_http_request_t *r,
    const ngx_http_tenant_denial_t *denial, ngx_str_t *detail);
static ngx_int_t ngx_http_tenant_auth_deny_for_now(ngx_http_request_t *r,
    ngx_int_t status, const ngx_str_t *challenge);


ngx_int_t
ngx_http_tenant_auth_deny(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const ngx_http_tenant_denial_t *denial)
{
    ngx_str_t                  tenant;
    ngx_http_tenant_refuse_t   more;
    ngx_http_core_loc_conf_t  *clcf;

    ngx_memzero(&more, sizeof(ngx_http_tenant_refuse_t));

    tenant = ngx_http_tenant_str(ctx->block, ctx->block->name);

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "tenant \"%V\": %V: %V", &tenant,
                  ngx_http_tenant_refusal_slug(denial->refusal),
                  &denial->reason);

    more.retry_after = denial->retry_after;

    if (ngx_http_tenant_auth_detail(r, denial, &more.detail) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (denial->refusal != NGX_HTTP_TENANT_AUTH_LIMITED
        && ngx_http_tenant_auth_challenge(r, ctx, denial,
                                          &more.www_authenticate)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->satisfy == NGX_HTTP_SATISFY_ANY) {

        switch (denial->refusal) {

        case NGX_HTTP_TENANT_NO_CREDENTIAL:
        case NGX_HTTP_TENANT_BAD_CREDENTIAL:
            return ngx_http_tenant_auth_deny_for_now(r, NGX_HTTP_UNAUTHORIZED,
                                                     &more.www_authenticate);

        case NGX_HTTP_TENANT_FORBIDDEN:
            return ngx_http_tenant_auth_deny_for_now(r, NGX_HTTP_FORBIDDEN,
                                                     &more.www_authenticate);

        default:
            break;
        }
    }

    return ngx_http_tenant_refuse(r, ctx, denial->refusal, &more);
}


/* Under "satisfy any" another access module may still let the request in, so
 * nginx has the last word, as for auth_basic. */
static ngx_int_t
ngx_http_tenant_auth_deny_for_now(ngx_http_request_t *r, ngx_int_t status,
    const ngx_str_t *challenge)
{
    ngx_table_elt_t  *header;

    header = ngx_list_push(&r->headers_out.headers);
    if (header == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(header, sizeof(ngx_table_elt_t));

    header->hash = 1;
    ngx_str_set(&header->key, "WWW-Authenticate");
    header->value = *challenge;

    /* nginx takes it back if the request is let in */
    r->headers_out.www_authenticate = header;

    return status;
}


/* The reason with a capital letter and a full stop. */
static ngx_int_t
ngx_http_tenant_auth_detail(ngx_http_request_t *r,
    const ngx_http_tenant_denial_t *denial, ngx_str_t *detail)
{
    detail->len = denial->reason.len + 1;
    detail->data = ngx_pnalloc(r->pool, detail->len);

    if (detail->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(detail->data, denial->reason.data, denial->reason.len);
    detail->data[0] = ngx_toupper(detail->data[0]);
    detail->data[denial->reason.len] = '.';

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_realm(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_str_t *realm)
{
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);

    if (alcf->realm) {
        return ngx_http_complex_value(r, alcf->realm, realm);
    }

    *realm = ngx_http_tenant_str(ctx->block, ctx->block->name);

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_challenge(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_http_tenant_denial_t *denial,
    ngx_str_t *challenge)
{
    u_char      *p;
    size_t       size;
    ngx_str_t    realm;

    static const char  error[] = "\", error=\"";
    static const char  description[] = "\", error_description=\"";
    static const char  scope[] = "\", scope=\"";

    if (ngx_http_tenant_auth_realm(r, ctx, &realm) != NGX_OK) {
        return NGX_ERROR;
    }

    /* twice: each character may be escaped */
    size = sizeof("Bearer realm=\"\", error=\"insufficient_scope\", "
                  "error_description=\"\", scope=\"\"")
           + 2 * (realm.len + denial->reason.len)
           + 2 * ngx_http_tenant_auth_scopes_len(ctx->block, ctx->route);

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    challenge->data = p;

    p = ngx_cpymem(p, ctx->route->auth_methods & TG_AUTH_JWT ? "Bearer"
                                                             : "ApiKey", 6);
    p = ngx_cpymem(p, " realm=\"", sizeof(" realm=\"") - 1);
    p = ngx_http_tenant_auth_quote(p, realm.data, realm.len);

    /* RFC 6750 section 3.1: no error where there was no credential */
    if (denial->error) {
        p = ngx_cpymem(p, error, sizeof(error) - 1);
        p = ngx_cpymem(p, denial->error, ngx_strlen(denial->error));
        p = ngx_cpymem(p, description, sizeof(description) - 1);
        p = ngx_http_tenant_auth_quote(p, denial->reason.data,
                                       denial->reason.len);
    }

    if (denial->scope && ctx->route->scopes.n) {
        p = ngx_cpymem(p, scope, sizeof(scope) - 1);
        p = ngx_http_tenant_auth_scopes(p, ctx->block, ctx->route);
    }

    *p++ = '"';

    challenge->len = p - challenge->data;

    return NGX_OK;
}


/* The inside of a quoted-string, RFC 9110 section 5.6.4. */
static u_char *
ngx_http_tenant_auth_quote(u_char *p, const u_char *data, size_t len)
{
    while (len--) {

        if (*data == '"' || *data == '\\') {
            *p++ = '\\';
        }

        *p++ = *data < 0x20 || *data == 0x7f ? ' ' : *data;
        data++;
    }

    return p;
}


static size_t
ngx_http_tenant_auth_scopes_len(const tg_block_t *block,
    const tg_route_t *route)
{
    size_t           len;
    uint32_t         i;
    const tg_ref_t  *scope;

    scope = tg_vec(block, route->scopes, tg_ref_t);
    len = 0;

    for (i = 0; i < route->scopes.n; i++) {
        len += scope[i].len + 1;
    }

    return len;
}


static u_char *
ngx_http_tenant_auth_scopes(u_char *p, const tg_block_t *block,
    const tg_route_t *route)
{
    uint32_t         i;
    const tg_ref_t  *scope;

    scope = tg_vec(block, route->scopes, tg_ref_t);

    for (i = 0; i < route->scopes.n; i++) {

        if (i != 0) {
            *p++ = ' ';
        }

        p = ngx_http_tenant_auth_quote(p, (u_char *) tg_str(block, scope[i]),
                                       scope[i].len);
    }

    return p;
}
