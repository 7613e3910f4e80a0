/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The way of a record: named at once, since names may be gone later; counted; put
 * into the queue as the row that it will be in a report.
 *
 * One report is under way at a time, and is repeated with its number until it has
 * been answered.  What the registry refuses as such is counted as lost.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "td_agent_flow.h"
#include "td_agent_metrics.h"
#include "td_agent_store.h"
#include "td_flow_pairs.h"
#include "td_flow_queue.h"
#include "td_log.h"


#define TD_FLOW_BATCH     1000
#define TD_FLOW_FLUSH     100       /* ms */
#define TD_FLOW_BACKOFF   100       /* ms, doubled up to the next */
#define TD_FLOW_PATIENCE  5000

struct td_agent_flow_s {
    td_agent_t            *agent;
    td_agent_metrics_t    *metrics;
    td_flow_pairs_t       *pairs;
    td_flow_queue_t       *queue;
    struct event          *flush;
    int64_t                clock;           /* ns from the monotonic clock */
    uint64_t               ring_before;     /* lost before this life */
    tg_text_t              row;

    /* the report under way */
    tg_text_t              body;
    size_t                 records;         /* 0: none */
    int                    flying;
    int                    failures;
    uint64_t               sequence;
    td_flow_lane_key_t     keys[TD_FLOW_BATCH];
    uint64_t               counts[TD_FLOW_BATCH];
    uint64_t               ring_told;

    td_agent_flow_counts_t  totals;
};


static void td_agent_flow_send(td_agent_flow_t *flow);


static void
td_agent_flow_read_clock(td_agent_flow_t *flow)
{
    struct timespec  real, monotonic;

    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    flow->clock = (real.tv_sec - monotonic.tv_sec) * 1000000000LL
                  + real.tv_nsec - monotonic.tv_nsec;
}


static uint64_t
td_agent_flow_ring_lost(const td_agent_flow_t *flow)
{
    uint64_t  counters[TG_COUNTERS];

    return td_mesh_counters(flow->agent->mesh, counters) == 0
           ? counters[TG_LOST_RING] : flow->ring_before + flow->ring_told;
}


/* Names */

static void
td_agent_flow_name(const td_agent_t *agent, const struct tg_who *who,
    td_flow_who_t *name)
{
    const char  *tenant;

    name->service = NULL;
    name->tenant = who->tenant != 0 ? td_agent_name_tenant(agent, who->tenant)
                                    : NULL;

    if (who->service != 0) {
        if (!td_agent_name_service(agent, who->service, &tenant, &name->service))
        {
            name->service = NULL;

        } else if (name->tenant == NULL && who->tenant != 0) {
            name->tenant = tenant;
        }
    }
}


/* Whose a policy is: one of the two. */
static void
td_agent_flow_name_policy(const td_agent_t *agent, td_flow_record_t *record)
{
    const td_doc_t         *doc;
    const struct tg_event  *event;
    const td_doc_policy_t  *policy;

    event = record->event;
    record->policy = record->policy_tenant = NULL;
    policy = event->rule != 0 ? td_agent_store_policy(agent->store, event->rule)
                              : NULL;

    if (policy == NULL) {
        return;
    }

    doc = td_agent_store_tenant(agent->store, event->src.tenant);
    record->policy = policy->name;
    record->policy_tenant =
        doc != NULL && policy >= doc->tenant.policies
        && policy < doc->tenant.policies + doc->tenant.n_policies
        ? record->source.tenant : record->destination.tenant;
}


static void
td_agent_flow_on_event(const struct tg_event *event, void *data)
{
    td_agent_flow_t    *flow = data;
    td_flow_record_t    record;
    td_flow_lane_key_t  key;

    if (td_flow_type(event) == NULL) {
        return;
    }

    record.event = event;
    record.time_ms = ((int64_t) event->time_ns + flow->clock) / 1000000;
    td_agent_flow_name(flow->agent, &event->src, &record.source);
    td_agent_flow_name(flow->agent, &event->dst, &record.destination);
    td_agent_flow_name_policy(flow->agent, &record);

    flow->totals.records++;
    td_flow_pairs_add(flow->pairs, &record);

    if (flow->queue == NULL) {
        return;
    }

    /* as tg_event_begin() chooses a bucket */
    key.tenant = event->src.tenant != 0 ? event->src.tenant : event->dst.tenant;
    key.class = event->type != TG_EVENT_DENY ? TG_BUCKET_FLOW
                : event->src.tenant != 0 ? TG_BUCKET_DENY
                                         : TG_BUCKET_DENY_OUTSIDE;

    tg_text_reset(&flow->row);
    td_flow_row(&flow->row, &record);

    if (!flow->row.failed) {
        td_flow_queue_add(flow->queue, key, flow->row.data, flow->row.len,
                          event->lost);
    }

    if (td_flow_queue_length(flow->queue) >= TD_FLOW_BATCH && !flow->flying
        && flow->failures == 0)
    {
        td_agent_flow_send(flow);
    }
}


void
td_agent_flow_read(td_agent_flow_t *flow)
{
    td_mesh_poll(flow->agent->mesh, 0, td_agent_flow_on_event, flow);
}


/* Reports */

static void
td_agent_flow_wait(td_agent_flow_t *flow, long ms)
{
    struct timeval  tv;

    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;
    evtimer_add(flow->flush, &tv);
}


/* The registry will not take it however often it is asked. */
static int
td_agent_flow_is_refused(long status)
{
    return status == 400 || status == 413 || status == 415 || status == 422;
}


static void
td_agent_flow_lose(td_agent_flow_t *flow)
{
    size_t  i;

    for (i = 0; i < flow->records; i++) {
        td_flow_queue_lose(flow->queue, flow->keys[i], flow->counts[i]);
    }
}


static void
td_agent_flow_posted(void *data, long status, const char *body, size_t len,
    const char *error)
{
    long              ms;
    td_agent_flow_t  *flow = data;

    (void) len;

    flow->flying = 0;

    if (status == 204 || td_agent_flow_is_refused(status)) {
        if (status != 204) {
            td_log(TD_LOG_ERR, "flows", "the registry refuses %zu records: "
                   "%.300s", flow->records, body);
            td_agent_flow_lose(flow);
        } else {
            flow->totals.sent += flow->records;
        }

        flow->records = 0;
        flow->failures = 0;
        td_agent_flow_wait(flow, td_flow_queue_length(flow->queue)
                                 >= TD_FLOW_BATCH ? 0 : TD_FLOW_FLUSH);
        return;
    }

    if (flow->failures++ == 0) {
        td_log(TD_LOG_WARN, "flows", "records wait: %s",
               error != NULL ? error : "the registry does not take them");
    }

    ms = TD_FLOW_BACKOFF << (flow->failures < 7 ? flow->failures : 7);
    td_agent_flow_wait(flow, ms < TD_FLOW_PATIENCE ? ms : TD_FLOW_PATIENCE);
}


static void
td_agent_flow_compose(td_agent_flow_t *flow)
{
    uint64_t  lost;

    lost = td_agent_flow_ring_lost(flow) - flow->ring_before;

    if (td_flow_queue_length(flow->queue) == 0 && lost == flow->ring_told) {
        return;
    }

    flow->ring_told = lost;
    tg_text_reset(&flow->body);
    tg_text_printf(&flow->body, "{\"boot\":\"%s\",\"sequence\":%llu,\"lost\":"
                   "%llu,\"flows\":[", flow->agent->boot,
                   (unsigned long long) ++flow->sequence,
                   (unsigned long long) lost);
    flow->records = td_flow_queue_take(flow->queue, TD_FLOW_BATCH, &flow->body,
                                       flow->keys, flow->counts);
    tg_text_str(&flow->body, "]}");

    if (flow->body.failed) {
        td_agent_flow_lose(flow);
        tg_text_free(&flow->body);
        flow->records = 0;
    }
}


/* The report under way again, or the next one. */
static void
td_agent_flow_send(td_agent_flow_t *flow)
{
    char  path[160];

    if (flow->flying) {
        return;
    }

    if (flow->failures == 0) {
        tg_text_reset(&flow->body);
        td_agent_flow_compose(flow);
    }

    if (flow->body.len == 0) {
        td_agent_flow_wait(flow, TD_FLOW_FLUSH);
        return;
    }

    snprintf(path, sizeof(path), "/v1/gateways/%s/flows", flow->agent->gateway);

    if (td_agent_post(flow->agent, path, flow->body.data, flow->body.len,
                      td_agent_flow_posted, flow) != 0)
    {
        flow->failures++;
        td_agent_flow_wait(flow, TD_FLOW_PATIENCE);
        return;
    }

    flow->flying = 1;
}


static void
td_agent_flow_on_flush(evutil_socket_t fd, short what, void *data)
{
    td_agent_flow_t  *flow = data;

    (void) fd;
    (void) what;

    td_agent_flow_read_clock(flow);
    td_agent_flow_read(flow);
    td_agent_flow_send(flow);
}


td_agent_flow_counts_t
td_agent_flow_counts(const td_agent_flow_t *flow)
{
    td_agent_flow_counts_t  counts;

    counts = flow->totals;
    counts.pairs = td_flow_pairs_count(flow->pairs);

    if (flow->queue != NULL) {
        counts.queued = td_flow_queue_length(flow->queue);
        counts.lost = td_flow_queue_lost(flow->queue);
    }

    return counts;
}


void
td_agent_flow_write_pairs(td_agent_flow_t *flow, tg_text_t *text)
{
    td_flow_pairs_write(flow->pairs, text);
}


td_agent_flow_t *
td_agent_flow_create(td_agent_t *agent)
{
    td_agent_flow_t  *flow;

    flow = calloc(1, sizeof(td_agent_flow_t));
    if (flow == NULL) {
        return NULL;
    }

    flow->agent = agent;
    tg_text_init(&flow->row);
    tg_text_init(&flow->body);
    td_agent_flow_read_clock(flow);
    flow->pairs = td_flow_pairs_create((size_t) agent->config->agent.pairs);
    flow->queue = agent->config->agent.uplink
                  ? td_flow_queue_create(
                        (size_t) agent->config->agent.uplink_queue)
                  : NULL;
    flow->flush = evtimer_new(agent->base, td_agent_flow_on_flush, flow);
    flow->ring_before = td_agent_flow_ring_lost(flow);

    if (flow->pairs == NULL || flow->flush == NULL
        || (agent->config->agent.uplink && flow->queue == NULL))
    {
        td_log(TD_LOG_CRIT, "agent", "out of memory");
        td_agent_flow_destroy(flow);
        return NULL;
    }

    flow->metrics = td_agent_metrics_create(agent, flow);

    if (flow->metrics == NULL) {
        td_agent_flow_destroy(flow);
        return NULL;
    }

    if (flow->queue != NULL) {
        td_agent_flow_wait(flow, TD_FLOW_FLUSH);
    }

    return flow;
}


void
td_agent_flow_destroy(td_agent_flow_t *flow)
{
    if (flow == NULL) {
        return;
    }

    td_agent_metrics_destroy(flow->metrics);

    if (flow->flush != NULL) {
        event_free(flow->flush);
    }

    td_flow_queue_destroy(flow->queue);
    td_flow_pairs_destroy(flow->pairs);
    tg_text_free(&flow->row);
    tg_text_free(&flow->body);
    free(flow);
}
