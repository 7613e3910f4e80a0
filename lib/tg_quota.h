/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Quotas: who is held to which, and the charging of them.  No lock anywhere; a
 * process can be killed at any instruction.
 *
 * What a word (tg_quota_state_t.word, tg_quota_bucket_t.word) holds depends on
 * the quota:
 *
 *  1. requests in n seconds: GCRA (ITU-T I.371, annex A) as a continuous-state
 *     leaky bucket, counted in requests instead of in time.  Let R(t) be how
 *     many requests the rate has given by the time t, in units of 1/2^20 of a
 *     request (TG_QUOTA_UNIT), and V the word.  V - R(t) is the level of the
 *     bucket, at least 0; a request is admitted while level + 1 <= capacity, and
 *     makes V = R(t) + level + 1.  The capacity is "burst", at least 1.
 *
 *     R(t) = given + floor((t - since) * limit * 2^20 / window), in 128 bits, of
 *     which the low 64 are kept: differences are what counts, and they are far
 *     below 2^63.  A difference above 2^61 is not a level but a bucket that was
 *     idle for so long that R has gone round: empty.
 *
 *     Whatever the limit and the window, R grows by exactly limit requests in
 *     one window, since the floor of x + limit * 2^20 is that much more than the
 *     floor of x.  So no window ever sees more than limit + capacity requests,
 *     however many processes charge, and however far their clocks lag.
 *
 *     A new limit changes the slope of R, not its value: tg_quota_carry() starts
 *     the new version's R where the old one's is.  So a level of 50 requests
 *     stays 50 requests, whatever a request now is in time: no reset, and no
 *     second burst.  The words are untouched.
 *
 *  2. requests in a day or month (UTC): number of the period in the upper 24
 *     bits (days or months since 1970), count in the lower 40.  A period in the
 *     future (the clock was set back) goes on counting.
 *
 *  3. concurrency: requests in flight, held by the request's pin.
 *
 * A boost multiplies limit and burst until it ends.  When it ends by itself the
 * bucket's level falls by what the capacity falls, so that who was at the
 * boosted limit is not shut out until the difference has drained.
 *
 * Quotas per consumer have TG_QUOTA_KEYS buckets.  A consumer's bucket is one of
 * the 16 from its hash on, claimed by a 128-bit compare-and-swap of key and
 * word; one whose word has come to mean "nothing used" may be taken over, for
 * that is what a new one means, too.  A consumer that finds none shares
 * tg_quota_state_t.word with all others that did not.  (Two processes that meet
 * a consumer for the first time in the same instant in which a bucket before its
 * own becomes free can lose one request of one of them.)
 */

#ifndef TG_QUOTA_H
#define TG_QUOTA_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_zone.h"

#define TG_QUOTA_UNIT  (UINT64_C(1) << 20)

/* The count in a calendar word; the period is above it. */
#define TG_QUOTA_COUNT  ((UINT64_C(1) << 40) - 1)

/* Time is a parameter everywhere; all of one decision has the same. */
typedef struct {
    uint64_t  mono_us;      /* CLOCK_MONOTONIC */
    uint64_t  unix_s;
} tg_quota_now_t;

/* The quotas that apply to one request. */
typedef struct {
    const tg_block_t   *block;
    tg_zone_t          *zone;
    const char         *consumer;       /* "": anonymous */
    size_t              consumer_len;
    uint64_t            key;            /* tg_quota_key() of it */
    uint32_t            n;              /* of requests and concurrency */
    uint32_t            holds;          /* of them, of concurrency */
    const tg_quota_t   *quota[TG_MAX_REQUEST_QUOTAS];
    const tg_quota_t   *body;           /* the smallest of body_size, or NULL */
    const tg_quota_t   *body_dry_run;   /* likewise, of those that only count */
} tg_quota_set_t;

typedef enum {
    TG_QUOTA_OK = 0,
    TG_QUOTA_REFUSED,
    TG_QUOTA_NO_PIN         /* no room in the pin for all concurrency quotas */
} tg_quota_verdict_e;

typedef struct {
    /* What refused; or that with the least left (NULL: none of requests). */
    const tg_quota_t  *quota;
    uint64_t           remaining;   /* requests that may come now */
    uint64_t           reset_s;     /* until all of it is there again */
    uint64_t           retry_s;     /* of what refused; at least 1 */
    uint32_t           dry_run;     /* quotas that would have refused */

    /* What the pin holds by this, for tg_quota_release(). */
    uint32_t           held_n;
    uint64_t           held[TG_PIN_HOLDS];
} tg_quota_result_t;

/* Hash of a consumer's name, never 0.  Stable over restarts: it is saved. */
uint64_t tg_quota_key(const tg_block_t *block, const char *consumer,
    size_t len);

/*
 * Which quotas apply to a request of this route by this consumer.  Anonymous
 * requests are one consumer, "": dropping one's credentials is no way around a
 * quota.  The consumer's name (NULL will do for "") must live as long as the set.
 */
void tg_quota_select(tg_quota_set_t *set, tg_zone_t *zone,
    const tg_block_t *block, const tg_route_t *route, const char *consumer,
    size_t len);

/*
 * Charges all quotas of the set, or none.  Quotas of concurrency are held by
 * pin, which needs set->holds free places, until tg_quota_release() or the end
 * of the pin.  Those in dry run never refuse; when they would, they count it
 * (throttled) and, but for concurrency, charge nothing.
 *
 * TG_QUOTA_REFUSED: "throttled" of what refused has been raised.
 */
tg_quota_verdict_e tg_quota_check(const tg_quota_set_t *set, tg_pin_t *pin,
    const tg_quota_now_t *now, tg_quota_result_t *result);

/* Gives back what a check has held, before the pin ends. */
void tg_quota_release(tg_zone_t *zone, tg_pin_t *pin, const uint64_t *held,
    uint32_t n);

/* Counts a body that broke a quota of body_size. */
void tg_quota_count_body(const tg_quota_set_t *set, const tg_quota_t *quota);

/* The limit in force: with boost. */
uint64_t tg_quota_limit(const tg_block_t *block, const tg_quota_t *quota,
    const tg_quota_now_t *now);

/* Seconds of the window; of a day or month, of the present one. */
uint64_t tg_quota_window(const tg_quota_t *quota, const tg_quota_now_t *now);

/*
 * Called by tg_zone_put() for the new version of a tenant, when its states are
 * known and before it is published.  old: the version that it replaces, or NULL.
 */
void tg_quota_carry(tg_zone_t *zone, const tg_block_t *old, tg_block_t *block,
    const tg_quota_now_t *now);

/*
 * What is used, for reports: calls visit for the one bucket of a quota (name "")
 * or for every bucket of a consumer that has used something.  used: requests in
 * the bucket, of the period, or in flight.
 */
typedef void (*tg_quota_visit_pt)(void *data, const tg_quota_t *quota,
    const char *name, uint64_t used);

void tg_quota_visit(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now,
    tg_quota_visit_pt visit, void *data);

uint64_t tg_quota_throttled(const tg_zone_t *zone, const tg_quota_t *quota);

/* --- persistence of calendar quotas --- */

typedef struct {
    uint64_t  quota;            /* id */
    uint64_t  key;              /* 0: the quota's one word, or overflow */
    uint64_t  word;
    char      name[48];         /* as tg_quota_bucket_t.name */
} tg_quota_saved_t;

/* Calls save for each word of the quota that counts in the present period;
 * stops at non-zero and returns it.  Quotas of other windows have none. */
typedef int (*tg_quota_save_pt)(void *data, const tg_quota_saved_t *saved);

int tg_quota_export(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_t *quota, const tg_quota_now_t *now, tg_quota_save_pt save,
    void *data);

/*
 * Puts a saved word back: raises the count of its period, never lowers it, so
 * doing it twice is doing it once.  0, or -1: no quota of the block takes it (it
 * is gone, counts something else by now, or the word is of another period).
 */
int tg_quota_import(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_saved_t *saved, const tg_quota_now_t *now);

/* Adds a saved word to what its period has: what somebody else has counted. */
int tg_quota_import_more(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_saved_t *saved, const tg_quota_now_t *now);

#endif /* TG_QUOTA_H */
