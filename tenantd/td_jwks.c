/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <jansson.h>

#include "td_body.h"
#include "td_curl.h"
#include "td_fault.h"
#include "td_jwks.h"
#include "td_keys.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_pool.h"
#include "td_sql.h"


#define TD_JWKS_MAX_KEYS  32

/* One issuer, from being due to being stored. */
typedef struct td_jwks_task_s {
    TAILQ_ENTRY(td_jwks_task_s)   link;
    td_jwks_t                    *jwks;
    char                          issuer[24];
    char                          attempt[24]; /* the registry's number of it */
    char                         *url;
    char                         *body;     /* for the job; or the error */
    td_job_t                      job;
} td_jwks_task_t;

struct td_jwks_s {
    td_daemon_t                       *daemon;
    td_curl_t                         *curl;
    struct event                      *tick;
    td_job_t                           due;
    char                               most[16];
    TAILQ_HEAD(td_jwks_tasks_s, td_jwks_task_s)       tasks;
    int                                pending;
};


static void
td_jwks_task_free(td_jwks_task_t *task)
{
    td_jwks_t  *jwks;

    jwks = task->jwks;
    TAILQ_REMOVE(&jwks->tasks, task, link);
    jwks->pending--;
    td_metric_set(TD_METRIC_JWKS_PENDING, jwks->pending);

    td_job_cancel(&task->job);
    free(task->url);
    free(task->body);
    free(task);
}


/* If it could not be told, the registry gives the issuer out again in a minute. */
static void
td_jwks_stored(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_jwks_task_t  *task = job->data;

    if (outcome != TD_JOB_OK) {
        td_log(TD_LOG_WARN, "jwks", "issuer %s: the result was not stored: %s",
               task->issuer, error != NULL ? PQresultErrorMessage(error)
                                           : "the registry is out of reach");
    }

    td_jwks_task_free(task);
}


static void
td_jwks_store(td_jwks_task_t *task, int statement)
{
    td_pg_step_t  *step;

    task->job.result = NULL;
    task->job.done = td_jwks_stored;
    task->job.data = task;
    task->job.writes = statement == TD_SQL_STORE_JWKS;

    td_job_reset(&task->job);
    td_job_step(&task->job, TD_SQL_BEGIN);
    step = td_job_step(&task->job, statement);
    step->param[0] = task->issuer;
    step->param[1] = task->attempt;
    step->param[2] = task->body;
    td_job_step(&task->job, TD_SQL_COMMIT);
    td_job_submit(task->jwks->daemon->pool, &task->job);
}


const char *
td_jwks_check(const char *body, size_t len, char *text, size_t size)
{
    char          detail[TD_BODY_MAX_DETAIL];
    json_t       *set, *keys;
    tg_error_t    err;
    const char   *problem;
    td_problem_t  unused;

    set = td_body_parse(body, len, &unused, detail);
    if (set == NULL) {
        snprintf(text, size, "the answer is not JSON: %s", detail);
        return text;
    }

    problem = NULL;
    keys = json_object_get(set, "keys");

    if (!json_is_array(keys)) {
        problem = "the answer has no array \"keys\"";

    } else if (json_array_size(keys) > TD_JWKS_MAX_KEYS) {
        problem = "the answer has more than 32 keys";

    } else if (td_keys_check_public(keys, &err) != TD_KEYS_SAME) {
        snprintf(text, size, "%s", err.message);
        problem = text;
    }

    json_decref(set);

    return problem;
}


static void
td_jwks_fetched(void *data, const char *body, size_t len, const char *error)
{
    char             text[TD_BODY_MAX_DETAIL + 64];
    td_jwks_task_t  *task = data;

    td_metric_add(TD_METRIC_JWKS_FETCHES, 1);

    if (error == NULL) {
        error = td_jwks_check(body, len, text, sizeof(text));
    }

    if (error != NULL) {
        td_metric_add(TD_METRIC_JWKS_FAILURES, 1);
        td_log(TD_LOG_WARN, "jwks", "issuer %s: %.200s: %s", task->issuer,
               task->url, error);
    }

    task->body = strdup(error != NULL ? error : body);

    if (task->body == NULL) {
        td_jwks_task_free(task);
        return;
    }

    td_jwks_store(task, error != NULL ? TD_SQL_JWKS_FAILED
                                      : TD_SQL_STORE_JWKS);
}


static void
td_jwks_start(td_jwks_t *jwks, const char *issuer, const char *url,
    const char *attempt)
{
    td_jwks_task_t  *task;

    task = calloc(1, sizeof(td_jwks_task_t));
    if (task == NULL) {
        return;
    }

    task->jwks = jwks;
    task->url = strdup(url);
    snprintf(task->issuer, sizeof(task->issuer), "%s", issuer);
    snprintf(task->attempt, sizeof(task->attempt), "%s", attempt);
    TAILQ_INSERT_TAIL(&jwks->tasks, task, link);
    jwks->pending++;
    td_metric_set(TD_METRIC_JWKS_PENDING, jwks->pending);

    if (task->url == NULL
        || td_curl_get(jwks->curl, task->url, td_jwks_fetched, task) != 0)
    {
        td_jwks_task_free(task);
    }
}


static void
td_jwks_due(td_job_t *job, unsigned step, PGresult *result)
{
    int  i;

    if (job->step[step].statement != TD_SQL_DUE_JWKS) {
        return;
    }

    for (i = 0; i < PQntuples(result); i++) {
        td_jwks_start(job->data, PQgetvalue(result, i, 0),
                      PQgetvalue(result, i, 1), PQgetvalue(result, i, 2));
    }
}


static void
td_jwks_due_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    (void) job;

    if (outcome == TD_JOB_ERROR) {
        td_log(TD_LOG_ERR, "jwks", "%s", td_fault_text(error));
    }
}


static void
td_jwks_on_tick(evutil_socket_t fd, short what, void *data)
{
    int            room;
    td_jwks_t     *jwks = data;
    td_pg_step_t  *step;

    (void) fd;
    (void) what;

    room = (int) jwks->daemon->config->jwks.parallel - jwks->pending;

    if (room <= 0 || jwks->due.pool != NULL || jwks->daemon->draining) {
        return;
    }

    snprintf(jwks->most, sizeof(jwks->most), "%d", room);
    td_job_reset(&jwks->due);
    td_job_step(&jwks->due, TD_SQL_BEGIN);
    step = td_job_step(&jwks->due, TD_SQL_DUE_JWKS);
    step->param[0] = jwks->most;
    td_job_step(&jwks->due, TD_SQL_COMMIT);
    td_job_submit(jwks->daemon->pool, &jwks->due);
}


td_jwks_t *
td_jwks_create(td_daemon_t *daemon)
{
    long             ms;
    td_jwks_t       *jwks;
    struct timeval   tv;

    jwks = calloc(1, sizeof(td_jwks_t));
    if (jwks == NULL) {
        return NULL;
    }

    ms = daemon->config->jwks.poll_interval;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;

    jwks->daemon = daemon;
    jwks->due.result = td_jwks_due;
    jwks->due.done = td_jwks_due_done;
    jwks->due.data = jwks;
    TAILQ_INIT(&jwks->tasks);
    jwks->curl = td_curl_create(daemon->base, daemon->config);
    jwks->tick = event_new(daemon->base, -1, EV_PERSIST, td_jwks_on_tick, jwks);

    if (jwks->curl == NULL || jwks->tick == NULL
        || event_add(jwks->tick, &tv) != 0)
    {
        td_jwks_destroy(jwks);
        return NULL;
    }

    return jwks;
}


void
td_jwks_destroy(td_jwks_t *jwks)
{
    td_jwks_task_t  *task;

    if (jwks == NULL) {
        return;
    }

    td_job_cancel(&jwks->due);

    while ((task = TAILQ_FIRST(&jwks->tasks)) != NULL) {
        td_jwks_task_free(task);
    }

    td_curl_destroy(jwks->curl);

    if (jwks->tick != NULL) {
        event_free(jwks->tick);
    }

    free(jwks);
}
