/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_b64.h"


/* RFC 4648 section 10, without padding; and the alphabet's last two. */
static const struct {
    const char  *bytes;
    const char  *text;
} vectors[] = {
    { "", "" },
    { "f", "Zg" },
    { "fo", "Zm8" },
    { "foo", "Zm9v" },
    { "foob", "Zm9vYg" },
    { "fooba", "Zm9vYmE" },
    { "foobar", "Zm9vYmFy" },
    { "\xfb\xff\xfe", "-__-" },
};


static void
test_vectors(void **state)
{
    char     text[16];
    size_t   i, n;
    uint8_t  bytes[16];

    (void) state;

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        n = strlen(vectors[i].bytes);

        assert_int_equal(tg_b64url_decode(bytes, vectors[i].text,
                                          strlen(vectors[i].text)), n);
        assert_memory_equal(bytes, vectors[i].bytes, n);

        assert_int_equal(tg_b64url_encode(text, (uint8_t *) vectors[i].bytes,
                                          n), strlen(vectors[i].text));
        assert_memory_equal(text, vectors[i].text, strlen(vectors[i].text));
    }
}


static void
test_refused(void **state)
{
    size_t   i;
    uint8_t  bytes[32];

    static const char *const  texts[] = {
        "A",            /* no byte has 6 bits */
        "AAAAA",
        "Zg==",         /* padding */
        "Zm8=",
        "=",
        "Zm9v====",
        "Zm 9v",        /* white space */
        "Zm9v\n",
        " Zm9v",
        "\tZm9",
        "Zm9v\r\n",
        "Zm+v",         /* the other alphabet */
        "Zm/v",
        "Zm.v",
        "Zm9\x80",
        "\xff\xff\xff\xff",
        "Zh",           /* stray bits: another text for "f" */
        "Zv",
        "Zm9",          /* ... and for "fo" */
        "Zm-",
        "Zm9vYh",
        "AB",
    };

    (void) state;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(tg_b64url_decode(bytes, texts[i], strlen(texts[i])),
                         -1);
    }

    assert_int_equal(tg_b64url_decode(bytes, "Zm\0v", 4), -1);
}


/* Of all two and three character texts exactly one decodes to each value. */
static void
test_canonical(void **state)
{
    int      a, b, found;
    char     text[2];
    uint8_t  bytes[2];

    (void) state;

    found = 0;

    for (a = 0; a < 256; a++) {
        for (b = 0; b < 256; b++) {
            text[0] = (char) a;
            text[1] = (char) b;
            found += tg_b64url_decode(bytes, text, 2) == 1;
        }
    }

    assert_int_equal(found, 256);
}


static void
test_round_trip(void **state)
{
    size_t   n, len;
    char    *text;
    uint8_t  in[64], *out;

    (void) state;

    for (n = 0; n < sizeof(in); n++) {
        in[n] = (uint8_t) (n * 37 + 11);

        /* exact sizes, so that a sanitizer sees each byte too many */
        text = malloc(tg_b64url_encoded_size(n));
        len = tg_b64url_encode(text, in, n);
        assert_int_equal(len, tg_b64url_encoded_size(n));

        out = malloc(tg_b64url_decoded_size(len));
        assert_int_equal(tg_b64url_decode(out, text, len), n);
        assert_memory_equal(in, out, n);

        free(out);
        free(text);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
