/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * After a killed writer: complete its step, count what the tables hold, and
 * rebuild the allocator from what is reachable.  Readers go on meanwhile; of
 * what they can see nothing is moved or freed.
 *
 * The same walk serves as the check that tests make of a zone at rest.
 */

#include <stdlib.h>

#include "tg_zone_private.h"

typedef struct {
    const tg_zone_t   *zone;
    const tg_arena_t  *arena;
    uint64_t          *marks;
    uint64_t           used;
    uint64_t           tenants;
    uint64_t           issuers;
    uint64_t           retired;
    uint32_t           wildcards;
    uint32_t           wildcard[TG_ZONE_LABELS];
    uint64_t           nodes;
    uint64_t           listed;      /* hosts in current blocks */
    uint32_t           errors;
    uint32_t           doubts;      /* bits of those about a live object */
    int                failed;      /* no memory: something was left out */
} tg_walk_t;


/* Anything that is not an object, or has two owners, is an error. */
static void
tg_walk_mark(tg_walk_t *w, const void *p, int shared)
{
    int  rc;

    rc = tg_arena_mark(w->arena, w->marks, p);

    if (rc == 0) {
        w->used += tg_arena_size_of(w->arena, p);

    } else if (rc == -1 || !shared) {
        w->errors++;
    }
}


static void
tg_walk_state(tg_walk_t *w, const tg_state_t *state)
{
    uint32_t  i;

    tg_walk_mark(w, tg_zone_ptr(w->zone, *state->field), 1);

    for (i = 0; i < TG_ZONE_DOUBTS; i++) {
        if (w->zone->doubt[i].counter - *state->field < state->size) {
            w->doubts |= 1u << i;
        }
    }
}


static void
tg_walk_version(tg_walk_t *w, tg_zref_t ref)
{
    size_t             i;
    tg_states_t        states;
    const tg_block_t  *block = tg_deref(w->zone, ref);

    tg_walk_mark(w, block, 0);

    if (tg_states_collect(&states, block) != 0) {
        w->failed = 1;
        return;
    }

    for (i = 0; i < states.n; i++) {
        tg_walk_state(w, &states.state[i]);
    }

    tg_states_free(&states);
}


static void
tg_walk_hosts(tg_walk_t *w)
{
    uint32_t           i, k, labels;
    tg_zref_t          ref;
    const tg_host_t   *node;
    const tg_entry_t  *entry;
    const tg_block_t  *block;

    for (i = 0; i <= w->zone->host_mask; i++) {
        for (ref = tg_table(w->zone, w->zone->hosts)[i]; ref; ref = node->next)
        {
            node = tg_deref(w->zone, ref);
            entry = tg_deref(w->zone, node->entry);
            block = tg_deref(w->zone, entry->block);

            tg_walk_mark(w, node, 0);
            w->nodes++;

            if (entry->block == 0 || node->block != entry->block
                || !tg_block_lists(block, node->name, node->len))
            {
                w->errors++;
            }

            labels = 0;
            for (k = 0; node->name[0] == '.' && k < node->len; k++) {
                labels += (node->name[k] == '.');
            }

            if (labels && labels < TG_ZONE_LABELS) {
                w->wildcard[labels]++;
                w->wildcards++;
            }
        }
    }
}


static void
tg_walk_entries(tg_walk_t *w, uint64_t table, uint32_t mask, uint64_t *count)
{
    uint32_t           i;
    tg_zref_t          ref;
    const tg_entry_t  *entry;
    const tg_block_t  *block;

    for (i = 0; i <= mask; i++) {
        for (ref = tg_table(w->zone, table)[i]; ref; ref = entry->next) {
            entry = tg_deref(w->zone, ref);

            tg_walk_mark(w, entry, 0);
            tg_walk_version(w, entry->block);
            (*count)++;

            block = tg_deref(w->zone, entry->block);
            w->listed += block->hosts.n;

            if (entry->slot != TG_NO_SLOT
                && tg_table(w->zone, w->zone->dense)[entry->slot] != ref)
            {
                w->errors++;
            }
        }
    }
}


static void
tg_walk_retired(tg_walk_t *w)
{
    tg_zref_t            ref, node;
    const tg_retired_t  *retired, *near;

    for (ref = w->zone->retired; ref; ref = retired->next) {
        retired = tg_deref(w->zone, ref);

        tg_walk_mark(w, retired, 0);
        tg_walk_version(w, retired->block);
        w->retired++;

        for (node = retired->nodes; node;
             node = ((const tg_host_t *) tg_deref(w->zone, node))->sibling)
        {
            tg_walk_mark(w, tg_deref(w->zone, node), 0);
        }

        if (retired->older) {
            near = tg_deref(w->zone, retired->older);
            w->errors += (near->newer != ref);
        }

        if (retired->newer) {
            near = tg_deref(w->zone, retired->newer);
            w->errors += (near->older != ref);
        }
    }
}


static void
tg_walk_slots(tg_walk_t *w)
{
    uint32_t          i;
    const tg_slot_t  *slot;

    for (i = 0; i < w->zone->slots_used; i++) {
        slot = &w->zone->slot[i];

        if (slot->pins) {
            tg_walk_mark(w, tg_deref(w->zone, slot->pins), 0);
        }
    }
}


static int
tg_walk(tg_walk_t *w, const tg_zone_t *zone)
{
    memset(w, 0, sizeof(tg_walk_t));

    w->zone = zone;
    w->arena = tg_zone_arena(zone);

    w->marks = calloc(1, tg_arena_marks_size(w->arena));
    if (w->marks == NULL) {
        return -1;
    }

    tg_walk_entries(w, zone->issuers, zone->issuer_mask, &w->issuers);
    tg_walk_entries(w, zone->names, zone->name_mask, &w->tenants);
    tg_walk_hosts(w);
    tg_walk_retired(w);
    tg_walk_slots(w);

    if (w->failed) {
        free(w->marks);
        return -1;
    }

    return 0;
}


int
tg_zone_check(const tg_zone_t *zone)
{
    int        rc;
    tg_walk_t  w;

    if (zone->busy || tg_walk(&w, zone) != 0) {
        return -1;
    }

    rc = (w.errors == 0
          && w.nodes == w.listed
          && w.used == tg_arena_used(w.arena)
          && w.tenants == zone->tenants
          && w.issuers == zone->nissuers
          && w.retired == zone->nretired
          && w.wildcards == zone->wildcards
          && memcmp(w.wildcard, zone->wildcard, sizeof(w.wildcard)) == 0
          && tg_arena_check(w.arena) == 0)
         ? 0 : -1;

    free(w.marks);

    return rc;
}


static void
tg_recover_dense_entry(tg_zone_t *zone, tg_zref_t ref)
{
    const tg_entry_t  *entry = tg_deref(zone, ref);

    if (entry->slot != TG_NO_SLOT) {
        tg_table(zone, zone->dense)[entry->slot] = ref;
    }
}


/* Numbers that no entry has, alive or on its way out, are free. */
static void
tg_recover_dense(tg_zone_t *zone)
{
    uint32_t             i;
    tg_zref_t            ref, *dense;
    const tg_retired_t  *retired;

    dense = tg_table(zone, zone->dense);
    memset(dense, 0, zone->dense_fresh * sizeof(tg_zref_t));

    for (i = 0; i <= zone->name_mask; i++) {
        for (ref = tg_table(zone, zone->names)[i]; ref;
             ref = ((const tg_entry_t *) tg_deref(zone, ref))->next)
        {
            tg_recover_dense_entry(zone, ref);
        }
    }

    for (ref = zone->retired; ref; ref = retired->next) {
        retired = tg_deref(zone, ref);

        if (tg_retired_last(zone, retired)) {
            tg_recover_dense_entry(zone, ref);
        }
    }

    zone->dense_free = 0;

    for (i = zone->dense_fresh; i-- > 0; ) {
        if (dense[i] == 0) {
            tg_dense_release(zone, i);
        }
    }
}


static void
tg_recover_slots(tg_zone_t *zone)
{
    uint32_t    i;
    tg_slot_t  *slot;

    for (i = 0; i < TG_ZONE_SLOTS; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0) {
            slot->pins = 0;
        }
    }
}


/* A doubt about a counter that is gone would be settled in another object. */
static void
tg_recover_doubts(tg_zone_t *zone, const tg_walk_t *w)
{
    uint32_t  i;

    for (i = 0; i < TG_ZONE_DOUBTS; i++) {
        if (!(w->doubts >> i & 1)) {
            zone->doubt[i].counter = 0;
        }
    }
}


static void
tg_recover_counts(tg_zone_t *zone, const tg_walk_t *w)
{
    uint32_t  i;

    for (i = 0; i < TG_ZONE_LABELS; i++) {
        __atomic_store_n(&zone->wildcard[i], w->wildcard[i], __ATOMIC_SEQ_CST);
    }

    __atomic_store_n(&zone->wildcards, w->wildcards, __ATOMIC_SEQ_CST);

    zone->tenants = w->tenants;
    zone->nissuers = w->issuers;
    zone->nretired = w->retired;
}


int
tg_zone_recover(tg_zone_t *zone)
{
    tg_walk_t  w;

    if (!zone->busy) {
        return 0;
    }

    tg_step_resume(zone);
    tg_recover_slots(zone);
    tg_recover_dense(zone);

    /* without memory the zone stays busy: the next writer tries again */
    if (tg_walk(&w, zone) != 0) {
        return 1;
    }

    tg_recover_counts(zone, &w);
    tg_recover_doubts(zone, &w);
    tg_arena_rebuild(tg_zone_arena(zone), w.marks);

    free(w.marks);

    zone->recoveries++;
    tg_commit(&zone->busy, 0);

    return 1;
}
