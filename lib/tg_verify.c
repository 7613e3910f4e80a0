/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "tg_verify.h"


#define TG_VERIFY_MAX_COORDINATE  66
#define TG_VERIFY_MAX_DER         (3 + 2 * (3 + TG_VERIFY_MAX_COORDINATE))
#define TG_VERIFY_MAX_DIGEST      64

typedef struct tg_verify_alg_s  tg_verify_alg_t;

typedef int (*tg_verify_check_pt)(tg_verifier_t *verifier, const void *data,
    size_t len, const uint8_t *signature, size_t signature_len);

struct tg_verify_alg_s {
    uint32_t            alg;
    unsigned            bits;       /* of SHA-2; 0: the algorithm hashes itself */
    int                 padding;    /* RSA */
    const char         *group;      /* EC */
    tg_verify_check_pt  check;
};

struct tg_verifier_s {
    tg_crypto_t            *crypto;
    const tg_verify_alg_t  *alg;
    const EVP_MD           *md;
    size_t                  md_len;
    EVP_PKEY               *pkey;
    EVP_PKEY_CTX           *pctx;       /* RSA and EC, initialised */
    EVP_MD_CTX             *mdctx;      /* EdDSA */
    EVP_MAC_CTX            *mac;        /* HMAC, keyed */
    size_t                  size;       /* of a signature, exactly */
    uint8_t                 order[TG_VERIFY_MAX_COORDINATE];    /* EC */
};


static int tg_verify_rsa(tg_verifier_t *verifier, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len);
static int tg_verify_ecdsa(tg_verifier_t *verifier, const void *data,
    size_t len, const uint8_t *signature, size_t signature_len);
static int tg_verify_hmac(tg_verifier_t *verifier, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len);
static int tg_verify_eddsa(tg_verifier_t *verifier, const void *data,
    size_t len, const uint8_t *signature, size_t signature_len);


static const tg_verify_alg_t  tg_verify_algs[] = {
    { TG_ALG_RS256, 256, RSA_PKCS1_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_RS384, 384, RSA_PKCS1_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_RS512, 512, RSA_PKCS1_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_PS256, 256, RSA_PKCS1_PSS_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_PS384, 384, RSA_PKCS1_PSS_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_PS512, 512, RSA_PKCS1_PSS_PADDING, NULL, tg_verify_rsa },
    { TG_ALG_ES256, 256, 0, "prime256v1", tg_verify_ecdsa },
    { TG_ALG_ES384, 384, 0, "secp384r1", tg_verify_ecdsa },
    { TG_ALG_ES512, 512, 0, "secp521r1", tg_verify_ecdsa },
    { TG_ALG_HS256, 256, 0, NULL, tg_verify_hmac },
    { TG_ALG_HS384, 384, 0, NULL, tg_verify_hmac },
    { TG_ALG_HS512, 512, 0, NULL, tg_verify_hmac },
    { TG_ALG_EDDSA, 0, 0, NULL, tg_verify_eddsa },
    { 0, 0, 0, NULL, NULL }
};


static int
tg_verifier_init_pctx(tg_verifier_t *v)
{
    v->pctx = EVP_PKEY_CTX_new_from_pkey(NULL, v->pkey, NULL);

    return v->pctx != NULL
           && EVP_PKEY_verify_init(v->pctx) == 1
           && EVP_PKEY_CTX_set_signature_md(v->pctx, v->md) == 1;
}


static int
tg_verifier_init_rsa(tg_verifier_t *v)
{
    if (!EVP_PKEY_is_a(v->pkey, "RSA") || !tg_verifier_init_pctx(v)
        || EVP_PKEY_CTX_set_rsa_padding(v->pctx, v->alg->padding) != 1)
    {
        return 0;
    }

    v->size = (size_t) EVP_PKEY_get_size(v->pkey);

    if (v->alg->padding == RSA_PKCS1_PADDING) {
        return 1;
    }

    /* RFC 7518 section 3.5: MGF1 with the same hash, salt as long as it */
    return EVP_PKEY_CTX_set_rsa_mgf1_md(v->pctx, v->md) == 1
           && EVP_PKEY_CTX_set_rsa_pss_saltlen(v->pctx, RSA_PSS_SALTLEN_DIGEST)
              == 1;
}


static int
tg_verifier_init_ecdsa(tg_verifier_t *v)
{
    int      bytes, ok;
    char     group[32];
    size_t   len;
    BIGNUM  *order;

    if (!EVP_PKEY_is_a(v->pkey, "EC")
        || EVP_PKEY_get_group_name(v->pkey, group, sizeof(group), &len) != 1
        || strcmp(group, v->alg->group) != 0 || !tg_verifier_init_pctx(v))
    {
        return 0;
    }

    bytes = (EVP_PKEY_get_bits(v->pkey) + 7) / 8;
    v->size = 2 * (size_t) bytes;

    order = NULL;
    ok = EVP_PKEY_get_bn_param(v->pkey, OSSL_PKEY_PARAM_EC_ORDER, &order) == 1
         && bytes <= TG_VERIFY_MAX_COORDINATE
         && BN_bn2binpad(order, v->order, bytes) == bytes;
    BN_free(order);

    return ok;
}


static int
tg_verifier_init_eddsa(tg_verifier_t *v)
{
    if (!EVP_PKEY_is_a(v->pkey, "ED25519") && !EVP_PKEY_is_a(v->pkey, "ED448"))
    {
        return 0;
    }

    v->size = (size_t) EVP_PKEY_get_size(v->pkey);
    v->mdctx = EVP_MD_CTX_new();

    return v->mdctx != NULL;
}


static int
tg_verifier_init_hmac(tg_verifier_t *v, const uint8_t *secret, size_t len)
{
    OSSL_PARAM  params[2];

    v->size = v->md_len;

    if (len < v->size) {
        return 0;
    }

    v->mac = EVP_MAC_CTX_new(tg_crypto_hmac(v->crypto));

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
                    (char *) EVP_MD_get0_name(v->md), 0);
    params[1] = OSSL_PARAM_construct_end();

    return v->mac != NULL && EVP_MAC_init(v->mac, secret, len, params) == 1;
}


static int
tg_verifier_init(tg_verifier_t *v, const uint8_t *material, size_t len,
    int hmac)
{
    const uint8_t  *p;

    if (hmac != (v->alg->check == tg_verify_hmac)) {
        return 0;
    }

    if (hmac) {
        return tg_verifier_init_hmac(v, material, len);
    }

    p = material;
    v->pkey = d2i_PUBKEY(NULL, &p, (long) len);

    if (v->pkey == NULL || p != material + len) {
        return 0;
    }

    if (v->alg->check == tg_verify_rsa) {
        return tg_verifier_init_rsa(v);
    }

    if (v->alg->check == tg_verify_ecdsa) {
        return tg_verifier_init_ecdsa(v);
    }

    return tg_verifier_init_eddsa(v);
}


tg_verifier_t *
tg_verifier_create(tg_crypto_t *crypto, uint32_t alg, const uint8_t *material,
    size_t len, int hmac)
{
    tg_verifier_t          *v;
    const tg_verify_alg_t  *row;

    for (row = tg_verify_algs; row->alg != alg; row++) {
        if (row->alg == 0) {
            return NULL;
        }
    }

    v = row->alg != 0 ? calloc(1, sizeof(*v)) : NULL;
    if (v == NULL) {
        return NULL;
    }

    v->crypto = crypto;
    v->alg = row;

    if (row->bits != 0) {
        v->md = tg_crypto_md(crypto, row->bits);
        v->md_len = row->bits / 8;
    }

    if (!tg_verifier_init(v, material, len, hmac)
        || v->size > TG_VERIFY_MAX_SIGNATURE)
    {
        tg_verifier_destroy(v);
        ERR_clear_error();
        return NULL;
    }

    return v;
}


void
tg_verifier_destroy(tg_verifier_t *verifier)
{
    if (verifier == NULL) {
        return;
    }

    EVP_MAC_CTX_free(verifier->mac);
    EVP_MD_CTX_free(verifier->mdctx);
    EVP_PKEY_CTX_free(verifier->pctx);
    EVP_PKEY_free(verifier->pkey);
    free(verifier);
}


int
tg_verifier_check(tg_verifier_t *verifier, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len)
{
    if (signature_len != verifier->size) {
        return 0;
    }

    if (verifier->alg->check(verifier, data, len, signature, signature_len)) {
        return 1;
    }

    /* nginx takes what is left in the queue for a TLS error */
    ERR_clear_error();

    return 0;
}


static int
tg_verify_rsa(tg_verifier_t *v, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len)
{
    uint8_t  digest[TG_VERIFY_MAX_DIGEST];

    return tg_crypto_digest(v->crypto, v->md, data, len, digest) == 0
           && EVP_PKEY_verify(v->pctx, signature, signature_len, digest,
                              v->md_len) == 1;
}


/* One half of an ECDSA signature must be from 1 to the order less 1. */
static int
tg_verify_in_range(const tg_verifier_t *v, const uint8_t *half, size_t len)
{
    size_t   i;
    uint8_t  any;

    for (i = 0, any = 0; i < len; i++) {
        any |= half[i];
    }

    return any != 0 && memcmp(half, v->order, len) < 0;
}


/* A positive DER INTEGER, in the shortest form. */
static uint8_t *
tg_verify_der_integer(uint8_t *p, const uint8_t *half, size_t len)
{
    size_t  zero;

    while (*half == 0) {    /* in range: not all of it is */
        half++;
        len--;
    }

    zero = *half >> 7;

    *p++ = 0x02;
    *p++ = (uint8_t) (len + zero);

    if (zero) {
        *p++ = 0;
    }

    memcpy(p, half, len);

    return p + len;
}


/* RFC 7518 section 3.4 has r and s in full length side by side, OpenSSL wants
 * them as DER SEQUENCE.  Returns the length. */
static size_t
tg_verify_der(uint8_t der[TG_VERIFY_MAX_DER], const uint8_t *signature,
    size_t half)
{
    size_t    len;
    uint8_t  *p, *body;

    body = der + 3;

    p = tg_verify_der_integer(body, signature, half);
    p = tg_verify_der_integer(p, signature + half, half);
    len = (size_t) (p - body);

    if (len > 127) {
        der[0] = 0x30;
        der[1] = 0x81;
        der[2] = (uint8_t) len;

        return len + 3;
    }

    memmove(der + 2, body, len);
    der[0] = 0x30;
    der[1] = (uint8_t) len;

    return len + 2;
}


static int
tg_verify_ecdsa(tg_verifier_t *v, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len)
{
    size_t   half, der_len;
    uint8_t  der[TG_VERIFY_MAX_DER], digest[TG_VERIFY_MAX_DIGEST];

    half = signature_len / 2;

    if (!tg_verify_in_range(v, signature, half)
        || !tg_verify_in_range(v, signature + half, half)
        || tg_crypto_digest(v->crypto, v->md, data, len, digest) != 0)
    {
        return 0;
    }

    der_len = tg_verify_der(der, signature, half);

    return EVP_PKEY_verify(v->pctx, der, der_len, digest, v->md_len) == 1;
}


static int
tg_verify_hmac(tg_verifier_t *v, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len)
{
    size_t   n;
    uint8_t  mac[TG_VERIFY_MAX_DIGEST];

    /* without a key: starts over with the one it has */
    return EVP_MAC_init(v->mac, NULL, 0, NULL) == 1
           && EVP_MAC_update(v->mac, data, len) == 1
           && EVP_MAC_final(v->mac, mac, &n, sizeof(mac)) == 1
           && n == signature_len
           && CRYPTO_memcmp(mac, signature, n) == 0;
}


static int
tg_verify_eddsa(tg_verifier_t *v, const void *data, size_t len,
    const uint8_t *signature, size_t signature_len)
{
    /* one-shot only, and initialised for each use */
    return EVP_MD_CTX_reset(v->mdctx) == 1
           && EVP_DigestVerifyInit(v->mdctx, NULL, NULL, NULL, v->pkey) == 1
           && EVP_DigestVerify(v->mdctx, signature, signature_len, data, len)
              == 1;
}
