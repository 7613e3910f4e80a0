/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A small HTTP/1.1 client on nginx's events, for what a worker says to tenantd:
 * one connection, one request at a time, kept alive between requests.
 *
 *  1. ngx_http_tenant_client_request() either fails at once (NGX_ERROR, nothing
 *     is called), or ends in exactly one call of done().  done() may begin the
 *     next request.
 *  2. body() takes as much as it likes.  What it leaves, and everything after
 *     it, comes again in the next turn of the event loop, so that the worker's
 *     requests are served in between.
 *  3. The connection counts as idle: a worker that shuts down closes it at once,
 *     and done() finds ngx_exiting set.
 *  4. Plain connections only.  TLS belongs between connecting and sending, in
 *     ngx_http_tenant_client_connected().
 */

#ifndef NGX_HTTP_TENANT_CLIENT_H
#define NGX_HTTP_TENANT_CLIENT_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "../lib/tg_stream.h"
#include "../lib/tg_text.h"


typedef enum {
    NGX_HTTP_TENANT_CLIENT_CLOSED = 0,  /* no connection */
    NGX_HTTP_TENANT_CLIENT_IDLE,        /* connected; waits for a request */
    NGX_HTTP_TENANT_CLIENT_CONNECTING,  /* waits for the connection */
    NGX_HTTP_TENANT_CLIENT_SENDING,     /* waits to write the request */
    NGX_HTTP_TENANT_CLIENT_READING      /* waits for the response */
} ngx_http_tenant_client_state_e;


typedef struct ngx_http_tenant_client_s  ngx_http_tenant_client_t;


typedef struct {
    /* The head of the response.  Other than NGX_OK drops the connection. */
    ngx_int_t   (*head)(void *data, const tg_response_t *response);

    /* Part of the body.  Returns how much of it was taken; less than len gives
     * way to the event loop, and so does NGX_AGAIN: all was taken.  NGX_ERROR
     * drops the connection. */
    ssize_t     (*body)(void *data, const char *p, size_t len);

    /* All that has arrived was taken.  NULL: nobody cares. */
    void        (*drained)(void *data);

    /* NGX_OK: the response came whole.  NGX_ERROR: it did not; why is logged. */
    void        (*done)(void *data, ngx_int_t rc);
} ngx_http_tenant_client_handler_t;


struct ngx_http_tenant_client_s {
    /* set by the owner before the first request */
    const char                              *what;      /* for the log */
    ngx_url_t                               *url;
    ngx_str_t                                token;     /* bearer, or empty */
    const ngx_http_tenant_client_handler_t  *handler;
    void                                    *data;
    ngx_msec_t                               timeout;   /* of a whole exchange */
    unsigned                                 stream:1;  /* timeout until the head
                                                         * has come, only */

    /* read only */
    ngx_http_tenant_client_state_e           state;
    tg_response_t                            response;
    char                                     said[512]; /* begin of the body, see
                                                         * _said() */
    size_t                                   nsaid;

    /* private */
    unsigned                                 reused:1;  /* the connection has
                                                         * served before */
    ngx_uint_t                               address;   /* in url, tried next */
    ngx_peer_connection_t                    peer;
    ngx_log_t                                log;
    ngx_connection_t                         dumb;      /* of the two events */
    ngx_event_t                              timer;
    ngx_event_t                              resume;
    tg_text_t                                request;
    size_t                                   sent;
    u_char                                  *buffer;
    const char                              *pos;       /* in buffer: not yet */
    const char                              *last;      /* parsed */
    const char                              *body;      /* in buffer: not yet */
    size_t                                   body_len;  /* taken */
};


/* Prepares a client, all zero but for what the owner sets. */
void ngx_http_tenant_client_init(ngx_http_tenant_client_t *client,
    ngx_log_t *log);

/* Sends method and uri, with a JSON body unless it is NULL. */
ngx_int_t ngx_http_tenant_client_request(ngx_http_tenant_client_t *client,
    const char *method, const char *uri, const tg_text_t *body);

/* Only puts the text of a request into client->request. */
ngx_int_t ngx_http_tenant_client_compose(ngx_http_tenant_client_t *client,
    const char *method, const char *uri, const tg_text_t *body);

/* For exchanges of which only the status matters: head() and body() that keep the
 * beginning of the body for the log.  data is the client. */
ngx_int_t ngx_http_tenant_client_said_head(void *data,
    const tg_response_t *response);
ssize_t ngx_http_tenant_client_said_body(void *data, const char *p, size_t len);

/* Logs what was answered instead of 2xx. */
void ngx_http_tenant_client_said(ngx_http_tenant_client_t *client);

/* Closes without calling done(); frees what the client holds. */
void ngx_http_tenant_client_close(ngx_http_tenant_client_t *client);

static ngx_inline ngx_uint_t
ngx_http_tenant_client_busy(const ngx_http_tenant_client_t *client)
{
    return client->state > NGX_HTTP_TENANT_CLIENT_IDLE;
}


#endif /* NGX_HTTP_TENANT_CLIENT_H */
