/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Calendar counts (quotas of a day or month) must outlive the zone: they are
 * kept in a file beside the snapshot, of the same format, one record a quota:
 *
 *     [digest,"PUT","quota",41,{"tenant":"acme","words":[[key,word,name],...]}]
 *
 *  1. A record is written when its tenant was visited by a sweep of the usage
 *     report; or, while tenantd is away and no report can be sent, by sweeps of
 *     our own, which leave all tenants marked for the report.
 *  2. When the file has grown to twice its size all tenants are marked, and the
 *     next sweep writes them to a new file.  So the zone is the only truth, and
 *     counts of past periods go by themselves.
 *  3. Reading it back is ngx_http_tenant_counts_restore.c.
 */

#include "ngx_http_tenant_usage.h"


#define NGX_HTTP_TENANT_COUNTS_FLUSH   2000        /* ms between two */
#define NGX_HTTP_TENANT_COUNTS_SLACK   65536       /* bytes not worth a new file */
#define NGX_HTTP_TENANT_COUNTS_MOST    33554432    /* bytes kept in memory */
#define NGX_HTTP_TENANT_COUNTS_SLICE   500         /* us of a sweep of our own */
#define NGX_HTTP_TENANT_COUNTS_REST    25          /* ms to the next slice */
#define NGX_HTTP_TENANT_COUNTS_LAST    500000      /* us of the last sweep */


typedef struct {
    ngx_str_t                  path;
    ngx_str_t                  temporary;
    ngx_fd_t                   lock;
    ngx_http_tenant_file_t     live;
    ngx_http_tenant_file_t     next;        /* is written by the present sweep */
    ngx_msec_t                 flushed;
    time_t                     retry_at;    /* after a failure */
    unsigned                   loaded:1;    /* the zone is */
    unsigned                   enabled:1;   /* the lock is ours */
    unsigned                   rewrite:1;   /* with the next sweep */

    ngx_connection_t           dumb;
    ngx_event_t                timer;       /* the next slice of our own */
    uint32_t                   cursor;
    unsigned                   stopped:1;
    uint64_t                   until;
    tg_quota_now_t             now;

    tg_text_t                  line;
    ngx_uint_t                 words;       /* in line */

} ngx_http_tenant_counts_t;


static void ngx_http_tenant_counts_enable(void);


static ngx_http_tenant_counts_t  ngx_http_tenant_counts;


/* --- writing --- */

static void
ngx_http_tenant_counts_failed(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->next.fd != NGX_INVALID_FILE) {
        (void) ngx_delete_file(counts->temporary.data);
    }

    ngx_http_tenant_file_close(&counts->next);
    ngx_http_tenant_file_close(&counts->live);

    /* the file stays as it is until all can be written anew */

    counts->rewrite = 1;
    counts->retry_at = ngx_time() + 10;

    ngx_http_tenant_sync.shared->file_failures++;
}


static int
ngx_http_tenant_counts_word(void *data, const tg_quota_saved_t *saved)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    tg_text_printf(&counts->line, "%s[\"%llx\",\"%llx\",",
                   counts->words++ ? "," : "", (unsigned long long) saved->key,
                   (unsigned long long) saved->word);
    tg_text_json(&counts->line, saved->name,
                 ngx_strnlen((u_char *) saved->name, sizeof(saved->name)));
    tg_text_str(&counts->line, "]");

    return 0;
}


static ngx_int_t
ngx_http_tenant_counts_add(ngx_http_tenant_file_t *file, uint64_t id)
{
    tg_record_t                record;
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (file->fd == NGX_INVALID_FILE) {
        return NGX_OK;
    }

    record.type = TG_WATCH_PUT;
    record.kind = TG_RECORD_QUOTA;
    record.number = id;
    record.line = counts->line.data;
    record.len = counts->line.len;

    return ngx_http_tenant_file_add(file, &record);
}


static void
ngx_http_tenant_counts_record(const tg_block_t *block,
    const tg_quota_now_t *now, ngx_uint_t empty)
{
    ngx_uint_t                 i;
    const tg_quota_t          *quotas;
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (!counts->enabled) {
        return;
    }

    quotas = tg_vec(block, block->quotas, tg_quota_t);

    for (i = 0; i < block->quotas.n; i++) {
        if (quotas[i].window == TG_WINDOW_SECONDS || quotas[i].state == 0) {
            continue;
        }

        counts->words = 0;
        tg_text_reset(&counts->line);
        tg_text_str(&counts->line, "{\"tenant\":\"");
        tg_text_add(&counts->line, tg_str(block, block->name), block->name.len);
        tg_text_str(&counts->line, "\",\"words\":[");

        (void) tg_quota_export(ngx_http_tenant_sync.zone, block, &quotas[i], now,
                               ngx_http_tenant_counts_word, NULL);

        tg_text_str(&counts->line, "]}");

        if (counts->words == 0 && !empty) {
            continue;
        }

        if (counts->line.failed
            || ngx_http_tenant_counts_add(&counts->live, quotas[i].id) != NGX_OK
            || ngx_http_tenant_counts_add(&counts->next, quotas[i].id) != NGX_OK)
        {
            ngx_http_tenant_counts_failed();
            return;
        }
    }
}


void
ngx_http_tenant_counts_save(const tg_block_t *block, const tg_quota_now_t *now)
{
    ngx_http_tenant_counts_record(block, now, 0);
}


void
ngx_http_tenant_counts_replace(const tg_block_t *block,
    const tg_quota_now_t *now)
{
    ngx_http_tenant_counts_record(block, now, 1);
}


static ngx_int_t
ngx_http_tenant_counts_write(ngx_http_tenant_file_t *file)
{
    if (ngx_http_tenant_file_bookmark(file, file->added + 1) != NGX_OK
        || ngx_http_tenant_file_flush(file) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_tenant_counts_remember(void)
{
    ngx_http_tenant_file_mark_t  mark;

    ngx_http_tenant_file_mark(&ngx_http_tenant_counts.live, &mark);

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);
    ngx_http_tenant_sync.shared->counts = mark;
    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);
}


static void
ngx_http_tenant_counts_flush(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->live.fd == NGX_INVALID_FILE || counts->live.out.len == 0) {
        return;
    }

    counts->flushed = ngx_current_msec;

    if (ngx_http_tenant_counts_write(&counts->live) == NGX_OK) {
        ngx_http_tenant_counts_remember();

    } else if (counts->live.out.len > NGX_HTTP_TENANT_COUNTS_MOST) {
        ngx_http_tenant_counts_failed();
    }
}


/* Begins the new file, and has all tenants visited. */
static void
ngx_http_tenant_counts_begin(void)
{
    char                       gateway[TG_SNAPSHOT_GATEWAY + 1];
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    static const char  none[] = "00000000-0000-0000-0000-000000000000";

    counts->rewrite = 0;

    (void) ngx_cpystrn((u_char *) gateway,
                       (u_char *) (ngx_http_tenant_sync.tmcf->gateway.len
                                   ? (char *)
                                     ngx_http_tenant_sync.tmcf->gateway.data
                                   : "-"),
                       sizeof(gateway));

    if (ngx_http_tenant_file_init(&counts->next, ngx_http_tenant_sync.log)
        != NGX_OK
        || ngx_http_tenant_file_create(&counts->next, &counts->temporary,
                                       shared->registry[0] ? shared->registry
                                                           : none, gateway)
           != NGX_OK)
    {
        ngx_http_tenant_counts_failed();
        return;
    }

    ngx_http_tenant_usage_again();
}


void
ngx_http_tenant_counts_last(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->enabled && counts->rewrite && ngx_time() >= counts->retry_at) {
        ngx_http_tenant_counts_begin();
    }
}


void
ngx_http_tenant_counts_swept(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->next.fd == NGX_INVALID_FILE) {
        return;
    }

    if (ngx_http_tenant_counts_write(&counts->next) != NGX_OK
        || ngx_http_tenant_file_publish(&counts->next, &counts->path) != NGX_OK)
    {
        ngx_http_tenant_counts_failed();
        return;
    }

    ngx_http_tenant_file_move(&counts->live, &counts->next);
    counts->live.base = counts->live.size;
    ngx_http_tenant_counts_remember();
}


/* --- sweeps of our own, while no report arrives --- */

static int
ngx_http_tenant_counts_visit(void *data, const tg_block_t *block)
{
    const tg_block_t          *current;
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (block->slot < counts->cursor) {
        return TG_VISIT_AGAIN;
    }

    if (ngx_http_tenant_now_us() >= counts->until) {
        counts->stopped = 1;
        counts->cursor = block->slot;
        return TG_VISIT_STOP;
    }

    current = tg_zone_find_tenant(ngx_http_tenant_sync.zone,
                                  tg_str(block, block->name), block->name.len);

    if (current == block) {
        ngx_http_tenant_series_touch(block);
        ngx_http_tenant_counts_save(block, &counts->now);
    }

    return TG_VISIT_AGAIN;
}


static void
ngx_http_tenant_counts_slice(ngx_event_t *ev)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    counts->stopped = 0;
    counts->now = ngx_http_tenant_quota_now();
    counts->until = counts->now.mono_us + NGX_HTTP_TENANT_COUNTS_SLICE;

    ngx_http_tenant_sync_lock();
    tg_zone_visit_touched(ngx_http_tenant_sync.zone, counts->cursor,
                          ngx_http_tenant_counts_visit, NULL);
    ngx_http_tenant_sync_unlock();

    if (counts->stopped) {
        ngx_add_timer(&counts->timer, NGX_HTTP_TENANT_COUNTS_REST);
        return;
    }

    counts->cursor = 0;
}


/* What was counted since the last sweep: whoever has the file next must find it
 * there, for it may be another master with a zone of its own.  If that was still to
 * come, it is done now: taking the file over from the master before, writing it
 * anew. */
static void
ngx_http_tenant_counts_finish(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->loaded && !counts->enabled) {
        ngx_http_tenant_counts_enable();
    }

    if (!counts->enabled) {
        return;
    }

    if (counts->rewrite && counts->next.fd == NGX_INVALID_FILE) {
        ngx_http_tenant_counts_begin();
    }

    counts->stopped = 0;
    counts->cursor = 0;
    counts->now = ngx_http_tenant_quota_now();
    counts->until = counts->now.mono_us + NGX_HTTP_TENANT_COUNTS_LAST;

    ngx_http_tenant_sync_lock();
    tg_zone_visit_touched(ngx_http_tenant_sync.zone, counts->cursor,
                          ngx_http_tenant_counts_visit, NULL);
    ngx_http_tenant_sync_unlock();

    if (!counts->stopped) {
        ngx_http_tenant_counts_swept();
    }

    ngx_http_tenant_counts_flush();
}


void
ngx_http_tenant_counts_tick(ngx_uint_t stuck, ngx_uint_t between)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->loaded && !counts->enabled) {
        ngx_http_tenant_counts_enable();
    }

    if (!counts->enabled) {
        return;
    }

    if (ngx_current_msec - counts->flushed >= NGX_HTTP_TENANT_COUNTS_FLUSH) {
        ngx_http_tenant_counts_flush();

        if (stuck && !counts->timer.timer_set) {
            ngx_http_tenant_counts_slice(&counts->timer);
        }
    }

    if (counts->live.fd != NGX_INVALID_FILE
        && counts->live.size
           > 2 * counts->live.base + NGX_HTTP_TENANT_COUNTS_SLACK)
    {
        counts->rewrite = 1;
    }

    if (counts->rewrite && between && counts->next.fd == NGX_INVALID_FILE
        && ngx_time() >= counts->retry_at)
    {
        ngx_http_tenant_counts_begin();
    }
}


/* --- reading --- */

void
ngx_http_tenant_counts_loaded(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->path.len == 0 || counts->loaded) {
        return;
    }

    counts->loaded = 1;
    ngx_http_tenant_counts_enable();
}


void
ngx_http_tenant_counts_restored(void)
{
    ngx_http_tenant_counts_loaded();
    ngx_http_tenant_counts_restore_end(ngx_http_tenant_counts.enabled);
}


/* --- life --- */

/* Begins to write, unless another master does: then it is tried again. */
static void
ngx_http_tenant_counts_enable(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    counts->lock = ngx_http_tenant_file_lock(&counts->path);

    if (counts->lock == NGX_INVALID_FILE) {
        return;
    }

    counts->enabled = 1;

    ngx_http_tenant_counts_catch_up();

    if (ngx_http_tenant_file_init(&counts->live, ngx_http_tenant_sync.log)
        != NGX_OK
        || ngx_http_tenant_file_resume(&counts->live, &counts->path,
                                       &ngx_http_tenant_sync.shared->counts)
           != NGX_OK)
    {
        ngx_http_tenant_file_close(&counts->live);
        counts->rewrite = 1;
    }
}


void
ngx_http_tenant_counts_start(void)
{
    static char                path[NGX_MAX_PATH], temporary[NGX_MAX_PATH];
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;
    ngx_str_t                 *snapshot = &ngx_http_tenant_sync.tmcf->snapshot;

    ngx_memzero(counts, sizeof(ngx_http_tenant_counts_t));
    counts->lock = NGX_INVALID_FILE;
    counts->live.fd = NGX_INVALID_FILE;
    counts->next.fd = NGX_INVALID_FILE;
    counts->flushed = ngx_current_msec;

    if (snapshot->len == 0) {
        return;
    }

    counts->path.data = (u_char *) path;
    counts->path.len = (size_t) snprintf(path, sizeof(path), "%s.counts",
                                         snapshot->data);
    counts->temporary.data = (u_char *) temporary;
    counts->temporary.len = (size_t) snprintf(temporary, sizeof(temporary),
                                              "%s.tmp", path);

    ngx_http_tenant_event_init(&counts->timer, &counts->dumb,
                               ngx_http_tenant_counts_slice, NULL);

    if (!ngx_http_tenant_sync_loaded()) {
        ngx_http_tenant_counts_restore_begin(&counts->path);
        return;
    }

    counts->loaded = 1;
    ngx_http_tenant_counts_enable();
}


void
ngx_http_tenant_counts_stop(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    if (counts->path.len == 0) {
        return;
    }

    if (counts->timer.timer_set) {
        ngx_del_timer(&counts->timer);
    }

    ngx_http_tenant_counts_finish();

    if (counts->next.fd != NGX_INVALID_FILE) {
        (void) ngx_delete_file(counts->temporary.data);
    }

    ngx_http_tenant_counts_restore_stop();
    ngx_http_tenant_file_close(&counts->next);
    ngx_http_tenant_file_close(&counts->live);
    tg_text_free(&counts->line);

    if (counts->lock != NGX_INVALID_FILE) {
        (void) ngx_close_file(counts->lock);
    }

    counts->enabled = 0;
    counts->path.len = 0;
}
