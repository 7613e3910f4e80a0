/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "td_ack.h"
#include "td_check.h"
#include "td_fault.h"
#include "td_rest.h"
#include "td_sql.h"


typedef struct td_ack_caller_s {
    TAILQ_ENTRY(td_ack_caller_s)   link;
    struct td_ack_callers_s       *list;    /* which of the lane's two */
    td_request_t                  *request;
} td_ack_caller_t;

TAILQ_HEAD(td_ack_callers_s, td_ack_caller_s);

/* One gateway with one credential. */
typedef struct td_ack_lane_s {
    TAILQ_ENTRY(td_ack_lane_s)   link;
    td_ack_t                    *ack;
    td_job_t                     job;
    struct td_ack_callers_s      flying;    /* the job is for these */
    struct td_ack_callers_s      waiting;   /* the next one */
    char                        *gateway;
    char                        *credential;
    char                        *path;      /* of the job */
    char                        *body;
    char                        *id;
    char                        *newest;    /* body of the last that waits */
} td_ack_lane_t;

struct td_ack_s {
    td_daemon_t                        *daemon;
    TAILQ_HEAD(td_ack_lanes_s, td_ack_lane_s)         lanes;
};


static void
td_ack_lane_free(td_ack_lane_t *lane)
{
    TAILQ_REMOVE(&lane->ack->lanes, lane, link);
    free(lane->gateway);
    free(lane->credential);
    free(lane->path);
    free(lane->body);
    free(lane->id);
    free(lane->newest);
    free(lane);
}


static void
td_ack_caller_free(td_ack_caller_t *caller)
{
    TAILQ_REMOVE(caller->list, caller, link);
    free(caller);
}


/* What it has said stands all the same. */
static void
td_ack_on_closed(td_request_t *request)
{
    td_ack_caller_free(request->data);
    td_request_free(request);
}


static void
td_ack_submit(td_ack_lane_t *lane)
{
    td_pg_step_t      *step;
    td_ack_caller_t   *caller;

    free(lane->body);
    lane->body = lane->newest;
    lane->newest = NULL;

    while ((caller = TAILQ_FIRST(&lane->waiting)) != NULL) {
        TAILQ_REMOVE(&lane->waiting, caller, link);
        TAILQ_INSERT_TAIL(&lane->flying, caller, link);
        caller->list = &lane->flying;
    }

    td_job_reset(&lane->job);
    td_job_step(&lane->job, TD_SQL_BEGIN);

    step = td_job_step(&lane->job, TD_SQL_BEGIN_REQUEST);
    step->param[0] = lane->credential;
    step->param[1] = "gateway";
    step->param[2] = lane->gateway;
    step->param[5] = lane->id;

    step = td_job_step(&lane->job, TD_SQL_ACK);
    step->param[0] = lane->path;
    step->param[1] = "{}";
    step->param[2] = lane->body;

    td_job_step(&lane->job, TD_SQL_COMMIT);
    td_job_submit(lane->ack->daemon->pool, &lane->job);
}


static void
td_ack_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_problem_t       problem;
    td_request_t      *request;
    td_ack_lane_t     *lane = job->data;
    td_ack_caller_t   *caller;

    if (outcome != TD_JOB_OK) {
        problem = td_fault(outcome, error, 0, lane->id);
    }

    while ((caller = TAILQ_FIRST(&lane->flying)) != NULL) {
        request = caller->request;
        td_ack_caller_free(caller);

        if (outcome == TD_JOB_OK) {
            td_reply(request, 204, NULL, NULL, 0);
        } else {
            td_reply_problem(request, &problem);
        }
    }

    if (lane->newest != NULL) {
        td_ack_submit(lane);
        return;
    }

    td_ack_lane_free(lane);
}


static td_ack_lane_t *
td_ack_lane_create(td_ack_t *ack, const td_request_t *request)
{
    td_ack_lane_t  *lane;

    lane = calloc(1, sizeof(td_ack_lane_t));
    if (lane == NULL) {
        return NULL;
    }

    lane->ack = ack;
    lane->job.done = td_ack_done;
    lane->job.data = lane;
    lane->gateway = strdup(request->match.subject);
    lane->credential = strdup(request->credential);
    lane->path = td_rest_path(request);
    lane->id = strdup(request->id);
    TAILQ_INIT(&lane->flying);
    TAILQ_INIT(&lane->waiting);
    TAILQ_INSERT_TAIL(&ack->lanes, lane, link);

    if (lane->gateway == NULL || lane->credential == NULL || lane->path == NULL
        || lane->id == NULL)
    {
        td_ack_lane_free(lane);
        return NULL;
    }

    return lane;
}


static td_ack_lane_t *
td_ack_find(td_ack_t *ack, const td_request_t *request)
{
    td_ack_lane_t  *lane;

    TAILQ_FOREACH(lane, &ack->lanes, link) {
        if (strcmp(lane->gateway, request->match.subject) == 0
            && strcmp(lane->credential, request->credential) == 0)
        {
            return lane;
        }
    }

    return NULL;
}


void
td_ack_handle(td_ack_t *ack, td_request_t *request)
{
    int                idle;
    char              *body;
    td_ack_lane_t     *lane;
    td_ack_caller_t   *caller;

    if (td_check_body(request) != 0) {
        return;
    }

    lane = td_ack_find(ack, request);
    idle = lane == NULL;

    if (idle) {
        lane = td_ack_lane_create(ack, request);
    }

    body = td_rest_body(request);
    caller = calloc(1, sizeof(td_ack_caller_t));

    if (lane == NULL || body == NULL || caller == NULL) {
        if (lane != NULL && idle) {
            td_ack_lane_free(lane);
        }
        free(body);
        free(caller);
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    caller->list = &lane->waiting;
    caller->request = request;
    request->data = caller;
    request->closed = td_ack_on_closed;
    TAILQ_INSERT_TAIL(&lane->waiting, caller, link);

    free(lane->newest);
    lane->newest = body;

    if (idle) {
        td_ack_submit(lane);
    }
}


td_ack_t *
td_ack_create(td_daemon_t *daemon)
{
    td_ack_t  *ack;

    ack = calloc(1, sizeof(td_ack_t));

    if (ack != NULL) {
        ack->daemon = daemon;
        TAILQ_INIT(&ack->lanes);
    }

    return ack;
}


void
td_ack_destroy(td_ack_t *ack)
{
    td_ack_lane_t  *lane;

    if (ack == NULL) {
        return;
    }

    while ((lane = TAILQ_FIRST(&ack->lanes)) != NULL) {
        td_job_cancel(&lane->job);
        td_ack_lane_free(lane);
    }

    free(ack);
}
