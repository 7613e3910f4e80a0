/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "tg_failures.h"
#include "tg_hash.h"


#define TG_FAILURES_WAYS  4     /* buckets in which one key can be */
#define TG_FAILURE        1000  /* one, in the unit of a level */

typedef struct {
    uint64_t  key;              /* 0: never used */
    uint64_t  updated;          /* ms */
    uint64_t  level;            /* at that time */
} tg_failures_bucket_t;

struct tg_failures_s {
    uint64_t               seed;
    uint64_t               rate;
    uint64_t               full;
    size_t                 mask;        /* of the sets */
    tg_failures_bucket_t   bucket[];
};


tg_failures_t *
tg_failures_create(size_t slots, uint32_t rate, uint32_t burst, uint64_t seed)
{
    size_t          sets;
    tg_failures_t  *f;

    for (sets = 1; sets * TG_FAILURES_WAYS < slots; sets *= 2) { /* void */ }

    f = calloc(1, sizeof(*f)
                  + sets * TG_FAILURES_WAYS * sizeof(tg_failures_bucket_t));
    if (f == NULL) {
        return NULL;
    }

    f->seed = seed;
    f->rate = rate;
    f->full = (uint64_t) burst * TG_FAILURE;
    f->mask = sets - 1;

    return f;
}


void
tg_failures_destroy(tg_failures_t *failures)
{
    free(failures);
}


uint64_t
tg_failures_key(const tg_failures_t *f, const uint8_t *address, size_t len,
    uint64_t tenant)
{
    uint8_t   bytes[sizeof(tenant) + 8];
    uint64_t  key;

    /* one IPv6 customer has a /64 at least */
    if (len > 8) {
        len = 8;
    }

    memcpy(bytes, &tenant, sizeof(tenant));
    memcpy(bytes + sizeof(tenant), address, len);

    key = tg_hash(bytes, sizeof(tenant) + len, f->seed);

    return key != 0 ? key : 1;
}


/* What is left in a bucket at the time now. */
static uint64_t
tg_failures_level(const tg_failures_t *f, const tg_failures_bucket_t *bucket,
    uint64_t now)
{
    uint64_t  gone, elapsed;

    elapsed = now > bucket->updated ? now - bucket->updated : 0;

    /* whatever is in it has leaked long before this overflows */
    if (elapsed > UINT32_MAX) {
        return 0;
    }

    gone = elapsed * f->rate / 1000;

    return bucket->level > gone ? bucket->level - gone : 0;
}


static const tg_failures_bucket_t *
tg_failures_find(const tg_failures_t *f, uint64_t key)
{
    size_t                       i;
    const tg_failures_bucket_t  *set;

    set = &f->bucket[(key & f->mask) * TG_FAILURES_WAYS];

    for (i = 0; i < TG_FAILURES_WAYS; i++) {
        if (set[i].key == key) {
            return &set[i];
        }
    }

    return NULL;
}


/* The key's bucket, or the emptiest of those that could be it. */
static tg_failures_bucket_t *
tg_failures_take(tg_failures_t *f, uint64_t key, uint64_t now)
{
    size_t                 i;
    tg_failures_bucket_t  *set, *least;

    set = &f->bucket[(key & f->mask) * TG_FAILURES_WAYS];
    least = set;

    for (i = 0; i < TG_FAILURES_WAYS; i++) {

        if (set[i].key == key) {
            return &set[i];
        }

        if (tg_failures_level(f, &set[i], now)
            < tg_failures_level(f, least, now))
        {
            least = &set[i];
        }
    }

    least->key = key;
    least->level = 0;

    return least;
}


void
tg_failures_add(tg_failures_t *f, uint64_t key, uint64_t now)
{
    tg_failures_bucket_t  *bucket;

    bucket = tg_failures_take(f, key, now);

    bucket->level = tg_failures_level(f, bucket, now) + TG_FAILURE;
    bucket->updated = now;

    if (bucket->level > f->full + TG_FAILURE) {
        bucket->level = f->full + TG_FAILURE;
    }
}


uint32_t
tg_failures_wait(const tg_failures_t *f, uint64_t key, uint64_t now)
{
    uint64_t                     level;
    const tg_failures_bucket_t  *bucket;

    bucket = tg_failures_find(f, key);
    if (bucket == NULL) {
        return 0;
    }

    level = tg_failures_level(f, bucket, now);

    /* room for one more failure */
    if (level + TG_FAILURE <= f->full) {
        return 0;
    }

    return (uint32_t) ((level + TG_FAILURE - f->full + f->rate - 1) / f->rate);
}
