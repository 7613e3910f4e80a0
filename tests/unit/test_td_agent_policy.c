/* SPDX-License-Identifier: BSD-2-Clause */

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "td_agent_policy.h"


/* The tenant that has this one policy. */
static td_doc_t *
parse(const char *policy)
{
    char         line[2048];
    td_event_t   event;
    tg_error_t   err;

    snprintf(line, sizeof(line), "{\"type\":\"PUT\",\"kind\":\"mesh_tenant\",\"name\":"
             "\"acme\",\"id\":1,\"revision\":5,\"object\":{\"id\":1,\"number\":7,"
             "\"defaults\":{},\"policies\":[%s]}}", policy);

    if (td_event_parse(line, strlen(line), &event, &err) != TD_EVENT_OK) {
        return NULL;
    }

    return event.doc;
}


#define POLICY(more)  "{\"name\":\"p\",\"number\":3,\"action\":\"allow\"," more "}"

typedef struct {
    const char  *policy;
    const char  *rules;     /* direction, service, peer, number, proto, port; ... */
} case_t;

static const case_t  cases[] = {
    { POLICY("\"from\":{\"service\":5},\"to\":{\"service\":6},\"own_to\":true"),
      "in 6 0/5 0:0" },
    { POLICY("\"from\":{\"service\":5},\"to\":{\"service\":6},\"own_from\":true"),
      "out 5 0/6 0:0" },
    { POLICY("\"from\":{\"service\":5},\"to\":{\"service\":6},\"own_from\":true,"
             "\"own_to\":true"), "in 6 0/5 0:0;out 5 0/6 0:0" },
    { POLICY("\"from\":{\"tenant\":9},\"to\":{},\"own_to\":true"), "in 0 1/9 0:0" },
    { POLICY("\"from\":{},\"to\":{},\"own_to\":true,\"own_from\":true"),
      "in 0 3/0 0:0;out 0 3/0 0:0" },
    { POLICY("\"from\":{\"cidr\":\"10.0.0.0/8\"},\"to\":{\"service\":6},"
             "\"own_to\":true,\"protocol\":\"udp\",\"ports\":[53,54]"),
      "in 6 2/104 17:53;in 6 2/104 17:54" },
    { POLICY("\"from\":{},\"to\":{\"tenant\":7},\"own_to\":true,\"ports\":[80]"),
      "in 0 3/0 0:80" },
    { POLICY("\"from\":{},\"to\":{}"), "" },
};


static void
test_rules(void **state)
{
    char               text[512];
    int                n;
    size_t             i, k, count;
    td_doc_t          *doc;
    tg_rules_t        *compiled;
    tg_rule_policy_t  *rules;

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        doc = parse(cases[i].policy);
        assert_non_null(doc);
        rules = td_agent_policy_rules(&doc->tenant, &count);
        assert_non_null(rules);

        text[0] = '\0';

        for (k = 0, n = 0; k < count; k++) {
            n += snprintf(text + n, sizeof(text) - (size_t) n, "%s%s %u %d/%u %d:%d",
                          k > 0 ? ";" : "", rules[k].direction == TG_IN ? "in" : "out",
                          rules[k].service, rules[k].peer, rules[k].peer == TG_PEER_NET
                          ? rules[k].peer_prefix : rules[k].peer_number, rules[k].proto,
                          rules[k].port);
            assert_int_equal(rules[k].number, 3);
            assert_int_equal(rules[k].precedence, 1000);
            assert_int_equal(rules[k].deny, 0);
        }

        assert_string_equal(text, cases[i].rules);

        compiled = tg_rules_create(rules, count);
        assert_non_null(compiled);
        assert_true(compiled->n_rows >= count);
        tg_rules_destroy(compiled);
        free(rules);
        td_doc_free(doc);
    }
}


static void
test_refused(void **state)
{
    size_t  i;

    static const char *const  bad[] = {
        POLICY("\"from\":{}"), POLICY("\"from\":[],\"to\":{}"),
        POLICY("\"from\":{\"cidr\":\"10.0.0.0/8\"},\"to\":{},\"own_from\":true"),
        POLICY("\"from\":{},\"to\":{\"cidr\":\"10.0.0.0/8\"},\"own_to\":true"),
        POLICY("\"from\":{\"service\":0},\"to\":{}"),
        POLICY("\"from\":{\"services\":1},\"to\":{}"),
        POLICY("\"from\":{},\"to\":{},\"precedence\":-1"),
        POLICY("\"from\":{},\"to\":{},\"precedence\":1073741824"),
        POLICY("\"from\":{},\"to\":{},\"ports\":[0]"),
        POLICY("\"from\":{},\"to\":{},\"ports\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"),
        POLICY("\"from\":{},\"to\":{},\"protocol\":\"icmp\""),
        POLICY("\"from\":{},\"to\":{},\"own_to\":1"),
        "{\"name\":\"p\",\"number\":3,\"action\":\"ALLOW\",\"from\":{},\"to\":{}}",
        "{\"name\":\"../p\",\"number\":3,\"action\":\"deny\",\"from\":{},\"to\":{}}",
        "null", "1",
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_null(parse(bad[i]));
    }
}


static void
test_deny_and_defaults(void **state)
{
    size_t             n;
    td_doc_t          *doc;
    tg_rule_policy_t  *rules;

    (void) state;

    doc = parse("{\"name\":\"p\",\"number\":3,\"action\":\"deny\",\"precedence\":5,"
                "\"from\":{},\"to\":{},\"own_to\":true}");
    assert_non_null(doc);
    assert_int_equal(doc->tenant.defaults, TG_DEFAULTS);
    rules = td_agent_policy_rules(&doc->tenant, &n);
    assert_int_equal(n, 1);
    assert_int_equal(rules[0].deny, 1);
    assert_int_equal(rules[0].precedence, 5);
    free(rules);
    td_doc_free(doc);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_deny_and_defaults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
