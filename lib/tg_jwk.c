/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include "tg_b64.h"
#include "tg_jwk.h"
#include "tg_secret.h"


#define TG_JWK_MAX_RSA_BYTES       (TG_JWK_MAX_RSA_BITS / 8)
#define TG_JWK_MAX_EXPONENT_BITS   64   /* OpenSSL's own bound for large n */
#define TG_JWK_MAX_MEMBER          (TG_JWK_MAX_RSA_BYTES + 1)
#define TG_JWK_MAX_POINT           (1 + 2 * 66)

typedef tg_jwk_status_e (*tg_jwk_parse_pt)(const json_t *jwk,
    const uint8_t *secret_key, tg_jwk_t *out, tg_error_t *err);

typedef struct {
    const char       *kty;
    tg_jwk_parse_pt   parse;        /* sets material and algorithms */
} tg_jwk_type_t;

typedef struct {
    const char  *crv;
    const char  *group;             /* OpenSSL's name */
    size_t       size;              /* bytes of a coordinate, or of the key */
    uint32_t     algorithms;
} tg_jwk_curve_t;


static tg_jwk_status_e tg_jwk_parse_rsa(const json_t *jwk,
    const uint8_t *secret_key, tg_jwk_t *out, tg_error_t *err);
static tg_jwk_status_e tg_jwk_parse_ec(const json_t *jwk,
    const uint8_t *secret_key, tg_jwk_t *out, tg_error_t *err);
static tg_jwk_status_e tg_jwk_parse_okp(const json_t *jwk,
    const uint8_t *secret_key, tg_jwk_t *out, tg_error_t *err);
static tg_jwk_status_e tg_jwk_parse_oct(const json_t *jwk,
    const uint8_t *secret_key, tg_jwk_t *out, tg_error_t *err);


static const tg_jwk_type_t  tg_jwk_types[] = {
    { "RSA", tg_jwk_parse_rsa },
    { "EC", tg_jwk_parse_ec },
    { "OKP", tg_jwk_parse_okp },
    { "oct", tg_jwk_parse_oct },
    { NULL, NULL }
};

/* RFC 7518 section 3.4: each ES algorithm has one curve. */
static const tg_jwk_curve_t  tg_jwk_ec_curves[] = {
    { "P-256", "prime256v1", 32, TG_ALG_ES256 },
    { "P-384", "secp384r1", 48, TG_ALG_ES384 },
    { "P-521", "secp521r1", 66, TG_ALG_ES512 },
    { NULL, NULL, 0, 0 }
};

static const tg_jwk_curve_t  tg_jwk_okp_curves[] = {
    { "Ed25519", "ED25519", 32, TG_ALG_EDDSA },
    { "Ed448", "ED448", 57, TG_ALG_EDDSA },
    { NULL, NULL, 0, 0 }
};

/* A private key has no business in a registry, whoever put it there. */
static const char *const  tg_jwk_private[] = {
    "d", "p", "q", "dp", "dq", "qi", "oth", "k", NULL
};

/* By bit number of tg_alg_e. */
static const char *const  tg_alg_names[] = {
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA"
};

#define TG_ALG_NAMES  (sizeof(tg_alg_names) / sizeof(tg_alg_names[0]))


uint32_t
tg_alg_parse(const char *name, size_t len)
{
    size_t  i;

    if (len != 5) {     /* as long as each of them */
        return 0;
    }

    for (i = 0; i < TG_ALG_NAMES; i++) {
        if (memcmp(name, tg_alg_names[i], 5) == 0) {
            return 1u << i;
        }
    }

    return 0;
}


const char *
tg_alg_name(uint32_t alg)
{
    size_t  i;

    for (i = 0; i < TG_ALG_NAMES; i++) {
        if (alg == 1u << i) {
            return tg_alg_names[i];
        }
    }

    return NULL;
}


static tg_jwk_status_e
tg_jwk_invalid(tg_error_t *err, const char *member, const char *must)
{
    char  pointer[32];

    pointer[0] = '\0';

    if (member[0] != '\0') {
        pointer[0] = '/';
        strncpy(pointer + 1, member, sizeof(pointer) - 2);
        pointer[sizeof(pointer) - 1] = '\0';
    }

    tg_error_set(err, pointer, "key: %s%s%s", member,
                 member[0] != '\0' ? " " : "", must);

    return TG_JWK_INVALID;
}


static tg_jwk_status_e
tg_jwk_ignored(tg_error_t *err, const char *member, const char *why)
{
    tg_jwk_invalid(err, member, why);

    return TG_JWK_IGNORED;
}


/* A string member with room for no NUL inside: its bytes and length. */
static const char *
tg_jwk_string(const json_t *jwk, const char *member, size_t *len)
{
    const json_t  *value;

    value = json_object_get(jwk, member);

    if (!json_is_string(value)) {
        return NULL;
    }

    *len = json_string_length(value);

    return json_string_value(value);
}


/* Decodes a base64url member of at most room bytes; the length, or -1. */
static ssize_t
tg_jwk_bytes(const json_t *jwk, const char *member, uint8_t *dst, size_t room)
{
    size_t       len;
    const char  *text;

    text = tg_jwk_string(jwk, member, &len);

    if (text == NULL || len == 0 || tg_b64url_decoded_size(len) > room) {
        return -1;
    }

    return tg_b64url_decode(dst, text, len);
}


static tg_jwk_status_e
tg_jwk_curve(const json_t *jwk, const tg_jwk_curve_t *curves,
    const tg_jwk_curve_t **found, tg_error_t *err)
{
    size_t       len;
    const char  *crv;

    crv = tg_jwk_string(jwk, "crv", &len);

    if (crv == NULL) {
        return tg_jwk_invalid(err, "crv", "must be the name of a curve");
    }

    for ( /* void */ ; curves->crv != NULL; curves++) {
        if (strlen(curves->crv) == len && memcmp(curves->crv, crv, len) == 0) {
            *found = curves;
            return TG_JWK_OK;
        }
    }

    return tg_jwk_ignored(err, "crv", "is not a curve that is supported");
}


/* The key as DER SubjectPublicKeyInfo; takes pkey over. */
static tg_jwk_status_e
tg_jwk_export(EVP_PKEY *pkey, tg_jwk_t *out, tg_error_t *err)
{
    int       len;
    uint8_t  *der;

    if (pkey == NULL) {
        return tg_jwk_invalid(err, "", "is not a valid public key");
    }

    der = NULL;
    len = i2d_PUBKEY(pkey, &der);
    EVP_PKEY_free(pkey);

    if (len <= 0) {
        return tg_jwk_invalid(err, "", "cannot be encoded");
    }

    out->material = der;
    out->material_len = (size_t) len;

    return TG_JWK_OK;
}


/* A public key of an OpenSSL key type from parameters; NULL: not a valid one.
 * Takes build over. */
static EVP_PKEY *
tg_jwk_build(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY      *pkey;
    OSSL_PARAM    *params;
    EVP_PKEY_CTX  *ctx;

    pkey = NULL;
    params = OSSL_PARAM_BLD_to_param(build);
    ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);

    if (params == NULL || ctx == NULL
        || EVP_PKEY_fromdata_init(ctx) != 1
        || EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
    {
        pkey = NULL;
    }

    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);

    return pkey;
}


static EVP_PKEY *
tg_jwk_build_rsa(const BIGNUM *n, const BIGNUM *e)
{
    OSSL_PARAM_BLD  *build;

    build = OSSL_PARAM_BLD_new();

    if (build == NULL
        || OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) != 1
        || OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) != 1)
    {
        OSSL_PARAM_BLD_free(build);
        return NULL;
    }

    return tg_jwk_build("RSA", build);
}


static tg_jwk_status_e
tg_jwk_check_rsa(const BIGNUM *n, const BIGNUM *e, tg_error_t *err)
{
    if (BN_num_bits(n) < TG_JWK_MIN_RSA_BITS
        || BN_num_bits(n) > TG_JWK_MAX_RSA_BITS)
    {
        return tg_jwk_invalid(err, "n", "must be a modulus of 2048 to 8192 bits");
    }

    if (!BN_is_odd(n)) {
        return tg_jwk_invalid(err, "n", "must be odd");
    }

    if (!BN_is_odd(e) || BN_is_one(e)
        || BN_num_bits(e) > TG_JWK_MAX_EXPONENT_BITS)
    {
        return tg_jwk_invalid(err, "e", "must be odd, from 3 to 64 bits long");
    }

    return TG_JWK_OK;
}


static tg_jwk_status_e
tg_jwk_parse_rsa(const json_t *jwk, const uint8_t *secret_key, tg_jwk_t *out,
    tg_error_t *err)
{
    BIGNUM           *n, *e;
    ssize_t           n_len, e_len;
    uint8_t           n_bytes[TG_JWK_MAX_MEMBER + 3];
    uint8_t           e_bytes[TG_JWK_MAX_MEMBER + 3];
    tg_jwk_status_e   rc;

    (void) secret_key;

    n_len = tg_jwk_bytes(jwk, "n", n_bytes, sizeof(n_bytes));
    if (n_len < 0) {
        return tg_jwk_invalid(err, "n", "must be base64url of the modulus, "
                              "2048 to 8192 bits");
    }

    e_len = tg_jwk_bytes(jwk, "e", e_bytes, sizeof(e_bytes));
    if (e_len < 0) {
        return tg_jwk_invalid(err, "e", "must be base64url of the exponent");
    }

    n = BN_bin2bn(n_bytes, (int) n_len, NULL);
    e = BN_bin2bn(e_bytes, (int) e_len, NULL);

    if (n == NULL || e == NULL) {
        rc = tg_jwk_invalid(err, "", "out of memory");

    } else {
        rc = tg_jwk_check_rsa(n, e, err);
    }

    if (rc == TG_JWK_OK) {
        rc = tg_jwk_export(tg_jwk_build_rsa(n, e), out, err);
        out->algorithms = TG_ALG_ANY_RSA;
    }

    BN_free(n);
    BN_free(e);

    return rc;
}


static EVP_PKEY *
tg_jwk_build_ec(const char *group, const uint8_t *point, size_t len)
{
    OSSL_PARAM_BLD  *build;

    build = OSSL_PARAM_BLD_new();

    if (build == NULL
        || OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME,
                                           group, 0) != 1
        || OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY,
                                            point, len) != 1)
    {
        OSSL_PARAM_BLD_free(build);
        return NULL;
    }

    return tg_jwk_build("EC", build);
}


static tg_jwk_status_e
tg_jwk_parse_ec(const json_t *jwk, const uint8_t *secret_key, tg_jwk_t *out,
    tg_error_t *err)
{
    size_t                 i;
    ssize_t                len;
    uint8_t                point[TG_JWK_MAX_POINT], bytes[66 + 3];
    tg_jwk_status_e        rc;
    const tg_jwk_curve_t  *curve;

    static const char *const  coordinates[] = { "x", "y" };

    (void) secret_key;

    rc = tg_jwk_curve(jwk, tg_jwk_ec_curves, &curve, err);
    if (rc != TG_JWK_OK) {
        return rc;
    }

    point[0] = POINT_CONVERSION_UNCOMPRESSED;

    for (i = 0; i < 2; i++) {
        len = tg_jwk_bytes(jwk, coordinates[i], bytes, sizeof(bytes));

        /* RFC 7518 section 6.2.1.2: full length, zeros in front included */
        if (len < 0 || (size_t) len != curve->size) {
            return tg_jwk_invalid(err, coordinates[i], "must be base64url of a "
                                  "coordinate in the curve's full length");
        }

        memcpy(point + 1 + i * curve->size, bytes, curve->size);
    }

    out->algorithms = curve->algorithms;

    /* OpenSSL refuses a point that is not on the curve */
    return tg_jwk_export(tg_jwk_build_ec(curve->group, point,
                                         1 + 2 * curve->size),
                         out, err);
}


static tg_jwk_status_e
tg_jwk_parse_okp(const json_t *jwk, const uint8_t *secret_key, tg_jwk_t *out,
    tg_error_t *err)
{
    ssize_t                len;
    uint8_t                bytes[57 + 3];
    tg_jwk_status_e        rc;
    const tg_jwk_curve_t  *curve;

    (void) secret_key;

    rc = tg_jwk_curve(jwk, tg_jwk_okp_curves, &curve, err);
    if (rc != TG_JWK_OK) {
        return rc;
    }

    len = tg_jwk_bytes(jwk, "x", bytes, sizeof(bytes));

    if (len < 0 || (size_t) len != curve->size) {
        return tg_jwk_invalid(err, "x", "must be base64url of the public key "
                              "in the curve's length");
    }

    out->algorithms = curve->algorithms;

    return tg_jwk_export(EVP_PKEY_new_raw_public_key_ex(NULL, curve->group,
                                                        NULL, bytes,
                                                        curve->size),
                         out, err);
}


static tg_jwk_status_e
tg_jwk_parse_oct(const json_t *jwk, const uint8_t *secret_key, tg_jwk_t *out,
    tg_error_t *err)
{
    size_t       len, secret_len;
    uint8_t      secret[TG_JWK_MAX_SECRET];
    const char  *sealed;

    sealed = tg_jwk_string(jwk, "k_sealed", &len);
    if (sealed == NULL) {
        return tg_jwk_invalid(err, "k_sealed", "must be the sealed secret");
    }

    if (secret_key == NULL) {
        return tg_jwk_invalid(err, "k_sealed", "cannot be opened: no secret key "
                              "is configured here");
    }

    secret_len = sizeof(secret);

    if (tg_secret_open(secret_key, sealed, len, secret, &secret_len) != 0) {
        return tg_jwk_invalid(err, "k_sealed", "was not sealed with the secret "
                              "key that is configured here, or is damaged");
    }

    /* RFC 7518 section 3.2: at least as long as the hash */
    out->algorithms = (secret_len >= 32 ? TG_ALG_HS256 : 0)
                      | (secret_len >= 48 ? TG_ALG_HS384 : 0)
                      | (secret_len >= 64 ? TG_ALG_HS512 : 0);
    out->hmac = 1;

    if (out->algorithms != 0) {
        out->material = OPENSSL_memdup(secret, secret_len);
        out->material_len = secret_len;
    }

    OPENSSL_cleanse(secret, sizeof(secret));

    if (out->material == NULL) {
        return tg_jwk_invalid(err, "k_sealed", "must hold at least 32 bytes");
    }

    return TG_JWK_OK;
}


static tg_jwk_status_e
tg_jwk_check_key_ops(const json_t *ops, tg_error_t *err)
{
    size_t         i, j;
    int            verify;
    const json_t  *op;

    if (!json_is_array(ops) || json_array_size(ops) > 16) {
        return tg_jwk_invalid(err, "key_ops", "must be an array of operations");
    }

    verify = 0;

    json_array_foreach(ops, i, op) {
        if (!json_is_string(op)) {
            return tg_jwk_invalid(err, "key_ops", "must hold strings");
        }

        for (j = 0; j < i; j++) {
            if (json_equal(op, json_array_get(ops, j))) {
                return tg_jwk_invalid(err, "key_ops", "must not repeat itself");
            }
        }

        verify |= strcmp(json_string_value(op), "verify") == 0;
    }

    return verify ? TG_JWK_OK
                  : tg_jwk_ignored(err, "key_ops", "does not allow to verify");
}


/* What every type has in common: what the key may be used for. */
static tg_jwk_status_e
tg_jwk_check_use(const json_t *jwk, tg_error_t *err)
{
    size_t             len;
    const char        *use;
    const json_t      *value;
    const char *const *name;

    for (name = tg_jwk_private; *name != NULL; name++) {
        if (json_object_get(jwk, *name) != NULL) {
            return tg_jwk_invalid(err, *name, "is private and must not be here");
        }
    }

    if (json_object_get(jwk, "use") != NULL) {
        use = tg_jwk_string(jwk, "use", &len);
        if (use == NULL) {
            return tg_jwk_invalid(err, "use", "must be a string");
        }

        if (len != 3 || memcmp(use, "sig", 3) != 0) {
            return tg_jwk_ignored(err, "use", "is not \"sig\"");
        }
    }

    value = json_object_get(jwk, "key_ops");

    return value != NULL ? tg_jwk_check_key_ops(value, err) : TG_JWK_OK;
}


/* Cuts out->algorithms down to what "alg" and the issuer allow. */
static tg_jwk_status_e
tg_jwk_pin(const json_t *jwk, uint32_t issuer_algorithms, tg_jwk_t *out,
    tg_error_t *err)
{
    size_t       len;
    uint32_t     bit;
    const char  *alg;

    if (json_object_get(jwk, "alg") != NULL) {
        alg = tg_jwk_string(jwk, "alg", &len);
        if (alg == NULL) {
            return tg_jwk_invalid(err, "alg", "must be a string");
        }

        bit = tg_alg_parse(alg, len);
        if (bit == 0) {
            return tg_jwk_ignored(err, "alg", "is not one that is verified");
        }

        if ((out->algorithms & bit) == 0) {
            return tg_jwk_invalid(err, "alg", "does not go with the key's type, "
                                  "curve or length");
        }

        out->algorithms = bit;
    }

    out->algorithms &= issuer_algorithms;

    return out->algorithms != 0
           ? TG_JWK_OK
           : tg_jwk_ignored(err, "", "serves no algorithm of its issuer");
}


static tg_jwk_status_e
tg_jwk_take_kid(const json_t *jwk, tg_jwk_t *out, tg_error_t *err)
{
    size_t       len;
    const char  *kid;

    if (json_object_get(jwk, "kid") == NULL) {
        return TG_JWK_OK;
    }

    kid = tg_jwk_string(jwk, "kid", &len);

    if (kid == NULL || len == 0 || len > TG_JWK_MAX_KID
        || memchr(kid, '\0', len) != NULL)
    {
        return tg_jwk_invalid(err, "kid", "must be a string of 1 to 256 bytes");
    }

    out->kid = OPENSSL_strdup(kid);
    out->kid_len = len;

    return out->kid != NULL ? TG_JWK_OK
                            : tg_jwk_invalid(err, "", "out of memory");
}


static const tg_jwk_type_t *
tg_jwk_type(const char *kty, size_t len)
{
    const tg_jwk_type_t  *type;

    for (type = tg_jwk_types; type->kty != NULL; type++) {
        if (strlen(type->kty) == len && memcmp(type->kty, kty, len) == 0) {
            return type;
        }
    }

    return NULL;
}


tg_jwk_status_e
tg_jwk_parse(const json_t *jwk, uint32_t issuer_algorithms,
    const uint8_t secret_key[32], tg_jwk_t *out, tg_error_t *err)
{
    size_t                len;
    const char           *kty;
    tg_jwk_status_e       rc;
    const tg_jwk_type_t  *type;

    memset(out, 0, sizeof(*out));

    if (!json_is_object(jwk)) {
        return tg_jwk_invalid(err, "", "must be an object");
    }

    kty = tg_jwk_string(jwk, "kty", &len);
    if (kty == NULL) {
        return tg_jwk_invalid(err, "kty", "must be a string");
    }

    rc = tg_jwk_check_use(jwk, err);
    if (rc != TG_JWK_OK) {
        return rc;
    }

    type = tg_jwk_type(kty, len);
    if (type == NULL) {
        return tg_jwk_ignored(err, "kty", "is not a type that is supported");
    }

    /* a refused key must not leave errors for the next user of the queue */
    ERR_set_mark();
    rc = type->parse(jwk, secret_key, out, err);
    ERR_pop_to_mark();

    if (rc == TG_JWK_OK) {
        rc = tg_jwk_pin(jwk, issuer_algorithms, out, err);
    }

    if (rc == TG_JWK_OK) {
        rc = tg_jwk_take_kid(jwk, out, err);
    }

    if (rc != TG_JWK_OK) {
        tg_jwk_clear(out);
    }

    return rc;
}


void
tg_jwk_clear(tg_jwk_t *jwk)
{
    OPENSSL_free(jwk->kid);
    OPENSSL_clear_free(jwk->material, jwk->material_len);
    memset(jwk, 0, sizeof(*jwk));
}


static int
tg_jwk_same_name(const tg_jwk_t *a, const tg_jwk_t *b)
{
    return a->kid != NULL && b->kid != NULL && a->kid_len == b->kid_len
           && memcmp(a->kid, b->kid, a->kid_len) == 0
           && (a->algorithms & b->algorithms) != 0;
}


tg_jwk_status_e
tg_jwk_set_parse(const json_t *keys, uint32_t issuer_algorithms,
    const uint8_t secret_key[32], tg_jwk_t *out, size_t max, size_t *n,
    tg_error_t *err)
{
    size_t            i, j;
    tg_jwk_status_e   rc;

    *n = 0;

    if (!json_is_array(keys)) {
        return tg_jwk_invalid(err, "", "set must be an array of keys");
    }

    for (i = 0; i < json_array_size(keys); i++) {

        if (*n == max) {
            rc = tg_jwk_invalid(err, "", "set has too many keys");
            goto invalid;
        }

        rc = tg_jwk_parse(json_array_get(keys, i), issuer_algorithms,
                          secret_key, &out[*n], err);

        if (rc == TG_JWK_IGNORED) {
            continue;
        }

        if (rc != TG_JWK_OK) {
            goto invalid;
        }

        (*n)++;

        for (j = 0; j + 1 < *n; j++) {
            if (tg_jwk_same_name(&out[j], &out[*n - 1])) {
                tg_jwk_invalid(err, "kid", "is that of another key for the same "
                               "algorithm");
                goto invalid;
            }
        }
    }

    return TG_JWK_OK;

invalid:

    tg_error_prefix(err, "/%zu", i);

    while (*n > 0) {
        tg_jwk_clear(&out[--*n]);
    }

    return TG_JWK_INVALID;
}
