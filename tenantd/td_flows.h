/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Flows of a tenant, docs/reference/flows.md: a page as JSON or as lines, and
 * streams that follow.
 *
 *  1. One database connection listens, as long as somebody follows.  A
 *     notification names a report; what the followed tenants have part in of it is
 *     read once for all followers.
 *  2. A follower that reads too slowly loses records, and is told how many.
 *     Nobody waits for it.
 */

#ifndef TD_FLOWS_H
#define TD_FLOWS_H

#include "td_request.h"

typedef struct td_flows_s  td_flows_t;

td_flows_t *td_flows_create(td_daemon_t *daemon);
void td_flows_destroy(td_flows_t *flows);

/* GET /v1/tenants/{tenant}/flows; the request's credential is set. */
void td_flows_handle(td_flows_t *flows, td_request_t *request);

/* Ends all streams. */
void td_flows_end_all(td_flows_t *flows);

#endif /* TD_FLOWS_H */
