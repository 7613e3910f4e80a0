/* SPDX-License-Identifier: BSD-2-Clause */

/*
 *     dial connect|request|stream VIRTUAL PORT ADDRESS PORT COUNT
 *
 * Listens at the second address and calls the first, in one thread, so that the
 * time on a core is all that both ends cost, and no scheduler has a part in it.
 * Prints: ns of the process's time on a core, ns within connect(), ns on the wall,
 * each for one call, request of 64 bytes, or block of 64 KiB.
 */

#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK  65536


static double
now(clockid_t clock)
{
    struct timespec  time;

    clock_gettime(clock, &time);

    return (double) time.tv_sec * 1e9 + (double) time.tv_nsec;
}


static struct sockaddr_in
address(const char *ip, const char *port)
{
    struct sockaddr_in  addr = { .sin_family = AF_INET };

    addr.sin_port = htons((uint16_t) atoi(port));
    if (inet_pton(AF_INET, ip, &addr.sin_addr) != 1) {
        errx(1, "no address: %s", ip);
    }

    return addr;
}


static int
dial(const struct sockaddr_in *to, double *in_connect)
{
    int            fd;
    double         began;
    struct linger  reset = { 1, 0 };

    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) {
        err(1, "socket");
    }

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));

    began = now(CLOCK_MONOTONIC);
    if (connect(fd, (const struct sockaddr *) to, sizeof(*to)) != 0) {
        err(1, "connect");
    }
    *in_connect += now(CLOCK_MONOTONIC) - began;

    return fd;
}


/* There and back, or there. */
static void
exchange(int from, int to, size_t size, int back)
{
    size_t       got;
    ssize_t      n;
    static char  block[BLOCK];

    if (send(from, block, size, 0) != (ssize_t) size) {
        err(1, "send");
    }

    for (got = 0; got < size; got += (size_t) n) {
        n = recv(to, block, sizeof(block), 0);
        if (n <= 0) {
            err(1, "recv");
        }
    }

    if (back) {
        exchange(to, from, size, 0);
    }
}


/* With CALLER_CGROUP in the environment only the caller's sockets are of it: the
 * listener's cgroup is that in which it was made. */
static void
move(void)
{
    FILE        *procs;
    const char  *path;

    path = getenv("CALLER_CGROUP");
    if (path == NULL) {
        return;
    }

    procs = fopen(path, "w");
    if (procs == NULL || fprintf(procs, "%d", (int) getpid()) < 0 || fclose(procs) != 0) {
        err(1, "%s", path);
    }
}


int
main(int argc, char **argv)
{
    int                  listener, fd, peer, one;
    long                 i, count;
    double               in_connect, cpu, wall;
    struct sockaddr_in   to, at;

    if (argc != 7) {
        errx(1, "six words are needed");
    }

    to = address(argv[2], argv[3]);
    at = address(argv[4], argv[5]);
    count = atol(argv[6]);
    in_connect = 0;
    one = 1;

    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *) &at, sizeof(at)) != 0
        || listen(listener, 128) != 0)
    {
        err(1, "listen");
    }

    move();
    fd = dial(&to, &in_connect);
    peer = accept(listener, NULL, NULL);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    in_connect = 0;

    cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    wall = now(CLOCK_MONOTONIC);

    for (i = 0; i < count; i++) {
        if (strcmp(argv[1], "request") == 0) {
            exchange(fd, peer, 64, 1);
        } else if (strcmp(argv[1], "stream") == 0) {
            exchange(fd, peer, BLOCK, 0);
        } else {
            close(peer);
            close(fd);
            fd = dial(&to, &in_connect);
            peer = accept(listener, NULL, NULL);
        }
    }

    printf("%.1f %.1f %.1f\n", (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double) count,
           in_connect / (double) count, (now(CLOCK_MONOTONIC) - wall) / (double) count);

    return 0;
}
