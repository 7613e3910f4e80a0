/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Requests that wait instead of being refused, in the way of
 * ngx_http_limit_req_module:
 *
 *  1. A gateway accepts connections before its registry is loaded: after a cold
 *     start, a binary upgrade (whose new master has new shared memory), a change
 *     of the zone's size.
 *  2. A tenant that moves to another gateway is on hold until its quota state has
 *     followed: its requests wait for its next version.
 *
 * The worker's requests that wait are in one queue, and one timer looks whether
 * what they wait for has come; each has a timer of its own for the longest wait.
 */

#include "ngx_http_tenant.h"


#define NGX_HTTP_TENANT_WAIT_STEP  5        /* ms between two looks */


static void ngx_http_tenant_wait_handler(ngx_http_request_t *r);
static void ngx_http_tenant_wait_look(ngx_event_t *ev);
static void ngx_http_tenant_wait_enqueue(ngx_http_tenant_ctx_t *ctx);


static ngx_queue_t       ngx_http_tenant_waiters;
static ngx_event_t       ngx_http_tenant_wait_event;
static ngx_connection_t  ngx_http_tenant_wait_dumb;


ngx_int_t
ngx_http_tenant_wait(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_msec_int_t               left;
    ngx_http_tenant_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    if (ctx->wait_until == 0) {
        ctx->wait_until = ngx_current_msec + tlcf->load_wait;
    }

    left = (ngx_msec_int_t) (ctx->wait_until - ngx_current_msec);

    if (left <= 0) {
        ctx->waiting = 0;
        return NGX_DECLINED;
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->waiting = 1;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_tenant_wait_handler;

    r->connection->write->delayed = 1;
    ngx_add_timer(r->connection->write, left);

    ngx_http_tenant_wait_enqueue(ctx);

    return NGX_AGAIN;
}


static void
ngx_http_tenant_wait_enqueue(ngx_http_tenant_ctx_t *ctx)
{
    ngx_event_t  *ev = &ngx_http_tenant_wait_event;

    if (ev->handler == NULL) {
        ngx_queue_init(&ngx_http_tenant_waiters);
        ngx_http_tenant_wait_dumb.fd = (ngx_socket_t) -1;

        ev->handler = ngx_http_tenant_wait_look;
        ev->data = &ngx_http_tenant_wait_dumb;
        ev->log = ngx_cycle->log;
        ev->cancelable = 1;
    }

    if (!ev->timer_set) {
        ngx_add_timer(ev, NGX_HTTP_TENANT_WAIT_STEP);
    }

    ngx_queue_insert_tail(&ngx_http_tenant_waiters, &ctx->waiters);
    ctx->queued = 1;
}


void
ngx_http_tenant_wait_cancel(ngx_http_tenant_ctx_t *ctx)
{
    if (ctx->queued) {
        ngx_queue_remove(&ctx->waiters);
        ctx->queued = 0;
    }
}


static ngx_uint_t
ngx_http_tenant_wait_is_over(const ngx_http_tenant_ctx_t *ctx,
    const tg_zone_t *zone)
{
    if (ctx->on_hold) {
        return tg_zone_version(zone) != ctx->wait_version;
    }

    return (tg_zone_revision(zone) != 0 || ngx_http_tenant_sync_loaded())
           && ngx_http_tenant_sync_settled();
}


/* Wakes those that have waited long enough, in the order in which they came.
 * They run later, for they may wait again. */
static void
ngx_http_tenant_wait_look(ngx_event_t *ev)
{
    ngx_event_t                  *wev;
    ngx_queue_t                  *q, *next;
    ngx_http_tenant_ctx_t        *ctx;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_tenant_module);

    for (q = ngx_queue_head(&ngx_http_tenant_waiters);
         q != ngx_queue_sentinel(&ngx_http_tenant_waiters);
         q = next)
    {
        next = ngx_queue_next(q);
        ctx = ngx_queue_data(q, ngx_http_tenant_ctx_t, waiters);

        if (!ngx_http_tenant_wait_is_over(ctx, tmcf->zone)) {
            continue;
        }

        ngx_http_tenant_wait_cancel(ctx);

        wev = ctx->request->connection->write;
        wev->delayed = 0;

        if (wev->timer_set) {
            ngx_del_timer(wev);
        }

        ngx_post_event(wev, &ngx_posted_events);
    }

    if (!ngx_queue_empty(&ngx_http_tenant_waiters)) {
        ngx_add_timer(ev, NGX_HTTP_TENANT_WAIT_STEP);
    }
}


static void
ngx_http_tenant_wait_handler(ngx_http_request_t *r)
{
    ngx_event_t            *wev;
    ngx_http_tenant_ctx_t  *ctx;

    wev = r->connection->write;

    if (wev->delayed) {
        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        }

        return;
    }

    ctx = ngx_http_tenant_get_ctx(r);
    ngx_http_tenant_wait_cancel(ctx);

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
}
