/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "render_reader.h"
#include "td_render.h"


/* Renders; the text, to be freed, or NULL with err. */
static char *
render(const char *template, json_t *parameters, const char *schema,
    tg_error_t *err)
{
    int                  rc;
    char                *text;
    json_t              *parsed;
    tg_text_t            out;
    td_render_values_t   values = { parameters, NULL, NULL };

    parsed = schema != NULL ? json_loads(schema, 0, NULL) : NULL;
    values.schema = parsed;
    tg_text_init(&out);
    rc = td_render(&out, template, &values, err);
    text = rc == 0 ? strndup(out.data, out.len) : NULL;
    tg_text_free(&out);
    json_decref(parsed);

    return text;
}


static void
assert_renders(const char *template, const char *parameters,
    const char *schema, const char *expected)
{
    char        *text;
    json_t      *parsed;
    tg_error_t   err;

    parsed = json_loads(parameters, 0, NULL);
    assert_non_null(parsed);
    text = render(template, parsed, schema, &err);

    if (text == NULL) {
        fail_msg("%s: %s %s", template, err.pointer, err.message);
    }

    assert_string_equal(text, expected);
    free(text);
    json_decref(parsed);
}


static void
assert_refused(const char *template, const char *parameters,
    const char *schema, const char *pointer)
{
    json_t      *parsed;
    tg_error_t   err;

    parsed = json_loads(parameters, 0, NULL);
    assert_non_null(parsed);
    assert_null(render(template, parsed, schema, &err));
    assert_string_equal(err.pointer, pointer);
    assert_true(err.message[0] != '\0');
    json_decref(parsed);
}


static void
test_types(void **state)
{
    (void) state;

    assert_renders("a {{s}};", "{\"s\":\"x\"}", NULL, "a \"x\";\n");
    assert_renders("a {{s}};", "{\"s\":\"\"}", NULL, "a \"\";\n");
    assert_renders("a {{s}};", "{\"s\":\"q\\\"b\\\\\"}", NULL,
                   "a \"q\\\"b\\\\\";\n");
    assert_renders("a {{i}} {{n}};", "{\"i\":-7,\"n\":1.5}", NULL,
                   "a -7 1.5;\n");
    assert_renders("a {{n}};", "{\"n\":3.0}", NULL, "a 3;\n");
    assert_renders("a {{y}} {{n}};", "{\"y\":true,\"n\":false}", NULL,
                   "a on off;\n");
    assert_renders("a {{l}} z;", "{\"l\":[\"x\",2,true]}", NULL,
                   "a \"x\" 2 on z;\n");
    assert_renders("b {{s}}{ c d; }", "{\"s\":\"x\"}", NULL,
                   "b \"x\"{ c d; }\n");
}


static void
test_defaults(void **state)
{
    const char  *schema = "{\"properties\":{\"s\":{\"default\":\"d\"}}}";

    (void) state;

    assert_renders("a {{s}};", "{}", schema, "a \"d\";\n");
    assert_renders("a {{s}};", "{\"s\":\"x\"}", schema, "a \"x\";\n");
    assert_refused("a {{s}};", "{}", NULL, "/s");
    assert_refused("a {{s}};", "{}", "{\"properties\":{\"s\":{}}}", "/s");
}


static void
test_variables(void **state)
{
    const char  *any = "{\"properties\":{\"s\":{\"variables\":true}}}";
    const char  *some = "{\"properties\":{\"s\":{\"variables\":true,"
                        "\"variable_names\":[\"uri\"]}}}";

    (void) state;

    assert_refused("a {{s}};", "{\"s\":\"$uri\"}", NULL, "/s");
    assert_refused("a {{s}};", "{\"s\":\"$\"}", NULL, "/s");
    assert_renders("a {{s}};", "{\"s\":\"$uri\"}", any, "a \"$uri\";\n");
    assert_renders("a {{s}};", "{\"s\":\"x$uri.${uri}y\"}", some,
                   "a \"x$uri.${uri}y\";\n");
    assert_refused("a {{s}};", "{\"s\":\"$uri$host\"}", some, "/s");
    assert_refused("a {{s}};", "{\"s\":\"$urix\"}", some, "/s");
    assert_refused("a {{s}};", "{\"s\":\"${uri\"}", some, "/s");
    assert_refused("a {{s}};", "{\"s\":\"$\"}", some, "/s");
}


static void
test_values_refused(void **state)
{
    char        *long_text;
    json_t      *parameters;
    size_t       i;
    tg_error_t   err;
    static const char *const  bad[] = {
        "\n", "a\r", "\t", "\x01", "\x7f", "\xff", "\xc3", "\xc0\xaf",
        "\xed\xa0\x80"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        parameters = json_object();
        json_object_set_new(parameters, "s",
                            json_stringn_nocheck(bad[i], strlen(bad[i])));
        assert_null(render("a {{s}};", parameters, NULL, &err));
        assert_string_equal(err.pointer, "/s");
        json_decref(parameters);
    }

    parameters = json_object();
    json_object_set_new(parameters, "s", json_stringn_nocheck("a\0b", 3));
    assert_null(render("a {{s}};", parameters, NULL, &err));
    json_decref(parameters);

    long_text = malloc(TD_RENDER_MAX_STRING + 2);
    memset(long_text, 'a', TD_RENDER_MAX_STRING + 1);
    long_text[TD_RENDER_MAX_STRING + 1] = '\0';
    parameters = json_object();
    json_object_set_new(parameters, "s", json_string(long_text));
    assert_null(render("a {{s}};", parameters, NULL, &err));
    json_decref(parameters);
    free(long_text);

    assert_refused("a {{s}};", "{\"s\":null}", NULL, "/s");
    assert_refused("a {{s}};", "{\"s\":{}}", NULL, "/s");
    assert_refused("a {{s}};", "{\"s\":[[\"x\"]]}", NULL, "/s");
    assert_refused("a {{s}};", "{\"s\":[\"x\",\"$y\"]}", NULL, "/s");
    assert_refused("a {{s}};", "{\"s\":1e300}", NULL, "/s");
}


static void
test_templates_refused(void **state)
{
    size_t  i;
    static const char *const  bad[] = {
        "a x{{s}};", "a {{s}}x;", "a {{s}}{{s}};", "a \"{{s}}\";",
        "a 'x {{s}}';", "{{s}} a;", "{{s}};", "a; {{s}} b;", "b { {{s}} c; }",
        "a {{s}}", "a \"x", "a x", "a {{}};", "a {{s;", "a {{s}};b",
        "a {{s x}};", "{{@nothing}}", "a {{@s}};", "a {{s}}#;\n", "a {{s}}};"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_refused(bad[i], "{\"s\":\"v\"}", NULL, "");
    }

    /* nginx's own text stays as it is */
    assert_renders("# {{s}}\nmap $a $b { 'x\\'{' \"y{{\\\"\"; }", "{}", NULL,
                   "# {{s}}\nmap $a $b { 'x\\'{' \"y{{\\\"\"; }\n");
    assert_renders("a ${b}c {{s}};", "{\"s\":\"v\"}", NULL, "a ${b}c \"v\";\n");
    assert_renders("a x#y {{s}};", "{\"s\":\"v\"}", NULL, "a x#y \"v\";\n");
}


static void
test_blocks(void **state)
{
    tg_text_t            out;
    tg_error_t           err;
    td_render_block_t    blocks[] = { { "one", "x y;" }, { NULL, NULL } };
    td_render_values_t   values = { NULL, NULL, blocks };

    (void) state;

    tg_text_init(&out);
    assert_int_equal(td_render(&out, "{{@one}}\nb { {{@one}} }", &values, &err),
                     0);
    tg_text_add(&out, "", 1);
    assert_string_equal(out.data, "x y;\nb { x y; }\n");
    tg_text_free(&out);

    assert_int_equal(td_render(&out, "a {{@one}};", &values, &err), -1);
    tg_text_free(&out);
}


/* Whatever a parameter holds: nginx reads it, and nothing beside it. */
static void
test_no_way_out(void **state)
{
    char        *text;
    size_t       i;
    json_t      *parameters;
    reader_t    *reader;
    tg_error_t   err;
    static const char *const  evil[] = {
        "x\"; evil on; #", "\\", "\\\\", "\\\"", "\\\\\"", "x\\\"; evil", "';",
        "} evil {", "{{s}}", "{{@main}}", "{", "}", ";", "#", " ", "' \"",
        "\\n", "\\t\\", "${", "a\\\\\\", "include /etc/passwd;", "\xe2\x80\xa8",
        "\"", "\"\"", "\\x", "<%", "a b  c"
    };

    (void) state;

    reader = malloc(sizeof(reader_t));

    for (i = 0; i < sizeof(evil) / sizeof(evil[0]); i++) {
        parameters = json_object();
        json_object_set_new(parameters, "s", json_string(evil[i]));
        text = render("good {{s}} end;\nlast;", parameters,
                      "{\"properties\":{\"s\":{\"variables\":true}}}", &err);
        assert_non_null(text);

        reader->p = text;
        assert_int_equal(reader_next(reader), READER_DIRECTIVE);
        assert_int_equal(reader->words, 3);
        assert_int_equal(reader->len[1], strlen(evil[i]));
        assert_memory_equal(reader->word[1], evil[i], strlen(evil[i]));
        assert_memory_equal(reader->word[2], "end", 3);
        assert_int_equal(reader_next(reader), READER_DIRECTIVE);
        assert_memory_equal(reader->word[0], "last", 4);
        assert_int_equal(reader_next(reader), READER_END);

        free(text);
        json_decref(parameters);
    }

    free(reader);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_templates_refused),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_no_way_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
