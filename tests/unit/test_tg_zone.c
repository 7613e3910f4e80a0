/* SPDX-License-Identifier: BSD-2-Clause */

/* What can be found, which revision wins, and lists. */

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
    assert_int_equal(fixture_delete(zone, "b", 2, 3), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "d.c.b.a.example"), 1);
    assert_int_equal(find_host(zone, "exact.b.a.example"), 1);

    assert_int_equal(fixture_delete(zone, "a", 1, 4), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "a.example"), NONE);
    assert_int_equal(find_host(zone, "x.a.example"), NONE);
    assert_int_equal(zone->wildcards, 0);

    assert_int_equal(fixture_settle(zone), 0);
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
    assert_int_equal(fixture_delete(zone, "b", 2, 7), TG_ZONE_OK);
    assert_int_equal(find_host(zone, "h.example"), 1);

    assert_int_equal(fixture_settle(zone), 0);
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
    assert_int_equal(fixture_delete(zone, "t", 1, 4), TG_ZONE_STALE);
    assert_int_equal(fixture_delete(zone, "t", 2, 9), TG_ZONE_OK);   /* not it */
    assert_int_equal(fixture_delete(zone, "u", 1, 9), TG_ZONE_OK);   /* absent */
    assert_int_equal(tg_zone_version(zone), version);
    assert_int_equal(fixture_find(zone, "t")->revision, 5);
    assert_int_equal(fixture_stats(zone).puts, 1);

    assert_int_equal(put_hosts(zone, "t", 1, 6, none), TG_ZONE_OK);
    assert_true(tg_zone_version(zone) > version);
    version = tg_zone_version(zone);

    /* the name was given to a new tenant */
    assert_int_equal(put_hosts(zone, "t", 2, 7, none), TG_ZONE_OK);
    assert_int_equal(fixture_find(zone, "t")->id, 2);
    assert_int_equal(fixture_stats(zone).tenants, 1);

    assert_int_equal(fixture_delete(zone, "t", 0, 8), TG_ZONE_OK);
    assert_null(fixture_find(zone, "t"));
    assert_true(tg_zone_version(zone) > version + 1);
    assert_int_equal(fixture_stats(zone).tenants, 0);

    tg_zone_set_revision(zone, 8, 0);
    tg_zone_set_revision(zone, 7, 0);
    assert_int_equal(tg_zone_revision(zone), 8);

    assert_int_equal(fixture_settle(zone), 0);
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
    assert_int_equal(fixture_find(zone, "t")->id, 7);
    assert_int_equal(put_hosts(zone, "u", 8, 500, none), TG_ZONE_OK);
    assert_int_equal(fixture_find(zone, "u")->id, 8);
    assert_int_equal(fixture_delete(zone, "v", 3, 4), TG_ZONE_OK);
    assert_null(fixture_find(zone, "v"));

    /* and from here on they count again */
    assert_int_equal(put_hosts(zone, "t", 7, 2, none), TG_ZONE_STALE);

    assert_int_equal(fixture_settle(zone), 0);
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
    assert_null(fixture_find(zone, "platform"));

    for (id = 1; id <= 100; id++) {
        assert_int_equal(tg_zone_find_issuer(zone, id)->id, id);
    }

    assert_null(tg_zone_find_issuer(zone, 0));
    assert_null(tg_zone_find_issuer(zone, 101));

    assert_int_equal(tg_zone_delete(zone, TG_KIND_ISSUER, NULL, 0, 5, 200),
                     TG_ZONE_OK);
    assert_null(tg_zone_find_issuer(zone, 5));
    assert_int_equal(fixture_stats(zone).issuers, 99);

    assert_int_equal(fixture_settle(zone), 0);
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
    case 10:
        hosts[0] = hosts[1];            /* b before its prefix */
        hosts[1].len--;
        break;
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

    assert_null(fixture_find(zone, "a"));
    assert_non_null(fixture_find(zone, "b"));
    assert_non_null(fixture_find(zone, "c"));
    assert_non_null(fixture_find(zone, "d"));
    assert_non_null(fixture_find(zone, "e"));
    assert_null(tg_zone_find_issuer(zone, 1));

    /* a second end has nothing to end */
    assert_int_equal(put_hosts(zone, "f", 6, 6, none), TG_ZONE_OK);
    tg_zone_list_end(zone);
    assert_int_equal(count_objects(zone), 5);

    free(image);
    assert_int_equal(fixture_settle(zone), 0);
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
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_of_another_process),
        cmocka_unit_test(test_visit_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
