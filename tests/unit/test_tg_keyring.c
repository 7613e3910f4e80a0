/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_keyring.h"
#include "token.h"


static tg_crypto_t  *crypto;


static int
setup(void **state)
{
    (void) state;

    crypto = tg_crypto_create();

    return crypto != NULL ? 0 : -1;
}


static int
teardown(void **state)
{
    (void) state;

    tg_crypto_destroy(crypto);

    return 0;
}


/* The verifier of a secret made of one byte. */
static tg_verifier_t *
get(tg_keyring_t *ring, uint8_t byte)
{
    uint8_t  secret[32];

    memset(secret, byte, sizeof(secret));

    return tg_keyring_get(ring, TG_ALG_HS256, secret, sizeof(secret), 1);
}


static void
test_once(void **state)
{
    int             i;
    tg_keyring_t   *ring;
    tg_verifier_t  *first;

    (void) state;

    ring = tg_keyring_create(crypto, 4);
    first = get(ring, 1);
    assert_non_null(first);

    for (i = 0; i < 10; i++) {
        assert_ptr_equal(get(ring, 1), first);
    }

    assert_int_equal(tg_keyring_made(ring), 1);
    assert_int_equal(tg_keyring_size(ring), 1);
    tg_keyring_destroy(ring);
}


static void
test_least_recent_goes(void **state)
{
    int            i;
    tg_keyring_t  *ring;

    (void) state;

    ring = tg_keyring_create(crypto, 3);

    get(ring, 1);
    get(ring, 2);
    get(ring, 3);
    get(ring, 1);
    get(ring, 4);               /* 2 goes */
    assert_int_equal(tg_keyring_size(ring), 3);
    assert_int_equal(tg_keyring_made(ring), 4);

    get(ring, 1);
    get(ring, 3);
    get(ring, 4);
    assert_int_equal(tg_keyring_made(ring), 4);

    get(ring, 2);
    assert_int_equal(tg_keyring_made(ring), 5);

    for (i = 0; i < 100; i++) {
        assert_non_null(get(ring, (uint8_t) i));
    }

    assert_int_equal(tg_keyring_size(ring), 3);
    tg_keyring_destroy(ring);
}


static void
test_max_one(void **state)
{
    tg_keyring_t  *ring;

    (void) state;

    ring = tg_keyring_create(crypto, 1);
    assert_non_null(get(ring, 1));
    assert_non_null(get(ring, 2));
    assert_non_null(get(ring, 1));
    assert_int_equal(tg_keyring_size(ring), 1);
    assert_int_equal(tg_keyring_made(ring), 3);
    tg_keyring_destroy(ring);
}


/* The same bytes as another algorithm's key, and keys that share a beginning,
 * are other keys. */
static void
test_identity(void **state)
{
    uint8_t         secret[64];
    tg_keyring_t   *ring;
    tg_verifier_t  *a, *b, *c;

    (void) state;

    memset(secret, 7, sizeof(secret));
    ring = tg_keyring_create(crypto, 8);

    a = tg_keyring_get(ring, TG_ALG_HS256, secret, 64, 1);
    b = tg_keyring_get(ring, TG_ALG_HS512, secret, 64, 1);
    c = tg_keyring_get(ring, TG_ALG_HS256, secret, 63, 1);

    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_ptr_not_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_int_equal(tg_keyring_size(ring), 3);

    /* nor does a secret become a public key by being known already */
    assert_null(tg_keyring_get(ring, TG_ALG_HS256, secret, 64, 0));
    tg_keyring_destroy(ring);
}


static void
test_bad_material(void **state)
{
    int            len;
    uint8_t       *der;
    tg_keyring_t  *ring;
    token_key_t    key;

    (void) state;

    key = token_key_new(TG_ALG_RS256);
    der = NULL;
    len = i2d_PUBKEY(key.pkey, &der);
    ring = tg_keyring_create(crypto, 1);

    assert_non_null(get(ring, 1));

    /* what cannot be made takes nobody's place */
    assert_null(tg_keyring_get(ring, TG_ALG_RS256, der, (size_t) len - 1, 0));
    assert_null(tg_keyring_get(ring, TG_ALG_RS256, der, (size_t) len, 1));
    assert_null(tg_keyring_get(ring, TG_ALG_HS256, der, (size_t) len, 0));
    assert_int_equal(tg_keyring_size(ring), 1);
    assert_int_equal(tg_keyring_made(ring), 1);

    /* the right way it can */
    assert_non_null(tg_keyring_get(ring, TG_ALG_RS256, der, (size_t) len, 0));

    OPENSSL_free(der);
    token_key_free(&key);
    tg_keyring_destroy(ring);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_least_recent_goes),
        cmocka_unit_test(test_max_one),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_bad_material),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
