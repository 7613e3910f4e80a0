/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What td_watch.c and td_bulk.c share: one open stream.
 */

#ifndef TD_STREAM_H
#define TD_STREAM_H

#include <sys/queue.h>

#include "td_line.h"
#include "td_pool.h"
#include "td_request.h"

typedef enum {
    TD_STREAM_OPENING,
    TD_STREAM_BULK,
    TD_STREAM_LIVE
} td_stream_state_e;

struct td_watch_s;
struct td_bulk_s;

typedef struct td_stream_s {
    TAILQ_ENTRY(td_stream_s)   link;
    TAILQ_ENTRY(td_stream_s)   bulk_link;
    struct td_watch_s         *watch;
    td_request_t              *request;
    td_job_t                   job;         /* opens it, and checks it again */
    td_stream_state_e          state;
    char                       gateway[64];
    td_view_t                  view;
    int                        stale;       /* the view ends here, see td_watch.c */

    int64_t                    since;       /* as asked for; 0: a list */
    int64_t                    seen;        /* newest that the gateway has of */
    int64_t                    at;          /* has everything up to here */
    uint64_t                   next;        /* entry of the ring to come */
    struct td_bulk_s          *bulk;
    struct evbuffer           *chunk;       /* what is about to be sent */
    struct evbuffer_cb_entry  *on_drain;
    long                       progress;    /* when the client last took a byte */
    long                       checked;     /* when the credential was checked */

    /* of the answer to the opening call */
    char                       registry[40];
    int64_t                    revision;
    int64_t                    oldest;
    td_view_t                  found;
    int64_t                    found_since; /* an agent's: revision of the view */
} td_stream_t;

TAILQ_HEAD(td_streams_s, td_stream_s);

/* Adds what of line the stream's gateway may see to its chunk; 1 if it did. */
int td_stream_put(td_stream_t *stream, td_line_t *line);

/* Sends the chunk. */
void td_stream_flush(td_stream_t *stream);

/* Bytes that the client has not taken yet. */
size_t td_stream_pending(const td_stream_t *stream);

/* Ends the stream in order (the gateway comes back), and frees it. */
void td_stream_close(td_stream_t *stream);

/* The bulk has brought the stream up to its revision: on by the ring, if it can,
 * otherwise by another bulk. */
void td_stream_go_live(td_stream_t *stream);

#endif /* TD_STREAM_H */
