/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "td_metrics.h"
#include "td_route.h"


#define TD_METRICS_STATUSES  600

const td_metric_t  td_metrics[TD_METRIC_N] = {
    [TD_METRIC_CONNECTIONS] =
        { "tiergate_tenantd_connections", "gauge", "Open connections." },
    [TD_METRIC_CONNECTIONS_ACCEPTED] =
        { "tiergate_tenantd_connections_accepted_total", "counter",
          "Connections accepted." },
    [TD_METRIC_DATABASE_UP] =
        { "tiergate_tenantd_database_up", "gauge",
          "1 while the change feed is connected." },
    [TD_METRIC_DATABASE_CONNECTIONS] =
        { "tiergate_tenantd_database_connections", "gauge",
          "Database connections for requests that are up." },
    [TD_METRIC_DATABASE_BUSY] =
        { "tiergate_tenantd_database_connections_busy", "gauge",
          "Of these, those at work." },
    [TD_METRIC_DATABASE_QUEUE] =
        { "tiergate_tenantd_database_queue", "gauge",
          "Requests waiting for a database connection." },
    [TD_METRIC_DATABASE_RETRIES] =
        { "tiergate_tenantd_database_retries_total", "counter",
          "Transactions repeated after a serialisation failure or deadlock." },
    [TD_METRIC_FLOW_FOLLOWERS] =
        { "tiergate_tenantd_flow_followers", "gauge",
          "Streams that follow flows of a tenant." },
    [TD_METRIC_FLOW_LINES] =
        { "tiergate_tenantd_flow_lines_total", "counter",
          "Records that were put on them." },
    [TD_METRIC_FLOW_LOST] =
        { "tiergate_tenantd_flow_lost_total", "counter",
          "Records that they lack, mostly because their readers were too slow." },
    [TD_METRIC_IMPORT_LINES] =
        { "tiergate_tenantd_import_lines_total", "counter",
          "Lines of imports that were answered." },
    [TD_METRIC_INSTANCE_RESTARTS] =
        { "tiergate_instance_restarts_total", "counter",
          "Dedicated instances started again after they had died." },
    [TD_METRIC_JWKS_FETCHES] =
        { "tiergate_tenantd_jwks_fetches_total", "counter",
          "Key set fetches ended, good or bad." },
    [TD_METRIC_JWKS_FAILURES] =
        { "tiergate_tenantd_jwks_failures_total", "counter",
          "Of these, those that failed; the last good set stays." },
    [TD_METRIC_JWKS_PENDING] =
        { "tiergate_tenantd_jwks_pending", "gauge",
          "Key set fetches under way." },
    [TD_METRIC_REVISION] =
        { "tiergate_tenantd_revision", "gauge",
          "Newest revision that was read from the registry." },
    [TD_METRIC_WATCH_STREAMS] =
        { "tiergate_tenantd_watch_streams", "gauge", "Open watch streams." },
    [TD_METRIC_WATCH_LISTS] =
        { "tiergate_tenantd_watch_lists_total", "counter",
          "Complete lists that were begun on watch streams." },
    [TD_METRIC_WATCH_LINES] =
        { "tiergate_tenantd_watch_lines_total", "counter",
          "PUT and DELETE lines that were put on watch streams." },
    [TD_METRIC_WATCH_DROPPED] =
        { "tiergate_tenantd_watch_dropped_total", "counter",
          "Watch streams dropped because their reader was too slow." },
    [TD_METRIC_WATCH_LAG] =
        { "tiergate_tenantd_watch_lag_revisions", "gauge",
          "How far the slowest live stream is behind the newest revision." },
    [TD_METRIC_WATCH_RING] =
        { "tiergate_tenantd_watch_ring_bytes", "gauge",
          "Size of the recent changes held in memory." },
    [TD_METRIC_START] =
        { "tiergate_tenantd_start_time_seconds", "gauge",
          "When this process began." },
};

static const double  td_metrics_bounds[] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10
};

#define TD_METRICS_BUCKETS                                                    \
    (sizeof(td_metrics_bounds) / sizeof(td_metrics_bounds[0]))

static int64_t    td_metrics_values[TD_METRIC_N];
static uint64_t  *td_metrics_requests;      /* [route + 1][status] */
static uint64_t   td_metrics_buckets[TD_METRICS_BUCKETS + 1];
static double     td_metrics_seconds;


void
td_metric_set(td_metric_e metric, int64_t value)
{
    td_metrics_values[metric] = value;
}


void
td_metric_add(td_metric_e metric, int64_t n)
{
    td_metrics_values[metric] += n;
}


int64_t
td_metric_get(td_metric_e metric)
{
    return td_metrics_values[metric];
}


void
td_metrics_request(int route, int status, double seconds)
{
    size_t  i;

    if (td_metrics_requests == NULL) {
        td_metrics_requests = calloc((td_routes_n + 1) * TD_METRICS_STATUSES,
                                     sizeof(uint64_t));
    }

    if (td_metrics_requests == NULL || status < 0
        || status >= TD_METRICS_STATUSES)
    {
        return;
    }

    route = route < 0 ? 0 : route + 1;
    td_metrics_requests[route * TD_METRICS_STATUSES + status]++;

    for (i = 0; i < TD_METRICS_BUCKETS && seconds > td_metrics_bounds[i]; i++) {
        /* void */
    }

    td_metrics_buckets[i]++;
    td_metrics_seconds += seconds;
}


static void
td_metrics_head(tg_text_t *text, const char *name, const char *type,
    const char *help)
{
    tg_text_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
                   type);
}


static void
td_metrics_write_requests(tg_text_t *text)
{
    size_t             i, status;
    uint64_t           n;
    const td_route_t  *route;

    td_metrics_head(text, "tiergate_tenantd_requests_total", "counter",
                    "Requests answered.");

    for (i = 0; td_metrics_requests != NULL && i <= td_routes_n; i++) {
        route = i > 0 ? &td_routes[i - 1] : NULL;

        for (status = 0; status < TD_METRICS_STATUSES; status++) {
            n = td_metrics_requests[i * TD_METRICS_STATUSES + status];
            if (n == 0) {
                continue;
            }

            tg_text_printf(text, "tiergate_tenantd_requests_total{method=\"%s\""
                           ",route=\"%s\",status=\"%zu\"} ",
                           route ? td_method_name(route->method) : "",
                           route ? route->pattern : "", status);
            tg_text_u64(text, n);
            tg_text_str(text, "\n");
        }
    }
}


static void
td_metrics_write_durations(tg_text_t *text)
{
    size_t       i;
    uint64_t     n;
    const char  *name = "tiergate_tenantd_request_seconds";

    td_metrics_head(text, name, "histogram",
                    "Time from a request's last byte to its answer.");

    for (n = 0, i = 0; i < TD_METRICS_BUCKETS; i++) {
        n += td_metrics_buckets[i];
        tg_text_printf(text, "%s_bucket{le=\"%g\"} %llu\n", name,
                       td_metrics_bounds[i], (unsigned long long) n);
    }

    n += td_metrics_buckets[i];
    tg_text_printf(text, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n"
                   "%s_count %llu\n", name, (unsigned long long) n, name,
                   td_metrics_seconds, name, (unsigned long long) n);
}


void
td_metrics_write(tg_text_t *text)
{
    size_t  i;

    for (i = 0; i < TD_METRIC_N; i++) {
        td_metrics_head(text, td_metrics[i].name, td_metrics[i].type,
                        td_metrics[i].help);
        tg_text_printf(text, "%s %lld\n", td_metrics[i].name,
                       (long long) td_metrics_values[i]);
    }

    td_metrics_write_requests(text);
    td_metrics_write_durations(text);
}
