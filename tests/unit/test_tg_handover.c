/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Two gateways, each with a zone and a clock of its own: what one has counted is
 * told, written into a document, and added at the other.
 */

#include "quota_fixture.h"

#include <time.h>

#include "tg_handover.h"

#define TEN     "{'id':1,'name':'q','scope':'tenant','metric':'requests'," \
                "'limit':10,'window':'60s'}"
#define TEN_A_DAY  "{'id':1,'name':'q','scope':'tenant','metric':'requests'," \
                "'limit':10,'window':'day'}"
#define EACH    "{'id':2,'name':'each','scope':'consumer','metric':'requests'," \
                "'limit':5,'window':'60s'}"
#define EACH_A_DAY  "{'id':2,'name':'each','scope':'consumer'," \
                "'metric':'requests','limit':5,'window':'day'}"

typedef struct {
    fixture_t           *a;
    fixture_t           *b;
    unsigned             n;
    tg_handover_word_t   word[2 * TG_QUOTA_KEYS];
    char                 text[16384];
} world_t;


static int
world_setup(void **state)
{
    void     *one;
    world_t  *w;

    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    (void) setup(&one);
    w->a = one;
    (void) setup(&one);
    w->b = one;

    /* no machine's monotonic clock is another's */
    w->b->now.mono_us = 77 * SECOND;
    *state = w;

    return 0;
}


static int
world_teardown(void **state)
{
    void     *one;
    world_t  *w = *state;

    one = w->a;
    (void) teardown(&one);
    one = w->b;
    (void) teardown(&one);
    free(w);

    return 0;
}


static void
pass(fixture_t *f, uint64_t us)
{
    f->now.mono_us += us;
    f->now.unix_s += us / SECOND;
}


static int
keep(void *data, const tg_handover_word_t *word)
{
    world_t  *w = data;

    assert_true(w->n < sizeof(w->word) / sizeof(w->word[0]));
    w->word[w->n++] = *word;

    return 0;
}


/* What a has, into w->word. */
static void
tell(world_t *w)
{
    w->n = 0;
    assert_int_equal(tg_handover_export(w->a->zone, w->a->block, &w->a->now,
                                        w->a->now.unix_s * SECOND, keep, w), 0);
}


/* w->word as members of a document. */
static const char *
members(world_t *w, unsigned id)
{
    size_t                     len;
    const tg_handover_word_t  *word;

    len = (size_t) snprintf(w->text, sizeof(w->text),
                            ",'carry_id':%u,'carry':[", id);

    for (unsigned i = 0; i < w->n; i++) {
        word = &w->word[i];
        len += (size_t) snprintf(w->text + len, sizeof(w->text) - len,
                        "%s{'quota':%llu,'key':'%llx','name':'%s','%s':'%llx'",
                        i ? "," : "", (unsigned long long) word->quota,
                        (unsigned long long) word->key, word->name,
                        word->calendar ? "word" : "level",
                        (unsigned long long) word->value);

        if (!word->calendar) {
            len += (size_t) snprintf(w->text + len, sizeof(w->text) - len,
                                     ",'at':%llu",
                                     (unsigned long long) word->at);
        }

        len += (size_t) snprintf(w->text + len, sizeof(w->text) - len, "}");
    }

    snprintf(w->text + len, sizeof(w->text) - len, "]");

    return w->text;
}


static int  whole;      /* all of the last carry is counted where it belongs */

/* A version of b with the carry, and what came of it. */
static tg_carried_t
take_over(world_t *w, const char *quotas, const char *boost)
{
    tg_carried_t     result;
    static unsigned  id;
    tg_zone_stats_t  before, after;

    tg_zone_stats(w->b->zone, &before);
    publish_more(w->b, quotas, boost, members(w, ++id));
    tg_zone_stats(w->b->zone, &after);
    whole = w->b->block->carried_whole;

    result.added = after.carried.added - before.carried.added;
    result.capped = after.carried.capped - before.carried.capped;
    result.shared = after.carried.shared - before.carried.shared;
    result.passed = after.carried.passed - before.carried.passed;

    return result;
}


static void
test_exact(void **state)
{
    world_t       *w = *state;
    tg_carried_t   result;

    publish(w->a, TEN, NULL);
    assert_int_equal(admitted(w->a, 6), 6);
    tell(w);
    assert_int_equal(w->n, 1);
    assert_int_equal(w->word[0].quota, 1);
    assert_int_equal(w->word[0].value, 6 * TG_QUOTA_UNIT);
    assert_int_equal(w->word[0].at, w->a->now.unix_s * 1000);

    result = take_over(w, TEN, NULL);
    assert_int_equal(result.added, 1);
    assert_int_equal(result.capped + result.shared + result.passed, 0);
    assert_int_equal(whole, 1);
    assert_int_equal(admitted(w->b, 10), 4);

    pass(w->b, 6 * SECOND - 1);
    assert_int_equal(admitted(w->b, 10), 0);
    pass(w->b, 1);
    assert_int_equal(admitted(w->b, 10), 1);
}


/* Requests that b admits of 10, when its clock is so far from a's and so much time
 * has gone by. */
static void
test_clocks(void **state)
{
    world_t  *w = *state;
    int64_t   unix_s;

    static const struct {
        int64_t   skew;
        int64_t   later;
        unsigned  admitted;
    } cases[] = {
        { 0, 0, 4 }, { 0, 5, 4 }, { 0, 6, 5 }, { 0, 30, 9 }, { 0, 36, 10 },
        { 0, 100000, 10 }, { -5, 0, 4 }, { -5, 5, 4 }, { -5, 10, 4 },
        { -5, 11, 5 }, { -100000, 3600, 4 }, { 6, 0, 5 }, { 6, 6, 6 },
        { 1000000000, 0, 10 }
    };

    publish(w->a, TEN, NULL);
    assert_int_equal(admitted(w->a, 6), 6);
    tell(w);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        publish(w->b, TEN_A_DAY, NULL);         /* forgets the levels */
        unix_s = (int64_t) w->a->now.unix_s + cases[i].skew + cases[i].later;
        w->b->now.unix_s = (uint64_t) unix_s;
        (void) take_over(w, TEN, NULL);
        assert_int_equal(admitted(w->b, 10), cases[i].admitted);
    }
}


static void
test_added_to_what_is_there(void **state)
{
    world_t       *w = *state;
    tg_carried_t   result;

    publish(w->a, TEN, NULL);
    publish(w->b, TEN, NULL);
    assert_int_equal(admitted(w->a, 3), 3);
    assert_int_equal(admitted(w->b, 2), 2);
    tell(w);

    /* of two gateways, as it happens the same */
    w->word[w->n++] = w->word[0];
    result = take_over(w, TEN, NULL);
    assert_int_equal(result.added, 2);
    assert_int_equal(result.capped, 0);
    assert_int_equal(admitted(w->b, 10), 2);

    /* no higher than the bucket is */
    result = take_over(w, TEN, NULL);
    assert_int_equal(result.added, 2);
    assert_int_equal(result.capped, 2);
    assert_int_equal(whole, 0);
    assert_int_equal(admitted(w->b, 10), 0);
    pass(w->b, 6 * SECOND);
    assert_int_equal(admitted(w->b, 10), 1);
}


static void
test_changed_limits(void **state)
{
    world_t       *w = *state;
    tg_carried_t   result;

    publish(w->a, TEN, NULL);
    assert_int_equal(admitted(w->a, 6), 6);
    tell(w);

    /* 6 requests are 6 requests, whatever the limit; but no more than it */
    (void) take_over(w, "{'id':1,'name':'q','scope':'tenant',"
                        "'metric':'requests','limit':100,'window':'3600s'}",
                     NULL);
    assert_int_equal(admitted(w->b, 200), 94);

    publish(w->b, TEN_A_DAY, NULL);
    result = take_over(w, "{'id':1,'name':'q','scope':'tenant',"
                          "'metric':'requests','limit':5,'window':'60s'}", NULL);
    assert_int_equal(result.capped, 1);
    assert_int_equal(admitted(w->b, 10), 0);
    pass(w->b, 12 * SECOND);
    assert_int_equal(admitted(w->b, 10), 1);

    publish(w->b, TEN_A_DAY, NULL);
    w->b->now.unix_s = w->a->now.unix_s;
    (void) take_over(w, "{'id':1,'name':'q','scope':'tenant',"
                        "'metric':'requests','limit':10,'window':'60s',"
                        "'burst':8}", NULL);
    assert_int_equal(admitted(w->b, 10), 2);

    /* counts something else by now */
    result = take_over(w, TEN_A_DAY, NULL);
    assert_int_equal(result.passed, 1);
    assert_int_equal(admitted(w->b, 20), 10);
}


static void
test_boost(void **state)
{
    char      boost[64];
    world_t  *w = *state;

    snprintf(boost, sizeof(boost), "{'factor':3,'until':%llu}",
             (unsigned long long) UNIX + 60);
    publish(w->a, TEN, boost);
    assert_int_equal(admitted(w->a, 20), 20);
    tell(w);

    (void) take_over(w, TEN, boost);
    assert_int_equal(admitted(w->b, 40), 10);

    /* 10 s at the threefold rate: 5 requests */
    publish(w->b, TEN_A_DAY, NULL);
    w->b->now.unix_s = w->a->now.unix_s + 10;
    (void) take_over(w, TEN, boost);
    assert_int_equal(admitted(w->b, 40), 15);

    /* when it ended the level fell with the capacity, by 20: as at home, where 20
     * less 30 of a minute at the threefold rate are none */
    publish(w->b, TEN_A_DAY, NULL);
    w->b->now.unix_s = w->a->now.unix_s + 60;
    (void) take_over(w, TEN, boost);
    assert_int_equal(admitted(w->b, 40), 10);

    /* it was taken back meanwhile: no more than a full bucket */
    publish(w->b, TEN_A_DAY, NULL);
    w->b->now.unix_s = w->a->now.unix_s;
    (void) take_over(w, TEN, NULL);
    assert_int_equal(admitted(w->b, 40), 0);
}


static uint64_t  visited;


static void
visit(void *data, const tg_quota_t *quota, const char *name, uint64_t used)
{
    (void) quota;

    if (strcmp(name, data) == 0) {
        visited = used;
    }
}


static uint64_t
used(fixture_t *f, unsigned i, const char *name)
{
    visited = 0;
    tg_quota_visit(f->zone, f->block,
                   tg_vec(f->block, f->block->quotas, tg_quota_t) + i, &f->now,
                   visit, (void *) (uintptr_t) name);

    return visited;
}


/* Whatever the moment, b admits what a would. */
static void
test_boost_that_ends(void **state)
{
    char               boost[64];
    world_t           *w = *state;
    tg_quota_set_t     set;
    tg_quota_result_t  result;

    snprintf(boost, sizeof(boost), "{'factor':3,'until':%llu}",
             (unsigned long long) UNIX + 4);
    publish(w->a, TEN, boost);
    assert_int_equal(admitted(w->a, 30), 30);
    tell(w);

    for (unsigned s = 0; s < 40; s += 3) {
        publish(w->b, TEN_A_DAY, NULL);
        w->b->now.unix_s = w->a->now.unix_s;
        (void) take_over(w, TEN, boost);

        assert_int_equal(used(w->b, 0, ""), used(w->a, 0, ""));
        pass(w->a, 3 * SECOND);
    }

    select_set(w->b, &set, 0, "");
    assert_int_equal(tg_quota_check(&set, w->b->pin, &w->b->now, &result),
                     TG_QUOTA_OK);
}


static void
test_dry_run(void **state)
{
    world_t  *w = *state;

    static const char  dry[] = "{'id':1,'name':'q','scope':'tenant',"
                               "'metric':'requests','limit':10,'window':'60s',"
                               "'dry_run':true}";

    publish(w->a, dry, NULL);
    assert_int_equal(admitted(w->a, 12), 12);
    tell(w);
    assert_int_equal(w->word[0].value, 10 * TG_QUOTA_UNIT);
    (void) take_over(w, dry, NULL);
    assert_int_equal(used(w->b, 0, ""), 10);
    assert_int_equal(admitted(w->b, 3), 3);

    /* and then it is meant seriously */
    publish(w->b, TEN, NULL);
    assert_int_equal(admitted(w->b, 3), 0);
}


static void
test_consumers(void **state)
{
    world_t       *w = *state;
    tg_carried_t   result;

    static const char  longest[] = "a-name-of-more-than-forty-seven-bytes-of-a-"
                                   "consumer-\xc3\xbc";
    static const char  cut[] = "a-name-that-is-cut-inside-of-its-last-letter-x"
                               "\xc3\xbc";

    publish(w->a, EACH, NULL);
    assert_int_equal(admitted_as(w->a, "mobile", 3), 3);
    assert_int_equal(admitted_as(w->a, "web", 7), 5);
    assert_int_equal(admitted_as(w->a, "", 1), 1);
    assert_int_equal(admitted_as(w->a, longest, 2), 2);
    assert_int_equal(admitted_as(w->a, cut, 4), 4);
    tell(w);
    assert_int_equal(w->n, 5);

    result = take_over(w, EACH, NULL);
    assert_int_equal(result.added, 5);
    assert_int_equal(used(w->b, 0, "mobile"), 3);
    assert_int_equal(admitted_as(w->b, "mobile", 9), 2);
    assert_int_equal(admitted_as(w->b, "web", 9), 0);
    assert_int_equal(admitted_as(w->b, "", 9), 4);
    assert_int_equal(admitted_as(w->b, longest, 9), 3);
    assert_int_equal(admitted_as(w->b, cut, 9), 1);
    assert_int_equal(admitted_as(w->b, "other", 9), 5);
}


/* A table without room: what finds no bucket is in that of all others like it. */
static void
test_full_table(void **state)
{
    char           name[16];
    world_t       *w = *state;
    unsigned       i;
    tg_carried_t   result;

    publish(w->a, EACH, NULL);
    publish(w->b, EACH, NULL);
    assert_int_equal(admitted_as(w->a, "late", 3), 3);
    tell(w);

    for (i = 0; i < 4000; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        (void) admitted_as(w->b, name, 1);
    }

    /* that has drained; the buckets have not */
    __atomic_store_n(&state_of(w->b, 0)->word, 0, __ATOMIC_SEQ_CST);
    result = take_over(w, EACH, NULL);
    assert_int_equal(result.added, 1);
    assert_int_equal(result.shared, 1);
    assert_int_equal(used(w->b, 0, ""), 3);
    assert_int_equal(admitted_as(w->b, "late", 9), 2);

    /* of all consumers that have none, too */
    w->n = 0;
    publish(w->a, TEN_A_DAY, NULL);
    publish(w->a, EACH, NULL);

    for (i = 0; i < 4000; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        (void) admitted_as(w->a, name, 1);
    }

    tell(w);
    assert_int_equal(w->n, 1 + TG_QUOTA_KEYS);
    assert_int_equal(w->word[0].key, 0);
    assert_int_equal(w->word[0].value, 5 * TG_QUOTA_UNIT);
}


static void
test_calendar(void **state)
{
    world_t       *w = *state;
    tg_carried_t   result;

    publish(w->a, TEN_A_DAY "," EACH_A_DAY, NULL);
    publish(w->b, TEN_A_DAY "," EACH_A_DAY, NULL);
    assert_int_equal(admitted_as(w->a, "web", 4), 4);
    assert_int_equal(admitted_as(w->b, "web", 1), 1);
    tell(w);
    assert_int_equal(w->n, 2);
    result = take_over(w, TEN_A_DAY "," EACH_A_DAY, NULL);
    assert_int_equal(result.added, 2);
    assert_int_equal(admitted_as(w->b, "web", 5), 0);
    assert_int_equal(admitted_as(w->b, "mobile", 9), 5);

    /* ten seconds later it is another day: of no use */
    pass(w->b, 10 * SECOND);
    result = take_over(w, TEN_A_DAY "," EACH_A_DAY, NULL);
    assert_int_equal(result.passed, 2);
    assert_int_equal(admitted_as(w->b, "web", 9), 5);

    /* a's clock is ahead: it has begun that day, which b goes on counting in */
    publish(w->a, "{'id':9,'name':'x','scope':'tenant','metric':'concurrency',"
                  "'limit':1}", NULL);
    publish(w->a, TEN_A_DAY, NULL);
    publish(w->b, "{'id':9,'name':'x','scope':'tenant','metric':'concurrency',"
                  "'limit':1}", NULL);
    w->b->now.unix_s = UNIX;
    publish(w->b, TEN_A_DAY, NULL);
    assert_int_equal(admitted(w->b, 2), 2);
    pass(w->a, 10 * SECOND);
    assert_int_equal(admitted(w->a, 7), 7);
    tell(w);
    result = take_over(w, TEN_A_DAY, NULL);
    assert_int_equal(result.added, 1);
    assert_int_equal(admitted(w->b, 1), 1);
    pass(w->b, 10 * SECOND);
    assert_int_equal(admitted(w->b, 9), 2);
}


static void
test_passed_over(void **state)
{
    world_t            *w = *state;
    tg_carried_t        result;
    unsigned            i;
    tg_handover_word_t  day;

    static const struct {
        const char  *what;
        uint64_t     quota;
        uint64_t     key;
        uint64_t     value;
        const char  *name;
    } levels[] = {
        { "no such quota", 99, 0, TG_QUOTA_UNIT, "" },
        { "a key for a quota of all", 1, 5, TG_QUOTA_UNIT, "" },
        { "the key of another consumer", 2, 5, TG_QUOTA_UNIT, "web" },
        { "a level for a day", 3, 0, TG_QUOTA_UNIT, "" },
        { "a level for requests in flight", 4, 0, TG_QUOTA_UNIT, "" },
        { "a level for sizes", 5, 0, TG_QUOTA_UNIT, "" },
        { "no level", 1, 0, 0, "" },
        { "more than any level", 1, 0, UINT64_MAX, "" },
        { "more than any level", 1, 0, UINT64_C(1) << 62, "" },
    };

    static const char  quotas[] =
        TEN "," EACH ",{'id':3,'name':'d','scope':'tenant','metric':'requests',"
        "'limit':10,'window':'day'},"
        "{'id':4,'name':'c','scope':'tenant','metric':'concurrency','limit':9},"
        "{'id':5,'name':'b','scope':'tenant','metric':'body_size','limit':9}";

    for (i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        w->n = 1;
        memset(&w->word[0], 0, sizeof(w->word[0]));
        w->word[0].quota = levels[i].quota;
        w->word[0].key = levels[i].key;
        w->word[0].value = levels[i].value;
        w->word[0].at = UNIX * 1000;
        strcpy(w->word[0].name, levels[i].name);
        result = take_over(w, quotas, NULL);

        if (result.passed != 1 || result.added != 0) {
            fail_msg("%s was taken", levels[i].what);
        }

        /* of a level that has drained nothing is missing */
        assert_int_equal(whole, i >= 6);
    }

    memset(&day, 0, sizeof(day));
    day.calendar = 1;
    w->n = 6;

    for (i = 0; i < w->n; i++) {
        w->word[i] = day;
    }

    w->word[0].quota = 1;                           /* of seconds */
    w->word[0].value = (UNIX / 86400) << 40 | 5;
    w->word[1].quota = 3;                           /* of yesterday */
    w->word[1].value = (UNIX / 86400 - 1) << 40 | 5;
    w->word[2].quota = 3;                           /* of after tomorrow */
    w->word[2].value = (UNIX / 86400 + 2) << 40 | 5;
    w->word[3].quota = 3;                           /* of no day */
    w->word[3].value = 5;
    w->word[4].quota = 3;                           /* of nothing */
    w->word[4].value = (UNIX / 86400) << 40;
    w->word[5].quota = 3;                           /* of one consumer */
    w->word[5].key = 7;
    w->word[5].value = (UNIX / 86400) << 40 | 5;
    result = take_over(w, quotas, NULL);
    assert_int_equal(result.passed, 6);

    assert_int_equal(admitted_as(w->b, "web", 10), 5);
}


static void
test_taken_off(void **state)
{
    world_t   *w = *state;
    unsigned   i;

    publish(w->a, TEN "," EACH ",{'id':3,'name':'d','scope':'tenant',"
                  "'metric':'requests','limit':20,'window':'day'}", NULL);
    assert_int_equal(admitted_as(w->a, "web", 4), 4);
    assert_int_equal(admitted_as(w->a, "mobile", 2), 2);
    tell(w);
    assert_int_equal(w->n, 4);

    /* while it was on its way one came that nobody else knows of */
    pass(w->a, 3 * SECOND);
    assert_int_equal(admitted_as(w->a, "web", 1), 1);

    for (i = 0; i < w->n; i++) {
        tg_handover_take(w->a->zone, w->a->block, &w->word[i], &w->a->now,
                         w->a->now.unix_s * SECOND);
    }

    assert_int_equal(used(w->a, 0, ""), 1);
    assert_int_equal(used(w->a, 1, "web"), 1);
    assert_int_equal(used(w->a, 1, "mobile"), 0);
    assert_int_equal(used(w->a, 2, ""), 1);
    tell(w);
    assert_int_equal(w->n, 3);

    for (i = 0; i < w->n; i++) {
        tg_handover_take(w->a->zone, w->a->block, &w->word[i], &w->a->now,
                         w->a->now.unix_s * SECOND);
    }

    tell(w);
    assert_int_equal(w->n, 0);

    /* nothing is left to take, of a quota that is gone, or of whom it never knew */
    w->word[0] = (tg_handover_word_t) { .quota = 1, .value = TG_QUOTA_UNIT,
                                        .at = UNIX * 1000 };
    w->word[1] = (tg_handover_word_t) { .quota = 99, .value = TG_QUOTA_UNIT,
                                        .at = UNIX * 1000 };
    w->word[2] = (tg_handover_word_t) { .quota = 2, .value = TG_QUOTA_UNIT,
                                        .at = UNIX * 1000, .key = 77 };

    for (i = 0; i < 3; i++) {
        tg_handover_take(w->a->zone, w->a->block, &w->word[i], &w->a->now,
                         w->a->now.unix_s * SECOND);
    }

    tell(w);
    assert_int_equal(w->n, 0);
    assert_int_equal(admitted_as(w->a, "web", 10), 5);
}


/* Concurrency is never told. */
static void
test_in_flight(void **state)
{
    world_t  *w = *state;

    publish(w->a, "{'id':4,'name':'c','scope':'tenant','metric':'concurrency',"
                  "'limit':3}", NULL);
    assert_int_equal(admitted(w->a, 5), 3);
    tell(w);
    assert_int_equal(w->n, 0);
}


static int
stop(void *data, const tg_handover_word_t *word)
{
    (void) word;

    return ++*(int *) data == 2 ? 7 : 0;
}


static void
test_stops(void **state)
{
    int       n;
    world_t  *w = *state;

    publish(w->a, TEN "," EACH, NULL);
    assert_int_equal(admitted_as(w->a, "web", 1), 1);
    assert_int_equal(admitted_as(w->a, "mobile", 1), 1);
    n = 0;
    assert_int_equal(tg_handover_export(w->a->zone, w->a->block, &w->a->now,
                                        UNIX * SECOND, stop, &n), 7);
    assert_int_equal(n, 2);
}


/* --- once for each id --- */

static uint64_t
count_of(fixture_t *f)
{
    return __atomic_load_n(&state_of(f, 0)->word, __ATOMIC_SEQ_CST)
           & TG_CALENDAR_COUNT;
}


static void
test_once(void **state)
{
    char              carry[3][128];
    world_t          *w = *state;
    fixture_t        *f = w->b;
    tg_zone_stats_t   stats;

    for (unsigned i = 0; i < 3; i++) {
        snprintf(carry[i], sizeof(carry[i]),
                 ",'carry_id':%u,'carry':[{'quota':1,'word':'%llx'}]", i + 7,
                 (unsigned long long) ((f->now.unix_s / 86400) << 40 | 3));
    }

    publish_more(f, TEN_A_DAY, NULL, carry[0]);
    assert_int_equal(count_of(f), 3);
    assert_int_equal(f->block->carried, 7);
    assert_int_equal(f->block->carried_whole, 1);

    /* further versions with the same carry, and none, and the same again */
    publish_more(f, TEN_A_DAY, NULL, carry[0]);
    assert_int_equal(count_of(f), 3);
    publish(f, TEN_A_DAY, NULL);
    assert_int_equal(f->block->carried, 7);
    assert_int_equal(f->block->carried_whole, 1);
    publish_more(f, TEN_A_DAY, NULL, carry[0]);
    assert_int_equal(count_of(f), 3);

    /* the same revision again, as a list has it */
    f->revision--;
    publish_more(f, TEN_A_DAY, NULL, carry[0]);
    assert_int_equal(count_of(f), 3);

    publish_more(f, TEN_A_DAY, NULL, carry[1]);
    assert_int_equal(count_of(f), 6);
    publish_more(f, TEN_A_DAY, NULL, ",'carry_id':8");
    assert_int_equal(count_of(f), 6);

    tg_zone_stats(f->zone, &stats);
    assert_int_equal(stats.carried.added, 2);

    /* another registry's 8 is another carry; but that is said only once, too */
    tg_zone_set_revision(f->zone, f->revision, 1);
    publish_more(f, TEN_A_DAY, NULL, carry[1]);
    assert_int_equal(count_of(f), 9);
    publish_more(f, TEN_A_DAY, NULL, carry[1]);
    assert_int_equal(count_of(f), 9);

    /* as is that of another tenant, or of the same one that was away */
    assert_int_equal(tg_zone_delete(f->zone, TG_KIND_TENANT, "t", 1, 7,
                                    f->revision), TG_ZONE_OK);
    publish_more(f, TEN_A_DAY, NULL, carry[2]);
    assert_int_equal(count_of(f), 3);

    /* a zone that starts empty has nothing of it */
    publish_more(w->a, TEN_A_DAY, NULL, carry[2]);
    assert_int_equal(count_of(w->a), 3);
}


#define WORLD(name)  cmocka_unit_test_setup_teardown(name, world_setup,       \
                                                     world_teardown)


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        WORLD(test_exact),
        WORLD(test_clocks),
        WORLD(test_added_to_what_is_there),
        WORLD(test_changed_limits),
        WORLD(test_boost),
        WORLD(test_boost_that_ends),
        WORLD(test_dry_run),
        WORLD(test_consumers),
        WORLD(test_full_table),
        WORLD(test_calendar),
        WORLD(test_passed_over),
        WORLD(test_taken_off),
        WORLD(test_in_flight),
        WORLD(test_stops),
        WORLD(test_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
