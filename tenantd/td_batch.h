/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * New tenants of several calls, written in one transaction.  A transaction costs
 * far more than what one tenant adds to it, and commits follow each other under
 * the revision lock; so calls that come while others are being written wait, and
 * are written together.
 *
 * 1. Only calls with the same credential share a transaction, for it is allowed
 *    and audited as its actor; the audit has the request id of each call.
 * 2. A call is answered once its transaction is durable.
 * 3. A transaction is done as a whole or not at all.  If it was refused, its
 *    halves are tried, down to the call that was to blame.  That one is given
 *    back, for its caller to make alone and to be told what is wrong.
 * 4. No call waits long for a lock that only another call meets: SQL waits for
 *    a moment only, then all calls are given back.
 */

#ifndef TD_BATCH_H
#define TD_BATCH_H

#include "td_daemon.h"
#include "td_pool.h"

typedef struct td_batch_s    td_batch_t;
typedef struct td_batches_s  td_batches_t;

typedef enum {
    TD_CALL_IDLE,           /* waits for td_batches_add() */
    TD_CALL_WAITING,        /* waits for a transaction */
    TD_CALL_RUNNING         /* waits for its transaction to end */
} td_call_state_e;

typedef struct td_call_s  td_call_t;

struct td_call_s {
    /* borrowed until the call is idle again */
    const char           *credential;
    const char           *scope;
    const char           *request_id;
    const char           *idempotency;  /* for begin_request(), or NULL */
    const char           *body;

    /* The call's row of tiergate_api.response, which is not durable yet. */
    void                (*answer)(td_call_t *call, const PGresult *result,
                              int row);
    /* The end; with TD_JOB_ERROR the call is to be made alone. */
    void                (*done)(td_call_t *call, td_job_outcome_e outcome);
    void                 *data;

    /* td_batch.c's own */
    TAILQ_ENTRY(td_call_s)  link;
    td_call_state_e         state;
    td_batches_t           *batches;
    td_batch_t             *batch;
    long                    since;
};

/* Returns NULL: no memory. */
td_batches_t *td_batches_create(td_daemon_t *daemon);
void td_batches_destroy(td_batches_t *batches);

/* done is called later, never from within this. */
void td_batches_add(td_batches_t *batches, td_call_t *call);

/* The caller is gone: nothing of the call will be called or read.  Does nothing
 * to an idle one. */
void td_call_cancel(td_call_t *call);

#endif /* TD_BATCH_H */
