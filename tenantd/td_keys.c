/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "td_keys.h"
#include "td_pem.h"
#include "tg_b64.h"
#include "tg_jwk.h"
#include "tg_secret.h"


#define TD_KEYS_MIN_SECRET  32

static const char *const  td_keys_private[] = {
    "d", "p", "q", "dp", "dq", "qi", "oth"
};


static int
td_keys_is_private(const json_t *jwk)
{
    size_t  i;

    for (i = 0; i < sizeof(td_keys_private) / sizeof(td_keys_private[0]); i++) {
        if (json_object_get(jwk, td_keys_private[i]) != NULL) {
            return 1;
        }
    }

    return 0;
}


/* "k" of an oct key → "k_sealed". */
static td_keys_status_e
td_keys_seal(json_t *jwk, const json_t *k, const uint8_t *secret_key,
    tg_error_t *err)
{
    int          rc;
    char         sealed[tg_secret_sealed_size(TG_JWK_MAX_SECRET)];
    size_t       len;
    uint8_t      secret[TG_JWK_MAX_SECRET + 3];
    ssize_t      n;
    const char  *text;

    text = json_string_value(k);
    len = json_string_length(k);
    n = -1;

    if (text != NULL && len <= tg_b64url_encoded_size(TG_JWK_MAX_SECRET)) {
        n = tg_b64url_decode(secret, text, len);
    }

    if (n < TD_KEYS_MIN_SECRET || n > TG_JWK_MAX_SECRET) {
        tg_error_set(err, "/k", "k must be base64url of %d to %d bytes",
                     TD_KEYS_MIN_SECRET, TG_JWK_MAX_SECRET);
        return TD_KEYS_INVALID;
    }

    if (secret_key == NULL) {
        OPENSSL_cleanse(secret, sizeof(secret));
        tg_error_set(err, "/k", "this tenantd has no key to seal shared "
                     "secrets with: set [secrets] key_file, or use a public "
                     "key");
        return TD_KEYS_NO_SEALING;
    }

    rc = tg_secret_seal(secret_key, secret, (size_t) n, sealed);
    OPENSSL_cleanse(secret, sizeof(secret));

    if (rc != 0 || json_object_set_new(jwk, "k_sealed", json_string(sealed)) != 0
        || json_object_del(jwk, "k") != 0)
    {
        tg_error_set(err, "/k", "the secret could not be sealed");
        return TD_KEYS_INVALID;
    }

    return TD_KEYS_CHANGED;
}


/* Tries the key as a gateway would. */
static td_keys_status_e
td_keys_try(const json_t *jwk, const uint8_t *secret_key, tg_error_t *err)
{
    tg_jwk_t  parsed;

    if (secret_key == NULL && json_object_get(jwk, "k_sealed") != NULL) {
        return TD_KEYS_SAME;    /* sealed by somebody who has the key */
    }

    switch (tg_jwk_parse(jwk, TG_ALG_ANY, secret_key, &parsed, err)) {

    case TG_JWK_OK:
        tg_jwk_clear(&parsed);
        return TD_KEYS_SAME;

    case TG_JWK_IGNORED:
        return TD_KEYS_SAME;

    default:
        return TD_KEYS_INVALID;
    }
}


static td_keys_status_e
td_keys_prepare_one(json_t *jwk, const uint8_t *secret_key, tg_error_t *err)
{
    json_t            *k;
    td_keys_status_e   status, tried;

    if (!json_is_object(jwk)) {
        return TD_KEYS_SAME;
    }

    if (td_keys_is_private(jwk)) {
        tg_error_set(err, "", "the key is a private key: give its public "
                     "members only, and treat the private ones as leaked");
        return TD_KEYS_PRIVATE;
    }

    status = TD_KEYS_SAME;

    if (json_object_get(jwk, "pem") != NULL) {
        switch (td_pem_to_jwk(jwk, err)) {
        case TD_PEM_OK:       status = TD_KEYS_CHANGED; break;
        case TD_PEM_PRIVATE:  return TD_KEYS_PRIVATE;
        default:              return TD_KEYS_INVALID;
        }
    }

    k = json_object_get(jwk, "k");

    if (k != NULL) {
        status = td_keys_seal(jwk, k, secret_key, err);
        if (status < 0) {
            return status;
        }
    }

    tried = td_keys_try(jwk, secret_key, err);

    return tried < 0 ? tried : status;
}


static td_keys_status_e
td_keys_prepare_issuer(json_t *issuer, const uint8_t *secret_key,
    tg_error_t *err)
{
    size_t             i;
    json_t            *jwk;
    td_keys_status_e   status, one;

    status = TD_KEYS_SAME;

    json_array_foreach(json_object_get(json_object_get(issuer, "jwks"), "keys"),
                       i, jwk)
    {
        one = td_keys_prepare_one(jwk, secret_key, err);

        if (one < 0) {
            tg_error_prefix(err, "/jwks/keys/%zu", i);
            return one;
        }

        status = one == TD_KEYS_CHANGED ? one : status;
    }

    return status;
}


td_keys_status_e
td_keys_prepare(json_t *body, const uint8_t *secret_key, tg_error_t *err)
{
    size_t             i;
    json_t            *issuer;
    td_keys_status_e   status, one;

    err->pointer[0] = '\0';
    status = td_keys_prepare_issuer(body, secret_key, err);

    if (status < 0) {
        return status;
    }

    json_array_foreach(json_object_get(body, "issuers"), i, issuer) {
        one = td_keys_prepare_issuer(issuer, secret_key, err);

        if (one < 0) {
            tg_error_prefix(err, "/issuers/%zu", i);
            return one;
        }

        status = one == TD_KEYS_CHANGED ? one : status;
    }

    return status;
}


td_keys_status_e
td_keys_check_public(const json_t *keys, tg_error_t *err)
{
    size_t     i;
    json_t    *jwk;

    err->pointer[0] = '\0';

    json_array_foreach(keys, i, jwk) {
        if (!json_is_object(jwk)) {
            tg_error_set(err, "", "keys/%zu is not an object", i);
            return TD_KEYS_INVALID;
        }

        if (td_keys_is_private(jwk) || json_object_get(jwk, "k") != NULL
            || json_object_get(jwk, "k_sealed") != NULL)
        {
            tg_error_set(err, "", "keys/%zu is not a public key", i);
            return TD_KEYS_PRIVATE;
        }
    }

    return TD_KEYS_SAME;
}
