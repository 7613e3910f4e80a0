/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <sys/mman.h>

#include "tg_hint.h"
#include "tg_zone_private.h"

/* Bytes of a zone for each hint: about what a typical tenant takes. */
#define TG_HINT_SHARE  2048
#define TG_HINT_LINES  6
#define TG_HINT_WAYS   2

typedef struct {
    uint32_t   hash;
    tg_zref_t  block;                   /* 0: nothing was learnt */
    tg_zref_t  line[TG_HINT_LINES];     /* 0: no more of them */
} tg_hint_t;

/* Where the hosts of some hashes have their hints, the newest first. */
typedef struct {
    tg_hint_t  way[TG_HINT_WAYS];
} tg_hint_set_t;

struct tg_hints_s {
    uint32_t        mask;
    uint32_t        hash;       /* of the host that was fetched for last */
    int             fetched;    /* it was, and nothing was learnt since */
    tg_hint_set_t  *set;
};

_Static_assert(sizeof(tg_hint_set_t) == TG_CACHE_LINE, "a set is one line");


tg_hints_t *
tg_hints_create(const tg_zone_t *zone)
{
    size_t       n;
    tg_hints_t  *hints;

    n = 1;

    while (n * TG_HINT_WAYS < zone->size / TG_HINT_SHARE) {
        n *= 2;
    }

    hints = calloc(1, sizeof(tg_hints_t));
    if (hints == NULL) {
        return NULL;
    }

    hints->mask = (uint32_t) n - 1;

    /* zero, and memory only where hosts are */
    hints->set = mmap(NULL, n * sizeof(tg_hint_set_t), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (hints->set == MAP_FAILED) {
        free(hints);
        return NULL;
    }

#ifdef MADV_HUGEPAGE
    (void) madvise(hints->set, n * sizeof(tg_hint_set_t), MADV_HUGEPAGE);
#endif

    return hints;
}


void
tg_hints_destroy(tg_hints_t *hints)
{
    if (hints != NULL) {
        (void) munmap(hints->set, (hints->mask + UINT64_C(1)) * sizeof(tg_hint_set_t));
        free(hints);
    }
}


static tg_hint_t *
tg_hint_find(const tg_hints_t *hints, tg_hint_set_t *set)
{
    uint32_t  i;

    for (i = 0; i < TG_HINT_WAYS; i++) {
        if (set->way[i].hash == hints->hash && set->way[i].block) {
            return &set->way[i];
        }
    }

    return NULL;
}


void
tg_hints_expect(const tg_hints_t *hints, const tg_zone_t *zone, const char *host,
    size_t len)
{
    uint32_t  hash;

    hash = (uint32_t) tg_host_hash(zone, host, len);
    __builtin_prefetch(&hints->set[hash & hints->mask]);
}


int
tg_hints_fetch(tg_hints_t *hints, const tg_zone_t *zone, const char *host,
    size_t len)
{
    int               i;
    const tg_hint_t  *hint;

    hints->hash = (uint32_t) tg_host_hash(zone, host, len);
    hints->fetched = 1;
    __builtin_prefetch(tg_host_chain(zone, hints->hash));

    hint = tg_hint_find(hints, &hints->set[hints->hash & hints->mask]);
    if (hint == NULL) {
        return -1;
    }

    for (i = 0; i < TG_HINT_LINES && hint->line[i]; i++) {
        __builtin_prefetch(tg_deref(zone, hint->line[i]));
    }

    tg_block_fetch(tg_deref(zone, hint->block));

    return i;
}


/* The node and the entry by which the host's block is found. */
static uint32_t
tg_hint_node(const tg_zone_t *zone, uint32_t hash, const tg_block_t *block,
    tg_zref_t *line)
{
    tg_zref_t          link;
    const tg_host_t   *node;
    const tg_entry_t  *entry;

    for (link = tg_follow(tg_host_chain(zone, hash)); link;
         link = tg_follow(&node->next))
    {
        node = tg_deref(zone, link);
        entry = tg_deref(zone, node->entry);

        if (node->hash == hash && tg_follow(&entry->block) == tg_zref(zone, block)) {
            line[0] = link;
            line[1] = node->entry;
            return 2;
        }
    }

    return 0;
}


/* The states of the route's quotas, and of the endpoint that it most likely takes. */
static void
tg_hint_states(const tg_zone_t *zone, const tg_block_t *block,
    const tg_route_t *route, tg_zref_t *line, uint32_t n)
{
    uint32_t              i;
    const uint32_t       *list;
    const tg_backend_t   *backend;
    const tg_upstream_t  *upstream;
    const tg_endpoint_t  *endpoint;

    backend = tg_vec(block, route->backends, tg_backend_t);
    upstream = tg_vec(block, block->upstreams, tg_upstream_t) + backend[0].upstream;
    endpoint = tg_vec(block, upstream->endpoints, tg_endpoint_t);

    if (upstream->endpoints.n > 0) {
        line[n++] = tg_zref(zone, tg_zone_ptr(zone, endpoint[0].state));
    }

    list = tg_vec(block, route->quotas, uint32_t);

    for (i = 0; i < route->quotas.n && n < TG_HINT_LINES; i++) {
        line[n++] = tg_zref(zone, tg_zone_ptr(zone, tg_vec(block, block->quotas,
                                                    tg_quota_t)[list[i]].state));
    }
}


void
tg_hints_learn(tg_hints_t *hints, tg_zone_t *zone, int slot,
    const tg_block_t *block, const tg_route_t *route)
{
    tg_hint_t      *hint;
    tg_hint_set_t  *set;

    if (!hints->fetched) {
        return;
    }

    hints->fetched = 0;
    set = &hints->set[hints->hash & hints->mask];
    hint = tg_hint_find(hints, set);

    if (hint && hint->block == tg_zref(zone, block)) {
        return;
    }

    if (hint == NULL) {
        hint = set->way;
        memmove(hint + 1, hint, (TG_HINT_WAYS - 1) * sizeof(tg_hint_t));
    }

    memset(hint, 0, sizeof(tg_hint_t));
    hint->hash = hints->hash;
    hint->block = tg_zref(zone, block);

    tg_zone_enter(zone, slot);
    tg_hint_states(zone, block, route, hint->line,
                   tg_hint_node(zone, hints->hash, block, hint->line));
    tg_zone_exit(zone, slot);
}
