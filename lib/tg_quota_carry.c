/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What outlives a version or a process: taking words over into a new version,
 * reports, and saving calendar counts.
 */

#include <string.h>

#include "tg_quota_internal.h"


/* A window of 0 is refused by tg_block_check(), which tg_zone_put() does not
 * ask: it must not be divided by. */
int
tg_quota_is_gcra(const tg_quota_t *quota)
{
    return quota->metric == TG_METRIC_REQUESTS
           && quota->window == TG_WINDOW_SECONDS && quota->seconds > 0;
}


/* The old version of a quota has the same state object.  Most often it is at the
 * same place. */
static const tg_quota_t *
tg_quota_before(const tg_block_t *old, uint64_t state, uint32_t hint)
{
    const tg_quota_t  *quota;

    if (old == NULL) {
        return NULL;
    }

    quota = tg_vec(old, old->quotas, tg_quota_t);

    if (hint < old->quotas.n && quota[hint].state == state) {
        return &quota[hint];
    }

    for (uint32_t i = 0; i < old->quotas.n; i++) {
        if (quota[i].state == state) {
            return &quota[i];
        }
    }

    return NULL;
}


/* In 2^64 us there is no end of a boost that lies further away than this. */
static uint64_t
tg_boost_end(const tg_block_t *block, const tg_quota_now_t *now)
{
    uint64_t  left;

    if (block->boost_milli == 1000 || block->boost_until <= now->unix_s) {
        return 0;
    }

    left = block->boost_until - now->unix_s;

    return left > (UINT64_C(1) << 32) ? UINT64_C(1) << 52
                                      : now->mono_us + left * 1000000;
}


static void
tg_quota_clamp(const tg_meter_t *meter, const tg_cell_t *cell)
{
    uint64_t  word, after;

    do {
        if (!tg_cell_load(cell, &word)) {
            return;
        }

        after = tg_meter_clamp(meter, word);

    } while (after != word && !tg_cell_swap(cell, word, after));
}


/*
 * Where the capacity has shrunk, levels above it come down to it: what was used
 * under the old limit counts, but nobody waits longer than for a bucket that is
 * full.  Not while requests are charged: a process whose clock lags would give
 * back what others have charged since.
 */
static void
tg_quota_clamp_all(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now)
{
    tg_cell_t          cell;
    tg_meter_t         meter;
    tg_quota_state_t  *state;

    state = tg_quota_state(zone, quota);
    tg_meter_init(&meter, block, quota, now);

    cell.bucket = NULL;
    cell.key = 0;
    cell.word = &state->word;
    tg_quota_clamp(&meter, &cell);

    for (unsigned i = 0; quota->keyed && i < TG_QUOTA_KEYS; i++) {
        cell.bucket = &state->bucket[i];
        cell.word = &state->bucket[i].word;
        cell.key = __atomic_load_n(&state->bucket[i].key, __ATOMIC_ACQUIRE);

        if (cell.key != 0) {
            tg_quota_clamp(&meter, &cell);
        }
    }
}


void
tg_quota_carry(tg_zone_t *zone, const tg_block_t *old, tg_block_t *block,
    const tg_quota_now_t *now)
{
    tg_meter_t         was;
    tg_quota_t        *quota;
    const tg_quota_t  *before;

    block->boost_end = tg_boost_end(block, now);
    quota = tg_vec(block, block->quotas, tg_quota_t);

    for (uint32_t i = 0; i < block->quotas.n; i++) {
        if (!tg_quota_is_gcra(&quota[i])) {
            continue;
        }

        quota[i].since = now->mono_us;
        quota[i].given = 0;
        before = tg_quota_before(old, quota[i].state, i);

        if (before == NULL) {
            continue;
        }

        tg_meter_init(&was, old, before, now);
        quota[i].given = was.given;

        tg_quota_clamp_all(zone, block, &quota[i], now);
    }
}


int
tg_bucket_read(const tg_block_t *block, const tg_quota_bucket_t *bucket,
    char name[sizeof(bucket->name)], uint64_t *key, uint64_t *word)
{
    size_t    len;
    uint64_t  part;

    *word = __atomic_load_n(&bucket->word, __ATOMIC_ACQUIRE);
    *key = __atomic_load_n(&bucket->key, __ATOMIC_ACQUIRE);

    for (size_t i = 0; i < sizeof(bucket->name); i += sizeof(part)) {
        part = __atomic_load_n((const uint64_t *) (bucket->name + i),
                               __ATOMIC_RELAXED);
        memcpy(name + i, &part, sizeof(part));
    }

    name[sizeof(bucket->name) - 1] = '\0';
    len = strlen(name);

    return *key != 0 && (len == sizeof(bucket->name) - 1
                         || tg_quota_key(block, name, len) == *key);
}


void
tg_quota_visit(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now,
    tg_quota_visit_pt visit, void *data)
{
    char               name[sizeof(((tg_quota_bucket_t *) 0)->name)];
    uint64_t           key, word, used;
    tg_meter_t         meter;
    tg_quota_state_t  *state;

    if (quota->metric == TG_METRIC_BODY_SIZE) {
        visit(data, quota, "", 0);
        return;
    }

    state = tg_quota_state(zone, quota);
    tg_meter_init(&meter, block, quota, now);
    used = tg_meter_used(&meter, __atomic_load_n(&state->word,
                                                 __ATOMIC_ACQUIRE));

    if (!quota->keyed || used > 0) {
        visit(data, quota, "", used);
    }

    for (unsigned i = 0; quota->keyed && i < TG_QUOTA_KEYS; i++) {
        if (tg_bucket_read(block, &state->bucket[i], name, &key, &word)) {
            used = tg_meter_used(&meter, word);

            if (used > 0) {
                visit(data, quota, name, used);
            }
        }
    }
}


uint64_t
tg_quota_throttled(const tg_zone_t *zone, const tg_quota_t *quota)
{
    return __atomic_load_n(&tg_quota_state(zone, quota)->throttled,
                           __ATOMIC_ACQUIRE);
}


int
tg_quota_is_calendar(const tg_quota_t *quota)
{
    return quota->metric == TG_METRIC_REQUESTS
           && quota->window != TG_WINDOW_SECONDS;
}


int
tg_quota_export(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now, tg_quota_save_pt save,
    void *data)
{
    int                rc;
    tg_meter_t         meter;
    tg_quota_saved_t   saved;
    tg_quota_state_t  *state;

    if (!tg_quota_is_calendar(quota)) {
        return 0;
    }

    state = tg_quota_state(zone, quota);
    tg_meter_init(&meter, block, quota, now);

    memset(&saved, 0, sizeof(saved));
    saved.quota = quota->id;
    saved.word = __atomic_load_n(&state->word, __ATOMIC_ACQUIRE);
    rc = tg_meter_is_idle(&meter, saved.word) ? 0 : save(data, &saved);

    for (unsigned i = 0; rc == 0 && quota->keyed && i < TG_QUOTA_KEYS; i++) {
        if (tg_bucket_read(block, &state->bucket[i], saved.name, &saved.key,
                           &saved.word)
            && !tg_meter_is_idle(&meter, saved.word))
        {
            rc = save(data, &saved);
        }
    }

    return rc;
}


/* How a saved word changes the one that is there; 0: not at all. */
typedef int (*tg_quota_merge_pt)(const tg_meter_t *meter, uint64_t word,
    uint64_t saved, uint64_t *after);


static int
tg_quota_raise(const tg_meter_t *meter, uint64_t word, uint64_t saved,
    uint64_t *after)
{
    (void) meter;
    *after = saved;

    return word < saved;
}


static int
tg_quota_restore(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_saved_t *saved,
    const tg_quota_now_t *now, tg_quota_merge_pt merge)
{
    uint64_t    word, after;
    tg_cell_t   cell;
    tg_meter_t  meter;

    tg_meter_init(&meter, block, quota, now);

    /* Not of the present period, before or after; or a key for no keys. */
    if ((saved->word ^ meter.period) >> TG_CALENDAR_BITS != 0
        || (saved->key != 0 && !quota->keyed))
    {
        return -1;
    }

    for ( ;; ) {
        (void) tg_cell_find(tg_quota_state(zone, quota), &meter, saved->key,
                            saved->name, strnlen(saved->name,
                                                 sizeof(saved->name)), &cell);

        if (!tg_cell_load(&cell, &word)) {
            continue;
        }

        if (!merge(&meter, word, saved->word, &after)
            || tg_cell_swap(&cell, word, after))
        {
            return 0;
        }
    }
}


static int
tg_quota_merge(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_saved_t *saved, const tg_quota_now_t *now,
    tg_quota_merge_pt merge)
{
    const tg_quota_t  *quota;

    quota = tg_vec(block, block->quotas, tg_quota_t);

    for (uint32_t i = 0; i < block->quotas.n; i++) {
        if (quota[i].id == saved->quota) {
            return tg_quota_is_calendar(&quota[i])
                   ? tg_quota_restore(zone, block, &quota[i], saved, now, merge)
                   : -1;
        }
    }

    return -1;
}


int
tg_quota_import(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_saved_t *saved, const tg_quota_now_t *now)
{
    return tg_quota_merge(zone, block, saved, now, tg_quota_raise);
}


int
tg_quota_import_more(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_saved_t *saved, const tg_quota_now_t *now)
{
    return tg_quota_merge(zone, block, saved, now, tg_meter_add);
}
