/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the agent may do, capabilities(7).  To run it needs CAP_BPF (maps) and
 * CAP_NET_ADMIN (programs on cgroups, links of workloads), and nothing else; to load
 * the programs it needs CAP_PERFMON (pointers that the verifier lets them compare).
 */

#ifndef TD_AGENT_CAPS_H
#define TD_AGENT_CAPS_H

/* NULL, or the name of a capability that is needed and missing. */
const char *td_caps_missing(void);

/* Keeps the first two, for good: also children can have no other.  0, or -1 with
 * errno. */
int td_caps_drop(void);

#endif /* TD_AGENT_CAPS_H */
