/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The heap of an arena: two-level segregated fit (Masmano and others, ECRTS
 * 2004) with a short search for a close fit.  Two free chunks are never
 * neighbours.
 */

#include <string.h>

#include "tg_arena_private.h"

/* Chunks of one bin that are looked at before a longer one is cut. */
#define TG_HEAP_TRIES  8


static inline uint32_t
tg_bin_of(uint32_t units)
{
    uint32_t  k;

    if (units < TG_HEAP_COLUMNS) {
        return units;
    }

    k = 31 - (uint32_t) __builtin_clz(units);

    return (k - 3) * TG_HEAP_COLUMNS
           + ((units >> (k - 4)) & (TG_HEAP_COLUMNS - 1));
}


/* The first bin from this one on that is not empty; -1: none. */
static int
tg_bin_from(const tg_heap_t *heap, uint32_t bin)
{
    uint32_t  row, mask;

    row = bin / TG_HEAP_COLUMNS;

    if (row >= TG_HEAP_ROWS) {
        return -1;
    }

    mask = heap->columns[row] & (~0u << (bin % TG_HEAP_COLUMNS));

    if (mask == 0) {
        mask = heap->rows & ~((2u << row) - 1);
        if (mask == 0) {
            return -1;
        }

        row = (uint32_t) __builtin_ctz(mask);
        mask = heap->columns[row];
    }

    return (int) (row * TG_HEAP_COLUMNS + (uint32_t) __builtin_ctz(mask));
}


static inline uint32_t *
tg_bin_head(tg_heap_t *heap, uint32_t bin)
{
    return &heap->bin[bin / TG_HEAP_COLUMNS][bin % TG_HEAP_COLUMNS];
}


/* Makes a free chunk of size units; what lies behind it is told. */
static void
tg_chunk_add(tg_arena_t *a, uint32_t ref, uint32_t size, uint32_t before)
{
    uint32_t     bin, *head;
    tg_heap_t   *heap = &a->heap;
    tg_chunk_t  *c = tg_chunk(a, ref);

    bin = tg_bin_of(size);
    head = tg_bin_head(heap, bin);

    c->size = size;
    c->before = before;
    c->prev = 0;
    c->next = *head;

    if (*head) {
        tg_chunk(a, *head)->prev = ref;
    }

    *head = ref;
    heap->rows |= 1u << (bin / TG_HEAP_COLUMNS);
    heap->columns[bin / TG_HEAP_COLUMNS] |= 1u << (bin % TG_HEAP_COLUMNS);
    heap->unused += (uint64_t) size * TG_HEAP_UNIT;

    tg_chunk(a, ref + size)->before = size;
}


static void
tg_chunk_remove(tg_arena_t *a, uint32_t ref)
{
    uint32_t     bin, row, *head;
    tg_heap_t   *heap = &a->heap;
    tg_chunk_t  *c = tg_chunk(a, ref);

    bin = tg_bin_of(c->size);
    row = bin / TG_HEAP_COLUMNS;
    head = tg_bin_head(heap, bin);

    if (c->prev) {
        tg_chunk(a, c->prev)->next = c->next;
    } else {
        *head = c->next;
    }

    if (c->next) {
        tg_chunk(a, c->next)->prev = c->prev;
    }

    if (*head == 0) {
        heap->columns[row] &= ~(1u << (bin % TG_HEAP_COLUMNS));

        if (heap->columns[row] == 0) {
            heap->rows &= ~(1u << row);
        }
    }

    heap->unused -= (uint64_t) c->size * TG_HEAP_UNIT;
}


/* Units in front of the last place in a free chunk where size units fit with
 * that alignment; -1: nowhere.  Aligned chunks come from the end, so that slabs
 * gather there. */
static int64_t
tg_chunk_fit(const tg_arena_t *a, uint32_t ref, uint32_t size, size_t align)
{
    uint32_t   n = tg_chunk(a, ref)->size;
    uintptr_t  p, memory;

    if (n < size) {
        return -1;
    }

    if (align <= TG_HEAP_UNIT) {
        return 0;
    }

    memory = (uintptr_t) tg_chunk_memory(a, ref);
    p = (memory + (uintptr_t) (n - size) * TG_HEAP_UNIT) & ~(align - 1);

    return (p < memory) ? -1 : (int64_t) ((p - memory) / TG_HEAP_UNIT);
}


/* The smallest chunk that fits among the first few of each bin. */
static uint32_t
tg_heap_find(const tg_arena_t *a, uint32_t size, size_t align, uint32_t tries)
{
    int        bin;
    uint32_t   ref, n, best;

    for (bin = tg_bin_from(&a->heap, tg_bin_of(size)); bin != -1;
         bin = tg_bin_from(&a->heap, (uint32_t) bin + 1))
    {
        best = 0;
        n = 0;

        for (ref = a->heap.bin[bin / TG_HEAP_COLUMNS][bin % TG_HEAP_COLUMNS];
             ref && n < tries; ref = tg_chunk(a, ref)->next, n++)
        {
            if (tg_chunk_fit(a, ref, size, align) != -1
                && (best == 0
                    || tg_chunk(a, ref)->size < tg_chunk(a, best)->size))
            {
                best = ref;
            }
        }

        if (best) {
            return best;
        }
    }

    return 0;
}


void *
tg_heap_alloc(tg_arena_t *a, size_t size, size_t align)
{
    uint32_t     ref, units, front, rest, before;
    tg_chunk_t  *c;

    if (size > (size_t) a->npages * TG_ARENA_PAGE) {
        return NULL;
    }

    units = (uint32_t) ((size + TG_HEAP_HEADER + TG_HEAP_UNIT - 1)
                        / TG_HEAP_UNIT);

    ref = tg_heap_find(a, units, align, TG_HEAP_TRIES);
    if (ref == 0) {
        ref = tg_heap_find(a, units, align, UINT32_MAX);
        if (ref == 0) {
            return NULL;
        }
    }

    front = (uint32_t) tg_chunk_fit(a, ref, units, align);
    tg_chunk_remove(a, ref);

    c = tg_chunk(a, ref);
    rest = c->size - front - units;
    before = c->before;

    if (front) {
        tg_chunk_add(a, ref, front, before);
        ref += front;
        before = front;
    }

    c = tg_chunk(a, ref);
    c->before = before;
    c->size = units | TG_HEAP_USED;

    if (rest) {
        tg_chunk_add(a, ref + units, rest, units);
    } else {
        tg_chunk(a, ref + units)->before = units;
    }

    return tg_chunk_memory(a, ref);
}


void
tg_heap_free(tg_arena_t *a, void *p)
{
    uint32_t     ref, size, before;
    tg_chunk_t  *next, *prev;

    ref = tg_chunk_of(a, p);
    size = tg_chunk(a, ref)->size & ~TG_HEAP_USED;
    before = tg_chunk(a, ref)->before;

    next = tg_chunk(a, ref + size);

    if (!(next->size & TG_HEAP_USED)) {
        tg_chunk_remove(a, ref + size);
        size += next->size;
    }

    if (before) {
        prev = tg_chunk(a, ref - before);

        if (!(prev->size & TG_HEAP_USED)) {
            tg_chunk_remove(a, ref - before);
            ref -= before;
            size += before;
            before = prev->before;
        }
    }

    tg_chunk_add(a, ref, size, before);
}


size_t
tg_heap_size_of(const tg_arena_t *a, const void *p)
{
    uint32_t           ref, size;
    const tg_chunk_t  *c;

    if ((uintptr_t) p % TG_HEAP_UNIT) {
        return 0;
    }

    ref = tg_chunk_of(a, p);

    if (ref < a->heap.first || ref >= a->heap.end) {
        return 0;
    }

    c = tg_chunk(a, ref);
    size = c->size & ~TG_HEAP_USED;

    if (size == c->size || size == 0 || size > a->heap.end - ref) {
        return 0;
    }

    return (size_t) size * TG_HEAP_UNIT;
}


void
tg_heap_rebuild_begin(tg_arena_t *a)
{
    tg_heap_t  *heap = &a->heap;

    heap->unused = 0;
    heap->rows = 0;
    heap->kept = heap->first;
    heap->before = 0;
    memset(heap->columns, 0, sizeof(heap->columns));
    memset(heap->bin, 0, sizeof(heap->bin));
}


/* A free chunk from the last live one up to ref. */
static void
tg_heap_gap(tg_arena_t *a, uint32_t ref)
{
    tg_heap_t  *heap = &a->heap;

    if (ref > heap->kept) {
        tg_chunk_add(a, heap->kept, ref - heap->kept, heap->before);
        heap->before = ref - heap->kept;
    }
}


void
tg_heap_keep(tg_arena_t *a, const void *p)
{
    uint32_t     ref = tg_chunk_of(a, p);
    tg_heap_t   *heap = &a->heap;
    tg_chunk_t  *c = tg_chunk(a, ref);

    tg_heap_gap(a, ref);

    c->before = heap->before;
    heap->before = c->size & ~TG_HEAP_USED;
    heap->kept = ref + heap->before;
}


void
tg_heap_rebuild_end(tg_arena_t *a)
{
    tg_chunk_t  *end = tg_chunk(a, a->heap.end);

    tg_heap_gap(a, a->heap.end);

    end->size = TG_HEAP_USED;
    end->before = a->heap.before;
}


void
tg_heap_create(tg_arena_t *a)
{
    a->heap.first = tg_chunk_of(a, (char *) a + a->first);
    a->heap.end = a->heap.first
                  + a->npages * (TG_ARENA_PAGE / TG_HEAP_UNIT);

    tg_heap_rebuild_begin(a);
    tg_heap_rebuild_end(a);
}


/* Chunks in bins, or -1: one is in the wrong bin. */
static int64_t
tg_bins_check(const tg_arena_t *a)
{
    int64_t           n;
    uint32_t          bin, ref, row, column;
    const tg_heap_t  *heap = &a->heap;

    n = 0;

    for (bin = 0; bin < TG_HEAP_ROWS * TG_HEAP_COLUMNS; bin++) {
        row = bin / TG_HEAP_COLUMNS;
        column = bin % TG_HEAP_COLUMNS;
        ref = heap->bin[row][column];

        if ((ref != 0) != (heap->columns[row] >> column & 1)
            || (heap->columns[row] != 0) != (heap->rows >> row & 1))
        {
            return -1;
        }

        for ( /* void */ ; ref; ref = tg_chunk(a, ref)->next, n++) {
            if (tg_bin_of(tg_chunk(a, ref)->size) != bin
                || ref < heap->first || ref >= heap->end)
            {
                return -1;
            }
        }
    }

    return n;
}


int
tg_heap_check(const tg_arena_t *a, uint64_t *used)
{
    int64_t            n;
    uint32_t           ref, size, before, idle;
    uint64_t           unused;
    const tg_chunk_t  *c;

    n = 0;
    idle = 0;
    before = 0;
    unused = 0;
    *used = 0;

    for (ref = a->heap.first; ref < a->heap.end; ref += size) {
        c = tg_chunk(a, ref);
        size = c->size & ~TG_HEAP_USED;

        if (size == 0 || size > a->heap.end - ref || c->before != before) {
            return -1;
        }

        before = size;

        if (c->size & TG_HEAP_USED) {
            *used += (uint64_t) size * TG_HEAP_UNIT;
            idle = 0;
            continue;
        }

        if (idle) {
            return -1;
        }

        unused += (uint64_t) size * TG_HEAP_UNIT;
        idle = 1;
        n++;
    }

    return (tg_chunk(a, ref)->before == before && unused == a->heap.unused
            && n == tg_bins_check(a))
           ? 0 : -1;
}
