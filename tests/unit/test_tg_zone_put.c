/* SPDX-License-Identifier: BSD-2-Clause */

/* What a version takes over from the one before, and what a full zone does. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_zone_private.h"
#include "zone_fixture.h"

#define MB  (1024u * 1024u)


/* --- state objects --- */

static tg_counters_t *
route_counters(const tg_zone_t *zone, const char *name, uint32_t i)
{
    const tg_block_t  *block = fixture_find(zone, name);

    return tg_zone_ptr(zone, tg_vec(block, block->routes, tg_route_t)[i]
                             .counters);
}


static void
test_states_are_taken_over_by_id(void **state)
{
    uint32_t             i;
    tg_zone_t           *zone = fixture_zone(MB);
    const tg_block_t    *block;
    tg_upstream_t       *upstreams;
    tg_endpoint_t       *endpoints;
    tg_endpoint_state_t *endpoint;
    tg_quota_state_t    *quota;
    fixture_t            f = { .name = "t", .id = 1, .revision = 1,
                               .nroutes = 3, .nquotas = 2, .nupstreams = 2,
                               .nendpoints = 3, .base = 100,
                               .metric = TG_METRIC_CONCURRENCY };

    (void) state;

    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);
    block = fixture_find(zone, "t");

    for (i = 0; i < 3; i++) {
        assert_int_equal(route_counters(zone, "t", i)->status[1], 0);
        route_counters(zone, "t", i)->status[1] = i + 1;
    }

    ((tg_counters_t *) tg_zone_ptr(zone, block->counters))->status[3] = 77;
    quota = tg_zone_ptr(zone, tg_vec(block, block->quotas, tg_quota_t)[1].state);
    quota->word = 55;
    upstreams = tg_vec(block, block->upstreams, tg_upstream_t);
    endpoints = tg_vec(block, upstreams[1].endpoints, tg_endpoint_t);
    endpoint = tg_zone_ptr(zone, endpoints[2].state);
    endpoint->fails = 33;

    /* one id less in front, one more behind: 101.. becomes 102.. */
    f.base = 101;
    f.revision = 2;
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);

    block = fixture_find(zone, "t");
    assert_int_equal(route_counters(zone, "t", 0)->status[1], 2);
    assert_int_equal(route_counters(zone, "t", 1)->status[1], 3);
    assert_int_equal(route_counters(zone, "t", 2)->status[1], 0);
    assert_int_equal(((tg_counters_t *) tg_zone_ptr(zone, block->counters))
                     ->status[3], 77);
    assert_ptr_equal(tg_zone_ptr(zone, tg_vec(block, block->quotas,
                                              tg_quota_t)[0].state), quota);

    /* the endpoint of id 106 is now the second of the second upstream */
    upstreams = tg_vec(block, block->upstreams, tg_upstream_t);
    endpoints = tg_vec(block, upstreams[1].endpoints, tg_endpoint_t);
    assert_int_equal(endpoints[1].id, 106);
    assert_ptr_equal(tg_zone_ptr(zone, endpoints[1].state), endpoint);
    assert_int_equal(endpoint->fails, 33);

    assert_int_equal(tg_zone_check(zone), 0);
    munmap(zone, MB);
}


/* Its words would mean something else. */
static void
test_quota_of_another_kind_starts_anew(void **state)
{
    int                i;
    uint64_t           revision, object;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_quota_t        *quota;
    tg_block_t        *image;
    const fixture_t    f = { .name = "t", .id = 1, .revision = 1, .nquotas = 1 };

    (void) state;

    revision = 1;

    for (i = 0; i < 10; i++) {
        image = fixture_block(&f);
        image->revision = revision++;
        quota = tg_vec(image, image->quotas, tg_quota_t);

        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);
        object = tg_vec(fixture_find(zone, "t"), image->quotas, tg_quota_t)->state;

        switch (i % 5) {
        case 0: quota->keyed = 1; break;
        case 1: quota->metric = TG_METRIC_CONCURRENCY; break;
        case 2: quota->window = TG_WINDOW_DAY; break;
        case 3: quota->limit = 5; break;
        case 4: quota->scope = TG_SCOPE_CONSUMER; break;
        }

        image->revision = revision++;
        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);

        if (i % 5 < 3) {
            assert_int_not_equal(object, tg_vec(fixture_find(zone, "t"),
                                                image->quotas, tg_quota_t)
                                         ->state);
        } else {
            assert_int_equal(object, tg_vec(fixture_find(zone, "t"),
                                            image->quotas, tg_quota_t)->state);
        }

        assert_int_equal(tg_zone_check(zone), 0);
        free(image);
    }

    assert_int_equal(fixture_settle(zone), 0);
    munmap(zone, MB);
}


/* No document has the same id twice; if one had, nothing may be freed twice. */
static void
test_same_id_twice(void **state)
{
    uint64_t           used, revision;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_block_t        *image;
    tg_route_t        *routes;
    const fixture_t    f = { .name = "t", .id = 1, .nroutes = 8 };

    (void) state;

    used = fixture_stats(zone).used;

    for (revision = 1; revision < 20; revision++) {
        image = fixture_block(&f);
        image->revision = revision;
        routes = tg_vec(image, image->routes, tg_route_t);
        routes[revision % 8].id = routes[revision % 3].id;
        routes[revision % 5].id = routes[revision % 4].id;

        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);
        free(image);

        tg_zone_reclaim(zone);
        assert_int_equal(tg_zone_check(zone), 0);
    }

    assert_int_equal(fixture_delete(zone, "t", 1, 99), TG_ZONE_OK);
    assert_int_equal(fixture_settle(zone), 0);
    assert_int_equal(fixture_stats(zone).used, used);

    munmap(zone, MB);
}


static void
reverse_routes(tg_block_t *image)
{
    uint32_t     i, n;
    tg_route_t   route, *routes;

    routes = tg_vec(image, image->routes, tg_route_t);
    n = image->routes.n;

    for (i = 0; i < n / 2; i++) {
        route = routes[i];
        routes[i] = routes[n - 1 - i];
        routes[n - 1 - i] = route;
    }
}


/* As large as a tenant can get, and turned round. */
static void
test_large_tenant(void **state)
{
    uint32_t           i;
    uint64_t           used;
    tg_zone_t         *zone = fixture_zone(64 * MB);
    tg_block_t        *image;
    const fixture_t    f = { .name = "t", .id = 1, .revision = 1,
                             .nroutes = 1000, .nquotas = 1000, .nupstreams = 256,
                             .nendpoints = 256 };

    (void) state;

    used = fixture_stats(zone).used;

    image = fixture_block(&f);
    assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);

    for (i = 0; i < 1000; i++) {
        route_counters(zone, "t", i)->status[0] = i;
    }

    image->revision = 2;
    reverse_routes(image);
    assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);

    for (i = 0; i < 1000; i++) {
        assert_int_equal(route_counters(zone, "t", i)->status[0], 999 - i);
        route_counters(zone, "t", i)->status[0] = 0;
    }

    assert_int_equal(fixture_settle(zone), 0);
    free(image);

    assert_int_equal(fixture_delete(zone, "t", 1, 3), TG_ZONE_OK);
    assert_int_equal(fixture_settle(zone), 0);
    assert_int_equal(fixture_stats(zone).used, used);

    munmap(zone, 64 * MB);
}


/* --- a full zone --- */

static const char *const  wide_hosts[] = { "1.example", "2.example",
                                           "3.example", "4.example" };

/* Takes memory until nothing of least bytes is left; returns how many objects
 * it took. */
static size_t
exhaust(tg_zone_t *zone, void **objects, size_t max, size_t least)
{
    void    *p;
    size_t   n, size;

    n = 0;

    for (size = 64 * 1024; size >= least; size = size * 3 / 4) {
        while ((p = tg_arena_alloc(tg_zone_arena(zone), size)) != NULL) {
            objects[n++ % max] = p;
        }
    }

    return n;
}


static int
owns(const tg_zone_t *zone, const char *host)
{
    return tg_zone_find_host(zone, host, strlen(host)) != NULL;
}


/* Whatever runs out first, at whichever allocation. */
static void
test_full_changes_nothing(void **state)
{
    int                i, fitted;
    void              *objects[4096];
    size_t             n, left;
    uint64_t           used, version;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_block_t        *image;
    const tg_block_t  *block;
    fixture_t          f = { .name = "old", .id = 1, .revision = 1,
                             .hosts = wide_hosts, .nhosts = 2, .nroutes = 10,
                             .nquotas = 2, .nupstreams = 2, .nendpoints = 3,
                             .pad = 2000 };

    (void) state;

    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);
    block = fixture_find(zone, "old");

    n = exhaust(zone, objects, 4096, 8);
    assert_true(n < 4096);
    left = n;
    fitted = 0;

    f.nhosts = 4;
    f.base = 1000;
    f.keyed = 1;

    while (fitted < 2 && left) {
        used = fixture_stats(zone).used;
        version = tg_zone_version(zone);

        for (i = 0; i < 2; i++) {
            f.name = i ? "old" : "new";
            f.revision++;
            image = fixture_block(&f);

            if (tg_zone_put(zone, image) == TG_ZONE_OK) {
                fitted++;
                f.name = "new";
                assert_int_equal(fixture_delete(zone, f.name, 1, UINT32_MAX),
                                 TG_ZONE_OK);
                free(image);
                goto free_one;
            }

            free(image);
            assert_int_equal(fixture_stats(zone).used, used);
            assert_int_equal(tg_zone_version(zone), version);
            assert_ptr_equal(fixture_find(zone, "old"), block);
            assert_null(fixture_find(zone, "new"));
            assert_true(owns(zone, "1.example"));
            assert_false(owns(zone, "3.example"));
            assert_int_equal(fixture_stats(zone).retired, 0);
            assert_int_equal(tg_arena_check(tg_zone_arena(zone)), 0);
        }

free_one:

        if (fitted == 0) {
            tg_arena_free(tg_zone_arena(zone), objects[--left]);
        } else {
            break;
        }
    }

    assert_int_equal(fitted, 1);
    assert_true(fixture_stats(zone).full > 10);

    munmap(zone, MB);
}


/* The last thing that a put allocates: all before it has to be given back. */
static void
test_full_at_the_last_host(void **state)
{
    char               host[130];
    void              *room, *objects[4096];
    uint64_t           used;
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  hosts[] = { host };
    fixture_t          f = { .name = "t", .id = 1, .revision = 1, .nroutes = 2,
                             .pad = 2000 };

    (void) state;

    memset(host, 'a', sizeof(host));
    host[129] = '\0';

    /* with a record of a retired version, so that there is a slab for those */
    tg_zone_enter(zone, tg_zone_slot_take(zone, getpid(), 0));
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);
    f.revision++;
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);

    room = tg_arena_alloc(tg_zone_arena(zone), 3200);
    assert_true(exhaust(zone, objects, 4096, 257) < 4096);
    tg_arena_free(tg_zone_arena(zone), room);
    used = fixture_stats(zone).used;

    /* a slab for nodes of this length would need a page */
    f.revision++;
    f.hosts = hosts;
    f.nhosts = 1;
    f.base = 50;
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_FULL);
    assert_int_equal(fixture_stats(zone).used, used);

    /* without it there is room */
    f.nhosts = 0;
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);

    munmap(zone, MB);
}


/* A zone that is full takes removals, then new tenants again. */
static void
test_full_recovers_by_deleting(void **state)
{
    char               name[32];
    uint32_t           i, n;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_zone_status_e   status;
    fixture_t          f = { .name = name, .nroutes = 2, .pad = 700 };

    (void) state;

    for (n = 0; /* void */ ; n++) {
        (void) snprintf(name, sizeof(name), "tenant-%u", n);
        f.id = n + 1;
        f.revision = 1;
        status = fixture_put(zone, &f);
        if (status != TG_ZONE_OK) {
            break;
        }
    }

    assert_int_equal(status, TG_ZONE_FULL);
    assert_true(n > 300);
    assert_int_equal(tg_zone_check(zone), 0);
    assert_int_equal(fixture_stats(zone).tenants, n);
    assert_true(fixture_stats(zone).used > fixture_stats(zone).size * 97 / 100);

    for (i = 0; i < n; i += 2) {
        (void) snprintf(name, sizeof(name), "tenant-%u", i);
        assert_int_equal(fixture_delete(zone, name, i + 1, 2), TG_ZONE_OK);
    }

    /* without a call of tg_zone_reclaim() */
    for (i = 0; i < n; i += 2) {
        (void) snprintf(name, sizeof(name), "tenant-%u", i);
        f.id = i + 1;
        f.revision = 3;
        assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);
    }

    for (i = 0; i < n; i++) {
        (void) snprintf(name, sizeof(name), "tenant-%u", i);
        assert_true(fixture_whole(fixture_find(zone, name)));
    }

    assert_int_equal(fixture_settle(zone), 0);
    munmap(zone, MB);
}


/* Tables, slots and all: one host, two routes, a reference to an issuer, two
 * keys, two quotas, two upstreams of one endpoint. */
static void
test_bytes_of_a_typical_tenant(void **state)
{
    char               name[32], host[48];
    uint64_t           n;
    tg_zone_t         *zone = fixture_zone(32 * MB);
    tg_zone_status_e   status;
    const char *const  hosts[] = { host };
    fixture_t          f = { .name = name, .revision = 1, .hosts = hosts,
                             .nhosts = 1, .nroutes = 2, .nquotas = 2,
                             .nupstreams = 2, .nendpoints = 1, .nkeys = 2,
                             .pad = sizeof(tg_issuer_t) + 40 };

    (void) state;

    n = 0;

    do {
        f.id = ++n;
        f.base = 10 * n;
        (void) snprintf(name, sizeof(name), "tenant-%06u", (unsigned) n);
        (void) snprintf(host, sizeof(host), "%s.example.com", name);
        status = fixture_put(zone, &f);
    } while (status == TG_ZONE_OK);

    assert_int_equal(status, TG_ZONE_FULL);
    print_message("    %u bytes a tenant\n", (unsigned) (32 * MB / (n - 1)));
    assert_true(32 * MB / (n - 1) <= 2048);

    munmap(zone, 32 * MB);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_states_are_taken_over_by_id),
        cmocka_unit_test(test_quota_of_another_kind_starts_anew),
        cmocka_unit_test(test_same_id_twice),
        cmocka_unit_test(test_large_tenant),
        cmocka_unit_test(test_full_changes_nothing),
        cmocka_unit_test(test_full_at_the_last_host),
        cmocka_unit_test(test_full_recovers_by_deleting),
        cmocka_unit_test(test_bytes_of_a_typical_tenant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
