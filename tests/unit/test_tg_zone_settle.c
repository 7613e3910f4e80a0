/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * When an older version charges nothing any more.
 */

#include <sys/wait.h>

#include "quota_fixture.h"

#define TEN  "{'id':1,'name':'q','scope':'tenant','metric':'requests'," \
             "'limit':10,'window':'60s'}"


static int
settled(fixture_t *f)
{
    return tg_zone_settled(f->zone, f->block);
}


static void
test_first_version(void **state)
{
    fixture_t  *f = *state;

    publish(f, TEN, NULL);
    assert_true(settled(f));

    /* its own pins do not matter */
    assert_int_equal(f->pin->block, tg_zone_offset(f->zone, f->block));
    tg_zone_settle(f->pin);
    assert_true(settled(f));
}


static void
test_pins(void **state)
{
    unsigned          i;
    tg_pin_t         *pin[4];
    fixture_t        *f = *state;

    for (i = 0; i < 3; i++) {
        publish(f, TEN, NULL);
        pin[i] = f->pin;
    }

    /* two older versions, each with a request that is not decided yet */
    assert_false(settled(f));
    tg_zone_settle(pin[1]);
    assert_false(settled(f));
    tg_zone_settle(pin[0]);
    assert_true(settled(f));

    /* they live on, and so do their versions */
    tg_zone_reclaim(f->zone);
    assert_true(settled(f));
    tg_zone_unpin(f->zone, f->slot, pin[0]);
    assert_true(settled(f));

    /* a pin that is taken again is another request's */
    tg_zone_enter(f->zone, f->slot);
    pin[3] = tg_zone_pin(f->zone, f->slot, f->block);
    tg_zone_exit(f->zone, f->slot);
    assert_ptr_equal(pin[3], pin[0]);
    publish(f, TEN, NULL);
    assert_false(settled(f));
    tg_zone_settle(pin[2]);
    assert_false(settled(f));
    tg_zone_unpin(f->zone, f->slot, pin[3]);
    assert_true(settled(f));
}


static void
test_sections(void **state)
{
    int         other;
    fixture_t  *f = *state;

    other = tg_zone_slot_take(f->zone, getpid(), 4);
    assert_true(other >= 0);

    publish(f, TEN, NULL);
    tg_zone_settle(f->pin);
    tg_zone_enter(f->zone, other);
    publish(f, TEN, NULL);

    /* it may have found the older one, and be about to pin it */
    assert_false(settled(f));
    assert_false(settled(f));
    tg_zone_exit(f->zone, other);
    assert_true(settled(f));

    /* a later section finds the newer one */
    tg_zone_enter(f->zone, other);
    assert_true(settled(f));
    tg_zone_exit(f->zone, other);
}


static void
test_others(void **state)
{
    char        text[512];
    tg_block_t *image;
    fixture_t  *f = *state;

    publish(f, TEN, NULL);
    tg_zone_settle(f->pin);

    for (unsigned i = 1; i < 4; i++) {
        snprintf(text, sizeof(text), "{'name':'other','id':8,'revision':%u,"
                 "'state':'active','hosts':[],'issuers':[],'api_keys':[],"
                 "'upstreams':[],'routes':[],'quotas':[]}", i);
        quote(text);
        image = tg_compile(text, strlen(text), TG_KIND_TENANT, NULL, NULL);
        assert_non_null(image);
        assert_int_equal(tg_zone_put(f->zone, image), TG_ZONE_OK);
        tg_compile_free(image);

        tg_zone_enter(f->zone, f->slot);
        assert_non_null(tg_zone_pin(f->zone, f->slot,
                                    tg_zone_find_tenant(f->zone, "other", 5)));
        tg_zone_exit(f->zone, f->slot);
    }

    publish(f, TEN, NULL);
    assert_true(settled(f));
    assert_false(tg_zone_settled(f->zone,
                                 tg_zone_find_tenant(f->zone, "other", 5)));
}


/* What is not the current version is not asked about. */
static void
test_not_current(void **state)
{
    fixture_t         *f = *state;
    const tg_block_t  *older;

    publish(f, TEN, NULL);
    tg_zone_settle(f->pin);
    older = f->block;
    publish(f, TEN, NULL);
    assert_false(tg_zone_settled(f->zone, older));
    assert_true(settled(f));

    assert_int_equal(tg_zone_delete(f->zone, TG_KIND_TENANT, "t", 1, 7, 100),
                     TG_ZONE_OK);
    assert_false(settled(f));
}


/* A worker that was killed with an undecided request is reaped. */
static void
test_killed(void **state)
{
    pid_t       pid;
    fixture_t  *f = *state;
    int         slot, status;

    publish(f, TEN, NULL);
    tg_zone_settle(f->pin);
    pid = fork();

    if (pid == 0) {
        slot = tg_zone_slot_take(f->zone, getpid(), 4);
        tg_zone_enter(f->zone, slot);
        (void) tg_zone_pin(f->zone, slot, f->block);
        _exit(0);
    }

    assert_int_equal(waitpid(pid, &status, 0), pid);
    publish(f, TEN, NULL);
    assert_false(settled(f));
    tg_zone_reap(f->zone);
    assert_true(settled(f));
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_first_version),
        TEST(test_pins),
        TEST(test_sections),
        TEST(test_others),
        TEST(test_not_current),
        TEST(test_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
