/* SPDX-License-Identifier: BSD-2-Clause */

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "td_life.h"
#include "td_log.h"
#include "td_sql.h"


#define TD_INSTANCE_PROBE_MOST  25
#define TD_INSTANCE_OUTPUT      4096


long long
td_instance_wall(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (long long) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


void
td_instance_arm(td_instance_t *i, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(i->timer, &tv);
}


void
td_instance_condition(td_instance_t *i, td_condition_e which, int status,
    const char *reason, const char *message)
{
    td_condition_t  *condition;

    condition = &i->condition[which];
    condition->known = 1;
    condition->status = status;
    snprintf(condition->reason, sizeof(condition->reason), "%s", reason);
    snprintf(condition->message, sizeof(condition->message), "%s", message);
}


void
td_instance_tell(td_instance_t *i, int ready, long retry, const char *reason,
    const char *message)
{
    td_observation_t  o;

    if (!i->known) {
        return;
    }

    memset(&o, 0, sizeof(o));
    o.phase = td_state_phase(i->state);
    o.generation = i->running;
    o.conditions = i->condition;
    o.pid = i->process != NULL ? td_process_pid(i->process) : 0;
    o.attempts = i->attempts;
    o.retry_at = retry > 0 ? td_instance_wall() + retry : 0;
    o.restarts = i->record.restarts;
    o.reason = reason;
    o.message = message;
    o.ready = ready;

    td_report_add(i->report, &o);
}


void
td_instance_go(td_instance_t *i, td_state_e to, const char *reason)
{
    if (!td_state_may_follow(i->state, to)) {
        td_log(TD_LOG_ALERT, i->work.name, "%s must not follow %s",
               td_state_name(to), td_state_name(i->state));
    }

    td_log(to == TD_STATE_BACKOFF ? TD_LOG_WARN : TD_LOG_NOTICE, i->work.name,
           "%s -> %s: %s", td_state_name(i->state), td_state_name(to), reason);

    i->state = to;
    evtimer_del(i->timer);
    td_job_cancel(&i->job);

    if (i->probe != NULL) {
        td_probe_cancel(i->probe);
        i->probe = NULL;
    }
}


const td_config_t *
td_instance_config(const td_instance_t *i)
{
    return i->host->config;
}


long
td_instance_backoff(const td_instance_t *i, int failures)
{
    uint32_t  random;

    evutil_secure_rng_get_bytes(&random, sizeof(random));

    return td_state_backoff(failures,
                            td_instance_config(i)->provisioner.backoff_min,
                            td_instance_config(i)->provisioner.backoff_max,
                            random);
}


void
td_instance_fail(td_instance_t *i, const char *reason, const char *fmt, ...)
{
    char     message[1000];
    long     wait;
    va_list  args;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);

    i->attempts++;
    wait = td_instance_backoff(i, i->attempts);

    td_instance_go(i, TD_STATE_BACKOFF, message);
    td_instance_condition(i, TD_CONDITION_READY, 0, reason, message);
    td_instance_tell(i, 0, wait, reason, message);
    td_instance_arm(i, wait);
}


void
td_instance_ask(td_instance_t *i, int statement,
    void (*result)(td_job_t *job, unsigned step, PGresult *result),
    void (*done)(td_job_t *job, td_job_outcome_e outcome,
        const PGresult *error))
{
    td_pg_step_t  *step;

    if (i->job.pool != NULL) {
        return;
    }

    i->job.result = result;
    i->job.done = done;
    i->job.data = i;

    td_job_reset(&i->job);
    td_job_step(&i->job, TD_SQL_BEGIN);
    step = td_job_step(&i->job, statement);
    step->param[0] = i->work.name;

    if (statement == TD_SQL_INSTANCE_PORT) {
        snprintf(i->first, sizeof(i->first), "%ld",
                 td_instance_config(i)->provisioner.ports.first);
        snprintf(i->last, sizeof(i->last), "%ld",
                 td_instance_config(i)->provisioner.ports.last);
        step->param[1] = i->first;
        step->param[2] = i->last;
    }

    td_job_step(&i->job, TD_SQL_COMMIT);
    td_job_submit(i->host->pool, &i->job);
}


/* What a line of nginx's log says, without time, level and process, which are
 * others with each attempt; NULL: nothing of interest. */
static const char *
td_instance_gist(const char *line)
{
    const char  *p;

    if (strncmp(line, "nginx: configuration file ", 26) == 0) {
        return NULL;
    }

    p = strncmp(line, "nginx: [", 8) == 0 ? line + 7
        : strspn(line, "0123456789/") == 10 ? strchr(line, '[') : NULL;
    p = p != NULL ? strstr(p, "] ") : NULL;

    if (p == NULL) {
        return line;
    }

    p += 2;

    return p[strspn(p, "0123456789#")] == ':' ? strchr(p, ':') + 2 : p;
}


void
td_instance_output(td_instance_t *i, const char *file, long most,
    const char *with, char *text, size_t size)
{
    char        *output, *line, *save;
    size_t       len;
    const char  *gist;

    len = 0;
    text[0] = '\0';
    output = td_prefix_read(i->path, file,
                            most > 0 && most < TD_INSTANCE_OUTPUT
                            ? (size_t) most : TD_INSTANCE_OUTPUT);

    for (line = output != NULL ? strtok_r(output, "\n", &save) : NULL;
         line != NULL;
         line = strtok_r(NULL, "\n", &save))
    {
        gist = with == NULL || strstr(line, with) != NULL
               ? td_instance_gist(line) : NULL;

        if (gist != NULL && len < size) {
            len += (size_t) snprintf(text + len, size - len, "%s%s",
                                     len > 0 ? "; " : "", gist);
        }
    }

    free(output);
}


void
td_instance_save(td_instance_t *i)
{
    tg_error_t  err;

    i->record.pid = i->process != NULL ? td_process_pid(i->process) : 0;
    i->record.started = i->process != NULL ? td_process_started(i->process) : 0;
    snprintf(i->record.registry, sizeof(i->record.registry), "%s",
             i->host->registry);

    /* without it, nginx is found by where it works */
    if (td_prefix_save(i->path, &i->record, &err) != 0) {
        td_log(TD_LOG_WARN, i->work.name, "%s", err.message);
    }
}


static void
td_instance_master_ended(void *data, int status)
{
    td_instance_t  *i = data;

    i->process = NULL;
    i->running = 0;
    i->served = 0;

    switch (i->state) {

    case TD_STATE_STARTING:
        td_instance_stillborn(i, status);
        break;

    case TD_STATE_DRAINING:
    case TD_STATE_REMOVING:
        td_instance_remove(i);
        break;

    case TD_STATE_KILLING:
        td_instance_kill(i);
        break;

    case TD_STATE_BACKOFF:
        break;          /* it was ended for not answering */

    default:
        td_instance_died(i, status);
    }
}


void
td_instance_options(td_instance_t *i, td_process_options_t *options)
{
    memset(options, 0, sizeof(td_process_options_t));
    options->base = i->host->base;
    options->directory = i->path;
    options->cgroup = -1;
    options->uid = i->own ? i->uid : 0;
    options->ended = td_instance_master_ended;
    options->data = i;
}


static void
td_instance_probe_again(td_instance_t *i)
{
    if (td_now() > i->deadline) {
        td_instance_late(i);
        return;
    }

    td_instance_look_at(i);
    i->probe_wait += i->probe_wait / 2;

    if (i->probe_wait > TD_INSTANCE_PROBE_MOST) {
        i->probe_wait = TD_INSTANCE_PROBE_MOST;
    }

    td_instance_arm(i, i->probe_wait);
}


static void
td_instance_on_timer(evutil_socket_t fd, short what, void *data)
{
    td_instance_t  *i = data;

    (void) fd;
    (void) what;

    switch (i->state) {

    case TD_STATE_NEW:
        /* the registry does not say what is wanted: what was, then */
        if (i->lock >= 0) {
            td_instance_begin(i);
        }
        break;

    case TD_STATE_LEASED:
        td_instance_go(i, TD_STATE_NEW, "perhaps the other tenantd is gone");
        td_instance_look(i);
        break;

    case TD_STATE_BACKOFF:
        if (i->lock < 0) {
            td_instance_go(i, TD_STATE_NEW, "another attempt");
            td_instance_look(i);
        } else if (i->process != NULL) {
            td_instance_arm(i, TD_INSTANCE_STRAYS);
        } else {
            td_instance_begin(i);
        }
        break;

    case TD_STATE_ADOPTED:
    case TD_STATE_STARTING:
    case TD_STATE_RELOADING:
        td_instance_probe_again(i);
        break;

    case TD_STATE_READY:
        td_instance_arm(i, i->served ? TD_INSTANCE_HEALTH
                                     : TD_INSTANCE_LOADING);
        td_instance_look_at(i);
        td_instance_roll(i);
        break;

    case TD_STATE_CHECKING:
        td_process_signal(i->check, SIGKILL);
        break;

    case TD_STATE_DRAINING:
    case TD_STATE_KILLING:
        td_instance_kill(i);
        break;

    case TD_STATE_REMOVING:
        td_instance_remove(i);
        break;

    default:
        break;
    }
}


static void
td_instance_told(void *data, int ready)
{
    td_instance_t  *i = data;

    if (ready) {
        i->host->ready(i->host->data);
    }
}


/* Another tenantd of this machine, with a registry of its own, may have an instance
 * of the same name, but in another directory. */
static void
td_instance_name_group(td_instance_t *i, const char *name)
{
    uint32_t     h;
    const char  *p;

    h = 2166136261u;            /* FNV-1a */

    for (p = i->path; *p != '\0'; p++) {
        h = (h ^ (unsigned char) *p) * 16777619u;
    }

    snprintf(i->group, sizeof(i->group), "%s-%08x", name, (unsigned) h);
}


void
td_instance_own(td_instance_t *i, int own, uid_t uid)
{
    i->own = own;
    i->uid = uid;
    snprintf(i->socket, sizeof(i->socket), "%s%s/admin.sock", i->path,
             own ? "/run" : "");
}


td_instance_t *
td_instance_create(const td_host_t *host, const char *name)
{
    char            cgroup[PATH_MAX + 128];
    td_instance_t  *i;

    i = calloc(1, sizeof(td_instance_t));
    if (i == NULL) {
        return NULL;
    }

    i->host = host;
    i->lock = -1;
    i->work.running = 1;
    snprintf(i->work.name, sizeof(i->work.name), "%s", name);
    snprintf(i->path, sizeof(i->path), "%s/%s",
             host->config->provisioner.directory, name);
    td_instance_own(i, 0, 0);
    td_instance_name_group(i, name);
    i->timer = evtimer_new(host->base, td_instance_on_timer, i);
    td_cgroup_where(host->cgroup, i->group, cgroup, sizeof(cgroup));
    i->report = td_report_create(host->pool, name, cgroup, td_instance_told, i);

    if (i->timer == NULL || i->report == NULL) {
        td_instance_destroy(i);
        return NULL;
    }

    return i;
}


void
td_instance_destroy(td_instance_t *i)
{
    if (i == NULL) {
        return;
    }

    if (i->timer != NULL) {
        event_free(i->timer);
    }

    td_job_cancel(&i->job);
    td_report_destroy(i->report);
    td_probe_cancel(i->probe);
    td_process_release(i->check);
    td_process_release(i->process);
    json_decref(i->work.spec);

    if (i->lock >= 0) {
        close(i->lock);
    }

    free(i);
}


int
td_instance_wants(const td_instance_t *i, const td_work_t *work)
{
    return i->known && i->work.spec != NULL
           && i->work.generation == work->generation
           && i->work.running == work->running
           && (i->work.port == work->port || work->read_at <= i->port_at);
}


/* The registry wants it to run, in perhaps another way than before. */
static void
td_instance_want_running(td_instance_t *i, int changed)
{
    switch (i->state) {

    case TD_STATE_NEW:
        if (i->lock >= 0) {
            td_instance_begin(i);
        } else {
            td_instance_look(i);
        }
        break;

    case TD_STATE_READY:
        td_instance_roll(i);
        break;

    case TD_STATE_BACKOFF:
        /* what has failed may be what was changed */
        if (changed) {
            i->attempts = 0;
            td_instance_arm(i, 0);
        }
        break;

    default:
        break;
    }
}


static void
td_instance_want_absent(td_instance_t *i)
{
    switch (i->state) {

    case TD_STATE_NEW:
        if (i->lock >= 0) {
            td_instance_remove(i);
        } else {
            td_instance_look(i);
        }
        break;

    case TD_STATE_TOKEN:
    case TD_STATE_PORT:
    case TD_STATE_BACKOFF:
        td_instance_remove(i);
        break;

    case TD_STATE_ADOPTED:
    case TD_STATE_STARTING:
    case TD_STATE_READY:
    case TD_STATE_CHECKING:
    case TD_STATE_RELOADING:
        td_instance_drain(i);
        break;

    default:
        break;
    }
}


void
td_instance_want(td_instance_t *i, td_work_t *work)
{
    int  changed, known;

    /* an older read than the last */
    if (i->known && work->generation < i->work.generation) {
        json_decref(work->spec);
        work->spec = NULL;
        return;
    }

    known = i->known;
    changed = known && work->generation != i->work.generation;

    if (known && work->read_at <= i->port_at) {
        work->port = i->work.port;
    }

    /* it comes only when the registry thinks that something is to be done */
    if (work->spec == NULL) {
        work->spec = json_incref(i->work.spec);
    }

    json_decref(i->work.spec);
    i->work = *work;
    i->known = 1;
    work->spec = NULL;

    if (!known && i->state == TD_STATE_READY) {
        td_instance_judge(i);
        td_instance_tell(i, i->served, 0, "Ready", TD_INSTANCE_SERVES);
    }

    if (i->work.running) {
        td_instance_want_running(i, changed);
    } else {
        td_instance_want_absent(i);
    }
}


void
td_instance_vanish(td_instance_t *i)
{
    if (i->state == TD_STATE_LEASED
        || (i->state == TD_STATE_NEW && i->lock < 0))
    {
        td_instance_go(i, TD_STATE_GONE, "the registry knows it no more");
        i->host->gone(i->host->data, i);
        return;
    }

    /* what another registry has ordered is none of this one's business */
    if (i->record.registry[0] != '\0'
        && strcmp(i->record.registry, i->host->registry) != 0)
    {
        return;
    }

    if (i->work.running) {
        td_log(TD_LOG_WARN, i->work.name, "the registry knows it no more");
        i->work.running = 0;
        i->known = 0;
        td_instance_want_absent(i);
    }
}


void
td_instance_adopt(td_instance_t *i)
{
    td_instance_look(i);
}


void
td_instance_retry(td_instance_t *i)
{
    td_report_retry(i->report);

    if (i->job.pool != NULL) {
        return;
    }

    if (i->state == TD_STATE_TOKEN || i->state == TD_STATE_PORT) {
        td_instance_begin(i);

    } else if (i->state == TD_STATE_REMOVING && i->lock < 0) {
        td_instance_remove(i);
    }
}


const char *
td_instance_name(const td_instance_t *i)
{
    return i->work.name;
}


td_state_e
td_instance_state(const td_instance_t *i)
{
    return i->state;
}


unsigned
td_instance_seen(const td_instance_t *i)
{
    return i->seen;
}


void
td_instance_see(td_instance_t *i, unsigned round)
{
    i->seen = round;
}
