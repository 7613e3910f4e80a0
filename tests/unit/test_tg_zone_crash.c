/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Writers that are killed.  First at every store that commits something: the
 * zone's sources are compiled here with a hook around those stores and around
 * each use of the allocator.  Then at random, while other processes read, pin
 * and count.
 */

#define _GNU_SOURCE                 /* MAP_ANONYMOUS, timer_create() */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
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

static const char *const  hosts_before[] = { ".wild.example", "a.example",
                                             "b.example" };
static const char *const  hosts_after[] = { "b.example", "c.example",
                                            "d.example" };


static void *
shared_memory(size_t size)
{
    void  *p;

    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
             -1, 0);
    assert_true(p != MAP_FAILED);

    return p;
}


static int
no_visit(void *data, const tg_block_t *block)
{
    (void) data;

    return !fixture_whole(block);
}


static const tg_block_t *
find(const tg_zone_t *zone, const char *name)
{
    return tg_zone_find_tenant(zone, name, strlen(name));
}


/* --- killed at chosen points --- */

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
    int          pins;          /* of slot 1 may be left as they are */
} operation_t;

static tg_block_t  *image;
static tg_pin_t    *pin;
static uint64_t     counter;


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
    (void) find(zone, "t");
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
    const tg_block_t  *block = find(zone, "t");

    c = tg_zone_ptr(zone, tg_vec(block, block->routes, tg_route_t)[0].counters);
    c->status[1] = 1;
    tg_zone_touch(zone, block->slot);
    assert_int_equal(fixture_put(zone, &after), TG_ZONE_OK);
}


static void
run_visit(tg_zone_t *zone)
{
    tg_zone_visit_touched(zone, no_visit, NULL);
    tg_zone_visit_touched(zone, no_visit, NULL);
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
    const tg_block_t  *block = find(zone, "t");

    pin = tg_zone_pin(zone, 1, block);
    counter = tg_vec(block, block->quotas, tg_quota_t)[0].state
              + offsetof(tg_quota_state_t, word);
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
    { "put", prepare_nothing, run_put, 0 },
    { "put of a new tenant", prepare_new, run_put, 0 },
    { "put over several versions", prepare_versions, run_put, 0 },
    { "delete", prepare_nothing, run_delete, 0 },
    { "delete over several versions", prepare_versions, run_delete, 0 },
    { "reclaim", prepare_retired, run_reclaim, 0 },
    { "visit", prepare_counted, run_visit, 0 },
    { "list", prepare_nothing, run_list, 0 },
    { "slot", prepare_nothing, run_slot, 0 },
    { "recover", prepare_broken_put, run_recover, 0 },
    { "hold", prepare_pin, run_hold, 1 },
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
    const tg_block_t  *block = find(zone, name);

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
        tg_zone_visit_touched(zone, no_visit, NULL);
    }

    assert_int_equal(tg_zone_check(zone), 0);
    assert_int_equal(fixture_stats(zone).retired, 0);
    assert_int_equal(fixture_stats(zone).used, base);
}


static void
check_after_crash(tg_zone_t *zone, const operation_t *op, uint64_t base)
{
    int  i;

    if (zone->busy) {
        assert_int_equal(tg_zone_recover(zone), 1);
    }

    assert_int_equal(tg_zone_check(zone), 0);
    check_switch(zone, "t");
    check_switch(zone, "n");

    tg_zone_reap(zone);
    assert_int_equal(zone->slot[1].pid, 0);

    if (op->pins) {
        assert_in_range(*(uint64_t *) tg_zone_ptr(zone, counter), 0, 1);

        for (i = 0; i < 6; i++) {
            tg_zone_reap(zone);
        }

        assert_int_equal(*(uint64_t *) tg_zone_ptr(zone, counter), 0);
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

    return zone;
}


static void
crash_at_each(const operation_t *op)
{
    int         crashed;
    long        n, all, *points = shared_memory(sizeof(long));
    void       *copy = malloc(MB);
    uint64_t    base;
    tg_zone_t  *zone = prepared_zone(op, &base);

    assert_non_null(copy);
    memcpy(copy, zone, MB);

    assert_false(run_to_point(zone, op, 0, points));
    check_after_crash(zone, op, base);

    all = *points;
    crashed = 0;

    for (n = 1; n <= all; n += 1 + all / POINTS) {
        memcpy(zone, copy, MB);
        crashed += run_to_point(zone, op, n, points);
        check_after_crash(zone, op, base);
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


/* --- killed at random --- */

#define TENANTS  32
#define HOSTS    48
#define READERS  2
#define PINS     16
#define ROUTES   2
#define MAX_IDS  (1u << 20)

#define KILLS       300
#define SECONDS     3

typedef struct {
    uint64_t  operations;           /* of writers */
    uint64_t  revision;
    uint64_t  ids;
    uint64_t  reads;
    uint64_t  torn;
    uint32_t  stop;
    uint64_t  counted[MAX_IDS];     /* by route id */
    uint64_t  reported[MAX_IDS];
} shared_t;

typedef struct {
    tg_zone_t  *zone;
    shared_t   *shared;
    uint64_t    x;                  /* of the random numbers */
    int         slot;
    uint64_t    life;               /* microseconds; 0: as long as it likes */
    int         n;
    tg_pin_t   *pins[PINS];
} process_t;


static uint64_t
random_below(process_t *p, uint64_t n)
{
    p->x ^= p->x << 13;
    p->x ^= p->x >> 7;
    p->x ^= p->x << 17;

    return (p->x >> 11) % n;
}


/* SIGKILL when its life is over, wherever the process is then. */
static void
die_later(const process_t *p)
{
    timer_t            timer;
    struct sigevent    event = { .sigev_notify = SIGEV_SIGNAL,
                                 .sigev_signo = SIGKILL };
    struct itimerspec  when = { .it_value.tv_nsec = (long) p->life * 1000 };

    if (p->life == 0) {
        return;
    }

    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &when, NULL), 0);
}


static void
put_random(process_t *p, const char *name, uint64_t id)
{
    char               host[3][16];
    const char        *hosts[3];
    uint32_t           i, first;
    fixture_t          f = { .name = name, .id = id, .hosts = hosts,
                             .nroutes = ROUTES, .nupstreams = 1,
                             .nendpoints = 1 };
    const tg_block_t  *block = find(p->zone, name);

    first = (uint32_t) random_below(p, HOSTS);
    f.nhosts = (uint32_t) random_below(p, 4);

    for (i = 0; i < f.nhosts; i++) {
        (void) snprintf(host[i], sizeof(host[i]), "%sh%03u",
                        first % 5 ? "" : ".", first + i);
        hosts[i] = host[i];
    }

    f.base = (block && random_below(p, 4))
             ? tg_vec(block, block->routes, tg_route_t)[0].id - 1
             : __atomic_fetch_add(&p->shared->ids, ROUTES, __ATOMIC_SEQ_CST);
    f.revision = __atomic_add_fetch(&p->shared->revision, 1, __ATOMIC_SEQ_CST);
    f.pad = (uint32_t) random_below(p, 1500);

    (void) fixture_put(p->zone, &f);
}


/* Cumulative values: the last one counts. */
static int
report(void *data, const tg_block_t *block)
{
    uint32_t        i;
    process_t      *p = data;
    tg_route_t     *routes = tg_vec(block, block->routes, tg_route_t);
    tg_counters_t  *c;

    if (!fixture_whole(block)) {
        p->shared->torn++;
    }

    for (i = 0; i < block->routes.n; i++) {
        c = tg_zone_ptr(p->zone, routes[i].counters);
        p->shared->reported[routes[i].id] =
            __atomic_load_n(&c->status[1], __ATOMIC_SEQ_CST);
    }

    return 0;
}


static void
write_forever(process_t *p)
{
    char      name[16];
    uint64_t  id, what;

    tg_zone_touch_all(p->zone);     /* a predecessor's reports may be lost */
    put_random(p, "t1", 1);
    die_later(p);

    for ( ;; ) {
        id = 1 + random_below(p, TENANTS);
        what = random_below(p, 16);
        (void) snprintf(name, sizeof(name), "t%u", (unsigned) id);

        if (what < 10) {
            put_random(p, name, id);

        } else if (what < 12) {
            (void) tg_zone_delete(p->zone, TG_KIND_TENANT, name, strlen(name),
                                  id, UINT64_MAX);
        } else if (what < 15) {
            tg_zone_reclaim(p->zone);

        } else {
            tg_zone_visit_touched(p->zone, report, p);
        }

        __atomic_fetch_add(&p->shared->operations, 1, __ATOMIC_SEQ_CST);
    }
}


static uint64_t
outstanding_of(const tg_block_t *block)
{
    return (tg_vec(block, block->upstreams, tg_upstream_t)[0].state
            + offsetof(tg_upstream_state_t, outstanding)) | TG_HOLD_32;
}


static void
read_pin(process_t *p, const tg_block_t *block)
{
    uint32_t        route;
    tg_pin_t       *got;
    tg_route_t     *routes = tg_vec(block, block->routes, tg_route_t);
    tg_counters_t  *c;

    got = tg_zone_pin(p->zone, p->slot, block);
    if (got == NULL) {
        return;
    }

    p->pins[p->n++] = got;
    (void) tg_zone_hold(p->zone, got, outstanding_of(block), UINT64_MAX);

    route = (uint32_t) random_below(p, ROUTES);
    c = tg_zone_ptr(p->zone, routes[route].counters);
    __atomic_fetch_add(&c->status[1], 1, __ATOMIC_SEQ_CST);
    tg_zone_touch(p->zone, block->slot);
    __atomic_fetch_add(&p->shared->counted[routes[route].id], 1,
                       __ATOMIC_SEQ_CST);
}


static void
read_unpin(process_t *p, int i)
{
    if (!fixture_whole(tg_zone_ptr(p->zone, p->pins[i]->block))) {
        p->shared->torn++;
    }

    tg_zone_unpin(p->zone, p->slot, p->pins[i]);
    p->pins[i] = p->pins[--p->n];
}


static int
read_once(process_t *p)
{
    int                listed;
    char               host[16];
    size_t             len;
    uint32_t           i;
    const tg_ref_t    *hosts;
    const tg_block_t  *block;

    len = (size_t) snprintf(host, sizeof(host), "%sh%03u",
                            random_below(p, 5) ? "" : "x.",
                            (unsigned) random_below(p, HOSTS + 2));

    tg_zone_enter(p->zone, p->slot);
    block = tg_zone_find_host(p->zone, host, len);
    listed = (block == NULL);

    if (block) {
        hosts = tg_vec(block, block->hosts, tg_ref_t);

        for (i = 0; i < block->hosts.n; i++) {
            listed |= strcmp(tg_str(block, hosts[i]),
                             host + (host[0] == 'x')) == 0;
        }

        listed &= fixture_whole(block);

        if (p->n < PINS && random_below(p, 8) == 0) {
            read_pin(p, block);
        }
    }

    tg_zone_exit(p->zone, p->slot);

    return listed;
}


static void
read_until_stopped(process_t *p)
{
    uint64_t  reads;

    die_later(p);
    (void) setpriority(PRIO_PROCESS, 0, 10); /* the writer goes first */

    for (reads = 1; !__atomic_load_n(&p->shared->stop, __ATOMIC_ACQUIRE);
         reads++)
    {
        if (!read_once(p)) {
            __atomic_fetch_add(&p->shared->torn, 1, __ATOMIC_SEQ_CST);
        }

        if (p->n && random_below(p, 8) == 0) {
            read_unpin(p, (int) random_below(p, (uint64_t) p->n));
        }

        if (reads % 64 == 0) {
            __atomic_fetch_add(&p->shared->reads, 64, __ATOMIC_SEQ_CST);
        }
    }

    while (p->n) {
        read_unpin(p, p->n - 1);
    }
}


static pid_t
spawn(process_t *p, void (*run)(process_t *p))
{
    pid_t  pid = fork();

    assert_true(pid != -1);

    if (pid == 0) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(p);
        _exit(0);
    }

    return pid;
}


/* The slot is the parent's until then: nobody reaps it before. */
static pid_t
spawn_reader(process_t *p, uint64_t seed, uint64_t life)
{
    pid_t      pid;
    process_t  child = *p;

    child.x = seed;
    child.life = life;
    child.n = 0;
    child.slot = tg_zone_slot_take(p->zone, getpid(), PINS);
    assert_true(child.slot >= 0);

    pid = spawn(&child, read_until_stopped);

    p->zone->slot[child.slot].start = 0;
    p->zone->slot[child.slot].pid = pid;

    return pid;
}


static double
now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}


static void
wait_for_death(pid_t pid)
{
    int  status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}


static void
stop_readers(process_t *p, const pid_t *readers)
{
    int  i, status;

    __atomic_store_n(&p->shared->stop, 1, __ATOMIC_RELEASE);

    for (i = 0; i < READERS; i++) {
        assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}


static void
check_outstanding(process_t *p)
{
    char               name[16];
    unsigned           i;
    const tg_block_t  *block;

    for (i = 1; i <= TENANTS; i++) {
        (void) snprintf(name, sizeof(name), "t%u", i);
        block = find(p->zone, name);

        if (block) {
            assert_int_equal(*(uint32_t *) tg_zone_ptr(p->zone,
                                 outstanding_of(block) & ~3ull), 0);
        }
    }
}


static void
world_create(process_t *p, uint64_t seed)
{
    memset(p, 0, sizeof(process_t));

    p->zone = fixture_zone(MB);
    p->shared = shared_memory(sizeof(shared_t));
    p->x = seed;
}


static void
world_destroy(process_t *p)
{
    munmap(p->zone, MB);
    munmap(p->shared, sizeof(shared_t));
}


static void
test_killed_writers(void **state)
{
    int        i, busy;
    pid_t      writer, readers[READERS];
    double     deadline;
    process_t  p, child;

    (void) state;

    world_create(&p, 88172645463325252ull);
    deadline = now() + SECONDS;

    for (i = 0; i < READERS; i++) {
        readers[i] = spawn_reader(&p, 1234567 + (uint64_t) i, 0);
    }

    busy = 0;

    for (i = 0; i < KILLS && now() < deadline; i++) {
        child = p;
        child.x = p.x ^ 0x9e3779b97f4a7c15ull;

        child.life = 100 + random_below(&p, 4000);
        writer = spawn(&child, write_forever);
        wait_for_death(writer);

        busy += p.zone->busy;
        (void) tg_zone_recover(p.zone);
        assert_int_equal(tg_zone_check(p.zone), 0);
        assert_int_equal(p.shared->torn, 0);
    }

    print_message("    %d kills, %d inside an operation, %llu operations, "
                  "%llu reads\n", i, busy,
                  (unsigned long long) p.shared->operations,
                  (unsigned long long) p.shared->reads);

    stop_readers(&p, readers);
    tg_zone_reap(p.zone);

    assert_int_equal(p.shared->torn, 0);
    assert_true(i > 10 && busy > 0 && p.shared->reads > 0);
    assert_true(p.shared->ids < MAX_IDS);
    check_outstanding(&p);

    /* every count was reported, that of what is gone too */
    tg_zone_touch_all(p.zone);
    tg_zone_visit_touched(p.zone, report, &p);
    tg_zone_list_begin(p.zone);
    tg_zone_list_end(p.zone);

    for (i = 0; i < 6; i++) {
        tg_zone_visit_touched(p.zone, report, &p);
    }

    assert_memory_equal(p.shared->counted, p.shared->reported,
                        p.shared->ids * sizeof(uint64_t));
    assert_int_equal(tg_zone_check(p.zone), 0);
    assert_int_equal(fixture_stats(p.zone).retired, 0);
    assert_int_equal(fixture_stats(p.zone).used, 0);

    world_destroy(&p);
}


/* Readers die with sections open and counters held; the writer lives on. */
static void
test_killed_readers(void **state)
{
    int        i;
    pid_t      writer, reader, readers[READERS];
    double     deadline;
    process_t  p, child;

    (void) state;

    world_create(&p, 362436069362436069ull);
    deadline = now() + SECONDS / 2.0;

    for (i = 0; i < READERS; i++) {
        readers[i] = spawn_reader(&p, 7654321 + (uint64_t) i, 0);
    }

    for (i = 0; i < KILLS && now() < deadline; i++) {

        reader = spawn_reader(&p, 1 + random_below(&p, 1u << 30),
                              100 + random_below(&p, 4000));
        child = p;
        child.x = p.x ^ 0x9e3779b97f4a7c15ull;
        child.life = 100 + random_below(&p, 4000);
        writer = spawn(&child, write_forever);

        wait_for_death(reader);
        wait_for_death(writer);

        tg_zone_reap(p.zone);
        assert_int_equal(tg_zone_check(p.zone), 0);
        assert_int_equal(p.shared->torn, 0);
    }

    print_message("    %d readers killed\n", i);
    assert_true(i > 10);

    stop_readers(&p, readers);

    for (i = 0; i < 10; i++) {
        tg_zone_reap(p.zone);
    }

    check_outstanding(&p);
    assert_int_equal(tg_zone_check(p.zone), 0);

    world_destroy(&p);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_killed_at_each_store),
        cmocka_unit_test(test_killed_writers),
        cmocka_unit_test(test_killed_readers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
