/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A check is kept by the endpoint's id.  It belongs to the schedule (a timer) or is
 * under way (a socket), or waits for one of the few places of [agent] checks.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"
#include "td_agent_health.h"
#include "td_agent_report.h"
#include "td_agent_store.h"
#include "td_log.h"
#include "tg_hash.h"


#define TD_HEALTH_HEAD    32        /* bytes of an answer that are looked at */
#define TD_HEALTH_REASON  100

typedef struct td_checked_s {
    td_link_t                   link;       /* by id */
    TAILQ_ENTRY(td_checked_s)   queue;      /* waits for a place */
    td_agent_health_t          *health;
    int64_t                     id;
    struct tg_addr              addr;
    uint16_t                    port;
    td_doc_check_t              check;      /* its path is ours */
    struct event               *event;      /* timer, or socket with deadline */
    int                         fd;         /* under way */
    int                         queued;
    int                         asked;      /* the request has been written */
    char                        head[TD_HEALTH_HEAD];
    size_t                      got;
    int                         healthy;
    int                         known;      /* healthy is what was found out */
    uint32_t                    good;       /* in a row */
    uint32_t                    bad;
    int                         untold;
    int                         telling;
    int                         seen;
    char                        reason[TD_HEALTH_REASON];
} td_checked_t;

struct td_agent_health_s {
    td_agent_t                             *agent;
    struct event                           *sync;
    td_table_t                              checks;
    TAILQ_HEAD(td_queue_s, td_checked_s)    queue;
    long                                    busy;
};


static void td_health_on_timer(evutil_socket_t fd, short what, void *data);
static void td_health_on_socket(evutil_socket_t fd, short what, void *data);


static void
td_health_wait(td_checked_t *checked, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    event_del(checked->event);
    event_assign(checked->event, checked->health->agent->base, -1, 0,
                 td_health_on_timer, checked);
    event_add(checked->event, &tv);
}


/* Within a tenth of the interval, so that checks do not come all at once. */
static long
td_health_interval(const td_checked_t *checked)
{
    long  spread;

    spread = (long) checked->check.interval / 10 + 1;

    return (long) checked->check.interval - spread / 2 + random() % spread;
}


static void
td_health_close(td_checked_t *checked)
{
    if (checked->fd >= 0) {
        event_del(checked->event);
        close(checked->fd);
        checked->fd = -1;
        checked->health->busy--;
    }
}


/* It is healthy from now on, or not. */
static void
td_health_turn(td_checked_t *checked, int healthy, const char *reason)
{
    checked->known = 1;
    checked->healthy = healthy;
    checked->untold = 1;
    snprintf(checked->reason, sizeof(checked->reason), "%s", reason);

    td_log(TD_LOG_NOTICE, "health", "endpoint %lld is %s: %s",
           (long long) checked->id, healthy ? "healthy" : "unhealthy", reason);
    td_agent_report_changed(checked->health->agent->report);
}


/* The result of one check; reason NULL: it was good. */
static void
td_health_result(td_checked_t *checked, const char *reason)
{
    td_checked_t  *next;

    td_health_close(checked);
    td_health_wait(checked, td_health_interval(checked));

    checked->good = reason == NULL ? checked->good + 1 : 0;
    checked->bad = reason != NULL ? checked->bad + 1 : 0;

    if (checked->good >= checked->check.rise
        && (!checked->known || !checked->healthy))
    {
        td_health_turn(checked, 1, "checked");

    } else if (checked->bad >= checked->check.fall
               && (!checked->known || checked->healthy))
    {
        td_health_turn(checked, 0, reason);
    }

    next = TAILQ_FIRST(&checked->health->queue);

    if (next != NULL) {
        TAILQ_REMOVE(&checked->health->queue, next, queue);
        next->queued = 0;
        td_health_wait(next, 0);
    }
}


static void
td_health_watch(td_checked_t *checked, short what)
{
    struct timeval  tv;

    tv.tv_sec = checked->check.timeout / 1000;
    tv.tv_usec = checked->check.timeout % 1000 * 1000;
    event_del(checked->event);
    event_assign(checked->event, checked->health->agent->base, checked->fd, what,
                 td_health_on_socket, checked);
    event_add(checked->event, &tv);
}


static socklen_t
td_health_address(const td_checked_t *checked, struct sockaddr_storage *storage)
{
    uint16_t              port;
    struct sockaddr_in   *in = (struct sockaddr_in *) (void *) storage;
    struct sockaddr_in6  *in6 = (struct sockaddr_in6 *) (void *) storage;

    memset(storage, 0, sizeof(*storage));
    port = htons(checked->check.port ? checked->check.port : checked->port);

    if (td_doc_is_ipv4(&checked->addr)) {
        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, &checked->addr.w[3], 4);
        return sizeof(*in);
    }

    in6->sin6_family = AF_INET6;
    in6->sin6_port = port;
    memcpy(&in6->sin6_addr, &checked->addr, 16);

    return sizeof(*in6);
}


static void
td_health_start(td_checked_t *checked)
{
    socklen_t                len;
    struct sockaddr_storage  address;

    len = td_health_address(checked, &address);
    checked->asked = 0;
    checked->got = 0;
    checked->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                         0);

    if (checked->fd < 0) {
        td_health_result(checked, strerror(errno));
        return;
    }

    checked->health->busy++;

    if (connect(checked->fd, (struct sockaddr *) &address, len) != 0
        && errno != EINPROGRESS)
    {
        td_health_result(checked, strerror(errno));
        return;
    }

    td_health_watch(checked, EV_WRITE);
}


static void
td_health_on_timer(evutil_socket_t fd, short what, void *data)
{
    td_checked_t       *checked = data;
    td_agent_health_t  *health;

    (void) fd;
    (void) what;

    health = checked->health;

    if (health->busy >= health->agent->config->agent.checks) {
        TAILQ_INSERT_TAIL(&health->queue, checked, queue);
        checked->queued = 1;
        return;
    }

    td_health_start(checked);
}


/* 1: written. */
static int
td_health_ask(td_checked_t *checked)
{
    int      n;
    char     request[1024], address[INET6_ADDRSTRLEN];

    td_doc_address_text(&checked->addr, address);
    n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s%s%s\r\n"
                 "User-Agent: tenantd-agent/" TIERGATE_VERSION "\r\n"
                 "Connection: close\r\n\r\n", checked->check.path,
                 strchr(address, ':') ? "[" : "", address,
                 strchr(address, ':') ? "]" : "");

    /* a new connection takes so little at once */
    return send(checked->fd, request, (size_t) n, MSG_NOSIGNAL) == n;
}


/* Whether the answer begins as a good one; -1: more is needed. */
static int
td_health_answer(const td_checked_t *checked)
{
    const char  *head;

    head = checked->head;

    if (checked->got < 12) {
        return -1;
    }

    return memcmp(head, "HTTP/1.", 7) == 0 && head[8] == ' '
           && (head[9] == '2' || head[9] == '3');
}


static void
td_health_on_read(td_checked_t *checked)
{
    int      good;
    char     reason[64];
    ssize_t  n;

    n = recv(checked->fd, checked->head + checked->got,
             sizeof(checked->head) - checked->got, 0);

    if (n <= 0) {
        td_health_result(checked, n == 0 ? "closed without an answer"
                                         : strerror(errno));
        return;
    }

    checked->got += (size_t) n;
    good = td_health_answer(checked);

    if (good < 0) {
        td_health_watch(checked, EV_READ);
        return;
    }

    snprintf(reason, sizeof(reason), "answered with status %.3s", checked->head + 9);
    td_health_result(checked, good ? NULL
                     : memcmp(checked->head, "HTTP/1.", 7) == 0 ? reason
                     : "the answer is not HTTP");
}


static void
td_health_on_socket(evutil_socket_t fd, short what, void *data)
{
    int            error;
    socklen_t      len;
    td_checked_t  *checked = data;

    if (what & EV_TIMEOUT) {
        td_health_result(checked, "no answer in time");
        return;
    }

    if (checked->asked) {
        td_health_on_read(checked);
        return;
    }

    len = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);

    if (error != 0) {
        td_health_result(checked, strerror(error));

    } else if (checked->check.type == TD_CHECK_TCP) {
        td_health_result(checked, NULL);

    } else if (!td_health_ask(checked)) {
        td_health_result(checked, "takes no request");

    } else {
        checked->asked = 1;
        td_health_watch(checked, EV_READ);
    }
}


static void
td_health_free(td_checked_t *checked)
{
    td_health_close(checked);

    if (checked->queued) {
        TAILQ_REMOVE(&checked->health->queue, checked, queue);
    }

    td_table_remove(&checked->health->checks, &checked->link);
    event_free(checked->event);
    free((char *) checked->check.path);
    free(checked);
}


static td_checked_t *
td_health_find(td_agent_health_t *health, int64_t id)
{
    td_link_t     *link;
    td_checked_t  *checked;

    for (link = td_table_chain(&health->checks, tg_hash_id((uint64_t) id, 0));
         link != NULL;
         link = link->next)
    {
        checked = td_link_data(link, td_checked_t, link);

        if (checked->id == id) {
            return checked;
        }
    }

    return NULL;
}


static td_checked_t *
td_health_add(td_agent_health_t *health, const td_doc_endpoint_t *endpoint)
{
    td_checked_t  *checked;

    checked = calloc(1, sizeof(td_checked_t));
    if (checked == NULL) {
        return NULL;
    }

    checked->health = health;
    checked->id = endpoint->id;
    checked->fd = -1;
    checked->event = evtimer_new(health->agent->base, td_health_on_timer, checked);

    if (checked->event == NULL
        || td_table_add(&health->checks, &checked->link,
                        tg_hash_id((uint64_t) endpoint->id, 0)) != 0)
    {
        if (checked->event != NULL) {
            event_free(checked->event);
        }
        free(checked);
        return NULL;
    }

    /* somewhere in the first interval */
    checked->check.interval = 1;
    td_health_wait(checked, 0);

    return checked;
}


static void
td_health_see(td_doc_t *doc, void *data)
{
    size_t                    i;
    td_checked_t             *checked;
    td_agent_health_t        *health = data;
    const td_doc_check_t     *check;
    const td_doc_endpoint_t  *endpoint;

    check = &doc->service.check;

    for (i = 0; check->type != TD_CHECK_NONE && i < doc->service.n_endpoints; i++) {
        endpoint = &doc->service.endpoints[i];

        if (endpoint->node == NULL || strcmp(endpoint->node, health->agent->node) != 0) {
            continue;
        }

        checked = td_health_find(health, endpoint->id);

        if (checked == NULL && (checked = td_health_add(health, endpoint)) == NULL) {
            continue;
        }

        checked->seen = 1;
        checked->addr = endpoint->addr;
        checked->port = endpoint->port;

        free((char *) checked->check.path);
        checked->check = *check;
        checked->check.path = strdup(check->path != NULL ? check->path : "/");

        if (checked->check.path == NULL) {
            checked->check.path = strdup("");
        }
    }
}


static void
td_health_unsee(td_link_t *link, void *data)
{
    (void) data;

    td_link_data(link, td_checked_t, link)->seen = 0;
}


static void
td_health_sweep(td_link_t *link, void *data)
{
    td_checked_t  *checked;

    (void) data;

    checked = td_link_data(link, td_checked_t, link);

    if (!checked->seen) {
        td_health_free(checked);
    }
}


static void
td_health_on_sync(evutil_socket_t fd, short what, void *data)
{
    td_agent_health_t  *health = data;

    (void) fd;
    (void) what;

    td_table_each(&health->checks, td_health_unsee, NULL);
    td_agent_store_each(health->agent->store, TD_DOC_SERVICE, td_health_see, health);
    td_table_each(&health->checks, td_health_sweep, NULL);
}


td_agent_health_t *
td_agent_health_create(td_agent_t *agent)
{
    td_agent_health_t  *health;

    health = calloc(1, sizeof(td_agent_health_t));
    if (health == NULL) {
        return NULL;
    }

    health->agent = agent;
    TAILQ_INIT(&health->queue);
    health->sync = evtimer_new(agent->base, td_health_on_sync, health);

    if (health->sync == NULL) {
        free(health);
        return NULL;
    }

    return health;
}


void
td_agent_health_destroy(td_agent_health_t *health)
{
    if (health == NULL) {
        return;
    }

    td_table_each(&health->checks, td_health_unsee, NULL);
    td_table_each(&health->checks, td_health_sweep, NULL);
    td_table_free(&health->checks);
    event_free(health->sync);
    free(health);
}


/* Merged: a look at all services takes its time. */
void
td_agent_health_changed(td_agent_health_t *health)
{
    struct timeval  tv = { 0, 20 * 1000 };

    if (!evtimer_pending(health->sync, NULL)) {
        evtimer_add(health->sync, &tv);
    }
}


static void
td_health_list_one(td_link_t *link, void *data)
{
    tg_text_t     *out = data;
    td_checked_t  *checked;

    checked = td_link_data(link, td_checked_t, link);
    checked->telling = checked->untold;

    if (checked->untold) {
        tg_text_printf(out, "%s{\"endpoint\":%lld,\"healthy\":%s,\"reason\":",
                       out->data[out->len - 1] == '[' ? "" : ",",
                       (long long) checked->id, checked->healthy ? "true" : "false");
        tg_text_json(out, checked->reason, strlen(checked->reason));
        tg_text_str(out, "}");
        checked->untold = 0;
    }
}


void
td_agent_health_list(td_agent_health_t *health, tg_text_t *out)
{
    tg_text_str(out, "[");
    td_table_each(&health->checks, td_health_list_one, out);
    tg_text_str(out, "]");
}


static void
td_health_told_one(td_link_t *link, void *data)
{
    int           *taken = data;
    td_checked_t  *checked;

    checked = td_link_data(link, td_checked_t, link);
    checked->untold |= checked->telling && !*taken;
    checked->telling = 0;
}


void
td_agent_health_told(td_agent_health_t *health, int taken)
{
    td_table_each(&health->checks, td_health_told_one, &taken);
}


static void
td_health_untold_one(td_link_t *link, void *data)
{
    td_checked_t  *checked;

    (void) data;

    checked = td_link_data(link, td_checked_t, link);
    checked->untold = checked->known;
}


void
td_agent_health_untold(td_agent_health_t *health)
{
    td_table_each(&health->checks, td_health_untold_one, NULL);
}
