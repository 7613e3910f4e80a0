/* SPDX-License-Identifier: BSD-2-Clause */

/* Variables of the tenant module: who a request belongs to, and why it was refused. */

#include "ngx_http_tenant.h"


typedef enum {
    NGX_HTTP_TENANT_VAR_NAME = 0,
    NGX_HTTP_TENANT_VAR_ID,
    NGX_HTTP_TENANT_VAR_REVISION,
    NGX_HTTP_TENANT_VAR_ROUTE,
    NGX_HTTP_TENANT_VAR_REFUSAL
} ngx_http_tenant_variable_e;


static ngx_int_t ngx_http_tenant_variable_block(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_tenant_vars[] = {

    { ngx_string("tenant_name"), NULL, ngx_http_tenant_variable_block,
      NGX_HTTP_TENANT_VAR_NAME, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_id"), NULL, ngx_http_tenant_variable_block,
      NGX_HTTP_TENANT_VAR_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_revision"), NULL, ngx_http_tenant_variable_block,
      NGX_HTTP_TENANT_VAR_REVISION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_route"), NULL, ngx_http_tenant_variable_block,
      NGX_HTTP_TENANT_VAR_ROUTE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("tenant_refusal"), NULL, ngx_http_tenant_variable_block,
      NGX_HTTP_TENANT_VAR_REFUSAL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_tenant_variable_block(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               s;
    ngx_http_tenant_ctx_t  *ctx;

    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    ngx_str_null(&s);

    if (data == NGX_HTTP_TENANT_VAR_REFUSAL) {
        s = *ngx_http_tenant_refusal_slug(ctx->refusal);

    } else if (ctx->block && data == NGX_HTTP_TENANT_VAR_NAME) {
        s = ngx_http_tenant_str(ctx->block, ctx->block->name);

    } else if (ctx->route && data == NGX_HTTP_TENANT_VAR_ROUTE) {
        s = ngx_http_tenant_str(ctx->block, ctx->route->name);

    } else if (ctx->block && (data == NGX_HTTP_TENANT_VAR_ID
                              || data == NGX_HTTP_TENANT_VAR_REVISION))
    {
        s.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (s.data == NULL) {
            return NGX_ERROR;
        }

        s.len = ngx_sprintf(s.data, "%uL",
                            data == NGX_HTTP_TENANT_VAR_ID
                            ? ctx->block->id : ctx->block->revision)
                - s.data;
    }

    if (s.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = s.len;
    v->data = s.data;

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_add_variables(ngx_conf_t *cf)
{
    return ngx_http_tenant_add_table(cf, ngx_http_tenant_vars);
}


ngx_int_t
ngx_http_tenant_add_table(ngx_conf_t *cf, ngx_http_variable_t *table)
{
    ngx_http_variable_t  *var, *v;

    for (v = table; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}
