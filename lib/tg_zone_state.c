/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * State objects: what a version takes over from the one before.
 *
 * The versions that refer to one object follow each other without a gap, since
 * it is handed on from each to the next or dropped for good.  So an object can
 * go with a retired version if neither of its neighbours refers to it.
 */

#include <stdlib.h>

#include "tg_zone_private.h"

typedef enum {
    TG_STATE_TENANT = 0,
    TG_STATE_ROUTE,
    TG_STATE_UPSTREAM,
    TG_STATE_ENDPOINT,
    TG_STATE_QUOTA
} tg_state_e;


static void
tg_state_add(tg_states_t *states, uint64_t *field, uint64_t id, uint32_t shape,
    uint32_t size)
{
    tg_state_t  *s = &states->state[states->n++];

    s->field = field;
    s->id = id;
    s->shape = shape;
    s->size = size;
    s->used = 0;
}


static void
tg_state_add_quota(tg_states_t *states, tg_quota_t *quota)
{
    uint32_t  size;

    size = sizeof(tg_quota_state_t);
    if (quota->keyed) {
        size += TG_QUOTA_KEYS * sizeof(tg_quota_bucket_t);
    }

    tg_state_add(states, &quota->state, quota->id,
                 TG_STATE_QUOTA | (uint32_t) quota->metric << 8
                 | (uint32_t) quota->window << 16 | (quota->keyed ? 1u : 0) << 24,
                 size);
}


static void
tg_state_add_upstream(tg_states_t *states, const tg_block_t *block,
    tg_upstream_t *upstream)
{
    uint32_t        i;
    tg_endpoint_t  *endpoints;

    tg_state_add(states, &upstream->state, upstream->id, TG_STATE_UPSTREAM,
                 sizeof(tg_upstream_state_t));

    endpoints = tg_vec(block, upstream->endpoints, tg_endpoint_t);

    for (i = 0; i < upstream->endpoints.n; i++) {
        tg_state_add(states, &endpoints[i].state, endpoints[i].id,
                     TG_STATE_ENDPOINT, sizeof(tg_endpoint_state_t));
    }
}


int
tg_states_collect(tg_states_t *states, const tg_block_t *block)
{
    size_t          n;
    uint32_t        i;
    tg_quota_t     *quotas;
    tg_route_t     *routes;
    tg_upstream_t  *upstreams;

    memset(states, 0, sizeof(tg_states_t));

    if (block == NULL || block->kind != TG_KIND_TENANT) {
        return 0;
    }

    routes = tg_vec(block, block->routes, tg_route_t);
    quotas = tg_vec(block, block->quotas, tg_quota_t);
    upstreams = tg_vec(block, block->upstreams, tg_upstream_t);

    n = 1 + (size_t) block->routes.n + block->quotas.n + block->upstreams.n;

    for (i = 0; i < block->upstreams.n; i++) {
        n += upstreams[i].endpoints.n;
    }

    states->state = malloc(n * sizeof(tg_state_t));
    if (states->state == NULL) {
        return -1;
    }

    tg_state_add(states, &((tg_block_t *) (uintptr_t) block)->counters,
                 block->id, TG_STATE_TENANT, sizeof(tg_counters_t));

    for (i = 0; i < block->routes.n; i++) {
        tg_state_add(states, &routes[i].counters, routes[i].id, TG_STATE_ROUTE,
                     sizeof(tg_counters_t));
    }

    for (i = 0; i < block->quotas.n; i++) {
        tg_state_add_quota(states, &quotas[i]);
    }

    for (i = 0; i < block->upstreams.n; i++) {
        tg_state_add_upstream(states, block, &upstreams[i]);
    }

    return 0;
}


void
tg_states_free(tg_states_t *states)
{
    free(states->state);
    free(states->sorted);
    memset(states, 0, sizeof(tg_states_t));
}


static int
tg_state_compare(const tg_state_t *a, const tg_state_t *b)
{
    if (a->shape != b->shape) {
        return a->shape < b->shape ? -1 : 1;
    }

    return (a->id > b->id) - (a->id < b->id);
}


static int
tg_state_compare_items(const void *a, const void *b)
{
    return tg_state_compare(*(tg_state_t *const *) a, *(tg_state_t *const *) b);
}


static int
tg_state_compare_objects(const void *a, const void *b)
{
    const tg_state_t  *x = *(tg_state_t *const *) a;
    const tg_state_t  *y = *(tg_state_t *const *) b;

    return (*x->field > *y->field) - (*x->field < *y->field);
}


/* One order for each list of states: it is never needed in two. */
static int
tg_states_sort(tg_states_t *states, int (*compare)(const void *, const void *))
{
    size_t  i;

    if (states->sorted) {
        return 0;
    }

    states->sorted = malloc((states->n + 1) * sizeof(tg_state_t *));
    if (states->sorted == NULL) {
        return -1;
    }

    for (i = 0; i < states->n; i++) {
        states->sorted[i] = &states->state[i];
    }

    qsort(states->sorted, states->n, sizeof(tg_state_t *), compare);

    return 0;
}


/* The old version's item of the same id and shape, or NULL.  Most often it is
 * the one at *hint, after that found last; sorting is for versions that differ.
 * -1: no memory to look. */
static int
tg_states_match(tg_states_t *old, tg_state_t *item, size_t *hint,
    tg_state_t **match)
{
    tg_state_t  **found;

    *match = &old->state[*hint];

    if (*hint >= old->n || tg_state_compare(*match, item) != 0) {
        *match = NULL;

        if (old->n == 0) {
            return 0;
        }

        if (tg_states_sort(old, tg_state_compare_items) != 0) {
            return -1;
        }

        found = bsearch(&item, old->sorted, old->n, sizeof(tg_state_t *),
                        tg_state_compare_items);
        if (found == NULL) {
            return 0;
        }

        *match = *found;
    }

    *hint = (size_t) (*match - old->state) + 1;

    return 0;
}


static int
tg_state_create(tg_zone_t *zone, tg_state_t *item)
{
    void  *p;

    p = tg_arena_alloc(tg_zone_arena(zone), item->size);
    if (p == NULL) {
        return -1;
    }

    memset(p, 0, item->size);

    if (TG_STATE_IS_COUNTERS(item)) {
        ((tg_counters_t *) p)->life = ++zone->lives;
    }

    *item->field = tg_zone_offset(zone, p);
    item->used = 1;

    return 0;
}


int
tg_states_carry(tg_zone_t *zone, tg_states_t *states, tg_states_t *old,
    int *removed)
{
    size_t       i, hint;
    tg_state_t  *item, *match;

    hint = 0;

    for (i = 0; i < states->n; i++) {
        item = &states->state[i];

        if (tg_states_match(old, item, &hint, &match) != 0) {
            goto failed;
        }

        if (match && !match->used) {
            match->used = 1;
            *item->field = *match->field;

        } else if (tg_state_create(zone, item) != 0) {
            goto failed;
        }
    }

    *removed = 0;

    for (i = 0; i < old->n; i++) {
        if (!old->state[i].used && TG_STATE_IS_COUNTERS(&old->state[i])) {
            *removed = 1;
        }
    }

    return 0;

failed:

    states->n = i;
    tg_states_undo(zone, states);

    return -1;
}


void
tg_states_undo(tg_zone_t *zone, tg_states_t *states)
{
    size_t  i;

    for (i = 0; i < states->n; i++) {
        if (states->state[i].used) {
            tg_arena_free(tg_zone_arena(zone),
                          tg_zone_ptr(zone, *states->state[i].field));
            states->state[i].used = 0;
        }
    }
}


int
tg_states_have(tg_states_t *states, uint64_t object, size_t hint)
{
    tg_state_t  key, *item = &key;

    if (hint < states->n && *states->state[hint].field == object) {
        return 1;
    }

    if (states->n == 0) {
        return 0;
    }

    if (tg_states_sort(states, tg_state_compare_objects) != 0) {
        return -1;
    }

    key.field = &object;

    return bsearch(&item, states->sorted, states->n, sizeof(tg_state_t *),
                   tg_state_compare_objects) != NULL;
}
