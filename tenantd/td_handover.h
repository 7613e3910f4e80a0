/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Moves of tenants between gateways wait for acknowledgements and deadlines.  The
 * registry decides; somebody has to call it while one is open, and that is every
 * tenantd: whoever runs the gateway may have died.
 */

#ifndef TD_HANDOVER_H
#define TD_HANDOVER_H

#include <event2/event.h>

#include "td_pool.h"
#include "tg_text.h"

typedef struct td_handover_s  td_handover_t;

/* patience: ms after which it tries again, when the registry does not answer.
 * NULL: no memory. */
td_handover_t *td_handover_create(struct event_base *base, td_pool_t *pool,
    long patience);
void td_handover_destroy(td_handover_t *handover);

/* Moves them on, now and as long as any is open. */
void td_handover_advance(td_handover_t *handover);

void td_handover_write_metrics(const td_handover_t *handover, tg_text_t *text);

#endif /* TD_HANDOVER_H */
