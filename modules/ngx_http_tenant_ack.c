/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tells tenantd which revision is applied, over a connection of its own: one
 * acknowledgement under way, and when it has arrived the newest state if that
 * has changed meanwhile.
 *
 * Each costs a transaction in PostgreSQL.  Changes that come alone or a few at a time
 * are acknowledged at once; while they do not end, each gateway says some times a
 * second how far it is.
 */

#include "ngx_http_tenant_sync.h"


#define NGX_HTTP_TENANT_ACK_TIMEOUT  5000
#define NGX_HTTP_TENANT_ACK_PACE     100    /* from one to the next, after */
#define NGX_HTTP_TENANT_ACK_BURST    8      /* so many at once */
#define NGX_HTTP_TENANT_ACK_RETRY    100    /* doubled with each failure */
#define NGX_HTTP_TENANT_ACK_SLOWEST  5000
#define NGX_HTTP_TENANT_ACK_REFRESH  10000  /* when nothing changes */


static void ngx_http_tenant_ack_done(void *data, ngx_int_t rc);


typedef struct {
    ngx_http_tenant_client_t  client;
    ngx_connection_t          dumb;
    ngx_event_t               timer;        /* waits for the pace, to retry, or
                                             * to refresh */
    ngx_msec_t                retry;
    ngx_msec_t                paid;         /* when all that were sent would have
                                             * kept the pace */
    tg_text_t                 body;
    char                      uri[128];
    unsigned                  changed:1;    /* since the one under way began */
} ngx_http_tenant_ack_t;


static const ngx_http_tenant_client_handler_t  ngx_http_tenant_ack_handler = {
    ngx_http_tenant_client_said_head,
    ngx_http_tenant_client_said_body,
    NULL,
    ngx_http_tenant_ack_done
};


static ngx_http_tenant_ack_t  ngx_http_tenant_ack;


static ngx_int_t
ngx_http_tenant_ack_write(tg_text_t *text)
{
    char                       boot[33];
    tg_zone_stats_t            stats;
    tg_zone_t                 *zone = ngx_http_tenant_sync.zone;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    tg_hex128(tg_zone_boot(zone), boot);
    tg_zone_stats(zone, &stats);

    tg_text_reset(text);
    tg_text_printf(text, "{\"boot\":\"%s\",\"revision\":%llu,"
                   "\"registry\":\"%s\",\"state\":\"%s\","
                   "\"tenants\":%llu,\"zone\":{\"size\":%llu,\"used\":%llu},"
                   "\"rejected\":", boot,
                   (unsigned long long) ngx_http_tenant_watch_applied(),
                   shared->registry,
                   ngx_http_tenant_sync_state_name(shared, zone),
                   (unsigned long long) stats.tenants,
                   (unsigned long long) stats.size,
                   (unsigned long long) stats.used);

    ngx_http_tenant_reject_json(text);
    tg_text_str(text, "}");

    return text->failed ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_tenant_ack_send(void)
{
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    if (ack->timer.timer_set) {
        ngx_del_timer(&ack->timer);
    }

    ack->changed = 0;

    if ((ngx_msec_int_t) (ack->paid - ngx_current_msec) < 0) {
        ack->paid = ngx_current_msec;
    }

    ack->paid += NGX_HTTP_TENANT_ACK_PACE;

    if (ngx_http_tenant_ack_write(&ack->body) != NGX_OK
        || ngx_http_tenant_client_request(&ack->client, "POST", ack->uri,
                                          &ack->body) != NGX_OK)
    {
        ngx_http_tenant_ack_done(NULL, NGX_ERROR);
    }
}


/* The newest state, as soon as the pace allows. */
static void
ngx_http_tenant_ack_next(void)
{
    ngx_msec_int_t          ahead;
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    ahead = (ngx_msec_int_t) (ack->paid - ngx_current_msec)
            - (NGX_HTTP_TENANT_ACK_BURST - 1) * NGX_HTTP_TENANT_ACK_PACE;

    if (ahead <= 0) {
        ngx_http_tenant_ack_send();
        return;
    }

    ngx_add_timer(&ack->timer, (ngx_msec_t) ahead);
}


void
ngx_http_tenant_ack_update(void)
{
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    if (ngx_http_tenant_sync.shared->state != NGX_HTTP_TENANT_SYNC_FOLLOW) {
        return;     /* a list is acknowledged when it is complete */
    }

    ack->changed = 1;

    if (ngx_http_tenant_client_busy(&ack->client) || ack->retry) {
        return;
    }

    ngx_http_tenant_ack_next();
}


void
ngx_http_tenant_ack_live(void)
{
    ngx_http_tenant_ack.retry = 0;
    ngx_http_tenant_ack_update();
}


static void
ngx_http_tenant_ack_done(void *data, ngx_int_t rc)
{
    ngx_http_tenant_ack_t     *ack = &ngx_http_tenant_ack;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    if (rc == NGX_OK && ack->client.response.status / 100 == 2) {
        ack->retry = 0;
        shared->acks[0]++;

        if (ack->changed) {
            ngx_http_tenant_ack_next();
            return;
        }

        ngx_add_timer(&ack->timer, NGX_HTTP_TENANT_ACK_REFRESH);
        return;
    }

    if (rc == NGX_OK) {
        ngx_http_tenant_client_said(&ack->client);
    }

    shared->acks[1]++;

    ack->retry = ack->retry ? ngx_min(ack->retry * 2,
                                      NGX_HTTP_TENANT_ACK_SLOWEST)
                            : NGX_HTTP_TENANT_ACK_RETRY;

    ngx_add_timer(&ack->timer, ack->retry);
}


static void
ngx_http_tenant_ack_timer(ngx_event_t *ev)
{
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    if (ngx_http_tenant_sync.shared->state == NGX_HTTP_TENANT_SYNC_FOLLOW) {
        ngx_http_tenant_ack_send();

    } else {
        /* the stream is away too, and will cause the next one when it is back */
        ack->retry = 0;
    }
}


void
ngx_http_tenant_ack_start(void)
{
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    ngx_memzero(ack, sizeof(ngx_http_tenant_ack_t));
    ack->paid = ngx_current_msec;

    (void) snprintf(ack->uri, sizeof(ack->uri), "/v1/gateways/%.*s/ack",
                    (int) ngx_http_tenant_sync.tmcf->gateway.len,
                    ngx_http_tenant_sync.tmcf->gateway.data);

    ack->client.data = &ack->client;
    ack->client.timeout = NGX_HTTP_TENANT_ACK_TIMEOUT;
    ngx_http_tenant_sync_client(&ack->client, "acknowledgement",
                                &ngx_http_tenant_ack_handler);
    ngx_http_tenant_event_init(&ack->timer, &ack->dumb,
                               ngx_http_tenant_ack_timer, NULL);
}


void
ngx_http_tenant_ack_stop(void)
{
    ngx_http_tenant_ack_t  *ack = &ngx_http_tenant_ack;

    if (ack->timer.timer_set) {
        ngx_del_timer(&ack->timer);
    }

    ngx_http_tenant_client_close(&ack->client);
    tg_text_free(&ack->body);
}
