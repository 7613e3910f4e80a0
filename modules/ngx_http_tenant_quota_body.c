/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Quotas of body_size: bodies of known length are judged before anything of
 * them is read, others while nginx reads them.
 */

#include "ngx_http_tenant_quota.h"


static ngx_int_t ngx_http_tenant_quota_body_detail(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refuse_t *more);


/* A length that is told is judged at once; one that is not, while it is read. */
ngx_int_t
ngx_http_tenant_quota_body(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_quota_loc_conf_t *qlcf, const tg_quota_set_t *set)
{
    off_t                      length;
    ngx_http_tenant_refuse_t   more;

    length = r->headers_in.content_length_n;

    if (set->body_dry_run && length > (off_t) set->body_dry_run->limit) {
        tg_quota_count_body(set, set->body_dry_run);
    }

    if (set->body == NULL) {
        return NGX_OK;
    }

    if (length > (off_t) set->body->limit) {
        tg_quota_count_body(set, set->body);
        tg_zone_touch(set->zone, ctx->slot);

        if (qlcf->mode == NGX_HTTP_TENANT_QUOTA_DRY_RUN) {
            return NGX_OK;
        }

        ctx->body_quota = set->body;

        if (ngx_http_tenant_quota_body_detail(r, ctx, &more) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_tenant_balancer_forget(r, ctx);
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_BODY_TOO_LARGE,
                                      &more);
    }

    if (length >= 0 || qlcf->mode == NGX_HTTP_TENANT_QUOTA_DRY_RUN) {
        return NGX_OK;
    }

    ctx->body_quota = set->body;

    return ngx_http_tenant_quota_limit_body(r, set->body->limit) == NGX_OK
           ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_http_tenant_quota_body_detail(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refuse_t *more)
{
    ngx_str_t  name;

    ngx_memzero(more, sizeof(ngx_http_tenant_refuse_t));
    name = ngx_http_tenant_str(ctx->block, ctx->body_quota->name);

    more->detail.data = ngx_pnalloc(r->pool, 100 + name.len);
    if (more->detail.data == NULL) {
        return NGX_ERROR;
    }

    more->detail.len = ngx_sprintf(more->detail.data,
                                   "Quota '%V' allows %uL bytes in the body of "
                                   "a request.", &name, ctx->body_quota->limit)
                       - more->detail.data;

    return ngx_http_tenant_quota_violated(r, ctx, ctx->body_quota, more);
}


/*
 * nginx holds a body of unknown length to client_max_body_size of the request's
 * location while it reads: this request gets a location configuration of its
 * own.  0 stands for "no limit" there, so a body of nothing becomes one of 1.
 */
ngx_int_t
ngx_http_tenant_quota_limit_body(ngx_http_request_t *r, off_t limit)
{
    void                      **loc_conf;
    ngx_http_core_loc_conf_t   *clcf;

    if (r->headers_in.content_length_n >= 0) {
        return NGX_OK;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->client_max_body_size && clcf->client_max_body_size <= limit) {
        return NGX_OK;
    }

    loc_conf = ngx_pmemalign(r->pool, sizeof(void *) * ngx_http_max_module,
                             sizeof(void *));
    if (loc_conf == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(loc_conf, r->loc_conf, sizeof(void *) * ngx_http_max_module);

    clcf = ngx_palloc(r->pool, sizeof(ngx_http_core_loc_conf_t));
    if (clcf == NULL) {
        return NGX_ERROR;
    }

    *clcf = *(ngx_http_core_loc_conf_t *)
            r->loc_conf[ngx_http_core_module.ctx_index];
    clcf->client_max_body_size = limit ? limit : 1;

    loc_conf[ngx_http_core_module.ctx_index] = clcf;
    r->loc_conf = loc_conf;

    return NGX_OK;
}


ngx_int_t
ngx_http_tenant_quota_body_was_cut(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    ngx_buf_t                    *b;
    tg_quota_set_t                set;
    ngx_http_tenant_loc_conf_t   *tlcf;
    ngx_http_tenant_refuse_t      more;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);
    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    set.zone = tmcf->zone;
    tg_quota_count_body(&set, ctx->body_quota);
    tg_zone_touch(tmcf->zone, ctx->slot);

    if (ngx_http_tenant_quota_body_detail(r, ctx, &more) != NGX_OK) {
        return NGX_ERROR;
    }

    b = ngx_http_tenant_problem(r, ctx, NGX_HTTP_TENANT_BODY_TOO_LARGE, &more);
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (!tlcf->problem || r->error_page || r->header_only) {
        return NGX_DECLINED;
    }

    ctx->problem = b;
    ctx->body_refused = 1;

    ngx_str_set(&r->headers_out.content_type, "application/problem+json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = b->last - b->pos;

    return NGX_OK;
}
