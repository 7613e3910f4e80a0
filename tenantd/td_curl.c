/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Names are resolved by libcurl's resolver thread, the only thread there is; it
 * touches nothing of ours.  Addresses are checked where a socket is about to be
 * made for them, so after resolution, and for each address that is tried.
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "config.h"
#include "td_cidr.h"
#include "td_curl.h"


typedef struct td_fetch_s {
    TAILQ_ENTRY(td_fetch_s)   link;
    td_curl_t                *curl;
    CURL                     *easy;
    char                     *body;
    size_t                    len;
    int                       too_long;
    char                      refused[160];     /* why no socket was made */
    char                      error[CURL_ERROR_SIZE];
    td_curl_done_pt           done;
    void                     *data;
} td_fetch_t;

/* Of one socket that libcurl wants watched. */
typedef struct td_curl_socket_s {
    TAILQ_ENTRY(td_curl_socket_s)   link;
    struct event                   *event;
} td_curl_socket_t;

struct td_curl_s {
    struct event_base                  *base;
    const td_config_t                  *config;
    CURLM                              *multi;
    struct event                       *timer;
    TAILQ_HEAD(td_fetches_s, td_fetch_s)            fetches;
    TAILQ_HEAD(td_curl_sockets_s, td_curl_socket_s)      sockets;
};


static void
td_fetch_free(td_fetch_t *fetch)
{
    TAILQ_REMOVE(&fetch->curl->fetches, fetch, link);

    if (fetch->easy != NULL) {
        curl_multi_remove_handle(fetch->curl->multi, fetch->easy);
        curl_easy_cleanup(fetch->easy);
    }

    free(fetch->body);
    free(fetch);
}


static int
td_curl_is_allowed(const td_config_t *config, const struct sockaddr *sa)
{
    size_t  i;

    for (i = 0; i < config->jwks.allow_cidrs.n; i++) {
        if (td_cidr_match(&config->jwks.allow_cidrs.item[i], sa)) {
            return 1;
        }
    }

    return 0;
}


static curl_socket_t
td_curl_open_socket(void *data, curlsocktype purpose,
    struct curl_sockaddr *address)
{
    char         text[INET6_ADDRSTRLEN];
    td_fetch_t  *fetch = data;
    const char  *what;
    const void  *ip;

    (void) purpose;

    what = td_cidr_special(&address->addr);

    if (what == NULL
        || td_curl_is_allowed(fetch->curl->config, &address->addr))
    {
        return socket(address->family, address->socktype | SOCK_CLOEXEC,
                      address->protocol);
    }

    ip = address->family == AF_INET
         ? (const void *) &((struct sockaddr_in *) (void *) &address->addr)
                              ->sin_addr
         : (const void *) &((struct sockaddr_in6 *) (void *) &address->addr)
                              ->sin6_addr;

    snprintf(fetch->refused, sizeof(fetch->refused), "the address %s is %s: "
             "not fetched unless [jwks] allow_cidrs lists it",
             inet_ntop(address->family, ip, text, sizeof(text)) ? text : "?",
             what);

    return CURL_SOCKET_BAD;
}


static size_t
td_curl_on_data(char *data, size_t size, size_t n, void *arg)
{
    char        *body;
    td_fetch_t  *fetch = arg;

    n *= size;

    if (fetch->len + n > (size_t) fetch->curl->config->jwks.max_size) {
        fetch->too_long = 1;
        return 0;
    }

    body = realloc(fetch->body, fetch->len + n + 1);
    if (body == NULL) {
        return 0;
    }

    memcpy(body + fetch->len, data, n);
    fetch->body = body;
    fetch->len += n;
    body[fetch->len] = '\0';

    return n;
}


/* Why a fetch failed, or NULL. */
static const char *
td_fetch_problem(td_fetch_t *fetch, CURLcode code)
{
    long  status;

    if (fetch->too_long || code == CURLE_FILESIZE_EXCEEDED) {
        return "the answer is longer than [jwks] max_size";
    }

    if (code != CURLE_OK && fetch->refused[0] != '\0') {
        return fetch->refused;
    }

    if (code != CURLE_OK) {
        return fetch->error[0] != '\0' ? fetch->error
                                       : curl_easy_strerror(code);
    }

    curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);

    if (status >= 300 && status < 400) {
        return "the server redirects, which is not followed: use the final URL";
    }

    if (status != 200) {
        snprintf(fetch->error, sizeof(fetch->error), "the server answered with "
                 "status %ld", status);
        return fetch->error;
    }

    return fetch->len > 0 ? NULL : "the answer is empty";
}


static void
td_curl_take_messages(td_curl_t *curl)
{
    int          left;
    CURLMsg     *message;
    CURLcode     code;
    td_fetch_t  *fetch;
    const char  *problem;

    while ((message = curl_multi_info_read(curl->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }

        code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
                          (char **) &fetch);

        problem = td_fetch_problem(fetch, code);
        fetch->done(fetch->data, problem == NULL ? fetch->body : NULL,
                    fetch->len, problem);
        td_fetch_free(fetch);
    }
}


static void
td_curl_on_socket(evutil_socket_t fd, short what, void *data)
{
    int         running;
    td_curl_t  *curl = data;

    curl_multi_socket_action(curl->multi, fd,
                             (what & EV_READ ? CURL_CSELECT_IN : 0)
                             | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                             &running);
    td_curl_take_messages(curl);
}


static void
td_curl_on_timer(evutil_socket_t fd, short what, void *data)
{
    int         running;
    td_curl_t  *curl = data;

    (void) fd;
    (void) what;

    curl_multi_socket_action(curl->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    td_curl_take_messages(curl);
}


static int
td_curl_want_timer(CURLM *multi, long ms, void *data)
{
    td_curl_t       *curl = data;
    struct timeval   tv = { ms / 1000, ms % 1000 * 1000 };

    (void) multi;

    if (ms < 0) {
        evtimer_del(curl->timer);
    } else {
        evtimer_add(curl->timer, &tv);
    }

    return 0;
}


static void
td_curl_unwatch(td_curl_t *curl, td_curl_socket_t *watched)
{
    TAILQ_REMOVE(&curl->sockets, watched, link);

    if (watched->event != NULL) {
        event_free(watched->event);
    }

    free(watched);
}


static int
td_curl_want_socket(CURL *easy, curl_socket_t fd, int what, void *data,
    void *socket_data)
{
    td_curl_t         *curl = data;
    td_curl_socket_t  *watched = socket_data;

    (void) easy;

    if (what == CURL_POLL_REMOVE) {
        if (watched != NULL) {
            td_curl_unwatch(curl, watched);
        }
        return 0;
    }

    if (watched == NULL) {
        watched = calloc(1, sizeof(td_curl_socket_t));
        if (watched == NULL) {
            return -1;
        }

        TAILQ_INSERT_TAIL(&curl->sockets, watched, link);
        curl_multi_assign(curl->multi, fd, watched);
    }

    if (watched->event != NULL) {
        event_free(watched->event);
    }

    watched->event = event_new(curl->base, fd, EV_PERSIST
                               | (what & CURL_POLL_IN ? EV_READ : 0)
                               | (what & CURL_POLL_OUT ? EV_WRITE : 0),
                               td_curl_on_socket, curl);

    return watched->event != NULL && event_add(watched->event, NULL) == 0
           ? 0 : -1;
}


td_curl_t *
td_curl_create(struct event_base *base, const td_config_t *config)
{
    td_curl_t  *curl;

    curl = calloc(1, sizeof(td_curl_t));
    if (curl == NULL) {
        return NULL;
    }

    curl->base = base;
    curl->config = config;
    TAILQ_INIT(&curl->fetches);
    TAILQ_INIT(&curl->sockets);
    curl->multi = curl_multi_init();
    curl->timer = evtimer_new(base, td_curl_on_timer, curl);

    if (curl->multi == NULL || curl->timer == NULL) {
        td_curl_destroy(curl);
        return NULL;
    }

    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION,
                      td_curl_want_socket);
    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION, td_curl_want_timer);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl);

    return curl;
}


void
td_curl_destroy(td_curl_t *curl)
{
    td_fetch_t        *fetch;
    td_curl_socket_t  *watched;

    if (curl == NULL) {
        return;
    }

    while ((fetch = TAILQ_FIRST(&curl->fetches)) != NULL) {
        td_fetch_free(fetch);
    }

    if (curl->multi != NULL) {
        curl_multi_cleanup(curl->multi);
    }

    while ((watched = TAILQ_FIRST(&curl->sockets)) != NULL) {
        td_curl_unwatch(curl, watched);
    }

    if (curl->timer != NULL) {
        event_free(curl->timer);
    }

    free(curl);
}


static void
td_fetch_set_options(td_fetch_t *fetch, const char *url)
{
    CURL               *easy;
    const td_config_t  *config;

    easy = fetch->easy;
    config = fetch->curl->config;

    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
                     config->jwks.allow_http ? "https,http" : "https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     config->jwks.connect_timeout);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, config->jwks.timeout);
    curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE,
                     (curl_off_t) config->jwks.max_size);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, NULL);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "tenantd/" TIERGATE_VERSION);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, td_curl_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, fetch);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, td_curl_on_data);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, fetch->error);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, fetch);

    if (config->jwks.ca_file[0] != '\0') {
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->jwks.ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
}


int
td_curl_get(td_curl_t *curl, const char *url, td_curl_done_pt done, void *data)
{
    td_fetch_t  *fetch;

    fetch = calloc(1, sizeof(td_fetch_t));
    if (fetch == NULL) {
        return -1;
    }

    fetch->curl = curl;
    fetch->done = done;
    fetch->data = data;
    TAILQ_INSERT_TAIL(&curl->fetches, fetch, link);
    fetch->easy = curl_easy_init();

    if (fetch->easy == NULL) {
        td_fetch_free(fetch);
        return -1;
    }

    td_fetch_set_options(fetch, url);

    if (curl_multi_add_handle(curl->multi, fetch->easy) != CURLM_OK) {
        td_fetch_free(fetch);
        return -1;
    }

    return 0;
}
