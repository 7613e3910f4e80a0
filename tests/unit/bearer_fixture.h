/* SPDX-License-Identifier: BSD-2-Clause */

/* A tenant with issuers, a verifier of bearer tokens, and tokens to try. */

#ifndef TESTS_BEARER_FIXTURE_H
#define TESTS_BEARER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_bearer.h"
#include "tg_compile.h"
#include "token.h"

#define NOW  1700000000

#define HEADER(alg)      "{\"alg\":\"" alg "\",\"kid\":\"k1\"}"
#define CLAIMS           CLAIMS_OF("https://id.acme", "\"aud\":\"api\"")
#define CLAIMS_OF(iss, more)                                                  \
    "{\"iss\":\"" iss "\",\"sub\":\"alice\",\"exp\":1700000100,"               \
    "\"scope\":\"a b\"," more "}"

#define with_bearer(test)  cmocka_unit_test_setup_teardown(test, setup, teardown)


static token_key_t  rsa, other_rsa, es256, hs256;

static tg_bearer_t        bearer;
static const tg_block_t  *platform;         /* what find_issuer() knows */
static uint64_t           platform_asked;
static uint64_t           version = 1;


TOKEN_HELPER const tg_block_t *
find_issuer(void *data, uint64_t id)
{
    (void) data;

    platform_asked = id;

    return platform != NULL && platform->id == id ? platform : NULL;
}


TOKEN_HELPER int
make_keys(void **state)
{
    (void) state;

    rsa = token_key_new(TG_ALG_RS256);
    other_rsa = token_key_new(TG_ALG_RS256);
    es256 = token_key_new(TG_ALG_ES256);
    hs256 = token_key_new(TG_ALG_HS256);

    return 0;
}


TOKEN_HELPER int
free_keys(void **state)
{
    (void) state;

    token_key_free(&rsa);
    token_key_free(&other_rsa);
    token_key_free(&es256);

    return 0;
}


TOKEN_HELPER int
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


TOKEN_HELPER int
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
TOKEN_HELPER json_t *
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


TOKEN_HELPER tg_block_t *
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
TOKEN_HELPER tg_block_t *
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
TOKEN_HELPER tg_block_t *
tenant(const token_key_t *key, const char *algorithms)
{
    return tenant_of(json_pack("[o]",
        issuer("https://id.acme", algorithms,
               json_pack("[o]", token_jwk(key, "k1")))));
}


TOKEN_HELPER void
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
TOKEN_HELPER tg_bearer_status_e
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


TOKEN_HELPER tg_bearer_status_e
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

#endif /* TESTS_BEARER_FIXTURE_H */
