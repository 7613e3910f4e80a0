/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One request, from evhttp to its answer.  It ends in exactly one of
 * td_reply(), td_reply_problem(), td_stream_end(), td_request_free() after the
 * client has gone; none of them may be followed by any use of it.
 */

#ifndef TD_REQUEST_H
#define TD_REQUEST_H

#include <time.h>

#include <event2/buffer.h>
#include <event2/http.h>

#include "td_conn.h"
#include "td_daemon.h"
#include "td_problem.h"
#include "td_route.h"
#include "tg_uri.h"

#define TD_REQUEST_ID_MAX  64

typedef struct td_request_s {
    td_daemon_t            *daemon;
    struct evhttp_request  *http;
    td_conn_t              *conn;
    struct timespec         start;

    td_method_e             method;
    tg_uri_t                uri;
    td_match_t              match;
    char                    id[TD_REQUEST_ID_MAX + 1];

    /* The body as it came, inside evhttp's buffer, not NUL-terminated; and, when
     * keys were sealed in it, as it goes on. */
    const char             *body;
    size_t                  body_len;
    char                   *sealed;

    char                   *credential;     /* JSON, for begin_request() */

    /* The client is gone before the answer; who sets it frees the request. */
    void                  (*closed)(struct td_request_s *request);
    void                   *data;

    int                     status;         /* of a stream */
    size_t                  sent;
} td_request_t;

/*
 * Takes over what evhttp has received: method, target, id and route, and refuses
 * what could be read in two ways (request smuggling, RFC 9112 section 6.3).
 * Returns NULL if it has already been answered.
 */
td_request_t *td_request_create(td_daemon_t *daemon,
    struct evhttp_request *http, td_conn_t *conn);

/* For handlers' closed: nothing can be answered any more. */
void td_request_free(td_request_t *request);

/* A request header's value, or NULL. */
const char *td_request_header(const td_request_t *request, const char *name);

/* Adds a header to the answer. */
void td_reply_header(td_request_t *request, const char *name,
    const char *value);

/* Answers; body may be NULL.  type: the Content-Type, NULL without body. */
void td_reply(td_request_t *request, int status, const char *type,
    const char *body, size_t len);

/* Answers with a problem document; request_id is filled in. */
void td_reply_problem(td_request_t *request, const td_problem_t *problem);

/* The same for one of tenantd's own kinds. */
void td_reply_kind(td_request_t *request, td_problem_kind_e kind,
    const char *detail);

/*
 * An answer of unknown length, chunk by chunk.  td_stream_send() empties the
 * buffer.  Between these the client may go: then closed is called.
 */
void td_stream_begin(td_request_t *request, int status, const char *type);
void td_stream_send(td_request_t *request, struct evbuffer *chunk);
void td_stream_end(td_request_t *request);

/* Ends a stream, and the connection with it, at once. */
void td_stream_drop(td_request_t *request);

#endif /* TD_REQUEST_H */
