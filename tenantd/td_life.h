/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the parts of an instance's life share:
 *
 *   td_instance.c   its state, its timer, and what the owner wants of it
 *   td_launch.c     from nothing, or from what was left, to a running nginx
 *   td_accept.c     which configuration nginx is given
 *   td_roll.c       while nginx runs: answers, changes, death
 *   td_retire.c     the end
 *
 * Invariants:
 *
 *  1. Only td_instance_go() changes the state.  The timer belongs to the state:
 *     it is armed anew by whoever enters or stays in one.
 *  2. Whatever is done to files, processes and cgroup is done with the lock held.
 *  3. "strays": processes of an earlier nginx may be there.  Nothing is started
 *     before they are gone, for they hold its port and its shared files.
 *  4. The registry's answers may be late: a job's outcome counts only in the
 *     state that asked for it, and what was read before the port was changed does
 *     not change it back.
 *  5. A configuration that nginx has refused never takes the place of one with
 *     which it has answered: that one is kept, and started after a death.
 */

#ifndef TD_LIFE_H
#define TD_LIFE_H

#include "td_instance.h"
#include "td_prefix.h"
#include "td_probe.h"
#include "td_process.h"
#include "td_report.h"

#define TD_INSTANCE_PROBE_FIRST  4          /* ms, as all times */
#define TD_INSTANCE_HEALTH       5000       /* between looks */
#define TD_INSTANCE_LOADING      200        /* until the stream is there */
#define TD_INSTANCE_STRAYS       3

/* As tiergate.instance_ready() says it. */
#define TD_INSTANCE_SERVES       "it serves its tenant"

struct td_instance_s {
    const td_host_t     *host;
    char                 path[TD_PREFIX_MAX + 64];
    char                 socket[TD_PREFIX_MAX + 80];
    int                  own;           /* it has a user of its own, which is */
    uid_t                uid;
    char                 group[80];     /* name of its cgroup */
    td_work_t            work;          /* what is wanted */
    int                  known;         /* by the registry */
    unsigned             seen;

    td_state_e           state;
    struct event        *timer;
    long                 deadline;      /* of the state, by td_now() */
    int                  lock;          /* descriptor, or -1 */
    td_report_t         *report;
    td_job_t             job;           /* token, port or removal */
    char                 first[16], last[16];
    int                  ports;         /* tried since the last start */
    long                 port_at;       /* when the port was changed */

    td_process_t        *process;       /* the master */
    td_process_t        *check;         /* nginx -t */
    td_probe_t          *probe;
    long                 probe_wait;
    int                  sick;          /* looks without an answer */
    int                  strays;
    long                 ended_at;      /* when the last of them were killed */
    unsigned long long   reloaded;      /* when, by td_process_clock() */
    int                  served;        /* the registry was told so */

    td_prefix_record_t   record;        /* of what runs, or ran last */
    int                  kept;          /* it was started with the accepted one */
    int                  fresh;         /* the next start is with what is wanted */
    int                  doubt;         /* the token may be good no more */
    long                 log_size;      /* of error.log before a reload */
    int64_t              running;       /* generation that answers; 0: none */
    int64_t              refused;       /* one that cannot be had; 0: none */
    int                  refusals;
    long                 refused_retry;
    int                  attempts;
    long                 up_since;
    td_deaths_t          deaths;
    td_condition_t       condition[TD_CONDITION_N];
};

/* td_instance.c */

const td_config_t *td_instance_config(const td_instance_t *i);
void td_instance_go(td_instance_t *i, td_state_e to, const char *reason);
void td_instance_arm(td_instance_t *i, long ms);
void td_instance_condition(td_instance_t *i, td_condition_e which, int status,
    const char *reason, const char *message);

/* Tells the registry where the instance is.  retry: ms until the next attempt. */
void td_instance_tell(td_instance_t *i, int ready, long retry,
    const char *reason, const char *message);

/* It cannot be had now: the next attempt comes later each time. */
void td_instance_fail(td_instance_t *i, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The wait after so many failures. */
long td_instance_backoff(const td_instance_t *i, int failures);

/* Asks the registry for what only it can give. */
void td_instance_ask(td_instance_t *i, int statement,
    void (*result)(td_job_t *job, unsigned step, PGresult *result),
    void (*done)(td_job_t *job, td_job_outcome_e outcome,
        const PGresult *error));

/*
 * What nginx has said in a file, of late: on one line, without what differs from
 * one attempt to the next.  most: bytes from its end that are looked at, 0: some.
 * with: only lines that have this in them, or NULL.
 */
void td_instance_output(td_instance_t *i, const char *file, long most,
    const char *with, char *text, size_t size);
void td_instance_save(td_instance_t *i);

/* Master and workers are of this user, if it has one of its own. */
void td_instance_own(td_instance_t *i, int own, uid_t uid);
void td_instance_options(td_instance_t *i, td_process_options_t *options);
long long td_instance_wall(void);

/* td_launch.c */

/* NEW: takes over what is there, or begins. */
void td_instance_look(td_instance_t *i);

/* Nothing runs that is known of, and it shall run; called again until it does. */
void td_instance_begin(td_instance_t *i);

/* It has ended without ever having answered. */
void td_instance_stillborn(td_instance_t *i, int status);

/* Sets the cgroup's limits; returns that of files. */
long td_instance_apply_limits(td_instance_t *i);

/* A wait status in words. */
void td_instance_describe(int status, char *text, size_t size);

/* td_accept.c */

/* Writes a configuration; -1 with err and a condition's reason. */
int td_instance_write_conf(td_instance_t *i, const char *file, tg_error_t *err,
    const char **reason);

/* Puts into place what nginx is to be started with; -1 as above. */
int td_instance_prepare(td_instance_t *i, tg_error_t *err,
    const char **reason);

/* nginx answers with nginx.conf: from now on it is the one to come back to. */
void td_instance_accept(td_instance_t *i);

/* nginx goes on with what it had before nginx.conf. */
void td_instance_fall_back(td_instance_t *i);

/* Whether nginx can be started without the registry. */
int td_instance_has_accepted(const td_instance_t *i);

/* Says that the configuration is accepted, if it is the one that is wanted. */
void td_instance_judge(td_instance_t *i);

/* td_roll.c */

/* Looks whether it answers. */
void td_instance_look_at(td_instance_t *i);

/* READY: brings it to another generation, if that is wanted. */
void td_instance_roll(td_instance_t *i);

/* It has not answered in time. */
void td_instance_late(td_instance_t *i);

/* It has died although it should run. */
void td_instance_died(td_instance_t *i, int status);

/* td_retire.c */

void td_instance_drain(td_instance_t *i);
void td_instance_kill(td_instance_t *i);

/* Takes everything away, step by step; called again until it is done. */
void td_instance_remove(td_instance_t *i);

#endif /* TD_LIFE_H */
