/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "td_pem.h"
#include "tg_b64.h"


#define TD_PEM_MAX_NUMBER  1024     /* bytes: RSA of 8192 bits */

static const struct {
    const char  *group;
    const char  *crv;
    size_t       size;
} td_pem_curves[] = {
    { "prime256v1", "P-256", 32 },
    { "secp384r1",  "P-384", 48 },
    { "secp521r1",  "P-521", 66 },
};


static td_pem_status_e
td_pem_fail(tg_error_t *err, const char *why)
{
    ERR_clear_error();
    tg_error_set(err, "/pem", "pem %s", why);

    return TD_PEM_INVALID;
}


static int
td_pem_set_bytes(json_t *jwk, const char *name, const uint8_t *data, size_t len)
{
    char    text[tg_b64url_encoded_size(TD_PEM_MAX_NUMBER)];
    size_t  n;

    n = tg_b64url_encode(text, data, len);

    return json_object_set_new(jwk, name, json_stringn(text, n));
}


/* size 0: as many bytes as it takes. */
static int
td_pem_set_number(json_t *jwk, const char *name, EVP_PKEY *key,
    const char *param, size_t size)
{
    int       len, rc;
    BIGNUM   *bn;
    uint8_t   data[TD_PEM_MAX_NUMBER];

    bn = NULL;
    if (EVP_PKEY_get_bn_param(key, param, &bn) != 1) {
        return -1;
    }

    len = size > 0 ? (int) size : BN_num_bytes(bn);
    rc = len > (int) sizeof(data) || BN_bn2binpad(bn, data, len) < 0 ? -1
         : td_pem_set_bytes(jwk, name, data, (size_t) len);
    BN_free(bn);

    return rc;
}


static int
td_pem_set_curve(json_t *jwk, EVP_PKEY *key)
{
    char    group[64];
    size_t  i, size;

    if (EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1) {
        return -1;
    }

    for (i = 0; i < sizeof(td_pem_curves) / sizeof(td_pem_curves[0]); i++) {
        if (strcmp(group, td_pem_curves[i].group) != 0) {
            continue;
        }

        size = td_pem_curves[i].size;

        return json_object_set_new(jwk, "kty", json_string("EC"))
               || json_object_set_new(jwk, "crv",
                                      json_string(td_pem_curves[i].crv))
               || td_pem_set_number(jwk, "x", key, OSSL_PKEY_PARAM_EC_PUB_X,
                                    size)
               || td_pem_set_number(jwk, "y", key, OSSL_PKEY_PARAM_EC_PUB_Y,
                                    size) ? -1 : 0;
    }

    return -1;
}


static int
td_pem_set_edwards(json_t *jwk, EVP_PKEY *key, const char *crv)
{
    size_t   len;
    uint8_t  data[64];

    len = sizeof(data);

    return EVP_PKEY_get_raw_public_key(key, data, &len) != 1
           || json_object_set_new(jwk, "kty", json_string("OKP"))
           || json_object_set_new(jwk, "crv", json_string(crv))
           || td_pem_set_bytes(jwk, "x", data, len) ? -1 : 0;
}


static int
td_pem_set_key(json_t *jwk, EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {

    case EVP_PKEY_RSA:
        return json_object_set_new(jwk, "kty", json_string("RSA"))
               || td_pem_set_number(jwk, "n", key, OSSL_PKEY_PARAM_RSA_N, 0)
               || td_pem_set_number(jwk, "e", key, OSSL_PKEY_PARAM_RSA_E, 0)
               ? -1 : 0;

    case EVP_PKEY_EC:
        return td_pem_set_curve(jwk, key);

    case EVP_PKEY_ED25519:
        return td_pem_set_edwards(jwk, key, "Ed25519");

    case EVP_PKEY_ED448:
        return td_pem_set_edwards(jwk, key, "Ed448");

    default:
        return -1;
    }
}


static EVP_PKEY *
td_pem_read(BIO *bio, const char *text)
{
    X509      *certificate;
    EVP_PKEY  *key;

    if (strstr(text, "-----BEGIN CERTIFICATE-----") == NULL) {
        return PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    }

    certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    key = certificate != NULL ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);

    return key;
}


td_pem_status_e
td_pem_to_jwk(json_t *jwk, tg_error_t *err)
{
    int          rc;
    BIO         *bio;
    EVP_PKEY    *key;
    const char  *text, *begin;

    text = json_string_value(json_object_get(jwk, "pem"));

    if (text == NULL || strlen(text) > TD_PEM_MAX) {
        return td_pem_fail(err, "must be a string of at most 16384 bytes");
    }

    if (strstr(text, "PRIVATE KEY") != NULL) {
        td_pem_fail(err, "is a private key: give the public key only, and "
                    "treat this one as leaked");
        return TD_PEM_PRIVATE;
    }

    if (json_object_get(jwk, "kty") != NULL) {
        return td_pem_fail(err, "and kty cannot both be there");
    }

    begin = strstr(text, "-----BEGIN ");
    if (begin == NULL || strstr(begin + 1, "-----BEGIN ") != NULL) {
        return td_pem_fail(err, "must hold one PUBLIC KEY or CERTIFICATE");
    }

    bio = BIO_new_mem_buf(text, (int) strlen(text));
    key = bio != NULL ? td_pem_read(bio, text) : NULL;
    BIO_free(bio);

    if (key == NULL) {
        return td_pem_fail(err, "cannot be read as a PUBLIC KEY or "
                           "CERTIFICATE");
    }

    rc = td_pem_set_key(jwk, key);
    EVP_PKEY_free(key);

    if (rc != 0) {
        return td_pem_fail(err, "holds a key of a kind that is not supported: "
                           "use RSA, P-256, P-384, P-521, Ed25519 or Ed448");
    }

    json_object_del(jwk, "pem");

    return TD_PEM_OK;
}
