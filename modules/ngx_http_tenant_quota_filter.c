/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The response: RateLimit headers, and giving back what was in flight.
 */

#include "ngx_http_tenant_quota.h"


static const ngx_str_t  ngx_http_tenant_quota_policy_name =
    ngx_string("RateLimit-Policy");
static const ngx_str_t  ngx_http_tenant_quota_limit_name =
    ngx_string("RateLimit");

static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static void
ngx_http_tenant_quota_give_back(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    tg_quota_release(tmcf->zone, ctx->hold_pin ? ctx->hold_pin : ctx->pin,
                     ctx->held, ctx->held_n);
    ctx->held_n = 0;

    ngx_http_tenant_balancer_forget(r, ctx);
}


/* Sets or replaces; an upstream has no say in the limits of its gateway. */
static ngx_int_t
ngx_http_tenant_quota_set_header(ngx_http_request_t *r, const ngx_str_t *name,
    const ngx_str_t *value)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header;

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (header[i].key.len == name->len
                && ngx_strncasecmp(header[i].key.data, name->data, name->len)
                   == 0)
            {
                header[i].hash = 0;
            }
        }
    }

    if (value->len == 0) {
        return NGX_OK;
    }

    header = ngx_list_push(&r->headers_out.headers);
    if (header == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(header, sizeof(ngx_table_elt_t));

    header->hash = 1;
    header->key = *name;
    header->value = *value;

    return NGX_OK;
}


/* What is about to be written ends the response.  A body of known length is
 * whole for its reader before nginx marks its end. */
static ngx_uint_t
ngx_http_tenant_quota_is_last(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        if (in->buf->last_buf) {
            return 1;
        }

        if (!ngx_buf_special(in->buf)) {
            ctx->sent += ngx_buf_size(in->buf);
        }
    }

    return r->headers_out.content_length_n >= 0
           && ctx->sent >= r->headers_out.content_length_n;
}


static ngx_int_t
ngx_http_tenant_quota_header_filter(ngx_http_request_t *r)
{
    ngx_http_tenant_ctx_t             *ctx;
    ngx_http_tenant_quota_loc_conf_t  *qlcf;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx && ctx->counters) {
        /* the request will soon be counted, and its endpoint judged */
        tg_zone_fetch_counters(ctx->counters);

        if (ctx->state) {
            __builtin_prefetch(ctx->state, 1);
        }

        if (ctx->circuit) {
            __builtin_prefetch(ctx->outstanding, 1);
        }
    }

    if (ctx == NULL || !ctx->charged || ctx->refusal) {
        return ngx_http_next_header_filter(r);
    }

    if ((ctx->held_n || ctx->circuit)
        && (r->header_only || r->headers_out.content_length_n == 0
            || r->headers_out.status == NGX_HTTP_NO_CONTENT
            || r->headers_out.status == NGX_HTTP_NOT_MODIFIED))
    {
        ngx_http_tenant_quota_give_back(r, ctx);
    }

    if (r->headers_out.status == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE
        && ctx->body_quota
        && !(r->upstream && r->upstream->headers_in.status_n)
        && ngx_http_tenant_quota_body_was_cut(r, ctx) == NGX_ERROR)
    {
        return NGX_ERROR;
    }

    qlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_quota_module);

    if (qlcf->headers && qlcf->mode != NGX_HTTP_TENANT_QUOTA_OFF
        && ctx->ratelimit_policy.len
        && (ngx_http_tenant_quota_set_header(r,
                                             &ngx_http_tenant_quota_policy_name,
                                             &ctx->ratelimit_policy) != NGX_OK
            || ngx_http_tenant_quota_set_header(r,
                                             &ngx_http_tenant_quota_limit_name,
                                             &ctx->ratelimit) != NGX_OK))
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_tenant_quota_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t             out;
    ngx_http_tenant_ctx_t  *ctx;

    if (in == NULL || r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_tenant_module);

    if (ctx && (ctx->held_n || ctx->circuit)
        && ngx_http_tenant_quota_is_last(r, ctx, in))
    {
        ngx_http_tenant_quota_give_back(r, ctx);
    }

    if (ctx == NULL || !ctx->body_refused) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ctx->problem == NULL) {
        return NGX_OK;
    }

    out.buf = ctx->problem;
    out.next = NULL;
    ctx->problem = NULL;

    return ngx_http_next_body_filter(r, &out);
}


void
ngx_http_tenant_quota_init_filters(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_tenant_quota_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_tenant_quota_body_filter;
}
