/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Several processes at once, on the machine's own clock.
 */

#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#include "quota_fixture.h"

#define PROCESSES  4

typedef struct {
    uint64_t  start;
    uint64_t  end;
    uint32_t  n[PROCESSES];
    uint32_t  ready;
    uint64_t  time[PROCESSES][1 << 16];     /* of what was admitted, us */
} race_t;


static uint64_t
clock_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * SECOND + (uint64_t) ts.tv_nsec / 1000;
}


static void
race(fixture_t *f, race_t *r, int k, const char *consumer)
{
    f->slot = tg_zone_slot_take(f->zone, getpid(), 4);
    f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    __atomic_add_fetch(&r->ready, 1, __ATOMIC_SEQ_CST);

    while (__atomic_load_n(&r->start, __ATOMIC_ACQUIRE) == 0) {
        /* void */
    }

    for ( ;; ) {
        f->now.mono_us = clock_us();

        if (f->now.mono_us >= r->end) {
            break;
        }

        if (admitted_as(f, consumer, 1) && r->n[k] < (1 << 16)) {
            r->time[k][r->n[k]++] = f->now.mono_us;
        }
    }

    _exit(0);
}


static race_t *
race_all(fixture_t *f, const char *consumer, uint64_t us)
{
    int      k, status;
    pid_t    pid[PROCESSES];
    race_t  *r;

    r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r != MAP_FAILED);

    for (k = 0; k < PROCESSES; k++) {
        pid[k] = fork();

        if (pid[k] == 0) {
            race(f, r, k, consumer);
        }

        /* slots are taken one at a time: nginx holds a mutex then */

        while (__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE) <= (uint32_t) k) {
            assert_int_equal(waitpid(pid[k], &status, WNOHANG), 0);
            (void) sched_yield();
        }
    }

    r->end = clock_us() + us;
    __atomic_store_n(&r->start, 1, __ATOMIC_RELEASE);

    for (k = 0; k < PROCESSES; k++) {
        assert_int_equal(waitpid(pid[k], &status, 0), pid[k]);
        assert_int_equal(status, 0);
    }

    return r;
}


static int
by_time(const void *a, const void *b)
{
    uint64_t  x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}


/* All that was admitted, in one sorted list. */
static size_t
admissions(const race_t *r, uint64_t *all)
{
    size_t  n = 0;

    for (int k = 0; k < PROCESSES; k++) {
        memcpy(all + n, r->time[k], r->n[k] * sizeof(uint64_t));
        n += r->n[k];
    }

    qsort(all, n, sizeof(uint64_t), by_time);

    return n;
}


/* In every stretch of time no more than what the rate gives in it, and the
 * bucket: so in every window no more than limit and burst. */
static void
race_check(fixture_t *f, const char *consumer, uint64_t rate, uint64_t burst)
{
    size_t     n, i, k;
    race_t    *r;
    uint64_t  *all, us;

    r = race_all(f, consumer, 300000);
    all = malloc(sizeof(r->time));
    assert_non_null(all);
    n = admissions(r, all);

    for (i = 0; i < n; i++) {
        for (k = i; k < n && k < i + 2000; k++) {
            us = all[k] - all[i];

            if (k - i + 1 > burst + (us * rate + 1) / SECOND) {
                fail_msg("%zu in %llu us", k - i + 1, (unsigned long long) us);
            }
        }
    }

    /* and they did get what they may have: nothing was lost in the race */
    assert_true(n >= rate * 3 / 10 * 8 / 10);

    free(all);
    munmap(r, sizeof(*r));
}


static void
test_race_rate(void **state)
{
    fixture_t  *f = *state;

    f->now.mono_us = clock_us();
    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':5000,'window':'1s','burst':50}", NULL);
    race_check(f, "", 5000, 50);
}


static void
test_race_consumer(void **state)
{
    fixture_t  *f = *state;

    f->now.mono_us = clock_us();
    publish(f, "{'id':1,'name':'q','scope':'consumer','metric':'requests',"
            "'limit':5000,'window':'1s','burst':50}", NULL);
    race_check(f, "x", 5000, 50);
}


/* Two quotas of which one is always about to refuse: undoing under fire. */
static void
test_race_two(void **state)
{
    fixture_t  *f = *state;

    f->now.mono_us = clock_us();
    publish(f,
            "{'id':1,'name':'wide','scope':'tenant','metric':'requests',"
            "'limit':6000,'window':'1s','burst':60},"
            "{'id':2,'name':'narrow','scope':'tenant','metric':'requests',"
            "'limit':5000,'window':'1s','burst':50}", NULL);
    race_check(f, "", 5000, 50);
}


/* A count is exact whoever races: limit and not one more or less. */
static void
test_race_calendar(void **state)
{
    size_t      n;
    race_t     *r;
    fixture_t  *f = *state;

    publish(f,
            "{'id':1,'name':'each','scope':'consumer','metric':'requests',"
            "'limit':20000,'window':'day'},"
            "{'id':2,'name':'day','scope':'tenant','metric':'requests',"
            "'limit':10000,'window':'day'}", NULL);
    r = race_all(f, "x", 300000);
    n = 0;

    for (int k = 0; k < PROCESSES; k++) {
        n += r->n[k];
    }

    assert_int_equal(n, 10000);
    assert_int_equal(state_of(f, 1)->word & TG_CALENDAR_COUNT, 10000);
    munmap(r, sizeof(*r));
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_race_rate),
        TEST(test_race_consumer),
        TEST(test_race_two),
        TEST(test_race_calendar),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
