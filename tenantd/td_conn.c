/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

/*
 * Ownership: evhttp owns the connection and the request.  conn holds a reference
 * to the bufferevent, so that it can be looked at even if evhttp failed to take
 * it, and lives until evhttp's close callback.
 *
 * evhttp's own answers are noticed by their bytes arriving in the output buffer
 * while no request is with us; a socket's buffer is written only in a later turn
 * of the loop, and "attend" comes before that.
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>

#include "td_conn.h"
#include "td_http.h"
#include "td_log.h"


#define TD_CONN_IMPORT      "POST /v1/import"
#define TD_CONN_IMPORT_LEN  (sizeof(TD_CONN_IMPORT) - 1)

/* What may be buffered beyond head and body: chunk sizes, the next request. */
#define TD_CONN_SLACK       (256 * 1024)

/* For how long a refused request's rest is read, in milliseconds. */
#define TD_CONN_LINGER      2000

/* What is read ahead of a request that is being answered. */
#define TD_CONN_AHEAD       (64 * 1024)

struct td_conn_s {
    struct td_http_s           *http;
    td_listen_kind_e            kind;
    td_conn_state_e             state;
    struct bufferevent         *bev;
    struct evhttp_connection   *evcon;
    struct evbuffer_cb_entry   *on_input;
    struct evbuffer_cb_entry   *on_output;
    struct event               *deadline;
    struct event               *attend;
    int                         fd;

    size_t                      limit;      /* of the input buffer */
    unsigned                    known:1;    /* import or not is decided */
    unsigned                    import:1;   /* holds one of the places */
    unsigned                    busy:1;     /* wanted one, there was none */
    unsigned                    overflow:1;

    struct evhttp_request      *request;
    void                      (*closed)(void *data);
    void                       *data;

    char                        user[33];
    char                        peer[64];
};


static void
td_conn_free(td_conn_t *conn)
{
    if (conn->import) {
        td_http_release_import(conn->http);
    }

    if (conn->on_input != NULL) {
        evbuffer_remove_cb_entry(bufferevent_get_input(conn->bev),
                                 conn->on_input);
    }

    if (conn->on_output != NULL) {
        evbuffer_remove_cb_entry(bufferevent_get_output(conn->bev),
                                 conn->on_output);
    }

    if (conn->deadline != NULL) {
        event_free(conn->deadline);
    }

    if (conn->attend != NULL) {
        event_free(conn->attend);
    }

    bufferevent_decref(conn->bev);
    free(conn);
}


static void
td_conn_arm(td_conn_t *conn, long ms)
{
    struct timeval  tv = { ms / 1000, ms % 1000 * 1000 };

    evtimer_add(conn->deadline, &tv);
}


/* Once as much of the request line is there as it takes: which limits hold? */
static void
td_conn_classify(td_conn_t *conn)
{
    char                head[TD_CONN_IMPORT_LEN];
    long                body;
    size_t              n;
    struct evbuffer    *input;
    const td_config_t  *config;

    input = bufferevent_get_input(conn->bev);
    config = td_http_config(conn->http);
    n = (size_t) evbuffer_copyout(input, head, sizeof(head));

    if (memcmp(head, TD_CONN_IMPORT, n) != 0) {
        conn->known = 1;

    } else if (n == TD_CONN_IMPORT_LEN) {
        conn->known = 1;
        conn->import = td_http_take_import(conn->http) ? 1 : 0;
        conn->busy = !conn->import;
    }

    body = conn->import ? config->http.import_max_body : config->http.max_body;
    evhttp_connection_set_max_body_size(conn->evcon, body);
    conn->limit = (size_t) (body + config->http.max_header) + TD_CONN_SLACK;

    if (conn->import) {
        td_conn_arm(conn, config->http.import_timeout);
    }
}


static void
td_conn_start_reading(td_conn_t *conn)
{
    conn->state = TD_CONN_READING;
    conn->known = 0;
    conn->busy = 0;
    td_conn_arm(conn, td_http_config(conn->http)->http.request_timeout);
    td_conn_classify(conn);
}


static void
td_conn_on_input(struct evbuffer *input, const struct evbuffer_cb_info *info,
    void *data)
{
    td_conn_t  *conn = data;

    if (info->n_added == 0 || conn->evcon == NULL) {
        return;
    }

    if (conn->state == TD_CONN_IDLE) {
        td_conn_start_reading(conn);

    } else if (conn->state == TD_CONN_READING && !conn->known) {
        td_conn_classify(conn);
    }

    if (conn->state == TD_CONN_READING
        && evbuffer_get_length(input) > conn->limit)
    {
        conn->overflow = 1;
        event_active(conn->attend, EV_TIMEOUT, 0);
    }
}


static void
td_conn_on_output(struct evbuffer *output, const struct evbuffer_cb_info *info,
    void *data)
{
    td_conn_t  *conn = data;

    (void) output;

    if (info->n_added > 0 && conn->evcon != NULL
        && (conn->state == TD_CONN_IDLE || conn->state == TD_CONN_READING))
    {
        event_active(conn->attend, EV_TIMEOUT, 0);
    }
}


static void
td_conn_on_event(struct bufferevent *bev, short what, void *data)
{
    (void) bev;
    (void) what;

    td_conn_drop(data);
}


static void
td_conn_on_rest(struct bufferevent *bev, void *data)
{
    struct evbuffer  *input;

    (void) data;

    input = bufferevent_get_input(bev);
    evbuffer_drain(input, evbuffer_get_length(input));
}


/*
 * The refusal is sent.  Were the connection closed now, while the client is still
 * sending, the kernel would answer with a reset, and the client might never read
 * it: so the rest is read and thrown away for a while (RFC 9112 section 9.6).
 */
static void
td_conn_on_flushed(struct bufferevent *bev, void *data)
{
    td_conn_t  *conn = data;

    bufferevent_setcb(bev, td_conn_on_rest, NULL, td_conn_on_event, conn);
    td_conn_on_rest(bev, conn);
    td_conn_arm(conn, TD_CONN_LINGER);

    if (conn->kind != TD_LISTEN_TLS) {
        shutdown(conn->fd, SHUT_WR);
    }

    bufferevent_enable(bev, EV_READ);
}


/* Sends a problem document in place of whatever evhttp had to say, and closes. */
static void
td_conn_refuse(td_conn_t *conn, td_problem_kind_e kind, const char *detail)
{
    char             *body;
    size_t            len;
    td_problem_t      problem;
    struct evbuffer  *output;

    conn->state = TD_CONN_REFUSING;
    evtimer_del(conn->deadline);

    problem = td_problem(kind, detail);
    body = td_problem_body(&problem, &len);
    if (body == NULL) {
        td_conn_drop(conn);
        return;
    }

    output = bufferevent_get_output(conn->bev);
    bufferevent_disable(conn->bev, EV_READ);
    bufferevent_setcb(conn->bev, NULL, td_conn_on_flushed, td_conn_on_event,
                      conn);

    /* libevent keeps the front of a socket's buffer frozen, but not that of a
     * TLS connection's */
    evbuffer_unfreeze(output, 1);
    evbuffer_drain(output, evbuffer_get_length(output));
    if (conn->kind != TD_LISTEN_TLS) {
        evbuffer_freeze(output, 1);
    }

    evbuffer_add_printf(output, "HTTP/1.1 %d %s\r\n"
                        "Content-Type: application/problem+json\r\n"
                        "Content-Length: %zu\r\n%sConnection: close\r\n\r\n",
                        problem.status, td_problem_reason(problem.status), len,
                        problem.status == 503 ? "Retry-After: 5\r\n" : "");
    evbuffer_add(output, body, len);
    free(body);

    bufferevent_enable(conn->bev, EV_WRITE);

    td_log(TD_LOG_INFO, "http", "%s: refused before it was a request: %s",
           conn->peer, detail);
}


/* The status of evhttp's own answer, or 0: it only says "100 Continue". */
static int
td_conn_own_status(td_conn_t *conn)
{
    char     head[13];
    ssize_t  n;

    n = evbuffer_copyout(bufferevent_get_output(conn->bev), head,
                         sizeof(head) - 1);

    if (n < (ssize_t) sizeof(head) - 1) {
        return 0;
    }

    head[n] = '\0';
    n = atoi(head + 9);

    return n >= 400 ? (int) n : 0;
}


static void
td_conn_on_attend(evutil_socket_t fd, short what, void *data)
{
    int          status;
    td_conn_t   *conn = data;
    const char  *detail;

    (void) fd;
    (void) what;

    status = conn->overflow ? 413 : td_conn_own_status(conn);

    if (status == 0 || conn->state == TD_CONN_HANDLING
        || conn->state == TD_CONN_REFUSING)
    {
        return;
    }

    if (status == 413 && conn->busy) {
        td_conn_refuse(conn, TD_PROBLEM_OVERLOADED, "as many imports as are "
                       "allowed at once are under way; try again later");
        return;
    }

    detail = status == 413
             ? "the body, or a chunk of it, is larger than is allowed here, or "
               "malformed"
             : status == 501 ? "the request method is not known"
             : status == 417 ? "only \"Expect: 100-continue\" is known"
             : "the request line or a header field is malformed or too long";

    td_conn_refuse(conn, td_problem_of_status(status), detail);
}


static void
td_conn_on_deadline(evutil_socket_t fd, short what, void *data)
{
    td_conn_t  *conn = data;

    (void) fd;
    (void) what;

    if (conn->state == TD_CONN_READING) {
        td_conn_refuse(conn, TD_PROBLEM_REQUEST_TIMEOUT, "the request was not "
                       "complete in time");

    } else if (conn->state != TD_CONN_HANDLING) {
        /* silence, a handshake that does not end, or a refusal that has been
         * given time enough to be read */
        td_conn_drop(conn);
    }
}


static void
td_conn_on_close(struct evhttp_connection *evcon, void *data)
{
    td_conn_t              *conn = data;
    struct evhttp_request  *request;

    (void) evcon;

    conn->evcon = NULL;
    td_http_register(conn->http, conn->fd, NULL);

    request = conn->request;
    conn->request = NULL;

    if (request != NULL) {
        if (conn->closed != NULL) {
            conn->closed(conn->data);
        }

        /* After a network error evhttp has let go of a request that was with us,
         * and whoever had it frees it; otherwise it still frees it itself. */
        if (evhttp_request_get_connection(request) == NULL) {
            evhttp_request_free(request);
        }
    }

    td_conn_free(conn);
}


static void
td_conn_on_complete(struct evhttp_request *request, void *data)
{
    td_conn_t  *conn = data;

    (void) request;

    conn->request = NULL;
    conn->closed = NULL;
    conn->state = TD_CONN_IDLE;
    bufferevent_setwatermark(conn->bev, EV_READ, 0, 0);

    if (conn->import) {
        conn->import = 0;
        td_http_release_import(conn->http);
    }

    /* the next request was sent without waiting for this answer */
    if (evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0) {
        td_conn_start_reading(conn);
    }
}


td_conn_t *
td_conn_create(struct td_http_s *http, td_listen_kind_e kind,
    struct bufferevent *bev)
{
    td_conn_t          *conn;
    struct event_base  *base;

    conn = calloc(1, sizeof(td_conn_t));
    if (conn == NULL) {
        return NULL;
    }

    bufferevent_incref(bev);
    base = td_http_base(http);
    conn->http = http;
    conn->kind = kind;
    conn->bev = bev;
    conn->fd = -1;
    conn->deadline = evtimer_new(base, td_conn_on_deadline, conn);
    conn->attend = event_new(base, -1, 0, td_conn_on_attend, conn);

    conn->on_input = evbuffer_add_cb(bufferevent_get_input(bev),
                                     td_conn_on_input, conn);
    conn->on_output = evbuffer_add_cb(bufferevent_get_output(bev),
                                      td_conn_on_output, conn);

    if (conn->deadline == NULL || conn->attend == NULL
        || conn->on_input == NULL || conn->on_output == NULL)
    {
        td_conn_free(conn);
        return NULL;
    }

    return conn;
}


/* Who is at the other end of a unix socket. */
static void
td_conn_identify_user(td_conn_t *conn)
{
    socklen_t       len;
    struct ucred    cred;
    struct passwd  *pw;

    len = sizeof(cred);

    if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        return;
    }

    pw = getpwuid(cred.uid);

    if (pw != NULL && strlen(pw->pw_name) < sizeof(conn->user)) {
        memcpy(conn->user, pw->pw_name, strlen(pw->pw_name) + 1);

    } else {
        snprintf(conn->user, sizeof(conn->user), "%u", cred.uid);
    }

    snprintf(conn->peer, sizeof(conn->peer), "unix:%s", conn->user);
}


static void
td_conn_identify_address(td_conn_t *conn)
{
    int                      on = 1;
    char                    *address;
    ev_uint16_t              port;

    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    evhttp_connection_get_peer(conn->evcon, &address, &port);
    snprintf(conn->peer, sizeof(conn->peer), "%s", address);
}


int
td_conn_adopt(td_conn_t *conn)
{
    void                *arg;
    bufferevent_data_cb  readcb, writecb;
    bufferevent_event_cb eventcb;

    bufferevent_getcb(conn->bev, &readcb, &writecb, &eventcb, &arg);
    conn->fd = bufferevent_getfd(conn->bev);

    if (arg == NULL || conn->fd < 0) {
        td_conn_free(conn);
        return -1;
    }

    /* evhttp's callbacks have its connection as their argument; in 2.1 this is
     * the only way to it before the first request is complete. */
    conn->evcon = arg;
    evhttp_connection_set_closecb(conn->evcon, td_conn_on_close, conn);
    td_http_register(conn->http, conn->fd, conn);

    if (conn->kind == TD_LISTEN_UNIX) {
        td_conn_identify_user(conn);
    } else {
        td_conn_identify_address(conn);
    }

    td_conn_arm(conn, td_http_config(conn->http)->http.request_timeout);

    return 0;
}


void
td_conn_begin(td_conn_t *conn, struct evhttp_request *request,
    void (*closed)(void *data), void *data)
{
    evtimer_del(conn->deadline);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, TD_CONN_AHEAD);
    conn->state = TD_CONN_HANDLING;
    conn->request = request;
    conn->closed = closed;
    conn->data = data;
    evhttp_request_set_on_complete_cb(request, td_conn_on_complete, conn);
}


void
td_conn_forget(td_conn_t *conn)
{
    conn->closed = NULL;
}


void
td_conn_drop(td_conn_t *conn)
{
    evhttp_connection_free(conn->evcon);
}


int
td_conn_fd(const td_conn_t *conn)
{
    return conn->fd;
}


td_listen_kind_e
td_conn_kind(const td_conn_t *conn)
{
    return conn->kind;
}


td_conn_state_e
td_conn_state(const td_conn_t *conn)
{
    return conn->state;
}


struct bufferevent *
td_conn_bufferevent(const td_conn_t *conn)
{
    return conn->bev;
}


const char *
td_conn_peer(const td_conn_t *conn)
{
    return conn->peer;
}


const char *
td_conn_user(const td_conn_t *conn)
{
    return conn->user;
}
