/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A pool of PostgreSQL connections and the bounded queue of jobs before it.
 *
 * Transactions that draw a revision commit one after the other, under a lock.
 * More than a few of them at once only wait for each other, slower the more they
 * are, and keep connections from those that read: so their number is bounded.
 *
 * A job is a pipeline, perhaps followed by more on the same connection: its done
 * handler may call td_job_again() and keep the connection with its transaction.
 * Whatever transaction a job leaves open is rolled back.
 */

#ifndef TD_POOL_H
#define TD_POOL_H

#include <sys/queue.h>

#include "td_pg.h"

typedef enum {
    TD_JOB_OK,          /* done */
    TD_JOB_ERROR,       /* refused by SQL: nothing was done */
    TD_JOB_AWAY,        /* no database: nothing was done */
    TD_JOB_FULL,        /* no place in the queue, or waited there for too long */
    TD_JOB_UNKNOWN      /* the connection broke: perhaps done, perhaps not */
} td_job_outcome_e;

typedef struct td_job_s   td_job_t;
typedef struct td_pool_s  td_pool_t;

struct td_job_s {
    td_pg_step_t         step[TD_PG_MAX_STEPS];
    unsigned             steps;

    /* Each result, borrowed.  NULL: nobody wants them. */
    void               (*result)(td_job_t *job, unsigned step, PGresult *result);
    /* The end of each pipeline; error is borrowed, NULL unless TD_JOB_ERROR. */
    void               (*done)(td_job_t *job, td_job_outcome_e outcome,
                             const PGresult *error);
    void                *data;
    int                  writes;        /* will draw a revision */

    /* the pool's own */
    TAILQ_ENTRY(td_job_s)  link;
    td_pool_t             *pool;        /* NULL: not under way */
    struct td_pool_slot_s *slot;        /* NULL: still in the queue */
    long                   since;       /* when it was queued, by td_now() */
};

typedef struct {
    td_pg_options_t  pg;
    int              connections;
    int              writers;       /* jobs at once that write */
    int              queue;
    /* A connection is up: others need not wait for their backoff.  May be NULL. */
    void           (*up)(void *data);
    void            *data;
} td_pool_options_t;

typedef struct {
    int  up;            /* connections that are connected */
    int  busy;
    int  queued;
} td_pool_figures_t;

/* Returns NULL: no memory. */
td_pool_t *td_pool_create(const td_pool_options_t *options);

/* Ends the backoff of connections that are down. */
void td_pool_hurry(td_pool_t *pool);

/* Closes the connections; the jobs' handlers are not called. */
void td_pool_destroy(td_pool_t *pool);

td_pool_figures_t td_pool_figures(const td_pool_t *pool);

/* Empties a job: no steps, no parameters; handlers and data stay. */
void td_job_reset(td_job_t *job);

/* Adds a step and returns it with all parameters NULL. */
td_pg_step_t *td_job_step(td_job_t *job, int statement);

/*
 * Queues the job, or runs it at once.  What the steps point to must live until
 * done is called; this happens exactly once for each pipeline and may happen
 * before this returns.  In done, a job may be submitted anew, but after
 * TD_JOB_OK td_job_again() keeps the connection.
 */
void td_job_submit(td_pool_t *pool, td_job_t *job);

/* From done with TD_JOB_OK: the steps, set anew, go over the same connection. */
void td_job_again(td_job_t *job);

/* From done with TD_JOB_OK: keeps the connection, td_job_resume() goes on. */
void td_job_hold(td_job_t *job);
void td_job_resume(td_job_t *job);

/* The owner is gone: done will not be called, results are thrown away.  Does
 * nothing to a job that is not under way. */
void td_job_cancel(td_job_t *job);

/* Milliseconds of the monotonic clock. */
long td_now(void);

#endif /* TD_POOL_H */
