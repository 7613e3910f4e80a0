/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>

#include "td_ring.h"


typedef struct {
    td_line_t  *line;
    int64_t     end;            /* of its batch */
} td_ring_entry_t;

struct td_ring_s {
    td_ring_entry_t  *entry;    /* number n is at n % max_lines */
    size_t            max_lines;
    size_t            max_bytes;
    size_t            bytes;
    uint64_t          first;    /* number of the oldest entry */
    uint64_t          open;     /* of the first of the batch that is open */
    uint64_t          next;     /* of the one to come */
    int64_t           floor;
    int64_t           end;
};


td_ring_t *
td_ring_create(size_t max_lines, size_t max_bytes)
{
    td_ring_t  *ring;

    ring = calloc(1, sizeof(td_ring_t));
    if (ring == NULL) {
        return NULL;
    }

    ring->entry = calloc(max_lines, sizeof(td_ring_entry_t));
    ring->max_lines = max_lines;
    ring->max_bytes = max_bytes;

    if (ring->entry == NULL) {
        free(ring);
        return NULL;
    }

    return ring;
}


static td_ring_entry_t *
td_ring_at(const td_ring_t *ring, uint64_t number)
{
    return &ring->entry[number % ring->max_lines];
}


static void
td_ring_evict(td_ring_t *ring)
{
    td_ring_entry_t  *entry;

    entry = td_ring_at(ring, ring->first);

    if (ring->first < ring->open && entry->end > ring->floor) {
        ring->floor = entry->end;
    }

    ring->bytes -= td_line_size(entry->line);
    td_line_unref(entry->line);
    entry->line = NULL;
    ring->first++;
}


void
td_ring_reset(td_ring_t *ring, int64_t revision)
{
    while (ring->first < ring->next) {
        td_ring_evict(ring);
    }

    ring->open = ring->next;
    ring->floor = revision;
    ring->end = revision;
}


void
td_ring_destroy(td_ring_t *ring)
{
    if (ring != NULL) {
        td_ring_reset(ring, 0);
        free(ring->entry);
        free(ring);
    }
}


void
td_ring_add(td_ring_t *ring, td_line_t *line)
{
    while (ring->first < ring->next
           && (ring->next - ring->first == ring->max_lines
               || ring->bytes + td_line_size(line) > ring->max_bytes))
    {
        td_ring_evict(ring);
    }

    td_ring_at(ring, ring->next)->line = line;
    ring->bytes += td_line_size(line);
    ring->next++;
}


void
td_ring_commit(td_ring_t *ring, int64_t end)
{
    /* the beginning of this very batch had to go: it is of no use to anybody */
    if (ring->open < ring->first) {
        ring->floor = end;
        ring->open = ring->first;
    }

    while (ring->open < ring->next) {
        td_ring_at(ring, ring->open)->end = end;
        ring->open++;
    }

    ring->end = end;
}


void
td_ring_abort(td_ring_t *ring)
{
    td_ring_entry_t  *entry;

    if (ring->open < ring->first) {
        ring->floor = ring->end;
        ring->open = ring->first;
    }

    while (ring->next > ring->open) {
        entry = td_ring_at(ring, --ring->next);
        ring->bytes -= td_line_size(entry->line);
        td_line_unref(entry->line);
        entry->line = NULL;
    }
}


int64_t
td_ring_floor(const td_ring_t *ring)
{
    return ring->floor;
}


int64_t
td_ring_end(const td_ring_t *ring)
{
    return ring->end;
}


uint64_t
td_ring_seek(const td_ring_t *ring, int64_t at)
{
    uint64_t  low, high, middle;

    low = ring->first;
    high = ring->next;

    while (low < high) {
        middle = low + (high - low) / 2;

        if (td_ring_at(ring, middle)->end > at) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }

    return low;
}


td_line_t *
td_ring_get(const td_ring_t *ring, uint64_t number, int *gone)
{
    *gone = number < ring->first;

    return number >= ring->first && number < ring->next
           ? td_ring_at(ring, number)->line : NULL;
}


size_t
td_ring_bytes(const td_ring_t *ring)
{
    return ring->bytes;
}
