/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "td_problem.h"


static json_t *
document(const td_problem_t *problem)
{
    char    *body;
    size_t   len;
    json_t  *json;

    body = td_problem_body(problem, &len);
    assert_non_null(body);
    assert_int_equal(body[len - 1], '\n');
    json = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    free(body);

    return json;
}


static const char *
member(const json_t *json, const char *name)
{
    return json_string_value(json_object_get(json, name));
}


static void
test_own_kinds(void **state)
{
    int           i;
    json_t       *json;
    td_problem_t  problem;

    (void) state;

    for (i = 0; i < TD_PROBLEM_N; i++) {
        assert_true(td_problem_reason(td_problem_kinds[i].status)[0] != '\0');

        problem = td_problem((td_problem_kind_e) i, "why \"so\"\n");
        json = document(&problem);
        assert_int_equal(json_integer_value(json_object_get(json, "status")),
                         td_problem_kinds[i].status);
        assert_string_equal(member(json, "title"), td_problem_kinds[i].title);
        assert_string_equal(member(json, "detail"), "why \"so\"\n");
        assert_null(json_object_get(json, "errors"));
        assert_null(json_object_get(json, "request_id"));
        assert_null(json_object_get(json, "hint"));
        json_decref(json);
    }
}


static void
test_sql_kind(void **state)
{
    json_t       *json, *error;
    td_problem_t  problem;

    (void) state;

    memset(&problem, 0, sizeof(problem));
    problem.status = 422;
    problem.slug = "invalid-hostname";
    problem.detail = "/hosts/0 has a port: leave it out \xff";
    problem.hint = "look";
    problem.pointer = "/hosts/0";
    problem.request_id = "id-1";

    json = document(&problem);
    assert_string_equal(member(json, "type"),
                        "urn:tiergate:problem:invalid-hostname");
    assert_string_equal(member(json, "title"), "Invalid hostname");
    assert_string_equal(member(json, "hint"), "look");
    assert_string_equal(member(json, "request_id"), "id-1");

    assert_int_equal(json_array_size(json_object_get(json, "errors")), 1);
    error = json_array_get(json_object_get(json, "errors"), 0);
    assert_string_equal(member(error, "pointer"), "/hosts/0");
    json_decref(json);
}


static void
test_place_in_json(void **state)
{
    json_t       *json, *error;
    td_problem_t  problem;

    (void) state;

    problem = td_problem(TD_PROBLEM_MALFORMED_JSON, "line 3, column 7: no");
    problem.line = 3;
    problem.column = 7;

    json = document(&problem);
    error = json_array_get(json_object_get(json, "errors"), 0);
    assert_int_equal(json_integer_value(json_object_get(error, "line")), 3);
    assert_int_equal(json_integer_value(json_object_get(error, "column")), 7);
    json_decref(json);
}


static void
test_statuses(void **state)
{
    (void) state;

    assert_int_equal(td_problem_of_status(413), TD_PROBLEM_BODY_TOO_LARGE);
    assert_int_equal(td_problem_of_status(417), TD_PROBLEM_EXPECTATION_FAILED);
    assert_int_equal(td_problem_of_status(501), TD_PROBLEM_METHOD_UNKNOWN);
    assert_int_equal(td_problem_of_status(400), TD_PROBLEM_MALFORMED_REQUEST);
    assert_int_equal(td_problem_of_status(0), TD_PROBLEM_MALFORMED_REQUEST);
    assert_string_equal(td_problem_reason(204), "No Content");
    assert_string_equal(td_problem_reason(299), "");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_own_kinds),
        cmocka_unit_test(test_sql_kind),
        cmocka_unit_test(test_place_in_json),
        cmocka_unit_test(test_statuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
