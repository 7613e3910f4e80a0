/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tg_usage.h"


static void
test_buckets(void **state)
{
    static const struct {
        uint64_t  us;
        unsigned  bucket;
    } cases[] = {
        { 0, 0 }, { 1000, 0 }, { 1001, 1 }, { 2500, 1 }, { 2501, 2 },
        { 5000, 2 }, { 10000, 3 }, { 25000, 4 }, { 50000, 5 }, { 100000, 6 },
        { 250000, 7 }, { 250001, 8 }, { 500000, 8 }, { 1000000, 9 },
        { 2500000, 10 }, { 2500001, 11 }, { UINT64_MAX, 11 },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tg_latency_bucket(cases[i].us), cases[i].bucket);
    }
}


static tg_counters_t
example(void)
{
    tg_counters_t  counters;

    memset(&counters, 0, sizeof(counters));
    counters.status[1] = 9;
    counters.status[3] = 1;
    counters.throttled = 1;
    counters.bytes_in = 100;
    counters.bytes_out = 2000;
    counters.latency_us = 12345;
    counters.latency[1] = 4;
    counters.latency[2] = 5;
    counters.latency[3] = 1;
    counters.life = 7;

    return counters;
}


static void
test_sums(void **state)
{
    tg_counters_t  one, sum;

    (void) state;

    one = example();
    assert_int_equal(tg_counters_requests(&one), 10);

    memset(&sum, 0, sizeof(sum));
    tg_counters_sum(&sum, &one);
    tg_counters_sum(&sum, &one);
    assert_int_equal(tg_counters_requests(&sum), 20);
    assert_int_equal(sum.latency[2], 10);
    assert_int_equal(sum.life, 0);

    tg_counters_read(&sum, &one);
    assert_memory_equal(&sum, &one, sizeof(one));
}


/* The report of docs/reference/watch.md. */
static void
test_report(void **state)
{
    uint8_t            boot[16];
    tg_text_t          body;
    tg_report_t        report;
    tg_counters_t      counters, nothing;
    static const char  expected[] =
        "{\"boot\":\"000102030405060708090a0b0c0d0eff\",\"time\":1790000000123,"
        "\"counters\":[{\"tenant\":\"acme\",\"route\":\"orders\",\"life\":7,"
        "\"requests\":10,\"status\":[0,9,0,1,0],\"denied\":0,\"throttled\":1,"
        "\"bytes_in\":100,\"bytes_out\":2000,\"latency_us\":12345,"
        "\"latency\":[0,4,5,1,0,0,0,0,0,0,0,0]}],"
        "\"quotas\":[{\"id\":41,\"key\":\"\",\"used\":10,\"limit\":5000,"
        "\"throttled\":1},{\"id\":42,\"key\":\"a\\\"b\",\"used\":1,\"limit\":2,"
        "\"throttled\":0}]}";

    (void) state;

    for (int i = 0; i < 16; i++) {
        boot[i] = (uint8_t) (i == 15 ? 0xff : i);
    }

    counters = example();
    memset(&nothing, 0, sizeof(nothing));

    tg_text_init(&body);
    tg_report_init(&report);
    assert_int_equal(tg_report_size(&report), 0);

    tg_report_counters(&report, "acme", "orders", &counters);
    tg_report_counters(&report, "acme", "unused", &nothing);
    tg_report_quota(&report, 41, "", 0, 10, 5000, 1);
    tg_report_quota(&report, 42, "a\"b", 3, 1, 2, 0);

    assert_int_equal(tg_report_end(&report, &body, boot, 1790000000123), 0);
    assert_int_equal(body.len, strlen(expected));
    assert_memory_equal(body.data, expected, body.len);

    tg_report_reset(&report);
    assert_int_equal(tg_report_size(&report), 0);

    tg_report_free(&report);
    tg_text_free(&body);
}


static void
test_empty_report(void **state)
{
    json_t       *json;
    uint8_t       boot[16] = { 0 };
    tg_text_t     body;
    tg_report_t   report;

    (void) state;

    tg_text_init(&body);
    tg_report_init(&report);
    assert_int_equal(tg_report_end(&report, &body, boot, 0), 0);

    json = json_loadb(body.data, body.len, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_array_size(json_object_get(json, "counters")), 0);
    json_decref(json);

    tg_report_free(&report);
    tg_text_free(&body);
}


static void
test_accept(void **state)
{
    static const struct {
        const char  *accept;
        int          open;
    } cases[] = {
        { "", 0 },
        { "*/*", 0 },
        { "text/plain", 0 },
        { "application/openmetrics-text", 1 },
        { "Application/OpenMetrics-Text; version=1.0.0", 1 },
        { "text/plain;q=0.5, application/openmetrics-text;q=0.9", 1 },
        { "application/openmetrics-text;version=1.0.0;q=0.75,"
          "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", 1 },
        { "application/openmetrics-text;q=0", 0 },
        { "application/openmetrics-text; q=0.000, text/plain", 0 },
        { "application/openmetrics-text;q=0.001", 1 },
        { "application/openmetrics", 0 },
        { "x,application/openmetrics-text", 1 },
        { ",,,", 0 },
        { ";", 0 },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (tg_exposition_accepts_open(cases[i].accept, strlen(cases[i].accept))
            != cases[i].open)
        {
            fail_msg("%s", cases[i].accept);
        }
    }
}


static void
expect_text(tg_exposition_t *e, const char *expected)
{
    tg_exposition_end(e);
    tg_text_add(&e->text, "", 1);

    assert_false(e->text.failed);
    assert_string_equal(e->text.data, expected);

    tg_text_free(&e->text);
}


static void
test_exposition(void **state)
{
    tg_exposition_t    e;
    const tg_label_t   odd[] = { { "a\"b\\c\nd", 7 }, { "2xx", 3 } };
    const tg_label_t   plain[] = { { "acme", 4 }, { "5xx", 3 } };

    (void) state;

    tg_exposition_init(&e, 0);
    tg_exposition_sample(&e, TG_M_REVISION, NULL, 42);
    tg_exposition_sample(&e, TG_M_LAG, NULL, 0.25);
    tg_exposition_sample(&e, TG_M_TENANT_REQUESTS, odd, 0x1p40);
    tg_exposition_sample(&e, TG_M_TENANT_REQUESTS, plain, 0);
    expect_text(&e,
        "# HELP tiergate_revision Registry revision that this gateway "
        "enforces.\n"
        "# TYPE tiergate_revision gauge\n"
        "tiergate_revision 42\n"
        "# HELP tiergate_stream_silence_seconds Time since the last line of the "
        "watch stream.\n"
        "# TYPE tiergate_stream_silence_seconds gauge\n"
        "tiergate_stream_silence_seconds 0.250000\n"
        "# HELP tiergate_tenant_requests_total Requests of a tenant by status "
        "class.\n"
        "# TYPE tiergate_tenant_requests_total counter\n"
        "tiergate_tenant_requests_total{tenant=\"a\\\"b\\\\c\\nd\",class=\"2xx\"}"
        " 1099511627776\n"
        "tiergate_tenant_requests_total{tenant=\"acme\",class=\"5xx\"} 0\n");

    tg_exposition_init(&e, 1);
    tg_exposition_sample(&e, TG_M_LISTS, NULL, 3);
    expect_text(&e,
        "# HELP tiergate_lists Full lists that were taken over to their end.\n"
        "# TYPE tiergate_lists counter\n"
        "tiergate_lists_total 3\n"
        "# EOF\n");
}


static void
test_histogram(void **state)
{
    tg_counters_t     counters;
    tg_exposition_t   e;
    const tg_label_t  label = { "acme", 4 };

#define NAME  "tiergate_tenant_request_duration_seconds"

    (void) state;

    counters = example();
    counters.latency[11] = 2;

    tg_exposition_init(&e, 0);
    tg_exposition_latency(&e, TG_M_TENANT_DURATION, &label, &counters);
    expect_text(&e,
        "# HELP " NAME " As tiergate_request_duration_seconds, of a tenant.\n"
        "# TYPE " NAME " histogram\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.001\"} 0\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.0025\"} 4\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.005\"} 9\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.01\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.025\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.05\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.1\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.25\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"0.5\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"1.0\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"2.5\"} 10\n"
        NAME "_bucket{tenant=\"acme\",le=\"+Inf\"} 12\n"
        NAME "_sum{tenant=\"acme\"} 0.012345\n"
        NAME "_count{tenant=\"acme\"} 12\n");
}


/* Every metric is whole, well named, and named once. */
static void
test_table(void **state)
{
    size_t       len;
    const char  *name;

    (void) state;

    for (size_t i = 0; i < TG_METRICS; i++) {
        name = tg_metrics[i].name;
        assert_non_null(name);
        len = strlen(name);

        assert_memory_equal(name, "tiergate_", 9);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), len);
        assert_true(len < 6 || strcmp(name + len - 6, "_total") != 0);
        assert_int_equal(tg_metrics[i].help[strlen(tg_metrics[i].help) - 1],
                         '.');
        assert_null(strpbrk(tg_metrics[i].help, "\\\n"));

        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(name, tg_metrics[k].name);
        }
    }
}


/* docs/reference/metrics.md has a row for each: name, type, labels, help. */
static void
test_documented(void **state)
{
    FILE    *f;
    char     row[512], *page;
    size_t   n, rows;
    static const char *const  types[] = { "counter", "gauge", "histogram" };

    (void) state;

    f = fopen("docs/reference/metrics.md", "r");

    if (f == NULL) {
        skip();         /* not run from the top of the tree */
    }

    page = calloc(1, 65536);
    assert_non_null(page);
    n = fread(page, 1, 65535, f);
    assert_in_range(n, 1, 65534);
    fclose(f);

    for (size_t i = 0; i < TG_METRICS; i++) {
        snprintf(row, sizeof(row), "| `%s%s` | %s | %s | %s |\n",
                 tg_metrics[i].name,
                 tg_metrics[i].type == TG_TYPE_COUNTER ? "_total" : "",
                 types[tg_metrics[i].type], tg_metrics[i].labels,
                 tg_metrics[i].help);

        if (strstr(page, row) == NULL) {
            fail_msg("docs/reference/metrics.md lacks: %s", row);
        }
    }

    /* what follows the table uses the names as well */

    assert_non_null(strstr(page, "\n## "));
    *strstr(page, "\n## ") = '\0';
    rows = 0;

    for (const char *p = page; (p = strstr(p, "\n| `tiergate_")) != NULL; p++) {
        rows++;
    }

    assert_int_equal(rows, TG_METRICS);
    free(page);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_empty_report),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_exposition),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
