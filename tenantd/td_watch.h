/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Watch streams, docs/reference/watch.md.  A stream
 *
 *   opening   waits for its credential to be judged and its revision looked at
 *   bulk      reads a list, or the changes that the ring no longer has, from SQL
 *   live      gets what the feed puts into the ring
 *
 * and goes back from live to bulk when the ring has lost what it needs.
 */

#ifndef TD_WATCH_H
#define TD_WATCH_H

#include "td_request.h"

typedef struct td_watch_s  td_watch_t;

td_watch_t *td_watch_create(td_daemon_t *daemon);
void td_watch_destroy(td_watch_t *watch);

/* GET /v1/watch; the request's credential is set. */
void td_watch_handle(td_watch_t *watch, td_request_t *request);

/* Whether there is any stream, be it one that is only being opened. */
int td_watch_has_streams(const td_watch_t *watch);

/* The feed has moved: live streams get what is new. */
void td_watch_advance(td_watch_t *watch);

/* Ends all streams; their gateways come back. */
void td_watch_end_all(td_watch_t *watch);

#endif /* TD_WATCH_H */
