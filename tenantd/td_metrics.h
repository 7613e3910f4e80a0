/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd's own metrics, in Prometheus' text format.  One table names them;
 * docs/reference/rest.md describes them.
 */

#ifndef TD_METRICS_H
#define TD_METRICS_H

#include <stdint.h>

#include "tg_text.h"

typedef enum {
    TD_METRIC_CONNECTIONS,
    TD_METRIC_CONNECTIONS_ACCEPTED,
    TD_METRIC_DATABASE_UP,
    TD_METRIC_DATABASE_CONNECTIONS,
    TD_METRIC_DATABASE_BUSY,
    TD_METRIC_DATABASE_QUEUE,
    TD_METRIC_DATABASE_RETRIES,
    TD_METRIC_FLOW_FOLLOWERS,
    TD_METRIC_FLOW_LINES,
    TD_METRIC_FLOW_LOST,
    TD_METRIC_IMPORT_LINES,
    TD_METRIC_INSTANCE_RESTARTS,
    TD_METRIC_JWKS_FETCHES,
    TD_METRIC_JWKS_FAILURES,
    TD_METRIC_JWKS_PENDING,
    TD_METRIC_REVISION,
    TD_METRIC_WATCH_STREAMS,
    TD_METRIC_WATCH_LISTS,
    TD_METRIC_WATCH_LINES,
    TD_METRIC_WATCH_DROPPED,
    TD_METRIC_WATCH_LAG,
    TD_METRIC_WATCH_RING,
    TD_METRIC_START,
    TD_METRIC_N
} td_metric_e;

typedef struct {
    const char  *name;
    const char  *type;
    const char  *help;
} td_metric_t;

extern const td_metric_t  td_metrics[TD_METRIC_N];

void td_metric_set(td_metric_e metric, int64_t value);
void td_metric_add(td_metric_e metric, int64_t n);
int64_t td_metric_get(td_metric_e metric);

/*
 * Counts a request.  route: its index in the route table, or a negative number
 * for those that match none.
 */
void td_metrics_request(int route, int status, double seconds);

/* Writes all of them. */
void td_metrics_write(tg_text_t *text);

#endif /* TD_METRICS_H */
