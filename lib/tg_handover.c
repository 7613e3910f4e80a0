/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_handover.h"
#include "tg_quota_internal.h"
#include "tg_text.h"

/* Looks at a bucket whose next owner is just writing its name. */
#define TG_HANDOVER_LOOKS  1000

/* A name of at least this length may have been cut, within a character. */
#define TG_HANDOVER_CUT  (sizeof(((tg_quota_bucket_t *) 0)->name) - 4)


/* --- telling --- */

/* Cuts what may be a part of a character off the end. */
static void
tg_handover_name(char *name, size_t size)
{
    size_t  n, used, len;

    len = strnlen(name, size - 1);
    used = 0;

    while (used < len && (n = tg_utf8_len(name + used, len - used)) != 0) {
        used += n;
    }

    memset(name + used, 0, size - used);
}


static void
tg_handover_value(const tg_meter_t *meter, uint64_t word, uint64_t unix_us,
    tg_handover_word_t *told)
{
    told->calendar = meter->quota->window != TG_WINDOW_SECONDS;

    if (told->calendar) {
        told->value = word;
        told->at = 0;
        return;
    }

    told->value = tg_meter_units(meter, word);
    told->at = (unix_us + 999) / 1000;
}


/* 0: the bucket holds nothing. */
static int
tg_handover_bucket(const tg_block_t *block, const tg_meter_t *meter,
    const tg_quota_bucket_t *bucket, uint64_t unix_us, tg_handover_word_t *told)
{
    int       named;
    uint64_t  word;

    named = 0;

    for (unsigned i = 0; i < TG_HANDOVER_LOOKS && !named; i++) {
        named = tg_bucket_read(block, bucket, told->name, &told->key, &word);

        if (told->key == 0 || tg_meter_is_idle(meter, word)) {
            return 0;
        }
    }

    if (!named) {
        /* its claimer was killed: the key will do */
        told->name[0] = '\0';
    }

    tg_handover_name(told->name, sizeof(told->name));
    tg_handover_value(meter, word, unix_us, told);

    return 1;
}


static int
tg_handover_quota(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now, uint64_t unix_us,
    tg_handover_pt tell, void *data)
{
    int                  rc;
    uint64_t             word;
    tg_meter_t           meter;
    tg_quota_state_t    *state;
    tg_handover_word_t   told;

    state = tg_quota_state(zone, quota);
    tg_meter_init(&meter, block, quota, now);

    memset(&told, 0, sizeof(told));
    told.quota = quota->id;

    word = __atomic_load_n(&state->word, __ATOMIC_ACQUIRE);
    rc = 0;

    if (!tg_meter_is_idle(&meter, word)) {
        tg_handover_value(&meter, word, unix_us, &told);
        rc = tell(data, &told);
    }

    for (unsigned i = 0; rc == 0 && quota->keyed && i < TG_QUOTA_KEYS; i++) {
        if (tg_handover_bucket(block, &meter, &state->bucket[i], unix_us, &told))
        {
            rc = tell(data, &told);
        }
    }

    return rc;
}


int
tg_handover_export(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_now_t *now, uint64_t unix_us, tg_handover_pt tell,
    void *data)
{
    int                rc;
    const tg_quota_t  *quota;

    quota = tg_vec(block, block->quotas, tg_quota_t);
    rc = 0;

    for (uint32_t i = 0; i < block->quotas.n && rc == 0; i++) {
        if (tg_quota_is_gcra(&quota[i]) || tg_quota_is_calendar(&quota[i])) {
            rc = tg_handover_quota(zone, block, &quota[i], now, unix_us, tell,
                                   data);
        }
    }

    return rc;
}


/* --- taking --- */

/* The quota that a word is of, if it still counts the same. */
static const tg_quota_t *
tg_handover_find(const tg_block_t *block, uint64_t id, uint64_t key,
    uint32_t calendar)
{
    const tg_quota_t  *quota;

    quota = tg_vec(block, block->quotas, tg_quota_t);

    for (uint32_t i = 0; i < block->quotas.n; i++) {
        if (quota[i].id != id) {
            continue;
        }

        return (calendar ? tg_quota_is_calendar(&quota[i])
                         : tg_quota_is_gcra(&quota[i]))
                   && (key == 0 || quota[i].keyed)
               ? &quota[i] : NULL;
    }

    return NULL;
}


/* A level less what has drained since; a word as it is.  0: nothing is left, or
 * no bucket can ever have held so much. */
static uint64_t
tg_handover_left(const tg_block_t *block, const tg_quota_t *quota,
    uint64_t value, uint64_t at, uint64_t unix_us)
{
    uint64_t  drained;

    if (quota->window != TG_WINDOW_SECONDS) {
        return (value & TG_CALENDAR_COUNT) > 0 ? value : 0;
    }

    if (value > TG_MAX_LIMIT * TG_QUOTA_UNIT) {
        return 0;
    }

    drained = at < unix_us / 1000
              ? tg_meter_drained(block, quota, at * 1000, unix_us) : 0;

    return value > drained ? value - drained : 0;
}


/* Whether the key is that of the consumer, as far as it can be told. */
static int
tg_handover_is_named(const tg_block_t *block, const tg_carry_t *carry)
{
    return carry->key == 0 || carry->name.len == 0
           || carry->name.len >= TG_HANDOVER_CUT
           || tg_quota_key(block, tg_str(block, carry->name), carry->name.len)
              == carry->key;
}


/* 0: something of it is not counted, or in a bucket that consumers share. */
static int
tg_handover_add(tg_zone_t *zone, const tg_block_t *block,
    const tg_carry_t *carry, const tg_quota_now_t *now, uint64_t unix_us,
    tg_carried_t *result)
{
    int                rc, shared;
    uint64_t           left, word, after;
    tg_cell_t          cell;
    tg_meter_t         meter;
    const tg_quota_t  *quota;

    quota = tg_handover_find(block, carry->quota, carry->key, carry->calendar);

    if (quota == NULL || !tg_handover_is_named(block, carry)) {
        result->passed++;
        return 0;
    }

    tg_meter_init(&meter, block, quota, now);
    left = tg_handover_left(block, quota, carry->value, carry->at, unix_us);

    if (left == 0) {
        result->passed++;
        return 1;
    }

    do {
        do {
            (void) tg_cell_find(tg_quota_state(zone, quota), &meter, carry->key,
                                tg_str(block, carry->name), carry->name.len,
                                &cell);
        } while (!tg_cell_load(&cell, &word));

        rc = tg_meter_add(&meter, word, left, &after);

    } while (rc != 0 && !tg_cell_swap(&cell, word, after));

    shared = rc != 0 && carry->key != 0 && cell.bucket == NULL;
    result->passed += rc == 0;
    result->added += rc != 0;
    result->capped += rc == 2;
    result->shared += shared;

    /* what nothing is added of is of another period, which is over */
    return rc != 2 && !shared;
}


int
tg_handover_import(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_now_t *now, uint64_t unix_us, tg_carried_t *result)
{
    int                   whole;
    const tg_carry_t     *carry;
    const tg_handover_t  *handover;

    handover = tg_block_handover(block);
    whole = 1;

    if (handover == NULL) {
        return whole;
    }

    carry = tg_vec(block, handover->carry, tg_carry_t);

    for (uint32_t i = 0; i < handover->carry.n; i++) {
        whole &= tg_handover_add(zone, block, &carry[i], now, unix_us, result);
    }

    return whole;
}


void
tg_handover_take(tg_zone_t *zone, const tg_block_t *block,
    const tg_handover_word_t *told, const tg_quota_now_t *now, uint64_t unix_us)
{
    uint64_t           left, word;
    tg_cell_t          cell;
    tg_meter_t         meter;
    const tg_quota_t  *quota;

    quota = tg_handover_find(block, told->quota, told->key, told->calendar);

    if (quota == NULL) {
        return;
    }

    tg_meter_init(&meter, block, quota, now);
    left = tg_handover_left(block, quota, told->value, told->at, unix_us);

    /* without a name nothing is claimed: what has no bucket has nothing */
    while (tg_cell_find(tg_quota_state(zone, quota), &meter, told->key, NULL, 0,
                        &cell)
           && (told->key == 0 || cell.bucket != NULL)
           && (!tg_cell_load(&cell, &word)
               || !tg_cell_swap(&cell, word, tg_meter_take(&meter, word, left))))
    {
        /* void */
    }
}
