/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>

#include "td_table.h"


static int
td_table_grow(td_table_t *table)
{
    size_t       i, size;
    td_link_t   *link, *next, **chains;

    size = table->chains == NULL ? 64 : (table->mask + 1) * 2;
    chains = calloc(size, sizeof(td_link_t *));
    if (chains == NULL) {
        return -1;
    }

    for (i = 0; table->chains != NULL && i <= table->mask; i++) {
        for (link = table->chains[i]; link != NULL; link = next) {
            next = link->next;
            link->next = chains[link->hash & (size - 1)];
            chains[link->hash & (size - 1)] = link;
        }
    }

    free(table->chains);
    table->chains = chains;
    table->mask = size - 1;

    return 0;
}


int
td_table_add(td_table_t *table, td_link_t *link, uint64_t hash)
{
    if ((table->chains == NULL || table->n > table->mask)
        && td_table_grow(table) != 0 && table->chains == NULL)
    {
        return -1;
    }

    link->hash = hash;
    link->next = table->chains[hash & table->mask];
    table->chains[hash & table->mask] = link;
    table->n++;

    return 0;
}


void
td_table_remove(td_table_t *table, td_link_t *link)
{
    td_link_t  **at;

    for (at = &table->chains[link->hash & table->mask]; *at != link;
         at = &(*at)->next)
    { /* void */ }

    *at = link->next;
    table->n--;
}


td_link_t *
td_table_chain(const td_table_t *table, uint64_t hash)
{
    return table->chains != NULL ? table->chains[hash & table->mask] : NULL;
}


void
td_table_each(td_table_t *table, void (*visit)(td_link_t *link, void *data),
    void *data)
{
    size_t      i;
    td_link_t  *link, *next;

    for (i = 0; table->chains != NULL && i <= table->mask; i++) {
        for (link = table->chains[i]; link != NULL; link = next) {
            next = link->next;
            visit(link, data);
        }
    }
}


void
td_table_free(td_table_t *table)
{
    free(table->chains);
    table->chains = NULL;
    table->mask = 0;
    table->n = 0;
}
