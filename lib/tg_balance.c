/* SPDX-License-Identifier: BSD-2-Clause */

#include <math.h>

#include "tg_balance.h"
#include "tg_hash.h"

/*
 * tg_endpoint_state_t.fails: failures in the lower 16 bits, ejections in a row
 * above.  down_until is written after up_since, so who sees an endpoint up again
 * knows since when.
 */
#define TG_FAILS_MASK      0xffffu
#define TG_EJECTIONS_SHIFT 16


uint64_t
tg_random(tg_random_t *random)
{
    uint64_t  z;

    z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);

    return z ^ (z >> 31);
}


/* The upper half of a product (D. Lemire, "Fast random integer generation in an
 * interval"); what it is uneven by is n / 2^64. */
static uint64_t
tg_below(uint64_t hash, uint64_t n)
{
    return (uint64_t) ((unsigned __int128) hash * n >> 64);
}


uint64_t
tg_random_below(tg_random_t *random, uint64_t n)
{
    return tg_below(tg_random(random), n);
}


/*
 * Weighted rendezvous hashing: each backend draws an exponentially distributed
 * number of the rate of its weight, and the least one has the consumer.  So a
 * weight that grows takes consumers in and puts none out, and the order of the
 * backends does not matter.  Drawn from the ids of the route and the upstream:
 * who is in one canary need not be in all.
 */
static uint32_t
tg_balance_sticky(const tg_block_t *block, const tg_route_t *route,
    const char *consumer, size_t len)
{
    double                score, least;
    uint32_t              best;
    uint64_t              hash, seed;
    const tg_backend_t   *backend;
    const tg_upstream_t  *upstream;

    backend = tg_vec(block, route->backends, tg_backend_t);
    upstream = tg_vec(block, block->upstreams, tg_upstream_t);
    least = INFINITY;
    best = 0;

    for (uint32_t i = 0; i < route->backends.n; i++) {
        if (backend[i].weight == 0) {
            continue;
        }

        seed = tg_hash_id(upstream[backend[i].upstream].id, route->id);
        hash = tg_hash(consumer, len, seed);

        /* above 0, at most 1 */
        score = -log(((double) (hash >> 11) + 1) * 0x1p-53) / backend[i].weight;

        if (score < least) {
            least = score;
            best = i;
        }
    }

    return best;
}


uint32_t
tg_balance_backend(const tg_block_t *block, const tg_route_t *route,
    const char *consumer, size_t len, tg_random_t *random)
{
    uint32_t             i;
    uint64_t             point;
    const tg_backend_t  *backend;

    if (route->backends.n == 1) {
        return 0;
    }

    if (route->sticky && len > 0) {
        return tg_balance_sticky(block, route, consumer, len);
    }

    point = tg_random_below(random, route->weight);
    backend = tg_vec(block, route->backends, tg_backend_t);

    for (i = 0; i + 1 < route->backends.n && point >= backend[i].weight; i++) {
        point -= backend[i].weight;
    }

    return i;
}


uint32_t
tg_balance_endpoints(const tg_block_t *block, const tg_upstream_t *upstream)
{
    uint32_t              n;
    const tg_endpoint_t  *endpoint;

    endpoint = tg_vec(block, upstream->endpoints, tg_endpoint_t);
    n = 0;

    for (uint32_t i = 0; i < upstream->endpoints.n; i++) {
        n += endpoint[i].weight > 0;
    }

    return n;
}


int
tg_balance_is_down(const tg_endpoint_state_t *state, uint64_t now_ms)
{
    return __atomic_load_n(&state->down_until, __ATOMIC_ACQUIRE) > now_ms;
}


/* In thousandths. */
static uint64_t
tg_weight(const tg_upstream_t *upstream, const tg_endpoint_t *endpoint,
    const tg_endpoint_state_t *state, uint64_t now_ms)
{
    uint64_t  since, up, share;

    if (upstream->slow_start_ms == 0) {
        return (uint64_t) endpoint->weight * 1000;
    }

    since = __atomic_load_n(&state->up_since, __ATOMIC_RELAXED);

    if (since == 0 || now_ms >= since + upstream->slow_start_ms) {
        return (uint64_t) endpoint->weight * 1000;
    }

    up = now_ms > since ? now_ms - since : 0;
    share = TG_SLOW_START_MIN
            + (1000 - TG_SLOW_START_MIN) * up / upstream->slow_start_ms;

    return endpoint->weight * share;
}


typedef struct {
    const tg_zone_t      *zone;
    const tg_upstream_t  *upstream;
    const tg_endpoint_t  *endpoint;     /* of the upstream */
    const tg_tried_t     *tried;
    uint64_t              now_ms;
    int                   panic;        /* down or not */
} tg_choice_t;


static const tg_endpoint_state_t *
tg_choice_state(const tg_choice_t *choice, uint32_t i)
{
    return tg_zone_ptr(choice->zone, choice->endpoint[i].state);
}


/* 0: does not take part. */
static uint64_t
tg_choice_weight(const tg_choice_t *choice, uint32_t i)
{
    const tg_endpoint_state_t  *state;

    if (choice->endpoint[i].weight == 0
        || (choice->tried->bits[i / 64] & UINT64_C(1) << i % 64))
    {
        return 0;
    }

    state = tg_choice_state(choice, i);

    if (choice->panic) {
        return (uint64_t) choice->endpoint[i].weight * 1000;
    }

    if (choice->upstream->max_fails > 0
        && tg_balance_is_down(state, choice->now_ms))
    {
        return 0;
    }

    return tg_weight(choice->upstream, &choice->endpoint[i], state,
                     choice->now_ms);
}


/* The endpoint in which point (below the sum of weights) lies. */
static int
tg_choice_at(const uint64_t *weight, uint32_t n, uint64_t point)
{
    uint32_t  i;

    for (i = 0; i + 1 < n && point >= weight[i]; i++) {
        point -= weight[i];
    }

    return (int) i;
}


/* The one that has less in flight for its weight; of equals the first. */
static int
tg_choice_lighter(const tg_choice_t *choice, const uint64_t *weight, int first,
    int second)
{
    uint64_t  a, b;

    a = __atomic_load_n(&tg_choice_state(choice, (uint32_t) first)->outstanding,
                        __ATOMIC_RELAXED);
    b = __atomic_load_n(&tg_choice_state(choice, (uint32_t) second)->outstanding,
                        __ATOMIC_RELAXED);

    return (unsigned __int128) b * weight[first]
           < (unsigned __int128) a * weight[second] ? second : first;
}


static int
tg_choose(const tg_choice_t *choice, tg_random_t *random)
{
    int       first, second;
    uint32_t  i, n;
    uint64_t  sum, weight[TG_MAX_ENDPOINTS];

    n = choice->upstream->endpoints.n;
    sum = 0;

    for (i = 0; i < n; i++) {
        weight[i] = tg_choice_weight(choice, i);
        sum += weight[i];
    }

    if (sum == 0) {
        return -1;
    }

    first = tg_choice_at(weight, n, tg_random_below(random, sum));
    second = tg_choice_at(weight, n, tg_random_below(random, sum));

    return tg_choice_lighter(choice, weight, first, second);
}


int
tg_balance_endpoint(const tg_zone_t *zone, const tg_block_t *block,
    const tg_upstream_t *upstream, tg_tried_t *tried, tg_random_t *random,
    uint64_t now_ms)
{
    int          i;
    tg_choice_t  choice;

    choice.zone = zone;
    choice.upstream = upstream;
    choice.endpoint = tg_vec(block, upstream->endpoints, tg_endpoint_t);
    choice.tried = tried;
    choice.now_ms = now_ms;
    choice.panic = 0;

    i = tg_choose(&choice, random);

    if (i < 0) {
        choice.panic = 1;
        i = tg_choose(&choice, random);
    }

    if (i >= 0) {
        tried->bits[i / 64] |= UINT64_C(1) << i % 64;
    }

    return i;
}


/* The ejection after so many before it. */
static uint64_t
tg_eject(const tg_upstream_t *upstream, tg_endpoint_state_t *state,
    uint32_t ejections, uint64_t now_ms)
{
    uint64_t  times, period;

    times = ejections < 4 ? UINT64_C(1) << ejections : TG_EJECT_MAX;
    times = times > TG_EJECT_MAX ? TG_EJECT_MAX : times;
    period = times * upstream->fail_timeout_ms;

    if (ejections < TG_FAILS_MASK) {
        ejections++;
    }

    __atomic_store_n(&state->up_since, now_ms + period, __ATOMIC_RELAXED);
    __atomic_store_n(&state->fails, ejections << TG_EJECTIONS_SHIFT,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&state->down_until, now_ms + period, __ATOMIC_RELEASE);

    return period;
}


/* Whether it has been up for so long that its past does not count. */
static int
tg_is_sound(const tg_upstream_t *upstream, const tg_endpoint_state_t *state,
    uint64_t now_ms)
{
    uint64_t  since;

    since = __atomic_load_n(&state->up_since, __ATOMIC_RELAXED);

    return now_ms >= since + upstream->fail_timeout_ms;
}


uint64_t
tg_balance_failed(const tg_upstream_t *upstream, tg_endpoint_state_t *state,
    uint64_t now_ms)
{
    uint32_t  fails, ejections;

    /* One that is down has been judged: late failures of the same time. */
    if (upstream->max_fails == 0 || tg_balance_is_down(state, now_ms)) {
        return 0;
    }

    fails = __atomic_load_n(&state->fails, __ATOMIC_RELAXED);
    ejections = fails >> TG_EJECTIONS_SHIFT;

    if (ejections > 0 && !tg_is_sound(upstream, state, now_ms)) {
        return tg_eject(upstream, state, ejections, now_ms);
    }

    if ((fails & TG_FAILS_MASK) == 0 || ejections > 0
        || now_ms >= __atomic_load_n(&state->fail_window, __ATOMIC_RELAXED)
                     + upstream->fail_timeout_ms)
    {
        __atomic_store_n(&state->fail_window, now_ms, __ATOMIC_RELAXED);
        __atomic_store_n(&state->fails, 1, __ATOMIC_RELAXED);
        fails = 1;

    } else {
        fails = __atomic_add_fetch(&state->fails, 1, __ATOMIC_RELAXED)
                & TG_FAILS_MASK;
    }

    return fails >= upstream->max_fails ? tg_eject(upstream, state, 0, now_ms)
                                        : 0;
}


void
tg_balance_succeeded(const tg_upstream_t *upstream, tg_endpoint_state_t *state,
    uint64_t now_ms)
{
    uint32_t  fails;

    fails = __atomic_load_n(&state->fails, __ATOMIC_RELAXED);

    /* Only looks, as a rule: this is on the path of every request. */
    if (fails >> TG_EJECTIONS_SHIFT > 0
        && !tg_balance_is_down(state, now_ms)
        && tg_is_sound(upstream, state, now_ms))
    {
        (void) __atomic_compare_exchange_n(&state->fails, &fails,
                                           fails & TG_FAILS_MASK, 0,
                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
}
