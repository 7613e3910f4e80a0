/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A slot is a connection and the job that has it.  A slot without a job is
 * either free, or ending the transaction that a job has left behind.
 */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "td_pool.h"
#include "td_sql.h"


#define TD_POOL_TICK  500

typedef enum {
    TD_SLOT_DOWN,       /* waits for its connection */
    TD_SLOT_FREE,       /* waits for a job */
    TD_SLOT_RUNNING,    /* waits for the job's pipeline */
    TD_SLOT_ENDING,     /* in a job's done handler, waits for its return */
    TD_SLOT_HELD,       /* waits for td_job_resume() */
    TD_SLOT_CLEANING    /* waits for ROLLBACK */
} td_slot_state_e;

typedef struct td_pool_slot_s {
    td_pool_t         *pool;
    td_pg_t           *pg;
    td_job_t          *job;
    td_slot_state_e    state;
    int                writing;     /* one of the pool's writers */
    long               since;
} td_pool_slot_t;

TAILQ_HEAD(td_pool_queue_s, td_job_s);

struct td_pool_s {
    td_pool_options_t          options;
    td_pool_slot_t            *slots;
    struct event              *tick;
    struct td_pool_queue_s     queue[2];    /* readers, writers */
    int                        queued;
    int                        writers;
    int                        up;
};


long
td_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


static void
td_job_end(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    job->pool = NULL;
    job->done(job, outcome, error);
}


/* The job that has waited longest among those that may run; NULL: none. */
static td_job_t *
td_pool_first(td_pool_t *pool)
{
    td_job_t  *reader, *writer;

    reader = TAILQ_FIRST(&pool->queue[0]);
    writer = pool->writers < pool->options.writers
             ? TAILQ_FIRST(&pool->queue[1]) : NULL;

    if (reader == NULL || writer == NULL) {
        return reader != NULL ? reader : writer;
    }

    return writer->since < reader->since ? writer : reader;
}


/* The same whoever may run. */
static td_job_t *
td_pool_oldest(td_pool_t *pool)
{
    td_job_t  *reader, *writer;

    reader = TAILQ_FIRST(&pool->queue[0]);
    writer = TAILQ_FIRST(&pool->queue[1]);

    if (reader == NULL || writer == NULL) {
        return reader != NULL ? reader : writer;
    }

    return writer->since < reader->since ? writer : reader;
}


static void
td_pool_unqueue(td_pool_t *pool, td_job_t *job)
{
    TAILQ_REMOVE(&pool->queue[job->writes != 0], job, link);
    pool->queued--;
}


static void
td_slot_stop_writing(td_pool_slot_t *slot)
{
    slot->pool->writers -= slot->writing;
    slot->writing = 0;
}


static void
td_slot_run(td_pool_slot_t *slot, td_job_t *job)
{
    if (job->writes && !slot->writing) {
        slot->writing = 1;
        slot->pool->writers++;
    }

    slot->state = TD_SLOT_RUNNING;
    slot->since = td_now();
    slot->job = job;
    job->slot = slot;
    job->pool = slot->pool;
    td_pg_run(slot->pg, job->step, job->steps);
}


/* The slot has no job any more: the next one, or first a clean connection. */
static void
td_slot_next(td_pool_slot_t *slot)
{
    td_job_t      *job;
    td_pg_step_t   rollback;

    slot->job = NULL;

    if (td_pg_transaction(slot->pg) != PQTRANS_IDLE) {
        memset(&rollback, 0, sizeof(rollback));
        rollback.statement = TD_SQL_ROLLBACK;
        slot->state = TD_SLOT_CLEANING;
        slot->since = td_now();
        td_pg_run(slot->pg, &rollback, 1);
        return;
    }

    td_slot_stop_writing(slot);
    slot->state = TD_SLOT_FREE;
    job = td_pool_first(slot->pool);

    if (job != NULL) {
        td_pool_unqueue(slot->pool, job);
        td_slot_run(slot, job);
    }
}


void
td_pool_hurry(td_pool_t *pool)
{
    int  i;

    for (i = 0; i < pool->options.connections; i++) {
        td_pg_hurry(pool->slots[i].pg);
    }
}


static void
td_pool_ready(td_pg_t *pg, void *data)
{
    td_pool_t       *pool;
    td_pool_slot_t  *slot = data;

    (void) pg;

    pool = slot->pool;
    pool->up++;
    td_slot_next(slot);

    if (pool->options.up != NULL) {
        pool->options.up(pool->options.data);
    }
}


static void
td_pool_result(td_pg_t *pg, unsigned step, PGresult *result, void *data)
{
    td_pool_slot_t  *slot = data;

    (void) pg;

    if (slot->job != NULL && slot->job->result != NULL) {
        slot->job->result(slot->job, step, result);
    }
}


static void
td_pool_done(td_pg_t *pg, td_pg_outcome_e outcome, const PGresult *error,
    void *data)
{
    td_job_t                       *job;
    td_pool_slot_t                 *slot = data;
    static const td_job_outcome_e   outcomes[] = {
        [TD_PG_OK] = TD_JOB_OK,
        [TD_PG_ERROR] = TD_JOB_ERROR,
        [TD_PG_AWAY] = TD_JOB_AWAY,
        [TD_PG_UNKNOWN] = TD_JOB_UNKNOWN
    };

    job = slot->job;
    slot->job = NULL;
    slot->state = TD_SLOT_ENDING;

    if (td_pg_state(pg) != TD_PG_IDLE) {
        slot->state = TD_SLOT_DOWN;
        td_slot_stop_writing(slot);
    }

    if (job != NULL) {
        td_job_end(job, outcomes[outcome], error);
    }

    /* Unless the job goes on or holds the connection. */
    if (slot->state == TD_SLOT_ENDING) {
        td_slot_next(slot);
    }
}


static void
td_pool_lost(td_pg_t *pg, void *data)
{
    td_job_t        *job;
    td_pool_slot_t  *slot = data;

    (void) pg;

    job = slot->job;
    slot->job = NULL;
    slot->state = TD_SLOT_DOWN;
    td_slot_stop_writing(slot);
    slot->pool->up--;

    /* A job that held the idle connection. */
    if (job != NULL) {
        td_job_end(job, TD_JOB_AWAY, NULL);
    }

    /* Nobody waits for a database that is away. */
    while (slot->pool->up == 0
           && (job = td_pool_oldest(slot->pool)) != NULL)
    {
        td_pool_unqueue(slot->pool, job);
        td_job_end(job, TD_JOB_AWAY, NULL);
    }
}


static const td_pg_handlers_t  td_pool_handlers = {
    td_pool_ready, td_pool_result, td_pool_done, td_pool_lost, NULL, NULL
};


/* Ends what takes too long: jobs in the queue, and servers that do not answer
 * although their own statement_timeout has passed. */
static void
td_pool_on_tick(evutil_socket_t fd, short what, void *data)
{
    int              i;
    long             limit;
    td_job_t        *job;
    td_pool_t       *pool = data;
    td_pool_slot_t  *slot;

    (void) fd;
    (void) what;

    limit = pool->options.pg.statement_timeout;

    while ((job = td_pool_oldest(pool)) != NULL
           && td_now() - job->since > limit)
    {
        td_pool_unqueue(pool, job);
        td_job_end(job, TD_JOB_FULL, NULL);
    }

    for (i = 0; i < pool->options.connections; i++) {
        slot = &pool->slots[i];

        if ((slot->state == TD_SLOT_RUNNING || slot->state == TD_SLOT_CLEANING)
            && td_now() - slot->since > TD_PG_MAX_STEPS * limit)
        {
            td_pg_abandon(slot->pg, "no answer in time");
        }
    }
}


td_pool_t *
td_pool_create(const td_pool_options_t *options)
{
    int             i;
    td_pool_t      *pool;
    struct timeval  tick = { 0, TD_POOL_TICK * 1000 };

    pool = calloc(1, sizeof(td_pool_t));
    if (pool == NULL) {
        return NULL;
    }

    pool->options = *options;
    TAILQ_INIT(&pool->queue[0]);
    TAILQ_INIT(&pool->queue[1]);
    pool->slots = calloc((size_t) options->connections, sizeof(td_pool_slot_t));
    pool->tick = event_new(options->pg.base, -1, EV_PERSIST, td_pool_on_tick,
                           pool);

    if (pool->slots == NULL || pool->tick == NULL
        || event_add(pool->tick, &tick) != 0)
    {
        td_pool_destroy(pool);
        return NULL;
    }

    for (i = 0; i < options->connections; i++) {
        pool->slots[i].pool = pool;
        pool->slots[i].pg = td_pg_create(&pool->options.pg, &td_pool_handlers,
                                         &pool->slots[i]);
        if (pool->slots[i].pg == NULL) {
            td_pool_destroy(pool);
            return NULL;
        }
    }

    return pool;
}


void
td_pool_destroy(td_pool_t *pool)
{
    int  i;

    if (pool == NULL) {
        return;
    }

    for (i = 0; pool->slots != NULL && i < pool->options.connections; i++) {
        td_pg_destroy(pool->slots[i].pg);
    }

    if (pool->tick != NULL) {
        event_free(pool->tick);
    }

    free(pool->slots);
    free(pool);
}


td_pool_figures_t
td_pool_figures(const td_pool_t *pool)
{
    int                i;
    td_pool_figures_t  figures = { pool->up, 0, pool->queued };

    for (i = 0; i < pool->options.connections; i++) {
        figures.busy += pool->slots[i].job != NULL;
    }

    return figures;
}


void
td_job_reset(td_job_t *job)
{
    memset(job->step, 0, sizeof(job->step));
    job->steps = 0;
}


td_pg_step_t *
td_job_step(td_job_t *job, int statement)
{
    td_pg_step_t  *step;

    step = &job->step[job->steps++];
    step->statement = statement;

    return step;
}


void
td_job_submit(td_pool_t *pool, td_job_t *job)
{
    int  i, may_run;

    job->slot = NULL;
    job->pool = pool;
    job->since = td_now();

    if (pool->up == 0) {
        td_job_end(job, TD_JOB_AWAY, NULL);
        return;
    }

    may_run = !job->writes || pool->writers < pool->options.writers;

    for (i = 0; may_run && i < pool->options.connections; i++) {
        if (pool->slots[i].state == TD_SLOT_FREE) {
            td_slot_run(&pool->slots[i], job);
            return;
        }
    }

    if (pool->queued >= pool->options.queue) {
        td_job_end(job, TD_JOB_FULL, NULL);
        return;
    }

    TAILQ_INSERT_TAIL(&pool->queue[job->writes != 0], job, link);
    pool->queued++;
}


void
td_job_again(td_job_t *job)
{
    td_slot_run(job->slot, job);
}


void
td_job_hold(td_job_t *job)
{
    job->slot->job = job;
    job->slot->state = TD_SLOT_HELD;
    job->pool = job->slot->pool;
}


void
td_job_resume(td_job_t *job)
{
    td_slot_run(job->slot, job);
}


void
td_job_cancel(td_job_t *job)
{
    td_pool_t       *pool;
    td_pool_slot_t  *slot;

    pool = job->pool;
    slot = job->slot;

    if (pool == NULL) {
        return;
    }

    job->pool = NULL;

    if (slot == NULL) {
        td_pool_unqueue(pool, job);
        return;
    }

    slot->job = NULL;

    if (slot->state == TD_SLOT_HELD) {
        td_slot_next(slot);
    }
}
