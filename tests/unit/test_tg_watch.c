/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_watch.h"


#define OBJECT(id, name, revision)                                            \
    "{\"id\":" id ",\"name\":\"" name "\",\"revision\":" revision "}"

#define PUT(members)  "{\"type\":\"PUT\",\"kind\":\"tenant\"," members "}"

#define ACME  "\"name\":\"acme\",\"id\":17,\"revision\":91"


static void
test_put(void **state)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    static const char  line[] =
        PUT(ACME ",\"object\":" OBJECT("17", "acme", "95"));

    (void) state;

    assert_int_equal(tg_watch_parse(line, strlen(line), &event, &err), 0);
    assert_int_equal(event.type, TG_WATCH_PUT);
    assert_int_equal(event.kind, TG_KIND_TENANT);
    assert_int_equal(event.id, 17);
    assert_int_equal(event.revision, 91);
    assert_string_equal(event.name, "acme");
    assert_int_equal(json_integer_value(json_object_get(event.object,
                                                        "revision")), 95);
    tg_watch_release(&event);
}


static void
test_suspension(void **state)
{
    char              *text;
    size_t             i;
    tg_error_t         err;
    tg_watch_event_t   event;
    static const char  line[] =
        PUT(ACME ",\"object\":{\"id\":17,\"name\":\"acme\",\"revision\":95,"
                 "\"state\":\"suspended\",\"reason\":\"\\n\","
                 "\"hosts\":[\"a.example\"],\"routes\":7}");
    static const char *const  others[] = {
        PUT(ACME ",\"object\":{\"id\":17,\"name\":\"acme\",\"revision\":95,"
                 "\"state\":\"active\"}"),
        PUT(ACME ",\"object\":{\"id\":17,\"name\":\"acme\",\"revision\":95,"
                 "\"state\":5}"),
        "{\"type\":\"PUT\",\"kind\":\"issuer\"," ACME ",\"object\":{\"id\":17,"
        "\"name\":\"acme\",\"revision\":95,\"state\":\"suspended\"}}",
        "{\"type\":\"DELETE\",\"kind\":\"tenant\"," ACME "}",
    };

    (void) state;

    assert_int_equal(tg_watch_parse(line, strlen(line), &event, &err), 0);
    text = tg_watch_suspension(&event);
    assert_string_equal(text, PUT(ACME ",\"object\":{\"name\":\"acme\",\"id\":17,"
                                  "\"revision\":95,\"state\":\"suspended\","
                                  "\"hosts\":[\"a.example\"],\"issuers\":[],"
                                  "\"api_keys\":[],\"upstreams\":[],"
                                  "\"routes\":[],\"quotas\":[]}"));
    free(text);
    tg_watch_release(&event);

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(tg_watch_parse(others[i], strlen(others[i]), &event,
                                        &err), 0);
        assert_null(tg_watch_suspension(&event));
        tg_watch_release(&event);
    }
}


static void
test_delete(void **state)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    static const char  line[] = "{\"type\":\"DELETE\",\"kind\":\"issuer\","
                                "\"name\":\"old\",\"id\":4,\"revision\":92}";

    (void) state;

    assert_int_equal(tg_watch_parse(line, strlen(line), &event, &err), 0);
    assert_int_equal(event.type, TG_WATCH_DELETE);
    assert_int_equal(event.kind, TG_KIND_ISSUER);
    assert_null(event.object);
    tg_watch_release(&event);
}


static void
test_bookmark(void **state)
{
    tg_error_t        err;
    tg_watch_event_t  event;
    static const struct {
        const char  *line;
        int          complete;
    } lines[] = {
        { "{\"type\":\"BOOKMARK\",\"revision\":0}", 0 },
        { "{\"type\":\"BOOKMARK\",\"revision\":0,\"complete\":true}", 1 },
        { " {\"complete\":false,\"revision\":0,\"type\":\"BOOKMARK\"}\r", 0 },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_int_equal(tg_watch_parse(lines[i].line, strlen(lines[i].line),
                                        &event, &err), 0);
        assert_int_equal(event.type, TG_WATCH_BOOKMARK);
        assert_int_equal(event.kind, 0);
        assert_int_equal(event.complete, lines[i].complete);
        tg_watch_release(&event);
    }
}


/* A newer tenantd may send what this gateway does not know. */
static void
test_newer(void **state)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    static const char  line[] =
        "{\"type\":\"PUT\",\"kind\":\"mesh\",\"name\":\"A_b\",\"uid\":\"x\","
        "\"revision\":3,\"object\":[]}";
    static const char  more[] =
        PUT(ACME ",\"more\":1,\"object\":" OBJECT("17", "acme", "1"));

    (void) state;

    assert_int_equal(tg_watch_parse(line, strlen(line), &event, &err), 0);
    assert_int_equal(event.kind, 0);
    tg_watch_release(&event);

    assert_int_equal(tg_watch_parse(more, strlen(more), &event, &err), 0);
    assert_int_equal(event.kind, TG_KIND_TENANT);
    tg_watch_release(&event);
}


static const struct {
    const char  *line;
    const char  *pointer;
} refused[] = {
    { "", "" },
    { "null", "" },
    { "[]", "" },
    { "\"PUT\"", "" },
    { "{", "" },
    { "{}", "/type" },
    { "{} {}", "" },
    { "{\"type\":\"PUT\",\"type\":\"PUT\"}", "" },
    { "{\"type\":1}", "/type" },
    { "{\"type\":\"put\"}", "/type" },
    { "{\"type\":\"PATCH\",\"revision\":1}", "/type" },
    { "{\"type\":\"PUT\"}", "/kind" },
    { "{\"type\":\"PUT\",\"kind\":1}", "/kind" },
    { "{\"type\":\"PUT\",\"kind\":\"mesh\",\"revision\":0}", "/revision" },

    { PUT("\"id\":1"), "/name" },
    { PUT("\"name\":\"\",\"id\":1"), "/name" },
    { PUT("\"name\":\"Acme\",\"id\":1"), "/name" },
    { PUT("\"name\":\"-a\",\"id\":1"), "/name" },
    { PUT("\"name\":\"a-\",\"id\":1"), "/name" },
    { PUT("\"name\":\"a/b\",\"id\":1"), "/name" },
    { PUT("\"name\":\"a\\u0000b\",\"id\":1"), "" },
    { PUT("\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
          "aaaaaaa\",\"id\":1"), "/name" },
    { PUT("\"name\":\"a\\ud800\",\"id\":1"), "" },
    { PUT("\"name\":\"\xff\",\"id\":1"), "" },

    { PUT("\"name\":\"acme\""), "/id" },
    { PUT("\"name\":\"acme\",\"id\":0"), "/id" },
    { PUT("\"name\":\"acme\",\"id\":-1"), "/id" },
    { PUT("\"name\":\"acme\",\"id\":1.0"), "/id" },
    { PUT("\"name\":\"acme\",\"id\":\"1\""), "/id" },
    { PUT("\"name\":\"acme\",\"id\":9007199254740992"), "/id" },
    { PUT("\"name\":\"acme\",\"id\":99999999999999999999"), "" },

    { PUT("\"name\":\"acme\",\"id\":17"), "/revision" },
    { PUT("\"name\":\"acme\",\"id\":17,\"revision\":0"), "/revision" },
    { PUT("\"name\":\"acme\",\"id\":17,\"revision\":null"), "/revision" },

    { PUT(ACME), "/object" },
    { PUT(ACME ",\"object\":null"), "/object" },
    { PUT(ACME ",\"object\":[]"), "/object" },
    { PUT(ACME ",\"object\":{}"), "/object/id" },
    { PUT(ACME ",\"object\":" OBJECT("17", "acme", "0")), "/object/revision" },
    { PUT(ACME ",\"object\":" OBJECT("18", "acme", "1")), "/object" },
    { PUT(ACME ",\"object\":" OBJECT("17", "acm", "1")), "/object" },
    { PUT(ACME ",\"object\":{\"id\":17,\"revision\":1}"), "/object" },

    { "{\"type\":\"BOOKMARK\"}", "/revision" },
    { "{\"type\":\"BOOKMARK\",\"revision\":-1}", "/revision" },
    { "{\"type\":\"BOOKMARK\",\"revision\":1,\"complete\":1}", "/complete" },
    { "{\"type\":\"BOOKMARK\",\"revision\":1,\"complete\":null}", "/complete" },
};


static void
test_refused(void **state)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    tg_watch_status_e  status;

    (void) state;

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        memset(&err, 0, sizeof(err));

        status = tg_watch_parse(refused[i].line, strlen(refused[i].line),
                                &event, &err);

        if (status != (strncmp(refused[i].pointer, "/object", 7) == 0
                       ? TG_WATCH_BAD_OBJECT : TG_WATCH_BAD_LINE))
        {
            fail_msg("%s: status %d", refused[i].line, status);
        }

        if (strcmp(err.pointer, refused[i].pointer) != 0
            || err.message[0] == '\0')
        {
            fail_msg("%s: \"%s\" at \"%s\"", refused[i].line, err.message,
                     err.pointer);
        }

        tg_watch_release(&event);
    }
}


/* What is refused is still named as far as it can be. */
static void
test_refused_is_named(void **state)
{
    tg_error_t         err;
    tg_watch_event_t   event;
    static const char  line[] = PUT(ACME ",\"object\":7");

    (void) state;

    assert_int_equal(tg_watch_parse(line, strlen(line), &event, &err),
                     TG_WATCH_BAD_OBJECT);
    assert_int_equal(event.kind, TG_KIND_TENANT);
    assert_string_equal(event.name, "acme");
    assert_int_equal(event.id, 17);
    assert_int_equal(event.revision, 91);
    tg_watch_release(&event);
}


/* A line that nests without end must not end the process. */
static void
test_deep(void **state)
{
    char              *line;
    tg_error_t         err;
    tg_watch_event_t   event;
    const size_t       n = 1000000;

    (void) state;

    line = malloc(n);
    assert_non_null(line);
    memset(line, '[', n);

    assert_int_equal(tg_watch_parse(line, n, &event, &err), TG_WATCH_BAD_LINE);
    tg_watch_release(&event);

    free(line);
}


static void
test_names(void **state)
{
    (void) state;

    for (int kind = 1; kind <= 2; kind++) {
        assert_int_equal(tg_watch_kind(tg_watch_kind_name(kind),
                                       strlen(tg_watch_kind_name(kind))), kind);
    }

    for (int type = 1; type <= 3; type++) {
        assert_int_equal(tg_watch_type(tg_watch_type_name(type),
                                       strlen(tg_watch_type_name(type))), type);
    }

    assert_int_equal(tg_watch_kind("", 0), 0);
    assert_int_equal(tg_watch_kind("tenants", 7), 0);
    assert_int_equal(tg_watch_type("PU", 2), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_suspension),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_bookmark),
        cmocka_unit_test(test_newer),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_is_named),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
