/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Verifiers of the keys that were used last, so that a key is parsed once and
 * not at each token.
 *
 * An entry is found by what it was made from: the algorithm and the key's very
 * bytes, compared in full.  Which keys an issuer has is asked of its block each
 * time, so a revoked key is never found again and there is nothing here to
 * invalidate, and a key that several issuers share is parsed once.
 */

#ifndef TG_KEYRING_H
#define TG_KEYRING_H

#include "tg_verify.h"

typedef struct tg_keyring_s  tg_keyring_t;

/* At most max verifiers (1 or more), the least recently used goes first.  NULL:
 * no memory. */
tg_keyring_t *tg_keyring_create(tg_crypto_t *crypto, size_t max);

void tg_keyring_destroy(tg_keyring_t *ring);

/*
 * The verifier for a key as tg_verifier_create() takes it.  Stays the ring's,
 * and valid until the next call.  NULL: the material is not such a key, or no
 * memory.
 */
tg_verifier_t *tg_keyring_get(tg_keyring_t *ring, uint32_t alg,
    const uint8_t *material, size_t len, int hmac);

/* Verifiers held now, and made since the start. */
size_t tg_keyring_size(const tg_keyring_t *ring);
size_t tg_keyring_made(const tg_keyring_t *ring);

#endif /* TG_KEYRING_H */
