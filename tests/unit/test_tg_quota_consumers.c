/* SPDX-License-Identifier: BSD-2-Clause */

#include "quota_fixture.h"


static void
test_each_consumer(void **state)
{
    char                name[32];
    unsigned            i, n;
    fixture_t          *f = *state;
    tg_quota_set_t      set;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'each','scope':'consumer','metric':'requests',"
            "'limit':3,'window':'60s'}", NULL);

    assert_int_equal(admitted_as(f, "ann", 10), 3);
    assert_int_equal(admitted_as(f, "bob", 10), 3);
    assert_int_equal(admitted_as(f, "ann", 10), 0);

    /* nobody is somebody, too */
    assert_int_equal(admitted_as(f, "", 10), 3);
    assert_int_equal(admitted_as(f, "", 10), 0);

    /* in a bucket, as everybody */
    assert_int_equal(state_of(f, 0)->word, 0);
    f->now.mono_us += 600 * SECOND;
    tg_quota_select(&set, f->zone, f->block,
                    tg_vec(f->block, f->block->routes, tg_route_t), NULL, 0);

    for (i = 0; i < 4; i++) {
        assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                         i < 3 ? TG_QUOTA_OK : TG_QUOTA_REFUSED);
    }

    assert_int_equal(state_of(f, 0)->word, 0);

    /* many: each its own, but for those that found no bucket */
    f->now.mono_us += 600 * SECOND;
    n = 0;

    for (i = 0; i < 120; i++) {
        snprintf(name, sizeof(name), "consumer-%u", i);
        n += admitted_as(f, name, 10);
    }

    assert_int_equal(n, 360);

    /* far too many: the rest share one, nobody gets more than his own */
    for (i = 120; i < 2000; i++) {
        snprintf(name, sizeof(name), "consumer-%u", i);
        assert_true(check_as(f, 0, name, &result) != TG_QUOTA_NO_PIN);
    }

    for (i = 0; i < 120; i++) {
        snprintf(name, sizeof(name), "consumer-%u", i);
        assert_int_equal(admitted_as(f, name, 1), 0);
    }

    assert_true(state_of(f, 0)->word != 0);

    /* when they are idle their buckets go to others */
    f->now.mono_us += 600 * SECOND;
    n = 0;

    for (i = 5000; i < 5120; i++) {
        snprintf(name, sizeof(name), "consumer-%u", i);
        n += admitted_as(f, name, 10);
    }

    assert_int_equal(n, 360);
}


/* A name longer than a bucket keeps is still told apart. */
static void
test_long_names(void **state)
{
    char        name[128];
    fixture_t  *f = *state;

    publish(f, "{'id':1,'name':'each','scope':'consumer','metric':'requests',"
            "'limit':3,'window':'day'}", NULL);

    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(admitted_as(f, name, 10), 3);
    name[sizeof(name) - 2] = 'b';
    assert_int_equal(admitted_as(f, name, 10), 3);
}


typedef struct {
    unsigned          n;
    uint64_t          used[512];
    char              name[512][48];
    tg_quota_saved_t  saved[512];
} seen_t;


static void
see(void *data, const tg_quota_t *quota, const char *name, uint64_t used)
{
    seen_t  *seen = data;

    (void) quota;
    snprintf(seen->name[seen->n], sizeof(seen->name[0]), "%s", name);
    seen->used[seen->n++] = used;
}


static int
save(void *data, const tg_quota_saved_t *saved)
{
    seen_t  *seen = data;

    seen->saved[seen->n++] = *saved;
    return 0;
}


static int
save_fails(void *data, const tg_quota_saved_t *saved)
{
    (void) saved;
    ++*(int *) data;

    return -7;
}


static void
test_visit(void **state)
{
    seen_t             *seen;
    fixture_t          *f = *state;
    const tg_quota_t   *quota;

    publish(f,
            "{'id':1,'name':'each','scope':'consumer','metric':'requests',"
            "'limit':5,'window':'60s'},"
            "{'id':2,'name':'all','scope':'tenant','metric':'requests',"
            "'limit':100,'window':'60s'},"
            "{'id':3,'name':'body','scope':'tenant','metric':'body_size',"
            "'limit':100}", NULL);
    quota = tg_vec(f->block, f->block->quotas, tg_quota_t);
    seen = calloc(1, sizeof(*seen));
    assert_non_null(seen);

    (void) admitted_as(f, "ann", 3);
    (void) admitted_as(f, "bob", 1);

    tg_quota_visit(f->zone, f->block, &quota[0], &f->now, see, seen);
    assert_int_equal(seen->n, 2);
    assert_int_equal(seen->used[0] + seen->used[1], 4);
    assert_int_equal(seen->used[strcmp(seen->name[0], "ann") == 0 ? 0 : 1], 3);

    seen->n = 0;
    tg_quota_visit(f->zone, f->block, &quota[1], &f->now, see, seen);
    assert_int_equal(seen->n, 1);
    assert_int_equal(seen->used[0], 4);
    assert_string_equal(seen->name[0], "");

    seen->n = 0;
    tg_quota_visit(f->zone, f->block, &quota[2], &f->now, see, seen);
    assert_int_equal(seen->n, 1);
    assert_int_equal(seen->used[0], 0);

    /* drained: nothing to tell of consumers, 0 of the one bucket */
    f->now.mono_us += 600 * SECOND;
    seen->n = 0;
    tg_quota_visit(f->zone, f->block, &quota[0], &f->now, see, seen);
    assert_int_equal(seen->n, 0);
    tg_quota_visit(f->zone, f->block, &quota[1], &f->now, see, seen);
    assert_int_equal(seen->used[0], 0);

    /* a bucket whose name is being written is passed over */
    (void) admitted_as(f, "ann", 3);

    for (unsigned i = 0; i < TG_QUOTA_KEYS; i++) {
        state_of(f, 0)->bucket[i].name[0] ^= 1;
    }

    seen->n = 0;
    tg_quota_visit(f->zone, f->block, &quota[0], &f->now, see, seen);
    assert_int_equal(seen->n, 0);

    free(seen);
}


static void
test_save(void **state)
{
    int                 calls = 0;
    seen_t             *seen;
    fixture_t          *f = *state;
    tg_quota_saved_t    other;
    const tg_quota_t   *quota;

    static const char  quotas[] =
        "{'id':1,'name':'each','scope':'consumer','metric':'requests',"
        "'limit':5,'window':'month'},"
        "{'id':2,'name':'day','scope':'tenant','metric':'requests',"
        "'limit':10,'window':'day'},"
        "{'id':3,'name':'rate','scope':'tenant','metric':'requests',"
        "'limit':100,'window':'60s'}";

    publish(f, quotas, NULL);
    quota = tg_vec(f->block, f->block->quotas, tg_quota_t);
    seen = calloc(1, sizeof(*seen));
    assert_non_null(seen);

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(tg_quota_export(f->zone, f->block, &quota[i], &f->now,
                                         save, seen), 0);
    }

    assert_int_equal(seen->n, 0);

    assert_int_equal(admitted_as(f, "ann", 3), 3);
    assert_int_equal(admitted_as(f, "bob", 4), 4);

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(tg_quota_export(f->zone, f->block, &quota[i], &f->now,
                                         save, seen), 0);
    }

    assert_int_equal(seen->n, 3);
    assert_int_equal(tg_quota_export(f->zone, f->block, &quota[0], &f->now,
                                     save_fails, &calls), -7);
    assert_int_equal(calls, 1);

    /* another life: the same document, fresh words */
    publish(f, "{'id':9,'name':'x','scope':'tenant','metric':'concurrency',"
            "'limit':1}", NULL);
    publish(f, quotas, NULL);

    for (int twice = 0; twice < 2; twice++) {
        for (unsigned i = 0; i < seen->n; i++) {
            assert_int_equal(tg_quota_import(f->zone, f->block, &seen->saved[i],
                                             &f->now), 0);
        }
    }

    assert_int_equal(admitted_as(f, "ann", 10), 2);
    assert_int_equal(admitted_as(f, "bob", 10), 1);

    /* never lowers */
    assert_int_equal(tg_quota_import(f->zone, f->block, &seen->saved[2],
                                     &f->now), 0);
    assert_int_equal(admitted_as(f, "carol", 10), 0);

    /* of nobody, of another kind, of another period */
    other = seen->saved[2];
    other.quota = 99;
    assert_int_equal(tg_quota_import(f->zone, f->block, &other, &f->now), -1);
    other.quota = 3;
    assert_int_equal(tg_quota_import(f->zone, f->block, &other, &f->now), -1);
    other.quota = 2;
    other.key = 5;
    assert_int_equal(tg_quota_import(f->zone, f->block, &other, &f->now), -1);
    f->now.unix_s += 86400;
    assert_int_equal(tg_quota_import(f->zone, f->block, &seen->saved[2],
                                     &f->now), -1);
    seen->saved[2].word += UINT64_C(5) << TG_CALENDAR_BITS;
    assert_int_equal(tg_quota_import(f->zone, f->block, &seen->saved[2],
                                     &f->now), -1);

    free(seen);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_each_consumer),
        TEST(test_long_names),
        TEST(test_visit),
        TEST(test_save),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
