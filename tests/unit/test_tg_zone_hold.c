/* SPDX-License-Identifier: BSD-2-Clause */

/* Counters that requests hold, and processes that end while they do. */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_zone_private.h"
#include "zone_fixture.h"

#define MB  (1024u * 1024u)


typedef struct {
    tg_zone_t  *zone;
    int         slot;
    uint64_t    base;           /* bytes used without any object */
    fixture_t   f;
} world_t;


static int
setup(void **state)
{
    world_t  *w = calloc(1, sizeof(world_t));

    assert_non_null(w);

    w->zone = fixture_zone(MB);
    w->slot = tg_zone_slot_take(w->zone, getpid(), 8);
    assert_true(w->slot >= 0);
    w->base = fixture_stats(w->zone).used;

    w->f = (fixture_t) { .name = "t", .id = 1, .nroutes = 2, .nquotas = 2, .nupstreams = 2,
                         .nendpoints = 2, .base = 10, .pad = 100,
                         .metric = TG_METRIC_CONCURRENCY };
    *state = w;

    return 0;
}


static int
teardown(void **state)
{
    world_t  *w = *state;

    munmap(w->zone, MB);
    free(w);

    return 0;
}


static void
put(world_t *w)
{
    w->f.revision++;
    assert_int_equal(fixture_put(w->zone, &w->f), TG_ZONE_OK);
}


static void
remove_tenant(world_t *w)
{
    w->f.revision++;
    assert_int_equal(tg_zone_delete(w->zone, TG_KIND_TENANT, w->f.name,
                                    strlen(w->f.name), w->f.id, w->f.revision),
                     TG_ZONE_OK);
}


static const tg_block_t *
find(world_t *w)
{
    return tg_zone_find_tenant(w->zone, w->f.name, strlen(w->f.name));
}


static tg_pin_t *
pin(world_t *w)
{
    tg_pin_t  *p;

    tg_zone_enter(w->zone, w->slot);
    p = tg_zone_pin(w->zone, w->slot, find(w));
    tg_zone_exit(w->zone, w->slot);

    return p;
}


static uint64_t
reclaim(world_t *w)
{
    tg_zone_reclaim(w->zone);
    assert_int_equal(tg_zone_check(w->zone), 0);

    return fixture_stats(w->zone).retired;
}


/* A process that has ended; reaped by us or left as a zombie. */
static pid_t
dead_process(int wait)
{
    pid_t      pid;
    siginfo_t  info;

    pid = fork();
    assert_true(pid != -1);

    if (pid == 0) {
        _exit(0);
    }

    assert_int_equal(waitid(P_PID, (id_t) pid, &info,
                            WEXITED | (wait ? 0 : WNOWAIT)), 0);
    return pid;
}


static uint64_t
quota_word(world_t *w)
{
    const tg_block_t  *block = find(w);

    return tg_vec(block, block->quotas, tg_quota_t)[0].state
           + offsetof(tg_quota_state_t, word);
}


static uint64_t
outstanding(world_t *w)
{
    const tg_block_t  *block = find(w);

    return (tg_vec(block, block->upstreams, tg_upstream_t)[0].state
            + offsetof(tg_upstream_state_t, outstanding)) | TG_HOLD_32;
}


static uint64_t
value(world_t *w, uint64_t counter)
{
    void  *p = tg_zone_ptr(w->zone, counter & ~3ull);

    return (counter & TG_HOLD_32) ? *(uint32_t *) p : *(uint64_t *) p;
}


static void
test_hold_and_release(void **state)
{
    int        i;
    uint64_t   word, n;
    tg_pin_t  *p, *q;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);
    n = outstanding(w);
    p = pin(w);
    q = pin(w);

    assert_int_equal(tg_zone_hold(w->zone, p, word, 2), TG_HOLD_OK);
    assert_int_equal(tg_zone_hold(w->zone, q, word, 2), TG_HOLD_OK);
    assert_int_equal(tg_zone_hold(w->zone, q, word, 2), TG_HOLD_LIMIT);
    assert_int_equal(tg_zone_hold(w->zone, q, word, 0), TG_HOLD_LIMIT);
    assert_int_equal(value(w, word), 2);

    assert_int_equal(tg_zone_hold(w->zone, q, n, UINT64_MAX), TG_HOLD_OK);
    assert_int_equal(value(w, n), 1);
    assert_int_equal(tg_vec(find(w), find(w)->upstreams, tg_upstream_t)[0].id,
                     11);
    assert_int_equal(((tg_upstream_state_t *)
                      tg_zone_ptr(w->zone, n & ~3ull))->cursor, 0);

    tg_zone_release(w->zone, p, word);
    tg_zone_release(w->zone, p, word);          /* holds it no more */
    tg_zone_release(w->zone, p, n);             /* never did */
    assert_int_equal(value(w, word), 1);
    assert_int_equal(value(w, n), 1);

    for (i = 0; i < TG_PIN_HOLDS; i++) {
        assert_int_equal(tg_zone_hold(w->zone, p, word, 100), TG_HOLD_OK);
    }

    assert_int_equal(tg_zone_hold(w->zone, p, word, 100), TG_HOLD_NONE);
    assert_int_equal(value(w, word), 1 + TG_PIN_HOLDS);

    tg_zone_unpin(w->zone, w->slot, p);
    tg_zone_unpin(w->zone, w->slot, q);
    assert_int_equal(value(w, word), 0);
    assert_int_equal(value(w, n), 0);

    /* a pin that is used again holds nothing */
    p = pin(w);
    tg_zone_unpin(w->zone, w->slot, p);
    assert_int_equal(value(w, word), 0);
}


static void
test_hold_in_two_steps(void **state)
{
    uint64_t   word;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);
    p = pin(w);

    assert_int_equal(tg_zone_hold_begin(p, word), TG_HOLD_OK);
    tg_zone_hold_end(p, word, 0);
    tg_zone_unpin(w->zone, w->slot, p);
    assert_int_equal(value(w, word), 0);

    p = pin(w);
    assert_int_equal(tg_zone_hold_begin(p, word), TG_HOLD_OK);
    (*(uint64_t *) tg_zone_ptr(w->zone, word))++;
    tg_zone_hold_end(p, word, 1);
    assert_int_equal(value(w, word), 1);
    tg_zone_unpin(w->zone, w->slot, p);
    assert_int_equal(value(w, word), 0);
}


/* What a version's requests hold stays countable when the version has gone. */
static void
test_hold_over_versions(void **state)
{
    uint64_t   word;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);
    p = pin(w);
    assert_int_equal(tg_zone_hold(w->zone, p, word, 1), TG_HOLD_OK);

    put(w);
    assert_int_equal(quota_word(w), word);          /* the same object */
    w->f.base = 500;
    put(w);
    assert_int_not_equal(quota_word(w), word);      /* now another quota's */
    remove_tenant(w);
    reclaim(w);

    assert_int_equal(value(w, word), 1);
    tg_zone_unpin(w->zone, w->slot, p);
    reclaim(w);
    assert_int_equal(reclaim(w), 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


static int
take_dead_slot(world_t *w)
{
    int  slot;

    slot = tg_zone_slot_take(w->zone, dead_process(1), 8);
    assert_true(slot >= 0);

    return slot;
}


static void
test_reaping_gives_back(void **state)
{
    int        slot;
    uint64_t   word, n;
    tg_pin_t  *p, *q, *mine;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);
    n = outstanding(w);

    mine = pin(w);
    assert_int_equal(tg_zone_hold(w->zone, mine, word, 9), TG_HOLD_OK);

    slot = take_dead_slot(w);
    p = tg_zone_pin(w->zone, slot, find(w));
    q = tg_zone_pin(w->zone, slot, find(w));
    assert_int_equal(tg_zone_hold(w->zone, p, word, 9), TG_HOLD_OK);
    assert_int_equal(tg_zone_hold(w->zone, q, word, 9), TG_HOLD_OK);
    assert_int_equal(tg_zone_hold(w->zone, q, n, 9), TG_HOLD_OK);

    tg_zone_reap(w->zone);
    assert_int_equal(value(w, word), 1);
    assert_int_equal(value(w, n), 0);

    tg_zone_unpin(w->zone, w->slot, mine);
    assert_int_equal(value(w, word), 0);
}


static void
reap_times(world_t *w, int n)
{
    while (n--) {
        tg_zone_reap(w->zone);
    }
}


/* Killed between note and addition, or between addition and note. */
static void
test_pending_hold(void **state)
{
    int        added, slot;
    uint64_t   word;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);

    for (added = 0; added < 2; added++) {
        slot = take_dead_slot(w);
        p = tg_zone_pin(w->zone, slot, find(w));
        assert_int_equal(tg_zone_hold_begin(p, word), TG_HOLD_OK);
        *(uint64_t *) tg_zone_ptr(w->zone, word) += (uint64_t) added;

        tg_zone_reap(w->zone);
        assert_int_equal(value(w, word), added);        /* too high, if at all */

        reap_times(w, 10);
        assert_int_equal(value(w, word), 0);
        assert_int_equal(w->zone->doubt[0].counter, 0);
    }
}


/* The doubt is settled only when nobody holds the counter; what is held by the
 * living stays counted. */
static void
test_pending_hold_while_others_hold(void **state)
{
    int        added, slot;
    uint64_t   word;
    tg_pin_t  *p, *mine;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);

    for (added = 0; added < 2; added++) {
        mine = pin(w);
        assert_int_equal(tg_zone_hold(w->zone, mine, word, 9), TG_HOLD_OK);

        slot = take_dead_slot(w);
        p = tg_zone_pin(w->zone, slot, find(w));
        assert_int_equal(tg_zone_hold_begin(p, word), TG_HOLD_OK);
        *(uint64_t *) tg_zone_ptr(w->zone, word) += (uint64_t) added;

        reap_times(w, 20);
        assert_int_equal(value(w, word), 1 + added);

        tg_zone_unpin(w->zone, w->slot, mine);
        assert_int_equal(value(w, word), added);

        reap_times(w, 20);
        assert_int_equal(value(w, word), 0);
    }
}


/* The memory of a counter in doubt gets another use. */
static void
test_doubt_ends_with_its_counter(void **state)
{
    int        slot;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    slot = take_dead_slot(w);
    p = tg_zone_pin(w->zone, slot, find(w));
    assert_int_equal(tg_zone_hold_begin(p, outstanding(w)), TG_HOLD_OK);
    (*(uint32_t *) tg_zone_ptr(w->zone, outstanding(w) & ~3ull))++;
    tg_zone_reap(w->zone);
    assert_int_not_equal(w->zone->doubt[0].counter, 0);

    put(w);
    reclaim(w);
    assert_int_not_equal(w->zone->doubt[0].counter, 0);

    /* recovery keeps it too */
    w->zone->busy = 1;
    assert_int_equal(tg_zone_recover(w->zone), 1);
    assert_int_not_equal(w->zone->doubt[0].counter, 0);

    remove_tenant(w);
    assert_int_equal(reclaim(w), 0);
    assert_int_equal(w->zone->doubt[0].counter, 0);
}


static void
test_release_never_goes_below_zero(void **state)
{
    uint64_t   word;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    word = quota_word(w);
    p = pin(w);

    assert_int_equal(tg_zone_hold(w->zone, p, word, 9), TG_HOLD_OK);
    *(uint64_t *) tg_zone_ptr(w->zone, word) = 0;
    tg_zone_release(w->zone, p, word);
    assert_int_equal(value(w, word), 0);
}


#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_hold_and_release),
        TEST(test_hold_in_two_steps),
        TEST(test_hold_over_versions),
        TEST(test_reaping_gives_back),
        TEST(test_pending_hold),
        TEST(test_pending_hold_while_others_hold),
        TEST(test_doubt_ends_with_its_counter),
        TEST(test_release_never_goes_below_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
