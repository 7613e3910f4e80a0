/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_ack.h"
#include "td_auth.h"
#include "td_dispatch.h"
#include "td_feed.h"
#include "td_flows.h"
#include "td_import.h"
#include "td_log.h"
#include "td_metrics.h"
#include "td_pool.h"
#include "td_handover.h"
#include "td_provision.h"
#include "td_rest.h"
#include "td_servicemap.h"
#include "td_watch.h"
#include "tg_text.h"


#define TD_DISPATCH_OPENAPI_MAX  (4 * 1024 * 1024)


static void
td_dispatch_healthz(td_request_t *request)
{
    static const char  body[] = "{\"status\":\"alive\"}\n";

    td_reply(request, 200, "application/json", body, sizeof(body) - 1);
}


/* Ready is who can read the registry and answer from it. */
static void
td_dispatch_readyz(td_request_t *request)
{
    int           n;
    char          body[160];
    td_daemon_t  *daemon;

    daemon = request->daemon;

    if (daemon->draining) {
        td_reply_kind(request, TD_PROBLEM_SHUTTING_DOWN, "this tenantd ends");
        return;
    }

    if (!td_feed_ready(daemon->feed)
        || td_pool_figures(daemon->pool).up == 0)
    {
        td_reply_kind(request, TD_PROBLEM_DATABASE_UNAVAILABLE, "the registry "
                      "has not been reached, or cannot be read");
        return;
    }

    n = snprintf(body, sizeof(body), "{\"status\":\"ready\",\"registry\":"
                 "\"%s\",\"revision\":%lld}\n", td_feed_registry(daemon->feed),
                 (long long) td_ring_end(td_feed_ring(daemon->feed)));

    td_reply(request, 200, "application/json", body, (size_t) n);
}


static void
td_dispatch_metrics(td_request_t *request)
{
    tg_text_t          text;
    td_pool_figures_t  figures;

    figures = td_pool_figures(request->daemon->pool);
    td_metric_set(TD_METRIC_DATABASE_CONNECTIONS, figures.up);
    td_metric_set(TD_METRIC_DATABASE_BUSY, figures.busy);
    td_metric_set(TD_METRIC_DATABASE_QUEUE, figures.queued);
    td_metric_set(TD_METRIC_CONNECTIONS,
                  td_http_connections(request->daemon->http));

    tg_text_init(&text);
    td_metrics_write(&text);

    if (request->daemon->provision != NULL) {
        td_provision_write_metrics(request->daemon->provision, &text);

    } else if (request->daemon->handover != NULL) {
        td_handover_write_metrics(request->daemon->handover, &text);
    }

    if (text.failed) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
    } else {
        td_reply(request, 200, "text/plain; version=0.0.4; charset=utf-8",
                 text.data, text.len);
    }

    tg_text_free(&text);
}


static void
td_dispatch_openapi(td_request_t *request)
{
    char        *body;
    FILE        *file;
    size_t       n;
    const char  *path;

    path = request->daemon->config->http.openapi;
    body = malloc(TD_DISPATCH_OPENAPI_MAX);
    file = body != NULL ? fopen(path, "re") : NULL;

    if (file == NULL) {
        td_log(TD_LOG_ERR, "http", "cannot open \"%s\": %s", path,
               strerror(errno));
        free(body);
        td_reply_kind(request, TD_PROBLEM_UNKNOWN_ROUTE, "the description is "
                      "not installed here; see [http] openapi");
        return;
    }

    n = fread(body, 1, TD_DISPATCH_OPENAPI_MAX, file);
    fclose(file);

    td_reply(request, 200, "application/yaml; charset=utf-8", body, n);
    free(body);
}


/* What is open to everybody takes neither body nor parameters. */
static void
td_dispatch_open(td_request_t *request)
{
    if (request->body_len > 0) {
        td_reply_kind(request, TD_PROBLEM_UNEXPECTED_BODY, "this request takes "
                      "no body: leave it out");
        return;
    }

    switch (request->match.route->kind) {

    case TD_ROUTE_HEALTHZ:
        td_dispatch_healthz(request);
        break;

    case TD_ROUTE_READYZ:
        td_dispatch_readyz(request);
        break;

    case TD_ROUTE_METRICS:
        td_dispatch_metrics(request);
        break;

    default:
        td_dispatch_openapi(request);
    }
}


void
td_dispatch(struct evhttp_request *http, td_conn_t *conn, void *data)
{
    td_daemon_t   *daemon = data;
    td_problem_t   problem;
    td_request_t  *request;

    request = td_request_create(daemon, http, conn);
    if (request == NULL) {
        return;
    }

    if (request->match.route->scope == NULL) {
        td_dispatch_open(request);
        return;
    }

    if (td_auth(request, &problem) != 0) {
        td_reply_problem(request, &problem);
        return;
    }

    switch (request->match.route->kind) {

    case TD_ROUTE_WATCH:
        td_watch_handle(daemon->watch, request);
        break;

    case TD_ROUTE_ACK:
        td_ack_handle(daemon->ack, request);
        break;

    case TD_ROUTE_FLOWS:
        td_flows_handle(daemon->flows, request);
        break;

    case TD_ROUTE_SERVICEMAP:
        td_servicemap_handle(request);
        break;

    case TD_ROUTE_IMPORT:
        td_import_handle(request);
        break;

    default:
        td_rest_handle(request);
    }
}
