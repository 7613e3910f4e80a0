/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>

#include <cmocka.h>

#include "td_flow_pairs.h"


static tg_text_t  text;


static const char *
written(td_flow_pairs_t *pairs)
{
    tg_text_reset(&text);
    td_flow_pairs_write(pairs, &text);
    tg_text_add(&text, "", 1);

    return text.data;
}


static void
count(td_flow_pairs_t *pairs, const struct tg_event *event, const char *tenant,
    const char *service)
{
    td_flow_record_t  record = {
        event, { tenant, service }, { "acme", "db" }, NULL, NULL, 0
    };

    td_flow_pairs_add(pairs, &record);
}


static void
test_sides(void **state)
{
    size_t  i;

    static const struct {
        uint8_t   type, hook, passive;
        uint32_t  src, dst;
        int       at_source, counts;
        uint32_t  tenant;
    } cases[] = {
        { TG_EVENT_CONNECT, TG_AT_SOCKOPS, 0, 1, 2, 1, 1, 1 },
        { TG_EVENT_CONNECT, TG_AT_SOCKOPS, 0, 0, 2, 1, 0, 2 },
        { TG_EVENT_ACCEPT, TG_AT_SOCKOPS, 1, 1, 2, 0, 0, 2 },
        { TG_EVENT_ACCEPT, TG_AT_SOCKOPS, 1, 0, 2, 0, 1, 2 },
        { TG_EVENT_CLOSE, TG_AT_SOCKOPS, 0, 1, 0, 1, 1, 1 },
        { TG_EVENT_CLOSE, TG_AT_SOCKOPS, 1, 1, 2, 0, 0, 2 },
        { TG_EVENT_CLOSE, TG_AT_SOCKOPS, 1, 0, 2, 0, 1, 2 },
        { TG_EVENT_FAILED, TG_AT_SOCKOPS, 0, 1, 2, 1, 1, 1 },
        { TG_EVENT_DENY, TG_AT_CONNECT, 0, 1, 2, 1, 1, 1 },
        { TG_EVENT_DENY, TG_AT_INGRESS, 0, 1, 2, 0, 1, 2 },
        { TG_EVENT_DENY, TG_AT_INGRESS, 0, 1, 0, 0, 1, 1 },
        { TG_EVENT_DENY, TG_AT_EGRESS, 0, 1, 2, 1, 1, 1 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tg_event  event = {
            .type = cases[i].type, .hook = cases[i].hook,
            .passive = cases[i].passive, .src.tenant = cases[i].src,
            .dst.tenant = cases[i].dst
        };

        assert_int_equal(td_flow_at_source(&event), cases[i].at_source);
        assert_int_equal(td_flow_counts(&event), cases[i].counts);
        assert_int_equal(td_flow_tenant(&event), cases[i].tenant);
    }
}


static void
test_row(void **state)
{
    struct tg_event   event;
    td_flow_record_t  record = {
        &event, { "acme", "a\"b\n\xff" }, { NULL, NULL }, "acme", "p", 1234
    };
    static const char  full[] =
        "[1234,\"close\",\"source\",\"tcp\",\"acme\",\"a\\\"b\\n\xef\xbf\xbd\","
        "\"10.0.0.1\",40000,null,null,\"fd00::1\",443,null,null,9,\"acme\","
        "\"p\",5,6,7,8,9,18446744073709551615,3,";

    (void) state;

    memset(&event, 0, sizeof(event));
    event.type = TG_EVENT_CLOSE;
    event.from.port = 40000;
    event.from.proto = 6;
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &event.from.addr);
    event.to.port = 443;
    event.to.proto = 6;
    inet_pton(AF_INET6, "fd00::1", &event.to.addr);
    event.reason = TG_WHY_CLOSED;
    event.bytes_out = 5;
    event.bytes_in = 6;
    event.srtt_us = 7;
    event.retransmits = 8;
    event.duration_ns = 9999;
    event.cgroup = UINT64_MAX;
    event.cookie = 3;

    tg_text_reset(&text);
    td_flow_row(&text, &record);
    assert_int_equal(text.len, sizeof(full) - 1);
    assert_memory_equal(text.data, full, text.len);

    event.type = 0;
    assert_null(td_flow_type(&event));
    event.type = 200;
    assert_null(td_flow_type(&event));
}


static void
test_metrics(void **state)
{
    td_flow_pairs_t  *pairs;
    struct tg_event   event = {
        .type = TG_EVENT_CLOSE, .src.tenant = 1, .dst.tenant = 1,
        .bytes_out = 10, .bytes_in = 20, .srtt_us = 1500, .retransmits = 2
    };

    (void) state;

    pairs = td_flow_pairs_create(10);
    count(pairs, &event, "acme", "we\"b\\\n");
    event.passive = 1;
    count(pairs, &event, "acme", "passed over");
    event.src.tenant = 0;
    count(pairs, &event, NULL, NULL);

    assert_int_equal(td_flow_pairs_count(pairs), 2);
    assert_non_null(strstr(written(pairs),
        "tiergate_mesh_bytes_total{tenant=\"acme\",source=\"acme/we\\\"b\\\\\\n\","
        "destination=\"acme/db\",direction=\"sent\"} 10\n"));
    assert_non_null(strstr(text.data, "source=\"outside\",destination="
                           "\"acme/db\",direction=\"sent\"} 20\n"));
    assert_non_null(strstr(text.data, "_rtt_seconds_sum{tenant=\"acme\",source="
                           "\"acme/we\\\"b\\\\\\n\",destination=\"acme/db\"} "
                           "0.001500\n"));
    assert_non_null(strstr(text.data, "# TYPE tiergate_mesh_rtt_seconds "
                           "summary\n"));
    assert_null(strstr(text.data, "passed over"));
    td_flow_pairs_destroy(pairs);
    td_flow_pairs_destroy(NULL);
}


/* However many services there are, there are so many series; nothing is lost. */
static void
test_bounded(void **state)
{
    int               i;
    char              name[32];
    td_flow_pairs_t  *pairs;
    struct tg_event   event = { .type = TG_EVENT_DENY, .src.tenant = 1 };

    (void) state;

    pairs = td_flow_pairs_create(10);

    for (i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "s%d", i % 1000);
        count(pairs, &event, "acme", name);
    }

    assert_int_equal(td_flow_pairs_count(pairs), 10);
    assert_non_null(strstr(written(pairs), "{tenant=\"other\",source=\"other\","
                           "destination=\"other\",verdict=\"denied\"} 9900\n"));
    assert_non_null(strstr(text.data, "source=\"acme/s9\",destination="
                           "\"acme/db\",verdict=\"denied\"} 10\n"));
    assert_null(strstr(text.data, "acme/s10\""));
    td_flow_pairs_destroy(pairs);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_sides), cmocka_unit_test(test_row),
        cmocka_unit_test(test_metrics), cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
