/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * "tenant_balancer" in an upstream block: the endpoint comes from the tenant's
 * route, not from the configuration.
 *
 *  1. The upstream is chosen in the precontent phase, where a refusal can still
 *     be a problem document: ngx_http_tenant_balancer_choose().  The endpoint is
 *     chosen for each attempt.
 *  2. Timeouts and the number of attempts are the route's.  Which failures are
 *     worth another attempt, and for which methods, stays with
 *     proxy_next_upstream.
 *  3. What is counted (the endpoint's and the upstream's requests in flight) is
 *     held by the context's pin, so it ends with the request at the latest, and
 *     with the worker if that dies.
 */

#include "ngx_http_tenant.h"

#include <openssl/rand.h>

#include "../lib/tg_balance.h"
#include "../lib/tg_hash.h"


/* Most routes want the same, so a worker keeps copies of the configuration for this
 * many wishes instead of making one for each request; the first ones that come. */
#define NGX_HTTP_TENANT_KEPT  64


typedef struct {
    ngx_uint_t              used;       /* there is a "tenant_balancer" */
} ngx_http_tenant_balancer_main_conf_t;


typedef union {
    struct sockaddr         sockaddr;
    struct sockaddr_in      sockaddr_in;
    struct sockaddr_in6     sockaddr_in6;
} ngx_http_tenant_sockaddr_t;


typedef struct {
    ngx_http_request_t          *request;
    ngx_http_tenant_ctx_t       *ctx;
    tg_zone_t                   *zone;
    const tg_endpoint_t         *endpoint;  /* of the attempt under way */
    tg_endpoint_state_t         *state;     /* of it */
    ngx_uint_t                   held;      /* counted in its outstanding */
    tg_tried_t                   tried;
    ngx_str_t                    name;
    ngx_http_tenant_sockaddr_t   addr;
} ngx_http_tenant_peer_t;


/* What a route wants of how it is proxied; 0: as nginx.conf says. */
typedef struct {
    uint32_t                     connect_ms;
    uint32_t                     send_ms;
    uint32_t                     read_ms;
} ngx_http_tenant_wish_t;


typedef struct {
    const ngx_http_upstream_conf_t  *base;
    ngx_http_tenant_wish_t           wish;
    ngx_http_upstream_conf_t         conf;
} ngx_http_tenant_kept_t;


static ngx_int_t ngx_http_tenant_balancer_refuse(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refusal_e refusal,
    const char *what);
static ngx_int_t ngx_http_tenant_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_tenant_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_tenant_balancer_route(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_int_t ngx_http_tenant_balancer_get_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_tenant_balancer_sockaddr(ngx_peer_connection_t *pc,
    ngx_http_tenant_peer_t *tp);
static void ngx_http_tenant_balancer_free_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
static void ngx_http_tenant_balancer_judge(ngx_peer_connection_t *pc,
    ngx_http_tenant_peer_t *tp, ngx_uint_t state);

#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_tenant_balancer_set_session(
    ngx_peer_connection_t *pc, void *data);
static void ngx_http_tenant_balancer_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif

static void *ngx_http_tenant_balancer_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_tenant_balancer(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tenant_balancer_init_process(ngx_cycle_t *cycle);


static ngx_http_tenant_kept_t  *ngx_http_tenant_kept[NGX_HTTP_TENANT_KEPT];


static ngx_command_t  ngx_http_tenant_balancer_commands[] = {

    { ngx_string("tenant_balancer"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_tenant_balancer,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_balancer_module_ctx = {
    ngx_http_tenant_balancer_add_variables, /* preconfiguration */
    ngx_http_tenant_balancer_source_init,  /* postconfiguration */

    ngx_http_tenant_balancer_create_main_conf, /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_balancer_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_balancer_module_ctx,  /* module context */
    ngx_http_tenant_balancer_commands,     /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_tenant_balancer_init_process, /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* This worker's lots. */
static tg_random_t  ngx_http_tenant_balancer_random;


static uint64_t
ngx_http_tenant_balancer_hold(const tg_zone_t *zone, const uint32_t *outstanding)
{
    return tg_zone_offset(zone, outstanding) | TG_HOLD_32;
}


ngx_int_t
ngx_http_tenant_balancer_choose(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    uint32_t                               i;
    const tg_backend_t                    *backends;
    tg_upstream_state_t                   *state;
    const tg_upstream_t                   *upstream;
    ngx_http_tenant_main_conf_t           *tmcf;
    ngx_http_tenant_balancer_main_conf_t  *bmcf;

    bmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_balancer_module);

    if (!bmcf->used) {
        return NGX_OK;
    }

    backends = tg_vec(ctx->block, ctx->route->backends, tg_backend_t);

    i = tg_balance_backend(ctx->block, ctx->route, (char *) ctx->consumer.data,
                           ctx->consumer.len, &ngx_http_tenant_balancer_random);

    upstream = tg_vec(ctx->block, ctx->block->upstreams, tg_upstream_t)
               + backends[i].upstream;
    ctx->upstream = upstream;

    if (tg_balance_endpoints(ctx->block, upstream) == 0) {
        return ngx_http_tenant_balancer_refuse(r, ctx,
                                               NGX_HTTP_TENANT_NO_ENDPOINT,
                                               "has no endpoint");
    }

    if (upstream->max_outstanding == 0) {
        return NGX_OK;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    state = tg_zone_ptr(tmcf->zone, upstream->state);
    ctx->outstanding = &state->outstanding;

    if (tg_zone_hold(tmcf->zone, ctx->pin,
                     ngx_http_tenant_balancer_hold(tmcf->zone, ctx->outstanding),
                     upstream->max_outstanding)
        != TG_HOLD_OK)
    {
        return ngx_http_tenant_balancer_refuse(r, ctx,
                                               NGX_HTTP_TENANT_CIRCUIT_OPEN,
                                               "has as many requests in flight "
                                               "as it may");
    }

    ctx->circuit = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_balancer_refuse(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_refusal_e refusal,
    const char *what)
{
    ngx_str_t                  name;
    ngx_http_tenant_refuse_t   more;

    ngx_memzero(&more, sizeof(ngx_http_tenant_refuse_t));

    name = ngx_http_tenant_str(ctx->block, ctx->upstream->name);

    more.detail.data = ngx_pnalloc(r->pool, sizeof("Upstream '' .") + name.len
                                            + ngx_strlen(what));
    if (more.detail.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    more.detail.len = ngx_sprintf(more.detail.data, "Upstream '%V' %s.", &name,
                                  what)
                      - more.detail.data;
    more.retry_after = 1;

    return ngx_http_tenant_refuse(r, ctx, refusal, &more);
}


void
ngx_http_tenant_balancer_forget(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    if (!ctx->circuit) {
        return;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    tg_zone_release(tmcf->zone, ctx->pin,
                    ngx_http_tenant_balancer_hold(tmcf->zone,
                                                  ctx->outstanding));
    ctx->circuit = 0;
}


static ngx_int_t
ngx_http_tenant_balancer_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us)
{
#if (NGX_HTTP_UPSTREAM_ZONE)

    if (us->shm_zone) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"zone\" is of no use with \"tenant_balancer\": "
                           "remove it from upstream \"%V\"", &us->host);
        return NGX_ERROR;
    }

#endif

    us->peer.init = ngx_http_tenant_balancer_init_peer;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_balancer_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_uint_t                    endpoints;
    ngx_http_upstream_t          *u;
    ngx_http_tenant_ctx_t        *ctx;
    ngx_http_tenant_peer_t       *tp;
    ngx_http_tenant_main_conf_t  *tmcf;

    u = r->upstream;
    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx == NULL || ctx->upstream == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream \"%V\" balances requests of tenants, and this "
                      "one has none: is \"tenant\" set in its location?",
                      &us->host);
        return NGX_ERROR;
    }

    tp = ngx_http_tenant_alloc(r, ctx, sizeof(ngx_http_tenant_peer_t));
    if (tp == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(tp, sizeof(ngx_http_tenant_peer_t));

    if (ngx_http_tenant_balancer_route(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    tp->request = r;
    tp->ctx = ctx;
    tp->zone = tmcf->zone;

    u->peer.data = tp;
    u->peer.get = ngx_http_tenant_balancer_get_peer;
    u->peer.free = ngx_http_tenant_balancer_free_peer;

    /* each endpoint once; a tenant's own gateway, which is but one, may be tried
     * again: it may have ended a kept connection, as when it reloads */
    endpoints = tg_balance_endpoints(ctx->block, ctx->upstream);
    u->peer.tries = 1 + (ngx_uint_t) ctx->route->retries;

    if (!ctx->forwarded) {
        u->peer.tries = ngx_min(u->peer.tries, endpoints);
    }

#if (NGX_HTTP_SSL)
    u->peer.set_session = ngx_http_tenant_balancer_set_session;
    u->peer.save_session = ngx_http_tenant_balancer_save_session;
#endif

    return NGX_OK;
}


/* A copy of a location's upstream configuration with what a route wants. */
static void
ngx_http_tenant_balancer_adjust(ngx_http_upstream_conf_t *conf,
    const ngx_http_upstream_conf_t *base, const ngx_http_tenant_wish_t *wish)
{
    *conf = *base;

    if (!(conf->next_upstream & NGX_HTTP_UPSTREAM_FT_OFF)) {
        conf->next_upstream |= NGX_HTTP_UPSTREAM_FT_HTTP_502
                               |NGX_HTTP_UPSTREAM_FT_HTTP_503
                               |NGX_HTTP_UPSTREAM_FT_HTTP_504;
    }

    if (wish->connect_ms) {
        conf->connect_timeout = wish->connect_ms;
    }

    if (wish->send_ms) {
        conf->send_timeout = wish->send_ms;
    }

    if (wish->read_ms) {
        conf->read_timeout = wish->read_ms;
    }
}


/* The copy that the worker keeps, made when it is wished for first; NULL: another
 * has its place, or there is no memory. */
static ngx_http_upstream_conf_t *
ngx_http_tenant_balancer_kept(const ngx_http_upstream_conf_t *base,
    const ngx_http_tenant_wish_t *wish)
{
    ngx_http_tenant_kept_t  *kept, **place;

    place = &ngx_http_tenant_kept[tg_hash(wish, sizeof(ngx_http_tenant_wish_t),
                                          (uintptr_t) base)
                                  % NGX_HTTP_TENANT_KEPT];
    kept = *place;

    if (kept == NULL) {
        kept = ngx_palloc(ngx_cycle->pool, sizeof(ngx_http_tenant_kept_t));
        if (kept == NULL) {
            return NULL;
        }

        kept->base = base;
        kept->wish = *wish;
        ngx_http_tenant_balancer_adjust(&kept->conf, base, wish);
        *place = kept;
    }

    return kept->base == base
           && ngx_memcmp(&kept->wish, wish, sizeof(ngx_http_tenant_wish_t)) == 0
           ? &kept->conf : NULL;
}


/*
 * What the route wants, in a copy of the location's upstream configuration.  Its
 * retries are for answers that say "not now, not here" as well, unless the
 * operator wants none at all.
 */
static ngx_int_t
ngx_http_tenant_balancer_route(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    const tg_route_t          *route = ctx->route;
    ngx_http_tenant_wish_t     wish;
    ngx_http_upstream_conf_t  *conf;

    if (route->retries == 0 && route->connect_ms == 0 && route->send_ms == 0
        && route->read_ms == 0)
    {
        return NGX_OK;
    }

    wish.connect_ms = route->connect_ms;
    wish.send_ms = route->send_ms;
    wish.read_ms = route->read_ms;

    conf = ngx_http_tenant_balancer_kept(r->upstream->conf, &wish);

    if (conf == NULL) {
        conf = ngx_http_tenant_alloc(r, ctx, sizeof(ngx_http_upstream_conf_t));
        if (conf == NULL) {
            return NGX_ERROR;
        }

        ngx_http_tenant_balancer_adjust(conf, r->upstream->conf, &wish);
    }

    r->upstream->conf = conf;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_balancer_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_tenant_peer_t  *tp = data;

    int                     i;
    ngx_http_tenant_ctx_t  *ctx;

    ctx = tp->ctx;

    if (ctx->forwarded) {
        ngx_memzero(&tp->tried, sizeof(tp->tried));
    }

    i = tg_balance_endpoint(tp->zone, ctx->block, ctx->upstream, &tp->tried,
                            &ngx_http_tenant_balancer_random, ngx_current_msec);

    if (i < 0) {
        return NGX_BUSY;
    }

    tp->endpoint = tg_vec(ctx->block, ctx->upstream->endpoints, tg_endpoint_t)
                   + i;
    tp->state = tg_zone_ptr(tp->zone, tp->endpoint->state);
    ctx->endpoint = tp->endpoint;
    ctx->state = tp->state;

    ngx_http_tenant_balancer_sockaddr(pc, tp);

    /* Without room in the pin (subrequests share it) it goes uncounted. */
    tp->held = tg_zone_hold(tp->zone, ctx->pin,
                            ngx_http_tenant_balancer_hold(tp->zone,
                                                      &tp->state->outstanding),
                            UINT32_MAX)
               == TG_HOLD_OK;

    pc->cached = 0;
    pc->connection = NULL;

    return NGX_OK;
}


static void
ngx_http_tenant_balancer_sockaddr(ngx_peer_connection_t *pc,
    ngx_http_tenant_peer_t *tp)
{
    const tg_endpoint_t  *endpoint;

    endpoint = tp->endpoint;

    ngx_memzero(&tp->addr, sizeof(tp->addr));

    if (endpoint->family == AF_INET) {
        tp->addr.sockaddr_in.sin_family = AF_INET;
        tp->addr.sockaddr_in.sin_port = htons(endpoint->port);
        ngx_memcpy(&tp->addr.sockaddr_in.sin_addr, endpoint->address, 4);
        pc->socklen = sizeof(struct sockaddr_in);

    } else {
        tp->addr.sockaddr_in6.sin6_family = AF_INET6;
        tp->addr.sockaddr_in6.sin6_port = htons(endpoint->port);
        ngx_memcpy(&tp->addr.sockaddr_in6.sin6_addr, endpoint->address, 16);
        pc->socklen = sizeof(struct sockaddr_in6);
    }

    tp->name = ngx_http_tenant_str(tp->ctx->block, endpoint->text);

    pc->sockaddr = &tp->addr.sockaddr;
    pc->name = &tp->name;
}


/* state 0: the request is over; else another attempt may follow. */
static void
ngx_http_tenant_balancer_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_tenant_peer_t  *tp = data;

    if (tp->endpoint) {

        if (tp->held) {
            tg_zone_release(tp->zone, tp->ctx->pin,
                            ngx_http_tenant_balancer_hold(tp->zone,
                                                     &tp->state->outstanding));
            tp->held = 0;
        }

        ngx_http_tenant_balancer_judge(pc, tp, state);
        tp->endpoint = NULL;
    }

    if (pc->tries) {
        pc->tries--;
    }

    if (state == 0 && tp->request == tp->request->main) {
        ngx_http_tenant_balancer_forget(tp->request, tp->ctx);
    }
}


/* nginx does not call the answer of a last attempt a failure, whatever it is. */
static ngx_uint_t
ngx_http_tenant_balancer_is_failure(ngx_uint_t state, ngx_uint_t status)
{
    return (state & NGX_PEER_FAILED)
           || status == NGX_HTTP_BAD_GATEWAY
           || status == NGX_HTTP_SERVICE_UNAVAILABLE
           || status == NGX_HTTP_GATEWAY_TIME_OUT;
}


static void
ngx_http_tenant_balancer_judge(ngx_peer_connection_t *pc,
    ngx_http_tenant_peer_t *tp, ngx_uint_t state)
{
    uint64_t              ms;
    ngx_uint_t            status;
    ngx_connection_t     *c;
    tg_endpoint_state_t  *health;

    health = tp->state;
    status = tp->request->upstream->headers_in.status_n;

    if (!ngx_http_tenant_balancer_is_failure(state, status)) {
        tg_balance_succeeded(tp->ctx->upstream, health, ngx_current_msec);
        return;
    }

    c = pc->connection;

    if (pc->cached && status == 0
        && !(c && (c->read->timedout || c->write->timedout)))
    {
        /* The endpoint closed a connection that it kept for us: no failure.
         * nginx gives such a request one more attempt, which may go there. */
        ngx_memzero(&tp->tried, sizeof(tp->tried));
        return;
    }

    ms = tg_balance_failed(tp->ctx->upstream, health, ngx_current_msec);

    if (ms) {
        ngx_log_error(NGX_LOG_WARN, pc->log, 0,
                      "tenant \"%s\": endpoint %V of upstream \"%s\" is out for "
                      "%uL ms after failures",
                      tg_str(tp->ctx->block, tp->ctx->block->name), &tp->name,
                      tg_str(tp->ctx->block, tp->ctx->upstream->name), ms);
    }
}


#if (NGX_HTTP_SSL)

/* Sessions are not kept: endpoints come and go, and connections are reused. */
static ngx_int_t
ngx_http_tenant_balancer_set_session(ngx_peer_connection_t *pc, void *data)
{
    return NGX_OK;
}


static void
ngx_http_tenant_balancer_save_session(ngx_peer_connection_t *pc, void *data)
{
}

#endif


static void *
ngx_http_tenant_balancer_create_main_conf(ngx_conf_t *cf)
{
    /* set by ngx_pcalloc(): used */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_balancer_main_conf_t));
}


static char *
ngx_http_tenant_balancer(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_balancer_main_conf_t  *bmcf = conf;

    ngx_http_upstream_server_t    *server;
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"tenant_balancer\" is the balancing method of its "
                           "upstream: it must be the only one, and stand "
                           "before \"keepalive\"");
        return NGX_CONF_ERROR;
    }

    if (uscf->servers->nelts) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"server\" is of no use with \"tenant_balancer\", "
                           "whose endpoints are the tenants'");
        return NGX_CONF_ERROR;
    }

    /* nginx refuses an upstream without a server; this one is never asked */

    server = ngx_array_push(uscf->servers);
    if (server == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(server, sizeof(ngx_http_upstream_server_t));
    ngx_str_set(&server->name, "tenants");
    server->down = 1;

    uscf->peer.init_upstream = ngx_http_tenant_balancer_init_upstream;
    uscf->flags = NGX_HTTP_UPSTREAM_CREATE;

    bmcf->used = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tenant_balancer_init_process(ngx_cycle_t *cycle)
{
    if (RAND_bytes((u_char *) &ngx_http_tenant_balancer_random.state,
                   sizeof(ngx_http_tenant_balancer_random.state))
        != 1)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
