/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One client connection: what evhttp of libevent 2.1 does not do.
 *
 *  1. It has no deadline for a whole request, only for each read: a client that
 *     sends a byte now and then holds a connection for ever.  Here a request has
 *     one, from its first byte to its last.
 *  2. It answers malformed and oversized requests by itself, in HTML.  Such an
 *     answer is exchanged for a problem document before it is sent.
 *  3. Its limit for bodies is one for all requests, and it keeps the line with a
 *     chunk's size without limit.  Here POST /v1/import has a limit of its own,
 *     for a few connections at once, and what is buffered is bounded.
 *  4. It shows a request only when its body is complete, so an import's body is
 *     held in memory as a whole.
 */

#ifndef TD_CONN_H
#define TD_CONN_H

#include <event2/bufferevent.h>
#include <event2/http.h>

#include "td_problem.h"

typedef enum {
    TD_LISTEN_UNIX,
    TD_LISTEN_PLAIN,
    TD_LISTEN_TLS
} td_listen_kind_e;

typedef enum {
    TD_CONN_IDLE,       /* waits for the first byte of a request */
    TD_CONN_READING,    /* waits for its last byte, until the deadline */
    TD_CONN_HANDLING,   /* waits for our answer to be made and sent */
    TD_CONN_REFUSING    /* sends a last problem document, then closes */
} td_conn_state_e;

typedef struct td_conn_s  td_conn_t;
struct td_http_s;

/*
 * For evhttp's bevcb: begins a connection on bev, which evhttp is about to take.
 * Returns NULL: no memory.
 */
td_conn_t *td_conn_create(struct td_http_s *http, td_listen_kind_e kind,
    struct bufferevent *bev);

/*
 * Once evhttp has taken bev, before any byte is read.  Returns -1, and conn is
 * gone, if evhttp did not.
 */
int td_conn_adopt(td_conn_t *conn);

/* evhttp has a complete request; closed(data) is called if the connection ends
 * before the answer is sent. */
void td_conn_begin(td_conn_t *conn, struct evhttp_request *request,
    void (*closed)(void *data), void *data);

/* The request's owner is gone: closed will not be called. */
void td_conn_forget(td_conn_t *conn);

/* Drops the connection now. */
void td_conn_drop(td_conn_t *conn);

int td_conn_fd(const td_conn_t *conn);
td_listen_kind_e td_conn_kind(const td_conn_t *conn);
td_conn_state_e td_conn_state(const td_conn_t *conn);
struct bufferevent *td_conn_bufferevent(const td_conn_t *conn);

/* The client for the log: "unix:root", "10.0.0.1". */
const char *td_conn_peer(const td_conn_t *conn);

/* The user on the other end of a unix socket; "" for others. */
const char *td_conn_user(const td_conn_t *conn);

#endif /* TD_CONN_H */
