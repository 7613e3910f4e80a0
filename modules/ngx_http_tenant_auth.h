/* SPDX-License-Identifier: BSD-2-Clause */

/* What the files of the auth module share. */

#ifndef NGX_HTTP_TENANT_AUTH_H
#define NGX_HTTP_TENANT_AUTH_H

#include "ngx_http_tenant.h"

#include "../lib/tg_bearer.h"
#include "../lib/tg_failures.h"


typedef struct {
    ngx_flag_t                 enable;          /* tenant_auth */
    ngx_str_t                  key_header;      /* lower case */
    ngx_str_t                  key_query;       /* empty: off */
    ngx_http_complex_value_t  *realm;           /* NULL: the tenant's name */
} ngx_http_tenant_auth_loc_conf_t;


/* What a request brought along. */
typedef struct {
    ngx_str_t                  token;           /* of Authorization: Bearer */
    ngx_str_t                  key;             /* API key */
    ngx_uint_t                 tokens;          /* how many of each */
    ngx_uint_t                 keys;
} ngx_http_tenant_credential_t;


/* Why a request is refused; zero what does not apply. */
typedef struct {
    ngx_http_tenant_refusal_e  refusal;
    const char                *error;           /* of RFC 6750; NULL: none */
    ngx_str_t                  reason;          /* for client and log */
    ngx_uint_t                 scope;           /* 1: name the route's scopes */
    ngx_int_t                  retry_after;
} ngx_http_tenant_denial_t;


/* Collects the credentials of the methods that the route accepts.  NGX_OK or
 * NGX_ERROR. */
ngx_int_t ngx_http_tenant_auth_credential(ngx_http_request_t *r,
    const tg_route_t *route, ngx_http_tenant_credential_t *credential);

/* Keeps credentials from the upstream.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_http_tenant_auth_hide(ngx_http_request_t *r,
    const tg_route_t *route);

/* Who sent the credential: NGX_OK and ctx says it, or what the phase handler has
 * to return. */
ngx_int_t ngx_http_tenant_auth_token(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_str_t *text);
ngx_int_t ngx_http_tenant_auth_key(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_str_t *text);

/* What a worker keeps: begins and ends with the process.  rate: thousandths of
 * a failure a second, 0: no limit. */
ngx_int_t ngx_http_tenant_auth_start(ngx_cycle_t *cycle, ngx_uint_t token_cache,
    ngx_uint_t rate, ngx_uint_t burst);
void ngx_http_tenant_auth_stop(void);

/* Refuses and logs; returns what the phase handler has to return. */
ngx_int_t ngx_http_tenant_auth_deny(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_http_tenant_denial_t *denial);

/* Preconfiguration. */
ngx_int_t ngx_http_tenant_auth_add_variables(ngx_conf_t *cf);


#endif /* NGX_HTTP_TENANT_AUTH_H */
