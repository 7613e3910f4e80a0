/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Who sends a request, and whether that one may: the access phase.  A request is
 * decided once, and ctx->authenticated says so: an internal redirect finds that
 * decision, a subrequest never comes here.
 */

#include "ngx_http_tenant_auth.h"

#include "../lib/tg_claims.h"


#define NGX_HTTP_TENANT_TOKEN_CACHE  16384
#define NGX_HTTP_TENANT_FAILURES     5000       /* 5 a second */
#define NGX_HTTP_TENANT_BURST        50


typedef struct {
    ngx_uint_t        token_cache;      /* entries of a worker */

    /* tenant_auth_failures */
    ngx_uint_t        rate;             /* thousandths a second; 0: off */
    ngx_uint_t        burst;
} ngx_http_tenant_auth_main_conf_t;


static ngx_int_t ngx_http_tenant_auth_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tenant_auth_check(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_uint_t ngx_http_tenant_auth_may_be_anonymous(
    const tg_route_t *route);
static ngx_int_t ngx_http_tenant_auth_none(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_int_t ngx_http_tenant_auth_two(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_int_t ngx_http_tenant_auth_authorize(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);
static ngx_int_t ngx_http_tenant_auth_forbid(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const char *what, tg_ref_t name,
    ngx_uint_t scope);
static ngx_int_t ngx_http_tenant_auth_passed(ngx_http_tenant_ctx_t *ctx);

static void *ngx_http_tenant_auth_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_tenant_auth_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_tenant_auth_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tenant_auth_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_tenant_auth_api_key_header(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_tenant_auth_api_key_query(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_tenant_auth_failures(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tenant_auth_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tenant_auth_init_process(ngx_cycle_t *cycle);
static void ngx_http_tenant_auth_exit_process(ngx_cycle_t *cycle);


static ngx_command_t  ngx_http_tenant_auth_commands[] = {

    { ngx_string("tenant_auth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_auth_loc_conf_t, enable),
      NULL },

    { ngx_string("tenant_auth_realm"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_auth_loc_conf_t, realm),
      NULL },

    { ngx_string("tenant_api_key_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_tenant_auth_api_key_header,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_api_key_query"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_tenant_auth_api_key_query,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_auth_failures"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_tenant_auth_failures,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_token_cache"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_tenant_auth_main_conf_t, token_cache),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_auth_module_ctx = {
    ngx_http_tenant_auth_add_variables,    /* preconfiguration */
    ngx_http_tenant_auth_init,             /* postconfiguration */

    ngx_http_tenant_auth_create_main_conf, /* create main configuration */
    ngx_http_tenant_auth_init_main_conf,   /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tenant_auth_create_loc_conf,  /* create location configuration */
    ngx_http_tenant_auth_merge_loc_conf    /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_auth_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_auth_module_ctx,      /* module context */
    ngx_http_tenant_auth_commands,         /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_tenant_auth_init_process,     /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tenant_auth_exit_process,     /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_tenant_auth_handler(ngx_http_request_t *r)
{
    ngx_int_t                         rc;
    ngx_http_tenant_ctx_t            *ctx;
    ngx_http_tenant_loc_conf_t       *tlcf;
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_auth_module);
    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    if (!alcf->enable || tlcf->by == NGX_HTTP_TENANT_BY_NONE) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_tenant_get_ctx(r);
    if (ctx == NULL) {
        return NGX_DECLINED;
    }

    if (ctx->authenticated) {
        return ngx_http_tenant_auth_passed(ctx);
    }

    if (ctx->route == NULL) {
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_NO_ROUTE, NULL);
    }

    rc = ngx_http_tenant_auth_check(r, ctx);
    if (rc != NGX_OK) {
        return rc;
    }

    ctx->authenticated = 1;

    if (ctx->route->hide_credentials
        && ngx_http_tenant_auth_hide(r, ctx->route) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_tenant_auth_passed(ctx);
}


/* An anonymous request is not refused, but it is no reason for "satisfy any" to
 * let it in either. */
static ngx_int_t
ngx_http_tenant_auth_passed(ngx_http_tenant_ctx_t *ctx)
{
    return ctx->auth == NGX_HTTP_TENANT_ANONYMOUS ? NGX_DECLINED : NGX_OK;
}


/* NGX_OK: ctx says who it is, and that one may; else what the handler returns. */
static ngx_int_t
ngx_http_tenant_auth_check(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_http_tenant_credential_t   credential;

    if (ctx->route->auth_mode == TG_AUTH_NONE) {
        return NGX_OK;
    }

    if (ngx_http_tenant_auth_credential(r, ctx->route, &credential) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    switch (credential.tokens + credential.keys) {

    case 0:
        return ngx_http_tenant_auth_may_be_anonymous(ctx->route)
               ? NGX_OK
               : ngx_http_tenant_auth_none(r, ctx);

    case 1:
        rc = credential.tokens
             ? ngx_http_tenant_auth_token(r, ctx, &credential.token)
             : ngx_http_tenant_auth_key(r, ctx, &credential.key);
        break;

    default:
        return ngx_http_tenant_auth_two(r, ctx);
    }

    return rc == NGX_OK ? ngx_http_tenant_auth_authorize(r, ctx) : rc;
}


/* Nobody has no scopes and no claims. */
static ngx_uint_t
ngx_http_tenant_auth_may_be_anonymous(const tg_route_t *route)
{
    return route->auth_mode == TG_AUTH_OPTIONAL && route->scopes.n == 0
           && route->claims.n == 0;
}


static ngx_int_t
ngx_http_tenant_auth_none(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_http_tenant_denial_t  denial;

    ngx_memzero(&denial, sizeof(ngx_http_tenant_denial_t));
    denial.refusal = NGX_HTTP_TENANT_NO_CREDENTIAL;

    switch (ctx->route->auth_methods) {

    case TG_AUTH_JWT:
        ngx_str_set(&denial.reason, "this route needs a bearer token");
        break;

    case TG_AUTH_API_KEY:
        ngx_str_set(&denial.reason, "this route needs an API key");
        break;

    default:
        ngx_str_set(&denial.reason,
                    "this route needs a bearer token or an API key");
        break;
    }

    return ngx_http_tenant_auth_deny(r, ctx, &denial);
}


static ngx_int_t
ngx_http_tenant_auth_two(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx)
{
    ngx_http_tenant_denial_t  denial;

    ngx_memzero(&denial, sizeof(ngx_http_tenant_denial_t));
    denial.refusal = NGX_HTTP_TENANT_TWO_CREDENTIALS;
    denial.error = "invalid_request";
    ngx_str_set(&denial.reason,
                "the request has more than one credential; send one");

    return ngx_http_tenant_auth_deny(r, ctx, &denial);
}


/* What the route asks of who was authenticated: all scopes, all claims. */
static ngx_int_t
ngx_http_tenant_auth_authorize(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    uint32_t                 i;
    tg_ref_t                 missing;
    const tg_route_t        *route;
    const tg_claim_match_t  *match;

    route = ctx->route;

    if (!tg_claims_has_scopes((char *) ctx->scopes.data, ctx->scopes.len,
                              ctx->block, route->scopes, &missing))
    {
        return ngx_http_tenant_auth_forbid(r, ctx, "the credential lacks the "
                                           "scope", missing, 1);
    }

    match = tg_vec(ctx->block, route->claims, tg_claim_match_t);

    for (i = 0; i < route->claims.n; i++) {
        if (ctx->claims == NULL
            || !tg_claims_match(ctx->claims, ctx->block, &match[i]))
        {
            return ngx_http_tenant_auth_forbid(r, ctx, "this route asks for "
                                               "another value of the claim",
                                               match[i].name, 0);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_forbid(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const char *what, tg_ref_t name, ngx_uint_t scope)
{
    ngx_str_t                  s;
    ngx_http_tenant_denial_t   denial;

    ngx_memzero(&denial, sizeof(ngx_http_tenant_denial_t));
    denial.refusal = NGX_HTTP_TENANT_FORBIDDEN;
    denial.error = "insufficient_scope";
    denial.scope = scope;

    s = ngx_http_tenant_str(ctx->block, name);

    denial.reason.data = ngx_pnalloc(r->pool, ngx_strlen(what) + s.len + 3);
    if (denial.reason.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    denial.reason.len = ngx_sprintf(denial.reason.data, "%s '%V'", what, &s)
                        - denial.reason.data;

    return ngx_http_tenant_auth_deny(r, ctx, &denial);
}


static void *
ngx_http_tenant_auth_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_auth_main_conf_t  *amcf;

    amcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_auth_main_conf_t));
    if (amcf == NULL) {
        return NULL;
    }

    amcf->token_cache = NGX_CONF_UNSET_UINT;
    amcf->rate = NGX_CONF_UNSET_UINT;

    return amcf;
}


static char *
ngx_http_tenant_auth_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_tenant_auth_main_conf_t  *amcf = conf;

    ngx_conf_init_uint_value(amcf->token_cache, NGX_HTTP_TENANT_TOKEN_CACHE);

    if (amcf->rate == NGX_CONF_UNSET_UINT) {
        amcf->rate = NGX_HTTP_TENANT_FAILURES;
        amcf->burst = NGX_HTTP_TENANT_BURST;
    }

    return NGX_CONF_OK;
}


static void *
ngx_http_tenant_auth_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_auth_loc_conf_t  *alcf;

    /* set by ngx_pcalloc(): key_header, key_query, realm */
    alcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_auth_loc_conf_t));
    if (alcf == NULL) {
        return NULL;
    }

    alcf->enable = NGX_CONF_UNSET;

    return alcf;
}


static char *
ngx_http_tenant_auth_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tenant_auth_loc_conf_t  *prev = parent;
    ngx_http_tenant_auth_loc_conf_t  *conf = child;

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_str_value(conf->key_header, prev->key_header, "x-api-key");
    ngx_conf_merge_str_value(conf->key_query, prev->key_query, "");

    if (conf->realm == NULL) {
        conf->realm = prev->realm;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tenant_auth_api_key_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_tenant_auth_loc_conf_t  *alcf = conf;

    ngx_str_t  *value;

    if (alcf->key_header.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0 || value[1].data[value[1].len - 1] == '*') {
        return "needs the name of one header";
    }

    ngx_strlow(value[1].data, value[1].data, value[1].len);

    if (ngx_strcmp(value[1].data, "authorization") == 0) {
        return "must not be \"Authorization\", which is for bearer tokens";
    }

    alcf->key_header = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_tenant_auth_api_key_query(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_tenant_auth_loc_conf_t  *alcf = conf;

    ngx_str_t  *value;

    if (alcf->key_query.data) {
        return "is duplicate";
    }

    value = cf->args->elts;
    alcf->key_query = value[1];

    if (ngx_strcmp(value[1].data, "off") == 0) {
        alcf->key_query.len = 0;
    }

    return NGX_CONF_OK;
}


/* rate=5r/s or rate=30r/m, as limit_req_zone has it. */
static char *
ngx_http_tenant_auth_parse_rate(ngx_http_tenant_auth_main_conf_t *amcf,
    ngx_str_t value)
{
    ngx_int_t   rate;
    ngx_uint_t  per;

    value.data += sizeof("rate=") - 1;
    value.len -= sizeof("rate=") - 1;
    per = 1;

    if (value.len > 3
        && ngx_strncmp(value.data + value.len - 3, "r/s", 3) == 0)
    {
        value.len -= 3;

    } else if (value.len > 3
               && ngx_strncmp(value.data + value.len - 3, "r/m", 3) == 0)
    {
        value.len -= 3;
        per = 60;
    }

    rate = ngx_atoi(value.data, value.len);

    if (rate <= 0 || rate > 1000000) {
        return "needs a rate like \"rate=5r/s\" or \"rate=30r/m\"";
    }

    amcf->rate = ngx_max(1, rate * 1000 / per);

    return NGX_CONF_OK;
}


static char *
ngx_http_tenant_auth_failures(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_auth_main_conf_t  *amcf = conf;

    char       *rv;
    ngx_int_t   burst;
    ngx_str_t  *value;

    if (amcf->rate != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        amcf->rate = 0;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value[1].data, "rate=", 5) != 0) {
        return "takes \"rate=RATE [burst=NUMBER]\" or \"off\"";
    }

    rv = ngx_http_tenant_auth_parse_rate(amcf, value[1]);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    amcf->burst = NGX_HTTP_TENANT_BURST;

    if (cf->args->nelts == 3) {

        burst = ngx_strncmp(value[2].data, "burst=", 6) == 0
                ? ngx_atoi(value[2].data + 6, value[2].len - 6)
                : NGX_ERROR;

        if (burst <= 0 || burst > 1000000) {
            return "needs a burst like \"burst=50\"";
        }

        amcf->burst = burst;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tenant_auth_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_ACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tenant_auth_handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_init_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_main_conf_t       *tmcf;
    ngx_http_tenant_auth_main_conf_t  *amcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    tmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tenant_module);

    if (tmcf == NULL || tmcf->zone == NULL) {
        return NGX_OK;
    }

    amcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_tenant_auth_module);

    return ngx_http_tenant_auth_start(cycle, amcf->token_cache, amcf->rate,
                                      amcf->burst);
}


static void
ngx_http_tenant_auth_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_auth_stop();
}
