/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Keys and tokens for tests, by OpenSSL alone, so that nothing that is tested
 * makes its own input.  Header and claims are texts: a hostile one is as easy to
 * sign as a good one.
 */

#ifndef TESTS_TOKEN_H
#define TESTS_TOKEN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "tg_b64.h"
#include "tg_block.h"
#include "tg_jwk.h"
#include "tg_secret.h"

#define TOKEN_HELPER  static __attribute__((unused))

/* The master key that opens sealed secrets in tests. */
static const uint8_t  token_master[32] = "tests seal secrets with this key";

typedef struct {
    uint32_t   alg;
    EVP_PKEY  *pkey;            /* NULL: secret */
    uint8_t    secret[64];
    size_t     secret_len;
} token_key_t;


static inline void
token_must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "token.h: %s\n", what);
        abort();
    }
}


static const EVP_MD *
token_md(uint32_t alg)
{
    if (alg & (TG_ALG_RS256 | TG_ALG_PS256 | TG_ALG_ES256 | TG_ALG_HS256)) {
        return EVP_sha256();
    }

    if (alg & (TG_ALG_RS384 | TG_ALG_PS384 | TG_ALG_ES384 | TG_ALG_HS384)) {
        return EVP_sha384();
    }

    return alg & TG_ALG_EDDSA ? NULL : EVP_sha512();
}


/* A new key for one algorithm; EdDSA is Ed25519. */
TOKEN_HELPER token_key_t
token_key_new(uint32_t alg)
{
    token_key_t  key;

    memset(&key, 0, sizeof(key));
    key.alg = alg;

    if (alg & TG_ALG_ANY_RSA) {
        key.pkey = EVP_RSA_gen(2048);

    } else if (alg & TG_ALG_ANY_EC) {
        key.pkey = EVP_EC_gen(alg == TG_ALG_ES256 ? "P-256"
                              : alg == TG_ALG_ES384 ? "P-384" : "P-521");

    } else if (alg == TG_ALG_EDDSA) {
        key.pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    } else {
        key.secret_len = (size_t) EVP_MD_get_size(token_md(alg));
        token_must(RAND_bytes(key.secret, (int) key.secret_len) == 1, "random");
        return key;
    }

    token_must(key.pkey != NULL, "key generation");

    return key;
}


TOKEN_HELPER void
token_key_free(token_key_t *key)
{
    EVP_PKEY_free(key->pkey);
}


TOKEN_HELPER json_t *
token_b64(const uint8_t *data, size_t len)
{
    char    *text;
    size_t   n;
    json_t  *string;

    text = malloc(tg_b64url_encoded_size(len) + 1);
    n = tg_b64url_encode(text, data, len);
    string = json_stringn(text, n);
    free(text);

    return string;
}


static json_t *
token_jwk_bn(const token_key_t *key, const char *param, int size)
{
    int       len;
    BIGNUM   *bn;
    uint8_t   bytes[1024];

    bn = NULL;
    token_must(EVP_PKEY_get_bn_param(key->pkey, param, &bn) == 1, param);
    len = size != 0 ? BN_bn2binpad(bn, bytes, size) : BN_bn2bin(bn, bytes);
    BN_free(bn);

    return token_b64(bytes, (size_t) len);
}


static json_t *
token_jwk_secret(const token_key_t *key)
{
    char  sealed[tg_secret_sealed_size(64)];

    token_must(tg_secret_seal(token_master, key->secret, key->secret_len,
                              sealed) == 0, "seal");

    return json_string(sealed);
}


/* The public (or sealed) key as JWK; kid may be NULL. */
TOKEN_HELPER json_t *
token_jwk(const token_key_t *key, const char *kid)
{
    int       size;
    size_t    len;
    uint8_t   raw[64];
    json_t   *jwk;

    jwk = json_object();

    if (kid != NULL) {
        json_object_set_new(jwk, "kid", json_string(kid));
    }

    if (key->pkey == NULL) {
        json_object_set_new(jwk, "kty", json_string("oct"));
        json_object_set_new(jwk, "k_sealed", token_jwk_secret(key));

    } else if (EVP_PKEY_is_a(key->pkey, "RSA")) {
        json_object_set_new(jwk, "kty", json_string("RSA"));
        json_object_set_new(jwk, "n", token_jwk_bn(key, "n", 0));
        json_object_set_new(jwk, "e", token_jwk_bn(key, "e", 0));

    } else if (EVP_PKEY_is_a(key->pkey, "EC")) {
        size = (EVP_PKEY_get_bits(key->pkey) + 7) / 8;
        json_object_set_new(jwk, "kty", json_string("EC"));
        json_object_set_new(jwk, "crv", json_string(size == 32 ? "P-256"
                                                    : size == 48 ? "P-384"
                                                    : "P-521"));
        json_object_set_new(jwk, "x", token_jwk_bn(key, "qx", size));
        json_object_set_new(jwk, "y", token_jwk_bn(key, "qy", size));

    } else {
        len = sizeof(raw);
        token_must(EVP_PKEY_get_raw_public_key(key->pkey, raw, &len) == 1,
                   "raw public key");
        json_object_set_new(jwk, "kty", json_string("OKP"));
        json_object_set_new(jwk, "crv", json_string(len == 32 ? "Ed25519"
                                                              : "Ed448"));
        json_object_set_new(jwk, "x", token_b64(raw, len));
    }

    return jwk;
}


/* DER to the two halves side by side. */
static size_t
token_raw_ecdsa(const token_key_t *key, uint8_t *signature, size_t len)
{
    int             half;
    ECDSA_SIG      *sig;
    const uint8_t  *p;

    p = signature;
    sig = d2i_ECDSA_SIG(NULL, &p, (long) len);
    half = (EVP_PKEY_get_bits(key->pkey) + 7) / 8;

    token_must(sig != NULL
               && BN_bn2binpad(ECDSA_SIG_get0_r(sig), signature, half) == half
               && BN_bn2binpad(ECDSA_SIG_get0_s(sig), signature + half, half)
                  == half, "ECDSA signature");
    ECDSA_SIG_free(sig);

    return 2 * (size_t) half;
}


/* Signs data by the key's algorithm; returns the length in JWS form. */
TOKEN_HELPER size_t
token_signature(const token_key_t *key, const void *data, size_t len,
    uint8_t signature[1024])
{
    size_t         n;
    unsigned       mac_len;
    EVP_MD_CTX    *ctx;
    EVP_PKEY_CTX  *pctx;

    if (key->pkey == NULL) {
        token_must(HMAC(token_md(key->alg), key->secret, (int) key->secret_len,
                        data, len, signature, &mac_len) != NULL, "HMAC");
        return mac_len;
    }

    ctx = EVP_MD_CTX_new();
    token_must(EVP_DigestSignInit(ctx, &pctx, token_md(key->alg), NULL,
                                  key->pkey) == 1, "sign init");

    if (key->alg & (TG_ALG_PS256 | TG_ALG_PS384 | TG_ALG_PS512)) {
        token_must(EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING)
                   == 1
                   && EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx,
                                                       RSA_PSS_SALTLEN_DIGEST)
                      == 1, "PSS");
    }

    n = 1024;
    token_must(EVP_DigestSign(ctx, signature, &n, data, len) == 1, "sign");
    EVP_MD_CTX_free(ctx);

    return key->alg & TG_ALG_ANY_EC ? token_raw_ecdsa(key, signature, n) : n;
}


/* "header.claims." of any bytes; the caller frees. */
TOKEN_HELPER char *
token_unsigned(const void *header, size_t header_len, const void *claims,
    size_t claims_len)
{
    char   *token;
    size_t  n;

    token = malloc(tg_b64url_encoded_size(header_len)
                   + tg_b64url_encoded_size(claims_len) + 3 + 2048);
    n = tg_b64url_encode(token, header, header_len);
    token[n++] = '.';
    n += tg_b64url_encode(token + n, claims, claims_len);
    token[n++] = '.';
    token[n] = '\0';

    return token;
}


/* A signed token of any two texts, signed by key whatever they say. */
TOKEN_HELPER char *
token_sign(const token_key_t *key, const char *header, const char *claims)
{
    char     *token;
    size_t    n;
    uint8_t   signature[1024];

    token = token_unsigned(header, strlen(header), claims, strlen(claims));
    n = strlen(token);
    n += tg_b64url_encode(token + n, signature,
                          token_signature(key, token, n - 1, signature));
    token[n] = '\0';

    return token;
}

#endif /* TESTS_TOKEN_H */
