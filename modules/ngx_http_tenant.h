/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the tenant modules share: the zone of this worker, and the context of a
 * request.  The order in which the modules meet a request:
 *
 *   preaccess    tenant   host → tenant → route; pins the version; strips
 *                         inbound identity headers
 *   access       auth     credential → consumer, claims
 *   precontent   quota    charges, then tenant rewrites the path and adds the
 *                         identity headers
 *   balancer     balancer endpoint
 *   log          usage    counters; then the pin goes with the request's pool
 */

#ifndef NGX_HTTP_TENANT_H
#define NGX_HTTP_TENANT_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <jansson.h>

#include "../lib/tg_hint.h"
#include "../lib/tg_zone.h"


typedef struct ngx_http_tenant_map_s  ngx_http_tenant_map_t;


typedef struct {
    ngx_shm_zone_t    *shm_zone;        /* tenant_zone; NULL: not configured */
    tg_zone_t         *zone;            /* set when the zone is initialised */
    ngx_http_tenant_map_t  *map;        /* where it is mapped for large pages;
                                         * NULL: only where nginx has it */
    tg_hints_t        *hints;           /* of this worker */
    ngx_slab_pool_t   *shpool;          /* its mutex is the writer's lock */

    /* tenant_source */
    ngx_url_t         *source;
    ngx_str_t          gateway;         /* gateway=NAME */
    ngx_str_t          token;           /* token=FILE's content, or empty */
    ngx_str_t          snapshot;        /* tenant_snapshot PATH, or empty */
    ngx_str_t          secret_key;      /* tenant_secret_key's 32 bytes, or empty */
    ngx_array_t        identity_strip;  /* of ngx_str_t: extra header names */
} ngx_http_tenant_main_conf_t;


typedef enum {
    NGX_HTTP_TENANT_BY_NONE = 0,        /* "tenant off" */
    NGX_HTTP_TENANT_BY_HOST,
    NGX_HTTP_TENANT_BY_HEADER,
    NGX_HTTP_TENANT_BY_PREFIX
} ngx_http_tenant_by_e;


typedef struct {
    ngx_uint_t         by;              /* ngx_http_tenant_by_e */
    ngx_str_t          header;          /* lower case */
    ngx_flag_t         problem;         /* problem documents, or plain statuses */
    ngx_msec_t         load_wait;       /* how long requests wait for a registry */
} ngx_http_tenant_loc_conf_t;


typedef enum {
    NGX_HTTP_TENANT_ANONYMOUS = 0,
    NGX_HTTP_TENANT_JWT,
    NGX_HTTP_TENANT_API_KEY
} ngx_http_tenant_auth_e;


/* Why a request was refused; the table in ngx_http_tenant_problem.c has status,
 * slug and title of each. */
typedef enum {
    NGX_HTTP_TENANT_SERVED = 0,
    NGX_HTTP_TENANT_UNKNOWN_HOST,       /* 404 */
    NGX_HTTP_TENANT_SUSPENDED,          /* 403 */
    NGX_HTTP_TENANT_NO_ROUTE,           /* 404 */
    NGX_HTTP_TENANT_BAD_METHOD,         /* 405 */
    NGX_HTTP_TENANT_BAD_REQUEST,        /* 400 */
    NGX_HTTP_TENANT_NOT_READY,          /* 503: nothing loaded yet */
    NGX_HTTP_TENANT_OVERLOADED,         /* 503: no pin free */
    NGX_HTTP_TENANT_NO_CREDENTIAL,      /* 401 */
    NGX_HTTP_TENANT_BAD_CREDENTIAL,     /* 401 invalid_token */
    NGX_HTTP_TENANT_TWO_CREDENTIALS,    /* 400 invalid_request */
    NGX_HTTP_TENANT_FORBIDDEN,          /* 403 insufficient_scope */
    NGX_HTTP_TENANT_AUTH_LIMITED,       /* 429 too many failures from here */
    NGX_HTTP_TENANT_OVER_QUOTA,         /* 429 */
    NGX_HTTP_TENANT_OVER_CONCURRENCY,   /* 429 */
    NGX_HTTP_TENANT_BODY_TOO_LARGE,     /* 413 */
    NGX_HTTP_TENANT_NO_ENDPOINT,        /* 503 */
    NGX_HTTP_TENANT_CIRCUIT_OPEN,       /* 503 */
    NGX_HTTP_TENANT_MISDIRECTED,        /* 421: served elsewhere */
    NGX_HTTP_TENANT_REFUSALS
} ngx_http_tenant_refusal_e;


/*
 * Lives as long as the request's pool; found again after internal redirects.  What
 * is used when the answer has come is noted here: what the block says is out of
 * the caches by then.
 */
typedef struct {
    ngx_http_request_t  *request;       /* the main request */
    const tg_block_t    *block;         /* pinned; NULL: no tenant found */
    tg_pin_t            *pin;
    const tg_route_t    *route;         /* in block; NULL: none matched */
    tg_counters_t       *counters;      /* of route; NULL: look there */
    uint32_t             slot;          /* of block */

    /* auth */
    ngx_http_tenant_auth_e  auth;
    ngx_str_t            consumer;      /* empty: anonymous */
    ngx_str_t            scopes;        /* space separated */
    uint64_t             credential_id; /* api key id; 0 for tokens */
    json_t              *claims;        /* of a JWT; released with the pool */

    /* quota */
    ngx_str_t            ratelimit_policy;  /* headers of the response */
    ngx_str_t            ratelimit;
    tg_pin_t            *hold_pin;      /* for quotas that find no room in pin */
    uint64_t            *held;          /* counters of requests in flight */
    ngx_uint_t           held_n;
    off_t                sent;          /* bytes of the body, while any are */
    const tg_quota_t    *body_quota;    /* that a chunked body is held to */
    ngx_buf_t           *problem;       /* that replaces the page for it */

    /* balancer */
    const tg_upstream_t *upstream;      /* chosen */
    const tg_endpoint_t *endpoint;      /* of the last attempt */
    tg_endpoint_state_t *state;         /* of endpoint */
    uint32_t            *outstanding;   /* of upstream, while "circuit" */

    ngx_http_tenant_refusal_e  refusal;
    ngx_uint_t           refusal_status;

    ngx_queue_t          queue;         /* this worker's requests in flight */
    ngx_str_t            prefix;        /* path prefix that named the tenant */

    u_char              *pos;           /* of its free memory */
    u_char              *last;

    ngx_msec_t           wait_until;    /* 0: did not wait */
    uint64_t             wait_version;  /* of the zone, that it waits to change */
    ngx_queue_t          waiters;       /* while waiting; else not in the queue */

    unsigned             waiting:1;         /* for the registry, or a version */
    unsigned             queued:1;          /* in the queue of those that wait */
    unsigned             on_hold:1;         /* waits for the tenant's next version */
    unsigned             forwarded:1;       /* goes on as it came */
    unsigned             authenticated:1;   /* auth has decided */
    unsigned             charged:1;         /* quota has decided */
    unsigned             rewritten:1;       /* path and headers are upstream's */
    unsigned             logged:1;          /* usage has counted */
    unsigned             circuit:1;         /* counted in upstream's outstanding */
    unsigned             body_refused:1;    /* a problem replaces nginx's 413 */
} ngx_http_tenant_ctx_t;


/* More of a refusal than its kind says; zero what does not apply. */
typedef struct {
    ngx_str_t            detail;            /* a sentence; default by kind */
    ngx_str_t            www_authenticate;  /* whole header value */
    ngx_str_t            ratelimit_policy;  /* whole header values */
    ngx_str_t            ratelimit;
    ngx_str_t            allow;             /* Allow of a 405 */
    ngx_int_t            retry_after;       /* seconds; 0: none */
    ngx_str_t            members;           /* further JSON members, "," first */
} ngx_http_tenant_refuse_t;


/* The name of a header as nginx keeps it. */
typedef struct {
    ngx_str_t            key;
    u_char              *lowcase;
    ngx_uint_t           hash;
} ngx_http_tenant_header_t;


extern ngx_module_t  ngx_http_tenant_module;
extern ngx_module_t  ngx_http_tenant_auth_module;
extern ngx_module_t  ngx_http_tenant_quota_module;
extern ngx_module_t  ngx_http_tenant_balancer_module;
extern ngx_module_t  ngx_http_tenant_usage_module;
extern ngx_module_t  ngx_http_tenant_sync_module;

/* This worker's slot in the zone; -1 in other processes. */
extern int  ngx_http_tenant_slot;

/* This worker's requests in flight, by ngx_http_tenant_ctx_t.queue. */
extern ngx_queue_t  ngx_http_tenant_requests;


/* The context of a request that has none.  NULL: no memory. */
ngx_http_tenant_ctx_t *ngx_http_tenant_create_ctx(ngx_http_request_t *r);

/* Memory that lives as long as the main request: the context's while that has
 * some left, else the pool's.  ctx may be NULL.  NULL: no memory. */
void *ngx_http_tenant_alloc(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    size_t size);

/* The request's context, recovered after an internal redirect, from subrequests
 * too; NULL: the tenant module did not take this request. */
ngx_http_tenant_ctx_t *ngx_http_tenant_get_ctx(ngx_http_request_t *r);

/*
 * Refuses: sends the problem document and finalises the request.  Returns what
 * a phase handler has to return (NGX_DONE, or a status if problem documents are
 * off or the operator has an error_page for it).  more may be NULL.
 */
ngx_int_t ngx_http_tenant_refuse(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refusal_e refusal,
    const ngx_http_tenant_refuse_t *more);

/* Matches the request's path to a route of ctx->block.  NGX_DECLINED when it did,
 * else what the phase handler returns. */
ngx_int_t ngx_http_tenant_match(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);

/* Whether the zone is complete: a whole list may be of revision 0, or of a
 * registry whose first revision is not known to be whole yet. */
ngx_uint_t ngx_http_tenant_sync_loaded(void);

/* What was loaded from the snapshot may be older than what was enforced before:
 * 0 until tenantd has told what came since, or has not answered. */
ngx_uint_t ngx_http_tenant_sync_settled(void);

/* The registry is not loaded, or, with ctx->on_hold, the zone has to change from
 * ctx->wait_version on: holds the request.  NGX_AGAIN, or NGX_DECLINED when it has
 * waited as long as it may. */
ngx_int_t ngx_http_tenant_wait(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);

/* Takes a request that ends out of the queue of those that wait. */
void ngx_http_tenant_wait_cancel(ngx_http_tenant_ctx_t *ctx);

/*
 * The tenant's requests are not decided by this gateway now (block->flags): holds
 * them, refuses them, or chooses the route by which they go on.  version: of the
 * zone, read before the block was found.  NGX_DECLINED: it goes on; else what the
 * phase handler returns.
 */
ngx_int_t ngx_http_tenant_placed(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, uint64_t version);

/*
 * Large pages for the registry: with the directive, for the zone's first cycle and
 * for each that takes it over, and about once a second in the worker that leads.
 * The second returns where the registry of size bytes at base is to be used: at base
 * if there is no better place.
 */
ngx_int_t ngx_http_tenant_pages_prepare(ngx_conf_t *cf,
    ngx_http_tenant_main_conf_t *tmcf);
u_char *ngx_http_tenant_pages_map(ngx_http_tenant_main_conf_t *tmcf,
    u_char *base, size_t size);
void ngx_http_tenant_pages_share(ngx_http_tenant_main_conf_t *tmcf,
    ngx_http_tenant_main_conf_t *old);
void ngx_http_tenant_pages_tick(ngx_http_tenant_main_conf_t *tmcf);

/* Ends requests whose tenant is suspended or gone: starts this worker's timer. */
void ngx_http_tenant_sweep_start(ngx_cycle_t *cycle);

/* The slug of a refusal ("over-quota"), "-" when served. */
const ngx_str_t *ngx_http_tenant_refusal_slug(ngx_http_tenant_refusal_e refusal);

/* Removes every client header whose name equals name (in lower case), with case
 * and "_"/"-" folded. */
ngx_int_t ngx_http_tenant_remove_header(ngx_http_request_t *r,
    const ngx_str_t *name);

/* Adds a header for the upstream. */
ngx_int_t ngx_http_tenant_add_header(ngx_http_request_t *r,
    const ngx_http_tenant_header_t *name, const ngx_str_t *value);

/* The problem document alone, for who sends the headers itself; notes the
 * refusal in ctx.  more may be NULL.  NULL: no memory. */
ngx_buf_t *ngx_http_tenant_problem(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refusal_e refusal,
    const ngx_http_tenant_refuse_t *more);

/* Before the configuration is read, in which they may stand: the variables of the
 * tenant module; those of a table that ends with ngx_http_null_variable. */
ngx_int_t ngx_http_tenant_add_variables(ngx_conf_t *cf);
ngx_int_t ngx_http_tenant_add_table(ngx_conf_t *cf, ngx_http_variable_t *table);

/* Has the processor fetch what the request's bearer token would be found by, if it
 * turns out that its route asks for one. */
void ngx_http_tenant_auth_expect(ngx_http_request_t *r, const tg_block_t *block);

/*
 * Chooses the upstream of a request, before its quotas are charged: NGX_OK, or
 * what ngx_http_tenant_refuse() returned.  Without a "tenant_balancer" in the
 * configuration there is nothing to choose.  The second gives back the place in
 * the upstream's outstanding requests, when the request is refused after all.
 */
ngx_int_t ngx_http_tenant_balancer_choose(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
void ngx_http_tenant_balancer_forget(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
ngx_int_t ngx_http_tenant_balancer_add_variables(ngx_conf_t *cf);
ngx_int_t ngx_http_tenant_balancer_source_add(ngx_conf_t *cf);
ngx_int_t ngx_http_tenant_balancer_source_init(ngx_conf_t *cf);

/* Once, before the first request. */
void ngx_http_tenant_init_identity(void);

/* Called by the quota module when nothing refuses: rewrites the path, adds the
 * identity headers.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_http_tenant_prepare_upstream(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);


static ngx_inline ngx_str_t
ngx_http_tenant_str(const tg_block_t *block, tg_ref_t ref)
{
    ngx_str_t  s;

    s.len = ref.len;
    s.data = (u_char *) tg_str(block, ref);

    return s;
}


#endif /* NGX_HTTP_TENANT_H */
