/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Invariants:
 *
 *  1. ops[op..ops_n) are the commands of the pipeline under way whose results
 *     have not all been taken; the last is the sync.
 *  2. A handler may call td_pg_run() or td_pg_abandon(), but must not destroy
 *     the connection; after each handler "generation" tells whether the
 *     connection is still the one that was being read.
 *  3. An error before the result of the last step means that nothing was done:
 *     the last step of a pipeline that changes anything is COMMIT, and results
 *     come in order.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_log.h"
#include "td_pg.h"


#define TD_PG_BACKOFF_MIN  100
#define TD_PG_BACKOFF_MAX  5000
#define TD_PG_MAX_OPS      (2 * TD_PG_MAX_STEPS + 1)

typedef enum {
    TD_PG_OP_PREPARE,
    TD_PG_OP_STEP,
    TD_PG_OP_SYNC
} td_pg_op_e;

typedef struct {
    td_pg_op_e  kind;
    int         statement;
    unsigned    step;
} td_pg_op_t;

struct td_pg_s {
    const td_pg_options_t   *options;
    const td_pg_handlers_t  *handlers;
    void                    *data;

    PGconn                  *conn;
    td_pg_state_e            state;
    unsigned                 generation;
    long                     backoff;
    int                      complained;    /* this outage was logged */

    struct event            *io;            /* the socket's */
    short                    io_events;
    struct event            *timer;

    char                    *prepared;      /* one flag a statement: sent */
    td_pg_op_t               ops[TD_PG_MAX_OPS];
    unsigned                 op, ops_n;
    unsigned                 steps_n, steps_ok;
    PGresult                *error;
};

static void td_pg_connect(td_pg_t *pg);
static void td_pg_on_io(evutil_socket_t fd, short what, void *data);
static void td_pg_on_timer(evutil_socket_t fd, short what, void *data);


static void
td_pg_arm(td_pg_t *pg, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(pg->timer, &tv);
}


/* Watches the socket for events; it may have become another socket. */
static int
td_pg_watch(td_pg_t *pg, short events)
{
    if (pg->io != NULL && pg->io_events == events
        && event_get_fd(pg->io) == PQsocket(pg->conn))
    {
        return 0;
    }

    if (pg->io != NULL) {
        event_free(pg->io);
    }

    pg->io_events = events;
    pg->io = event_new(pg->options->base, PQsocket(pg->conn),
                       events | EV_PERSIST, td_pg_on_io, pg);

    return pg->io != NULL && event_add(pg->io, NULL) == 0 ? 0 : -1;
}


static void
td_pg_forget_pipeline(td_pg_t *pg)
{
    PQclear(pg->error);
    pg->error = NULL;
    pg->op = 0;
    pg->ops_n = 0;
    pg->steps_n = 0;
    pg->steps_ok = 0;
}


static void
td_pg_close(td_pg_t *pg)
{
    if (pg->io != NULL) {
        event_free(pg->io);
        pg->io = NULL;
    }

    PQfinish(pg->conn);
    pg->conn = NULL;
    pg->generation++;
    memset(pg->prepared, 0, (size_t) pg->options->n_statements);
}


static long
td_pg_jitter(long ms)
{
    unsigned  r;

    evutil_secure_rng_get_bytes(&r, sizeof(r));

    return ms / 2 + (long) (r % (unsigned) (ms / 2 + 1));
}


/* One line for an outage, not one for each of the attempts. */
static void
td_pg_complain(td_pg_t *pg, const char *why)
{
    const char  *detail;

    detail = pg->conn != NULL ? PQerrorMessage(pg->conn) : "";

    td_log(pg->complained ? TD_LOG_INFO : TD_LOG_WARN, "database", "%s%s%s",
           why, detail[0] ? ": " : "", detail);
    pg->complained = 1;
}


static void
td_pg_fail(td_pg_t *pg, const char *why)
{
    PGresult         *error;
    td_pg_state_e     state;
    td_pg_outcome_e   outcome;

    td_pg_complain(pg, why);
    state = pg->state;

    outcome = pg->steps_n > 0 && pg->steps_ok == pg->steps_n ? TD_PG_OK
              : pg->error != NULL ? TD_PG_AWAY : TD_PG_UNKNOWN;
    error = pg->error;
    pg->error = NULL;

    td_pg_close(pg);
    td_pg_forget_pipeline(pg);

    pg->state = TD_PG_WAITING;
    td_pg_arm(pg, td_pg_jitter(pg->backoff));
    pg->backoff = pg->backoff * 2 < TD_PG_BACKOFF_MAX ? pg->backoff * 2
                                                      : TD_PG_BACKOFF_MAX;

    if (state == TD_PG_BUSY) {
        pg->handlers->done(pg, outcome, error, pg->data);
    }

    if (state == TD_PG_BUSY || state == TD_PG_IDLE) {
        pg->handlers->lost(pg, pg->data);
    }

    PQclear(error);
}


static void
td_pg_notice(void *data, const char *message)
{
    (void) data;

    td_log(TD_LOG_DEBUG, "database", "%s", message);
}


/* Role and time limits, before anything else is run; and no compiling of
 * statements that take less than it does. */
static int
td_pg_send_setup(td_pg_t *pg)
{
    char         timeout[32], lock[32], idle[32];
    const char  *params[4];

    snprintf(timeout, sizeof(timeout), "%ld", pg->options->statement_timeout);
    snprintf(lock, sizeof(lock), "%ld", pg->options->statement_timeout / 2);
    snprintf(idle, sizeof(idle), "%ld", pg->options->statement_timeout * 6);
    params[0] = pg->options->role;
    params[1] = timeout;
    params[2] = lock;
    params[3] = idle;

    return PQsendQueryParams(pg->conn,
               "SELECT set_config('role', $1, false),"
               " set_config('statement_timeout', $2, false),"
               " set_config('lock_timeout', $3, false),"
               " set_config('idle_in_transaction_session_timeout', $4, false),"
               " set_config('jit', 'off', false)",
               4, NULL, params, NULL, NULL, 0)
           && PQpipelineSync(pg->conn) ? 0 : -1;
}


static void
td_pg_connected(td_pg_t *pg)
{
    if (PQserverVersion(pg->conn) < 150000) {
        td_pg_fail(pg, "the server is older than PostgreSQL 15");
        return;
    }

    PQsetNoticeProcessor(pg->conn, td_pg_notice, NULL);

    if (PQsetnonblocking(pg->conn, 1) != 0
        || PQenterPipelineMode(pg->conn) != 1
        || td_pg_send_setup(pg) != 0)
    {
        td_pg_fail(pg, "cannot set the connection up");
        return;
    }

    pg->state = TD_PG_SETUP;
    pg->ops[0].kind = TD_PG_OP_STEP;
    pg->ops[0].step = 0;
    pg->ops[1].kind = TD_PG_OP_SYNC;
    pg->ops_n = 2;
    pg->steps_n = 1;

    if (td_pg_watch(pg, EV_READ | EV_WRITE) != 0) {
        td_pg_fail(pg, "cannot watch the connection");
    }
}


static void
td_pg_poll_connect(td_pg_t *pg)
{
    int  rc;

    switch (PQconnectPoll(pg->conn)) {

    case PGRES_POLLING_READING:
        rc = td_pg_watch(pg, EV_READ);
        break;

    case PGRES_POLLING_WRITING:
        rc = td_pg_watch(pg, EV_WRITE);
        break;

    case PGRES_POLLING_OK:
        td_pg_connected(pg);
        return;

    default:
        td_pg_fail(pg, "cannot connect");
        return;
    }

    if (rc != 0) {
        td_pg_fail(pg, "cannot watch the connection");
    }
}


static void
td_pg_connect(td_pg_t *pg)
{
    const char *const  keys[] = {
        "dbname", "client_encoding", "fallback_application_name", NULL
    };
    const char *const  values[] = {
        pg->options->conninfo, "UTF8", "tenantd", NULL
    };

    pg->state = TD_PG_CONNECTING;
    pg->conn = PQconnectStartParams(keys, values, 1);
    /* not the source of functions in each log line */
    PQsetErrorContextVisibility(pg->conn, PQSHOW_CONTEXT_NEVER);

    if (pg->conn == NULL || PQstatus(pg->conn) == CONNECTION_BAD) {
        td_pg_fail(pg, "cannot connect");
        return;
    }

    td_pg_arm(pg, pg->options->connect_timeout);

    if (td_pg_watch(pg, EV_WRITE) != 0) {
        td_pg_fail(pg, "cannot watch the connection");
    }
}


static void
td_pg_on_timer(evutil_socket_t fd, short what, void *data)
{
    td_pg_t  *pg = data;

    (void) fd;
    (void) what;

    if (pg->state == TD_PG_WAITING) {
        td_pg_connect(pg);

    } else {
        td_pg_fail(pg, "no answer while connecting");
    }
}


static void
td_pg_flush(td_pg_t *pg)
{
    int  rc;

    rc = PQflush(pg->conn);

    if (rc < 0 || td_pg_watch(pg, rc == 1 ? EV_READ | EV_WRITE : EV_READ) != 0)
    {
        td_pg_fail(pg, "cannot send");
    }
}


static void
td_pg_take_sync(td_pg_t *pg)
{
    int        setup;
    PGresult  *error;

    setup = pg->state == TD_PG_SETUP;
    error = pg->error;
    pg->error = NULL;

    if (setup && error != NULL) {
        td_log(TD_LOG_WARN, "database", "cannot take role \"%s\", which the "
               "login must be a member of, or set time limits: %s",
               pg->options->role, PQresultErrorMessage(error));
        PQclear(error);
        td_pg_fail(pg, "cannot take the role or set time limits");
        return;
    }

    td_pg_forget_pipeline(pg);
    pg->state = TD_PG_IDLE;

    if (!setup) {
        pg->handlers->done(pg, error != NULL ? TD_PG_ERROR : TD_PG_OK, error,
                           pg->data);
        PQclear(error);
        return;
    }

    evtimer_del(pg->timer);
    pg->backoff = TD_PG_BACKOFF_MIN;

    if (pg->complained) {
        pg->complained = 0;
        td_log(TD_LOG_NOTICE, "database", "connected again");
    }

    pg->handlers->ready(pg, pg->data);
}


/*
 * Whether an error tells that the transaction came to nothing.  One that libpq
 * made up when the connection broke has no SQLSTATE, and 57P02 (crash_shutdown)
 * is sent from a signal handler, perhaps between a commit and its confirmation.
 */
static int
td_pg_is_refusal(const PGresult *result)
{
    const char  *sqlstate;

    sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    return sqlstate != NULL && strcmp(sqlstate, "57P02") != 0;
}


/* Takes one result of the op at the head of the queue, and owns it. */
static void
td_pg_take_result(td_pg_t *pg, td_pg_op_t *op, PGresult *result)
{
    switch (PQresultStatus(result)) {

    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        if (op->kind == TD_PG_OP_STEP) {
            pg->steps_ok++;
        }

        if (op->kind == TD_PG_OP_STEP && pg->state == TD_PG_BUSY) {
            pg->handlers->result(pg, op->step, result, pg->data);
        }

        PQclear(result);
        return;

    case PGRES_PIPELINE_ABORTED:
        break;

    default:
        /* PQcopyResult() would leave the error out */
        if (pg->error == NULL && td_pg_is_refusal(result)) {
            pg->error = result;
            result = NULL;
        }
    }

    PQclear(result);

    if (op->kind == TD_PG_OP_PREPARE) {
        pg->prepared[op->statement] = 0;
    }
}


static void
td_pg_read_results(td_pg_t *pg)
{
    unsigned     generation;
    PGresult    *result;
    td_pg_op_t  *op;

    generation = pg->generation;

    while (generation == pg->generation && pg->op < pg->ops_n
           && !PQisBusy(pg->conn))
    {
        op = &pg->ops[pg->op];
        result = PQgetResult(pg->conn);

        if (result == NULL) {
            if (PQstatus(pg->conn) == CONNECTION_BAD) {
                td_pg_fail(pg, "connection lost");
                return;
            }

            pg->op++;       /* the end of this command's results */
            continue;
        }

        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            td_pg_take_sync(pg);
            continue;
        }

        td_pg_take_result(pg, op, result);
    }
}


static void
td_pg_read_notifications(td_pg_t *pg)
{
    char       channel[64];
    PGnotify  *notify;

    channel[0] = '\0';

    while (pg->conn != NULL && (notify = PQnotifies(pg->conn)) != NULL) {
        if (pg->handlers->told != NULL) {
            pg->handlers->told(pg, notify->extra, pg->data);
        }

        /* many of one channel come together */
        if (strcmp(channel, notify->relname) != 0) {
            snprintf(channel, sizeof(channel), "%s", notify->relname);

            if (pg->handlers->notified != NULL) {
                pg->handlers->notified(pg, channel, pg->data);
            }
        }

        PQfreemem(notify);
    }
}


static void
td_pg_on_io(evutil_socket_t fd, short what, void *data)
{
    td_pg_t   *pg = data;
    unsigned   generation;

    (void) fd;

    if (pg->state == TD_PG_CONNECTING) {
        td_pg_poll_connect(pg);
        return;
    }

    generation = pg->generation;

    if ((what & EV_READ) && PQconsumeInput(pg->conn) == 0) {
        /* what came before the end may still say how it ended */
        td_pg_read_results(pg);
        if (generation == pg->generation) {
            td_pg_fail(pg, "connection lost");
        }
        return;
    }

    if (what & EV_WRITE) {
        td_pg_flush(pg);
    }

    if (generation == pg->generation) {
        td_pg_read_results(pg);
    }

    if (generation == pg->generation) {
        td_pg_read_notifications(pg);
    }
}


td_pg_t *
td_pg_create(const td_pg_options_t *options, const td_pg_handlers_t *handlers,
    void *data)
{
    td_pg_t  *pg;

    pg = calloc(1, sizeof(td_pg_t));
    if (pg == NULL) {
        return NULL;
    }

    pg->options = options;
    pg->handlers = handlers;
    pg->data = data;
    pg->backoff = TD_PG_BACKOFF_MIN;
    pg->prepared = calloc((size_t) options->n_statements + 1, 1);
    pg->timer = evtimer_new(options->base, td_pg_on_timer, pg);

    if (pg->prepared == NULL || pg->timer == NULL) {
        td_pg_destroy(pg);
        return NULL;
    }

    td_pg_connect(pg);

    return pg;
}


void
td_pg_destroy(td_pg_t *pg)
{
    if (pg == NULL) {
        return;
    }

    if (pg->prepared != NULL) {
        td_pg_close(pg);
    }

    if (pg->timer != NULL) {
        event_free(pg->timer);
    }

    PQclear(pg->error);
    free(pg->prepared);
    free(pg);
}


td_pg_state_e
td_pg_state(const td_pg_t *pg)
{
    return pg->state;
}


PGTransactionStatusType
td_pg_transaction(const td_pg_t *pg)
{
    return pg->conn != NULL ? PQtransactionStatus(pg->conn) : PQTRANS_UNKNOWN;
}


static int
td_pg_send_step(td_pg_t *pg, const td_pg_step_t *step, unsigned index)
{
    td_pg_op_t            *op;
    const td_statement_t  *statement;

    statement = &pg->options->statements[step->statement];

    if (!pg->prepared[step->statement]) {
        if (!PQsendPrepare(pg->conn, statement->name, statement->text, 0, NULL))
        {
            return -1;
        }

        op = &pg->ops[pg->ops_n++];
        op->kind = TD_PG_OP_PREPARE;
        op->statement = step->statement;
        pg->prepared[step->statement] = 1;
    }

    op = &pg->ops[pg->ops_n++];
    op->kind = TD_PG_OP_STEP;
    op->step = index;

    return PQsendQueryPrepared(pg->conn, statement->name, statement->params,
                               step->param, NULL, NULL, 0) ? 0 : -1;
}


void
td_pg_run(td_pg_t *pg, const td_pg_step_t *steps, unsigned n)
{
    int       failed;
    unsigned  i;

    pg->state = TD_PG_BUSY;
    pg->steps_n = n;
    failed = 0;

    for (i = 0; i < n && !failed; i++) {
        failed = td_pg_send_step(pg, &steps[i], i) != 0;
    }

    if (failed || !PQpipelineSync(pg->conn)) {
        td_pg_fail(pg, "cannot send");
        return;
    }

    pg->ops[pg->ops_n++].kind = TD_PG_OP_SYNC;
    td_pg_flush(pg);
}


void
td_pg_abandon(td_pg_t *pg, const char *why)
{
    if (pg->state != TD_PG_WAITING) {
        td_pg_fail(pg, why);
    }
}


void
td_pg_hurry(td_pg_t *pg)
{
    if (pg->state == TD_PG_WAITING) {
        pg->backoff = TD_PG_BACKOFF_MIN;
        td_pg_arm(pg, td_pg_jitter(20));
    }
}
