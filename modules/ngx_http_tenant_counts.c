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
 *  3. A zone that starts empty gets its counts back tenant by tenant, as they are
 *     put into it, and so before the first request: from the snapshot, and from
 *     what tenantd tells that the snapshot had not yet.
 */

#include "ngx_http_tenant_usage.h"


#define NGX_HTTP_TENANT_COUNTS_FLUSH   2000        /* ms between two */
#define NGX_HTTP_TENANT_COUNTS_SLACK   65536       /* bytes not worth a new file */
#define NGX_HTTP_TENANT_COUNTS_MOST    33554432    /* bytes kept in memory */
#define NGX_HTTP_TENANT_COUNTS_SLICE   500         /* us of a sweep of our own */
#define NGX_HTTP_TENANT_COUNTS_REST    25          /* ms to the next slice */


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

    ngx_http_tenant_reader_t  *reader;      /* while there is something to */
    tg_snapshot_scan_t        *scan;        /* restore */
    ngx_uint_t                 restored;
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

    if (counts->stopped || block->slot < counts->cursor) {
        return 1;
    }

    if (ngx_http_tenant_now_us() >= counts->until) {
        counts->stopped = 1;
        counts->cursor = block->slot;
        return 1;
    }

    current = tg_zone_find_tenant(ngx_http_tenant_sync.zone,
                                  tg_str(block, block->name), block->name.len);

    if (current == block) {
        ngx_http_tenant_series_touch(block);
        ngx_http_tenant_counts_save(block, &counts->now);
    }

    return 1;
}


static void
ngx_http_tenant_counts_slice(ngx_event_t *ev)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    counts->stopped = 0;
    counts->now = ngx_http_tenant_quota_now();
    counts->until = counts->now.mono_us + NGX_HTTP_TENANT_COUNTS_SLICE;

    ngx_http_tenant_sync_lock();
    tg_zone_visit_touched(ngx_http_tenant_sync.zone,
                          ngx_http_tenant_counts_visit, NULL);
    ngx_http_tenant_sync_unlock();

    if (counts->stopped) {
        ngx_add_timer(&counts->timer, NGX_HTTP_TENANT_COUNTS_REST);
        return;
    }

    counts->cursor = 0;
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

/* ["key","word","name"] */
static ngx_int_t
ngx_http_tenant_counts_read_word(const json_t *json, tg_quota_saved_t *saved)
{
    char        *end;
    const char  *key, *word, *name;

    key = json_string_value(json_array_get(json, 0));
    word = json_string_value(json_array_get(json, 1));
    name = json_string_value(json_array_get(json, 2));

    if (key == NULL || word == NULL || name == NULL) {
        return NGX_ERROR;
    }

    saved->key = strtoull(key, &end, 16);

    if (*key == '\0' || *end) {
        return NGX_ERROR;
    }

    saved->word = strtoull(word, &end, 16);

    if (*word == '\0' || *end) {
        return NGX_ERROR;
    }

    ngx_memzero(saved->name, sizeof(saved->name));
    ngx_memcpy(saved->name, name,
               ngx_min(ngx_strlen(name), sizeof(saved->name)));

    return NGX_OK;
}


/* One record: the words of a quota. */
static void
ngx_http_tenant_counts_apply(const json_t *record, const tg_block_t *block,
    uint64_t quota)
{
    size_t                     i;
    const char                *tenant;
    const json_t              *words, *word;
    tg_quota_now_t             now;
    tg_quota_saved_t           saved;
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    tenant = json_string_value(json_object_get(record, "tenant"));
    words = json_object_get(record, "words");

    if (tenant == NULL || ngx_strcmp(tenant, tg_str(block, block->name)) != 0) {
        return;
    }

    now = ngx_http_tenant_quota_now();
    saved.quota = quota;

    json_array_foreach(words, i, word) {
        if (ngx_http_tenant_counts_read_word(word, &saved) == NGX_OK
            && tg_quota_import(ngx_http_tenant_sync.zone, block, &saved, &now)
               == 0)
        {
            counts->restored++;
        }
    }
}


static void
ngx_http_tenant_counts_restore_quota(const tg_block_t *block,
    const tg_quota_t *quota)
{
    char                       *line;
    json_t                     *record;
    const tg_snapshot_entry_t  *entry;
    ngx_http_tenant_counts_t   *counts = &ngx_http_tenant_counts;

    entry = tg_snapshot_scan_find(counts->scan, TG_RECORD_QUOTA, quota->id);

    if (entry == NULL) {
        return;
    }

    line = ngx_alloc(entry->len, ngx_http_tenant_sync.log);

    if (line == NULL) {
        return;
    }

    if (pread(counts->reader->fd, line, entry->len, (off_t) entry->offset)
        == (ssize_t) entry->len)
    {
        record = json_loadb(line, entry->len, JSON_REJECT_DUPLICATES, NULL);
        ngx_http_tenant_counts_apply(record, block, quota->id);
        json_decref(record);
    }

    ngx_free(line);
}


void
ngx_http_tenant_counts_restore_locked(const tg_block_t *image)
{
    ngx_uint_t         i;
    ngx_uint_t         restored;
    const tg_block_t  *block;
    const tg_quota_t  *quotas;

    restored = ngx_http_tenant_counts.restored;

    if (ngx_http_tenant_counts.scan == NULL || image->kind != TG_KIND_TENANT) {
        return;
    }

    block = tg_zone_find_tenant(ngx_http_tenant_sync.zone,
                                tg_str(image, image->name), image->name.len);

    if (block == NULL) {
        return;
    }

    quotas = tg_vec(block, block->quotas, tg_quota_t);

    for (i = 0; i < block->quotas.n; i++) {
        if (quotas[i].window != TG_WINDOW_SECONDS && quotas[i].state) {
            ngx_http_tenant_counts_restore_quota(block, &quotas[i]);
        }
    }

    if (ngx_http_tenant_counts.restored != restored) {
        tg_zone_touch(ngx_http_tenant_sync.zone, block->slot);
    }
}


static void
ngx_http_tenant_counts_close(void)
{
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    ngx_http_tenant_reader_close(counts->reader);
    counts->reader = NULL;

    tg_snapshot_scan_destroy(counts->scan);
    counts->scan = NULL;
}


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
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    ngx_http_tenant_counts_loaded();

    if (counts->scan == NULL) {
        return;
    }

    if (counts->restored) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: restored %ui calendar counts from \"%V\"",
                      counts->restored, &counts->path);
    }

    ngx_http_tenant_counts_close();
}


/* Makes an index of the file.  At once: nothing is served before it is made. */
static void
ngx_http_tenant_counts_scan(void)
{
    size_t                     len;
    ngx_int_t                  rc;
    tg_error_t                 err;
    const char                *line;
    tg_scan_result_t           result;
    ngx_http_tenant_counts_t  *counts = &ngx_http_tenant_counts;

    counts->reader = ngx_http_tenant_reader_open(&counts->path, 0, UINT64_MAX,
                                                 ngx_http_tenant_sync.log);
    if (counts->reader == NULL) {
        return;
    }

    counts->scan = tg_snapshot_scan_create();

    if (counts->scan == NULL) {
        ngx_http_tenant_counts_close();
        return;
    }

    tg_error_set(&err, "", "its last line is incomplete");

    for ( ;; ) {
        rc = ngx_http_tenant_reader_line(counts->reader, &line, &len);

        if (rc != NGX_OK
            || tg_snapshot_scan_line(counts->scan, line, len, &err)
               != TG_SCAN_OK)
        {
            break;
        }
    }

    tg_snapshot_scan_result(counts->scan, &result);

    if (rc != NGX_DONE
        || tg_snapshot_scan_offset(counts->scan) != counts->reader->offset)
    {
        ngx_http_tenant_sync.shared->file_failures++;
        ngx_log_error(NGX_LOG_WARN, ngx_http_tenant_sync.log, 0,
                      "tenant: \"%V\" is good up to byte %uL only: %s",
                      &counts->path, result.size, err.message);
    }
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
        ngx_http_tenant_counts_scan();
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

    if (counts->live.fd != NGX_INVALID_FILE) {
        ngx_http_tenant_counts_flush();
    }

    if (counts->next.fd != NGX_INVALID_FILE) {
        (void) ngx_delete_file(counts->temporary.data);
    }

    ngx_http_tenant_counts_close();
    ngx_http_tenant_file_close(&counts->next);
    ngx_http_tenant_file_close(&counts->live);
    tg_text_free(&counts->line);

    if (counts->lock != NGX_INVALID_FILE) {
        (void) ngx_close_file(counts->lock);
    }

    counts->enabled = 0;
    counts->path.len = 0;
}
