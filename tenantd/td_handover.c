/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>

#include "td_fault.h"
#include "td_handover.h"
#include "td_log.h"
#include "td_sql.h"


#define TD_HANDOVER_OUTCOMES  8

struct td_handover_s {
    td_pool_t     *pool;
    long           patience;
    struct event  *timer;
    td_job_t       job;
    int            again;           /* something has changed meanwhile */

    struct {
        char       name[32];
        long long  count;
    } outcome[TD_HANDOVER_OUTCOMES];
    int            outcomes;
};


static void
td_handover_arm(td_handover_t *h, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(h->timer, &tv);
}


static void
td_handover_count(td_handover_t *h, const PGresult *result)
{
    int  i;

    for (i = 0; i < PQntuples(result) && i < TD_HANDOVER_OUTCOMES; i++) {
        snprintf(h->outcome[i].name, sizeof(h->outcome[i].name), "%s",
                 PQgetvalue(result, i, 0));
        h->outcome[i].count = atoll(PQgetvalue(result, i, 1));
    }

    h->outcomes = i;
}


static void
td_handover_result(td_job_t *job, unsigned step, PGresult *result)
{
    td_handover_t  *h = job->data;

    switch (job->step[step].statement) {

    case TD_SQL_HANDOVERS_ADVANCE:
        /* null: nothing to do until the next notification */
        if (PQntuples(result) == 1 && !PQgetisnull(result, 0, 1)) {
            td_handover_arm(h, atol(PQgetvalue(result, 0, 1)));
        }
        break;

    case TD_SQL_HANDOVER_COUNTS:
        td_handover_count(h, result);
        break;
    }
}


static void
td_handover_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_handover_t  *h = job->data;

    if (outcome == TD_JOB_ERROR) {
        td_log(TD_LOG_ERR, "handover", "handovers stand still: %s",
               td_fault_text(error));
    }

    if (outcome != TD_JOB_OK) {
        td_handover_arm(h, h->patience);

    } else if (h->again) {
        td_handover_advance(h);
    }
}


void
td_handover_advance(td_handover_t *h)
{
    if (h->job.pool != NULL) {
        h->again = 1;
        return;
    }

    evtimer_del(h->timer);
    h->again = 0;
    h->job.result = td_handover_result;
    h->job.done = td_handover_done;
    h->job.data = h;

    td_job_reset(&h->job);
    td_job_step(&h->job, TD_SQL_BEGIN);
    td_job_step(&h->job, TD_SQL_HANDOVERS_ADVANCE);
    td_job_step(&h->job, TD_SQL_HANDOVER_COUNTS);
    td_job_step(&h->job, TD_SQL_COMMIT);
    td_job_submit(h->pool, &h->job);
}


static void
td_handover_on_timer(evutil_socket_t fd, short what, void *data)
{
    (void) fd;
    (void) what;

    td_handover_advance(data);
}


td_handover_t *
td_handover_create(struct event_base *base, td_pool_t *pool, long patience)
{
    td_handover_t  *h;

    h = calloc(1, sizeof(td_handover_t));
    if (h == NULL) {
        return NULL;
    }

    h->pool = pool;
    h->patience = patience;
    h->timer = evtimer_new(base, td_handover_on_timer, h);

    if (h->timer == NULL) {
        free(h);
        return NULL;
    }

    return h;
}


void
td_handover_destroy(td_handover_t *h)
{
    if (h != NULL) {
        td_job_cancel(&h->job);
        event_free(h->timer);
        free(h);
    }
}


void
td_handover_write_metrics(const td_handover_t *h, tg_text_t *text)
{
    int  i;

    tg_text_str(text, "# HELP tiergate_handovers_total Moves of tenants between "
                "gateways that have ended, by outcome.\n"
                "# TYPE tiergate_handovers_total counter\n");

    for (i = 0; i < h->outcomes; i++) {
        tg_text_printf(text, "tiergate_handovers_total{outcome=\"%s\"} %lld\n",
                       h->outcome[i].name, h->outcome[i].count);
    }
}
