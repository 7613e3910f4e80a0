/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files of the quota module share: the handler that decides
 * (ngx_http_tenant_quota_module.c), bodies (.._body.c), and what happens to the
 * response (.._filter.c).
 */

#ifndef NGX_HTTP_TENANT_QUOTA_H
#define NGX_HTTP_TENANT_QUOTA_H

#include "ngx_http_tenant.h"

#include "../lib/tg_quota.h"


#define NGX_HTTP_TENANT_QUOTA_OFF      0
#define NGX_HTTP_TENANT_QUOTA_ON       1
#define NGX_HTTP_TENANT_QUOTA_DRY_RUN  2


typedef struct {
    ngx_uint_t   mode;
    ngx_flag_t   headers;
} ngx_http_tenant_quota_loc_conf_t;


/* --- ngx_http_tenant_quota_module.c --- */

/* The member of a problem document that names the quota, as the draft has it. */
ngx_int_t ngx_http_tenant_quota_violated(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_t *quota,
    ngx_http_tenant_refuse_t *more);

/* --- ngx_http_tenant_quota_body.c --- */

/* Quotas of body_size.  NGX_OK, or what the phase handler returns. */
ngx_int_t ngx_http_tenant_quota_body(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_quota_loc_conf_t *qlcf,
    const tg_quota_set_t *set);

/* Has nginx cut a body of unknown length off at limit.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_http_tenant_quota_limit_body(ngx_http_request_t *r, off_t limit);

/* nginx has cut a body off: counts it and makes ctx->problem of it, which is to
 * replace nginx's page.  NGX_OK, NGX_DECLINED: the page stays, or NGX_ERROR. */
ngx_int_t ngx_http_tenant_quota_body_was_cut(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);

/* --- ngx_http_tenant_quota_filter.c --- */

void ngx_http_tenant_quota_init_filters(void);


#endif /* NGX_HTTP_TENANT_QUOTA_H */
