/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * RateLimit-Policy and RateLimit, draft-ietf-httpapi-ratelimit-headers-11: lists
 * of strings with parameters (RFC 9651).
 */

#ifndef TG_RATELIMIT_H
#define TG_RATELIMIT_H

#include <stddef.h>

#include "tg_quota.h"

/* Room that every value fits in: per policy the name (63, each byte perhaps
 * escaped), numbers, and the partition key in base64. */
#define TG_RATELIMIT_KEY    96      /* longer consumers are not told as "pk" */
#define TG_RATELIMIT_FIXED  64
#define TG_RATELIMIT_ITEM   (2 * TG_MAX_NAME + TG_RATELIMIT_FIXED                \
                             + TG_RATELIMIT_KEY * 4 / 3 + 12)
#define TG_RATELIMIT_SIZE   (TG_MAX_REQUEST_QUOTAS * TG_RATELIMIT_ITEM)

/* Bytes in which both values of a set have room, whatever is left. */
size_t tg_ratelimit_size(const tg_quota_set_t *set);

/*
 * The policies that a request is held to, without those in dry run and of body
 * size: "name";q=100;w=60, and qu="concurrent-requests" instead of w for those
 * of concurrency.  Quotas per consumer have its name as pk.
 *
 * Writes at most size bytes (TG_RATELIMIT_SIZE is enough); policies that do not
 * fit are left out.  Returns the length; 0: there are none.  No NUL.
 */
size_t tg_ratelimit_policy(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_now_t *now);

/* The limit that counts: "name";r=50;t=30 of result->quota.  0: there is none. */
size_t tg_ratelimit_limit(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_result_t *result);

#endif /* TG_RATELIMIT_H */
