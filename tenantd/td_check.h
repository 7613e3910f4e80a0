/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Whether a request's body is what its route wants, before SQL sees it.
 */

#ifndef TD_CHECK_H
#define TD_CHECK_H

#include <jansson.h>

#include "td_request.h"

/*
 * Presence, Content-Type, JSON, patterns, and keys where the route may have them; sets
 * request->sealed when the body had to be changed.  JSON Lines are not looked
 * into.  Returns 0, or -1: the request has been answered.
 */
int td_check_body(td_request_t *request);

/*
 * Keys and patterns in one body: 0 as they were, 1 keys were changed, -1 with
 * problem filled, whose texts are in err.
 */
int td_check_json(const td_daemon_t *daemon, json_t *json, int keys,
    td_problem_t *problem, tg_error_t *err);

#endif /* TD_CHECK_H */
