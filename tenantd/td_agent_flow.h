/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Records of the kernel: named, counted for metrics, sent to the registry.
 */

#ifndef TD_AGENT_FLOW_H
#define TD_AGENT_FLOW_H

#include "td_agent.h"

typedef struct td_agent_flow_s  td_agent_flow_t;

/* Starts the listener of [agent] metrics too.  NULL after a line in the log. */
td_agent_flow_t *td_agent_flow_create(td_agent_t *agent);

/* Takes one record of td_mesh_poll(); event is borrowed. */
void td_agent_flow_event(td_agent_flow_t *flow, const struct tg_event *event);

void td_agent_flow_destroy(td_agent_flow_t *flow);

#endif /* TD_AGENT_FLOW_H */
