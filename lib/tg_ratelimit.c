/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Written on the path of every request, so straight to where it stays: an item is
 * put together in a buffer of its own only when there may be no room for it.
 */

#include <string.h>

#include <openssl/evp.h>

#include "tg_ratelimit.h"


#define tg_item_literal(p, s)  tg_item_bytes(p, s, sizeof(s) - 1)


static inline char *
tg_item_bytes(char *p, const char *s, size_t len)
{
    memcpy(p, s, len);

    return p + len;
}


static char *
tg_item_number(char *p, uint64_t n)
{
    char    digits[20];
    size_t  i;

    i = sizeof(digits);

    do {
        digits[--i] = (char) ('0' + n % 10);
        n /= 10;
    } while (n > 0);

    while (i < sizeof(digits)) {
        *p++ = digits[i++];
    }

    return p;
}


/* RFC 9651, section 3.3.3.  Names are visible ASCII. */
static char *
tg_item_name(char *p, const tg_quota_set_t *set, const tg_quota_t *quota)
{
    char         c;
    const char  *s, *end;

    s = tg_str(set->block, quota->name);
    end = s + (quota->name.len < TG_MAX_NAME ? quota->name.len : TG_MAX_NAME);

    *p++ = '"';

    while (s < end) {
        c = *s++;

        if (c == '"' || c == '\\') {
            *p++ = '\\';
        }

        *p++ = c;
    }

    *p++ = '"';

    return p;
}


/* A byte sequence, RFC 9651, section 3.3.5. */
static char *
tg_item_key(char *p, const tg_quota_set_t *set, const tg_quota_t *quota)
{
    int            n;
    unsigned char  base64[TG_RATELIMIT_KEY * 4 / 3 + 5];

    if (quota->scope != TG_SCOPE_CONSUMER || set->consumer_len == 0
        || set->consumer_len > TG_RATELIMIT_KEY)
    {
        return p;
    }

    n = EVP_EncodeBlock(base64, (const unsigned char *) set->consumer,
                        (int) set->consumer_len);

    p = tg_item_literal(p, ";pk=:");
    p = tg_item_bytes(p, (char *) base64, (size_t) n);

    return tg_item_literal(p, ":");
}


/* Bytes that an item of this quota takes at most, a separator included. */
static size_t
tg_item_size(const tg_quota_set_t *set, const tg_quota_t *quota)
{
    return TG_RATELIMIT_FIXED + 2 * (size_t) quota->name.len
           + (quota->scope == TG_SCOPE_CONSUMER
              && set->consumer_len <= TG_RATELIMIT_KEY
              ? set->consumer_len * 4 / 3 + 12 : 0);
}


size_t
tg_ratelimit_size(const tg_quota_set_t *set)
{
    size_t  size, largest, n;

    size = 0;
    largest = 0;

    for (uint32_t i = 0; i < set->n; i++) {
        n = tg_item_size(set, set->quota[i]);
        size += n;
        largest = n > largest ? n : largest;
    }

    return size + largest;
}


/* At most tg_item_size() bytes to p; the end of them. */
static char *
tg_item_policy(char *p, const tg_quota_set_t *set, const tg_quota_t *quota,
    const tg_quota_now_t *now)
{
    p = tg_item_name(p, set, quota);
    p = tg_item_literal(p, ";q=");
    p = tg_item_number(p, tg_quota_limit(set->block, quota, now));

    if (quota->metric == TG_METRIC_CONCURRENCY) {
        p = tg_item_literal(p, ";qu=\"concurrent-requests\"");

    } else {
        p = tg_item_literal(p, ";w=");
        p = tg_item_number(p, tg_quota_window(quota, now));
    }

    return tg_item_key(p, set, quota);
}


/* The same. */
static char *
tg_item_limit(char *p, const tg_quota_set_t *set,
    const tg_quota_result_t *result)
{
    const tg_quota_t  *quota = result->quota;

    p = tg_item_name(p, set, quota);
    p = tg_item_literal(p, ";r=");
    p = tg_item_number(p, result->remaining);

    if (quota->metric == TG_METRIC_REQUESTS) {
        p = tg_item_literal(p, ";t=");
        p = tg_item_number(p, result->reset_s);
    }

    return tg_item_key(p, set, quota);
}


/* Copies an item if it fits. */
static char *
tg_item_fit(char *p, const char *last, const char *item, size_t len)
{
    return len <= (size_t) (last - p) ? tg_item_bytes(p, item, len) : p;
}


size_t
tg_ratelimit_policy(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_now_t *now)
{
    char   item[2 + TG_RATELIMIT_ITEM], *p, *last, *end;

    p = out;
    last = out + size;

    for (uint32_t i = 0; i < set->n; i++) {
        if (set->quota[i]->dry_run) {
            continue;
        }

        if ((size_t) (last - p) >= tg_item_size(set, set->quota[i])) {
            p = p > out ? tg_item_literal(p, ", ") : p;
            p = tg_item_policy(p, set, set->quota[i], now);
            continue;
        }

        end = p > out ? tg_item_literal(item, ", ") : item;
        end = tg_item_policy(end, set, set->quota[i], now);
        p = tg_item_fit(p, last, item, (size_t) (end - item));
    }

    return (size_t) (p - out);
}


size_t
tg_ratelimit_limit(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_result_t *result)
{
    char  item[TG_RATELIMIT_ITEM], *p;

    if (result->quota == NULL) {
        return 0;
    }

    if (size >= tg_item_size(set, result->quota)) {
        return (size_t) (tg_item_limit(out, set, result) - out);
    }

    p = tg_item_limit(item, set, result);
    p = tg_item_fit(out, out + size, item, (size_t) (p - item));

    return (size_t) (p - out);
}
