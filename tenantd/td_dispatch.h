/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a request to the part of the daemon that answers it.
 */

#ifndef TD_DISPATCH_H
#define TD_DISPATCH_H

#include "td_http.h"

/* td_http_handler_pt; data is the td_daemon_t. */
void td_dispatch(struct evhttp_request *http, td_conn_t *conn, void *data);

#endif /* TD_DISPATCH_H */
