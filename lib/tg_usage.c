/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_usage.h"


const uint32_t  tg_latency_us[TG_LATENCY_BUCKETS - 1] = {
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,
    2500000
};


unsigned
tg_latency_bucket(uint64_t us)
{
    unsigned  i;

    for (i = 0; i < TG_LATENCY_BUCKETS - 1; i++) {
        if (us <= tg_latency_us[i]) {
            break;
        }
    }

    return i;
}


uint64_t
tg_counters_requests(const tg_counters_t *counters)
{
    uint64_t  n;

    n = 0;

    for (size_t i = 0; i < 5; i++) {
        n += counters->status[i];
    }

    return n;
}


/* Counters are nothing but 64-bit words, up to this one. */
#define TG_COUNTERS  (offsetof(tg_counters_t, life) / sizeof(uint64_t))


void
tg_counters_read(tg_counters_t *to, const tg_counters_t *from)
{
    uint64_t        *out = (uint64_t *) to;
    const uint64_t  *in = (const uint64_t *) from;

    for (size_t i = 0; i < TG_COUNTERS; i++) {
        out[i] = __atomic_load_n(&in[i], __ATOMIC_RELAXED);
    }

    to->life = from->life;
}


void
tg_counters_sum(tg_counters_t *to, const tg_counters_t *from)
{
    uint64_t        *out = (uint64_t *) to;
    const uint64_t  *in = (const uint64_t *) from;

    for (size_t i = 0; i < TG_COUNTERS; i++) {
        out[i] += __atomic_load_n(&in[i], __ATOMIC_RELAXED);
    }
}


void
tg_report_init(tg_report_t *report)
{
    tg_text_init(&report->counters);
    tg_text_init(&report->quotas);
}


void
tg_report_free(tg_report_t *report)
{
    tg_text_free(&report->counters);
    tg_text_free(&report->quotas);
}


void
tg_report_reset(tg_report_t *report)
{
    tg_text_reset(&report->counters);
    tg_text_reset(&report->quotas);
}


size_t
tg_report_size(const tg_report_t *report)
{
    return report->counters.len + report->quotas.len;
}


static inline void
tg_report_member(tg_text_t *text, const char *name, uint64_t n)
{
    tg_text_str(text, name);
    tg_text_u64(text, n);
}


static void
tg_report_array(tg_text_t *text, const uint64_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tg_text_add(text, i ? "," : "[", 1);
        tg_text_u64(text, values[i]);
    }

    tg_text_str(text, "]");
}


void
tg_report_counters(tg_report_t *report, const char *tenant, const char *route,
    const tg_counters_t *shared)
{
    uint64_t        requests;
    tg_text_t      *text = &report->counters;
    tg_counters_t   counters;

    tg_counters_read(&counters, shared);
    requests = tg_counters_requests(&counters);

    if (requests == 0) {
        return;
    }

    tg_text_str(text, text->len ? ",{\"tenant\":" : "{\"tenant\":");
    tg_text_json(text, tenant, strlen(tenant));
    tg_text_str(text, ",\"route\":");
    tg_text_json(text, route, strlen(route));
    tg_report_member(text, ",\"life\":", counters.life);
    tg_report_member(text, ",\"requests\":", requests);
    tg_text_str(text, ",\"status\":");
    tg_report_array(text, counters.status, 5);
    tg_report_member(text, ",\"denied\":", counters.denied);
    tg_report_member(text, ",\"throttled\":", counters.throttled);
    tg_report_member(text, ",\"bytes_in\":", counters.bytes_in);
    tg_report_member(text, ",\"bytes_out\":", counters.bytes_out);
    tg_report_member(text, ",\"latency_us\":", counters.latency_us);
    tg_text_str(text, ",\"latency\":");
    tg_report_array(text, counters.latency, TG_LATENCY_BUCKETS);
    tg_text_str(text, "}");
}


void
tg_report_quota(tg_report_t *report, uint64_t id, const char *key,
    size_t key_len, uint64_t used, uint64_t limit, uint64_t throttled)
{
    tg_text_t  *text = &report->quotas;

    tg_text_str(text, text->len ? ",{\"id\":" : "{\"id\":");
    tg_text_u64(text, id);
    tg_text_str(text, ",\"key\":");
    tg_text_json(text, key, key_len);
    tg_report_member(text, ",\"used\":", used);
    tg_report_member(text, ",\"limit\":", limit);
    tg_report_member(text, ",\"throttled\":", throttled);
    tg_text_str(text, "}");
}


void
tg_hex128(const uint8_t *bytes, char hex[33])
{
    static const char  digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 16; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 0xf];
    }

    hex[32] = '\0';
}


int
tg_report_end(tg_report_t *report, tg_text_t *body, const uint8_t *boot,
    uint64_t time)
{
    char  hex[33];

    tg_hex128(boot, hex);

    tg_text_str(body, "{\"boot\":\"");
    tg_text_str(body, hex);
    tg_report_member(body, "\",\"time\":", time);
    tg_text_str(body, ",\"counters\":[");
    tg_text_add(body, report->counters.data, report->counters.len);
    tg_text_str(body, "],\"quotas\":[");
    tg_text_add(body, report->quotas.data, report->quotas.len);
    tg_text_str(body, "]}");

    return report->counters.failed || report->quotas.failed || body->failed
           ? -1 : 0;
}
