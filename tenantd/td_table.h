/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A hash table of what has a link in it: chains that grow with what they hold.  The
 * caller makes hashes (tg_hash.h) and compares.
 */

#ifndef TD_TABLE_H
#define TD_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct td_link_s {
    struct td_link_s  *next;
    uint64_t           hash;
} td_link_t;

typedef struct {
    td_link_t  **chains;
    size_t       mask;
    size_t       n;
} td_table_t;

/* What a link is a member of. */
#define td_link_data(link, type, member)                                      \
    ((type *) (void *) ((char *) (link) - offsetof(type, member)))

/* An empty table is all zero bytes.  0, or -1: no memory. */
int td_table_add(td_table_t *table, td_link_t *link, uint64_t hash);

/* It must be in the table. */
void td_table_remove(td_table_t *table, td_link_t *link);

/* The first of the chain in which links of that hash are; go on by next, and look
 * at hash first. */
td_link_t *td_table_chain(const td_table_t *table, uint64_t hash);

/* Calls visit with each link, which may remove itself. */
void td_table_each(td_table_t *table, void (*visit)(td_link_t *link, void *data),
    void *data);

/* Frees the chains, not what was in them. */
void td_table_free(td_table_t *table);

#endif /* TD_TABLE_H */
