/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Page numbers in lists are one more than the page, so that 0 ends a list.
 *
 * A run of pages is free, a slab, or one large object.  The first page of a run
 * and the last page of a free one tell its length; the other pages of a run in
 * use point to the first.  What other descriptors say is void.
 */

#include <string.h>

#include "tg_arena.h"

#define TG_ARENA_CLASSES  113
#define TG_ARENA_BINS     28
#define TG_ARENA_TRIES    8         /* runs looked at for a close fit */

typedef enum {
    TG_PAGE_FREE = 0,
    TG_PAGE_SLAB,
    TG_PAGE_LARGE,
    TG_PAGE_BODY            /* n is the first page of the run */
} tg_page_e;

typedef struct {
    uint8_t   kind;         /* tg_page_e */
    uint8_t   class;        /* of a slab */
    uint16_t  used;         /* objects of a slab that are allocated */
    uint16_t  free;         /* first freed object, plus one; linked through
                             * their first two bytes */
    uint16_t  fresh;        /* objects from here on were never handed out */
    uint32_t  n;            /* pages */
    uint32_t  prev;         /* in the bin or in the class's list of slabs that */
    uint32_t  next;         /* have room */
} tg_page_t;

struct tg_arena_s {
    uint64_t  used;
    uint32_t  npages;
    uint32_t  free_pages;
    uint32_t  first;                        /* bytes to the first page */
    uint32_t  bins;                         /* bit mask of those not empty */
    uint32_t  bin[TG_ARENA_BINS];           /* free runs by log2 of length */
    uint32_t  partial[TG_ARENA_CLASSES];    /* slabs that have room */
    uint8_t   slab_pages[TG_ARENA_CLASSES];
    tg_page_t page[];
};


static inline char *
tg_page_address(const tg_arena_t *a, uint32_t page)
{
    return (char *) a + a->first + (size_t) page * TG_ARENA_PAGE;
}


static inline uint32_t
tg_log2(uint32_t n)
{
    return 31 - (uint32_t) __builtin_clz(n);
}


/* 8; 16 to 256 by 16; then 16 steps for each doubling. */
static uint32_t
tg_class_of(size_t size)
{
    uint32_t  k;

    if (size <= 8) {
        return 0;
    }

    if (size <= 256) {
        return (uint32_t) (size + 15) / 16;
    }

    k = tg_log2((uint32_t) size - 1);

    return 17 + (k - 8) * 16
           + (((uint32_t) size - 1 - (1u << k)) >> (k - 4));
}


static uint32_t
tg_class_size(uint32_t class)
{
    uint32_t  k;

    if (class == 0) {
        return 8;
    }

    if (class <= 16) {
        return class * 16;
    }

    k = 8 + (class - 17) / 16;

    return (1u << k) + (((class - 17) % 16 + 1) << (k - 4));
}


/* The fewest pages whose tail wastes at most 1/share, or the least wasteful. */
static uint8_t
tg_slab_pages(uint32_t size, uint32_t max, uint32_t share)
{
    uint32_t  n, best, waste, least;

    best = 0;
    least = UINT32_MAX;

    for (n = (size + TG_ARENA_PAGE - 1) / TG_ARENA_PAGE; n <= max; n++) {
        waste = n * TG_ARENA_PAGE % size;

        if (waste * share <= n * TG_ARENA_PAGE) {
            return (uint8_t) n;
        }

        if (waste * 256 / n < least) {
            least = waste * 256 / n;
            best = n;
        }
    }

    return (uint8_t) best;
}


static void
tg_pages_push(tg_arena_t *a, uint32_t *head, uint32_t page)
{
    a->page[page].prev = 0;
    a->page[page].next = *head;

    if (*head) {
        a->page[*head - 1].prev = page + 1;
    }

    *head = page + 1;
}


static void
tg_pages_remove(tg_arena_t *a, uint32_t *head, uint32_t page)
{
    tg_page_t  *d = &a->page[page];

    if (d->prev) {
        a->page[d->prev - 1].next = d->next;
    } else {
        *head = d->next;
    }

    if (d->next) {
        a->page[d->next - 1].prev = d->prev;
    }
}


static void
tg_run_push(tg_arena_t *a, uint32_t page, uint32_t n)
{
    uint32_t  bin = tg_log2(n);

    a->page[page].kind = TG_PAGE_FREE;
    a->page[page].n = n;
    a->page[page + n - 1].kind = TG_PAGE_FREE;
    a->page[page + n - 1].n = n;

    tg_pages_push(a, &a->bin[bin], page);
    a->bins |= 1u << bin;
    a->free_pages += n;
}


static void
tg_run_remove(tg_arena_t *a, uint32_t page)
{
    uint32_t  bin = tg_log2(a->page[page].n);

    tg_pages_remove(a, &a->bin[bin], page);

    if (a->bin[bin] == 0) {
        a->bins &= ~(1u << bin);
    }

    a->free_pages -= a->page[page].n;
}


/* The closest fit among the first few of n's own bin, then any longer run, then
 * whatever else of the bin fits. */
static uint32_t
tg_run_find(const tg_arena_t *a, uint32_t n)
{
    uint32_t  bin, link, best, tries, longer;

    bin = tg_log2(n);
    best = 0;
    tries = 0;

    for (link = a->bin[bin]; link; link = a->page[link - 1].next) {
        if (a->page[link - 1].n >= n
            && (best == 0 || a->page[link - 1].n < a->page[best - 1].n))
        {
            best = link;
        }

        if (++tries == TG_ARENA_TRIES) {
            break;
        }
    }

    longer = a->bins & ~((2u << bin) - 1);

    if (best == 0 && longer) {
        best = a->bin[__builtin_ctz(longer)];
    }

    while (best == 0 && link) {
        best = (a->page[link - 1].n >= n) ? link : 0;
        link = a->page[link - 1].next;
    }

    return best;
}


/* Returns the first page plus one, or 0. */
static uint32_t
tg_run_alloc(tg_arena_t *a, uint32_t n, tg_page_e kind)
{
    uint32_t  i, page, rest;

    page = tg_run_find(a, n);
    if (page == 0) {
        return 0;
    }

    page--;
    rest = a->page[page].n - n;
    tg_run_remove(a, page);

    if (rest) {
        tg_run_push(a, page + n, rest);
    }

    a->page[page].n = n;
    a->page[page].kind = (uint8_t) kind;

    for (i = 1; i < n; i++) {
        a->page[page + i].n = page;
        a->page[page + i].kind = TG_PAGE_BODY;
    }

    return page + 1;
}


static void
tg_run_free(tg_arena_t *a, uint32_t page)
{
    uint32_t  n, before;

    n = a->page[page].n;
    a->page[page].kind = TG_PAGE_FREE;

    if (page + n < a->npages && a->page[page + n].kind == TG_PAGE_FREE) {
        tg_run_remove(a, page + n);
        n += a->page[page + n].n;
    }

    if (page > 0 && a->page[page - 1].kind == TG_PAGE_FREE) {
        before = a->page[page - 1].n;
        page -= before;
        n += before;
        tg_run_remove(a, page);
    }

    tg_run_push(a, page, n);
}


static inline uint32_t
tg_slab_objects(const tg_page_t *d)
{
    return d->n * TG_ARENA_PAGE / tg_class_size(d->class);
}


static inline uint16_t *
tg_slab_object(const tg_arena_t *a, uint32_t page, uint32_t i)
{
    return (uint16_t *) (tg_page_address(a, page)
                         + (size_t) i * tg_class_size(a->page[page].class));
}


static uint32_t
tg_slab_create(tg_arena_t *a, uint32_t class)
{
    uint32_t    link;
    tg_page_t  *d;

    link = tg_run_alloc(a, a->slab_pages[class], TG_PAGE_SLAB);

    if (link) {
        d = &a->page[link - 1];
        d->class = (uint8_t) class;
        d->used = 0;
        d->free = 0;
        d->fresh = 0;
        tg_pages_push(a, &a->partial[class], link - 1);
    }

    return link;
}


static void *
tg_slab_alloc(tg_arena_t *a, uint32_t class)
{
    uint32_t    link;
    uint16_t   *p;
    tg_page_t  *d;

    link = a->partial[class];

    if (link == 0) {
        link = tg_slab_create(a, class);
        if (link == 0) {
            return NULL;
        }
    }

    d = &a->page[link - 1];

    if (d->free) {
        p = tg_slab_object(a, link - 1, d->free - 1u);
        d->free = *p;
    } else {
        p = tg_slab_object(a, link - 1, d->fresh);
        d->fresh++;
    }

    if (++d->used == tg_slab_objects(d)) {
        tg_pages_remove(a, &a->partial[class], link - 1);
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

    if (d->used-- == tg_slab_objects(d)) {
        tg_pages_push(a, &a->partial[d->class], page);
    }

    a->used -= size;

    if (d->used == 0) {
        tg_pages_remove(a, &a->partial[d->class], page);
        tg_run_free(a, page);
        return;
    }

    *(uint16_t *) p = d->free;
    d->free = (uint16_t) (((char *) p - tg_page_address(a, page)) / size + 1);
}


tg_arena_t *
tg_arena_create(void *base, size_t size)
{
    size_t       first, n;
    uint32_t     i;
    uintptr_t    start = (uintptr_t) base;
    tg_arena_t  *a = base;

    n = size / (TG_ARENA_PAGE + sizeof(tg_page_t));

    for ( ;; n--) {
        if (n == 0 || n > UINT32_MAX / 2) {
            return NULL;
        }

        first = sizeof(tg_arena_t) + n * sizeof(tg_page_t);
        first = ((start + first + TG_ARENA_PAGE - 1)
                 & ~(uintptr_t) (TG_ARENA_PAGE - 1)) - start;

        if (first <= UINT32_MAX && first + n * TG_ARENA_PAGE <= size) {
            break;
        }
    }

    memset(a, 0, sizeof(tg_arena_t) + n * sizeof(tg_page_t));

    a->npages = (uint32_t) n;
    a->first = (uint32_t) first;

    /* a small arena cannot afford long slabs, a large one wasteful ones */
    for (i = 0; i < TG_ARENA_CLASSES; i++) {
        a->slab_pages[i] = (n < 4096) ? tg_slab_pages(tg_class_size(i), 8, 12)
                                      : tg_slab_pages(tg_class_size(i), 16, 40);
    }

    tg_run_push(a, 0, a->npages);

    return a;
}


void *
tg_arena_alloc(tg_arena_t *a, size_t size)
{
    uint32_t  link;
    uint64_t  n;

    if (size <= TG_ARENA_SMALL) {
        return tg_slab_alloc(a, tg_class_of(size));
    }

    n = (size - 1) / TG_ARENA_PAGE + 1;

    if (n > a->npages) {
        return NULL;
    }

    link = tg_run_alloc(a, (uint32_t) n, TG_PAGE_LARGE);
    if (link == 0) {
        return NULL;
    }

    a->used += n * TG_ARENA_PAGE;

    return tg_page_address(a, link - 1);
}


/* First page of the run in use that p lies in, plus one; 0: none. */
static uint32_t
tg_arena_run(const tg_arena_t *a, const void *p)
{
    size_t    offset;
    uint32_t  page;

    offset = (size_t) ((uintptr_t) p - (uintptr_t) a - a->first);

    if ((uintptr_t) p < (uintptr_t) a + a->first
        || offset / TG_ARENA_PAGE >= a->npages)
    {
        return 0;
    }

    page = (uint32_t) (offset / TG_ARENA_PAGE);

    if (a->page[page].kind == TG_PAGE_BODY) {
        page = a->page[page].n;
    }

    if (a->page[page].kind != TG_PAGE_SLAB
        && a->page[page].kind != TG_PAGE_LARGE)
    {
        return 0;
    }

    return page + 1;
}


void
tg_arena_free(tg_arena_t *a, void *p)
{
    uint32_t  page;

    if (p == NULL) {
        return;
    }

    page = tg_arena_run(a, p) - 1;

    if (a->page[page].kind == TG_PAGE_SLAB) {
        tg_slab_free(a, page, p);
        return;
    }

    a->used -= (uint64_t) a->page[page].n * TG_ARENA_PAGE;
    tg_run_free(a, page);
}


void *
tg_arena_object(const tg_arena_t *a, const void *p)
{
    size_t            i;
    uint32_t          link;
    const tg_page_t  *d;

    link = tg_arena_run(a, p);
    if (link == 0) {
        return NULL;
    }

    d = &a->page[link - 1];

    if (d->kind == TG_PAGE_LARGE) {
        return tg_page_address(a, link - 1);
    }

    i = (size_t) ((const char *) p - tg_page_address(a, link - 1))
        / tg_class_size(d->class);

    return (i < d->fresh) ? tg_slab_object(a, link - 1, (uint32_t) i) : NULL;
}


size_t
tg_arena_size_of(const tg_arena_t *a, const void *p)
{
    const tg_page_t  *d;

    if (p == NULL || tg_arena_object(a, p) != p) {
        return 0;
    }

    d = &a->page[tg_arena_run(a, p) - 1];

    return (d->kind == TG_PAGE_SLAB) ? tg_class_size(d->class)
                                     : (size_t) d->n * TG_ARENA_PAGE;
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
    return (uint64_t) a->free_pages * TG_ARENA_PAGE;
}


size_t
tg_arena_marks_size(const tg_arena_t *a)
{
    return (size_t) a->npages * (TG_ARENA_PAGE / 8 / 8);
}


static inline size_t
tg_arena_bit(const tg_arena_t *a, const void *p)
{
    return (size_t) ((uintptr_t) p - (uintptr_t) a - a->first) / 8;
}


int
tg_arena_marked(const tg_arena_t *a, const uint64_t *marks, const void *p)
{
    size_t  bit = tg_arena_bit(a, p);

    return (int) (marks[bit / 64] >> (bit % 64) & 1);
}


int
tg_arena_mark(const tg_arena_t *a, uint64_t *marks, const void *p)
{
    size_t  bit;

    if (tg_arena_size_of(a, p) == 0) {
        return -1;
    }

    if (tg_arena_marked(a, marks, p)) {
        return 1;
    }

    bit = tg_arena_bit(a, p);
    marks[bit / 64] |= 1ull << (bit % 64);

    return 0;
}


static int
tg_pages_marked(const uint64_t *marks, uint32_t page, uint32_t n)
{
    size_t  i, words = TG_ARENA_PAGE / 8 / 64;

    for (i = (size_t) page * words; i < ((size_t) page + n) * words; i++) {
        if (marks[i]) {
            return 1;
        }
    }

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

        if (tg_arena_marked(a, marks, p)) {
            d->used++;
            continue;
        }

        *p = d->free;
        d->free = (uint16_t) (i + 1);
    }
}


/* Pages that the live run at page takes; 0: nothing alive there.  The rest of a
 * descriptor means something only if there is: its slab may be half made. */
static uint32_t
tg_run_rebuild(tg_arena_t *a, const uint64_t *marks, uint32_t page)
{
    tg_page_t  *d = &a->page[page];

    if (d->kind == TG_PAGE_LARGE
        && tg_arena_marked(a, marks, tg_page_address(a, page)))
    {
        a->used += (uint64_t) d->n * TG_ARENA_PAGE;
        return d->n;
    }

    if (d->kind != TG_PAGE_SLAB || d->n > a->npages - page
        || !tg_pages_marked(marks, page, d->n))
    {
        return 0;
    }

    tg_slab_rebuild(a, marks, page);
    a->used += (uint64_t) d->used * tg_class_size(d->class);

    if (d->used < tg_slab_objects(d)) {
        tg_pages_push(a, &a->partial[d->class], page);
    }

    return d->n;
}


void
tg_arena_rebuild(tg_arena_t *a, const uint64_t *marks)
{
    uint32_t  n, page, idle;

    a->used = 0;
    a->free_pages = 0;
    a->bins = 0;
    memset(a->bin, 0, sizeof(a->bin));
    memset(a->partial, 0, sizeof(a->partial));

    idle = 0;

    for (page = 0; page < a->npages; page += n ? n : 1) {
        n = tg_run_rebuild(a, marks, page);

        if (n == 0) {
            a->page[page].kind = TG_PAGE_FREE;
            idle++;
            continue;
        }

        if (idle) {
            tg_run_push(a, page - idle, idle);
            idle = 0;
        }
    }

    if (idle) {
        tg_run_push(a, page - idle, idle);
    }
}


static int
tg_slab_check(const tg_arena_t *a, uint32_t page)
{
    uint32_t          i, n;
    const tg_page_t  *d = &a->page[page];

    if (d->class >= TG_ARENA_CLASSES || d->n != a->slab_pages[d->class]
        || d->used == 0 || d->fresh > tg_slab_objects(d))
    {
        return -1;
    }

    n = 0;
    for (i = d->free; i; i = *tg_slab_object(a, page, i - 1)) {
        if (i > d->fresh || ++n > d->fresh) {
            return -1;
        }
    }

    for (i = 1; i < d->n; i++) {
        if (a->page[page + i].kind != TG_PAGE_BODY
            || a->page[page + i].n != page)
        {
            return -1;
        }
    }

    return (n + d->used == d->fresh) ? 0 : -1;
}


/* Elements of all lists of one kind, or -1: one of them is in the wrong list. */
static int64_t
tg_lists_check(const tg_arena_t *a, tg_page_e kind)
{
    int64_t           n;
    uint32_t          i, link;
    const tg_page_t  *d;

    n = 0;

    for (i = 0; i < (kind == TG_PAGE_FREE ? TG_ARENA_BINS : TG_ARENA_CLASSES);
         i++)
    {
        link = (kind == TG_PAGE_FREE) ? a->bin[i] : a->partial[i];

        for ( /* void */ ; link; link = d->next) {
            d = &a->page[link - 1];

            if (d->kind != kind || ++n > a->npages
                || (kind == TG_PAGE_FREE ? tg_log2(d->n) : d->class) != i)
            {
                return -1;
            }
        }
    }

    return n;
}


int
tg_arena_check(const tg_arena_t *a)
{
    int64_t           runs, partial;
    uint32_t          page, idle;
    uint64_t          used;
    const tg_page_t  *d;

    used = 0;
    idle = 0;
    runs = 0;
    partial = 0;

    for (page = 0; page < a->npages; page += d->n) {
        d = &a->page[page];

        if (d->n == 0 || d->n > a->npages - page) {
            return -1;
        }

        if (d->kind == TG_PAGE_FREE) {
            if (a->page[page + d->n - 1].n != d->n
                || (page && a->page[page - 1].kind == TG_PAGE_FREE))
            {
                return -1;
            }

            idle += d->n;
            runs++;

        } else if (d->kind == TG_PAGE_LARGE) {
            used += (uint64_t) d->n * TG_ARENA_PAGE;

        } else if (d->kind == TG_PAGE_SLAB && tg_slab_check(a, page) == 0) {
            used += (uint64_t) d->used * tg_class_size(d->class);
            partial += (d->used < tg_slab_objects(d));

        } else {
            return -1;
        }
    }

    return (used == a->used && idle == a->free_pages
            && runs == tg_lists_check(a, TG_PAGE_FREE)
            && partial == tg_lists_check(a, TG_PAGE_SLAB))
           ? 0 : -1;
}
