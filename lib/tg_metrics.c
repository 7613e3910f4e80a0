/* SPDX-License-Identifier: BSD-2-Clause */

#include <math.h>
#include <string.h>
#include <strings.h>

#include "tg_usage.h"


const char  tg_metrics_text_type[] = "text/plain; version=0.0.4; charset=utf-8";
const char  tg_metrics_open_type[] =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";


const tg_metric_t  tg_metrics[TG_METRICS] = {

    [TG_M_BUILD_INFO] = {
        "tiergate_build_info", TG_TYPE_GAUGE, "version,nginx",
        "Always 1; the versions are in the labels." },

    [TG_M_STATE] = {
        "tiergate_state", TG_TYPE_GAUGE, "state",
        "1 for the present state of the gateway: live, snapshot or loading." },

    [TG_M_REVISION] = {
        "tiergate_revision", TG_TYPE_GAUGE, "",
        "Registry revision that this gateway enforces." },

    [TG_M_REGISTRY_REVISION] = {
        "tiergate_registry_revision", TG_TYPE_GAUGE, "",
        "Registry revision of the last bookmark that tenantd sent." },

    [TG_M_LAG] = {
        "tiergate_stream_silence_seconds", TG_TYPE_GAUGE, "",
        "Time since the last line of the watch stream." },

    [TG_M_STREAM_CONNECTS] = {
        "tiergate_stream_connects", TG_TYPE_COUNTER, "",
        "Watch streams that were opened." },

    [TG_M_STREAM_LINES] = {
        "tiergate_stream_lines", TG_TYPE_COUNTER, "type",
        "Lines of the watch stream, by type: put, delete, bookmark." },

    [TG_M_STREAM_REFUSED] = {
        "tiergate_stream_refused", TG_TYPE_COUNTER, "",
        "Lines of the watch stream that were refused." },

    [TG_M_LISTS] = {
        "tiergate_lists", TG_TYPE_COUNTER, "",
        "Full lists that were taken over to their end." },

    [TG_M_ACKS] = {
        "tiergate_acks", TG_TYPE_COUNTER, "result",
        "Acknowledgements sent to tenantd: ok or failed." },

    [TG_M_REPORTS] = {
        "tiergate_usage_reports", TG_TYPE_COUNTER, "result",
        "Usage reports sent to tenantd: ok or failed." },

    [TG_M_HANDOVERS] = {
        "tiergate_handover_reports", TG_TYPE_COUNTER, "result",
        "Reports of what a tenant that moves has used: ok or failed." },

    [TG_M_REJECTED] = {
        "tiergate_rejected_objects", TG_TYPE_GAUGE, "",
        "Objects that stay at their last good state, see the error log." },

    [TG_M_SNAPSHOT_AGE] = {
        "tiergate_snapshot_age_seconds", TG_TYPE_GAUGE, "",
        "Time since the snapshot file was last known to be up to date." },

    [TG_M_SNAPSHOT_REVISION] = {
        "tiergate_snapshot_revision", TG_TYPE_GAUGE, "",
        "Registry revision in the snapshot file." },

    [TG_M_SNAPSHOT_BYTES] = {
        "tiergate_snapshot_bytes", TG_TYPE_GAUGE, "",
        "Size of the snapshot file." },

    [TG_M_SNAPSHOT_FAILURES] = {
        "tiergate_snapshot_failures", TG_TYPE_COUNTER, "",
        "Reads and writes of the snapshot file that failed." },

    [TG_M_ZONE_TENANTS] = {
        "tiergate_zone_tenants", TG_TYPE_GAUGE, "",
        "Tenants in the registry zone." },

    [TG_M_ZONE_ISSUERS] = {
        "tiergate_zone_issuers", TG_TYPE_GAUGE, "",
        "Platform issuers in the registry zone." },

    [TG_M_ZONE_SIZE] = {
        "tiergate_zone_size_bytes", TG_TYPE_GAUGE, "",
        "Size of the registry zone." },

    [TG_M_ZONE_USED] = {
        "tiergate_zone_used_bytes", TG_TYPE_GAUGE, "",
        "Bytes of the registry zone that are in use." },

    [TG_M_ZONE_RETIRED] = {
        "tiergate_zone_retired_objects", TG_TYPE_GAUGE, "",
        "Old versions that wait for the requests that use them." },

    [TG_M_ZONE_PUTS] = {
        "tiergate_zone_puts", TG_TYPE_COUNTER, "",
        "Versions that were published." },

    [TG_M_ZONE_FULL] = {
        "tiergate_zone_full", TG_TYPE_COUNTER, "",
        "Versions that were refused because the registry zone was full." },

    [TG_M_ZONE_RECOVERIES] = {
        "tiergate_zone_recoveries", TG_TYPE_COUNTER, "",
        "Recoveries after a writer that was killed." },

    [TG_M_ZONE_CARRIED] = {
        "tiergate_zone_carried_counts", TG_TYPE_COUNTER, "result",
        "Counts of other gateways that came with a tenant: added; of them capped at the "
        "limit, or shared for want of a bucket; passed over." },

    [TG_M_WORKER_REQUESTS] = {
        "tiergate_worker_requests", TG_TYPE_COUNTER, "worker",
        "Requests by worker process." },

    [TG_M_REFUSED] = {
        "tiergate_refused", TG_TYPE_COUNTER, "reason",
        "Requests that were refused, by the problem type." },

    [TG_M_REQUESTS] = {
        "tiergate_requests", TG_TYPE_COUNTER, "class",
        "Requests by status class." },

    [TG_M_RECEIVED] = {
        "tiergate_received_bytes", TG_TYPE_COUNTER, "",
        "Bytes of requests." },

    [TG_M_SENT] = {
        "tiergate_sent_bytes", TG_TYPE_COUNTER, "",
        "Bytes of responses." },

    [TG_M_DURATION] = {
        "tiergate_request_duration_seconds", TG_TYPE_HISTOGRAM, "",
        "Time from the first byte of a request to the last of its response." },

    [TG_M_TENANTS_SHOWN] = {
        "tiergate_metrics_tenants", TG_TYPE_GAUGE, "shown",
        "Tenants with series of their own (yes), and lately without (no)." },

    [TG_M_TENANT_REQUESTS] = {
        "tiergate_tenant_requests", TG_TYPE_COUNTER, "tenant,class",
        "Requests of a tenant by status class." },

    [TG_M_TENANT_DENIED] = {
        "tiergate_tenant_denied", TG_TYPE_COUNTER, "tenant",
        "Requests of a tenant that were refused by authentication." },

    [TG_M_TENANT_THROTTLED] = {
        "tiergate_tenant_throttled", TG_TYPE_COUNTER, "tenant",
        "Requests of a tenant that were refused by a quota." },

    [TG_M_TENANT_RECEIVED] = {
        "tiergate_tenant_received_bytes", TG_TYPE_COUNTER, "tenant",
        "Bytes of a tenant's requests." },

    [TG_M_TENANT_SENT] = {
        "tiergate_tenant_sent_bytes", TG_TYPE_COUNTER, "tenant",
        "Bytes of a tenant's responses." },

    [TG_M_TENANT_DURATION] = {
        "tiergate_tenant_request_duration_seconds", TG_TYPE_HISTOGRAM, "tenant",
        "As tiergate_request_duration_seconds, of a tenant." },
};


static const char *const  tg_metric_types[] = {
    "counter", "gauge", "histogram"
};


void
tg_exposition_init(tg_exposition_t *exposition, int open)
{
    tg_text_init(&exposition->text);
    exposition->open = open;
    exposition->family = -1;
}


/* Whether the weight of a media range ("q=0.5" among its parameters) is 0. */
static int
tg_weight_is_zero(const char *p, const char *end)
{
    while ((p = memchr(p, ';', (size_t) (end - p))) != NULL) {
        p++;

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if (end - p < 3 || strncasecmp(p, "q=0", 3) != 0) {
            continue;
        }

        for (p += 3; p < end && *p != ';'; p++) {
            if (*p >= '1' && *p <= '9') {
                return 0;
            }
        }

        return 1;
    }

    return 0;
}


/*
 * RFC 9110 section 12.5.1, as far as two media types need it: OpenMetrics is
 * chosen only where it is named, and not with a weight of zero.
 */
int
tg_exposition_accepts_open(const char *accept, size_t len)
{
    const char         *p, *end, *comma;
    static const char   type[] = "application/openmetrics-text";

    end = accept + len;

    for (p = accept; p < end; p = comma + 1) {
        comma = memchr(p, ',', (size_t) (end - p));
        comma = comma ? comma : end;

        while (p < comma && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if ((size_t) (comma - p) >= sizeof(type) - 1
            && strncasecmp(p, type, sizeof(type) - 1) == 0
            && !tg_weight_is_zero(p, comma))
        {
            return 1;
        }
    }

    return 0;
}


/* # HELP and # TYPE, before the first sample of a metric. */
static void
tg_exposition_family(tg_exposition_t *e, tg_metric_id_e id)
{
    const char         *total;
    const tg_metric_t  *m = &tg_metrics[id];

    if (e->family == (int) id) {
        return;
    }

    e->family = (int) id;

    /* OpenMetrics names the family of a counter without the suffix */
    total = m->type == TG_TYPE_COUNTER && !e->open ? "_total" : "";

    tg_text_printf(&e->text, "# HELP %s%s %s\n# TYPE %s%s %s\n", m->name, total,
                   m->help, m->name, total, tg_metric_types[m->type]);
}


/* NAME{a="x",b="y",le="0.1"}; le may be NULL. */
static void
tg_exposition_name(tg_exposition_t *e, tg_metric_id_e id, const char *suffix,
    const tg_label_t *labels, const char *le)
{
    size_t       n, len;
    tg_text_t   *text = &e->text;
    const char  *name;

    tg_text_str(text, tg_metrics[id].name);
    tg_text_str(text, suffix);

    n = 0;

    for (name = tg_metrics[id].labels; *name; name += len) {
        name += *name == ',';
        len = strcspn(name, ",");

        tg_text_str(text, n ? "," : "{");
        tg_text_add(text, name, len);
        tg_text_str(text, "=\"");
        tg_text_label(text, labels[n].value, labels[n].len);
        tg_text_str(text, "\"");
        n++;
    }

    if (le != NULL) {
        tg_text_str(text, n++ ? ",le=\"" : "{le=\"");
        tg_text_str(text, le);
        tg_text_str(text, "\"");
    }

    tg_text_str(text, n ? "} " : " ");
}


static void
tg_exposition_number(tg_exposition_t *e, double value)
{
    if (value >= 0 && value < 0x1p53 && value == floor(value)) {
        tg_text_u64(&e->text, (uint64_t) value);

    } else {
        tg_text_printf(&e->text, "%.6f", value);
    }

    tg_text_str(&e->text, "\n");
}


void
tg_exposition_sample(tg_exposition_t *e, tg_metric_id_e id,
    const tg_label_t *labels, double value)
{
    tg_exposition_family(e, id);
    tg_exposition_name(e, id,
                       tg_metrics[id].type == TG_TYPE_COUNTER ? "_total" : "",
                       labels, NULL);
    tg_exposition_number(e, value);
}


void
tg_exposition_latency(tg_exposition_t *e, tg_metric_id_e id,
    const tg_label_t *labels, const tg_counters_t *counters)
{
    uint64_t  n;
    static const char *const  le[TG_LATENCY_BUCKETS] = {
        "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
        "0.5", "1.0", "2.5", "+Inf"
    };

    tg_exposition_family(e, id);
    n = 0;

    for (size_t i = 0; i < TG_LATENCY_BUCKETS; i++) {
        n += counters->latency[i];
        tg_exposition_name(e, id, "_bucket", labels, le[i]);
        tg_exposition_number(e, (double) n);
    }

    tg_exposition_name(e, id, "_sum", labels, NULL);
    tg_exposition_number(e, (double) counters->latency_us / 1e6);
    tg_exposition_name(e, id, "_count", labels, NULL);
    tg_exposition_number(e, (double) n);
}


void
tg_exposition_end(tg_exposition_t *e)
{
    if (e->open) {
        tg_text_str(&e->text, "# EOF\n");
    }
}
