/* SPDX-License-Identifier: BSD-2-Clause */

/* Tables and publication: what can be found, what a put takes over, and what a
 * full zone does. */

#define _GNU_SOURCE                 /* memfd_create() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_zone_private.h"
#include "zone_fixture.h"

#define MB  (1024u * 1024u)

#define NONE  0


static uint64_t
find_host(const tg_zone_t *zone, const char *host)
{
    const tg_block_t  *block = tg_zone_find_host(zone, host, strlen(host));

    return block ? block->id : NONE;
}


static const tg_block_t *
find_tenant(const tg_zone_t *zone, const char *name)
{
    return tg_zone_find_tenant(zone, name, strlen(name));
}


/* A tenant with these hosts (sorted, NULL at the end). */
static tg_zone_status_e
put_hosts(tg_zone_t *zone, const char *name, uint64_t id, uint64_t revision,
    const char *const *hosts)
{
    fixture_t  f = { .name = name, .id = id, .revision = revision,
                     .hosts = hosts, .nroutes = 1, .base = id * 100 };

    while (hosts[f.nhosts]) {
        f.nhosts++;
    }

    return fixture_put(zone, &f);
}


static tg_zone_status_e
delete_tenant(tg_zone_t *zone, const char *name, uint64_t id, uint64_t revision)
{
    return tg_zone_delete(zone, TG_KIND_TENANT, name, strlen(name), id,
                          revision);
}


/* Until nothing waits any more. */
static void
settle(tg_zone_t *zone)
{
    int  i;

    for (i = 0; i < 10 && fixture_stats(zone).retired; i++) {
        tg_zone_reclaim(zone);
    }

    assert_int_equal(fixture_stats(zone).retired, 0);
    assert_int_equal(tg_zone_check(zone), 0);
}


static void
test_create_and_attach(void **state)
{
    void           *base;
    tg_zone_t      *zone;
    const uint8_t   boot[16] = "boot";

    (void) state;

    base = mmap(NULL, 2 * MB, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);

    assert_null(tg_zone_attach(base, 2 * MB));          /* zeroes */
    memset(base, 0xff, 2 * MB);
    assert_null(tg_zone_attach(base, 2 * MB));
    assert_null(tg_zone_create(base, TG_ZONE_MIN - 1, 1, boot));
    assert_null(tg_zone_create(base, TG_ZONE_MAX + 1, 1, boot));

    zone = tg_zone_create(base, 2 * MB, 1, boot);
    assert_non_null(zone);
    assert_int_equal(tg_zone_check(zone), 0);
    assert_memory_equal(tg_zone_boot(zone), boot, 16);
    assert_int_equal(tg_zone_revision(zone), 0);

    assert_ptr_equal(tg_zone_attach(base, 2 * MB), zone);
    assert_null(tg_zone_attach(base, 1 * MB));

    zone->layout++;                         /* other code made it */
    assert_null(tg_zone_attach(base, 2 * MB));

    munmap(base, 2 * MB);
}


/* The same memory at two addresses. */
static void
test_two_mappings(void **state)
{
    int                fd;
    void              *a, *b;
    tg_zone_t         *writer, *reader;
    const char *const  hosts[] = { "a.example", NULL };
    const uint8_t      boot[16] = { 0 };
    const tg_block_t  *block;

    (void) state;

    fd = memfd_create("zone", MFD_CLOEXEC);
    assert_true(fd != -1);
    assert_int_equal(ftruncate(fd, MB), 0);

    a = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    b = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(a != MAP_FAILED && b != MAP_FAILED && a != b);

    writer = tg_zone_create(a, MB, 7, boot);
    reader = tg_zone_attach(b, MB);
    assert_non_null(reader);

    assert_int_equal(put_hosts(writer, "a", 1, 1, hosts), TG_ZONE_OK);

    block = tg_zone_find_host(reader, "a.example", 9);
    assert_non_null(block);
    assert_true((char *) block > (char *) b && (char *) block < (char *) b + MB);
    assert_int_equal(tg_zone_check(reader), 0);

    munmap(a, MB);
    munmap(b, MB);
    close(fd);
}


static void
test_hosts(void **state)
{
    size_t             i;
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  a[] = { ".a.example", ".b.a.example", "a.example",
                               "x.b.a.example", NULL };
    const char *const  b[] = { ".c.b.a.example", "exact.b.a.example", NULL };

    static const struct {
        const char  *host;
        uint64_t     id;
    } cases[] = {
        { "a.example", 1 },
        { "x.a.example", 1 },
        { "x.y.a.example", 1 },
        { "b.a.example", 1 },
        { "x.b.a.example", 1 },
        { "exact.b.a.example", 2 },
        { "c.b.a.example", 1 },         /* a wildcard is not its own suffix */
        { "d.c.b.a.example", 2 },       /* longer wildcard */
        { "e.d.c.b.a.example", 2 },
        { "example", NONE },
        { "b.example", NONE },
        { "xa.example", NONE },
        { "a.example.com", NONE },
        { "a", NONE },
        { "", NONE },
    };

    (void) state;

    assert_int_equal(put_hosts(zone, "a", 1, 1, a), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "b", 2, 2, b), TG_ZONE_OK);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(find_host(zone, cases[i].host), cases[i].id);
    }

    assert_int_equal(zone->wildcards, 3);

    /* what b had falls back to a's shorter wildcards */
    assert_int_equal(delete_tenant(zone, "b", 2, 3), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "d.c.b.a.example"), 1);
    assert_int_equal(find_host(zone, "exact.b.a.example"), 1);

    assert_int_equal(delete_tenant(zone, "a", 1, 4), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "a.example"), NONE);
    assert_int_equal(find_host(zone, "x.a.example"), NONE);
    assert_int_equal(zone->wildcards, 0);

    settle(zone);
    munmap(zone, MB);
}


static void
test_hosts_with_many_labels(void **state)
{
    char        host[260];
    size_t      i;
    tg_zone_t  *zone = fixture_zone(MB);

    (void) state;

    for (i = 0; i < 126; i++) {
        memcpy(host + 2 * i, "a.", 2);
    }
    memcpy(host + 252, "a", 2);             /* 253 bytes, 127 labels */

    const char *const  wildcard[] = { host + 1, NULL };

    assert_int_equal(find_host(zone, host), NONE);
    assert_int_equal(put_hosts(zone, "t", 1, 1, wildcard), TG_ZONE_OK);
    assert_int_equal(find_host(zone, host), 1);
    assert_int_equal(find_host(zone, host + 2), NONE);

    munmap(zone, MB);
}


/* A host goes from one tenant to another, in both orders of their updates. */
static void
test_host_moves(void **state)
{
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  none[] = { NULL };
    const char *const  one[] = { "h.example", NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "a", 1, 1, one), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "b", 2, 2, one), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), 2);      /* given last */
    assert_int_equal(tg_zone_check(zone), 0);

    assert_int_equal(put_hosts(zone, "a", 1, 3, none), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), 2);

    assert_int_equal(put_hosts(zone, "b", 2, 4, none), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), NONE);
    assert_int_equal(put_hosts(zone, "a", 1, 5, one), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), 1);

    /* the later owner goes: the earlier still lists it */
    assert_int_equal(put_hosts(zone, "b", 2, 6, one), TG_ZONE_OK);
    assert_int_equal(delete_tenant(zone, "b", 2, 7), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), 1);

    settle(zone);
    munmap(zone, MB);
}


/* Nodes of hosts are in the chains before and after the switch; only what the
 * current block lists counts. */
static void
test_hosts_follow_the_block(void **state)
{
    tg_zone_t         *zone = fixture_zone(MB);
    tg_entry_t        *entry;
    tg_zref_t          first, second;
    const char *const  before[] = { "kept.example", "old.example", NULL };
    const char *const  after[] = { "kept.example", "new.example", NULL };
    const char *const  all[] = { "kept.example", "new.example", "old.example",
                                 NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "t", 1, 1, before), TG_ZONE_OK);
    entry = tg_entry_find(zone, TG_KIND_TENANT, "t", 1, 0);
    first = entry->block;

    assert_int_equal(put_hosts(zone, "t", 1, 2, after), TG_ZONE_OK);
    second = entry->block;

    /* all nodes in the chains, and each of the two blocks in turn */
    assert_int_equal(put_hosts(zone, "t", 1, 3, all), TG_ZONE_OK);

    entry->block = first;
    assert_int_equal(find_host(zone, "old.example"), 1);
    assert_int_equal(find_host(zone, "new.example"), NONE);
    assert_int_equal(find_host(zone, "kept.example"), 1);

    entry->block = second;
    assert_int_equal(find_host(zone, "old.example"), NONE);
    assert_int_equal(find_host(zone, "new.example"), 1);
    assert_int_equal(find_host(zone, "kept.example"), 1);

    entry->block = 0;
    assert_int_equal(find_host(zone, "kept.example"), NONE);

    munmap(zone, MB);
}


static void
test_revisions(void **state)
{
    uint64_t           version;
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  none[] = { NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "t", 1, 5, none), TG_ZONE_OK);
    version = tg_zone_version(zone);

    assert_int_equal(put_hosts(zone, "t", 1, 5, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "t", 1, 4, none), TG_ZONE_STALE);
    assert_int_equal(put_hosts(zone, "t", 9, 4, none), TG_ZONE_STALE);
    assert_int_equal(delete_tenant(zone, "t", 1, 4), TG_ZONE_STALE);
    assert_int_equal(delete_tenant(zone, "t", 2, 9), TG_ZONE_OK);   /* not it */
    assert_int_equal(delete_tenant(zone, "u", 1, 9), TG_ZONE_OK);   /* absent */
    assert_int_equal(tg_zone_version(zone), version);
    assert_int_equal(find_tenant(zone, "t")->revision, 5);
    assert_int_equal(fixture_stats(zone).puts, 1);

    assert_int_equal(put_hosts(zone, "t", 1, 6, none), TG_ZONE_OK);
    assert_true(tg_zone_version(zone) > version);
    version = tg_zone_version(zone);

    /* the name was given to a new tenant */
    assert_int_equal(put_hosts(zone, "t", 2, 7, none), TG_ZONE_OK);
    assert_int_equal(find_tenant(zone, "t")->id, 2);
    assert_int_equal(fixture_stats(zone).tenants, 1);

    assert_int_equal(delete_tenant(zone, "t", 0, 8), TG_ZONE_OK);
    assert_null(find_tenant(zone, "t"));
    assert_true(tg_zone_version(zone) > version + 1);
    assert_int_equal(fixture_stats(zone).tenants, 0);

    tg_zone_set_revision(zone, 8, 0);
    tg_zone_set_revision(zone, 7, 0);
    assert_int_equal(tg_zone_revision(zone), 8);

    settle(zone);
    munmap(zone, MB);
}


/* Revisions of another registry say nothing about those in the zone. */
static void
test_another_registry(void **state)
{
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  none[] = { NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "t", 1, 500, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "u", 2, 500, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "v", 3, 500, none), TG_ZONE_OK);
    tg_zone_set_revision(zone, 500, 0);

    tg_zone_set_revision(zone, 0, 1);
    assert_int_equal(tg_zone_revision(zone), 0);

    assert_int_equal(put_hosts(zone, "t", 7, 3, none), TG_ZONE_OK);
    assert_int_equal(find_tenant(zone, "t")->id, 7);
    assert_int_equal(put_hosts(zone, "u", 8, 500, none), TG_ZONE_OK);
    assert_int_equal(find_tenant(zone, "u")->id, 8);
    assert_int_equal(delete_tenant(zone, "v", 3, 4), TG_ZONE_OK);
    assert_null(find_tenant(zone, "v"));

    /* and from here on they count again */
    assert_int_equal(put_hosts(zone, "t", 7, 2, none), TG_ZONE_STALE);

    settle(zone);
    munmap(zone, MB);
}


static void
test_issuers(void **state)
{
    uint64_t      id;
    tg_zone_t    *zone = fixture_zone(MB);
    tg_block_t   *image;

    (void) state;

    for (id = 1; id <= 100; id++) {
        image = fixture_issuer(id, id);
        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);
        free(image);
    }

    assert_int_equal(fixture_stats(zone).issuers, 100);
    assert_int_equal(fixture_stats(zone).tenants, 0);
    assert_null(find_tenant(zone, "platform"));

    for (id = 1; id <= 100; id++) {
        assert_int_equal(tg_zone_find_issuer(zone, id)->id, id);
    }

    assert_null(tg_zone_find_issuer(zone, 0));
    assert_null(tg_zone_find_issuer(zone, 101));

    assert_int_equal(tg_zone_delete(zone, TG_KIND_ISSUER, NULL, 0, 5, 200),
                     TG_ZONE_OK);
    assert_null(tg_zone_find_issuer(zone, 5));
    assert_int_equal(fixture_stats(zone).issuers, 99);

    settle(zone);
    munmap(zone, MB);
}


static void
damage(tg_block_t *b, int how)
{
    tg_ref_t       *hosts = tg_vec(b, b->hosts, tg_ref_t);
    tg_upstream_t  *upstreams = tg_vec(b, b->upstreams, tg_upstream_t);

    switch (how) {
    case 0: b->magic++; break;
    case 1: b->size = 16; break;
    case 2: b->kind = 3; break;
    case 3: b->name.len = b->size; break;
    case 4: b->name.len = 0; break;
    case 5: b->hosts.n = UINT32_MAX; break;
    case 6: b->hosts.off = 4; break;
    case 7: hosts[0].len = b->size; break;
    case 8: hosts[0].len = 0; break;
    case 9: hosts[1] = hosts[0]; break;
    case 10: hosts[0] = hosts[1]; hosts[1].len--; break;
    case 11: b->routes.off += 4; break;
    case 12: b->routes.n = 1 << 30; break;
    case 13: b->quotas.off = UINT32_MAX - 7; break;
    case 14: b->upstreams.n = 1000; break;
    case 15: upstreams[0].endpoints.n = 1000; break;
    case 16: upstreams[0].endpoints.off = 8; break;
    case 17: b->kind = TG_KIND_ISSUER; break;       /* with hosts */
    default: return;
    }
}


static void
test_invalid_blocks(void **state)
{
    int                i;
    uint64_t           used;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_block_t        *image;
    const char *const  hosts[] = { "a.example", "b.example" };
    const fixture_t    f = { .name = "t", .id = 1, .revision = 1,
                             .hosts = hosts, .nhosts = 2, .nroutes = 2,
                             .nquotas = 1, .nupstreams = 1, .nendpoints = 1 };

    (void) state;

    used = fixture_stats(zone).used;

    for (i = 0; i <= 17; i++) {
        image = fixture_block(&f);
        damage(image, i);
        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_INVALID);
        free(image);
    }

    assert_int_equal(fixture_stats(zone).used, used);
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);

    munmap(zone, MB);
}


/* --- state objects --- */

static tg_counters_t *
route_counters(const tg_zone_t *zone, const char *name, uint32_t i)
{
    const tg_block_t  *block = find_tenant(zone, name);

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
    block = find_tenant(zone, "t");

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

    block = find_tenant(zone, "t");
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
        object = tg_vec(find_tenant(zone, "t"), image->quotas, tg_quota_t)->state;

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
            assert_int_not_equal(object, tg_vec(find_tenant(zone, "t"),
                                                image->quotas, tg_quota_t)
                                         ->state);
        } else {
            assert_int_equal(object, tg_vec(find_tenant(zone, "t"),
                                            image->quotas, tg_quota_t)->state);
        }

        assert_int_equal(tg_zone_check(zone), 0);
        free(image);
    }

    settle(zone);
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

    assert_int_equal(delete_tenant(zone, "t", 1, 99), TG_ZONE_OK);
    settle(zone);
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

    settle(zone);
    free(image);

    assert_int_equal(delete_tenant(zone, "t", 1, 3), TG_ZONE_OK);
    settle(zone);
    assert_int_equal(fixture_stats(zone).used, used);

    munmap(zone, 64 * MB);
}


/* --- a full zone --- */

static const char *const  wide_hosts[] = { "1.example", "2.example",
                                           "3.example", "4.example" };

/* Takes memory until nothing of any size is left; returns the last objects. */
static size_t
exhaust(tg_zone_t *zone, void **objects, size_t max)
{
    void    *p;
    size_t   n, size;

    n = 0;

    for (size = 64 * 1024; size >= 8; size = size * 3 / 4) {
        while ((p = tg_arena_alloc(tg_zone_arena(zone), size)) != NULL) {
            objects[n++ % max] = p;
        }
    }

    return n;
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
    block = find_tenant(zone, "old");

    n = exhaust(zone, objects, 4096);
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
                assert_int_equal(delete_tenant(zone, f.name, 1, UINT32_MAX),
                                 TG_ZONE_OK);
                free(image);
                goto free_one;
            }

            free(image);
            assert_int_equal(fixture_stats(zone).used, used);
            assert_int_equal(tg_zone_version(zone), version);
            assert_ptr_equal(find_tenant(zone, "old"), block);
            assert_null(find_tenant(zone, "new"));
            assert_int_equal(find_host(zone, "1.example"), 1);
            assert_int_equal(find_host(zone, "3.example"), NONE);
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
        assert_int_equal(delete_tenant(zone, name, i + 1, 2), TG_ZONE_OK);
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
        assert_true(fixture_whole(find_tenant(zone, name)));
    }

    settle(zone);
    munmap(zone, MB);
}


/* --- lists --- */

static int
count(void *data, const tg_block_t *block)
{
    (void) block;
    (*(int *) data)++;

    return 0;
}


static int
count_objects(tg_zone_t *zone)
{
    int  n = 0;

    assert_int_equal(tg_zone_visit_all(zone, count, &n), 0);

    return n;
}


static void
test_list(void **state)
{
    tg_zone_t         *zone = fixture_zone(MB);
    tg_block_t        *image = fixture_issuer(1, 1);
    const char *const  none[] = { NULL };

    (void) state;

    assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "a", 1, 1, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "b", 2, 1, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "c", 3, 5, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "d", 4, 1, none), TG_ZONE_OK);
    assert_int_equal(count_objects(zone), 5);

    /* abandoned: nothing goes */
    tg_zone_list_begin(zone);
    assert_int_equal(put_hosts(zone, "a", 1, 2, none), TG_ZONE_OK);
    assert_int_equal(count_objects(zone), 5);

    tg_zone_list_begin(zone);
    assert_int_equal(put_hosts(zone, "b", 2, 1, none), TG_ZONE_OK); /* same */
    assert_int_equal(put_hosts(zone, "c", 3, 4, none), TG_ZONE_STALE);
    assert_int_equal(put_hosts(zone, "e", 5, 4, none), TG_ZONE_OK);
    tg_zone_keep(zone, TG_KIND_TENANT, "d", 1, 4);
    tg_zone_keep(zone, TG_KIND_TENANT, "x", 1, 9);
    tg_zone_list_end(zone);

    assert_null(find_tenant(zone, "a"));
    assert_non_null(find_tenant(zone, "b"));
    assert_non_null(find_tenant(zone, "c"));
    assert_non_null(find_tenant(zone, "d"));
    assert_non_null(find_tenant(zone, "e"));
    assert_null(tg_zone_find_issuer(zone, 1));

    /* a second end has nothing to end */
    assert_int_equal(put_hosts(zone, "f", 6, 6, none), TG_ZONE_OK);
    tg_zone_list_end(zone);
    assert_int_equal(count_objects(zone), 5);

    free(image);
    settle(zone);
    munmap(zone, MB);
}


/* Two cycles of a gateway overlap: the new one's list is the one that counts. */
static void
test_list_of_another_process(void **state)
{
    tg_zone_t         *zone = fixture_zone(MB);
    const char *const  none[] = { NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "a", 1, 1, none), TG_ZONE_OK);
    tg_zone_list_begin(zone);
    assert_int_equal(put_hosts(zone, "b", 2, 1, none), TG_ZONE_OK);

    tg_zone_list_begin(zone);
    zone->lister++;                 /* as if it were another's */

    tg_zone_list_end(zone);
    assert_int_equal(count_objects(zone), 2);

    munmap(zone, MB);
}


static int
stop_at_tenant(void *data, const tg_block_t *block)
{
    (*(int *) data)++;

    return (block->kind == TG_KIND_TENANT) ? 17 : 0;
}


static void
test_visit_all(void **state)
{
    int                n;
    uint64_t           id;
    tg_zone_t         *zone = fixture_zone(MB);
    tg_block_t        *image;
    const char *const  none[] = { NULL };

    (void) state;

    assert_int_equal(put_hosts(zone, "a", 1, 1, none), TG_ZONE_OK);
    assert_int_equal(put_hosts(zone, "b", 2, 1, none), TG_ZONE_OK);

    for (id = 1; id <= 3; id++) {
        image = fixture_issuer(id, 1);
        assert_int_equal(tg_zone_put(zone, image), TG_ZONE_OK);
        free(image);
    }

    /* issuers first */
    n = 0;
    assert_int_equal(tg_zone_visit_all(zone, stop_at_tenant, &n), 17);
    assert_int_equal(n, 4);
    assert_int_equal(count_objects(zone), 5);

    munmap(zone, MB);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_create_and_attach),
        cmocka_unit_test(test_two_mappings),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_hosts_with_many_labels),
        cmocka_unit_test(test_host_moves),
        cmocka_unit_test(test_hosts_follow_the_block),
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_another_registry),
        cmocka_unit_test(test_issuers),
        cmocka_unit_test(test_invalid_blocks),
        cmocka_unit_test(test_states_are_taken_over_by_id),
        cmocka_unit_test(test_quota_of_another_kind_starts_anew),
        cmocka_unit_test(test_same_id_twice),
        cmocka_unit_test(test_large_tenant),
        cmocka_unit_test(test_full_changes_nothing),
        cmocka_unit_test(test_full_recovers_by_deleting),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_of_another_process),
        cmocka_unit_test(test_visit_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
