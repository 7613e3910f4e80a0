/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "td_agent_kernel.h"
#include "td_agent_net.h"
#include "td_agent_place.h"
#include "td_agent_report.h"
#include "td_agent_run.h"
#include "td_agent_store.h"
#include "td_log.h"
#include "td_netlink.h"


#define TD_RUN_EVENTS  4096
#define TD_RUN_PATH    (PATH_MAX + TD_DOC_CGROUP)

struct td_runs_s {
    td_agent_t    *agent;
    td_run_t      *first;
    int            inotify;
    struct event  *events;
    char           state[PATH_MAX];
};


void
td_runs_cgroup(const td_runs_t *runs, const td_run_t *run, char *path, size_t size)
{
    const char  *below;

    below = runs->agent->config->agent.workload_cgroup;
    snprintf(path, size, "%s/%s/%s/%s", below + strspn(below, "/"), run->tenant,
             run->service, run->name);
}


static void
td_run_path(const td_runs_t *runs, const td_run_t *run, char *path, size_t size)
{
    int  n;

    n = snprintf(path, size, "%s/", td_place_mount(runs->agent->place));
    td_runs_cgroup(runs, run, path + n, size - (size_t) n);
}


const td_run_t *
td_runs_first(const td_runs_t *runs)
{
    return runs->first;
}


static td_run_t *
td_run_find(td_runs_t *runs, const char *tenant, const char *service,
    const char *name)
{
    td_run_t  *run;

    for (run = runs->first; run != NULL; run = run->next) {
        if (strcmp(run->tenant, tenant) == 0 && strcmp(run->service, service) == 0
            && strcmp(run->name, name) == 0)
        {
            return run;
        }
    }

    return NULL;
}


static json_t *
td_run_to_json(const td_run_t *run)
{
    char     text[INET6_ADDRSTRLEN];
    size_t   i;
    json_t  *addresses;

    addresses = json_array();

    for (i = 0; i < run->n_addrs; i++) {
        json_array_append_new(addresses,
                              json_string(td_doc_address_text(&run->addrs[i], text)));
    }

    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:o}", "tenant", run->tenant,
                     "service", run->service, "name", run->name, "tenant_number",
                     (json_int_t) run->who.tenant, "service_number",
                     (json_int_t) run->who.service, "link", run->link, "addresses",
                     addresses);
}


/* The list on disk is the old or the new one. */
static int
td_runs_save(td_runs_t *runs)
{
    int        rc;
    char       path[PATH_MAX + 8];
    json_t    *list;
    td_run_t  *run;

    list = json_array();

    for (run = runs->first; run != NULL; run = run->next) {
        json_array_append_new(list, td_run_to_json(run));
    }

    snprintf(path, sizeof(path), "%s.new", runs->state);
    rc = json_dump_file(list, path, JSON_INDENT(1)) == 0
         && rename(path, runs->state) == 0 ? 0 : -1;
    json_decref(list);

    if (rc != 0) {
        td_log(TD_LOG_ERR, "exec", "cannot write %s: %m", path);
    }

    return rc;
}


/* Its cgroup, with all above it below the mount. */
static int
td_run_make_cgroup(const td_runs_t *runs, const td_run_t *run)
{
    char   path[TD_RUN_PATH];
    char  *p;

    td_run_path(runs, run, path, sizeof(path));

    for (p = path + strlen(td_place_mount(runs->agent->place)) + 1; ; p++) {
        p = strchrnul(p, '/');

        if (*p == '\0') {
            return mkdir(path, 0755) == 0 ? 0 : -errno;
        }

        *p = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST) {
            return -errno;
        }
        *p = '/';
    }
}


static int
td_run_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) ftw;

    /* the files of a cgroup go with it */
    if (type == FTW_DP) {
        (void) rmdir(path);
    }

    return 0;
}


/* With cgroups that the workload may have made below it, and what is empty above. */
static void
td_run_remove_cgroup(const td_runs_t *runs, const td_run_t *run)
{
    int     i;
    char    path[TD_RUN_PATH];

    td_run_path(runs, run, path, sizeof(path));
    nftw(path, td_run_remove_one, 16, FTW_DEPTH | FTW_PHYS);

    for (i = 0; i < 2; i++) {
        *strrchr(path, '/') = '\0';
        if (rmdir(path) != 0) {
            break;
        }
    }
}


/* Whether anything lives in it; -1: there is no such cgroup. */
static int
td_run_populated(const td_runs_t *runs, const td_run_t *run)
{
    int    populated;
    char   path[TD_RUN_PATH], line[128];
    FILE  *file;

    td_run_path(runs, run, path, sizeof(path) - 16);
    strcat(path, "/cgroup.events");

    file = fopen(path, "re");
    if (file == NULL) {
        return -1;
    }

    populated = 0;

    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "populated ", 10) == 0) {
            populated = line[10] == '1';
        }
    }

    fclose(file);

    return populated;
}


static int
td_run_put(td_runs_t *runs, const td_run_t *run)
{
    int                 err;
    size_t              i;
    td_mesh_address_t   address;
    td_mesh_workload_t  workload;

    memset(&address, 0, sizeof(address));
    memset(&workload, 0, sizeof(workload));
    address.prefix = 128;
    address.who = run->who;

    for (i = 0, err = 0; i < run->n_addrs && err == 0; i++) {
        address.addr = run->addrs[i];
        err = td_kernel_put_address(runs->agent->kernel, &address, run);
    }

    workload.cgroup = run->cgroup;
    workload.level = run->level;
    workload.who = run->who;
    workload.flags = run->n_addrs == 0 ? TG_HOST_SOURCE : 0;
    workload.addrs = run->addrs;
    workload.n_addrs = run->n_addrs;

    return err != 0 ? err
           : td_kernel_put_workload(runs->agent->kernel, &workload, run);
}


void
td_runs_put_all(td_runs_t *runs)
{
    td_run_t  *run;

    for (run = runs->first; run != NULL; run = run->next) {
        if (td_run_put(runs, run) != 0) {
            td_log(TD_LOG_ERR, "exec", "workload %s/%s: %s", run->tenant, run->name,
                   td_mesh_error(runs->agent->mesh));
        }
    }
}


static int
td_run_watch(td_runs_t *runs, td_run_t *run)
{
    char  path[TD_RUN_PATH];

    td_run_path(runs, run, path, sizeof(path) - 16);
    strcat(path, "/cgroup.events");
    run->watch = inotify_add_watch(runs->inotify, path, IN_MODIFY);

    return run->watch < 0 ? -errno : 0;
}


/* Takes away what was made of it, and frees it. */
static void
td_run_end(td_runs_t *runs, td_run_t *run)
{
    size_t     i;
    td_run_t **at;

    for (at = &runs->first; *at != NULL && *at != run; at = &(*at)->next) {
        /* void */
    }

    if (*at == run) {
        *at = run->next;
    }

    if (run->watch >= 0) {
        inotify_rm_watch(runs->inotify, run->watch);
    }

    for (i = 0; i < run->n_addrs; i++) {
        td_kernel_delete_address(runs->agent->kernel, &run->addrs[i], 128, run);
    }

    if (run->cgroup != 0) {
        td_kernel_delete_workload(runs->agent->kernel, run->cgroup, run);
    }

    if (run->link[0] != '\0') {
        (void) td_netlink_delete(run->link);
    }

    if (run->made) {
        td_run_remove_cgroup(runs, run);
    }

    free(run);
}


static void
td_runs_on_events(evutil_socket_t fd, short what, void *data)
{
    int         ended;
    char        buffer[TD_RUN_EVENTS]
        __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t     n;
    td_run_t   *run, *next;
    td_runs_t  *runs = data;

    (void) what;

    do {
        n = read(fd, buffer, sizeof(buffer));
    } while (n == (ssize_t) sizeof(buffer));

    ended = 0;

    for (run = runs->first; run != NULL; run = next) {
        next = run->next;

        if (td_run_populated(runs, run) <= 0) {
            td_log(TD_LOG_INFO, "exec", "workload %s/%s has ended", run->tenant,
                   run->name);
            td_run_end(runs, run);
            ended++;
        }
    }

    if (ended > 0) {
        td_runs_save(runs);
        td_agent_report_changed(runs->agent->report);
    }
}


static int
td_run_move(const td_runs_t *runs, const td_run_t *run, pid_t pid)
{
    int   fd, err;
    char  path[TD_RUN_PATH], text[16];

    td_run_path(runs, run, path, sizeof(path) - 16);
    strcat(path, "/cgroup.procs");
    snprintf(text, sizeof(text), "%d", (int) pid);

    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }

    err = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);

    return err;
}


/* An address of each family that the node's nets have, and the cable. */
static int
td_run_wire(td_runs_t *runs, td_run_t *run, int netns, tg_error_t *err)
{
    int              rc;
    size_t           i;
    const td_doc_t  *node;

    node = td_agent_store_find(runs->agent->store, TD_DOC_NODE, runs->agent->node);

    if (node == NULL || node->node.nets.n == 0) {
        tg_error_set(err, "", "node %s has no workload_nets to take an address from",
                     runs->agent->node);
        return -1;
    }

    run->n_addrs = td_net_allocate(runs->agent, runs, &node->node.nets, run->addrs);

    if (run->n_addrs == 0) {
        tg_error_set(err, "", "no address is free in the workload_nets of node %s",
                     runs->agent->node);
        return -1;
    }

    snprintf(run->link, sizeof(run->link), "tgm%08lx", random() & 0xffffffffL);
    rc = td_netlink_veth(run->link, TD_RUN_LINK, netns);

    if (rc != 0) {
        run->link[0] = '\0';
        tg_error_set(err, "", "cannot make a veth pair: %s", strerror(-rc));
        return -1;
    }

    for (i = 0; i < run->n_addrs; i++) {
        rc = td_net_route(run->link, &run->addrs[i], &node->node.addresses);

        if (rc != 0) {
            tg_error_set(err, "", "cannot route to the workload: %s", strerror(-rc));
            return -1;
        }
    }

    return 0;
}


/* Cgroup, cable, kernel, and only then the process. */
static int
td_run_make(td_runs_t *runs, td_run_t *run, const td_run_request_t *request,
    tg_error_t *err)
{
    int   rc;
    char  path[TD_RUN_PATH];

    rc = td_run_make_cgroup(runs, run);
    td_run_path(runs, run, path, sizeof(path));

    /* An empty one may be left of an agent that lost its state. */
    if (rc != 0 && (rc != -EEXIST || td_run_populated(runs, run) != 0)) {
        tg_error_set(err, "", "cannot make the cgroup %.160s: %s", path,
                     rc == -EEXIST ? "somebody lives in it" : strerror(-rc));
        return -1;
    }

    run->made = 1;

    if (request->netns >= 0 && td_run_wire(runs, run, request->netns, err) != 0) {
        return -1;
    }

    rc = td_mesh_cgroup(path, &run->cgroup, &run->level);
    rc = rc == 0 ? td_run_put(runs, run) : rc;

    if (rc != 0) {
        tg_error_set(err, "", "the workload cannot be put into the kernel: %s",
                     td_mesh_error(runs->agent->mesh));
        return -1;
    }

    run->next = runs->first;
    runs->first = run;

    if (td_runs_save(runs) != 0) {
        tg_error_set(err, "", "the agent cannot write its state directory");
        return -1;
    }

    rc = td_run_move(runs, run, request->pid);
    rc = rc == 0 ? td_run_watch(runs, run) : rc;

    if (rc != 0) {
        tg_error_set(err, "", "the process cannot enter its cgroup: %s", strerror(-rc));
        return -1;
    }

    return 0;
}


static int
td_runs_full(const td_runs_t *runs)
{
    long             n;
    const td_run_t  *run;

    for (n = 0, run = runs->first; run != NULL; run = run->next) {
        n++;
    }

    return n >= runs->agent->config->agent.exec_limit;
}


const td_run_t *
td_runs_start(td_runs_t *runs, const td_run_request_t *request, tg_error_t *err)
{
    char             key[TD_DOC_KEY + 1];
    td_run_t        *run;
    const td_doc_t  *service;

    if (td_runs_full(runs)) {
        tg_error_set(err, "", "%ld workloads of tenantd exec run on this node, as many "
                     "as [agent] exec_limit allows", runs->agent->config->agent.exec_limit);
        return NULL;
    }

    snprintf(key, sizeof(key), "%.63s/%.63s", request->tenant, request->service);
    service = td_agent_store_find(runs->agent->store, TD_DOC_SERVICE, key);

    if (service == NULL) {
        tg_error_set(err, "", "service %s is not known on this node", key);
        return NULL;
    }

    run = calloc(1, sizeof(td_run_t));
    if (run == NULL) {
        tg_error_set(err, "", "out of memory");
        return NULL;
    }

    run->watch = -1;
    run->who = service->service.who;
    snprintf(run->tenant, sizeof(run->tenant), "%s", request->tenant);
    snprintf(run->service, sizeof(run->service), "%s", request->service);
    snprintf(run->name, sizeof(run->name), "%s", request->name);

    if (run->name[0] == '\0') {
        snprintf(run->name, sizeof(run->name), "%.50s-%06lx", request->service,
                 random() & 0xffffffL);
    }

    if (td_run_find(runs, run->tenant, run->service, run->name) != NULL) {
        tg_error_set(err, "", "workload %s of service %s runs already", run->name, key);
        free(run);
        return NULL;
    }

    if (td_run_make(runs, run, request, err) != 0) {
        td_run_end(runs, run);
        td_runs_save(runs);
        return NULL;
    }

    td_log(TD_LOG_INFO, "exec", "workload %s of service %s is process %d", run->name,
           key, (int) request->pid);
    td_agent_report_changed(runs->agent->report);

    return run;
}


/* NULL: no workload that could have been written by us. */
static td_run_t *
td_run_from_json(json_t *object)
{
    size_t       i;
    json_t      *addresses;
    td_run_t    *run;
    json_int_t   tenant_number, service_number;
    const char  *tenant, *service, *name, *link;

    if (json_unpack(object, "{s:s, s:s, s:s, s:I, s:I, s:s, s:o}", "tenant", &tenant,
                    "service", &service, "name", &name, "tenant_number",
                    &tenant_number, "service_number", &service_number, "link", &link,
                    "addresses", &addresses) != 0
        || !td_doc_is_name(tenant) || !td_doc_is_name(service) || !td_doc_is_name(name)
        || tenant_number < 1 || tenant_number > TD_DOC_NUMBER || service_number < 1
        || service_number > TD_DOC_NUMBER || strlen(link) >= IFNAMSIZ
        || json_array_size(addresses) > TD_RUN_ADDRESSES
        || (run = calloc(1, sizeof(td_run_t))) == NULL)
    {
        return NULL;
    }

    snprintf(run->tenant, sizeof(run->tenant), "%s", tenant);
    snprintf(run->service, sizeof(run->service), "%s", service);
    snprintf(run->name, sizeof(run->name), "%s", name);
    snprintf(run->link, sizeof(run->link), "%s", link);
    run->who.tenant = (uint32_t) tenant_number;
    run->who.service = (uint32_t) service_number;
    run->watch = -1;
    run->made = 1;

    for (i = 0; i < json_array_size(addresses); i++) {
        name = json_string_value(json_array_get(addresses, i));

        if (name != NULL && td_doc_address(name, &run->addrs[run->n_addrs]) == 0) {
            run->n_addrs++;
        }
    }

    return run;
}


/* What lives on is taken over, what has ended meanwhile is taken away. */
static void
td_runs_load(td_runs_t *runs)
{
    char       path[TD_RUN_PATH];
    size_t     i;
    json_t    *list;
    td_run_t  *run;

    list = json_load_file(runs->state, JSON_REJECT_DUPLICATES, NULL);

    if (list == NULL && access(runs->state, F_OK) == 0) {
        td_log(TD_LOG_ERR, "exec", "%s cannot be read: workloads of tenantd exec that "
               "run are not known", runs->state);
    }

    for (i = 0; i < json_array_size(list); i++) {
        run = td_run_from_json(json_array_get(list, i));
        if (run == NULL) {
            continue;
        }

        run->next = runs->first;
        runs->first = run;
        td_run_path(runs, run, path, sizeof(path));

        if (td_mesh_cgroup(path, &run->cgroup, &run->level) != 0
            || td_run_watch(runs, run) != 0 || td_run_populated(runs, run) <= 0)
        {
            td_run_end(runs, run);
            continue;
        }

        td_log(TD_LOG_INFO, "exec", "workload %s/%s goes on", run->tenant, run->name);
    }

    json_decref(list);
    td_runs_save(runs);
}


td_runs_t *
td_runs_create(td_agent_t *agent)
{
    td_runs_t  *runs;

    runs = calloc(1, sizeof(td_runs_t));
    if (runs == NULL) {
        return NULL;
    }

    runs->agent = agent;
    snprintf(runs->state, sizeof(runs->state), "%s/exec.json",
             agent->config->agent.state);
    runs->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    runs->events = runs->inotify < 0 ? NULL
                   : event_new(agent->base, runs->inotify, EV_READ | EV_PERSIST,
                               td_runs_on_events, runs);

    if (runs->events == NULL || event_add(runs->events, NULL) != 0) {
        td_log(TD_LOG_CRIT, "agent", "cgroups cannot be watched: %m");
        td_runs_destroy(runs);
        return NULL;
    }

    td_runs_load(runs);

    return runs;
}


void
td_runs_destroy(td_runs_t *runs)
{
    td_run_t  *run;

    if (runs == NULL) {
        return;
    }

    while ((run = runs->first) != NULL) {
        runs->first = run->next;
        free(run);
    }

    if (runs->events != NULL) {
        event_free(runs->events);
    }

    if (runs->inotify >= 0) {
        close(runs->inotify);
    }

    free(runs);
}
