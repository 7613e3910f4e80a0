/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reading calendar counts back from the file of ngx_http_tenant_counts.c.
 *
 *  1. A zone that starts empty gets its counts back tenant by tenant, as they are
 *     put into it, and so before the first request: from the snapshot, and from
 *     what tenantd tells that the snapshot had not yet.
 *  2. While the old master of a binary upgrade has the file, it counts on, in a zone
 *     of its own.  When the new one gets the lock it reads the file once more, and
 *     adds what has come since it read it first.  What the old one's last workers
 *     let in after its leader gave the file up is not in it; nor is anything of a
 *     master that is replaced before it ever got the file.
 */

#include "ngx_http_tenant_usage.h"


typedef struct {
    const ngx_str_t           *path;
    ngx_http_tenant_reader_t  *reader;      /* the file as it was read first, */
    tg_snapshot_scan_t        *scan;        /* until it is ours */
    ngx_uint_t                 restored;
    unsigned                   restoring:1; /* what is put is restored */
    unsigned                   scanned:1;   /* the file was read, if it was there */
} ngx_http_tenant_restore_t;


/* The file as it was read first, while it is read again. */
typedef struct {
    ngx_http_tenant_reader_t  *reader;
    tg_snapshot_scan_t        *scan;
    tg_quota_now_t             now;
    ngx_uint_t                 added;       /* words */
} ngx_http_tenant_counts_base_t;


static ngx_http_tenant_restore_t  ngx_http_tenant_restore;


static void
ngx_http_tenant_counts_close(void)
{
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    ngx_http_tenant_reader_close(restore->reader);
    restore->reader = NULL;

    tg_snapshot_scan_destroy(restore->scan);
    restore->scan = NULL;
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
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    restore->reader = ngx_http_tenant_reader_open(restore->path, 0, UINT64_MAX,
                                                 ngx_http_tenant_sync.log);
    if (restore->reader == NULL) {
        return;
    }

    restore->scan = tg_snapshot_scan_create();

    if (restore->scan == NULL) {
        ngx_http_tenant_counts_close();
        return;
    }

    tg_error_set(&err, "", "its last line is incomplete");

    for ( ;; ) {
        rc = ngx_http_tenant_reader_line(restore->reader, &line, &len);

        if (rc != NGX_OK
            || tg_snapshot_scan_line(restore->scan, line, len, &err)
               != TG_SCAN_OK)
        {
            break;
        }
    }

    tg_snapshot_scan_result(restore->scan, &result);

    if (rc != NGX_DONE
        || tg_snapshot_scan_offset(restore->scan) != restore->reader->offset)
    {
        ngx_http_tenant_sync.shared->file_failures++;
        ngx_log_error(NGX_LOG_WARN, ngx_http_tenant_sync.log, 0,
                      "tenant: \"%V\" is good up to byte %uL only: %s",
                      restore->path, result.size, err.message);
    }
}


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
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

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
            restore->restored++;
        }
    }
}


/* The record of a quota; NULL: there is none. */
static json_t *
ngx_http_tenant_counts_load(const ngx_http_tenant_reader_t *reader,
    const tg_snapshot_scan_t *scan, uint64_t quota)
{
    char                       *line;
    json_t                     *record;
    const tg_snapshot_entry_t  *entry;

    entry = scan ? tg_snapshot_scan_find(scan, TG_RECORD_QUOTA, quota) : NULL;

    if (entry == NULL) {
        return NULL;
    }

    line = ngx_alloc(entry->len, ngx_http_tenant_sync.log);

    if (line == NULL) {
        return NULL;
    }

    record = NULL;

    if (pread(reader->fd, line, entry->len, (off_t) entry->offset)
        == (ssize_t) entry->len)
    {
        record = json_loadb(line, entry->len, JSON_REJECT_DUPLICATES, NULL);
    }

    ngx_free(line);

    return record;
}


static void
ngx_http_tenant_counts_restore_quota(const tg_block_t *block,
    const tg_quota_t *quota)
{
    json_t                    *record;
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    record = ngx_http_tenant_counts_load(restore->reader, restore->scan,
                                         quota->id);

    ngx_http_tenant_counts_apply(record, block, quota->id);
    json_decref(record);
}


void
ngx_http_tenant_counts_restore_locked(const tg_block_t *image)
{
    ngx_uint_t         i;
    ngx_uint_t         restored;
    const tg_block_t  *block;
    const tg_quota_t  *quotas;

    restored = ngx_http_tenant_restore.restored;

    if (!ngx_http_tenant_restore.restoring || image->kind != TG_KIND_TENANT) {
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

    if (ngx_http_tenant_restore.restored != restored) {
        tg_zone_touch(ngx_http_tenant_sync.zone, block->slot);
    }
}


void
ngx_http_tenant_counts_restore_end(ngx_uint_t enabled)
{
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    if (!restore->restoring) {
        return;
    }

    restore->restoring = 0;

    if (restore->restored) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: restored %ui calendar counts from \"%V\"",
                      restore->restored, restore->path);
    }

    if (enabled) {
        ngx_http_tenant_counts_close();
    }
}


/* --- what another master has counted since --- */

/* What a word has more than the record of before; 0: nothing. */
static uint64_t
ngx_http_tenant_counts_more(const json_t *before, const tg_quota_saved_t *saved)
{
    size_t             i;
    json_t            *word;
    uint64_t           count;
    tg_quota_saved_t   old;

    count = saved->word & TG_QUOTA_COUNT;

    json_array_foreach(json_object_get(before, "words"), i, word) {
        if (ngx_http_tenant_counts_read_word(word, &old) == NGX_OK
            && old.key == saved->key
            && (old.word & ~TG_QUOTA_COUNT) == (saved->word & ~TG_QUOTA_COUNT))
        {
            old.word &= TG_QUOTA_COUNT;
            return count > old.word ? (saved->word & ~TG_QUOTA_COUNT)
                                      | (count - old.word) : 0;
        }
    }

    return count ? saved->word : 0;
}


static void
ngx_http_tenant_counts_add_quota(ngx_http_tenant_counts_base_t *base,
    const tg_block_t *block, const tg_quota_t *quota)
{
    size_t                     i;
    json_t                    *before, *record, *word;
    const char                *tenant;
    tg_quota_saved_t           saved;
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    record = ngx_http_tenant_counts_load(restore->reader, restore->scan,
                                         quota->id);
    before = ngx_http_tenant_counts_load(base->reader, base->scan, quota->id);
    tenant = json_string_value(json_object_get(record, "tenant"));
    saved.quota = quota->id;

    if (tenant && ngx_strcmp(tenant, tg_str(block, block->name)) == 0
        && !json_equal(record, before))
    {
        json_array_foreach(json_object_get(record, "words"), i, word) {
            if (ngx_http_tenant_counts_read_word(word, &saved) != NGX_OK) {
                continue;
            }

            saved.word = ngx_http_tenant_counts_more(before, &saved);

            if (saved.word
                && tg_quota_import_more(ngx_http_tenant_sync.zone, block,
                                        &saved, &base->now) == 0)
            {
                base->added++;
            }
        }
    }

    json_decref(record);
    json_decref(before);
}


static int
ngx_http_tenant_counts_add_tenant(void *data, const tg_block_t *block)
{
    ngx_uint_t                      i, added;
    const tg_quota_t               *quotas;
    ngx_http_tenant_counts_base_t  *base = data;

    added = base->added;
    quotas = tg_vec(block, block->quotas, tg_quota_t);

    for (i = 0; i < block->quotas.n; i++) {
        if (quotas[i].window != TG_WINDOW_SECONDS && quotas[i].state) {
            ngx_http_tenant_counts_add_quota(base, block, &quotas[i]);
        }
    }

    if (base->added != added) {
        tg_zone_touch(ngx_http_tenant_sync.zone, block->slot);
    }

    return 0;
}


/* The file is ours now.  If another master had it meanwhile, what it has counted
 * since it was read is added here; what is put later is restored from it as it is. */
void
ngx_http_tenant_counts_catch_up(void)
{
    ngx_file_info_t                 was, is;
    ngx_http_tenant_restore_t      *restore = &ngx_http_tenant_restore;
    ngx_http_tenant_counts_base_t   base;

    if (!restore->scanned) {
        return;     /* the zone was here before the file was asked for */
    }

    restore->scanned = 0;

    if (restore->reader
        && ngx_fd_info(restore->reader->fd, &was) != NGX_FILE_ERROR
        && ngx_file_info(restore->path->data, &is) != NGX_FILE_ERROR
        && was.st_ino == is.st_ino
        && (uint64_t) is.st_size == restore->reader->offset)
    {
        goto done;      /* nobody has written */
    }

    base.reader = restore->reader;
    base.scan = restore->scan;
    base.now = ngx_http_tenant_quota_now();
    base.added = 0;

    restore->reader = NULL;
    restore->scan = NULL;
    ngx_http_tenant_counts_scan();

    if (restore->scan) {
        ngx_http_tenant_sync_lock();
        (void) tg_zone_visit_all(ngx_http_tenant_sync.zone,
                                 ngx_http_tenant_counts_add_tenant, &base);
        ngx_http_tenant_sync_unlock();
    }

    if (base.added) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_http_tenant_sync.log, 0,
                      "tenant: added %ui calendar counts that another master has "
                      "written to \"%V\"", base.added, restore->path);
    }

    ngx_http_tenant_reader_close(base.reader);
    tg_snapshot_scan_destroy(base.scan);

done:

    if (!restore->restoring) {
        ngx_http_tenant_counts_close();
    }
}


/* --- life --- */

void
ngx_http_tenant_counts_restore_begin(const ngx_str_t *path)
{
    ngx_http_tenant_restore_t  *restore = &ngx_http_tenant_restore;

    restore->path = path;
    restore->restoring = 1;
    restore->scanned = 1;

    ngx_http_tenant_counts_scan();
}


void
ngx_http_tenant_counts_restore_stop(void)
{
    ngx_http_tenant_counts_close();
    ngx_memzero(&ngx_http_tenant_restore, sizeof(ngx_http_tenant_restore_t));
}
