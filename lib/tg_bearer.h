/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A bearer token from bytes to verdict, by the issuers of one tenant.
 *
 * The order is that of RFC 8725: the token is taken apart; its unverified "iss"
 * picks the issuer, "kid" the keys, and both only among those of this tenant;
 * the key says which algorithms it serves; the signature is verified; only then
 * do the claims count.
 */

#ifndef TG_BEARER_H
#define TG_BEARER_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_jwt.h"
#include "tg_keyring.h"
#include "tg_token_cache.h"

/* Verifications that one token may cost. */
#define TG_BEARER_MAX_TRIES  4

/* In the order in which it is found out. */
typedef enum {
    TG_BEARER_OK = 0,
    TG_BEARER_TOO_LONG,
    TG_BEARER_MALFORMED,
    TG_BEARER_HEADER,
    TG_BEARER_CRITICAL,
    TG_BEARER_UNKNOWN_ISSUER,
    TG_BEARER_UNKNOWN_KEY,
    TG_BEARER_ALGORITHM,        /* never, not by this issuer, or not this key */
    TG_BEARER_SIGNATURE,
    TG_BEARER_CLAIM,            /* a registered claim has a wrong form */
    TG_BEARER_NO_EXPIRY,
    TG_BEARER_EXPIRED,
    TG_BEARER_EARLY,
    TG_BEARER_AUDIENCE,
    TG_BEARER_CONSUMER,
    TG_BEARER_SCOPE,
    TG_BEARER_ERROR,            /* ours: no memory, OpenSSL failed */
    TG_BEARER_STATUSES
} tg_bearer_status_e;

/* A platform issuer's block by id, or NULL.  It must stay readable until the
 * function that it was given to returns. */
typedef const tg_block_t *(*tg_bearer_issuer_pt)(void *data, uint64_t id);

/* What a process verifies with. */
typedef struct {
    tg_crypto_t          *crypto;
    tg_keyring_t         *keyring;
    tg_jwt_memo_t        *memo;
    tg_token_cache_t     *cache;
    tg_bearer_issuer_pt   find_issuer;
    void                 *data;
} tg_bearer_t;

/* One token for one tenant. */
typedef struct {
    const tg_block_t     *block;
    uint64_t              version;      /* tg_zone_version() read before */
    int64_t               now;          /* Unix seconds */
    const char           *token;
    size_t                len;

    /* by tg_bearer_find() */
    int                   digested;     /* 0: the digest failed, don't cache */
    uint8_t               digest[TG_SHA256_LEN];
    uint64_t              hash;         /* of tg_token_cache_fetch() */
} tg_bearer_request_t;

/*
 * The token if it was verified before and everything that the verdict rests on
 * is as it was; else NULL.  Release with tg_token_release().
 */
tg_token_t *tg_bearer_find(tg_bearer_t *bearer, tg_bearer_request_t *request);

/*
 * Verifies a token that tg_bearer_find() did not find.  TG_BEARER_OK: *token is
 * the caller's to release, and remembered.
 */
tg_bearer_status_e tg_bearer_verify(tg_bearer_t *bearer,
    const tg_bearer_request_t *request, tg_token_t **token);

/*
 * What is wrong, as "the token has expired": for the tenant's developer, and
 * nothing that a stranger could not know.
 */
const char *tg_bearer_text(tg_bearer_status_e status);

#endif /* TG_BEARER_H */
