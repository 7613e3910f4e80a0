/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "quota_fixture.h"
#include "tg_hint.h"


static const char  one_quota[] = "{'id':1,'name':'q','scope':'tenant',"
                                 "'metric':'requests','limit':5,'window':'60s'}";

typedef struct {
    fixture_t   *f;
    tg_hints_t  *hints;
} world_t;


static int
world_setup(void **state)
{
    static world_t  w;

    (void) setup((void **) &w.f);
    w.hints = tg_hints_create(w.f->zone);
    assert_non_null(w.hints);
    *state = &w;

    return 0;
}


static int
world_teardown(void **state)
{
    world_t  *w = *state;

    tg_hints_destroy(w->hints);

    return teardown((void **) &w->f);
}


static int
fetch(world_t *w, const char *host)
{
    return tg_hints_fetch(w->hints, w->f->zone, host, strlen(host));
}


static void
learn(world_t *w)
{
    const tg_block_t  *block = w->f->block;

    tg_hints_learn(w->hints, w->f->zone, w->f->slot, block,
                   tg_vec(block, block->routes, tg_route_t));
}


/* Node, entry and the state of one quota; the upstream has no endpoints. */
static void
test_learns(void **state)
{
    world_t  *w = *state;

    publish_host(w->f, one_quota, "acme.example");
    assert_int_equal(fetch(w, "acme.example"), -1);
    learn(w);
    assert_int_equal(fetch(w, "acme.example"), 3);
    assert_int_equal(fetch(w, "other.example"), -1);
    assert_int_equal(fetch(w, ""), -1);

    /* a request that found its tenant otherwise, by a header say */
    assert_int_equal(fetch(w, "other.example"), -1);
    learn(w);
    publish_host(w->f, "", "acme.example");
    learn(w);
    assert_int_equal(fetch(w, "other.example"), 1);

    /* by another name that is no host of the table: no node */
    assert_int_equal(fetch(w, "by.wildcard"), -1);
    learn(w);
    assert_int_equal(fetch(w, "by.wildcard"), 0);
    assert_int_equal(fetch(w, "acme.example"), 3);
}


/* Another version is learnt anew; until then the old one's memory is fetched,
 * whoever has it by now. */
static void
test_goes_with_versions(void **state)
{
    world_t  *w = *state;

    publish_host(w->f, one_quota, "acme.example");
    (void) fetch(w, "acme.example");
    learn(w);

    publish_host(w->f, "", "acme.example");
    assert_int_equal(fetch(w, "acme.example"), 3);
    learn(w);
    assert_int_equal(fetch(w, "acme.example"), 2);

    assert_int_equal(tg_zone_delete(w->f->zone, TG_KIND_TENANT, "t", 1, 7,
                                    w->f->revision), TG_ZONE_OK);
    tg_zone_unpin(w->f->zone, w->f->slot, w->f->pin);
    tg_zone_reclaim(w->f->zone);
    tg_zone_reclaim(w->f->zone);
    assert_int_equal(fetch(w, "acme.example"), 2);
}


/* More hosts than places: the newest of a set stay, and nothing goes wrong. */
static void
test_crowded(void **state)
{
    char       host[32];
    world_t   *w = *state;
    unsigned   i, known;

    publish_host(w->f, one_quota, "acme.example");

    for (i = 0; i < 100000; i++) {
        snprintf(host, sizeof(host), "%u.example", i);
        (void) fetch(w, host);
        learn(w);
        assert_int_equal(fetch(w, host), 1);
    }

    known = 0;

    for (i = 0; i < 100000; i++) {
        snprintf(host, sizeof(host), "%u.example", i);
        known += fetch(w, host) != -1;
    }

    assert_in_range(known, ZONE_SIZE / 2048 / 2, ZONE_SIZE / 2048 * 2);
}


#define WORLD(name)  cmocka_unit_test_setup_teardown(name, world_setup,       \
                                                     world_teardown)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        WORLD(test_learns),
        WORLD(test_goes_with_versions),
        WORLD(test_crowded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
