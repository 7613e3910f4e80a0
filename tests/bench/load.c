/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Load on several targets by turns, so short that what else the machine does hits
 * each of them alike: a slice of time for the first, then for the next, and again.
 * Each target has its connections, kept alive, each with one request outstanding,
 * drawn at random from the target's file (a line is a request, its line ends written
 * as \r\n).  Before a slice its load is on for a second that does not count.  Before a
 * slice is closed every answer is in, and the process that is charged is asleep: only
 * then is what the kernel accounts to it exact.
 *
 *     load [-b PORT] [-p RATE] [-w] CONNECTIONS SLICE_MS ROUNDS PORT:PID:FILE...
 *
 * With -b the same loop is also the backend, on that port, and without a RATE it never
 * sleeps within a slice.  Who sends to a process that sleeps on another core wakes that
 * core, and is charged with it; between virtual cores that is 2 to 5 us.  A target would
 * be charged with it the more often, the longer it lets the load wait: twice for the
 * same work.
 *
 * With a RATE requests go out at moments drawn at random, so many per second on
 * average, whether answers have come or not; latency counts from that moment.  With
 * -w a slice begins when a line is read.  Prints a line a slice: target, requests,
 * us, CPU ns, p50 us, p99 us, refused (a status that is not 200), failed.
 */

#define _GNU_SOURCE

#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend.h"

#define MAX_TARGETS    64
#define MAX_LATENCIES  (1 << 20)
#define ANSWER_NS      10000000000ULL
#define WARM_NS        1000000000ULL

typedef struct {
    char    *text;
    size_t   len;
} request_t;

typedef struct {
    int       fd;
    uint64_t  sent;             /* ns, when it was due; 0: nothing is outstanding */
    size_t    len;
    char      answer[16384];
} conn_t;

typedef struct {
    unsigned    port;
    int         pid;
    request_t  *requests;
    size_t      n;
    conn_t     *conns;
    int         epoll;
} target_t;

typedef struct {
    uint64_t  requests, refused, failed;
    unsigned  outstanding;
} slice_t;

static unsigned   connections;
static double     rate;         /* per second; 0: each answer brings a request */
static backend_t  backend;
static int        own_backend;
static uint64_t   seed = 88172645463325252ULL;
static uint32_t   latencies[MAX_LATENCIES];


static void
fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}


static uint64_t
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


/* Marsaglia, "Xorshift RNGs". */
static uint64_t
draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return seed;
}


/* ns that a process was on a core, as of when it last went to sleep. */
static uint64_t
cpu_ns(int pid)
{
    char       path[64];
    FILE      *f;
    uint64_t   ns;

    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    f = fopen(path, "r");

    if (f == NULL || fscanf(f, "%lu", &ns) != 1) {
        fail(path);
    }

    fclose(f);

    return ns;
}


/* The answers are here before the process is asleep again. */
static uint64_t
cpu_ns_asleep(int pid)
{
    uint64_t  before, ns;

    ns = cpu_ns(pid);

    do {
        before = ns;
        usleep(1000);
        ns = cpu_ns(pid);
    } while (ns != before);

    return ns;
}


static size_t
unescape(char *line)
{
    char  *from, *to;

    for (from = to = line; *from != '\0' && *from != '\n'; ) {

        if (strncmp(from, "\\r\\n", 4) == 0) {
            *to++ = '\r';
            *to++ = '\n';
            from += 4;

        } else {
            *to++ = *from++;
        }
    }

    return (size_t) (to - line);
}


static void
read_requests(target_t *target, const char *path)
{
    char    *line;
    FILE    *f;
    size_t   size, room;

    line = NULL;
    size = 0;
    room = 0;
    f = fopen(path, "r");

    if (f == NULL) {
        fail(path);
    }

    while (getline(&line, &size, f) > 0) {

        if (target->n == room) {
            room = room ? 2 * room : 1024;
            target->requests = reallocarray(target->requests, room,
                                            sizeof(request_t));
        }

        target->requests[target->n].len = unescape(line);
        target->requests[target->n].text = strndup(line, target->requests[target->n].len);
        target->n++;
    }

    free(line);
    fclose(f);

    if (target->n == 0) {
        errno = ENODATA;
        fail(path);
    }
}


static void
dial(target_t *target, conn_t *conn)
{
    int                 on = 1;
    struct sockaddr_in  sin = { .sin_family = AF_INET };
    struct epoll_event  event = { .events = EPOLLIN, .data.ptr = conn };

    sin.sin_port = htons((uint16_t) target->port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    conn->sent = 0;
    conn->len = 0;

    if (conn->fd < 0
        || connect(conn->fd, (struct sockaddr *) &sin, sizeof(sin)) != 0
        || setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0
        || epoll_ctl(target->epoll, EPOLL_CTL_ADD, conn->fd, &event) != 0)
    {
        fail("connect");
    }
}


static void
ask(target_t *target, conn_t *conn, slice_t *slice, uint64_t due)
{
    const request_t  *request;

    request = &target->requests[draw() % target->n];
    conn->len = 0;
    conn->sent = due;

    if (send(conn->fd, request->text, request->len, MSG_NOSIGNAL)
        != (ssize_t) request->len)
    {
        fail("send");
    }

    slice->outstanding++;
}


/* Bytes of the whole answer, 0 when it is not there yet. */
static size_t
answer_length(conn_t *conn)
{
    char  *end, *length;

    conn->answer[conn->len] = '\0';
    end = strstr(conn->answer, "\r\n\r\n");

    if (end == NULL) {
        return 0;
    }

    length = strcasestr(conn->answer, "\r\nContent-Length:");

    return (size_t) (end + 4 - conn->answer)
           + (length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0);
}


/* One event of a connection: whether its answer is whole. */
static int
hear(target_t *target, conn_t *conn, slice_t *slice)
{
    size_t   whole;
    ssize_t  n;

    n = recv(conn->fd, conn->answer + conn->len,
             sizeof(conn->answer) - 1 - conn->len, 0);

    if (n <= 0) {
        /* kept no longer; with a request outstanding that is a failure */
        close(conn->fd);
        slice->failed += conn->sent != 0;
        slice->outstanding -= conn->sent != 0;
        dial(target, conn);
        return 1;
    }

    conn->len += (size_t) n;
    whole = answer_length(conn);

    if (whole == 0 || conn->len < whole) {
        return 0;
    }

    if (slice->requests < MAX_LATENCIES) {
        latencies[slice->requests] = (uint32_t) ((now_ns() - conn->sent) / 1000);
    }

    slice->requests++;
    slice->outstanding--;
    slice->refused += memcmp(conn->answer + 8, " 200", 4) != 0;
    conn->sent = 0;

    return 1;
}


static int
by_size(const void *a, const void *b)
{
    uint32_t  x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return x < y ? -1 : x > y;
}


static void
print_slice(unsigned k, const slice_t *slice, uint64_t ns, uint64_t cpu)
{
    size_t  n;

    n = slice->requests < MAX_LATENCIES ? slice->requests : MAX_LATENCIES;
    qsort(latencies, n, sizeof(uint32_t), by_size);

    printf("%u %lu %lu %lu %u %u %lu %lu\n", k, slice->requests, ns / 1000, cpu,
           n ? latencies[n / 2] : 0, n ? latencies[n * 99 / 100] : 0,
           slice->refused, slice->failed);
    fflush(stdout);
}


/* Answers that come within timeout, at most; the connections are idle then. */
static void
hear_all(target_t *target, slice_t *slice, const struct timespec *timeout,
    uint64_t end)
{
    int                 i, n;
    conn_t             *conn;
    uint64_t            now;
    struct epoll_event  events[256];

    static const struct timespec  none = { 0, 0 };

    if (own_backend && rate == 0) {
        backend_poll(&backend, 0);
        timeout = &none;
    }

    n = epoll_pwait2(target->epoll, events, 256, timeout, NULL);

    for (i = 0; i < n; i++) {
        conn = events[i].data.ptr;

        if (conn == NULL) {
            backend_poll(&backend, 0);
            continue;
        }

        if (hear(target, conn, slice) && rate == 0 && (now = now_ns()) < end) {
            ask(target, conn, slice, now);
        }
    }
}


static conn_t *
idle_conn(target_t *target)
{
    unsigned  i, k;

    k = (unsigned) draw();

    for (i = 0; i < connections; i++) {
        if (target->conns[(k + i) % connections].sent == 0) {
            return &target->conns[(k + i) % connections];
        }
    }

    return NULL;
}


/* Requests at their moments; one for which no connection is idle waits. */
static void
run_paced(target_t *target, slice_t *slice, uint64_t end)
{
    conn_t           *conn;
    uint64_t          due, now;
    struct timespec   timeout = { 0, 0 };

    due = now_ns();

    while (due < end) {
        now = now_ns();
        conn = now >= due ? idle_conn(target) : NULL;

        if (conn != NULL) {
            ask(target, conn, slice, due);
            /* exponential: a Poisson process */
            due += (uint64_t) (-log((double) (draw() % 1000000 + 1) / 1000001)
                               / rate * 1e9);
            continue;
        }

        timeout.tv_nsec = now >= due ? 1000000 : (long) ((due - now) % 1000000000);
        hear_all(target, slice, &timeout, end);
    }
}


/* Requests for length ns, until the last answer; returns when it came. */
static uint64_t
run_requests(target_t *target, slice_t *slice, uint64_t length)
{
    unsigned         i;
    uint64_t         last, end;
    struct timespec  second = { 1, 0 };

    memset(slice, 0, sizeof(*slice));
    end = now_ns() + length;

    if (rate > 0) {
        run_paced(target, slice, end);

    } else {
        for (i = 0; i < connections; i++) {
            ask(target, &target->conns[i], slice, now_ns());
        }
    }

    for (last = now_ns(); slice->outstanding > 0; ) {
        hear_all(target, slice, &second, end);

        if (now_ns() > end + ANSWER_NS) {
            errno = ETIMEDOUT;
            fail("an answer");
        }

        last = now_ns();
    }

    return last;
}


static void
run_slice(target_t *target, unsigned k, uint64_t length)
{
    slice_t   slice;
    uint64_t  cpu, start, last;

    /* others had the caches meanwhile: a target at work has its own there */
    if (rate == 0) {
        (void) run_requests(target, &slice, WARM_NS);
    }

    cpu = cpu_ns_asleep(target->pid);
    start = now_ns();
    last = run_requests(target, &slice, length);

    print_slice(k, &slice, last - start, cpu_ns_asleep(target->pid) - cpu);
}


/* A loop that sleeps is woken by the backend's requests, too. */
static int
hear_backend(target_t *target)
{
    struct epoll_event  event = { .events = EPOLLIN, .data.ptr = NULL };

    return epoll_ctl(target->epoll, EPOLL_CTL_ADD, backend.epoll, &event);
}


static void
read_options(int *argc, char ***argv, int *wait)
{
    int  c;

    while ((c = getopt(*argc, *argv, "+b:p:w")) != -1) {
        switch (c) {
        case 'b':
            own_backend = 1;

            if (backend_start(&backend, (unsigned) atoi(optarg)) != 0) {
                fail("backend");
            }

            break;
        case 'p':
            rate = atof(optarg);
            break;
        case 'w':
            *wait = 1;
            break;
        default:
            exit(2);
        }
    }

    *argc -= optind - 1;
    *argv += optind - 1;
}


int
main(int argc, char **argv)
{
    int        used, wait = 0;
    target_t  *targets;
    unsigned   i, k, n, rounds, order;

    signal(SIGPIPE, SIG_IGN);
    read_options(&argc, &argv, &wait);

    if (argc < 5 || argc - 4 > MAX_TARGETS) {
        fprintf(stderr, "usage: load [-b PORT] [-p RATE] [-w] CONNECTIONS SLICE_MS "
                        "ROUNDS PORT:PID:FILE...\n");
        return 2;
    }

    connections = (unsigned) atoi(argv[1]);
    rounds = (unsigned) atoi(argv[3]);
    n = (unsigned) argc - 4;
    targets = calloc(n, sizeof(target_t));

    for (k = 0; k < n; k++) {

        if (sscanf(argv[4 + k], "%u:%d:%n", &targets[k].port, &targets[k].pid, &used) != 2) {
            errno = EINVAL;
            fail(argv[4 + k]);
        }

        read_requests(&targets[k], argv[4 + k] + used);
        targets[k].epoll = epoll_create1(EPOLL_CLOEXEC);
        targets[k].conns = calloc(connections, sizeof(conn_t));

        for (i = 0; i < connections; i++) {
            dial(&targets[k], &targets[k].conns[i]);
        }

        if (own_backend && rate > 0 && hear_backend(&targets[k]) != 0) {
            fail("epoll_ctl");
        }
    }

    /* forwards, then backwards: who comes after whom is no advantage */
    for (i = 0; i < rounds; i++) {
        for (k = 0; k < n; k++) {
            order = i % 2 ? n - 1 - k : k;

            if (wait && getchar() == EOF) {
                return 0;
            }

            run_slice(&targets[order], order, (uint64_t) atoi(argv[2]) * 1000000);
        }
    }

    return 0;
}
