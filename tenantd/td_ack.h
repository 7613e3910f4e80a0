/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Acknowledgements of gateways.  While one of a gateway is being written, later
 * ones wait, and only the newest of them is written: an acknowledgement says how
 * far its gateway is, so an older one has nothing to add.  Every caller is
 * answered with the outcome of what was written for it.
 *
 * Only calls with the same credential are merged, for each has to be allowed.
 */

#ifndef TD_ACK_H
#define TD_ACK_H

#include "td_request.h"

typedef struct td_ack_s  td_ack_t;

td_ack_t *td_ack_create(td_daemon_t *daemon);
void td_ack_destroy(td_ack_t *ack);

/* POST /v1/gateways/{gateway}/ack; the request's credential is set. */
void td_ack_handle(td_ack_t *ack, td_request_t *request);

#endif /* TD_ACK_H */
