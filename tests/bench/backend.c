/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The cheapest HTTP backend there can be, so that it is never the bottleneck: one
 * epoll loop, one fixed answer for every request on a kept-alive connection.
 * Requests are told apart by the blank line; those of the bench have no body.
 *
 *     backend PORT
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD      65536
#define EVENTS      256

static const char  answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

/* How much of "\r\n\r\n" the end of the last read had, by descriptor. */
static unsigned char  matched[MAX_FD];


static int
listen_on(unsigned port)
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
watch(int epoll, int fd)
{
    struct epoll_event  event = { .events = EPOLLIN, .data.fd = fd };

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
    }
}


static void
accept_all(int epoll, int listener)
{
    int  fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }

        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        matched[fd] = 0;
        watch(epoll, fd);
    }
}


/* Ends of requests in what was read. */
static unsigned
count_requests(int fd, const char *buf, ssize_t n)
{
    ssize_t   i;
    unsigned  requests = 0;

    static const char  end[4] = "\r\n\r\n";

    for (i = 0; i < n; i++) {
        if (buf[i] != end[matched[fd]]) {
            matched[fd] = (buf[i] == '\r');
            continue;
        }

        if (++matched[fd] == sizeof(end)) {
            matched[fd] = 0;
            requests++;
        }
    }

    return requests;
}


static void
serve(int fd)
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

    for (requests = count_requests(fd, buf, n); requests; requests--) {
        if (write(fd, answer, sizeof(answer) - 1) != sizeof(answer) - 1) {
            close(fd);
            return;
        }
    }
}


int
main(int argc, char **argv)
{
    int                 epoll, listener, i, n;
    struct epoll_event  events[EVENTS];

    signal(SIGPIPE, SIG_IGN);

    epoll = epoll_create1(0);
    listener = argc == 2 ? listen_on((unsigned) atoi(argv[1])) : -1;

    if (epoll < 0 || listener < 0) {
        fprintf(stderr, "usage: backend PORT (a free one)\n");
        return 1;
    }

    watch(epoll, listener);

    for ( ;; ) {
        n = epoll_wait(epoll, events, EVENTS, -1);

        for (i = 0; i < n; i++) {
            if (events[i].data.fd == listener) {
                accept_all(epoll, listener);
            } else {
                serve(events[i].data.fd);
            }
        }
    }
}
