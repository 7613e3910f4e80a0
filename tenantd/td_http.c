/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>

#include "td_http.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_tls.h"


#define TD_HTTP_BACKLOG  511

/* A tenantd that was killed may leave a child which has not become its nginx yet,
 * and still has the sockets. */
#define TD_HTTP_PATIENCE_MS  2000
#define TD_HTTP_RETRY_MS     20

/* evhttp of one kind of listener, for its bevcb is one for all of its sockets. */
typedef struct {
    td_http_t        *http;
    struct evhttp    *evhttp;
    td_listen_kind_e  kind;
} td_http_side_t;

struct td_http_s {
    struct event_base       *base;
    const td_config_t       *config;
    td_http_handler_pt       handler;
    void                    *data;

    td_http_side_t           side[3];       /* by td_listen_kind_e */
    struct {
        struct evconnlistener       *listener;
        struct evhttp_bound_socket  *bound;
        struct evhttp               *evhttp;
    }                       *socket;
    size_t                   sockets;
    SSL_CTX                 *tls;

    td_conn_t              **conn;          /* by file descriptor */
    int                      conn_size;
    int                      conns;
    td_conn_t              **pending;       /* not adopted yet */
    size_t                   pending_n, pending_size;
    struct event            *adopt;

    long                     imports;
    int                      draining;
    int                      paused;
    char                    *unlink;        /* our socket's path */
    struct stat              unlink_id;     /* and which file it was */
};


static void
td_http_pause(td_http_t *http)
{
    int     full;
    size_t  i;

    full = http->conns + (int) http->pending_n
           >= (int) http->config->http.max_connections;

    if (full == http->paused || http->draining) {
        return;
    }

    http->paused = full;

    if (full) {
        td_log(TD_LOG_WARN, "http", "%d connections are open: more have to "
               "wait", http->conns);
    }

    for (i = 0; i < http->sockets; i++) {
        if (full) {
            evconnlistener_disable(http->socket[i].listener);
        } else {
            evconnlistener_enable(http->socket[i].listener);
        }
    }
}


static void
td_http_on_adopt(evutil_socket_t fd, short what, void *data)
{
    size_t      i, n;
    td_http_t  *http = data;

    (void) fd;
    (void) what;

    n = http->pending_n;
    http->pending_n = 0;

    for (i = 0; i < n; i++) {
        td_conn_adopt(http->pending[i]);
    }

    td_http_pause(http);
}


static int
td_http_add_pending(td_http_t *http, td_conn_t *conn)
{
    size_t       size;
    td_conn_t  **pending;

    if (http->pending_n == http->pending_size) {
        size = http->pending_size * 2 + 16;
        pending = realloc(http->pending, size * sizeof(td_conn_t *));
        if (pending == NULL) {
            return -1;
        }

        http->pending = pending;
        http->pending_size = size;
    }

    http->pending[http->pending_n++] = conn;
    event_active(http->adopt, EV_TIMEOUT, 0);

    return 0;
}


/* evhttp's bevcb.  On NULL evhttp makes one of its own, whose requests the
 * handler refuses as it finds no td_conn_t. */
static struct bufferevent *
td_http_on_accept(struct event_base *base, void *data)
{
    SSL                 *ssl;
    td_conn_t           *conn;
    td_http_side_t      *side = data;
    struct bufferevent  *bev;

    if (side->kind == TD_LISTEN_TLS) {
        ssl = SSL_new(side->http->tls);
        bev = ssl == NULL ? NULL
              : bufferevent_openssl_socket_new(base, -1, ssl,
                    BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
        if (bev != NULL) {
            bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
        }

    } else {
        bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    }

    if (bev == NULL) {
        return NULL;
    }

    conn = td_conn_create(side->http, side->kind, bev);

    if (conn == NULL || td_http_add_pending(side->http, conn) != 0) {
        bufferevent_free(bev);
        return NULL;
    }

    td_metric_add(TD_METRIC_CONNECTIONS_ACCEPTED, 1);
    td_http_pause(side->http);

    return bev;
}


static void
td_http_on_request(struct evhttp_request *request, void *data)
{
    int                          fd;
    td_http_t                   *http = data;
    struct evhttp_connection    *evcon;

    evcon = evhttp_request_get_connection(request);
    fd = bufferevent_getfd(evhttp_connection_get_bufferevent(evcon));

    if (fd < 0 || fd >= http->conn_size || http->conn[fd] == NULL) {
        evhttp_send_error(request, 503, NULL);
        return;
    }

    http->handler(request, http->conn[fd], http->data);
}


static int
td_http_make_side(td_http_t *http, td_listen_kind_e kind, tg_error_t *err)
{
    struct timeval      tv;
    td_http_side_t     *side;
    const td_config_t  *config;

    config = http->config;
    side = &http->side[kind];
    if (side->evhttp != NULL) {
        return 0;
    }

    side->http = http;
    side->kind = kind;
    side->evhttp = evhttp_new(http->base);
    if (side->evhttp == NULL) {
        tg_error_set(err, "", "cannot make an HTTP server");
        return -1;
    }

    tv.tv_sec = config->http.keepalive_timeout / 1000;
    tv.tv_usec = config->http.keepalive_timeout % 1000 * 1000;
    evhttp_set_timeout_tv(side->evhttp, &tv);
    evhttp_set_max_headers_size(side->evhttp, config->http.max_header);
    evhttp_set_max_body_size(side->evhttp, config->http.max_body);
    evhttp_set_default_content_type(side->evhttp, NULL);
    evhttp_set_allowed_methods(side->evhttp,
        EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT
        | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE
        | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
    evhttp_set_bevcb(side->evhttp, td_http_on_accept, side);
    evhttp_set_gencb(side->evhttp, td_http_on_request, http);

    return 0;
}


/* Takes the socket over, also on failure. */
static int
td_http_listen(td_http_t *http, td_listen_kind_e kind, int fd, tg_error_t *err)
{
    void                    *list;
    struct evconnlistener   *listener;

    list = realloc(http->socket,
                   (http->sockets + 1) * sizeof(http->socket[0]));
    if (list != NULL) {
        http->socket = list;
    }

    listener = list == NULL || td_http_make_side(http, kind, err) != 0 ? NULL
               : evconnlistener_new(http->base, NULL, NULL,
                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                     TD_HTTP_BACKLOG, fd);

    if (listener == NULL) {
        tg_error_set(err, "", "cannot listen: %s", strerror(errno));
        close(fd);
        return -1;
    }

    http->socket[http->sockets].listener = listener;
    http->socket[http->sockets].evhttp = http->side[kind].evhttp;
    http->socket[http->sockets++].bound =
        evhttp_bind_listener(http->side[kind].evhttp, listener);

    return 0;
}


/* Whether somebody still answers on a socket that is in our way. */
static int
td_http_unix_in_use(const struct sockaddr_un *sun)
{
    int  fd, rc;

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return 0;
    }

    rc = connect(fd, (const struct sockaddr *) sun, sizeof(*sun));
    close(fd);

    return rc == 0;
}


/* Whether it is worth looking once more, after a pause. */
static int
td_http_wait(const char *address, int *waited)
{
    struct timespec  pause = { 0, TD_HTTP_RETRY_MS * 1000000L };

    if (*waited >= TD_HTTP_PATIENCE_MS) {
        return 0;
    }

    if (*waited == 0) {
        td_log(TD_LOG_NOTICE, "http", "%s is in use: waiting for at most %d ms",
               address, TD_HTTP_PATIENCE_MS);
    }

    nanosleep(&pause, NULL);
    *waited += TD_HTTP_RETRY_MS;

    return 1;
}


static int
td_http_set_owner(const td_config_t *config, tg_error_t *err)
{
    const char    *path, *group;
    struct group  *gr;

    path = config->listen.socket;
    group = config->listen.socket_group;

    if (group[0] != '\0') {
        gr = getgrnam(group);
        if (gr == NULL || chown(path, (uid_t) -1, gr->gr_gid) != 0) {
            tg_error_set(err, "", "cannot give \"%s\" to group \"%s\": %s",
                         path, group, gr ? strerror(errno) : "unknown group");
            return -1;
        }
    }

    if (chmod(path, (mode_t) config->listen.socket_mode) != 0) {
        tg_error_set(err, "", "cannot set the mode of \"%s\": %s", path,
                     strerror(errno));
        return -1;
    }

    return 0;
}


static int
td_http_listen_unix(td_http_t *http, tg_error_t *err)
{
    int                  fd, waited = 0;
    mode_t               mask;
    const char          *path;
    struct sockaddr_un   sun = { .sun_family = AF_UNIX };

    path = http->config->listen.socket;

    if (strlen(path) >= sizeof(sun.sun_path)) {
        tg_error_set(err, "", "[listen] socket \"%s\" is longer than %zu bytes",
                     path, sizeof(sun.sun_path) - 1);
        return -1;
    }

    memcpy(sun.sun_path, path, strlen(path) + 1);

    while (td_http_unix_in_use(&sun)) {
        if (!td_http_wait(path, &waited)) {
            tg_error_set(err, "", "another process listens on \"%s\"", path);
            return -1;
        }
    }

    unlink(path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    /* nobody gets in before owner and mode are set */
    mask = umask(0177);
    if (fd < 0
        || bind(fd, (const struct sockaddr *) &sun, sizeof(sun)) != 0)
    {
        tg_error_set(err, "", "cannot bind \"%s\": %s", path, strerror(errno));
        umask(mask);
        close(fd);
        return -1;
    }
    umask(mask);

    http->unlink = strdup(path);

    if (stat(path, &http->unlink_id) != 0
        || td_http_set_owner(http->config, err) != 0)
    {
        close(fd);
        return -1;
    }

    td_log(TD_LOG_NOTICE, "http", "listening on unix:%s", path);

    return td_http_listen(http, TD_LISTEN_UNIX, fd, err);
}


static int
td_http_is_loopback(const struct sockaddr *sa)
{
    const char  *what;

    what = td_cidr_special(sa);

    return what != NULL && strcmp(what, "loopback") == 0;
}


/* The port may have been 0: tell which it has become. */
static void
td_http_log_address(int fd, td_listen_kind_e kind)
{
    int                      port;
    char                     host[64];
    socklen_t                len;
    struct sockaddr_storage  ss;

    len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *) &ss, &len) != 0) {
        return;
    }

    if (ss.ss_family == AF_INET) {
        evutil_inet_ntop(AF_INET, &((struct sockaddr_in *) &ss)->sin_addr, host,
                         sizeof(host));
        port = ntohs(((struct sockaddr_in *) &ss)->sin_port);
        td_log(TD_LOG_NOTICE, "http", "listening on %s://%s:%d",
               kind == TD_LISTEN_TLS ? "https" : "http", host, port);
        return;
    }

    evutil_inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &ss)->sin6_addr, host,
                     sizeof(host));
    port = ntohs(((struct sockaddr_in6 *) &ss)->sin6_port);
    td_log(TD_LOG_NOTICE, "http", "listening on %s://[%s]:%d",
           kind == TD_LISTEN_TLS ? "https" : "http", host, port);
}


/* "127.0.0.1:8080", "[::1]:8080"; port 0 takes a free one. */
static int
td_http_parse_address(const char *text, struct sockaddr_storage *ss,
    socklen_t *len)
{
    char              host[64];
    size_t            n;
    const char       *colon;
    struct addrinfo  *info;
    struct addrinfo   hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
        .ai_socktype = SOCK_STREAM
    };

    colon = strrchr(text, ':');
    n = colon != NULL ? (size_t) (colon - text) : 0;

    if (n == 0 || n >= sizeof(host)) {
        return -1;
    }

    /* getaddrinfo() takes ports modulo 65536 */
    if (strlen(colon + 1) > 5 || atoi(colon + 1) > 65535) {
        return -1;
    }

    memcpy(host, text, n);
    host[n] = '\0';

    if (host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n - 2);
        host[n - 2] = '\0';
    }

    if (getaddrinfo(host, colon + 1, &hints, &info) != 0) {
        return -1;
    }

    memcpy(ss, info->ai_addr, info->ai_addrlen);
    *len = info->ai_addrlen;
    freeaddrinfo(info);

    return 0;
}


static int
td_http_listen_tcp(td_http_t *http, td_listen_kind_e kind, const char *address,
    tg_error_t *err)
{
    int                       fd, on = 1, waited = 0;
    socklen_t                 len;
    struct sockaddr          *sa;
    struct sockaddr_storage   ss;

    sa = (struct sockaddr *) &ss;

    if (td_http_parse_address(address, &ss, &len) != 0) {
        tg_error_set(err, "", "\"%s\" is no address to listen on: write "
                     "127.0.0.1:8080 or [::1]:8080", address);
        return -1;
    }

    if (kind == TD_LISTEN_PLAIN && !http->config->listen.insecure_listen
        && !td_http_is_loopback(sa))
    {
        tg_error_set(err, "", "tokens would travel in the clear on \"%s\": use "
                     "[listen] tls_addresses, or set insecure_listen = yes",
                     address);
        return -1;
    }

    fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (sa->sa_family == AF_INET6) {
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
        }
    }

    while (fd < 0 || bind(fd, sa, len) != 0) {
        if (fd < 0 || errno != EADDRINUSE || !td_http_wait(address, &waited)) {
            tg_error_set(err, "", "cannot bind %s: %s", address, strerror(errno));
            close(fd);
            return -1;
        }
    }

    if (td_http_listen(http, kind, fd, err) != 0) {
        return -1;
    }

    td_http_log_address(fd, kind);

    return 0;
}


static int
td_http_listen_all(td_http_t *http, tg_error_t *err)
{
    size_t              i;
    const td_config_t  *config;

    config = http->config;

    if (config->listen.tls_addresses.n > 0) {
        http->tls = td_tls_create(config, err);
        if (http->tls == NULL) {
            return -1;
        }
    }

    if (config->listen.socket[0] != '\0' && td_http_listen_unix(http, err) != 0)
    {
        return -1;
    }

    for (i = 0; i < config->listen.addresses.n; i++) {
        if (td_http_listen_tcp(http, TD_LISTEN_PLAIN,
                               config->listen.addresses.item[i], err) != 0)
        {
            return -1;
        }
    }

    for (i = 0; i < config->listen.tls_addresses.n; i++) {
        if (td_http_listen_tcp(http, TD_LISTEN_TLS,
                               config->listen.tls_addresses.item[i], err) != 0)
        {
            return -1;
        }
    }

    if (http->sockets == 0) {
        tg_error_set(err, "", "there is nothing to listen on: set [listen] "
                     "socket, addresses or tls_addresses");
        return -1;
    }

    return 0;
}


/* Removes our socket, unless a successor has put its own there. */
static void
td_http_unlink(td_http_t *http)
{
    struct stat  st;

    if (http->unlink != NULL && stat(http->unlink, &st) == 0
        && st.st_ino == http->unlink_id.st_ino
        && st.st_dev == http->unlink_id.st_dev)
    {
        unlink(http->unlink);
    }

    free(http->unlink);
    http->unlink = NULL;
}


td_http_t *
td_http_create(struct event_base *base, const td_config_t *config,
    td_http_handler_pt handler, void *data, tg_error_t *err)
{
    td_http_t  *http;

    http = calloc(1, sizeof(td_http_t));
    if (http == NULL) {
        tg_error_set(err, "", "out of memory");
        return NULL;
    }

    http->base = base;
    http->config = config;
    http->handler = handler;
    http->data = data;
    http->adopt = event_new(base, -1, 0, td_http_on_adopt, http);

    if (http->adopt == NULL || td_http_listen_all(http, err) != 0) {
        td_http_destroy(http);
        return NULL;
    }

    return http;
}


void
td_http_destroy(td_http_t *http)
{
    size_t  i;

    if (http->adopt != NULL) {
        td_http_on_adopt(-1, 0, http);
    }

    /* frees the listeners and connections too */
    for (i = 0; i < 3; i++) {
        if (http->side[i].evhttp != NULL) {
            evhttp_free(http->side[i].evhttp);
        }
    }

    if (http->adopt != NULL) {
        event_free(http->adopt);
    }

    td_http_unlink(http);
    SSL_CTX_free(http->tls);
    free(http->socket);
    free(http->pending);
    free(http->conn);
    free(http);
}


void
td_http_drain(td_http_t *http)
{
    int     fd;
    size_t  i;

    http->draining = 1;
    td_http_unlink(http);

    /* closed rather than kept: clients try another tenantd at once */
    for (i = 0; i < http->sockets; i++) {
        evhttp_del_accept_socket(http->socket[i].evhttp, http->socket[i].bound);
    }

    http->sockets = 0;

    for (fd = 0; fd < http->conn_size; fd++) {
        if (http->conn[fd] != NULL
            && td_conn_state(http->conn[fd]) == TD_CONN_IDLE)
        {
            td_conn_drop(http->conn[fd]);
        }
    }
}


int
td_http_draining(const td_http_t *http)
{
    return http->draining;
}


int
td_http_reload(td_http_t *http, tg_error_t *err)
{
    SSL_CTX  *fresh;

    if (http->tls == NULL) {
        return 0;
    }

    fresh = td_tls_create(http->config, err);
    if (fresh == NULL) {
        return -1;
    }

    SSL_CTX_free(http->tls);
    http->tls = fresh;

    return 0;
}


int
td_http_connections(const td_http_t *http)
{
    return http->conns;
}


struct event_base *
td_http_base(td_http_t *http)
{
    return http->base;
}


const td_config_t *
td_http_config(td_http_t *http)
{
    return http->config;
}


int
td_http_take_import(td_http_t *http)
{
    if (http->imports >= http->config->http.imports) {
        return 0;
    }

    http->imports++;

    return 1;
}


void
td_http_release_import(td_http_t *http)
{
    http->imports--;
}


void
td_http_register(td_http_t *http, int fd, td_conn_t *conn)
{
    int          size;
    td_conn_t  **table;

    if (fd >= http->conn_size) {
        size = fd + 64;
        table = conn == NULL ? NULL
                : realloc(http->conn, (size_t) size * sizeof(td_conn_t *));
        if (table == NULL) {
            return;     /* its requests will be refused */
        }

        memset(table + http->conn_size, 0,
               (size_t) (size - http->conn_size) * sizeof(td_conn_t *));
        http->conn = table;
        http->conn_size = size;
    }

    if (conn != NULL) {
        http->conns++;
    } else if (http->conn[fd] != NULL) {
        http->conns--;
    }

    http->conn[fd] = conn;
    td_http_pause(http);
}
