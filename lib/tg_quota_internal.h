/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files of tg_quota share: the meter (what a word means, at one time)
 * and the cell (where a word is).
 */

#ifndef TG_QUOTA_INTERNAL_H
#define TG_QUOTA_INTERNAL_H

#include "tg_quota.h"

#define TG_CALENDAR_BITS   40
#define TG_CALENDAR_COUNT  ((UINT64_C(1) << TG_CALENDAR_BITS) - 1)

/* Buckets in which a consumer's may be. */
#define TG_QUOTA_PROBES    16

/* --- meters (tg_quota_meter.c) --- */

typedef struct {
    const tg_quota_t  *quota;
    uint64_t           limit;       /* requests; with boost */
    uint64_t           capacity;    /* GCRA: units */
    uint64_t           given;       /* GCRA: R(now) */
    uint64_t           rate;        /* GCRA: 1/1000 requests in a window */
    uint64_t           period;      /* calendar: shifted to its place */
    uint64_t           left_s;      /* calendar: of the period */
} tg_meter_t;

void tg_meter_init(tg_meter_t *meter, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now);

/* The word after one more request, or 0 if that is one too many. */
int tg_meter_admit(const tg_meter_t *meter, uint64_t word, uint64_t *after);

/* The word after giving one request back. */
uint64_t tg_meter_undo(const tg_meter_t *meter, uint64_t word);

/* The word of a bucket that has used nothing; whether a word is as good. */
uint64_t tg_meter_fresh(const tg_meter_t *meter);
int tg_meter_is_idle(const tg_meter_t *meter, uint64_t word);

uint64_t tg_meter_used(const tg_meter_t *meter, uint64_t word);
uint64_t tg_meter_remaining(const tg_meter_t *meter, uint64_t word);

/* Seconds, rounded up: until nothing is used; until one more is admitted. */
uint64_t tg_meter_reset(const tg_meter_t *meter, uint64_t word);
uint64_t tg_meter_retry(const tg_meter_t *meter, uint64_t word);

/* GCRA: the level, in units.  What it falls by from one time to another, by the
 * block's quota; us, CLOCK_REALTIME, so that it can be reckoned between machines. */
uint64_t tg_meter_units(const tg_meter_t *meter, uint64_t word);
uint64_t tg_meter_drained(const tg_block_t *block, const tg_quota_t *quota,
    uint64_t from_us, uint64_t to_us);

/*
 * The word after adding to it what another gateway has counted: units, or a word
 * of the calendar.  0: that is of another period; 1: added; 2: as much of it as
 * the bucket has room for.
 */
int tg_meter_add(const tg_meter_t *meter, uint64_t word, uint64_t more,
    uint64_t *after);

/* The word after taking off what another gateway counts from now on: units, or a
 * word of the calendar. */
uint64_t tg_meter_take(const tg_meter_t *meter, uint64_t word, uint64_t less);

/* Brings a level above the capacity down to it; the same word if it is not. */
uint64_t tg_meter_clamp(const tg_meter_t *meter, uint64_t word);

/* --- what the quotas are (tg_quota_carry.c) --- */

int tg_quota_is_gcra(const tg_quota_t *quota);
int tg_quota_is_calendar(const tg_quota_t *quota);

/* A bucket's name, unless the next owner is writing its own at this moment.
 * 0: not to be told.  A name that was cut cannot be checked. */
int tg_bucket_read(const tg_block_t *block, const tg_quota_bucket_t *bucket,
    char name[sizeof(bucket->name)], uint64_t *key, uint64_t *word);

/* --- cells (tg_quota_cell.c) --- */

typedef struct {
    uint64_t           *word;
    tg_quota_bucket_t  *bucket;     /* NULL: a word that is not keyed */
    uint64_t            key;
} tg_cell_t;

tg_quota_state_t *tg_quota_state(const tg_zone_t *zone,
    const tg_quota_t *quota);

/*
 * The cell of a consumer (key 0: of all).  1; or 0: it has none yet, and one is
 * free.  With name it is claimed, so the answer is 1; another process may take
 * it over until it is charged.
 */
int tg_cell_find(tg_quota_state_t *state, const tg_meter_t *meter, uint64_t key,
    const char *name, size_t len, tg_cell_t *cell);

/* 0: the bucket is another consumer's by now. */
int tg_cell_load(const tg_cell_t *cell, uint64_t *word);

/* 0: the word, or the consumer, has changed. */
int tg_cell_swap(const tg_cell_t *cell, uint64_t word, uint64_t after);

#endif /* TG_QUOTA_INTERNAL_H */
