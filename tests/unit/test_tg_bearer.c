/* SPDX-License-Identifier: BSD-2-Clause */

/* A token from bytes to verdict: the list of RFC 8725 one by one. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/pem.h>

#include "bearer_fixture.h"


static void
test_good(void **state)
{
    char                 *token;
    tg_block_t           *block;
    tg_token_t           *out, *again;
    tg_bearer_request_t   request;

    (void) state;

    block = tenant(&rsa, "[\"RS256\"]");
    token = token_sign(&rsa, HEADER("RS256"), CLAIMS);
    request_for(&request, block, token);

    assert_null(tg_bearer_find(&bearer, &request));
    assert_int_equal(tg_bearer_verify(&bearer, &request, &out), TG_BEARER_OK);

    assert_int_equal(out->consumer_len, 5);
    assert_memory_equal(out->consumer, "alice", 5);
    assert_int_equal(out->scopes_len, 3);
    assert_memory_equal(out->scopes, "a b", 3);
    assert_int_equal(out->expires, 1700000160);
    assert_string_equal(json_string_value(json_object_get(out->claims, "iss")),
                        "https://id.acme");

    again = tg_bearer_find(&bearer, &request);
    assert_ptr_equal(again, out);

    tg_token_release(again);
    tg_token_release(out);
    tg_compile_free(block);
    free(token);
}


static void
test_each_algorithm(void **state)
{
    char          header[64], list[16];
    uint32_t      alg;
    tg_block_t   *block;
    token_key_t   key;

    (void) state;

    for (alg = 1; alg <= TG_ALG_EDDSA; alg <<= 1) {
        key = token_key_new(alg);
        sprintf(header, "{\"alg\":\"%s\",\"kid\":\"k1\"}", tg_alg_name(alg));
        sprintf(list, "[\"%s\"]", tg_alg_name(alg));
        block = tenant(&key, list);

        assert_int_equal(sign_and_verify(block, &key, header, CLAIMS),
                         TG_BEARER_OK);

        tg_compile_free(block);
        token_key_free(&key);
    }
}


/* RFC 8725 2.1, 3.1, 3.2: "none", and an algorithm that nobody allowed. */
static void
test_none(void **state)
{
    char        *token;
    size_t       i;
    tg_block_t  *block;

    static const char *const  headers[] = {
        HEADER("none"), HEADER("None"), HEADER("NONE"), HEADER("nOnE"),
        "{\"alg\":\"none\"}", "{\"typ\":\"JWT\",\"alg\":\"none\"}",
    };

    (void) state;

    block = tenant(&rsa, "[\"RS256\"]");

    for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        token = token_unsigned(headers[i], strlen(headers[i]), CLAIMS,
                               strlen(CLAIMS));
        assert_int_equal(verify(block, token), TG_BEARER_MALFORMED);
        strcat(token, "AAAA");
        assert_int_equal(verify(block, token), TG_BEARER_ALGORITHM);
        free(token);

        /* not even with a right signature under it */
        assert_int_equal(sign_and_verify(block, &rsa, headers[i], CLAIMS),
                         TG_BEARER_ALGORITHM);
    }

    tg_compile_free(block);
}


/* An HMAC key of anything public about an RSA key: its DER, its PEM, its JWK,
 * its modulus. */
static void
test_public_key_as_secret(void **state)
{
    int           len;
    BIO          *bio;
    char         *pem, *jwk_text, *token;
    json_t       *jwk;
    size_t        i;
    uint8_t      *der, signature[64];
    unsigned      mac_len;
    tg_block_t   *block;

    struct {
        const void  *data;
        size_t       len;
    } secrets[5];

    (void) state;

    /* the issuer even allows HS256, for another key */
    block = tenant_of(json_pack("[o]",
        issuer("https://id.acme", "[\"RS256\",\"HS256\"]",
               json_pack("[o,o]", token_jwk(&rsa, "k1"),
                         token_jwk(&hs256, "k2")))));

    der = NULL;
    len = i2d_PUBKEY(rsa.pkey, &der);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, rsa.pkey);
    jwk = token_jwk(&rsa, "k1");
    jwk_text = json_dumps(jwk, JSON_COMPACT);

    secrets[0].data = der;
    secrets[0].len = (size_t) len;
    secrets[1].len = (size_t) BIO_get_mem_data(bio, &pem);
    secrets[1].data = pem;
    secrets[2].data = pem;
    secrets[2].len = secrets[1].len - 1;    /* without the last newline */
    secrets[3].data = jwk_text;
    secrets[3].len = strlen(jwk_text);
    secrets[4].data = json_string_value(json_object_get(jwk, "n"));
    secrets[4].len = json_string_length(json_object_get(jwk, "n"));

    for (i = 0; i < 5; i++) {
        token = token_unsigned(HEADER("HS256"), strlen(HEADER("HS256")), CLAIMS,
                               strlen(CLAIMS));
        HMAC(EVP_sha256(), secrets[i].data, (int) secrets[i].len,
             (uint8_t *) token, strlen(token) - 1, signature, &mac_len);
        len = (int) strlen(token);
        token[len + (int) tg_b64url_encode(token + len, signature, mac_len)]
            = '\0';

        assert_int_equal(verify(block, token), TG_BEARER_ALGORITHM);
        free(token);
    }

    json_decref(jwk);
    free(jwk_text);
    BIO_free(bio);
    OPENSSL_free(der);
    tg_compile_free(block);
}


/* The key decides: other algorithms of its own type, too. */
static void
test_algorithm_not_allowed(void **state)
{
    json_t       *jwk;
    tg_block_t   *block;
    token_key_t   key;

    (void) state;

    block = tenant(&rsa, "[\"RS256\"]");
    key = rsa;
    key.alg = TG_ALG_RS384;
    assert_int_equal(sign_and_verify(block, &key, HEADER("RS384"), CLAIMS),
                     TG_BEARER_ALGORITHM);
    key.alg = TG_ALG_PS256;
    assert_int_equal(sign_and_verify(block, &key, HEADER("PS256"), CLAIMS),
                     TG_BEARER_ALGORITHM);
    tg_compile_free(block);

    /* allowed by the issuer, pinned away by the key's "alg" */
    jwk = token_jwk(&rsa, "k1");
    json_object_set_new(jwk, "alg", json_string("RS256"));
    block = tenant_of(json_pack("[o]",
        issuer("https://id.acme", "[\"RS256\",\"RS384\"]",
               json_pack("[o]", jwk))));
    key.alg = TG_ALG_RS384;
    assert_int_equal(sign_and_verify(block, &key, HEADER("RS384"), CLAIMS),
                     TG_BEARER_ALGORITHM);
    assert_int_equal(sign_and_verify(block, &rsa, HEADER("RS256"), CLAIMS),
                     TG_BEARER_OK);

    /* one algorithm's signature under another's name */
    assert_int_equal(sign_and_verify(block, &es256, HEADER("RS256"), CLAIMS),
                     TG_BEARER_SIGNATURE);
    tg_compile_free(block);
}


/* RFC 8725 3.3: every cryptographic operation is validated: one bit anywhere. */
static void
test_each_bit(void **state)
{
    char        *token, saved;
    size_t       i;
    tg_block_t  *block;

    (void) state;

    block = tenant(&hs256, "[\"HS256\"]");
    token = token_sign(&hs256, HEADER("HS256"), CLAIMS);

    for (i = 0; token[i] != '\0'; i++) {
        saved = token[i];
        token[i] = saved == 'A' ? 'B' : 'A';
        assert_int_not_equal(verify(block, token), TG_BEARER_OK);
        token[i] = saved;
    }

    for (i = strlen(token) - 1; i > 0; i--) {
        token[i] = '\0';
        assert_int_not_equal(verify(block, token), TG_BEARER_OK);
    }

    tg_compile_free(block);
    free(token);
}


/* A signature belongs to its text: parts of two good tokens make no third. */
static void
test_spliced(void **state)
{
    char        *a, *b, *dot;
    tg_block_t  *block;

    (void) state;

    block = tenant(&rsa, "[\"RS256\"]");
    a = token_sign(&rsa, HEADER("RS256"), CLAIMS);
    b = token_sign(&rsa, HEADER("RS256"),
                   CLAIMS_OF("https://id.acme", "\"aud\":\"api\",\"x\":1"));

    dot = strrchr(a, '.');
    strcpy(dot, strrchr(b, '.'));
    assert_int_equal(verify(block, a), TG_BEARER_SIGNATURE);

    tg_compile_free(block);
    free(a);
    free(b);
}


/* RFC 8725 3.4, 3.10: "kid" is a name to compare, not a path or a query; keys
 * in the header are not looked at. */
static void
test_kid(void **state)
{
    char         *jwk_text, *header;
    json_t       *jwk;
    size_t        i;
    tg_block_t   *block;

    static const char *const  kids[] = {
        "", "k", "k11", "K1", "k1 ", " k1", "../../../../dev/null",
        "/proc/self/environ", "k1' OR '1'='1", "k1; DROP TABLE keys",
        "$(id)", "k1\\n", "https://evil/key",
    };

    (void) state;

    block = tenant(&rsa, "[\"RS256\"]");

    for (i = 0; i < sizeof(kids) / sizeof(kids[0]); i++) {
        header = malloc(100);
        sprintf(header, "{\"alg\":\"RS256\",\"kid\":\"%s\"}", kids[i]);
        assert_int_equal(sign_and_verify(block, &rsa, header, CLAIMS),
                         TG_BEARER_UNKNOWN_KEY);
        free(header);
    }

    /* jwk, jku, x5u: the attacker's own key */
    jwk = token_jwk(&other_rsa, "k1");
    jwk_text = json_dumps(jwk, JSON_COMPACT);
    header = malloc(strlen(jwk_text) + 200);
    sprintf(header, "{\"alg\":\"RS256\",\"kid\":\"k1\",\"jwk\":%s,"
            "\"jku\":\"https://evil/jwks\",\"x5u\":\"https://evil/x5u\"}",
            jwk_text);
    assert_int_equal(sign_and_verify(block, &other_rsa, header, CLAIMS),
                     TG_BEARER_SIGNATURE);
    assert_int_equal(sign_and_verify(block, &rsa, header, CLAIMS),
                     TG_BEARER_OK);

    free(header);
    free(jwk_text);
    json_decref(jwk);
    tg_compile_free(block);
}


static void
test_without_kid(void **state)
{
    tg_block_t  *block;

    (void) state;

    block = tenant_of(json_pack("[o]",
        issuer("https://id.acme", "[\"RS256\",\"ES256\"]",
               json_pack("[o,o,o]", token_jwk(&es256, "e1"),
                         token_jwk(&other_rsa, NULL),
                         token_jwk(&rsa, "k1")))));

    /* any key for the algorithm may have signed */
    assert_int_equal(sign_and_verify(block, &rsa, "{\"alg\":\"RS256\"}",
                                     CLAIMS), TG_BEARER_OK);
    assert_int_equal(sign_and_verify(block, &other_rsa, "{\"alg\":\"RS256\"}",
                                     CLAIMS), TG_BEARER_OK);
    assert_int_equal(sign_and_verify(block, &es256, "{\"alg\":\"ES256\"}",
                                     CLAIMS), TG_BEARER_OK);
    assert_int_equal(sign_and_verify(block, &hs256, "{\"alg\":\"ES256\"}",
                                     CLAIMS), TG_BEARER_SIGNATURE);

    /* a key without kid is not every kid's */
    assert_int_equal(sign_and_verify(block, &other_rsa, HEADER("RS256"),
                                     CLAIMS), TG_BEARER_SIGNATURE);
    assert_int_equal(sign_and_verify(block, &other_rsa,
                                     "{\"alg\":\"RS256\",\"kid\":\"\"}",
                                     CLAIMS), TG_BEARER_UNKNOWN_KEY);
    tg_compile_free(block);
}


/* What one token can cost is bounded. */
static void
test_tries(void **state)
{
    int           i;
    json_t       *keys;
    tg_block_t   *block;
    token_key_t   key[TG_BEARER_MAX_TRIES + 2];

    (void) state;

    keys = json_array();

    for (i = 0; i < TG_BEARER_MAX_TRIES + 2; i++) {
        key[i] = token_key_new(TG_ALG_ES256);
        json_array_append_new(keys, token_jwk(&key[i], NULL));
    }

    /* a second issuer of the same name does not start anew */
    block = tenant_of(json_pack("[o,o]",
        issuer("https://id.acme", "[\"ES256\"]", keys),
        json_pack("{s:i}", "ref", 3)));
    platform = compile(issuer("https://id.acme", "[\"ES256\"]",
                              json_pack("[o]", token_jwk(&es256, NULL))),
                       TG_KIND_ISSUER);
    ((tg_block_t *) platform)->id = 3;

    for (i = 0; i < TG_BEARER_MAX_TRIES + 2; i++) {
        assert_int_equal(sign_and_verify(block, &key[i], "{\"alg\":\"ES256\"}",
                                         CLAIMS),
                         i < TG_BEARER_MAX_TRIES ? TG_BEARER_OK
                                                 : TG_BEARER_SIGNATURE);
        token_key_free(&key[i]);
    }

    assert_int_equal(sign_and_verify(block, &es256, "{\"alg\":\"ES256\"}",
                                     CLAIMS), TG_BEARER_SIGNATURE);
    assert_true(tg_keyring_made(bearer.keyring) <= TG_BEARER_MAX_TRIES);

    tg_compile_free((tg_block_t *) platform);
    tg_compile_free(block);
}


/* RFC 8725 3.8, 3.9: issuer and audience; and the other claims, end to end. */
static void
test_claims(void **state)
{
    size_t       i;
    tg_block_t  *block;

    static const struct {
        const char          *claims;
        tg_bearer_status_e   rc;
    } cases[] = {
        { CLAIMS, TG_BEARER_OK },
        { CLAIMS_OF("https://evil", "\"aud\":\"api\""),
          TG_BEARER_UNKNOWN_ISSUER },
        { CLAIMS_OF("", "\"aud\":\"api\""), TG_BEARER_UNKNOWN_ISSUER },
        { CLAIMS_OF("https://id.acme/", "\"aud\":\"api\""),
          TG_BEARER_UNKNOWN_ISSUER },
        { "{\"sub\":\"alice\",\"exp\":1700000100,\"aud\":\"api\"}",
          TG_BEARER_UNKNOWN_ISSUER },
        { "{\"iss\":{\"iss\":\"https://id.acme\"},\"exp\":1700000100}",
          TG_BEARER_UNKNOWN_ISSUER },
        { CLAIMS_OF("https://id.acme", "\"aud\":\"other\""),
          TG_BEARER_AUDIENCE },
        { CLAIMS_OF("https://id.acme", "\"x\":1"), TG_BEARER_AUDIENCE },
        { CLAIMS_OF("https://id.acme", "\"aud\":1"), TG_BEARER_CLAIM },
        { "{\"iss\":\"https://id.acme\",\"sub\":\"alice\",\"aud\":\"api\"}",
          TG_BEARER_NO_EXPIRY },
        { "{\"iss\":\"https://id.acme\",\"sub\":\"alice\",\"aud\":\"api\","
          "\"exp\":1600000000}", TG_BEARER_EXPIRED },
        { CLAIMS_OF("https://id.acme", "\"aud\":\"api\",\"nbf\":1700009999"),
          TG_BEARER_EARLY },
        { "{\"iss\":\"https://id.acme\",\"aud\":\"api\",\"exp\":1700000100}",
          TG_BEARER_CONSUMER },
        { "{\"iss\":\"https://id.acme\",\"sub\":\"a\",\"aud\":\"api\","
          "\"exp\":1700000100,\"scope\":7}", TG_BEARER_SCOPE },
        { CLAIMS_OF("https://id.acme", "\"aud\":\"api\",\"sub\":\"bob\""),
          TG_BEARER_MALFORMED },
        { CLAIMS_OF("https://id.acme",
                    "\"aud\":\"api\",\"iss\":\"https://id.acme\""),
          TG_BEARER_MALFORMED },
    };

    (void) state;

    block = tenant(&es256, "[\"ES256\"]");

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(sign_and_verify(block, &es256, HEADER("ES256"),
                                         cases[i].claims), cases[i].rc);
    }

    /* claims are not spoken of before the signature is right */
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].rc > TG_BEARER_SIGNATURE || cases[i].rc == TG_BEARER_OK) {
            assert_int_equal(sign_and_verify(block, &hs256, HEADER("ES256"),
                                             cases[i].claims),
                             TG_BEARER_SIGNATURE);
        }
    }

    tg_compile_free(block);
}


/* RFC 8725 2.7, 2.8, 3.11, 3.12: a token of another kind or from another
 * tenant's issuer is none here. */
static void
test_substitution(void **state)
{
    tg_block_t  *acme, *other;

    (void) state;

    acme = tenant(&rsa, "[\"RS256\"]");
    other = tenant_of(json_pack("[o]",
        issuer("https://id.other", "[\"RS256\"]",
               json_pack("[o]", token_jwk(&other_rsa, "k1")))));

    assert_int_equal(sign_and_verify(acme, &other_rsa, HEADER("RS256"),
        CLAIMS_OF("https://id.other", "\"aud\":\"api\"")),
        TG_BEARER_UNKNOWN_ISSUER);
    assert_int_equal(sign_and_verify(acme, &other_rsa, HEADER("RS256"),
                                     CLAIMS), TG_BEARER_SIGNATURE);
    assert_int_equal(sign_and_verify(other, &rsa, HEADER("RS256"), CLAIMS),
                     TG_BEARER_UNKNOWN_ISSUER);

    assert_int_equal(sign_and_verify(acme, &rsa,
        "{\"alg\":\"RS256\",\"kid\":\"k1\",\"typ\":\"logout+jwt\"}", CLAIMS),
        TG_BEARER_HEADER);
    assert_int_equal(sign_and_verify(acme, &rsa,
        "{\"alg\":\"RS256\",\"kid\":\"k1\",\"crit\":[\"x\"],\"x\":1}", CLAIMS),
        TG_BEARER_CRITICAL);

    tg_compile_free(acme);
    tg_compile_free(other);
}


static void
test_huge(void **state)
{
    char        *claims;
    tg_block_t  *block;

    (void) state;

    block = tenant(&hs256, "[\"HS256\"]");
    claims = malloc(20000);
    memset(claims, ' ', 20000);
    memcpy(claims, CLAIMS, strlen(CLAIMS));

    claims[12000] = '\0';
    assert_int_equal(sign_and_verify(block, &hs256, HEADER("HS256"), claims),
                     TG_BEARER_OK);

    claims[12000] = ' ';
    claims[19999] = '\0';
    assert_int_equal(sign_and_verify(block, &hs256, HEADER("HS256"), claims),
                     TG_BEARER_TOO_LONG);

    free(claims);
    tg_compile_free(block);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        with_bearer(test_good),
        with_bearer(test_each_algorithm),
        with_bearer(test_none),
        with_bearer(test_public_key_as_secret),
        with_bearer(test_algorithm_not_allowed),
        with_bearer(test_each_bit),
        with_bearer(test_spliced),
        with_bearer(test_kid),
        with_bearer(test_without_kid),
        with_bearer(test_tries),
        with_bearer(test_claims),
        with_bearer(test_substitution),
        with_bearer(test_huge),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
