/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What was counted, told: usage reports (docs/reference/watch.md) and metrics
 * (docs/reference/metrics.md, which a test compares with the table here).
 */

#ifndef TG_USAGE_H
#define TG_USAGE_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_text.h"

/* The bucket of tg_counters_t.latency that a duration belongs to. */
unsigned tg_latency_bucket(uint64_t us);

/* Upper bounds of the buckets in us; the last one has none. */
extern const uint32_t  tg_latency_us[TG_LATENCY_BUCKETS - 1];

/* Requests of all status classes. */
uint64_t tg_counters_requests(const tg_counters_t *counters);

/* Copies counters that others are adding to. */
void tg_counters_read(tg_counters_t *to, const tg_counters_t *from);

/* Adds from to to; to is the caller's alone. */
void tg_counters_sum(tg_counters_t *to, const tg_counters_t *from);


/*
 * A report.  Counters first, quotas after; tg_report_end() writes the whole.
 * Both parts grow until the caller thinks that it is enough.
 */
typedef struct {
    tg_text_t  counters;
    tg_text_t  quotas;
} tg_report_t;

void tg_report_init(tg_report_t *report);
void tg_report_free(tg_report_t *report);
void tg_report_reset(tg_report_t *report);

/* Bytes so far; 0: there is nothing to report. */
size_t tg_report_size(const tg_report_t *report);

/* One row; counters are read atomically.  route: "" for requests that matched
 * none.  Nothing is added while all are zero. */
void tg_report_counters(tg_report_t *report, const char *tenant,
    const char *route, const tg_counters_t *counters);

/* One row.  key: "", or the consumer. */
void tg_report_quota(tg_report_t *report, uint64_t id, const char *key,
    size_t key_len, uint64_t used, uint64_t limit, uint64_t throttled);

/* Writes the report into body.  boot: 16 bytes.  time: Unix ms.  0, or -1: no
 * memory. */
int tg_report_end(tg_report_t *report, tg_text_t *body, const uint8_t *boot,
    uint64_t time);

/* A 128-bit number as 32 hex digits and a NUL. */
void tg_hex128(const uint8_t *bytes, char hex[33]);


/* --- metrics: Prometheus text 0.0.4 and OpenMetrics 1.0.0 --- */

typedef enum {
    TG_TYPE_COUNTER = 0,
    TG_TYPE_GAUGE,
    TG_TYPE_HISTOGRAM
} tg_metric_type_e;

/* Index in tg_metrics[]. */
typedef enum {
    TG_M_BUILD_INFO = 0,
    TG_M_STATE,
    TG_M_REVISION,
    TG_M_REGISTRY_REVISION,
    TG_M_LAG,
    TG_M_STREAM_CONNECTS,
    TG_M_STREAM_LINES,
    TG_M_STREAM_REFUSED,
    TG_M_LISTS,
    TG_M_ACKS,
    TG_M_REPORTS,
    TG_M_HANDOVERS,
    TG_M_REJECTED,
    TG_M_SNAPSHOT_AGE,
    TG_M_SNAPSHOT_REVISION,
    TG_M_SNAPSHOT_BYTES,
    TG_M_SNAPSHOT_FAILURES,
    TG_M_ZONE_TENANTS,
    TG_M_ZONE_ISSUERS,
    TG_M_ZONE_SIZE,
    TG_M_ZONE_USED,
    TG_M_ZONE_RETIRED,
    TG_M_ZONE_PUTS,
    TG_M_ZONE_FULL,
    TG_M_ZONE_RECOVERIES,
    TG_M_ZONE_CARRIED,
    TG_M_WORKER_REQUESTS,
    TG_M_REFUSED,
    TG_M_REQUESTS,
    TG_M_RECEIVED,
    TG_M_SENT,
    TG_M_DURATION,
    TG_M_TENANTS_SHOWN,
    TG_M_TENANT_REQUESTS,
    TG_M_TENANT_DENIED,
    TG_M_TENANT_THROTTLED,
    TG_M_TENANT_RECEIVED,
    TG_M_TENANT_SENT,
    TG_M_TENANT_DURATION,
    TG_METRICS
} tg_metric_id_e;

typedef struct {
    const char        *name;    /* of the family: a counter's without _total */
    tg_metric_type_e   type;
    const char        *labels;  /* their names, comma separated */
    const char        *help;
} tg_metric_t;

extern const tg_metric_t  tg_metrics[TG_METRICS];

extern const char  tg_metrics_text_type[];      /* Content-Type */
extern const char  tg_metrics_open_type[];

typedef struct {
    tg_text_t  text;
    int        open;        /* OpenMetrics */
    int        family;      /* tg_metric_id_e of the last sample, or -1 */
} tg_exposition_t;

void tg_exposition_init(tg_exposition_t *exposition, int open);

/* True if an Accept header prefers OpenMetrics.  accept may be "". */
int tg_exposition_accepts_open(const char *accept, size_t len);

/*
 * A sample of a counter or gauge.  The samples of one metric must follow each
 * other.  Labels in the order of the table: value and length pairs, as
 * tg_label_t.
 */
typedef struct {
    const char  *value;
    size_t       len;
} tg_label_t;

void tg_exposition_sample(tg_exposition_t *exposition, tg_metric_id_e id,
    const tg_label_t *labels, double value);

/* The series of a histogram from the latency counters; in seconds. */
void tg_exposition_latency(tg_exposition_t *exposition, tg_metric_id_e id,
    const tg_label_t *labels, const tg_counters_t *counters);

/* What comes after the last sample. */
void tg_exposition_end(tg_exposition_t *exposition);

#endif /* TG_USAGE_H */
