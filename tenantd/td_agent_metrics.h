/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The listener of [agent] metrics: /metrics, /healthz, /readyz.
 */

#ifndef TD_AGENT_METRICS_H
#define TD_AGENT_METRICS_H

#include "td_agent_flow.h"

typedef struct td_agent_metrics_s  td_agent_metrics_t;

/* NULL after a line in the log.  Without [agent] metrics it does not listen. */
td_agent_metrics_t *td_agent_metrics_create(td_agent_t *agent,
    td_agent_flow_t *flow);
void td_agent_metrics_destroy(td_agent_metrics_t *metrics);

#endif /* TD_AGENT_METRICS_H */
