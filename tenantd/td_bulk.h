/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Bulk reading for streams: a list of everything, or all changes after a
 * revision, through a cursor, piece by piece as fast as the clients read.
 *
 * Streams that want the same share one: those that come while it still waits for
 * a database connection join it.  A slow member holds the others up for a second
 * a piece at most; by then it is so far behind that it is dropped.
 */

#ifndef TD_BULK_H
#define TD_BULK_H

#include "td_stream.h"

typedef struct td_bulk_s  td_bulk_t;

TAILQ_HEAD(td_bulks_s, td_bulk_s);

/*
 * Puts the stream into a bulk of bulks: everything if stream->at is 0, otherwise
 * what came after stream->at.  When it is through, td_stream_go_live() is called
 * with stream->at at its revision; when it fails the stream is closed.
 */
void td_bulk_join(struct td_bulks_s *bulks, td_stream_t *stream);

/* The stream is going away. */
void td_bulk_leave(td_stream_t *stream);

/* A member's client has read something. */
void td_bulk_drained(td_stream_t *stream);

/* Whether others wait for this member. */
int td_bulk_is_shared(const td_stream_t *stream);

/* Once a second: members that hold the others up. */
void td_bulk_tick(struct td_bulks_s *bulks);

#endif /* TD_BULK_H */
