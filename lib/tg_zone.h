/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The registry zone: every tenant a gateway knows, in one piece of memory that
 * all its worker processes share, possibly at different addresses.
 *
 * One process at a time writes (the caller holds the zone's mutex around every
 * function of the "writer" part); any number read, without a lock and without
 * dirtying any cache line but their own slot's.
 *
 *  1. Publication is a single store: of an entry's block, or of a link in a hash
 *     chain.  A reader sees an object whole or not at all; a writer killed
 *     between two stores leaves a consistent zone.  All hosts of a tenant switch
 *     with its block, for a host counts only if the current block lists it.
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
 *  5. The writer sets "busy" around each change and notes what it is about to
 *     publish or remove.  A writer that finds it set has a killed predecessor: it
 *     completes that step and rebuilds the allocator from what the tables reach
 *     (tg_zone_recover), which also returns what was leaked.
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
#define TG_ZONE_MAX        (32ull * 1024 * 1024 * 1024)
#define TG_ZONE_SLOTS      256      /* processes, old and new cycles together */
#define TG_PIN_HOLDS       6        /* counters one request can hold */

typedef enum {
    TG_ZONE_OK = 0,
    TG_ZONE_FULL,           /* no memory for the new version; the old one stays */
    TG_ZONE_STALE,          /* the zone has a newer revision of this object */
    TG_ZONE_INVALID         /* the block is not one */
} tg_zone_status_e;

/* A counter that can be held is named by its zone offset plus one of these. */
#define TG_HOLD_64       0          /* uint64_t */
#define TG_HOLD_32       1          /* uint32_t */
#define TG_HOLD_PENDING  2          /* only inside a pin: see tg_zone_hold() */

/* What a request holds while it lives.  In shared memory; one cache line. */
typedef struct {
    uint64_t  block;                /* zone offset; 0: free */
    uint64_t  hold[TG_PIN_HOLDS];   /* counters to take one from; 0: none */
    uint64_t  next;                 /* of the slot's free pins; while it is taken
                                     * TG_PIN_SETTLED, or something else */
} tg_pin_t;

/* The pin's request will not charge a quota any more. */
#define TG_PIN_SETTLED  UINT64_MAX

/* What became of words of other gateways' quota state: tg_handover.h. */
typedef struct {
    uint64_t  added;
    uint64_t  capped;       /* of them, cut at what the bucket holds */
    uint64_t  shared;       /* of them, added to the bucket of those that found
                             * none of their own */
    uint64_t  passed;       /* of no quota that takes it, or of no use */
} tg_carried_t;

typedef struct {
    uint64_t  tenants;
    uint64_t  issuers;
    uint64_t  size;         /* bytes of the arena */
    uint64_t  used;         /* bytes in allocated objects, rounding included */
    uint64_t  retired;      /* objects that wait for their readers */
    uint64_t  puts;
    uint64_t  full;         /* refusals by TG_ZONE_FULL */
    uint64_t  recoveries;
    tg_carried_t  carried;
} tg_zone_stats_t;

/* --- life --- */

/*
 * Formats size bytes at base (page-aligned, zeroed or not) as an empty zone.
 * seed: 64 random bits for the hash tables.  boot: 16 random bytes that name
 * the life of this zone.  NULL: size is not TG_ZONE_MIN to TG_ZONE_MAX.
 */
tg_zone_t *tg_zone_create(void *base, size_t size, uint64_t seed,
    const uint8_t boot[16]);

/* An existing zone at base (inherited over reload or fork), or NULL: there is
 * none, or code with another layout of zone or blocks made it. */
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
 * Takes a slot with npins pins for process pid: a free one, or one whose
 * process no longer exists (after giving back what it held).  The process's
 * start time is kept too, so that a recycled pid is not taken for it.  As many
 * slots as are taken are kept ready for successors, as long as there is room, so
 * that a reload or a crash finds them also when the zone is full.  Caller
 * holds the zone's mutex.  Returns the slot's number, or -1: none or no memory.
 */
int tg_zone_slot_take(tg_zone_t *zone, pid_t pid, uint32_t npins);

/* Gives the slot back; gives back whatever its pins still hold.  Caller holds
 * the zone's mutex. */
void tg_zone_slot_drop(tg_zone_t *zone, int slot);

/* --- readers --- */

/* Sections do not nest. */
void tg_zone_enter(tg_zone_t *zone, int slot);
void tg_zone_exit(tg_zone_t *zone, int slot);

/*
 * The tenant that owns a host: by exact name, else by the longest wildcard.  host:
 * normalised by tg_host_normalize().  Inside a section.  NULL: nobody's.
 *
 * tg_zone_find_exact() may be asked for any bytes, since no tenant has a host that
 * is not a name: who asks it first need not normalise what it finds.
 */
const tg_block_t *tg_zone_find_host(const tg_zone_t *zone, const char *host,
    size_t len);
const tg_block_t *tg_zone_find_exact(const tg_zone_t *zone, const char *host,
    size_t len);

/* By tenant name; by id of a platform issuer.  Inside a section. */
const tg_block_t *tg_zone_find_tenant(const tg_zone_t *zone, const char *name,
    size_t len);
const tg_block_t *tg_zone_find_issuer(const tg_zone_t *zone, uint64_t id);

/* Has the processor fetch from memory what a request of this route of a pinned
 * block will touch soon, the words of its quotas and the health of its endpoints;
 * counters; and a block.  Hints, which change nothing. */
void tg_zone_fetch(const tg_zone_t *zone, const tg_block_t *block,
    const tg_route_t *route);
void tg_zone_fetch_block(const tg_block_t *block);
void tg_zone_fetch_counters(const tg_counters_t *counters);

/*
 * Keeps a block readable after the section; inside the section that found it.
 * NULL: the slot has no free pin.  The pin belongs to the slot's process.
 *
 * A further pin of a block that this process has pinned already may be taken
 * outside a section, provided that the older pin ends after it.
 */
tg_pin_t *tg_zone_pin(tg_zone_t *zone, int slot, const tg_block_t *block);

/* Says that who has the pin will not charge quotas of the block any more:
 * tg_zone_settled() does not wait for the pin's end then. */
static inline void
tg_zone_settle(tg_pin_t *pin)
{
    __atomic_store_n(&pin->next, TG_PIN_SETTLED, __ATOMIC_RELEASE);
}

/* Ends a pin, after giving back what hold[] still names. */
void tg_zone_unpin(tg_zone_t *zone, int slot, tg_pin_t *pin);

/*
 * Counting what is in flight so that a killed process cannot leave it counted.
 *
 * tg_zone_hold() adds one to a counter unless it has reached limit, and notes
 * it in the pin; tg_zone_release() takes it back.  counter: zone offset |
 * TG_HOLD_64 or TG_HOLD_32, of a state object that the pinned block refers to.
 * Where the adding is done elsewhere (several quotas at once), bracket it with
 * tg_zone_hold_begin() and tg_zone_hold_end(taken: 1 if it was added).
 *
 * A process can be killed anywhere in between.  The order is: note the counter
 * as pending, add, clear "pending"; and: set "pending", subtract, clear the
 * note.  Who reaps the slot subtracts what is noted without "pending".  What is
 * pending it leaves as it is: then the counter may stay one too high, which
 * refuses one request too many and never admits one.  tg_zone_reap() remembers
 * such counters and takes the one off when several of its calls in a row saw
 * the counter above zero and no live pin that holds it.
 * No release takes a counter below zero.
 */
typedef enum {
    TG_HOLD_OK = 0,
    TG_HOLD_LIMIT,          /* the counter is at its limit */
    TG_HOLD_NONE            /* hold[] is full: take a further pin */
} tg_hold_e;

tg_hold_e tg_zone_hold(tg_zone_t *zone, tg_pin_t *pin, uint64_t counter,
    uint64_t limit);
void tg_zone_release(tg_zone_t *zone, tg_pin_t *pin, uint64_t counter);

tg_hold_e tg_zone_hold_begin(tg_pin_t *pin, uint64_t counter);
void tg_zone_hold_end(tg_pin_t *pin, uint64_t counter, int taken);

/*
 * Says that the tenant in this dense slot (block->slot) changed a counter, for
 * the usage report.  Call it after the change, which must be an atomic addition
 * with __ATOMIC_SEQ_CST (costs nothing on x86-64), else it may be reported only
 * with the next one.
 */
void tg_zone_touch(tg_zone_t *zone, uint32_t tenant_slot);

/* --- writer: the caller holds the zone's mutex --- */

/*
 * Publishes a copy of image as the new version of its object: a tenant is known
 * by its name, an issuer by its id.  Same revision again is TG_ZONE_OK and
 * changes nothing.  State objects are taken over by id; a quota whose metric,
 * window type or "keyed" changed starts anew.  A carry that the tenant has not had
 * yet is added to its quotas: see tg_handover.h.
 */
tg_zone_status_e tg_zone_put(tg_zone_t *zone, const tg_block_t *image);

/* The moment of a change: CLOCK_MONOTONIC and CLOCK_REALTIME, both in us. */
typedef struct {
    uint64_t  mono_us;
    uint64_t  unix_us;
} tg_zone_clock_t;

/* tg_zone_put() at a given moment, of the clock that requests are charged by. */
tg_zone_status_e tg_zone_put_at(tg_zone_t *zone, const tg_block_t *image,
    const tg_zone_clock_t *clock);

/*
 * Removes an object; revision: of the DELETE.  Absent, or by now another id
 * under this name, is TG_ZONE_OK; a version newer than revision TG_ZONE_STALE.
 * Needs no memory.  name is not used for issuers, an id of 0 matches any tenant
 * of that name.  Counters of what was removed stay reportable: see
 * tg_zone_visit_touched().
 */
tg_zone_status_e tg_zone_delete(tg_zone_t *zone, tg_kind_e kind,
    const char *name, size_t len, uint64_t id, uint64_t revision);

/* A full list: objects not put again between begin and end are removed (an
 * unchanged or stale put counts).  Abandoning is calling tg_zone_list_begin()
 * again; a list that another process began since has no end here.  What the list
 * names but cannot be put stays as it is after tg_zone_keep(). */
void tg_zone_list_begin(tg_zone_t *zone);
void tg_zone_keep(tg_zone_t *zone, tg_kind_e kind, const char *name, size_t len,
    uint64_t id);
void tg_zone_list_end(tg_zone_t *zone);

/* Never lowers it, except with force (another registry): after that each object
 * is replaced by the next put of it, whatever its revision. */
void tg_zone_set_revision(tg_zone_t *zone, uint64_t revision, int force);

/*
 * Whether nobody can charge a quota by an older version of the tenant any more
 * than block, its current one: every section in which an older one could be found
 * is over, and so is the deciding of every request that has pinned one.  Requests
 * that were admitted may last as long as they like.
 */
int tg_zone_settled(tg_zone_t *zone, const tg_block_t *block);

/* Frees what no reader can see any more.  Cheap; call it on a timer. */
void tg_zone_reclaim(tg_zone_t *zone);

/* Drops the slots of processes that no longer exist, and heals counters (see
 * tg_zone_hold()).  Call it about once a second. */
void tg_zone_reap(tg_zone_t *zone);

/* Called by tg_zone_put and friends when needed; public for its test.  Returns
 * 1 if a predecessor had died in the middle. */
int tg_zone_recover(tg_zone_t *zone);

/*
 * Calls visit for each tenant touched since the last call.  visit returns 0; or
 * TG_VISIT_AGAIN to keep the tenant marked as touched; or TG_VISIT_STOP, which
 * keeps it and all that would have followed.  It must not call a function of this
 * part.  Tenants come in the order of their dense numbers, from the given one on;
 * versions that have none any more come last, and always.
 *
 * A version that had a route which its successor has not is visited as well,
 * before the current one, and so is the last version of a removed tenant.  When
 * nobody can count in it any more and it has counts, it is visited until two
 * calls have had a 0 for it: the second says that what was made of the first has
 * arrived.  So a reporter calls again when its last report has arrived; a visitor
 * that only looks never returns 0.  A reporter that starts calls
 * tg_zone_touch_all() first, because its predecessor may have been killed with
 * a report under way: then everything is visited again, and no count is lost.
 */
typedef int (*tg_zone_visit_pt)(void *data, const tg_block_t *block);

#define TG_VISIT_AGAIN  1
#define TG_VISIT_STOP   2

void tg_zone_visit_touched(tg_zone_t *zone, uint32_t from,
    tg_zone_visit_pt visit, void *data);

void tg_zone_touch_all(tg_zone_t *zone);

/* Calls visit for every object, issuers first; stops at non-zero, returns it. */
int tg_zone_visit_all(tg_zone_t *zone, tg_zone_visit_pt visit, void *data);

/* Compares tables, lists and allocator; 0 if all agree.  For tests; the zone
 * must not be busy. */
int tg_zone_check(const tg_zone_t *zone);

#endif /* TG_ZONE_H */
