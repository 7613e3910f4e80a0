/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "td_batch.h"
#include "td_sql.h"
#include "tg_text.h"


#define TD_BATCH_CALLS    32
#define TD_BATCH_BYTES    (1024 * 1024)
/* One works while the other is being committed. */
#define TD_BATCH_AT_ONCE  2
#define TD_BATCH_TICK     500

TAILQ_HEAD(td_calls_s, td_call_s);

struct td_batch_s {
    TAILQ_ENTRY(td_batch_s)   link;
    td_batches_t             *batches;
    td_job_t                  job;
    char                     *credential;
    const char               *scope;
    tg_text_t                 array;                /* for SQL */
    td_call_t                *call[TD_BATCH_CALLS]; /* NULL: cancelled */
    unsigned                  calls;
};

struct td_batches_s {
    td_daemon_t                          *daemon;
    struct event                         *wake;
    struct td_calls_s                     waiting;
    unsigned                              waiting_n;
    TAILQ_HEAD(td_running_s, td_batch_s)  running;
    unsigned                              running_n;
};

static void td_batch_result(td_job_t *job, unsigned step, PGresult *result);
static void td_batch_done(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error);


static void
td_call_end(td_call_t *call, td_job_outcome_e outcome)
{
    call->state = TD_CALL_IDLE;
    call->batch = NULL;
    call->done(call, outcome);
}


static td_batch_t *
td_batch_create(td_batches_t *batches, const td_call_t *first)
{
    td_batch_t  *batch;

    batch = calloc(1, sizeof(td_batch_t));
    if (batch == NULL) {
        return NULL;
    }

    batch->credential = strdup(first->credential);
    if (batch->credential == NULL) {
        free(batch);
        return NULL;
    }

    batch->scope = first->scope;
    batch->batches = batches;
    batch->job.result = td_batch_result;
    batch->job.done = td_batch_done;
    batch->job.data = batch;
    batch->job.writes = 1;
    tg_text_init(&batch->array);
    TAILQ_INSERT_TAIL(&batches->running, batch, link);
    batches->running_n++;

    return batch;
}


static void
td_batch_free(td_batch_t *batch)
{
    TAILQ_REMOVE(&batch->batches->running, batch, link);
    batch->batches->running_n--;
    td_job_cancel(&batch->job);
    tg_text_free(&batch->array);
    free(batch->credential);
    free(batch);
}


/* Frees the batch; each of its calls has had its end then. */
static void
td_batch_end(td_batch_t *batch, td_job_outcome_e outcome)
{
    unsigned    i;
    td_call_t  *call;

    for (i = 0; i < batch->calls; i++) {
        call = batch->call[i];

        if (call != NULL) {
            batch->call[i] = NULL;
            td_call_end(call, outcome);
        }
    }

    td_batch_free(batch);
}


static void
td_batch_add(td_batch_t *batch, td_call_t *call)
{
    tg_text_t  *array;

    array = &batch->array;
    tg_text_str(array, batch->calls > 0 ? ",{\"id\":" : "[{\"id\":");
    tg_text_json(array, call->request_id, strlen(call->request_id));

    if (call->idempotency != NULL) {
        tg_text_str(array, ",\"idempotency\":");
        tg_text_str(array, call->idempotency);
    }

    tg_text_str(array, ",\"body\":");
    tg_text_str(array, call->body);
    tg_text_str(array, "}");

    call->state = TD_CALL_RUNNING;
    call->batch = batch;
    batch->call[batch->calls++] = call;
}


static void
td_batch_submit(td_batch_t *batch)
{
    td_pg_step_t  *step;

    tg_text_add(&batch->array, "]", sizeof("]"));

    if (batch->array.failed) {
        td_batch_end(batch, TD_JOB_FULL);
        return;
    }

    td_job_reset(&batch->job);
    td_job_step(&batch->job, TD_SQL_BEGIN);

    step = td_job_step(&batch->job, TD_SQL_BEGIN_REQUEST);
    step->param[0] = batch->credential;
    step->param[1] = batch->scope;

    step = td_job_step(&batch->job, TD_SQL_CREATE_TENANTS);
    step->param[0] = batch->array.data;

    td_job_step(&batch->job, TD_SQL_COMMIT);
    td_job_submit(batch->batches->daemon->pool, &batch->job);
}


static void
td_batches_shed(td_batches_t *batches, td_call_t *call)
{
    TAILQ_REMOVE(&batches->waiting, call, link);
    batches->waiting_n--;
    td_call_end(call, TD_JOB_FULL);
}


/* The oldest calls with the credential of the very oldest. */
static void
td_batches_start(td_batches_t *batches)
{
    td_call_t   *call, *next;
    td_batch_t  *batch;

    call = TAILQ_FIRST(&batches->waiting);
    batch = td_batch_create(batches, call);

    if (batch == NULL) {
        td_batches_shed(batches, call);
        return;
    }

    while (call != NULL && batch->calls < TD_BATCH_CALLS
           && batch->array.len < TD_BATCH_BYTES)
    {
        next = TAILQ_NEXT(call, link);

        if (strcmp(call->credential, batch->credential) == 0) {
            TAILQ_REMOVE(&batches->waiting, call, link);
            batches->waiting_n--;
            td_batch_add(batch, call);
        }

        call = next;
    }

    td_batch_submit(batch);
}


/* Gives up calls that have waited for too long, or are too many, as the pool
 * does with its jobs. */
static void
td_batches_bound(td_batches_t *batches)
{
    td_call_t          *call;
    const td_config_t  *config;

    config = batches->daemon->config;

    while ((call = TAILQ_FIRST(&batches->waiting)) != NULL
           && td_now() - call->since > config->database.statement_timeout)
    {
        td_batches_shed(batches, call);
    }

    while (batches->waiting_n > (unsigned) config->database.queue) {
        td_batches_shed(batches, TAILQ_LAST(&batches->waiting, td_calls_s));
    }
}


/* Comes when something has changed, in a turn of its own: so a batch takes all
 * the calls that the turn before has read. */
static void
td_batches_on_wake(evutil_socket_t fd, short what, void *data)
{
    td_batches_t    *batches = data;
    struct timeval   tick = { 0, TD_BATCH_TICK * 1000 };

    (void) fd;
    (void) what;

    td_batches_bound(batches);

    while (batches->running_n < TD_BATCH_AT_ONCE
           && !TAILQ_EMPTY(&batches->waiting))
    {
        td_batches_start(batches);
    }

    if (!TAILQ_EMPTY(&batches->waiting)) {
        evtimer_add(batches->wake, &tick);
    }
}


/* SQL answers in order of the calls. */
static void
td_batch_result(td_job_t *job, unsigned step, PGresult *result)
{
    int          row;
    td_batch_t  *batch = job->data;

    if (job->step[step].statement != TD_SQL_CREATE_TENANTS) {
        return;
    }

    for (row = 0; row < PQntuples(result) && row < (int) batch->calls; row++) {
        if (batch->call[row] != NULL) {
            batch->call[row]->answer(batch->call[row], result, row);
        }
    }
}


/* Whether it was a lock or the time: then who is to blame cannot be found by
 * waiting again. */
static int
td_batch_has_waited(const PGresult *error)
{
    const char  *sqlstate;

    sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);

    return sqlstate != NULL && (strcmp(sqlstate, "55P03") == 0
                                || strcmp(sqlstate, "57014") == 0);
}


/* Starts a batch with the calls from first on; they leave the other. */
static void
td_batch_move(td_batch_t *from, unsigned first, unsigned n)
{
    unsigned     i;
    td_call_t   *call;
    td_batch_t  *batch;

    batch = NULL;

    for (i = first; i < first + n; i++) {
        call = from->call[i];

        if (call == NULL) {
            continue;
        }

        if (batch == NULL) {
            batch = td_batch_create(from->batches, call);
        }

        if (batch == NULL) {
            return;     /* they are given back with the others */
        }

        from->call[i] = NULL;
        td_batch_add(batch, call);
    }

    if (batch != NULL) {
        td_batch_submit(batch);
    }
}


static void
td_batch_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    unsigned       half;
    td_batch_t    *batch = job->data;
    td_batches_t  *batches;

    batches = batch->batches;

    if (outcome == TD_JOB_ERROR && batch->calls > 1
        && !td_batch_has_waited(error))
    {
        half = batch->calls / 2;
        td_batch_move(batch, 0, half);
        td_batch_move(batch, half, batch->calls - half);
    }

    td_batch_end(batch, outcome);
    event_active(batches->wake, EV_TIMEOUT, 0);
}


td_batches_t *
td_batches_create(td_daemon_t *daemon)
{
    td_batches_t  *batches;

    batches = calloc(1, sizeof(td_batches_t));
    if (batches == NULL) {
        return NULL;
    }

    batches->daemon = daemon;
    TAILQ_INIT(&batches->waiting);
    TAILQ_INIT(&batches->running);
    batches->wake = evtimer_new(daemon->base, td_batches_on_wake, batches);

    if (batches->wake == NULL) {
        free(batches);
        return NULL;
    }

    return batches;
}


void
td_batches_destroy(td_batches_t *batches)
{
    if (batches == NULL) {
        return;
    }

    while (!TAILQ_EMPTY(&batches->running)) {
        td_batch_free(TAILQ_FIRST(&batches->running));
    }

    event_free(batches->wake);
    free(batches);
}


void
td_batches_add(td_batches_t *batches, td_call_t *call)
{
    call->batches = batches;
    call->state = TD_CALL_WAITING;
    call->since = td_now();
    TAILQ_INSERT_TAIL(&batches->waiting, call, link);
    batches->waiting_n++;

    event_active(batches->wake, EV_TIMEOUT, 0);
}


void
td_call_cancel(td_call_t *call)
{
    unsigned  i;

    switch (call->state) {

    case TD_CALL_IDLE:
        return;

    case TD_CALL_WAITING:
        TAILQ_REMOVE(&call->batches->waiting, call, link);
        call->batches->waiting_n--;
        break;

    case TD_CALL_RUNNING:
        for (i = 0; i < call->batch->calls; i++) {
            if (call->batch->call[i] == call) {
                call->batch->call[i] = NULL;
            }
        }
    }

    call->state = TD_CALL_IDLE;
}
