/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "td_flow_pairs.h"
#include "td_table.h"
#include "tg_hash.h"


typedef enum {
    TD_PAIR_ALLOWED,
    TD_PAIR_DENIED,
    TD_PAIR_FAILED,
    TD_PAIR_SENT,
    TD_PAIR_RECEIVED,
    TD_PAIR_RTT,            /* sum, in us */
    TD_PAIR_RTT_COUNT,
    TD_PAIR_RETRANSMITS,
    TD_PAIR_N
} td_pair_count_e;

/* tenant NUL source NUL destination NUL */
#define TD_PAIR_KEY  (64 + 2 * 130)

typedef struct td_pair_s {
    td_link_t               link;
    TAILQ_ENTRY(td_pair_s) order;
    uint64_t                count[TD_PAIR_N];
    size_t                  len;
    const char             *source;
    const char             *destination;
    char                    key[];
} td_pair_t;

struct td_flow_pairs_s {
    td_table_t                           table;
    TAILQ_HEAD(td_pair_order_s, td_pair_s)  order;
    size_t                               most;
    td_pair_t                           *other;
};

static const struct {
    const char       *name;
    const char       *labels;       /* more of them */
    const char       *type;         /* NULL: the family goes on */
    const char       *help;
    td_pair_count_e   count;
    double            unit;
} td_pair_metrics[] = {
    { "tiergate_mesh_connections_total", ",verdict=\"allowed\"", "counter",
      "Calls of services, where they began or came from outside.",
      TD_PAIR_ALLOWED, 0 },
    { "tiergate_mesh_connections_total", ",verdict=\"denied\"", NULL, NULL,
      TD_PAIR_DENIED, 0 },
    { "tiergate_mesh_connections_total", ",verdict=\"failed\"", NULL, NULL,
      TD_PAIR_FAILED, 0 },
    { "tiergate_mesh_bytes_total", ",direction=\"sent\"", "counter",
      "Bytes of closed connections, sent by the source and received by it.",
      TD_PAIR_SENT, 0 },
    { "tiergate_mesh_bytes_total", ",direction=\"received\"", NULL, NULL,
      TD_PAIR_RECEIVED, 0 },
    { "tiergate_mesh_rtt_seconds_sum", "", "summary",
      "Smoothed round trip times of closed connections.", TD_PAIR_RTT, 1e-6 },
    { "tiergate_mesh_rtt_seconds_count", "", NULL, NULL, TD_PAIR_RTT_COUNT, 0 },
    { "tiergate_mesh_retransmits_total", "", "counter",
      "Segments that were sent again.", TD_PAIR_RETRANSMITS, 0 },
};


static td_pair_t *
td_pair_create(const char *key, size_t len)
{
    td_pair_t  *pair;

    pair = calloc(1, sizeof(td_pair_t) + len);

    if (pair != NULL) {
        memcpy(pair->key, key, len);
        pair->len = len;
        pair->source = pair->key + strlen(pair->key) + 1;
        pair->destination = pair->source + strlen(pair->source) + 1;
    }

    return pair;
}


td_flow_pairs_t *
td_flow_pairs_create(size_t most)
{
    static const char  other[] = "other\0other\0other";
    td_flow_pairs_t   *pairs;

    pairs = calloc(1, sizeof(td_flow_pairs_t));
    if (pairs == NULL) {
        return NULL;
    }

    TAILQ_INIT(&pairs->order);
    pairs->most = most;
    pairs->other = td_pair_create(other, sizeof(other));

    if (pairs->other == NULL) {
        free(pairs);
        return NULL;
    }

    return pairs;
}


void
td_flow_pairs_destroy(td_flow_pairs_t *pairs)
{
    td_pair_t  *pair;

    if (pairs == NULL) {
        return;
    }

    while ((pair = TAILQ_FIRST(&pairs->order)) != NULL) {
        TAILQ_REMOVE(&pairs->order, pair, order);
        free(pair);
    }

    td_table_free(&pairs->table);
    free(pairs->other);
    free(pairs);
}


/* "acme/web", "outside": no service is called "outside" without its tenant. */
static size_t
td_pair_name(char *name, size_t size, const td_flow_who_t *who)
{
    return 1 + (size_t) (who->tenant == NULL
           ? snprintf(name, size, "outside")
           : snprintf(name, size, "%.63s/%.63s", who->tenant,
                      who->service != NULL ? who->service : ""));
}


static td_pair_t *
td_flow_pair(td_flow_pairs_t *pairs, const td_flow_record_t *record)
{
    char         key[TD_PAIR_KEY];
    size_t       len;
    uint64_t     hash;
    td_link_t   *link;
    td_pair_t   *pair;
    const char  *tenant;

    tenant = td_flow_at_source(record->event) ? record->source.tenant
                                              : record->destination.tenant;
    if (tenant == NULL) {
        tenant = record->source.tenant != NULL ? record->source.tenant
                                               : record->destination.tenant;
    }

    len = 1 + (size_t) snprintf(key, 64, "%.63s", tenant != NULL ? tenant : "");
    len += td_pair_name(key + len, 130, &record->source);
    len += td_pair_name(key + len, 130, &record->destination);
    hash = tg_hash(key, len, 0);

    for (link = td_table_chain(&pairs->table, hash); link != NULL;
         link = link->next)
    {
        pair = td_link_data(link, td_pair_t, link);

        if (link->hash == hash && pair->len == len
            && memcmp(pair->key, key, len) == 0)
        {
            return pair;
        }
    }

    if (pairs->table.n >= pairs->most) {
        return pairs->other;
    }

    pair = td_pair_create(key, len);

    if (pair == NULL || td_table_add(&pairs->table, &pair->link, hash) != 0) {
        free(pair);
        return pairs->other;
    }

    TAILQ_INSERT_TAIL(&pairs->order, pair, order);

    return pair;
}


void
td_flow_pairs_add(td_flow_pairs_t *pairs, const td_flow_record_t *record)
{
    int                     source;
    td_pair_t              *pair;
    const struct tg_event  *event;

    event = record->event;

    if (!td_flow_counts(event)) {
        return;
    }

    pair = td_flow_pair(pairs, record);
    source = td_flow_at_source(event);

    switch (event->type) {

    case TG_EVENT_DENY:
        pair->count[TD_PAIR_DENIED]++;
        break;

    case TG_EVENT_FAILED:
        pair->count[TD_PAIR_FAILED]++;
        break;

    case TG_EVENT_CLOSE:
        pair->count[TD_PAIR_SENT] += source ? event->bytes_out : event->bytes_in;
        pair->count[TD_PAIR_RECEIVED] += source ? event->bytes_in
                                                : event->bytes_out;
        pair->count[TD_PAIR_RETRANSMITS] += event->retransmits;
        pair->count[TD_PAIR_RTT] += event->srtt_us;
        pair->count[TD_PAIR_RTT_COUNT] += event->srtt_us > 0;
        break;

    default:
        pair->count[TD_PAIR_ALLOWED]++;
    }
}


size_t
td_flow_pairs_count(const td_flow_pairs_t *pairs)
{
    return pairs->table.n;
}


static void
td_pair_write(tg_text_t *text, size_t metric, const td_pair_t *pair)
{
    uint64_t  count;

    count = pair->count[td_pair_metrics[metric].count];

    if (count == 0) {
        return;
    }

    tg_text_printf(text, "%s{tenant=\"", td_pair_metrics[metric].name);
    tg_text_label(text, pair->key, strlen(pair->key));
    tg_text_str(text, "\",source=\"");
    tg_text_label(text, pair->source, strlen(pair->source));
    tg_text_str(text, "\",destination=\"");
    tg_text_label(text, pair->destination, strlen(pair->destination));
    tg_text_printf(text, "\"%s} ", td_pair_metrics[metric].labels);

    if (td_pair_metrics[metric].unit > 0) {
        tg_text_printf(text, "%.6f\n",
                       (double) count * td_pair_metrics[metric].unit);
    } else {
        tg_text_printf(text, "%llu\n", (unsigned long long) count);
    }
}


void
td_flow_pairs_write(td_flow_pairs_t *pairs, tg_text_t *text)
{
    int         len;
    size_t      i;
    td_pair_t  *pair;

    for (i = 0; i < sizeof(td_pair_metrics) / sizeof(td_pair_metrics[0]); i++) {
        if (td_pair_metrics[i].type != NULL) {
            /* a summary's family has no suffix */
            len = (int) strlen(td_pair_metrics[i].name)
                  - (strcmp(td_pair_metrics[i].type, "summary") == 0 ? 4 : 0);
            tg_text_printf(text, "# HELP %.*s %s\n# TYPE %.*s %s\n", len,
                           td_pair_metrics[i].name, td_pair_metrics[i].help, len,
                           td_pair_metrics[i].name, td_pair_metrics[i].type);
        }

        TAILQ_FOREACH(pair, &pairs->order, order) {
            td_pair_write(text, i, pair);
        }

        td_pair_write(text, i, pairs->other);
    }
}
