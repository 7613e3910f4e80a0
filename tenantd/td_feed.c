/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_fault.h"
#include "td_feed.h"
#include "td_handover.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_pg.h"
#include "td_pool.h"
#include "td_sql.h"
#include "td_watch.h"


#define TD_FEED_MOST          1000      /* rows of one read, about */
#define TD_FEED_POLL          5         /* seconds */
#define TD_FEED_TIMEOUT       (60 * 1000)
#define TD_FEED_NUMBER        24        /* characters of a bigint */

struct td_feed_s {
    td_daemon_t      *daemon;
    td_pg_options_t   options;
    td_pg_t          *pg;
    td_ring_t        *ring;
    struct event     *poll;

    int               listening;
    int               reading;      /* or making itself listen */
    int               known;        /* the ring can be gone on with */
    int               dirty;        /* a hint came during a read */
    int               unwatched;    /* the read under way is of the state only */
    long              since;        /* when the read under way began */
    char              registry[40];

    /* of the read under way */
    char              state_registry[40];
    int64_t           state_revision;
    int               flooded;
    int               rows;
    int64_t           newest;       /* highest revision among the rows */
};


static void
td_feed_read(td_feed_t *feed)
{
    char          since[TD_FEED_NUMBER], most[TD_FEED_NUMBER];
    td_pg_step_t  step;

    if (td_pg_state(feed->pg) != TD_PG_IDLE) {
        feed->dirty = 1;
        return;
    }

    feed->unwatched = !td_watch_has_streams(feed->daemon->watch);

    memset(&step, 0, sizeof(step));
    snprintf(since, sizeof(since), "%lld",
             feed->known && !feed->unwatched
             ? (long long) td_ring_end(feed->ring) : -1LL);
    snprintf(most, sizeof(most), "%d", TD_FEED_MOST);

    step.statement = TD_SQL_WATCH_READ;
    step.param[0] = since;
    step.param[1] = most;

    feed->dirty = 0;
    feed->reading = 1;
    feed->rows = 0;
    feed->newest = 0;
    feed->since = td_now();
    td_pg_run(feed->pg, &step, 1);
}


static void
td_feed_on_ready(td_pg_t *pg, void *data)
{
    td_feed_t     *feed = data;
    td_pg_step_t   step[2];

    memset(step, 0, sizeof(step));
    step[0].statement = TD_SQL_LISTEN;
    step[1].statement = TD_SQL_LISTEN_INSTANCES;
    feed->listening = 0;
    feed->reading = 0;
    feed->since = td_now();
    td_pool_hurry(feed->daemon->pool);
    td_pool_hurry(feed->daemon->list_pool);
    td_pg_run(pg, step, feed->daemon->handover != NULL ? 2 : 1);
}


td_line_t *
td_feed_line(const PGresult *result, int row)
{
    td_line_t         *line;
    td_line_source_t   source;

    source.revision = atoll(PQgetvalue(result, row, TD_FEED_REVISION));
    source.kind = PQgetvalue(result, row, TD_FEED_KIND);
    source.name = PQgetvalue(result, row, TD_FEED_NAME);
    source.id = atoll(PQgetvalue(result, row, TD_FEED_ID));
    source.shared = PQgetvalue(result, row, TD_FEED_SHARED)[0] == 't';
    source.object_revision = atoll(PQgetvalue(result, row,
                                              TD_FEED_OBJECT_REVISION));
    source.document = PQgetisnull(result, row, TD_FEED_DOCUMENT) ? NULL
                      : PQgetvalue(result, row, TD_FEED_DOCUMENT);
    source.shared_document =
        PQgetisnull(result, row, TD_FEED_SHARED_DOCUMENT) ? NULL
        : PQgetvalue(result, row, TD_FEED_SHARED_DOCUMENT);
    source.mesh_tenant = atoll(PQgetvalue(result, row, TD_FEED_MESH_TENANT));

    line = td_line_create(&source);

    if (line == NULL) {
        td_log(TD_LOG_ERR, "feed", "%s \"%s\" at revision %lld is too large "
               "for the stream: gateways keep its last state", source.kind,
               source.name, (long long) source.revision);
    }

    return line;
}


/* The first row is the registry's state, see tiergate.watch_read(). */
static void
td_feed_take_state(td_feed_t *feed, const PGresult *result)
{
    feed->state_revision = atoll(PQgetvalue(result, 0, TD_FEED_REVISION));
    feed->flooded = PQgetvalue(result, 0, TD_FEED_SHARED)[0] == 't';
    snprintf(feed->state_registry, sizeof(feed->state_registry), "%s",
             PQgetvalue(result, 0, TD_FEED_NAME));
}


static void
td_feed_on_result(td_pg_t *pg, unsigned step, PGresult *result, void *data)
{
    int         i;
    td_feed_t  *feed = data;
    td_line_t  *line;

    (void) pg;
    (void) step;

    if (PQntuples(result) == 0) {
        return;     /* of LISTEN */
    }

    td_feed_take_state(feed, result);
    feed->rows = PQntuples(result) - 1;

    for (i = 1; i <= feed->rows; i++) {
        feed->newest = atoll(PQgetvalue(result, i, TD_FEED_REVISION));
        line = td_feed_line(result, i);

        if (line != NULL) {
            td_ring_add(feed->ring, line);
        }
    }
}


/* The first read, another registry, or more changes than the ring can hold. */
static void
td_feed_restart(td_feed_t *feed)
{
    td_ring_reset(feed->ring, feed->state_revision);
    memcpy(feed->registry, feed->state_registry, sizeof(feed->registry));
    feed->known = 1;
}


/* Nobody was there to be told: who comes now reads it from SQL. */
static void
td_feed_skip(td_feed_t *feed)
{
    if (feed->state_revision > td_ring_end(feed->ring)) {
        td_ring_reset(feed->ring, feed->state_revision);
    }
}


static void
td_feed_apply(td_feed_t *feed)
{
    int64_t  end;

    if ((feed->registry[0] != '\0'
         && strcmp(feed->registry, feed->state_registry) != 0)
        || feed->state_revision < td_ring_end(feed->ring))
    {
        td_log(TD_LOG_WARN, "feed", "this is another registry, or an older "
               "copy of it: all streams end");
        td_feed_restart(feed);
        td_watch_end_all(feed->daemon->watch);

    } else if (!feed->known || feed->flooded) {
        td_feed_restart(feed);
        td_log(TD_LOG_NOTICE, "feed", "registry %s at revision %lld",
               feed->registry, (long long) feed->state_revision);

    } else if (feed->unwatched) {
        td_feed_skip(feed);

    } else {
        /* A read that was cut short ends with a whole revision. */
        end = feed->rows > 0 ? feed->newest : feed->state_revision;
        td_ring_commit(feed->ring, end);
    }

    td_metric_set(TD_METRIC_REVISION, td_ring_end(feed->ring));
    td_metric_set(TD_METRIC_WATCH_RING, (int64_t) td_ring_bytes(feed->ring));
    td_watch_advance(feed->daemon->watch);
}


/* The poll timer tries again; but for a gap in history waiting does not help. */
static void
td_feed_fail(td_feed_t *feed, const PGresult *error)
{
    const char  *sqlstate;

    td_ring_abort(feed->ring);
    sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);

    if (feed->known && sqlstate != NULL && strcmp(sqlstate, "TG410") == 0) {
        td_log(TD_LOG_WARN, "feed", "history was dropped while the registry "
               "was out of reach: streams have to list again");
        feed->known = 0;
        td_feed_read(feed);
        return;
    }

    td_metric_set(TD_METRIC_DATABASE_UP, 0);
    td_log(TD_LOG_ERR, "feed", "the registry cannot be read: %s",
           td_fault_text(error));
}


static void
td_feed_on_done(td_pg_t *pg, td_pg_outcome_e outcome, const PGresult *error,
    void *data)
{
    td_feed_t  *feed = data;

    (void) pg;

    if (outcome == TD_PG_ERROR) {
        td_feed_fail(feed, error);
        return;
    }

    if (outcome != TD_PG_OK) {
        return;     /* td_feed_on_lost() follows */
    }

    if (!feed->reading) {
        feed->listening = 1;
        td_feed_read(feed);

        if (feed->daemon->handover != NULL) {
            td_handover_advance(feed->daemon->handover);
        }

        return;
    }

    td_feed_apply(feed);
    td_metric_set(TD_METRIC_DATABASE_UP, 1);

    if (feed->dirty || td_ring_end(feed->ring) < feed->state_revision) {
        td_feed_read(feed);
    }
}


static void
td_feed_on_lost(td_pg_t *pg, void *data)
{
    td_feed_t  *feed = data;

    (void) pg;

    td_ring_abort(feed->ring);
    feed->listening = 0;
    td_metric_set(TD_METRIC_DATABASE_UP, 0);
}


static void
td_feed_on_notified(td_pg_t *pg, const char *channel, void *data)
{
    td_feed_t  *feed = data;

    (void) pg;

    if (strcmp(channel, "tiergate_instances") != 0) {
        td_feed_read(feed);

    } else if (feed->daemon->handover != NULL) {
        td_handover_advance(feed->daemon->handover);
    }
}


static const td_pg_handlers_t  td_feed_handlers = {
    td_feed_on_ready, td_feed_on_result, td_feed_on_done, td_feed_on_lost,
    td_feed_on_notified, NULL
};


static void
td_feed_on_poll(evutil_socket_t fd, short what, void *data)
{
    td_feed_t  *feed = data;

    (void) fd;
    (void) what;

    if (td_pg_state(feed->pg) == TD_PG_IDLE && feed->listening) {
        td_feed_read(feed);

    } else if (td_pg_state(feed->pg) == TD_PG_IDLE) {
        td_feed_on_ready(feed->pg, feed);

    } else if (td_pg_state(feed->pg) == TD_PG_BUSY
               && td_now() - feed->since > 2 * TD_FEED_TIMEOUT)
    {
        td_pg_abandon(feed->pg, "no answer in time");
    }
}


td_feed_t *
td_feed_create(td_daemon_t *daemon)
{
    td_feed_t       *feed;
    struct timeval   tv = { TD_FEED_POLL, 0 };

    feed = calloc(1, sizeof(td_feed_t));
    if (feed == NULL) {
        return NULL;
    }

    feed->daemon = daemon;
    feed->options.base = daemon->base;
    feed->options.conninfo = daemon->config->database.conninfo;
    feed->options.role = daemon->config->database.role;
    feed->options.connect_timeout = daemon->config->database.connect_timeout;
    feed->options.statement_timeout = TD_FEED_TIMEOUT;
    feed->options.statements = td_sql_statements();
    feed->options.n_statements = td_sql_count();

    feed->ring = td_ring_create((size_t) daemon->config->watch.ring_lines,
                                (size_t) daemon->config->watch.ring_size);
    feed->poll = event_new(daemon->base, -1, EV_PERSIST, td_feed_on_poll, feed);

    if (feed->ring == NULL || feed->poll == NULL
        || event_add(feed->poll, &tv) != 0
        || (feed->pg = td_pg_create(&feed->options, &td_feed_handlers, feed))
           == NULL)
    {
        td_feed_destroy(feed);
        return NULL;
    }

    return feed;
}


void
td_feed_destroy(td_feed_t *feed)
{
    if (feed == NULL) {
        return;
    }

    td_pg_destroy(feed->pg);

    if (feed->poll != NULL) {
        event_free(feed->poll);
    }

    td_ring_destroy(feed->ring);
    free(feed);
}


void
td_feed_hurry(td_feed_t *feed)
{
    td_pg_hurry(feed->pg);
}


int
td_feed_ready(const td_feed_t *feed)
{
    return feed->known && feed->listening;
}


const char *
td_feed_registry(const td_feed_t *feed)
{
    return feed->registry;
}


td_ring_t *
td_feed_ring(td_feed_t *feed)
{
    return feed->ring;
}
