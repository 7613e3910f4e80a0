/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The watch stream, docs/reference/watch.md: connects to tenantd, applies what
 * comes line by line, and connects again when the stream ends for any reason.
 *
 *  1. A line is applied whole or not at all.  Applying takes the zone's lock for
 *     each line; a turn of the event loop spends at most a few milliseconds on
 *     lines, and the worker's requests are served before the next.
 *  2. The zone's revision rises with a BOOKMARK, or to one below the revision of
 *     a line, for lines may share a revision: so a stream that is resumed from
 *     there misses nothing, wherever it broke off.
 *  3. A line that is no event may have been damaged on its way: the stream is
 *     dropped and resumed once for it.  When it comes again it is passed over.
 *     An event whose object cannot be taken (a bad document, no room) would be
 *     the same again: it is noted and the stream goes on.
 */

#include "ngx_http_tenant_sync.h"

#include "../lib/tg_hash.h"


#define NGX_HTTP_TENANT_WATCH_TURN      2000    /* us of a turn */
#define NGX_HTTP_TENANT_WATCH_SILENCE   5000    /* without a line it is dead */
#define NGX_HTTP_TENANT_WATCH_IDLE      5       /* between two transactions */
#define NGX_HTTP_TENANT_WATCH_FIRST     50      /* before connecting again; */
#define NGX_HTTP_TENANT_WATCH_SLOWEST   5000    /* doubled up to this */
#define NGX_HTTP_TENANT_WATCH_FAILED    64      /* lines that are remembered */


static void ngx_http_tenant_watch_connect(void);
static void ngx_http_tenant_watch_backoff(ngx_msec_t least);
static void ngx_http_tenant_watch_timer(ngx_event_t *ev);
static void ngx_http_tenant_watch_silence(ngx_event_t *ev);
static void ngx_http_tenant_watch_idle(ngx_event_t *ev);
static ngx_int_t ngx_http_tenant_watch_head(void *data,
    const tg_response_t *response);
static ssize_t ngx_http_tenant_watch_body(void *data, const char *p,
    size_t len);
static void ngx_http_tenant_watch_drained(void *data);
static void ngx_http_tenant_watch_done(void *data, ngx_int_t rc);
static ngx_int_t ngx_http_tenant_watch_line(const char *line, size_t len);
static ngx_int_t ngx_http_tenant_watch_refuse(const tg_watch_event_t *event,
    const char *line, size_t len, tg_error_t *err);
static ngx_int_t ngx_http_tenant_watch_bookmark(const tg_watch_event_t *event);


typedef struct {
    ngx_http_tenant_client_t  client;
    tg_lines_t                lines;

    ngx_connection_t          dumb;
    ngx_event_t               timer;        /* connects */
    ngx_event_t               silence;      /* gives the stream up */
    ngx_event_t               idle;         /* takes a transaction as complete */

    ngx_uint_t                attempts;     /* since a BOOKMARK came */
    ngx_msec_t                least;        /* before the next, as tenantd says */
    uint64_t                  since;        /* of the present stream */
    uint64_t                  seen;         /* revision of the last line */
    uint64_t                  applied;      /* to acknowledge */
    uint64_t                  turn;         /* us: when it ends; 0: begins */
    char                      registry[37]; /* of the present stream */

    uint64_t                  failed[NGX_HTTP_TENANT_WATCH_FAILED];
    ngx_uint_t                nfailed;

    unsigned                  list:1;       /* the next stream is a list */
    unsigned                  force:1;      /* ... that outranks what is here */
} ngx_http_tenant_watch_t;


static const ngx_http_tenant_client_handler_t  ngx_http_tenant_watch_handler = {
    ngx_http_tenant_watch_head,
    ngx_http_tenant_watch_body,
    ngx_http_tenant_watch_drained,
    ngx_http_tenant_watch_done
};


static ngx_http_tenant_watch_t  ngx_http_tenant_watch;


void
ngx_http_tenant_watch_start(void)
{
    ngx_http_tenant_watch_t   *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    ngx_memzero(watch, sizeof(ngx_http_tenant_watch_t));
    tg_lines_init(&watch->lines, TG_LINE_MAX);

    watch->client.timeout = NGX_HTTP_TENANT_WATCH_SILENCE;
    watch->client.stream = 1;
    ngx_http_tenant_sync_client(&watch->client, "watch stream",
                                &ngx_http_tenant_watch_handler);

    ngx_http_tenant_event_init(&watch->timer, &watch->dumb,
                               ngx_http_tenant_watch_timer, NULL);
    ngx_http_tenant_event_init(&watch->silence, &watch->dumb,
                               ngx_http_tenant_watch_silence, NULL);
    ngx_http_tenant_event_init(&watch->idle, &watch->dumb,
                               ngx_http_tenant_watch_idle, NULL);

    watch->applied = tg_zone_revision(ngx_http_tenant_sync.zone);

    /* what is here was made for another gateway: another view */

    if (shared->gateway[0]
        && (ngx_strlen(shared->gateway)
            != ngx_http_tenant_sync.tmcf->gateway.len
            || ngx_strncmp(shared->gateway,
                           ngx_http_tenant_sync.tmcf->gateway.data,
                           ngx_http_tenant_sync.tmcf->gateway.len) != 0))
    {
        watch->list = 1;
        watch->force = 1;
    }

    ngx_http_tenant_watch_connect();
}


void
ngx_http_tenant_watch_stop(void)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (watch->timer.timer_set) {
        ngx_del_timer(&watch->timer);
    }

    if (watch->silence.timer_set) {
        ngx_del_timer(&watch->silence);
    }

    if (watch->idle.timer_set) {
        ngx_del_timer(&watch->idle);
    }

    ngx_http_tenant_client_close(&watch->client);
    tg_lines_free(&watch->lines);
}


uint64_t
ngx_http_tenant_watch_applied(void)
{
    return ngx_http_tenant_watch.applied;
}


static void
ngx_http_tenant_watch_again(void)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (ngx_http_tenant_sync.shared->state == NGX_HTTP_TENANT_SYNC_OFF) {
        return;
    }

    ngx_http_tenant_client_close(&watch->client);
    ngx_http_tenant_watch_backoff(0);
}


void
ngx_http_tenant_watch_relist(void)
{
    ngx_http_tenant_watch.list = 1;
    ngx_http_tenant_watch_again();
}


void
ngx_http_tenant_watch_resume(void)
{
    ngx_http_tenant_watch_again();
}


/*
 * Where to go on: from what the zone has, or from what the file has when that is
 * less, for then the file would miss lines that the zone knows already.
 */
static uint64_t
ngx_http_tenant_watch_since(void)
{
    uint64_t  zone, file;

    zone = tg_zone_revision(ngx_http_tenant_sync.zone);

    if (ngx_http_tenant_watch.list || zone == 0) {
        return 0;
    }

    if (!ngx_http_tenant_snapshot_enabled()) {
        return zone;
    }

    file = ngx_http_tenant_snapshot_revision();

    return ngx_min(zone, file);
}


static void
ngx_http_tenant_watch_connect(void)
{
    int                        n;
    char                       uri[288];
    uint64_t                   seen;
    ngx_http_tenant_watch_t   *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    watch->since = ngx_http_tenant_watch_since();
    seen = ngx_max(tg_zone_revision(ngx_http_tenant_sync.zone), watch->seen);

    n = snprintf(uri, sizeof(uri), "/v1/watch?since=%llu&for=%.*s",
                 (unsigned long long) watch->since,
                 (int) ngx_http_tenant_sync.tmcf->gateway.len,
                 ngx_http_tenant_sync.tmcf->gateway.data);

    /* a registry that has not come as far as the zone was set back */
    if (watch->since && shared->registry[0]) {
        (void) snprintf(uri + n, sizeof(uri) - n, "&seen=%llu&registry=%s",
                        (unsigned long long) seen, shared->registry);
    }

    tg_lines_reset(&watch->lines);
    watch->seen = 0;
    watch->turn = 0;
    watch->least = 0;

    ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_CONNECT);

    if (ngx_http_tenant_client_request(&watch->client, "GET", uri, NULL)
        != NGX_OK)
    {
        ngx_http_tenant_watch_backoff(0);
    }
}


/* Connects after a while: so much longer each time, at random within the half,
 * so that many gateways do not come at once. */
static void
ngx_http_tenant_watch_backoff(ngx_msec_t least)
{
    ngx_msec_t                delay;
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    delay = NGX_HTTP_TENANT_WATCH_SLOWEST;

    if (watch->attempts < 7) {
        delay = ngx_min(delay, (ngx_msec_t) NGX_HTTP_TENANT_WATCH_FIRST
                               << watch->attempts);
    }

    watch->attempts++;
    delay = delay / 2 + ngx_random() % (delay / 2 + 1);

    if (watch->silence.timer_set) {
        ngx_del_timer(&watch->silence);
    }

    if (watch->idle.timer_set) {
        ngx_del_timer(&watch->idle);
    }

    ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_BACKOFF);
    ngx_add_timer(&watch->timer, ngx_max(delay, least));
}


static void
ngx_http_tenant_watch_timer(ngx_event_t *ev)
{
    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    ngx_http_tenant_watch_connect();
}


static void
ngx_http_tenant_watch_silence(ngx_event_t *ev)
{
    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: no line from tenantd for %d ms, connecting again",
                  NGX_HTTP_TENANT_WATCH_SILENCE);

    ngx_http_tenant_watch_again();
}


/* The registry of the response, "" when the list must be asked for first. */
static ngx_int_t
ngx_http_tenant_watch_registry(const tg_response_t *response)
{
    ngx_http_tenant_watch_t   *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    if (response->registry[0] == '\0') {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: the response has no Tiergate-Registry");
        return NGX_ERROR;
    }

    ngx_memcpy(watch->registry, response->registry, sizeof(watch->registry));

    if (shared->registry[0] == '\0'
        || ngx_strcmp(shared->registry, watch->registry) == 0)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_WARN, ngx_http_tenant_sync.log, 0,
                  "tenant: tenantd serves registry %s, not %s any more",
                  watch->registry, shared->registry);

    watch->list = 1;
    watch->force = 1;

    return watch->since ? NGX_DECLINED : NGX_OK;
}


static ngx_int_t
ngx_http_tenant_watch_status(const tg_response_t *response)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (response->status == 200 && response->jsonl) {
        return NGX_OK;
    }

    if (response->status == 410 && watch->since) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: revision %uL cannot be resumed, asking for a list",
                      watch->since);
        watch->list = 1;
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: tenantd answered %d to the watch request%s",
                  response->status,
                  response->status == 200 ? ", but not with lines of JSON"
                  : response->status == 401 || response->status == 403
                  ? ", look at token= and gateway= of tenant_source" : "");

    watch->least = (ngx_msec_t) response->retry_after * 1000;

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_tenant_watch_head(void *data, const tg_response_t *response)
{
    ngx_int_t                 rc;
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    rc = ngx_http_tenant_watch_status(response);

    if (rc == NGX_OK) {
        rc = ngx_http_tenant_watch_registry(response);
    }

    if (rc == NGX_DECLINED) {
        watch->attempts = 0;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_tenant_sync.shared->connects++;
    ngx_add_timer(&watch->silence, NGX_HTTP_TENANT_WATCH_SILENCE);

    if (watch->since == 0) {
        ngx_http_tenant_sync_lock();

        if (watch->force) {
            tg_zone_set_revision(ngx_http_tenant_sync.zone,
                                 tg_zone_revision(ngx_http_tenant_sync.zone),
                                 1);
        }

        tg_zone_list_begin(ngx_http_tenant_sync.zone);

        ngx_http_tenant_sync_unlock();

        ngx_http_tenant_snapshot_list(watch->registry);
        ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_LIST);

        return NGX_OK;
    }

    ngx_memcpy(ngx_http_tenant_sync.shared->registry, watch->registry,
               sizeof(watch->registry));

    ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_FOLLOW);
    ngx_http_tenant_ack_live();

    return NGX_OK;
}


static ssize_t
ngx_http_tenant_watch_body(void *data, const char *p, size_t len)
{
    size_t                    n;
    tg_error_t                err;
    ngx_int_t                 rc;
    const char               *pos, *line;
    tg_watch_event_t          event;
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (watch->turn == 0) {
        watch->turn = ngx_http_tenant_now_us() + NGX_HTTP_TENANT_WATCH_TURN;
    }

    for (pos = p; pos < p + len; /* void */ ) {

        switch (tg_lines_next(&watch->lines, &pos, p + len, &line, &n)) {

        case TG_LINES_MORE:
            return len;

        case TG_LINES_LINE:
            rc = ngx_http_tenant_watch_line(line, n);
            break;

        case TG_LINES_TOO_LONG:
            ngx_memzero(&event, sizeof(tg_watch_event_t));
            tg_error_set(&err, "", "longer than %d bytes", TG_LINE_MAX);
            rc = ngx_http_tenant_watch_refuse(&event, line, n, &err);
            break;

        default:
            rc = NGX_ERROR;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_tenant_now_us() >= watch->turn) {
            watch->turn = 0;
            return pos < p + len ? pos - p : NGX_AGAIN;
        }
    }

    return len;
}


/* No more for now.  Lines of one revision are sent together, but nothing says
 * that they arrive so: wait a little before calling the last one complete. */
static void
ngx_http_tenant_watch_drained(void *data)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    watch->turn = 0;

    if (watch->seen > watch->applied && tg_lines_idle(&watch->lines)
        && ngx_http_tenant_sync.shared->state == NGX_HTTP_TENANT_SYNC_FOLLOW)
    {
        ngx_add_timer(&watch->idle, NGX_HTTP_TENANT_WATCH_IDLE);
    }
}


static void
ngx_http_tenant_watch_idle(ngx_event_t *ev)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (tg_lines_idle(&watch->lines)) {
        watch->applied = ngx_max(watch->applied, watch->seen);
        ngx_http_tenant_ack_update();
    }
}


static void
ngx_http_tenant_watch_done(void *data, ngx_int_t rc)
{
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    if (rc == NGX_OK) {
        ngx_log_error(NGX_LOG_INFO, ngx_http_tenant_sync.log, 0,
                      "tenant: tenantd ended the watch stream");
    }

    ngx_http_tenant_watch_backoff(watch->least);
}


static ngx_int_t
ngx_http_tenant_watch_line(const char *line, size_t len)
{
    ngx_int_t                  rc;
    tg_error_t                 err;
    tg_watch_event_t           event;
    tg_watch_status_e          status;
    ngx_http_tenant_watch_t   *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    shared->last_line = ngx_http_tenant_now_ms();
    ngx_add_timer(&watch->silence, NGX_HTTP_TENANT_WATCH_SILENCE);

    status = tg_watch_parse(line, len, &event, &err);

    if (status == TG_WATCH_BAD_LINE) {
        rc = ngx_http_tenant_watch_refuse(&event, line, len, &err);
        tg_watch_release(&event);
        return rc;
    }

    shared->lines[event.type]++;

    if (event.type == TG_WATCH_BOOKMARK) {
        rc = ngx_http_tenant_watch_bookmark(&event);
        tg_watch_release(&event);
        return rc;
    }

    if (shared->state == NGX_HTTP_TENANT_SYNC_FOLLOW
        && event.revision > watch->seen)
    {
        watch->seen = event.revision;

        ngx_http_tenant_sync_lock();
        tg_zone_set_revision(ngx_http_tenant_sync.zone, event.revision - 1, 0);
        ngx_http_tenant_sync_unlock();
    }

    if (status == TG_WATCH_BAD_OBJECT) {
        ngx_http_tenant_reject_document(&event, &err);

    } else if (event.kind == 0) {
        /* of a newer tenantd: not for this gateway */

    } else if (event.type == TG_WATCH_PUT) {
        ngx_http_tenant_apply_put(&event, line, len);

    } else {
        ngx_http_tenant_apply_delete(&event, line, len);
    }

    tg_watch_release(&event);

    return NGX_OK;
}


/* NGX_ERROR: the stream is to be resumed.  NGX_OK: the line failed before. */
static ngx_int_t
ngx_http_tenant_watch_refuse(const tg_watch_event_t *event, const char *line,
    size_t len, tg_error_t *err)
{
    char                      reason[sizeof(err->message)
                                     + sizeof(err->pointer) + 32];
    uint64_t                  hash;
    ngx_uint_t                i, again;
    ngx_http_tenant_watch_t  *watch = &ngx_http_tenant_watch;

    hash = tg_hash(line, len, 0);
    again = 0;

    for (i = 0; i < NGX_HTTP_TENANT_WATCH_FAILED; i++) {
        again |= (watch->failed[i] == hash);
    }

    if (!again) {
        watch->failed[watch->nfailed++ % NGX_HTTP_TENANT_WATCH_FAILED] = hash;
    }

    (void) snprintf(reason, sizeof(reason), "invalid line: %s%s%s",
                    err->message, err->pointer[0] ? " at " : "", err->pointer);
    ngx_http_tenant_printable(reason);

    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: %s; %s \"%s\", revision %uL, %uz bytes: %s", reason,
                  event->kind ? tg_watch_kind_name(event->kind) : "object",
                  event->name, event->revision, len,
                  again ? "passed over" : "resuming the stream");

    ngx_http_tenant_reject(event, 0, again, reason);

    if (again && event->kind) {
        ngx_http_tenant_sync_lock();
        tg_zone_keep(ngx_http_tenant_sync.zone, event->kind, event->name,
                     ngx_strlen(event->name), event->id);
        ngx_http_tenant_sync_unlock();
    }

    return again ? NGX_OK : NGX_ERROR;
}


/* The list is complete: what it did not name is gone. */
static ngx_int_t
ngx_http_tenant_watch_listed(uint64_t revision)
{
    ngx_uint_t                    back;
    tg_zone_t                    *zone = ngx_http_tenant_sync.zone;
    ngx_http_tenant_watch_t      *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t     *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    back = revision < tg_zone_revision(zone);

    ngx_http_tenant_sync_lock();
    tg_zone_list_end(zone);
    tg_zone_set_revision(zone, revision, back);
    ngx_http_tenant_sync_unlock();

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    ngx_memcpy(shared->registry, watch->registry, sizeof(shared->registry));
    ngx_memzero(shared->gateway, sizeof(shared->gateway));
    ngx_memcpy(shared->gateway, tmcf->gateway.data, tmcf->gateway.len);
    shared->loaded = 1;
    shared->lists++;

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                  "tenant: listed registry %s, revision %uL", watch->registry,
                  revision);

    /* the registry was restored from a backup: what the zone had looked newer
     * than what was listed, and must be replaced all the same */

    watch->list = back && !watch->force;
    watch->force = watch->list;
    watch->since = revision;
    watch->applied = revision;

    ngx_http_tenant_snapshot_listed(revision);
    ngx_http_tenant_counts_restored();
    ngx_http_tenant_reject_bookmark(1);
    ngx_http_tenant_sync_set_state(NGX_HTTP_TENANT_SYNC_FOLLOW);
    ngx_http_tenant_ack_live();

    return watch->list ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_tenant_watch_bookmark(const tg_watch_event_t *event)
{
    ngx_http_tenant_watch_t   *watch = &ngx_http_tenant_watch;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    watch->attempts = 0;
    shared->bookmark = event->revision;

    if (shared->state != NGX_HTTP_TENANT_SYNC_LIST || event->complete) {
        shared->settled = 1;
    }

    if (shared->state == NGX_HTTP_TENANT_SYNC_LIST) {
        return event->complete ? ngx_http_tenant_watch_listed(event->revision)
                               : NGX_OK;
    }

    if (event->revision > tg_zone_revision(ngx_http_tenant_sync.zone)) {
        ngx_http_tenant_sync_lock();
        tg_zone_set_revision(ngx_http_tenant_sync.zone, event->revision, 0);
        ngx_http_tenant_sync_unlock();
    }

    ngx_http_tenant_snapshot_bookmark(event->revision);
    ngx_http_tenant_counts_restored();
    ngx_http_tenant_reject_bookmark(0);

    if (event->revision > watch->applied) {
        watch->applied = event->revision;
        ngx_http_tenant_ack_update();
    }

    return NGX_OK;
}
