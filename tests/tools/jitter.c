/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Random delays where processes meet, to find what works only by the usual order
 * of things: preloaded into the tests and all that they start, this makes some of
 * the calls that wait for another process, or tell it something, take longer.
 *
 *     JITTER=PERMILLE,MS     how many calls, and how much longer at most
 *
 * See "make jitter".
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define REAL(name)                                           \
    static __typeof__(name)  *real;                          \
    if (real == NULL) {                                      \
        real = (__typeof__(name) *) dlsym(RTLD_NEXT, #name); \
    }


/* xorshift64: each process has a sequence of its own, a child another than its parent. */
static uint64_t
jitter_random(void)
{
    struct timespec   now;
    static pid_t      owner;
    static uint64_t   state;

    if (owner != getpid()) {
        owner = getpid();
        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        state = (uint64_t) owner << 32 ^ (uint64_t) now.tv_nsec ^ 1;
    }

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return state;
}


static void
jitter(void)
{
    int              saved;
    uint64_t         random;
    const char      *value;
    struct timespec  delay;
    static unsigned  permille, ms;

    if (ms == 0) {
        value = getenv("JITTER");

        if (value == NULL || sscanf(value, "%u,%u", &permille, &ms) != 2
            || ms == 0 || ms > 999)
        {
            permille = 30;
            ms = 60;
        }
    }

    random = jitter_random();

    if (random % 1000 < permille) {
        saved = errno;
        delay.tv_sec = 0;
        delay.tv_nsec = (long) ((random >> 20) % (ms * UINT64_C(1000000)));
        (void) nanosleep(&delay, NULL);
        errno = saved;
    }
}


int
epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    int  n;

    REAL(epoll_wait)

    n = real(fd, events, max, timeout);
    jitter();

    return n;
}


int
poll(struct pollfd *fds, nfds_t n, int timeout)
{
    int  ready;

    REAL(poll)

    ready = real(fds, n, timeout);
    jitter();

    return ready;
}


ssize_t
recv(int fd, void *buffer, size_t size, int flags)
{
    ssize_t  n;

    REAL(recv)

    n = real(fd, buffer, size, flags);
    jitter();

    return n;
}


ssize_t
send(int fd, const void *buffer, size_t size, int flags)
{
    REAL(send)

    jitter();

    return real(fd, buffer, size, flags);
}


int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
    REAL(connect)

    jitter();

    return real(fd, address, len);
}
