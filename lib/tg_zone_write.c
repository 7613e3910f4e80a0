/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Publishing and removing objects.  A put allocates all that it needs before it
 * changes anything that readers see, so it can fail without a trace; a removal
 * needs no memory, for the entry is its own record of retirement.
 */

#include <time.h>
#include <unistd.h>

#include "tg_handover.h"
#include "tg_zone_private.h"

/* Retired versions above which each so many puts try to free some. */
#define TG_RECLAIM_EVERY  256

typedef struct {
    tg_entry_t    *entry;
    int            fresh;       /* entry is new */
    tg_block_t    *block;
    tg_retired_t  *retired;
    tg_zref_t      nodes;
    tg_states_t    states;
    tg_states_t    old;
} tg_stage_t;


static int
tg_vec_valid(const tg_block_t *block, tg_vec_t vec, size_t size, size_t align)
{
    return vec.n == 0
           || (vec.off >= sizeof(tg_block_t) && vec.off % align == 0
               && vec.off + (uint64_t) vec.n * size <= block->size);
}


static int
tg_ref_valid(const tg_block_t *block, tg_ref_t ref)
{
    return (uint64_t) ref.off + ref.len < block->size;
}


static int
tg_hosts_valid(const tg_block_t *block)
{
    int              rc;
    size_t           len;
    uint32_t         i;
    const tg_ref_t  *hosts = tg_vec(block, block->hosts, tg_ref_t);

    for (i = 0; i < block->hosts.n; i++) {

        if (hosts[i].len == 0 || hosts[i].len > UINT16_MAX
            || !tg_ref_valid(block, hosts[i]))
        {
            return 0;
        }

        if (i == 0) {
            continue;
        }

        len = hosts[i].len < hosts[i - 1].len ? hosts[i].len : hosts[i - 1].len;
        rc = memcmp(tg_str(block, hosts[i - 1]), tg_str(block, hosts[i]), len);

        if (rc > 0 || (rc == 0 && hosts[i - 1].len >= hosts[i].len)) {
            return 0;
        }
    }

    return 1;
}


static int
tg_handover_valid(const tg_block_t *block)
{
    const tg_handover_t  *handover;

    if (block->handover == 0) {
        return 1;
    }

    if (block->handover < sizeof(tg_block_t) || block->handover % 8 != 0
        || (uint64_t) block->handover + sizeof(tg_handover_t) > block->size)
    {
        return 0;
    }

    handover = tg_block_handover(block);

    return tg_vec_valid(block, handover->carry, sizeof(tg_carry_t), 8);
}


/* What the zone itself relies on; the rest is the compiler's matter. */
static int
tg_image_valid(const tg_block_t *block)
{
    uint32_t              i;
    const tg_upstream_t  *upstreams;

    if (block->magic != TG_BLOCK_MAGIC || block->size < sizeof(tg_block_t)
        || (block->kind != TG_KIND_TENANT && block->kind != TG_KIND_ISSUER)
        || !tg_ref_valid(block, block->name)
        || !tg_vec_valid(block, block->hosts, sizeof(tg_ref_t), 4)
        || !tg_vec_valid(block, block->routes, sizeof(tg_route_t), 8)
        || !tg_vec_valid(block, block->quotas, sizeof(tg_quota_t), 8)
        || !tg_vec_valid(block, block->upstreams, sizeof(tg_upstream_t), 8)
        || !tg_handover_valid(block))
    {
        return 0;
    }

    if (block->kind == TG_KIND_ISSUER) {
        return block->hosts.n == 0;
    }

    upstreams = tg_vec(block, block->upstreams, tg_upstream_t);

    for (i = 0; i < block->upstreams.n; i++) {
        if (!tg_vec_valid(block, upstreams[i].endpoints, sizeof(tg_endpoint_t),
                          8))
        {
            return 0;
        }
    }

    return block->name.len > 0 && tg_hosts_valid(block);
}


void
tg_dense_release(tg_zone_t *zone, uint32_t slot)
{
    tg_zref_t  *dense = tg_table(zone, zone->dense);

    (void) __atomic_fetch_and(tg_touched_word(zone, slot / 64),
                              ~(1ull << (slot % 64)), __ATOMIC_SEQ_CST);

    dense[slot] = TG_DENSE_FREE | zone->dense_free;
    zone->dense_free = slot + 1;
}


static int
tg_dense_take(tg_zone_t *zone, tg_entry_t *entry)
{
    tg_zref_t  *dense = tg_table(zone, zone->dense);

    if (zone->dense_free) {
        entry->slot = zone->dense_free - 1;
        zone->dense_free = dense[entry->slot] & ~TG_DENSE_FREE;

    } else if (zone->dense_fresh < zone->dense_max) {
        entry->slot = zone->dense_fresh++;

    } else {
        return -1;
    }

    dense[entry->slot] = 0;

    return 0;
}


static int
tg_stage_entry(tg_zone_t *zone, tg_stage_t *stage, const tg_block_t *image)
{
    tg_entry_t  *entry;

    entry = tg_zone_alloc(zone, sizeof(tg_entry_t));
    if (entry == NULL) {
        return -1;
    }

    memset(entry, 0, sizeof(tg_entry_t));

    entry->last.entry = tg_zref(zone, entry);
    entry->kind = image->kind;
    entry->hash = tg_entry_hash(zone, image->kind, tg_str(image, image->name),
                                image->name.len, image->id);
    entry->slot = TG_NO_SLOT;

    stage->entry = entry;
    stage->fresh = 1;

    return (image->kind == TG_KIND_TENANT) ? tg_dense_take(zone, entry) : 0;
}


static int
tg_stage_block(tg_zone_t *zone, tg_stage_t *stage, const tg_block_t *old,
    const tg_block_t *image)
{
    int  removed;

    stage->block = tg_zone_alloc(zone, image->size);
    if (stage->block == NULL) {
        return -1;
    }

    memcpy(stage->block, image, image->size);
    stage->block->slot = stage->entry->slot;

    if (tg_states_collect(&stage->old, old) != 0
        || tg_states_collect(&stage->states, stage->block) != 0
        || tg_states_carry(zone, &stage->states, &stage->old, &removed) != 0)
    {
        return -1;
    }

    if (stage->retired && removed) {
        stage->retired->flags |= TG_RETIRED_ROUTE;
    }

    return 0;
}


/* A record of the version that is replaced: the newest of its entry. */
static int
tg_stage_retired(tg_zone_t *zone, tg_stage_t *stage)
{
    tg_retired_t  *retired;

    retired = tg_zone_alloc(zone, sizeof(tg_retired_t));
    if (retired == NULL) {
        return -1;
    }

    memset(retired, 0, sizeof(tg_retired_t));

    retired->entry = tg_zref(zone, stage->entry);
    retired->newer = retired->entry;
    retired->older = stage->entry->last.older;
    retired->block = stage->entry->block;

    stage->retired = retired;

    return 0;
}


static int
tg_stage_hosts(tg_zone_t *zone, tg_stage_t *stage, const tg_block_t *old)
{
    uint32_t         i;
    tg_host_t       *node;
    const char      *name;
    const tg_ref_t  *hosts;

    hosts = tg_vec(stage->block, stage->block->hosts, tg_ref_t);

    for (i = 0; i < stage->block->hosts.n; i++) {
        name = tg_str(stage->block, hosts[i]);

        if (old && tg_block_lists(old, name, hosts[i].len)) {
            continue;
        }

        node = tg_zone_alloc(zone, offsetof(tg_host_t, name) + hosts[i].len);
        if (node == NULL) {
            return -1;
        }

        node->next = 0;
        node->hash = (uint32_t) tg_host_hash(zone, name, hosts[i].len);
        node->entry = tg_zref(zone, stage->entry);
        node->block = tg_zref(zone, stage->block);
        node->len = (uint16_t) hosts[i].len;
        memcpy(node->name, name, hosts[i].len);

        node->sibling = stage->nodes;
        stage->nodes = tg_zref(zone, node);
    }

    return 0;
}


static void
tg_stage_undo(tg_zone_t *zone, tg_stage_t *stage)
{
    tg_host_t   *node;
    tg_arena_t  *arena = tg_zone_arena(zone);

    while (stage->nodes) {
        node = tg_deref(zone, stage->nodes);
        stage->nodes = node->sibling;
        tg_arena_free(arena, node);
    }

    tg_states_undo(zone, &stage->states);
    tg_arena_free(arena, stage->block);
    tg_arena_free(arena, stage->retired);

    if (stage->fresh) {
        if (stage->entry->slot != TG_NO_SLOT) {
            tg_dense_release(zone, stage->entry->slot);
        }

        tg_arena_free(arena, stage->entry);
    }
}


/* Allocates all that the new version needs; -1: no room, and nothing is. */
static int
tg_stage(tg_zone_t *zone, tg_stage_t *stage, tg_entry_t *entry,
    const tg_block_t *image)
{
    int                rc;
    const tg_block_t  *old;

    memset(stage, 0, sizeof(tg_stage_t));
    stage->entry = entry;
    old = entry ? tg_deref(zone, entry->block) : NULL;

    rc = entry ? tg_stage_retired(zone, stage)
               : tg_stage_entry(zone, stage, image);

    if (rc == 0) {
        rc = tg_stage_block(zone, stage, old, image);
    }

    if (rc == 0) {
        rc = tg_stage_hosts(zone, stage, old);
    }

    if (rc != 0) {
        tg_stage_undo(zone, stage);
    }

    tg_states_free(&stage->states);
    tg_states_free(&stage->old);

    return rc;
}


static void
tg_count(tg_zone_t *zone, tg_kind_e kind, int n)
{
    uint64_t  *count;

    count = (kind == TG_KIND_TENANT) ? &zone->tenants : &zone->nissuers;
    __atomic_store_n(count, *count + (uint64_t) n, __ATOMIC_RELAXED);
}


/* What other gateways have counted, once for each id.  Under another registry an
 * id says nothing; nor does that of a tenant which had the name before. */
static void
tg_put_carry(tg_zone_t *zone, const tg_entry_t *entry, tg_block_t *block,
    const tg_quota_now_t *now, uint64_t unix_us)
{
    const tg_block_t     *old;
    const tg_handover_t  *handover;

    old = entry ? tg_deref(zone, entry->block) : NULL;
    block->carried = 0;
    block->carried_whole = 0;

    if (old && old->id == block->id && entry->era == (uint16_t) zone->era) {
        block->carried = old->carried;
        block->carried_whole = old->carried_whole;
    }

    handover = tg_block_handover(block);

    if (handover == NULL || handover->carry_id == 0
        || handover->carry_id == block->carried)
    {
        return;
    }

    block->carried_whole = (uint8_t) tg_handover_import(zone, block, now,
                                                        unix_us,
                                                        &zone->carried);
    block->carried = handover->carry_id;
}


/* Quotas go on from where the old version's are: the last thing that changes
 * before the new version is published, and nothing undoes it. */
static void
tg_put_quotas(tg_zone_t *zone, const tg_entry_t *entry, tg_block_t *block,
    const tg_zone_clock_t *clock)
{
    tg_quota_now_t  now;

    now.mono_us = clock->mono_us;
    now.unix_s = clock->unix_us / 1000000;

    tg_quota_carry(zone, entry ? tg_deref(zone, entry->block) : NULL, block,
                   &now);

    if (block->kind == TG_KIND_TENANT) {
        tg_put_carry(zone, entry, block, &now, clock->unix_us);
    }
}


static tg_zone_status_e
tg_put_locked(tg_zone_t *zone, tg_entry_t *entry, const tg_block_t *image,
    const tg_zone_clock_t *clock)
{
    tg_stage_t     stage;
    tg_journal_t  *j = &zone->journal;

    if (tg_stage(zone, &stage, entry, image) != 0) {
        return TG_ZONE_FULL;
    }

    tg_put_quotas(zone, entry, stage.block, clock);

    j->entry = tg_zref(zone, stage.entry);
    j->block = tg_zref(zone, stage.block);
    j->retired = stage.retired ? tg_zref(zone, stage.retired) : 0;
    j->nodes = stage.nodes;

    tg_step_run(zone, TG_STEP_PUT);

    /* last: an era that is too old only means one more replacement */
    stage.entry->mark = zone->mark;
    stage.entry->era = (uint16_t) zone->era;

    zone->puts++;

    if (stage.fresh) {
        tg_count(zone, image->kind, 1);
    }

    return TG_ZONE_OK;
}


/* Whether the zone has this or a newer version already, of the same registry. */
static int
tg_put_known(tg_zone_t *zone, tg_entry_t *entry, const tg_block_t *image,
    tg_zone_status_e *status)
{
    const tg_block_t  *block = tg_deref(zone, entry->block);

    if (entry->era != (uint16_t) zone->era
        || block->revision < image->revision)
    {
        return 0;
    }

    entry->mark = zone->mark;
    *status = (block->revision == image->revision) ? TG_ZONE_OK : TG_ZONE_STALE;

    return 1;
}


tg_zone_status_e
tg_zone_put_at(tg_zone_t *zone, const tg_block_t *image,
    const tg_zone_clock_t *clock)
{
    uint64_t           retired;
    tg_entry_t        *entry;
    tg_zone_status_e   status;

    if (!tg_image_valid(image)) {
        return TG_ZONE_INVALID;
    }

    if (tg_write_begin(zone) != 0) {
        return TG_ZONE_FULL;
    }

    entry = tg_entry_find(zone, image->kind, tg_str(image, image->name),
                          image->name.len, image->id);

    if (entry && tg_put_known(zone, entry, image, &status)) {
        goto done;
    }

    if (zone->nretired >= TG_RECLAIM_EVERY && zone->puts % TG_RECLAIM_EVERY == 0)
    {
        tg_reclaim_locked(zone);
    }

    status = tg_put_locked(zone, entry, image, clock);

    if (status == TG_ZONE_FULL) {
        tg_reap_locked(zone);

        do {
            retired = zone->nretired;
            tg_reclaim_locked(zone);
            status = tg_put_locked(zone, entry, image, clock);
        } while (status == TG_ZONE_FULL && zone->nretired < retired);
    }

    if (status == TG_ZONE_FULL) {
        zone->full++;

        if (entry) {
            entry->mark = zone->mark;
        }
    }

done:

    tg_write_end(zone);

    return status;
}


tg_zone_status_e
tg_zone_put(tg_zone_t *zone, const tg_block_t *image)
{
    struct timespec  mono, unix_time;
    tg_zone_clock_t  clock;

    (void) clock_gettime(CLOCK_MONOTONIC, &mono);
    (void) clock_gettime(CLOCK_REALTIME, &unix_time);

    clock.mono_us = (uint64_t) mono.tv_sec * 1000000
                    + (uint64_t) mono.tv_nsec / 1000;
    clock.unix_us = (uint64_t) unix_time.tv_sec * 1000000
                    + (uint64_t) unix_time.tv_nsec / 1000;

    return tg_zone_put_at(zone, image, &clock);
}


static void
tg_delete_locked(tg_zone_t *zone, tg_entry_t *entry)
{
    tg_retired_t  *last = &entry->last;

    last->block = entry->block;
    last->newer = 0;
    last->nodes = 0;
    last->visited = 0;
    last->flags = (entry->kind == TG_KIND_TENANT) ? TG_RETIRED_ROUTE : 0;

    zone->journal.entry = tg_zref(zone, entry);
    tg_step_run(zone, TG_STEP_DELETE);

    tg_count(zone, entry->kind, -1);
}


tg_zone_status_e
tg_zone_delete(tg_zone_t *zone, tg_kind_e kind, const char *name, size_t len,
    uint64_t id, uint64_t revision)
{
    tg_entry_t        *entry;
    const tg_block_t  *block;
    tg_zone_status_e   status;

    if (tg_write_begin(zone) != 0) {
        return TG_ZONE_FULL;
    }

    status = TG_ZONE_OK;
    entry = tg_entry_find(zone, kind, name, len, id);

    if (entry == NULL) {
        goto done;
    }

    block = tg_deref(zone, entry->block);

    if (id && block->id != id) {
        goto done;
    }

    if (entry->era == (uint16_t) zone->era && block->revision > revision) {
        status = TG_ZONE_STALE;
        goto done;
    }

    tg_delete_locked(zone, entry);

done:

    tg_write_end(zone);

    return status;
}


void
tg_zone_keep(tg_zone_t *zone, tg_kind_e kind, const char *name, size_t len,
    uint64_t id)
{
    tg_entry_t  *entry;

    if (tg_write_begin(zone) != 0) {
        return;
    }

    entry = tg_entry_find(zone, kind, name, len, id);
    if (entry) {
        entry->mark = zone->mark;
    }

    tg_write_end(zone);
}


void
tg_zone_list_begin(tg_zone_t *zone)
{
    if (tg_write_begin(zone) != 0) {
        return;
    }

    zone->mark++;
    zone->lister = getpid();

    tg_write_end(zone);
}


static void
tg_sweep_chain(tg_zone_t *zone, tg_zref_t ref)
{
    tg_entry_t  *entry;

    while (ref) {
        entry = tg_deref(zone, ref);
        ref = entry->next;

        if (entry->mark != zone->mark) {
            tg_delete_locked(zone, entry);
        }
    }
}


void
tg_zone_list_end(tg_zone_t *zone)
{
    uint32_t  i;

    if (tg_write_begin(zone) != 0) {
        return;
    }

    /* two cycles may overlap: the later list is the one that counts */

    if (zone->lister == getpid()) {

        for (i = 0; i <= zone->issuer_mask; i++) {
            tg_sweep_chain(zone, tg_table(zone, zone->issuers)[i]);
        }

        for (i = 0; i <= zone->name_mask; i++) {
            tg_sweep_chain(zone, tg_table(zone, zone->names)[i]);
        }

        zone->lister = 0;
    }

    tg_write_end(zone);
}


void
tg_zone_set_revision(tg_zone_t *zone, uint64_t revision, int force)
{
    if (tg_write_begin(zone) != 0) {
        return;
    }

    if (force) {
        zone->era++;
    }

    if (force || revision > zone->revision) {
        __atomic_store_n(&zone->revision, revision, __ATOMIC_RELEASE);
    }

    tg_write_end(zone);
}


static int
tg_visit_table(tg_zone_t *zone, uint64_t table, uint32_t mask,
    tg_zone_visit_pt visit, void *data)
{
    int          rc;
    uint32_t     i;
    tg_zref_t    ref;
    tg_entry_t  *entry;

    for (i = 0; i <= mask; i++) {
        for (ref = tg_table(zone, table)[i]; ref; ref = entry->next) {
            entry = tg_deref(zone, ref);

            rc = visit(data, tg_deref(zone, entry->block));
            if (rc != 0) {
                return rc;
            }
        }
    }

    return 0;
}


int
tg_zone_visit_all(tg_zone_t *zone, tg_zone_visit_pt visit, void *data)
{
    int  rc;

    (void) tg_zone_recover(zone);

    rc = tg_visit_table(zone, zone->issuers, zone->issuer_mask, visit, data);
    if (rc == 0) {
        rc = tg_visit_table(zone, zone->names, zone->name_mask, visit, data);
    }

    return rc;
}
