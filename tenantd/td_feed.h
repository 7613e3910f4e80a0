/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The change feed: one database connection that listens, reads what is new into
 * the ring, and tells the streams.
 *
 * A notification is only a hint (PostgreSQL merges them, and loses them with the
 * connection): what counts is reading everything after the last revision, after
 * each notification, after each reconnect, and every few seconds.  While one read
 * is under way, hints are merged into one further read.
 *
 * While there is no stream, only the newest revision is read: documents that
 * nobody waits for would cost as much as half of what it takes to make them.
 */

#ifndef TD_FEED_H
#define TD_FEED_H

#include <stdint.h>

#include "td_daemon.h"
#include "td_ring.h"

typedef struct td_feed_s  td_feed_t;

/* Columns of watch rows, as TD_SQL_WATCH_READ and the cursors give them. */
typedef enum {
    TD_FEED_REVISION, TD_FEED_KIND, TD_FEED_NAME, TD_FEED_ID, TD_FEED_SHARED,
    TD_FEED_OBJECT_REVISION, TD_FEED_DOCUMENT, TD_FEED_SHARED_DOCUMENT,
    TD_FEED_MESH_TENANT
} td_feed_column_e;

td_feed_t *td_feed_create(td_daemon_t *daemon);
void td_feed_destroy(td_feed_t *feed);

/* Ends the backoff, if the connection is down. */
void td_feed_hurry(td_feed_t *feed);

/* Whether the connection is up and the registry has been read. */
int td_feed_ready(const td_feed_t *feed);

/* Which registry it is, "" before it was read. */
const char *td_feed_registry(const td_feed_t *feed);

td_ring_t *td_feed_ring(td_feed_t *feed);

/* A row of a result as a line; NULL: it cannot be one, which has been logged. */
struct pg_result;
td_line_t *td_feed_line(const struct pg_result *result, int row);

#endif /* TD_FEED_H */
