/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The allocator inside a piece of shared memory.
 *
 *  1. Memory is pages of 4 KiB, each with a descriptor.  Objects up to
 *     TG_ARENA_SMALL bytes share a slab: a run of pages cut into objects of one
 *     size class.  Larger ones get a run of pages of their own.
 *  2. Objects carry no header.  Sizes are rounded up to 8, multiples of 16, and
 *     beyond 256 bytes by at most 1/16.
 *  3. Alignment is 16 (8 for objects up to 8 bytes), and 64 for sizes that are
 *     a multiple of 64, up to 1024.
 *  4. Nothing in it is a pointer: it works at any address, provided that the
 *     address modulo the page size stays.
 *  5. One process at a time; no locking here.  A process killed in the middle
 *     leaves free lists that cannot be trusted, but never a wrong descriptor of
 *     pages that hold an object which was handed out before: that is enough for
 *     tg_arena_rebuild().
 */

#ifndef TG_ARENA_H
#define TG_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct tg_arena_s  tg_arena_t;

#define TG_ARENA_PAGE   4096u
#define TG_ARENA_SMALL  16384u

/* Formats size bytes at base (64-byte aligned).  NULL: too small for a page. */
tg_arena_t *tg_arena_create(void *base, size_t size);

/* Not zeroed.  NULL: no room. */
void *tg_arena_alloc(tg_arena_t *arena, size_t size);
void tg_arena_free(tg_arena_t *arena, void *p);

/* Bytes of an allocated object, rounding included; 0: p is not the start of
 * anything that could be one. */
size_t tg_arena_size_of(const tg_arena_t *arena, const void *p);

/* Start of the object that p points into; NULL: none. */
void *tg_arena_object(const tg_arena_t *arena, const void *p);

/* Bytes of pages; bytes of allocated objects, rounding included; bytes in pages
 * that belong to no object and no slab. */
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
int tg_arena_marked(const tg_arena_t *arena, const uint64_t *marks,
    const void *p);
void tg_arena_rebuild(tg_arena_t *arena, const uint64_t *marks);

/* Walks every descriptor and list; 0 if they agree.  For tests. */
int tg_arena_check(const tg_arena_t *arena);

#endif /* TG_ARENA_H */
