/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_body.h"


static void
test_good(void **state)
{
    char          detail[TD_BODY_MAX_DETAIL];
    size_t        i;
    json_t       *json;
    td_problem_t  problem;

    static const char *const  cases[] = {
        "{}", "[]", " {\"a\": [1, 2.5, -3e10, true, false, null, \"x\"]}\n",
        "{\"caf\xc3\xa9\": \"\xf0\x9f\x90\xa7 \\ud83d\\udc27\"}",
        "{\"n\": 9223372036854775807}", "{\"n\": 1e308}", "{\"n\": 1e-400}"
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json = td_body_parse(cases[i], strlen(cases[i]), &problem, detail);
        if (json == NULL) {
            fail_msg("%s: %s", cases[i], detail);
        }
        json_decref(json);
    }
}


static void
test_bad(void **state)
{
    char          detail[TD_BODY_MAX_DETAIL];
    size_t        i;
    td_problem_t  problem;

    static const struct {
        const char  *text;
        size_t       len;       /* 0: of the string */
        unsigned     line;
    } cases[] = {
        { "", 0, 1 },
        { " ", 0, 1 },
        { "null", 0, 1 },
        { "1", 0, 1 },
        { "\"x\"", 0, 1 },
        { "{", 0, 1 },
        { "{\n\"a\": 1,\n}", 0, 3 },
        { "{\"a\": 1}x", 0, 1 },
        { "{} {}", 0, 1 },
        { "{\"a\": 1, \"a\": 2}", 0, 1 },
        { "{\"a\": 1, \"\\u0061\": 2}", 0, 1 },
        { "{'a': 1}", 0, 1 },
        { "{a: 1}", 0, 1 },
        { "{\"a\": 01}", 0, 1 },
        { "{\"a\": +1}", 0, 1 },
        { "{\"a\": .5}", 0, 1 },
        { "{\"a\": 1.}", 0, 1 },
        { "{\"a\": 0x10}", 0, 1 },
        { "{\"a\": NaN}", 0, 1 },
        { "{\"a\": Infinity}", 0, 1 },
        { "{\"a\": 1e999}", 0, 1 },
        { "{\"a\": -1e999}", 0, 1 },
        { "{\"a\": 9223372036854775808}", 0, 1 },
        { "{\"a\": 99999999999999999999999999999999}", 0, 1 },
        { "{\"a\": \"\\u0000\"}", 0, 1 },
        { "{\"\\u0000\": 1}", 0, 1 },
        { "{\"a\": \"\\ud800\"}", 0, 1 },
        { "{\"a\": \"\\udc00\\ud800\"}", 0, 1 },
        { "{\"a\": \"\\x\"}", 0, 1 },
        { "{\"a\": \"\x01\"}", 0, 1 },
        { "{\"a\": \"\n\"}", 0, 1 },
        { "{\"a\": \"\xff\"}", 0, 1 },
        { "{\"a\": \"\xc0\xaf\"}", 0, 1 },
        { "{\"a\": \"\xed\xa0\x80\"}", 0, 1 },
        { "{\"a\": \"\xf4\x90\x80\x80\"}", 0, 1 },
        { "\xef\xbb\xbf{}", 0, 1 },
        { "{\0}", 3, 1 },
        { "{}\0", 3, 1 },
        { "{\"a\": \"b\0c\"}", 12, 1 },
        { "// x\n{}", 0, 1 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(&problem, 0, sizeof(problem));

        if (td_body_parse(cases[i].text,
                          cases[i].len ? cases[i].len : strlen(cases[i].text),
                          &problem, detail) != NULL)
        {
            fail_msg("case %zu, %s, was taken", i, cases[i].text);
        }

        assert_int_equal(problem.status, 400);
        assert_string_equal(problem.slug, "malformed-json");
        assert_int_equal(problem.line, cases[i].line);
        assert_non_null(strstr(problem.detail, "line "));
    }
}


static json_t *
nested(int depth)
{
    int           i;
    char          detail[TD_BODY_MAX_DETAIL];
    char         *text;
    json_t       *json;
    td_problem_t  problem;

    text = calloc(1, (size_t) depth * 6 + 1);
    assert_non_null(text);

    for (i = 0; i < depth; i++) {
        strcat(text, i % 2 ? "[" : "{\"a\":");
    }
    strcat(text, "1");
    for (i = depth - 1; i >= 0; i--) {
        strcat(text, i % 2 ? "]" : "}");
    }

    json = td_body_parse(text, strlen(text), &problem, detail);
    if (json == NULL) {
        assert_string_equal(problem.slug, "malformed-json");
    }
    free(text);

    return json;
}


static void
test_depth(void **state)
{
    json_t  *json;

    (void) state;

    json = nested(TD_BODY_MAX_DEPTH);
    assert_non_null(json);
    json_decref(json);

    assert_null(nested(TD_BODY_MAX_DEPTH + 1));
    assert_null(nested(2000));
    assert_null(nested(10000));
}


static void
test_type(void **state)
{
    size_t  i;

    static const struct {
        const char  *type;
        int          fits;
    } cases[] = {
        { "application/json", 1 },
        { "Application/JSON", 1 },
        { "application/json; charset=utf-8", 1 },
        { "application/json;charset=\"UTF-8\"", 1 },
        { "application/json; profile=x", 1 },
        { "application/merge-patch+json", 1 },
        { NULL, 0 },
        { "", 0 },
        { "json", 0 },
        { "text/json", 0 },
        { "application/", 0 },
        { "application/jsonx", 0 },
        { "application/jso", 0 },
        { "application/x-www-form-urlencoded", 0 },
        { "application/json; charset=latin1", 0 },
        { "application/json; charset=utf-16", 0 },
        { "application/json; charset=utf-88", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (td_body_is_type(cases[i].type, "json merge-patch+json")
            != cases[i].fits)
        {
            fail_msg("%s", cases[i].type);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_type),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
