/* SPDX-License-Identifier: BSD-2-Clause */

/* The slabs of an arena; the heap that their pages come from is
 * tg_arena_heap.c. */

#include <string.h>

#include "tg_arena_private.h"


static inline char *
tg_page_address(const tg_arena_t *a, uint32_t page)
{
    return (char *) a + a->first + (size_t) page * TG_ARENA_PAGE;
}


/* The page that p lies in; npages: none. */
static inline uint32_t
tg_page_of(const tg_arena_t *a, const void *p)
{
    uintptr_t  first = (uintptr_t) a + a->first;

    if ((uintptr_t) p < first
        || ((uintptr_t) p - first) / TG_ARENA_PAGE >= a->npages)
    {
        return a->npages;
    }

    return (uint32_t) (((uintptr_t) p - first) / TG_ARENA_PAGE);
}


static inline uint32_t
tg_class_of(size_t size)
{
    return size ? (uint32_t) (size + TG_SLAB_UNIT - 1) / TG_SLAB_UNIT : 1;
}


static inline uint32_t
tg_class_size(uint32_t class)
{
    return class * TG_SLAB_UNIT;
}


static inline uint32_t
tg_slab_objects(const tg_page_t *d)
{
    return TG_SLAB_ROOM / tg_class_size(d->class);
}


static inline uint16_t *
tg_slab_object(const tg_arena_t *a, uint32_t page, uint32_t i)
{
    return (uint16_t *) (tg_page_address(a, page)
                         + (size_t) i * tg_class_size(a->page[page].class));
}


static void
tg_partial_add(tg_arena_t *a, uint32_t page)
{
    tg_page_t  *d = &a->page[page];
    uint32_t   *head = &a->partial[d->class];

    d->prev = 0;
    d->next = *head;

    if (*head) {
        a->page[*head - 1].prev = page + 1;
    }

    *head = page + 1;
}


static void
tg_partial_remove(tg_arena_t *a, uint32_t page)
{
    tg_page_t  *d = &a->page[page];

    if (d->prev) {
        a->page[d->prev - 1].next = d->next;
    } else {
        a->partial[d->class] = d->next;
    }

    if (d->next) {
        a->page[d->next - 1].prev = d->prev;
    }
}


static int
tg_slab_create(tg_arena_t *a, uint32_t class)
{
    void       *p;
    uint32_t    page;
    tg_page_t  *d;

    p = tg_heap_alloc(a, TG_SLAB_ROOM, TG_ARENA_PAGE);
    if (p == NULL) {
        return -1;
    }

    page = tg_page_of(a, p);
    d = &a->page[page];

    d->class = (uint8_t) class;
    d->used = 0;
    d->free = 0;
    d->fresh = 0;
    d->slab = 1;

    tg_partial_add(a, page);

    return 0;
}


static void *
tg_slab_alloc(tg_arena_t *a, uint32_t class)
{
    uint32_t    page;
    uint16_t   *p;
    tg_page_t  *d;

    if (a->partial[class] == 0 && tg_slab_create(a, class) != 0) {
        return NULL;
    }

    page = a->partial[class] - 1;
    d = &a->page[page];

    if (d->free) {
        p = tg_slab_object(a, page, d->free - 1u);
        d->free = *p;
    } else {
        p = tg_slab_object(a, page, d->fresh);
        d->fresh++;
    }

    if (++d->used == tg_slab_objects(d)) {
        tg_partial_remove(a, page);
    }

    a->used += tg_class_size(class);

    return p;
}


static void
tg_slab_free(tg_arena_t *a, uint32_t page, void *p)
{
    uint32_t    size;
    tg_page_t  *d = &a->page[page];

    size = tg_class_size(d->class);
    a->used -= size;

    if (d->used-- == tg_slab_objects(d)) {
        tg_partial_add(a, page);
    }

    if (d->used == 0) {
        tg_partial_remove(a, page);
        d->slab = 0;
        tg_heap_free(a, tg_page_address(a, page));
        return;
    }

    *(uint16_t *) p = d->free;
    d->free = (uint16_t) (((char *) p - tg_page_address(a, page)) / size + 1);
}


tg_arena_t *
tg_arena_create(void *base, size_t size)
{
    size_t       first, n;
    uintptr_t    start = (uintptr_t) base;
    tg_arena_t  *a = base;

    n = size / (TG_ARENA_PAGE + sizeof(tg_page_t));

    for ( ;; n--) {
        if (n == 0 || n >= UINT32_MAX / (TG_ARENA_PAGE / TG_HEAP_UNIT) / 2) {
            return NULL;
        }

        first = sizeof(tg_arena_t) + n * sizeof(tg_page_t) + TG_HEAP_HEADER;
        first = ((start + first + TG_ARENA_PAGE - 1)
                 & ~(uintptr_t) (TG_ARENA_PAGE - 1)) - start;

        if (first <= UINT32_MAX && first + n * TG_ARENA_PAGE <= size) {
            break;
        }
    }

    memset(a, 0, sizeof(tg_arena_t) + n * sizeof(tg_page_t));

    a->npages = (uint32_t) n;
    a->first = (uint32_t) first;

    tg_heap_create(a);

    return a;
}


void *
tg_arena_alloc_aligned(tg_arena_t *a, size_t size, size_t align)
{
    void  *p;

    p = tg_heap_alloc(a, size, align);

    if (p) {
        a->used += tg_heap_size_of(a, p);
    }

    return p;
}


void *
tg_arena_alloc(tg_arena_t *a, size_t size)
{
    if (size <= TG_ARENA_SMALL) {
        return tg_slab_alloc(a, tg_class_of(size));
    }

    return tg_arena_alloc_aligned(a, size, TG_HEAP_UNIT);
}


void
tg_arena_free(tg_arena_t *a, void *p)
{
    uint32_t  page;

    if (p == NULL) {
        return;
    }

    page = tg_page_of(a, p);

    if (a->page[page].slab) {
        tg_slab_free(a, page, p);
        return;
    }

    a->used -= tg_heap_size_of(a, p);
    tg_heap_free(a, p);
}


size_t
tg_arena_size_of(const tg_arena_t *a, const void *p)
{
    size_t            offset;
    uint32_t          page, size;
    const tg_page_t  *d;

    page = tg_page_of(a, p);

    if (page == a->npages) {
        return 0;
    }

    d = &a->page[page];

    if (!d->slab) {
        return tg_heap_size_of(a, p);
    }

    size = tg_class_size(d->class);
    offset = (size_t) ((const char *) p - tg_page_address(a, page));

    return (offset % size == 0 && offset / size < d->fresh) ? size : 0;
}


uint64_t
tg_arena_size(const tg_arena_t *a)
{
    return (uint64_t) a->npages * TG_ARENA_PAGE;
}


uint64_t
tg_arena_used(const tg_arena_t *a)
{
    return __atomic_load_n(&a->used, __ATOMIC_RELAXED);
}


uint64_t
tg_arena_unused(const tg_arena_t *a)
{
    return a->heap.unused;
}


/* One bit for each 8 bytes: a page has TG_MARK_WORDS of them. */
#define TG_MARK_UNIT   8
#define TG_MARK_WORDS  (TG_ARENA_PAGE / TG_MARK_UNIT / 64)


size_t
tg_arena_marks_size(const tg_arena_t *a)
{
    return (size_t) a->npages * TG_MARK_WORDS * sizeof(uint64_t);
}


static inline size_t
tg_mark_bit(const tg_arena_t *a, const void *p)
{
    return (size_t) ((uintptr_t) p - (uintptr_t) a - a->first) / TG_MARK_UNIT;
}


static inline int
tg_is_marked(const tg_arena_t *a, const uint64_t *marks, const void *p)
{
    size_t  bit = tg_mark_bit(a, p);

    return (int) (marks[bit / 64] >> (bit % 64) & 1);
}


int
tg_arena_mark(const tg_arena_t *a, uint64_t *marks, const void *p)
{
    size_t  bit;

    if (tg_arena_size_of(a, p) == 0) {
        return -1;
    }

    if (tg_is_marked(a, marks, p)) {
        return 1;
    }

    bit = tg_mark_bit(a, p);
    marks[bit / 64] |= 1ull << (bit % 64);

    return 0;
}


/* Counts the live objects and threads the others into the free list. */
static void
tg_slab_rebuild(tg_arena_t *a, const uint64_t *marks, uint32_t page)
{
    uint32_t    i;
    uint16_t   *p;
    tg_page_t  *d = &a->page[page];

    d->used = 0;
    d->free = 0;

    for (i = d->fresh; i-- > 0; ) {
        p = tg_slab_object(a, page, i);

        if (tg_is_marked(a, marks, p)) {
            d->used++;
            continue;
        }

        *p = d->free;
        d->free = (uint16_t) (i + 1);
    }

    if (d->used < tg_slab_objects(d)) {
        tg_partial_add(a, page);
    }

    a->used += (uint64_t) d->used * tg_class_size(d->class);
    tg_heap_keep(a, tg_page_address(a, page));
}


static void
tg_page_rebuild(tg_arena_t *a, const uint64_t *marks, uint32_t page)
{
    char            *p;
    uint32_t         i;
    uint64_t         bits, any;
    const uint64_t  *word = marks + (size_t) page * TG_MARK_WORDS;

    any = 0;
    for (i = 0; i < TG_MARK_WORDS; i++) {
        any |= word[i];
    }

    /* without a live object a slab may be half made: then it is none */

    if (!any) {
        a->page[page].slab = 0;
        return;
    }

    if (a->page[page].slab) {
        tg_slab_rebuild(a, marks, page);
        return;
    }

    for (i = 0; i < TG_MARK_WORDS; i++) {
        for (bits = word[i]; bits; bits &= bits - 1) {
            p = tg_page_address(a, page)
                + (i * 64 + (uint32_t) __builtin_ctzll(bits)) * TG_MARK_UNIT;

            a->used += tg_heap_size_of(a, p);
            tg_heap_keep(a, p);
        }
    }
}


void
tg_arena_rebuild(tg_arena_t *a, const uint64_t *marks)
{
    uint32_t  page;

    a->used = 0;
    memset(a->partial, 0, sizeof(a->partial));

    tg_heap_rebuild_begin(a);

    for (page = 0; page < a->npages; page++) {
        tg_page_rebuild(a, marks, page);
    }

    tg_heap_rebuild_end(a);
}


static int
tg_slab_check(const tg_arena_t *a, uint32_t page)
{
    uint32_t          i, n;
    const tg_page_t  *d = &a->page[page];

    if (d->class == 0 || d->class >= TG_SLAB_CLASSES || d->used == 0
        || d->fresh > tg_slab_objects(d)
        || tg_heap_size_of(a, tg_page_address(a, page)) != TG_ARENA_PAGE)
    {
        return -1;
    }

    n = 0;
    for (i = d->free; i; i = *tg_slab_object(a, page, i - 1)) {
        if (i > d->fresh || ++n > d->fresh) {
            return -1;
        }
    }

    return (n + d->used == d->fresh) ? 0 : -1;
}


/* Slabs in lists, or -1: one of them is in the wrong list. */
static int64_t
tg_partial_check(const tg_arena_t *a)
{
    int64_t           n;
    uint32_t          i, link;
    const tg_page_t  *d;

    n = 0;

    for (i = 0; i < TG_SLAB_CLASSES; i++) {
        for (link = a->partial[i]; link; link = d->next) {
            d = &a->page[link - 1];

            if (!d->slab || d->class != i || ++n > a->npages) {
                return -1;
            }
        }
    }

    return n;
}


int
tg_arena_check(const tg_arena_t *a)
{
    int64_t           partial;
    uint32_t          page;
    uint64_t          chunks, used;
    const tg_page_t  *d;

    if (tg_heap_check(a, &chunks) != 0) {
        return -1;
    }

    partial = 0;
    used = chunks;

    for (page = 0; page < a->npages; page++) {
        d = &a->page[page];

        if (!d->slab) {
            continue;
        }

        if (tg_slab_check(a, page) != 0) {
            return -1;
        }

        used += (uint64_t) d->used * tg_class_size(d->class);
        used -= TG_ARENA_PAGE;
        partial += (d->used < tg_slab_objects(d));
    }

    return (used == a->used && partial == tg_partial_check(a)) ? 0 : -1;
}
