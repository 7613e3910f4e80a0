/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Variables of the auth module.  What a token says may end up in a header or in a
 * log line: no value has a raw control character.
 */

#include "ngx_http_tenant_auth.h"


typedef enum {
    NGX_HTTP_TENANT_VAR_CONSUMER = 0,
    NGX_HTTP_TENANT_VAR_CONSUMER_ID,
    NGX_HTTP_TENANT_VAR_AUTH_METHOD,
    NGX_HTTP_TENANT_VAR_SCOPES
} ngx_http_tenant_auth_variable_e;


static ngx_int_t ngx_http_tenant_auth_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tenant_auth_consumer_id(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_str_t *s);
static ngx_int_t ngx_http_tenant_auth_variable_claim(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static const json_t *ngx_http_tenant_auth_claim(const json_t *claims,
    const u_char *name, size_t len);
static ngx_int_t ngx_http_tenant_auth_claim_text(ngx_http_request_t *r,
    const json_t *claim, ngx_str_t *s);
static ngx_uint_t ngx_http_tenant_auth_is_plain(const char *text, size_t len);
static void ngx_http_tenant_auth_set(ngx_http_variable_value_t *v,
    const ngx_str_t *s);


static ngx_http_variable_t  ngx_http_tenant_auth_vars[] = {

    { ngx_string("tenant_consumer"), NULL, ngx_http_tenant_auth_variable,
      NGX_HTTP_TENANT_VAR_CONSUMER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_consumer_id"), NULL, ngx_http_tenant_auth_variable,
      NGX_HTTP_TENANT_VAR_CONSUMER_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_auth_method"), NULL, ngx_http_tenant_auth_variable,
      NGX_HTTP_TENANT_VAR_AUTH_METHOD, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_scopes"), NULL, ngx_http_tenant_auth_variable,
      NGX_HTTP_TENANT_VAR_SCOPES, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_claim_"), NULL, ngx_http_tenant_auth_variable_claim,
      0, NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

      ngx_http_null_variable
};


/* In the order of ngx_http_tenant_auth_e. */
static const ngx_str_t  ngx_http_tenant_auth_methods[] = {
    ngx_string("anonymous"),
    ngx_string("jwt"),
    ngx_string("api_key")
};


ngx_int_t
ngx_http_tenant_auth_add_variables(ngx_conf_t *cf)
{
    return ngx_http_tenant_add_table(cf, ngx_http_tenant_auth_vars);
}


static ngx_int_t
ngx_http_tenant_auth_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               s;
    ngx_http_tenant_ctx_t  *ctx;

    ctx = ngx_http_tenant_get_ctx(r);

    ngx_str_null(&s);

    if (ctx && ctx->authenticated) {

        switch (data) {

        case NGX_HTTP_TENANT_VAR_CONSUMER:
            s = ctx->consumer;
            break;

        case NGX_HTTP_TENANT_VAR_CONSUMER_ID:
            if (ngx_http_tenant_auth_consumer_id(r, ctx, &s) != NGX_OK) {
                return NGX_ERROR;
            }

            break;

        case NGX_HTTP_TENANT_VAR_AUTH_METHOD:
            s = ngx_http_tenant_auth_methods[ctx->auth];
            break;

        case NGX_HTTP_TENANT_VAR_SCOPES:
            s = ctx->scopes;
            break;
        }
    }

    ngx_http_tenant_auth_set(v, &s);

    return NGX_OK;
}


/* Looked up when asked for: most requests need the name only. */
static ngx_int_t
ngx_http_tenant_auth_consumer_id(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_str_t *s)
{
    ngx_int_t             rc;
    ngx_str_t             name;
    ngx_uint_t            first, last, middle;
    const tg_consumer_t  *consumer;

    consumer = tg_vec(ctx->block, ctx->block->consumers, tg_consumer_t);
    first = 0;
    last = ctx->consumer.len ? ctx->block->consumers.n : 0;

    while (first < last) {
        middle = (first + last) / 2;
        name = ngx_http_tenant_str(ctx->block, consumer[middle].name);

        rc = ngx_memn2cmp(ctx->consumer.data, name.data, ctx->consumer.len,
                          name.len);

        if (rc == 0) {
            s->data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
            if (s->data == NULL) {
                return NGX_ERROR;
            }

            s->len = ngx_sprintf(s->data, "%uL", consumer[middle].id) - s->data;

            return NGX_OK;
        }

        if (rc < 0) {
            last = middle;
        } else {
            first = middle + 1;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_variable_claim(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  *name = (ngx_str_t *) data;

    size_t                  prefix;
    ngx_str_t               s;
    const json_t           *claim;
    ngx_http_tenant_ctx_t  *ctx;

    ctx = ngx_http_tenant_get_ctx(r);
    prefix = sizeof("tenant_claim_") - 1;

    ngx_str_null(&s);

    if (ctx && ctx->claims) {
        claim = ngx_http_tenant_auth_claim(ctx->claims, name->data + prefix,
                                           name->len - prefix);

        if (claim && ngx_http_tenant_auth_claim_text(r, claim, &s) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_http_tenant_auth_set(v, &s);

    return NGX_OK;
}


/* nginx has variable names in lower case, claims need not be: the claim of that
 * very name, or the only one that differs in case. */
static const json_t *
ngx_http_tenant_auth_claim(const json_t *claims, const u_char *name, size_t len)
{
    json_t        *value;
    const char    *key;
    const json_t  *found;

    found = NULL;

    json_object_foreach((json_t *) claims, key, value) {

        if (ngx_strlen(key) != len
            || ngx_strncasecmp((u_char *) key, (u_char *) name, len) != 0)
        {
            continue;
        }

        if (ngx_memcmp(key, name, len) == 0) {
            return value;
        }

        if (found) {
            return NULL;
        }

        found = value;
    }

    return found;
}


/* Strings as they are, anything else, and strings with control characters, as
 * JSON text.  null has none. */
static ngx_int_t
ngx_http_tenant_auth_claim_text(ngx_http_request_t *r, const json_t *claim,
    ngx_str_t *s)
{
    size_t  len;

    if (json_is_null(claim)) {
        return NGX_OK;
    }

    if (json_is_string(claim)
        && ngx_http_tenant_auth_is_plain(json_string_value(claim),
                                         json_string_length(claim)))
    {
        /* the claims live as long as the request */
        s->data = (u_char *) json_string_value(claim);
        s->len = json_string_length(claim);
        return NGX_OK;
    }

    len = json_dumpb(claim, NULL, 0, JSON_COMPACT|JSON_ENCODE_ANY);
    if (len == 0) {
        return NGX_ERROR;
    }

    s->data = ngx_pnalloc(r->pool, len);
    if (s->data == NULL) {
        return NGX_ERROR;
    }

    s->len = json_dumpb(claim, (char *) s->data, len,
                        JSON_COMPACT|JSON_ENCODE_ANY);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_tenant_auth_is_plain(const char *text, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if ((u_char) text[i] < 0x20) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_http_tenant_auth_set(ngx_http_variable_value_t *v, const ngx_str_t *s)
{
    if (s->len == 0) {
        v->not_found = 1;
        return;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = s->len;
    v->data = s->data;
}
