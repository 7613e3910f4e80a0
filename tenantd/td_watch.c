/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>

#include "td_bulk.h"
#include "td_fault.h"
#include "td_feed.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_rest.h"
#include "td_sql.h"
#include "td_watch.h"


struct td_watch_s {
    td_daemon_t          *daemon;
    struct td_streams_s   streams;
    struct td_bulks_s     bulks;
    struct event         *tick;
};


static void
td_stream_free(td_stream_t *stream)
{
    td_job_cancel(&stream->job);
    td_bulk_leave(stream);
    TAILQ_REMOVE(&stream->watch->streams, stream, link);

    if (stream->on_drain != NULL) {
        evbuffer_remove_cb_entry(
            bufferevent_get_output(td_conn_bufferevent(stream->request->conn)),
            stream->on_drain);
        td_metric_add(TD_METRIC_WATCH_STREAMS, -1);
    }

    evbuffer_free(stream->chunk);
    td_view_free(&stream->view);
    td_view_free(&stream->found);
    free(stream);
}


static void
td_stream_on_closed(td_request_t *request)
{
    td_stream_t  *stream = request->data;

    td_log(TD_LOG_NOTICE, "watch", "%s left at revision %lld",
           stream->gateway, (long long) stream->at);
    td_stream_free(stream);
    td_request_free(request);
}


void
td_stream_close(td_stream_t *stream)
{
    td_request_t    *request;
    struct timeval   tv;

    request = stream->request;

    if (stream->on_drain != NULL) {
        tv.tv_sec = request->daemon->config->http.keepalive_timeout / 1000;
        tv.tv_usec = 0;
        bufferevent_set_timeouts(td_conn_bufferevent(request->conn), &tv, &tv);
    }

    td_stream_free(stream);
    td_stream_end(request);
}


/* Ends it without waiting for the client to take what is pending. */
static void
td_stream_drop_slow(td_stream_t *stream, const char *why)
{
    td_request_t  *request;

    td_log(TD_LOG_WARN, "watch", "%s dropped at revision %lld: %s",
           stream->gateway, (long long) stream->at, why);
    td_metric_add(TD_METRIC_WATCH_DROPPED, 1);

    request = stream->request;
    td_stream_free(stream);
    td_stream_drop(request);
}


size_t
td_stream_pending(const td_stream_t *stream)
{
    return evbuffer_get_length(
        bufferevent_get_output(td_conn_bufferevent(stream->request->conn)));
}


int
td_stream_put(td_stream_t *stream, td_line_t *line)
{
    line = td_line_seen(line, &stream->view);

    if (line == NULL || stream->stale) {
        return 0;
    }

    /* in a list it says what is listed */
    if (line->kind == TD_KIND_MESH_AGENT && stream->at > 0) {
        stream->stale = 1;
        return 0;
    }

    td_line_add(line, stream->chunk);
    td_metric_add(TD_METRIC_WATCH_LINES, 1);

    return 1;
}


void
td_stream_flush(td_stream_t *stream)
{
    if (evbuffer_get_length(stream->chunk) == 0) {
        return;
    }

    if (td_stream_pending(stream) == 0) {
        stream->progress = td_now();
    }

    td_stream_send(stream->request, stream->chunk);
}


/* Puts one entry of the ring; returns the revision of the line, 0 for none. */
static int64_t
td_stream_put_entry(td_stream_t *stream, td_line_t *line)
{
    int64_t     revision;
    td_line_t  *fresh;

    if (line->revision > stream->at) {
        return td_stream_put(stream, line) ? line->revision : 0;
    }

    fresh = td_line_after(line, stream->at);
    if (fresh == NULL) {
        return 0;
    }

    revision = td_stream_put(stream, fresh) ? fresh->revision : 0;
    td_line_unref(fresh);

    return revision;
}


/* Of an agent that sees other tenants from here on.  It has no BOOKMARK of this
 * revision, so it comes back from before it, and is told to list. */
static void
td_stream_close_stale(td_stream_t *stream)
{
    td_log(TD_LOG_NOTICE, "watch", "%s ended: it sees other tenants from now on",
           stream->gateway);
    td_stream_close(stream);
}


/* Sends what the ring has beyond the stream's revision, which is not below the
 * ring's floor: entries that are gone were of no interest to it. */
static void
td_stream_deliver(td_stream_t *stream, td_ring_t *ring)
{
    int         gone;
    int64_t     last, told;
    td_line_t  *line;

    last = 0;

    line = td_ring_get(ring, stream->next, &gone);

    if (gone) {
        stream->next = td_ring_seek(ring, stream->at);
        line = td_ring_get(ring, stream->next, &gone);
    }

    while (line != NULL) {
        told = td_stream_put_entry(stream, line);
        last = told > last ? told : last;
        line = td_ring_get(ring, ++stream->next, &gone);
    }

    if (stream->stale) {
        td_stream_close_stale(stream);
        return;
    }

    if (td_ring_end(ring) > stream->at) {
        stream->at = td_ring_end(ring);

        /* An agent acts at a BOOKMARK, so it gets one with each batch. */
        if (last < stream->at || stream->view.kind == TD_VIEW_AGENT) {
            td_line_bookmark(stream->chunk, stream->at, 0);
        }
    }

    td_stream_flush(stream);

    if (td_stream_pending(stream)
        > (size_t) stream->request->daemon->config->watch.max_pending)
    {
        td_stream_drop_slow(stream, "too much is waiting for it");
    }
}


void
td_stream_go_live(td_stream_t *stream)
{
    td_ring_t  *ring;

    ring = td_feed_ring(stream->request->daemon->feed);

    if (stream->stale) {
        td_stream_close_stale(stream);
        return;
    }

    if (stream->at < td_ring_floor(ring)) {
        stream->state = TD_STREAM_BULK;
        td_bulk_join(&stream->watch->bulks, stream);
        return;
    }

    stream->state = TD_STREAM_LIVE;
    stream->next = td_ring_seek(ring, stream->at);
    td_stream_deliver(stream, ring);
}


int
td_watch_has_streams(const td_watch_t *watch)
{
    return !TAILQ_EMPTY(&watch->streams);
}


void
td_watch_advance(td_watch_t *watch)
{
    td_ring_t    *ring;
    td_stream_t  *stream, *next;

    ring = td_feed_ring(watch->daemon->feed);

    for (stream = TAILQ_FIRST(&watch->streams); stream != NULL; stream = next) {
        next = TAILQ_NEXT(stream, link);

        if (stream->state != TD_STREAM_LIVE) {
            continue;
        }

        if (stream->at < td_ring_floor(ring)) {
            td_stream_go_live(stream);
        } else {
            td_stream_deliver(stream, ring);
        }
    }
}


/* Opening and checking */

static void
td_stream_result(td_job_t *job, unsigned step, PGresult *result)
{
    td_stream_t  *stream = job->data;

    switch (job->step[step].statement) {

    case TD_SQL_REGISTRY_STATE:
        snprintf(stream->registry, sizeof(stream->registry), "%s",
                 PQgetvalue(result, 0, 0));
        stream->revision = atoll(PQgetvalue(result, 0, 1));
        stream->oldest = atoll(PQgetvalue(result, 0, 2));
        break;

    case TD_SQL_WATCH_VIEW:
        td_view_free(&stream->found);
        if (td_view_parse(&stream->found, PQgetvalue(result, 0, 0),
                          atoll(PQgetvalue(result, 0, 1)),
                          PQgetisnull(result, 0, 2) ? NULL
                          : PQgetvalue(result, 0, 2)) != 0)
        {
            td_log(TD_LOG_CRIT, "watch", "out of memory");
        }
        stream->found_since = atoll(PQgetvalue(result, 0, 3));
        break;
    }
}


static void
td_stream_submit(td_stream_t *stream, void (*done)(td_job_t *job,
    td_job_outcome_e outcome, const PGresult *error))
{
    td_pg_step_t  *step;

    stream->job.result = td_stream_result;
    stream->job.done = done;
    stream->job.data = stream;
    stream->checked = td_now();

    td_job_reset(&stream->job);
    td_rest_begin(&stream->job, stream->request, stream->gateway);

    td_job_step(&stream->job, TD_SQL_REGISTRY_STATE);

    step = td_job_step(&stream->job, TD_SQL_WATCH_VIEW);
    step->param[0] = stream->gateway;

    td_job_step(&stream->job, TD_SQL_COMMIT);
    td_job_submit(stream->request->daemon->pool, &stream->job);
}


static void
td_stream_checked(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    const char   *sqlstate;
    td_stream_t  *stream = job->data;

    sqlstate = outcome == TD_JOB_ERROR
               ? PQresultErrorField(error, PG_DIAG_SQLSTATE) : NULL;

    if (sqlstate != NULL
        && (strcmp(sqlstate, "TG401") == 0 || strcmp(sqlstate, "TG403") == 0
            || strcmp(sqlstate, "TG404") == 0))
    {
        td_log(TD_LOG_NOTICE, "watch", "%s ended: its credential is no longer "
               "good, or its node is gone", stream->gateway);
        td_stream_close(stream);
        return;
    }

    if (outcome == TD_JOB_OK
        && !td_view_equal(&stream->view, &stream->found))
    {
        td_log(TD_LOG_NOTICE, "watch", "%s ended: it sees other objects than "
               "before", stream->gateway);
        td_stream_close(stream);
    }
}


static void
td_stream_on_drain(struct evbuffer *output, const struct evbuffer_cb_info *info,
    void *data)
{
    td_stream_t  *stream = data;

    (void) output;

    if (info->n_deleted == 0) {
        return;
    }

    stream->progress = td_now();

    if (stream->bulk != NULL) {
        td_bulk_drained(stream);
    }
}


static void
td_stream_start(td_stream_t *stream)
{
    struct bufferevent  *bev;

    stream->view = stream->found;
    memset(&stream->found, 0, sizeof(td_view_t));
    stream->at = stream->since;
    stream->progress = td_now();

    td_reply_header(stream->request, "Tiergate-Registry", stream->registry);
    td_reply_header(stream->request, "Connection", "close");
    td_stream_begin(stream->request, 200, "application/jsonl");

    bev = td_conn_bufferevent(stream->request->conn);
    bufferevent_set_timeouts(bev, NULL, NULL);
    stream->on_drain = evbuffer_add_cb(bufferevent_get_output(bev),
                                       td_stream_on_drain, stream);

    if (stream->on_drain == NULL) {
        td_stream_close(stream);
        return;
    }

    td_metric_add(TD_METRIC_WATCH_STREAMS, 1);
    td_log(TD_LOG_NOTICE, "watch", "%s from %s: %s", stream->gateway,
           td_conn_peer(stream->request->conn),
           stream->since == 0 ? "lists" : "resumes");

    if (stream->since == 0) {
        stream->state = TD_STREAM_BULK;
        td_bulk_join(&stream->watch->bulks, stream);
        return;
    }

    td_stream_go_live(stream);
}


static void
td_stream_refuse(td_stream_t *stream, const td_problem_t *problem)
{
    td_request_t  *request;

    request = stream->request;
    td_stream_free(stream);
    td_reply_problem(request, problem);
}


/* Why the stream cannot go on from where the gateway is, or NULL. */
static const char *
td_stream_gone(const td_stream_t *stream)
{
    const char  *registry;

    registry = tg_uri_query(&stream->request->uri, "registry");

    if (stream->since == 0) {
        return NULL;
    }

    if (registry != NULL && strcmp(registry, stream->registry) != 0) {
        return "this is another registry; connect with since=0";
    }

    if (stream->since > stream->revision || stream->seen > stream->revision) {
        return "the registry has not come so far; connect with since=0";
    }

    if (stream->since < stream->oldest) {
        return "changes since then are no longer kept; connect with since=0";
    }

    if (stream->since < stream->found_since) {
        return "this agent has come to see other tenants; connect with since=0";
    }

    return NULL;
}


static void
td_stream_opened(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    const char    *gone;
    td_problem_t   problem;
    td_stream_t   *stream = job->data;

    if (outcome != TD_JOB_OK) {
        problem = td_fault(outcome, error, 0, stream->request->id);
        td_stream_refuse(stream, &problem);
        return;
    }

    gone = td_stream_gone(stream);

    if (gone != NULL) {
        problem = td_problem(TD_PROBLEM_REVISION_GONE, gone);
        problem.pointer = "/since";
        td_stream_refuse(stream, &problem);
        return;
    }

    td_stream_start(stream);
}


/* Returns -1 if it is none. */
static long long
td_stream_revision(const char *value)
{
    if (*value == '\0' || strlen(value) > 18
        || strspn(value, "0123456789") != strlen(value))
    {
        return -1;
    }

    return atoll(value);
}


/* Query parameters: since, seen, for, registry.  Returns NULL, or what is
 * wrong. */
static const char *
td_stream_take_query(td_stream_t *stream, const tg_uri_t *uri)
{
    size_t       i;
    const char  *name, *value;

    for (i = 0; i < uri->queries; i++) {
        name = uri->query[i].name;
        value = uri->query[i].value;

        if (strcmp(name, "since") == 0) {
            stream->since = td_stream_revision(value);
            if (stream->since < 0) {
                return "since must be a revision, a number from 0";
            }

        } else if (strcmp(name, "seen") == 0) {
            stream->seen = td_stream_revision(value);
            if (stream->seen < 0) {
                return "seen must be a revision, a number from 0";
            }

        } else if (strcmp(name, "for") == 0) {
            if (strlen(value) >= sizeof(stream->gateway)) {
                return "for must be a gateway's name, of at most 63 bytes";
            }
            memcpy(stream->gateway, value, strlen(value) + 1);

        } else if (strcmp(name, "registry") != 0) {
            return "known parameters are since, seen, for and registry";
        }
    }

    return stream->gateway[0] != '\0' ? NULL
           : "for must say which gateway this is";
}


void
td_watch_handle(td_watch_t *watch, td_request_t *request)
{
    const char   *problem;
    td_stream_t  *stream;

    if (request->method == TD_HEAD || request->body_len > 0) {
        td_reply_kind(request, TD_PROBLEM_UNEXPECTED_BODY, "a watch is a GET "
                      "without body");
        return;
    }

    stream = calloc(1, sizeof(td_stream_t));
    if (stream == NULL || (stream->chunk = evbuffer_new()) == NULL) {
        free(stream);
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    stream->watch = watch;
    stream->request = request;
    TAILQ_INSERT_TAIL(&watch->streams, stream, link);

    problem = td_stream_take_query(stream, &request->uri);

    if (problem != NULL) {
        td_stream_free(stream);
        td_reply_kind(request, TD_PROBLEM_MISSING_PARAMETER, problem);
        return;
    }

    request->data = stream;
    request->closed = td_stream_on_closed;
    td_stream_submit(stream, td_stream_opened);
}


/* The clock */

static void
td_stream_tick(td_stream_t *stream, const td_config_t *config)
{
    size_t  pending;

    pending = td_stream_pending(stream);

    if (pending > 0
        && td_now() - stream->progress > config->watch.stall_timeout)
    {
        td_stream_drop_slow(stream, "it reads nothing");
        return;
    }

    if (pending > (size_t) config->watch.max_pending
        && td_bulk_is_shared(stream))
    {
        td_stream_drop_slow(stream, "it reads too slowly");
        return;
    }

    td_line_bookmark(stream->chunk, stream->at, 0);
    td_stream_flush(stream);

    if (stream->job.pool == NULL
        && td_now() - stream->checked > config->watch.recheck_interval)
    {
        td_stream_submit(stream, td_stream_checked);
    }
}


static void
td_watch_on_tick(evutil_socket_t fd, short what, void *data)
{
    int64_t       lag, end;
    td_watch_t   *watch = data;
    td_stream_t  *stream, *next;

    (void) fd;
    (void) what;

    lag = 0;
    end = td_ring_end(td_feed_ring(watch->daemon->feed));

    for (stream = TAILQ_FIRST(&watch->streams); stream != NULL; stream = next) {
        next = TAILQ_NEXT(stream, link);

        if (stream->state == TD_STREAM_OPENING) {
            continue;
        }

        lag = end - stream->at > lag ? end - stream->at : lag;
        td_stream_tick(stream, watch->daemon->config);
    }

    td_metric_set(TD_METRIC_WATCH_LAG, lag);
    td_bulk_tick(&watch->bulks);
}


td_watch_t *
td_watch_create(td_daemon_t *daemon)
{
    td_watch_t      *watch;
    struct timeval   tv = { 0, 900 * 1000 };

    watch = calloc(1, sizeof(td_watch_t));
    if (watch == NULL) {
        return NULL;
    }

    watch->daemon = daemon;
    TAILQ_INIT(&watch->streams);
    TAILQ_INIT(&watch->bulks);
    watch->tick = event_new(daemon->base, -1, EV_PERSIST, td_watch_on_tick,
                            watch);

    if (watch->tick == NULL || event_add(watch->tick, &tv) != 0) {
        td_watch_destroy(watch);
        return NULL;
    }

    return watch;
}


void
td_watch_destroy(td_watch_t *watch)
{
    if (watch == NULL) {
        return;
    }

    if (watch->tick != NULL) {
        event_free(watch->tick);
    }

    free(watch);
}


void
td_watch_end_all(td_watch_t *watch)
{
    td_problem_t   problem;
    td_stream_t   *stream;

    while ((stream = TAILQ_FIRST(&watch->streams)) != NULL) {
        if (stream->state != TD_STREAM_OPENING) {
            td_stream_close(stream);
            continue;
        }

        problem = td_problem(TD_PROBLEM_SHUTTING_DOWN, "try again");
        td_stream_refuse(stream, &problem);
    }
}
