/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tg_alias.h"

#define MANY  1000


/* What share each item gets of all that the table says, in 1/2^32 of a slot. */
static void
check_shares(const uint32_t *weights, size_t n)
{
    size_t       i;
    double       total, share;
    uint64_t     got[MANY];
    tg_alias_t   table[MANY];

    assert_int_equal(tg_alias_build(weights, n, table), 0);

    total = 0;
    for (i = 0; i < n; i++) {
        total += weights[i] > TG_ALIAS_WEIGHT_MAX ? TG_ALIAS_WEIGHT_MAX : weights[i];
        got[i] = 0;
    }

    for (i = 0; i < n; i++) {
        assert_true(table[i].other < n);
        got[i] += table[i].own;
        got[table[i].other] += 0x100000000ULL - table[i].own;
    }

    for (i = 0; i < n; i++) {
        share = (weights[i] > TG_ALIAS_WEIGHT_MAX ? TG_ALIAS_WEIGHT_MAX : weights[i])
                / total * (double) n * 4294967296.0;
        /* A slot rounds to one part in 2^32. */
        assert_true(got[i] <= share + (double) n && got[i] + (double) n >= share);
    }
}


static void
test_shares(void **state)
{
    size_t    i;
    uint32_t  weights[MANY];

    (void) state;

    check_shares((uint32_t[]) { 1 }, 1);
    check_shares((uint32_t[]) { 90, 10 }, 2);
    check_shares((uint32_t[]) { 1, 2, 3 }, 3);
    check_shares((uint32_t[]) { 0, 5, 0 }, 3);
    check_shares((uint32_t[]) { 1, 65535 }, 2);
    check_shares((uint32_t[]) { UINT32_MAX, 65535 }, 2);
    check_shares((uint32_t[]) { 7, 7, 7, 7, 7 }, 5);

    srand(1);
    for (i = 0; i < MANY; i++) {
        weights[i] = (uint32_t) rand() % 1000;
    }
    check_shares(weights, MANY);
}


static void
test_no_item_of_weight_0_is_taken(void **state)
{
    tg_alias_t  table[3];

    (void) state;

    assert_int_equal(tg_alias_build((uint32_t[]) { 0, 5, 0 }, 3, table), 0);
    assert_int_equal(table[0].own, 0);
    assert_int_equal(table[0].other, 1);
    assert_int_equal(table[2].own, 0);
    assert_int_equal(table[2].other, 1);
}


static void
test_nothing(void **state)
{
    (void) state;

    assert_int_equal(tg_alias_build(NULL, 0, NULL), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_no_item_of_weight_0_is_taken),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
