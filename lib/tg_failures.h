/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Who failed to authenticate too often: one leaky bucket for each client address
 * and tenant, in a table of fixed size.
 *
 * The tenant is part of the key, so that one tenant's broken client does not lock
 * others out that share its address (a proxy, a translated network).  When the
 * table is crowded the buckets that are nearly empty give way, so an attacker
 * with many addresses can at most make the table forget small offenders.
 */

#ifndef TG_FAILURES_H
#define TG_FAILURES_H

#include <stddef.h>
#include <stdint.h>

typedef struct tg_failures_s  tg_failures_t;

/*
 * slots: buckets, rounded up to a power of two.  rate: thousandths of a failure
 * that a bucket forgets in a second (1 or more).  burst: failures that fill it (1
 * or more).  seed: random.  NULL: no memory.
 */
tg_failures_t *tg_failures_create(size_t slots, uint32_t rate, uint32_t burst,
    uint64_t seed);

void tg_failures_destroy(tg_failures_t *failures);

/* The key of an address (4 bytes of IPv4, or 16 of IPv6, of which the /64 counts;
 * 0: none) and a tenant. */
uint64_t tg_failures_key(const tg_failures_t *failures, const uint8_t *address,
    size_t len, uint64_t tenant);

/* Counts one failure.  now: milliseconds of a monotonic clock. */
void tg_failures_add(tg_failures_t *failures, uint64_t key, uint64_t now);

/* 0: may try; otherwise the seconds to wait, rounded up. */
uint32_t tg_failures_wait(const tg_failures_t *failures, uint64_t key,
    uint64_t now);

#endif /* TG_FAILURES_H */
