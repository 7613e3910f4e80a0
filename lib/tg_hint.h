/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Where the zone's memory lies that requests of a host touch: the host's node and
 * entry, the tenant's block, its quotas and endpoints.  Each is found by
 * way of the one before it; with many tenants each has to come from memory, and a
 * request would wait for it as often.  What was learnt from the last request of the
 * host lets the processor fetch all of it at once.
 *
 *  1. Of one process, whose hints only it reads and writes.
 *  2. Nothing is decided by a hint.  One that is old, or of another host with the
 *     same hash, has memory of the zone fetched that nobody needs.
 *  3. A table of fixed size, which goes by the zone's: 16 bytes for each KiB of it.
 *     A host takes the place of one whose hash is like its own.
 */

#ifndef TG_HINT_H
#define TG_HINT_H

#include "tg_zone.h"

typedef struct tg_hints_s  tg_hints_t;

/* Hints for a zone; NULL: no memory.  Ended by tg_hints_destroy(). */
tg_hints_t *tg_hints_create(const tg_zone_t *zone);
void tg_hints_destroy(tg_hints_t *hints);

/* Has the processor fetch the hints of a host themselves, for when it is known, but
 * not yet whether it is asked for a tenant. */
void tg_hints_expect(const tg_hints_t *hints, const tg_zone_t *zone,
    const char *host, size_t len);

/* Has the processor fetch what a request of the host will touch.  Returns how many
 * places besides the block were known, -1 when nothing was. */
int tg_hints_fetch(tg_hints_t *hints, const tg_zone_t *zone, const char *host,
    size_t len);

/* Learns from a request of the host that was fetched for last, once: its block,
 * which is pinned, and its route.  Enters a section of the slot: not inside another. */
void tg_hints_learn(tg_hints_t *hints, tg_zone_t *zone, int slot,
    const tg_block_t *block, const tg_route_t *route);

#endif /* TG_HINT_H */
