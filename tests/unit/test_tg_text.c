/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tg_text.h"


#define BAD  "\xef\xbf\xbd"


static void
expect(const tg_text_t *text, const char *s)
{
    assert_false(text->failed);
    assert_int_equal(text->len, strlen(s));
    assert_memory_equal(text->data, s, text->len);
}


static void
test_grows(void **state)
{
    tg_text_t  text;

    (void) state;

    tg_text_init(&text);
    tg_text_add(&text, "", 0);
    assert_null(text.data);

    for (int i = 0; i < 1000; i++) {
        tg_text_str(&text, "0123456789");
    }

    assert_int_equal(text.len, 10000);
    assert_memory_equal(text.data + 9990, "0123456789", 10);

    tg_text_reset(&text);
    assert_int_equal(text.len, 0);
    assert_true(text.size >= 10000);

    tg_text_free(&text);
    assert_null(text.data);
}


static void
test_numbers(void **state)
{
    tg_text_t  text;

    (void) state;

    tg_text_init(&text);
    tg_text_u64(&text, 0);
    tg_text_str(&text, " ");
    tg_text_u64(&text, UINT64_MAX);
    tg_text_printf(&text, " %d%s", -7, "x");
    expect(&text, "0 18446744073709551615 -7x");
    tg_text_free(&text);
}


static void
test_long_printf(void **state)
{
    char       s[1001];
    tg_text_t  text;

    (void) state;

    memset(s, 'x', 1000);
    s[1000] = '\0';

    tg_text_init(&text);
    tg_text_printf(&text, "<%s>", s);
    assert_int_equal(text.len, 1002);
    assert_int_equal(text.data[1001], '>');
    tg_text_free(&text);
}


static void
test_escapes(void **state)
{
    tg_text_t  text;
    static const struct {
        const char  *s;
        size_t       len;       /* 0: strlen */
        const char  *json;
        const char  *label;
    } cases[] = {
        { "acme", 0, "\"acme\"", "acme" },
        { "a\"b\\c", 0, "\"a\\\"b\\\\c\"", "a\\\"b\\\\c" },
        { "a\nb", 0, "\"a\\nb\"", "a\\nb" },
        { "\t\x1f\x7f", 0, "\"\\u0009\\u001f\\u007f\"", "\t\x1f\x7f" },
        { "\0", 1, "\"" BAD "\"", BAD },
        { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 0,
          "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"",
          "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "a\xc3", 0, "\"a" BAD "\"", "a" BAD },
        { "\xe2\x82", 0, "\"" BAD BAD "\"", BAD BAD },
        { "\xc0\x80", 0, "\"" BAD BAD "\"", BAD BAD },
        { "\xed\xa0\x80", 0, "\"" BAD BAD BAD "\"", BAD BAD BAD },
        { "\xf4\x90\x80\x80", 0, "\"" BAD BAD BAD BAD "\"", BAD BAD BAD BAD },
        { "\xf8", 0, "\"" BAD "\"", BAD },
    };

    (void) state;

    tg_text_init(&text);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t  len = cases[i].len ? cases[i].len : strlen(cases[i].s);

        tg_text_json(&text, cases[i].s, len);
        expect(&text, cases[i].json);
        tg_text_reset(&text);

        tg_text_label(&text, cases[i].s, len);
        expect(&text, cases[i].label);
        tg_text_reset(&text);
    }

    tg_text_json(&text, "", 0);
    expect(&text, "\"\"");
    tg_text_free(&text);
}


static void
test_plain(void **state)
{
    tg_text_t  text;
    static const struct {
        const char  *s;
        size_t       len;       /* 0: strlen */
        const char  *plain;
    } cases[] = {
        { "acme", 0, "acme" },
        { "a\nb\t\x1b[1m\x7f", 0, "a b  [1m " },
        { "a\0b", 3, "a" BAD "b" },
        { "\xc2\x85\xc2\x9f\xc2\xa0", 0, "  \xc2\xa0" },
        { "\xc3\xa4\xe2\x82\xac", 0, "\xc3\xa4\xe2\x82\xac" },
        { "a\xc3", 0, "a" BAD },
        { "\xa9\xc3\xa4", 0, BAD "\xc3\xa4" },
        { "\xed\xa0\x80", 0, BAD BAD BAD },
    };

    (void) state;

    tg_text_init(&text);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tg_text_plain(&text, cases[i].s,
                      cases[i].len ? cases[i].len : strlen(cases[i].s));
        expect(&text, cases[i].plain);
        tg_text_reset(&text);
    }

    tg_text_free(&text);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_long_printf),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_plain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
