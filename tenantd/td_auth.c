/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/bufferevent_ssl.h>
#include <openssl/sha.h>

#include "td_auth.h"
#include "td_tls.h"
#include "tg_text.h"


#define TD_AUTH_MAX_TOKEN  512


char *
td_auth_token(const char *token, size_t len)
{
    char           *json;
    size_t          i, n;
    unsigned char   digest[SHA256_DIGEST_LENGTH];

    json = malloc(sizeof("{\"token_sha256\":\"\"}") + 2 * sizeof(digest));
    if (json == NULL) {
        return NULL;
    }

    SHA256((const unsigned char *) token, len, digest);
    n = (size_t) sprintf(json, "{\"token_sha256\":\"");

    for (i = 0; i < sizeof(digest); i++) {
        n += (size_t) sprintf(json + n, "%02x", digest[i]);
    }

    sprintf(json + n, "\"}");

    return json;
}


/* RFC 6750 section 2.1 */
static int
td_auth_bearer(td_request_t *request, const char *header,
    td_problem_t *problem)
{
    size_t  n, len;

    static const char  token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789-._~+/";

    if (strncasecmp(header, "Bearer ", 7) != 0) {
        *problem = td_problem(TD_PROBLEM_UNAUTHENTICATED,
                              "the Authorization scheme must be Bearer");
        return -1;
    }

    header += 7;
    header += strspn(header, " ");
    n = strspn(header, token);
    len = n + strspn(header + n, "=");

    if (n == 0 || header[len] != '\0' || len > TD_AUTH_MAX_TOKEN) {
        *problem = td_problem(TD_PROBLEM_UNAUTHENTICATED,
                              "the bearer token is malformed");
        return -1;
    }

    request->credential = td_auth_token(header, len);

    return 0;
}


/* gateway may be NULL: any. */
static char *
td_auth_vouch(const char *prefix, const char *user, const char *role,
    const char *gateway)
{
    char       name[300];
    tg_text_t  text;

    snprintf(name, sizeof(name), "%s%s", prefix, user);

    tg_text_init(&text);
    tg_text_str(&text, "{\"peer\":{\"user\":");
    tg_text_json(&text, name, strlen(name));
    tg_text_printf(&text, ",\"role\":\"%s\"", role);

    if (gateway != NULL) {
        tg_text_str(&text, ",\"gateway\":");
        tg_text_json(&text, gateway, strlen(gateway));
    }

    tg_text_add(&text, "}}", sizeof("}}"));

    if (text.failed) {
        tg_text_free(&text);
    }

    return text.data;
}


static void
td_auth_user(td_request_t *request)
{
    const char         *user;
    const td_config_t  *config;

    user = td_conn_user(request->conn);
    config = request->daemon->config;

    if (user[0] == '\0') {
        return;
    }

    if (td_list_has(&config->listen.socket_admin_users, user)) {
        request->credential = td_auth_vouch("", user, "admin", NULL);

    } else if (td_list_has(&config->listen.socket_gateway_users, user)) {
        request->credential = td_auth_vouch("", user, "gateway", NULL);
    }
}


/* The gateway that "subject=gateway" in the configuration gives this name. */
static const char *
td_auth_gateway_of(const td_list_t *map, const char *name)
{
    size_t       i, len;
    const char  *entry;

    len = strlen(name);

    for (i = 0; i < map->n; i++) {
        entry = map->item[i];
        if (strncmp(entry, name, len) == 0 && entry[len] == '='
            && strchr(entry + len + 1, '=') == NULL)
        {
            return entry + len + 1;
        }
    }

    return NULL;
}


static char *
td_auth_known_certificate(const td_tls_peer_t *peer)
{
    tg_text_t  text;

    tg_text_init(&text);
    tg_text_printf(&text, "{\"certificate\":{\"sha256\":\"%s\"", peer->sha256);

    if (peer->names > 0) {
        tg_text_str(&text, ",\"subject\":");
        tg_text_json(&text, peer->name[0], strlen(peer->name[0]));
    }

    tg_text_add(&text, "}}", sizeof("}}"));

    if (text.failed) {
        tg_text_free(&text);
    }

    return text.data;
}


static void
td_auth_certificate(td_request_t *request)
{
    SSL                *ssl;
    size_t              i;
    const char         *gateway;
    td_tls_peer_t           peer;
    const td_config_t  *config;

    config = request->daemon->config;
    ssl = bufferevent_openssl_get_ssl(td_conn_bufferevent(request->conn));

    if (ssl == NULL || td_tls_peer(ssl, &peer) != 0) {
        return;
    }

    for (i = 0; i < peer.names && request->credential == NULL; i++) {
        gateway = td_auth_gateway_of(&config->listen.tls_gateway_subjects,
                                     peer.name[i]);

        if (td_list_has(&config->listen.tls_admin_subjects, peer.name[i])) {
            request->credential = td_auth_vouch("certificate:", peer.name[i],
                                                "admin", NULL);

        } else if (gateway != NULL) {
            request->credential = td_auth_vouch("certificate:", peer.name[i],
                                                "gateway", gateway);
        }
    }

    if (request->credential == NULL) {
        request->credential = td_auth_known_certificate(&peer);
    }

    td_tls_peer_clear(&peer);
}


int
td_auth(td_request_t *request, td_problem_t *problem)
{
    const char  *header;

    header = td_request_header(request, "Authorization");

    if (header != NULL) {
        return td_auth_bearer(request, header, problem);
    }

    switch (td_conn_kind(request->conn)) {

    case TD_LISTEN_UNIX:
        td_auth_user(request);
        break;

    case TD_LISTEN_TLS:
        td_auth_certificate(request);
        break;

    case TD_LISTEN_PLAIN:
        break;
    }

    if (request->credential == NULL) {
        *problem = td_problem(TD_PROBLEM_UNAUTHENTICATED, "this call needs a "
                              "credential: send Authorization: Bearer with an "
                              "API token");
        return -1;
    }

    return 0;
}
