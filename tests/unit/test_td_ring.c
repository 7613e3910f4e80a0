/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_ring.h"


static td_ring_t  *ring;


static void
add(int64_t revision)
{
    td_line_source_t  source = { "tenant", "t", revision, revision, revision, 1,
                                 "{}", NULL, 0 };

    td_ring_add(ring, td_line_create(&source));
}


/* The revisions that somebody at "at" is shown, as "11 12 ". */
static const char *
shown(int64_t at)
{
    int           gone;
    size_t        n;
    uint64_t      number;
    td_line_t    *line;
    static char   text[256];

    n = 0;
    text[0] = '\0';

    for (number = td_ring_seek(ring, at);
         (line = td_ring_get(ring, number, &gone)) != NULL;
         number++)
    {
        assert_false(gone);
        n += (size_t) snprintf(text + n, sizeof(text) - n, "%lld ",
                               (long long) line->revision);
    }

    return text;
}


static int
setup(void **state)
{
    (void) state;

    ring = td_ring_create(6, 1024 * 1024);
    assert_non_null(ring);
    td_ring_reset(ring, 10);

    return 0;
}


static int
teardown(void **state)
{
    (void) state;

    td_ring_destroy(ring);

    return 0;
}


static void
test_batches(void **state)
{
    (void) state;

    assert_int_equal(td_ring_floor(ring), 10);
    assert_int_equal(td_ring_end(ring), 10);
    assert_string_equal(shown(10), "");

    add(11);
    add(12);
    td_ring_commit(ring, 15);
    add(16);
    td_ring_commit(ring, 16);
    td_ring_commit(ring, 18);

    assert_int_equal(td_ring_end(ring), 18);
    assert_string_equal(shown(10), "11 12 16 ");
    /* in the middle of a batch: all of it again */
    assert_string_equal(shown(11), "11 12 16 ");
    assert_string_equal(shown(14), "11 12 16 ");
    assert_string_equal(shown(15), "16 ");
    assert_string_equal(shown(16), "");
    assert_string_equal(shown(18), "");
}


static void
test_eviction(void **state)
{
    int  gone;

    (void) state;

    add(11);
    add(12);
    td_ring_commit(ring, 12);
    add(13);
    add(14);
    td_ring_commit(ring, 14);
    add(15);
    add(16);
    td_ring_commit(ring, 16);
    assert_int_equal(td_ring_floor(ring), 10);

    /* half a batch is of no use: the floor is at its end */
    add(17);
    td_ring_commit(ring, 17);
    assert_int_equal(td_ring_floor(ring), 12);
    assert_string_equal(shown(12), "13 14 15 16 17 ");

    assert_null(td_ring_get(ring, 0, &gone));
    assert_true(gone);
    assert_null(td_ring_get(ring, 7, &gone));
    assert_false(gone);
}


static void
test_batch_larger_than_the_ring(void **state)
{
    int64_t  i;

    (void) state;

    add(11);
    td_ring_commit(ring, 11);

    for (i = 12; i < 30; i++) {
        add(i);
    }
    td_ring_commit(ring, 30);

    assert_int_equal(td_ring_floor(ring), 30);
    assert_int_equal(td_ring_end(ring), 30);
    assert_string_equal(shown(30), "");

    add(31);
    td_ring_commit(ring, 31);
    assert_string_equal(shown(30), "31 ");
}


static void
test_bytes(void **state)
{
    (void) state;

    td_ring_destroy(ring);
    ring = td_ring_create(100, 300);
    td_ring_reset(ring, 10);

    add(11);
    td_ring_commit(ring, 11);
    add(12);
    td_ring_commit(ring, 12);
    add(13);
    td_ring_commit(ring, 13);
    add(14);
    td_ring_commit(ring, 14);
    add(15);
    td_ring_commit(ring, 15);

    assert_true(td_ring_bytes(ring) <= 300);
    assert_true(td_ring_floor(ring) > 10);
    assert_string_equal(shown(14), "15 ");
}


static void
test_abort(void **state)
{
    int64_t  i;

    (void) state;

    add(11);
    td_ring_commit(ring, 11);
    add(12);
    add(13);
    td_ring_abort(ring);
    assert_string_equal(shown(10), "11 ");

    add(12);
    td_ring_commit(ring, 12);
    assert_string_equal(shown(10), "11 12 ");

    for (i = 13; i < 30; i++) {
        add(i);
    }
    td_ring_abort(ring);
    assert_int_equal(td_ring_end(ring), 12);
    assert_int_equal(td_ring_floor(ring), 12);
    assert_string_equal(shown(12), "");

    add(13);
    td_ring_commit(ring, 13);
    assert_string_equal(shown(12), "13 ");
}


static void
test_reset(void **state)
{
    uint64_t  next;

    (void) state;

    add(11);
    td_ring_commit(ring, 11);
    next = td_ring_seek(ring, 11);

    td_ring_reset(ring, 50);
    assert_int_equal(td_ring_floor(ring), 50);
    assert_int_equal(td_ring_bytes(ring), 0);
    /* numbers go on: nobody takes a new entry for an old one */
    assert_int_equal(td_ring_seek(ring, 50), next);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(test_batches, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eviction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_batch_larger_than_the_ring, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
