/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The cheapest HTTP backend there can be, so that it is never the bottleneck: one
 * fixed answer for every request on a kept-alive connection.  Requests are told
 * apart by the blank line; those of the bench have no body.
 *
 * A program of its own (backend.c), or a part of the load's loop (load.c).
 */

#ifndef BENCH_BACKEND_H
#define BENCH_BACKEND_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKEND_MAX_FD  65536
#define BACKEND_EVENTS  256

typedef struct {
    int            epoll;
    int            listener;
    /* how much of "\r\n\r\n" the end of the last read had, by descriptor */
    unsigned char  matched[BACKEND_MAX_FD];
} backend_t;

static const char  backend_answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";


static int
backend_bind(unsigned port)
{
    int                 fd, on = 1;
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sin.sin_port = htons((unsigned short) port);

    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd < 0
        || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0
        || bind(fd, (struct sockaddr *) &sin, sizeof(sin)) != 0
        || listen(fd, 1024) != 0)
    {
        return -1;
    }

    return fd;
}


static void
backend_watch(const backend_t *backend, int fd)
{
    struct epoll_event  event = { .events = EPOLLIN, .data.fd = fd };

    if (epoll_ctl(backend->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
    }
}


static void
backend_accept(backend_t *backend)
{
    int  fd, on = 1;

    while ((fd = accept4(backend->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= BACKEND_MAX_FD) {
            close(fd);
            continue;
        }

        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        backend->matched[fd] = 0;
        backend_watch(backend, fd);
    }
}


/* Ends of requests in what was read. */
static unsigned
backend_count(backend_t *backend, int fd, const char *buf, ssize_t n)
{
    ssize_t   i;
    unsigned  requests = 0;

    static const char  end[4] = "\r\n\r\n";

    for (i = 0; i < n; i++) {
        if (buf[i] != end[backend->matched[fd]]) {
            backend->matched[fd] = (buf[i] == '\r');
            continue;
        }

        if (++backend->matched[fd] == sizeof(end)) {
            backend->matched[fd] = 0;
            requests++;
        }
    }

    return requests;
}


static void
backend_serve(backend_t *backend, int fd)
{
    ssize_t   n;
    unsigned  requests;
    char      buf[16384];

    n = read(fd, buf, sizeof(buf));

    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            close(fd);
        }

        return;
    }

    for (requests = backend_count(backend, fd, buf, n); requests; requests--) {
        if (write(fd, backend_answer, sizeof(backend_answer) - 1)
            != sizeof(backend_answer) - 1)
        {
            close(fd);
            return;
        }
    }
}


/* Listens on loopback; 0, or -1 with errno. */
static int
backend_start(backend_t *backend, unsigned port)
{
    backend->epoll = epoll_create1(EPOLL_CLOEXEC);
    backend->listener = backend_bind(port);

    if (backend->epoll < 0 || backend->listener < 0) {
        return -1;
    }

    backend_watch(backend, backend->listener);

    return 0;
}


/* Serves what is there within timeout_ms, -1 for as long as it takes. */
static void
backend_poll(backend_t *backend, int timeout_ms)
{
    int                 i, n;
    struct epoll_event  events[BACKEND_EVENTS];

    n = epoll_wait(backend->epoll, events, BACKEND_EVENTS, timeout_ms);

    for (i = 0; i < n; i++) {
        if (events[i].data.fd == backend->listener) {
            backend_accept(backend);
        } else {
            backend_serve(backend, events[i].data.fd);
        }
    }
}

#endif /* BENCH_BACKEND_H */
