/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The steps that change what readers see, each in a form that can be done again
 * from the start after the writer was killed anywhere inside it.  Counts are
 * only right when it was not; tg_zone_recover() counts anew.
 *
 * Order of a put: new hosts, entry, the block (from here on readers see the new
 * version), hosts that it no longer lists, retirement of the old version.
 */

#include "tg_zone_private.h"


static void
tg_wildcard_count(tg_zone_t *zone, const tg_host_t *node, int n)
{
    uint32_t  i, labels;

    if (node->name[0] != '.') {
        return;
    }

    labels = 0;
    for (i = 0; i < node->len; i++) {
        labels += (node->name[i] == '.');
    }

    if (labels < TG_ZONE_LABELS) {
        __atomic_fetch_add(&zone->wildcard[labels], (uint32_t) n,
                           __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&zone->wildcards, (uint32_t) n, __ATOMIC_SEQ_CST);
    }
}


/* The field that holds the reference to an element of a chain; NULL: it is not
 * in the chain.  next: of the field inside an element. */
static tg_zref_t *
tg_chain_find(tg_zone_t *zone, tg_zref_t *field, tg_zref_t ref, size_t next)
{
    while (*field && *field != ref) {
        field = (tg_zref_t *) ((char *) tg_deref(zone, *field) + next);
    }

    return *field ? field : NULL;
}


static void
tg_hosts_insert(tg_zone_t *zone, tg_zref_t ref)
{
    tg_host_t  *node;
    tg_zref_t  *chain;

    for ( /* void */ ; ref; ref = node->sibling) {
        node = tg_deref(zone, ref);
        chain = tg_host_chain(zone, node->hash);

        if (tg_chain_find(zone, chain, ref, offsetof(tg_host_t, next))) {
            continue;
        }

        tg_wildcard_count(zone, node, 1);
        node->next = *chain;
        tg_publish(chain, ref);
    }
}


/* The field that refers to this entry's node for a host, or NULL. */
static tg_zref_t *
tg_host_field(tg_zone_t *zone, tg_zref_t entry, const char *name, size_t len)
{
    uint32_t    hash;
    tg_host_t  *node;
    tg_zref_t  *field;

    hash = (uint32_t) tg_host_hash(zone, name, len);

    for (field = tg_host_chain(zone, hash); *field; field = &node->next) {
        node = tg_deref(zone, *field);

        if (node->hash == hash && node->entry == entry && node->len == len
            && memcmp(node->name, name, len) == 0)
        {
            return field;
        }
    }

    return NULL;
}


/* A node is on the list of what was retired before it leaves the chain. */
static void
tg_host_remove(tg_zone_t *zone, tg_retired_t *retired, const char *name,
    size_t len)
{
    tg_host_t  *node;
    tg_zref_t   ref, *field;

    field = tg_host_field(zone, retired->entry, name, len);
    if (field == NULL) {
        return;
    }

    ref = *field;
    node = tg_deref(zone, ref);

    if (retired->nodes != ref) {
        node->sibling = retired->nodes;
        tg_commit(&retired->nodes, ref);
    }

    tg_publish(field, node->next);
    tg_wildcard_count(zone, node, -1);
}


/* Removes the hosts of old that block (NULL: none) does not list. */
static void
tg_hosts_remove(tg_zone_t *zone, tg_retired_t *retired, const tg_block_t *old,
    const tg_block_t *block)
{
    uint32_t         i;
    const char      *name;
    const tg_ref_t  *hosts = tg_vec(old, old->hosts, tg_ref_t);

    for (i = 0; i < old->hosts.n; i++) {
        name = tg_str(old, hosts[i]);

        if (block == NULL || !tg_block_lists(block, name, hosts[i].len)) {
            tg_host_remove(zone, retired, name, hosts[i].len);
        }
    }
}


static void
tg_hosts_confirm(tg_zone_t *zone, tg_zref_t entry, tg_zref_t ref)
{
    uint32_t           i;
    tg_host_t         *node;
    tg_zref_t         *field;
    const tg_ref_t    *hosts;
    const tg_block_t  *block = tg_deref(zone, ref);

    hosts = tg_vec(block, block->hosts, tg_ref_t);

    for (i = 0; i < block->hosts.n; i++) {
        field = tg_host_field(zone, entry, tg_str(block, hosts[i]),
                              hosts[i].len);
        if (field) {
            node = tg_deref(zone, *field);
            __atomic_store_n(&node->block, ref, __ATOMIC_RELAXED);
        }
    }
}


static void
tg_retire(tg_zone_t *zone, tg_retired_t *retired)
{
    tg_zref_t      ref = tg_zref(zone, retired);
    tg_retired_t  *older, *newer;

    if (retired->older) {
        older = tg_deref(zone, retired->older);
        older->newer = ref;
    }

    if (retired->newer) {
        newer = tg_deref(zone, retired->newer);
        newer->older = ref;
    }

    if (zone->retired == ref) {
        return;
    }

    retired->stamp = zone->open;
    retired->next = zone->retired;
    tg_commit(&zone->retired, ref);
    zone->nretired++;
}


static void
tg_step_put(tg_zone_t *zone, const tg_journal_t *j)
{
    tg_zref_t     *chain;
    tg_entry_t    *entry = tg_deref(zone, j->entry);
    tg_retired_t  *retired;

    tg_hosts_insert(zone, j->nodes);

    if (j->retired == 0) {
        chain = tg_entry_chain(zone, entry->kind, entry->hash);

        if (entry->slot != TG_NO_SLOT) {
            tg_table(zone, zone->dense)[entry->slot] = j->entry;
        }

        if (!tg_chain_find(zone, chain, j->entry, offsetof(tg_entry_t, next))) {
            entry->next = *chain;
            tg_publish(chain, j->entry);
        }
    }

    tg_publish(&entry->block, j->block);

    if (j->retired) {
        retired = tg_deref(zone, j->retired);
        tg_hosts_remove(zone, retired, tg_deref(zone, retired->block),
                        tg_deref(zone, j->block));
        tg_retire(zone, retired);
    }

    tg_hosts_confirm(zone, j->entry, j->block);
}


static void
tg_step_delete(tg_zone_t *zone, const tg_journal_t *j)
{
    tg_zref_t   *field;
    tg_entry_t  *entry = tg_deref(zone, j->entry);

    tg_publish(&entry->block, 0);

    tg_hosts_remove(zone, &entry->last, tg_deref(zone, entry->last.block),
                    NULL);

    field = tg_chain_find(zone,
                          tg_entry_chain(zone, entry->kind, entry->hash),
                          j->entry, offsetof(tg_entry_t, next));
    if (field) {
        tg_publish(field, entry->next);
    }

    tg_retire(zone, &entry->last);
}


/* Takes a retired version out of both its lists.  What its neighbours shared with
 * it may have been counted in since they were visited. */
static void
tg_step_forget(tg_zone_t *zone, const tg_journal_t *j)
{
    tg_zref_t     *field;
    tg_retired_t  *retired, *near;

    retired = tg_deref(zone, j->retired);

    if (retired->older) {
        near = tg_deref(zone, retired->older);
        near->newer = retired->newer;
        tg_retired_visit_again(near);
        near->flags |= retired->flags & TG_RETIRED_ROUTE;
    }

    if (retired->newer) {
        near = tg_deref(zone, retired->newer);
        near->older = retired->older;
        tg_retired_visit_again(near);
    }

    field = &zone->retired;

    if (j->previous) {
        near = tg_deref(zone, j->previous);
        field = &near->next;
    }

    if (*field == j->retired) {
        tg_commit(field, retired->next);
        zone->nretired--;
    }
}


void
tg_step_resume(tg_zone_t *zone)
{
    const tg_journal_t  *j = &zone->journal;

    switch (j->step) {

    case TG_STEP_PUT:
        tg_step_put(zone, j);
        break;

    case TG_STEP_DELETE:
        tg_step_delete(zone, j);
        break;

    case TG_STEP_FORGET:
        tg_step_forget(zone, j);
        break;

    default:
        return;
    }

    if (j->step != TG_STEP_FORGET) {
        __atomic_store_n(&zone->version, zone->version + 1, __ATOMIC_RELEASE);
    }

    tg_commit(&zone->journal.step, TG_STEP_NONE);
}


void
tg_step_run(tg_zone_t *zone, tg_step_e step)
{
    tg_commit(&zone->journal.step, step);
    tg_step_resume(zone);
}


int
tg_write_begin(tg_zone_t *zone)
{
    if (tg_zone_recover(zone) && zone->busy) {
        return -1;
    }

    tg_commit(&zone->busy, 1);

    return 0;
}


void
tg_write_end(tg_zone_t *zone)
{
    tg_commit(&zone->busy, 0);
}
