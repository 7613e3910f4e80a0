/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One PostgreSQL connection without waiting: libpq in non-blocking and pipeline
 * mode on the event loop.  A pipeline is a few prepared statements and one sync;
 * one is under way at a time, its owner gets each result and then one outcome.
 *
 * Whoever loses its connection reconnects by itself, with exponential backoff
 * and jitter, and prepares its statements anew.
 */

#ifndef TD_PG_H
#define TD_PG_H

#include <event2/event.h>
#include <libpq-fe.h>

#define TD_PG_MAX_STEPS   6
#define TD_PG_MAX_PARAMS  11

typedef struct {
    const char  *name;          /* of the prepared statement */
    const char  *text;
    int          params;
} td_statement_t;

typedef struct {
    int          statement;     /* index in the table given to td_pg_create() */
    const char  *param[TD_PG_MAX_PARAMS];   /* NULL: SQL NULL */
} td_pg_step_t;

typedef enum {
    TD_PG_WAITING,      /* not connected; waits for the backoff timer */
    TD_PG_CONNECTING,   /* waits for the server, until the connect timer */
    TD_PG_SETUP,        /* waits for role and timeouts to be set */
    TD_PG_IDLE,         /* may take a pipeline */
    TD_PG_BUSY          /* waits for results, until the sync */
} td_pg_state_e;

typedef enum {
    TD_PG_OK,           /* every statement has done its work */
    TD_PG_ERROR,        /* a statement was refused: nothing was done */
    TD_PG_AWAY,         /* the connection broke, but surely nothing was done */
    TD_PG_UNKNOWN       /* the connection broke after the last word was sent */
} td_pg_outcome_e;

typedef struct td_pg_s  td_pg_t;

typedef struct {
    /* It has become idle for the first time since it was connected. */
    void (*ready)(td_pg_t *pg, void *data);
    /* The result of a step: PGRES_TUPLES_OK or PGRES_COMMAND_OK; borrowed. */
    void (*result)(td_pg_t *pg, unsigned step, PGresult *result, void *data);
    /*
     * The pipeline's end.  error: of the first refused statement, or NULL;
     * borrowed.  Comes before lost.  td_pg_run() may be called from here unless
     * the outcome is TD_PG_AWAY or TD_PG_UNKNOWN.
     */
    void (*done)(td_pg_t *pg, td_pg_outcome_e outcome, const PGresult *error,
        void *data);
    /* The connection is gone; it will come back by itself. */
    void (*lost)(td_pg_t *pg, void *data);
    /* A notification has come, or several of the channel; may be NULL. */
    void (*notified)(td_pg_t *pg, const char *channel, void *data);
    /* Each of them, before that; may be NULL. */
    void (*told)(td_pg_t *pg, const char *payload, void *data);
} td_pg_handlers_t;

typedef struct {
    struct event_base     *base;
    const char            *conninfo;
    const char            *role;
    long                   connect_timeout;     /* milliseconds, as all times */
    long                   statement_timeout;
    const td_statement_t  *statements;
    int                    n_statements;
} td_pg_options_t;

/*
 * Starts to connect at once.  options, handlers and what they point to must
 * outlive it.  Returns NULL: no memory.
 */
td_pg_t *td_pg_create(const td_pg_options_t *options,
    const td_pg_handlers_t *handlers, void *data);

/* Closes the connection; no handler is called. */
void td_pg_destroy(td_pg_t *pg);

td_pg_state_e td_pg_state(const td_pg_t *pg);

/* PQTRANS_IDLE: no transaction is open. */
PGTransactionStatusType td_pg_transaction(const td_pg_t *pg);

/*
 * Sends a pipeline; only when TD_PG_IDLE.  The parameters are copied.  A failure
 * to send is reported by done and lost, before or after this returns.
 */
void td_pg_run(td_pg_t *pg, const td_pg_step_t *steps, unsigned n);

/* Gives the connection up as broken, e.g. for no answer in time. */
void td_pg_abandon(td_pg_t *pg, const char *why);

/* Ends the backoff: another connection has found the server alive. */
void td_pg_hurry(td_pg_t *pg);

#endif /* TD_PG_H */
