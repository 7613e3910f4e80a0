/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "td_jwks.h"
#include "td_keys.h"
#include "tg_jwk.h"
#include "tg_secret.h"


static const uint8_t  secret_key[TG_SECRET_KEY_SIZE] = { 1, 2, 3 };


static char *
pem_of(EVP_PKEY *key, int private)
{
    BIO   *bio;
    char  *data, *text;
    long   len;

    bio = BIO_new(BIO_s_mem());
    assert_int_equal(private ? PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0,
                                                        NULL, NULL)
                             : PEM_write_bio_PUBKEY(bio, key), 1);
    len = BIO_get_mem_data(bio, &data);
    text = strndup(data, (size_t) len);
    BIO_free(bio);

    return text;
}


static EVP_PKEY *
make_key(const char *type, const char *curve)
{
    EVP_PKEY  *key;

    key = strcmp(type, "EC") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, type, curve)
          : strcmp(type, "RSA") == 0
            ? EVP_PKEY_Q_keygen(NULL, NULL, type, (size_t) 2048)
            : EVP_PKEY_Q_keygen(NULL, NULL, type);
    assert_non_null(key);

    return key;
}


/* A body with one issuer that has one key. */
static json_t *
body_with(json_t *jwk)
{
    return json_pack("{s:s, s:[{s:s}, {s:{s:[o]}}]}", "name", "acme",
                     "issuers", "ref", "platform", "jwks", "keys", jwk);
}


static json_t *
key_of(const json_t *body)
{
    return json_array_get(json_object_get(json_object_get(
               json_array_get(json_object_get(body, "issuers"), 1), "jwks"),
               "keys"), 0);
}


/* PEM becomes a JWK from which a gateway gets the very same key. */
static void
test_pem(void **state)
{
    char            *pem;
    size_t           i;
    json_t          *body;
    EVP_PKEY        *key;
    tg_jwk_t         jwk;
    tg_error_t       err;
    unsigned char   *der;

    static const struct {
        const char  *type, *curve;
    } cases[] = {
        { "RSA", NULL }, { "EC", "P-256" }, { "EC", "P-384" },
        { "EC", "P-521" }, { "ED25519", NULL }, { "ED448", NULL }
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        key = make_key(cases[i].type, cases[i].curve);
        pem = pem_of(key, 0);
        body = body_with(json_pack("{s:s, s:s}", "kid", "k1", "pem", pem));

        if (td_keys_prepare(body, NULL, &err) != TD_KEYS_CHANGED) {
            fail_msg("%s %s: %s", cases[i].type,
                     cases[i].curve ? cases[i].curve : "", err.message);
        }

        assert_null(json_object_get(key_of(body), "pem"));

        /* not every curve serves an algorithm that gateways know */
        if (tg_jwk_parse(key_of(body), TG_ALG_ANY, NULL, &jwk, &err)
            == TG_JWK_OK)
        {
            der = NULL;
            assert_int_equal(i2d_PUBKEY(key, &der), jwk.material_len);
            assert_memory_equal(der, jwk.material, jwk.material_len);
            assert_string_equal(jwk.kid, "k1");
            OPENSSL_free(der);
            tg_jwk_clear(&jwk);

        } else {
            assert_string_equal(cases[i].type, "ED448");
        }

        json_decref(body);
        free(pem);
        EVP_PKEY_free(key);
    }
}


static void
test_bad_pem(void **state)
{
    char              *pem, *twice;
    size_t             i;
    json_t            *body;
    EVP_PKEY          *key;
    tg_error_t         err;
    td_keys_status_e   status;

    static const char *const  bad[] = {
        "", "x", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        body = body_with(json_pack("{s:s}", "pem", bad[i]));
        assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_INVALID);
        assert_string_equal(err.pointer, "/issuers/1/jwks/keys/0/pem");
        json_decref(body);
    }

    body = body_with(json_pack("{s:i}", "pem", 1));
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_INVALID);
    json_decref(body);

    key = make_key("EC", "P-256");
    pem = pem_of(key, 1);
    body = body_with(json_pack("{s:s}", "pem", pem));
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_PRIVATE);
    json_decref(body);
    free(pem);

    pem = pem_of(key, 0);
    assert_true(asprintf(&twice, "%s%s", pem, pem) > 0);
    body = body_with(json_pack("{s:s}", "pem", twice));
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_INVALID);
    json_decref(body);
    body = body_with(json_pack("{s:s, s:s}", "pem", pem, "kty", "EC"));
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_INVALID);
    json_decref(body);
    free(twice);
    free(pem);
    EVP_PKEY_free(key);

    for (i = 0; i < 2; i++) {
        key = i == 0 ? make_key("EC", "secp256k1") : make_key("X25519", NULL);
        pem = pem_of(key, 0);
        body = body_with(json_pack("{s:s}", "pem", pem));
        status = td_keys_prepare(body, NULL, &err);
        assert_int_equal(status, TD_KEYS_INVALID);
        assert_non_null(strstr(err.message, "not supported"));
        json_decref(body);
        free(pem);
        EVP_PKEY_free(key);
    }
}


static void
test_sealing(void **state)
{
    json_t      *body, *jwk;
    tg_jwk_t     parsed;
    tg_error_t   err;

    static const char  k[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    (void) state;

    body = body_with(json_pack("{s:s, s:s, s:s}", "kty", "oct", "kid", "s",
                               "k", k));
    assert_int_equal(td_keys_prepare(body, secret_key, &err), TD_KEYS_CHANGED);
    jwk = key_of(body);
    assert_null(json_object_get(jwk, "k"));
    assert_int_equal(tg_jwk_parse(jwk, TG_ALG_ANY, secret_key, &parsed, &err),
                     TG_JWK_OK);
    assert_int_equal(parsed.material_len, 32);
    assert_int_equal(parsed.material[31], 31);
    tg_jwk_clear(&parsed);

    /* what is sealed already stays; by another key it is found out */
    assert_int_equal(td_keys_prepare(body, secret_key, &err), TD_KEYS_SAME);
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_SAME);
    assert_int_equal(td_keys_prepare(body, (const uint8_t *)
                         "another key that has 32 bytes...", &err),
                     TD_KEYS_INVALID);
    json_decref(body);

    body = body_with(json_pack("{s:s, s:s}", "kty", "oct", "k", k));
    assert_int_equal(td_keys_prepare(body, NULL, &err), TD_KEYS_NO_SEALING);
    assert_string_equal(err.pointer, "/issuers/1/jwks/keys/0/k");
    json_decref(body);
}


static void
test_bad_secrets(void **state)
{
    char        *lots;
    size_t       i;
    json_t      *body;
    tg_error_t   err;

    static const char *const  bad[] = {
        "", "AA", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd/h8",
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        body = body_with(json_pack("{s:s, s:s}", "kty", "oct", "k", bad[i]));
        if (td_keys_prepare(body, secret_key, &err) != TD_KEYS_INVALID) {
            fail_msg("%s was sealed", bad[i]);
        }
        json_decref(body);
    }

    lots = malloc(100001);
    assert_non_null(lots);
    memset(lots, 'A', 100000);
    lots[100000] = '\0';
    body = body_with(json_pack("{s:s, s:s}", "kty", "oct", "k", lots));
    assert_int_equal(td_keys_prepare(body, secret_key, &err), TD_KEYS_INVALID);
    json_decref(body);
    free(lots);

    body = body_with(json_pack("{s:s, s:i}", "kty", "oct", "k", 1));
    assert_int_equal(td_keys_prepare(body, secret_key, &err), TD_KEYS_INVALID);
    json_decref(body);
}


static void
test_private_members(void **state)
{
    size_t       i;
    json_t      *body;
    tg_error_t   err;

    static const char *const  members[] = {
        "d", "p", "q", "dp", "dq", "qi", "oth"
    };

    (void) state;

    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        body = body_with(json_pack("{s:s, s:s}", "kty", "RSA", members[i],
                                   "AA"));
        assert_int_equal(td_keys_prepare(body, secret_key, &err),
                         TD_KEYS_PRIVATE);
        assert_string_equal(err.pointer, "/issuers/1/jwks/keys/0");
        json_decref(body);
    }
}


/* Other shapes are SQL's to refuse, with a better sentence. */
static void
test_other_shapes(void **state)
{
    size_t       i;
    json_t      *body;
    tg_error_t   err;

    static const char *const  shapes[] = {
        "{}", "[]", "[1]", "{\"issuers\": 1}", "{\"issuers\": [1, null]}",
        "{\"issuers\": [{\"jwks\": 1}]}", "{\"jwks\": []}",
        "{\"jwks\": {\"keys\": 1}}", "{\"jwks\": {\"keys\": [1, null, []]}}",
        "{\"keys\": [{\"k\": \"AA\"}]}"
    };

    (void) state;

    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        body = json_loads(shapes[i], 0, NULL);
        assert_non_null(body);
        if (td_keys_prepare(body, secret_key, &err) != TD_KEYS_SAME) {
            fail_msg("%s: %s", shapes[i], err.message);
        }
        json_decref(body);
    }
}


static void
test_fetched_sets(void **state)
{
    char    text[512], many[4096];
    size_t  i, n;

    static const struct {
        const char  *body;
        const char  *problem;   /* a part of it; NULL: none */
    } cases[] = {
        { "{\"keys\": []}", NULL },
        { "{\"keys\": [{\"kty\": \"RSA\", \"n\": \"x\", \"e\": \"AQAB\"}]}",
          NULL },
        { "", "not JSON" },
        { "<html>", "not JSON" },
        { "[]", "no array" },
        { "{}", "no array" },
        { "{\"keys\": {}}", "no array" },
        { "{\"keys\": [1]}", "keys/0 is not an object" },
        { "{\"keys\": [{}, {\"d\": \"x\"}]}", "keys/1 is not a public key" },
        { "{\"keys\": [{\"kty\": \"oct\", \"k\": \"x\"}]}", "not a public key" },
        { "{\"keys\": [{\"k_sealed\": \"x\"}]}", "not a public key" },
        { "{\"keys\": [], \"keys\": []}", "not JSON" },
        { "{\"keys\": [], \"a\": 1e999}", "not JSON" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char  *problem;

        problem = td_jwks_check(cases[i].body, strlen(cases[i].body), text,
                                sizeof(text));
        if ((problem == NULL) != (cases[i].problem == NULL)
            || (problem != NULL && strstr(problem, cases[i].problem) == NULL))
        {
            fail_msg("%s: %s", cases[i].body, problem ? problem : "taken");
        }
    }

    n = (size_t) sprintf(many, "{\"keys\": [{}");
    for (i = 1; i < 33; i++) {
        n += (size_t) sprintf(many + n, ",{}");
    }
    n += (size_t) sprintf(many + n, "]}");
    assert_non_null(strstr(td_jwks_check(many, n, text, sizeof(text)),
                           "more than 32"));
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_pem),
        cmocka_unit_test(test_bad_pem),
        cmocka_unit_test(test_sealing),
        cmocka_unit_test(test_bad_secrets),
        cmocka_unit_test(test_private_members),
        cmocka_unit_test(test_other_shapes),
        cmocka_unit_test(test_fetched_sets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
