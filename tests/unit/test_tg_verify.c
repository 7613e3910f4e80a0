/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "tg_verify.h"
#include "token.h"


static tg_crypto_t  *crypto;

static const char  data[] = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0";

static const uint32_t  algorithms[] = {
    TG_ALG_RS256, TG_ALG_RS384, TG_ALG_RS512,
    TG_ALG_PS256, TG_ALG_PS384, TG_ALG_PS512,
    TG_ALG_ES256, TG_ALG_ES384, TG_ALG_ES512,
    TG_ALG_HS256, TG_ALG_HS384, TG_ALG_HS512, TG_ALG_EDDSA
};

#define N_ALGORITHMS  (sizeof(algorithms) / sizeof(algorithms[0]))

static token_key_t  keys[N_ALGORITHMS];     /* in their order */


static int
setup(void **state)
{
    size_t  i;

    (void) state;

    crypto = tg_crypto_create();
    assert_non_null(crypto);

    for (i = 0; i < N_ALGORITHMS; i++) {
        keys[i] = token_key_new(algorithms[i]);
    }

    return 0;
}


static int
teardown(void **state)
{
    size_t  i;

    (void) state;

    for (i = 0; i < N_ALGORITHMS; i++) {
        token_key_free(&keys[i]);
    }

    tg_crypto_destroy(crypto);

    return 0;
}


static tg_verifier_t *
verifier_for(const token_key_t *key, uint32_t alg)
{
    int             len;
    uint8_t        *der;
    tg_verifier_t  *verifier;

    if (key->pkey == NULL) {
        return tg_verifier_create(crypto, alg, key->secret, key->secret_len, 1);
    }

    der = NULL;
    len = i2d_PUBKEY(key->pkey, &der);
    verifier = tg_verifier_create(crypto, alg, der, (size_t) len, 0);
    OPENSSL_free(der);

    assert_int_equal(ERR_peek_error(), 0);

    return verifier;
}


static void
test_each_algorithm(void **state)
{
    int             round;
    size_t          i, j, len;
    uint8_t         signature[1024];
    tg_verifier_t  *verifier;

    (void) state;

    for (i = 0; i < N_ALGORITHMS; i++) {
        verifier = verifier_for(&keys[i], algorithms[i]);
        assert_non_null(verifier);

        /* again and again: nothing of one use is left in the next */
        for (round = 0; round < 3; round++) {
            len = token_signature(&keys[i], data, strlen(data), signature);

            assert_int_equal(tg_verifier_check(verifier, data, strlen(data),
                                               signature, len), 1);
            assert_int_equal(tg_verifier_check(verifier, data,
                                               strlen(data) - 1, signature,
                                               len), 0);
            assert_int_equal(tg_verifier_check(verifier, data, strlen(data),
                                               signature, len - 1), 0);
            assert_int_equal(tg_verifier_check(verifier, data, strlen(data),
                                               signature, 0), 0);

            for (j = 0; j < len; j += 1 + len / 16) {
                signature[j] ^= 0x10;
                assert_int_equal(tg_verifier_check(verifier, data,
                                                   strlen(data), signature,
                                                   len), 0);
                signature[j] ^= 0x10;
            }

            assert_int_equal(ERR_peek_error(), 0);
        }

        tg_verifier_destroy(verifier);
    }
}


/* A key is taken for the algorithms of its type and curve, and for no other:
 * the public key of RS256 is no secret for HS256. */
static void
test_type_confusion(void **state)
{
    int             same;
    size_t          i, j;
    tg_verifier_t  *verifier;

    (void) state;

    for (i = 0; i < N_ALGORITHMS; i++) {
        for (j = 0; j < N_ALGORITHMS; j++) {
            verifier = verifier_for(&keys[i], algorithms[j]);

            same = algorithms[i] == algorithms[j]
                   || ((algorithms[i] & TG_ALG_ANY_RSA)
                       && (algorithms[j] & TG_ALG_ANY_RSA))
                   || ((algorithms[i] & TG_ALG_ANY_HMAC)
                       && (algorithms[j] & TG_ALG_ANY_HMAC)
                       && algorithms[j] <= algorithms[i]);

            assert_int_equal(verifier != NULL, same);
            tg_verifier_destroy(verifier);
        }
    }
}


static void
test_material(void **state)
{
    int       len;
    uint8_t  *der, *copy;

    (void) state;

    der = NULL;
    len = i2d_PUBKEY(keys[0].pkey, &der);

    /* as the flag says, whatever the algorithm would like */
    assert_null(tg_verifier_create(crypto, TG_ALG_HS256, der, (size_t) len, 0));
    assert_null(tg_verifier_create(crypto, TG_ALG_RS256, der, (size_t) len, 1));
    assert_null(tg_verifier_create(crypto, TG_ALG_RS256, keys[9].secret, 32,
                                   1));

    /* cut short, or with something behind it */
    assert_null(tg_verifier_create(crypto, TG_ALG_RS256, der, (size_t) len - 1,
                                   0));
    copy = calloc(1, (size_t) len + 1);
    memcpy(copy, der, (size_t) len);
    assert_null(tg_verifier_create(crypto, TG_ALG_RS256, copy,
                                   (size_t) len + 1, 0));
    free(copy);

    /* not exactly one algorithm */
    assert_null(tg_verifier_create(crypto, 0, der, (size_t) len, 0));
    assert_null(tg_verifier_create(crypto, TG_ALG_RS256 | TG_ALG_RS384, der,
                                   (size_t) len, 0));
    assert_null(tg_verifier_create(crypto, 1 << 13, der, (size_t) len, 0));
    OPENSSL_free(der);

    /* RFC 7518 section 3.2 */
    assert_null(tg_verifier_create(crypto, TG_ALG_HS256, keys[9].secret, 31,
                                   1));
    assert_int_equal(ERR_peek_error(), 0);
}


/* A right signature of one algorithm is none of another of the same key. */
static void
test_algorithm_of_signature(void **state)
{
    size_t          i, j, len;
    uint8_t         signature[1024];
    token_key_t     key;
    tg_verifier_t  *verifier;

    (void) state;

    for (i = 0; i < 6; i++) {
        key = keys[0];
        key.alg = algorithms[i];
        len = token_signature(&key, data, strlen(data), signature);

        for (j = 0; j < 6; j++) {
            verifier = verifier_for(&keys[0], algorithms[j]);
            assert_int_equal(tg_verifier_check(verifier, data, strlen(data),
                                               signature, len), i == j);
            tg_verifier_destroy(verifier);
        }
    }
}


static void
ecdsa_order(const token_key_t *key, uint8_t *order, int len)
{
    BIGNUM  *bn;

    bn = NULL;
    EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_EC_ORDER, &bn);
    assert_int_equal(BN_bn2binpad(bn, order, len), len);
    BN_free(bn);
}


/* r and s from 1 to n - 1 only: "psychic signatures" (CVE-2022-21449) and their
 * like. */
static void
test_ecdsa_range(void **state)
{
    size_t          i, half, len;
    uint8_t         good[1024], bad[1024];
    tg_verifier_t  *verifier;

    (void) state;

    for (i = 6; i < 9; i++) {
        verifier = verifier_for(&keys[i], algorithms[i]);
        len = token_signature(&keys[i], data, strlen(data), good);
        half = len / 2;

        memset(bad, 0, len);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);
        memset(bad, 0xff, len);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);

        memcpy(bad, good, len);
        memset(bad, 0, half);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);

        memcpy(bad, good, len);
        memset(bad + half, 0, half);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);

        memcpy(bad, good, len);
        ecdsa_order(&keys[i], bad, (int) half);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);

        memcpy(bad, good, len);
        ecdsa_order(&keys[i], bad + half, (int) half);
        assert_int_equal(tg_verifier_check(verifier, data, strlen(data), bad,
                                           len), 0);

        tg_verifier_destroy(verifier);
    }
}


/* Adding the order to r leaves it the same number modulo n: another text for
 * one signature.  P-521 has the spare bits for it. */
static void
test_ecdsa_malleability(void **state)
{
    int             carry;
    size_t          i, len;
    uint8_t         signature[1024], order[66];
    tg_verifier_t  *verifier;

    (void) state;

    verifier = verifier_for(&keys[8], TG_ALG_ES512);
    len = token_signature(&keys[8], data, strlen(data), signature);
    ecdsa_order(&keys[8], order, 66);

    for (i = 66, carry = 0; i-- > 0; /* void */ ) {
        carry += signature[i] + order[i];
        signature[i] = (uint8_t) carry;
        carry >>= 8;
    }

    assert_int_equal(carry, 0);
    assert_int_equal(tg_verifier_check(verifier, data, strlen(data), signature,
                                       len), 0);
    tg_verifier_destroy(verifier);
}


/* What OpenSSL itself would take, RFC 7518 does not allow. */
static void
test_ecdsa_der_refused(void **state)
{
    size_t          len;
    uint8_t         der[1024];
    EVP_MD_CTX     *ctx;
    tg_verifier_t  *verifier;

    (void) state;

    verifier = verifier_for(&keys[6], TG_ALG_ES256);
    ctx = EVP_MD_CTX_new();
    len = sizeof(der);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL,
                                        keys[6].pkey), 1);
    assert_int_equal(EVP_DigestSign(ctx, der, &len, (const uint8_t *) data,
                                    strlen(data)), 1);
    EVP_MD_CTX_free(ctx);

    assert_int_equal(tg_verifier_check(verifier, data, strlen(data), der, len),
                     0);
    tg_verifier_destroy(verifier);
}


/* Many signatures, so that short r and s, and such with the high bit set, come
 * through the encoding. */
static void
test_ecdsa_encoding(void **state)
{
    int             i;
    size_t          len;
    uint8_t         signature[1024];
    tg_verifier_t  *verifier;

    (void) state;

    verifier = verifier_for(&keys[6], TG_ALG_ES256);

    for (i = 0; i < 600; i++) {
        len = token_signature(&keys[6], &i, sizeof(i), signature);
        assert_int_equal(tg_verifier_check(verifier, &i, sizeof(i), signature,
                                           len), 1);
    }

    tg_verifier_destroy(verifier);
}


static void
test_ed448(void **state)
{
    size_t          len;
    uint8_t         signature[1024];
    token_key_t     key;
    tg_verifier_t  *verifier;

    (void) state;

    memset(&key, 0, sizeof(key));
    key.alg = TG_ALG_EDDSA;
    key.pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");

    verifier = verifier_for(&key, TG_ALG_EDDSA);
    assert_non_null(verifier);
    len = token_signature(&key, data, strlen(data), signature);
    assert_int_equal(len, 114);
    assert_int_equal(tg_verifier_check(verifier, data, strlen(data), signature,
                                       len), 1);
    signature[3] ^= 1;
    assert_int_equal(tg_verifier_check(verifier, data, strlen(data), signature,
                                       len), 0);

    tg_verifier_destroy(verifier);
    token_key_free(&key);
}


/* Other curves of the same size are not P-256. */
static void
test_other_curve(void **state)
{
    token_key_t  key;

    (void) state;

    memset(&key, 0, sizeof(key));
    key.alg = TG_ALG_ES256;
    key.pkey = EVP_EC_gen("secp256k1");
    assert_non_null(key.pkey);
    assert_null(verifier_for(&key, TG_ALG_ES256));
    token_key_free(&key);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_each_algorithm),
        cmocka_unit_test(test_type_confusion),
        cmocka_unit_test(test_material),
        cmocka_unit_test(test_algorithm_of_signature),
        cmocka_unit_test(test_ecdsa_range),
        cmocka_unit_test(test_ecdsa_malleability),
        cmocka_unit_test(test_ecdsa_der_refused),
        cmocka_unit_test(test_ecdsa_encoding),
        cmocka_unit_test(test_ed448),
        cmocka_unit_test(test_other_curve),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
