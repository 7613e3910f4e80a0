/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A token from bytes to verdict: the list of RFC 8725 one by one, revocation,
 * platform issuers, and what the cache may and may not remember.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/pem.h>

#include "tg_bearer.h"
#include "tg_compile.h"
#include "token.h"

#define NOW  1700000000

#define HEADER(alg)      "{\"alg\":\"" alg "\",\"kid\":\"k1\"}"
#define CLAIMS           CLAIMS_OF("https://id.acme", "\"aud\":\"api\"")
#define CLAIMS_OF(iss, more)                                                  \
    "{\"iss\":\"" iss "\",\"sub\":\"alice\",\"exp\":1700000100,"               \
    "\"scope\":\"a b\"," more "}"


static token_key_t  rsa, other_rsa, es256, hs256;

static tg_bearer_t        bearer;
static const tg_block_t  *platform;         /* what find_issuer() knows */
static uint64_t           platform_asked;
static uint64_t           version = 1;


static const tg_block_t *
find_issuer(void *data, uint64_t id)
{
    (void) data;

    platform_asked = id;

    return platform != NULL && platform->id == id ? platform : NULL;
}


static int
make_keys(void **state)
{
    (void) state;

    rsa = token_key_new(TG_ALG_RS256);
    other_rsa = token_key_new(TG_ALG_RS256);
    es256 = token_key_new(TG_ALG_ES256);
    hs256 = token_key_new(TG_ALG_HS256);

    return 0;
}


static int
free_keys(void **state)
{
    (void) state;

    token_key_free(&rsa);
    token_key_free(&other_rsa);
    token_key_free(&es256);

    return 0;
}


static int
setup(void **state)
{
    (void) state;

    bearer.crypto = tg_crypto_create();
    bearer.keyring = tg_keyring_create(bearer.crypto, 16);
    bearer.memo = tg_jwt_memo_create();
    bearer.cache = tg_token_cache_create(16);
    bearer.find_issuer = find_issuer;
    platform = NULL;

    return bearer.cache != NULL ? 0 : -1;
}


static int
teardown(void **state)
{
    (void) state;

    tg_token_cache_destroy(bearer.cache);
    tg_jwt_memo_destroy(bearer.memo);
    tg_keyring_destroy(bearer.keyring);
    tg_crypto_destroy(bearer.crypto);

    return 0;
}


/* An issuer with keys (an array, taken over). */
static json_t *
issuer(const char *iss, const char *algorithms, json_t *keys)
{
    json_t  *algs, *object;

    algs = json_loads(algorithms, 0, NULL);
    object = json_pack("{s:i,s:s,s:i,s:s,s:[s],s:o,s:i,s:s,s:o}",
                       "id", 5, "name", "main", "revision", 10, "issuer", iss,
                       "audiences", "api", "algorithms", algs, "leeway", 60,
                       "consumer_claim", "sub", "keys", keys);
    assert_non_null(object);

    return object;
}


static tg_block_t *
compile(json_t *document, tg_kind_e kind)
{
    tg_error_t   err;
    tg_block_t  *block;

    block = tg_compile_json(document, kind, token_master, &err);

    if (block == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    json_decref(document);

    return block;
}


/* A tenant with issuers (an array, taken over). */
static tg_block_t *
tenant_of(json_t *issuers)
{
    return compile(json_pack("{s:s,s:i,s:i,s:s,s:s,s:[s],s:o,s:[],s:[],s:[],"
                             "s:[]}",
                             "name", "acme", "id", 17, "revision", 20,
                             "tier", "vcluster", "state", "active",
                             "hosts", "acme.example.com", "issuers", issuers,
                             "api_keys", "upstreams", "routes", "quotas"),
                   TG_KIND_TENANT);
}


/* The usual tenant: one issuer with one key "k1". */
static tg_block_t *
tenant(const token_key_t *key, const char *algorithms)
{
    return tenant_of(json_pack("[o]",
        issuer("https://id.acme", algorithms,
               json_pack("[o]", token_jwk(key, "k1")))));
}


static void
request_for(tg_bearer_request_t *request, const tg_block_t *block,
    const char *token)
{
    request->block = block;
    request->version = version;
    request->now = NOW;
    request->token = token;
    request->len = strlen(token);
}


/* Verdict on a token that nobody has seen yet. */
static tg_bearer_status_e
verify(const tg_block_t *block, const char *token)
{
    tg_token_t           *out;
    tg_bearer_status_e    rc;
    tg_bearer_request_t   request;

    request_for(&request, block, token);
    assert_null(tg_bearer_find(&bearer, &request));

    rc = tg_bearer_verify(&bearer, &request, &out);
    assert_true(strlen(tg_bearer_text(rc)) > 10);

    if (rc == TG_BEARER_OK) {
        tg_token_cache_remove(bearer.cache, out);
        tg_token_release(out);
    }

    /* whatever was refused is not remembered */
    assert_int_equal(tg_token_cache_size(bearer.cache), 0);

    return rc;
}


static tg_bearer_status_e
sign_and_verify(const tg_block_t *block, const token_key_t *key,
    const char *header, const char *claims)
{
    char                *token;
    tg_bearer_status_e   rc;

    token = token_sign(key, header, claims);
    rc = verify(block, token);
    free(token);

    return rc;
}


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


/* Verifies and leaves the token in the cache. */
static void
remember(const tg_block_t *block, const char *token)
{
    tg_token_t           *out;
    tg_bearer_request_t   request;

    request_for(&request, block, token);
    assert_null(tg_bearer_find(&bearer, &request));
    assert_int_equal(tg_bearer_verify(&bearer, &request, &out), TG_BEARER_OK);
    tg_token_release(out);
}


static int
remembered(const tg_block_t *block, const char *token, int64_t now)
{
    tg_token_t           *out;
    tg_bearer_request_t   request;

    request_for(&request, block, token);
    request.now = now;
    out = tg_bearer_find(&bearer, &request);

    if (out == NULL) {
        return 0;
    }

    tg_token_release(out);

    return 1;
}


static void
test_cache_times(void **state)
{
    char        *token;
    tg_block_t  *block;

    (void) state;

    block = tenant(&hs256, "[\"HS256\"]");
    token = token_sign(&hs256, HEADER("HS256"),
                       CLAIMS_OF("https://id.acme",
                                 "\"aud\":\"api\",\"nbf\":1699999990"));
    remember(block, token);

    /* exp 1700000100 and nbf, a minute of leeway */
    assert_true(remembered(block, token, NOW));
    assert_true(remembered(block, token, 1700000159));
    assert_true(remembered(block, token, 1699999930));
    assert_false(remembered(block, token, 1700000160));
    assert_false(remembered(block, token, NOW));        /* it is gone */

    remember(block, token);
    assert_false(remembered(block, token, 1699999929));

    tg_compile_free(block);
    free(token);
}


/* The block with other revisions, as after a change. */
static void
revise(tg_block_t *block, uint64_t block_revision, uint64_t issuer_revision)
{
    block->revision = block_revision;
    tg_vec(block, block->issuers, tg_issuer_t)->revision = issuer_revision;
}


static void
test_cache_revision(void **state)
{
    char        *token;
    tg_block_t  *block;

    (void) state;

    block = tenant(&hs256, "[\"HS256\"]");
    token = token_sign(&hs256, HEADER("HS256"), CLAIMS);
    remember(block, token);

    /* something else of the tenant changed, or of anybody */
    revise(block, 21, 10);
    assert_true(remembered(block, token, NOW));
    version++;
    assert_true(remembered(block, token, NOW));
    revise(block, 22, 10);
    version++;
    assert_true(remembered(block, token, NOW));

    /* the issuer changed */
    revise(block, 23, 11);
    version++;
    assert_false(remembered(block, token, NOW));

    remember(block, token);
    assert_true(remembered(block, token, NOW));

    /* the issuer is gone */
    block->issuers.n = 0;
    block->revision = 24;
    version++;
    assert_false(remembered(block, token, NOW));
    assert_int_equal(tg_token_cache_size(bearer.cache), 0);

    tg_compile_free(block);
    free(token);
}


/* Another worker's request may still hold the old version of the tenant, and
 * verify by it after the new one was published.  That verdict does not reach
 * those who hold the new version. */
static void
test_cache_old_version(void **state)
{
    char        *token;
    tg_block_t  *old, *new;

    (void) state;

    old = tenant(&hs256, "[\"HS256\"]");
    new = tenant(&rsa, "[\"RS256\"]");
    revise(new, 21, 11);
    token = token_sign(&hs256, HEADER("HS256"), CLAIMS);

    version++;
    remember(old, token);
    assert_false(remembered(new, token, NOW));
    assert_int_equal(verify(new, token), TG_BEARER_ALGORITHM);

    tg_compile_free(old);
    tg_compile_free(new);
    free(token);
}


/* Revocation end to end: the key is gone with the issuer's next revision. */
static void
test_revoked_key(void **state)
{
    char        *token;
    tg_block_t  *before, *after;

    (void) state;

    before = tenant_of(json_pack("[o]",
        issuer("https://id.acme", "[\"RS256\"]",
               json_pack("[o,o]", token_jwk(&rsa, "k1"),
                         token_jwk(&other_rsa, "k2")))));
    after = tenant_of(json_pack("[o]",
        issuer("https://id.acme", "[\"RS256\"]",
               json_pack("[o]", token_jwk(&other_rsa, "k2")))));
    revise(after, 21, 11);

    token = token_sign(&rsa, HEADER("RS256"), CLAIMS);
    remember(before, token);
    version++;
    assert_false(remembered(after, token, NOW));
    assert_int_equal(verify(after, token), TG_BEARER_UNKNOWN_KEY);

    tg_compile_free(before);
    tg_compile_free(after);
    free(token);
}


static void
test_cache_tenant(void **state)
{
    char        *token;
    tg_block_t  *a, *b;

    (void) state;

    a = tenant(&hs256, "[\"HS256\"]");
    b = tenant(&rsa, "[\"RS256\"]");
    b->id = 18;
    token = token_sign(&hs256, HEADER("HS256"), CLAIMS);

    remember(a, token);
    assert_false(remembered(b, token, NOW));
    assert_true(remembered(a, token, NOW));

    tg_compile_free(a);
    tg_compile_free(b);
    free(token);
}


static tg_block_t *
platform_issuer(const token_key_t *key, uint64_t revision)
{
    json_t      *object;
    tg_block_t  *block;

    object = issuer("https://id.platform", "[\"ES256\"]",
                    json_pack("[o]", token_jwk(key, "k1")));
    json_object_set_new(object, "id", json_integer(3));
    json_object_set_new(object, "revision", json_integer((int) revision));
    json_object_set_new(object, "audiences",
                        json_pack("[s,s]", "api", "acme-api"));
    block = compile(object, TG_KIND_ISSUER);
    assert_int_equal(block->id, 3);

    return block;
}


static void
test_platform(void **state)
{
    char        *narrow, *wide;
    tg_block_t  *block, *key1, *key2;

    (void) state;

    key1 = platform_issuer(&es256, 90);
    key2 = platform_issuer(&es256, 91);
    block = tenant_of(json_pack("[{s:i,s:[s]}]", "ref", 3, "audiences",
                                "acme-api"));
    narrow = token_sign(&es256, HEADER("ES256"),
                        CLAIMS_OF("https://id.platform",
                                  "\"aud\":[\"acme-api\",\"x\"]"));
    wide = token_sign(&es256, HEADER("ES256"),
                      CLAIMS_OF("https://id.platform", "\"aud\":\"api\""));

    /* not there yet */
    assert_int_equal(verify(block, narrow), TG_BEARER_UNKNOWN_ISSUER);
    assert_int_equal(platform_asked, 3);

    platform = key1;
    remember(block, narrow);
    assert_true(remembered(block, narrow, NOW));

    /* the tenant's own audiences narrow the platform's */
    tg_token_cache_destroy(bearer.cache);
    bearer.cache = tg_token_cache_create(16);
    assert_int_equal(verify(block, wide), TG_BEARER_AUDIENCE);

    /* rotation of the platform's keys does not touch the tenant's revision */
    remember(block, narrow);
    platform = key2;
    version++;
    assert_false(remembered(block, narrow, NOW));
    remember(block, narrow);

    /* and its removal */
    platform = NULL;
    version++;
    assert_false(remembered(block, narrow, NOW));

    tg_compile_free(block);
    tg_compile_free(key1);
    tg_compile_free(key2);
    free(narrow);
    free(wide);
}


/* The tenant narrows its audiences: no issuer has a new revision. */
static void
test_platform_narrowed(void **state)
{
    char        *token;
    tg_block_t  *any, *narrow, *key;

    (void) state;

    platform = key = platform_issuer(&es256, 90);
    any = tenant_of(json_pack("[{s:i}]", "ref", 3));
    narrow = tenant_of(json_pack("[{s:i,s:[s]}]", "ref", 3, "audiences",
                                 "acme-api"));
    narrow->revision = 21;
    token = token_sign(&es256, HEADER("ES256"),
                       CLAIMS_OF("https://id.platform", "\"aud\":\"api\""));

    remember(any, token);
    assert_true(remembered(any, token, NOW));
    version++;
    assert_false(remembered(narrow, token, NOW));

    tg_compile_free(any);
    tg_compile_free(narrow);
    tg_compile_free(key);
    free(token);
}


/* An own issuer and a platform issuer of one id are two. */
static void
test_same_id(void **state)
{
    char        *token;
    tg_block_t  *own, *ref, *key;

    (void) state;

    own = tenant(&hs256, "[\"HS256\"]");        /* id 5 */
    platform = key = compile(issuer("https://id.acme", "[\"ES256\"]",
                                    json_pack("[o]", token_jwk(&es256, "k1"))),
                             TG_KIND_ISSUER);   /* id 5, too */
    ref = tenant_of(json_pack("[{s:i}]", "ref", 5));
    ref->revision = 21;
    token = token_sign(&hs256, HEADER("HS256"), CLAIMS);

    remember(own, token);
    version++;
    assert_false(remembered(ref, token, NOW));

    tg_compile_free(own);
    tg_compile_free(ref);
    tg_compile_free(key);
    free(token);
}


/* Two issuers of one name: each may vouch, and the reason of the one that came
 * furthest is told. */
static void
test_same_name(void **state)
{
    tg_block_t  *block, *key;

    (void) state;

    platform = key = compile(issuer("https://id.acme", "[\"ES256\"]",
                                    json_pack("[o]", token_jwk(&es256, "k1"))),
                             TG_KIND_ISSUER);
    ((tg_block_t *) platform)->id = 3;
    block = tenant_of(json_pack("[o,{s:i}]",
        issuer("https://id.acme", "[\"RS256\"]",
               json_pack("[o]", token_jwk(&rsa, "k2"))), "ref", 3));

    assert_int_equal(sign_and_verify(block, &es256, HEADER("ES256"), CLAIMS),
                     TG_BEARER_OK);
    assert_int_equal(sign_and_verify(block, &rsa,
                                     "{\"alg\":\"RS256\",\"kid\":\"k2\"}",
                                     CLAIMS), TG_BEARER_OK);
    assert_int_equal(sign_and_verify(block, &es256, HEADER("ES256"),
                                     CLAIMS_OF("https://id.acme", "\"x\":1")),
                     TG_BEARER_AUDIENCE);
    assert_int_equal(sign_and_verify(block, &hs256, HEADER("HS256"), CLAIMS),
                     TG_BEARER_ALGORITHM);

    tg_compile_free(block);
    tg_compile_free(key);
}


#define with_bearer(test)  cmocka_unit_test_setup_teardown(test, setup, teardown)


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
        with_bearer(test_cache_times),
        with_bearer(test_cache_revision),
        with_bearer(test_cache_old_version),
        with_bearer(test_revoked_key),
        with_bearer(test_cache_tenant),
        with_bearer(test_platform),
        with_bearer(test_platform_narrowed),
        with_bearer(test_same_id),
        with_bearer(test_same_name),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
