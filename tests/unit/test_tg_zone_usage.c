/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Visits of touched tenants: that each count is seen, whatever happens to the
 * route or tenant that it was counted for.  The reporter here keeps the last
 * value of each counter, as tenantd does.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_zone_private.h"
#include "zone_fixture.h"

#define MB  (1024u * 1024u)

#define MAX_IDS  64


typedef struct {
    tg_zone_t  *zone;
    int         slot;
    uint64_t    base;
    fixture_t   f;
    int         refuse;                 /* the reporter cannot take anything */
    int         visits;                 /* of the last round */
    uint64_t    reported[MAX_IDS];      /* by route id; 0: no route */
} world_t;


static int
setup(void **state)
{
    world_t  *w = calloc(1, sizeof(world_t));

    assert_non_null(w);

    w->zone = fixture_zone(MB);
    w->slot = tg_zone_slot_take(w->zone, getpid(), 8);
    w->base = fixture_stats(w->zone).used;
    w->f = (fixture_t) { .name = "t", .id = 1, .nroutes = 2, .base = 10 };
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


static void
count(world_t *w, const tg_block_t *block, uint32_t route)
{
    uint64_t        offset;
    tg_counters_t  *c;

    offset = (route < block->routes.n)
             ? tg_vec(block, block->routes, tg_route_t)[route].counters
             : block->counters;

    c = tg_zone_ptr(w->zone, offset);
    __atomic_fetch_add(&c->status[1], 1, __ATOMIC_SEQ_CST);
    tg_zone_touch(w->zone, block->slot);
}


static int
report(void *data, const tg_block_t *block)
{
    uint32_t     i;
    world_t     *w = data;
    tg_route_t  *routes = tg_vec(block, block->routes, tg_route_t);

    if (w->refuse) {
        return 1;
    }

    assert_int_equal(block->magic, TG_BLOCK_MAGIC);
    w->visits++;

    w->reported[0] = ((tg_counters_t *) tg_zone_ptr(w->zone, block->counters))
                     ->status[1];

    for (i = 0; i < block->routes.n; i++) {
        assert_in_range(routes[i].id, 1, MAX_IDS - 1);
        w->reported[routes[i].id] =
            ((tg_counters_t *) tg_zone_ptr(w->zone, routes[i].counters))
            ->status[1];
    }

    return 0;
}


static int
visit(world_t *w)
{
    w->visits = 0;
    tg_zone_visit_touched(w->zone, 0, report, w);
    assert_int_equal(tg_zone_check(w->zone), 0);

    return w->visits;
}


static void
test_touched_only(void **state)
{
    uint32_t  i;
    char      name[8];
    world_t  *w = *state;

    w->f.nroutes = 0;

    for (i = 0; i < 200; i++) {
        (void) snprintf(name, sizeof(name), "t%u", i);
        w->f.name = name;
        w->f.id = i + 1;
        put(w);
    }

    assert_int_equal(visit(w), 0);

    for (i = 0; i < 200; i += 20) {
        (void) snprintf(name, sizeof(name), "t%u", i);
        count(w, find(w), 0);
        count(w, find(w), 0);
    }

    assert_int_equal(visit(w), 10);
    assert_int_equal(w->reported[0], 2);
    assert_int_equal(visit(w), 0);

    tg_zone_touch(w->zone, TG_NO_SLOT);             /* an issuer's */
    tg_zone_touch(w->zone, w->zone->dense_fresh);   /* nobody's */
    assert_int_equal(visit(w), 0);

    tg_zone_touch_all(w->zone);
    assert_int_equal(visit(w), 200);
}


static void
test_refused_visit_stays_touched(void **state)
{
    world_t  *w = *state;

    put(w);
    count(w, find(w), 0);

    w->refuse = 1;
    assert_int_equal(visit(w), 0);
    w->refuse = 0;
    assert_int_equal(visit(w), 1);
    assert_int_equal(w->reported[11], 1);
    assert_int_equal(visit(w), 0);
}


/* Stops at the third, or where the number says. */
static int
report_some(void *data, const tg_block_t *block)
{
    world_t  *w = data;

    if (w->visits == 3) {
        w->refuse = (int) block->slot;
        return TG_VISIT_STOP;
    }

    w->visits++;

    return 0;
}


static void
test_visit_in_parts(void **state)
{
    int       parts, all;
    char      name[16];
    world_t  *w = *state;

    w->f.nroutes = 0;

    for (int i = 0; i < 200; i++) {
        (void) snprintf(name, sizeof(name), "t%d", i);
        w->f.name = name;
        w->f.id = (uint64_t) i + 1;
        put(w);

        if (i % 20 == 0) {
            count(w, find(w), 0);
        }
    }

    /* what is before the given number stays, as what comes after the stop */

    w->visits = 0;
    tg_zone_visit_touched(w->zone, 100, report_some, w);
    assert_int_equal(w->visits, 3);

    all = 3;
    w->refuse = 0;

    for (parts = 0; parts == 0 || w->visits == 3; parts++) {
        w->visits = 0;
        tg_zone_visit_touched(w->zone, (uint32_t) w->refuse, report_some, w);
        assert_int_equal(tg_zone_check(w->zone), 0);
        all += w->visits;
    }

    assert_int_equal(parts, 3);
    assert_int_equal(all, 10);
    w->refuse = 0;
    assert_int_equal(visit(w), 0);
}


/* The count of a route that is no more, made before or after the change. */
static void
test_removed_route(void **state)
{
    int        i;
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);                                         /* routes 11, 12 */
    count(w, find(w), 0);
    p = pin(w);

    w->f.base = 11;                                 /* routes 12, 13 */
    put(w);
    count(w, find(w), 0);

    assert_int_equal(visit(w), 2);                  /* old one, then new one */
    assert_int_equal(w->reported[11], 1);
    assert_int_equal(w->reported[12], 1);

    /* a request that goes on with the old version */
    count(w, tg_zone_ptr(w->zone, p->block), 0);
    count(w, tg_zone_ptr(w->zone, p->block), 1);
    assert_int_equal(visit(w), 2);
    assert_int_equal(w->reported[11], 2);
    assert_int_equal(w->reported[12], 2);

    /* its last count is reported after it has ended */
    count(w, tg_zone_ptr(w->zone, p->block), 0);
    tg_zone_unpin(w->zone, w->slot, p);

    for (i = 0; i < 5; i++) {
        tg_zone_reclaim(w->zone);
        assert_int_equal(fixture_stats(w->zone).retired, 1);
    }

    assert_int_equal(visit(w), 2);
    assert_int_equal(w->reported[11], 3);

    /* kept until the next visit says that the report has arrived */
    tg_zone_reclaim(w->zone);
    w->refuse = 1;
    (void) visit(w);
    (void) visit(w);
    assert_int_equal(fixture_stats(w->zone).retired, 1);

    w->refuse = 0;
    assert_int_equal(visit(w), 1);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
    assert_int_equal(visit(w), 0);
}


static void
test_removed_route_never_used(void **state)
{
    world_t  *w = *state;

    put(w);
    w->f.base = 11;
    put(w);

    tg_zone_reclaim(w->zone);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
    assert_int_equal(visit(w), 0);
}


static void
test_removed_tenant(void **state)
{
    uint32_t  dense;
    world_t  *w = *state;

    put(w);
    dense = find(w)->slot;
    count(w, find(w), 0);
    count(w, find(w), 9);
    remove_tenant(w);

    assert_int_equal(visit(w), 1);
    assert_int_equal(w->reported[0], 1);
    assert_int_equal(w->reported[11], 1);

    /* its number is not given away while it is remembered */
    w->f.name = "other";
    put(w);
    assert_int_not_equal(find(w)->slot, dense);
    remove_tenant(w);

    assert_int_equal(visit(w), 1);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);

    put(w);
    assert_true(find(w)->slot <= dense);
}


static void
test_removed_tenant_with_requests(void **state)
{
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    p = pin(w);
    remove_tenant(w);

    assert_int_equal(visit(w), 0);
    count(w, tg_zone_ptr(w->zone, p->block), 1);
    assert_int_equal(visit(w), 1);
    assert_int_equal(w->reported[12], 1);
    assert_int_equal(visit(w), 0);

    /* its requests end while another tenant has the name */
    w->f.id = 2;
    w->f.base = 30;
    put(w);
    count(w, find(w), 0);
    count(w, tg_zone_ptr(w->zone, p->block), 1);
    tg_zone_unpin(w->zone, w->slot, p);

    assert_int_equal(visit(w), 2);
    assert_int_equal(w->reported[12], 2);
    assert_int_equal(w->reported[31], 1);
    assert_int_equal(visit(w), 1);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
}


/* The reporter is killed with its report under way. */
static void
test_another_reporter(void **state)
{
    world_t  *w = *state;

    put(w);
    count(w, find(w), 0);
    w->f.base = 11;
    put(w);
    w->f.name = "gone";
    w->f.base = 20;
    put(w);
    count(w, find(w), 1);
    remove_tenant(w);

    assert_int_equal(visit(w), 3);
    assert_int_equal(w->reported[11], 1);
    assert_int_equal(w->reported[22], 1);
    memset(w->reported, 0, sizeof(w->reported));

    tg_zone_touch_all(w->zone);
    assert_int_equal(visit(w), 3);
    assert_int_equal(w->reported[11], 1);
    assert_int_equal(w->reported[22], 1);

    assert_int_equal(visit(w), 2);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
}


/* Counters shared with an older version that somebody still counts in: the last
 * visit must come after the last count, whichever version goes first. */
static void
test_counts_in_an_older_version(void **state)
{
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);                                         /* 11, 12 */
    p = pin(w);
    put(w);                                         /* the same again */
    count(w, find(w), 0);
    w->f.base = 30;
    put(w);                                         /* 31, 32 */
    (void) visit(w);
    (void) visit(w);
    assert_int_equal(w->reported[11], 1);

    count(w, tg_zone_ptr(w->zone, p->block), 0);
    tg_zone_unpin(w->zone, w->slot, p);
    remove_tenant(w);

    (void) visit(w);
    assert_int_equal(w->reported[11], 2);

    (void) visit(w);
    (void) visit(w);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


/*
 * Two neighbours share a counter (12).  One of them has been visited for the
 * last time when the other, still pinned, counts in it; then that one goes.
 */
static void
test_count_after_the_last_visit(void **state)
{
    int                older_pinned;
    tg_pin_t          *p;
    world_t           *w = *state;
    const tg_block_t  *block;

    for (older_pinned = 0; older_pinned < 2; older_pinned++) {
        w->f.base = 10;
        put(w);                                     /* 11, 12 */
        p = older_pinned ? pin(w) : NULL;

        if (!older_pinned) {
            count(w, find(w), 0);
        }

        w->f.base = 11;
        put(w);                                     /* 12, 13 */
        p = older_pinned ? p : pin(w);

        if (older_pinned) {
            count(w, find(w), 1);
        }

        w->f.base = 30;
        put(w);                                     /* 31, 32 */
        (void) visit(w);

        block = tg_zone_ptr(w->zone, p->block);
        count(w, block, older_pinned ? 1 : 0);
        tg_zone_unpin(w->zone, w->slot, p);
        tg_zone_reclaim(w->zone);

        (void) visit(w);
        assert_int_equal(w->reported[12], 1);

        /* this visit was the first that saw all of it */
        assert_int_equal(fixture_stats(w->zone).retired, 1);
        (void) visit(w);
        assert_int_equal(fixture_stats(w->zone).retired, 0);

        remove_tenant(w);
        (void) visit(w);
        (void) visit(w);
        assert_int_equal(fixture_stats(w->zone).retired, 0);

        memset(w->reported, 0, sizeof(w->reported));
        w->f.id++;
    }
}


/* The tenant's number stays its own while any of its versions can count. */
static void
test_removed_tenant_with_an_older_version(void **state)
{
    tg_pin_t  *p;
    world_t   *w = *state;

    put(w);
    p = pin(w);
    put(w);
    remove_tenant(w);
    (void) visit(w);
    (void) visit(w);

    w->f.name = "other";
    w->f.base = 40;
    put(w);

    count(w, tg_zone_ptr(w->zone, p->block), 0);
    (void) visit(w);
    assert_int_equal(w->reported[11], 1);

    /* the older version, then the last one, which waits for its visit */
    tg_zone_unpin(w->zone, w->slot, p);
    (void) visit(w);
    (void) visit(w);
    (void) visit(w);
    assert_int_equal(fixture_stats(w->zone).retired, 0);
}


/* Random changes and requests: in the end all counts have been reported. */
static void
test_no_count_is_lost(void **state)
{
    int        i, n;
    size_t     k;
    uint32_t   route;
    uint64_t   x = 88172645463325252ull, expected[MAX_IDS] = { 0 };
    tg_pin_t  *pins[8], *p;
    world_t   *w = *state;
    const tg_block_t  *block;

    n = 0;

    for (i = 0; i < 30000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        k = x >> 8 & 7;

        switch (x % 16) {
        case 0:
            /* never the same ids again after they were gone */
            if (w->f.base < MAX_IDS - 10) {
                w->f.base += x >> 32 & 1;
            }
            w->f.nroutes = 3;
            put(w);
            break;

        case 1: case 2:
            if (n < 8 && find(w) && (p = pin(w)) != NULL) {
                pins[n++] = p;
            }
            break;

        case 3: case 4:
            if (n) {
                k %= (size_t) n;
                tg_zone_unpin(w->zone, w->slot, pins[k]);
                pins[k] = pins[--n];
            }
            break;

        case 5:
            (void) visit(w);
            break;

        case 6:
            tg_zone_reclaim(w->zone);
            break;

        case 7:
            w->refuse = x >> 40 & 1;
            break;

        default:
            if (n) {
                block = tg_zone_ptr(w->zone, pins[k % (size_t) n]->block);
                route = x >> 48 & 3;
                count(w, block, route);
                expected[route < block->routes.n
                         ? tg_vec(block, block->routes, tg_route_t)[route].id
                         : 0]++;
            }
        }
    }

    while (n) {
        tg_zone_unpin(w->zone, w->slot, pins[--n]);
    }

    remove_tenant(w);
    w->refuse = 0;

    for (i = 0; i < 5; i++) {
        (void) visit(w);
    }

    assert_memory_equal(w->reported, expected, sizeof(expected));
    assert_int_equal(fixture_stats(w->zone).retired, 0);
    assert_int_equal(fixture_stats(w->zone).used, w->base);
}


#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_touched_only),
        TEST(test_refused_visit_stays_touched),
        TEST(test_visit_in_parts),
        TEST(test_removed_route),
        TEST(test_removed_route_never_used),
        TEST(test_removed_tenant),
        TEST(test_removed_tenant_with_requests),
        TEST(test_another_reporter),
        TEST(test_counts_in_an_older_version),
        TEST(test_count_after_the_last_visit),
        TEST(test_removed_tenant_with_an_older_version),
        TEST(test_no_count_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
