/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * /metrics.  Everything is read from shared memory, so any worker can answer for
 * all of them.  The size is bounded by tenant_metrics_tenants.
 */

#include "ngx_http_tenant_usage.h"

#include <config.h>


static void ngx_http_tenant_metrics_sync(tg_exposition_t *e, tg_zone_t *zone,
    const ngx_http_tenant_shared_t *shared);
static void ngx_http_tenant_metrics_zone(tg_exposition_t *e, tg_zone_t *zone);
static void ngx_http_tenant_metrics_workers(tg_exposition_t *e,
    const ngx_http_tenant_shared_t *shared);
static ngx_int_t ngx_http_tenant_metrics_tenants(ngx_http_request_t *r,
    tg_exposition_t *e, tg_zone_t *zone);


/* A tenant's counters, added up when the scrape began. */
typedef struct {
    char            name[TG_MAX_NAME + 1];
    uint64_t        id;
    tg_counters_t   counters;
} ngx_http_tenant_metrics_row_t;


static void
ngx_http_tenant_metrics_plain(tg_exposition_t *e, tg_metric_id_e id,
    double value)
{
    tg_exposition_sample(e, id, NULL, value);
}


static void
ngx_http_tenant_metrics_label(tg_exposition_t *e, tg_metric_id_e id,
    const char *label, double value)
{
    tg_label_t  l;

    l.value = label;
    l.len = ngx_strlen(label);

    tg_exposition_sample(e, id, &l, value);
}


static uint64_t
ngx_http_tenant_metrics_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}


/* Seconds since a moment of CLOCK_MONOTONIC in ms. */
static double
ngx_http_tenant_metrics_since(uint64_t ms)
{
    uint64_t  now;

    now = ngx_http_tenant_now_ms();

    return now > ms ? (double) (now - ms) / 1000 : 0;
}


static ngx_table_elt_t *
ngx_http_tenant_metrics_accept(ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (header[i].key.len == sizeof("Accept") - 1
                && ngx_strncasecmp(header[i].key.data, (u_char *) "Accept",
                                   sizeof("Accept") - 1) == 0)
            {
                return &header[i];
            }
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_tenant_metrics_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_uint_t                    open;
    tg_label_t                    labels[2];
    ngx_table_elt_t              *accept;
    tg_exposition_t               e;
    ngx_http_tenant_sync_conf_t  *tscf;
    ngx_http_tenant_main_conf_t  *tmcf;

    tscf = ngx_http_get_module_main_conf(r, ngx_http_tenant_sync_module);
    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    accept = ngx_http_tenant_metrics_accept(r);
    open = accept && tg_exposition_accepts_open((char *) accept->value.data,
                                                accept->value.len);
    tg_exposition_init(&e, open);

    labels[0].value = TIERGATE_VERSION;
    labels[0].len = sizeof(TIERGATE_VERSION) - 1;
    labels[1].value = NGINX_VERSION;
    labels[1].len = sizeof(NGINX_VERSION) - 1;
    tg_exposition_sample(&e, TG_M_BUILD_INFO, labels, 1);

    ngx_http_tenant_metrics_sync(&e, tmcf->zone, tscf->shared);
    ngx_http_tenant_metrics_zone(&e, tmcf->zone);
    ngx_http_tenant_metrics_workers(&e, tscf->shared);

    rc = ngx_http_tenant_metrics_tenants(r, &e, tmcf->zone);

    if (rc != NGX_OK) {
        tg_text_free(&e.text);
        return rc;
    }

    tg_exposition_end(&e);

    return ngx_http_tenant_send_text(r, NGX_HTTP_OK,
                                     open ? tg_metrics_open_type
                                          : tg_metrics_text_type, &e.text);
}


static void
ngx_http_tenant_metrics_stream(tg_exposition_t *e,
    const ngx_http_tenant_shared_t *shared)
{
    uint64_t                  silence;
    tg_watch_type_e           type;
    static const char *const  types[] = { "", "put", "delete", "bookmark" };

    ngx_http_tenant_metrics_plain(e, TG_M_REGISTRY_REVISION,
                              ngx_http_tenant_metrics_load(&shared->bookmark));

    silence = ngx_http_tenant_metrics_load(&shared->last_line);

    if (silence) {
        ngx_http_tenant_metrics_plain(e, TG_M_LAG,
                                      ngx_http_tenant_metrics_since(silence));
    }

    ngx_http_tenant_metrics_plain(e, TG_M_STREAM_CONNECTS,
                              ngx_http_tenant_metrics_load(&shared->connects));

    for (type = TG_WATCH_PUT; type <= TG_WATCH_BOOKMARK; type++) {
        ngx_http_tenant_metrics_label(e, TG_M_STREAM_LINES, types[type],
                          ngx_http_tenant_metrics_load(&shared->lines[type]));
    }

    ngx_http_tenant_metrics_plain(e, TG_M_STREAM_REFUSED,
                               ngx_http_tenant_metrics_load(&shared->refused));
    ngx_http_tenant_metrics_plain(e, TG_M_LISTS,
                                 ngx_http_tenant_metrics_load(&shared->lists));
}


static void
ngx_http_tenant_metrics_sync(tg_exposition_t *e, tg_zone_t *zone,
    const ngx_http_tenant_shared_t *shared)
{
    ngx_uint_t                i;
    const char               *state;
    static const char *const  states[] = { "live", "snapshot", "loading" };
    static const char *const  results[] = { "ok", "failed" };

    state = ngx_http_tenant_sync_state_name(shared, zone);

    for (i = 0; i < 3; i++) {
        ngx_http_tenant_metrics_label(e, TG_M_STATE, states[i],
                                      ngx_strcmp(state, states[i]) == 0);
    }

    ngx_http_tenant_metrics_plain(e, TG_M_REVISION, tg_zone_revision(zone));
    ngx_http_tenant_metrics_stream(e, shared);

    for (i = 0; i < 2; i++) {
        ngx_http_tenant_metrics_label(e, TG_M_ACKS, results[i],
                               ngx_http_tenant_metrics_load(&shared->acks[i]));
    }

    for (i = 0; i < 2; i++) {
        ngx_http_tenant_metrics_label(e, TG_M_REPORTS, results[i],
                            ngx_http_tenant_metrics_load(&shared->reports[i]));
    }

    for (i = 0; i < 2; i++) {
        ngx_http_tenant_metrics_label(e, TG_M_HANDOVERS, results[i],
                          ngx_http_tenant_metrics_load(&shared->handovers[i]));
    }

    ngx_http_tenant_metrics_plain(e, TG_M_REJECTED,
                             ngx_http_tenant_metrics_load(&shared->nrejected));

    if (ngx_http_tenant_metrics_load(&shared->file_fresh)) {
        ngx_http_tenant_metrics_plain(e, TG_M_SNAPSHOT_AGE,
                            ngx_http_tenant_metrics_since(shared->file_fresh));
    }

    if (ngx_http_tenant_metrics_load(&shared->snapshot.inode)) {
        ngx_http_tenant_metrics_plain(e, TG_M_SNAPSHOT_REVISION,
                     ngx_http_tenant_metrics_load(&shared->snapshot.revision));
        ngx_http_tenant_metrics_plain(e, TG_M_SNAPSHOT_BYTES,
                         ngx_http_tenant_metrics_load(&shared->snapshot.size));
    }

    ngx_http_tenant_metrics_plain(e, TG_M_SNAPSHOT_FAILURES,
                         ngx_http_tenant_metrics_load(&shared->file_failures));
}


static void
ngx_http_tenant_metrics_zone(tg_exposition_t *e, tg_zone_t *zone)
{
    tg_zone_stats_t  stats;

    tg_zone_stats(zone, &stats);

    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_TENANTS, stats.tenants);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_ISSUERS, stats.issuers);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_SIZE, stats.size);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_USED, stats.used);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_RETIRED, stats.retired);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_PUTS, stats.puts);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_FULL, stats.full);
    ngx_http_tenant_metrics_plain(e, TG_M_ZONE_RECOVERIES, stats.recoveries);

    ngx_http_tenant_metrics_label(e, TG_M_ZONE_CARRIED, "added",
                                  stats.carried.added);
    ngx_http_tenant_metrics_label(e, TG_M_ZONE_CARRIED, "capped",
                                  stats.carried.capped);
    ngx_http_tenant_metrics_label(e, TG_M_ZONE_CARRIED, "shared",
                                  stats.carried.shared);
    ngx_http_tenant_metrics_label(e, TG_M_ZONE_CARRIED, "passed",
                                  stats.carried.passed);
}


/* The five status classes as samples of id; tenant may be NULL. */
static void
ngx_http_tenant_metrics_classes(tg_exposition_t *e, tg_metric_id_e id,
    const char *tenant, const tg_counters_t *counters)
{
    ngx_uint_t                i, n;
    tg_label_t                labels[2];
    static const char *const  classes[] = { "1xx", "2xx", "3xx", "4xx", "5xx" };

    n = 0;

    if (tenant) {
        labels[n].value = tenant;
        labels[n++].len = ngx_strlen(tenant);
    }

    for (i = 0; i < 5; i++) {
        labels[n].value = classes[i];
        labels[n].len = 3;
        tg_exposition_sample(e, id, labels, counters->status[i]);
    }
}


static void
ngx_http_tenant_metrics_workers(tg_exposition_t *e,
    const ngx_http_tenant_shared_t *shared)
{
    char           name[NGX_INT_T_LEN + 1];
    uint64_t       refused[NGX_HTTP_TENANT_REFUSALS], n;
    ngx_uint_t     i, k;
    tg_counters_t  total;

    ngx_memzero(&total, sizeof(tg_counters_t));
    ngx_memzero(refused, sizeof(refused));

    for (i = 0; i < NGX_HTTP_TENANT_WORKERS; i++) {
        tg_counters_sum(&total, &shared->worker[i].total);

        for (k = 0; k < NGX_HTTP_TENANT_REFUSALS; k++) {
            refused[k] += ngx_http_tenant_metrics_load(
                                               &shared->worker[i].refused[k]);
        }

        n = tg_counters_requests(&shared->worker[i].total);

        if (n || ngx_http_tenant_metrics_load(&shared->worker[i].pid)) {
            (void) snprintf(name, sizeof(name), "%u", (unsigned) i);
            ngx_http_tenant_metrics_label(e, TG_M_WORKER_REQUESTS, name, n);
        }
    }

    for (k = NGX_HTTP_TENANT_SERVED + 1; k < NGX_HTTP_TENANT_REFUSALS; k++) {
        ngx_http_tenant_metrics_label(e, TG_M_REFUSED,
                              (char *) ngx_http_tenant_refusal_slug(k)->data,
                              refused[k]);
    }

    ngx_http_tenant_metrics_classes(e, TG_M_REQUESTS, NULL, &total);
    ngx_http_tenant_metrics_plain(e, TG_M_RECEIVED, total.bytes_in);
    ngx_http_tenant_metrics_plain(e, TG_M_SENT, total.bytes_out);
    tg_exposition_latency(e, TG_M_DURATION, NULL, &total);
}


/* Adds a tenant's routes up.  NGX_DECLINED: it is gone. */
static ngx_int_t
ngx_http_tenant_metrics_sum(tg_zone_t *zone, ngx_http_tenant_metrics_row_t *row)
{
    ngx_uint_t         i;
    const tg_block_t  *block;
    const tg_route_t  *routes;

    ngx_memzero(&row->counters, sizeof(tg_counters_t));

    tg_zone_enter(zone, ngx_http_tenant_slot);

    block = tg_zone_find_tenant(zone, row->name, ngx_strlen(row->name));

    if (block && block->id != row->id) {
        block = NULL;       /* its name is another tenant's by now */
    }

    if (block) {
        tg_counters_sum(&row->counters, tg_zone_ptr(zone, block->counters));
        routes = tg_vec(block, block->routes, tg_route_t);

        for (i = 0; i < block->routes.n; i++) {
            tg_counters_sum(&row->counters,
                            tg_zone_ptr(zone, routes[i].counters));
        }
    }

    tg_zone_exit(zone, ngx_http_tenant_slot);

    return block ? NGX_OK : NGX_DECLINED;
}


/* The names are copied under the lock; what they counted needs none. */
static ngx_int_t
ngx_http_tenant_metrics_collect(ngx_http_request_t *r, tg_zone_t *zone,
    ngx_http_tenant_metrics_row_t **rows, ngx_uint_t *nrows)
{
    ngx_uint_t                      i, n;
    ngx_http_tenant_shared_t       *shared;
    ngx_http_tenant_sync_conf_t    *tscf;
    ngx_http_tenant_metrics_row_t  *row;

    tscf = ngx_http_get_module_main_conf(r, ngx_http_tenant_sync_module);
    shared = tscf->shared;

    row = ngx_palloc(r->pool, (tscf->metrics_tenants + 1)
                              * sizeof(ngx_http_tenant_metrics_row_t));
    if (row == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_tenant_shared_lock(tscf);

    n = ngx_min(shared->nseries, tscf->metrics_tenants);

    for (i = 0; i < n; i++) {
        ngx_memcpy(row[i].name, shared->series[i].name, sizeof(row[i].name));
        row[i].id = shared->series[i].id;
    }

    ngx_http_tenant_shared_unlock(tscf);

    *nrows = 0;

    for (i = 0; i < n; i++) {
        if (ngx_http_tenant_metrics_sum(zone, &row[i]) == NGX_OK) {
            row[(*nrows)++] = row[i];
        }
    }

    *rows = row;

    return NGX_OK;
}


/* Samples of one metric must follow each other: one pass for each. */
static ngx_int_t
ngx_http_tenant_metrics_tenants(ngx_http_request_t *r, tg_exposition_t *e,
    tg_zone_t *zone)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i, k, n;
    tg_label_t                      label;
    ngx_http_tenant_sync_conf_t    *tscf;
    ngx_http_tenant_metrics_row_t  *row;

    static const struct {
        tg_metric_id_e   id;
        size_t           offset;
    } plain[] = {
        { TG_M_TENANT_DENIED,    offsetof(tg_counters_t, denied) },
        { TG_M_TENANT_THROTTLED, offsetof(tg_counters_t, throttled) },
        { TG_M_TENANT_RECEIVED,  offsetof(tg_counters_t, bytes_in) },
        { TG_M_TENANT_SENT,      offsetof(tg_counters_t, bytes_out) },
    };

    tscf = ngx_http_get_module_main_conf(r, ngx_http_tenant_sync_module);

    rc = ngx_http_tenant_metrics_collect(r, zone, &row, &n);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_tenant_metrics_label(e, TG_M_TENANTS_SHOWN, "yes", n);
    ngx_http_tenant_metrics_label(e, TG_M_TENANTS_SHOWN, "no",
                       ngx_http_tenant_metrics_load(&tscf->shared->omitted));

    for (i = 0; i < n; i++) {
        ngx_http_tenant_metrics_classes(e, TG_M_TENANT_REQUESTS, row[i].name,
                                        &row[i].counters);
    }

    for (k = 0; k < sizeof(plain) / sizeof(plain[0]); k++) {
        for (i = 0; i < n; i++) {
            ngx_http_tenant_metrics_label(e, plain[k].id, row[i].name,
                   *(uint64_t *) ((u_char *) &row[i].counters
                                  + plain[k].offset));
        }
    }

    for (i = 0; i < n; i++) {
        label.value = row[i].name;
        label.len = ngx_strlen(row[i].name);
        tg_exposition_latency(e, TG_M_TENANT_DURATION, &label,
                              &row[i].counters);
    }

    return NGX_OK;
}
