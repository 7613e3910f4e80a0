/* SPDX-License-Identifier: BSD-2-Clause */

/* What the cache may remember of a token, what revokes it, and issuers of the
 * platform. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bearer_fixture.h"


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


int
main(void)
{
    const struct CMUnitTest  tests[] = {
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
