/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The allocator inside a piece of shared memory.
 *
 *  1. Objects up to TG_ARENA_SMALL bytes lie in slabs: pages of 4 KiB, cut into
 *     objects of one size (a multiple of 8) without a header.  Larger ones are
 *     chunks of a heap with 8 bytes of header that merge with their neighbours
 *     when freed: versions of tenants come in all sizes, and a zone must not fill
 *     up with holes that are a little too short.
 *  2. Alignment is 16 for sizes that are a multiple of 16 or above
 *     TG_ARENA_SMALL, otherwise 8.
 *  3. Nothing in it is a pointer: it works at any address, provided that the
 *     address modulo the page size stays.
 *  4. One process at a time; no locking here.  A process killed in the middle
 *     leaves lists that cannot be trusted.  But what describes an object that
 *     was handed out before (the header of a chunk, the size of a slab's
 *     objects) never changes while the object lives: that is enough for
 *     tg_arena_rebuild().
 */

#ifndef TG_ARENA_H
#define TG_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct tg_arena_s  tg_arena_t;

#define TG_ARENA_PAGE   4096u
#define TG_ARENA_SMALL  256u

/* Formats size bytes at base (64-byte aligned).  NULL: too small for a page. */
tg_arena_t *tg_arena_create(void *base, size_t size);

/* Not zeroed.  NULL: no room. */
void *tg_arena_alloc(tg_arena_t *arena, size_t size);

/* align: a power of two up to TG_ARENA_PAGE; size above TG_ARENA_SMALL. */
void *tg_arena_alloc_aligned(tg_arena_t *arena, size_t size, size_t align);

void tg_arena_free(tg_arena_t *arena, void *p);

/* Bytes that an allocated object takes; 0: p is nothing that could be one. */
size_t tg_arena_size_of(const tg_arena_t *arena, const void *p);

/* Bytes in all; bytes that allocated objects take; bytes in free chunks. */
uint64_t tg_arena_size(const tg_arena_t *arena);
uint64_t tg_arena_used(const tg_arena_t *arena);
uint64_t tg_arena_unused(const tg_arena_t *arena);

/*
 * Rebuilding from what is alive: get tg_arena_marks_size() zeroed bytes, mark
 * each live object once or more, call tg_arena_rebuild().  Everything that is
 * not marked is free then.  tg_arena_mark() returns 0, 1 if p was marked
 * before, -1 if p cannot be an object.
 */
size_t tg_arena_marks_size(const tg_arena_t *arena);
int tg_arena_mark(const tg_arena_t *arena, uint64_t *marks, const void *p);
void tg_arena_rebuild(tg_arena_t *arena, const uint64_t *marks);

/* Walks every page, chunk and list; 0 if they agree.  For tests. */
int tg_arena_check(const tg_arena_t *arena);

#endif /* TG_ARENA_H */
