/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_balance.h"
#include "tg_compile.h"

#define ZONE_SIZE  (2 * 1024 * 1024)
#define DRAWS      10000

typedef struct {
    tg_zone_t          *zone;
    void               *base;
    int                 slot;
    const tg_block_t   *block;
    tg_random_t         random;
} fixture_t;


/* A tenant of one route with these backends, and these upstreams. */
static void
publish(fixture_t *f, const char *upstreams, const char *backends,
    const char *sticky)
{
    char             text[8192], *p;
    tg_error_t       err;
    tg_block_t      *image;
    static uint64_t  revision;

    snprintf(text, sizeof(text),
             "{'name':'t','id':7,'revision':%llu,'state':'active','hosts':[],"
             "'issuers':[],'api_keys':[],'quotas':[],'upstreams':[%s],"
             "'routes':[{'id':5,'name':'r','match':{'path':{'type':'prefix',"
             "'value':'/'}},'sticky':'%s','backends':[%s]}]}",
             (unsigned long long) ++revision, upstreams, sticky, backends);

    for (p = text; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }

    image = tg_compile(text, strlen(text), TG_KIND_TENANT, NULL, &err);

    if (image == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    assert_int_equal(tg_zone_put(f->zone, image), TG_ZONE_OK);
    tg_compile_free(image);

    tg_zone_enter(f->zone, f->slot);
    f->block = tg_zone_find_tenant(f->zone, "t", 1);
    assert_non_null(tg_zone_pin(f->zone, f->slot, f->block));
    tg_zone_exit(f->zone, f->slot);
}


static int
setup(void **state)
{
    uint8_t     boot[16] = { 1 };
    fixture_t  *f;

    f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(posix_memalign(&f->base, 4096, ZONE_SIZE), 0);
    f->zone = tg_zone_create(f->base, ZONE_SIZE, 42, boot);
    assert_non_null(f->zone);
    f->slot = tg_zone_slot_take(f->zone, getpid(), 16);
    f->random.state = 12345;
    *state = f;

    return 0;
}


static int
teardown(void **state)
{
    fixture_t  *f = *state;

    free(f->base);
    free(f);

    return 0;
}


static const tg_route_t *
route(const fixture_t *f)
{
    return tg_vec(f->block, f->block->routes, tg_route_t);
}


static const tg_upstream_t *
upstream(const fixture_t *f)
{
    return tg_vec(f->block, f->block->upstreams, tg_upstream_t);
}


static tg_endpoint_state_t *
endpoint_state(const fixture_t *f, unsigned i)
{
    return tg_zone_ptr(f->zone, tg_vec(f->block, upstream(f)->endpoints,
                                       tg_endpoint_t)[i].state);
}


/* Four standard deviations: wrong once in 16,000 runs, and the seed is fixed. */
static void
assert_binomial(unsigned hits, unsigned n, double p)
{
    double  off = hits - n * p;

    if (off * off > 16 * n * p * (1 - p) + 1e-9) {
        fail_msg("%u of %u, expected about %.0f", hits, n, n * p);
    }
}


static const char  three[] =
    "{'id':1,'name':'a','endpoints':[]},{'id':2,'name':'b','endpoints':[]},"
    "{'id':3,'name':'c','endpoints':[]}";


static void
test_weights(void **state)
{
    size_t      i;
    char        backends[256];
    fixture_t  *f = *state;

    static const unsigned  weights[][3] = {
        { 1, 1, 1 }, { 95, 5, 0 }, { 0, 0, 1 }, { 0, 1, 0 }, { 1000000, 1, 1 },
        { 1, 2, 7 }, { 1000000, 1000000, 1000000 }, { 999, 0, 1 },
    };

    for (i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
        const unsigned  *w = weights[i];
        unsigned         hits[3] = { 0, 0, 0 };
        double           sum = (double) w[0] + w[1] + w[2];

        snprintf(backends, sizeof(backends), "{'upstream':'a','weight':%u},"
                 "{'upstream':'b','weight':%u},{'upstream':'c','weight':%u}",
                 w[0], w[1], w[2]);
        publish(f, three, backends, "none");

        for (unsigned n = 0; n < DRAWS; n++) {
            hits[tg_balance_backend(f->block, route(f), "x", 1, &f->random)]++;
        }

        for (int k = 0; k < 3; k++) {
            assert_binomial(hits[k], DRAWS, w[k] / sum);
        }
    }
}


/* Which backend each of the consumers gets. */
static void
map(fixture_t *f, const char *backends, uint8_t *to)
{
    int   n;
    char  name[32];

    publish(f, three, backends, "consumer");

    for (unsigned i = 0; i < DRAWS; i++) {
        n = snprintf(name, sizeof(name), "consumer-%u", i);
        to[i] = (uint8_t) tg_balance_backend(f->block, route(f), name,
                                             (size_t) n, &f->random);
    }
}


static void
test_sticky(void **state)
{
    unsigned    moved, back, hits[3] = { 0, 0, 0 };
    uint8_t     before[DRAWS], after[DRAWS];
    fixture_t  *f = *state;

    map(f, "{'upstream':'a','weight':95},{'upstream':'b','weight':5}", before);
    map(f, "{'upstream':'a','weight':95},{'upstream':'b','weight':5}", after);
    assert_memory_equal(before, after, DRAWS);

    for (unsigned i = 0; i < DRAWS; i++) {
        hits[before[i]]++;
    }

    assert_binomial(hits[1], DRAWS, 0.05);

    /* a larger canary takes consumers in, and puts none out */
    map(f, "{'upstream':'a','weight':90},{'upstream':'b','weight':10}", after);
    moved = back = 0;

    for (unsigned i = 0; i < DRAWS; i++) {
        moved += before[i] == 0 && after[i] == 1;
        back += before[i] == 1 && after[i] == 0;
    }

    assert_binomial(moved, DRAWS, 0.05);
    assert_int_equal(back, 0);

    /* nor does it matter how they are ordered; nobody goes to one that shrinks */
    map(f, "{'upstream':'b','weight':20},{'upstream':'a','weight':180}", before);

    for (unsigned i = 0; i < DRAWS; i++) {
        assert_int_equal(before[i], 1 - after[i]);
    }

    map(f, "{'upstream':'c','weight':10},{'upstream':'b','weight':20},"
           "{'upstream':'a','weight':70}", before);
    moved = 0;

    for (unsigned i = 0; i < DRAWS; i++) {
        moved += before[i] != 2;
        assert_true(before[i] != 2 || after[i] == 0);
    }

    assert_binomial(moved, DRAWS, 0.3);

    /* nobody is not one consumer */
    memset(hits, 0, sizeof(hits));

    for (unsigned i = 0; i < DRAWS; i++) {
        hits[tg_balance_backend(f->block, route(f), "", 0, &f->random)]++;
    }

    assert_binomial(hits[1], DRAWS, 0.2);
}


static int
draw(fixture_t *f, tg_tried_t *tried, uint64_t now)
{
    return tg_balance_endpoint(f->zone, f->block, upstream(f), tried,
                               &f->random, now);
}


static void
draw_many(fixture_t *f, unsigned *hits, unsigned n, uint64_t now)
{
    int         k;
    tg_tried_t  tried;

    for (unsigned i = 0; i < n; i++) {
        memset(&tried, 0, sizeof(tried));
        k = draw(f, &tried, now);
        assert_true(k >= 0);
        assert_int_equal(tried.bits[0], UINT64_C(1) << k);
        hits[k]++;
    }
}


#define ENDPOINTS(w1, w2, w3, more)                                           \
    "{'id':1,'name':'a'," more "'endpoints':["                                \
    "{'id':1,'address':'10.0.0.1','port':1,'weight':" #w1 "},"                \
    "{'id':2,'address':'10.0.0.2','port':1,'weight':" #w2 "},"                \
    "{'id':3,'address':'10.0.0.3','port':1,'weight':" #w3 "}]}"

#define ONE  "{'upstream':'a','weight':1}"
#define HEALTH(fails, timeout, slow)                                          \
    "'health':{'max_fails':" #fails ",'fail_timeout_ms':" #timeout            \
    ",'slow_start_ms':" #slow "},"


static void
test_endpoint_weights(void **state)
{
    unsigned    hits[3] = { 0, 0, 0 };
    fixture_t  *f = *state;

    publish(f, ENDPOINTS(3, 1, 0, ""), ONE, "none");
    draw_many(f, hits, DRAWS, 1000);
    assert_binomial(hits[0], DRAWS, 0.75);
    assert_binomial(hits[1], DRAWS, 0.25);
    assert_int_equal(hits[2], 0);
}


static void
test_outstanding(void **state)
{
    unsigned    hits[3] = { 0, 0, 0 };
    fixture_t  *f = *state;

    publish(f, ENDPOINTS(1, 1, 1, ""), ONE, "none");
    endpoint_state(f, 0)->outstanding = 50;
    endpoint_state(f, 1)->outstanding = 5;
    draw_many(f, hits, DRAWS, 1000);

    /* only when it is drawn twice; and so on */
    assert_binomial(hits[0], DRAWS, 1 / 9.);
    assert_binomial(hits[1], DRAWS, 3 / 9.);
    assert_binomial(hits[2], DRAWS, 5 / 9.);

    /* for its weight: ten in flight of weight 10 are fewer than two of 1 */
    memset(hits, 0, sizeof(hits));
    publish(f, ENDPOINTS(10, 1, 0, ""), ONE, "none");
    endpoint_state(f, 0)->outstanding = 10;
    endpoint_state(f, 1)->outstanding = 2;
    draw_many(f, hits, DRAWS, 1000);
    assert_binomial(hits[1], DRAWS, 1 / 121.);
}


static void
test_tried(void **state)
{
    unsigned    seen;
    fixture_t  *f = *state;
    tg_tried_t  tried;

    publish(f, ENDPOINTS(1, 1, 1, ""), ONE, "none");
    memset(&tried, 0, sizeof(tried));
    seen = 0;

    for (int i = 0; i < 3; i++) {
        int  k = draw(f, &tried, 1000);

        assert_in_range(k, 0, 2);
        assert_false(seen & 1u << k);
        seen |= 1u << k;
    }

    assert_int_equal(draw(f, &tried, 1000), -1);
}


static void
test_nobody(void **state)
{
    fixture_t  *f = *state;
    tg_tried_t  tried;

    memset(&tried, 0, sizeof(tried));

    publish(f, "{'id':1,'name':'a','endpoints':[]}", ONE, "none");
    assert_int_equal(tg_balance_endpoints(f->block, upstream(f)), 0);
    assert_int_equal(draw(f, &tried, 1000), -1);

    publish(f, ENDPOINTS(0, 0, 0, ""), ONE, "none");
    assert_int_equal(tg_balance_endpoints(f->block, upstream(f)), 0);
    assert_int_equal(draw(f, &tried, 1000), -1);

    publish(f, ENDPOINTS(0, 0, 1, ""), ONE, "none");
    assert_int_equal(tg_balance_endpoints(f->block, upstream(f)), 1);
    assert_int_equal(draw(f, &tried, 1000), 2);
}


/* More than one word of tried: all, one after the other. */
static void
test_many(void **state)
{
    char        text[TG_MAX_ENDPOINTS * 64 + 64];
    size_t      n;
    tg_tried_t  tried;
    fixture_t  *f = *state;
    uint8_t     seen[TG_MAX_ENDPOINTS];

    n = (size_t) snprintf(text, sizeof(text), "{'id':1,'name':'a','endpoints':[");

    for (int i = 0; i < 100; i++) {
        n += (size_t) snprintf(text + n, sizeof(text) - n,
                               "%s{'id':%d,'address':'::%x','port':1}",
                               i ? "," : "", i + 1, i + 1);
    }

    snprintf(text + n, sizeof(text) - n, "]}");
    publish(f, text, ONE, "none");

    memset(&tried, 0, sizeof(tried));
    memset(seen, 0, sizeof(seen));

    for (int i = 0; i < 100; i++) {
        int  k = draw(f, &tried, 1000);

        assert_in_range(k, 0, 99);
        assert_int_equal(seen[k]++, 0);
    }

    assert_int_equal(draw(f, &tried, 1000), -1);
}


static uint64_t
failed(fixture_t *f, unsigned i, uint64_t now)
{
    return tg_balance_failed(upstream(f), endpoint_state(f, i), now);
}


static void
test_ejection(void **state)
{
    unsigned    hits[3] = { 0, 0, 0 };
    fixture_t  *f = *state;

    publish(f, ENDPOINTS(1, 1, 1, HEALTH(3, 1000, 0)), ONE, "none");

    assert_int_equal(failed(f, 0, 10000), 0);
    assert_int_equal(failed(f, 0, 10500), 0);
    assert_false(tg_balance_is_down(endpoint_state(f, 0), 10500));
    assert_int_equal(failed(f, 0, 10999), 1000);
    assert_true(tg_balance_is_down(endpoint_state(f, 0), 10999));
    assert_true(tg_balance_is_down(endpoint_state(f, 0), 11998));
    assert_false(tg_balance_is_down(endpoint_state(f, 0), 11999));

    draw_many(f, hits, 1000, 11500);
    assert_int_equal(hits[0], 0);
    draw_many(f, hits, 1000, 11999);
    assert_true(hits[0] > 200);
}


static void
test_no_ejection(void **state)
{
    fixture_t  *f = *state;

    /* too far apart */
    publish(f, ENDPOINTS(1, 1, 1, HEALTH(3, 1000, 0)), ONE, "none");

    for (uint64_t t = 10000; t < 100000; t += 500) {
        if ((t / 500) % 3 != 0) {
            assert_int_equal(failed(f, 0, t), 0);
        }
    }

    /* switched off: nothing is kept */
    publish(f, ENDPOINTS(1, 1, 1, HEALTH(0, 1000, 0)), ONE, "none");

    for (uint64_t t = 200000; t < 201000; t++) {
        assert_int_equal(failed(f, 1, t), 0);
    }

    assert_int_equal(endpoint_state(f, 1)->fails, 0);

    /* down and then switched off: up at once */
    publish(f, ENDPOINTS(1, 1, 1, HEALTH(1, 1000, 0)), ONE, "none");
    assert_int_equal(failed(f, 0, 300000), 1000);
    assert_int_equal(failed(f, 1, 300000), 1000);
    publish(f, ENDPOINTS(1, 1, 0, HEALTH(0, 1000, 0)), ONE, "none");

    for (int i = 0; i < 10; i++) {
        tg_tried_t  tried = { { 1 } };

        assert_int_equal(draw(f, &tried, 300001), 1);
    }
}


static void
test_growing_periods(void **state)
{
    size_t      i;
    uint64_t    now;
    fixture_t  *f = *state;

    static const uint64_t  periods[] = {
        1000, 2000, 4000, 8000, 10000, 10000
    };

    publish(f, ENDPOINTS(1, 1, 1, HEALTH(2, 1000, 0)), ONE, "none");
    now = 10000;
    assert_int_equal(failed(f, 0, now), 0);

    for (i = 0; i < sizeof(periods) / sizeof(periods[0]); i++) {
        assert_int_equal(failed(f, 0, now), periods[i]);

        /* late failures of requests that were under way */
        assert_int_equal(failed(f, 0, now + 1), 0);
        assert_int_equal(failed(f, 0, now + periods[i] - 1), 0);

        /* on its return one failure is enough; a success changes nothing yet */
        now += periods[i] + 900;
        tg_balance_succeeded(upstream(f), endpoint_state(f, 0), now);
    }

    assert_int_equal(failed(f, 0, now), 10000);

    /* well for fail_timeout: the past is forgotten */
    now += 10000 + 1000;
    tg_balance_succeeded(upstream(f), endpoint_state(f, 0), now);
    assert_int_equal(failed(f, 0, now), 0);
    assert_int_equal(failed(f, 0, now + 1), 1000);

    /* without traffic, too */
    now += 1000 + 1000 + 1;
    assert_int_equal(failed(f, 0, now), 0);
    assert_int_equal(failed(f, 0, now), 1000);
}


static void
test_slow_return(void **state)
{
    unsigned    hits[3];
    fixture_t  *f = *state;

    publish(f, ENDPOINTS(1, 1, 0, HEALTH(1, 1000, 10000)), ONE, "none");

    /* one that was never down starts whole */
    memset(hits, 0, sizeof(hits));
    draw_many(f, hits, DRAWS, 5000);
    assert_binomial(hits[0], DRAWS, 0.5);

    assert_int_equal(failed(f, 0, 10000), 1000);

    memset(hits, 0, sizeof(hits));
    draw_many(f, hits, DRAWS, 11000);
    assert_binomial(hits[0], DRAWS, 0.1 / 1.1);

    memset(hits, 0, sizeof(hits));
    draw_many(f, hits, DRAWS, 16000);
    assert_binomial(hits[0], DRAWS, 0.55 / 1.55);

    memset(hits, 0, sizeof(hits));
    draw_many(f, hits, DRAWS, 21000);
    assert_binomial(hits[0], DRAWS, 0.5);
}


/* All down: taken all the same, each once. */
static void
test_panic(void **state)
{
    unsigned    seen;
    fixture_t  *f = *state;
    tg_tried_t  tried;

    publish(f, ENDPOINTS(1, 1, 0, HEALTH(1, 1000, 0)), ONE, "none");
    assert_int_equal(failed(f, 0, 10000), 1000);
    assert_int_equal(failed(f, 1, 10000), 1000);

    memset(&tried, 0, sizeof(tried));
    seen = 1u << draw(f, &tried, 10001);
    seen |= 1u << draw(f, &tried, 10001);
    assert_int_equal(seen, 3);
    assert_int_equal(draw(f, &tried, 10001), -1);

    /* the one that is up first, then the one that is down */
    memset(&tried, 0, sizeof(tried));
    publish(f, ENDPOINTS(1, 1, 1, HEALTH(1, 1000, 0)), ONE, "none");
    assert_int_equal(draw(f, &tried, 10001), 2);
    assert_in_range(draw(f, &tried, 10001), 0, 1);
}


/* Health is known by id: another version of the tenant changes nothing. */
static void
test_new_version(void **state)
{
    fixture_t  *f = *state;

    publish(f, ENDPOINTS(1, 1, 1, HEALTH(1, 1000, 0)), ONE, "none");
    assert_int_equal(failed(f, 1, 10000), 1000);
    publish(f, ENDPOINTS(5, 5, 5, HEALTH(1, 1000, 0)), ONE, "none");
    assert_true(tg_balance_is_down(endpoint_state(f, 1), 10001));
    assert_false(tg_balance_is_down(endpoint_state(f, 0), 10001));
}


static void
test_random(void **state)
{
    unsigned     hits[7] = { 0 };
    tg_random_t  random = { 1 };

    (void) state;

    for (unsigned i = 0; i < DRAWS; i++) {
        uint64_t  n = tg_random_below(&random, 7);

        assert_in_range(n, 0, 6);
        hits[n]++;
    }

    for (int k = 0; k < 7; k++) {
        assert_binomial(hits[k], DRAWS, 1 / 7.);
    }

    for (int i = 0; i < 100; i++) {
        assert_int_equal(tg_random_below(&random, 1), 0);
    }
}


int
main(void)
{
#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)

    const struct CMUnitTest  tests[] = {
        TEST(test_weights),
        TEST(test_sticky),
        TEST(test_endpoint_weights),
        TEST(test_outstanding),
        TEST(test_tried),
        TEST(test_nobody),
        TEST(test_many),
        TEST(test_ejection),
        TEST(test_no_ejection),
        TEST(test_growing_periods),
        TEST(test_slow_return),
        TEST(test_panic),
        TEST(test_new_version),
        TEST(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
