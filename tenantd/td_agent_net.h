/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The network of workloads that have a namespace of their own: an address from the
 * node's nets, a veth pair, a route to it.  The node's end has the same link-local
 * address on every pair, which is the workload's gateway.
 */

#ifndef TD_AGENT_NET_H
#define TD_AGENT_NET_H

#include "td_agent.h"
#include "td_agent_document.h"
#include "td_agent_run.h"

/* A free address of each family that the nets have; returns how many. */
size_t td_net_allocate(td_agent_t *agent, const td_runs_t *runs,
    const td_doc_nets_t *nets, struct tg_addr addrs[TD_RUN_ADDRESSES]);

/* The node's side of a cable: gateway, route, forwarding.  What the node itself sends
 * by it, such as health checks, comes from the first of its addresses that it has
 * there: by them the workload's kernel knows it.  0 or a negative errno. */
int td_net_route(const char *link, const struct tg_addr *addr,
    const td_doc_nets_t *node);

#endif /* TD_AGENT_NET_H */
