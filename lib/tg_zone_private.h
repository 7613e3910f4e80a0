/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files of the zone share.  Memory of a zone:
 *
 *     tg_zone_t | hosts | names | issuers | dense | touched | arena
 *
 *  1. Inside the zone a reference is a tg_zref_t.  Fields that readers follow
 *     are written by tg_publish() and read by tg_follow(); both are sequentially
 *     consistent, because enter/exit and the grace period are Dekker's scheme:
 *     the writer unlinks, then looks at the section counters; the reader raises
 *     its section counter, then follows links.
 *  2. Fields that only the writer uses are plain, but the one store that commits
 *     a step is a tg_commit(), which the compiler keeps in place: a killed
 *     writer's successor sees a prefix of its stores.
 *  3. Whatever readers could have seen is reachable from the tables, the list of
 *     retired versions or the journal at every instant.  So recovery completes
 *     the journal and may free all the rest at once.
 */

#ifndef TG_ZONE_PRIVATE_H
#define TG_ZONE_PRIVATE_H

#include <string.h>

#include "tg_line.h"
#include "tg_arena.h"
#include "tg_hash.h"
#include "tg_zone.h"

#define TG_ZONE_MAGIC    0x315a4754u    /* "TGZ1" */
#define TG_ZONE_LAYOUT   1              /* raise with each change of this file */

#define TG_ZONE_LABELS   128            /* of a DNS name, at most 127 */
#define TG_ZONE_DOUBTS   16


/* Zone offset divided by 16; 0: none. */
typedef uint32_t  tg_zref_t;

/*
 * A version of an object that is no longer the current one.  The versions of an
 * entry form a list, older and newer, whose newest element is the record inside
 * the entry: that stands for the current version, and for the last one when the
 * object is removed.
 */
typedef struct {
    tg_zref_t  next;            /* of all retired versions, newest first */
    tg_zref_t  older;
    tg_zref_t  newer;
    tg_zref_t  block;           /* in an entry: 0 until it is removed */
    tg_zref_t  nodes;           /* host nodes that went with it */
    tg_zref_t  entry;
    uint32_t   stamp;           /* grace period that it waits for */
    uint32_t   flags;           /* TG_RETIRED_* */
    uint32_t   visited;         /* round of visits that first saw it quiet */
    uint32_t   reserved;
} tg_retired_t;

#define TG_RETIRED_QUIET  1     /* nobody can see it any more */
#define TG_RETIRED_VISIT  2     /* has counts that nothing else will report */
#define TG_RETIRED_ROUTE  4     /* has counters that its successor has not */
#define TG_RETIRED_DONE   8     /* its counts have been reported for good */

/* One cache line. */
typedef struct {
    tg_retired_t  last;
    tg_zref_t     next;         /* in the chain of names or issuers */
    tg_zref_t     block;        /* current version; 0: none */
    uint32_t      hash;
    uint32_t      slot;         /* dense number; TG_NO_SLOT for issuers */
    uint32_t      mark;         /* last list that named it */
    uint16_t      era;          /* registry that its revision is of */
    uint16_t      kind;         /* tg_kind_e */
} tg_entry_t;

#define TG_NO_SLOT  UINT32_MAX

typedef struct {
    tg_zref_t  next;
    uint32_t   hash;
    tg_zref_t  entry;
    tg_zref_t  block;           /* one that lists the host for certain: while it
                                 * is the entry's current one, no need to look */
    tg_zref_t  sibling;         /* of journal.nodes or of a retired version */
    uint16_t   len;
    char       name[];
} tg_host_t;

typedef struct {
    _Alignas(TG_CACHE_LINE)
    uint64_t   section;         /* odd: inside */
    uint64_t   start;           /* of the process, clock ticks; 0: unknown */
    int32_t    pid;             /* 0: free */
    uint32_t   npins;
    tg_zref_t  pins;            /* stay when the process has gone */
    uint32_t   fresh;           /* pins from here on were never used */
    uint32_t   free;            /* first free pin, plus one */
} tg_slot_t;

typedef enum {
    TG_STEP_NONE = 0,
    TG_STEP_PUT,                /* entry, block, retired, nodes */
    TG_STEP_DELETE,             /* entry */
    TG_STEP_FORGET              /* retired, previous */
} tg_step_e;

typedef struct {
    uint32_t   step;            /* tg_step_e; the others count while it is set */
    tg_zref_t  entry;
    tg_zref_t  block;
    tg_zref_t  retired;         /* 0: first version */
    tg_zref_t  nodes;           /* hosts that are new in this version */
    tg_zref_t  previous;        /* in the list of retired; 0: it is the first */
} tg_journal_t;

/* A counter that a killed process may have left one too high. */
typedef struct {
    uint64_t  counter;          /* zone offset | TG_HOLD_32; 0: none */
    uint64_t  unheld;           /* reapings in a row that saw nobody hold it */
} tg_doubt_t;

struct tg_zone_s {
    /* never changes */
    uint32_t      magic;
    uint32_t      layout;
    uint64_t      size;
    uint64_t      seed;
    uint8_t       boot[16];
    uint64_t      hosts;            /* offsets of the tables */
    uint64_t      names;
    uint64_t      issuers;
    uint64_t      dense;
    uint64_t      touched;
    uint64_t      arena;
    uint32_t      host_mask;
    uint32_t      name_mask;
    uint32_t      issuer_mask;
    uint32_t      dense_max;

    /* read by all, changes with publications */
    _Alignas(TG_CACHE_LINE)
    uint64_t      version;
    uint64_t      revision;
    uint32_t      wildcards;
    uint32_t      slots_used;       /* slots from here on were never taken */
    uint32_t      wildcard[TG_ZONE_LABELS];     /* by labels after the star */

    /* the writer's */
    _Alignas(TG_CACHE_LINE)
    uint32_t      busy;
    tg_journal_t  journal;
    tg_zref_t     retired;
    uint32_t      open;             /* grace period that things retire into */
    uint32_t      closing;          /* that the snapshot is for; 0: none */
    uint32_t      closed;           /* last one that is over */
    uint32_t      skip;             /* where the next reclaim goes on */
    uint32_t      visits;           /* round of visits */
    uint32_t      mark;             /* number of the present list */
    int32_t       lister;           /* its process */
    uint32_t      era;
    uint32_t      dense_free;       /* first free dense number, plus one */
    uint32_t      dense_fresh;
    uint64_t      tenants;
    uint64_t      nissuers;
    uint64_t      nretired;
    uint64_t      puts;
    uint64_t      full;
    uint64_t      recoveries;
    uint64_t      lives;            /* of counters */
    tg_carried_t  carried;
    tg_doubt_t    doubt[TG_ZONE_DOUBTS];
    uint32_t      snapshot[TG_ZONE_SLOTS];

    tg_slot_t     slot[TG_ZONE_SLOTS];
};

/* A free element of dense[] holds the next one's number plus one, and this. */
#define TG_DENSE_FREE  0x80000000u

static inline void *
tg_deref(const tg_zone_t *zone, tg_zref_t link)
{
    return (void *) ((uintptr_t) zone + (uintptr_t) link * 16);
}

static inline tg_zref_t
tg_zref(const tg_zone_t *zone, const void *p)
{
    return (tg_zref_t) (((uintptr_t) p - (uintptr_t) zone) / 16);
}

static inline tg_zref_t
tg_follow(const tg_zref_t *field)
{
    return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

static inline void
tg_publish(tg_zref_t *field, tg_zref_t link)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(field, link, __ATOMIC_SEQ_CST);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#define tg_commit(field, value)  tg_publish(field, value)

/* The same for what a pin holds. */
static inline void
tg_commit_hold(uint64_t *hold, uint64_t value)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(hold, value, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline tg_zref_t *
tg_table(const tg_zone_t *zone, uint64_t offset)
{
    return (tg_zref_t *) ((uintptr_t) zone + (uintptr_t) offset);
}

static inline tg_arena_t *
tg_zone_arena(const tg_zone_t *zone)
{
    return (tg_arena_t *) ((uintptr_t) zone + (uintptr_t) zone->arena);
}

/* Of what is referred to by a tg_zref_t. */
static inline void *
tg_zone_alloc(tg_zone_t *zone, size_t size)
{
    if (size <= TG_ARENA_SMALL) {
        size = (size + 15) & ~(size_t) 15;
    }

    return tg_arena_alloc(tg_zone_arena(zone), size);
}

static inline uint64_t
tg_host_hash(const tg_zone_t *zone, const char *name, size_t len)
{
    return tg_hash(name, len, zone->seed);
}

static inline tg_zref_t *
tg_host_chain(const tg_zone_t *zone, uint32_t hash)
{
    return tg_table(zone, zone->hosts) + (hash & zone->host_mask);
}

/* Of a block, what is fetched at once: a typical one is about as large. */
#define TG_ZONE_FETCH  1280

/* A request reads most lines of its tenant's block, each of which may have to
 * come from memory: ask for all of them before the first is needed. */
static inline void
tg_block_fetch(const tg_block_t *block)
{
    const char  *p = (const char *) block;

    for (size_t i = 0; i < TG_ZONE_FETCH; i += TG_CACHE_LINE) {
        __builtin_prefetch(p + i);
    }
}

/* A retired version is the record inside an entry: the object was removed. */
static inline int
tg_retired_last(const tg_zone_t *zone, const tg_retired_t *retired)
{
    return retired->entry == tg_zref(zone, retired);
}

static inline void
tg_retired_visit_again(tg_retired_t *retired)
{
    retired->visited = 0;
    retired->flags &= ~(uint32_t) TG_RETIRED_DONE;
}

static inline uint64_t *
tg_touched_word(const tg_zone_t *zone, uint32_t i)
{
    return (uint64_t *) ((uintptr_t) zone + (uintptr_t) zone->touched) + i;
}

/* --- tg_zone.c --- */

tg_zref_t *tg_entry_chain(const tg_zone_t *zone, tg_kind_e kind, uint32_t hash);
tg_entry_t *tg_entry_find(const tg_zone_t *zone, tg_kind_e kind,
    const char *name, size_t len, uint64_t id);
uint32_t tg_entry_hash(const tg_zone_t *zone, tg_kind_e kind, const char *name,
    size_t len, uint64_t id);

/* 1 if the block lists the host. */
int tg_block_lists(const tg_block_t *block, const char *host, size_t len);

/* --- tg_zone_step.c --- */

/* Does, or completes, what the journal says. */
void tg_step_run(tg_zone_t *zone, tg_step_e step);
void tg_step_resume(tg_zone_t *zone);

/* Every writing function begins and ends with these.  -1: a predecessor left the
 * zone busy and there is no memory to recover it now. */
int tg_write_begin(tg_zone_t *zone);
void tg_write_end(tg_zone_t *zone);

/* --- tg_zone_state.c --- */

/* A place in a block that holds the offset of a state object. */
typedef struct {
    uint64_t  *field;
    uint64_t   id;
    uint32_t   shape;       /* kind of object, and what makes its words */
    uint32_t   size;
    uint32_t   used;        /* in the old version: was taken over; in the new
                             * one: was allocated */
} tg_state_t;

typedef struct {
    tg_state_t  *state;
    size_t       n;
    tg_state_t **sorted;    /* made when first needed */
} tg_states_t;

#define TG_STATE_IS_COUNTERS(s)  (((s)->shape & 0xff) < 2)

/* -1: no memory (of the process). */
int tg_states_collect(tg_states_t *states, const tg_block_t *block);
void tg_states_free(tg_states_t *states);

/* Fills the fields of a new version from those of the old one (NULL: none), and
 * with fresh objects.  *removed: the old one has counters that were not taken
 * over.  -1: no room; then nothing is allocated. */
int tg_states_carry(tg_zone_t *zone, tg_states_t *states, tg_states_t *old,
    int *removed);
void tg_states_undo(tg_zone_t *zone, tg_states_t *states);

/* 1 if one of the fields names this object, -1: no memory to look.  hint: index
 * where it may be. */
int tg_states_have(tg_states_t *states, uint64_t object, size_t hint);

/* --- tg_zone_write.c --- */

/* Frees a tenant's dense number. */
void tg_dense_release(tg_zone_t *zone, uint32_t slot);

/* --- tg_zone_slot.c --- */

void tg_reap_locked(tg_zone_t *zone);

/* Bytes of pins that wait for a process to take their slot. */
size_t tg_slots_ready(const tg_zone_t *zone);

/* Forgets doubts about counters in an object that is freed. */
void tg_doubts_forget(tg_zone_t *zone, uint64_t object, uint64_t size);

/* --- tg_zone_retire.c --- */

void tg_reclaim_locked(tg_zone_t *zone);

/* Closes grace periods, as far as nobody is inside. */
void tg_grace_advance(tg_zone_t *zone);

/* Whether everybody who could have found a retired version is outside. */
int tg_grace_passed(const tg_zone_t *zone, const tg_retired_t *retired);

/* The current or, if the object was removed, last block of an entry. */
static inline tg_block_t *
tg_entry_block(const tg_zone_t *zone, const tg_entry_t *entry)
{
    return tg_deref(zone, entry->block ? entry->block : entry->last.block);
}

#endif /* TG_ZONE_PRIVATE_H */
