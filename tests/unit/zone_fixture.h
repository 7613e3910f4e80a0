/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Blocks built by hand for the tests of the zone: of a typical tenant's shape,
 * and filled with a pattern that tells a torn block from a whole one.
 */

#ifndef ZONE_FIXTURE_H
#define ZONE_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

#include "tg_zone.h"

typedef struct {
    const char        *name;
    uint64_t           id;
    uint64_t           revision;
    const char *const *hosts;       /* sorted */
    uint32_t           nhosts;
    uint32_t           nroutes;     /* ids base + 1, base + 2, ... */
    uint32_t           nquotas;
    uint32_t           nupstreams;
    uint32_t           nendpoints;  /* of each upstream */
    uint64_t           base;
    uint32_t           keyed;       /* all quotas */
    uint8_t            metric;
    uint32_t           nkeys;
    uint32_t           pad;         /* bytes of pattern */
} fixture_t;


/* Room for n elements; the block is grown beforehand. */
static inline tg_vec_t
fixture_vec(tg_block_t *block, uint32_t n, uint32_t size)
{
    tg_vec_t  vec;

    block->size = (block->size + 7) & ~7u;
    vec.off = n ? block->size : 0;
    vec.n = n;
    block->size += n * size;

    return vec;
}

static inline tg_ref_t
fixture_str(tg_block_t *block, const char *s, size_t len)
{
    tg_ref_t  ref;

    ref.off = block->size;
    ref.len = (uint32_t) len;
    memcpy(tg_at(block, ref.off), s, len);
    ((char *) tg_at(block, ref.off))[len] = '\0';
    block->size += (uint32_t) len + 1;

    return ref;
}

static inline void
fixture_upstreams(tg_block_t *block, const fixture_t *f)
{
    uint32_t        i, k;
    char            text[32];
    tg_endpoint_t  *e;
    tg_upstream_t  *u;

    block->upstreams = fixture_vec(block, f->nupstreams, sizeof(*u));
    u = tg_vec(block, block->upstreams, tg_upstream_t);

    for (i = 0; i < f->nupstreams; i++) {
        u[i].id = f->base + i + 1;
        u[i].endpoints = fixture_vec(block, f->nendpoints, sizeof(*e));
        e = tg_vec(block, u[i].endpoints, tg_endpoint_t);

        for (k = 0; k < f->nendpoints; k++) {
            e[k].id = f->base + i * f->nendpoints + k + 1;
            e[k].port = 8080;
            e[k].weight = 1;
            e[k].text = fixture_str(block, text, (size_t)
                snprintf(text, sizeof(text), "10.%u.%u.%u:8080", i, k / 256,
                         k % 256));
        }

        u[i].name = fixture_str(block, text, (size_t)
                                snprintf(text, sizeof(text), "upstream-%u", i));
    }
}

/* A malloc()ed image. */
static inline tg_block_t *
fixture_block(const fixture_t *f)
{
    char          text[32];
    size_t        room;
    uint32_t      i;
    tg_ref_t     *hosts;
    tg_block_t   *block;
    tg_quota_t   *quotas;
    tg_route_t   *routes;
    tg_api_key_t *keys;
    uint8_t      *pattern;

    room = 4096 + f->pad + f->nhosts * 300 + f->nroutes * 220 + f->nquotas * 120
           + f->nkeys * 140 + f->nupstreams * (150 + f->nendpoints * 120);

    block = calloc(1, room);
    if (block == NULL) {
        abort();
    }

    block->magic = TG_BLOCK_MAGIC;
    block->size = sizeof(tg_block_t);
    block->kind = TG_KIND_TENANT;
    block->id = f->id;
    block->revision = f->revision;
    block->boost_milli = 1000;
    block->name = fixture_str(block, f->name, strlen(f->name));

    block->hosts = fixture_vec(block, f->nhosts, sizeof(tg_ref_t));
    hosts = tg_vec(block, block->hosts, tg_ref_t);
    for (i = 0; i < f->nhosts; i++) {
        hosts[i] = fixture_str(block, f->hosts[i], strlen(f->hosts[i]));
    }

    block->routes = fixture_vec(block, f->nroutes, sizeof(tg_route_t));
    routes = tg_vec(block, block->routes, tg_route_t);
    for (i = 0; i < f->nroutes; i++) {
        routes[i].id = f->base + i + 1;
        routes[i].name = fixture_str(block, text, (size_t)
                                     snprintf(text, sizeof(text), "route-%u", i));
        routes[i].path = fixture_str(block, text, (size_t)
                                     snprintf(text, sizeof(text), "/path/%u", i));
        routes[i].backends = fixture_vec(block, 1, sizeof(tg_backend_t));
        routes[i].quotas = fixture_vec(block, f->nquotas < 2 ? f->nquotas : 2,
                                       sizeof(uint32_t));
    }

    block->quotas = fixture_vec(block, f->nquotas, sizeof(tg_quota_t));
    quotas = tg_vec(block, block->quotas, tg_quota_t);
    for (i = 0; i < f->nquotas; i++) {
        quotas[i].id = f->base + i + 1;
        quotas[i].keyed = f->keyed;
        quotas[i].metric = f->metric;
        quotas[i].limit = 100;
        quotas[i].burst = 100;
        quotas[i].seconds = 60;
        quotas[i].name = fixture_str(block, text, (size_t)
                                     snprintf(text, sizeof(text), "quota-%u", i));
    }

    block->api_keys = fixture_vec(block, f->nkeys, sizeof(tg_api_key_t));
    keys = tg_vec(block, block->api_keys, tg_api_key_t);
    for (i = 0; i < f->nkeys; i++) {
        keys[i].id = f->base + i + 1;
        keys[i].consumer = fixture_str(block, "mobile-app", 10);
    }

    fixture_upstreams(block, f);

    pattern = malloc(f->pad + 1);
    if (pattern == NULL) {
        abort();
    }

    for (i = 0; i < f->pad; i++) {
        pattern[i] = (uint8_t) (f->id * 31 + f->revision * 7 + i);
    }

    block->reason = fixture_str(block, (char *) pattern, f->pad);
    free(pattern);

    return block;
}

static inline tg_block_t *
fixture_issuer(uint64_t id, uint64_t revision)
{
    tg_block_t  *block;
    fixture_t    f = { .name = "platform", .id = id, .revision = revision };

    block = fixture_block(&f);
    block->kind = TG_KIND_ISSUER;
    block->issuers = fixture_vec(block, 1, sizeof(tg_issuer_t));

    return block;
}

/* 1 if the pattern is that of the block's id and revision. */
static inline int
fixture_whole(const tg_block_t *block)
{
    uint32_t        i;
    const uint8_t  *p = (const uint8_t *) tg_str(block, block->reason);

    if (block->magic != TG_BLOCK_MAGIC) {
        return 0;
    }

    for (i = 0; i < block->reason.len; i++) {
        if (p[i] != (uint8_t) (block->id * 31 + block->revision * 7 + i)) {
            return 0;
        }
    }

    return 1;
}

/* Memory shared with children. */
static inline void *
fixture_shared(size_t size)
{
    void  *p;

    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
             -1, 0);
    if (p == MAP_FAILED) {
        abort();
    }

    return p;
}

static inline tg_zone_t *
fixture_zone(size_t size)
{
    tg_zone_t      *zone;
    const uint8_t   boot[16] = "0123456789abcde";

    zone = tg_zone_create(fixture_shared(size), size, 42, boot);

    if (zone == NULL) {
        abort();
    }

    return zone;
}

static inline tg_zone_status_e
fixture_put(tg_zone_t *zone, const fixture_t *f)
{
    tg_block_t        *block = fixture_block(f);
    tg_zone_status_e   status;

    status = tg_zone_put(zone, block);
    free(block);

    return status;
}

static inline tg_zone_stats_t
fixture_stats(const tg_zone_t *zone)
{
    tg_zone_stats_t  stats;

    tg_zone_stats(zone, &stats);

    return stats;
}

static inline const tg_block_t *
fixture_find(const tg_zone_t *zone, const char *name)
{
    return tg_zone_find_tenant(zone, name, strlen(name));
}

static inline tg_zone_status_e
fixture_delete(tg_zone_t *zone, const char *name, uint64_t id,
    uint64_t revision)
{
    return tg_zone_delete(zone, TG_KIND_TENANT, name, strlen(name), id,
                          revision);
}

/* Until nothing waits any more; 0 if that came, and everything agrees. */
static inline int
fixture_settle(tg_zone_t *zone)
{
    int  i;

    for (i = 0; i < 10 && fixture_stats(zone).retired; i++) {
        tg_zone_reclaim(zone);
    }

    return fixture_stats(zone).retired ? -1 : tg_zone_check(zone);
}

#endif /* ZONE_FIXTURE_H */
