/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Requests in flight of a tenant that was suspended or deleted are ended within
 * a second of the commit, upgraded connections too.  Each worker compares the
 * zone's version with the one it last saw; only when it differs does it look its
 * requests through.
 */

#include "ngx_http_tenant.h"


#define NGX_HTTP_TENANT_SWEEP_MS  250


static void ngx_http_tenant_sweep_handler(ngx_event_t *ev);
static ngx_uint_t ngx_http_tenant_is_gone(tg_zone_t *zone,
    ngx_http_tenant_ctx_t *ctx);
static void ngx_http_tenant_end_request(ngx_http_tenant_ctx_t *ctx);


static ngx_event_t       ngx_http_tenant_sweep;
static ngx_connection_t  ngx_http_tenant_sweep_dumb;
static uint64_t          ngx_http_tenant_swept_version;


void
ngx_http_tenant_sweep_start(ngx_cycle_t *cycle)
{
    ngx_http_tenant_sweep_dumb.fd = (ngx_socket_t) -1;

    ngx_http_tenant_sweep.handler = ngx_http_tenant_sweep_handler;
    ngx_http_tenant_sweep.data = &ngx_http_tenant_sweep_dumb;
    ngx_http_tenant_sweep.log = cycle->log;
    ngx_http_tenant_sweep.cancelable = 1;

    ngx_add_timer(&ngx_http_tenant_sweep, NGX_HTTP_TENANT_SWEEP_MS);
}


static void
ngx_http_tenant_sweep_handler(ngx_event_t *ev)
{
    uint64_t                      version;
    ngx_queue_t                  *q, *next;
    ngx_http_tenant_ctx_t        *ctx;
    ngx_http_tenant_main_conf_t  *tmcf;

    ngx_add_timer(ev, NGX_HTTP_TENANT_SWEEP_MS);

    tmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_tenant_module);
    version = tg_zone_version(tmcf->zone);

    if (version == ngx_http_tenant_swept_version) {
        return;
    }

    ngx_http_tenant_swept_version = version;

    for (q = ngx_queue_head(&ngx_http_tenant_requests);
         q != ngx_queue_sentinel(&ngx_http_tenant_requests);
         q = next)
    {
        next = ngx_queue_next(q);
        ctx = ngx_queue_data(q, ngx_http_tenant_ctx_t, queue);

        if (ctx->block && ctx->refusal == NGX_HTTP_TENANT_SERVED
            && ngx_http_tenant_is_gone(tmcf->zone, ctx))
        {
            ngx_http_tenant_end_request(ctx);
        }
    }
}


static ngx_uint_t
ngx_http_tenant_is_gone(tg_zone_t *zone, ngx_http_tenant_ctx_t *ctx)
{
    ngx_uint_t         gone;
    const tg_block_t  *now;

    tg_zone_enter(zone, ngx_http_tenant_slot);

    now = tg_zone_find_tenant(zone, tg_str(ctx->block, ctx->block->name),
                              ctx->block->name.len);

    gone = (now == NULL || now->id != ctx->block->id
            || now->state == TG_TENANT_SUSPENDED);

    tg_zone_exit(zone, ngx_http_tenant_slot);

    return gone;
}


static void
ngx_http_tenant_end_request(ngx_http_tenant_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
#if (NGX_HTTP_V2)
    ngx_connection_t    *shared;
#endif

    r = ctx->request;
    c = r->connection;
#if (NGX_HTTP_V2)
    shared = r->stream ? r->stream->connection->connection : NULL;
#endif

    ngx_log_error(NGX_LOG_INFO, c->log, 0,
                  "tenant \"%*s\" is suspended or gone: request ended",
                  (size_t) ctx->block->name.len,
                  tg_str(ctx->block, ctx->block->name));

    ctx->refusal = NGX_HTTP_TENANT_SUSPENDED;

    /* an upstream's clean-up finalises the request too, and would let it go
     * while nginx is still about to terminate it */
    r->count++;

    ngx_http_finalize_request(r, NGX_HTTP_CLOSE);
    ngx_http_run_posted_requests(c);

#if (NGX_HTTP_V2)
    /* the frame that tells the client waits for the next write event, which
     * need not come while the other streams are quiet */
    if (shared) {
        ngx_post_event(shared->write, &ngx_posted_events);
    }
#endif
}
