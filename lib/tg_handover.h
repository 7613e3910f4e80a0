/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Quota state on its way from one gateway to another: how much each bucket of a
 * tenant holds, without what only this machine knows (its monotonic clock, where
 * its R stands; see tg_quota.h).
 *
 *  1. A level is told in units of a request (TG_QUOTA_UNIT) with the time when it
 *     was that.  Whoever takes it reckons what has drained since, by its own
 *     version of the quota: 50 requests stay 50 requests under another limit.  The
 *     time is rounded up when it is told, and the clock down when it is taken, and
 *     a time in the future is now: so rounding and a clock that lags take nothing
 *     off a level that has not drained.
 *  2. A calendar word names its period, and is added to that period only.
 *  3. What is added to a bucket goes no higher than its capacity: nobody has to
 *     wait longer than for a bucket that is full.
 *  4. A consumer that finds no bucket shares that of all who found none, as it
 *     does when it charges; nothing is dropped for that.
 *  5. Requests in flight are not told.  They end where they began.
 *  6. What was told and taken is taken off here (tg_handover_take()), so that it is
 *     not told again, or found here when the tenant comes back.
 */

#ifndef TG_HANDOVER_H
#define TG_HANDOVER_H

#include "tg_quota.h"

typedef struct {
    uint64_t  quota;            /* as tg_carry_t */
    uint64_t  key;
    uint64_t  value;
    uint64_t  at;
    uint32_t  calendar;
    char      name[48];         /* whole UTF-8 characters */
} tg_handover_word_t;

/*
 * Calls tell for each bucket of the tenant that holds something; stops at non-zero
 * and returns it.  unix_us: CLOCK_REALTIME of now.
 */
typedef int (*tg_handover_pt)(void *data, const tg_handover_word_t *word);

int tg_handover_export(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_now_t *now, uint64_t unix_us, tg_handover_pt tell,
    void *data);

/* Adds the block's carry to the tenant's quotas, and what became of its words to
 * result.  Called by tg_zone_put() before the block is published.  Returns 1 when
 * all that is left of them is counted where it belongs, otherwise 0. */
int tg_handover_import(tg_zone_t *zone, const tg_block_t *block,
    const tg_quota_now_t *now, uint64_t unix_us, tg_carried_t *result);

/* Takes off what is left of a word that was told, and is counted elsewhere now.
 * A quota that is gone, or counts something else by now, has nothing of it. */
void tg_handover_take(tg_zone_t *zone, const tg_block_t *block,
    const tg_handover_word_t *word, const tg_quota_now_t *now,
    uint64_t unix_us);

#endif /* TG_HANDOVER_H */
