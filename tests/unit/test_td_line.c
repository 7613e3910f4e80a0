/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_line.h"


static td_line_t *
make(const char *kind, const char *name, int64_t revision,
    int64_t object_revision, int shared, const char *document)
{
    td_line_t         *line;
    td_line_source_t   source = { kind, name, 7, revision, object_revision,
                                  shared, document, NULL, 0 };

    line = td_line_create(&source);
    assert_non_null(line);

    return line;
}


static void
assert_line(const td_line_t *line, const char *text)
{
    assert_non_null(line);
    assert_int_equal(line->len, strlen(text));
    assert_memory_equal(line->data, text, line->len);
}


static void
test_text(void **state)
{
    td_line_t  *line;

    (void) state;

    line = make("tenant", "acme", 91, 91, 1, "{\"a\": 1}");
    assert_line(line, "{\"type\":\"PUT\",\"kind\":\"tenant\",\"name\":\"acme\","
                "\"id\":7,\"revision\":91,\"object\":{\"a\": 1}}\n");
    assert_string_equal(line->name, "acme");
    td_line_unref(line);

    line = make("issuer", "q\"n", 5, 5, 0, NULL);
    assert_line(line, "{\"type\":\"DELETE\",\"kind\":\"issuer\","
                "\"name\":\"q\\\"n\",\"id\":7,\"revision\":5}\n");
    td_line_unref(line);

    /* one line stays one line */
    line = make("tenant", "a", 1, 1, 1, "{\n\"b\":\n2}\n");
    assert_line(line, "{\"type\":\"PUT\",\"kind\":\"tenant\",\"name\":\"a\","
                "\"id\":7,\"revision\":1,\"object\":{ \"b\": 2} }\n");
    td_line_unref(line);
}


static void
test_too_long(void **state)
{
    char              *document;
    td_line_source_t   source = { "tenant", "a", 1, 1, 1, 1, NULL, NULL, 0 };

    (void) state;

    document = malloc(TD_LINE_MAX + 1);
    assert_non_null(document);
    memset(document, ' ', TD_LINE_MAX);
    document[TD_LINE_MAX] = '\0';
    source.document = document;
    assert_null(td_line_create(&source));
    free(document);
}


static void
views(td_view_t *shared, td_view_t *own, td_view_t *other)
{
    assert_int_equal(td_view_parse(shared, "", 0, NULL), 0);
    assert_int_equal(td_view_parse(own, "dedicated", 7, NULL), 0);
    assert_int_equal(td_view_parse(other, "dedicated", 8, NULL), 0);
}


static void
test_views(void **state)
{
    td_line_t  *put, *away, *gone, *issuer, *seen;
    td_view_t   shared, own, other;

    (void) state;

    views(&shared, &own, &other);
    put = make("tenant", "acme", 9, 9, 1, "{}");
    away = make("tenant", "acme", 9, 9, 0, "{}");
    gone = make("tenant", "acme", 9, 9, 0, NULL);
    issuer = make("issuer", "i", 9, 9, 0, "{}");

    assert_ptr_equal(td_line_seen(put, &shared), put);
    assert_ptr_equal(td_line_seen(gone, &shared), gone);
    assert_ptr_equal(td_line_seen(issuer, &shared), issuer);

    /* a tenant that went to another tier leaves the view */
    seen = td_line_seen(away, &shared);
    assert_line(seen, "{\"type\":\"DELETE\",\"kind\":\"tenant\",\"name\":"
                "\"acme\",\"id\":7,\"revision\":9}\n");
    assert_ptr_equal(td_line_seen(away, &shared), seen);

    assert_ptr_equal(td_line_seen(put, &own), put);
    assert_ptr_equal(td_line_seen(away, &own), away);
    assert_ptr_equal(td_line_seen(gone, &own), gone);
    assert_ptr_equal(td_line_seen(issuer, &own), issuer);

    /* not even the names of other tenants */
    assert_null(td_line_seen(put, &other));
    assert_null(td_line_seen(away, &other));
    assert_null(td_line_seen(gone, &other));

    td_line_unref(put);
    td_line_unref(away);
    td_line_unref(gone);
    td_line_unref(issuer);
}


/* Agents get mesh objects of their tenants, and nobody else does. */
static void
test_agents(void **state)
{
    size_t             i;
    td_line_t         *line, *fresh;
    td_view_t          shared, own, other, two, all, none, copy;
    td_line_source_t   source = { "mesh_service", "acme/a", 4, 11, 15, 0, "{}",
                                  NULL, 5 };
    static const struct {
        const char  *kind;
        int64_t      id, mesh_tenant;
        int          two, all, none;
    } cases[] = {
        { "mesh_service", 1, 5, 1, 1, 0 },
        { "mesh_service", 1, 51, 0, 1, 0 },
        { "mesh_service", 5, 50, 0, 1, 0 },
        { "mesh_workload", 1, 12, 1, 1, 0 },
        { "mesh_tenant", 12, 12, 1, 1, 0 },
        { "mesh_tenant", 13, 13, 0, 1, 0 },
        { "mesh_node", 9, 0, 1, 1, 1 },
        { "mesh_agent", 1, 0, 1, 0, 0 },
        { "mesh_agent", 2, 0, 0, 1, 0 },
        { "mesh_agent", 3, 0, 0, 0, 1 },
        { "tenant", 5, 0, 0, 0, 0 },
        { "issuer", 5, 0, 0, 0, 0 },
    };

    (void) state;

    views(&shared, &own, &other);
    assert_int_equal(td_view_parse(&two, "agent", 1, "{12,5}"), 0);
    assert_int_equal(td_view_parse(&all, "agent", 2, NULL), 0);
    assert_int_equal(td_view_parse(&none, "agent", 3, "{}"), 0);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        source.kind = cases[i].kind;
        source.id = cases[i].id;
        source.mesh_tenant = cases[i].mesh_tenant;
        source.document = i % 2 ? "{}" : NULL;
        line = td_line_create(&source);
        assert_int_equal(td_line_seen(line, &two) == line, cases[i].two);
        assert_int_equal(td_line_seen(line, &all) == line, cases[i].all);
        assert_int_equal(td_line_seen(line, &none) == line, cases[i].none);
        if (strncmp(cases[i].kind, "mesh_", 5) == 0) {
            assert_null(td_line_seen(line, &shared));
            assert_null(td_line_seen(line, &own));
        }
        fresh = td_line_after(line, 12);
        assert_int_equal(td_line_seen(fresh, &two) == fresh, cases[i].two);
        assert_int_equal(fresh->kind, line->kind);
        td_line_unref(fresh);
        td_line_unref(line);
    }

    assert_int_equal(td_view_copy(&copy, &two), 0);
    assert_true(td_view_equal(&copy, &two));
    assert_false(td_view_equal(&two, &all));
    assert_false(td_view_equal(&all, &none));
    assert_false(td_view_equal(&shared, &own));
    copy.numbers[1]++;
    assert_false(td_view_equal(&copy, &two));
    td_view_free(&copy);
    td_view_free(&two);
    td_view_free(&none);
}


/* One document for the tenant's own gateway, another for the shared ones. */
static void
test_two_documents(void **state)
{
    td_line_t         *line, *fresh;
    td_view_t          shared, own, other;
    td_line_source_t   source = { "tenant", "acme", 7, 11, 15, 1, "{\"a\":1}",
                                  "{\"f\":2}", 0 };

    (void) state;

    views(&shared, &own, &other);

    line = td_line_create(&source);
    assert_non_null(line);
    assert_ptr_equal(td_line_seen(line, &own), line);
    assert_null(td_line_seen(line, &other));
    assert_line(line, "{\"type\":\"PUT\",\"kind\":\"tenant\",\"name\":\"acme\","
                "\"id\":7,\"revision\":11,\"object\":{\"a\":1}}\n");
    assert_line(td_line_seen(line, &shared), "{\"type\":\"PUT\",\"kind\":"
                "\"tenant\",\"name\":\"acme\",\"id\":7,\"revision\":11,"
                "\"object\":{\"f\":2}}\n");
    assert_int_equal(td_line_size(line),
                     line->len + td_line_seen(line, &shared)->len);

    fresh = td_line_after(line, 12);
    assert_line(fresh, "{\"type\":\"PUT\",\"kind\":\"tenant\",\"name\":\"acme\","
                "\"id\":7,\"revision\":13,\"object\":{\"a\":1}}\n");
    assert_line(td_line_seen(fresh, &shared), "{\"type\":\"PUT\",\"kind\":"
                "\"tenant\",\"name\":\"acme\",\"id\":7,\"revision\":13,"
                "\"object\":{\"f\":2}}\n");
    td_line_unref(fresh);
    td_line_unref(line);

    /* where shared gateways do not see the tenant, neither goes to them */
    source.shared = 0;
    line = td_line_create(&source);
    assert_false(td_line_seen(line, &shared)->put);
    td_line_unref(line);

    /* a deletion has no documents */
    source.document = NULL;
    line = td_line_create(&source);
    assert_ptr_equal(td_line_seen(line, &shared), line);
    td_line_unref(line);
}


static void
test_after(void **state)
{
    td_line_t  *line, *fresh;

    (void) state;

    line = make("tenant", "acme", 11, 15, 1, "{\"revision\":15}");
    assert_null(td_line_after(line, 15));
    assert_null(td_line_after(line, 16));

    fresh = td_line_after(line, 12);
    assert_line(fresh, "{\"type\":\"PUT\",\"kind\":\"tenant\",\"name\":\"acme\","
                "\"id\":7,\"revision\":13,\"object\":{\"revision\":15}}\n");
    assert_int_equal(fresh->shared, 1);
    td_line_unref(fresh);
    td_line_unref(line);

    line = make("tenant", "acme", 11, 15, 0, NULL);
    fresh = td_line_after(line, 12);
    assert_line(fresh, "{\"type\":\"DELETE\",\"kind\":\"tenant\",\"name\":"
                "\"acme\",\"id\":7,\"revision\":13}\n");
    td_line_unref(fresh);
    td_line_unref(line);
}


static void
test_sharing(void **state)
{
    td_line_t        *line;
    struct evbuffer  *one, *two;

    (void) state;

    one = evbuffer_new();
    two = evbuffer_new();
    line = make("tenant", "acme", 1, 1, 1, "{}");

    td_line_add(line, one);
    td_line_add(line, two);
    td_line_add(line, two);
    assert_int_equal(line->refs, 4);
    assert_int_equal(evbuffer_get_length(two), 2 * line->len);

    evbuffer_free(one);
    assert_int_equal(line->refs, 3);
    evbuffer_drain(two, evbuffer_get_length(two));
    assert_int_equal(line->refs, 1);

    td_line_bookmark(two, 92, 1);
    td_line_bookmark(two, 92, 0);
    assert_string_equal((const char *) evbuffer_pullup(two, -1),
                        "{\"type\":\"BOOKMARK\",\"revision\":92,"
                        "\"complete\":true}\n"
                        "{\"type\":\"BOOKMARK\",\"revision\":92}\n");
    evbuffer_free(two);
    td_line_unref(line);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_agents),
        cmocka_unit_test(test_two_documents),
        cmocka_unit_test(test_after),
        cmocka_unit_test(test_sharing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
