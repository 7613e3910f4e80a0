/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The HTTP server: listeners of three kinds, the connections on them, and one
 * handler for all requests.
 */

#ifndef TD_HTTP_H
#define TD_HTTP_H

#include <event2/event.h>
#include <event2/http.h>

#include "td_config.h"
#include "td_conn.h"

typedef struct td_http_s  td_http_t;

/* Called for each complete request; conn lives as long as the connection. */
typedef void (*td_http_handler_pt)(struct evhttp_request *request,
    td_conn_t *conn, void *data);

/*
 * Binds all listeners of config, which must outlive it.  Returns NULL: the reason
 * is in err.
 */
td_http_t *td_http_create(struct event_base *base, const td_config_t *config,
    td_http_handler_pt handler, void *data, tg_error_t *err);

/* Closes everything. */
void td_http_destroy(td_http_t *http);

/* Accepts no more, closes idle connections, and others after their answer. */
void td_http_drain(td_http_t *http);
int td_http_draining(const td_http_t *http);

/* Reads certificates anew, for connections to come.  Returns -1 and changes
 * nothing on error. */
int td_http_reload(td_http_t *http, tg_error_t *err);

int td_http_connections(const td_http_t *http);

/* for td_conn.c */

struct event_base *td_http_base(td_http_t *http);
const td_config_t *td_http_config(td_http_t *http);

/* A place among the few imports at once; 0: there is none. */
int td_http_take_import(td_http_t *http);
void td_http_release_import(td_http_t *http);

/* conn is on fd from now on, or (NULL) no longer. */
void td_http_register(td_http_t *http, int fd, td_conn_t *conn);

#endif /* TD_HTTP_H */
