/* SPDX-License-Identifier: BSD-2-Clause */

#include <sys/wait.h>
#include <time.h>

#include "quota_fixture.h"


static void
test_burst_and_pace(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'10s'}", NULL);

    /* a full window at once, and not one more */
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(result.remaining, 4);
    assert_int_equal(result.reset_s, 2);
    assert_non_null(result.quota);
    assert_int_equal(admitted(f, 100), 4);

    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.remaining, 0);
    assert_int_equal(result.retry_s, 2);
    assert_int_equal(result.reset_s, 10);
    assert_int_equal(result.quota->id, 1);
    assert_int_equal(state_of(f, 0)->throttled, 97);

    /* one every two seconds */
    f->now.mono_us += 2 * SECOND - 1;
    assert_int_equal(admitted(f, 10), 0);
    f->now.mono_us += 1;
    assert_int_equal(admitted(f, 10), 1);
    f->now.mono_us += 4 * SECOND;
    assert_int_equal(admitted(f, 10), 2);

    /* never more than a full bucket, however long it was idle */
    f->now.mono_us += 3600 * SECOND;
    assert_int_equal(admitted(f, 10), 5);
    f->now.mono_us += UINT64_C(86400) * 365 * 30 * SECOND;
    assert_int_equal(admitted(f, 10), 5);
}


static void
test_explicit_burst(void **state)
{
    fixture_t  *f = *state;

    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':60,'window':'60s','burst':3}", NULL);
    assert_int_equal(admitted(f, 10), 3);
    f->now.mono_us += SECOND;
    assert_int_equal(admitted(f, 10), 1);
    f->now.mono_us += 60 * SECOND;
    assert_int_equal(admitted(f, 10), 3);

    /* without burst one at a time */
    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':60,'window':'60s','burst':0}", NULL);
    f->now.mono_us += 60 * SECOND;
    assert_int_equal(admitted(f, 10), 1);
    f->now.mono_us += SECOND;
    assert_int_equal(admitted(f, 10), 1);
}


/* Rates that do not divide: exactly limit in each window, for many windows. */
static void
test_exact_rate(void **state)
{
    size_t      i;
    char        text[256];
    fixture_t  *f = *state;
    uint64_t    n, start, t;

    static const struct {
        uint64_t  limit;
        uint64_t  seconds;
    } cases[] = {
        { 7, 3 }, { 3, 7 }, { 1, 86399 }, { 86399, 86398 }, { 1000003, 86399 },
        { 999983, 1 }, { 1, 1 }, { 13, 60 },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "{'id':%zu,'name':'q','scope':'tenant',"
                 "'metric':'requests','limit':%llu,'window':'%llus',"
                 "'burst':2}", i + 1, (unsigned long long) cases[i].limit,
                 (unsigned long long) cases[i].seconds);
        publish(f, text, NULL);
        assert_int_equal(admitted(f, 10), 2);
        start = f->now.mono_us;

        for (n = 1; n < 5000; n++) {
            t = (uint64_t) (((unsigned __int128) n * cases[i].seconds * SECOND
                             + cases[i].limit - 1) / cases[i].limit);

            /* the microsecond before it is due, and the very one */
            f->now.mono_us = start + t - 1;
            assert_int_equal(admitted(f, 1), 0);
            f->now.mono_us = start + t;
            assert_int_equal(admitted(f, 1), 1);
        }
    }
}


/* The greatest that a document can ask for. */
static void
test_extremes(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;
    tg_quota_state_t   *s;

    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':1000000000000,'window':'1s'}",
            "{'factor':1000,'until':99999999999}");
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(result.remaining, TG_MAX_LIMIT - 1);

    /* full: one is there again in the next microsecond */
    s = state_of(f, 0);
    s->word = tg_vec(f->block, f->block->quotas, tg_quota_t)->given
              + TG_MAX_LIMIT * TG_QUOTA_UNIT;
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.retry_s, 1);
    f->now.mono_us++;
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);

    publish(f, "{'id':2,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':1,'window':'86399s'}",
            "{'factor':0.001,'until':99999999999}");
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_true(result.retry_s > 86399 * 999u);
    assert_true(result.retry_s <= 86399 * 1000u + 1);
}


static void
test_new_limit(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    static const char  five[] = "{'id':1,'name':'q','scope':'tenant',"
                                "'metric':'requests','limit':5,'window':'60s'}";
    static const char  hundred[] = "{'id':1,'name':'q','scope':'tenant',"
                                   "'metric':'requests','limit':100,"
                                   "'window':'60s'}";
    static const char  ten[] = "{'id':1,'name':'q','scope':'tenant',"
                               "'metric':'requests','limit':10,'window':'1s'}";

    publish(f, five, NULL);
    assert_int_equal(admitted(f, 10), 5);

    /* raised: what was used stays used, the rest is there at once */
    publish(f, hundred, NULL);
    assert_int_equal(admitted(f, 200), 95);

    /* published again and again: nothing comes of it */
    publish(f, hundred, NULL);
    publish(f, five, NULL);
    publish(f, hundred, NULL);

    /* but a level above the small bucket came down to the small bucket */
    assert_int_equal(admitted(f, 200), 95);

    publish(f, hundred, NULL);
    assert_int_equal(admitted(f, 200), 0);

    /* lowered: no second burst, but no longer wait than for one request */
    publish(f, five, NULL);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.retry_s, 12);
    f->now.mono_us += 12 * SECOND;
    assert_int_equal(admitted(f, 10), 1);

    /* another window: the level is in requests, not in time */
    f->now.mono_us += 600 * SECOND;
    assert_int_equal(admitted(f, 3), 3);
    publish(f, ten, NULL);
    assert_int_equal(admitted(f, 20), 7);
    f->now.mono_us += SECOND / 10;
    assert_int_equal(admitted(f, 20), 1);

    /* another id is another quota */
    publish(f, "{'id':2,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'60s'}", NULL);
    assert_int_equal(admitted(f, 10), 5);
}


/* A request in flight of the version before charges the same bucket. */
static void
test_old_version(void **state)
{
    fixture_t          *f = *state;
    tg_quota_set_t      set;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'60s'}", NULL);
    select_set(f, &set, 0, "");
    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':3,'window':'60s'}", NULL);

    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_OK);
    assert_int_equal(admitted(f, 10), 2);
    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_OK);
    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_OK);
    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_REFUSED);
}


static void
test_boost(void **state)
{
    char                boost[64];
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    static const char  quota[] = "{'id':1,'name':'q','scope':'tenant',"
                                 "'metric':'requests','limit':10,"
                                 "'window':'10s'}";

    publish(f, quota, NULL);
    assert_int_equal(admitted(f, 100), 10);

    snprintf(boost, sizeof(boost), "{'factor':3,'until':%llu}",
             (unsigned long long) UNIX + 100);
    publish(f, quota, boost);
    assert_int_equal(tg_quota_limit(f->block,
                     tg_vec(f->block, f->block->quotas, tg_quota_t), &f->now),
                     30);
    assert_int_equal(admitted(f, 100), 20);
    f->now.mono_us += SECOND;
    f->now.unix_s += 1;
    assert_int_equal(admitted(f, 100), 3);

    /* still full when it ends: the next one comes at the plain pace, at once */
    f->now.mono_us += 99 * SECOND - 1;
    f->now.unix_s += 98;
    assert_int_equal(admitted(f, 100), 30);
    f->now.mono_us += 1;
    f->now.unix_s += 1;
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.retry_s, 1);
    f->now.mono_us += SECOND;
    assert_int_equal(admitted(f, 100), 1);
    f->now.mono_us += 10 * SECOND;
    assert_int_equal(admitted(f, 100), 10);

    /* a new version after the end goes on from there */
    publish(f, quota, boost);
    assert_int_equal(admitted(f, 100), 0);
    f->now.mono_us += 2 * SECOND;
    assert_int_equal(admitted(f, 100), 2);

    /* revoked before its time */
    snprintf(boost, sizeof(boost), "{'factor':3,'until':%llu}",
             (unsigned long long) UNIX + 1000);
    publish(f, quota, boost);
    assert_int_equal(admitted(f, 100), 20);
    publish(f, quota, NULL);
    assert_int_equal(admitted(f, 100), 0);
    f->now.mono_us += SECOND;
    assert_int_equal(admitted(f, 100), 1);

    /* a factor below 1 lowers */
    snprintf(boost, sizeof(boost), "{'factor':0.2,'until':%llu}",
             (unsigned long long) UNIX + 1000);
    f->now.mono_us += 100 * SECOND;
    publish(f, quota, boost);
    assert_int_equal(admitted(f, 100), 2);
    f->now.mono_us += 5 * SECOND;
    assert_int_equal(admitted(f, 100), 1);
}


/* Slow and fast clocks of several processes never make more of it. */
static void
test_clocks_differ(void **state)
{
    unsigned     n, seed = 3;
    fixture_t   *f = *state;
    uint64_t     start;

    publish(f, "{'id':1,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':100,'window':'1s','burst':10}", NULL);
    f->now.mono_us += 5 * SECOND;
    start = f->now.mono_us;
    n = 0;

    for (unsigned i = 0; i < 200000; i++) {
        f->now.mono_us = start + i * 5 - (unsigned) rand_r(&seed) % 50000;
        n += admitted(f, 1);
    }

    /* the clocks showed 1.05 s in all */
    assert_in_range(n, 100, 115);

    /* before the version began */
    f->now.mono_us = 5;
    assert_int_equal(admitted(f, 10), 0);
}


static void
test_calendar(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'d','scope':'tenant','metric':'requests',"
            "'limit':10,'window':'day'}", NULL);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(result.remaining, 9);
    assert_int_equal(result.reset_s, 10);
    assert_int_equal(admitted(f, 100), 9);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.retry_s, 10);

    f->now.unix_s += 9;
    assert_int_equal(admitted(f, 100), 0);
    f->now.unix_s += 1;
    assert_int_equal(admitted(f, 100), 10);

    /* the clock set back: no second helping of either day */
    f->now.unix_s -= 5;
    assert_int_equal(admitted(f, 100), 0);
    f->now.unix_s += 5;
    assert_int_equal(admitted(f, 100), 0);

    /* raised and lowered: the count stays */
    publish(f, "{'id':1,'name':'d','scope':'tenant','metric':'requests',"
            "'limit':15,'window':'day'}", NULL);
    assert_int_equal(admitted(f, 100), 5);
    publish(f, "{'id':1,'name':'d','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'day'}", NULL);
    assert_int_equal(admitted(f, 100), 0);

    /* months are other words: a new count */
    publish(f, "{'id':1,'name':'d','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'month'}", NULL);
    assert_int_equal(admitted(f, 100), 5);

    publish(f, "{'id':1,'name':'d','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'month'}",
            "{'factor':2,'until':99999999999}");
    assert_int_equal(admitted(f, 100), 5);
}


static void
test_months(void **state)
{
    size_t      i;
    fixture_t  *f = *state;

    static const struct {
        uint64_t  unix_s;
        uint64_t  left;
        uint64_t  window;
    } cases[] = {
        { 0, 31 * 86400, 31 * 86400 },
        { 951782399, 86400 + 1, 29 * 86400 },       /* 2000-02-28 23:59:59 */
        { 951868799, 1, 29 * 86400 },               /* 2000-02-29 23:59:59 */
        { 951868800, 31 * 86400, 31 * 86400 },      /* 2000-03-01 */
        { 1772323199, 1, 28 * 86400 },              /* 2026-02-28 23:59:59 */
        { 1772323200, 31 * 86400, 31 * 86400 },
        { 1709164800, 86400, 29 * 86400 },          /* 2024-02-29 */
        { 1798761599, 1, 31 * 86400 },              /* 2026-12-31 23:59:59 */
        { 1798761600, 31 * 86400, 31 * 86400 },     /* 2027-01-01 */
        { 4107542399, 1, 28 * 86400 },              /* 2100-02-28 23:59:59 */
        { 1777507200, 86400, 30 * 86400 },          /* 2026-04-30 */
    };

    publish(f, "{'id':1,'name':'m','scope':'tenant','metric':'requests',"
            "'limit':1,'window':'month'}", NULL);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tg_meter_t         meter;
        const tg_quota_t  *quota;

        f->now.unix_s = cases[i].unix_s;
        quota = tg_vec(f->block, f->block->quotas, tg_quota_t);
        tg_meter_init(&meter, f->block, quota, &f->now);

        assert_int_equal(meter.left_s, cases[i].left);
        assert_int_equal(tg_quota_window(quota, &f->now), cases[i].window);
    }

    /* against the C library, day by day for 140 years */
    for (uint64_t day = 0; day < 51000; day++) {
        struct tm   tm;
        time_t      t = (time_t) day * 86400;
        tg_meter_t  meter;

        gmtime_r(&t, &tm);
        f->now.unix_s = (uint64_t) t;
        tg_meter_init(&meter, f->block,
                      tg_vec(f->block, f->block->quotas, tg_quota_t), &f->now);
        assert_int_equal(meter.period >> TG_CALENDAR_BITS,
                         (tm.tm_year - 70) * 12 + tm.tm_mon);
    }
}


static void
test_concurrency(void **state)
{
    fixture_t          *f = *state;
    tg_pin_t           *first, *second;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'c','scope':'tenant','metric':'concurrency',"
            "'limit':2}", NULL);
    first = f->pin;

    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    second = f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_int_equal(result.retry_s, 1);
    assert_int_equal(result.quota->metric, TG_METRIC_CONCURRENCY);
    assert_int_equal(state_of(f, 0)->word, 2);
    assert_int_equal(state_of(f, 0)->throttled, 1);

    assert_int_equal(result.held_n, 0);

    tg_zone_unpin(f->zone, f->slot, second);
    assert_int_equal(state_of(f, 0)->word, 1);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    tg_zone_unpin(f->zone, f->slot, f->pin);
    tg_zone_unpin(f->zone, f->slot, first);
    assert_int_equal(state_of(f, 0)->word, 0);

    /* given back before the pin ends; the second time is nothing */
    f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_int_equal(result.held_n, 1);
    tg_quota_release(f->zone, f->pin, result.held, result.held_n);
    assert_int_equal(state_of(f, 0)->word, 0);
    tg_quota_release(f->zone, f->pin, result.held, result.held_n);
    tg_zone_unpin(f->zone, f->slot, f->pin);
    assert_int_equal(state_of(f, 0)->word, 0);
}


/* More than one pin can note: nothing is left behind. */
static void
test_no_pin(void **state)
{
    fixture_t          *f = *state;
    tg_quota_set_t      set;
    tg_quota_result_t   result;

    publish(f,
            "{'id':9,'name':'q','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'60s'},"
            "{'id':1,'name':'c1','scope':'tenant','metric':'concurrency',"
            "'limit':9},"
            "{'id':2,'name':'c2','scope':'consumer','metric':'concurrency',"
            "'limit':9}", NULL);
    select_set(f, &set, 0, "x");
    assert_int_equal(set.n, 3);
    assert_int_equal(set.holds, 2);

    for (unsigned i = 0; i < TG_PIN_HOLDS - 1; i++) {
        assert_int_equal(tg_zone_hold(f->zone, f->pin, tg_zone_offset(f->zone,
                         &state_of(f, 1)->word) | TG_HOLD_64, 99), TG_HOLD_OK);
    }

    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_NO_PIN);
    assert_int_equal(state_of(f, 1)->word, TG_PIN_HOLDS - 1);
    assert_int_equal(state_of(f, 2)->word, 0);

    f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    assert_int_equal(tg_quota_check(&set, f->pin, &f->now, &result),
                     TG_QUOTA_OK);
    assert_int_equal(result.remaining, 4);
}


/* A process dies with requests in flight. */
static void
test_concurrency_crash(void **state)
{
    int                 status;
    pid_t               pid;
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f, "{'id':1,'name':'c','scope':'consumer','metric':'concurrency',"
            "'limit':2}", NULL);
    pid = fork();

    if (pid == 0) {
        f->slot = tg_zone_slot_take(f->zone, getpid(), 8);

        for (int i = 0; i < 2; i++) {
            f->pin = tg_zone_pin(f->zone, f->slot, f->block);
            (void) check_as(f, 0, "x", &result);
        }

        _exit(0);
    }

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(check_as(f, 0, "x", &result), TG_QUOTA_REFUSED);
    assert_int_equal(check_as(f, 0, "y", &result), TG_QUOTA_OK);
    tg_zone_reap(f->zone);
    assert_int_equal(check_as(f, 0, "x", &result), TG_QUOTA_OK);
    assert_int_equal(check_as(f, 0, "x", &result), TG_QUOTA_OK);
    assert_int_equal(check_as(f, 0, "x", &result), TG_QUOTA_REFUSED);
}


static void
test_none_or_all(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f,
            "{'id':1,'name':'wide','scope':'tenant','metric':'requests',"
            "'limit':100,'window':'60s'},"
            "{'id':2,'name':'day','scope':'tenant','metric':'requests',"
            "'limit':50,'window':'day'},"
            "{'id':3,'name':'narrow','scope':'route','route':'a',"
            "'metric':'requests','limit':4,'window':'2s'},"
            "{'id':4,'name':'flight','scope':'tenant','metric':'concurrency',"
            "'limit':6}", NULL);

    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    assert_string_equal(tg_str(f->block, result.quota->name), "narrow");
    assert_int_equal(result.remaining, 3);
    assert_int_equal(check_as(f, 1, "", &result), TG_QUOTA_OK);
    assert_string_equal(tg_str(f->block, result.quota->name), "day");
    assert_int_equal(result.remaining, 48);

    assert_int_equal(admitted(f, 20), 3);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_string_equal(tg_str(f->block, result.quota->name), "narrow");

    /* the seventeen and one that were refused took nothing anywhere */
    assert_int_equal(state_of(f, 1)->word & TG_CALENDAR_COUNT, 5);
    assert_int_equal(state_of(f, 3)->word, 5);
    assert_int_equal(state_of(f, 0)->throttled, 0);
    assert_int_equal(state_of(f, 2)->throttled, 18);

    /* of two that refuse, the one that keeps longer */
    f->now.mono_us += 2 * SECOND;
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
    f->pin = tg_zone_pin(f->zone, f->slot, f->block);
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_string_equal(tg_str(f->block, result.quota->name), "flight");
    state_of(f, 1)->word += 100;
    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_string_equal(tg_str(f->block, result.quota->name), "day");
    assert_int_equal(result.retry_s, 10);
}


/* The last of five fails after the first look: the four that were charged are
 * given back. */
static void
test_undo(void **state)
{
    uint64_t            first, day;
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f,
            "{'id':1,'name':'a','scope':'tenant','metric':'requests',"
            "'limit':10,'window':'60s'},"
            "{'id':2,'name':'b','scope':'tenant','metric':'requests',"
            "'limit':10,'window':'day'},"
            "{'id':3,'name':'c','scope':'tenant','metric':'concurrency',"
            "'limit':10},"
            "{'id':4,'name':'d','scope':'consumer','metric':'requests',"
            "'limit':10,'window':'60s'},"
            "{'id':5,'name':'e','scope':'consumer','metric':'concurrency',"
            "'limit':1}", NULL);
    assert_int_equal(check_as(f, 0, "x", &result), TG_QUOTA_OK);
    first = state_of(f, 0)->word;
    day = state_of(f, 1)->word;

    /* five of the pin's six places are taken: one is too few for both */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tg_zone_hold(f->zone, f->pin, tg_zone_offset(f->zone,
                         &state_of(f, 2)->word) | TG_HOLD_64, 99), TG_HOLD_OK);
    }

    assert_int_equal(check_as(f, 0, "y", &result), TG_QUOTA_NO_PIN);
    assert_int_equal(state_of(f, 0)->word, first);
    assert_int_equal(state_of(f, 1)->word, day);
    assert_int_equal(state_of(f, 2)->word, 4);
    assert_int_equal(state_of(f, 0)->throttled, 0);
}


static void
test_dry_run(void **state)
{
    fixture_t          *f = *state;
    tg_quota_result_t   result;

    publish(f,
            "{'id':1,'name':'dry','scope':'tenant','metric':'requests',"
            "'limit':2,'window':'60s','dry_run':true},"
            "{'id':2,'name':'flight','scope':'tenant','metric':'concurrency',"
            "'limit':2,'dry_run':true},"
            "{'id':3,'name':'real','scope':'tenant','metric':'requests',"
            "'limit':5,'window':'60s'}", NULL);

    for (int i = 0; i < 5; i++) {
        f->pin = tg_zone_pin(f->zone, f->slot, f->block);
        assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_OK);
        assert_int_equal(result.dry_run, i < 2 ? 0 : 2);
        assert_int_equal(result.held_n, 1);
        assert_string_equal(tg_str(f->block, result.quota->name), "real");
    }

    assert_int_equal(check_as(f, 0, "", &result), TG_QUOTA_REFUSED);
    assert_string_equal(tg_str(f->block, result.quota->name), "real");
    assert_int_equal(state_of(f, 0)->throttled, 3);
    assert_int_equal(state_of(f, 1)->throttled, 3);
    assert_int_equal(state_of(f, 1)->word, 5);
    assert_int_equal(state_of(f, 2)->throttled, 1);
}


static void
test_select(void **state)
{
    fixture_t       *f = *state;
    tg_quota_set_t   set;

    publish(f,
            "{'id':1,'name':'zoe','scope':'consumer','consumer':'zoe',"
            "'metric':'requests','limit':1,'window':'60s'},"
            "{'id':2,'name':'all','scope':'tenant','metric':'requests',"
            "'limit':1,'window':'60s'},"
            "{'id':3,'name':'ann','scope':'consumer','consumer':'ann',"
            "'metric':'requests','limit':1,'window':'60s'},"
            "{'id':4,'name':'ann-b','scope':'consumer','consumer':'ann',"
            "'route':'b','metric':'requests','limit':1,'window':'60s'},"
            "{'id':5,'name':'anna','scope':'consumer','consumer':'anna',"
            "'metric':'body_size','limit':7},"
            "{'id':6,'name':'body','scope':'tenant','metric':'body_size',"
            "'limit':100},"
            "{'id':7,'name':'body-b','scope':'route','route':'b',"
            "'metric':'body_size','limit':10},"
            "{'id':8,'name':'body-dry','scope':'tenant','metric':'body_size',"
            "'limit':3,'dry_run':true}", NULL);

    select_set(f, &set, 0, "");
    assert_int_equal(set.n, 1);
    assert_int_equal(set.body->id, 6);
    assert_int_equal(set.body_dry_run->id, 8);

    select_set(f, &set, 1, "");
    assert_int_equal(set.n, 1);
    assert_int_equal(set.body->id, 7);

    select_set(f, &set, 0, "ann");
    assert_int_equal(set.n, 2);
    assert_int_equal(set.quota[1]->id, 3);
    select_set(f, &set, 1, "ann");
    assert_int_equal(set.n, 3);

    select_set(f, &set, 0, "anna");
    assert_int_equal(set.n, 1);
    assert_int_equal(set.body->id, 5);

    select_set(f, &set, 0, "zoe");
    assert_int_equal(set.n, 2);
    assert_int_equal(set.quota[1]->id, 1);

    select_set(f, &set, 0, "an");
    assert_int_equal(set.n, 1);
    select_set(f, &set, 0, "annb");
    assert_int_equal(set.n, 1);
    select_set(f, &set, 0, "zzz");
    assert_int_equal(set.n, 1);
    select_set(f, &set, 0, "Ann");
    assert_int_equal(set.n, 1);

    tg_quota_count_body(&set, set.body);
    assert_int_equal(tg_quota_throttled(f->zone, set.body), 1);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        TEST(test_burst_and_pace),
        TEST(test_explicit_burst),
        TEST(test_exact_rate),
        TEST(test_extremes),
        TEST(test_new_limit),
        TEST(test_old_version),
        TEST(test_boost),
        TEST(test_clocks_differ),
        TEST(test_calendar),
        TEST(test_months),
        TEST(test_concurrency),
        TEST(test_no_pin),
        TEST(test_concurrency_crash),
        TEST(test_none_or_all),
        TEST(test_undo),
        TEST(test_dry_run),
        TEST(test_select),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
