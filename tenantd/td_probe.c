/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "td_probe.h"


#define TD_PROBE_MAX  4096

static const char  td_probe_request[] =
    "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n";

struct td_probe_s {
    int            fd;
    struct event  *event;
    void         (*answered)(void *data, const td_probe_answer_t *answer);
    void          *data;
    size_t         len;
    char           text[TD_PROBE_MAX + 1];
};


/* The number or word behind name, as far as it goes. */
static const char *
td_probe_find(const char *text, const char *name)
{
    const char  *p;

    p = strstr(text, name);

    return p != NULL ? p + strlen(name) : NULL;
}


void
td_probe_parse(const char *text, td_probe_answer_t *answer)
{
    size_t       len;
    const char  *p;

    memset(answer, 0, sizeof(td_probe_answer_t));

    if (sscanf(text, "HTTP/1.%*1[01] %3d", &answer->status) != 1) {
        answer->status = 0;
        return;
    }

    p = td_probe_find(text, "\r\nTiergate-Generation: ");
    answer->generation = p != NULL ? strtoll(p, NULL, 10) : 0;

    p = td_probe_find(text, "\"state\":\"");
    len = p != NULL ? strspn(p, "abcdefghijklmnopqrstuvwxyz") : 0;

    if (len > 0 && len < sizeof(answer->state)) {
        memcpy(answer->state, p, len);
    }
}


static void
td_probe_end(td_probe_t *probe)
{
    void                *data;
    td_probe_answer_t    answer;
    void               (*answered)(void *data, const td_probe_answer_t *answer);

    probe->text[probe->len] = '\0';
    td_probe_parse(probe->text, &answer);
    answered = probe->answered;
    data = probe->data;
    td_probe_cancel(probe);
    answered(data, &answer);
}


static void
td_probe_on_event(evutil_socket_t fd, short what, void *data)
{
    ssize_t      n;
    td_probe_t  *probe = data;

    if (what & EV_TIMEOUT) {
        probe->len = 0;
        td_probe_end(probe);
        return;
    }

    n = recv(fd, probe->text + probe->len, TD_PROBE_MAX - probe->len, 0);

    if (n > 0) {
        probe->len += (size_t) n;
        if (probe->len < TD_PROBE_MAX) {
            return;
        }

    } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }

    td_probe_end(probe);
}


/* A unix socket connects at once, or not at all. */
static int
td_probe_connect(const char *path)
{
    int                  fd;
    struct sockaddr_un   sun = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(sun.sun_path)) {
        return -1;
    }

    memcpy(sun.sun_path, path, strlen(path));

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }

    if (connect(fd, (const struct sockaddr *) &sun, sizeof(sun)) != 0
        || send(fd, td_probe_request, sizeof(td_probe_request) - 1,
                MSG_NOSIGNAL) != (ssize_t) sizeof(td_probe_request) - 1)
    {
        close(fd);
        return -1;
    }

    return fd;
}


td_probe_t *
td_probe_start(struct event_base *base, const char *socket, long timeout,
    void (*answered)(void *data, const td_probe_answer_t *answer), void *data)
{
    int              fd;
    td_probe_t      *probe;
    struct timeval   tv = { timeout / 1000, timeout % 1000 * 1000 };

    fd = td_probe_connect(socket);
    if (fd < 0) {
        return NULL;
    }

    probe = calloc(1, sizeof(td_probe_t));
    if (probe == NULL) {
        close(fd);
        return NULL;
    }

    probe->fd = fd;
    probe->answered = answered;
    probe->data = data;
    probe->event = event_new(base, fd, EV_READ | EV_PERSIST, td_probe_on_event,
                             probe);

    if (probe->event == NULL || event_add(probe->event, &tv) != 0) {
        td_probe_cancel(probe);
        return NULL;
    }

    return probe;
}


void
td_probe_cancel(td_probe_t *probe)
{
    if (probe == NULL) {
        return;
    }

    if (probe->event != NULL) {
        event_free(probe->event);
    }

    close(probe->fd);
    free(probe);
}
