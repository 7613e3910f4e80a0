/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reads the snapshot file in slices: checks every line and makes an index; at a
 * cold start then applies the objects that the index names.
 */

#include "ngx_http_tenant_snapshot.h"


#define NGX_HTTP_TENANT_SNAPSHOT_COLD   5000    /* us of a turn, when nothing can
                                                 * be served yet */
#define NGX_HTTP_TENANT_SNAPSHOT_SLICE  1000    /* us, otherwise */
#define NGX_HTTP_TENANT_SNAPSHOT_PAUSE  5       /* ms before the next slice */


static void ngx_http_tenant_snapshot_opened(ngx_uint_t good);


static ngx_uint_t
ngx_http_tenant_snapshot_reading(void)
{
    return ngx_http_tenant_snapshot.phase == NGX_HTTP_TENANT_SNAPSHOT_SCAN
           || ngx_http_tenant_snapshot.phase == NGX_HTTP_TENANT_SNAPSHOT_LOAD;
}


/* The next slice: at once while nothing can be served yet, else with pauses. */
void
ngx_http_tenant_snapshot_continue(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_http_tenant_snapshot_reading()) {
        ngx_post_event(&s->work, &ngx_posted_next_events);

    } else {
        ngx_add_timer(&s->work, NGX_HTTP_TENANT_SNAPSHOT_PAUSE);
    }
}


void
ngx_http_tenant_snapshot_read(ngx_http_tenant_snapshot_phase_e phase,
    uint64_t end)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    s->phase = phase;
    s->damage = NULL;
    s->damaged_at = 0;
    s->scan = tg_snapshot_scan_create();
    s->reader = ngx_http_tenant_reader_open(&s->path, 0, end,
                                            ngx_http_tenant_sync.log);

    if (s->reader == NULL && ngx_errno != NGX_ENOENT) {
        ngx_http_tenant_sync.shared->file_failures++;
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, ngx_errno,
                      "tenant: opening \"%V\" failed", &s->path);
    }

    ngx_http_tenant_snapshot_continue();
}


/* The file is known, good or not; the object of all this is over. */
static void
ngx_http_tenant_snapshot_opened(ngx_uint_t good)
{
    ngx_uint_t                   locked;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    locked = (ngx_http_tenant_snapshot_take_lock() == NGX_OK);
    s->phase = locked ? NGX_HTTP_TENANT_SNAPSHOT_READY
                      : NGX_HTTP_TENANT_SNAPSHOT_LOCKED;

    if (good && locked) {
        if (ngx_http_tenant_file_init(&s->live, ngx_http_tenant_sync.log)
            != NGX_OK
            || ngx_http_tenant_file_append(&s->live, &s->path, s->result.size,
                                           s->result.revision,
                                           s->result.digest) != NGX_OK)
        {
            ngx_http_tenant_snapshot_drop();
            ngx_http_tenant_snapshot_failed();

        } else {
            s->live.base = s->result.bytes + s->result.objects * 64;
            ngx_http_tenant_snapshot_remember();
        }
    }

    ngx_http_tenant_snapshot_release();
    s->cold = 0;
    s->done();
}


/* Why the file, though undamaged, is not this gateway's; NULL: it is. */
static const char *
ngx_http_tenant_snapshot_foreign(const tg_scan_result_t *result)
{
    ngx_http_tenant_shared_t     *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_snapshot_t   *s = &ngx_http_tenant_snapshot;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    if (tmcf->gateway.len
        && (ngx_strlen(result->gateway) != tmcf->gateway.len
            || ngx_strncmp(result->gateway, tmcf->gateway.data,
                           tmcf->gateway.len) != 0))
    {
        return "it is another gateway's";
    }

    if (!s->cold && shared->registry[0]
        && ngx_strcmp(result->registry, shared->registry) != 0)
    {
        return "it is of another registry";
    }

    return NULL;
}


/* good: all lines are, but perhaps a torn last one. */
static void
ngx_http_tenant_snapshot_scanned(ngx_uint_t good)
{
    const char                  *foreign;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    tg_snapshot_scan_result(s->scan, &s->result);

    if (s->damage) {
        ngx_http_tenant_sync.shared->file_failures++;
    }

    if (!good || !s->result.valid) {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: snapshot \"%V\" is refused, at byte %uL: %s",
                      &s->path, s->damaged_at,
                      s->damage ? s->damage : "there is no BOOKMARK");
        ngx_http_tenant_snapshot_opened(0);
        return;
    }

    foreign = ngx_http_tenant_snapshot_foreign(&s->result);

    if (foreign) {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: snapshot \"%V\" is refused: %s", &s->path,
                      foreign);
        ngx_http_tenant_snapshot_opened(0);
        return;
    }

    if (s->damage) {
        ngx_log_error(NGX_LOG_WARN, ngx_http_tenant_sync.log, 0,
                      "tenant: snapshot \"%V\" is torn at byte %uL: %s; taken "
                      "up to byte %uL, revision %uL", &s->path, s->damaged_at,
                      s->damage, s->result.size, s->result.revision);
    }

    if (!s->cold) {
        ngx_http_tenant_snapshot_opened(1);
        return;
    }

    s->phase = NGX_HTTP_TENANT_SNAPSHOT_LOAD;
    s->entry = 0;

    ngx_http_tenant_sync_lock();
    tg_zone_list_begin(ngx_http_tenant_sync.zone);
    ngx_http_tenant_sync_unlock();

    ngx_http_tenant_snapshot_continue();
}


/* A line that is damaged where the file ends was torn, and what is above it is
 * good.  Where more lines follow somebody has been at the file: NGX_ERROR. */
static ngx_int_t
ngx_http_tenant_snapshot_torn(const char *damage)
{
    size_t                       len;
    const char                  *line;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    s->damage = damage;
    s->damaged_at = tg_snapshot_scan_offset(s->scan);

    return ngx_http_tenant_reader_line(s->reader, &line, &len) == NGX_DONE
           ? NGX_DONE : NGX_ERROR;
}


/* Checks lines until the slice is over.  NGX_AGAIN: there are more; NGX_DONE: all
 * is good, or was torn at the end; NGX_ERROR: not, s->damage says why. */
static ngx_int_t
ngx_http_tenant_snapshot_scan(uint64_t until)
{
    size_t                       len;
    ngx_int_t                    rc;
    const char                  *line;
    static tg_error_t            err;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    while (ngx_http_tenant_now_us() < until) {

        rc = ngx_http_tenant_reader_line(s->reader, &line, &len);

        if (rc == NGX_DONE) {
            return tg_snapshot_scan_offset(s->scan) == s->reader->offset
                   ? NGX_DONE
                   : ngx_http_tenant_snapshot_torn("the last line is incomplete");
        }

        if (rc != NGX_OK) {
            s->damaged_at = tg_snapshot_scan_offset(s->scan);
            s->damage = ngx_errno ? strerror(ngx_errno) : "a line is too long";
            return NGX_ERROR;
        }

        switch (tg_snapshot_scan_line(s->scan, line, len, &err)) {

        case TG_SCAN_OK:
            break;

        case TG_SCAN_DAMAGED:
            return ngx_http_tenant_snapshot_torn(err.message);

        default:
            s->damaged_at = tg_snapshot_scan_offset(s->scan);
            s->damage = "no memory";
            return NGX_ERROR;
        }
    }

    return NGX_AGAIN;
}


ngx_int_t
ngx_http_tenant_snapshot_object(const tg_snapshot_entry_t *entry)
{
    ssize_t                      n;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->object.size < entry->len) {
        tg_text_free(&s->object);
        s->object.data = malloc(entry->len + 4096);

        if (s->object.data == NULL) {
            return NGX_ERROR;
        }

        s->object.size = entry->len + 4096;
    }

    n = pread(s->reader->fd, s->object.data, entry->len, (off_t) entry->offset);
    s->object.len = entry->len;

    return n == (ssize_t) entry->len ? NGX_OK : NGX_ERROR;
}


/* Applies one object.  NGX_ERROR: the file is not to be trusted. */
static ngx_int_t
ngx_http_tenant_snapshot_apply(const tg_snapshot_entry_t *entry,
    tg_error_t *err)
{
    ngx_int_t                    rc;
    tg_zone_status_e             status;
    tg_watch_event_t             event;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    rc = NGX_ERROR;

    if (tg_watch_parse(s->object.data, s->object.len, &event, err)
        != TG_WATCH_OK)
    {
        goto done;
    }

    if (event.type != TG_WATCH_PUT || event.kind != (int) entry->kind
        || event.id != entry->id)
    {
        tg_error_set(err, "", "a record is of another object than it says");
        goto done;
    }

    if (ngx_http_tenant_apply(&event, &status, err) != NGX_OK) {
        goto done;
    }

    if (status == TG_ZONE_FULL) {
        s->full++;
        ngx_http_tenant_reject(&event, 1, 0, "zone full while the snapshot was "
                               "loaded: make tenant_zone larger");
    }

    rc = NGX_OK;

done:

    tg_watch_release(&event);

    return rc;
}


/* Everything that was applied goes again. */
static void
ngx_http_tenant_snapshot_unload(void)
{
    ngx_http_tenant_sync_lock();
    tg_zone_list_begin(ngx_http_tenant_sync.zone);
    tg_zone_list_end(ngx_http_tenant_sync.zone);
    ngx_http_tenant_sync_unlock();
}


static void
ngx_http_tenant_snapshot_loaded(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;

    ngx_http_tenant_sync_lock();
    tg_zone_list_end(ngx_http_tenant_sync.zone);
    tg_zone_set_revision(ngx_http_tenant_sync.zone, s->result.revision, 0);
    ngx_http_tenant_sync_unlock();

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    ngx_memcpy(shared->registry, s->result.registry, sizeof(shared->registry));
    ngx_memcpy(shared->gateway, s->result.gateway, sizeof(shared->gateway));
    shared->loaded = 1;

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                  "tenant: loaded %uz objects of revision %uL from \"%V\" in "
                  "%uL ms", s->result.objects - s->full, s->result.revision,
                  &s->path, ngx_http_tenant_now_ms() - s->started);

    if (s->full) {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: zone full, %ui objects of the snapshot had no "
                      "room: make tenant_zone larger", s->full);
    }

    if (ngx_http_tenant_sync.tmcf->source) {
        ngx_http_tenant_counts_loaded();
    } else {
        ngx_http_tenant_counts_restored();
    }

    ngx_http_tenant_snapshot_opened(1);
}


static void
ngx_http_tenant_snapshot_load(uint64_t until)
{
    tg_error_t                   err;
    const tg_snapshot_entry_t   *entry;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    while (ngx_http_tenant_now_us() < until) {

        if (s->entry == s->result.nentries) {
            ngx_http_tenant_snapshot_loaded();
            return;
        }

        entry = &s->result.entries[s->entry++];

        if (entry->len == 0) {
            continue;
        }

        tg_error_set(&err, "", "reading failed");

        if (ngx_http_tenant_snapshot_object(entry) != NGX_OK
            || ngx_http_tenant_snapshot_apply(entry, &err) != NGX_OK)
        {
            ngx_http_tenant_printable(err.message);
            ngx_http_tenant_printable(err.pointer);
            ngx_http_tenant_sync.shared->file_failures++;
            ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                          "tenant: snapshot \"%V\" is refused, %s %uL at byte "
                          "%uL: %s %s", &s->path,
                          tg_record_kind_name((int) entry->kind), entry->id,
                          entry->offset, err.message, err.pointer);

            ngx_http_tenant_snapshot_unload();
            ngx_http_tenant_snapshot_opened(0);
            return;
        }
    }

    ngx_http_tenant_snapshot_continue();
}


void
ngx_http_tenant_snapshot_work(ngx_event_t *ev)
{
    uint64_t                     until;
    ngx_int_t                    rc;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_exiting) {
        ngx_http_tenant_sync_stop();
        return;
    }

    until = ngx_http_tenant_now_us()
            + (s->cold ? NGX_HTTP_TENANT_SNAPSHOT_COLD
                       : NGX_HTTP_TENANT_SNAPSHOT_SLICE);

    switch (s->phase) {

    case NGX_HTTP_TENANT_SNAPSHOT_SCAN:
    case NGX_HTTP_TENANT_SNAPSHOT_INDEX:
        break;

    case NGX_HTTP_TENANT_SNAPSHOT_LOAD:
        ngx_http_tenant_snapshot_load(until);
        return;

    default:
        ngx_http_tenant_snapshot_compact_slice(until);
        return;
    }

    if (s->reader == NULL || s->scan == NULL) {
        if (s->phase == NGX_HTTP_TENANT_SNAPSHOT_SCAN) {
            ngx_http_tenant_snapshot_opened(0);

        } else {
            ngx_http_tenant_snapshot_indexed(0);
        }

        return;
    }

    rc = ngx_http_tenant_snapshot_scan(until);

    if (rc == NGX_AGAIN) {
        ngx_http_tenant_snapshot_continue();

    } else if (s->phase == NGX_HTTP_TENANT_SNAPSHOT_SCAN) {
        ngx_http_tenant_snapshot_scanned(rc == NGX_DONE);

    } else {
        ngx_http_tenant_snapshot_indexed(rc == NGX_DONE && !s->damage);
    }
}
