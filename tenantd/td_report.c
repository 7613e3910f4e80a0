/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "td_fault.h"
#include "td_log.h"
#include "td_report.h"
#include "td_sql.h"
#include "tg_text.h"


#define TD_REPORT_MOST    16        /* kept while the registry is away */
#define TD_REPORT_NUMBER  24

/* An observation as parameters of TD_SQL_INSTANCE_OBSERVED. */
typedef struct td_report_item_s {
    TAILQ_ENTRY(td_report_item_s)   link;
    int                             ready;
    const char                     *phase;
    char                            generation[TD_REPORT_NUMBER];
    char                            pid[TD_REPORT_NUMBER];
    char                            attempts[TD_REPORT_NUMBER];
    char                            retry_at[TD_REPORT_NUMBER];
    char                            restarts[TD_REPORT_NUMBER];
    char                           *reason;
    tg_text_t                       message;
    tg_text_t                       conditions;
} td_report_item_t;

struct td_report_s {
    td_pool_t                                  *pool;
    char                                        name[64];
    char                                       *cgroup;
    TAILQ_HEAD(td_report_items_s, td_report_item_s)  items;
    int                                         n;
    td_job_t                                    job;        /* of the first */
    void                                      (*told)(void *data, int ready);
    void                                       *data;
};

static const char *const  td_conditions[TD_CONDITION_N] = {
    [TD_CONDITION_READY] = "Ready",
    [TD_CONDITION_CONFIG_ACCEPTED] = "ConfigAccepted",
    [TD_CONDITION_LIMITS_ENFORCED] = "LimitsEnforced",
    [TD_CONDITION_CRASH_LOOPING] = "CrashLooping",
};


const char *
td_condition_name(td_condition_e condition)
{
    return td_conditions[condition];
}


static void
td_report_item_free(td_report_item_t *item)
{
    if (item != NULL) {
        free(item->reason);
        tg_text_free(&item->message);
        tg_text_free(&item->conditions);
        free(item);
    }
}


static void
td_report_drop(td_report_t *report, td_report_item_t *item)
{
    TAILQ_REMOVE(&report->items, item, link);
    report->n--;
    td_report_item_free(item);
}


static void
td_report_write_conditions(tg_text_t *text, const td_condition_t *conditions)
{
    int          i;
    tg_text_t    plain;
    const char  *comma;

    comma = "";
    tg_text_init(&plain);
    tg_text_str(text, "[");

    for (i = 0; i < TD_CONDITION_N; i++) {
        if (!conditions[i].known) {
            continue;
        }

        tg_text_printf(text, "%s{\"type\":\"%s\",\"status\":\"%s\",\"reason\":"
                       "\"%s\",\"message\":", comma, td_conditions[i],
                       conditions[i].status ? "True" : "False",
                       conditions[i].reason);
        tg_text_reset(&plain);
        tg_text_plain(&plain, conditions[i].message,
                      strlen(conditions[i].message));
        tg_text_json(text, plain.data != NULL ? plain.data : "", plain.len);
        tg_text_str(text, "}");
        comma = ",";
    }

    tg_text_str(text, "]");
    tg_text_add(text, "", 1);       /* NUL */
    text->failed |= plain.failed;
    tg_text_free(&plain);
}


static td_report_item_t *
td_report_item_create(const td_observation_t *o)
{
    td_report_item_t  *item;

    item = calloc(1, sizeof(td_report_item_t));
    if (item == NULL) {
        return NULL;
    }

    item->ready = o->ready;
    item->phase = td_phase_name(o->phase);
    item->reason = strdup(o->reason);
    /* nginx may say what a client has sent, and be cut within a character */
    tg_text_init(&item->message);
    tg_text_plain(&item->message, o->message, strlen(o->message));
    tg_text_add(&item->message, "", 1);     /* NUL */
    tg_text_init(&item->conditions);
    td_report_write_conditions(&item->conditions, o->conditions);

    snprintf(item->generation, TD_REPORT_NUMBER, "%lld",
             (long long) o->generation);
    snprintf(item->pid, TD_REPORT_NUMBER, "%d", (int) o->pid);
    snprintf(item->attempts, TD_REPORT_NUMBER, "%d", o->attempts);
    snprintf(item->retry_at, TD_REPORT_NUMBER, "%lld", (long long) o->retry_at);
    snprintf(item->restarts, TD_REPORT_NUMBER, "%d", o->restarts);

    if (item->reason == NULL || item->message.failed
        || item->conditions.failed)
    {
        td_report_item_free(item);
        return NULL;
    }

    return item;
}


static void
td_report_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    int                ready;
    td_report_t       *report = job->data;
    td_report_item_t  *item;

    item = TAILQ_FIRST(&report->items);

    if (outcome != TD_JOB_OK && outcome != TD_JOB_ERROR) {
        return;     /* td_report_retry() will be called */
    }

    if (outcome == TD_JOB_ERROR) {
        td_log(TD_LOG_WARN, report->name, "the registry does not take its "
               "state: %s", td_fault_text(error));
    }

    ready = item->ready;
    td_report_drop(report, item);
    td_report_retry(report);

    if (outcome == TD_JOB_OK) {
        report->told(report->data, ready);
    }
}


void
td_report_retry(td_report_t *report)
{
    td_pg_step_t      *step;
    td_report_item_t  *item;

    item = TAILQ_FIRST(&report->items);

    if (item == NULL || report->job.pool != NULL) {
        return;
    }

    report->job.done = td_report_done;
    report->job.data = report;
    report->job.writes = item->ready;       /* a promotion draws a revision */

    td_job_reset(&report->job);
    td_job_step(&report->job, TD_SQL_BEGIN);

    step = td_job_step(&report->job, TD_SQL_INSTANCE_OBSERVED);
    step->param[0] = report->name;
    step->param[1] = item->phase;
    step->param[2] = item->generation;
    step->param[3] = item->conditions.data;
    step->param[4] = strcmp(item->pid, "0") == 0 ? NULL : item->pid;
    step->param[5] = item->attempts;
    step->param[6] = strcmp(item->retry_at, "0") == 0 ? NULL : item->retry_at;
    step->param[7] = item->restarts;
    step->param[8] = item->reason;
    step->param[9] = item->message.data;
    step->param[10] = report->cgroup;

    if (item->ready) {
        step = td_job_step(&report->job, TD_SQL_INSTANCE_READY);
        step->param[0] = report->name;
    }

    td_job_step(&report->job, TD_SQL_COMMIT);
    td_job_submit(report->pool, &report->job);
}


void
td_report_add(td_report_t *report, const td_observation_t *observation)
{
    td_report_item_t  *item;

    item = td_report_item_create(observation);
    if (item == NULL) {
        return;
    }

    /* the first may be on its way */
    if (report->n >= TD_REPORT_MOST) {
        td_report_drop(report, TAILQ_NEXT(TAILQ_FIRST(&report->items), link));
    }

    TAILQ_INSERT_TAIL(&report->items, item, link);
    report->n++;
    td_report_retry(report);
}


td_report_t *
td_report_create(td_pool_t *pool, const char *name, const char *cgroup,
    void (*told)(void *data, int ready), void *data)
{
    td_report_t  *report;

    report = calloc(1, sizeof(td_report_t));
    if (report == NULL) {
        return NULL;
    }

    report->pool = pool;
    report->told = told;
    report->data = data;
    report->cgroup = strdup(cgroup);
    if (report->cgroup == NULL) {
        free(report);
        return NULL;
    }
    snprintf(report->name, sizeof(report->name), "%s", name);
    TAILQ_INIT(&report->items);

    return report;
}


void
td_report_destroy(td_report_t *report)
{
    if (report == NULL) {
        return;
    }

    td_job_cancel(&report->job);

    while (!TAILQ_EMPTY(&report->items)) {
        td_report_drop(report, TAILQ_FIRST(&report->items));
    }

    free(report->cgroup);
    free(report);
}
