/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_ratelimit.h"

/* A block of which only strings and quotas are read. */
static union {
    tg_block_t  block;
    char        bytes[8192];
} room;

static uint32_t        strings;
static tg_quota_t      quotas[TG_MAX_REQUEST_QUOTAS];
static tg_quota_set_t  set;

static const tg_quota_now_t  now = { 1000000000, 1772236790 };


static tg_ref_t
text(const char *s)
{
    tg_ref_t  ref;

    ref.off = strings;
    ref.len = (uint32_t) strlen(s);
    memcpy(room.bytes + strings, s, ref.len + 1);
    strings += ref.len + 1;

    return ref;
}


static int
setup(void **state)
{
    (void) state;

    memset(&room, 0, sizeof(room));
    memset(&quotas, 0, sizeof(quotas));
    memset(&set, 0, sizeof(set));
    room.block.boost_milli = 1000;
    strings = sizeof(tg_block_t);
    set.block = &room.block;
    set.consumer = "";

    return 0;
}


static tg_quota_t *
add(const char *name, uint64_t limit, uint32_t seconds)
{
    tg_quota_t  *quota = &quotas[set.n];

    quota->name = text(name);
    quota->limit = limit;
    quota->burst = limit;
    quota->seconds = seconds;
    set.quota[set.n++] = quota;

    return quota;
}


static void
assert_policy(const char *expected)
{
    char    out[TG_RATELIMIT_SIZE + 1];
    size_t  n;

    n = tg_ratelimit_policy(out, sizeof(out) - 1, &set, &now);
    out[n] = '\0';
    assert_string_equal(out, expected);
}


static void
assert_limit(const tg_quota_result_t *result, const char *expected)
{
    char    out[TG_RATELIMIT_ITEM + 1];
    size_t  n;

    n = tg_ratelimit_limit(out, sizeof(out) - 1, &set, result);
    out[n] = '\0';
    assert_string_equal(out, expected);
}


static void
test_policy(void **state)
{
    (void) state;

    assert_policy("");

    add("burst", 100, 60);
    assert_policy("\"burst\";q=100;w=60");

    add("daily", 1000000000000, 0)->window = TG_WINDOW_DAY;
    add("monthly", 7, 0)->window = TG_WINDOW_MONTH;
    assert_policy("\"burst\";q=100;w=60, \"daily\";q=1000000000000;w=86400, "
                  "\"monthly\";q=7;w=2419200");

    setup(NULL);
    add("flight", 3, 0)->metric = TG_METRIC_CONCURRENCY;
    assert_policy("\"flight\";q=3;qu=\"concurrent-requests\"");
}


static void
test_dry_run_is_not_told(void **state)
{
    (void) state;

    add("a", 1, 1)->dry_run = 1;
    assert_policy("");
    add("b", 2, 1);
    add("c", 1, 1)->dry_run = 1;
    assert_policy("\"b\";q=2;w=1");
}


static void
test_boost(void **state)
{
    (void) state;

    room.block.boost_milli = 2500;
    room.block.boost_until = now.unix_s + 1;
    room.block.boost_end = now.mono_us + 1;
    add("a", 100, 1);
    assert_policy("\"a\";q=250;w=1");

    room.block.boost_until = now.unix_s;
    room.block.boost_end = now.mono_us;
    assert_policy("\"a\";q=100;w=1");
}


static void
test_partition(void **state)
{
    char         longer[TG_RATELIMIT_KEY + 2];
    tg_quota_t  *quota;

    (void) state;

    quota = add("each", 5, 1);
    quota->scope = TG_SCOPE_CONSUMER;
    assert_policy("\"each\";q=5;w=1");

    set.consumer = "trial121323";
    set.consumer_len = 11;
    assert_policy("\"each\";q=5;w=1;pk=:dHJpYWwxMjEzMjM=:");

    /* bytes that must not reach a header as they are */
    set.consumer = "a\r\nX: \"y\"";
    set.consumer_len = 9;
    assert_policy("\"each\";q=5;w=1;pk=:YQ0KWDogInki:");

    memset(longer, 'x', sizeof(longer));
    set.consumer = longer;
    set.consumer_len = TG_RATELIMIT_KEY + 1;
    assert_policy("\"each\";q=5;w=1");

    quota->scope = TG_SCOPE_TENANT;
    set.consumer_len = 3;
    assert_policy("\"each\";q=5;w=1");
}


static void
test_escapes(void **state)
{
    (void) state;

    add("a\"b\\c", 1, 1);
    assert_policy("\"a\\\"b\\\\c\";q=1;w=1");
}


static void
test_limit(void **state)
{
    tg_quota_t         *quota;
    tg_quota_result_t   result;

    (void) state;

    memset(&result, 0, sizeof(result));
    assert_limit(&result, "");

    quota = add("burst", 100, 60);
    result.quota = quota;
    assert_limit(&result, "\"burst\";r=0;t=0");

    result.remaining = 50;
    result.reset_s = 30;
    assert_limit(&result, "\"burst\";r=50;t=30");

    quota->scope = TG_SCOPE_CONSUMER;
    set.consumer = "x";
    set.consumer_len = 1;
    assert_limit(&result, "\"burst\";r=50;t=30;pk=:eA==:");

    quota->metric = TG_METRIC_CONCURRENCY;
    result.remaining = 0;
    assert_limit(&result, "\"burst\";r=0;pk=:eA==:");
}


/* Little room: whole items or none. */
static void
test_room(void **state)
{
    char                out[64];
    size_t              n;
    tg_quota_result_t   result;

    (void) state;

    add("a", 1, 1);
    add("bbbbbbbbbb", 1, 1);
    add("c", 1, 1);

    for (size_t size = 0; size < sizeof(out); size++) {
        memset(out, '#', sizeof(out));
        n = tg_ratelimit_policy(out, size, &set, &now);
        assert_true(n <= size);
        assert_true(size == sizeof(out) || out[size] == '#');
        assert_true(n == 0 || n == 11 || n == 24 || n == 33 || n == 46);
    }

    memset(&result, 0, sizeof(result));
    result.quota = &quotas[0];
    assert_int_equal(tg_ratelimit_limit(out, 10, &set, &result), 0);
    assert_int_equal(tg_ratelimit_limit(out, 11, &set, &result), 11);
}


/* The longest that there can be. */
static void
test_longest(void **state)
{
    char    name[TG_MAX_NAME + 1], consumer[TG_RATELIMIT_KEY];
    char   *out;
    size_t  n, items;

    (void) state;

    memset(name, '"', TG_MAX_NAME);
    name[TG_MAX_NAME] = '\0';
    memset(consumer, 'x', sizeof(consumer));

    for (int i = 0; i < TG_MAX_REQUEST_QUOTAS; i++) {
        tg_quota_t  *quota = add(name, TG_MAX_LIMIT, TG_MAX_SECONDS);

        quota->scope = TG_SCOPE_CONSUMER;
        quota->metric = i % 2 ? TG_METRIC_CONCURRENCY : TG_METRIC_REQUESTS;
    }

    set.consumer = consumer;
    set.consumer_len = sizeof(consumer);

    out = malloc(TG_RATELIMIT_SIZE);
    assert_non_null(out);
    n = tg_ratelimit_policy(out, TG_RATELIMIT_SIZE, &set, &now);
    items = 0;

    for (size_t i = 0; i + 4 < n; i++) {
        items += memcmp(out + i, ";pk=", 4) == 0;
    }

    assert_int_equal(items, TG_MAX_REQUEST_QUOTAS);
    assert_int_equal(out[n - 1], ':');
    free(out);
}


int
main(void)
{
#define TEST(name)  cmocka_unit_test_setup(name, setup)

    const struct CMUnitTest  tests[] = {
        TEST(test_policy),
        TEST(test_dry_run_is_not_told),
        TEST(test_boost),
        TEST(test_partition),
        TEST(test_escapes),
        TEST(test_limit),
        TEST(test_room),
        TEST(test_longest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
