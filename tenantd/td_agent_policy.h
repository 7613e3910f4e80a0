/* SPDX-License-Identifier: BSD-2-Clause */

/* A tenant's policies, as the rules that lib/tg_rules.c takes.  Pure. */

#ifndef TD_AGENT_POLICY_H
#define TD_AGENT_POLICY_H

#include "td_agent_document.h"
#include "tg_rules.h"

/*
 * One rule for each direction and port: where the tenant may be called (own_to) of
 * direction in, where it may call (own_from) of direction out.  The array is the
 * caller's; NULL: no memory.
 */
tg_rule_policy_t *td_agent_policy_rules(const td_doc_tenant_t *tenant, size_t *n);

#endif /* TD_AGENT_POLICY_H */
