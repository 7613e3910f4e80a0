/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037) → what a verifier
 * needs.  The key decides the algorithm: each key leaves here with the mask of
 * algorithms that its type, curve, length, "alg" and its issuer allow, and an
 * HMAC secret and a public key can never share one.
 */

#ifndef TG_JWK_H
#define TG_JWK_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_block.h"
#include "tg_error.h"

#define TG_JWK_MAX_KID         256      /* bytes */
#define TG_JWK_MIN_RSA_BITS    2048
#define TG_JWK_MAX_RSA_BITS    8192
#define TG_JWK_MAX_SECRET      1024     /* bytes of an HMAC secret */

#define TG_ALG_ANY_RSA   (TG_ALG_RS256 | TG_ALG_RS384 | TG_ALG_RS512           \
                          | TG_ALG_PS256 | TG_ALG_PS384 | TG_ALG_PS512)
#define TG_ALG_ANY_EC    (TG_ALG_ES256 | TG_ALG_ES384 | TG_ALG_ES512)
#define TG_ALG_ANY_HMAC  (TG_ALG_HS256 | TG_ALG_HS384 | TG_ALG_HS512)
#define TG_ALG_ANY       (TG_ALG_ANY_RSA | TG_ALG_ANY_EC | TG_ALG_ANY_HMAC     \
                          | TG_ALG_EDDSA)

typedef enum {
    TG_JWK_OK = 0,
    TG_JWK_IGNORED = 1,     /* a sound key, but not one for us; err says why */
    TG_JWK_INVALID = -1
} tg_jwk_status_e;

typedef struct {
    char      *kid;         /* NULL: the key has none; NUL follows */
    size_t     kid_len;
    uint8_t   *material;    /* DER SubjectPublicKeyInfo, or the raw secret */
    size_t     material_len;
    uint32_t   algorithms;  /* TG_ALG_*, never 0 */
    int        hmac;        /* 1: material is a secret */
} tg_jwk_t;

/* The one bit of an algorithm's name as in RFC 7518 ("RS256"; case matters), or
 * 0: not one that we verify ("none" is among those). */
uint32_t tg_alg_parse(const char *name, size_t len);

/* The name of one bit; NULL: not exactly one known bit. */
const char *tg_alg_name(uint32_t alg);

/*
 * One JWK.  issuer_algorithms: mask of what its issuer allows.  secret_key:
 * opens "k_sealed" of HMAC keys; NULL: such keys are TG_JWK_INVALID.
 *
 * TG_JWK_OK: out is filled and must be cleared with tg_jwk_clear().  Otherwise
 * out is empty, err (may be NULL) says why, its pointer relative to the JWK.
 *
 * TG_JWK_IGNORED is for what RFC 7517 section 5 tells us to skip in a set:
 * unknown "kty", curve or "alg", "use" other than "sig", "key_ops" without
 * "verify", an algorithm that the issuer does not allow.  Wrong values and
 * private members are TG_JWK_INVALID.
 */
tg_jwk_status_e tg_jwk_parse(const json_t *jwk, uint32_t issuer_algorithms,
    const uint8_t secret_key[32], tg_jwk_t *out, tg_error_t *err);

/* Frees what out holds, secrets wiped, and leaves it empty. */
void tg_jwk_clear(tg_jwk_t *jwk);

/*
 * The "keys" array of a set into out[max]; *n is how many.  Ignored keys are
 * left out.  Two keys may share a kid only if they share no algorithm: then kid
 * and alg still name one key.  Of keys without kid there may be several.
 *
 * Returns TG_JWK_OK or TG_JWK_INVALID (nothing left to clear; err's pointer is
 * relative to the array).  No usable key is TG_JWK_OK with *n 0.
 */
tg_jwk_status_e tg_jwk_set_parse(const json_t *keys, uint32_t issuer_algorithms,
    const uint8_t secret_key[32], tg_jwk_t *out, size_t max, size_t *n,
    tg_error_t *err);

#endif /* TG_JWK_H */
