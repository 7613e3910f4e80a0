/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_json.h"

#define CLAIMS  "{\"iss\":\"https://id.example\",\"sub\":\"user%d\",\"aud\":[\"a\",\"b\"]," \
                "\"exp\":%d,\"nested\":{\"x\":[1,2.5,true,null]}}"


static int
start(void **state)
{
    (void) state;
    tg_json_init();
    tg_json_init();

    return 0;
}


static json_t *
load(const char *text)
{
    json_error_t  error;

    return tg_json_load(text, strlen(text), JSON_REJECT_DUPLICATES, &error);
}


/* What is read is what jansson reads by itself. */
static void
assert_same(const json_t *value, const char *text)
{
    json_t  *expected;

    expected = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(expected);
    assert_true(json_equal(value, expected));
    json_decref(expected);
}


static void
test_values_and_errors(void **state)
{
    json_t       *value;
    size_t        i;
    json_error_t  error;

    static const char *const  bad[] = {
        "", "{", "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}", "[1,]", "{} x"
    };

    (void) state;

    value = load("{\"a\":[1,\"zwei\",{\"b\":null}]}");
    assert_same(value, "{\"a\":[1,\"zwei\",{\"b\":null}]}");
    json_decref(value);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_null(tg_json_load(bad[i], strlen(bad[i]), JSON_REJECT_DUPLICATES,
                                 &error));
        assert_string_not_equal(error.text, "");
    }

    assert_int_equal(tg_json_chunks(), 0);
}


/* Values change and outlive one another like any of jansson's. */
static void
test_values_change(void **state)
{
    char    *text;
    json_t  *value, *kept;

    (void) state;

    value = load("{\"kept\":{\"x\":\"y\"},\"gone\":1}");
    kept = json_incref(json_object_get(value, "kept"));
    assert_int_equal(json_object_set_new(value, "new", json_string("of another memory")), 0);
    assert_int_equal(json_object_del(value, "gone"), 0);
    assert_int_equal(json_object_set_new(kept, "more", json_integer(7)), 0);

    text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, "{\"kept\":{\"more\":7,\"x\":\"y\"},\"new\":\"of another memory\"}");
    free(text);                         /* as whoever else uses jansson does */

    json_decref(value);
    assert_same(kept, "{\"more\":7,\"x\":\"y\"}");
    json_decref(kept);
    assert_int_equal(tg_json_chunks(), 0);
}


static void
test_large_values(void **state)
{
    char    *text;
    size_t   len;
    json_t  *value;

    (void) state;

    for (len = 1; len < 20000; len += 37) {
        text = malloc(len + 32);
        assert_non_null(text);
        snprintf(text, len + 32, "[\"%0*d\",\"end\"]", (int) len, 7);

        value = load(text);
        assert_same(value, text);
        json_decref(value);
        free(text);
    }

    assert_int_equal(tg_json_chunks(), 0);
}


/* In any order, what is freed takes nothing with it that lives. */
static void
test_any_order(void **state)
{
    int       i, k, of[512];
    char      text[256];
    json_t   *value[512];
    unsigned  seed;

    (void) state;
    memset(value, 0, sizeof(value));
    seed = 1;

    for (i = 0; i < 50000; i++) {
        seed = seed * 1103515245 + 12345;
        k = (int) (seed >> 16) % 512;

        if (value[k] != NULL) {
            snprintf(text, sizeof(text), CLAIMS, of[k], of[k]);
            assert_same(value[k], text);
            json_decref(value[k]);
            value[k] = NULL;
            continue;
        }

        of[k] = i;
        snprintf(text, sizeof(text), CLAIMS, i, i);
        value[k] = load(text);
        assert_non_null(value[k]);
    }

    /* they lie close: about a chunk for each, not the whole area */
    assert_true(tg_json_chunks() < 3 * 512);

    for (k = 0; k < 512; k++) {
        json_decref(value[k]);
    }

    assert_int_equal(tg_json_chunks(), 0);
}


/* An area that is used up is no failure. */
static void
test_area_used_up(void **state)
{
    size_t    i, n;
    char      text[256];
    json_t  **value;

    (void) state;
    n = TG_JSON_AREA / 512;             /* each takes more than that */
    value = calloc(n, sizeof(json_t *));
    assert_non_null(value);

    for (i = 0; i < n; i++) {
        snprintf(text, sizeof(text), CLAIMS, (int) i, (int) i);
        value[i] = load(text);
        assert_non_null(value[i]);
    }

    assert_true(tg_json_chunks() <= TG_JSON_AREA / TG_JSON_CHUNK);

    for (i = 0; i < n; i++) {
        if (i % 1000 == 0) {
            snprintf(text, sizeof(text), CLAIMS, (int) i, (int) i);
            assert_same(value[i], text);
        }

        json_decref(value[i]);
    }

    free(value);
    assert_int_equal(tg_json_chunks(), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_values_and_errors),
        cmocka_unit_test(test_values_change),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_area_used_up),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
