/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "tg_jwk.h"
#include "token.h"


static token_key_t  rsa, es256, es384, es512, ed25519, hs256, hs512;


static int
make_keys(void **state)
{
    (void) state;

    rsa = token_key_new(TG_ALG_RS256);
    es256 = token_key_new(TG_ALG_ES256);
    es384 = token_key_new(TG_ALG_ES384);
    es512 = token_key_new(TG_ALG_ES512);
    ed25519 = token_key_new(TG_ALG_EDDSA);
    hs256 = token_key_new(TG_ALG_HS256);
    hs512 = token_key_new(TG_ALG_HS512);

    return 0;
}


static int
free_keys(void **state)
{
    (void) state;

    token_key_free(&rsa);
    token_key_free(&es256);
    token_key_free(&es384);
    token_key_free(&es512);
    token_key_free(&ed25519);

    return 0;
}


/* Parses a JWK with one member replaced (value NULL: removed). */
static tg_jwk_status_e
parse_with(const token_key_t *key, const char *member, json_t *value,
    uint32_t issuer, tg_jwk_t *out, tg_error_t *err)
{
    json_t           *jwk;
    tg_jwk_status_e   rc;

    jwk = token_jwk(key, "k1");

    if (value != NULL) {
        json_object_set_new(jwk, member, value);
    } else if (member != NULL) {
        json_object_del(jwk, member);
    }

    memset(err, 0, sizeof(*err));
    rc = tg_jwk_parse(jwk, issuer, token_master, out, err);
    json_decref(jwk);

    /* nothing is left for the next user of OpenSSL's queue */
    assert_int_equal(ERR_peek_error(), 0);

    if (rc != TG_JWK_OK) {
        assert_null(out->material);
        assert_null(out->kid);
        assert_true(err->message[0] != '\0');
    }

    return rc;
}


static tg_jwk_status_e
try_with(const token_key_t *key, const char *member, json_t *value)
{
    tg_jwk_t          out;
    tg_error_t        err;
    tg_jwk_status_e   rc;

    rc = parse_with(key, member, value, TG_ALG_ANY, &out, &err);

    if (rc == TG_JWK_OK) {
        tg_jwk_clear(&out);
    }

    return rc;
}


static void
test_types(void **state)
{
    size_t      i;
    uint8_t    *der;
    int         len;
    tg_jwk_t    out;
    tg_error_t  err;

    const struct {
        token_key_t  *key;
        uint32_t      algorithms;
    } cases[] = {
        { &rsa, TG_ALG_ANY_RSA },
        { &es256, TG_ALG_ES256 },
        { &es384, TG_ALG_ES384 },
        { &es512, TG_ALG_ES512 },
        { &ed25519, TG_ALG_EDDSA },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse_with(cases[i].key, NULL, NULL, TG_ALG_ANY, &out,
                                    &err), TG_JWK_OK);
        assert_int_equal(out.algorithms, cases[i].algorithms);
        assert_int_equal(out.hmac, 0);
        assert_string_equal(out.kid, "k1");
        assert_int_equal(out.kid_len, 2);

        der = NULL;
        len = i2d_PUBKEY(cases[i].key->pkey, &der);
        assert_int_equal(out.material_len, len);
        assert_memory_equal(out.material, der, (size_t) len);

        OPENSSL_free(der);
        tg_jwk_clear(&out);
        assert_null(out.material);
    }
}


static void
test_secret(void **state)
{
    tg_jwk_t    out;
    tg_error_t  err;

    (void) state;

    assert_int_equal(parse_with(&hs512, NULL, NULL, TG_ALG_ANY, &out, &err),
                     TG_JWK_OK);
    assert_int_equal(out.algorithms, TG_ALG_ANY_HMAC);
    assert_int_equal(out.hmac, 1);
    assert_int_equal(out.material_len, 64);
    assert_memory_equal(out.material, hs512.secret, 64);
    tg_jwk_clear(&out);

    /* RFC 7518 section 3.2: 32 bytes are enough for one algorithm only */
    assert_int_equal(parse_with(&hs256, NULL, NULL, TG_ALG_ANY, &out, &err),
                     TG_JWK_OK);
    assert_int_equal(out.algorithms, TG_ALG_HS256);
    tg_jwk_clear(&out);

    assert_int_equal(try_with(&hs256, "alg", json_string("HS512")),
                     TG_JWK_INVALID);
}


static void
test_secret_refused(void **state)
{
    json_t      *jwk;
    tg_jwk_t     out;
    tg_error_t   err;
    token_key_t  weak;

    (void) state;

    weak = token_key_new(TG_ALG_HS256);
    weak.secret_len = 31;
    assert_int_equal(try_with(&weak, NULL, NULL), TG_JWK_INVALID);

    assert_int_equal(try_with(&hs256, "k_sealed", NULL), TG_JWK_INVALID);
    assert_int_equal(try_with(&hs256, "k_sealed", json_string("")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&hs256, "k_sealed", json_string("tg1.x.y")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&hs256, "k_sealed", json_integer(1)),
                     TG_JWK_INVALID);

    /* in the clear */
    assert_int_equal(try_with(&hs256, "k", json_string("AAAA")),
                     TG_JWK_INVALID);

    /* no key here to open it */
    jwk = token_jwk(&hs256, NULL);
    assert_int_equal(tg_jwk_parse(jwk, TG_ALG_ANY, NULL, &out, &err),
                     TG_JWK_INVALID);
    assert_string_equal(err.pointer, "/k_sealed");

    /* the wrong one */
    assert_int_equal(tg_jwk_parse(jwk, TG_ALG_ANY,
                                  (const uint8_t *) "another key, also of 32 "
                                  "bytes...", &out, &err), TG_JWK_INVALID);
    json_decref(jwk);
}


static void
test_pinning(void **state)
{
    tg_jwk_t    out;
    tg_error_t  err;

    (void) state;

    /* "alg" leaves one */
    assert_int_equal(parse_with(&rsa, "alg", json_string("PS384"), TG_ALG_ANY,
                                &out, &err), TG_JWK_OK);
    assert_int_equal(out.algorithms, TG_ALG_PS384);
    tg_jwk_clear(&out);

    /* the issuer's list cuts */
    assert_int_equal(parse_with(&rsa, NULL, NULL, TG_ALG_RS256 | TG_ALG_HS256,
                                &out, &err), TG_JWK_OK);
    assert_int_equal(out.algorithms, TG_ALG_RS256);
    tg_jwk_clear(&out);

    /* nothing in common */
    assert_int_equal(parse_with(&rsa, NULL, NULL, TG_ALG_ANY_HMAC, &out, &err),
                     TG_JWK_IGNORED);
    assert_int_equal(parse_with(&es256, NULL, NULL, TG_ALG_ES384, &out, &err),
                     TG_JWK_IGNORED);
    assert_int_equal(parse_with(&rsa, "alg", json_string("PS384"),
                                TG_ALG_RS256, &out, &err), TG_JWK_IGNORED);
    assert_int_equal(parse_with(&rsa, NULL, NULL, 0, &out, &err),
                     TG_JWK_IGNORED);
}


/* A public key never leaves with an algorithm of the other kind, whatever "alg"
 * and the issuer say. */
static void
test_no_confusion(void **state)
{
    size_t  i;

    static const char *const  names[] = { "HS256", "HS384", "HS512" };

    (void) state;

    for (i = 0; i < 3; i++) {
        assert_int_equal(try_with(&rsa, "alg", json_string(names[i])),
                         TG_JWK_INVALID);
        assert_int_equal(try_with(&es256, "alg", json_string(names[i])),
                         TG_JWK_INVALID);
        assert_int_equal(try_with(&ed25519, "alg", json_string(names[i])),
                         TG_JWK_INVALID);
    }

    assert_int_equal(try_with(&hs512, "alg", json_string("RS256")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "alg", json_string("ES384")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "alg", json_string("ES256")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&ed25519, "alg", json_string("ES256")),
                     TG_JWK_INVALID);
}


static json_t *
ops(const char *a, const char *b)
{
    json_t  *array;

    array = json_array();
    json_array_append_new(array, json_string(a));

    if (b != NULL) {
        json_array_append_new(array, json_string(b));
    }

    return array;
}


static void
test_use(void **state)
{
    (void) state;

    assert_int_equal(try_with(&rsa, "use", json_string("sig")), TG_JWK_OK);
    assert_int_equal(try_with(&rsa, "use", json_string("enc")), TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "use", json_string("SIG")), TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "use", json_string("")), TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "use", json_null()), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "use", json_array()), TG_JWK_INVALID);

    assert_int_equal(try_with(&rsa, "key_ops", ops("verify", NULL)),
                     TG_JWK_OK);
    assert_int_equal(try_with(&rsa, "key_ops", ops("sign", "verify")),
                     TG_JWK_OK);
    assert_int_equal(try_with(&rsa, "key_ops", ops("encrypt", NULL)),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "key_ops", json_array()), TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "key_ops", ops("verify", "verify")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "key_ops", json_string("verify")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "key_ops", json_pack("[i]", 1)),
                     TG_JWK_INVALID);

    assert_int_equal(try_with(&rsa, "alg", json_string("RSA-OAEP")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "alg", json_string("none")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "alg", json_string("rs256")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "alg", json_string("RS2567")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "alg", json_integer(256)), TG_JWK_INVALID);

    assert_int_equal(try_with(&rsa, "kty", json_string("AKP")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "kty", json_string("rsa")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&rsa, "kty", NULL), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "kty", json_true()), TG_JWK_INVALID);

    /* what we do not know is none of our business */
    assert_int_equal(try_with(&rsa, "x5c", json_array()), TG_JWK_OK);
}


static void
test_private(void **state)
{
    size_t      i;
    tg_jwk_t    out;
    tg_error_t  err;

    static const char *const  members[] = {
        "d", "p", "q", "dp", "dq", "qi", "oth", "k"
    };

    (void) state;

    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        assert_int_equal(parse_with(&rsa, members[i], json_string("AQAB"),
                                    TG_ALG_ANY, &out, &err), TG_JWK_INVALID);
        assert_int_equal(err.pointer[0], '/');
        assert_string_equal(err.pointer + 1, members[i]);
    }

    assert_int_equal(try_with(&es256, "d", json_string("AQAB")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&ed25519, "d", json_null()), TG_JWK_INVALID);
}


/* A modulus of so many bits; odd, or with its last bit cleared. */
static json_t *
modulus(int bits, int odd)
{
    BIGNUM   *n;
    json_t   *text;
    uint8_t   bytes[2048];

    n = BN_new();
    BN_rand(n, bits, BN_RAND_TOP_ONE,
            odd ? BN_RAND_BOTTOM_ODD : BN_RAND_BOTTOM_ANY);

    if (!odd) {
        BN_clear_bit(n, 0);
    }

    text = token_b64(bytes, (size_t) BN_bn2bin(n, bytes));
    BN_free(n);

    return text;
}


static void
test_rsa_bounds(void **state)
{
    size_t  i;

    static const struct {
        int              bits;
        int              odd;
        tg_jwk_status_e  rc;
    } moduli[] = {
        { 2048, 1, TG_JWK_OK },
        { 8192, 1, TG_JWK_OK },
        { 3072, 1, TG_JWK_OK },
        { 2047, 1, TG_JWK_INVALID },
        { 1024, 1, TG_JWK_INVALID },
        { 512, 1, TG_JWK_INVALID },
        { 8193, 1, TG_JWK_INVALID },
        { 16384, 1, TG_JWK_INVALID },
        { 2048, 0, TG_JWK_INVALID },
    };

    static const struct {
        const char      *e;
        tg_jwk_status_e  rc;
    } exponents[] = {
        { "AQAB", TG_JWK_OK },                  /* 65537 */
        { "Aw", TG_JWK_OK },                    /* 3 */
        { "AAEAAQ", TG_JWK_OK },                /* a zero in front */
        { "AQ", TG_JWK_INVALID },               /* 1: everything verifies */
        { "AA", TG_JWK_INVALID },               /* 0 */
        { "", TG_JWK_INVALID },
        { "Ag", TG_JWK_INVALID },               /* 2 */
        { "AQAA", TG_JWK_INVALID },             /* 65536 */
        { "AQAB=", TG_JWK_INVALID },
        { "AQA+", TG_JWK_INVALID },
        { "AQAAAAAAAAAB", TG_JWK_INVALID },     /* 65 bits */
    };

    (void) state;

    for (i = 0; i < sizeof(moduli) / sizeof(moduli[0]); i++) {
        assert_int_equal(try_with(&rsa, "n", modulus(moduli[i].bits,
                                                     moduli[i].odd)),
                         moduli[i].rc);
    }

    for (i = 0; i < sizeof(exponents) / sizeof(exponents[0]); i++) {
        assert_int_equal(try_with(&rsa, "e", json_string(exponents[i].e)),
                         exponents[i].rc);
    }

    assert_int_equal(try_with(&rsa, "n", NULL), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "e", NULL), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "n", json_integer(7)), TG_JWK_INVALID);
}


static void
test_points(void **state)
{
    json_t   *jwk, *y;
    uint8_t   zero[66];

    (void) state;

    memset(zero, 0, sizeof(zero));

    /* off the curve */
    jwk = token_jwk(&es256, NULL);
    y = json_incref(json_object_get(jwk, "x"));
    json_decref(jwk);
    assert_int_equal(try_with(&es256, "y", y), TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "y", token_b64(zero, 32)),
                     TG_JWK_INVALID);

    /* not in full length */
    assert_int_equal(try_with(&es256, "x", token_b64(zero, 31)),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "x", token_b64(zero, 33)),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&es512, "y", token_b64(zero, 65)),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "x", json_string("")), TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "x", NULL), TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "y", NULL), TG_JWK_INVALID);

    /* another curve than the point's, or one that no algorithm has */
    assert_int_equal(try_with(&es256, "crv", json_string("P-384")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&es256, "crv", json_string("secp256k1")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&es256, "crv", json_string("Ed25519")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&es256, "crv", NULL), TG_JWK_INVALID);

    assert_int_equal(try_with(&ed25519, "crv", json_string("X25519")),
                     TG_JWK_IGNORED);
    assert_int_equal(try_with(&ed25519, "crv", json_string("Ed448")),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&ed25519, "x", token_b64(zero, 31)),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&ed25519, "x", NULL), TG_JWK_INVALID);
}


static void
test_kid(void **state)
{
    char        name[300];
    tg_jwk_t    out;
    tg_error_t  err;

    (void) state;

    memset(name, 'k', sizeof(name));

    assert_int_equal(parse_with(&rsa, "kid", NULL, TG_ALG_ANY, &out, &err),
                     TG_JWK_OK);
    assert_null(out.kid);
    tg_jwk_clear(&out);

    assert_int_equal(try_with(&rsa, "kid", json_stringn(name, 256)), TG_JWK_OK);
    assert_int_equal(try_with(&rsa, "kid", json_stringn(name, 257)),
                     TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "kid", json_string("")), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "kid", json_integer(1)), TG_JWK_INVALID);
    assert_int_equal(try_with(&rsa, "kid", json_stringn("a\0b", 3)),
                     TG_JWK_INVALID);
}


static void
test_not_an_object(void **state)
{
    json_t      *value;
    tg_jwk_t     out;
    tg_error_t   err;

    (void) state;

    value = json_array();
    assert_int_equal(tg_jwk_parse(value, TG_ALG_ANY, NULL, &out, &err),
                     TG_JWK_INVALID);
    assert_int_equal(tg_jwk_parse(NULL, TG_ALG_ANY, NULL, &out, NULL),
                     TG_JWK_INVALID);
    json_decref(value);
}


/* Takes jwk over. */
static json_t *
with(json_t *jwk, const char *member, const char *value)
{
    json_object_set_new(jwk, member, json_string(value));

    return jwk;
}


static tg_jwk_status_e
parse_set(json_t *set, size_t max, size_t *n, tg_error_t *err)
{
    size_t            i;
    tg_jwk_t          out[8];
    tg_jwk_status_e   rc;

    rc = tg_jwk_set_parse(set, TG_ALG_ANY, token_master, out, max, n, err);
    json_decref(set);

    for (i = 0; i < *n; i++) {
        tg_jwk_clear(&out[i]);
    }

    return rc;
}


static void
test_set(void **state)
{
    size_t      n;
    tg_error_t  err;

    (void) state;

    /* what is not for us is left out */
    assert_int_equal(parse_set(json_pack("[o,o,o]", token_jwk(&rsa, "a"),
                                         with(token_jwk(&rsa, "b"), "use",
                                              "enc"),
                                         token_jwk(&es256, "c")),
                               8, &n, &err), TG_JWK_OK);
    assert_int_equal(n, 2);

    assert_int_equal(parse_set(json_array(), 8, &n, &err), TG_JWK_OK);
    assert_int_equal(n, 0);

    /* what is wrong is not */
    assert_int_equal(parse_set(json_pack("[o,o]", token_jwk(&rsa, "a"),
                                         with(token_jwk(&rsa, "b"), "d",
                                              "AQAB")),
                               8, &n, &err), TG_JWK_INVALID);
    assert_int_equal(n, 0);
    assert_string_equal(err.pointer, "/1/d");

    assert_int_equal(parse_set(json_object(), 8, &n, &err), TG_JWK_INVALID);
    assert_int_equal(parse_set(json_pack("[o,o]", token_jwk(&rsa, "a"),
                                         token_jwk(&es256, "b")),
                               1, &n, &err), TG_JWK_INVALID);
    assert_int_equal(n, 0);
}


static void
test_set_same_kid(void **state)
{
    size_t      n;
    tg_error_t  err;

    (void) state;

    assert_int_equal(parse_set(json_pack("[o,o]", token_jwk(&rsa, "a"),
                                         token_jwk(&rsa, "a")),
                               8, &n, &err), TG_JWK_INVALID);
    assert_string_equal(err.pointer, "/1/kid");
    assert_int_equal(n, 0);

    /* kid and algorithm together still name one key */
    assert_int_equal(parse_set(json_pack("[o,o]", token_jwk(&rsa, "a"),
                                         token_jwk(&es256, "a")),
                               8, &n, &err), TG_JWK_OK);
    assert_int_equal(parse_set(json_pack("[o,o]",
                                         with(token_jwk(&rsa, "a"), "alg",
                                              "RS256"),
                                         with(token_jwk(&rsa, "a"), "alg",
                                              "PS256")),
                               8, &n, &err), TG_JWK_OK);

    /* without kid there may be several */
    assert_int_equal(parse_set(json_pack("[o,o]", token_jwk(&rsa, NULL),
                                         token_jwk(&rsa, NULL)),
                               8, &n, &err), TG_JWK_OK);
    assert_int_equal(n, 2);
}


static void
test_names(void **state)
{
    size_t    i;
    uint32_t  bit;

    static const char *const  others[] = {
        "", "none", "NONE", "None", "nonee", "RS25", "rs256", "RS2566",
        "ES256K", "EDDSA", "eddsa", "HS256 ", "RSA-OAEP", "dir"
    };

    (void) state;

    for (bit = 1; bit <= TG_ALG_EDDSA; bit <<= 1) {
        assert_non_null(tg_alg_name(bit));
        assert_int_equal(tg_alg_parse(tg_alg_name(bit), 5), bit);
    }

    assert_null(tg_alg_name(0));
    assert_null(tg_alg_name(3));
    assert_null(tg_alg_name(TG_ALG_EDDSA << 1));

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(tg_alg_parse(others[i], strlen(others[i])), 0);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_secret),
        cmocka_unit_test(test_secret_refused),
        cmocka_unit_test(test_pinning),
        cmocka_unit_test(test_no_confusion),
        cmocka_unit_test(test_use),
        cmocka_unit_test(test_private),
        cmocka_unit_test(test_rsa_bounds),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_kid),
        cmocka_unit_test(test_not_an_object),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_same_kid),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
