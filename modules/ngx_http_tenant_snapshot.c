/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The snapshot file: what a gateway starts from when tenantd is away.  The
 * leader writes it, lib/tg_snapshot.h has its format.
 *
 *  1. Lines of the stream are appended, a few seconds behind.  The zone is
 *     always at least as new as the file; the stream is resumed from the file's
 *     revision when that is lower, which the zone does not mind.
 *  2. A list, and a compaction, write a new file beside the old one.  It gets
 *     the name when it is complete and on the disk.
 *  3. PATH.lock keeps two masters (binary upgrade) from writing the same file.
 *     Without the lock it is only read.
 *  4. When writing fails the file stays as it is, valid but behind, and is tried
 *     again later.
 *  5. At a cold start the file is read twice: first its lines are checked and an
 *     index is made, then the objects that the index names are applied.  So
 *     nothing of a damaged file ever reaches the zone.
 *
 * Reading a file of 100,000 tenants takes seconds; it is done in slices.
 */

#include "ngx_http_tenant_snapshot.h"


#define NGX_HTTP_TENANT_SNAPSHOT_PIECE  1048576     /* flushed at a time */
#define NGX_HTTP_TENANT_SNAPSHOT_SMALL  1048576     /* the disk takes it at once */
#define NGX_HTTP_TENANT_SNAPSHOT_MOST   33554432    /* kept when it cannot be */
#define NGX_HTTP_TENANT_SNAPSHOT_EARLY  100         /* ms: the tick's jitter */
#define NGX_HTTP_TENANT_SNAPSHOT_RETRY  10          /* s; doubled up to ... */
#define NGX_HTTP_TENANT_SNAPSHOT_SLOWEST  600


static void ngx_http_tenant_snapshot_open(void);
static ngx_int_t ngx_http_tenant_snapshot_quick(void);


ngx_http_tenant_snapshot_t  ngx_http_tenant_snapshot;


/* --- life --- */

ngx_int_t
ngx_http_tenant_snapshot_take_lock(void)
{
    ngx_err_t                    err;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->lock == NGX_INVALID_FILE) {
        s->lock = ngx_http_tenant_file_lock(&s->path);
    }

    if (s->lock != NGX_INVALID_FILE) {
        return NGX_OK;
    }

    err = ngx_errno;

    if (s->complained) {
        return NGX_DECLINED;
    }

    s->complained = 1;

    if (err == NGX_EAGAIN) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: snapshot \"%V\" is another master's for now",
                      &s->path);

    } else {
        ngx_http_tenant_sync.shared->file_failures++;
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, err,
                      "tenant: opening \"%V.lock\" failed, no snapshot is "
                      "written", &s->path);
    }

    return NGX_DECLINED;
}


void
ngx_http_tenant_snapshot_start(void (*done)(void))
{
    static char                   temporary[NGX_MAX_PATH];
    ngx_http_tenant_snapshot_t   *s = &ngx_http_tenant_snapshot;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    ngx_memzero(s, sizeof(ngx_http_tenant_snapshot_t));
    s->lock = NGX_INVALID_FILE;
    s->live.fd = NGX_INVALID_FILE;
    s->next.fd = NGX_INVALID_FILE;
    s->done = done;
    s->cold = !ngx_http_tenant_sync_loaded();

    if (tmcf->snapshot.len == 0) {
        done();
        return;
    }

    s->path = tmcf->snapshot;
    s->temporary.data = (u_char *) temporary;
    s->temporary.len = (size_t) snprintf(temporary, sizeof(temporary),
                                         "%s.tmp", s->path.data);

    ngx_http_tenant_event_init(&s->work, &s->dumb,
                               ngx_http_tenant_snapshot_work, NULL);

    if (ngx_http_tenant_snapshot_take_lock() != NGX_OK && !s->cold) {
        s->phase = NGX_HTTP_TENANT_SNAPSHOT_LOCKED;
        done();
        return;
    }

    ngx_http_tenant_snapshot_open();
}


/* Finds out what is in the file; ends in s->done(). */
static void
ngx_http_tenant_snapshot_open(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (!s->cold && ngx_http_tenant_snapshot_quick() == NGX_OK) {
        s->phase = NGX_HTTP_TENANT_SNAPSHOT_READY;
        s->done();
        return;
    }

    s->started = ngx_http_tenant_now_ms();
    ngx_http_tenant_snapshot_read(NGX_HTTP_TENANT_SNAPSHOT_SCAN, UINT64_MAX);
}


void
ngx_http_tenant_snapshot_stop(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->phase == NGX_HTTP_TENANT_SNAPSHOT_OFF) {
        return;
    }

    ngx_http_tenant_snapshot_release();

    if (s->live.fd != NGX_INVALID_FILE
        && ngx_http_tenant_file_flush(&s->live) == NGX_OK
        && (!s->unnamed
            || ngx_http_tenant_file_publish(&s->live, &s->path) == NGX_OK))
    {
        s->unnamed = 0;
        ngx_http_tenant_snapshot_remember();
    }

    ngx_http_tenant_file_close(&s->live);

    if (s->lock != NGX_INVALID_FILE) {
        (void) ngx_close_file(s->lock);
    }

    s->phase = NGX_HTTP_TENANT_SNAPSHOT_OFF;
}


void
ngx_http_tenant_snapshot_release(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->work.posted) {
        ngx_delete_posted_event(&s->work);
    }

    if (s->work.timer_set) {
        ngx_del_timer(&s->work);
    }

    ngx_http_tenant_reader_close(s->reader);
    s->reader = NULL;

    tg_snapshot_scan_destroy(s->scan);
    s->scan = NULL;

    tg_text_free(&s->object);

    if (s->next.fd != NGX_INVALID_FILE) {
        (void) ngx_delete_file(s->temporary.data);
    }

    ngx_http_tenant_file_close(&s->next);
    s->listing = 0;
}


/* --- what the leader leaves to the next one in shared memory --- */

void
ngx_http_tenant_snapshot_remember(void)
{
    ngx_http_tenant_file_mark_t  mark;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    ngx_http_tenant_file_mark(&s->live, &mark);

    if (s->unnamed) {
        mark.inode = 0;
    }

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);
    ngx_http_tenant_sync.shared->snapshot = mark;
    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);
}


/* The file is as the last leader of this zone left it: no need to read it. */
static ngx_int_t
ngx_http_tenant_snapshot_quick(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_http_tenant_file_init(&s->live, ngx_http_tenant_sync.log) == NGX_OK
        && ngx_http_tenant_file_resume(&s->live, &s->path,
                                       &ngx_http_tenant_sync.shared->snapshot)
           == NGX_OK)
    {
        return NGX_OK;
    }

    ngx_http_tenant_snapshot_drop();

    return NGX_DECLINED;
}


/* --- following the stream --- */

ngx_uint_t
ngx_http_tenant_snapshot_enabled(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    return s->phase >= NGX_HTTP_TENANT_SNAPSHOT_READY
           && s->phase != NGX_HTTP_TENANT_SNAPSHOT_BEHIND;
}


uint64_t
ngx_http_tenant_snapshot_revision(void)
{
    return ngx_http_tenant_snapshot.live.added;
}


/* Where lines go now; NULL: nowhere. */
static ngx_http_tenant_file_t *
ngx_http_tenant_snapshot_target(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (!ngx_http_tenant_snapshot_enabled()) {
        return NULL;
    }

    if (s->listing) {
        return &s->next;
    }

    return s->live.fd != NGX_INVALID_FILE ? &s->live : NULL;
}


void
ngx_http_tenant_snapshot_failed(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    ngx_http_tenant_snapshot_release();

    if (s->live.fd != NGX_INVALID_FILE) {
        ngx_http_tenant_file_rewind(&s->live);
    }

    s->retry = s->retry ? ngx_min(s->retry * 2,
                                  NGX_HTTP_TENANT_SNAPSHOT_SLOWEST)
                        : NGX_HTTP_TENANT_SNAPSHOT_RETRY;
    s->retry_at = ngx_time() + s->retry;
    s->phase = NGX_HTTP_TENANT_SNAPSHOT_BEHIND;

    ngx_http_tenant_sync.shared->file_failures++;
    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: snapshot \"%V\" stays at revision %uL, next try in "
                  "%T s", &s->path, s->live.revision, s->retry);
}


void
ngx_http_tenant_snapshot_drop(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    ngx_http_tenant_file_close(&s->live);
    s->live.revision = 0;
    s->live.added = 0;
    s->unnamed = 0;
}


/* Gives the live file its name, if it has not. */
static void
ngx_http_tenant_snapshot_publish(void)
{
    uint64_t                     began, took;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (!s->unnamed) {
        return;
    }

    began = ngx_http_tenant_now_ms();

    if (ngx_http_tenant_file_publish(&s->live, &s->path) != NGX_OK) {
        (void) ngx_delete_file(s->temporary.data);
        ngx_http_tenant_snapshot_drop();
        ngx_http_tenant_snapshot_failed();
        return;
    }

    s->unnamed = 0;
    s->retry = 0;
    ngx_http_tenant_snapshot_remember();

    took = ngx_http_tenant_now_ms() - began;

    ngx_log_error((took > 100 ? NGX_LOG_WARN : NGX_LOG_INFO),
                  ngx_http_tenant_sync.log, 0,
                  "tenant: snapshot \"%V\" written, revision %uL, %uL bytes, "
                  "waited %uL ms for the disk", &s->path, s->live.revision,
                  s->live.size, took);
}


void
ngx_http_tenant_snapshot_list(const char *registry)
{
    char                          gateway[TG_SNAPSHOT_GATEWAY + 1];
    ngx_http_tenant_snapshot_t   *s = &ngx_http_tenant_snapshot;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    if (!ngx_http_tenant_snapshot_enabled()) {
        return;
    }

    ngx_http_tenant_snapshot_release();
    ngx_http_tenant_snapshot_publish();

    if (!ngx_http_tenant_snapshot_enabled()) {
        return;
    }

    s->phase = NGX_HTTP_TENANT_SNAPSHOT_READY;
    (void) ngx_cpystrn((u_char *) gateway, tmcf->gateway.data, sizeof(gateway));

    if (ngx_http_tenant_file_init(&s->next, ngx_http_tenant_sync.log) != NGX_OK
        || ngx_http_tenant_file_create(&s->next, &s->temporary, registry,
                                       gateway) != NGX_OK)
    {
        ngx_http_tenant_snapshot_failed();
        return;
    }

    s->listing = 1;
}


/* next is complete: it is the file from now on, and gets the name when the disk
 * has had time to take it. */
void
ngx_http_tenant_snapshot_switch(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    ngx_http_tenant_file_move(&s->live, &s->next);
    s->live.base = s->live.size;
    s->listing = 0;
    s->unnamed = 1;
    s->phase = NGX_HTTP_TENANT_SNAPSHOT_READY;

    ngx_http_tenant_snapshot_release();
}


void
ngx_http_tenant_snapshot_listed(uint64_t revision)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (!s->listing) {
        return;
    }

    if (ngx_http_tenant_file_bookmark(&s->next, revision) != NGX_OK
        || ngx_http_tenant_file_flush(&s->next) != NGX_OK)
    {
        ngx_http_tenant_snapshot_failed();
        return;
    }

    ngx_http_tenant_snapshot_switch();

    if (s->live.size < NGX_HTTP_TENANT_SNAPSHOT_SMALL) {
        ngx_http_tenant_snapshot_publish();
    }
}


void
ngx_http_tenant_snapshot_line(const tg_watch_event_t *event, const char *line,
    size_t len)
{
    tg_record_t              record;
    ngx_http_tenant_file_t  *file;

    file = ngx_http_tenant_snapshot_target();

    if (file == NULL) {
        return;
    }

    record.type = event->type;
    record.kind = event->kind;
    record.number = event->id;
    record.line = line;
    record.len = len;

    /* white space around the object is not what a record has */

    while (record.len && record.line[0] != '{') {
        record.line++;
        record.len--;
    }

    while (record.len && record.line[record.len - 1] != '}') {
        record.len--;
    }

    if (ngx_http_tenant_file_add(file, &record) != NGX_OK
        || (file->out.len > NGX_HTTP_TENANT_SNAPSHOT_PIECE
            && ngx_http_tenant_file_flush(file) != NGX_OK
            && (file->out.len > NGX_HTTP_TENANT_SNAPSHOT_MOST
                || file == &ngx_http_tenant_snapshot.next)))
    {
        ngx_http_tenant_snapshot_failed();
    }
}


void
ngx_http_tenant_snapshot_bookmark(uint64_t revision)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_http_tenant_snapshot_target() != &s->live) {
        return;
    }

    if (revision > s->live.added
        && ngx_http_tenant_file_bookmark(&s->live, revision) != NGX_OK)
    {
        ngx_http_tenant_snapshot_failed();
        return;
    }

    if (s->live.out.len == 0 && !s->unnamed) {
        ngx_http_tenant_sync.shared->file_fresh = ngx_http_tenant_now_ms();
    }
}


static void
ngx_http_tenant_snapshot_flush(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->live.out.len == 0
        || ngx_current_msec - s->flushed + NGX_HTTP_TENANT_SNAPSHOT_EARLY
           < ngx_http_tenant_sync.conf->snapshot_interval)
    {
        return;
    }

    s->flushed = ngx_current_msec;

    if (ngx_http_tenant_file_flush(&s->live) == NGX_OK) {
        ngx_http_tenant_snapshot_remember();
        ngx_http_tenant_sync.shared->file_fresh = ngx_http_tenant_now_ms();

    } else if (s->live.out.len > NGX_HTTP_TENANT_SNAPSHOT_MOST) {
        ngx_http_tenant_snapshot_failed();
    }
}


void
ngx_http_tenant_snapshot_tick(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    switch (s->phase) {

    case NGX_HTTP_TENANT_SNAPSHOT_LOCKED:
        if (ngx_http_tenant_snapshot_take_lock() == NGX_OK) {
            s->done = ngx_http_tenant_watch_resume;
            ngx_http_tenant_snapshot_open();
        }

        break;

    case NGX_HTTP_TENANT_SNAPSHOT_BEHIND:
        if (ngx_time() >= s->retry_at) {
            s->phase = NGX_HTTP_TENANT_SNAPSHOT_READY;
            ngx_http_tenant_watch_resume();
        }

        break;

    case NGX_HTTP_TENANT_SNAPSHOT_OFF:
    case NGX_HTTP_TENANT_SNAPSHOT_SCAN:
    case NGX_HTTP_TENANT_SNAPSHOT_LOAD:
        break;

    default:
        ngx_http_tenant_snapshot_publish();
        ngx_http_tenant_snapshot_flush();

        ngx_http_tenant_snapshot_compact();
    }
}
