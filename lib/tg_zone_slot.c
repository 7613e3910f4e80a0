/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Slots, sections, pins, and what pins hold.
 *
 * A slot's section counter, "fresh" and "free" are written by its process only;
 * pid, start, pins and npins under the zone's mutex.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tg_zone_private.h"

/* Reapings in a row that must see a doubtful counter held by nobody.  A single
 * one could be misled by requests that end and begin while it looks. */
#define TG_HEAL_ROUNDS  4


/* Start time of a process in clock ticks since boot (proc(5), field 22), 0 if it
 * cannot be told; *dead: it is gone, or only waits to be waited for. */
static uint64_t
tg_process_start(pid_t pid, int *dead)
{
    int       fd, field;
    char      path[32], buf[1024], *p;
    ssize_t   n;

    *dead = (kill(pid, 0) == -1 && errno == ESRCH);

    (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return 0;
    }

    n = read(fd, buf, sizeof(buf) - 1);
    (void) close(fd);

    if (n <= 0) {
        return 0;
    }

    buf[n] = '\0';

    /* the name, in parentheses, may contain anything */

    p = strrchr(buf, ')');
    if (p == NULL || p[1] != ' ') {
        return 0;
    }

    p += 2;
    *dead |= (*p == 'Z' || *p == 'X');

    for (field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return 0;
        }
        p++;
    }

    return strtoull(p, NULL, 10);
}


static int
tg_slot_is_orphan(const tg_slot_t *slot)
{
    int       dead;
    uint64_t  start;

    start = tg_process_start(slot->pid, &dead);

    return dead || (start && slot->start && start != slot->start);
}


/* The counter less one, unless it is 0. */
static void
tg_counter_sub(tg_zone_t *zone, uint64_t counter)
{
    uint32_t   v32, *p32;
    uint64_t   v64, *p64;

    if (counter & TG_HOLD_32) {
        p32 = tg_zone_ptr(zone, counter & ~3ull);
        v32 = __atomic_load_n(p32, __ATOMIC_RELAXED);

        while (v32 && !__atomic_compare_exchange_n(p32, &v32, v32 - 1, 0,
                                                   __ATOMIC_SEQ_CST,
                                                   __ATOMIC_RELAXED))
        {
            /* void */
        }

        return;
    }

    p64 = tg_zone_ptr(zone, counter & ~3ull);
    v64 = __atomic_load_n(p64, __ATOMIC_RELAXED);

    while (v64 && !__atomic_compare_exchange_n(p64, &v64, v64 - 1, 0,
                                               __ATOMIC_SEQ_CST,
                                               __ATOMIC_RELAXED))
    {
        /* void */
    }
}


static int
tg_counter_add(tg_zone_t *zone, uint64_t counter, uint64_t limit)
{
    uint32_t   v32, *p32;
    uint64_t   v64, *p64;

    if (counter & TG_HOLD_32) {
        p32 = tg_zone_ptr(zone, counter & ~3ull);
        v32 = __atomic_load_n(p32, __ATOMIC_RELAXED);

        do {
            if (v32 >= limit) {
                return 0;
            }
        } while (!__atomic_compare_exchange_n(p32, &v32, v32 + 1, 0,
                                              __ATOMIC_SEQ_CST,
                                              __ATOMIC_RELAXED));
        return 1;
    }

    p64 = tg_zone_ptr(zone, counter & ~3ull);
    v64 = __atomic_load_n(p64, __ATOMIC_RELAXED);

    do {
        if (v64 >= limit) {
            return 0;
        }
    } while (!__atomic_compare_exchange_n(p64, &v64, v64 + 1, 0,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return 1;
}


static uint64_t
tg_counter_value(const tg_zone_t *zone, uint64_t counter)
{
    void  *p = tg_zone_ptr(zone, counter & ~3ull);

    return (counter & TG_HOLD_32)
           ? __atomic_load_n((uint32_t *) p, __ATOMIC_SEQ_CST)
           : __atomic_load_n((uint64_t *) p, __ATOMIC_SEQ_CST);
}


/* Gives a noted counter back; the order is that of tg_zone_release(). */
static void
tg_hold_return(tg_zone_t *zone, uint64_t *hold, uint64_t counter)
{
    tg_commit_hold(hold, counter | TG_HOLD_PENDING);
    tg_counter_sub(zone, counter);
    tg_commit_hold(hold, 0);
}


static uint64_t *
tg_hold_find(tg_pin_t *pin, uint64_t value)
{
    int  i;

    for (i = 0; i < TG_PIN_HOLDS; i++) {
        if (pin->hold[i] == value) {
            return &pin->hold[i];
        }
    }

    return NULL;
}


tg_hold_e
tg_zone_hold_begin(tg_pin_t *pin, uint64_t counter)
{
    uint64_t  *hold;

    hold = tg_hold_find(pin, 0);
    if (hold == NULL) {
        return TG_HOLD_NONE;
    }

    tg_commit_hold(hold, counter | TG_HOLD_PENDING);

    return TG_HOLD_OK;
}


void
tg_zone_hold_end(tg_pin_t *pin, uint64_t counter, int taken)
{
    uint64_t  *hold;

    hold = tg_hold_find(pin, counter | TG_HOLD_PENDING);
    if (hold) {
        tg_commit_hold(hold, taken ? counter : 0);
    }
}


tg_hold_e
tg_zone_hold(tg_zone_t *zone, tg_pin_t *pin, uint64_t counter, uint64_t limit)
{
    int  taken;

    if (tg_zone_hold_begin(pin, counter) != TG_HOLD_OK) {
        return TG_HOLD_NONE;
    }

    taken = tg_counter_add(zone, counter, limit);
    tg_zone_hold_end(pin, counter, taken);

    return taken ? TG_HOLD_OK : TG_HOLD_LIMIT;
}


void
tg_zone_release(tg_zone_t *zone, tg_pin_t *pin, uint64_t counter)
{
    uint64_t  *hold;

    hold = tg_hold_find(pin, counter);
    if (hold) {
        tg_hold_return(zone, hold, counter);
    }
}


void
tg_zone_enter(tg_zone_t *zone, int slot)
{
    tg_slot_t  *s = &zone->slot[slot];

    /* before any link is followed: see tg_zone_private.h */
    (void) __atomic_exchange_n(&s->section, s->section + 1, __ATOMIC_SEQ_CST);
}


void
tg_zone_exit(tg_zone_t *zone, int slot)
{
    tg_slot_t  *s = &zone->slot[slot];

    __atomic_store_n(&s->section, s->section + 1, __ATOMIC_RELEASE);
}


tg_pin_t *
tg_zone_pin(tg_zone_t *zone, int slot, const tg_block_t *block)
{
    uint32_t    i;
    tg_pin_t   *pin, *pins;
    tg_slot_t  *s = &zone->slot[slot];

    pins = tg_deref(zone, s->pins);

    if (s->free) {
        i = s->free - 1;
        s->free = (uint32_t) pins[i].next;

    } else if (s->fresh < s->npins) {
        i = s->fresh;
        __atomic_store_n(&s->fresh, i + 1, __ATOMIC_RELEASE);

    } else {
        return NULL;
    }

    /* a free pin holds nothing */

    pin = &pins[i];
    pin->next = 0;
    __atomic_store_n(&pin->block, tg_zone_offset(zone, block),
                     __ATOMIC_RELEASE);

    return pin;
}


void
tg_zone_unpin(tg_zone_t *zone, int slot, tg_pin_t *pin)
{
    int         i;
    tg_slot_t  *s = &zone->slot[slot];

    for (i = 0; i < TG_PIN_HOLDS; i++) {
        if (pin->hold[i] & TG_HOLD_PENDING) {
            tg_commit_hold(&pin->hold[i], 0);       /* begun, not added */

        } else if (pin->hold[i]) {
            tg_hold_return(zone, &pin->hold[i], pin->hold[i]);
        }
    }

    pin->next = s->free;
    s->free = (uint32_t) (pin - (tg_pin_t *) tg_deref(zone, s->pins)) + 1;

    __atomic_store_n(&pin->block, 0, __ATOMIC_RELEASE);
}


static void
tg_doubt_add(tg_zone_t *zone, uint64_t counter)
{
    uint32_t  i;

    for (i = 0; i < TG_ZONE_DOUBTS; i++) {
        if (zone->doubt[i].counter == 0) {
            zone->doubt[i].unheld = 0;
            zone->doubt[i].counter = counter;
            return;
        }
    }
}


void
tg_doubts_forget(tg_zone_t *zone, uint64_t object, uint64_t size)
{
    uint32_t  i;

    for (i = 0; i < TG_ZONE_DOUBTS; i++) {
        if (zone->doubt[i].counter - object < size) {
            zone->doubt[i].counter = 0;
        }
    }
}


static int
tg_counter_is_held(tg_zone_t *zone, uint64_t counter)
{
    int         h;
    uint32_t    i, p, n;
    uint64_t    hold;
    tg_pin_t   *pins;
    tg_slot_t  *slot;

    for (i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0) {
            continue;
        }

        pins = tg_deref(zone, slot->pins);
        n = __atomic_load_n(&slot->fresh, __ATOMIC_ACQUIRE);

        for (p = 0; p < n; p++) {
            for (h = 0; h < TG_PIN_HOLDS; h++) {
                hold = __atomic_load_n(&pins[p].hold[h], __ATOMIC_ACQUIRE);

                if ((hold & ~(uint64_t) TG_HOLD_PENDING) == counter) {
                    return 1;
                }
            }
        }
    }

    return 0;
}


static void
tg_doubts_heal(tg_zone_t *zone)
{
    uint32_t     i;
    tg_doubt_t  *doubt;

    for (i = 0; i < TG_ZONE_DOUBTS; i++) {
        doubt = &zone->doubt[i];

        if (doubt->counter == 0) {
            continue;
        }

        if (tg_counter_value(zone, doubt->counter) == 0) {
            doubt->counter = 0;

        } else if (tg_counter_is_held(zone, doubt->counter)) {
            doubt->unheld = 0;

        } else if (++doubt->unheld == TG_HEAL_ROUNDS) {
            tg_counter_sub(zone, doubt->counter);
            doubt->counter = 0;
        }
    }
}


/* Settles what the process of a slot held.  A process that is killed in here
 * leaves what it had not settled, and at most one hold pending. */
static void
tg_slot_settle(tg_zone_t *zone, tg_slot_t *slot)
{
    int        h;
    uint32_t   p;
    uint64_t  *hold;
    tg_pin_t  *pins;

    pins = tg_deref(zone, slot->pins);

    for (p = 0; p < slot->fresh; p++) {
        for (h = 0; h < TG_PIN_HOLDS; h++) {
            hold = &pins[p].hold[h];

            if (*hold & TG_HOLD_PENDING) {
                tg_doubt_add(zone, *hold & ~(uint64_t) TG_HOLD_PENDING);
                tg_commit_hold(hold, 0);

            } else if (*hold) {
                tg_hold_return(zone, hold, *hold);
            }
        }

        __atomic_store_n(&pins[p].block, 0, __ATOMIC_RELEASE);
    }
}


/* The slot keeps its pins, for the process that takes it next: a worker must find
 * a place also when tenants have filled the zone. */
static void
tg_slot_free(tg_zone_t *zone, tg_slot_t *slot)
{
    tg_slot_settle(zone, slot);

    __atomic_store_n(&slot->section, (slot->section + 1) & ~1ull,
                     __ATOMIC_RELEASE);
    __atomic_store_n(&slot->pid, 0, __ATOMIC_RELEASE);

    slot->fresh = 0;
    slot->free = 0;
}


void
tg_reap_locked(tg_zone_t *zone)
{
    uint32_t  i;

    for (i = 0; i < zone->slots_used; i++) {
        if (zone->slot[i].pid && tg_slot_is_orphan(&zone->slot[i])) {
            tg_slot_free(zone, &zone->slot[i]);
        }
    }
}


void
tg_zone_reap(tg_zone_t *zone)
{
    if (tg_write_begin(zone) != 0) {
        return;
    }
    tg_reap_locked(zone);
    tg_doubts_heal(zone);
    tg_write_end(zone);
}


/* The first slot that is nobody's and has so many pins; -1: none. */
static int
tg_slot_find_free(const tg_zone_t *zone, uint32_t npins)
{
    int               i;
    const tg_slot_t  *slot;

    for (i = 0; i < TG_ZONE_SLOTS; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0
            && (npins ? slot->pins && slot->npins == npins : slot->pins == 0))
        {
            return i;
        }
    }

    return -1;
}


/* Gives back the pins of slots that are nobody's, but for those of a size that is
 * in use. */
static void
tg_slots_trim(tg_zone_t *zone, uint32_t npins)
{
    tg_pin_t   *pins;
    tg_slot_t  *slot;

    for (uint32_t i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pid || slot->pins == 0 || slot->npins == npins) {
            continue;
        }

        pins = tg_deref(zone, slot->pins);
        slot->pins = 0;
        tg_arena_free(tg_zone_arena(zone), pins);
    }
}


/* Gives pins to a slot that is nobody's and has none; the slot, or -1. */
static int
tg_slot_equip(tg_zone_t *zone, uint32_t npins)
{
    int         i;
    tg_pin_t   *pins;
    tg_slot_t  *slot;

    i = tg_slot_find_free(zone, 0);
    if (i == -1 || npins == 0) {
        return i;
    }

    pins = tg_arena_alloc_aligned(tg_zone_arena(zone),
                                  npins * sizeof(tg_pin_t), TG_CACHE_LINE);
    if (pins == NULL) {
        return -1;
    }

    if ((uint32_t) i >= zone->slots_used) {
        zone->slots_used = (uint32_t) i + 1;
    }

    slot = &zone->slot[i];
    slot->npins = npins;
    slot->pins = tg_zref(zone, pins);

    return i;
}


/* On reload each worker has a successor before it goes: as many slots are kept
 * ready as are taken, from the time when there is room for them. */
static void
tg_slots_spare(tg_zone_t *zone, uint32_t npins)
{
    int         taken, ready;
    tg_slot_t  *slot;

    taken = 0;
    ready = 0;

    for (uint32_t i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pins && slot->npins == npins) {
            taken += (slot->pid != 0);
            ready += (slot->pid == 0);
        }
    }

    while (npins && ready < taken && tg_slot_equip(zone, npins) != -1) {
        ready++;
    }
}


static int
tg_slot_take_locked(tg_zone_t *zone, pid_t pid, uint32_t npins)
{
    int         i, dead;
    tg_slot_t  *slot;

    i = tg_slot_find_free(zone, npins);

    if (i == -1) {
        tg_slots_trim(zone, npins);
        i = tg_slot_equip(zone, npins);
    }

    if (i == -1) {
        return -1;
    }

    if ((uint32_t) i >= zone->slots_used) {
        zone->slots_used = (uint32_t) i + 1;
    }

    slot = &zone->slot[i];

    if (slot->pins) {
        memset(tg_deref(zone, slot->pins), 0, npins * sizeof(tg_pin_t));
    }

    slot->start = tg_process_start(pid, &dead);
    slot->npins = npins;
    slot->fresh = 0;
    slot->free = 0;

    __atomic_store_n(&slot->pid, (int32_t) pid, __ATOMIC_RELEASE);

    tg_slots_spare(zone, npins);

    return i;
}


size_t
tg_slots_ready(const tg_zone_t *zone)
{
    size_t            bytes;
    const tg_slot_t  *slot;

    bytes = 0;

    for (uint32_t i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0 && slot->pins) {
            bytes += tg_arena_size_of(tg_zone_arena(zone),
                                      tg_deref(zone, slot->pins));
        }
    }

    return bytes;
}


int
tg_zone_slot_take(tg_zone_t *zone, pid_t pid, uint32_t npins)
{
    int  slot;

    if (tg_write_begin(zone) != 0) {
        return -1;
    }

    slot = tg_slot_take_locked(zone, pid, npins);

    if (slot == -1) {
        tg_reap_locked(zone);
        tg_reclaim_locked(zone);
        slot = tg_slot_take_locked(zone, pid, npins);
    }

    tg_write_end(zone);

    return slot;
}


void
tg_zone_slot_drop(tg_zone_t *zone, int slot)
{
    if (tg_write_begin(zone) != 0) {
        return;
    }
    tg_slot_free(zone, &zone->slot[slot]);
    tg_write_end(zone);
}
