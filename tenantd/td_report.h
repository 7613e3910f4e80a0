/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What becomes of an instance, told to the registry: in order, and as soon as it
 * can be reached.  While it cannot, a few observations are kept, the newest ones.
 */

#ifndef TD_REPORT_H
#define TD_REPORT_H

#include <stdint.h>
#include <sys/types.h>

#include "td_pool.h"
#include "td_state.h"

typedef enum {
    TD_CONDITION_READY,
    TD_CONDITION_CONFIG_ACCEPTED,
    TD_CONDITION_LIMITS_ENFORCED,
    TD_CONDITION_CRASH_LOOPING,
    TD_CONDITION_N
} td_condition_e;

typedef struct {
    int   known;                /* otherwise nothing is said of it */
    int   status;
    char  reason[32];
    char  message[1000];
} td_condition_t;

typedef struct {
    td_phase_e             phase;
    int64_t                generation;      /* that is observed */
    const td_condition_t  *conditions;      /* TD_CONDITION_N of them */
    pid_t                  pid;             /* 0: none */
    int                    attempts;
    int64_t                retry_at;        /* unix ms; 0: never */
    int                    restarts;
    const char            *reason;
    const char            *message;
    int                    ready;           /* its tenant is served: promote it */
} td_observation_t;

typedef struct td_report_s  td_report_t;

/* cgroup: its path below the mount, or "".  told: an observation has been written,
 * ready as it said.  NULL: no memory. */
td_report_t *td_report_create(td_pool_t *pool, const char *name,
    const char *cgroup, void (*told)(void *data, int ready), void *data);

/* Forgets what was not told. */
void td_report_destroy(td_report_t *report);

void td_report_add(td_report_t *report, const td_observation_t *observation);

/* The registry may be there again. */
void td_report_retry(td_report_t *report);

const char *td_condition_name(td_condition_e condition);

#endif /* TD_REPORT_H */
