/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "td_agent_store.h"


#define MANY  1000


/* A service, or a tenant with a policy of that number. */
static td_doc_t *
make(const char *kind, const char *name, unsigned id, unsigned number, unsigned policy)
{
    int          n;
    char         line[1024];
    td_event_t   event;
    tg_error_t   err;

    n = snprintf(line, sizeof(line), "{\"type\":\"PUT\",\"kind\":\"%s\",\"name\":\"%s\","
                 "\"id\":%u,\"revision\":5,\"object\":{\"id\":%u,\"number\":%u,"
                 "\"tenant\":\"acme\",\"tenant_number\":1,\"defaults\":{},\"policies\":"
                 "[{\"name\":\"p%u\",\"number\":%u,\"action\":\"allow\",\"from\":{},"
                 "\"to\":{}}]}}", kind, name, id, id, number, policy, policy);
    assert_int_equal(td_event_parse(line, (size_t) n, &event, &err), TD_EVENT_OK);
    assert_non_null(event.doc);
    assert_string_equal(event.doc->line, line);

    return event.doc;
}


static void
put(td_agent_store_t *store, td_doc_t *doc)
{
    td_doc_t  *old;

    assert_int_equal(td_agent_store_put(store, doc, &old), 0);
    td_doc_free(old);
}


static void
test_by_name_and_number(void **state)
{
    td_doc_t          *doc;
    td_agent_store_t  *store;

    (void) state;

    store = td_agent_store_create();
    assert_null(td_agent_store_find(store, TD_DOC_SERVICE, "acme/orders"));
    assert_null(td_agent_store_service(store, 11));
    assert_null(td_agent_store_policy(store, 21));

    put(store, make("mesh_service", "acme/orders", 1, 11, 0x7fffffff));
    put(store, make("mesh_tenant", "acme", 1, 1, 21));
    assert_string_equal(td_agent_store_service(store, 11)->service.service, "orders");
    assert_string_equal(td_agent_store_policy(store, 21)->name, "p21");
    assert_string_equal(td_agent_store_tenant(store, 1)->name, "acme");
    assert_null(td_agent_store_find(store, TD_DOC_TENANT, "acme/orders"));

    /* another state of it, with other numbers */
    put(store, make("mesh_tenant", "acme", 1, 1, 22));
    assert_null(td_agent_store_policy(store, 21));
    assert_string_equal(td_agent_store_policy(store, 22)->name, "p22");
    assert_int_equal(td_agent_store_count(store, TD_DOC_TENANT), 1);

    /* another of the same name */
    put(store, make("mesh_service", "acme/orders", 2, 12, 0x7fffffff));
    assert_null(td_agent_store_service(store, 11));
    assert_int_equal(td_agent_store_service(store, 12)->id, 2);

    doc = td_agent_store_find(store, TD_DOC_TENANT, "acme");
    td_agent_store_remove(store, doc);
    td_doc_free(doc);
    assert_null(td_agent_store_policy(store, 22));
    assert_null(td_agent_store_tenant(store, 1));

    td_agent_store_destroy(store);
}


static void
drop_odd(td_doc_t *doc, void *data)
{
    if (doc->id % 2 == 1) {
        td_agent_store_remove(data, doc);
        td_doc_free(doc);
    }
}


static void
test_many(void **state)
{
    char               name[64];
    unsigned           i;
    td_agent_store_t  *store;

    (void) state;

    store = td_agent_store_create();

    for (i = 1; i <= MANY; i++) {
        snprintf(name, sizeof(name), "acme/s%u", i);
        put(store, make("mesh_service", name, i, i + MANY, 0x7fffffff));
    }

    assert_int_equal(td_agent_store_count(store, TD_DOC_SERVICE), MANY);
    td_agent_store_each(store, TD_DOC_SERVICE, drop_odd, store);
    assert_int_equal(td_agent_store_count(store, TD_DOC_SERVICE), MANY / 2);

    for (i = 1; i <= MANY; i++) {
        snprintf(name, sizeof(name), "acme/s%u", i);
        assert_int_equal(td_agent_store_find(store, TD_DOC_SERVICE, name) != NULL,
                         i % 2 == 0);
        assert_int_equal(td_agent_store_service(store, i + MANY) != NULL, i % 2 == 0);
    }

    td_agent_store_destroy(store);
}


static void
test_names(void **state)
{
    size_t  i;

    static const char *const  good[] = { "a", "orders-1", "a.b_c", "0" };
    static const char *const  bad[] = {
        "", ".", "..", ".a", "-a", "a/b", "A", "a b", "a\n", "\xc3\xa4",
        "0123456789012345678901234567890123456789012345678901234567890123",
    };

    (void) state;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(td_doc_is_name(good[i]));
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(td_doc_is_name(bad[i]));
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_by_name_and_number),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
