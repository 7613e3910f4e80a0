/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The acknowledgement: which revision is in force here, and how full the kernel's
 * maps are.  Told within milliseconds of a batch, one request at a time, and every
 * ten seconds.
 */

#ifndef TD_AGENT_ACK_H
#define TD_AGENT_ACK_H

#include "td_agent.h"

typedef struct td_agent_ack_s  td_agent_ack_t;

/* NULL: no memory. */
td_agent_ack_t *td_agent_ack_create(td_agent_t *agent);
void td_agent_ack_destroy(td_agent_ack_t *ack);

/* Something has changed. */
void td_agent_ack_hurry(td_agent_ack_t *ack);

#endif /* TD_AGENT_ACK_H */
