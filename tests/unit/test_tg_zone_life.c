/* SPDX-License-Identifier: BSD-2-Clause */

/* Slots, sections and pins. */

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

static const char *const  hosts[] = { "a.example", "b.example", "c.example",
                                      "d.example" };


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

    w->f = (fixture_t) { .name = "t", .id = 1, .hosts = hosts, .nhosts = 2,
                         .nroutes = 2, .nquotas = 2, .nupstreams = 2,
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


static const tg_block_t *
pinned(world_t *w, const tg_pin_t *p)
{
    return tg_zone_ptr(w->zone, p->block);
}


static uint64_t
reclaim(world_t *w)
{
    tg_zone_reclaim(w->zone);
    assert_int_equal(tg_zone_check(w->zone), 0);

    return fixture_stats(w->zone).retired;
}


static void
test_section_keeps_what_it_found(void **state)
{
    world_t           *w = *state;
    const tg_block_t  *first, *second;

    put(w);

    tg_zone_enter(w->zone, w->slot);
    first = find(w);
    put(w);
    second = find(w);

    assert_ptr_not_equal(first, second);
    assert_int_equal(reclaim(w), 1);
    assert_int_equal(reclaim(w), 1);
    assert_true(fixture_whole(first));

    tg_zone_exit(w->zone, w->slot);
    tg_zone_enter(w->zone, w->slot);        /* a later one is no obstacle */
    assert_int_equal(reclaim(w), 0);

    put(w);
    remove_tenant(w);
    assert_int_equal(reclaim(w), 2);
    assert_true(fixture_whole(second));
    tg_zone_exit(w->zone, w->slot);

    reclaim(w);
    assert_int_equal(reclaim(w), 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


/* Each period that was closed while someone was inside is waited for. */
static void
test_two_readers(void **state)
{
    int       other;
    world_t  *w = *state;

    other = tg_zone_slot_take(w->zone, getpid(), 1);
    put(w);

    tg_zone_enter(w->zone, w->slot);
    put(w);
    assert_int_equal(reclaim(w), 1);

    tg_zone_enter(w->zone, other);
    put(w);
    assert_int_equal(reclaim(w), 2);

    tg_zone_exit(w->zone, w->slot);         /* only the first put's readers */
    assert_int_equal(reclaim(w), 1);

    tg_zone_exit(w->zone, other);
    assert_int_equal(reclaim(w), 0);
}


static void
test_pin_keeps_a_version(void **state)
{
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    p = pin(w);
    assert_non_null(p);

    put(w);
    put(w);
    assert_int_equal(reclaim(w), 1);        /* the one between has gone */
    assert_true(fixture_whole(pinned(w, p)));
    assert_int_equal(pinned(w, p)->revision, 1);

    tg_zone_unpin(w->zone, w->slot, p);
    assert_int_equal(reclaim(w), 0);

    remove_tenant(w);
    assert_int_equal(reclaim(w), 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


/* State objects go when the last version that knows them does, whichever that
 * is. */
static void
test_states_outlive_versions(void **state)
{
    int                i;
    uint64_t           object;
    tg_pin_t          *p[4];
    world_t           *w = *state;
    tg_quota_state_t  *quota;
    static const int   orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 },
                                       { 1, 2, 0, 3 }, { 2, 0, 3, 1 } };
    size_t             o;

    for (o = 0; o < 4; o++) {

        /* ids 10 to 13 leave one after the other */
        for (i = 0; i < 4; i++) {
            w->f.base = 10 + (uint64_t) i;
            put(w);
            p[i] = pin(w);
        }

        object = tg_vec(pinned(w, p[3]), pinned(w, p[3])->quotas, tg_quota_t)[0]
                 .state;
        quota = tg_zone_ptr(w->zone, object);
        quota->word = 4711;

        remove_tenant(w);
        assert_int_equal(reclaim(w), 4);

        for (i = 0; i < 4; i++) {
            tg_zone_unpin(w->zone, w->slot, p[orders[o][i]]);
            reclaim(w);

            if (orders[o][i] == 3) {
                p[3] = NULL;
            }

            if (p[3]) {
                assert_int_equal(quota->word, 4711);
            }
        }

        assert_int_equal(reclaim(w), 0);
        assert_int_equal(fixture_stats(w->zone).used, w->base);
    }
}


static void
test_pins_run_out(void **state)
{
    int        i;
    tg_pin_t  *p[8];
    world_t   *w = *state;

    put(w);

    for (i = 0; i < 8; i++) {
        p[i] = pin(w);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t) p[i] % TG_CACHE_LINE, 0);
    }

    assert_null(pin(w));
    tg_zone_unpin(w->zone, w->slot, p[3]);
    tg_zone_unpin(w->zone, w->slot, p[5]);

    assert_ptr_equal(pin(w), p[5]);
    assert_ptr_equal(pin(w), p[3]);
    assert_null(pin(w));
}


static void
test_slot_without_pins(void **state)
{
    int       slot;
    world_t  *w = *state;

    put(w);
    slot = tg_zone_slot_take(w->zone, getpid(), 0);
    assert_true(slot >= 0);
    assert_null(tg_zone_pin(w->zone, slot, find(w)));
    tg_zone_slot_drop(w->zone, slot);
    assert_int_equal(tg_zone_check(w->zone), 0);
}


static void
test_slots_run_out(void **state)
{
    int       i, n, last;
    world_t  *w = *state;

    last = -1;

    for (n = 1; n < TG_ZONE_SLOTS; n++) {
        last = tg_zone_slot_take(w->zone, getpid(), 1);
        assert_true(last >= 0);
    }

    assert_int_equal(tg_zone_slot_take(w->zone, getpid(), 1), -1);
    tg_zone_slot_drop(w->zone, last);
    assert_int_equal(tg_zone_slot_take(w->zone, getpid(), 1), last);

    for (i = 0; i < TG_ZONE_SLOTS; i++) {
        tg_zone_slot_drop(w->zone, i);
    }

    /* more pins than the zone has room for */
    assert_int_equal(tg_zone_slot_take(w->zone, getpid(), 100000), -1);
    assert_int_equal(tg_zone_slot_take(w->zone, getpid(), UINT32_MAX), -1);
    assert_int_equal(tg_zone_check(w->zone), 0);
    assert_int_equal(fixture_stats(w->zone).used, 0);
}


/* A reload has old and new workers in a zone that tenants have filled. */
static void
test_slots_in_a_full_zone(void **state)
{
    int               workers[3], next[3];
    char              name[16];
    world_t          *w = *state;
    tg_zone_status_e  status;

    for (int i = 0; i < 3; i++) {
        workers[i] = tg_zone_slot_take(w->zone, getpid(), 100);
        assert_true(workers[i] >= 0);
    }

    w->f.nhosts = 0;
    w->f.name = name;
    status = TG_ZONE_OK;

    for (uint64_t pad = 4096; pad > 4; pad /= 4) {
        for ( ;; ) {
            (void) snprintf(name, sizeof(name), "t%u", (unsigned) w->f.id);
            w->f.pad = (uint32_t) pad;
            w->f.base = 100 * w->f.id;
            status = fixture_put(w->zone, &w->f);

            if (status != TG_ZONE_OK) {
                break;
            }

            w->f.id++;
        }
    }

    assert_int_equal(status, TG_ZONE_FULL);

    for (int n = 0; n < 4; n++) {
        for (int i = 0; i < 3; i++) {
            next[i] = tg_zone_slot_take(w->zone, getpid(), 100);
            assert_true(next[i] >= 0);
        }

        for (int i = 0; i < 3; i++) {
            tg_zone_slot_drop(w->zone, workers[i]);
            workers[i] = next[i];
        }
    }

    assert_int_equal(tg_zone_check(w->zone), 0);
}


/* --- processes that have gone --- */

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


static void
test_reap(void **state)
{
    int       slot;
    pid_t     pid;
    world_t  *w = *state;

    put(w);
    slot = tg_zone_slot_take(w->zone, dead_process(1), 4);

    tg_zone_enter(w->zone, slot);                   /* died inside, with a pin */
    assert_non_null(tg_zone_pin(w->zone, slot, find(w)));

    put(w);
    assert_int_equal(reclaim(w), 1);

    tg_zone_reap(w->zone);
    assert_int_equal(reclaim(w), 0);
    assert_int_equal(w->zone->slot[slot].pid, 0);
    assert_int_not_equal(w->zone->slot[w->slot].pid, 0);

    /* a zombie will do nothing any more either */
    pid = dead_process(0);
    slot = tg_zone_slot_take(w->zone, pid, 4);
    tg_zone_reap(w->zone);
    assert_int_equal(w->zone->slot[slot].pid, 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);

    assert_int_equal(tg_zone_check(w->zone), 0);
}


/* A pid that the system gave to another process since. */
static void
test_recycled_pid(void **state)
{
    int       slot;
    world_t  *w = *state;

    slot = tg_zone_slot_take(w->zone, getpid(), 4);
    assert_int_not_equal(w->zone->slot[slot].start, 0);

    tg_zone_reap(w->zone);
    assert_int_equal(w->zone->slot[slot].pid, getpid());

    w->zone->slot[slot].start--;
    tg_zone_reap(w->zone);
    assert_int_equal(w->zone->slot[slot].pid, 0);
}


static void
test_taking_a_slot_reaps(void **state)
{
    int       i;
    pid_t     pid = dead_process(1);
    world_t  *w = *state;

    for (i = 1; i < TG_ZONE_SLOTS; i++) {
        assert_true(tg_zone_slot_take(w->zone, pid, 8) >= 0);
    }

    assert_int_equal(tg_zone_slot_take(w->zone, getpid(), 8), 1);
    assert_int_equal(tg_zone_check(w->zone), 0);
}


/* A random life, after each step of which everything must agree. */
static void
test_random_life(void **state)
{
    int        i, n;
    char       names[8][8];
    size_t     k;
    tg_pin_t  *pins[8], *p;
    uint64_t   x = 88172645463325252ull;
    world_t   *w = *state;

    n = 0;

    for (i = 0; i < 20000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        k = x >> 8 & 7;

        (void) snprintf(names[k], sizeof(names[k]), "t%zu", k);
        w->f.name = names[k];
        w->f.id = k + 1;
        w->f.nhosts = x >> 16 & 3;
        w->f.nroutes = x >> 20 & 3;
        w->f.nupstreams = x >> 24 & 1;
        w->f.base = k * 1000 + (x >> 32) % 4;
        w->f.pad = (x >> 40) % 600;

        switch (x % 8) {
        case 0: case 1: case 2:
            put(w);
            break;

        case 3:
            remove_tenant(w);
            break;

        case 4:
            if (n < 8 && find(w) && (p = pin(w)) != NULL) {
                pins[n++] = p;
            }
            break;

        case 5:
            if (n) {
                k %= (size_t) n;
                assert_true(fixture_whole(pinned(w, pins[k])));
                tg_zone_unpin(w->zone, w->slot, pins[k]);
                pins[k] = pins[--n];
            }
            break;

        default:
            tg_zone_reclaim(w->zone);
        }

        if (i % 20 == 0) {
            assert_int_equal(tg_zone_check(w->zone), 0);
        }
    }

    while (n) {
        tg_zone_unpin(w->zone, w->slot, pins[--n]);
    }

    for (k = 0; k < 8; k++) {
        w->f.name = names[k];
        w->f.id = k + 1;
        remove_tenant(w);
    }

    for (i = 0; i < 4; i++) {
        reclaim(w);
    }

    assert_int_equal(reclaim(w), 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_section_keeps_what_it_found),
        TEST(test_two_readers),
        TEST(test_pin_keeps_a_version),
        TEST(test_states_outlive_versions),
        TEST(test_pins_run_out),
        TEST(test_slot_without_pins),
        TEST(test_slots_run_out),
        TEST(test_slots_in_a_full_zone),
        TEST(test_reap),
        TEST(test_recycled_pid),
        TEST(test_taking_a_slot_reaps),
        TEST(test_random_life),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
