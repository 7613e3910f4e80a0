/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Counts each request once, when it is logged: in the counters of its route (or
 * of its tenant, when it matched none), and in the worker's own.
 */

#include "ngx_http_tenant_usage.h"


typedef enum {
    NGX_HTTP_TENANT_USAGE_SERVED = 0,   /* or refused for another reason */
    NGX_HTTP_TENANT_USAGE_DENIED,
    NGX_HTTP_TENANT_USAGE_THROTTLED
} ngx_http_tenant_usage_e;


/* What one request adds to counters. */
typedef struct {
    ngx_uint_t                class;    /* index in tg_counters_t.status */
    ngx_http_tenant_usage_e   verdict;
    uint64_t                  bytes_in;
    uint64_t                  bytes_out;
    uint64_t                  latency_us;
} ngx_http_tenant_usage_t;


static ngx_int_t ngx_http_tenant_usage_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_tenant_usage_class(ngx_http_request_t *r);
static ngx_http_tenant_usage_e ngx_http_tenant_usage_verdict(
    ngx_http_tenant_refusal_e refusal);
static void ngx_http_tenant_usage_add(tg_counters_t *counters,
    const ngx_http_tenant_usage_t *usage);

static char *ngx_http_tenant_metrics(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_tenant_metrics_tenants(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_tenant_usage_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tenant_usage_init_process(ngx_cycle_t *cycle);
static void ngx_http_tenant_usage_exit_process(ngx_cycle_t *cycle);


static ngx_command_t  ngx_http_tenant_usage_commands[] = {

    { ngx_string("tenant_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tenant_metrics,
      0,
      0,
      NULL },

    { ngx_string("tenant_metrics_tenants"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_tenant_metrics_tenants,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_usage_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tenant_usage_init,            /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_usage_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_usage_module_ctx,     /* module context */
    ngx_http_tenant_usage_commands,        /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_tenant_usage_init_process,    /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tenant_usage_exit_process,    /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* This worker's counters; NULL: no tenant_zone. */
static ngx_http_tenant_worker_t  *ngx_http_tenant_usage_worker;


static ngx_int_t
ngx_http_tenant_usage_handler(ngx_http_request_t *r)
{
    off_t                         sent;
    ngx_time_t                   *tp;
    ngx_msec_int_t                ms;
    ngx_http_tenant_ctx_t        *ctx;
    ngx_http_tenant_usage_t       usage;
    ngx_http_tenant_main_conf_t  *tmcf;

    if (r != r->main || ngx_http_tenant_usage_worker == NULL) {
        return NGX_OK;
    }

    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx == NULL || ctx->logged) {
        return NGX_OK;
    }

    ctx->logged = 1;

    usage.class = ngx_http_tenant_usage_class(r);
    usage.verdict = ngx_http_tenant_usage_verdict(ctx->refusal);

    sent = r->connection->sent;
    usage.bytes_in = r->request_length;
    usage.bytes_out = sent > 0 ? sent : 0;

    tp = ngx_timeofday();
    ms = (ngx_msec_int_t) ((tp->sec - r->start_sec) * 1000
                           + (tp->msec - r->start_msec));
    usage.latency_us = (uint64_t) ngx_max(ms, 0) * 1000;

    ngx_http_tenant_usage_add(&ngx_http_tenant_usage_worker->total, &usage);

    if (ctx->refusal != NGX_HTTP_TENANT_SERVED) {
        (void) __atomic_fetch_add(
                         &ngx_http_tenant_usage_worker->refused[ctx->refusal],
                         1, __ATOMIC_RELAXED);
    }

    if (ctx->block == NULL) {
        return NGX_OK;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    if (ctx->counters == NULL) {
        ctx->counters = tg_zone_ptr(tmcf->zone,
                                    ctx->route ? ctx->route->counters
                                               : ctx->block->counters);
    }

    ngx_http_tenant_usage_add(ctx->counters, &usage);
    tg_zone_touch(tmcf->zone, ctx->slot);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_tenant_usage_class(ngx_http_request_t *r)
{
    ngx_uint_t  status;

    status = r->err_status ? r->err_status : r->headers_out.status;

    /* none was sent: the client is to blame, as in nginx's own 499 */
    return status >= 100 && status < 600 ? status / 100 - 1 : 3;
}


static ngx_http_tenant_usage_e
ngx_http_tenant_usage_verdict(ngx_http_tenant_refusal_e refusal)
{
    switch (refusal) {

    case NGX_HTTP_TENANT_NO_CREDENTIAL:
    case NGX_HTTP_TENANT_BAD_CREDENTIAL:
    case NGX_HTTP_TENANT_TWO_CREDENTIALS:
    case NGX_HTTP_TENANT_FORBIDDEN:
    case NGX_HTTP_TENANT_AUTH_LIMITED:
        return NGX_HTTP_TENANT_USAGE_DENIED;

    case NGX_HTTP_TENANT_OVER_QUOTA:
    case NGX_HTTP_TENANT_OVER_CONCURRENCY:
    case NGX_HTTP_TENANT_BODY_TOO_LARGE:
        return NGX_HTTP_TENANT_USAGE_THROTTLED;

    default:
        return NGX_HTTP_TENANT_USAGE_SERVED;
    }
}


static void
ngx_http_tenant_usage_count(uint64_t *counter, uint64_t n)
{
    if (n) {
        (void) __atomic_fetch_add(counter, n, __ATOMIC_SEQ_CST);
    }
}


static void
ngx_http_tenant_usage_add(tg_counters_t *counters,
    const ngx_http_tenant_usage_t *usage)
{
    unsigned  bucket;

    bucket = tg_latency_bucket(usage->latency_us);

    ngx_http_tenant_usage_count(&counters->status[usage->class], 1);
    ngx_http_tenant_usage_count(&counters->denied,
                         usage->verdict == NGX_HTTP_TENANT_USAGE_DENIED);
    ngx_http_tenant_usage_count(&counters->throttled,
                         usage->verdict == NGX_HTTP_TENANT_USAGE_THROTTLED);
    ngx_http_tenant_usage_count(&counters->bytes_in, usage->bytes_in);
    ngx_http_tenant_usage_count(&counters->bytes_out, usage->bytes_out);
    ngx_http_tenant_usage_count(&counters->latency_us, usage->latency_us);
    ngx_http_tenant_usage_count(&counters->latency[bucket], 1);
}


static char *
ngx_http_tenant_metrics(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_http_tenant_sync_content(cf, ngx_http_tenant_metrics_handler);
}


static char *
ngx_http_tenant_metrics_tenants(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_int_t                     n;
    ngx_str_t                    *value;
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_sync_module);
    value = cf->args->elts;

    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n > NGX_HTTP_TENANT_SERIES_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"tenant_metrics_tenants\" directive takes a number "
                           "from 0 to %d",
                           NGX_HTTP_TENANT_SERIES_MAX);
        return NGX_CONF_ERROR;
    }

    tscf->metrics_tenants = n;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tenant_usage_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt          *h;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);

    if (tmcf->shm_zone == NULL) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tenant_usage_handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_usage_init_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_sync_conf_t  *tscf;

    tscf = ngx_http_tenant_sync_conf();

    if (tscf && (ngx_process == NGX_PROCESS_WORKER
                 || ngx_process == NGX_PROCESS_SINGLE))
    {
        ngx_http_tenant_usage_worker =
                   &tscf->shared->worker[ngx_worker % NGX_HTTP_TENANT_WORKERS];
        ngx_http_tenant_usage_worker->pid = ngx_pid;
    }

    return NGX_OK;
}


/* The worker that ends last reports what was counted since the last report: when
 * the leader ends others may still be serving. */
static void
ngx_http_tenant_usage_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_http_tenant_sync_conf_t  *tscf;
    ngx_http_tenant_worker_t     *worker;

    tscf = ngx_http_tenant_sync_conf();

    if (ngx_http_tenant_usage_worker == NULL || tscf == NULL) {
        return;
    }

    /* a leader's own report, and its timers, must be out of the way of the last
     * one; the sync module's turn to end would come after this */

    ngx_http_tenant_sync_stop();

    /* under the lock, so that of two that end at once one sees the other gone */

    ngx_http_tenant_shared_lock(tscf);

    if (ngx_http_tenant_usage_worker->pid == (uint64_t) ngx_pid) {
        ngx_http_tenant_usage_worker->pid = 0;
    }

    for (i = 0; i < NGX_HTTP_TENANT_WORKERS; i++) {
        worker = &tscf->shared->worker[i];

        if (worker->pid && worker->pid != (uint64_t) ngx_pid
            && kill((pid_t) worker->pid, 0) == 0)
        {
            break;
        }
    }

    ngx_http_tenant_shared_unlock(tscf);

    if (i == NGX_HTTP_TENANT_WORKERS) {
        ngx_http_tenant_usage_last(cycle);
    }
}
