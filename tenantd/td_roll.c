/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "td_life.h"
#include "td_log.h"
#include "td_metrics.h"


#define TD_INSTANCE_PROBE_TIMEOUT  2000     /* ms, as the next */
#define TD_INSTANCE_STABLE         60000    /* so long up: failures are over */
#define TD_INSTANCE_SICK           3        /* looks without an answer */


void
td_instance_now_ready(td_instance_t *i, const td_probe_answer_t *answer)
{
    int          live;
    char         message[160];
    td_state_e   before;

    before = i->state;
    live = strcmp(answer->state, "live") == 0;
    i->running = answer->generation;
    i->sick = 0;

    if (before == TD_STATE_STARTING) {
        i->up_since = td_now();
    }

    /* it may have been started with what there was before a refused one */
    if (i->running > i->refused || (i->running == i->refused && !i->kept)) {
        i->refused = 0;
        i->refusals = 0;
    }

    if (i->running == i->record.generation) {
        td_instance_accept(i);
    }

    snprintf(message, sizeof(message), "generation %lld answers%s",
             (long long) i->running, live ? "" : ", from its snapshot");
    td_instance_go(i, TD_STATE_READY, message);

    td_instance_judge(i);
    td_instance_condition(i, TD_CONDITION_READY, 1, "Ready", live ? TD_INSTANCE_SERVES
                          : message);
    td_instance_condition(i, TD_CONDITION_CRASH_LOOPING,
                          td_deaths_loop(&i->deaths, td_now()),
                          td_deaths_loop(&i->deaths, td_now()) ? "Crashing"
                                                               : "Stable", "");
    i->served = live;
    td_instance_tell(i, live, 0, "Ready", live ? TD_INSTANCE_SERVES : message);
    td_instance_arm(i, live ? TD_INSTANCE_HEALTH : TD_INSTANCE_LOADING);

    if (i->known) {
        td_instance_roll(i);
    }
}


/* One look in READY. */
void
td_instance_examined(td_instance_t *i, const td_probe_answer_t *answer)
{
    int  live, was_sick;

    was_sick = i->sick >= TD_INSTANCE_SICK;
    live = strcmp(answer->state, "live") == 0;

    if (answer->status != 200) {
        i->sick++;

        if (i->sick == TD_INSTANCE_SICK) {
            td_log(TD_LOG_WARN, i->work.name, "does not answer on admin.sock");
            td_instance_condition(i, TD_CONDITION_READY, 0, "Silent", "it runs, "
                                  "but does not answer on admin.sock");
            td_instance_tell(i, 0, 0, "Silent", "it runs, but does not answer");
        }

        return;
    }

    i->sick = 0;

    if ((live && !i->served) || was_sick) {
        i->served = live;
        td_instance_condition(i, TD_CONDITION_READY, 1, "Ready",
                              TD_INSTANCE_SERVES);
        td_instance_tell(i, live, 0, "Ready", TD_INSTANCE_SERVES);
    }

    if (i->attempts > 0 && td_now() - i->up_since > TD_INSTANCE_STABLE) {
        i->attempts = 0;
        td_instance_condition(i, TD_CONDITION_CRASH_LOOPING, 0, "Stable", "");
        td_instance_tell(i, 0, 0, "Stable", "it has been up for a minute");
    }
}


static void
td_instance_refuse(td_instance_t *i, const char *reason, const char *message)
{
    i->refused = i->work.generation;
    i->refusals++;
    i->refused_retry = td_now() + td_instance_backoff(i, i->refusals);

    td_prefix_unlink(i->path, "nginx.conf.next");

    if (i->state != TD_STATE_READY) {
        td_instance_go(i, TD_STATE_READY, message);
    }

    td_instance_condition(i, TD_CONDITION_CONFIG_ACCEPTED, 0, reason, message);
    td_instance_tell(i, 0, i->refused_retry - td_now(), reason, message);
    td_instance_arm(i, i->served ? i->refused_retry - td_now()
                                 : TD_INSTANCE_LOADING);
}


static void
td_instance_checked(void *data, int status)
{
    char            message[900];
    tg_error_t      err;
    td_instance_t  *i = data;

    i->check = NULL;

    if (i->state == TD_STATE_REMOVING) {
        td_instance_remove(i);
        return;
    }

    if (i->state != TD_STATE_CHECKING) {
        return;
    }

    if (status != 0) {
        td_instance_output(i, "logs/check.log", 0, NULL, message,
                           sizeof(message));
        td_instance_refuse(i, "ConfigRefused", message[0] != '\0' ? message
                           : "nginx -t took too long, or was ended");
        return;
    }

    /* an operator's restart: nothing ends before it is known to begin again */
    if (td_gateway_restart(i->work.spec) != i->record.restart) {
        td_prefix_unlink(i->path, "nginx.conf.next");
        i->fresh = 1;
        td_instance_drain(i);
        return;
    }

    if (td_prefix_rename(i->path, "nginx.conf.next", "nginx.conf", &err) != 0) {
        td_instance_refuse(i, "PrefixUnwritable", err.message);
        return;
    }

    i->kept = 0;
    i->record.generation = i->work.generation;
    i->record.port = i->work.port;
    i->log_size = td_prefix_size(i->path, "logs/error.log");
    td_instance_save(i);
    td_process_limit_files(i->process, td_instance_apply_limits(i));
    i->reloaded = td_process_clock();
    td_process_signal(i->process, SIGHUP);

    td_instance_go(i, TD_STATE_RELOADING, "nginx accepts the configuration");
    i->deadline = td_now() + td_instance_config(i)->provisioner.start_timeout;
    i->probe_wait = TD_INSTANCE_PROBE_FIRST;
    td_instance_arm(i, i->probe_wait);
}


void
td_instance_roll(td_instance_t *i)
{
    char                   prefix[sizeof(i->path) + 1], conf[sizeof(i->socket)];
    char                   message[80];
    tg_error_t             err;
    const char            *reason;
    td_process_options_t   options;
    char                  *argv[] = {
        td_instance_config(i)->provisioner.nginx, "-t", "-q", "-p", prefix,
        "-c", conf, "-e", "stderr", NULL
    };

    if (i->state != TD_STATE_READY || i->check != NULL || i->work.spec == NULL
        || (i->work.generation == i->running && i->work.port == i->record.port)
        || (i->work.generation == i->refused && td_now() < i->refused_retry))
    {
        return;
    }

    if (td_instance_write_conf(i, "nginx.conf.next", &err, &reason) != 0) {
        td_instance_refuse(i, reason, err.message);
        return;
    }

    snprintf(prefix, sizeof(prefix), "%s/", i->path);
    snprintf(conf, sizeof(conf), "%s/nginx.conf.next", i->path);
    td_instance_options(i, &options);
    options.argv = argv;
    options.output = "logs/check.log";
    options.ended = td_instance_checked;
    i->check = td_process_start(&options);

    if (i->check == NULL) {
        td_instance_refuse(i, "CannotStart", strerror(errno));
        return;
    }

    snprintf(message, sizeof(message), "generation %lld is checked",
             (long long) i->work.generation);
    td_instance_go(i, TD_STATE_CHECKING, message);

    /* one more attempt at what was refused is no news */
    if (i->work.generation != i->refused) {
        td_instance_tell(i, 0, 0, "Checking", message);
    }

    td_instance_arm(i, td_instance_config(i)->provisioner.start_timeout);
}


/* nginx -t does not see everything: what the master only finds when it takes the
 * configuration over is in its log.  1: it was refused. */
static int
td_instance_reload_refused(td_instance_t *i)
{
    long  size;
    char  message[900], master[48];

    size = td_prefix_size(i->path, "logs/error.log");

    if (size <= i->log_size) {
        return 0;
    }

    snprintf(master, sizeof(master), " [emerg] %d#",
             (int) td_process_pid(i->process));
    td_instance_output(i, "logs/error.log", size - i->log_size, master, message,
                       sizeof(message));

    if (message[0] == '\0') {
        return 0;
    }

    td_instance_fall_back(i);
    td_instance_refuse(i, "ConfigRefused", message);

    return 1;
}


void
td_instance_probed(void *data, const td_probe_answer_t *answer)
{
    td_instance_t  *i = data;

    i->probe = NULL;

    switch (i->state) {

    case TD_STATE_READY:
        td_instance_examined(i, answer);
        break;

    case TD_STATE_ADOPTED:
        if (answer->status != 0 && answer->generation != 0) {
            td_instance_now_ready(i, answer);
        }
        break;

    case TD_STATE_RELOADING:
        if (answer->generation != i->record.generation
            && td_instance_reload_refused(i))
        {
            break;
        }

        /* for a moment old workers take connections beside the new ones */
        if (td_process_has_old_workers(i->process, i->reloaded)) {
            break;
        }

        /* fall through */

    case TD_STATE_STARTING:
        /* 0: of an older tenantd that has not written it down */
        if (answer->status == 200
            && (answer->generation == i->record.generation
                || i->record.generation == 0))
        {
            td_instance_now_ready(i, answer);
        }
        break;

    default:
        break;
    }
}


void
td_instance_look_at(td_instance_t *i)
{
    td_probe_answer_t  none = { 0, 0, "" };

    if (i->probe != NULL) {
        return;
    }

    i->probe = td_probe_start(i->host->base, i->socket,
                              TD_INSTANCE_PROBE_TIMEOUT, td_instance_probed, i);

    if (i->probe == NULL && i->state == TD_STATE_READY) {
        td_instance_examined(i, &none);
    }
}


void
td_instance_died(td_instance_t *i, int status)
{
    int   loops;
    char  message[128];
    long  now;

    now = td_now();
    td_instance_describe(status, message, sizeof(message));
    loops = td_deaths_add(&i->deaths, now);
    td_metric_add(TD_METRIC_INSTANCE_RESTARTS, 1);
    i->record.restarts++;
    td_instance_save(i);

    if (loops) {
        td_instance_condition(i, TD_CONDITION_CRASH_LOOPING, 1, "Crashing",
                              "it has died five times within a minute");
    }

    if (i->attempts > 0 && now - i->up_since > TD_INSTANCE_STABLE) {
        i->attempts = 0;
    }

    /* what it has answered with does not last: perhaps what is wanted does */
    i->fresh = loops && i->refused != i->work.generation;

    if (i->attempts > 0) {
        td_instance_fail(i, loops ? "CrashLooping" : "Died", "%s", message);
        return;
    }

    /* for the first time: again, and at once */
    i->attempts++;
    td_instance_go(i, TD_STATE_BACKOFF, message);
    td_instance_condition(i, TD_CONDITION_READY, 0, "Died", message);
    td_instance_tell(i, 0, 1, "Died", message);
    td_instance_arm(i, 0);
}


void
td_instance_late(td_instance_t *i)
{
    char  message[800];

    if (i->state == TD_STATE_RELOADING) {
        td_instance_output(i, "logs/error.log", 0, NULL, message,
                           sizeof(message));
        td_instance_fall_back(i);
        td_instance_refuse(i, "NotReloaded", message);
        return;
    }

    if (i->state == TD_STATE_ADOPTED) {
        td_instance_go(i, TD_STATE_READY, "it was running already, but does not "
                       "answer");
        i->sick = TD_INSTANCE_SICK - 1;
        td_instance_arm(i, 0);
        return;
    }

    i->doubt = 1;
    i->fresh = i->kept && i->refused != i->work.generation;
    td_instance_output(i, "logs/error.log", 0, NULL, message, sizeof(message));
    td_process_signal(i->process, SIGKILL);
    td_instance_fail(i, "Late", "nginx has not answered in %ld ms: %s",
                     td_instance_config(i)->provisioner.start_timeout, message);
}
