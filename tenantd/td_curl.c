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
#include "td_multi.h"


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

struct td_curl_s {
    const td_config_t                     *config;
    td_multi_t                            *multi;
    TAILQ_HEAD(td_fetches_s, td_fetch_s)   fetches;
};


static void
td_fetch_free(td_fetch_t *fetch)
{
    TAILQ_REMOVE(&fetch->curl->fetches, fetch, link);

    if (fetch->easy != NULL) {
        td_multi_remove(fetch->curl->multi, fetch->easy);
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
td_fetch_done(CURL *easy, CURLcode code, void *data)
{
    td_fetch_t  *fetch = data;
    const char  *problem;

    problem = td_fetch_problem(fetch, code);
    fetch->done(fetch->data, problem == NULL ? fetch->body : NULL, fetch->len,
                problem);

    fetch->easy = NULL;
    curl_easy_cleanup(easy);
    td_fetch_free(fetch);
}


td_curl_t *
td_curl_create(struct event_base *base, const td_config_t *config)
{
    td_curl_t  *curl;

    curl = calloc(1, sizeof(td_curl_t));
    if (curl == NULL) {
        return NULL;
    }

    curl->config = config;
    TAILQ_INIT(&curl->fetches);
    curl->multi = td_multi_create(base);

    if (curl->multi == NULL) {
        td_curl_destroy(curl);
        return NULL;
    }

    return curl;
}


void
td_curl_destroy(td_curl_t *curl)
{
    td_fetch_t  *fetch;

    if (curl == NULL) {
        return;
    }

    while ((fetch = TAILQ_FIRST(&curl->fetches)) != NULL) {
        td_fetch_free(fetch);
    }

    td_multi_destroy(curl->multi);
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

    if (td_multi_add(curl->multi, fetch->easy, td_fetch_done, fetch) != 0) {
        td_fetch_free(fetch);
        return -1;
    }

    return 0;
}
