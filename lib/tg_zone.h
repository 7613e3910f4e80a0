/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The registry zone: every tenant a gateway knows, in one piece of memory that
 * all its worker processes share, possibly at different addresses.
 *
 * One process at a time writes (the caller holds the zone's mutex around every
 * function of the "writer" part); any number read, without a lock and without
 * dirtying any cache line but their own slot's.
 *
 *  1. Publication is a single 64-bit store with release order: of an entry's
 *     block, or of the head of a hash chain.  A reader sees an object whole or
 *     not at all; a writer killed between two stores leaves a consistent zone.
 *  2. A reader brackets its look-ups with tg_zone_enter()/tg_zone_exit().  What
 *     was unlinked is freed only after every slot has been seen outside, or
 *     inside a later section (grace).
 *  3. What a request needs longer it pins: tg_zone_pin() inside the section
 *     stores the block's offset in one of the slot's pins.  A retired block is
 *     freed when it has passed its grace and no live slot pins it; the state
 *     objects that only it referred to go with it.
 *  4. A slot belongs to one process.  When that process is gone its pins are
 *     dropped, and what the pins say it held (concurrency, outstanding
 *     requests) is given back, by whoever takes the slot or by the writer's
 *     tg_zone_reap().
 *  5. The writer sets "busy" around each change.  A writer that finds it set
 *     has a killed predecessor: it rebuilds the allocator from what the tables
 *     reach (tg_zone_recover), which also returns what was leaked.
 *  6. Full: tg_zone_put() fails with TG_ZONE_FULL and nothing has changed.
 */

#ifndef TG_ZONE_H
#define TG_ZONE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tg_block.h"

typedef struct tg_zone_s  tg_zone_t;

#define TG_ZONE_MIN        (1024 * 1024)
#define TG_ZONE_SLOTS      256      /* processes, old and new cycles together */
#define TG_PIN_HOLDS       6        /* counters one request can hold */

typedef enum {
    TG_ZONE_OK = 0,
    TG_ZONE_FULL,           /* no memory for the new version; the old one stays */
    TG_ZONE_STALE,          /* the zone has a newer revision of this object */
    TG_ZONE_INVALID         /* the block is not one */
} tg_zone_status_e;

/* What a request holds while it lives.  In shared memory; one cache line. */
typedef struct {
    uint64_t  block;                /* zone offset; 0: free */
    uint64_t  hold[TG_PIN_HOLDS];   /* zone offsets of uint64_t or uint32_t
                                     * counters to take one from; bit 0 set:
                                     * uint32_t */
    uint64_t  reserved;
} tg_pin_t;

typedef struct {
    uint64_t  tenants;
    uint64_t  issuers;
    uint64_t  size;         /* bytes of the arena */
    uint64_t  used;         /* bytes in allocated objects, rounding included */
    uint64_t  retired;      /* objects that wait for their readers */
    uint64_t  puts;
    uint64_t  full;         /* refusals by TG_ZONE_FULL */
    uint64_t  recoveries;
} tg_zone_stats_t;

/* --- life --- */

/*
 * Formats size bytes at base (page-aligned, zeroed or not) as an empty zone.
 * seed: 64 random bits for the hash tables.  boot: 16 random bytes that name
 * the life of this zone.  Returns NULL if size < TG_ZONE_MIN.
 */
tg_zone_t *tg_zone_create(void *base, size_t size, uint64_t seed,
    const uint8_t boot[16]);

/* An existing zone at base (inherited over reload or fork), or NULL. */
tg_zone_t *tg_zone_attach(void *base, size_t size);

const uint8_t *tg_zone_boot(const tg_zone_t *zone);

/* Registry revision up to which the zone is complete; 0: nothing loaded. */
uint64_t tg_zone_revision(const tg_zone_t *zone);

/* Address of a state object, from the offset in a block. */
static inline void *
tg_zone_ptr(const tg_zone_t *zone, uint64_t offset)
{
    return (void *) ((uintptr_t) zone + offset);
}

static inline uint64_t
tg_zone_offset(const tg_zone_t *zone, const void *p)
{
    return (uint64_t) ((uintptr_t) p - (uintptr_t) zone);
}

/* Rises with every publication and removal: a cheap "has anything changed". */
uint64_t tg_zone_version(const tg_zone_t *zone);

void tg_zone_stats(const tg_zone_t *zone, tg_zone_stats_t *stats);

/* --- slots (each process one) --- */

/*
 * Takes a slot with npins pins for the calling process: a free one, or one
 * whose process no longer exists (after giving back what it held).  Caller
 * holds the zone's mutex.  Returns the slot's number, or -1: none or no memory.
 */
int tg_zone_slot_take(tg_zone_t *zone, pid_t pid, uint32_t npins);

/* Gives the slot back; gives back whatever its pins still hold. */
void tg_zone_slot_drop(tg_zone_t *zone, int slot);

/* --- readers --- */

void tg_zone_enter(tg_zone_t *zone, int slot);
void tg_zone_exit(tg_zone_t *zone, int slot);

/*
 * The tenant that owns a host, by exact name or the longest wildcard.  host:
 * normalised by tg_host_normalize().  Inside a section.  NULL: nobody's.
 */
const tg_block_t *tg_zone_find_host(const tg_zone_t *zone, const char *host,
    size_t len);

/* By tenant name; by id of a platform issuer.  Inside a section. */
const tg_block_t *tg_zone_find_tenant(const tg_zone_t *zone, const char *name,
    size_t len);
const tg_block_t *tg_zone_find_issuer(const tg_zone_t *zone, uint64_t id);

/*
 * Keeps a block readable after the section; inside the section that found it.
 * NULL: the slot has no free pin.  The pin belongs to the slot's process.
 */
tg_pin_t *tg_zone_pin(tg_zone_t *zone, int slot, const tg_block_t *block);

/* Ends a pin.  Counters in hold[] must have been given back before. */
void tg_zone_unpin(tg_zone_t *zone, int slot, tg_pin_t *pin);

/* Says that the tenant in this dense slot changed a counter (usage report). */
void tg_zone_touch(tg_zone_t *zone, uint32_t tenant_slot);

/* --- writer: the caller holds the zone's mutex --- */

/*
 * Publishes a copy of image as the new version of its object.  Same revision
 * again is TG_ZONE_OK and changes nothing.
 */
tg_zone_status_e tg_zone_put(tg_zone_t *zone, const tg_block_t *image);

/* Removes an object; revision: of the DELETE.  Absent is TG_ZONE_OK.  A tenant's
 * counters stay reportable until the next tg_zone_visit_touched(). */
tg_zone_status_e tg_zone_delete(tg_zone_t *zone, tg_kind_e kind,
    const char *name, size_t len, uint64_t id, uint64_t revision);

/* A full list: objects not put again between begin and end are removed.
 * Abandoning is calling tg_zone_list_begin() again. */
void tg_zone_list_begin(tg_zone_t *zone);
void tg_zone_list_end(tg_zone_t *zone);

/* Never lowers it, except with force (another registry). */
void tg_zone_set_revision(tg_zone_t *zone, uint64_t revision, int force);

/* Frees what no reader can see any more.  Cheap; call it on a timer. */
void tg_zone_reclaim(tg_zone_t *zone);

/* Drops the slots of processes that no longer exist (kill(pid, 0)). */
void tg_zone_reap(tg_zone_t *zone);

/* Called by tg_zone_put and friends when needed; public for its test.  Returns
 * 1 if a predecessor had died in the middle. */
int tg_zone_recover(tg_zone_t *zone);

/*
 * Calls visit for each tenant touched since the last call, removed tenants
 * included (once more, then forgotten).  visit returns 0, or non-zero to keep
 * the tenant marked as touched.
 */
typedef int (*tg_zone_visit_pt)(void *data, const tg_block_t *block);
void tg_zone_visit_touched(tg_zone_t *zone, tg_zone_visit_pt visit, void *data);

/* Calls visit for every object, issuers first; stops at non-zero, returns it. */
int tg_zone_visit_all(tg_zone_t *zone, tg_zone_visit_pt visit, void *data);

#endif /* TG_ZONE_H */
