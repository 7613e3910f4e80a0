/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "td_flow_filter.h"
#include "td_flow_report.h"


static void
test_payloads(void **state)
{
    size_t             i;
    td_flow_reports_t  reports;

    static const char *const  bad[] = {
        "", "1", "1 2", "1 2 ", "x 2 a", "-1 2 a", "3 2 a", "1 2 a b", "1 2 {a}",
        "1 2 a,b", "1 2 A", "1 2 a\"", "1 99999999999999999999 a",
        "1 2 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };

    (void) state;

    memset(&reports, 0, sizeof(reports));

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(td_flow_reports_add(&reports, bad[i]), -1);
    }

    assert_int_equal(reports.n, 0);
    assert_int_equal(td_flow_reports_add(&reports, "7 1007 node-1.a_b"), 0);
    assert_int_equal(reports.report[0].last, 1007);
    assert_string_equal(reports.report[0].node, "node-1.a_b");
}


static void
test_take(void **state)
{
    int                    i;
    char                   payload[64];
    td_flow_reports_t      reports;
    td_flow_report_text_t  text;

    (void) state;

    memset(&reports, 0, sizeof(reports));
    td_flow_reports_take(&reports, &text);
    assert_string_equal(text.nodes, "{}");

    for (i = 0; i < TD_FLOW_REPORTS + 3; i++) {
        snprintf(payload, sizeof(payload), "%d %d n%d", 100 * i, 100 * i + 50, i);
        assert_int_equal(td_flow_reports_add(&reports, payload), 0);
    }

    assert_int_equal(reports.n, TD_FLOW_REPORTS);
    assert_int_equal(reports.dropped, 150);
    td_flow_reports_take(&reports, &text);
    assert_int_equal(reports.n, TD_FLOW_REPORTS - TD_FLOW_REPORTS_READ);
    assert_memory_equal(text.first, "{300,400,", 9);
    assert_memory_equal(text.last, "{350,450,", 9);
    assert_string_equal(text.nodes, "{n3,n4,n5,n6,n7,n8,n9,n10,n11,n12,n13,n14,"
                        "n15,n16,n17,n18}");
    assert_int_equal(reports.report[0].first, 1900);

    while (reports.n > 0) {
        td_flow_reports_take(&reports, &text);
    }
}


static void
test_filter(void **state)
{
    size_t            i;
    td_flow_filter_t  filter;
    td_flow_key_t     key = { "acme", "web", "", "", "denied", 66, 80, 8080 };

    static const struct {
        const char  *filter;
        int          passes;
    } cases[] = {
        { "{}", 1 },
        { "{\"source_tenant\":\"acme\"}", 1 },
        { "{\"source_tenant\":\"acme\",\"source_service\":\"web\"}", 1 },
        { "{\"source_tenant\":\"acme\",\"source_service\":\"db\"}", 0 },
        { "{\"source_tenant\":\"\"}", 0 },
        { "{\"destination_tenant\":\"\"}", 1 },
        { "{\"destination_tenant\":\"acme\"}", 0 },
        { "{\"verdict\":\"denied\"}", 1 },
        { "{\"verdict\":\"allowed\"}", 0 },
        { "{\"type\":\"denied\"}", 1 },
        { "{\"type\":\"open\"}", 0 },
        { "{\"reason\":66}", 1 },
        { "{\"reason\":0}", 0 },
        { "{\"port\":80}", 1 },
        { "{\"port\":8080}", 1 },
        { "{\"port\":81}", 0 },
        { "{\"port\":80,\"reason\":1}", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(td_flow_filter_parse(&filter, cases[i].filter,
                                              strlen(cases[i].filter)), 0);
        assert_int_equal(td_flow_filter_passes(&filter, &key), cases[i].passes);
    }

    assert_int_equal(td_flow_filter_parse(&filter, "[]", 2), -1);
    assert_int_equal(td_flow_filter_parse(&filter, "{", 1), -1);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_payloads), cmocka_unit_test(test_take),
        cmocka_unit_test(test_filter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
