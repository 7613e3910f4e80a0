/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include <openssl/evp.h>

#include "tg_ratelimit.h"

/* Collects one item; whole, or none of it. */
typedef struct {
    char    text[TG_RATELIMIT_ITEM];
    size_t  len;
} tg_item_t;


static void
tg_item_bytes(tg_item_t *item, const char *s, size_t len)
{
    if (len <= sizeof(item->text) - item->len) {
        memcpy(item->text + item->len, s, len);
        item->len += len;
    }
}


#define tg_item_literal(item, s)  tg_item_bytes(item, s, sizeof(s) - 1)


static void
tg_item_number(tg_item_t *item, uint64_t n)
{
    char    digits[20];
    size_t  i;

    i = sizeof(digits);

    do {
        digits[--i] = (char) ('0' + n % 10);
        n /= 10;
    } while (n > 0);

    tg_item_bytes(item, digits + i, sizeof(digits) - i);
}


/* RFC 9651, section 3.3.3.  Names are visible ASCII. */
static void
tg_item_string(tg_item_t *item, const char *s, size_t len)
{
    char  *p;

    if (2 * len + 2 > sizeof(item->text) - item->len) {
        return;
    }

    p = item->text + item->len;
    *p++ = '"';

    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\') {
            *p++ = '\\';
        }

        *p++ = s[i];
    }

    *p++ = '"';
    item->len = (size_t) (p - item->text);
}


/* A byte sequence, RFC 9651, section 3.3.5. */
static void
tg_item_key(tg_item_t *item, const tg_quota_set_t *set, const tg_quota_t *quota)
{
    int            n;
    unsigned char  base64[TG_RATELIMIT_KEY * 4 / 3 + 5];

    if (quota->scope != TG_SCOPE_CONSUMER || set->consumer_len == 0
        || set->consumer_len > TG_RATELIMIT_KEY)
    {
        return;
    }

    n = EVP_EncodeBlock(base64, (const unsigned char *) set->consumer,
                        (int) set->consumer_len);

    tg_item_literal(item, ";pk=:");
    tg_item_bytes(item, (char *) base64, (size_t) n);
    tg_item_literal(item, ":");
}


static void
tg_item_policy(tg_item_t *item, const tg_quota_set_t *set,
    const tg_quota_t *quota, const tg_quota_now_t *now)
{
    item->len = 0;
    tg_item_string(item, tg_str(set->block, quota->name), quota->name.len);
    tg_item_literal(item, ";q=");
    tg_item_number(item, tg_quota_limit(set->block, quota, now));

    if (quota->metric == TG_METRIC_CONCURRENCY) {
        tg_item_literal(item, ";qu=\"concurrent-requests\"");

    } else {
        tg_item_literal(item, ";w=");
        tg_item_number(item, tg_quota_window(quota, now));
    }

    tg_item_key(item, set, quota);
}


size_t
tg_ratelimit_policy(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_now_t *now)
{
    size_t     n, comma;
    tg_item_t  item;

    n = 0;

    for (uint32_t i = 0; i < set->n; i++) {
        if (set->quota[i]->dry_run) {
            continue;
        }

        tg_item_policy(&item, set, set->quota[i], now);
        comma = n > 0 ? 2 : 0;

        if (item.len + comma > size - n) {
            continue;
        }

        memcpy(out + n, ", ", comma);
        memcpy(out + n + comma, item.text, item.len);
        n += comma + item.len;
    }

    return n;
}


size_t
tg_ratelimit_limit(char *out, size_t size, const tg_quota_set_t *set,
    const tg_quota_result_t *result)
{
    tg_item_t          item;
    const tg_quota_t  *quota;

    quota = result->quota;

    if (quota == NULL) {
        return 0;
    }

    item.len = 0;
    tg_item_string(&item, tg_str(set->block, quota->name), quota->name.len);
    tg_item_literal(&item, ";r=");
    tg_item_number(&item, result->remaining);

    if (quota->metric == TG_METRIC_REQUESTS) {
        tg_item_literal(&item, ";t=");
        tg_item_number(&item, result->reset_s);
    }

    tg_item_key(&item, set, quota);

    if (item.len > size) {
        return 0;
    }

    memcpy(out, item.text, item.len);

    return item.len;
}
