/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Compaction: when more than half of the file is superseded, the objects that
 * count are copied to a new one, and then what was appended meanwhile.  The
 * stream goes on being followed by the old file until the new one has caught up.
 */

#include "ngx_http_tenant_snapshot.h"


#define NGX_HTTP_TENANT_SNAPSHOT_PIECE  1048576     /* flushed at a time */
#define NGX_HTTP_TENANT_SNAPSHOT_SLACK  65536       /* not worth compacting */
#define NGX_HTTP_TENANT_SNAPSHOT_AGAIN  600         /* s, after a failure */


static ngx_uint_t
ngx_http_tenant_snapshot_worn(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    return s->phase == NGX_HTTP_TENANT_SNAPSHOT_READY && !s->listing
           && !s->unnamed && ngx_time() >= s->compact_at
           && s->live.fd != NGX_INVALID_FILE
           && s->live.size > 2 * s->live.base + NGX_HTTP_TENANT_SNAPSHOT_SLACK;
}


void
ngx_http_tenant_snapshot_compact(void)
{
    if (ngx_http_tenant_snapshot_worn()) {
        ngx_http_tenant_snapshot_read(NGX_HTTP_TENANT_SNAPSHOT_INDEX,
                                      ngx_http_tenant_snapshot.live.size);
    }
}


/* Not now; the live file is as good as before. */
static void
ngx_http_tenant_snapshot_put_off(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    ngx_http_tenant_snapshot_release();

    s->phase = NGX_HTTP_TENANT_SNAPSHOT_READY;
    s->compact_at = ngx_time() + NGX_HTTP_TENANT_SNAPSHOT_AGAIN;

    ngx_http_tenant_sync.shared->file_failures++;
    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: snapshot \"%V\" could not be compacted", &s->path);
}


void
ngx_http_tenant_snapshot_indexed(ngx_uint_t good)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (s->scan) {
        tg_snapshot_scan_result(s->scan, &s->result);
        good = good && s->result.valid;
    }

    if (!good) {
        /* it has rotted where it lies: only a list can replace it */
        ngx_http_tenant_snapshot_put_off();
        ngx_http_tenant_snapshot_drop();
        ngx_http_tenant_watch_relist();
        return;
    }

    if (ngx_http_tenant_file_init(&s->next, ngx_http_tenant_sync.log) != NGX_OK
        || ngx_http_tenant_file_create(&s->next, &s->temporary,
                                       s->result.registry, s->result.gateway)
           != NGX_OK)
    {
        ngx_http_tenant_snapshot_put_off();
        return;
    }

    s->phase = NGX_HTTP_TENANT_SNAPSHOT_COPY;
    s->entry = 0;

    ngx_http_tenant_snapshot_continue();
}


static ngx_int_t
ngx_http_tenant_snapshot_flush_next(size_t limit)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    return s->next.out.len > limit ? ngx_http_tenant_file_flush(&s->next)
                                   : NGX_OK;
}


/* All objects are copied: goes on with the records behind the index. */
static ngx_int_t
ngx_http_tenant_snapshot_copied(void)
{
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_http_tenant_file_bookmark(&s->next, s->result.revision) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_tenant_reader_close(s->reader);
    s->reader = ngx_http_tenant_reader_open(&s->path, s->result.size,
                                            UINT64_MAX,
                                            ngx_http_tenant_sync.log);
    s->phase = NGX_HTTP_TENANT_SNAPSHOT_CATCH_UP;

    return s->reader ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_tenant_snapshot_copy(uint64_t until)
{
    tg_record_t                  record;
    const tg_snapshot_entry_t   *entry;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    while (ngx_http_tenant_now_us() < until) {

        if (s->entry == s->result.nentries) {
            return ngx_http_tenant_snapshot_copied();
        }

        entry = &s->result.entries[s->entry++];

        if (entry->len == 0) {
            continue;
        }

        if (ngx_http_tenant_snapshot_object(entry) != NGX_OK) {
            return NGX_ERROR;
        }

        record.type = TG_WATCH_PUT;
        record.kind = (int) entry->kind;
        record.number = entry->id;
        record.line = s->object.data;
        record.len = s->object.len;

        if (ngx_http_tenant_file_add(&s->next, &record) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_http_tenant_snapshot_flush_next(NGX_HTTP_TENANT_SNAPSHOT_PIECE);
}


/* Copies records that were appended since; NGX_DONE when there are none left. */
static ngx_int_t
ngx_http_tenant_snapshot_catch_up(uint64_t until)
{
    size_t                       len;
    ngx_int_t                    rc;
    const char                  *line;
    tg_record_t                  record;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    if (ngx_http_tenant_file_flush(&s->live) != NGX_OK) {
        return NGX_ERROR;
    }

    while (ngx_http_tenant_now_us() < until) {

        rc = ngx_http_tenant_reader_line(s->reader, &line, &len);

        if (rc == NGX_DONE) {
            rc = ngx_http_tenant_file_flush(&s->next);
            return rc == NGX_OK ? NGX_DONE : NGX_ERROR;
        }

        if (rc != NGX_OK || tg_snapshot_parse(line, len, &record) != 0
            || ngx_http_tenant_file_add(&s->next, &record) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (record.type == TG_WATCH_BOOKMARK) {
            s->next.added = record.number;
        }
    }

    return ngx_http_tenant_snapshot_flush_next(NGX_HTTP_TENANT_SNAPSHOT_PIECE);
}


void
ngx_http_tenant_snapshot_compact_slice(uint64_t until)
{
    ngx_int_t                    rc;
    ngx_http_tenant_snapshot_t  *s = &ngx_http_tenant_snapshot;

    rc = s->phase == NGX_HTTP_TENANT_SNAPSHOT_COPY
         ? ngx_http_tenant_snapshot_copy(until)
         : ngx_http_tenant_snapshot_catch_up(until);

    switch (rc) {

    case NGX_OK:
        ngx_http_tenant_snapshot_continue();
        break;

    case NGX_DONE:
        ngx_http_tenant_snapshot_switch();
        break;

    default:
        ngx_http_tenant_snapshot_put_off();
    }
}
