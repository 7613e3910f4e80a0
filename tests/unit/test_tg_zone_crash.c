/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A writer that is killed at every store that commits something: the zone's
 * sources are compiled here with a hook around those stores and around each use
 * of the allocator, where the child ends.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_arena_private.h"
#include "tg_zone_private.h"
#include "zone_fixture.h"

static void crash_point(const tg_zone_t *zone);

static inline void
tg_publish_hooked(tg_zref_t *field, tg_zref_t ref)
{
    crash_point(NULL);
    tg_publish(field, ref);
    crash_point(NULL);
}

static inline void
tg_commit_hold_hooked(uint64_t *hold, uint64_t value)
{
    crash_point(NULL);
    tg_commit_hold(hold, value);
    crash_point(NULL);
}

#define tg_publish(field, ref)         tg_publish_hooked(field, ref)
#define tg_commit_hold(hold, value)    tg_commit_hold_hooked(hold, value)
#define tg_zone_alloc(zone, size)      (crash_point(zone), tg_zone_alloc(zone, size))
#define tg_arena_alloc(arena, size)    (crash_point(zone), tg_arena_alloc(arena, size))
#define tg_arena_free(arena, p)        (crash_point(zone), tg_arena_free(arena, p))
#define tg_arena_rebuild(arena, marks) (crash_point(zone), tg_arena_rebuild(arena, marks))

#include "tg_zone.c"
#include "tg_zone_recover.c"
#include "tg_zone_retire.c"
#include "tg_zone_slot.c"
#include "tg_zone_state.c"
#include "tg_zone_step.c"
#include "tg_zone_write.c"

#define MB  (1024u * 1024u)

#define POINTS  50              /* tried of each operation, at most */
#define CRASHED 77

static long  points_left;       /* negative: count them */


/*
 * The child ends here when it is its turn.  In the allocator it could have been
 * anywhere: its lists are spoilt.
 */
static void
crash_point(const tg_zone_t *zone)
{
    tg_arena_t  *arena;

    if (--points_left != 0) {
        return;
    }

    if (zone) {
        arena = tg_zone_arena(zone);
        memset(arena->partial, 0xa5, sizeof(arena->partial));
        memset(arena->heap.bin, 0xa5, sizeof(arena->heap.bin));
        arena->used = 0xa5;
        arena->heap.unused = 0xa5;
    }

    _exit(CRASHED);
}


static const char *const  hosts_before[] = { ".wild.example", "a.example",
                                             "b.example" };
static const char *const  hosts_after[] = { "b.example", "c.example",
                                            "d.example" };

static const fixture_t  before = {
    .name = "t", .id = 1, .revision = 5, .hosts = hosts_before, .nhosts = 3,
    .nroutes = 3, .nquotas = 2, .nupstreams = 1, .nendpoints = 2, .base = 10,
    .pad = 300, .metric = TG_METRIC_CONCURRENCY
};

static const fixture_t  after = {
    .name = "t", .id = 1, .revision = 6, .hosts = hosts_after, .nhosts = 3,
    .nroutes = 3, .nquotas = 1, .nupstreams = 2, .nendpoints = 1, .base = 11,
    .pad = 500, .metric = TG_METRIC_CONCURRENCY
};

static const fixture_t  new_tenant = {
    .name = "n", .id = 3, .revision = 6, .hosts = hosts_after, .nhosts = 3,
    .nroutes = 1, .nquotas = 1, .base = 70, .pad = 200
};

static const fixture_t  other = {
    .name = "u", .id = 2, .revision = 5, .nroutes = 1, .base = 50, .pad = 100
};


typedef struct {
    const char  *name;
    void       (*prepare)(tg_zone_t *zone);
    void       (*run)(tg_zone_t *zone);
    enum { PLAIN, WATCHED, HOLDS }  kind;
} operation_t;

/* What a reader that was inside before the crash may still look at. */
typedef struct {
    size_t     n;
    tg_zref_t  ref[64];
} watched_t;

static tg_block_t  *image;
static tg_pin_t    *pin, *held;
static uint64_t     counter;


static int
no_visit(void *data, const tg_block_t *block)
{
    (void) data;

    return !fixture_whole(block);
}


static void
prepare_nothing(tg_zone_t *zone)
{
    (void) zone;
}


static void
run_put(tg_zone_t *zone)
{
    (void) tg_zone_put(zone, image);
}


static void
prepare_new(tg_zone_t *zone)
{
    (void) zone;

    free(image);
    image = fixture_block(&new_tenant);
}


/* Not the first retired version of its entry, nor of the zone. */
static void
prepare_versions(tg_zone_t *zone)
{
    fixture_t  f = before;

    tg_zone_enter(zone, 1);
    (void) fixture_find(zone, "t");
    f.revision = 1;
    f.base = 3;
    f.nhosts = 1;
    assert_int_equal(tg_zone_delete(zone, TG_KIND_TENANT, "t", 1, 1, 99),
                     TG_ZONE_OK);
    assert_int_equal(fixture_put(zone, &f), TG_ZONE_OK);
    assert_int_equal(fixture_put(zone, &before), TG_ZONE_OK);
    assert_int_equal(tg_zone_delete(zone, TG_KIND_TENANT, "u", 1, 2, 99),
                     TG_ZONE_OK);
    assert_int_equal(fixture_put(zone, &other), TG_ZONE_OK);
}


static void
prepare_retired(tg_zone_t *zone)
{
    prepare_versions(zone);
    tg_zone_exit(zone, 1);
}


static void
run_delete(tg_zone_t *zone)
{
    (void) tg_zone_delete(zone, TG_KIND_TENANT, "t", 1, 1, 99);
}


static void
run_reclaim(tg_zone_t *zone)
{
    tg_zone_reclaim(zone);
}


static void
prepare_counted(tg_zone_t *zone)
{
    tg_counters_t     *c;
    const tg_block_t  *block = fixture_find(zone, "t");

    c = tg_zone_ptr(zone, tg_vec(block, block->routes, tg_route_t)[0].counters);
    c->status[1] = 1;
    tg_zone_touch(zone, block->slot);
    assert_int_equal(fixture_put(zone, &after), TG_ZONE_OK);
}


static void
run_visit(tg_zone_t *zone)
{
    tg_zone_visit_touched(zone, 0, no_visit, NULL);
    tg_zone_visit_touched(zone, 0, no_visit, NULL);
}


static void
run_list(tg_zone_t *zone)
{
    tg_zone_list_begin(zone);
    (void) tg_zone_put(zone, image);
    tg_zone_list_end(zone);
}


static void
run_slot(tg_zone_t *zone)
{
    int  slot = tg_zone_slot_take(zone, getpid(), 2);

    tg_zone_slot_drop(zone, slot);
}


/* What the first writer left half done, the second leaves half done too. */
static void
prepare_broken_put(tg_zone_t *zone)
{
    assert_int_equal(fixture_put(zone, &after), TG_ZONE_OK);
    zone->journal.step = TG_STEP_PUT;
    zone->busy = 1;
}


static void
run_recover(tg_zone_t *zone)
{
    (void) tg_zone_recover(zone);
}


static void
prepare_pin(tg_zone_t *zone)
{
    const tg_block_t  *block = fixture_find(zone, "t");

    pin = tg_zone_pin(zone, 1, block);
    held = tg_zone_pin(zone, 0, block);
    counter = tg_vec(block, block->quotas, tg_quota_t)[0].state
              + offsetof(tg_quota_state_t, word);
    assert_int_equal(tg_zone_hold(zone, held, counter, 5), TG_HOLD_OK);
}


static void
run_hold(tg_zone_t *zone)
{
    (void) tg_zone_hold(zone, pin, counter, 5);
    tg_zone_release(zone, pin, counter);
    (void) tg_zone_hold(zone, pin, counter, 5);
    tg_zone_unpin(zone, 1, pin);
}


static const operation_t  operations[] = {
    { "put", prepare_nothing, run_put, WATCHED },
    { "put of a new tenant", prepare_new, run_put, WATCHED },
    { "put over several versions", prepare_versions, run_put, WATCHED },
    { "delete", prepare_nothing, run_delete, WATCHED },
    { "delete over several versions", prepare_versions, run_delete, WATCHED },
    { "reclaim", prepare_retired, run_reclaim, PLAIN },
    { "visit", prepare_counted, run_visit, PLAIN },
    { "list", prepare_nothing, run_list, WATCHED },
    { "slot", prepare_nothing, run_slot, PLAIN },
    { "recover", prepare_broken_put, run_recover, PLAIN },
    { "hold", prepare_pin, run_hold, HOLDS },
};


/* Whether the child crashed at point n; *points: all that it passed. */
static int
run_to_point(tg_zone_t *zone, const operation_t *op, long n, long *points)
{
    int    status;
    pid_t  pid;

    pid = fork();
    assert_true(pid != -1);

    if (pid == 0) {
        zone->slot[1].pid = getpid();
        zone->slot[1].start = 0;

        points_left = n;
        op->run(zone);
        *points = -points_left;
        _exit(0);
    }

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CRASHED);

    return WEXITSTATUS(status) == CRASHED;
}


static int
lists(const tg_zone_t *zone, const tg_block_t *block, const char *host)
{
    const tg_block_t  *found = tg_zone_find_host(zone, host, strlen(host));

    return found && found == block;
}


/* The old version, the new one, or none; with all its hosts, and no other's. */
static void
check_switch(const tg_zone_t *zone, const char *name)
{
    int                is_new;
    const tg_block_t  *block = fixture_find(zone, name);

    if (block) {
        assert_true(fixture_whole(block));
    }

    is_new = block && block->hosts.n && block->revision == after.revision;

    assert_int_equal(lists(zone, block, "c.example"), is_new);
    assert_int_equal(lists(zone, block, "d.example"), is_new);
}


/* Everything in the zone can still be removed, and nothing is left. */
static void
check_empties(tg_zone_t *zone, uint64_t base)
{
    int  i;

    tg_zone_list_begin(zone);
    tg_zone_list_end(zone);

    for (i = 0; i < 6; i++) {
        tg_zone_visit_touched(zone, 0, no_visit, NULL);
    }

    assert_int_equal(tg_zone_check(zone), 0);
    assert_int_equal(fixture_stats(zone).retired, 0);
    assert_int_equal(fixture_stats(zone).used, base);
}


/* One hold is ours; that of the dead may be counted, but never a release that
 * was not. */
static void
check_held(tg_zone_t *zone)
{
    int        i;
    uint64_t  *value = tg_zone_ptr(zone, counter);

    for (i = 0; i < 6; i++) {
        assert_in_range(*value, 1, 2);
        tg_zone_reap(zone);
    }

    tg_zone_unpin(zone, 0, held);

    for (i = 0; i < 6; i++) {
        assert_in_range(*value, 0, 1);
        tg_zone_reap(zone);
    }

    assert_int_equal(*value, 0);
}


static void
watch(watched_t *w, tg_zref_t ref)
{
    assert_true(w->n < 64);
    w->ref[w->n++] = ref;
}


/* Everything in the tables, and what was retired. */
static void
watch_all(const tg_zone_t *zone, watched_t *w)
{
    uint32_t             i;
    tg_zref_t            ref, node;
    const tg_host_t     *host;
    const tg_entry_t    *entry;
    const tg_retired_t  *retired;

    w->n = 0;

    for (i = 0; i <= zone->host_mask; i++) {
        for (ref = tg_table(zone, zone->hosts)[i]; ref; ref = host->next) {
            watch(w, ref);
            host = tg_deref(zone, ref);
        }
    }

    for (i = 0; i <= zone->name_mask; i++) {
        for (ref = tg_table(zone, zone->names)[i]; ref; ref = entry->next) {
            watch(w, ref);
            entry = tg_deref(zone, ref);
            watch(w, entry->block);
        }
    }

    for (ref = zone->retired; ref; ref = retired->next) {
        watch(w, ref);
        retired = tg_deref(zone, ref);
        watch(w, retired->block);

        for (node = retired->nodes; node; node = host->sibling) {
            watch(w, node);
            host = tg_deref(zone, node);
        }
    }
}


static void
check_watched(const tg_zone_t *zone, const watched_t *w)
{
    size_t     i, k;
    watched_t  now;

    watch_all(zone, &now);

    for (i = 0; i < w->n; i++) {
        for (k = 0; k < now.n && now.ref[k] != w->ref[i]; k++) { /* void */ }
        assert_true(k < now.n);
    }
}


static void
check_after_crash(tg_zone_t *zone, const operation_t *op, const watched_t *w,
    uint64_t base)
{
    if (zone->busy) {
        assert_int_equal(tg_zone_recover(zone), 1);
    }

    if (op->kind == WATCHED) {
        check_watched(zone, w);
    }

    assert_int_equal(tg_zone_check(zone), 0);
    check_switch(zone, "t");
    check_switch(zone, "n");

    tg_zone_reap(zone);
    assert_int_equal(zone->slot[1].pid, 0);

    if (op->kind == HOLDS) {
        check_held(zone);
    }

    if (op->kind == WATCHED) {
        tg_zone_exit(zone, 0);
    }

    check_empties(zone, base);
}


/* The zone as it is before each run. */
static tg_zone_t *
prepared_zone(const operation_t *op, uint64_t *base)
{
    tg_zone_t  *zone = fixture_zone(MB);

    assert_int_equal(tg_zone_slot_take(zone, getpid(), 4), 0);
    *base = fixture_stats(zone).used;
    assert_int_equal(tg_zone_slot_take(zone, getpid(), 4), 1);

    assert_int_equal(fixture_put(zone, &before), TG_ZONE_OK);
    assert_int_equal(fixture_put(zone, &other), TG_ZONE_OK);

    image = fixture_block(&after);
    op->prepare(zone);

    /* a reader that sees all of it; what it need not see may go */
    if (op->kind == WATCHED) {
        tg_zone_enter(zone, 0);
    }

    return zone;
}


static void
crash_at_each(const operation_t *op)
{
    int         crashed;
    long        n, all, *points = fixture_shared(sizeof(long));
    void       *copy = malloc(MB);
    uint64_t    base;
    watched_t   watched;
    tg_zone_t  *zone = prepared_zone(op, &base);

    assert_non_null(copy);
    memcpy(copy, zone, MB);
    watch_all(zone, &watched);

    assert_false(run_to_point(zone, op, 0, points));
    check_after_crash(zone, op, &watched, base);

    all = *points;
    crashed = 0;

    for (n = 1; n <= all; n += 1 + all / POINTS) {
        memcpy(zone, copy, MB);
        crashed += run_to_point(zone, op, n, points);
        check_after_crash(zone, op, &watched, base);
    }

    print_message("    %s: %d of %ld points\n", op->name, crashed, all);
    assert_true(crashed >= 5);

    free(image);
    free(copy);
    munmap(points, sizeof(long));
    munmap(zone, MB);
}


static void
test_killed_at_each_store(void **state)
{
    size_t  i;

    (void) state;

    for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        crash_at_each(&operations[i]);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_killed_at_each_store),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
