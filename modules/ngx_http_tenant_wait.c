/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A gateway accepts connections before its registry is loaded: after a cold
 * start, a binary upgrade (whose new master has new shared memory), a change of
 * the zone's size.  Requests that come meanwhile are held for a while instead of
 * being refused, in the way of ngx_http_limit_req_module.
 */

#include "ngx_http_tenant.h"


#define NGX_HTTP_TENANT_WAIT_STEP  20       /* ms between two looks */


static void ngx_http_tenant_wait_handler(ngx_http_request_t *r);


ngx_int_t
ngx_http_tenant_wait(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_http_tenant_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    if (ctx->wait_until == 0) {
        ctx->wait_until = ngx_current_msec + tlcf->load_wait;
    }

    if ((ngx_msec_int_t) (ctx->wait_until - ngx_current_msec) <= 0) {
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
    ngx_add_timer(r->connection->write, NGX_HTTP_TENANT_WAIT_STEP);

    return NGX_AGAIN;
}


static void
ngx_http_tenant_wait_handler(ngx_http_request_t *r)
{
    ngx_event_t  *wev;

    wev = r->connection->write;

    if (wev->delayed) {
        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        }

        return;
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
}
