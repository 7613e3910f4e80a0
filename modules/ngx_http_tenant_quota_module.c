/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Quotas: the last decision about a request before it goes upstream.
 *
 *  1. In the precontent phase: the access phase would skip the rest of its
 *     handlers under "satisfy any", and a request that authentication refuses
 *     must not be charged.
 *  2. Only the main request is charged, once: ctx->charged outlives internal
 *     redirects.  The upstream is chosen before, so that a request which nobody
 *     could serve is not charged either.
 *  3. Requests in flight are held by the pins of the request's context, until the
 *     last byte of the response is about to be written: a client that has read
 *     it may send the next one.  What ends otherwise gives them back when its
 *     pool goes, or when the worker is found dead.
 *  4. A refusal ends the request, which may be freed by then: nothing is done
 *     with it afterwards.
 *  5. The headers are added by a filter: they come with errors of the upstream,
 *     too, and replace what the upstream says about limits of its own.
 */

#include "ngx_http_tenant_quota.h"

#include <time.h>

#include "../lib/tg_ratelimit.h"


/* Places in the context's pin that the balancer needs. */
#define NGX_HTTP_TENANT_BALANCER_HOLDS  2


/* ngx_sprintf() copies byte by byte, and a refusal has to be cheap. */
#define ngx_http_tenant_quota_literal(p, s)  ngx_cpymem(p, s, sizeof(s) - 1)


static ngx_int_t ngx_http_tenant_quota_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tenant_quota_decide(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_quota_loc_conf_t *qlcf);
static ngx_int_t ngx_http_tenant_quota_charge(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_quota_loc_conf_t *qlcf,
    tg_quota_set_t *set);
static tg_pin_t *ngx_http_tenant_quota_pin(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_set_t *set);
static void ngx_http_tenant_quota_cleanup(void *data);
static ngx_int_t ngx_http_tenant_quota_hold(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_result_t *result);
static ngx_int_t ngx_http_tenant_quota_headers(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_set_t *set,
    const tg_quota_now_t *now, const tg_quota_result_t *result);
static ngx_int_t ngx_http_tenant_quota_refuse(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_set_t *set,
    const tg_quota_now_t *now, const tg_quota_result_t *result);

static void *ngx_http_tenant_quota_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tenant_quota_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_tenant_quota_init(ngx_conf_t *cf);


static ngx_conf_enum_t  ngx_http_tenant_quota_modes[] = {
    { ngx_string("off"), NGX_HTTP_TENANT_QUOTA_OFF },
    { ngx_string("on"), NGX_HTTP_TENANT_QUOTA_ON },
    { ngx_string("dry_run"), NGX_HTTP_TENANT_QUOTA_DRY_RUN },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_tenant_quota_commands[] = {

    { ngx_string("tenant_quota"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_quota_loc_conf_t, mode),
      &ngx_http_tenant_quota_modes },

    { ngx_string("tenant_quota_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_quota_loc_conf_t, headers),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_quota_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tenant_quota_init,            /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tenant_quota_create_loc_conf, /* create location configuration */
    ngx_http_tenant_quota_merge_loc_conf   /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_quota_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_quota_module_ctx,     /* module context */
    ngx_http_tenant_quota_commands,        /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_tenant_quota_handler(ngx_http_request_t *r)
{
    ngx_int_t                          rc;
    ngx_http_tenant_ctx_t             *ctx;
    ngx_http_tenant_loc_conf_t        *tlcf;
    ngx_http_tenant_quota_loc_conf_t  *qlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    if (tlcf->by == NGX_HTTP_TENANT_BY_NONE || r != r->main) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx == NULL || ctx->route == NULL) {
        return NGX_DECLINED;
    }

    if (ctx->charged) {
        /* another location's configuration may be in force */
        return ctx->body_quota
               && ngx_http_tenant_quota_limit_body(r, ctx->body_quota->limit)
                  != NGX_OK
               ? NGX_HTTP_INTERNAL_SERVER_ERROR : NGX_DECLINED;
    }

    qlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_quota_module);

    rc = ngx_http_tenant_quota_decide(r, ctx, qlcf);
    if (rc != NGX_OK) {
        return rc;
    }

    ctx->charged = 1;
    tg_zone_settle(ctx->pin);

    if (!ctx->forwarded && ngx_http_tenant_prepare_upstream(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DECLINED;
}


/* NGX_OK, or what the phase handler returns. */
static ngx_int_t
ngx_http_tenant_quota_decide(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_quota_loc_conf_t *qlcf)
{
    ngx_int_t                     rc;
    tg_quota_set_t                set;
    ngx_http_tenant_main_conf_t  *tmcf;

    rc = ngx_http_tenant_balancer_choose(r, ctx);

    if (rc != NGX_OK || qlcf->mode == NGX_HTTP_TENANT_QUOTA_OFF
        || ctx->route->quotas.n == 0 || ctx->forwarded)
    {
        return rc;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    tg_quota_select(&set, tmcf->zone, ctx->block, ctx->route,
                    (char *) ctx->consumer.data, ctx->consumer.len);

    rc = ngx_http_tenant_quota_body(r, ctx, qlcf, &set);

    if (rc != NGX_OK || set.n == 0) {
        return rc;
    }

    return ngx_http_tenant_quota_charge(r, ctx, qlcf, &set);
}


static void
ngx_http_tenant_quota_clock(tg_quota_now_t *now)
{
    struct timespec  ts;

    /* nginx's own clock stands still during a turn of the event loop */
    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    now->mono_us = (uint64_t) ts.tv_sec * 1000000
                   + (uint64_t) ts.tv_nsec / 1000;
    now->unix_s = ngx_time();
}


static ngx_int_t
ngx_http_tenant_quota_charge(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_quota_loc_conf_t *qlcf, tg_quota_set_t *set)
{
    tg_pin_t            *pin;
    tg_quota_now_t       now;
    tg_quota_result_t    result;
    tg_quota_verdict_e   verdict;

    ngx_http_tenant_quota_clock(&now);

    pin = ngx_http_tenant_quota_pin(r, ctx, set);

    verdict = pin ? tg_quota_check(set, pin, &now, &result) : TG_QUOTA_NO_PIN;

    tg_zone_touch(set->zone, ctx->slot);

    if (verdict == TG_QUOTA_NO_PIN) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tenant \"%s\": no free pin for its quotas; raise "
                      "worker_connections",
                      tg_str(ctx->block, ctx->block->name));
        ngx_http_tenant_balancer_forget(r, ctx);
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_OVERLOADED, NULL);
    }

    if (verdict == TG_QUOTA_REFUSED
        && qlcf->mode == NGX_HTTP_TENANT_QUOTA_ON)
    {
        return ngx_http_tenant_quota_refuse(r, ctx, set, &now, &result);
    }

    if (result.held_n
        && ngx_http_tenant_quota_hold(r, ctx, &result) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (qlcf->headers
        && ngx_http_tenant_quota_headers(r, ctx, set, &now, &result) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_quota_hold(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const tg_quota_result_t *result)
{
    ctx->held = ngx_http_tenant_alloc(r, ctx,
                                      result->held_n * sizeof(uint64_t));
    if (ctx->held == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->held, result->held, result->held_n * sizeof(uint64_t));
    ctx->held_n = result->held_n;

    return NGX_OK;
}


/* The pin that holds what is in flight: the context's own as a rule. */
static tg_pin_t *
ngx_http_tenant_quota_pin(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const tg_quota_set_t *set)
{
    ngx_pool_cleanup_t  *cln;

    if (set->holds <= TG_PIN_HOLDS - NGX_HTTP_TENANT_BALANCER_HOLDS) {
        return ctx->pin;
    }

    /* later than the context's, so run before */
    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    ctx->hold_pin = tg_zone_pin(set->zone, ngx_http_tenant_slot, ctx->block);

    if (ctx->hold_pin) {
        tg_zone_settle(ctx->hold_pin);      /* the context's own stands for both */
    }

    cln->handler = ngx_http_tenant_quota_cleanup;
    cln->data = ctx;

    return ctx->hold_pin;
}


static void
ngx_http_tenant_quota_cleanup(void *data)
{
    ngx_http_tenant_ctx_t  *ctx = data;

    ngx_http_tenant_main_conf_t  *tmcf;

    if (ctx->hold_pin == NULL || ngx_http_tenant_slot == -1) {
        return;
    }

    tmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_tenant_module);
    tg_zone_unpin(tmcf->zone, ngx_http_tenant_slot, ctx->hold_pin);
    ctx->hold_pin = NULL;
}


/* Writes both values to memory that has room for them; returns their end. */
static u_char *
ngx_http_tenant_quota_values(ngx_http_tenant_ctx_t *ctx, u_char *p, size_t size,
    const tg_quota_set_t *set, const tg_quota_now_t *now,
    const tg_quota_result_t *result)
{
    ctx->ratelimit_policy.data = p;
    ctx->ratelimit_policy.len = tg_ratelimit_policy((char *) p, size, set, now);
    p += ctx->ratelimit_policy.len;

    ctx->ratelimit.data = p;
    ctx->ratelimit.len = tg_ratelimit_limit((char *) p,
                                            size - ctx->ratelimit_policy.len,
                                            set, result);
    return p + ctx->ratelimit.len;
}


static ngx_int_t
ngx_http_tenant_quota_headers(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const tg_quota_set_t *set, const tg_quota_now_t *now,
    const tg_quota_result_t *result)
{
    u_char  *p;
    size_t   size;

    size = tg_ratelimit_size(set);

    if ((size_t) (ctx->last - ctx->pos) >= size) {
        p = ngx_http_tenant_quota_values(ctx, ctx->pos, size, set, now, result);
        ctx->pos = ngx_align_ptr(p, NGX_ALIGNMENT);
        return NGX_OK;
    }

    p = ngx_pnalloc(r->main->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_http_tenant_quota_values(ctx, p, size, set, now, result);

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_quota_refuse(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const tg_quota_set_t *set, const tg_quota_now_t *now,
    const tg_quota_result_t *result)
{
    u_char                            *p;
    ngx_str_t                          name;
    const tg_quota_t                  *quota;
    ngx_http_tenant_refuse_t           more;
    ngx_http_tenant_quota_loc_conf_t  *qlcf;

    ngx_http_tenant_balancer_forget(r, ctx);

    ngx_memzero(&more, sizeof(ngx_http_tenant_refuse_t));
    qlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_quota_module);
    quota = result->quota;
    name = ngx_http_tenant_str(ctx->block, quota->name);

    if (ngx_http_tenant_quota_headers(r, ctx, set, now, result) != NGX_OK
        || ngx_http_tenant_quota_violated(r, ctx, quota, &more) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (qlcf->headers) {
        more.ratelimit_policy = ctx->ratelimit_policy;
        more.ratelimit = ctx->ratelimit;
    }

    more.retry_after = result->retry_s;

    p = ngx_pnalloc(r->pool, 160 + name.len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    more.detail.data = p;

    p = ngx_http_tenant_quota_literal(p, "Quota '");
    p = ngx_cpymem(p, name.data, name.len);
    p = ngx_http_tenant_quota_literal(p, "' allows ");
    p = ngx_sprintf(p, "%uL", tg_quota_limit(ctx->block, quota, now));

    if (quota->metric == TG_METRIC_CONCURRENCY) {
        p = ngx_http_tenant_quota_literal(p, " requests in flight; wait for one "
                                             "to end.");

    } else {
        p = ngx_http_tenant_quota_literal(p, " requests in ");
        p = ngx_sprintf(p, "%uL", tg_quota_window(quota, now));
        p = ngx_http_tenant_quota_literal(p, " seconds; try again in ");
        p = ngx_sprintf(p, "%uL", result->retry_s);
        p = ngx_http_tenant_quota_literal(p, " seconds.");
    }

    more.detail.len = p - more.detail.data;

    return ngx_http_tenant_refuse(r, ctx,
                                  quota->metric == TG_METRIC_CONCURRENCY
                                  ? NGX_HTTP_TENANT_OVER_CONCURRENCY
                                  : NGX_HTTP_TENANT_OVER_QUOTA, &more);
}


ngx_int_t
ngx_http_tenant_quota_violated(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_quota_t *quota,
    ngx_http_tenant_refuse_t *more)
{
    u_char     *p;
    ngx_str_t   name;

    name = ngx_http_tenant_str(ctx->block, quota->name);

    p = ngx_pnalloc(r->pool, sizeof(",\"violated-policies\":[\"\"]")
                             + 6 * name.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    more->members.data = p;

    p = ngx_cpymem(p, ",\"violated-policies\":[\"",
                   sizeof(",\"violated-policies\":[\"") - 1);
    p = (u_char *) ngx_escape_json(p, name.data, name.len);
    p = ngx_cpymem(p, "\"]", 2);

    more->members.len = p - more->members.data;

    return NGX_OK;
}


static void *
ngx_http_tenant_quota_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_quota_loc_conf_t  *qlcf;

    qlcf = ngx_palloc(cf->pool, sizeof(ngx_http_tenant_quota_loc_conf_t));
    if (qlcf == NULL) {
        return NULL;
    }

    qlcf->mode = NGX_CONF_UNSET_UINT;
    qlcf->headers = NGX_CONF_UNSET;

    return qlcf;
}


static char *
ngx_http_tenant_quota_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tenant_quota_loc_conf_t  *prev = parent;
    ngx_http_tenant_quota_loc_conf_t  *conf = child;

    ngx_conf_merge_uint_value(conf->mode, prev->mode,
                              NGX_HTTP_TENANT_QUOTA_OFF);
    ngx_conf_merge_value(conf->headers, prev->headers, 1);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tenant_quota_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tenant_quota_handler;

    ngx_http_tenant_quota_init_filters();

    return NGX_OK;
}
