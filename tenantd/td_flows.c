/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/bufferevent.h>
#include <jansson.h>

#include "td_check.h"
#include "td_fault.h"
#include "td_flow_filter.h"
#include "td_flow_report.h"
#include "td_flows.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_page.h"
#include "td_rest.h"
#include "td_sql.h"
#include "tg_text.h"


#define TD_FLOWS_FOLLOWERS  256
#define TD_FLOWS_OF_TENANT  32
#define TD_FLOWS_PENDING    (1024 * 1024)   /* bytes that wait for one follower */
#define TD_FLOWS_MOST       "20000"         /* records of one read */
#define TD_FLOWS_TIMEOUT    (30 * 1000)
#define TD_FLOWS_PATIENCE   5000            /* ms for the registry to listen */
#define TD_FLOWS_ALIVE      10000           /* ms between lines at least */

typedef enum {
    TD_FOLLOW_WAITING,      /* waits until the connection listens */
    TD_FOLLOW_OPENING,      /* waits for its credential and filter to be judged */
    TD_FOLLOW_LIVE
} td_follow_state_e;

typedef struct td_follower_s {
    TAILQ_ENTRY(td_follower_s)   link;
    td_flows_t                  *flows;
    td_request_t                *request;
    td_job_t                     job;       /* opens it, and checks it again */
    td_follow_state_e            state;
    td_flow_filter_t             filter;
    json_t                      *before;    /* the page that it begins with */
    int64_t                      seen;      /* newest record of that page */
    uint64_t                     lost;      /* not told yet */
    long                         told;      /* when the last line was sent */
    long                         checked;
    char                        *path;
    char                        *query;
    struct evbuffer             *chunk;
} td_follower_t;

struct td_flows_s {
    td_daemon_t                             *daemon;
    TAILQ_HEAD(td_followers_s, td_follower_s)  followers;
    int                                      n;
    td_pg_options_t                          options;
    td_pg_t                                 *pg;        /* NULL: nobody follows */
    int                                      listening;
    int                                      reading;   /* else making it listen */
    int                                      rows;      /* of the read under way */
    long                                     since;
    td_flow_reports_t                        reports;   /* to be read */
    struct event                            *tick;
};


static void
td_follower_free(td_follower_t *follower)
{
    td_job_cancel(&follower->job);
    TAILQ_REMOVE(&follower->flows->followers, follower, link);
    follower->flows->n--;
    td_metric_set(TD_METRIC_FLOW_FOLLOWERS, follower->flows->n);
    json_decref(follower->before);

    if (follower->chunk != NULL) {
        evbuffer_free(follower->chunk);
    }

    free(follower->path);
    free(follower->query);
    free(follower);
}


static void
td_follower_on_closed(td_request_t *request)
{
    td_follower_free(request->data);
    td_request_free(request);
}


static void
td_follower_close(td_follower_t *follower)
{
    td_request_t  *request;

    request = follower->request;
    td_follower_free(follower);
    td_stream_end(request);
}


static void
td_follower_refuse(td_follower_t *follower, td_problem_kind_e kind,
    const char *why)
{
    td_request_t  *request;

    request = follower->request;
    td_follower_free(follower);
    td_reply_kind(request, kind, why);
}


static size_t
td_follower_pending(const td_follower_t *follower)
{
    return evbuffer_get_length(bufferevent_get_output(
        td_conn_bufferevent(follower->request->conn)));
}


static void
td_follower_lose(td_follower_t *follower, uint64_t n)
{
    follower->lost += n;
    td_metric_add(TD_METRIC_FLOW_LOST, (int64_t) n);
}


/* Tells a loss where it happened, before the next record. */
static void
td_follower_put(td_follower_t *follower, const char *line, size_t len)
{
    if (td_follower_pending(follower) + evbuffer_get_length(follower->chunk)
        > TD_FLOWS_PENDING)
    {
        td_follower_lose(follower, 1);
        return;
    }

    if (follower->lost > 0) {
        evbuffer_add_printf(follower->chunk,
                            "{\"type\":\"lost\",\"count\":%llu}\n",
                            (unsigned long long) follower->lost);
        follower->lost = 0;
    }

    evbuffer_add(follower->chunk, line, len);
    evbuffer_add(follower->chunk, "\n", 1);
    td_metric_add(TD_METRIC_FLOW_LINES, 1);
}


static void
td_follower_flush(td_follower_t *follower)
{
    if (evbuffer_get_length(follower->chunk) > 0) {
        follower->told = td_now();
        td_stream_send(follower->request, follower->chunk);
    }
}


/* Reading reports */

static void
td_flows_take_row(td_flows_t *flows, const PGresult *result, int row)
{
    int64_t         id;
    td_flow_key_t   key;
    td_follower_t  *follower;

    id = atoll(PQgetvalue(result, row, 1));
    key.type = PQgetvalue(result, row, 2);
    key.source_tenant = PQgetvalue(result, row, 3);
    key.source_service = PQgetvalue(result, row, 4);
    key.destination_tenant = PQgetvalue(result, row, 5);
    key.destination_service = PQgetvalue(result, row, 6);
    key.port = atoi(PQgetvalue(result, row, 7));
    key.virtual_port = atoi(PQgetvalue(result, row, 8));
    key.reason = atoi(PQgetvalue(result, row, 9));

    TAILQ_FOREACH(follower, &flows->followers, link) {
        if (follower->state == TD_FOLLOW_LIVE && id > follower->seen
            && strcmp(follower->request->match.subject,
                      PQgetvalue(result, row, 0)) == 0
            && td_flow_filter_passes(&follower->filter, &key))
        {
            td_follower_put(follower, PQgetvalue(result, row, 10),
                            (size_t) PQgetlength(result, row, 10));
        }
    }
}


static void
td_flows_on_result(td_pg_t *pg, unsigned step, PGresult *result, void *data)
{
    int          i;
    td_flows_t  *flows = data;

    (void) pg;
    (void) step;

    if (!flows->reading) {
        return;     /* of LISTEN */
    }

    flows->rows = PQntuples(result);

    for (i = 0; i < flows->rows; i++) {
        td_flows_take_row(flows, result, i);
    }
}


static void
td_flows_lose_all(td_flows_t *flows, uint64_t n)
{
    td_follower_t  *follower;

    TAILQ_FOREACH(follower, &flows->followers, link) {
        if (follower->state == TD_FOLLOW_LIVE) {
            td_follower_lose(follower, n);
        }
    }
}


/* The tenants that are followed, as a PostgreSQL array: their names need no
 * quotes.  Returns NULL: nobody follows, or no memory. */
static char *
td_flows_tenants(const td_flows_t *flows)
{
    char                 *array;
    size_t                len, size;
    const td_follower_t  *follower;

    size = (size_t) flows->n * (TD_FLOW_NAME + 1) + 3;
    array = malloc(size);
    if (array == NULL) {
        return NULL;
    }

    len = 0;

    TAILQ_FOREACH(follower, &flows->followers, link) {
        if (follower->state == TD_FOLLOW_LIVE && len + TD_FLOW_NAME + 3 < size)
        {
            len += (size_t) snprintf(array + len, size - len, "%s%.63s",
                                     len == 0 ? "{" : ",",
                                     follower->request->match.subject);
        }
    }

    if (len == 0) {
        free(array);
        return NULL;
    }

    memcpy(array + len, "}", 2);

    return array;
}


static void
td_flows_read(td_flows_t *flows)
{
    char                   *tenants;
    td_pg_step_t            step;
    td_flow_report_text_t   text;

    if (flows->reports.n == 0 || td_pg_state(flows->pg) != TD_PG_IDLE) {
        return;
    }

    if (flows->reports.dropped > 0) {
        td_flows_lose_all(flows, flows->reports.dropped);
        flows->reports.dropped = 0;
    }

    tenants = td_flows_tenants(flows);

    if (tenants == NULL) {
        flows->reports.n = 0;
        return;
    }

    td_flow_reports_take(&flows->reports, &text);
    memset(&step, 0, sizeof(step));
    step.statement = TD_SQL_FLOWS_REPORTED;
    step.param[0] = text.first;
    step.param[1] = text.last;
    step.param[2] = text.nodes;
    step.param[3] = tenants;
    step.param[4] = TD_FLOWS_MOST;

    flows->reading = 1;
    flows->rows = 0;
    flows->since = td_now();
    td_pg_run(flows->pg, &step, 1);
    free(tenants);
}


static void td_follower_open(td_follower_t *follower);


static void
td_flows_on_done(td_pg_t *pg, td_pg_outcome_e outcome, const PGresult *error,
    void *data)
{
    td_flows_t     *flows = data;
    td_follower_t  *follower, *next;

    (void) pg;

    if (outcome == TD_PG_ERROR) {
        td_log(TD_LOG_ERR, "flows", "flows cannot be read: %s",
               td_fault_text(error));
    }

    if (outcome != TD_PG_OK) {
        return;
    }

    if (!flows->reading) {
        flows->listening = 1;
    }

    if (flows->rows >= atoi(TD_FLOWS_MOST)) {
        td_flows_lose_all(flows, 1);    /* or more: the read was cut short */
    }

    for (follower = TAILQ_FIRST(&flows->followers); follower != NULL;
         follower = next)
    {
        next = TAILQ_NEXT(follower, link);

        if (follower->state == TD_FOLLOW_WAITING) {
            td_follower_open(follower);

        } else if (follower->state == TD_FOLLOW_LIVE) {
            td_follower_flush(follower);
        }
    }

    td_flows_read(flows);
}


static void
td_flows_on_ready(td_pg_t *pg, void *data)
{
    td_flows_t    *flows = data;
    td_pg_step_t   step;

    memset(&step, 0, sizeof(step));
    step.statement = TD_SQL_LISTEN_FLOWS;
    flows->reading = 0;
    flows->since = td_now();
    td_pg_run(pg, &step, 1);
}


/* What is reported until it listens again, nobody will say. */
static void
td_flows_on_lost(td_pg_t *pg, void *data)
{
    td_flows_t  *flows = data;

    (void) pg;

    if (flows->listening) {
        td_flows_lose_all(flows, 1);
    }

    flows->listening = 0;
    flows->reports.n = 0;
}


static void
td_flows_on_told(td_pg_t *pg, const char *payload, void *data)
{
    td_flows_t  *flows = data;

    (void) pg;

    td_flow_reports_add(&flows->reports, payload);
}


static void
td_flows_on_notified(td_pg_t *pg, const char *channel, void *data)
{
    (void) pg;
    (void) channel;

    td_flows_read(data);
}


static const td_pg_handlers_t  td_flows_handlers = {
    td_flows_on_ready, td_flows_on_result, td_flows_on_done, td_flows_on_lost,
    td_flows_on_notified, td_flows_on_told
};


/* Followers */

static void
td_follower_result(td_job_t *job, unsigned step, PGresult *result)
{
    char           *text;
    size_t          len;
    td_follower_t  *follower = job->data;

    if (job->step[step].statement == TD_SQL_FLOW_FILTER) {
        td_flow_filter_parse(&follower->filter, PQgetvalue(result, 0, 0),
                             (size_t) PQgetlength(result, 0, 0));

    } else if (job->step[step].statement >= TD_SQL_ROUTES) {
        text = PQgetvalue(result, 0, 3);
        len = (size_t) PQgetlength(result, 0, 3);
        json_decref(follower->before);
        follower->before = json_loadb(text, len, 0, NULL);
    }
}


/* Credential, filter, and the records to begin with, if they are asked for. */
static void
td_follower_submit(td_follower_t *follower, void (*done)(td_job_t *job,
    td_job_outcome_e outcome, const PGresult *error))
{
    td_pg_step_t  *step;
    td_request_t  *request;

    request = follower->request;
    follower->job.result = td_follower_result;
    follower->job.done = done;
    follower->job.data = follower;
    follower->checked = td_now();

    td_job_reset(&follower->job);
    td_rest_begin(&follower->job, request, request->match.subject);

    step = td_job_step(&follower->job, TD_SQL_FLOW_FILTER);
    step->param[0] = request->match.subject;
    step->param[1] = follower->query;

    if (follower->state == TD_FOLLOW_OPENING) {
        step = td_job_step(&follower->job, TD_SQL_ROUTES
                           + (int) (request->match.route - td_routes));
        step->param[0] = follower->path;
        step->param[1] = follower->query;
    }

    td_job_step(&follower->job, TD_SQL_COMMIT);
    td_job_submit(request->daemon->pool, &follower->job);
}


static void
td_follower_begin_with(td_follower_t *follower)
{
    char    *line;
    size_t   i;
    json_t  *items, *item;

    items = json_object_get(follower->before, "items");

    if (tg_uri_query(&follower->request->uri, "limit") == NULL) {
        json_array_clear(items);
    }

    for (i = json_array_size(items); i > 0; i--) {
        item = json_array_get(items, i - 1);
        line = json_dumps(item, JSON_COMPACT);

        if (line != NULL) {
            td_follower_put(follower, line, strlen(line));
        }

        if (json_integer_value(json_object_get(item, "id")) > follower->seen) {
            follower->seen = json_integer_value(json_object_get(item, "id"));
        }

        free(line);
    }

    json_decref(follower->before);
    follower->before = NULL;
}


/* Live ones, whose credentials were good: others take nothing from a tenant. */
static int
td_flows_followers_of(const td_flows_t *flows, const char *tenant)
{
    int                   n;
    const td_follower_t  *follower;

    n = 0;

    TAILQ_FOREACH(follower, &flows->followers, link) {
        n += follower->state == TD_FOLLOW_LIVE
             && strcmp(follower->request->match.subject, tenant) == 0;
    }

    return n;
}


static void
td_follower_opened(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    td_problem_t         problem;
    td_request_t        *request;
    td_follower_t       *follower = job->data;
    struct bufferevent  *bev;

    request = follower->request;

    if (outcome != TD_JOB_OK) {
        problem = td_fault(outcome, error, 0, request->id);
        td_follower_free(follower);
        td_reply_problem(request, &problem);
        return;
    }

    if (td_flows_followers_of(follower->flows, request->match.subject)
        >= TD_FLOWS_OF_TENANT)
    {
        td_follower_refuse(follower, TD_PROBLEM_OVERLOADED, "too many follow "
                           "flows of this tenant here already");
        return;
    }

    td_reply_header(request, "Connection", "close");
    td_stream_begin(request, 200, "application/jsonl");

    bev = td_conn_bufferevent(request->conn);
    bufferevent_set_timeouts(bev, NULL, NULL);

    follower->state = TD_FOLLOW_LIVE;
    follower->told = td_now();
    td_follower_begin_with(follower);
    td_follower_flush(follower);
}


static void
td_follower_open(td_follower_t *follower)
{
    follower->state = TD_FOLLOW_OPENING;
    td_follower_submit(follower, td_follower_opened);
}


static void
td_follower_checked(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    const char     *sqlstate;
    td_follower_t  *follower = job->data;

    sqlstate = outcome == TD_JOB_ERROR
               ? PQresultErrorField(error, PG_DIAG_SQLSTATE) : NULL;

    if (sqlstate != NULL
        && (strcmp(sqlstate, "TG401") == 0 || strcmp(sqlstate, "TG403") == 0))
    {
        td_log(TD_LOG_NOTICE, "flows", "a follower of %s ended: its credential "
               "is no longer good", follower->request->match.subject);
        td_follower_close(follower);
    }
}


static void
td_follower_tick(td_follower_t *follower)
{
    static const char  alive[] = "{\"type\":\"alive\"}\n";

    if (follower->state == TD_FOLLOW_WAITING
        && td_now() - follower->checked > TD_FLOWS_PATIENCE)
    {
        td_follower_refuse(follower, TD_PROBLEM_DATABASE_UNAVAILABLE,
                           "the registry cannot be reached");
        return;
    }

    if (follower->state != TD_FOLLOW_LIVE) {
        return;
    }

    if (td_follower_pending(follower) == 0
        && td_now() - follower->told >= TD_FLOWS_ALIVE)
    {
        evbuffer_add(follower->chunk, alive, sizeof(alive) - 1);
        td_follower_flush(follower);
    }

    if (follower->job.pool == NULL
        && td_now() - follower->checked
           > follower->request->daemon->config->watch.recheck_interval)
    {
        td_follower_submit(follower, td_follower_checked);
    }
}


static void
td_flows_on_tick(evutil_socket_t fd, short what, void *data)
{
    td_flows_t     *flows = data;
    td_follower_t  *follower, *next;

    (void) fd;
    (void) what;

    for (follower = TAILQ_FIRST(&flows->followers); follower != NULL;
         follower = next)
    {
        next = TAILQ_NEXT(follower, link);
        td_follower_tick(follower);
    }

    if (flows->pg != NULL && flows->n == 0) {
        td_pg_destroy(flows->pg);
        flows->pg = NULL;
        flows->listening = 0;
        flows->reports.n = 0;

    } else if (flows->pg != NULL && td_pg_state(flows->pg) == TD_PG_IDLE
               && !flows->listening)
    {
        td_flows_on_ready(flows->pg, flows);

    } else if (flows->pg != NULL && td_pg_state(flows->pg) == TD_PG_BUSY
               && td_now() - flows->since > 2 * TD_FLOWS_TIMEOUT)
    {
        td_pg_abandon(flows->pg, "no answer in time");
    }
}


static void
td_flows_follow(td_flows_t *flows, td_request_t *request)
{
    td_follower_t  *follower;

    if (flows->n >= TD_FLOWS_FOLLOWERS || flows->daemon->draining) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "too many follow flows "
                      "here already");
        return;
    }

    follower = calloc(1, sizeof(td_follower_t));
    if (follower == NULL) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    follower->flows = flows;
    follower->request = request;
    follower->checked = td_now();
    follower->path = td_rest_path(request);
    follower->query = td_rest_query(request);
    follower->chunk = evbuffer_new();
    TAILQ_INSERT_TAIL(&flows->followers, follower, link);
    td_metric_set(TD_METRIC_FLOW_FOLLOWERS, ++flows->n);

    if (follower->path == NULL || follower->query == NULL
        || follower->chunk == NULL)
    {
        td_follower_refuse(follower, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    request->data = follower;
    request->closed = td_follower_on_closed;

    if (flows->listening) {
        td_follower_open(follower);

    } else if (flows->pg == NULL) {
        flows->pg = td_pg_create(&flows->options, &td_flows_handlers, flows);
        if (flows->pg == NULL) {
            td_follower_refuse(follower, TD_PROBLEM_OVERLOADED,
                               "out of memory");
        }
    }
}


/* A page as lines */
static void
td_flows_show_lines(td_request_t *request, const json_t *body)
{
    char         *line;
    size_t        i;
    json_t       *item;
    tg_text_t     text;
    const char   *next;

    tg_text_init(&text);

    json_array_foreach(json_object_get(body, "items"), i, item) {
        line = json_dumps(item, JSON_COMPACT);
        tg_text_str(&text, line != NULL ? line : "");
        tg_text_str(&text, "\n");
        free(line);
    }

    next = json_string_value(json_object_get(body, "next"));
    if (next != NULL) {
        td_reply_header(request, "Tiergate-Next", next);
    }

    td_reply(request, 200, "application/jsonl", text.data, text.len);
    tg_text_free(&text);
}


void
td_flows_handle(td_flows_t *flows, td_request_t *request)
{
    const char  *follow;

    follow = tg_uri_query(&request->uri, "follow");

    if (follow != NULL && strcmp(follow, "1") == 0
        && request->method == TD_GET && request->body_len == 0)
    {
        td_flows_follow(flows, request);

    } else if (td_page_accepts(request, "application/jsonl")) {
        td_page_call(request, td_flows_show_lines);

    } else {
        td_rest_handle(request);
    }
}


td_flows_t *
td_flows_create(td_daemon_t *daemon)
{
    td_flows_t      *flows;
    struct timeval   tv = { 1, 0 };

    flows = calloc(1, sizeof(td_flows_t));
    if (flows == NULL) {
        return NULL;
    }

    flows->daemon = daemon;
    TAILQ_INIT(&flows->followers);
    flows->options.base = daemon->base;
    flows->options.conninfo = daemon->config->database.conninfo;
    flows->options.role = daemon->config->database.role;
    flows->options.connect_timeout = daemon->config->database.connect_timeout;
    flows->options.statement_timeout = TD_FLOWS_TIMEOUT;
    flows->options.statements = td_sql_statements();
    flows->options.n_statements = td_sql_count();
    flows->tick = event_new(daemon->base, -1, EV_PERSIST, td_flows_on_tick,
                            flows);

    if (flows->tick == NULL || event_add(flows->tick, &tv) != 0) {
        td_flows_destroy(flows);
        return NULL;
    }

    return flows;
}


void
td_flows_end_all(td_flows_t *flows)
{
    td_follower_t  *follower;

    while ((follower = TAILQ_FIRST(&flows->followers)) != NULL) {
        if (follower->state == TD_FOLLOW_LIVE) {
            td_follower_close(follower);
        } else {
            td_follower_refuse(follower, TD_PROBLEM_SHUTTING_DOWN, "try again");
        }
    }
}


void
td_flows_destroy(td_flows_t *flows)
{
    if (flows == NULL) {
        return;
    }

    td_pg_destroy(flows->pg);

    if (flows->tick != NULL) {
        event_free(flows->tick);
    }

    free(flows);
}
