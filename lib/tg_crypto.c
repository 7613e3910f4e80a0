/* SPDX-License-Identifier: BSD-2-Clause */

/* SHA-256 by itself: see tg_crypto_sha256(). */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <stdlib.h>

#include <openssl/sha.h>

#include "tg_crypto.h"


struct tg_crypto_s {
    EVP_MD      *sha256;
    EVP_MD      *sha384;
    EVP_MD      *sha512;
    EVP_MAC     *hmac;
    EVP_MD_CTX  *ctx;       /* kept, so that a digest allocates nothing */
    int          fips;      /* only what its module does itself is allowed */
};


tg_crypto_t *
tg_crypto_create(void)
{
    tg_crypto_t  *crypto;

    crypto = calloc(1, sizeof(*crypto));
    if (crypto == NULL) {
        return NULL;
    }

    crypto->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    crypto->sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
    crypto->sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
    crypto->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    crypto->ctx = EVP_MD_CTX_new();
    crypto->fips = EVP_default_properties_is_fips_enabled(NULL);

    if (crypto->sha256 == NULL || crypto->sha384 == NULL
        || crypto->sha512 == NULL || crypto->hmac == NULL
        || crypto->ctx == NULL)
    {
        tg_crypto_destroy(crypto);
        return NULL;
    }

    return crypto;
}


void
tg_crypto_destroy(tg_crypto_t *crypto)
{
    if (crypto == NULL) {
        return;
    }

    EVP_MD_CTX_free(crypto->ctx);
    EVP_MAC_free(crypto->hmac);
    EVP_MD_free(crypto->sha512);
    EVP_MD_free(crypto->sha384);
    EVP_MD_free(crypto->sha256);
    free(crypto);
}


const EVP_MD *
tg_crypto_md(const tg_crypto_t *crypto, unsigned bits)
{
    switch (bits) {

    case 256:
        return crypto->sha256;

    case 384:
        return crypto->sha384;

    case 512:
        return crypto->sha512;

    default:
        return NULL;
    }
}


EVP_MAC *
tg_crypto_hmac(const tg_crypto_t *crypto)
{
    return crypto->hmac;
}


int
tg_crypto_digest(tg_crypto_t *crypto, const EVP_MD *md, const void *data,
    size_t len, uint8_t *digest)
{
    return EVP_DigestInit_ex2(crypto->ctx, md, NULL) == 1
           && EVP_DigestUpdate(crypto->ctx, data, len) == 1
           && EVP_DigestFinal_ex(crypto->ctx, digest, NULL) == 1
           ? 0
           : -1;
}


/*
 * Every request with a credential passes here.  The layers of EVP touch some
 * twenty pages of code and data around one block of work, and on a processor that
 * forgets its address translations with every system call that is most of the
 * time.
 */
int
tg_crypto_sha256(tg_crypto_t *crypto, const void *data, size_t len,
    uint8_t digest[TG_SHA256_LEN])
{
#ifndef OPENSSL_NO_DEPRECATED_3_0
    SHA256_CTX  ctx;

    if (!crypto->fips) {
        return SHA256_Init(&ctx) == 1 && SHA256_Update(&ctx, data, len) == 1
               && SHA256_Final(digest, &ctx) == 1
               ? 0
               : -1;
    }
#endif

    return tg_crypto_digest(crypto, crypto->sha256, data, len, digest);
}
