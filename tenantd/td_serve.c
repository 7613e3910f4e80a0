/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd serve: makes the parts, runs the loop, ends them in order.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>
#include <openssl/crypto.h>

#include "config.h"
#include "td_ack.h"
#include "td_batch.h"
#include "td_cli.h"
#include "td_daemon.h"
#include "td_dispatch.h"
#include "td_fault.h"
#include "td_feed.h"
#include "td_flows.h"
#include "td_http.h"
#include "td_jwks.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_notify.h"
#include "td_pool.h"
#include "td_handover.h"
#include "td_provision.h"
#include "td_sql.h"
#include "td_tls.h"
#include "td_watch.h"


#define TD_SERVE_LIST_TIMEOUT   (120 * 1000)    /* ms for one statement */
#define TD_SERVE_LIST_QUEUE     4096
#define TD_SERVE_CHORES         60              /* seconds */
#define TD_SERVE_DRAIN_TICK     20              /* ms */
#define TD_SERVE_AWAY_TICK      1               /* seconds */

typedef struct {
    td_daemon_t    daemon;
    td_cli_t      *cli;
    struct event  *term;
    struct event  *interrupt;
    struct event  *hangup;
    struct event  *chores;
    struct event  *drain;
    struct event  *away;
    td_job_t       housekeeping;
    td_job_t       nodes_away;
    long           reachable;       /* since when agents could report; 0: not now */
    char           reachable_ms[24];
    long           drain_until;
} td_serve_t;


static int
td_serve_load_key(td_daemon_t *daemon, const td_config_t *config,
    tg_error_t *err)
{
    uint8_t  key[TG_SECRET_KEY_SIZE];

    if (config->secrets.key_file[0] == '\0') {
        daemon->has_secret_key = 0;
        return 0;
    }

    if (tg_secret_load_key(config->secrets.key_file, key, err) != 0) {
        return -1;
    }

    memcpy(daemon->secret_key, key, sizeof(key));
    OPENSSL_cleanse(key, sizeof(key));
    daemon->has_secret_key = 1;

    return 0;
}


static void
td_serve_on_changed(const td_option_t *option, int effective)
{
    td_log(effective ? TD_LOG_NOTICE : TD_LOG_WARN, "config",
           effective ? "[%s] %s has changed"
                     : "[%s] %s has changed: this takes a restart",
           option->section, option->key);
}


static void
td_serve_on_hangup(evutil_socket_t fd, short what, void *data)
{
    td_serve_t   *serve = data;
    tg_error_t    err;
    td_config_t  *fresh;

    (void) fd;
    (void) what;

    fresh = td_cli_load(serve->cli, &err);

    if (fresh == NULL || td_serve_load_key(&serve->daemon, fresh, &err) != 0) {
        td_log(TD_LOG_ERR, "config", "not reloaded: %s", err.message);
        td_config_destroy(fresh);
        return;
    }

    td_config_reload(serve->daemon.config, fresh, td_serve_on_changed);
    td_log_set_level((td_log_level_e) serve->daemon.config->log.level);

    if (td_http_reload(serve->daemon.http, &err) != 0) {
        td_log(TD_LOG_ERR, "config", "certificates not reloaded: %s",
               err.message);
        return;
    }

    td_log(TD_LOG_NOTICE, "config", "reloaded");
}


static void
td_serve_on_drain(evutil_socket_t fd, short what, void *data)
{
    td_serve_t  *serve = data;

    (void) fd;
    (void) what;

    if (td_http_connections(serve->daemon.http) == 0) {
        event_base_loopbreak(serve->daemon.base);

    } else if (td_now() > serve->drain_until) {
        td_log(TD_LOG_WARN, NULL, "%d connections are cut off",
               td_http_connections(serve->daemon.http));
        event_base_loopbreak(serve->daemon.base);
    }
}


static void
td_serve_on_term(evutil_socket_t fd, short what, void *data)
{
    td_serve_t      *serve = data;
    struct timeval   tick = { 0, TD_SERVE_DRAIN_TICK * 1000 };

    (void) what;

    if (serve->daemon.draining) {
        return;
    }

    td_log(TD_LOG_NOTICE, NULL, "signal %d: finishing what is under way",
           (int) fd);
    td_notify("STOPPING=1");

    serve->daemon.draining = 1;
    serve->drain_until = td_now() + serve->daemon.config->http.drain_timeout;
    td_http_drain(serve->daemon.http);
    td_watch_end_all(serve->daemon.watch);
    td_flows_end_all(serve->daemon.flows);
    event_add(serve->drain, &tick);
}


static void
td_serve_housekept(td_job_t *job, td_job_outcome_e outcome,
    const PGresult *error)
{
    (void) job;

    if (outcome == TD_JOB_ERROR) {
        td_log(TD_LOG_ERR, "housekeeping", "%s", td_fault_text(error));
    }
}


static void
td_serve_on_chores(evutil_socket_t fd, short what, void *data)
{
    td_serve_t      *serve = data;
    struct timeval   tv = { TD_SERVE_CHORES, 0 };

    (void) fd;
    (void) what;

    evtimer_add(serve->chores, &tv);

    if (serve->housekeeping.pool != NULL) {
        return;
    }

    td_job_reset(&serve->housekeeping);
    td_job_step(&serve->housekeeping, TD_SQL_BEGIN);
    td_job_step(&serve->housekeeping, TD_SQL_HOUSEKEEPING);
    td_job_step(&serve->housekeeping, TD_SQL_COMMIT);
    td_job_submit(serve->daemon.pool, &serve->housekeeping);
}


/* Agents that are not heard of are away, unless it is tenantd or the registry that
 * was not there to hear them. */
static void
td_serve_on_away(evutil_socket_t fd, short what, void *data)
{
    td_pg_step_t  *step;
    td_serve_t    *serve = data;

    (void) fd;
    (void) what;

    if (!td_feed_ready(serve->daemon.feed)) {
        serve->reachable = 0;
        return;
    }

    if (serve->reachable == 0) {
        serve->reachable = td_now();
    }

    if (serve->nodes_away.pool != NULL) {
        return;
    }

    snprintf(serve->reachable_ms, sizeof(serve->reachable_ms), "%ld",
             td_now() - serve->reachable);

    td_job_reset(&serve->nodes_away);
    td_job_step(&serve->nodes_away, TD_SQL_BEGIN);
    step = td_job_step(&serve->nodes_away, TD_SQL_MESH_NODES_AWAY);
    step->param[0] = serve->reachable_ms;
    td_job_step(&serve->nodes_away, TD_SQL_COMMIT);
    td_job_submit(serve->daemon.pool, &serve->nodes_away);
}


/* The database answers somebody: the feed above all must not be late then. */
static void
td_serve_on_database_up(void *data)
{
    td_daemon_t  *daemon = data;

    td_feed_hurry(daemon->feed);
    td_pool_hurry(daemon->pool);
    td_pool_hurry(daemon->list_pool);

    if (daemon->provision != NULL) {
        td_provision_hurry(daemon->provision);
    }
}


static td_pool_t *
td_serve_pool(td_daemon_t *daemon, long connections, long queue, long timeout)
{
    td_pool_options_t  options;

    options.pg.base = daemon->base;
    options.pg.conninfo = daemon->config->database.conninfo;
    options.pg.role = daemon->config->database.role;
    options.pg.connect_timeout = daemon->config->database.connect_timeout;
    options.pg.statement_timeout = timeout;
    options.pg.statements = td_sql_statements();
    options.pg.n_statements = td_sql_count();
    options.connections = (int) connections;
    options.writers = (int) daemon->config->database.writers;
    options.queue = (int) queue;
    options.up = td_serve_on_database_up;
    options.data = daemon;

    return td_pool_create(&options);
}


static int
td_serve_make_events(td_serve_t *serve)
{
    struct timeval      soon = { 5, 0 }, away = { TD_SERVE_AWAY_TICK, 0 };
    struct event_base  *base;

    base = serve->daemon.base;
    serve->term = evsignal_new(base, SIGTERM, td_serve_on_term, serve);
    serve->interrupt = evsignal_new(base, SIGINT, td_serve_on_term, serve);
    serve->hangup = evsignal_new(base, SIGHUP, td_serve_on_hangup, serve);
    serve->chores = evtimer_new(base, td_serve_on_chores, serve);
    serve->drain = event_new(base, -1, EV_PERSIST, td_serve_on_drain, serve);
    serve->away = event_new(base, -1, EV_PERSIST, td_serve_on_away, serve);
    serve->housekeeping.done = td_serve_housekept;
    serve->nodes_away.done = td_serve_housekept;

    return serve->term == NULL || serve->interrupt == NULL
           || serve->hangup == NULL || serve->chores == NULL
           || serve->drain == NULL || serve->away == NULL
           || evsignal_add(serve->term, NULL) != 0
           || evsignal_add(serve->interrupt, NULL) != 0
           || evsignal_add(serve->hangup, NULL) != 0
           || event_add(serve->away, &away) != 0
           || evtimer_add(serve->chores, &soon) != 0 ? -1 : 0;
}


static int
td_serve_make(td_serve_t *serve, tg_error_t *err)
{
    td_daemon_t        *daemon;
    const td_config_t  *config;

    daemon = &serve->daemon;
    config = daemon->config;
    tg_error_set(err, "", "out of memory");

    if (td_serve_load_key(daemon, config, err) != 0) {
        return -1;
    }

    daemon->base = event_base_new();

    if (daemon->base == NULL
        || td_serve_make_events(serve) != 0
        || (daemon->watch = td_watch_create(daemon)) == NULL
        || (daemon->ack = td_ack_create(daemon)) == NULL
        || (daemon->batches = td_batches_create(daemon)) == NULL
        || (daemon->flows = td_flows_create(daemon)) == NULL
        || (daemon->pool = td_serve_pool(daemon, config->database.connections,
                config->database.queue, config->database.statement_timeout))
           == NULL
        || (daemon->list_pool = td_serve_pool(daemon,
                config->watch.list_connections, TD_SERVE_LIST_QUEUE,
                TD_SERVE_LIST_TIMEOUT)) == NULL
        || (config->provisioner.driver == TD_DRIVER_NONE
            && (daemon->handover = td_handover_create(daemon->base,
                    daemon->pool, config->provisioner.poll)) == NULL)
        || (daemon->feed = td_feed_create(daemon)) == NULL
        || (daemon->jwks = td_jwks_create(daemon)) == NULL)
    {
        return -1;
    }

    daemon->http = td_http_create(daemon->base, config, td_dispatch, daemon,
                                  err);

    if (daemon->http == NULL) {
        return -1;
    }

    if (config->provisioner.driver != TD_DRIVER_NONE) {
        daemon->provision = td_provision_create(daemon, err);
    }

    return config->provisioner.driver == TD_DRIVER_NONE
           || daemon->provision != NULL ? 0 : -1;
}


static void
td_serve_free_event(struct event *event)
{
    if (event != NULL) {
        event_free(event);
    }
}


/* Connections first: what they wait for must still be there. */
static void
td_serve_unmake(td_serve_t *serve)
{
    td_daemon_t  *daemon;

    daemon = &serve->daemon;

    if (daemon->http != NULL) {
        td_http_destroy(daemon->http);
    }

    td_provision_destroy(daemon->provision);
    td_jwks_destroy(daemon->jwks);
    td_ack_destroy(daemon->ack);
    td_batches_destroy(daemon->batches);
    td_flows_destroy(daemon->flows);
    td_watch_destroy(daemon->watch);
    td_feed_destroy(daemon->feed);
    td_handover_destroy(daemon->handover);
    td_pool_destroy(daemon->list_pool);
    td_pool_destroy(daemon->pool);

    td_serve_free_event(serve->term);
    td_serve_free_event(serve->interrupt);
    td_serve_free_event(serve->hangup);
    td_serve_free_event(serve->chores);
    td_serve_free_event(serve->away);
    td_serve_free_event(serve->drain);

    if (daemon->base != NULL) {
        /* libevent frees bufferevents in a turn of the loop */
        event_base_loop(daemon->base, EVLOOP_NONBLOCK);
        event_base_free(daemon->base);
    }

    OPENSSL_cleanse(daemon->secret_key, sizeof(daemon->secret_key));
    td_config_destroy(daemon->config);
}


/* serve --check: what can be said without listening or connecting. */
static int
td_serve_check(td_daemon_t *daemon)
{
    int         rc;
    SSL_CTX    *tls;
    tg_error_t  err;

    rc = td_serve_load_key(daemon, daemon->config, &err);

    if (rc == 0 && daemon->config->listen.tls_addresses.n > 0) {
        tls = td_tls_create(daemon->config, &err);
        rc = tls != NULL ? 0 : -1;
        SSL_CTX_free(tls);
    }

    if (rc != 0) {
        fprintf(stderr, "tenantd: %s\n", err.message);
    } else {
        printf("the configuration is sound\n");
    }

    td_config_destroy(daemon->config);

    return rc == 0 ? 0 : 1;
}


int
td_serve(td_cli_t *cli)
{
    int         rc;
    td_serve_t  serve;
    tg_error_t  err;

    memset(&serve, 0, sizeof(serve));
    serve.cli = cli;
    serve.daemon.config = td_cli_load(cli, &err);

    if (serve.daemon.config == NULL) {
        return 1;
    }

    if (cli->check) {
        return td_serve_check(&serve.daemon);
    }

    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    td_log_set_level((td_log_level_e) serve.daemon.config->log.level);
    td_metric_set(TD_METRIC_START, time(NULL));

    rc = td_serve_make(&serve, &err);

    if (rc == 0) {
        td_log(TD_LOG_NOTICE, NULL, "tenantd %s is up", TIERGATE_VERSION);
        td_notify("READY=1");
        rc = event_base_dispatch(serve.daemon.base);
        td_log(TD_LOG_NOTICE, NULL, "tenantd ends");

    } else {
        td_log(TD_LOG_CRIT, NULL, "%s", err.message);
    }

    td_serve_unmake(&serve);
    curl_global_cleanup();

    return rc < 0 ? 1 : 0;
}
