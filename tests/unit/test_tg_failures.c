/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tg_failures.h"

#define PER_SECOND  1000


static void
test_burst_and_rate(void **state)
{
    int             i;
    uint64_t        now, key;
    tg_failures_t  *f;

    (void) state;

    f = tg_failures_create(64, 2 * PER_SECOND, 5, 1);
    key = tg_failures_key(f, (const uint8_t *) "\x0a\0\0\1", 4, 7);
    now = 1000000;

    for (i = 0; i < 5; i++) {
        assert_int_equal(tg_failures_wait(f, key, now), 0);
        tg_failures_add(f, key, now);
    }

    assert_int_equal(tg_failures_wait(f, key, now), 1);
    assert_int_equal(tg_failures_wait(f, key, now + 499), 1);
    assert_int_equal(tg_failures_wait(f, key, now + 500), 0);

    tg_failures_add(f, key, now + 500);
    assert_int_equal(tg_failures_wait(f, key, now + 999), 1);
    assert_int_equal(tg_failures_wait(f, key, now + 1000), 0);

    /* all is forgotten, also after a very long time */
    now += 1000000;
    for (i = 0; i < 5; i++) {
        assert_int_equal(tg_failures_wait(f, key, now), 0);
        tg_failures_add(f, key, now);
    }
    assert_int_equal(tg_failures_wait(f, key, now), 1);
    assert_int_equal(tg_failures_wait(f, key, now + (1ULL << 45)), 0);

    tg_failures_destroy(f);
}


static void
test_slow_rate(void **state)
{
    uint64_t        key;
    tg_failures_t  *f;

    (void) state;

    f = tg_failures_create(64, 16, 1, 1);       /* one a minute */
    key = tg_failures_key(f, (const uint8_t *) "\x0a\0\0\1", 4, 7);

    tg_failures_add(f, key, 5000);
    assert_int_equal(tg_failures_wait(f, key, 5000), 63);
    assert_int_equal(tg_failures_wait(f, key, 5000 + 60000), 3);
    assert_int_equal(tg_failures_wait(f, key, 5000 + 62500), 0);

    /* failures that were let in meanwhile do not pile up without end */
    tg_failures_add(f, key, 5000);
    tg_failures_add(f, key, 5000);
    tg_failures_add(f, key, 5000);
    assert_true(tg_failures_wait(f, key, 5000) <= 126);

    /* a clock that steps back forgets nothing and remembers no more */
    assert_true(tg_failures_wait(f, key, 0) <= 126);

    tg_failures_destroy(f);
}


static void
test_keys(void **state)
{
    uint64_t        a;
    tg_failures_t  *f;

    static const uint8_t  v4[] = { 10, 0, 0, 1 };
    static const uint8_t  other_v4[] = { 10, 0, 0, 2 };
    static const uint8_t  v6[] = { 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1,
                                   0, 0, 0, 0, 0, 0, 0, 1 };
    static const uint8_t  same_64[] = { 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1,
                                        9, 9, 9, 9, 9, 9, 9, 9 };
    static const uint8_t  other_64[] = { 0x20, 1, 0xd, 0xb8, 0, 0, 0, 2,
                                         0, 0, 0, 0, 0, 0, 0, 1 };

    (void) state;

    f = tg_failures_create(64, PER_SECOND, 1, 1);
    a = tg_failures_key(f, v4, 4, 7);

    assert_true(a == tg_failures_key(f, v4, 4, 7));
    assert_true(a != tg_failures_key(f, other_v4, 4, 7));
    assert_true(a != tg_failures_key(f, v4, 4, 8));
    assert_true(a != tg_failures_key(f, v4, 0, 7));

    assert_true(tg_failures_key(f, v6, 16, 7)
                == tg_failures_key(f, same_64, 16, 7));
    assert_true(tg_failures_key(f, v6, 16, 7)
                != tg_failures_key(f, other_64, 16, 7));

    /* one key's failures are not another's */
    tg_failures_add(f, a, 1000);
    assert_int_equal(tg_failures_wait(f, a, 1000), 1);
    assert_int_equal(tg_failures_wait(f, tg_failures_key(f, v4, 4, 8), 1000),
                     0);

    tg_failures_destroy(f);
}


/* Ten thousand addresses that fail once do not wash out the one that fails all
 * the time. */
static void
test_crowded(void **state)
{
    int             i;
    uint64_t        bad;
    uint8_t         address[4];
    tg_failures_t  *f;

    (void) state;

    f = tg_failures_create(64, 16, 10, 1);
    bad = tg_failures_key(f, (const uint8_t *) "\x0a\0\0\1", 4, 7);

    for (i = 0; i < 10; i++) {
        tg_failures_add(f, bad, 1000);
    }

    for (i = 0; i < 10000; i++) {
        memcpy(address, &i, 4);
        tg_failures_add(f, tg_failures_key(f, address, 4, 9), 1000);
    }

    assert_true(tg_failures_wait(f, bad, 1000) > 0);
    tg_failures_destroy(f);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_burst_and_rate),
        cmocka_unit_test(test_slow_rate),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_crowded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
