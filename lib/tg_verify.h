/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One key, ready to check signatures of one algorithm (RFC 7518 section 3,
 * RFC 8037 section 3.1).  Everything that can be done once is done when it is
 * made: parsing the key costs OpenSSL 3.0 more than a verification.
 */

#ifndef TG_VERIFY_H
#define TG_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_crypto.h"

/* The longest: RSA of TG_JWK_MAX_RSA_BITS. */
#define TG_VERIFY_MAX_SIGNATURE  1024

typedef struct tg_verifier_s  tg_verifier_t;

/*
 * alg: one bit of TG_ALG_*.  material: DER SubjectPublicKeyInfo, or with hmac
 * the raw secret; copied where it is needed.  NULL: the material is not a key
 * for this algorithm (a public key is never taken as a secret, nor the other
 * way round), or no memory.
 */
tg_verifier_t *tg_verifier_create(tg_crypto_t *crypto, uint32_t alg,
    const uint8_t *material, size_t len, int hmac);

void tg_verifier_destroy(tg_verifier_t *verifier);

/* 1: signature is right for data; 0: it is not. */
int tg_verifier_check(tg_verifier_t *verifier, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len);

#endif /* TG_VERIFY_H */
