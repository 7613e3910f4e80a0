/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * When a version is the only one by which quotas are charged.  Pins are no
 * measure of that: a WebSocket pins its version for hours.  What counts is
 * whether the request has been decided, which its pin says too.
 */

#include "tg_zone_private.h"


/* Whether some older version may still be found by somebody inside a section. */
static int
tg_settle_grace(tg_zone_t *zone, const tg_entry_t *entry)
{
    tg_retired_t  *retired;

    tg_grace_advance(zone);

    /* newest first, which waits longest */

    if (entry->last.older == 0) {
        return 1;
    }

    retired = tg_deref(zone, entry->last.older);

    return tg_grace_passed(zone, retired);
}


/* A pinned block is not freed while the writer's lock is held, for that is the
 * writer's work; a pin may end meanwhile. */
static int
tg_settle_pin(const tg_zone_t *zone, const tg_pin_t *pin,
    const tg_block_t *current)
{
    uint64_t           offset;
    const tg_block_t  *block;

    offset = __atomic_load_n(&pin->block, __ATOMIC_ACQUIRE);

    if (offset == 0
        || __atomic_load_n(&pin->next, __ATOMIC_ACQUIRE) == TG_PIN_SETTLED)
    {
        return 1;
    }

    block = tg_zone_ptr(zone, offset);

    return block == current || block->kind != current->kind
           || block->slot != current->slot;
}


int
tg_zone_settled(tg_zone_t *zone, const tg_block_t *block)
{
    uint32_t           i, n, p;
    const tg_pin_t    *pins;
    const tg_slot_t   *slot;
    const tg_entry_t  *entry;

    if (tg_write_begin(zone) != 0) {
        return 0;
    }

    entry = tg_entry_find(zone, block->kind, tg_str(block, block->name),
                          block->name.len, block->id);
    n = entry != NULL && tg_deref(zone, entry->block) == (void *) block
        && tg_settle_grace(zone, entry);
    tg_write_end(zone);

    if (n == 0) {
        return 0;
    }

    for (i = 0; i < zone->slots_used; i++) {
        slot = &zone->slot[i];

        if (slot->pid == 0 || slot->pins == 0) {
            continue;
        }

        pins = tg_deref(zone, slot->pins);
        n = __atomic_load_n(&slot->fresh, __ATOMIC_ACQUIRE);

        for (p = 0; p < n; p++) {
            if (!tg_settle_pin(zone, &pins[p], block)) {
                return 0;
            }
        }
    }

    return 1;
}
