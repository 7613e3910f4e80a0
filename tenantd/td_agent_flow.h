/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Records of the kernel: named, counted for metrics, sent to the registry.
 */

#ifndef TD_AGENT_FLOW_H
#define TD_AGENT_FLOW_H

#include "td_agent.h"
#include "tg_text.h"

typedef struct td_agent_flow_s  td_agent_flow_t;

typedef struct {
    uint64_t  records;      /* that came from the kernel */
    uint64_t  sent;         /* that the registry has taken */
    uint64_t  lost;         /* between the two */
    size_t    queued;
    size_t    pairs;
} td_agent_flow_counts_t;

/* Starts the listener of [agent] metrics too.  NULL after a line in the log. */
td_agent_flow_t *td_agent_flow_create(td_agent_t *agent);

/* Takes what the kernel has recorded. */
void td_agent_flow_read(td_agent_flow_t *flow);

void td_agent_flow_destroy(td_agent_flow_t *flow);

td_agent_flow_counts_t td_agent_flow_counts(const td_agent_flow_t *flow);

/* The metrics by pairs of services. */
void td_agent_flow_write_pairs(td_agent_flow_t *flow, tg_text_t *text);

#endif /* TD_AGENT_FLOW_H */
