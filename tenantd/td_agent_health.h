/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Checks of the endpoints of this node whose service asks for them: a TCP connect,
 * or an HTTP GET that is answered with 2xx or 3xx.  `rise` good ones in a row make
 * an endpoint healthy, `fall` bad ones unhealthy; the registry hears of it and lets
 * every node know.
 */

#ifndef TD_AGENT_HEALTH_H
#define TD_AGENT_HEALTH_H

#include "td_agent.h"
#include "tg_text.h"

typedef struct td_agent_health_s  td_agent_health_t;

/* NULL: no memory. */
td_agent_health_t *td_agent_health_create(td_agent_t *agent);
void td_agent_health_destroy(td_agent_health_t *health);

/* Services may have changed. */
void td_agent_health_changed(td_agent_health_t *health);

/* The changes that were not told, as a JSON array; told: whether they were taken;
 * untold: all have to be told again. */
void td_agent_health_list(td_agent_health_t *health, tg_text_t *out);
void td_agent_health_told(td_agent_health_t *health, int taken);
void td_agent_health_untold(td_agent_health_t *health);

#endif /* TD_AGENT_HEALTH_H */
