/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * POST /v1/gateways/GATEWAY/mesh: what this node has seen.  Workloads of tenantd
 * exec as a full list, health of endpoints as changes, and all of it when a stream
 * begins.  One request at a time; what was not taken is told again.
 */

#ifndef TD_AGENT_REPORT_H
#define TD_AGENT_REPORT_H

#include "td_agent.h"

typedef struct td_agent_report_s  td_agent_report_t;

/* NULL: no memory. */
td_agent_report_t *td_agent_report_create(td_agent_t *agent);
void td_agent_report_destroy(td_agent_report_t *report);

/* Workloads, or some endpoint's health, have changed. */
void td_agent_report_changed(td_agent_report_t *report);

/* The registry may have forgotten. */
void td_agent_report_all(td_agent_report_t *report);

#endif /* TD_AGENT_REPORT_H */
