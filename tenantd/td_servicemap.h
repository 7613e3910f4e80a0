/* SPDX-License-Identifier: BSD-2-Clause */

#ifndef TD_SERVICEMAP_H
#define TD_SERVICEMAP_H

#include "td_request.h"

/* GET /v1/tenants/{tenant}/servicemap, as JSON, DOT or SVG; the request's
 * credential is set. */
void td_servicemap_handle(td_request_t *request);

#endif /* TD_SERVICEMAP_H */
