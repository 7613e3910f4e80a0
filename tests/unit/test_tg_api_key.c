/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_api_key.h"
#include "tg_compile.h"


/* A tenant with n API keys, whose ids are 1 to n. */
static tg_block_t *
tenant(size_t n)
{
    char         hex[65];
    size_t       i;
    json_t      *document, *keys;
    tg_error_t   err;
    tg_block_t  *block;

    keys = json_array();

    for (i = 1; i <= n; i++) {
        sprintf(hex, "%016zx%048d", i * 0x9e3779b97f4a7c15u, 0);
        json_array_append_new(keys, json_pack("{s:i,s:s,s:s,s:i,s:[s,s]}",
            "id", (int) i, "sha256", hex, "consumer", "mobile",
            "expires", (int) (i == 1 ? 1700000000 : 0),
            "scopes", "orders:read", "b"));

        if (i == 1) {
            continue;
        }

        json_object_del(json_array_get(keys, i - 1), "expires");
        json_object_del(json_array_get(keys, i - 1), "scopes");
    }

    document = json_pack("{s:s,s:i,s:i,s:s,s:s,s:[],s:[],s:o,s:[],s:[],s:[]}",
                         "name", "acme", "id", 17, "revision", 20,
                         "tier", "vcluster", "state", "active", "hosts",
                         "issuers", "api_keys", keys, "upstreams", "routes",
                         "quotas");
    block = tg_compile_json(document, TG_KIND_TENANT, NULL, &err);

    if (block == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    json_decref(document);

    return block;
}


static const tg_api_key_t *
find(const tg_block_t *block, uint64_t n)
{
    int      i;
    uint8_t  digest[TG_SHA256_LEN];

    n *= 0x9e3779b97f4a7c15u;
    memset(digest, 0, sizeof(digest));

    for (i = 0; i < 8; i++) {
        digest[i] = (uint8_t) (n >> (56 - 8 * i));
    }

    return tg_api_key_find(block, digest);
}


static void
test_find(void **state)
{
    size_t               i, n;
    tg_block_t          *block;
    const tg_api_key_t  *key;

    static const size_t  sizes[] = { 0, 1, 2, 3, 100, 1000 };

    (void) state;

    for (n = 0; n < sizeof(sizes) / sizeof(sizes[0]); n++) {
        block = tenant(sizes[n]);

        for (i = 1; i <= sizes[n]; i++) {
            key = find(block, i);
            assert_non_null(key);
            assert_int_equal(key->id, i);
            assert_string_equal(tg_str(block, key->consumer), "mobile");
        }

        assert_null(find(block, 0));
        assert_null(find(block, sizes[n] + 1));
        tg_compile_free(block);
    }
}


static void
test_expiry_and_scopes(void **state)
{
    char                 text[64];
    size_t               len;
    tg_block_t          *block;
    const tg_api_key_t  *key;

    (void) state;

    block = tenant(2);

    key = find(block, 1);
    assert_true(tg_api_key_alive(key, 1699999999));
    assert_false(tg_api_key_alive(key, 1700000000));
    assert_false(tg_api_key_alive(key, 1700000001));

    len = tg_api_key_scopes(block, key, NULL);
    assert_int_equal(len, strlen("orders:read b"));
    assert_int_equal(tg_api_key_scopes(block, key, text), len);
    assert_memory_equal(text, "orders:read b", len);

    key = find(block, 2);
    assert_true(tg_api_key_alive(key, INT64_MAX));
    assert_int_equal(tg_api_key_scopes(block, key, NULL), 0);

    tg_compile_free(block);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_expiry_and_scopes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
