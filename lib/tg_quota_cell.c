/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Where a word is: in the quota, or in a consumer's bucket.
 *
 *  1. A bucket's key and word change together, by one 128-bit compare-and-swap.
 *     So a charge reaches the consumer that it was meant for, or fails.
 *  2. A bucket is claimed with a word that means "nothing used", and charged in
 *     a second step: in between it may be taken over, and the charge then fails
 *     and looks again.  The bucket of a killed claimer is free for others.
 *  3. The same consumer may be claimed in two places by two processes.  After
 *     its claim each looks again and takes the first in the order of probing.
 *  4. The name is for reports.  It is written after the claim, and can be torn
 *     by the next claimer: readers check it against the key.
 */

#include <string.h>

#include "tg_hash.h"
#include "tg_quota_internal.h"

#ifndef __x86_64__
#error "tg_quota needs a 128-bit compare-and-swap: write it for this processor"
#endif

_Static_assert(offsetof(tg_quota_bucket_t, word) == 8
               && _Alignof(tg_quota_bucket_t) == 16,
               "key and word must be one aligned 128-bit value");


static int
tg_bucket_swap(tg_quota_bucket_t *bucket, uint64_t key, uint64_t word,
    uint64_t new_key, uint64_t new_word)
{
    unsigned char  done;

    /* By hand, since compilers call a library that may take a lock. */
    __asm__ volatile ("lock cmpxchg16b %1\n\tsete %0"
                      : "=q" (done), "+m" (*(unsigned __int128 *) bucket),
                        "+a" (key), "+d" (word)
                      : "b" (new_key), "c" (new_word)
                      : "memory", "cc");
    return done;
}


tg_quota_state_t *
tg_quota_state(const tg_zone_t *zone, const tg_quota_t *quota)
{
    return tg_zone_ptr(zone, quota->state);
}


uint64_t
tg_quota_key(const tg_block_t *block, const char *consumer, size_t len)
{
    uint64_t  key;

    /* The tenant's id: collisions found for one tenant are none in another. */
    key = tg_hash(consumer, len, block->id);

    return key != 0 ? key : 1;
}


int
tg_cell_load(const tg_cell_t *cell, uint64_t *word)
{
    *word = __atomic_load_n(cell->word, __ATOMIC_ACQUIRE);

    /* The key after the word: an old key with a newer word would be worse than
     * the other way round, which the swap finds. */
    return cell->bucket == NULL
           || __atomic_load_n(&cell->bucket->key, __ATOMIC_ACQUIRE) == cell->key;
}


int
tg_cell_swap(const tg_cell_t *cell, uint64_t word, uint64_t after)
{
    if (cell->bucket != NULL) {
        return tg_bucket_swap(cell->bucket, cell->key, word, cell->key, after);
    }

    return __atomic_compare_exchange_n(cell->word, &word, after, 0,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}


static tg_quota_bucket_t *
tg_probe(tg_quota_state_t *state, uint64_t key, unsigned i)
{
    return &state->bucket[(key + i) % TG_QUOTA_KEYS];
}


static tg_quota_bucket_t *
tg_bucket_of(tg_quota_state_t *state, uint64_t key)
{
    tg_quota_bucket_t  *bucket;

    for (unsigned i = 0; i < TG_QUOTA_PROBES; i++) {
        bucket = tg_probe(state, key, i);

        if (__atomic_load_n(&bucket->key, __ATOMIC_ACQUIRE) == key) {
            return bucket;
        }
    }

    return NULL;
}


/* The first that may be taken, with what it holds. */
static tg_quota_bucket_t *
tg_bucket_free(tg_quota_state_t *state, const tg_meter_t *meter, uint64_t key,
    uint64_t *old_key, uint64_t *old_word)
{
    tg_quota_bucket_t  *bucket;

    for (unsigned i = 0; i < TG_QUOTA_PROBES; i++) {
        bucket = tg_probe(state, key, i);

        *old_word = __atomic_load_n(&bucket->word, __ATOMIC_ACQUIRE);
        *old_key = __atomic_load_n(&bucket->key, __ATOMIC_ACQUIRE);

        if (*old_key == 0 || tg_meter_is_idle(meter, *old_word)) {
            return bucket;
        }
    }

    return NULL;
}


static void
tg_bucket_name(tg_quota_bucket_t *bucket, const char *name, size_t len)
{
    char      text[sizeof(bucket->name)];
    uint64_t  part;

    memset(text, 0, sizeof(text));
    memcpy(text, name, len < sizeof(text) ? len : sizeof(text) - 1);

    for (size_t i = 0; i < sizeof(text); i += sizeof(part)) {
        memcpy(&part, text + i, sizeof(part));
        __atomic_store_n((uint64_t *) (bucket->name + i), part,
                         __ATOMIC_RELAXED);
    }
}


/* NULL: all are in use. */
static tg_quota_bucket_t *
tg_bucket_claim(tg_quota_state_t *state, const tg_meter_t *meter, uint64_t key,
    const char *name, size_t len)
{
    uint64_t            old_key, old_word, fresh;
    tg_quota_bucket_t  *bucket, *first;

    fresh = tg_meter_fresh(meter);

    for ( ;; ) {
        first = tg_bucket_of(state, key);

        if (first != NULL) {
            return first;
        }

        bucket = tg_bucket_free(state, meter, key, &old_key, &old_word);

        if (bucket == NULL) {
            return NULL;
        }

        if (!tg_bucket_swap(bucket, old_key, old_word, key, fresh)) {
            continue;
        }

        tg_bucket_name(bucket, name, len);
        first = tg_bucket_of(state, key);

        if (first != bucket) {
            (void) tg_bucket_swap(bucket, key, fresh, 0, 0);
        }

        if (first != NULL) {
            return first;
        }
    }
}


int
tg_cell_find(tg_quota_state_t *state, const tg_meter_t *meter, uint64_t key,
    const char *name, size_t len, tg_cell_t *cell)
{
    uint64_t            old_key, old_word;
    tg_quota_bucket_t  *bucket;

    cell->bucket = NULL;
    cell->key = key;
    cell->word = &state->word;

    if (key == 0) {
        return 1;
    }

    if (name != NULL) {
        bucket = tg_bucket_claim(state, meter, key, name, len);

    } else {
        bucket = tg_bucket_of(state, key);

        if (bucket == NULL
            && tg_bucket_free(state, meter, key, &old_key, &old_word) != NULL)
        {
            return 0;
        }
    }

    /* NULL: the word of those who found no bucket. */
    if (bucket != NULL) {
        cell->bucket = bucket;
        cell->word = &bucket->word;
    }

    return 1;
}
