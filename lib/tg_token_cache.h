/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tokens that were verified, by digest and tenant.
 *
 *  1. Only what was verified comes in; a refusal is never remembered.
 *  2. An entry says what its verdict rests on: the issuer and its revision, the
 *     times.  Whoever finds an entry compares that with the present
 *     (tg_bearer.c) and removes the entry when it no longer holds.
 *  3. Half of a token's life is one request: new entries wait in a probation
 *     list and are kept for longer only when they are found again.  So a tenant
 *     whose every request brings a new token pushes out nobody's but its like.
 *  4. Entries are counted: what a request holds outlives its removal.
 *
 * Used by one process and one thread.
 */

#ifndef TG_TOKEN_CACHE_H
#define TG_TOKEN_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_crypto.h"
#include "tg_line.h"
#include "tg_list.h"

typedef struct tg_token_s        tg_token_t;
typedef struct tg_token_cache_s  tg_token_cache_t;

struct tg_token_s {
    /* what tells an entry: one cache line */
    _Alignas(TG_CACHE_LINE)
    uint8_t      digest[TG_SHA256_LEN];     /* of the whole token */
    uint64_t     tenant;            /* id */
    tg_token_t  *next;              /* private */
    int64_t      not_before;        /* Unix seconds, leeway included */
    int64_t      expires;           /* first second at which it does not hold */

    /* what a request takes: another one */
    uint64_t     block_revision;    /* of the tenant, where the above was last seen */
    uint64_t     zone_version;      /* to hold */
    json_t      *claims;
    const char  *consumer;
    const char  *scopes;            /* space separated */
    uint32_t     consumer_len;
    uint32_t     scopes_len;
    uint64_t     hash;              /* of tg_token_cache_fetch() */
    unsigned     refs;              /* private, as are those below */
    unsigned     cached:1;
    unsigned     kept:1;
    unsigned     found:1;           /* since it was kept, or last passed over */

    uint64_t     issuer;            /* id */
    uint64_t     issuer_revision;
    int          platform;          /* 1: the issuer is a platform issuer */
    tg_list_t    used;              /* private */
    char         text[];
};

/*
 * A token with one reference, the caller's.  Takes a reference to claims;
 * copies consumer and scopes.  The other members are 0.  NULL: no memory.
 */
tg_token_t *tg_token_create(json_t *claims, const char *consumer,
    size_t consumer_len, const char *scopes, size_t scopes_len);

void tg_token_release(tg_token_t *token);

/* At most max entries; 0: remembers nothing.  NULL: no memory. */
tg_token_cache_t *tg_token_cache_create(size_t max);

/* Tokens that are still held stay valid. */
void tg_token_cache_destroy(tg_token_cache_t *cache);

/* Has the processor fetch where tg_token_cache_fetch() will look: a hint for when
 * the token and the tenant are known, but not yet whether the token is asked for. */
void tg_token_cache_expect(const tg_token_cache_t *cache, const char *token,
    size_t len, uint64_t tenant);

/* Has the processor fetch what tg_token_cache_find() will look at, while the digest
 * is made.  Returns a hash of the token's end, which says where its entry would be,
 * and nothing else; nobody outside can aim at one. */
uint64_t tg_token_cache_fetch(const tg_token_cache_t *cache, const char *token,
    size_t len, uint64_t tenant);

/* The entry, with a reference for the caller, or NULL. */
tg_token_t *tg_token_cache_find(tg_token_cache_t *cache, uint64_t hash,
    const uint8_t digest[TG_SHA256_LEN], uint64_t tenant);

/* Remembers token, which must not be there yet. */
void tg_token_cache_add(tg_token_cache_t *cache, tg_token_t *token);

/* Forgets token if it is remembered. */
void tg_token_cache_remove(tg_token_cache_t *cache, tg_token_t *token);

size_t tg_token_cache_size(const tg_token_cache_t *cache);

#endif /* TG_TOKEN_CACHE_H */
