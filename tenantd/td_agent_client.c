/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "config.h"
#include "td_agent_client.h"
#include "td_log.h"
#include "td_multi.h"
#include "tg_text.h"


#define TD_CLIENT_CONNECT   3000        /* ms, as the next */
#define TD_CLIENT_TIMEOUT   10000
#define TD_CLIENT_ANSWER    65536       /* bytes of an answer that are kept */
#define TD_CLIENT_TOKEN     4096

/* One POST. */
typedef struct td_call_s {
    TAILQ_ENTRY(td_call_s)   link;
    td_agent_client_t       *client;
    CURL                    *easy;
    struct curl_slist       *headers;
    tg_text_t                answer;
    char                     error[CURL_ERROR_SIZE];
    td_agent_posted_pt       done;
    void                    *data;
} td_call_t;

struct td_agent_client_s {
    td_agent_t                         *agent;
    TAILQ_HEAD(td_calls_s, td_call_s)   calls;
};


td_agent_client_t *
td_client_create(td_agent_t *agent)
{
    td_agent_client_t  *client;

    client = calloc(1, sizeof(td_agent_client_t));

    if (client != NULL) {
        client->agent = agent;
        TAILQ_INIT(&client->calls);
    }

    return client;
}


static void
td_call_free(td_call_t *call)
{
    TAILQ_REMOVE(&call->client->calls, call, link);

    if (call->easy != NULL) {
        curl_easy_cleanup(call->easy);
    }

    curl_slist_free_all(call->headers);
    tg_text_free(&call->answer);
    free(call);
}


void
td_client_destroy(td_agent_client_t *client)
{
    td_call_t  *call;

    if (client == NULL) {
        return;
    }

    while ((call = TAILQ_FIRST(&client->calls)) != NULL) {
        td_multi_remove(client->agent->multi, call->easy);
        td_call_free(call);
    }

    free(client);
}


/* The token may be renewed while the agent runs. */
static struct curl_slist *
td_client_token(const char *path, struct curl_slist *headers)
{
    FILE    *file;
    char     line[TD_CLIENT_TOKEN], header[TD_CLIENT_TOKEN + 32];

    file = fopen(path, "re");

    if (file == NULL || fgets(line, sizeof(line), file) == NULL) {
        td_log(TD_LOG_ERR, "agent", "cannot read the token in %s: %m", path);

    } else {
        line[strcspn(line, " \t\r\n")] = '\0';
        snprintf(header, sizeof(header), "Authorization: Bearer %s", line);
        headers = curl_slist_append(headers, header);
        explicit_bzero(header, sizeof(header));
        explicit_bzero(line, sizeof(line));
    }

    if (file != NULL) {
        fclose(file);
    }

    return headers;
}


static void
td_client_tls(const td_config_t *config, CURL *easy)
{
    if (config->agent.ca[0] != '\0') {
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->agent.ca);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }

    if (config->agent.certificate[0] != '\0') {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, config->agent.certificate);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, config->agent.key);
    }
}


CURL *
td_client_easy(td_agent_t *agent, const char *path, struct curl_slist **headers)
{
    CURL        *easy;
    char         url[2048];
    const char  *source;

    source = agent->config->agent.tenantd;
    easy = curl_easy_init();
    if (easy == NULL) {
        return NULL;
    }

    if (strncmp(source, "unix:", 5) == 0) {
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, source + 5);
        snprintf(url, sizeof(url), "http://tenantd%s", path);

    } else {
        snprintf(url, sizeof(url), "%.1024s%s", source, path);
        td_client_tls(agent->config, easy);
    }

    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) TD_CLIENT_CONNECT);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "tenantd-agent/" TIERGATE_VERSION);

    /* Its default waits a second for "100 Continue" with larger bodies. */
    *headers = curl_slist_append(*headers, "Expect:");

    if (agent->config->agent.token_file[0] != '\0') {
        *headers = td_client_token(agent->config->agent.token_file, *headers);
    }

    return easy;
}


static size_t
td_call_on_data(char *data, size_t size, size_t n, void *arg)
{
    size_t      room;
    td_call_t  *call = arg;

    n *= size;
    room = TD_CLIENT_ANSWER - call->answer.len;
    tg_text_add(&call->answer, data, n < room ? n : room);

    return n;
}


static void
td_call_done(CURL *easy, CURLcode code, void *data)
{
    long        status;
    td_call_t  *call = data;

    tg_text_add(&call->answer, "", 1);
    status = 0;

    if (code == CURLE_OK) {
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);

    } else if (call->error[0] == '\0') {
        snprintf(call->error, sizeof(call->error), "%s", curl_easy_strerror(code));
    }

    call->done(call->data, status, call->answer.data ? call->answer.data : "",
               call->answer.len > 0 ? call->answer.len - 1 : 0,
               status == 0 ? call->error : NULL);
    td_call_free(call);
}


int
td_agent_post(td_agent_t *agent, const char *path, const char *body, size_t len,
    td_agent_posted_pt done, void *data)
{
    td_call_t  *call;

    call = calloc(1, sizeof(td_call_t));
    if (call == NULL) {
        return -1;
    }

    call->client = agent->client;
    call->done = done;
    call->data = data;
    TAILQ_INSERT_TAIL(&agent->client->calls, call, link);

    call->easy = td_client_easy(agent, path, &call->headers);
    if (call->easy == NULL) {
        td_call_free(call);
        return -1;
    }

    call->headers = curl_slist_append(call->headers, "Content-Type: application/json");
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, (long) TD_CLIENT_TIMEOUT);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE, (long) len);
    curl_easy_setopt(call->easy, CURLOPT_COPYPOSTFIELDS, body);
    curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, td_call_on_data);
    curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, call->error);

    if (td_multi_add(agent->multi, call->easy, td_call_done, call) != 0) {
        td_call_free(call);
        return -1;
    }

    return 0;
}
