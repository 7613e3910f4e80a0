/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The recent changes, in memory, so that streams which are up to date and those
 * that were away for a moment need no SQL.
 *
 * Changes come in batches.  A batch tells of everything between the end of the
 * batch before and its own end, but an object that changed several times in it
 * comes once, at its lowest revision, with its newest state.  So whoever has read
 * up to the middle of a batch must be shown the whole of it again; td_line_after()
 * then finds what is new.  Entries have consecutive numbers.
 */

#ifndef TD_RING_H
#define TD_RING_H

#include "td_line.h"

typedef struct td_ring_s  td_ring_t;

/* NULL: no memory. */
td_ring_t *td_ring_create(size_t max_lines, size_t max_bytes);
void td_ring_destroy(td_ring_t *ring);

/* Forgets all: the ring begins at this revision. */
void td_ring_reset(td_ring_t *ring, int64_t revision);

/* Adds a line, whose reference it takes, to the batch that is open. */
void td_ring_add(td_ring_t *ring, td_line_t *line);

/* Ends the batch: it told of everything up to this revision. */
void td_ring_commit(td_ring_t *ring, int64_t end);

/* Throws the batch away that is open: it was not read to its end. */
void td_ring_abort(td_ring_t *ring);

/* Whoever has everything up to a revision from here on can go on by the ring. */
int64_t td_ring_floor(const td_ring_t *ring);

/* Up to where the ring has everything. */
int64_t td_ring_end(const td_ring_t *ring);

/* The number of the first entry that somebody at this revision, at or above the
 * floor, must be shown; perhaps one that does not exist yet. */
uint64_t td_ring_seek(const td_ring_t *ring, int64_t at);

/* The entry of that number.  NULL: not there yet, or no longer: then *gone. */
td_line_t *td_ring_get(const td_ring_t *ring, uint64_t number, int *gone);

size_t td_ring_bytes(const td_ring_t *ring);

#endif /* TD_RING_H */
