/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Processes that are killed at random: writers while others read, pin and count;
 * readers with sections open and counters held.
 */

#define _GNU_SOURCE                 /* timer_create() */

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

#include "tg_zone_private.h"
#include "zone_fixture.h"

#define MB  (1024u * 1024u)

#define TENANTS  32
#define HOSTS    48
#define READERS  2
#define PINS     16
#define ROUTES   2
#define MAX_IDS  (1u << 20)

#define KILLS       300
#define SECONDS     3
#define VISITS      256

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
    const tg_block_t  *block = fixture_find(p->zone, name);

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
            tg_zone_visit_touched(p->zone, 0, report, p);
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
        block = fixture_find(p->zone, name);

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
    p->shared = fixture_shared(sizeof(shared_t));
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

    /* on a busy machine, until it has hit one inside an operation */

    for (i = 0; i < KILLS && (now() < deadline || busy == 0); i++) {
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
    assert_true(busy > 0);
    assert_true(p.shared->ids < MAX_IDS);
    check_outstanding(&p);

    /* every count was reported, that of what is gone too */
    tg_zone_touch_all(p.zone);
    tg_zone_visit_touched(p.zone, 0, report, &p);
    tg_zone_list_begin(p.zone);
    tg_zone_list_end(p.zone);

    /* freeing one version has its neighbours wait for two more visits */
    for (i = 0; i < VISITS && fixture_stats(p.zone).retired; i++) {
        tg_zone_visit_touched(p.zone, 0, report, &p);
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

    for (i = 0; i < KILLS && (now() < deadline || i < 10); i++) {

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
        cmocka_unit_test(test_killed_writers),
        cmocka_unit_test(test_killed_readers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
