/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tg_hash.h"
#include "tg_token_cache.h"


/* Characters of a token's end, which are its signature's, that make the hash. */
#define TG_TOKEN_CACHE_TAIL  16

/* Share of the entries that found tokens may take; the rest is probation. */
#define TG_TOKEN_CACHE_KEPT(max)  ((max) - ((max) + 4) / 5)

struct tg_token_cache_s {
    tg_list_t    probation;     /* never found yet; first is newest */
    tg_list_t    kept;          /* found */
    size_t       size;          /* in both */
    size_t       n_kept;
    size_t       max;
    size_t       mask;
    uint64_t     seed;
    tg_token_t  *bucket[];
};


tg_token_t *
tg_token_create(json_t *claims, const char *consumer, size_t consumer_len,
    const char *scopes, size_t scopes_len)
{
    size_t       size;
    tg_token_t  *token;

    size = sizeof(*token) + consumer_len + scopes_len;
    size += -size % TG_CACHE_LINE;

    token = aligned_alloc(TG_CACHE_LINE, size);
    if (token == NULL) {
        return NULL;
    }

    memset(token, 0, size);
    token->refs = 1;
    token->claims = json_incref(claims);

    token->consumer = token->text;
    token->consumer_len = (uint32_t) consumer_len;
    memcpy(token->text, consumer, consumer_len);

    token->scopes = token->text + consumer_len;
    token->scopes_len = (uint32_t) scopes_len;
    memcpy(token->text + consumer_len, scopes, scopes_len);

    return token;
}


void
tg_token_release(tg_token_t *token)
{
    if (--token->refs == 0) {
        json_decref(token->claims);
        free(token);
    }
}


tg_token_cache_t *
tg_token_cache_create(size_t max)
{
    size_t             buckets;
    tg_token_cache_t  *cache;

    for (buckets = 16; buckets < max; buckets *= 2) { /* void */ }

    cache = calloc(1, sizeof(*cache) + buckets * sizeof(cache->bucket[0]));
    if (cache == NULL) {
        return NULL;
    }

    if (getrandom(&cache->seed, sizeof(cache->seed), 0) != sizeof(cache->seed)) {
        free(cache);
        return NULL;
    }

    tg_list_init(&cache->probation);
    tg_list_init(&cache->kept);
    cache->max = max;
    cache->mask = buckets - 1;

    return cache;
}


static tg_token_t *
tg_token_of(tg_list_t *link)
{
    return tg_list_data(link, tg_token_t, used);
}


void
tg_token_cache_destroy(tg_token_cache_t *cache)
{
    if (cache == NULL) {
        return;
    }

    while (!tg_list_empty(&cache->probation)) {
        tg_token_cache_remove(cache, tg_token_of(cache->probation.next));
    }

    while (!tg_list_empty(&cache->kept)) {
        tg_token_cache_remove(cache, tg_token_of(cache->kept.next));
    }

    free(cache);
}


static uint64_t
tg_token_cache_hash(const tg_token_cache_t *cache, const char *token, size_t len,
    uint64_t tenant)
{
    size_t  tail;

    tail = len < TG_TOKEN_CACHE_TAIL ? len : TG_TOKEN_CACHE_TAIL;

    return tg_hash(token + len - tail, tail, cache->seed ^ tenant);
}


void
tg_token_cache_expect(const tg_token_cache_t *cache, const char *token, size_t len,
    uint64_t tenant)
{
    uint64_t  hash;

    hash = tg_token_cache_hash(cache, token, len, tenant);
    __builtin_prefetch(&cache->bucket[hash & cache->mask]);
}


uint64_t
tg_token_cache_fetch(const tg_token_cache_t *cache, const char *token, size_t len,
    uint64_t tenant)
{
    uint64_t           hash;
    const tg_token_t  *first;

    hash = tg_token_cache_hash(cache, token, len, tenant);
    first = cache->bucket[hash & cache->mask];

    if (first != NULL) {
        __builtin_prefetch(first->digest);
        __builtin_prefetch(&first->block_revision, 1);
        __builtin_prefetch(first->text);
    }

    return hash;
}


/* The kept entry that gives way: going from the oldest on, the first that was not
 * found since it was put or passed over.  Moving an entry whenever it is found
 * would touch its neighbours, too, which are seldom in the processor's cache. */
static tg_token_t *
tg_token_cache_oldest(tg_token_cache_t *cache)
{
    tg_token_t  *token;

    for ( ;; ) {
        token = tg_token_of(cache->kept.prev);

        if (!token->found) {
            return token;
        }

        token->found = 0;
        tg_list_remove(&token->used);
        tg_list_insert_first(&cache->kept, &token->used);
    }
}


static void
tg_token_cache_keep(tg_token_cache_t *cache, tg_token_t *token)
{
    tg_token_t  *oldest;

    if (token->kept) {
        token->found = 1;
        return;
    }

    tg_list_remove(&token->used);
    tg_list_insert_first(&cache->kept, &token->used);
    token->kept = 1;
    token->found = 0;
    cache->n_kept++;

    if (cache->n_kept > TG_TOKEN_CACHE_KEPT(cache->max)) {
        oldest = tg_token_cache_oldest(cache);

        tg_list_remove(&oldest->used);
        tg_list_insert_first(&cache->probation, &oldest->used);
        oldest->kept = 0;
        cache->n_kept--;
    }
}


tg_token_t *
tg_token_cache_find(tg_token_cache_t *cache, uint64_t hash,
    const uint8_t digest[TG_SHA256_LEN], uint64_t tenant)
{
    tg_token_t  *token;

    token = cache->bucket[hash & cache->mask];

    while (token != NULL
           && (token->tenant != tenant
               || memcmp(token->digest, digest, TG_SHA256_LEN) != 0))
    {
        token = token->next;
    }

    if (token != NULL) {
        tg_token_cache_keep(cache, token);
        token->refs++;
    }

    return token;
}


void
tg_token_cache_add(tg_token_cache_t *cache, tg_token_t *token)
{
    tg_list_t   *list;
    tg_token_t  **bucket;

    if (cache->max == 0) {
        return;
    }

    if (cache->size == cache->max) {
        list = tg_list_empty(&cache->probation) ? &cache->kept
                                                : &cache->probation;
        tg_token_cache_remove(cache, tg_token_of(list->prev));
    }

    bucket = &cache->bucket[token->hash & cache->mask];
    token->next = *bucket;
    *bucket = token;

    tg_list_insert_first(&cache->probation, &token->used);
    token->cached = 1;
    token->kept = 0;
    token->refs++;
    cache->size++;
}


void
tg_token_cache_remove(tg_token_cache_t *cache, tg_token_t *token)
{
    tg_token_t  **p;

    if (!token->cached) {
        return;
    }

    p = &cache->bucket[token->hash & cache->mask];

    while (*p != token) {
        p = &(*p)->next;
    }

    *p = token->next;
    tg_list_remove(&token->used);

    cache->size--;
    cache->n_kept -= token->kept;
    token->cached = 0;

    tg_token_release(token);
}


size_t
tg_token_cache_size(const tg_token_cache_t *cache)
{
    return cache->size;
}
