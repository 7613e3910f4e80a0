/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>

#include <cmocka.h>

#include "tg_rules.h"


static struct tg_addr
v4(const char *text)
{
    struct tg_addr  addr = { .w = { 0, 0, htonl(0xffff), 0 } };

    assert_int_equal(inet_pton(AF_INET, text, &addr.w[3]), 1);

    return addr;
}


static const struct tg_rule *
find(const tg_rules_t *rules, struct tg_rule_key key)
{
    size_t  i;

    for (i = 0; i < rules->n_rows; i++) {
        if (memcmp(&rules->rows[i].key, &key, sizeof(key)) == 0) {
            return &rules->rows[i].value;
        }
    }

    return NULL;
}


static const struct tg_rule *
look(const tg_rules_t *rules, uint32_t peer, uint8_t proto, uint16_t port, uint8_t kind)
{
    struct tg_rule_key  key = { .peer = peer, .proto = proto, .port = port, .kind = kind };

    return find(rules, key);
}


static void
test_fold(void **state)
{
    tg_rules_t            *rules;
    tg_rule_policy_t       policies[] = {
        { .number = 1, .precedence = 5, .peer = TG_PEER_TENANT, .peer_number = 9 },
        { .number = 2, .precedence = 5, .peer = TG_PEER_TENANT, .peer_number = 9,
          .deny = 1 },
        { .number = 3, .precedence = 4, .peer = TG_PEER_TENANT, .peer_number = 9,
          .deny = 1 },
        { .number = 4, .precedence = 9, .peer = TG_PEER_TENANT, .peer_number = 8,
          .service = 7, .proto = 6, .port = 80 },
    };
    const struct tg_rule  *row;

    (void) state;

    rules = tg_rules_create(policies, 4);
    assert_non_null(rules);
    assert_int_equal(rules->n_rows, 2);

    row = look(rules, 9, 0, 0, TG_PEER_TENANT);
    assert_int_equal(row->number, 2);
    assert_int_equal(row->rank, 5 << 1 | 1);

    assert_int_equal(rules->shapes[TG_IN],
                     1U << TG_SHAPE(1, TG_PEER_TENANT, TG_L4_ANY)
                     | 1U << TG_SHAPE(0, TG_PEER_TENANT, TG_L4_PORT));
    assert_int_equal(rules->shapes[TG_OUT], 0);

    tg_rules_destroy(rules);
}


static void
test_port_without_protocol_is_both(void **state)
{
    tg_rules_t        *rules;
    tg_rule_policy_t   policy = { .peer = TG_PEER_ANY, .port = 53,
                                  .direction = TG_OUT };

    (void) state;

    rules = tg_rules_create(&policy, 1);
    assert_int_equal(rules->n_rows, 2);
    assert_non_null(look(rules, 0, 6, 53, TG_OUT << 4 | TG_PEER_ANY));
    assert_non_null(look(rules, 0, 17, 53, TG_OUT << 4 | TG_PEER_ANY));
    tg_rules_destroy(rules);
}


/* An address in the inner net must find the outer net's rules by the inner class. */
static void
test_nets_inside_nets(void **state)
{
    uint32_t           outer, inner;
    tg_rules_t        *rules;
    tg_rule_policy_t   policies[] = {
        { .number = 1, .peer = TG_PEER_NET, .peer_net = v4("10.0.0.0"),
          .peer_prefix = 96 + 8, .deny = 1 },
        { .number = 2, .peer = TG_PEER_NET, .peer_net = v4("10.1.2.3"),
          .peer_prefix = 96 + 16, .proto = 6 },
        { .number = 3, .peer = TG_PEER_NET, .peer_net = v4("10.1.9.9"),
          .peer_prefix = 96 + 16, .proto = 17 },
    };

    (void) state;

    rules = tg_rules_create(policies, 3);
    assert_int_equal(rules->n_nets, 2);

    outer = rules->nets[0].key.prefix == 32 + 104 ? rules->nets[0].class
                                                  : rules->nets[1].class;
    inner = 3 - outer;
    assert_int_equal(rules->n_rows, 4);
    assert_int_equal(look(rules, outer, 0, 0, TG_PEER_NET)->number, 1);
    assert_int_equal(look(rules, inner, 0, 0, TG_PEER_NET)->number, 1);
    assert_int_equal(look(rules, inner, 6, 0, TG_PEER_NET)->number, 2);
    assert_null(look(rules, outer, 6, 0, TG_PEER_NET));

    tg_rules_number(rules, 77);
    assert_int_equal(rules->rows[0].key.set, 77);
    assert_int_equal(rules->nets[1].key.set, 77);
    tg_rules_destroy(rules);
}


static void
test_order_changes_nothing(void **state)
{
    tg_rules_t        *one, *other;
    tg_rule_policy_t   policies[] = {
        { .number = 1, .peer = TG_PEER_NET, .peer_net = v4("10.0.0.0"),
          .peer_prefix = 104 },
        { .number = 2, .peer = TG_PEER_NET, .peer_net = v4("10.2.0.0"),
          .peer_prefix = 112 },
        { .number = 3, .peer = TG_PEER_ANY, .deny = 1 },
    };
    tg_rule_policy_t   turned[] = { policies[2], policies[1], policies[0] };

    (void) state;

    one = tg_rules_create(policies, 3);
    other = tg_rules_create(turned, 3);
    assert_int_equal(one->digest, other->digest);
    tg_rules_destroy(other);

    turned[0].deny = 0;
    other = tg_rules_create(turned, 3);
    assert_int_not_equal(one->digest, other->digest);
    tg_rules_destroy(one);
    tg_rules_destroy(other);

    one = tg_rules_create(NULL, 0);
    assert_int_equal(one->n_rows, 0);
    tg_rules_destroy(one);
}


static void
test_refused(void **state)
{
    size_t            i;
    tg_rule_policy_t  wrong[] = {
        { .peer = TG_PEER_TENANT },
        { .peer = TG_PEER_SERVICE },
        { .peer = TG_PEER_KINDS },
        { .peer = -1 },
        { .peer = TG_PEER_ANY, .direction = 2 },
        { .peer = TG_PEER_ANY, .precedence = TG_PRECEDENCE_MAX + 1 },
        { .peer = TG_PEER_ANY, .port = 80, .proto = 1 },
        { .peer = TG_PEER_NET, .peer_prefix = 129 },
    };

    (void) state;

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        errno = 0;
        assert_null(tg_rules_create(&wrong[i], 1));
        assert_int_equal(errno, EINVAL);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_port_without_protocol_is_both),
        cmocka_unit_test(test_nets_inside_nets),
        cmocka_unit_test(test_order_changes_nothing),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
