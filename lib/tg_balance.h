/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which upstream, and which of its endpoints.
 *
 * A route's backends share requests by weight: at random, or, when it is sticky,
 * by a hash of the consumer, so that a consumer stays while the weights stay and
 * a shift of weight moves only as many consumers as it must, however the backends
 * are ordered.
 *
 * An endpoint is drawn twice by weight, and of the two the one with fewer
 * requests in flight for its weight is taken (M. Mitzenmacher, "The power of two
 * choices in randomized load balancing"); with nothing in flight that is the
 * first draw, so idle traffic is split exactly by weight.  Endpoints that are
 * down, drained (weight 0), or have been tried by this request do not take part.
 *
 * Passive health, with max_fails > 0:
 *
 *  1. up: failures are counted over fail_timeout_ms from the first one; at
 *     max_fails the endpoint is ejected.
 *  2. down until down_until: fail_timeout_ms, twice that at the second ejection
 *     in a row, and so on, at most TG_EJECT_MAX times.
 *  3. returning: with slow_start_ms its weight grows from a tenth to the whole.
 *     Until it has been up for fail_timeout_ms one failure ejects it again; then
 *     the ejections before are forgotten.
 *
 * When all endpoints that could be taken are down, they are taken as if none
 * were: what passive health knows is old by then, and refusing would be certain
 * to fail.
 *
 * States are in shared memory and change by atomic operations only.  Two
 * processes that see the same failure at once may count or eject twice; nothing
 * worse can come of a race.
 */

#ifndef TG_BALANCE_H
#define TG_BALANCE_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_zone.h"

#define TG_EJECT_MAX        10      /* times fail_timeout_ms */
#define TG_SLOW_START_MIN   100     /* thousandths of the weight */

/* A process's generator (SplitMix64): fast, and good enough for drawing lots. */
typedef struct {
    uint64_t  state;
} tg_random_t;

uint64_t tg_random(tg_random_t *random);

/* A number below n (n > 0), evenly. */
uint64_t tg_random_below(tg_random_t *random, uint64_t n);

/* The endpoints that a request has tried. */
typedef struct {
    uint64_t  bits[(TG_MAX_ENDPOINTS + 63) / 64];
} tg_tried_t;

/* Index in route->backends.  consumer: for sticky routes; an anonymous one (len
 * 0) is drawn like any other. */
uint32_t tg_balance_backend(const tg_block_t *block, const tg_route_t *route,
    const char *consumer, size_t len, tg_random_t *random);

/*
 * Index in upstream->endpoints of one that has not been tried, or -1: there is
 * none.  now_ms: CLOCK_MONOTONIC.  Marks it in tried.
 */
int tg_balance_endpoint(const tg_zone_t *zone, const tg_block_t *block,
    const tg_upstream_t *upstream, tg_tried_t *tried, tg_random_t *random,
    uint64_t now_ms);

/* Endpoints of an upstream with a weight above 0. */
uint32_t tg_balance_endpoints(const tg_block_t *block,
    const tg_upstream_t *upstream);

/* An attempt at an endpoint has failed.  Returns the ms for which this ejected
 * it, or 0. */
uint64_t tg_balance_failed(const tg_upstream_t *upstream,
    tg_endpoint_state_t *state, uint64_t now_ms);

/* An attempt has succeeded. */
void tg_balance_succeeded(const tg_upstream_t *upstream,
    tg_endpoint_state_t *state, uint64_t now_ms);

/* Whether an endpoint is down at this time. */
int tg_balance_is_down(const tg_endpoint_state_t *state, uint64_t now_ms);

#endif /* TG_BALANCE_H */
