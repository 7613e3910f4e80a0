/* SPDX-License-Identifier: BSD-2-Clause */

#include "ngx_http_tenant_client.h"


#define NGX_HTTP_TENANT_CLIENT_BUFFER  65536


static ngx_int_t ngx_http_tenant_client_connect(
    ngx_http_tenant_client_t *client);
static void ngx_http_tenant_client_connected(ngx_http_tenant_client_t *client);
static ngx_int_t ngx_http_tenant_client_test_connect(ngx_connection_t *c);
static void ngx_http_tenant_client_read_handler(ngx_event_t *rev);
static void ngx_http_tenant_client_write_handler(ngx_event_t *wev);
static void ngx_http_tenant_client_timer_handler(ngx_event_t *ev);
static void ngx_http_tenant_client_resume_handler(ngx_event_t *ev);
static void ngx_http_tenant_client_send(ngx_http_tenant_client_t *client);
static void ngx_http_tenant_client_idle(ngx_http_tenant_client_t *client);
static void ngx_http_tenant_client_read(ngx_http_tenant_client_t *client);
static ngx_int_t ngx_http_tenant_client_parse(ngx_http_tenant_client_t *client);
static ngx_int_t ngx_http_tenant_client_deliver(
    ngx_http_tenant_client_t *client);
static ngx_int_t ngx_http_tenant_client_eof(ngx_http_tenant_client_t *client);
static void ngx_http_tenant_client_finish(ngx_http_tenant_client_t *client,
    ngx_int_t rc);
static void ngx_http_tenant_client_disconnect(ngx_http_tenant_client_t *client);
static u_char *ngx_http_tenant_client_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


void
ngx_http_tenant_client_init(ngx_http_tenant_client_t *client, ngx_log_t *log)
{
    client->log = *log;
    client->log.handler = ngx_http_tenant_client_log_error;
    client->log.data = client;
    client->log.action = NULL;

    client->dumb.fd = (ngx_socket_t) -1;
    client->dumb.data = client;

    client->timer.handler = ngx_http_tenant_client_timer_handler;
    client->timer.data = &client->dumb;
    client->timer.log = &client->log;
    client->timer.cancelable = 1;

    client->resume.handler = ngx_http_tenant_client_resume_handler;
    client->resume.data = &client->dumb;
    client->resume.log = &client->log;
}


ngx_int_t
ngx_http_tenant_client_request(ngx_http_tenant_client_t *client,
    const char *method, const char *uri, const tg_text_t *body)
{
    if (client->buffer == NULL) {
        client->buffer = ngx_alloc(NGX_HTTP_TENANT_CLIENT_BUFFER, &client->log);
        if (client->buffer == NULL) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_tenant_client_compose(client, method, uri, body) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_add_timer(&client->timer, client->timeout);

    if (client->state == NGX_HTTP_TENANT_CLIENT_IDLE) {
        client->reused = 1;
        ngx_http_tenant_client_connected(client);
        return NGX_OK;
    }

    return ngx_http_tenant_client_connect(client);
}


ngx_int_t
ngx_http_tenant_client_compose(ngx_http_tenant_client_t *client,
    const char *method, const char *uri, const tg_text_t *body)
{
    tg_text_t  *text = &client->request;

    tg_text_reset(text);
    tg_text_printf(text, "%s %s HTTP/1.1\r\nHost: ", method, uri);

    if (client->url->family == AF_UNIX) {
        tg_text_str(text, "tenantd");

    } else {
        tg_text_add(text, client->url->url.data, client->url->url.len);
    }

    tg_text_str(text, "\r\nUser-Agent: tiergate-gateway\r\n");

    if (client->token.len) {
        tg_text_str(text, "Authorization: Bearer ");
        tg_text_add(text, client->token.data, client->token.len);
        tg_text_str(text, "\r\n");
    }

    if (body) {
        tg_text_str(text, "Content-Type: application/json\r\n"
                          "Content-Length: ");
        tg_text_u64(text, body->len);
        tg_text_str(text, "\r\n\r\n");
        tg_text_add(text, body->data, body->len);

    } else {
        tg_text_str(text, "\r\n");
    }

    return text->failed ? NGX_ERROR : NGX_OK;
}


/* A tenantd that has not started is nothing critical, as which nginx would log
 * that its socket is not there. */
static ngx_uint_t
ngx_http_tenant_client_is_away(ngx_http_tenant_client_t *client,
    const ngx_addr_t *addr)
{
#if (NGX_HAVE_UNIX_DOMAIN)
    const struct sockaddr_un  *sun = (struct sockaddr_un *) addr->sockaddr;

    if (addr->sockaddr->sa_family == AF_UNIX
        && access(sun->sun_path, F_OK) == -1)
    {
        ngx_log_error(NGX_LOG_ERR, &client->log, ngx_errno,
                      "the socket of tenantd is not there");
        return 1;
    }
#endif

    return 0;
}


static ngx_int_t
ngx_http_tenant_client_connect(ngx_http_tenant_client_t *client)
{
    ngx_int_t               rc;
    ngx_addr_t             *addr;
    ngx_connection_t       *c;
    ngx_peer_connection_t  *peer = &client->peer;

    addr = &client->url->addrs[client->address++ % client->url->naddrs];

    client->log.action = "connecting";
    client->reused = 0;

    if (ngx_http_tenant_client_is_away(client, addr)) {
        return NGX_ERROR;
    }

    ngx_memzero(peer, sizeof(ngx_peer_connection_t));
    peer->sockaddr = addr->sockaddr;
    peer->socklen = addr->socklen;
    peer->name = &addr->name;
    peer->get = ngx_event_get_peer;
    peer->log = &client->log;
    peer->log_error = NGX_ERROR_ERR;

    rc = ngx_event_connect_peer(peer);

    c = peer->connection;

    if (c) {
        c->data = client;
        c->read->handler = ngx_http_tenant_client_read_handler;
        c->write->handler = ngx_http_tenant_client_write_handler;
        c->idle = 1;
    }

    if (rc == NGX_OK) {
        ngx_http_tenant_client_connected(client);
        return NGX_OK;
    }

    if (rc == NGX_AGAIN) {
        client->state = NGX_HTTP_TENANT_CLIENT_CONNECTING;
        return NGX_OK;
    }

    ngx_http_tenant_client_disconnect(client);

    return NGX_ERROR;
}


/* Begins the exchange; errors end it in a later event, never in this call. */
static void
ngx_http_tenant_client_connected(ngx_http_tenant_client_t *client)
{
    client->log.action = "sending the request";
    client->state = NGX_HTTP_TENANT_CLIENT_SENDING;
    client->sent = 0;
    client->pos = NULL;
    client->last = NULL;
    client->body_len = 0;
    tg_response_init(&client->response);

    ngx_post_event(client->peer.connection->write, &ngx_posted_events);
}


static ngx_int_t
ngx_http_tenant_client_test_connect(ngx_connection_t *c)
{
    int        err;
    socklen_t  len;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        (void) ngx_connection_error(c, err, "connect() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_tenant_client_write_handler(ngx_event_t *wev)
{
    ngx_connection_t          *c = wev->data;
    ngx_http_tenant_client_t  *client = c->data;

    if (client->state == NGX_HTTP_TENANT_CLIENT_CONNECTING) {

        if (ngx_http_tenant_client_test_connect(c) != NGX_OK) {
            ngx_http_tenant_client_finish(client, NGX_ERROR);
            return;
        }

        ngx_http_tenant_client_connected(client);
        return;
    }

    if (client->state == NGX_HTTP_TENANT_CLIENT_SENDING) {
        ngx_http_tenant_client_send(client);
    }
}


static void
ngx_http_tenant_client_send(ngx_http_tenant_client_t *client)
{
    ssize_t            n;
    ngx_connection_t  *c = client->peer.connection;

    while (client->sent < client->request.len) {

        n = c->send(c, (u_char *) client->request.data + client->sent,
                    client->request.len - client->sent);

        if (n == NGX_AGAIN) {
            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                ngx_http_tenant_client_finish(client, NGX_ERROR);
            }

            return;
        }

        if (n == NGX_ERROR) {
            ngx_http_tenant_client_finish(client, NGX_ERROR);
            return;
        }

        client->sent += n;
    }

    client->log.action = "reading the response";
    client->state = NGX_HTTP_TENANT_CLIENT_READING;

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_http_tenant_client_finish(client, NGX_ERROR);
        return;
    }

    ngx_http_tenant_client_read(client);
}


static void
ngx_http_tenant_client_read_handler(ngx_event_t *rev)
{
    ngx_connection_t          *c = rev->data;
    ngx_http_tenant_client_t  *client = c->data;

    if (c->close) {     /* the worker is shutting down */
        ngx_http_tenant_client_finish(client, NGX_ERROR);
        return;
    }

    switch (client->state) {

    case NGX_HTTP_TENANT_CLIENT_CONNECTING:
        ngx_http_tenant_client_write_handler(c->write);
        break;

    case NGX_HTTP_TENANT_CLIENT_IDLE:
        ngx_http_tenant_client_idle(client);
        break;

    case NGX_HTTP_TENANT_CLIENT_READING:
        /* while it waits for its turn the event loop must not overtake it */
        if (!client->resume.posted) {
            ngx_http_tenant_client_read(client);
        }
        break;

    default:
        /* an answer before the request was sent is read when it is sent */
        if (ngx_handle_read_event(rev, 0) != NGX_OK) {
            ngx_http_tenant_client_finish(client, NGX_ERROR);
        }
    }
}


/* The peer closed a kept connection, or said something unasked. */
static void
ngx_http_tenant_client_idle(ngx_http_tenant_client_t *client)
{
    u_char             c[1];
    ssize_t            n;
    ngx_connection_t  *pc = client->peer.connection;

    pc->log_error = NGX_ERROR_IGNORE_ECONNRESET;
    n = pc->recv(pc, c, 1);
    pc->log_error = NGX_ERROR_ERR;

    if (n == NGX_AGAIN && ngx_handle_read_event(pc->read, 0) == NGX_OK) {
        return;
    }

    ngx_http_tenant_client_disconnect(client);
}


static void
ngx_http_tenant_client_timer_handler(ngx_event_t *ev)
{
    ngx_connection_t          *dumb = ev->data;
    ngx_http_tenant_client_t  *client = dumb->data;

    ngx_log_error(NGX_LOG_ERR, &client->log, NGX_ETIMEDOUT,
                  "tenantd did not answer in time");

    ngx_http_tenant_client_finish(client, NGX_ERROR);
}


static void
ngx_http_tenant_client_resume_handler(ngx_event_t *ev)
{
    ngx_connection_t  *dumb = ev->data;

    ngx_http_tenant_client_read(dumb->data);
}


static void
ngx_http_tenant_client_read(ngx_http_tenant_client_t *client)
{
    ssize_t            n;
    ngx_int_t          rc;
    ngx_connection_t  *c = client->peer.connection;

    for ( ;; ) {

        rc = ngx_http_tenant_client_parse(client);

        if (rc == NGX_AGAIN) {      /* body() has had enough for this turn */
            ngx_post_event(&client->resume, &ngx_posted_next_events);
            return;
        }

        if (rc != NGX_OK) {
            ngx_http_tenant_client_finish(client, rc == NGX_DONE ? NGX_OK
                                                                 : NGX_ERROR);
            return;
        }

        n = c->recv(c, client->buffer, NGX_HTTP_TENANT_CLIENT_BUFFER);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == 0 || n == NGX_ERROR) {
            rc = n == 0 ? ngx_http_tenant_client_eof(client) : NGX_ERROR;
            ngx_http_tenant_client_finish(client, rc);
            return;
        }

        client->pos = (char *) client->buffer;
        client->last = client->pos + n;
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_tenant_client_finish(client, NGX_ERROR);
        return;
    }

    if (client->handler->drained) {
        client->handler->drained(client->data);
    }
}


/* NGX_OK: read on; NGX_AGAIN: another turn; NGX_DONE: complete. */
static ngx_int_t
ngx_http_tenant_client_parse(ngx_http_tenant_client_t *client)
{
    ngx_int_t  rc;

    rc = ngx_http_tenant_client_deliver(client);

    while (rc == NGX_OK) {

        switch (tg_response_next(&client->response, &client->pos, client->last,
                                 &client->body, &client->body_len))
        {
        case TG_RESPONSE_MORE:
            client->body_len = 0;
            return NGX_OK;

        case TG_RESPONSE_READY:
            if (client->stream) {
                ngx_del_timer(&client->timer);
            }

            client->body_len = 0;
            rc = client->handler->head(client->data, &client->response);
            break;

        case TG_RESPONSE_BODY:
            rc = ngx_http_tenant_client_deliver(client);
            break;

        case TG_RESPONSE_DONE:
            return NGX_DONE;

        default:
            ngx_log_error(NGX_LOG_ERR, &client->log, 0,
                          "tenantd sent an invalid response: %s",
                          client->response.error);
            return NGX_ERROR;
        }
    }

    return rc;
}


/* Hands over what is left of the piece of the body that was parsed last. */
static ngx_int_t
ngx_http_tenant_client_deliver(ngx_http_tenant_client_t *client)
{
    ssize_t  n;

    if (client->body_len == 0) {
        return NGX_OK;
    }

    n = client->handler->body(client->data, client->body, client->body_len);

    if (n == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (n == NGX_AGAIN) {
        client->body_len = 0;
        return NGX_AGAIN;
    }

    client->body += n;
    client->body_len -= n;

    return client->body_len ? NGX_AGAIN : NGX_OK;
}


static ngx_int_t
ngx_http_tenant_client_eof(ngx_http_tenant_client_t *client)
{
    if (tg_response_eof(&client->response) == TG_RESPONSE_DONE) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, &client->log, 0, "tenantd closed the connection");

    return NGX_ERROR;
}


static void
ngx_http_tenant_client_finish(ngx_http_tenant_client_t *client, ngx_int_t rc)
{
    ngx_uint_t  busy;

    busy = ngx_http_tenant_client_busy(client);

    if (rc == NGX_OK && client->response.keepalive
        && client->pos == client->last
        && tg_response_next(&client->response, &client->pos, client->last,
                            &client->body, &client->body_len)
           == TG_RESPONSE_DONE
        && !ngx_exiting
        && ngx_handle_read_event(client->peer.connection->read, 0) == NGX_OK)
    {
        if (client->timer.timer_set) {
            ngx_del_timer(&client->timer);
        }

        client->log.action = "keeping the connection";
        client->state = NGX_HTTP_TENANT_CLIENT_IDLE;

    } else {
        ngx_http_tenant_client_disconnect(client);
    }

    if (busy) {
        client->handler->done(client->data, rc);
    }
}


static void
ngx_http_tenant_client_disconnect(ngx_http_tenant_client_t *client)
{
    if (client->timer.timer_set) {
        ngx_del_timer(&client->timer);
    }

    if (client->resume.posted) {
        ngx_delete_posted_event(&client->resume);
    }

    if (client->peer.connection) {
        ngx_close_connection(client->peer.connection);
        client->peer.connection = NULL;
    }

    client->state = NGX_HTTP_TENANT_CLIENT_CLOSED;
    client->body_len = 0;
}


void
ngx_http_tenant_client_close(ngx_http_tenant_client_t *client)
{
    ngx_http_tenant_client_disconnect(client);
    tg_text_free(&client->request);

    if (client->buffer) {
        ngx_free(client->buffer);
        client->buffer = NULL;
    }
}


ngx_int_t
ngx_http_tenant_client_said_head(void *data, const tg_response_t *response)
{
    ngx_http_tenant_client_t  *client = data;

    client->nsaid = 0;

    return NGX_OK;
}


ssize_t
ngx_http_tenant_client_said_body(void *data, const char *p, size_t len)
{
    size_t                     i;
    ngx_http_tenant_client_t  *client = data;

    for (i = 0; i < len && client->nsaid < sizeof(client->said) - 1; i++) {
        client->said[client->nsaid++] = (p[i] < 0x20 || p[i] > 0x7e) ? '?'
                                                                     : p[i];
    }

    return len;
}


void
ngx_http_tenant_client_said(ngx_http_tenant_client_t *client)
{
    client->said[client->nsaid] = '\0';

    ngx_log_error(NGX_LOG_ERR, &client->log, 0, "tenantd answered %d: %s",
                  client->response.status, client->said);
}


static u_char *
ngx_http_tenant_client_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                    *p;
    ngx_http_tenant_client_t  *client = log->data;

    p = buf;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    p = ngx_snprintf(buf, len, ", tenantd: %V, for: %s", &client->url->url,
                     client->what);

    return p;
}
