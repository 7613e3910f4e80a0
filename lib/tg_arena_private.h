/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Chunks are referred to by their distance from the arena in units of 16 bytes;
 * 0 is none.  Their headers lie 8 bytes below a multiple of 16, so that what
 * follows them is aligned.
 */

#ifndef TG_ARENA_PRIVATE_H
#define TG_ARENA_PRIVATE_H

#include "tg_arena.h"

#define TG_HEAP_UNIT     16u
#define TG_HEAP_HEADER   8u
#define TG_HEAP_USED     0x80000000u
#define TG_HEAP_ROWS     28
#define TG_HEAP_COLUMNS  16

#define TG_SLAB_UNIT     8u             /* bytes from one class to the next */
#define TG_SLAB_CLASSES  (TG_ARENA_SMALL / TG_SLAB_UNIT + 1)
#define TG_SLAB_ROOM     (TG_ARENA_PAGE - TG_HEAP_HEADER)

typedef struct {
    uint32_t  size;         /* units, the header included | TG_HEAP_USED */
    uint32_t  before;       /* units of the chunk in front; 0: this is the first */
    uint32_t  next;         /* in the bin, only while it is free */
    uint32_t  prev;
} tg_chunk_t;

/* Free chunks by size: a row for each power of two, columns of equal width. */
typedef struct {
    uint32_t  first;        /* chunk */
    uint32_t  end;          /* a header that counts as used and ends the heap */
    uint64_t  unused;       /* bytes */
    uint32_t  rows;         /* bit masks of those not empty */
    uint32_t  columns[TG_HEAP_ROWS];
    uint32_t  bin[TG_HEAP_ROWS][TG_HEAP_COLUMNS];
    uint32_t  kept;         /* while rebuilding: end of the last live chunk */
    uint32_t  before;       /* and its size */
} tg_heap_t;

/* A page that is a slab.  Numbers of pages in lists are one more than that. */
typedef struct {
    uint8_t   slab;         /* 1: is one; else nothing here means anything */
    uint8_t   class;
    uint16_t  used;         /* objects allocated */
    uint16_t  free;         /* first freed object, plus one; linked through their
                             * first two bytes */
    uint16_t  fresh;        /* objects from here on were never handed out */
    uint32_t  prev;         /* in the list of slabs that have room */
    uint32_t  next;
} tg_page_t;

struct tg_arena_s {
    uint64_t   used;
    uint32_t   npages;
    uint32_t   first;                       /* bytes to the first page */
    uint32_t   partial[TG_SLAB_CLASSES];    /* slabs that have room */
    tg_heap_t  heap;
    tg_page_t  page[];
};

static inline tg_chunk_t *
tg_chunk(const tg_arena_t *a, uint32_t ref)
{
    return (tg_chunk_t *) ((uintptr_t) a + (uintptr_t) ref * TG_HEAP_UNIT
                           + TG_HEAP_HEADER);
}

/* Of the memory behind a chunk's header, and back. */
static inline void *
tg_chunk_memory(const tg_arena_t *a, uint32_t ref)
{
    return (char *) tg_chunk(a, ref) + TG_HEAP_HEADER;
}

static inline uint32_t
tg_chunk_of(const tg_arena_t *a, const void *p)
{
    return (uint32_t) (((uintptr_t) p - (uintptr_t) a) / TG_HEAP_UNIT - 1);
}

/* All of the arena's pages become one free chunk. */
void tg_heap_create(tg_arena_t *arena);

/* Memory of a chunk, or NULL. */
void *tg_heap_alloc(tg_arena_t *arena, size_t size, size_t align);
void tg_heap_free(tg_arena_t *arena, void *p);

/* Bytes of the chunk in use whose memory p is; 0: it cannot be one. */
size_t tg_heap_size_of(const tg_arena_t *arena, const void *p);

/* Rebuilding: begin, keep each live chunk in order of address, end. */
void tg_heap_rebuild_begin(tg_arena_t *arena);
void tg_heap_keep(tg_arena_t *arena, const void *p);
void tg_heap_rebuild_end(tg_arena_t *arena);

/* *used: bytes of chunks in use.  -1: something does not agree. */
int tg_heap_check(const tg_arena_t *arena, uint64_t *used);

#endif /* TG_ARENA_PRIVATE_H */
