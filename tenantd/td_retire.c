/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "td_fault.h"
#include "td_life.h"
#include "td_log.h"
#include "td_sql.h"


#define TD_INSTANCE_GRACE   2000    /* ms beyond drain_timeout */
#define TD_INSTANCE_REMOVE  500     /* between attempts */


void
td_instance_drain(td_instance_t *i)
{
    long         wait;
    const char  *message;

    /* for a restart clients cannot be left without it for as long */
    wait = i->work.running ? td_instance_config(i)->provisioner.start_timeout
                           : td_instance_config(i)->provisioner.drain_timeout;
    message = i->work.running ? "nginx finishes what is under way, and starts "
                                "anew" : "nginx finishes what is under way";

    if (!i->work.running) {
        i->record.ending = 1;
        td_instance_save(i);
    }

    td_process_signal(i->process, SIGQUIT);
    td_instance_go(i, TD_STATE_DRAINING, message);
    td_instance_condition(i, TD_CONDITION_READY, 0, "Draining", message);
    td_instance_tell(i, 0, 0, "Draining", message);
    td_instance_arm(i, wait + TD_INSTANCE_GRACE);
}


void
td_instance_kill(td_instance_t *i)
{
    if (i->state != TD_STATE_KILLING) {
        td_instance_go(i, TD_STATE_KILLING, "nginx has not ended in time");
    }

    td_cgroup_kill(i->host->cgroup, i->group);

    if (td_process_kill_all(i->path, 0) > 0 || i->process != NULL) {
        td_instance_arm(i, TD_INSTANCE_STRAYS);
        return;
    }

    td_instance_remove(i);
}


static void
td_instance_removed(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    td_instance_t  *i = job->data;

    if (outcome == TD_JOB_ERROR) {
        td_log(TD_LOG_ERR, i->work.name, "the registry does not take its end: "
               "%s", td_fault_text(error));
    }

    if (outcome == TD_JOB_OK) {
        td_instance_go(i, TD_STATE_GONE, "nothing is left of it");
        i->host->gone(i->host->data, i);
    }
}


void
td_instance_remove(td_instance_t *i)
{
    if (i->state != TD_STATE_REMOVING) {
        td_instance_go(i, TD_STATE_REMOVING, "files and cgroup are removed");
        td_instance_condition(i, TD_CONDITION_READY, 0, "Stopped", "");
        td_instance_tell(i, 0, 0, "Stopped", "nginx has ended");
    }

    /* each calls again when it has ended */
    if (i->process != NULL || i->check != NULL) {
        td_process_signal(i->process != NULL ? i->process : i->check, SIGKILL);
        return;
    }

    /* the tenant has come back meanwhile */
    if (i->work.running) {
        td_instance_go(i, TD_STATE_NEW, "it is wanted again");
        if (i->lock >= 0) {
            td_instance_begin(i);
        } else {
            td_instance_look(i);
        }
        return;
    }

    if (i->strays) {
        td_cgroup_kill(i->host->cgroup, i->group);

        if (td_process_kill_all(i->path, 0) > 0) {
            td_instance_arm(i, TD_INSTANCE_STRAYS);
            return;
        }

        i->strays = 0;
    }

    if (td_prefix_remove(i->path) != 0) {
        td_log(TD_LOG_WARN, i->work.name, "cannot remove %s: %s", i->path,
               strerror(errno));
        td_instance_arm(i, TD_INSTANCE_REMOVE);
        return;
    }

    if (td_cgroup_remove(i->host->cgroup, i->group) != 0) {
        td_instance_arm(i, TD_INSTANCE_STRAYS);
        return;
    }

    if (i->lock >= 0) {
        close(i->lock);
        i->lock = -1;
    }

    if (!i->known) {
        td_instance_go(i, TD_STATE_GONE, "nothing is left of it");
        i->host->gone(i->host->data, i);
        return;
    }

    td_instance_ask(i, TD_SQL_INSTANCE_REMOVED, NULL, td_instance_removed);
}
