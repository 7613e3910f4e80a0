/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Bulk import: JSON Lines of tenants, a few hundred in a transaction, answered by
 * one line each while it goes on.
 */

#ifndef TD_IMPORT_H
#define TD_IMPORT_H

#include "td_request.h"

/* POST /v1/import; the request's credential is set. */
void td_import_handle(td_request_t *request);

#endif /* TD_IMPORT_H */
