/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_quota_internal.h"

_Static_assert(TG_MAX_REQUEST_HOLDS <= TG_PIN_HOLDS,
               "a pin must hold all that a request may");

/* One quota of a set, while it is decided. */
typedef struct {
    tg_meter_t         meter;
    tg_quota_state_t  *state;
    tg_cell_t          cell;        /* of the charge */
    uint64_t           word;        /* after it */
    uint64_t           after;       /* of a word that was looked at */
    int                looked;      /* at the cell: the charge may try that */
    int                charged;
} tg_charge_t;


static int
tg_quota_is(const tg_block_t *block, const tg_quota_t *quota,
    const tg_quota_set_t *set)
{
    return quota->consumer.len == set->consumer_len
           && memcmp(tg_str(block, quota->consumer), set->consumer,
                     set->consumer_len) == 0;
}


/* The first of a route's list that is for one consumer: those of everybody come
 * first, then these by consumer (tg_compile_quotas.c). */
static uint32_t
tg_quota_first_named(const tg_block_t *block, const uint32_t *list, uint32_t n,
    const tg_quota_set_t *set)
{
    int                rc;
    size_t             len;
    uint32_t           low, high, middle;
    const tg_quota_t  *quota;

    low = 0;
    high = n;

    while (low < high) {
        middle = low + (high - low) / 2;
        quota = tg_vec(block, block->quotas, tg_quota_t) + list[middle];
        len = quota->consumer.len;

        rc = memcmp(tg_str(block, quota->consumer), set->consumer,
                    len < set->consumer_len ? len : set->consumer_len);

        if (rc < 0 || (rc == 0 && len < set->consumer_len)) {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    return low;
}


static void
tg_quota_add(tg_quota_set_t *set, const tg_quota_t *quota)
{
    const tg_quota_t  **smallest;

    if (quota->metric == TG_METRIC_BODY_SIZE) {
        smallest = quota->dry_run ? &set->body_dry_run : &set->body;

        if (*smallest == NULL || quota->limit < (*smallest)->limit) {
            *smallest = quota;
        }

        return;
    }

    if (set->n < TG_MAX_REQUEST_QUOTAS) {
        set->quota[set->n++] = quota;
        set->holds += quota->metric == TG_METRIC_CONCURRENCY;
    }
}


void
tg_quota_select(tg_quota_set_t *set, tg_zone_t *zone, const tg_block_t *block,
    const tg_route_t *route, const char *consumer, size_t len)
{
    uint32_t           i, n;
    const uint32_t    *list;
    const tg_quota_t  *quota;

    set->block = block;
    set->zone = zone;
    set->consumer = len > 0 ? consumer : "";
    set->consumer_len = len;
    set->key = 0;
    set->n = 0;
    set->holds = 0;
    set->body = NULL;
    set->body_dry_run = NULL;

    list = tg_vec(block, route->quotas, uint32_t);
    n = route->quotas.n;

    for (i = 0; i < n; i++) {
        quota = tg_vec(block, block->quotas, tg_quota_t) + list[i];

        if (quota->consumer.off != 0) {
            break;
        }

        if (quota->keyed && set->key == 0) {
            set->key = tg_quota_key(block, consumer, len);
        }

        tg_quota_add(set, quota);
    }

    if (i == n || len == 0) {
        return;
    }

    i += tg_quota_first_named(block, list + i, n - i, set);

    for ( /* void */ ; i < n; i++) {
        quota = tg_vec(block, block->quotas, tg_quota_t) + list[i];

        if (!tg_quota_is(block, quota, set)) {
            break;
        }

        tg_quota_add(set, quota);
    }
}


static void
tg_quota_count_throttled(tg_quota_state_t *state)
{
    (void) __atomic_add_fetch(&state->throttled, 1, __ATOMIC_SEQ_CST);
}


static uint64_t
tg_charge_key(const tg_quota_set_t *set, const tg_charge_t *charge)
{
    return charge->meter.quota->keyed ? set->key : 0;
}


/* Whether it would be admitted now; changes nothing. */
static int
tg_charge_look(const tg_quota_set_t *set, tg_charge_t *charge)
{
    charge->looked = tg_cell_find(charge->state, &charge->meter,
                                  tg_charge_key(set, charge), NULL, 0,
                                  &charge->cell)
                     && tg_cell_load(&charge->cell, &charge->word);

    if (!charge->looked) {
        charge->word = tg_meter_fresh(&charge->meter);
    }

    return tg_meter_admit(&charge->meter, charge->word, &charge->after);
}


static int
tg_charge_requests(const tg_quota_set_t *set, tg_charge_t *charge)
{
    uint64_t  after;

    /* as a rule nothing has changed since the look */

    if (charge->looked
        && tg_cell_swap(&charge->cell, charge->word, charge->after))
    {
        charge->word = charge->after;
        return 1;
    }

    for ( ;; ) {
        (void) tg_cell_find(charge->state, &charge->meter,
                            tg_charge_key(set, charge), set->consumer,
                            set->consumer_len, &charge->cell);

        if (!tg_cell_load(&charge->cell, &charge->word)) {
            continue;
        }

        if (!tg_meter_admit(&charge->meter, charge->word, &after)) {
            return 0;
        }

        if (tg_cell_swap(&charge->cell, charge->word, after)) {
            charge->word = after;
            return 1;
        }
    }
}


/* The counter of a cell as tg_zone_hold() names it. */
static uint64_t
tg_charge_counter(const tg_quota_set_t *set, const tg_charge_t *charge)
{
    return tg_zone_offset(set->zone, charge->cell.word) | TG_HOLD_64;
}


/*
 * One in flight more.  The bracket must name the counter before it is raised, so
 * a bucket that is lost in between closes it and looks for another.
 */
static int
tg_charge_concurrency(const tg_quota_set_t *set, tg_charge_t *charge,
    tg_pin_t *pin)
{
    int        admitted, taken;
    uint64_t   after, counter;

    for ( ;; ) {
        (void) tg_cell_find(charge->state, &charge->meter,
                            tg_charge_key(set, charge), set->consumer,
                            set->consumer_len, &charge->cell);

        if (!tg_cell_load(&charge->cell, &charge->word)) {
            continue;
        }

        admitted = tg_meter_admit(&charge->meter, charge->word, &after);

        if (!admitted && !charge->meter.quota->dry_run) {
            return 0;
        }

        counter = tg_charge_counter(set, charge);

        if (tg_zone_hold_begin(pin, counter) != TG_HOLD_OK) {
            return -1;
        }

        taken = tg_cell_swap(&charge->cell, charge->word, after);
        tg_zone_hold_end(pin, counter, taken);

        if (taken) {
            charge->word = after;
            charge->charged = 1;
            return admitted;
        }
    }
}


/* 1: charged; 0: refused; -1: no pin. */
static int
tg_charge(const tg_quota_set_t *set, tg_charge_t *charge, tg_pin_t *pin)
{
    if (charge->meter.quota->metric == TG_METRIC_CONCURRENCY) {
        return tg_charge_concurrency(set, charge, pin);
    }

    charge->charged = tg_charge_requests(set, charge);

    return charge->charged;
}


static void
tg_charge_undo(const tg_quota_set_t *set, tg_charge_t *charge, tg_pin_t *pin)
{
    uint64_t  word;

    if (!charge->charged) {
        return;
    }

    if (charge->meter.quota->metric == TG_METRIC_CONCURRENCY) {
        tg_zone_release(set->zone, pin, tg_charge_counter(set, charge));
        return;
    }

    /* Another consumer's by now: what was charged has drained. */
    while (tg_cell_load(&charge->cell, &word)
           && !tg_cell_swap(&charge->cell, word,
                            tg_meter_undo(&charge->meter, word)))
    {
        /* void */
    }
}


/* Of several that refuse, that for which one has to wait longest. */
static void
tg_result_refused(tg_quota_result_t *result, const tg_charge_t *charge)
{
    uint64_t  retry;

    retry = tg_meter_retry(&charge->meter, charge->word);

    if (retry > result->retry_s) {
        result->quota = charge->meter.quota;
        result->remaining = 0;
        result->reset_s = tg_meter_reset(&charge->meter, charge->word);
        result->retry_s = retry;
    }
}


/* The one with the least left. */
static void
tg_result_admitted(const tg_quota_set_t *set, tg_quota_result_t *result,
    const tg_charge_t *charge)
{
    uint64_t  remaining;

    if (charge->meter.quota->metric == TG_METRIC_CONCURRENCY) {
        result->held[result->held_n++] = tg_charge_counter(set, charge);
        return;
    }

    if (charge->meter.quota->dry_run) {
        return;
    }

    remaining = tg_meter_remaining(&charge->meter, charge->word);

    if (result->quota == NULL || remaining < result->remaining) {
        result->quota = charge->meter.quota;
        result->remaining = remaining;
        result->reset_s = tg_meter_reset(&charge->meter, charge->word);
    }
}


static int
tg_charges_look(const tg_quota_set_t *set, tg_charge_t *charges,
    tg_quota_result_t *result)
{
    int           refused;
    tg_charge_t  *charge;

    refused = 0;

    for (uint32_t i = 0; i < set->n; i++) {
        charge = &charges[i];

        if (charge->meter.quota->dry_run || tg_charge_look(set, charge)) {
            continue;
        }

        tg_quota_count_throttled(charge->state);
        tg_result_refused(result, charge);
        refused = 1;
    }

    return refused;
}


tg_quota_verdict_e
tg_quota_check(const tg_quota_set_t *set, tg_pin_t *pin,
    const tg_quota_now_t *now, tg_quota_result_t *result)
{
    int           rc;
    uint32_t      i;
    tg_charge_t   charges[TG_MAX_REQUEST_QUOTAS], *charge;

    memset(result, 0, sizeof(*result));

    for (i = 0; i < set->n; i++) {
        tg_meter_init(&charges[i].meter, set->block, set->quota[i], now);
        charges[i].state = tg_quota_state(set->zone, set->quota[i]);
        charges[i].looked = 0;
        charges[i].charged = 0;
    }

    /* With one there is nothing to undo, so nothing to look at first. */
    if (set->n > 1 && tg_charges_look(set, charges, result)) {
        return TG_QUOTA_REFUSED;
    }

    for (i = 0; i < set->n; i++) {
        charge = &charges[i];
        rc = tg_charge(set, charge, pin);

        if (rc == 0) {
            tg_quota_count_throttled(charge->state);

            if (charge->meter.quota->dry_run) {
                result->dry_run++;
                rc = 1;
            }
        }

        if (rc <= 0) {
            break;
        }

        if (charge->charged) {
            tg_result_admitted(set, result, charge);
        }
    }

    if (i == set->n) {
        return TG_QUOTA_OK;
    }

    while (i-- > 0) {
        tg_charge_undo(set, &charges[i], pin);
    }

    if (rc < 0) {
        return TG_QUOTA_NO_PIN;
    }

    memset(result, 0, sizeof(*result));
    tg_result_refused(result, charge);

    return TG_QUOTA_REFUSED;
}


void
tg_quota_release(tg_zone_t *zone, tg_pin_t *pin, const uint64_t *held,
    uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        tg_zone_release(zone, pin, held[i]);
    }
}


void
tg_quota_count_body(const tg_quota_set_t *set, const tg_quota_t *quota)
{
    tg_quota_count_throttled(tg_quota_state(set->zone, quota));
}
