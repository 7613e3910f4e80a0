/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * $tenant_upstream_source: from which address and port the endpoint was called, the
 * source of the connection's flow records in the mesh.
 *
 * The connection is at hand only until its answer has been read, long before the
 * request is logged, so the value is written down with the answer's header; in
 * configurations that ask for it, that is.  nginx keeps the address with the
 * connection: a kept connection is asked once.
 */

#include "ngx_http_tenant.h"


#define NGX_HTTP_TENANT_SOURCE  "tenant_upstream_source"


static ngx_int_t ngx_http_tenant_balancer_source(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;

/* Of the variable, in the configuration of this process. */
static ngx_int_t  ngx_http_tenant_balancer_source_index;


static ngx_int_t
ngx_http_tenant_balancer_source_filter(ngx_http_request_t *r)
{
    ngx_str_t                   text;
    ngx_connection_t           *c;
    ngx_http_variable_value_t  *v;

    c = r->upstream ? r->upstream->peer.connection : NULL;

    if (c == NULL || ngx_http_get_module_ctx(r, ngx_http_tenant_module) == NULL)
    {
        return ngx_http_next_header_filter(r);
    }

    text.len = NGX_SOCKADDR_STRLEN;
    text.data = ngx_pnalloc(r->pool, NGX_SOCKADDR_STRLEN);

    if (text.data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_connection_local_sockaddr(c, &text, 1) == NGX_OK) {
        v = &r->variables[ngx_http_tenant_balancer_source_index];
        v->valid = 1;
        v->no_cacheable = 0;
        v->not_found = 0;
        v->len = text.len;
        v->data = text.data;
    }

    return ngx_http_next_header_filter(r);
}


/* No endpoint has answered. */
static ngx_int_t
ngx_http_tenant_balancer_source(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    v->not_found = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_balancer_source_add(ngx_conf_t *cf)
{
    ngx_str_t             name = ngx_string(NGX_HTTP_TENANT_SOURCE);
    ngx_http_variable_t  *var;

    var = ngx_http_add_variable(cf, &name, 0);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_tenant_balancer_source;

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_balancer_source_init(ngx_conf_t *cf)
{
    ngx_uint_t                  i;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == sizeof(NGX_HTTP_TENANT_SOURCE) - 1
            && ngx_strncmp(v[i].name.data, NGX_HTTP_TENANT_SOURCE,
                           v[i].name.len) == 0)
        {
            ngx_http_tenant_balancer_source_index = i;
            ngx_http_next_header_filter = ngx_http_top_header_filter;
            ngx_http_top_header_filter = ngx_http_tenant_balancer_source_filter;
            break;
        }
    }

    return NGX_OK;
}
