/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "td_agent_exec.h"
#include "td_agent_run.h"
#include "td_log.h"


#define TD_EXEC_REQUEST   2048      /* bytes */
#define TD_EXEC_DEADLINE  5         /* s from connect to the whole request */
#define TD_EXEC_AT_ONCE   64        /* connections of those who may ask */
#define TD_EXEC_REFUSED   64        /* of others, who are told so when they have asked */
#define TD_EXEC_GROUPS    1024

typedef struct td_asker_s {
    TAILQ_ENTRY(td_asker_s)   link;
    td_agent_exec_t          *exec;
    struct event             *event;
    int                       fd;
    int                       netns;            /* that came with it, or -1 */
    const char               *refusal;          /* decided at connect; NULL: may ask */
    struct ucred              cred;
    size_t                    len;
    char                      request[TD_EXEC_REQUEST];
} td_asker_t;

struct td_agent_exec_s {
    td_agent_t                           *agent;
    td_runs_t                            *runs;
    int                                   fd;
    struct event                         *event;
    gid_t                                 group;    /* (gid_t) -1: none */
    int                                   askers_n;
    int                                   refused_n;
    TAILQ_HEAD(td_askers_s, td_asker_s)   askers;
};


static void
td_asker_free(td_asker_t *asker)
{
    TAILQ_REMOVE(&asker->exec->askers, asker, link);
    asker->exec->askers_n -= asker->refusal == NULL;
    asker->exec->refused_n -= asker->refusal != NULL;
    event_free(asker->event);
    close(asker->fd);

    if (asker->netns >= 0) {
        close(asker->netns);
    }

    free(asker);
}


static void
td_asker_answer(td_asker_t *asker, json_t *answer)
{
    char  *text;

    text = json_dumps(answer, JSON_COMPACT);

    if (text != NULL) {
        /* a socket that nothing was written to takes so little at once */
        (void) send(asker->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
        (void) send(asker->fd, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }

    free(text);
    json_decref(answer);
    td_asker_free(asker);
}


static void
td_asker_refuse(td_asker_t *asker, const char *why)
{
    why = asker->refusal != NULL ? asker->refusal : why;

    td_log(TD_LOG_WARN, "exec", "process %d of user %u is refused: %s",
           (int) asker->cred.pid, (unsigned) asker->cred.uid, why);
    td_asker_answer(asker, json_pack("{s:s}", "error", why));
}


static int
td_asker_in_group(const td_asker_t *asker, gid_t group)
{
    gid_t      groups[TD_EXEC_GROUPS];
    size_t     i;
    socklen_t  len;

    if (group == (gid_t) -1) {
        return 0;
    }

    if (asker->cred.gid == group) {
        return 1;
    }

    len = sizeof(groups);

    if (getsockopt(asker->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
        return 0;
    }

    for (i = 0; i < len / sizeof(gid_t); i++) {
        if (groups[i] == group) {
            return 1;
        }
    }

    return 0;
}


/* Whether the pid is still of the user who asked: it may have been given anew, and
 * nobody may move another's process. */
static int
td_asker_is_there(const td_asker_t *asker)
{
    char         path[32];
    struct stat  st;

    snprintf(path, sizeof(path), "/proc/%d", (int) asker->cred.pid);

    return asker->cred.pid > 0 && stat(path, &st) == 0 && st.st_uid == asker->cred.uid;
}


/* Takes the request apart.  NULL, or what is wrong with it. */
static const char *
td_asker_parse(td_asker_t *asker, json_t *json, td_run_request_t *request)
{
    int  netns;

    netns = 0;
    request->name = "";
    request->pid = asker->cred.pid;

    if (json_unpack(json, "{s:s, s:s, s?s, s?b}", "tenant", &request->tenant,
                    "service", &request->service, "name", &request->name, "netns",
                    &netns) != 0)
    {
        return "the request is not one";
    }

    if (!td_doc_is_name(request->tenant) || !td_doc_is_name(request->service)
        || (request->name[0] != '\0' && !td_doc_is_name(request->name)))
    {
        return "tenant, service and name are at most 63 of a-z, 0-9, -, . and _";
    }

    request->netns = netns ? asker->netns : -1;

    if (netns && asker->cred.uid != 0) {
        return "--netns takes root";
    }

    if (netns && asker->netns < 0) {
        return "the network namespace is missing";
    }

    return td_asker_is_there(asker) ? NULL : "the process is gone";
}


static void
td_asker_run(td_asker_t *asker)
{
    char               text[INET6_ADDRSTRLEN];
    size_t             i;
    json_t            *json, *addresses;
    tg_error_t         err;
    const char        *wrong;
    const td_run_t    *run;
    td_run_request_t   request;

    if (asker->refusal != NULL) {
        td_asker_refuse(asker, asker->refusal);
        return;
    }

    json = json_loadb(asker->request, asker->len, JSON_REJECT_DUPLICATES, NULL);
    wrong = td_asker_parse(asker, json, &request);
    run = wrong == NULL ? td_runs_start(asker->exec->runs, &request, &err) : NULL;
    json_decref(json);

    if (run == NULL) {
        td_asker_refuse(asker, wrong != NULL ? wrong : err.message);
        return;
    }

    addresses = json_array();

    for (i = 0; i < run->n_addrs; i++) {
        json_array_append_new(addresses,
                              json_string(td_doc_address_text(&run->addrs[i], text)));
    }

    td_asker_answer(asker, json_pack("{s:s, s:o}", "name", run->name, "addresses",
                                     addresses));
}


/* Of all descriptors that come only the first is kept. */
static void
td_asker_take_fds(td_asker_t *asker, struct msghdr *message)
{
    int              fd;
    size_t           i, n;
    struct cmsghdr  *control;

    for (control = CMSG_FIRSTHDR(message);
         control != NULL;
         control = CMSG_NXTHDR(message, control))
    {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
            continue;
        }

        n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (i = 0; i < n; i++) {
            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));

            if (asker->netns < 0) {
                asker->netns = fd;
            } else {
                close(fd);
            }
        }
    }
}


static void
td_asker_on_read(evutil_socket_t fd, short what, void *data)
{
    char           control[CMSG_SPACE(8 * sizeof(int))];
    char          *end;
    ssize_t        n;
    td_asker_t    *asker = data;
    struct iovec   iov;
    struct msghdr  message;

    if (what & EV_TIMEOUT) {
        td_asker_refuse(asker, "the request did not come in time");
        return;
    }

    iov.iov_base = asker->request + asker->len;
    iov.iov_len = sizeof(asker->request) - asker->len;
    memset(&message, 0, sizeof(message));
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);

    n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n > 0) {
        td_asker_take_fds(asker, &message);
        end = memchr(iov.iov_base, '\n', (size_t) n);
        asker->len += (size_t) n;

        if (end != NULL) {
            asker->len = (size_t) (end - asker->request);
            td_asker_run(asker);

        } else if (asker->len == sizeof(asker->request)) {
            td_asker_refuse(asker, "the request is too long");
        }

        return;
    }

    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        td_asker_free(asker);
    }
}


/* NULL: the asker may. */
static const char *
td_exec_judge(const td_agent_exec_t *exec, const td_asker_t *asker)
{
    if (asker->cred.uid != 0 && !td_asker_in_group(asker, exec->group)) {
        return "only root and [agent] exec_group may";
    }

    return exec->askers_n < TD_EXEC_AT_ONCE ? NULL : "too many ask at once";
}


/* Who is refused is told so only when the request has come: a socket that is closed
 * before would have the asker fail to send it, and not look for a reason. */
static void
td_exec_on_accept(evutil_socket_t fd, short what, void *data)
{
    socklen_t         len;
    td_asker_t       *asker;
    struct timeval    deadline = { TD_EXEC_DEADLINE, 0 };
    td_agent_exec_t  *exec = data;

    (void) what;

    asker = calloc(1, sizeof(td_asker_t));
    if (asker == NULL) {
        return;
    }

    asker->exec = exec;
    asker->netns = -1;
    asker->fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    len = sizeof(asker->cred);

    if (asker->fd < 0
        || getsockopt(asker->fd, SOL_SOCKET, SO_PEERCRED, &asker->cred, &len) != 0
        || (asker->event = event_new(exec->agent->base, asker->fd,
                                     EV_READ | EV_PERSIST, td_asker_on_read, asker))
           == NULL)
    {
        if (asker->fd >= 0) {
            close(asker->fd);
        }
        free(asker);
        return;
    }

    TAILQ_INSERT_TAIL(&exec->askers, asker, link);
    asker->refusal = td_exec_judge(exec, asker);
    exec->askers_n += asker->refusal == NULL;
    exec->refused_n += asker->refusal != NULL;

    if (exec->refused_n > TD_EXEC_REFUSED || event_add(asker->event, &deadline) != 0) {
        td_asker_refuse(asker, "out of memory");
    }
}


/* A socket of that path, with permissions before anybody can connect. */
static int
td_exec_listen(td_agent_exec_t *exec, const td_config_t *config)
{
    mode_t               mask;
    struct group        *group;
    struct sockaddr_un   address;

    if (config->agent.exec_group[0] != '\0') {
        group = getgrnam(config->agent.exec_group);

        if (group == NULL) {
            errno = ENOENT;
            return -1;
        }

        exec->group = group->gr_gid;
    }

    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;

    if (strlen(config->agent.socket) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }

    strcpy(address.sun_path, config->agent.socket);
    exec->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (exec->fd < 0) {
        return -1;
    }

    unlink(address.sun_path);
    mask = umask(0777);

    if (bind(exec->fd, (struct sockaddr *) &address, sizeof(address)) != 0) {
        umask(mask);
        return -1;
    }

    umask(mask);

    return chown(address.sun_path, (uid_t) -1, exec->group) != 0
           || chmod(address.sun_path, (mode_t) config->agent.socket_mode) != 0
           || listen(exec->fd, TD_EXEC_AT_ONCE) != 0 ? -1 : 0;
}


td_agent_exec_t *
td_agent_exec_create(td_agent_t *agent)
{
    td_agent_exec_t  *exec;

    exec = calloc(1, sizeof(td_agent_exec_t));
    if (exec == NULL) {
        return NULL;
    }

    exec->agent = agent;
    exec->fd = -1;
    exec->group = (gid_t) -1;
    TAILQ_INIT(&exec->askers);
    exec->runs = td_runs_create(agent);

    if (exec->runs == NULL) {
        td_agent_exec_destroy(exec);
        return NULL;
    }

    if (agent->config->agent.socket[0] == '\0') {
        return exec;
    }

    if (td_exec_listen(exec, agent->config) != 0) {
        td_log(TD_LOG_CRIT, "agent", "cannot listen on %s for group \"%s\": %m",
               agent->config->agent.socket, agent->config->agent.exec_group);
        td_agent_exec_destroy(exec);
        return NULL;
    }

    exec->event = event_new(agent->base, exec->fd, EV_READ | EV_PERSIST,
                            td_exec_on_accept, exec);

    if (exec->event == NULL || event_add(exec->event, NULL) != 0) {
        td_agent_exec_destroy(exec);
        return NULL;
    }

    return exec;
}


void
td_agent_exec_destroy(td_agent_exec_t *exec)
{
    td_asker_t  *asker;

    if (exec == NULL) {
        return;
    }

    while ((asker = TAILQ_FIRST(&exec->askers)) != NULL) {
        td_asker_free(asker);
    }

    if (exec->event != NULL) {
        event_free(exec->event);
    }

    if (exec->fd >= 0) {
        close(exec->fd);
    }

    td_runs_destroy(exec->runs);
    free(exec);
}


void
td_agent_exec_put_all(td_agent_exec_t *exec)
{
    td_runs_put_all(exec->runs);
}


void
td_agent_exec_list(const td_agent_exec_t *exec, tg_text_t *out)
{
    char             text[INET6_ADDRSTRLEN], path[4096];
    size_t           i;
    const td_run_t  *run;

    tg_text_str(out, "[");

    for (run = td_runs_first(exec->runs); run != NULL; run = run->next) {
        td_runs_cgroup(exec->runs, run, path, sizeof(path));
        tg_text_printf(out, "%s{\"name\":\"%s\",\"tenant\":\"%s\",\"service\":\"%s\",\"cgroup\":",
                       run == td_runs_first(exec->runs) ? "" : ",", run->name,
                       run->tenant, run->service);
        tg_text_json(out, path, strlen(path));
        tg_text_str(out, ",\"addresses\":[");

        for (i = 0; i < run->n_addrs; i++) {
            tg_text_printf(out, "%s\"%s\"", i > 0 ? "," : "",
                           td_doc_address_text(&run->addrs[i], text));
        }

        tg_text_str(out, "]}");
    }

    tg_text_str(out, "]");
}
