/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include <event2/keyvalq_struct.h>
#include <event2/util.h>

#include "td_http.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_request.h"


/* evhttp needs its own request to be answered even when there is no memory for
 * ours. */
static const td_problem_kind_e  td_request_fallback = TD_PROBLEM_OVERLOADED;


static td_method_e
td_request_method(struct evhttp_request *http)
{
    switch (evhttp_request_get_command(http)) {
    case EVHTTP_REQ_GET:     return TD_GET;
    case EVHTTP_REQ_HEAD:    return TD_HEAD;
    case EVHTTP_REQ_POST:    return TD_POST;
    case EVHTTP_REQ_PUT:     return TD_PUT;
    case EVHTTP_REQ_PATCH:   return TD_PATCH;
    case EVHTTP_REQ_DELETE:  return TD_DELETE;
    default:                 return TD_OTHER;
    }
}


/* A caller's id is taken if it can do no harm in a log or a header. */
static void
td_request_set_id(td_request_t *request)
{
    size_t         i, n;
    unsigned char  random[12];
    const char    *id;

    static const char  hex[] = "0123456789abcdef";
    static const char  sane[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-_.:/+=";

    id = td_request_header(request, "X-Request-Id");

    if (id != NULL) {
        n = strlen(id);
        if (n > 0 && n <= TD_REQUEST_ID_MAX && strspn(id, sane) == n) {
            memcpy(request->id, id, n + 1);
            return;
        }
    }

    evutil_secure_rng_get_bytes(random, sizeof(random));

    for (i = 0; i < sizeof(random); i++) {
        request->id[2 * i] = hex[random[i] >> 4];
        request->id[2 * i + 1] = hex[random[i] & 15];
    }
}


/* RFC 9110 section 5.6.2 */
static int
td_request_is_token(const char *s)
{
    static const char  token[] = "!#$%&'*+-.^_`|~0123456789"
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    return *s != '\0' && strspn(s, token) == strlen(s);
}


static int
td_request_is_field_value(const char *s)
{
    for ( ; *s != '\0'; s++) {
        if (((unsigned char) *s < 0x20 && *s != '\t') || *s == 0x7f) {
            return 0;
        }
    }

    return 1;
}


typedef struct {
    unsigned  host, length, encoding, authorization;
    int       has_body;
} td_request_fields_t;


static const char *
td_request_check_field(const char *name, const char *value,
    td_request_fields_t *seen)
{
    if (!td_request_is_token(name)) {
        return "a header field's name is malformed";
    }

    if (!td_request_is_field_value(value)) {
        return "a header field's value has control characters";
    }

    if (strcasecmp(name, "Host") == 0) {
        seen->host++;

    } else if (strcasecmp(name, "Authorization") == 0) {
        seen->authorization++;

    } else if (strcasecmp(name, "Content-Length") == 0) {
        seen->length++;
        seen->has_body = strcmp(value, "0") != 0;
        if (*value == '\0' || strspn(value, "0123456789") != strlen(value)) {
            return "Content-Length is not a number";
        }

    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        seen->encoding++;
        seen->has_body = 1;
        if (strcasecmp(value, "chunked") != 0) {
            return "the only Transfer-Encoding known is \"chunked\"";
        }
    }

    return NULL;
}


/* What evhttp lets pass, but somebody before us may have read differently. */
static const char *
td_request_check_fields(td_request_t *request)
{
    const char           *problem;
    struct evkeyval      *field;
    td_request_fields_t   seen = { 0, 0, 0, 0, 0 };

    TAILQ_FOREACH(field, evhttp_request_get_input_headers(request->http), next)
    {
        problem = td_request_check_field(field->key, field->value, &seen);
        if (problem != NULL) {
            return problem;
        }
    }

    if (seen.host > 1) {
        return "there is more than one Host";
    }

    if (seen.authorization > 1) {
        return "there is more than one Authorization";
    }

    if (seen.length + seen.encoding > 1) {
        return "there is more than one of Content-Length and "
               "Transfer-Encoding";
    }

    /* evhttp takes the body of these for the next request */
    if (seen.has_body
        && (request->method == TD_HEAD || request->method == TD_OTHER))
    {
        return "this method takes no body";
    }

    return NULL;
}


static void
td_request_on_closed(void *data)
{
    td_request_t  *request = data;

    if (request->closed != NULL) {
        request->closed(request);
        return;
    }

    td_request_free(request);
}


static void
td_request_set_body(td_request_t *request)
{
    struct evbuffer  *input;

    input = evhttp_request_get_input_buffer(request->http);
    request->body_len = evbuffer_get_length(input);

    /* an import is read line by line, and need not lie in one piece */
    if (request->body_len > 0
        && (request->match.route == NULL
            || request->match.route->body != TD_BODY_LINES))
    {
        request->body = (const char *) evbuffer_pullup(input, -1);
    }
}


static void
td_request_refuse_method(td_request_t *request)
{
    char  allow[64];

    td_method_list(request->match.allowed, allow, sizeof(allow));
    td_reply_header(request, "Allow", allow);
    td_reply_kind(request, TD_PROBLEM_METHOD_NOT_ALLOWED, "the path exists, "
                  "but not with this method; Allow says which it knows");
}


td_request_t *
td_request_create(td_daemon_t *daemon, struct evhttp_request *http,
    td_conn_t *conn)
{
    tg_error_t     err;
    const char    *problem;
    td_request_t  *request;

    request = calloc(1, sizeof(td_request_t));
    if (request == NULL) {
        evhttp_send_error(http, td_problem_kinds[td_request_fallback].status,
                          NULL);
        return NULL;
    }

    request->daemon = daemon;
    request->http = http;
    request->conn = conn;
    request->method = td_request_method(http);
    clock_gettime(CLOCK_MONOTONIC, &request->start);
    td_request_set_id(request);
    td_conn_begin(conn, http, td_request_on_closed, request);

    problem = td_request_check_fields(request);

    if (problem != NULL) {
        td_reply_header(request, "Connection", "close");
        td_reply_kind(request, TD_PROBLEM_MALFORMED_REQUEST, problem);
        return NULL;
    }

    if (tg_uri_parse(&request->uri, evhttp_request_get_uri(http), &err) != 0) {
        td_reply_kind(request, TD_PROBLEM_MALFORMED_REQUEST, err.message);
        return NULL;
    }

    td_route_match(&request->uri, request->method, &request->match);
    td_request_set_body(request);

    if (request->match.route == NULL && request->match.allowed != 0) {
        td_request_refuse_method(request);
        return NULL;
    }

    if (request->match.route == NULL) {
        td_reply_kind(request, TD_PROBLEM_UNKNOWN_ROUTE, "there is nothing at "
                      "this path; GET /v1/openapi.yaml lists what there is");
        return NULL;
    }

    return request;
}


void
td_request_free(td_request_t *request)
{
    tg_uri_clear(&request->uri);
    free(request->credential);
    free(request->sealed);
    free(request);
}


const char *
td_request_header(const td_request_t *request, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(request->http),
                              name);
}


void
td_reply_header(td_request_t *request, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(request->http), name,
                      value);
}


static double
td_request_seconds(const td_request_t *request)
{
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return (double) (now.tv_sec - request->start.tv_sec)
           + (double) (now.tv_nsec - request->start.tv_nsec) / 1e9;
}


/* The answer is made: count it, log it, and let go. */
static void
td_request_end(td_request_t *request, int status, size_t size)
{
    int     route;
    double  seconds;

    route = request->match.route != NULL
            ? (int) (request->match.route - td_routes) : -1;
    seconds = td_request_seconds(request);
    td_metrics_request(route, status, seconds);

    if (request->daemon->config->log.access) {
        td_log(TD_LOG_NOTICE, "access", "%s \"%s %.200s\" %d %zu %.3fs id=%s",
               td_conn_peer(request->conn),
               request->method == TD_OTHER ? "-"
                                           : td_method_name(request->method),
               evhttp_request_get_uri(request->http), status, size, seconds,
               request->id);
    }

    td_conn_forget(request->conn);
    td_request_free(request);
}


static void
td_reply_common(td_request_t *request, const char *type)
{
    td_reply_header(request, "X-Request-Id", request->id);
    td_reply_header(request, "Cache-Control", "no-store");
    td_reply_header(request, "X-Content-Type-Options", "nosniff");

    if (type != NULL) {
        td_reply_header(request, "Content-Type", type);
    }

    if (request->daemon->draining) {
        evhttp_remove_header(evhttp_request_get_output_headers(request->http),
                             "Connection");
        td_reply_header(request, "Connection", "close");
    }
}


void
td_reply(td_request_t *request, int status, const char *type, const char *body,
    size_t len)
{
    char                    length[32];
    struct evbuffer        *buffer;
    struct evhttp_request  *http;

    td_reply_common(request, type);
    http = request->http;
    buffer = NULL;

    if (body != NULL && request->method == TD_HEAD) {
        evutil_snprintf(length, sizeof(length), "%zu", len);
        td_reply_header(request, "Content-Length", length);

    } else if (body != NULL) {
        buffer = evbuffer_new();
        if (buffer != NULL) {
            evbuffer_add(buffer, body, len);
        }
    }

    /* ours ends first: evhttp may close the connection */
    td_request_end(request, status, body != NULL ? len : 0);
    evhttp_send_reply(http, status, td_problem_reason(status), buffer);

    if (buffer != NULL) {
        evbuffer_free(buffer);
    }
}


void
td_reply_problem(td_request_t *request, const td_problem_t *problem)
{
    char          *body;
    size_t         len;
    td_problem_t   own;

    own = *problem;
    own.request_id = request->id;

    if (own.status == 401) {
        td_reply_header(request, "WWW-Authenticate",
                        request->credential != NULL
                        ? "Bearer realm=\"tiergate\", error=\"invalid_token\""
                        : "Bearer realm=\"tiergate\"");
    }

    if (own.status == 503) {
        td_reply_header(request, "Retry-After", "2");
    }

    body = td_problem_body(&own, &len);
    td_reply(request, own.status, "application/problem+json",
             body != NULL ? body : "", body != NULL ? len : 0);
    free(body);
}


void
td_reply_kind(td_request_t *request, td_problem_kind_e kind, const char *detail)
{
    td_problem_t  problem;

    problem = td_problem(kind, detail);
    td_reply_problem(request, &problem);
}


void
td_stream_begin(td_request_t *request, int status, const char *type)
{
    td_reply_common(request, type);
    request->status = status;
    evhttp_send_reply_start(request->http, status, td_problem_reason(status));
}


void
td_stream_send(td_request_t *request, struct evbuffer *chunk)
{
    request->sent += evbuffer_get_length(chunk);
    evhttp_send_reply_chunk(request->http, chunk);
}


void
td_stream_end(td_request_t *request)
{
    struct evhttp_request  *http;

    http = request->http;
    td_request_end(request, request->status, request->sent);
    evhttp_send_reply_end(http);
}


void
td_stream_drop(td_request_t *request)
{
    td_conn_t  *conn;

    conn = request->conn;
    td_request_end(request, request->status, request->sent);
    td_conn_drop(conn);
}
