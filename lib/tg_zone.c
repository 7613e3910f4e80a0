/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Life of a zone, and what readers look up.  See tg_zone_private.h for how the
 * zone lies in memory and what keeps readers and the writer apart.
 */

#include "tg_zone_private.h"

/* Changes when a struct that code of two builds would share does. */
#define TG_ZONE_SHAPE                                                         \
    ((uint32_t) (TG_ZONE_LAYOUT * 1000003u                                    \
                 + sizeof(tg_zone_t) * 8191u + sizeof(tg_block_t) * 127u      \
                 + sizeof(tg_route_t) * 131u + sizeof(tg_quota_t) * 137u      \
                 + sizeof(tg_upstream_t) * 139u                               \
                 + sizeof(tg_endpoint_t) * 149u + sizeof(tg_issuer_t) * 151u  \
                 + sizeof(tg_key_t) * 157u + sizeof(tg_api_key_t) * 163u      \
                 + sizeof(tg_counters_t) * 167u                               \
                 + sizeof(tg_endpoint_state_t) * 173u                         \
                 + sizeof(tg_quota_bucket_t) * 179u                           \
                 + sizeof(tg_handover_t) * 181u + sizeof(tg_carry_t) * 191u))

_Static_assert(sizeof(tg_entry_t) == TG_CACHE_LINE, "an entry is one line");
_Static_assert(sizeof(tg_pin_t) == TG_CACHE_LINE, "a pin is one line");
_Static_assert(sizeof(tg_slot_t) == TG_CACHE_LINE, "a slot is one line");
_Static_assert(offsetof(tg_entry_t, last) == 0, "record and entry, one link");


static uint64_t
tg_power_below(uint64_t n)
{
    return 1ull << (63 - __builtin_clzll(n));
}


/* Reserves size bytes at *at and returns where they begin. */
static uint64_t
tg_reserve(uint64_t *at, uint64_t size)
{
    uint64_t  offset = *at;

    *at = (offset + size + TG_CACHE_LINE - 1) & ~(uint64_t) (TG_CACHE_LINE - 1);

    return offset;
}


/*
 * A typical tenant takes a little under 2 KiB and has one host; one with a route
 * takes at least 768 bytes.
 */
static uint64_t
tg_zone_tables(tg_zone_t *zone, uint64_t size)
{
    uint64_t  at, hosts, names, issuers;

    hosts = tg_power_below(size / 1024);
    names = tg_power_below(size / 2048);
    issuers = tg_power_below(size / 65536);

    zone->host_mask = (uint32_t) hosts - 1;
    zone->name_mask = (uint32_t) names - 1;
    zone->issuer_mask = (uint32_t) issuers - 1;
    zone->dense_max = (uint32_t) (size / 768 / 64 * 64);

    at = sizeof(tg_zone_t);
    zone->hosts = tg_reserve(&at, hosts * sizeof(tg_zref_t));
    zone->names = tg_reserve(&at, names * sizeof(tg_zref_t));
    zone->issuers = tg_reserve(&at, issuers * sizeof(tg_zref_t));
    zone->dense = tg_reserve(&at, zone->dense_max * sizeof(tg_zref_t));
    zone->touched = tg_reserve(&at, zone->dense_max / 8);
    zone->arena = at;

    return at;
}


tg_zone_t *
tg_zone_create(void *base, size_t size, uint64_t seed, const uint8_t boot[16])
{
    uint64_t    at;
    tg_zone_t  *zone = base;

    if (size < TG_ZONE_MIN || size > TG_ZONE_MAX) {
        return NULL;
    }

    memset(zone, 0, sizeof(tg_zone_t));

    zone->size = size;
    zone->seed = seed;
    zone->open = 1;
    zone->visits = 1;
    zone->mark = 1;
    memcpy(zone->boot, boot, sizeof(zone->boot));

    at = tg_zone_tables(zone, size);
    memset((char *) base + zone->hosts, 0, at - zone->hosts);

    if (tg_arena_create((char *) base + at, size - at) == NULL) {
        return NULL;
    }

    zone->layout = TG_ZONE_SHAPE;
    __atomic_store_n(&zone->magic, TG_ZONE_MAGIC, __ATOMIC_RELEASE);

    return zone;
}


tg_zone_t *
tg_zone_attach(void *base, size_t size)
{
    tg_zone_t  *zone = base;

    if (size < TG_ZONE_MIN
        || __atomic_load_n(&zone->magic, __ATOMIC_ACQUIRE) != TG_ZONE_MAGIC
        || zone->layout != TG_ZONE_SHAPE
        || zone->size != size)
    {
        return NULL;
    }

    return zone;
}


const uint8_t *
tg_zone_boot(const tg_zone_t *zone)
{
    return zone->boot;
}


uint64_t
tg_zone_revision(const tg_zone_t *zone)
{
    return __atomic_load_n(&zone->revision, __ATOMIC_ACQUIRE);
}


uint64_t
tg_zone_version(const tg_zone_t *zone)
{
    return __atomic_load_n(&zone->version, __ATOMIC_ACQUIRE);
}


void
tg_zone_stats(const tg_zone_t *zone, tg_zone_stats_t *stats)
{
    const tg_arena_t  *arena = tg_zone_arena(zone);

    stats->tenants = __atomic_load_n(&zone->tenants, __ATOMIC_RELAXED);
    stats->issuers = __atomic_load_n(&zone->nissuers, __ATOMIC_RELAXED);
    stats->size = tg_arena_size(arena);
    stats->used = tg_arena_used(arena) - tg_slots_ready(zone);
    stats->retired = __atomic_load_n(&zone->nretired, __ATOMIC_RELAXED);
    stats->puts = __atomic_load_n(&zone->puts, __ATOMIC_RELAXED);
    stats->full = __atomic_load_n(&zone->full, __ATOMIC_RELAXED);
    stats->recoveries = __atomic_load_n(&zone->recoveries, __ATOMIC_RELAXED);
    stats->carried = zone->carried;
}


void
tg_zone_fetch(const tg_zone_t *zone, const tg_block_t *block,
    const tg_route_t *route)
{
    uint32_t              i;
    const uint32_t       *list;
    const tg_backend_t   *backend;
    const tg_upstream_t  *upstream;
    const tg_endpoint_t  *endpoint;

    list = tg_vec(block, route->quotas, uint32_t);

    for (i = 0; i < route->quotas.n && i < 4; i++) {
        __builtin_prefetch(tg_zone_ptr(zone, tg_vec(block, block->quotas,
                                                    tg_quota_t)[list[i]].state),
                           1);
    }

    backend = tg_vec(block, route->backends, tg_backend_t);
    upstream = tg_vec(block, block->upstreams, tg_upstream_t)
               + backend[0].upstream;
    endpoint = tg_vec(block, upstream->endpoints, tg_endpoint_t);

    for (i = 0; i < upstream->endpoints.n && i < 2; i++) {
        __builtin_prefetch(tg_zone_ptr(zone, endpoint[i].state), 1);
    }
}


void
tg_zone_fetch_block(const tg_block_t *block)
{
    tg_block_fetch(block);
}


void
tg_zone_fetch_counters(const tg_counters_t *counters)
{
    __builtin_prefetch(&counters->status[1], 1);
    __builtin_prefetch(&counters->latency[0], 1);
}


/* Byte order, a prefix before what it is a prefix of. */
static int
tg_host_compare(const char *a, size_t alen, const char *b, size_t blen)
{
    int  rc;

    rc = memcmp(a, b, alen < blen ? alen : blen);

    return rc ? rc : (alen > blen) - (alen < blen);
}


int
tg_block_lists(const tg_block_t *block, const char *host, size_t len)
{
    int              rc;
    uint32_t         low, high, mid;
    const tg_ref_t  *hosts = tg_vec(block, block->hosts, tg_ref_t);

    low = 0;
    high = block->hosts.n;

    while (low < high) {
        mid = low + (high - low) / 2;
        rc = tg_host_compare(host, len, tg_str(block, hosts[mid]),
                             hosts[mid].len);
        if (rc == 0) {
            return 1;
        }

        if (rc < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }

    return 0;
}


/* The newest node comes first, so that a host which two tenants list belongs to
 * the one that was given it last. */
static const tg_block_t *
tg_host_find(const tg_zone_t *zone, const char *host, size_t len)
{
    uint32_t           hash;
    tg_zref_t          link, current;
    const tg_host_t   *node;
    const tg_entry_t  *entry;
    const tg_block_t  *block;

    hash = (uint32_t) tg_host_hash(zone, host, len);

    for (link = tg_follow(tg_host_chain(zone, hash)); link;
         link = tg_follow(&node->next))
    {
        node = tg_deref(zone, link);

        if (node->hash != hash || node->len != len) {
            continue;
        }

        entry = tg_deref(zone, node->entry);
        __builtin_prefetch(&entry->block);

        link = __atomic_load_n(&node->block, __ATOMIC_RELAXED);
        __builtin_prefetch(tg_deref(zone, link));

        if (memcmp(node->name, host, len) != 0) {
            continue;
        }

        current = tg_follow(&entry->block);
        block = tg_deref(zone, current);

        if (current && (current == link || tg_block_lists(block, host, len))) {
            return block;
        }
    }

    return NULL;
}


const tg_block_t *
tg_zone_find_exact(const tg_zone_t *zone, const char *host, size_t len)
{
    /* what begins with a dot is in the table for wildcards */

    return len > 0 && host[0] != '.' ? tg_host_find(zone, host, len) : NULL;
}


const tg_block_t *
tg_zone_find_host(const tg_zone_t *zone, const char *host, size_t len)
{
    uint32_t           labels;
    const char        *p, *end;
    const tg_block_t  *block;

    if (len == 0) {
        return NULL;
    }

    block = tg_host_find(zone, host, len);

    if (block || __atomic_load_n(&zone->wildcards, __ATOMIC_RELAXED) == 0) {
        return block;
    }

    end = host + len;
    labels = 0;

    for (p = host; p < end; p++) {
        labels += (*p == '.');
    }

    /* from the longest suffix on, those that some wildcard is as deep as */

    for (p = host; labels && (p = memchr(p, '.', (size_t) (end - p))); p++) {
        if (labels < TG_ZONE_LABELS
            && __atomic_load_n(&zone->wildcard[labels], __ATOMIC_RELAXED))
        {
            block = tg_host_find(zone, p, (size_t) (end - p));
            if (block) {
                return block;
            }
        }

        labels--;
    }

    return NULL;
}


uint32_t
tg_entry_hash(const tg_zone_t *zone, tg_kind_e kind, const char *name,
    size_t len, uint64_t id)
{
    return (uint32_t) (kind == TG_KIND_TENANT ? tg_hash(name, len, zone->seed)
                                              : tg_hash_id(id, zone->seed));
}


tg_zref_t *
tg_entry_chain(const tg_zone_t *zone, tg_kind_e kind, uint32_t hash)
{
    if (kind == TG_KIND_TENANT) {
        return tg_table(zone, zone->names) + (hash & zone->name_mask);
    }

    return tg_table(zone, zone->issuers) + (hash & zone->issuer_mask);
}


/* With *found set to the block as it was when it was looked at. */
static tg_entry_t *
tg_entry_look(const tg_zone_t *zone, tg_kind_e kind, const char *name,
    size_t len, uint64_t id, const tg_block_t **found)
{
    uint32_t           hash;
    tg_zref_t          link, current;
    tg_entry_t        *entry;
    const tg_block_t  *block;

    hash = tg_entry_hash(zone, kind, name, len, id);

    for (link = tg_follow(tg_entry_chain(zone, kind, hash)); link;
         link = tg_follow(&entry->next))
    {
        entry = tg_deref(zone, link);
        current = tg_follow(&entry->block);

        if (entry->hash != hash || current == 0) {
            continue;
        }

        block = tg_deref(zone, current);

        if (kind == TG_KIND_TENANT
            ? (block->name.len == len
               && memcmp(tg_str(block, block->name), name, len) == 0)
            : block->id == id)
        {
            *found = block;
            return entry;
        }
    }

    *found = NULL;
    return NULL;
}


tg_entry_t *
tg_entry_find(const tg_zone_t *zone, tg_kind_e kind, const char *name,
    size_t len, uint64_t id)
{
    const tg_block_t  *block;

    return tg_entry_look(zone, kind, name, len, id, &block);
}


const tg_block_t *
tg_zone_find_tenant(const tg_zone_t *zone, const char *name, size_t len)
{
    const tg_block_t  *block;

    (void) tg_entry_look(zone, TG_KIND_TENANT, name, len, 0, &block);

    return block;
}


const tg_block_t *
tg_zone_find_issuer(const tg_zone_t *zone, uint64_t id)
{
    const tg_block_t  *block;

    (void) tg_entry_look(zone, TG_KIND_ISSUER, NULL, 0, id, &block);

    return block;
}


void
tg_zone_touch(tg_zone_t *zone, uint32_t slot)
{
    uint64_t   bit;
    uint64_t  *word;

    if (slot >= zone->dense_max) {
        return;
    }

    word = tg_touched_word(zone, slot / 64);
    bit = 1ull << (slot % 64);

    if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & bit)) {
        (void) __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
    }
}
