/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_arena.h"

#define KB  1024u
#define MB  (1024u * 1024u)

#define MAX_OBJECTS  8192

typedef struct {
    void        *memory;
    tg_arena_t  *arena;
    size_t       size;
    uint64_t     state;         /* of the random numbers */
    size_t       n;
    struct {
        uint8_t *p;
        size_t   size;
        uint8_t  fill;
    } object[MAX_OBJECTS];
} world_t;


static world_t *
world_create(size_t size)
{
    world_t  *w = calloc(1, sizeof(world_t));

    assert_non_null(w);
    assert_int_equal(posix_memalign(&w->memory, TG_ARENA_PAGE, size), 0);
    memset(w->memory, 0xa5, size);

    w->size = size;
    w->state = 88172645463325252ull;
    w->arena = tg_arena_create(w->memory, size);
    assert_non_null(w->arena);

    return w;
}


static void
world_destroy(world_t *w)
{
    free(w->memory);
    free(w);
}


static uint64_t
world_random(world_t *w, uint64_t below)
{
    w->state ^= w->state << 13;
    w->state ^= w->state >> 7;
    w->state ^= w->state << 17;

    return w->state % below;
}


static int
world_alloc(world_t *w, size_t size, size_t align)
{
    uint8_t  *p;

    if (w->n == MAX_OBJECTS) {
        return 0;
    }

    p = align ? tg_arena_alloc_aligned(w->arena, size, align)
              : tg_arena_alloc(w->arena, size);
    if (p == NULL) {
        return 0;
    }

    if (align == 0) {
        align = (size > TG_ARENA_SMALL || size % 16 == 0) ? 16 : 8;
    }

    assert_int_equal((uintptr_t) p % align, 0);
    assert_true(tg_arena_size_of(w->arena, p) >= size);
    assert_true(p >= (uint8_t *) w->memory);
    assert_true(p + size <= (uint8_t *) w->memory + w->size);

    w->object[w->n].p = p;
    w->object[w->n].size = size;
    w->object[w->n].fill = (uint8_t) world_random(w, 256);
    memset(p, w->object[w->n].fill, size);
    w->n++;

    return 1;
}


static void
world_verify(world_t *w, size_t i)
{
    size_t  k;

    for (k = 0; k < w->object[i].size; k++) {
        assert_int_equal(w->object[i].p[k], w->object[i].fill);
    }
}


static void
world_free(world_t *w, size_t i)
{
    world_verify(w, i);
    tg_arena_free(w->arena, w->object[i].p);
    w->object[i] = w->object[--w->n];
}


static void
world_check(world_t *w)
{
    size_t    i;
    uint64_t  used;

    used = 0;

    for (i = 0; i < w->n; i++) {
        world_verify(w, i);
        used += tg_arena_size_of(w->arena, w->object[i].p);
    }

    assert_int_equal(tg_arena_used(w->arena), used);
    assert_int_equal(tg_arena_check(w->arena), 0);
}


/* As the zone: many small, some of a tenant's size, few huge. */
static size_t
world_size(world_t *w)
{
    switch (world_random(w, 16)) {
    case 0: return 1 + world_random(w, 8);
    case 1: return 16400;
    case 2: return 1 + world_random(w, 60000);
    case 3: case 4: case 5: return 600 + world_random(w, 3000);
    default: return 1 + world_random(w, 300);
    }
}


static void
world_churn(world_t *w, int rounds)
{
    while (rounds--) {
        if (w->n && world_random(w, 100) < 48) {
            world_free(w, world_random(w, w->n));

        } else if (!world_alloc(w, world_size(w), 0) && w->n) {
            world_free(w, world_random(w, w->n));
        }
    }
}


static void
test_too_small(void **state)
{
    size_t  size;
    void   *p;

    (void) state;

    assert_int_equal(posix_memalign(&p, TG_ARENA_PAGE, 16 * KB), 0);

    for (size = 0; size < 4 * KB; size += 64) {
        assert_null(tg_arena_create(p, size));
    }

    assert_non_null(tg_arena_create(p, 16 * KB));
    assert_int_equal(tg_arena_check(p), 0);

    free(p);
}


static void
test_random(void **state)
{
    int       i;
    world_t  *w = world_create(2 * MB);

    (void) state;

    for (i = 0; i < 20; i++) {
        world_churn(w, 1000);
        world_check(w);
    }

    while (w->n) {
        world_free(w, w->n - 1);
    }

    world_check(w);

    /* everything has merged again */
    assert_int_equal(tg_arena_unused(w->arena), tg_arena_size(w->arena));
    assert_non_null(tg_arena_alloc(w->arena, tg_arena_size(w->arena) - 8));

    world_destroy(w);
}


static void
test_full(void **state)
{
    size_t    size;
    world_t  *w = world_create(1 * MB);

    (void) state;

    assert_null(tg_arena_alloc(w->arena, 2 * MB));
    assert_null(tg_arena_alloc(w->arena, SIZE_MAX));
    assert_null(tg_arena_alloc(w->arena, SIZE_MAX - 64));
    assert_null(tg_arena_alloc(w->arena, tg_arena_size(w->arena)));

    /* small ones fill what large ones leave */

    for (size = 64 * KB; size >= 257; size = size * 2 / 3) {
        while (world_alloc(w, size, 0)) { /* void */ }
        assert_null(tg_arena_alloc(w->arena, size));
        assert_int_equal(tg_arena_check(w->arena), 0);
    }

    assert_true(tg_arena_unused(w->arena) < tg_arena_size(w->arena) / 100);
    world_check(w);

    world_free(w, w->n / 2);
    world_check(w);

    world_destroy(w);
}


/* A hole of exactly one page is found for a slab although nothing else is free,
 * and however many holes of that size at other places come first. */
static void
test_slab_finds_last_page(void **state)
{
    size_t    i;
    world_t  *w = world_create(1 * MB);

    (void) state;

    while (world_alloc(w, 1016, 0)) { /* 1 KiB with the header */ }
    while (world_alloc(w, 256, 0)) { /* void */ }
    while (world_alloc(w, 8, 0)) { /* void */ }
    assert_null(tg_arena_alloc(w->arena, 100));

    for (i = 0; i < w->n; i++) {
        if (w->object[i].size == 1016
            && (uintptr_t) w->object[i].p % TG_ARENA_PAGE >= 2048)
        {
            world_free(w, i--);
        }
    }

    /* holes of 2 KiB: no page fits */
    assert_null(tg_arena_alloc(w->arena, 100));

    for (i = 0; i < w->n; i++) {
        if (w->object[i].size == 1016
            && (uintptr_t) w->object[i].p % TG_ARENA_PAGE == 0)
        {
            world_free(w, i);
            break;
        }
    }

    assert_null(tg_arena_alloc(w->arena, 100));

    for (i = 0; i < w->n; i++) {
        if (w->object[i].size == 1016
            && (uintptr_t) w->object[i].p % TG_ARENA_PAGE == 1024)
        {
            world_free(w, i--);
        }
    }

    assert_true(world_alloc(w, 100, 0));
    world_check(w);

    world_destroy(w);
}


static void
test_aligned(void **state)
{
    size_t    align;
    world_t  *w = world_create(4 * MB);

    (void) state;

    for (align = 16; align <= TG_ARENA_PAGE; align *= 2) {
        assert_true(world_alloc(w, 300 + align, 0));
        assert_true(world_alloc(w, 300 + align, align));
        assert_true(world_alloc(w, 64 * KB, align));
        assert_true(world_alloc(w, 1, 0));
    }

    world_check(w);
    world_churn(w, 2000);
    world_check(w);

    world_destroy(w);
}


/*
 * All objects get 1/8 longer, in random order, at three quarters full: what
 * happens when every tenant of a zone gets one more route.
 */
static void
test_rewrite_when_nearly_full(void **state)
{
    size_t    i, k, n, old;
    world_t  *w = world_create(4 * MB);

    (void) state;

    while (tg_arena_used(w->arena) < tg_arena_size(w->arena) / 4 * 3) {
        assert_true(world_alloc(w, 900 + world_random(w, 400), 0));
        assert_true(world_alloc(w, 176, 0));
        assert_true(world_alloc(w, 64, 0));
    }

    n = w->n;

    for (k = 0; k < 2 * n; k++) {
        i = world_random(w, w->n);
        old = w->object[i].size;

        if (old > 256 && old < 1463) {
            assert_true(world_alloc(w, old < 1300 ? old * 9 / 8 : old, 0));
            world_free(w, i);
        }
    }

    world_check(w);
    world_destroy(w);
}


/* Everything that is not an object's own memory can be lost. */
static void
test_rebuild(void **state)
{
    int        i;
    size_t     k;
    uint64_t   used, unused, *marks;
    world_t   *w = world_create(2 * MB);

    (void) state;

    for (i = 0; i < 10; i++) {
        world_churn(w, 1500);

        marks = calloc(1, tg_arena_marks_size(w->arena));
        assert_non_null(marks);

        /* leaked ones among them */
        for (k = 0; k < 20; k++) {
            (void) tg_arena_alloc(w->arena, world_size(w));
        }

        for (k = 0; k < w->n; k++) {
            assert_int_equal(tg_arena_mark(w->arena, marks, w->object[k].p), 0);
            assert_int_equal(tg_arena_mark(w->arena, marks, w->object[k].p), 1);
        }

        tg_arena_rebuild(w->arena, marks);
        world_check(w);

        /* once more changes nothing */
        used = tg_arena_used(w->arena);
        unused = tg_arena_unused(w->arena);
        tg_arena_rebuild(w->arena, marks);
        assert_int_equal(tg_arena_used(w->arena), used);
        assert_int_equal(tg_arena_unused(w->arena), unused);
        world_check(w);

        free(marks);
    }

    while (w->n) {
        world_free(w, w->n - 1);
    }

    world_check(w);
    assert_int_equal(tg_arena_unused(w->arena), tg_arena_size(w->arena));

    world_destroy(w);
}


static void
test_mark_refuses_what_is_no_object(void **state)
{
    void      *small, *large, *freed;
    uint64_t  *marks;
    world_t   *w = world_create(1 * MB);

    (void) state;

    marks = calloc(1, tg_arena_marks_size(w->arena));
    assert_non_null(marks);

    small = tg_arena_alloc(w->arena, 100);
    large = tg_arena_alloc(w->arena, 5000);
    freed = tg_arena_alloc(w->arena, 5000);
    tg_arena_free(w->arena, freed);

    assert_int_equal(tg_arena_mark(w->arena, marks, w->memory), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, NULL), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, (char *) small + 8), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, (char *) small + 112), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, (char *) large + 8), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, freed), -1);
    assert_int_equal(tg_arena_mark(w->arena, marks, (char *) w->memory + w->size),
                     -1);

    free(marks);
    world_destroy(w);
}


/* Another process has it elsewhere. */
static void
test_moves(void **state)
{
    void      *copy = NULL;
    size_t     i;
    world_t   *w = world_create(1 * MB);

    (void) state;

    world_churn(w, 2000);

    assert_int_equal(posix_memalign(&copy, TG_ARENA_PAGE, w->size), 0);
    memcpy(copy, w->memory, w->size);

    for (i = 0; i < w->n; i++) {
        w->object[i].p = (uint8_t *) copy + (w->object[i].p
                                             - (uint8_t *) w->memory);
    }

    memset(w->memory, 0x5a, w->size);
    free(w->memory);

    w->arena = (tg_arena_t *) copy;
    w->memory = copy;

    world_check(w);
    world_churn(w, 2000);
    world_check(w);

    world_destroy(w);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_slab_finds_last_page),
        cmocka_unit_test(test_aligned),
        cmocka_unit_test(test_rewrite_when_nearly_full),
        cmocka_unit_test(test_rebuild),
        cmocka_unit_test(test_mark_refuses_what_is_no_object),
        cmocka_unit_test(test_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
