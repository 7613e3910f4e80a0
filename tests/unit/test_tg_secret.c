/* SPDX-License-Identifier: BSD-2-Clause */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tg_secret.h"


static const char  key_text[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";


static void
make_key(uint8_t key[TG_SECRET_KEY_SIZE])
{
    tg_error_t  err;

    assert_int_equal(tg_secret_parse_key(key_text, strlen(key_text), key, &err),
                     0);
}


static void
test_key_text(void **state)
{
    size_t      i;
    uint8_t     key[TG_SECRET_KEY_SIZE];
    tg_error_t  err;

    static const struct {
        const char  *text;
        int          rc;
    } cases[] = {
        { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
          0 },
        { " 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\r\n",
          0 },
        { "", -1 },
        { "\n", -1 },
        { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1",
          -1 },
        { "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00",
          -1 },
        { "000102030405060708090a0b0c0d0e0f 01112131415161718191a1b1c1d1e1f",
          -1 },
        { "g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
          -1 },
        { "0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
          -1 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tg_secret_parse_key(cases[i].text,
                                             strlen(cases[i].text), key, &err),
                         cases[i].rc);
    }
}


static void
test_key_file(void **state)
{
    int         fd;
    char        path[] = "/tmp/test_tg_secret.XXXXXX";
    uint8_t     key[TG_SECRET_KEY_SIZE];
    tg_error_t  err;

    (void) state;

    assert_int_equal(tg_secret_load_key("/nonexistent/key", key, &err), -1);
    assert_non_null(strstr(err.message, "/nonexistent/key"));

    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, key_text, strlen(key_text)), strlen(key_text));

    assert_int_equal(tg_secret_load_key(path, key, &err), 0);
    assert_int_equal(key[31], 0x1f);

    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(tg_secret_load_key(path, key, &err), -1);
    assert_non_null(strstr(err.message, "everybody"));

    close(fd);
    unlink(path);
}


static void
test_round_trip(void **state)
{
    char                 sealed[tg_secret_sealed_size(TG_SECRET_MAX)];
    char                 again[tg_secret_sealed_size(TG_SECRET_MAX)];
    size_t               i, len;
    uint8_t              key[TG_SECRET_KEY_SIZE];
    uint8_t              plain[TG_SECRET_MAX], opened[TG_SECRET_MAX];
    static const size_t  lengths[] = { 1, 2, 3, 31, 32, 64, 4095, 4096 };

    (void) state;

    make_key(key);
    memset(plain, 0xa5, sizeof(plain));

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(tg_secret_seal(key, plain, lengths[i], sealed), 0);
        assert_true(strlen(sealed) < tg_secret_sealed_size(lengths[i]));

        len = sizeof(opened);
        assert_int_equal(tg_secret_open(key, sealed, strlen(sealed), opened,
                                        &len), TG_SECRET_OK);
        assert_int_equal(len, lengths[i]);
        assert_memory_equal(opened, plain, len);

        /* A nonce used twice would give the key away. */
        assert_int_equal(tg_secret_seal(key, plain, lengths[i], again), 0);
        assert_string_not_equal(sealed, again);
    }

    assert_int_equal(tg_secret_seal(key, plain, 0, sealed), -1);
    assert_int_equal(tg_secret_seal(key, plain, TG_SECRET_MAX + 1, sealed), -1);
}


/* Sealed with Python's cryptography, so that the format is not merely our own. */
static void
test_known_answer(void **state)
{
    size_t      len;
    uint8_t     key[TG_SECRET_KEY_SIZE], opened[64];
    const char  sealed[] =
        "tg1.f063a6ff."
        "ZGVmZ2hpamtsbW5vK3SsFByKIr5WDS2bv0UInDa2Y3jyTIAGxqHALduSl3tf4wHIiQX0cb3YZzsnsRYl";

    (void) state;

    make_key(key);

    len = sizeof(opened);
    assert_int_equal(tg_secret_open(key, sealed, strlen(sealed), opened, &len),
                     TG_SECRET_OK);
    assert_int_equal(len, 32);
    assert_memory_equal(opened, "correct horse battery staple 123", 32);
}


static void
test_each_character_counts(void **state)
{
    char     sealed[tg_secret_sealed_size(32)];
    size_t   i, len, n;
    uint8_t  key[TG_SECRET_KEY_SIZE], plain[32] = { 7 }, opened[32];

    (void) state;

    make_key(key);
    assert_int_equal(tg_secret_seal(key, plain, sizeof(plain), sealed), 0);
    n = strlen(sealed);

    for (i = 0; i < n; i++) {
        sealed[i] = (char) (sealed[i] == 'A' ? 'B' : 'A');
        memset(opened, 0, sizeof(opened));
        len = sizeof(opened);

        assert_int_not_equal(tg_secret_open(key, sealed, n, opened, &len),
                             TG_SECRET_OK);
        assert_int_equal(len, 0);
        assert_memory_not_equal(opened, plain, sizeof(plain));

        assert_int_equal(tg_secret_seal(key, plain, sizeof(plain), sealed), 0);
    }

    for (i = 0; i < n; i++) {
        len = sizeof(opened);
        assert_int_not_equal(tg_secret_open(key, sealed, i, opened, &len),
                             TG_SECRET_OK);
    }
}


static void
test_refusals(void **state)
{
    char     sealed[tg_secret_sealed_size(32)];
    size_t   len;
    uint8_t  key[TG_SECRET_KEY_SIZE], other[TG_SECRET_KEY_SIZE];
    uint8_t  plain[32] = { 7 }, opened[32];

    (void) state;

    make_key(key);
    memcpy(other, key, sizeof(other));
    other[0] ^= 1;
    assert_int_equal(tg_secret_seal(key, plain, sizeof(plain), sealed), 0);

    len = sizeof(opened);
    assert_int_equal(tg_secret_open(other, sealed, strlen(sealed), opened, &len),
                     TG_SECRET_OTHER_KEY);

    /* Whoever writes the other key's id in front has still not sealed with it. */
    tg_secret_key_id(other, sealed + 4);
    sealed[4 + TG_SECRET_KEY_ID] = '.';
    len = sizeof(opened);
    assert_int_equal(tg_secret_open(other, sealed, strlen(sealed), opened, &len),
                     TG_SECRET_FORGED);

    assert_int_equal(tg_secret_seal(key, plain, sizeof(plain), sealed), 0);
    len = sizeof(plain) - 1;
    assert_int_equal(tg_secret_open(key, sealed, strlen(sealed), opened, &len),
                     TG_SECRET_MALFORMED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_key_text),
        cmocka_unit_test(test_key_file),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known_answer),
        cmocka_unit_test(test_each_character_counts),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
