/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_flow_queue.h"


#define MOST  1000

static td_flow_lane_key_t  keys[MOST];
static uint64_t            counts[MOST];
static tg_text_t           text;


static size_t
take(td_flow_queue_t *queue, size_t most)
{
    tg_text_reset(&text);

    return td_flow_queue_take(queue, most, &text, keys, counts);
}


static void
add(td_flow_queue_t *queue, uint32_t tenant, uint32_t class, const char *row,
    uint64_t lost)
{
    td_flow_lane_key_t  key = { tenant, class };

    td_flow_queue_add(queue, key, row, strlen(row), lost);
}


static void
assert_text(const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.data, expected, text.len);
}


static void
test_turns(void **state)
{
    td_flow_queue_t  *queue;

    (void) state;

    queue = td_flow_queue_create(10);
    assert_int_equal(take(queue, MOST), 0);

    add(queue, 1, TG_BUCKET_FLOW, "[1,", 0);
    add(queue, 1, TG_BUCKET_FLOW, "[2,", 7);
    add(queue, 1, TG_BUCKET_FLOW, "[3,", 0);
    add(queue, 1, TG_BUCKET_DENY, "[4,", 0);
    add(queue, 2, TG_BUCKET_FLOW, "[5,", 1);

    assert_int_equal(take(queue, 4), 4);
    assert_text("[1,0],[4,0],[5,1],[2,7]");
    assert_int_equal(counts[3], 8);
    assert_int_equal(keys[1].class, TG_BUCKET_DENY);
    assert_int_equal(td_flow_queue_length(queue), 1);
    assert_int_equal(take(queue, MOST), 1);
    assert_text("[3,0]");
    assert_int_equal(take(queue, MOST), 0);
    assert_int_equal(td_flow_queue_lost(queue), 0);
    td_flow_queue_destroy(queue);
}


/* The flood pays, everybody else's records stay, and the sums are exact. */
static void
test_fair(void **state)
{
    int               i;
    size_t            n, flooded;
    uint64_t          stands;
    td_flow_queue_t  *queue;

    (void) state;

    queue = td_flow_queue_create(100);

    for (i = 0; i < 100000; i++) {
        add(queue, 1, TG_BUCKET_DENY, "[f,", i % 1000 == 999 ? 5 : 0);

        if (i % 10000 == 0) {
            add(queue, 2, TG_BUCKET_DENY, "[d,", 0);
            add(queue, 1, TG_BUCKET_FLOW, "[o,", 0);
        }
    }

    assert_int_equal(td_flow_queue_length(queue), 100);
    n = take(queue, MOST);
    assert_int_equal(n, 100);

    for (stands = 0, flooded = 0; n > 0; n--) {
        if (keys[n - 1].tenant == 1 && keys[n - 1].class == TG_BUCKET_DENY) {
            stands += counts[n - 1];
            flooded++;
        } else {
            assert_int_equal(counts[n - 1], 1);
        }
    }

    assert_int_equal(flooded, 80);
    assert_int_equal(stands, 100000 + 100 * 5);
    assert_int_equal(td_flow_queue_lost(queue), 100000 - 80);
    td_flow_queue_destroy(queue);
}


static void
test_given_back(void **state)
{
    td_flow_queue_t     *queue;
    td_flow_lane_key_t   key = { 3, TG_BUCKET_FLOW };

    (void) state;

    queue = td_flow_queue_create(10);
    td_flow_queue_lose(queue, key, 4);
    assert_int_equal(take(queue, MOST), 0);
    add(queue, 3, TG_BUCKET_DENY, "[1,", 0);
    add(queue, 3, TG_BUCKET_FLOW, "[2,", 2);
    assert_int_equal(take(queue, MOST), 2);
    assert_text("[1,0],[2,6]");
    td_flow_queue_destroy(queue);
    td_flow_queue_destroy(NULL);
}


/* Random work against what was put in. */
static void
test_accounts(void **state)
{
    int               i;
    size_t            n;
    uint64_t          put[8] = { 0 }, got[8] = { 0 };
    td_flow_queue_t  *queue;

    (void) state;

    srandom(7);
    queue = td_flow_queue_create(50);

    for (i = 0; i < 50000; i++) {
        if (random() % 20 != 0) {
            n = (size_t) random() % 8;
            add(queue, (uint32_t) n, (uint32_t) n % 3, "[", (uint64_t) n);
            put[n] += 1 + n;
            continue;
        }

        for (n = take(queue, (size_t) random() % 60); n > 0; n--) {
            got[keys[n - 1].tenant] += counts[n - 1];
        }
        assert_true(td_flow_queue_length(queue) <= 50);
    }

    for (i = 0; i < 8; i++) {
        add(queue, (uint32_t) i, (uint32_t) i % 3, "[", 0);
        put[i]++;
    }

    while ((n = take(queue, MOST)) > 0) {
        for (; n > 0; n--) {
            got[keys[n - 1].tenant] += counts[n - 1];
        }
    }

    assert_memory_equal(put, got, sizeof(put));
    td_flow_queue_destroy(queue);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_turns), cmocka_unit_test(test_fair),
        cmocka_unit_test(test_given_back), cmocka_unit_test(test_accounts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
