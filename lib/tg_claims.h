/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Whether the claims of a token hold (RFC 7519 section 4.1), and what they say
 * about their bearer.  For claims whose signature has been verified.
 */

#ifndef TG_CLAIMS_H
#define TG_CLAIMS_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_block.h"

#define TG_CLAIMS_MAX_CONSUMER  256             /* bytes */
#define TG_CLAIMS_MAX_SCOPES    4096            /* bytes, spaces included */
#define TG_CLAIMS_MAX_TIME      (1LL << 53)     /* what a double can count to */

typedef enum {
    TG_CLAIMS_OK = 0,
    TG_CLAIMS_MALFORMED,    /* "exp", "nbf", "iat" or "aud" of the wrong form */
    TG_CLAIMS_NO_EXPIRY,
    TG_CLAIMS_EXPIRED,
    TG_CLAIMS_EARLY,        /* "nbf" or "iat" is ahead of us */
    TG_CLAIMS_ISSUER,
    TG_CLAIMS_AUDIENCE,
    TG_CLAIMS_CONSUMER,     /* the issuer's consumer claim is not usable */
    TG_CLAIMS_SCOPE         /* "scope" or "scp" of the wrong form */
} tg_claims_status_e;

typedef struct {
    int64_t      not_before;    /* holds from this Unix second on, ... */
    int64_t      expires;       /* ... and no longer from this; with leeway */
    size_t       consumer_len;
    const char  *consumer;      /* in the claims */
    size_t       scopes_len;
    char         scopes[TG_CLAIMS_MAX_SCOPES];  /* space separated, no NUL */
} tg_claims_t;

/*
 * Checks claims by the rules of issuer (in block) at the Unix time now.  out is
 * filled on TG_CLAIMS_OK only.
 */
tg_claims_status_e tg_claims_check(const json_t *claims,
    const tg_block_t *block, const tg_issuer_t *issuer, int64_t now,
    tg_claims_t *out);

/* 1: "aud" names one of audiences (tg_ref_t in block), or audiences is empty. */
int tg_claims_audience(const json_t *claims, const tg_block_t *block,
    tg_vec_t audiences);

/*
 * 1: the claim has one of the values, or is an array that contains one.
 * Integers and booleans compare by their JSON text; null, fractions and objects
 * match nothing.
 */
int tg_claims_match(const json_t *claims, const tg_block_t *block,
    const tg_claim_match_t *match);

/* 1: each of needed (tg_ref_t in block) is a word of scopes, which may be NULL if
 * len is 0.  Otherwise the first that is missing is in *missing (may be NULL). */
int tg_claims_has_scopes(const char *scopes, size_t len,
    const tg_block_t *block, tg_vec_t needed, tg_ref_t *missing);

#endif /* TG_CLAIMS_H */
