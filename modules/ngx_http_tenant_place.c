/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Requests of a tenant that another gateway decides, or will soon:
 *
 *     hold          wait for the tenant's next version, without a pin
 *     misdirected   421: the client finds the other gateway by itself
 *     forward       go on by one route, untouched: what the other gateway decides
 *                   by must be what the client sent
 */

#include "ngx_http_tenant.h"


static ngx_int_t ngx_http_tenant_hold(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, uint64_t version);
static void ngx_http_tenant_forward(ngx_http_tenant_ctx_t *ctx);


ngx_int_t
ngx_http_tenant_placed(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    uint64_t version)
{
    if (ctx->block->flags & TG_BLOCK_HOLD) {
        return ngx_http_tenant_hold(r, ctx, version);
    }

    if (ctx->block->flags & TG_BLOCK_MISDIRECTED) {
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_MISDIRECTED, NULL);
    }

    ngx_http_tenant_forward(ctx);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_tenant_hold(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    uint64_t version)
{
    ngx_int_t                     rc;
    ngx_http_tenant_refuse_t      more;
    ngx_http_tenant_main_conf_t  *tmcf;

    ctx->on_hold = 1;
    ctx->wait_version = version;

    rc = ngx_http_tenant_wait(r, ctx);

    if (rc != NGX_DECLINED) {
        tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

        tg_zone_unpin(tmcf->zone, ngx_http_tenant_slot, ctx->pin);
        ctx->pin = NULL;
        ctx->block = NULL;

        return rc;
    }

    ngx_memzero(&more, sizeof(ngx_http_tenant_refuse_t));
    ngx_str_set(&more.detail, "This tenant is being moved to another gateway; "
                              "try again.");
    more.retry_after = 1;

    return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_NOT_READY, &more);
}


static void
ngx_http_tenant_forward(ngx_http_tenant_ctx_t *ctx)
{
    const tg_handover_t  *handover;

    handover = tg_block_handover(ctx->block);

    ctx->route = tg_vec(ctx->block, ctx->block->routes, tg_route_t)
                 + handover->forward;
    ctx->forwarded = 1;

    /* by the other gateway */
    ctx->authenticated = 1;
}
