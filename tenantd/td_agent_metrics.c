/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "td_agent_metrics.h"
#include "td_log.h"


#define TD_METRICS_FILLS    32
#define TD_METRICS_TIMEOUT  10      /* seconds */

struct td_agent_metrics_s {
    td_agent_t       *agent;
    td_agent_flow_t  *flow;
    struct evhttp    *http;         /* NULL: it does not listen */
    char             *path;         /* of the unix socket, or NULL */
};

/* Names of counters of the programs: why a record is not there. */
static const struct {
    const char  *reason;
    int          counter;
} td_metrics_lost[] = {
    { "ring", TG_LOST_RING },
    { "sampled", TG_LOST_SAMPLED },
    { "denials_sampled", TG_LOST_DENY_SAMPLED },
};

static const struct {
    const char  *kind;
    int          counter;
} td_metrics_full[] = {
    { "sockets", TG_FULL_SOCKETS },
    { "flows", TG_FULL_FLOWS },
    { "meters", TG_FULL_METERS },
    { "origins", TG_FULL_ORIGINS },
    { "buckets", TG_FULL_BUCKETS },
};


static void
td_metrics_family(tg_text_t *text, const char *name, const char *type,
    const char *help)
{
    tg_text_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}


static void
td_metrics_one(tg_text_t *text, const char *name, const char *type,
    const char *help, uint64_t value)
{
    td_metrics_family(text, name, type, help);
    tg_text_printf(text, "%s %llu\n", name, (unsigned long long) value);
}


static void
td_metrics_counters(tg_text_t *text, const td_agent_metrics_t *metrics,
    const td_agent_flow_counts_t *counts)
{
    uint64_t      counters[TG_COUNTERS];
    unsigned int  i;

    if (td_mesh_counters(metrics->agent->mesh, counters) != 0) {
        return;
    }

    td_metrics_family(text, "tiergate_mesh_verdicts_total", "counter",
                      "Verdicts of the programs, by the reason's name.");

    for (i = 0; i < TG_REASON_LIMIT; i++) {
        if (td_mesh_counter_name(i) != NULL && counters[i] > 0) {
            tg_text_printf(text, "tiergate_mesh_verdicts_total{reason=\"%s\"} "
                           "%llu\n", td_mesh_counter_name(i),
                           (unsigned long long) counters[i]);
        }
    }

    td_metrics_family(text, "tiergate_mesh_denied_total", "counter",
                      "Of these, denials.");

    for (i = TG_DENY; i < TG_REASON_LIMIT; i++) {
        if (td_mesh_counter_name(i) != NULL && counters[i] > 0) {
            tg_text_printf(text, "tiergate_mesh_denied_total{reason=\"%s\"} "
                           "%llu\n", td_mesh_counter_name(i),
                           (unsigned long long) counters[i]);
        }
    }

    td_metrics_family(text, "tiergate_mesh_lost_records_total", "counter",
                      "Records that were left out, and why.");

    for (i = 0; i < sizeof(td_metrics_lost) / sizeof(td_metrics_lost[0]); i++) {
        tg_text_printf(text, "tiergate_mesh_lost_records_total{reason=\"%s\"} "
                       "%llu\n", td_metrics_lost[i].reason, (unsigned long long)
                       counters[td_metrics_lost[i].counter]);
    }

    tg_text_printf(text, "tiergate_mesh_lost_records_total{reason=\"uplink\"} "
                   "%llu\n", (unsigned long long) counts->lost);

    td_metrics_family(text, "tiergate_mesh_full_total", "counter",
                      "Times that a map of the programs had no room.");

    for (i = 0; i < sizeof(td_metrics_full) / sizeof(td_metrics_full[0]); i++) {
        tg_text_printf(text, "tiergate_mesh_full_total{map=\"%s\"} %llu\n",
                       td_metrics_full[i].kind, (unsigned long long)
                       counters[td_metrics_full[i].counter]);
    }
}


static void
td_metrics_fill(tg_text_t *text, const td_agent_metrics_t *metrics)
{
    size_t          i, k, n;
    td_mesh_fill_t  fill[TD_METRICS_FILLS];

    static const struct {
        const char  *name;
        const char  *type;
        const char  *help;
    } families[] = {
        { "tiergate_mesh_map_entries", "gauge", "Rows of the maps in use." },
        { "tiergate_mesh_map_size", "gauge", "Rows that they have room for." },
        { "tiergate_mesh_map_refused_total", "counter",
          "Rows that did not fit." },
    };

    n = td_mesh_fill(metrics->agent->mesh, fill, TD_METRICS_FILLS);
    n = n < TD_METRICS_FILLS ? n : TD_METRICS_FILLS;

    for (k = 0; k < sizeof(families) / sizeof(families[0]); k++) {
        td_metrics_family(text, families[k].name, families[k].type,
                          families[k].help);

        for (i = 0; i < n; i++) {
            tg_text_printf(text, "%s{map=\"%s\"} %llu\n", families[k].name,
                           fill[i].name, (unsigned long long)
                           (k == 0 ? fill[i].used : k == 1 ? fill[i].size
                            : fill[i].refused));
        }
    }
}


static void
td_metrics_state(tg_text_t *text, const td_agent_metrics_t *metrics,
    const td_agent_flow_counts_t *counts)
{
    size_t             i;
    const td_agent_t  *agent;

    static const char *const  states[] = { "live", "snapshot", "loading" };

    agent = metrics->agent;
    td_metrics_family(text, "tiergate_agent_state", "gauge",
                      "1 for the present state: live, snapshot or loading.");

    for (i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        tg_text_printf(text, "tiergate_agent_state{state=\"%s\"} %d\n",
                       states[i],
                       strcmp(states[i], td_agent_state(agent)) == 0);
    }

    td_metrics_one(text, "tiergate_agent_revision", "gauge",
                   "Registry revision that is in force.",
                   td_agent_revision(agent));
    td_metrics_one(text, "tiergate_agent_tenants", "gauge",
                   "Tenants in force.", td_agent_tenants(agent));
    td_metrics_one(text, "tiergate_agent_services", "gauge",
                   "Services in force.", td_agent_services(agent));
    td_metrics_one(text, "tiergate_agent_workloads", "gauge",
                   "Workloads of this node.", td_agent_workloads(agent));
    td_metrics_one(text, "tiergate_mesh_records_total", "counter",
                   "Records that came from the programs.", counts->records);
    td_metrics_one(text, "tiergate_mesh_records_sent_total", "counter",
                   "Records that the registry has taken.", counts->sent);
    td_metrics_one(text, "tiergate_mesh_records_queued", "gauge",
                   "Records that wait for the registry.", counts->queued);
    td_metrics_one(text, "tiergate_mesh_pairs", "gauge",
                   "Pairs of services with metrics of their own.",
                   counts->pairs);
}


static void
td_metrics_reply(struct evhttp_request *request, int status, const char *type,
    const char *body, size_t len)
{
    struct evbuffer  *out;

    out = evbuffer_new();

    if (out != NULL) {
        evbuffer_add(out, body, len);
    }

    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      type);
    evhttp_send_reply(request, status, NULL, out);

    if (out != NULL) {
        evbuffer_free(out);
    }
}


static void
td_metrics_on_metrics(struct evhttp_request *request, void *data)
{
    tg_text_t                text;
    td_agent_metrics_t      *metrics = data;
    td_agent_flow_counts_t   counts;

    tg_text_init(&text);
    td_agent_flow_read(metrics->flow);
    counts = td_agent_flow_counts(metrics->flow);
    td_metrics_state(&text, metrics, &counts);
    td_metrics_counters(&text, metrics, &counts);
    td_metrics_fill(&text, metrics);
    td_agent_flow_write_pairs(metrics->flow, &text);

    if (text.failed) {
        evhttp_send_error(request, 503, NULL);
    } else {
        td_metrics_reply(request, 200,
                         "text/plain; version=0.0.4; charset=utf-8", text.data,
                         text.len);
    }

    tg_text_free(&text);
}


static void
td_metrics_on_health(struct evhttp_request *request, void *data)
{
    static const char  body[] = "{\"status\":\"alive\"}\n";

    (void) data;

    td_metrics_reply(request, 200, "application/json", body, sizeof(body) - 1);
}


/* Ready is who enforces what the registry or its snapshot said. */
static void
td_metrics_on_ready(struct evhttp_request *request, void *data)
{
    int                  n, ready;
    char                 body[128];
    td_agent_metrics_t  *metrics = data;

    ready = strcmp(td_agent_state(metrics->agent), "loading") != 0;
    n = snprintf(body, sizeof(body), "{\"status\":\"%s\",\"revision\":%llu}\n",
                 td_agent_state(metrics->agent),
                 (unsigned long long) td_agent_revision(metrics->agent));
    td_metrics_reply(request, ready ? 200 : 503, "application/json", body,
                     (size_t) n);
}


static struct evconnlistener *
td_metrics_listen_unix(td_agent_metrics_t *metrics, const char *path)
{
    struct sockaddr_un      addr;
    struct evconnlistener  *listener;

    memset(&addr, 0, sizeof(addr));
    addr.sun_family = AF_UNIX;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return NULL;
    }

    memcpy(addr.sun_path, path, strlen(path));
    unlink(path);
    listener = evconnlistener_new_bind(metrics->agent->base, NULL, NULL,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
        (struct sockaddr *) &addr, sizeof(addr));

    if (listener != NULL) {
        metrics->path = strdup(path);
    }

    return listener;
}


static struct evconnlistener *
td_metrics_listen(td_agent_metrics_t *metrics, const char *address)
{
    int                      len;
    struct sockaddr_storage  addr;

    if (strncmp(address, "unix:", 5) == 0) {
        return td_metrics_listen_unix(metrics, address + 5);
    }

    len = sizeof(addr);

    if (evutil_parse_sockaddr_port(address, (struct sockaddr *) &addr, &len)
        != 0)
    {
        errno = EINVAL;
        return NULL;
    }

    return evconnlistener_new_bind(metrics->agent->base, NULL, NULL,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 16,
        (struct sockaddr *) &addr, len);
}


static int
td_metrics_start(td_agent_metrics_t *metrics, const char *address)
{
    struct evconnlistener  *listener;

    listener = td_metrics_listen(metrics, address);

    if (listener == NULL) {
        td_log(TD_LOG_CRIT, "agent", "[agent] metrics: cannot listen on %s: %s",
               address, strerror(errno));
        return -1;
    }

    metrics->http = evhttp_new(metrics->agent->base);

    if (metrics->http == NULL
        || evhttp_bind_listener(metrics->http, listener) == NULL)
    {
        evconnlistener_free(listener);
        return -1;
    }

    evhttp_set_allowed_methods(metrics->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(metrics->http, 16 * 1024);
    evhttp_set_max_body_size(metrics->http, 0);
    evhttp_set_timeout(metrics->http, TD_METRICS_TIMEOUT);

    return evhttp_set_cb(metrics->http, "/metrics", td_metrics_on_metrics,
                         metrics) != 0
           || evhttp_set_cb(metrics->http, "/healthz", td_metrics_on_health,
                            metrics) != 0
           || evhttp_set_cb(metrics->http, "/readyz", td_metrics_on_ready,
                            metrics) != 0 ? -1 : 0;
}


td_agent_metrics_t *
td_agent_metrics_create(td_agent_t *agent, td_agent_flow_t *flow)
{
    td_agent_metrics_t  *metrics;

    metrics = calloc(1, sizeof(td_agent_metrics_t));
    if (metrics == NULL) {
        td_log(TD_LOG_CRIT, "agent", "out of memory");
        return NULL;
    }

    metrics->agent = agent;
    metrics->flow = flow;

    if (agent->config->agent.metrics[0] != '\0'
        && td_metrics_start(metrics, agent->config->agent.metrics) != 0)
    {
        td_agent_metrics_destroy(metrics);
        return NULL;
    }

    return metrics;
}


void
td_agent_metrics_destroy(td_agent_metrics_t *metrics)
{
    if (metrics == NULL) {
        return;
    }

    if (metrics->http != NULL) {
        evhttp_free(metrics->http);
    }

    if (metrics->path != NULL) {
        unlink(metrics->path);
        free(metrics->path);
    }

    free(metrics);
}
