/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Visits what was counted, and tells tenantd (docs/reference/watch.md).
 *
 *  1. A sweep visits every tenant that was touched since the last one, in slices
 *     short enough not to be felt by a request.  Each slice is one report.  The
 *     next slice comes when the report has arrived and the worker has done fifty
 *     times as long something else: so reporting takes two percent of it, and
 *     the more tenants there are the longer a sweep takes.
 *  2. One report is under way.  Its text is kept and sent until it arrives: the
 *     counters are cumulative, and tenantd takes a repeated one as nothing new.
 *  3. What a version of a tenant that is about to be freed had counted is
 *     reported before the zone is asked again, which is when it is freed.
 */

#include "ngx_http_tenant_usage.h"


#define NGX_HTTP_TENANT_REPORT_SLICE    500         /* us */
#define NGX_HTTP_TENANT_REPORT_REST     50          /* times the slice */
#define NGX_HTTP_TENANT_REPORT_SIZE     786432      /* bytes, before the last
                                                     * tenant's */
#define NGX_HTTP_TENANT_REPORT_ROWS     4096
#define NGX_HTTP_TENANT_REPORT_SEEN     8192        /* a power of 2 above it */
#define NGX_HTTP_TENANT_REPORT_KEYS     100         /* consumers of a quota */
#define NGX_HTTP_TENANT_REPORT_TIMEOUT  5000
#define NGX_HTTP_TENANT_REPORT_FIRST    250         /* ms to the next try, */
#define NGX_HTTP_TENANT_REPORT_SLOWEST  5000        /* doubled up to this */
#define NGX_HTTP_TENANT_REPORT_LAST     500         /* ms at the end */


static void ngx_http_tenant_report_slice(void);
static void ngx_http_tenant_report_send(void);
static void ngx_http_tenant_report_next(ngx_uint_t sent);
static int ngx_http_tenant_report_visit(void *data, const tg_block_t *block);
static void ngx_http_tenant_report_done(void *data, ngx_int_t rc);


typedef struct {
    char         name[sizeof(((tg_quota_bucket_t *) NULL)->name)];
    size_t       len;
    uint64_t     used;
} ngx_http_tenant_report_key_t;


typedef struct {
    ngx_http_tenant_client_t  client;
    ngx_connection_t          dumb;
    ngx_event_t               timer;        /* the next slice, or the next try */
    char                      uri[128];
    ngx_msec_t                retry;        /* 0: the last one has arrived */

    tg_report_t               report;
    tg_text_t                 body;

    unsigned                  sweeping:1;
    unsigned                  stopped:1;    /* this slice is full */
    unsigned                  whole:1;      /* no limit of time */
    uint32_t                  cursor;       /* dense number where to go on */
    uint64_t                  row_id;       /* tenant that did not fit whole, */
    ngx_uint_t                row;          /* and where to go on in it */
    ngx_uint_t                rows;         /* of this report */
    uint64_t                  until;        /* us: end of this slice */
    uint64_t                  took;         /* us: the last one */
    tg_quota_now_t            now;

    uint64_t                  seen[NGX_HTTP_TENANT_REPORT_SEEN];
    ngx_http_tenant_report_key_t  keys[TG_QUOTA_KEYS + 1];
    ngx_uint_t                nkeys;
} ngx_http_tenant_report_t;


static const ngx_http_tenant_client_handler_t  ngx_http_tenant_report_handler = {
    ngx_http_tenant_client_said_head,
    ngx_http_tenant_client_said_body,
    NULL,
    ngx_http_tenant_report_done
};


static ngx_http_tenant_report_t  ngx_http_tenant_report;


/* --- what is in a report --- */

/* Versions of a tenant share counters: each is told once.  0: it was. */
static ngx_uint_t
ngx_http_tenant_report_first(uint64_t offset)
{
    size_t                     i;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    for (i = offset / 16 * 0x9e3779b1; /* void */ ; i++) {
        i &= NGX_HTTP_TENANT_REPORT_SEEN - 1;

        if (report->seen[i] == 0) {
            report->seen[i] = offset;
            report->rows++;
            return 1;
        }

        if (report->seen[i] == offset) {
            return 0;
        }
    }
}


static void
ngx_http_tenant_report_route(const tg_block_t *block, const char *route,
    uint64_t counters)
{
    if (counters && ngx_http_tenant_report_first(counters)) {
        tg_report_counters(&ngx_http_tenant_report.report,
                           tg_str(block, block->name), route,
                           tg_zone_ptr(ngx_http_tenant_sync.zone, counters));
    }
}


/* The names of buckets may be cut, even inside a character. */
static void
ngx_http_tenant_report_key(void *data, const tg_quota_t *quota,
    const char *name, uint64_t used)
{
    size_t                         n, left;
    ngx_http_tenant_report_t      *report = &ngx_http_tenant_report;
    ngx_http_tenant_report_key_t  *key;

    if (report->nkeys > TG_QUOTA_KEYS) {
        return;
    }

    key = &report->keys[report->nkeys++];
    key->used = used;
    key->len = 0;
    left = ngx_strnlen((u_char *) name, sizeof(key->name));

    while ((n = tg_utf8_len(name + key->len, left)) != 0) {
        ngx_memcpy(key->name + key->len, name + key->len, n);
        key->len += n;
        left -= n;
    }
}


static int ngx_libc_cdecl
ngx_http_tenant_report_compare(const void *a, const void *b)
{
    const ngx_http_tenant_report_key_t  *one = a, *two = b;

    return (one->used < two->used) - (one->used > two->used);
}


/* Buckets of consumers with nothing in flight are told too: nobody else knows
 * that it was more a second ago. */
static void
ngx_http_tenant_report_idle_keys(const tg_quota_t *quota)
{
    ngx_uint_t         i;
    tg_quota_state_t  *state;

    state = tg_zone_ptr(ngx_http_tenant_sync.zone, quota->state);

    for (i = 0; i < TG_QUOTA_KEYS; i++) {
        if (__atomic_load_n(&state->bucket[i].key, __ATOMIC_RELAXED) != 0
            && __atomic_load_n(&state->bucket[i].word, __ATOMIC_RELAXED) == 0)
        {
            ngx_http_tenant_report_key(NULL, quota, state->bucket[i].name, 0);
        }
    }
}


/* Two long names may be cut to one: only the first is told. */
static ngx_uint_t
ngx_http_tenant_report_key_again(ngx_uint_t n)
{
    ngx_uint_t                     i;
    ngx_http_tenant_report_key_t  *keys = ngx_http_tenant_report.keys;

    for (i = 0; i < n; i++) {
        if (keys[i].len == keys[n].len
            && ngx_memcmp(keys[i].name, keys[n].name, keys[n].len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_tenant_report_quota(const tg_block_t *block, const tg_quota_t *quota)
{
    uint64_t                       limit, throttled;
    ngx_uint_t                     i, total;
    tg_zone_t                     *zone = ngx_http_tenant_sync.zone;
    ngx_http_tenant_report_t      *report = &ngx_http_tenant_report;
    ngx_http_tenant_report_key_t  *keys = report->keys;

    if (quota->state == 0 || !ngx_http_tenant_report_first(quota->state)) {
        return;
    }

    limit = tg_quota_limit(block, quota, &report->now);
    throttled = tg_quota_throttled(zone, quota);

    report->nkeys = 0;
    tg_quota_visit(zone, block, quota, &report->now, ngx_http_tenant_report_key,
                   NULL);

    if (quota->keyed && quota->metric == TG_METRIC_CONCURRENCY) {
        ngx_http_tenant_report_idle_keys(quota);
    }

    if (report->nkeys > 1) {
        ngx_qsort(keys, report->nkeys, sizeof(ngx_http_tenant_report_key_t),
                  ngx_http_tenant_report_compare);
    }

    /* what was throttled is counted for all consumers together */

    total = 0;

    for (i = 0; i < ngx_min(report->nkeys, NGX_HTTP_TENANT_REPORT_KEYS); i++) {
        if (ngx_http_tenant_report_key_again(i)) {
            continue;
        }

        total |= (keys[i].len == 0);
        tg_report_quota(&report->report, quota->id, keys[i].name, keys[i].len,
                        keys[i].used, limit, keys[i].len ? 0 : throttled);
        report->rows++;
    }

    if (!total && (!quota->keyed || throttled)) {
        tg_report_quota(&report->report, quota->id, "", 0, 0, limit, throttled);
    }
}


/* --- a sweep --- */

static ngx_uint_t
ngx_http_tenant_report_is_full(void)
{
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    return tg_report_size(&report->report) > NGX_HTTP_TENANT_REPORT_SIZE
           || report->rows >= NGX_HTTP_TENANT_REPORT_ROWS
           || (!report->whole && ngx_http_tenant_now_us() >= report->until);
}


/* The rows of a tenant from the first on; how many were told.  Row 0 is the
 * tenant, then come its routes and quotas. */
static ngx_uint_t
ngx_http_tenant_report_rows(const tg_block_t *block, ngx_uint_t first)
{
    ngx_uint_t         i;
    const tg_quota_t  *quotas;
    const tg_route_t  *routes;

    routes = tg_vec(block, block->routes, tg_route_t);
    quotas = tg_vec(block, block->quotas, tg_quota_t);

    for (i = first; i < 1 + block->routes.n + block->quotas.n; i++) {

        if (i > first && i % 16 == 0 && ngx_http_tenant_report_is_full()) {
            break;
        }

        if (i == 0) {
            ngx_http_tenant_report_route(block, "", block->counters);

        } else if (i <= block->routes.n) {
            ngx_http_tenant_report_route(block,
                                         tg_str(block, routes[i - 1].name),
                                         routes[i - 1].counters);

        } else {
            ngx_http_tenant_report_quota(block,
                                         &quotas[i - 1 - block->routes.n]);
        }
    }

    return i;
}


/* Requests in flight end without a touch of their own until they are logged, so
 * a tenant that has some is visited again. */
static ngx_uint_t
ngx_http_tenant_report_in_flight(const tg_block_t *block)
{
    ngx_uint_t         i, k;
    tg_quota_state_t  *state;
    const tg_quota_t  *quotas;

    quotas = tg_vec(block, block->quotas, tg_quota_t);

    for (i = 0; i < block->quotas.n; i++) {
        if (quotas[i].metric != TG_METRIC_CONCURRENCY || quotas[i].state == 0) {
            continue;
        }

        state = tg_zone_ptr(ngx_http_tenant_sync.zone, quotas[i].state);

        if (__atomic_load_n(&state->word, __ATOMIC_RELAXED)) {
            return 1;
        }

        for (k = 0; quotas[i].keyed && k < TG_QUOTA_KEYS; k++) {
            if (__atomic_load_n(&state->bucket[k].word, __ATOMIC_RELAXED)) {
                return 1;
            }
        }
    }

    return 0;
}


/* Called with the zone's lock held. */
static int
ngx_http_tenant_report_visit(void *data, const tg_block_t *block)
{
    ngx_uint_t                 row;
    const tg_block_t          *current;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (block->slot < report->cursor) {
        return TG_VISIT_AGAIN;
    }

    if (ngx_http_tenant_report_is_full()) {
        report->stopped = 1;
        report->cursor = block->slot;
        return TG_VISIT_STOP;
    }

    row = (block->id == report->row_id) ? report->row : 0;
    report->row_id = 0;

    row = ngx_http_tenant_report_rows(block, row);

    if (row < 1 + block->routes.n + block->quotas.n) {
        report->stopped = 1;
        report->cursor = block->slot;
        report->row_id = block->id;
        report->row = row;
        return TG_VISIT_STOP;
    }

    /* the writer's lock keeps what is found in place */

    current = tg_zone_find_tenant(ngx_http_tenant_sync.zone,
                                  tg_str(block, block->name), block->name.len);

    if (current != block) {
        return 0;
    }

    ngx_http_tenant_series_touch(block);
    ngx_http_tenant_counts_save(block, &report->now);

    return !report->whole && ngx_http_tenant_report_in_flight(block)
           ? TG_VISIT_AGAIN : 0;
}


/* Gathers a report of what a slice has time for. */
static void
ngx_http_tenant_report_gather(void)
{
    uint64_t                   began;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    began = ngx_http_tenant_now_us();

    report->now = ngx_http_tenant_quota_now();
    report->until = began + NGX_HTTP_TENANT_REPORT_SLICE;
    report->stopped = 0;
    report->rows = 0;
    ngx_memzero(report->seen, sizeof(report->seen));
    tg_report_reset(&report->report);

    ngx_http_tenant_sync_lock();
    tg_zone_visit_touched(ngx_http_tenant_sync.zone, report->cursor,
                          ngx_http_tenant_report_visit, NULL);
    ngx_http_tenant_sync_unlock();

    report->took = ngx_http_tenant_now_us() - began;

    if (!report->stopped) {
        report->sweeping = 0;
        ngx_http_tenant_counts_swept();
    }
}


static ngx_int_t
ngx_http_tenant_report_finish(void)
{
    ngx_time_t                *tp;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    tp = ngx_timeofday();
    tg_text_reset(&report->body);

    return tg_report_end(&report->report, &report->body,
                         tg_zone_boot(ngx_http_tenant_sync.zone),
                         (uint64_t) tp->sec * 1000 + tp->msec) == 0
           ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_tenant_report_slice(void)
{
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    ngx_http_tenant_report_gather();

    if (ngx_http_tenant_sync.tmcf->source == NULL
        || tg_report_size(&report->report) == 0)
    {
        ngx_http_tenant_report_next(0);
        return;
    }

    if (ngx_http_tenant_report_finish() != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: no memory for a usage report");
        ngx_http_tenant_report_done(NULL, NGX_ERROR);
        return;
    }

    ngx_http_tenant_report_send();
}


/* A report has arrived, or there was nothing to say. */
static void
ngx_http_tenant_report_next(ngx_uint_t sent)
{
    ngx_msec_t                 rest;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    report->retry = 0;

    if (report->sweeping) {
        rest = report->took * NGX_HTTP_TENANT_REPORT_REST / 1000 + 1;
        ngx_add_timer(&report->timer, rest);
    }
}


/* --- sending --- */

static void
ngx_http_tenant_report_send(void)
{
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (ngx_http_tenant_client_request(&report->client, "POST", report->uri,
                                       &report->body) != NGX_OK)
    {
        ngx_http_tenant_report_done(NULL, NGX_ERROR);
    }
}


static void
ngx_http_tenant_report_done(void *data, ngx_int_t rc)
{
    int                        status;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    status = report->client.response.status;

    if (rc == NGX_OK && status / 100 == 2) {
        ngx_http_tenant_sync.shared->reports[0]++;
        ngx_http_tenant_report_next(1);
        return;
    }

    ngx_http_tenant_sync.shared->reports[1]++;

    if (rc == NGX_OK) {
        ngx_http_tenant_client_said(&report->client);

        if (status == 400 || status == 413 || status == 422) {
            /* it would never be taken; its counters come again with the next */
            ngx_http_tenant_report_next(1);
            return;
        }
    }

    report->retry = report->retry ? ngx_min(report->retry * 2,
                                            NGX_HTTP_TENANT_REPORT_SLOWEST)
                                  : NGX_HTTP_TENANT_REPORT_FIRST;

    ngx_add_timer(&report->timer, report->retry);
}


static void
ngx_http_tenant_report_timer(ngx_event_t *ev)
{
    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    if (ngx_http_tenant_report.retry) {
        ngx_http_tenant_report_send();

    } else {
        ngx_http_tenant_report_slice();
    }
}


/* --- life --- */

void
ngx_http_tenant_usage_start(void)
{
    ngx_http_tenant_report_t     *report = &ngx_http_tenant_report;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    ngx_memzero(report, sizeof(ngx_http_tenant_report_t));

    (void) snprintf(report->uri, sizeof(report->uri),
                    "/v1/gateways/%.*s/usage", (int) tmcf->gateway.len,
                    tmcf->gateway.data);

    report->client.data = &report->client;
    report->client.timeout = NGX_HTTP_TENANT_REPORT_TIMEOUT;
    ngx_http_tenant_sync_client(&report->client, "usage report",
                                &ngx_http_tenant_report_handler);
    ngx_http_tenant_event_init(&report->timer, &report->dumb,
                               ngx_http_tenant_report_timer, NULL);

    ngx_http_tenant_series_start();
    ngx_http_tenant_counts_start();
}


void
ngx_http_tenant_usage_again(void)
{
    ngx_http_tenant_sync_lock();
    tg_zone_touch_all(ngx_http_tenant_sync.zone);
    ngx_http_tenant_sync_unlock();
}


void
ngx_http_tenant_usage_stop(void)
{
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (ngx_http_tenant_client_busy(&report->client) || report->retry) {

        /* nobody will know whether it arrives */
        ngx_http_tenant_usage_again();
    }

    if (report->timer.timer_set) {
        ngx_del_timer(&report->timer);
    }

    ngx_http_tenant_client_close(&report->client);
    tg_report_free(&report->report);
    tg_text_free(&report->body);

    ngx_http_tenant_counts_stop();
    ngx_http_tenant_series_stop();
}


void
ngx_http_tenant_usage_tick(void)
{
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (report->sweeping || report->retry
        || ngx_http_tenant_client_busy(&report->client))
    {
        ngx_http_tenant_counts_tick(report->retry != 0, 0);
        return;
    }

    ngx_http_tenant_counts_tick(0, 1);

    report->sweeping = 1;
    report->cursor = 0;
    report->row_id = 0;

    ngx_http_tenant_report_slice();
}


/* --- the last report --- */

static ngx_int_t
ngx_http_tenant_report_last_connect(ngx_url_t *url)
{
    int             fd;
    struct timeval  timeout;

    timeout.tv_sec = 0;
    timeout.tv_usec = NGX_HTTP_TENANT_REPORT_LAST * 1000;

    fd = socket(url->addrs[0].sockaddr->sa_family, SOCK_STREAM|SOCK_CLOEXEC, 0);

    if (fd == -1) {
        return -1;
    }

    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == 0
        && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout))
           == 0
        && connect(fd, url->addrs[0].sockaddr, url->addrs[0].socklen) == 0)
    {
        return fd;
    }

    (void) close(fd);

    return -1;
}


/* Sends one report and waits for the answer's status line. */
static ngx_int_t
ngx_http_tenant_report_last_send(int fd)
{
    char                       answer[512];
    size_t                     sent;
    ssize_t                    n;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    if (ngx_http_tenant_client_compose(&report->client, "POST", report->uri,
                                       &report->body) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (sent = 0; sent < report->client.request.len; sent += n) {
        n = send(fd, report->client.request.data + sent,
                 report->client.request.len - sent, MSG_NOSIGNAL);

        if (n <= 0) {
            return NGX_ERROR;
        }
    }

    n = recv(fd, answer, sizeof(answer), 0);

    return n > 12 && ngx_strncmp(answer, "HTTP/1.1 2", 10) == 0 ? NGX_OK
                                                               : NGX_ERROR;
}


void
ngx_http_tenant_usage_last(ngx_cycle_t *cycle)
{
    int                        fd;
    uint64_t                   until;
    ngx_int_t                  rc;
    ngx_uint_t                 n;
    ngx_http_tenant_report_t  *report = &ngx_http_tenant_report;

    ngx_http_tenant_usage_start();
    ngx_http_tenant_counts_last();

    fd = -1;
    rc = NGX_OK;
    until = ngx_http_tenant_now_ms() + NGX_HTTP_TENANT_REPORT_LAST;

    if (ngx_http_tenant_sync.tmcf->source) {
        fd = ngx_http_tenant_report_last_connect(
                                            ngx_http_tenant_sync.tmcf->source);
    }

    report->whole = 1;

    for (n = 0; rc == NGX_OK; n++) {
        report->sweeping = 1;
        report->cursor = 0;
        ngx_http_tenant_report_gather();

        if (fd != -1 && tg_report_size(&report->report)) {
            rc = ngx_http_tenant_report_finish();

            if (rc == NGX_OK) {
                rc = ngx_http_tenant_report_last_send(fd);
            }
        }

        if (!report->stopped || ngx_http_tenant_now_ms() >= until) {
            break;
        }
    }

    if (fd != -1) {
        (void) close(fd);
    }

    if (ngx_http_tenant_sync.tmcf->source && (fd == -1 || rc != NGX_OK)) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "tenant: tenantd did not take the last usage report");
    }

    ngx_http_tenant_usage_stop();
}
