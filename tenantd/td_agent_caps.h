/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the agent may do, capabilities(7).  To run it needs CAP_BPF (maps) and
 * CAP_NET_ADMIN (programs on cgroups, links of workloads), and nothing else; what
 * is done before they are dropped may need more, docs/reference/agent.md.
 */

#ifndef TD_AGENT_CAPS_H
#define TD_AGENT_CAPS_H

/* NULL, or the name of a capability that is needed and missing. */
const char *td_caps_missing(void);

/* Keeps those two, for good: also children can have no other.  0, or -1 with
 * errno. */
int td_caps_drop(void);

#endif /* TD_AGENT_CAPS_H */
