/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>

#include "td_agent_policy.h"


static void
td_policy_peer(const td_side_t *side, tg_rule_policy_t *rule)
{
    switch (side->kind) {

    case TD_SIDE_ANY:
        rule->peer = TG_PEER_ANY;
        break;

    case TD_SIDE_SERVICE:
        rule->peer = TG_PEER_SERVICE;
        rule->peer_number = side->number;
        break;

    case TD_SIDE_TENANT:
        rule->peer = TG_PEER_TENANT;
        rule->peer_number = side->number;
        break;

    case TD_SIDE_NET:
        rule->peer = TG_PEER_NET;
        rule->peer_net = side->net.addr;
        rule->peer_prefix = side->net.prefix;
        break;
    }
}


/* own: the tenant's side, other: the one that it meets. */
static size_t
td_policy_add(tg_rule_policy_t *rules, const td_doc_policy_t *policy, int direction,
    const td_side_t *own, const td_side_t *other)
{
    size_t             i, n;
    tg_rule_policy_t  *rule;

    n = policy->n_ports > 0 ? policy->n_ports : 1;

    for (i = 0; i < n; i++) {
        rule = &rules[i];
        rule->number = policy->number;
        rule->precedence = policy->precedence;
        rule->deny = policy->deny;
        rule->direction = direction;
        rule->service = own->kind == TD_SIDE_SERVICE ? own->number : 0;
        rule->proto = policy->proto;
        rule->port = policy->n_ports > 0 ? policy->ports[i] : 0;
        td_policy_peer(other, rule);
    }

    return n;
}


tg_rule_policy_t *
td_agent_policy_rules(const td_doc_tenant_t *tenant, size_t *n)
{
    size_t                  i, room;
    tg_rule_policy_t       *rules;
    const td_doc_policy_t  *policy;

    room = 1;

    for (i = 0; i < tenant->n_policies; i++) {
        room += 2 * (tenant->policies[i].n_ports + 1);
    }

    rules = calloc(room, sizeof(tg_rule_policy_t));
    *n = 0;

    for (i = 0; rules != NULL && i < tenant->n_policies; i++) {
        policy = &tenant->policies[i];

        if (policy->own_to) {
            *n += td_policy_add(&rules[*n], policy, TG_IN, &policy->to, &policy->from);
        }

        if (policy->own_from) {
            *n += td_policy_add(&rules[*n], policy, TG_OUT, &policy->from, &policy->to);
        }
    }

    return rules;
}
