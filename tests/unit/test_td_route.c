/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "td_route.h"


static void
test_match(void **state)
{
    size_t       i;
    tg_uri_t     uri;
    td_match_t   match;
    const char  *function;

    static const struct {
        td_method_e   method;
        const char   *target;
        const char   *function;     /* NULL: no route */
        const char   *subject;
        unsigned      allowed;      /* when there is no route */
    } cases[] = {
        { TD_GET, "/v1/tenants", "list_tenants", NULL, 0 },
        { TD_HEAD, "/v1/tenants", "list_tenants", NULL, 0 },
        { TD_POST, "/v1/tenants?x=1", "create_tenant", NULL, 0 },
        { TD_GET, "/v1/tenants/acme", "get_tenant", "acme", 0 },
        { TD_PATCH, "/v1/tenants/acme", "patch_tenant", "acme", 0 },
        { TD_PUT, "/v1/tenants/acme/hosts/a.b", "put_host", "acme", 0 },
        { TD_PUT, "/v1/tenants/acme/hosts/%2a.b", "put_host", "acme", 0 },
        { TD_POST, "/v1/tenants/a/keys/7/rotate", "rotate_key", "a", 0 },
        { TD_DELETE, "/v1/tenants/a/upstreams/u/endpoints/[::1]:80",
          "delete_endpoint", "a", 0 },
        { TD_GET, "/v1/tenants/tenants", "get_tenant", "tenants", 0 },
        /* a scope that is not about gateways has no gateway for a subject */
        { TD_GET, "/v1/gateways/g", "get_gateway", NULL, 0 },
        { TD_PUT, "/v1/issuers/i", "put_platform_issuer", NULL, 0 },

        { TD_GET, "/", NULL, NULL, 0 },
        { TD_GET, "/v1", NULL, NULL, 0 },
        { TD_GET, "/v2/tenants", NULL, NULL, 0 },
        { TD_GET, "/V1/tenants", NULL, NULL, 0 },
        { TD_GET, "/v1/tenants/a/b", NULL, NULL, 0 },
        { TD_GET, "/v1/tenants/a/hosts/b/c", NULL, NULL, 0 },
        { TD_GET, "/v1/tenants%2Facme", NULL, NULL, 0 },
        { TD_PUT, "/v1/tenants", NULL, NULL, TD_GET | TD_HEAD | TD_POST },
        { TD_OTHER, "/v1/tenants", NULL, NULL, TD_GET | TD_HEAD | TD_POST },
        { TD_DELETE, "/v1/import", NULL, NULL, TD_POST },
        { TD_HEAD, "/v1/import", NULL, NULL, TD_POST },
        { TD_POST, "/v1/tenants/acme", NULL, NULL,
          TD_GET | TD_HEAD | TD_PATCH | TD_DELETE },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tg_uri_parse(&uri, cases[i].target, NULL), 0);
        td_route_match(&uri, cases[i].method, &match);
        function = match.route != NULL ? match.route->function : NULL;

        if (cases[i].function == NULL) {
            if (match.route != NULL || match.allowed != cases[i].allowed) {
                fail_msg("%s: %s, %#x", cases[i].target,
                         function ? function : "-", match.allowed);
            }

        } else if (function == NULL
                   || strcmp(function, cases[i].function) != 0
                   || (match.subject == NULL) != (cases[i].subject == NULL)
                   || (match.subject != NULL
                       && strcmp(match.subject, cases[i].subject) != 0))
        {
            fail_msg("%s: %s of %s", cases[i].target, function ? function : "-",
                     match.subject ? match.subject : "-");
        }

        tg_uri_clear(&uri);
    }
}


static void
test_parameters(void **state)
{
    tg_uri_t    uri;
    td_match_t  match;

    (void) state;

    assert_int_equal(tg_uri_parse(&uri, "/v1/tenants/a/upstreams/b%2Fc/"
                                  "endpoints/10.0.0.1:80", NULL), 0);
    td_route_match(&uri, TD_PUT, &match);
    assert_non_null(match.route);
    assert_int_equal(match.params, 3);
    assert_string_equal(match.param[0], "a");
    assert_string_equal(match.param[1], "b/c");
    assert_string_equal(match.param[2], "10.0.0.1:80");
    tg_uri_clear(&uri);

    assert_int_equal(tg_uri_parse(&uri, "/v1/gateways/g1/ack", NULL), 0);
    td_route_match(&uri, TD_POST, &match);
    assert_non_null(match.route);
    assert_string_equal(match.subject, "g1");
    tg_uri_clear(&uri);
}


static void
test_table(void **state)
{
    size_t             i, j, params;
    const char        *p;
    const td_route_t  *route;

    (void) state;

    for (i = 0; i < td_routes_n; i++) {
        route = &td_routes[i];
        assert_int_equal(route->function != NULL,
                         route->kind == TD_ROUTE_SQL
                         || route->kind == TD_ROUTE_TENANT
                         || route->kind == TD_ROUTE_FLOWS
                         || route->kind == TD_ROUTE_SERVICEMAP);

        if (route->scope == NULL) {
            assert_int_equal(route->method, TD_GET);
            assert_int_equal(route->body, TD_BODY_NONE);
        }

        if (route->method == TD_GET || route->method == TD_DELETE) {
            assert_int_equal(route->body, TD_BODY_NONE);
        }

        for (params = 0, p = route->pattern; (p = strchr(p, '{')) != NULL; p++)
        {
            params++;
        }
        assert_true(params <= TD_ROUTE_MAX_PARAMS);

        for (j = 0; j < i; j++) {
            assert_false(route->method == td_routes[j].method
                         && strcmp(route->pattern, td_routes[j].pattern) == 0);
        }
    }
}


static void
test_method_list(void **state)
{
    char  text[64];

    (void) state;

    td_method_list(TD_PUT | TD_GET | TD_HEAD | TD_OTHER, text, sizeof(text));
    assert_string_equal(text, "GET, HEAD, PUT");
    td_method_list(0, text, sizeof(text));
    assert_string_equal(text, "");
    assert_string_equal(td_method_name(TD_PATCH), "PATCH");
    assert_string_equal(td_method_name(TD_OTHER), "");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_method_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
