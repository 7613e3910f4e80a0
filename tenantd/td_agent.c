/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd agent: makes the parts, lets go of privileges, runs the loop.  Its end
 * changes nothing in the kernel; --detach does.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <curl/curl.h>

#include "config.h"
#include "td_agent.h"
#include "td_agent_ack.h"
#include "td_agent_apply.h"
#include "td_agent_caps.h"
#include "td_agent_client.h"
#include "td_agent_exec.h"
#include "td_agent_flow.h"
#include "td_agent_health.h"
#include "td_agent_kernel.h"
#include "td_agent_place.h"
#include "td_agent_report.h"
#include "td_agent_snapshot.h"
#include "td_agent_store.h"
#include "td_agent_watch.h"
#include "td_cli.h"
#include "td_log.h"
#include "td_multi.h"
#include "td_notify.h"


#define TD_AGENT_LOOK  50     /* ms: records wake nobody, see bpf/tg_event.h */

typedef struct {
    td_agent_t     agent;
    td_config_t   *config;
    int            lock;
    struct event  *term;
    struct event  *interrupt;
    struct event  *records;
} td_agent_main_t;


const char *
td_agent_name_tenant(const td_agent_t *agent, uint32_t number)
{
    const td_doc_t  *doc;

    doc = td_agent_store_tenant(agent->store, number);

    return doc != NULL ? doc->name : NULL;
}


int
td_agent_name_service(const td_agent_t *agent, uint32_t number, const char **tenant,
    const char **service)
{
    const td_doc_t  *doc;

    doc = td_agent_store_service(agent->store, number);

    if (doc == NULL) {
        return 0;
    }

    *tenant = doc->service.tenant;
    *service = doc->service.service;

    return 1;
}


const char *
td_agent_name_policy(const td_agent_t *agent, uint32_t number)
{
    const td_doc_policy_t  *policy;

    policy = td_agent_store_policy(agent->store, number);

    return policy != NULL ? policy->name : NULL;
}


size_t
td_agent_tenants(const td_agent_t *agent)
{
    return td_agent_store_count(agent->store, TD_DOC_TENANT);
}


size_t
td_agent_services(const td_agent_t *agent)
{
    return td_agent_store_count(agent->store, TD_DOC_SERVICE);
}


size_t
td_agent_workloads(const td_agent_t *agent)
{
    return td_place_present(agent->place);
}


uint64_t
td_agent_revision(const td_agent_t *agent)
{
    return td_apply_revision(agent->apply);
}


const char *
td_agent_state(const td_agent_t *agent)
{
    return td_agent_watch_live(agent->watch) ? "live"
           : td_apply_loaded(agent->apply) ? "snapshot" : "loading";
}


const char *
td_agent_cgroup(const td_agent_t *agent)
{
    return agent->config->agent.cgroup[0] != '\0' ? agent->config->agent.cgroup
                                                  : td_place_mount(agent->place);
}


void
td_agent_fail(td_agent_t *agent)
{
    agent->failed = 1;
    event_base_loopbreak(agent->base);
}


static int
td_agent_identify(td_agent_t *agent)
{
    int       i;
    uint64_t  boot[2];

    snprintf(agent->node, sizeof(agent->node), "%s", agent->config->agent.node);

    if (agent->node[0] == '\0'
        && gethostname(agent->node, sizeof(agent->node) - 1) != 0)
    {
        agent->node[0] = '\0';
    }

    for (i = 0; agent->node[i] != '\0'; i++) {
        if (agent->node[i] >= 'A' && agent->node[i] <= 'Z') {
            agent->node[i] = (char) (agent->node[i] - 'A' + 'a');
        }
    }

    if (!td_doc_is_name(agent->node)) {
        td_log(TD_LOG_CRIT, "agent", "[agent] node: \"%s\" is no name of a node",
               agent->node);
        return -1;
    }

    if (getrandom(boot, sizeof(boot), 0) != sizeof(boot)) {
        boot[0] = (uint64_t) getpid();
    }

    srandom((unsigned) boot[0]);
    snprintf(agent->gateway, sizeof(agent->gateway), "node-%s", agent->node);
    snprintf(agent->boot, sizeof(agent->boot), "%016llx%016llx",
             (unsigned long long) boot[0], (unsigned long long) boot[1]);

    return 0;
}


/* The directory of pins is the lock: whoever holds it may write the maps.  Returns a
 * descriptor; -1: it is not there; -2: another agent has it. */
static int
td_agent_lock(const char *pins)
{
    int  fd;

    fd = open(pins, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return -2;
    }

    return fd;
}


static td_mesh_t *
td_agent_open_mesh(const td_config_t *config)
{
    td_mesh_t          *mesh;
    const char         *error;
    td_mesh_options_t   options;

    memset(&options, 0, sizeof(options));
    options.pins = config->agent.pins;
    options.services = (uint32_t) config->agent.services;
    options.endpoints = (uint32_t) config->agent.endpoints;
    options.workloads = (uint32_t) config->agent.workloads;
    options.tenants = (uint32_t) config->agent.tenants;
    options.rules = (uint32_t) config->agent.rules;
    options.flows = (uint32_t) config->agent.flows;
    options.ring_bytes = (uint32_t) config->agent.ring;
    options.event_rate = (uint32_t) config->agent.event_rate;
    options.event_burst = (uint32_t) config->agent.event_burst;
    options.unknown = (uint32_t) config->agent.unknown;

    mesh = td_mesh_open(&options, &error);

    if (mesh == NULL) {
        td_log(TD_LOG_CRIT, "agent", "%s, with pins at %s: %m", error,
               config->agent.pins);
    }

    return mesh;
}


/* Capabilities, lock, programs. */
static int
td_agent_take_mesh(td_agent_main_t *main)
{
    const char  *missing, *pins;

    pins = main->config->agent.pins;
    missing = td_caps_missing();

    if (missing != NULL) {
        td_log(TD_LOG_CRIT, "agent", "%s is missing: run it as root, or with "
               "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", missing);
        return -1;
    }

    main->lock = td_agent_lock(pins);

    if (main->lock != -2) {
        main->agent.mesh = td_agent_open_mesh(main->config);
        if (main->agent.mesh == NULL) {
            return -1;
        }
    }

    if (main->lock == -1) {
        main->lock = td_agent_lock(pins);
    }

    if (main->lock < 0) {
        td_log(TD_LOG_CRIT, "agent", "another agent runs with pins at %s", pins);
        return -1;
    }

    return 0;
}


static void
td_agent_on_term(evutil_socket_t fd, short what, void *data)
{
    td_agent_t  *agent = data;

    (void) what;

    td_log(TD_LOG_NOTICE, "agent", "signal %d: the agent ends, what is enforced stays",
           (int) fd);
    td_notify("STOPPING=1");
    event_base_loopbreak(agent->base);
}


static void
td_agent_on_records(evutil_socket_t fd, short what, void *data)
{
    td_agent_t  *agent = data;

    (void) fd;
    (void) what;

    td_agent_flow_read(agent->flow);
}


static int
td_agent_make_events(td_agent_main_t *main)
{
    struct event_base     *base;
    static struct timeval  look = { .tv_usec = TD_AGENT_LOOK * 1000 };

    base = main->agent.base;
    main->term = evsignal_new(base, SIGTERM, td_agent_on_term, &main->agent);
    main->interrupt = evsignal_new(base, SIGINT, td_agent_on_term, &main->agent);
    main->records = event_new(base, td_mesh_events_fd(main->agent.mesh),
                              EV_READ | EV_PERSIST, td_agent_on_records, &main->agent);

    return main->term == NULL || main->interrupt == NULL || main->records == NULL
           || evsignal_add(main->term, NULL) != 0
           || evsignal_add(main->interrupt, NULL) != 0
           || event_add(main->records, &look) != 0 ? -1 : 0;
}


static int
td_agent_make(td_agent_main_t *main)
{
    td_agent_t  *agent;

    agent = &main->agent;

    if (mkdir(main->config->agent.state, 0700) != 0 && errno != EEXIST) {
        td_log(TD_LOG_CRIT, "agent", "cannot make %s: %m", main->config->agent.state);
        return -1;
    }

    agent->base = event_base_new();

    if (agent->base == NULL
        || (agent->place = td_place_create(agent)) == NULL
        || td_agent_take_mesh(main) != 0
        || td_agent_make_events(main) != 0
        || (agent->multi = td_multi_create(agent->base)) == NULL
        || (agent->client = td_client_create(agent)) == NULL
        || (agent->store = td_agent_store_create()) == NULL
        || (agent->kernel = td_kernel_create(agent)) == NULL
        || (agent->snapshot = td_agent_snapshot_create(agent)) == NULL
        || (agent->ack = td_agent_ack_create(agent)) == NULL
        || (agent->report = td_agent_report_create(agent)) == NULL
        || (agent->health = td_agent_health_create(agent)) == NULL
        || (agent->apply = td_apply_create(agent)) == NULL
        || (agent->exec = td_agent_exec_create(agent)) == NULL
        || (agent->flow = td_agent_flow_create(agent)) == NULL
        || (agent->watch = td_agent_watch_start(agent)) == NULL)
    {
        return -1;
    }

    if (td_caps_drop() != 0) {
        td_log(TD_LOG_CRIT, "agent", "cannot drop privileges: %m");
        return -1;
    }

    return 0;
}


static void
td_agent_free_event(struct event *event)
{
    if (event != NULL) {
        event_free(event);
    }
}


static void
td_agent_unmake(td_agent_main_t *main)
{
    td_agent_t  *agent;

    agent = &main->agent;

    td_agent_watch_stop(agent->watch);
    td_agent_exec_destroy(agent->exec);
    td_agent_flow_destroy(agent->flow);
    td_agent_health_destroy(agent->health);
    td_agent_report_destroy(agent->report);
    td_agent_ack_destroy(agent->ack);
    td_apply_destroy(agent->apply);
    td_agent_snapshot_destroy(agent->snapshot);
    td_kernel_destroy(agent->kernel);
    td_client_destroy(agent->client);
    td_multi_destroy(agent->multi);
    td_place_destroy(agent->place);
    td_agent_store_destroy(agent->store);
    td_agent_free_event(main->term);
    td_agent_free_event(main->interrupt);
    td_agent_free_event(main->records);
    td_mesh_close(agent->mesh);

    if (agent->base != NULL) {
        event_base_free(agent->base);
    }

    if (main->lock >= 0) {
        close(main->lock);
    }
}


static int
td_agent_serve(td_agent_main_t *main)
{
    td_agent_t  *agent;

    agent = &main->agent;

    if (td_agent_identify(agent) != 0 || td_agent_make(main) != 0) {
        td_agent_unmake(main);
        return 1;
    }

    td_log(TD_LOG_NOTICE, "agent", "tenantd %s is the agent of node %s",
           TIERGATE_VERSION, agent->node);

    if (td_agent_snapshot_load(agent->snapshot) == 0) {
        td_agent_watch_resume(agent->watch,
                              td_agent_snapshot_registry(agent->snapshot),
                              td_apply_revision(agent->apply));
    }

    if (!agent->failed) {
        td_notify("READY=1");
        event_base_dispatch(agent->base);
    }

    td_agent_unmake(main);

    return agent->failed ? 1 : 0;
}


/* Ends enforcement on this machine. */
static int
td_agent_detach(td_agent_main_t *main)
{
    if (access(main->config->agent.pins, F_OK) != 0) {
        printf("nothing is attached with pins at %s\n", main->config->agent.pins);
        return 0;
    }

    if (td_agent_take_mesh(main) != 0) {
        return 1;
    }

    td_mesh_detach(main->agent.mesh);
    close(main->lock);
    printf("the mesh does not act on this machine any more\n");

    return 0;
}


int
td_agent(td_cli_t *cli)
{
    int              rc;
    tg_error_t       err;
    td_agent_main_t  main;

    memset(&main, 0, sizeof(main));
    main.lock = -1;
    main.config = td_cli_load(cli, &err);

    if (main.config == NULL) {
        return 1;
    }

    signal(SIGPIPE, SIG_IGN);
    td_log_set_level((td_log_level_e) main.config->log.level);
    main.agent.config = main.config;

    if (cli->detach) {
        rc = td_agent_detach(&main);

    } else {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        rc = td_agent_serve(&main);
        curl_global_cleanup();
    }

    td_config_destroy(main.config);

    return rc;
}
