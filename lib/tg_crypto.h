/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What is fetched from OpenSSL once per process.  Fetching an algorithm by name
 * at each use costs more than hashing a token.
 */

#ifndef TG_CRYPTO_H
#define TG_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#define TG_SHA256_LEN  32

typedef struct tg_crypto_s  tg_crypto_t;

/* NULL: OpenSSL lacks an algorithm, or no memory. */
tg_crypto_t *tg_crypto_create(void);

/* Nothing made from it may outlive it. */
void tg_crypto_destroy(tg_crypto_t *crypto);

/* SHA-2 with 256, 384 or 512 bits; NULL for others. */
const EVP_MD *tg_crypto_md(const tg_crypto_t *crypto, unsigned bits);

EVP_MAC *tg_crypto_hmac(const tg_crypto_t *crypto);

/* One-shot digests.  Return 0, or -1: OpenSSL failed. */
int tg_crypto_digest(tg_crypto_t *crypto, const EVP_MD *md, const void *data,
    size_t len, uint8_t *digest);
int tg_crypto_sha256(tg_crypto_t *crypto, const void *data, size_t len,
    uint8_t digest[TG_SHA256_LEN]);

#endif /* TG_CRYPTO_H */
