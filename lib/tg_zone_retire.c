/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What becomes of a version that was replaced or removed.
 *
 *  1. It waits for the grace period that was open when it was retired.  A period
 *     is closed by taking a snapshot of all section counters; it is over when no
 *     slot is still inside the section that the snapshot saw.
 *  2. Then nobody can pin it any more, and it waits for the last of its pins.
 *     From here on it is quiet.
 *  3. If counters go with it that are not all 0, it waits for two visits: the
 *     second says that what the first one saw has arrived.
 *  4. The last version of a removed object waits for all older ones, because the
 *     entry and the dense number go with it.
 */

#include <stdlib.h>

#include "tg_zone_private.h"

/* Versions that one call looks up among the pins. */
#define TG_RECLAIM_BATCH  1024
#define TG_RECLAIM_TABLE  (2 * TG_RECLAIM_BATCH)

/* Versions past their grace, by block: an open hash table. */
typedef struct {
    uint32_t   n;
    tg_zref_t  block[TG_RECLAIM_TABLE];
    uint8_t    pinned[TG_RECLAIM_TABLE];
} tg_candidates_t;


static int
tg_grace_over(const tg_zone_t *zone)
{
    uint32_t  i, now;

    for (i = 0; i < zone->slots_used; i++) {

        if (!(zone->snapshot[i] & 1)) {
            continue;
        }

        now = (uint32_t) __atomic_load_n(&zone->slot[i].section,
                                         __ATOMIC_SEQ_CST);
        if (now == zone->snapshot[i]) {
            return 0;
        }
    }

    return 1;
}


static void
tg_grace_close(tg_zone_t *zone)
{
    uint32_t  i;

    for (i = 0; i < zone->slots_used; i++) {
        zone->snapshot[i] = (uint32_t) __atomic_load_n(&zone->slot[i].section,
                                                       __ATOMIC_SEQ_CST);
    }

    zone->closing = zone->open++;
}


/* A period that was closed earlier, then the open one: most often nobody is
 * inside, and both are over at once. */
void
tg_grace_advance(tg_zone_t *zone)
{
    int  i;

    for (i = 0; i < 2; i++) {

        if (zone->closed + 1 == zone->open) {
            tg_grace_close(zone);
        }

        if (!tg_grace_over(zone)) {
            return;
        }

        zone->closed = zone->closing;
    }
}


int
tg_grace_passed(const tg_zone_t *zone, const tg_retired_t *retired)
{
    return (int32_t) (retired->stamp - zone->closed) <= 0;
}


static uint32_t
tg_candidate_place(const tg_candidates_t *c, tg_zref_t block)
{
    uint32_t  i;

    i = block * 0x9e3779b1u >> 21;      /* TG_RECLAIM_TABLE is 2^11 */

    while (c->block[i] && c->block[i] != block) {
        i = (i + 1) % TG_RECLAIM_TABLE;
    }

    return i;
}


static void
tg_candidates_collect(tg_zone_t *zone, tg_candidates_t *c)
{
    uint32_t       skip;
    tg_zref_t      ref;
    tg_retired_t  *retired;

    memset(c, 0, sizeof(tg_candidates_t));
    skip = zone->skip;

    for (ref = zone->retired; ref; ref = retired->next) {
        retired = tg_deref(zone, ref);

        if ((retired->flags & TG_RETIRED_QUIET)
            || !tg_grace_passed(zone, retired))
        {
            continue;
        }

        if (skip) {
            skip--;
            continue;
        }

        if (c->n == TG_RECLAIM_BATCH) {
            zone->skip += c->n;
            return;
        }

        c->block[tg_candidate_place(c, retired->block)] = retired->block;
        c->n++;
    }

    zone->skip = 0;
}


static void
tg_candidates_check_pins(tg_zone_t *zone, tg_candidates_t *c)
{
    uint32_t     i, n, p, place;
    tg_pin_t    *pins;
    tg_slot_t   *slot;
    uint64_t     block;

    for (i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0 || slot->pins == 0) {
            continue;
        }

        pins = tg_deref(zone, slot->pins);
        n = __atomic_load_n(&slot->fresh, __ATOMIC_ACQUIRE);

        for (p = 0; p < n; p++) {
            block = __atomic_load_n(&pins[p].block, __ATOMIC_ACQUIRE);
            if (block == 0) {
                continue;
            }

            place = tg_candidate_place(c, (tg_zref_t) (block / 16));
            if (c->block[place]) {
                c->pinned[place] = 1;
            }
        }
    }
}


static int
tg_counters_any(const tg_zone_t *zone, const tg_state_t *state)
{
    static const tg_counters_t  none;

    return memcmp(tg_zone_ptr(zone, *state->field), &none,
                  offsetof(tg_counters_t, life)) != 0;
}


/* Leaves in states only what nothing else refers to.  -1: no memory. */
static int
tg_retired_states(tg_zone_t *zone, tg_retired_t *retired, tg_states_t *states)
{
    int            rc;
    size_t         i, n;
    tg_states_t    older, newer;
    tg_retired_t  *near;

    memset(&newer, 0, sizeof(newer));
    memset(&older, 0, sizeof(older));

    rc = tg_states_collect(states, tg_deref(zone, retired->block));

    if (rc == 0 && retired->older) {
        near = tg_deref(zone, retired->older);
        rc = tg_states_collect(&older, tg_deref(zone, near->block));
    }

    if (rc == 0 && retired->newer) {
        near = tg_deref(zone, retired->newer);
        rc = tg_states_collect(&newer, tg_retired_last(zone, near)
                               ? tg_entry_block(zone, (tg_entry_t *) near)
                               : tg_deref(zone, near->block));
    }

    n = 0;

    for (i = 0; rc == 0 && i < states->n; i++) {
        rc = tg_states_have(&newer, *states->state[i].field, i);

        if (rc == 0) {
            rc = tg_states_have(&older, *states->state[i].field, i);
        }

        if (rc == 0) {
            states->state[n++] = states->state[i];
        } else if (rc == 1) {
            rc = 0;
        }
    }

    states->n = n;

    tg_states_free(&older);
    tg_states_free(&newer);

    return rc;
}


static void
tg_retired_free(tg_zone_t *zone, tg_retired_t *retired,
    const tg_states_t *states)
{
    size_t       i;
    uint64_t     object;
    tg_host_t   *node;
    tg_block_t  *block;
    tg_arena_t  *arena = tg_zone_arena(zone);

    for (i = 0; i < states->n; i++) {
        object = *states->state[i].field;
        tg_doubts_forget(zone, object, states->state[i].size);
        tg_arena_free(arena, tg_zone_ptr(zone, object));
    }

    while (retired->nodes) {
        node = tg_deref(zone, retired->nodes);
        retired->nodes = node->sibling;
        tg_arena_free(arena, node);
    }

    /* it may hold shared secrets */
    block = tg_deref(zone, retired->block);
    memset(block, 0, block->size);
    tg_arena_free(arena, block);

    if (tg_retired_last(zone, retired)
        && ((tg_entry_t *) retired)->slot != TG_NO_SLOT)
    {
        tg_dense_release(zone, ((tg_entry_t *) retired)->slot);
    }

    tg_arena_free(arena, retired);
}


/* Frees a quiet version unless something still waits for it; 1 if freed. */
static int
tg_retired_forget(tg_zone_t *zone, tg_zref_t previous, tg_retired_t *retired)
{
    int          rc, done;
    size_t       i;
    tg_states_t  states;

    done = (retired->flags & TG_RETIRED_DONE) != 0;

    if ((retired->flags & TG_RETIRED_VISIT) && !done) {
        return 0;
    }

    if (tg_retired_last(zone, retired) && retired->older) {
        return 0;
    }

    rc = tg_retired_states(zone, retired, &states);

    for (i = 0; rc == 0 && !done && i < states.n; i++) {
        if (TG_STATE_IS_COUNTERS(&states.state[i])
            && tg_counters_any(zone, &states.state[i]))
        {
            retired->flags |= TG_RETIRED_VISIT;
            rc = 1;
        }
    }

    if (rc == 0) {
        zone->journal.retired = tg_zref(zone, retired);
        zone->journal.previous = previous;
        tg_step_run(zone, TG_STEP_FORGET);

        tg_retired_free(zone, retired, &states);
    }

    tg_states_free(&states);

    return rc == 0;
}


static int
tg_candidate_unpinned(const tg_candidates_t *c, const tg_retired_t *retired)
{
    uint32_t  place = tg_candidate_place(c, retired->block);

    return c->block[place] && !c->pinned[place];
}


void
tg_reclaim_locked(tg_zone_t *zone)
{
    tg_zref_t        ref, previous, next;
    tg_retired_t    *retired;
    tg_candidates_t  candidates;

    if (zone->retired == 0) {
        return;
    }

    tg_grace_advance(zone);
    tg_candidates_collect(zone, &candidates);

    if (candidates.n) {
        tg_candidates_check_pins(zone, &candidates);
    }

    previous = 0;

    for (ref = zone->retired; ref; ref = next) {
        retired = tg_deref(zone, ref);
        next = retired->next;

        if (tg_candidate_unpinned(&candidates, retired)) {
            retired->flags |= TG_RETIRED_QUIET;
        }

        if (!(retired->flags & TG_RETIRED_QUIET)
            || !tg_retired_forget(zone, previous, retired))
        {
            previous = ref;
        }
    }
}


void
tg_zone_reclaim(tg_zone_t *zone)
{
    if (tg_write_begin(zone) != 0) {
        return;
    }
    tg_reclaim_locked(zone);
    tg_write_end(zone);
}


/* What the visitor said. */
static int
tg_visit_retired(tg_zone_t *zone, tg_retired_t *retired, tg_zone_visit_pt visit,
    void *data)
{
    int  rc;

    rc = visit(data, tg_deref(zone, retired->block));

    if (rc != 0) {
        return rc;
    }

    if (!(retired->flags & TG_RETIRED_QUIET)) {
        return 0;
    }

    if (retired->visited == 0) {
        retired->visited = zone->visits;

    } else if (retired->visited != zone->visits) {
        retired->flags |= TG_RETIRED_DONE;
    }

    return 0;
}


/* All versions of a tenant that have counters of their own, oldest first: the most
 * that the visitor said. */
static int
tg_visit_entry(tg_zone_t *zone, tg_entry_t *entry, tg_zone_visit_pt visit,
    void *data)
{
    int            rc, again;
    tg_retired_t  *retired;

    again = 0;
    retired = &entry->last;

    while (retired->older) {
        retired = tg_deref(zone, retired->older);
    }

    while (!tg_retired_last(zone, retired)) {

        if (retired->flags & (TG_RETIRED_ROUTE | TG_RETIRED_VISIT)) {
            rc = tg_visit_retired(zone, retired, visit, data);

            if (rc == TG_VISIT_STOP) {
                return rc;
            }

            again |= rc;
        }

        retired = tg_deref(zone, retired->newer);
    }

    rc = entry->block ? visit(data, tg_entry_block(zone, entry))
                      : tg_visit_retired(zone, retired, visit, data);

    return rc > again ? rc : again;
}


/* The entry of a dense number; NULL: it is free. */
static tg_entry_t *
tg_dense_entry(const tg_zone_t *zone, uint32_t slot)
{
    tg_zref_t  ref;

    ref = tg_table(zone, zone->dense)[slot];

    return ref && !(ref & TG_DENSE_FREE) ? tg_deref(zone, ref) : NULL;
}


/* Visits 64 dense numbers from the given one on; TG_VISIT_STOP, or 0. */
static int
tg_visit_word(tg_zone_t *zone, uint32_t from, tg_zone_visit_pt visit,
    void *data)
{
    int          rc;
    uint32_t     first, i;
    uint64_t    *word, bits, again;
    tg_entry_t  *entry;

    first = from / 64 * 64;
    word = tg_touched_word(zone, first / 64);

    if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0) {
        return 0;
    }

    rc = 0;

    /* cleared before the counters are read: later counts set it anew */

    bits = __atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST);
    again = bits & ((UINT64_C(1) << (from - first)) - 1);

    for (bits &= ~again; bits; bits &= bits - 1) {
        i = (uint32_t) __builtin_ctzll(bits);
        entry = tg_dense_entry(zone, first + i);

        if (entry == NULL) {
            continue;
        }

        rc = tg_visit_entry(zone, entry, visit, data);

        if (rc == TG_VISIT_STOP) {
            again |= bits;
            break;
        }

        again |= rc ? bits & -bits : 0;
    }

    if (again) {
        (void) __atomic_fetch_or(word, again, __ATOMIC_SEQ_CST);
    }

    return rc == TG_VISIT_STOP ? rc : 0;
}


/* Those that have no dense number, or lost it while this round went on. */
static void
tg_visit_rest(tg_zone_t *zone, tg_zone_visit_pt visit, void *data)
{
    tg_zref_t      ref;
    tg_retired_t  *retired;

    for (ref = zone->retired; ref; ref = retired->next) {
        retired = tg_deref(zone, ref);

        if ((retired->flags & TG_RETIRED_VISIT)
            && !(retired->flags & TG_RETIRED_DONE)
            && retired->visited != zone->visits
            && tg_visit_retired(zone, retired, visit, data) == TG_VISIT_STOP)
        {
            return;
        }
    }
}


void
tg_zone_visit_touched(tg_zone_t *zone, uint32_t from, tg_zone_visit_pt visit,
    void *data)
{
    int  rc;

    if (tg_write_begin(zone) != 0) {
        return;
    }

    if (++zone->visits == 0) {
        zone->visits = 1;
    }

    tg_reclaim_locked(zone);

    for (rc = 0; from < zone->dense_fresh && rc == 0;
         from = (from / 64 + 1) * 64)
    {
        rc = tg_visit_word(zone, from, visit, data);
    }

    if (rc == 0) {
        tg_visit_rest(zone, visit, data);
    }

    tg_reclaim_locked(zone);
    tg_write_end(zone);
}


void
tg_zone_touch_all(tg_zone_t *zone)
{
    uint32_t       i;
    tg_zref_t      ref;
    tg_retired_t  *retired;

    if (tg_write_begin(zone) != 0) {
        return;
    }

    for (i = 0; i < zone->dense_fresh; i++) {
        ref = tg_table(zone, zone->dense)[i];

        if (ref && !(ref & TG_DENSE_FREE)) {
            tg_zone_touch(zone, i);
        }
    }

    for (ref = zone->retired; ref; ref = retired->next) {
        retired = tg_deref(zone, ref);
        tg_retired_visit_again(retired);
    }

    tg_write_end(zone);
}
