/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_token_cache.h"


static void
digest_of(uint32_t n, uint8_t digest[TG_SHA256_LEN])
{
    memset(digest, 0, TG_SHA256_LEN);
    memcpy(digest, &n, sizeof(n));
}


/* That of a token whose text is n. */
static uint64_t
hash_of(tg_token_cache_t *cache, uint32_t n, uint64_t tenant)
{
    return tg_token_cache_fetch(cache, (const char *) &n, sizeof(n), tenant);
}


/* Adds token n of a tenant, and lets go of it. */
static void
add(tg_token_cache_t *cache, uint32_t n, uint64_t tenant)
{
    json_t      *claims;
    tg_token_t  *token;

    claims = json_pack("{s:i}", "n", (int) n);
    token = tg_token_create(claims, "alice", 5, "a b", 3);
    json_decref(claims);

    digest_of(n, token->digest);
    token->tenant = tenant;
    token->hash = hash_of(cache, n, tenant);
    tg_token_cache_add(cache, token);
    tg_token_release(token);
}


static int
found(tg_token_cache_t *cache, uint32_t n, uint64_t tenant)
{
    uint8_t      digest[TG_SHA256_LEN];
    tg_token_t  *token;

    digest_of(n, digest);
    token = tg_token_cache_find(cache, hash_of(cache, n, tenant), digest,
                                tenant);

    if (token == NULL) {
        return 0;
    }

    assert_int_equal(json_integer_value(json_object_get(token->claims, "n")),
                     n);
    assert_memory_equal(token->consumer, "alice", 5);
    assert_memory_equal(token->scopes, "a b", 3);
    tg_token_release(token);

    return 1;
}


static void
test_find(void **state)
{
    tg_token_cache_t  *cache;

    (void) state;

    cache = tg_token_cache_create(100);

    assert_false(found(cache, 1, 7));
    add(cache, 1, 7);
    assert_true(found(cache, 1, 7));

    /* the same token is nothing to another tenant */
    assert_false(found(cache, 1, 8));
    add(cache, 1, 8);
    assert_true(found(cache, 1, 8));
    assert_true(found(cache, 1, 7));

    assert_false(found(cache, 2, 7));
    assert_int_equal(tg_token_cache_size(cache), 2);
    tg_token_cache_destroy(cache);
}


/* Digests that differ in one bit, wherever it is. */
static void
test_whole_digest(void **state)
{
    size_t             i;
    uint8_t            digest[TG_SHA256_LEN];
    tg_token_cache_t  *cache;

    (void) state;

    cache = tg_token_cache_create(4);
    add(cache, 1, 7);

    for (i = 0; i < TG_SHA256_LEN * 8; i++) {
        digest_of(1, digest);
        digest[i / 8] ^= (uint8_t) (1 << i % 8);
        assert_null(tg_token_cache_find(cache, hash_of(cache, 1, 7), digest, 7));
    }

    tg_token_cache_destroy(cache);
}


static void
test_bounded(void **state)
{
    uint32_t           i, max;
    tg_token_cache_t  *cache;

    (void) state;

    for (max = 0; max <= 12; max++) {
        cache = tg_token_cache_create(max);

        for (i = 0; i < 1000; i++) {
            add(cache, i, 7);
            assert_true(tg_token_cache_size(cache) <= max);
            assert_int_equal(found(cache, i, 7), max != 0);

            if (i > 0) {
                found(cache, i / 2, 7);
                found(cache, i - 1, 7);
            }
        }

        assert_int_equal(tg_token_cache_size(cache), max);
        tg_token_cache_destroy(cache);
    }
}


/* A flood of tokens that are used once leaves those that were used twice. */
static void
test_flood(void **state)
{
    uint32_t           i, kept;
    tg_token_cache_t  *cache;

    (void) state;

    cache = tg_token_cache_create(100);

    for (i = 0; i < 50; i++) {
        add(cache, i, 7);
        found(cache, i, 7);
    }

    for (i = 1000; i < 20000; i++) {
        add(cache, i, 8);
    }

    for (i = 0, kept = 0; i < 50; i++) {
        kept += (uint32_t) found(cache, i, 7);
    }

    assert_int_equal(kept, 50);

    /* and what is kept gives way to what is used now */
    for (i = 100; i < 400; i++) {
        add(cache, i, 7);
        found(cache, i, 7);
    }

    for (i = 0, kept = 0; i < 50; i++) {
        kept += (uint32_t) found(cache, i, 7);
    }

    assert_int_equal(kept, 0);
    assert_int_equal(tg_token_cache_size(cache), 100);
    tg_token_cache_destroy(cache);
}


/* What a request holds outlives removal, eviction and the cache. */
static void
test_held(void **state)
{
    uint8_t            digest[TG_SHA256_LEN];
    uint32_t           i;
    tg_token_t        *removed, *evicted, *last;
    tg_token_cache_t  *cache;

    (void) state;

    cache = tg_token_cache_create(4);

    add(cache, 1, 7);
    digest_of(1, digest);
    removed = tg_token_cache_find(cache, hash_of(cache, 1, 7), digest, 7);
    tg_token_cache_remove(cache, removed);
    assert_false(found(cache, 1, 7));
    tg_token_cache_remove(cache, removed);      /* again: nothing */
    assert_int_equal(tg_token_cache_size(cache), 0);

    add(cache, 2, 7);
    digest_of(2, digest);
    evicted = tg_token_cache_find(cache, hash_of(cache, 2, 7), digest, 7);

    for (i = 10; i < 40; i++) {
        add(cache, i, 7);
        found(cache, i, 7);
    }

    assert_false(found(cache, 2, 7));

    digest_of(39, digest);
    last = tg_token_cache_find(cache, hash_of(cache, 39, 7), digest, 7);
    assert_non_null(last);
    tg_token_cache_destroy(cache);

    assert_memory_equal(removed->consumer, "alice", 5);
    assert_memory_equal(evicted->scopes, "a b", 3);
    assert_int_equal(json_integer_value(json_object_get(last->claims, "n")),
                     39);

    tg_token_release(removed);
    tg_token_release(evicted);
    tg_token_release(last);
}


static void
test_empty_texts(void **state)
{
    json_t      *claims;
    tg_token_t  *token;

    (void) state;

    claims = json_object();
    token = tg_token_create(claims, "", 0, "", 0);
    assert_non_null(token);
    assert_int_equal(token->consumer_len, 0);
    assert_int_equal(token->scopes_len, 0);
    tg_token_release(token);
    json_decref(claims);
}


/* Tokens whose ends are alike share a bucket, and nothing else. */
static void
test_same_end(void **state)
{
    char               text[2][40];
    uint8_t            digest[2][TG_SHA256_LEN];
    uint64_t           hash;
    tg_token_t        *token[2] = { NULL, NULL }, *seen;
    tg_token_cache_t  *cache;

    (void) state;

    cache = tg_token_cache_create(4);

    for (uint32_t i = 0; i < 2; i++) {
        snprintf(text[i], sizeof(text[i]), "%uhead.body.0123456789abcdef", i);
        hash = tg_token_cache_fetch(cache, text[i], strlen(text[i]), 7);
        assert_true(i == 0 || hash == token[0]->hash);
        assert_true(tg_token_cache_fetch(cache, text[i], strlen(text[i]), 8) != hash);
        assert_true(tg_token_cache_fetch(cache, text[i], strlen(text[i]) - 1, 7)
                    != hash);

        token[i] = tg_token_create(NULL, "", 0, "", 0);
        digest_of(i, token[i]->digest);
        memcpy(digest[i], token[i]->digest, TG_SHA256_LEN);
        token[i]->tenant = 7;
        token[i]->hash = hash;
        tg_token_cache_add(cache, token[i]);
    }

    for (uint32_t i = 0; i < 2; i++) {
        seen = tg_token_cache_find(cache, token[i]->hash, digest[i], 7);
        assert_ptr_equal(seen, token[i]);
        tg_token_release(seen);
    }

    tg_token_cache_remove(cache, token[0]);
    assert_null(tg_token_cache_find(cache, token[0]->hash, digest[0], 7));
    seen = tg_token_cache_find(cache, token[1]->hash, digest[1], 7);
    assert_ptr_equal(seen, token[1]);
    tg_token_release(seen);

    tg_token_release(token[0]);
    tg_token_release(token[1]);
    tg_token_cache_destroy(cache);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_whole_digest),
        cmocka_unit_test(test_same_end),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_empty_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
