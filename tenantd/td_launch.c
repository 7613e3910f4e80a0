/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "td_fault.h"
#include "td_life.h"
#include "td_log.h"
#include "td_sql.h"
#include "td_users.h"


#define TD_INSTANCE_PORTS     16    /* taken ones before it is a failure */
#define TD_INSTANCE_SOCKETS   500   /* ms in which those of the dead are closed */
#define TD_INSTANCE_REGISTRY  2000  /* ms in which the registry may say what is
                                     * wanted, before what was is started */


/* Whether the job's outcome is an answer; without, td_instance_retry() asks anew. */
static int
td_instance_answered(td_instance_t *i, td_job_outcome_e outcome,
    const PGresult *error)
{
    if (outcome == TD_JOB_ERROR) {
        td_instance_fail(i, "RegistryRefused", "%s",
                         td_fault_text(error));
    }

    return outcome == TD_JOB_OK;
}


static void
td_instance_on_token(td_job_t *job, unsigned step, PGresult *result)
{
    char           *token;
    tg_error_t      err;
    td_instance_t  *i = job->data;

    if (job->step[step].statement != TD_SQL_INSTANCE_TOKEN
        || PQntuples(result) != 1)
    {
        return;
    }

    token = PQgetvalue(result, 0, 0);

    if (td_prefix_write(i->path, "token.next", token, strlen(token),
                        i->own ? 0640 : 0600, &err) != 0)
    {
        td_log(TD_LOG_ERR, i->work.name, "%s", err.message);
    }
}


/* Only now is it sure that the registry knows the token. */
static void
td_instance_token_done(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    tg_error_t      err;
    td_instance_t  *i = job->data;

    /* what it has must do while nobody can give it another */
    if (outcome != TD_JOB_OK && i->doubt && td_prefix_has(i->path, "token")) {
        i->doubt = 0;
        td_instance_begin(i);
        return;
    }

    if (!td_instance_answered(i, outcome, error)) {
        return;
    }

    i->doubt = 0;

    if (td_prefix_rename(i->path, "token.next", "token", &err) != 0) {
        td_instance_fail(i, "PrefixUnwritable", "%s", err.message);
        return;
    }

    td_instance_begin(i);
}


static void
td_instance_on_port(td_job_t *job, unsigned step, PGresult *result)
{
    td_instance_t  *i = job->data;

    if (job->step[step].statement == TD_SQL_INSTANCE_PORT
        && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0))
    {
        i->work.port = atoi(PQgetvalue(result, 0, 0));
        i->port_at = td_now();
    }
}


static void
td_instance_port_done(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    td_instance_t  *i = job->data;

    if (!td_instance_answered(i, outcome, error)) {
        return;
    }

    if (++i->ports > TD_INSTANCE_PORTS) {
        i->ports = 0;
        td_instance_fail(i, "NoFreePort", "no port of [provisioner] ports was "
                         "free, the last was %d", i->work.port);
        return;
    }

    td_instance_begin(i);
}


static void
td_instance_want_port(td_instance_t *i)
{
    char  message[128];

    if (i->state == TD_STATE_PORT && i->job.pool != NULL) {
        return;
    }

    snprintf(message, sizeof(message), "port %d is taken by another process: "
             "another one is asked for", i->work.port);
    td_instance_go(i, TD_STATE_PORT, message);
    td_instance_tell(i, 0, 0, "PortTaken", message);
    td_instance_ask(i, TD_SQL_INSTANCE_PORT, td_instance_on_port,
                    td_instance_port_done);
}


/* Whether somebody else listens at the instance's port: nginx would take two and a
 * half seconds to say so. */
static int
td_instance_port_taken(td_instance_t *i, int port)
{
    int                  fd, taken, on;
    socklen_t            len;
    const char          *address;
    union {
        struct sockaddr      sa;
        struct sockaddr_in   in;
        struct sockaddr_in6  in6;
    } u;

    memset(&u, 0, sizeof(u));
    address = td_instance_config(i)->provisioner.address;

    if (inet_pton(AF_INET, address, &u.in.sin_addr) == 1) {
        u.in.sin_family = AF_INET;
        u.in.sin_port = htons((uint16_t) port);
        len = sizeof(u.in);

    } else if (inet_pton(AF_INET6, address, &u.in6.sin6_addr) == 1) {
        u.in6.sin6_family = AF_INET6;
        u.in6.sin6_port = htons((uint16_t) port);
        len = sizeof(u.in6);

    } else {
        return 0;
    }

    fd = socket(u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return 0;
    }

    on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    taken = bind(fd, &u.sa, len) != 0 && errno == EADDRINUSE;

    /* another that listens need not have said SO_REUSEADDR: bind() tells of it */
    close(fd);

    return taken;
}


long
td_instance_apply_limits(td_instance_t *i)
{
    char                 missing[256];
    long                 nofile;
    td_cgroup_limits_t   limits;

    /* until the registry is read, what is set stays */
    if (i->work.spec == NULL) {
        return 0;
    }

    td_gateway_limits(i->work.spec, &limits, &nofile);

    if (td_cgroup_limit(i->host->cgroup, i->group, &limits, missing,
                        sizeof(missing)) == 0)
    {
        td_instance_condition(i, TD_CONDITION_LIMITS_ENFORCED, 1, "Enforced",
                              "");
    } else {
        if (strcmp(i->condition[TD_CONDITION_LIMITS_ENFORCED].message, missing)
            != 0)
        {
            td_log(TD_LOG_NOTICE, i->work.name, "%s", missing);
        }

        td_instance_condition(i, TD_CONDITION_LIMITS_ENFORCED, 0,
                              "ControllerMissing", missing);
    }

    return nofile;
}


static td_process_t *
td_instance_spawn(td_instance_t *i)
{
    int                    error;
    char                   prefix[sizeof(i->path) + 1], conf[sizeof(i->socket)];
    td_process_t          *process;
    td_process_options_t   options;
    char                  *argv[] = {
        td_instance_config(i)->provisioner.nginx, "-p", prefix, "-c", conf,
        "-e", "stderr", NULL
    };

    snprintf(prefix, sizeof(prefix), "%s/", i->path);
    snprintf(conf, sizeof(conf), "%s/nginx.conf", i->path);
    td_instance_options(i, &options);
    options.argv = argv;
    options.output = "logs/start.log";
    options.cgroup = td_cgroup_open(i->host->cgroup, i->group);
    options.nofile = td_instance_apply_limits(i);

    process = td_process_start(&options);
    error = errno;

    if (options.cgroup >= 0) {
        close(options.cgroup);
    }

    errno = error;

    return process;
}


/* Everything is there that a start needs, and nothing runs. */
static void
td_instance_start(td_instance_t *i)
{
    char         message[64];
    tg_error_t   err;
    const char  *reason;

    if (td_instance_prepare(i, &err, &reason) != 0) {
        td_instance_fail(i, reason, "%s", err.message);
        return;
    }

    /* a socket that a killed nginx has left would stop the next one */
    td_prefix_unlink(i->path, i->own ? "run/admin.sock" : "admin.sock");
    td_prefix_unlink(i->path, i->own ? "run/nginx.pid" : "nginx.pid");

    i->strays = 1;
    i->process = td_instance_spawn(i);

    if (i->process == NULL) {
        td_instance_fail(i, "CannotStart", "cannot start %s: %s",
                         td_instance_config(i)->provisioner.nginx,
                         strerror(errno));
        return;
    }

    i->ports = 0;
    i->fresh = 0;
    i->record.ending = 0;
    i->record.restart = i->work.spec != NULL
                        ? td_gateway_restart(i->work.spec) : i->record.restart;
    i->record.since = td_instance_wall();
    td_instance_save(i);

    snprintf(message, sizeof(message), "nginx starts with generation %lld",
             (long long) i->record.generation);
    td_instance_go(i, TD_STATE_STARTING, message);
    td_instance_condition(i, TD_CONDITION_READY, 0, "Starting", message);
    td_instance_tell(i, 0, 0, "Starting", message);

    i->deadline = td_now() + td_instance_config(i)->provisioner.start_timeout;
    i->probe_wait = TD_INSTANCE_PROBE_FIRST;
    td_instance_arm(i, i->probe_wait);
}


void
td_instance_begin(td_instance_t *i)
{
    if (!i->work.running) {
        td_instance_remove(i);
        return;
    }

    if (i->strays) {
        td_cgroup_kill(i->host->cgroup, i->group);

        if (td_process_kill_all(i->path, 0) > 0) {
            if (i->state != TD_STATE_BACKOFF) {
                td_instance_go(i, TD_STATE_BACKOFF, "processes of an earlier "
                               "nginx are ended");
            }
            td_instance_arm(i, TD_INSTANCE_STRAYS);
            return;
        }

        i->strays = 0;
        i->ended_at = td_now();
    }

    if (!td_prefix_has(i->path, "token") || (i->doubt && i->known)) {
        if (i->state != TD_STATE_TOKEN) {
            td_instance_go(i, TD_STATE_TOKEN, "a credential is asked for");
        }
        td_instance_ask(i, TD_SQL_INSTANCE_TOKEN, td_instance_on_token,
                        td_instance_token_done);
        return;
    }

    if (td_instance_port_taken(i, i->known ? i->work.port : i->record.port)) {
        /* what was killed a moment ago is gone before its sockets are */
        if (td_now() - i->ended_at < TD_INSTANCE_SOCKETS) {
            if (i->state != TD_STATE_BACKOFF) {
                td_instance_go(i, TD_STATE_BACKOFF, "the port of an earlier "
                               "nginx becomes free");
            }
            td_instance_arm(i, TD_INSTANCE_STRAYS);
            return;
        }

        td_instance_want_port(i);
        return;
    }

    td_instance_start(i);
}


/* The lock is ours: what is there already? */
static void
td_instance_take_over(td_instance_t *i)
{
    int                    had;
    pid_t                  pid;
    long long              wait;
    td_process_options_t   options;

    td_instance_options(i, &options);
    had = td_prefix_load(i->path, &i->record) == 0;
    pid = i->record.pid;

    i->process = had ? td_process_adopt(&options, pid, i->record.started) : NULL;

    if (i->process == NULL && (had || td_prefix_has(i->path, "nginx.conf"))) {
        /* it may have been started without being written down */
        i->strays = 1;
        pid = td_process_find_master(i->path, &i->record.started);
        i->process = pid != 0 ? td_process_adopt(&options, pid,
                                                 i->record.started) : NULL;
    }

    if (i->process != NULL) {
        i->strays = 1;
        i->running = i->record.generation;
        i->kept = i->record.generation == i->record.accepted;
        i->up_since = td_now();
        td_instance_go(i, TD_STATE_ADOPTED, "nginx is running already");
        i->deadline = td_now()
                      + td_instance_config(i)->provisioner.start_timeout;
        i->probe_wait = TD_INSTANCE_PROBE_FIRST;

        if (i->known && !i->work.running) {
            td_instance_drain(i);
        } else {
            td_instance_arm(i, 0);
        }

        return;
    }

    if (!i->known) {
        /* td_instance_want() goes on, but it must not be waited for */
        if (td_instance_has_accepted(i) && !i->record.ending) {
            td_instance_arm(i, TD_INSTANCE_REGISTRY);
        }

        return;
    }

    wait = i->work.retry_at - td_instance_wall();

    if (i->work.running && i->work.attempts > 0 && wait > 0) {
        i->attempts = i->work.attempts;
        td_instance_go(i, TD_STATE_BACKOFF, "the last attempt has failed");
        td_instance_arm(i, wait < td_instance_config(i)->provisioner.backoff_max
                        ? (long) wait
                        : td_instance_config(i)->provisioner.backoff_max);
        return;
    }

    td_instance_begin(i);
}


/* Whose it is, and all that it needs; make: also if there is nothing yet. */
static int
td_instance_settle(td_instance_t *i, int make, tg_error_t *err)
{
    int                 rc;
    uid_t               uid;
    const td_config_t  *config;

    config = td_instance_config(i);

    if (i->host->users) {
        if (make
            && td_prefix_make_parents(config->provisioner.directory, err) != 0)
        {
            return -1;
        }

        rc = td_users_take(config->provisioner.directory, i->path,
                           &config->provisioner.users, make, &uid, err);

        if (rc == 1 && i->host->user == NULL && make) {
            tg_error_set(err, "", "the group of %.150s is not of [provisioner] "
                         "users, and there is no user", i->path);
            return -1;
        }

        if (rc == 0) {
            td_instance_own(i, 1, uid);
        }

        if (rc < 0 && make) {
            return -1;
        }
    }

    return make ? td_prefix_make(config->provisioner.directory, i->path,
                                 i->own ? i->uid : i->host->uid,
                                 i->own ? (gid_t) i->uid : i->host->gid,
                                 i->own, err) : 0;
}


void
td_instance_look(td_instance_t *i)
{
    tg_error_t  err;

    if (td_instance_settle(i, i->known && i->work.running, &err) != 0) {
        td_instance_fail(i, "PrefixUnwritable", "%s", err.message);
        return;
    }

    i->lock = td_prefix_lock(i->path);

    if (i->lock >= 0) {
        td_instance_take_over(i);
        return;
    }

    if (errno == EWOULDBLOCK) {
        td_instance_go(i, TD_STATE_LEASED, "another tenantd of this machine "
                       "looks after it");
        td_instance_arm(i, td_instance_config(i)->provisioner.poll);

    } else if (errno == ENOENT && i->known && !i->work.running) {
        td_instance_remove(i);

    } else if (i->known) {
        td_instance_fail(i, "PrefixUnwritable", "cannot lock %.200s/lock: %s",
                         i->path, strerror(errno));
    }
}


void
td_instance_describe(int status, char *text, size_t size)
{
    if (status == -1) {
        snprintf(text, size, "nginx has ended");

    } else if (WIFSIGNALED(status)) {
        snprintf(text, size, "nginx was ended by signal %d", WTERMSIG(status));

    } else {
        snprintf(text, size, "nginx has ended with status %d",
                 WEXITSTATUS(status));
    }
}


/* The other one is tried: at once the accepted one, and what is wanted in turn with
 * it if that does not start any more either. */
static void
td_instance_refused_start(td_instance_t *i, const char *message)
{
    td_instance_condition(i, TD_CONDITION_CONFIG_ACCEPTED, 0, "ConfigRefused",
                          message);

    if (i->kept) {
        i->fresh = 1;
        td_instance_fail(i, "ConfigRefused", "%s", message);
        return;
    }

    i->refused = i->work.generation;
    i->refusals++;
    i->refused_retry = td_now() + td_instance_backoff(i, i->refusals);

    if (!td_instance_has_accepted(i) || i->attempts > 1) {
        td_instance_fail(i, "ConfigRefused", "%s", message);
        return;
    }

    i->attempts++;
    td_instance_go(i, TD_STATE_BACKOFF, message);
    td_instance_condition(i, TD_CONDITION_READY, 0, "ConfigRefused", message);
    td_instance_tell(i, 0, 1, "ConfigRefused", message);
    td_instance_arm(i, 0);
}


void
td_instance_stillborn(td_instance_t *i, int status)
{
    char  message[900], ended[128], port[32];

    td_instance_output(i, "logs/start.log", 0, NULL, message, sizeof(message));
    td_instance_describe(status, ended, sizeof(ended));
    snprintf(port, sizeof(port), ":%d failed (98", i->work.port);

    if (strstr(message, port) != NULL) {
        td_instance_want_port(i);
        return;
    }

    /* it says why, and ends by itself, when it is the configuration */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1 && message[0] != '\0') {
        td_instance_refused_start(i, message);
        return;
    }

    i->fresh = i->kept && i->refused != i->work.generation;

    td_instance_fail(i, "CannotStart", "%s%s%s", ended,
                     message[0] != '\0' ? ": " : "", message);
}
