/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A bulk is one transaction with a cursor.  It is freed when its last member has
 * left; its job is cancelled then, and the pool rolls the transaction back.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_bulk.h"
#include "td_feed.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_sql.h"


#define TD_BULK_ENOUGH    (256 * 1024)  /* who has less pending can take more */
#define TD_BULK_LIGHT     (8 * 1024)    /* bytes of a row of which to read many */
#define TD_BULK_MANY      250           /* as TD_SQL_WATCH_FETCH says */
#define TD_BULK_FEW       8             /* as TD_SQL_WATCH_FETCH_FEW says */
#define TD_BULK_PATIENCE  1000          /* ms for slow members */
#define TD_BULK_MOST      "1000"        /* changes at a time */

typedef enum {
    TD_BULK_QUEUED,         /* waits for a connection and its first piece */
    TD_BULK_READING,        /* waits for a piece */
    TD_BULK_RESTING         /* waits for the clients */
} td_bulk_state_e;

struct td_bulk_s {
    TAILQ_ENTRY(td_bulk_s)   link;
    struct td_bulks_s       *bulks;
    struct td_streams_s      members;
    struct event            *wake;
    td_job_t                 job;
    td_bulk_state_e          state;
    char                     gateway[64];
    td_view_t                view;
    int64_t                  since;         /* 0: a list */
    char                     since_text[24];
    int64_t                  revision;      /* of the snapshot */
    int64_t                  newest;        /* of the rows; they come in order */
    int                      rows;          /* of the piece */
    int                      wanted;
    size_t                   bytes;
    size_t                   total;
    long                     rested;
};


static void
td_bulk_free(td_bulk_t *bulk)
{
    td_job_cancel(&bulk->job);
    TAILQ_REMOVE(bulk->bulks, bulk, link);
    event_free(bulk->wake);
    td_view_free(&bulk->view);
    free(bulk);
}


/* Every member leaves by its own means: calls end for each. */
static void
td_bulk_dissolve(td_bulk_t *bulk, void (*end)(td_stream_t *stream))
{
    td_stream_t  *stream;

    while ((stream = TAILQ_FIRST(&bulk->members)) != NULL) {
        TAILQ_REMOVE(&bulk->members, stream, bulk_link);
        stream->bulk = NULL;
        end(stream);
    }

    td_bulk_free(bulk);
}


/* Few rows until it is known how large they are. */
static void
td_bulk_add_fetch(td_bulk_t *bulk)
{
    bulk->wanted = bulk->rows > 0
                   && bulk->bytes / (size_t) bulk->rows < TD_BULK_LIGHT
                   ? TD_BULK_MANY : TD_BULK_FEW;
    bulk->bytes = 0;
    bulk->rows = 0;
    td_job_step(&bulk->job, bulk->wanted == TD_BULK_MANY
                            ? TD_SQL_WATCH_FETCH : TD_SQL_WATCH_FETCH_FEW);
}


static void
td_bulk_submit(td_bulk_t *bulk, td_pool_t *pool)
{
    td_pg_step_t  *step;

    td_job_reset(&bulk->job);
    td_job_step(&bulk->job, TD_SQL_BEGIN_SNAPSHOT);

    td_job_step(&bulk->job, TD_SQL_REGISTRY_STATE);

    if (bulk->since == 0) {
        step = td_job_step(&bulk->job, TD_SQL_WATCH_VIEW);
        step->param[0] = bulk->gateway;
        step = td_job_step(&bulk->job, TD_SQL_WATCH_LIST);
        step->param[0] = bulk->gateway;

    } else {
        snprintf(bulk->since_text, sizeof(bulk->since_text), "%lld",
                 (long long) bulk->since);
        step = td_job_step(&bulk->job, TD_SQL_WATCH_SINCE);
        step->param[0] = bulk->since_text;
        step->param[1] = TD_BULK_MOST;
        step->param[2] = bulk->gateway;
    }

    td_bulk_add_fetch(bulk);
    td_job_submit(pool, &bulk->job);
}


static void
td_bulk_send_rows(td_bulk_t *bulk, const PGresult *result)
{
    int           i;
    td_line_t    *line;
    td_stream_t  *stream;

    bulk->state = TD_BULK_READING;
    bulk->rows = PQntuples(result);
    bulk->total += (size_t) bulk->rows;

    for (i = 0; i < bulk->rows; i++) {
        bulk->newest = atoll(PQgetvalue(result, i, TD_FEED_REVISION));
        line = td_feed_line(result, i);

        if (line == NULL) {
            continue;
        }

        bulk->bytes += td_line_size(line);

        TAILQ_FOREACH(stream, &bulk->members, bulk_link) {
            td_stream_put(stream, line);
        }

        td_line_unref(line);
    }

    TAILQ_FOREACH(stream, &bulk->members, bulk_link) {
        td_stream_flush(stream);
    }
}


/* What an agent sees may have changed since its stream was opened: here is what is
 * listed.  All members are of this agent, since no other has its view. */
static void
td_bulk_take_view(td_bulk_t *bulk, const PGresult *result)
{
    td_view_t     view;
    td_stream_t  *stream;

    if (bulk->view.kind != TD_VIEW_AGENT
        || strcmp(PQgetvalue(result, 0, 0), "agent") != 0
        || td_view_parse(&view, "agent", atoll(PQgetvalue(result, 0, 1)),
                         PQgetisnull(result, 0, 2) ? NULL
                         : PQgetvalue(result, 0, 2)) != 0)
    {
        return;
    }

    td_view_free(&bulk->view);
    bulk->view = view;

    TAILQ_FOREACH(stream, &bulk->members, bulk_link) {
        td_view_free(&stream->view);
        if (td_view_copy(&stream->view, &view) != 0) {
            stream->stale = 1;
        }
    }
}


static void
td_bulk_result(td_job_t *job, unsigned step, PGresult *result)
{
    td_bulk_t  *bulk = job->data;

    switch (job->step[step].statement) {

    case TD_SQL_REGISTRY_STATE:
        bulk->revision = atoll(PQgetvalue(result, 0, 1));
        break;

    case TD_SQL_WATCH_VIEW:
        td_bulk_take_view(bulk, result);
        break;

    case TD_SQL_WATCH_FETCH:
    case TD_SQL_WATCH_FETCH_FEW:
        td_bulk_send_rows(bulk, result);
        break;
    }
}


static void
td_bulk_finish(td_bulk_t *bulk)
{
    int64_t       at;
    td_stream_t  *stream;

    /* Changes come about a thousand at a time, in whole revisions. */
    at = bulk->since == 0 || bulk->total == 0 ? bulk->revision : bulk->newest;

    TAILQ_FOREACH(stream, &bulk->members, bulk_link) {
        if (stream->stale) {
            continue;
        }
        stream->at = at;
        td_line_bookmark(stream->chunk, at, bulk->since == 0);
        td_stream_flush(stream);
    }

    td_bulk_dissolve(bulk, td_stream_go_live);
}


/* Whether to read on: everybody can take more, or somebody has waited enough. */
static int
td_bulk_is_wanted(const td_bulk_t *bulk)
{
    int           ready, behind;
    td_stream_t  *stream;

    ready = 0;
    behind = 0;

    TAILQ_FOREACH(stream, &bulk->members, bulk_link) {
        if (td_stream_pending(stream) <= TD_BULK_ENOUGH) {
            ready++;
        } else {
            behind++;
        }
    }

    return behind == 0
           || (ready > 0 && td_now() - bulk->rested > TD_BULK_PATIENCE);
}


static void
td_bulk_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_bulk_t  *bulk = job->data;

    if (outcome != TD_JOB_OK) {
        td_log(TD_LOG_WARN, "watch", "cannot read %s for \"%s\": %s",
               bulk->since == 0 ? "the list" : "changes", bulk->gateway,
               error != NULL ? PQresultErrorMessage(error)
                             : "the registry is out of reach or busy");
        td_bulk_dissolve(bulk, td_stream_close);
        return;
    }

    if (bulk->rows < bulk->wanted) {
        td_bulk_finish(bulk);
        return;
    }

    bulk->rested = td_now();

    if (!td_bulk_is_wanted(bulk)) {
        bulk->state = TD_BULK_RESTING;
        td_job_hold(job);
        return;
    }

    td_job_reset(job);
    td_bulk_add_fetch(bulk);
    td_job_again(job);
}


static void
td_bulk_wake(td_bulk_t *bulk)
{
    if (bulk->state == TD_BULK_RESTING && td_bulk_is_wanted(bulk)) {
        bulk->state = TD_BULK_READING;
        td_job_reset(&bulk->job);
        td_bulk_add_fetch(bulk);
        td_job_resume(&bulk->job);
    }
}


static void
td_bulk_on_wake(evutil_socket_t fd, short what, void *data)
{
    (void) fd;
    (void) what;

    td_bulk_wake(data);
}


static td_bulk_t *
td_bulk_create(struct td_bulks_s *bulks, const td_stream_t *stream)
{
    td_bulk_t  *bulk;

    bulk = calloc(1, sizeof(td_bulk_t));
    if (bulk == NULL) {
        return NULL;
    }

    bulk->wake = event_new(stream->request->daemon->base, -1, 0,
                           td_bulk_on_wake, bulk);
    if (bulk->wake == NULL || td_view_copy(&bulk->view, &stream->view) != 0) {
        if (bulk->wake != NULL) {
            event_free(bulk->wake);
        }
        free(bulk);
        return NULL;
    }

    bulk->bulks = bulks;
    bulk->since = stream->at;
    memcpy(bulk->gateway, stream->gateway, sizeof(bulk->gateway));
    bulk->job.result = td_bulk_result;
    bulk->job.done = td_bulk_done;
    bulk->job.data = bulk;
    TAILQ_INIT(&bulk->members);
    TAILQ_INSERT_TAIL(bulks, bulk, link);

    return bulk;
}


static int
td_bulk_fits(const td_bulk_t *bulk, const td_stream_t *stream)
{
    return bulk->state == TD_BULK_QUEUED && bulk->since == stream->at
           && td_view_equal(&bulk->view, &stream->view);
}


void
td_bulk_join(struct td_bulks_s *bulks, td_stream_t *stream)
{
    td_bulk_t  *bulk;

    if (stream->at == 0) {
        td_metric_add(TD_METRIC_WATCH_LISTS, 1);
    }

    TAILQ_FOREACH(bulk, bulks, link) {
        if (td_bulk_fits(bulk, stream)) {
            TAILQ_INSERT_TAIL(&bulk->members, stream, bulk_link);
            stream->bulk = bulk;
            return;
        }
    }

    bulk = td_bulk_create(bulks, stream);
    if (bulk == NULL) {
        td_stream_close(stream);
        return;
    }

    TAILQ_INSERT_TAIL(&bulk->members, stream, bulk_link);
    stream->bulk = bulk;
    td_bulk_submit(bulk, stream->request->daemon->list_pool);
}


void
td_bulk_leave(td_stream_t *stream)
{
    td_bulk_t  *bulk;

    bulk = stream->bulk;
    stream->bulk = NULL;

    if (bulk == NULL) {
        return;
    }

    TAILQ_REMOVE(&bulk->members, stream, bulk_link);

    if (TAILQ_EMPTY(&bulk->members)) {
        td_bulk_free(bulk);
    }
}


void
td_bulk_drained(td_stream_t *stream)
{
    if (stream->bulk->state == TD_BULK_RESTING
        && td_stream_pending(stream) <= TD_BULK_ENOUGH)
    {
        event_active(stream->bulk->wake, EV_TIMEOUT, 0);
    }
}


int
td_bulk_is_shared(const td_stream_t *stream)
{
    return stream->bulk != NULL
           && TAILQ_FIRST(&stream->bulk->members)
              != TAILQ_LAST(&stream->bulk->members, td_streams_s);
}


void
td_bulk_tick(struct td_bulks_s *bulks)
{
    td_bulk_t  *bulk, *next;

    for (bulk = TAILQ_FIRST(bulks); bulk != NULL; bulk = next) {
        next = TAILQ_NEXT(bulk, link);
        td_bulk_wake(bulk);
    }
}
