/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The tenant of a request: found from its host, a header or its path, in the
 * registry zone, and pinned in that version for as long as the request lives.
 *
 *  1. A request is looked up once, in the preaccess phase, when its location is
 *     final.  An internal redirect finds the context again through the pool
 *     clean-up and keeps the decisions that were made.
 *  2. The path that is matched is r->uri, decoded and normalised by nginx, and
 *     exactly that is sent upstream: ngx_http_tenant_prepare_upstream() keeps
 *     nginx from forwarding the client's own spelling.
 */

#include "ngx_http_tenant.h"

#include "../lib/tg_host.h"
#include "../lib/tg_json.h"

#include <openssl/rand.h>


/* Slab pages left to nginx beside the one allocation for the registry. */
#define NGX_HTTP_TENANT_SPARE_PAGES  8


static ngx_int_t ngx_http_tenant_post_read_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tenant_preaccess_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tenant_enter(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_loc_conf_t *tlcf);
static ngx_int_t ngx_http_tenant_key(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_loc_conf_t *tlcf,
    ngx_str_t *key);
static ngx_int_t ngx_http_tenant_find(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, ngx_http_tenant_loc_conf_t *tlcf,
    const ngx_str_t *key);
static ngx_int_t ngx_http_tenant_strip_identity(ngx_http_request_t *r,
    ngx_http_tenant_main_conf_t *tmcf);

static void *ngx_http_tenant_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_tenant_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tenant_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_tenant_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_tenant(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_http_tenant_strip_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tenant_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_int_t ngx_http_tenant_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_tenant_init_process(ngx_cycle_t *cycle);
static void ngx_http_tenant_exit_process(ngx_cycle_t *cycle);


int          ngx_http_tenant_slot = -1;
ngx_queue_t  ngx_http_tenant_requests;


static ngx_command_t  ngx_http_tenant_commands[] = {

    { ngx_string("tenant_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_http_tenant_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_tenant,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tenant_problem"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_loc_conf_t, problem),
      NULL },

    { ngx_string("tenant_load_wait"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tenant_loc_conf_t, load_wait),
      NULL },

    { ngx_string("tenant_strip_header"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_tenant_strip_header,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tenant_module_ctx = {
    ngx_http_tenant_add_variables,         /* preconfiguration */
    ngx_http_tenant_init,                  /* postconfiguration */

    ngx_http_tenant_create_main_conf,      /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tenant_create_loc_conf,       /* create location configuration */
    ngx_http_tenant_merge_loc_conf         /* merge location configuration */
};


ngx_module_t  ngx_http_tenant_module = {
    NGX_MODULE_V1,
    &ngx_http_tenant_module_ctx,           /* module context */
    ngx_http_tenant_commands,              /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_tenant_init_process,          /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_tenant_exit_process,          /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static const ngx_str_t  ngx_http_tenant_identity = ngx_string("x-tenant*");


static ngx_int_t
ngx_http_tenant_preaccess_handler(ngx_http_request_t *r)
{
    ngx_http_tenant_ctx_t       *ctx;
    ngx_http_tenant_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tenant_module);

    if (tlcf->by == NGX_HTTP_TENANT_BY_NONE) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_tenant_get_ctx(r);

    if (ctx && !ctx->waiting) {
        return NGX_DECLINED;
    }

    if (ctx == NULL) {
        ctx = ngx_http_tenant_create_ctx(r);
        if (ctx == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return ngx_http_tenant_enter(r, ctx, tlcf);
}


/* The phases between this one and the next handler's take about as long as memory. */
static ngx_int_t
ngx_http_tenant_post_read_handler(ngx_http_request_t *r)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    if (tmcf->hints) {
        tg_hints_expect(tmcf->hints, tmcf->zone,
                        (char *) r->headers_in.server.data,
                        r->headers_in.server.len);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_tenant_enter(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_loc_conf_t *tlcf)
{
    ngx_int_t                      rc;
    ngx_str_t                      key;
    ngx_uint_t                     loaded;
    uint64_t                       version;
    ngx_http_tenant_refuse_t       more;
    ngx_http_tenant_main_conf_t   *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    /* before the look-up, so that no change is missed; 0 has always changed */
    version = ctx->waiting ? tg_zone_version(tmcf->zone) : 0;

    loaded = tg_zone_revision(tmcf->zone) != 0 || ngx_http_tenant_sync_loaded();

    if (!loaded || !ngx_http_tenant_sync_settled()) {
        ctx->on_hold = 0;
        rc = ngx_http_tenant_wait(r, ctx);
        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    if (!loaded) {
        ngx_memzero(&more, sizeof(more));
        more.retry_after = 1;
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_NOT_READY, &more);
    }

    ctx->waiting = 0;

    if (ngx_http_tenant_key(r, ctx, tlcf, &key) != NGX_OK) {
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_UNKNOWN_HOST,
                                      NULL);
    }

    rc = ngx_http_tenant_find(r, ctx, tlcf, &key);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_tenant_auth_expect(r, ctx->block);

    if (ctx->block->state == TG_TENANT_SUSPENDED) {
        ngx_memzero(&more, sizeof(more));
        more.detail = ngx_http_tenant_str(ctx->block, ctx->block->reason);
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_SUSPENDED, &more);
    }

    if (ctx->block->flags) {
        rc = ngx_http_tenant_placed(r, ctx, version);
        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    /* after the key was read: it may itself be a stripped header */
    if (ngx_http_tenant_strip_identity(r, tmcf) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ctx->forwarded ? NGX_DECLINED : ngx_http_tenant_match(r, ctx);
}


/* What names the tenant.  NGX_DECLINED: the request does not say. */
static ngx_int_t
ngx_http_tenant_key(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_loc_conf_t *tlcf, ngx_str_t *key)
{
    u_char           *end;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header;

    ngx_str_null(key);

    switch (tlcf->by) {

    case NGX_HTTP_TENANT_BY_HOST:
        /* nginx has lowered it and cut port and dot off */
        *key = r->headers_in.server;
        break;

    case NGX_HTTP_TENANT_BY_HEADER:
        for (part = &r->headers_in.headers.part; part; part = part->next) {
            header = part->elts;

            for (i = 0; i < part->nelts; i++) {
                if (header[i].key.len != tlcf->header.len
                    || ngx_strncasecmp(header[i].key.data, tlcf->header.data,
                                       tlcf->header.len) != 0)
                {
                    continue;
                }

                if (key->data) {
                    return NGX_DECLINED;    /* twice: which one is meant? */
                }

                *key = header[i].value;
            }
        }

        break;

    case NGX_HTTP_TENANT_BY_PREFIX:
        key->data = r->uri.data + 1;
        end = ngx_strlchr(key->data, r->uri.data + r->uri.len, '/');
        key->len = (end ? end : r->uri.data + r->uri.len) - key->data;

        ctx->prefix.data = r->uri.data;
        ctx->prefix.len = key->len + 1;
        break;
    }

    return key->len ? NGX_OK : NGX_DECLINED;
}


static const tg_block_t *
ngx_http_tenant_find_host(ngx_http_tenant_main_conf_t *tmcf, const ngx_str_t *host)
{
    int                known;
    char               name[TG_HOST_SIZE];
    tg_zone_t         *zone = tmcf->zone;
    const tg_block_t  *block;

    known = tg_hints_fetch(tmcf->hints, zone, (char *) host->data, host->len);

    block = tg_zone_find_exact(zone, (char *) host->data, host->len);

    /* nginx lets odd characters pass, which a wildcard would cover */

    if (block == NULL
        && tg_host_normalize((char *) host->data, host->len, name, sizeof(name))
           != -1)
    {
        block = tg_zone_find_host(zone, (char *) host->data, host->len);
    }

    if (known == -1 && block) {
        tg_zone_fetch_block(block);
    }

    return block;
}


/* Finds and pins; NGX_OK, or what the phase handler returns. */
static ngx_int_t
ngx_http_tenant_find(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    ngx_http_tenant_loc_conf_t *tlcf, const ngx_str_t *key)
{
    const tg_block_t             *block;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    tg_zone_enter(tmcf->zone, ngx_http_tenant_slot);

    if (tlcf->by == NGX_HTTP_TENANT_BY_HOST) {
        block = ngx_http_tenant_find_host(tmcf, key);

    } else {
        block = tg_zone_find_tenant(tmcf->zone, (char *) key->data, key->len);
    }

    if (block) {
        ctx->pin = tg_zone_pin(tmcf->zone, ngx_http_tenant_slot, block);
    }

    tg_zone_exit(tmcf->zone, ngx_http_tenant_slot);

    if (block == NULL) {
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_UNKNOWN_HOST,
                                      NULL);
    }

    if (ctx->pin == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tenant: no free pin; raise worker_connections");
        return ngx_http_tenant_refuse(r, ctx, NGX_HTTP_TENANT_OVERLOADED, NULL);
    }

    ctx->block = block;
    ctx->slot = block->slot;

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_strip_identity(ngx_http_request_t *r,
    ngx_http_tenant_main_conf_t *tmcf)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    if (ngx_http_tenant_remove_header(r, &ngx_http_tenant_identity) != NGX_OK) {
        return NGX_ERROR;
    }

    name = tmcf->identity_strip.elts;

    for (i = 0; i < tmcf->identity_strip.nelts; i++) {
        if (ngx_http_tenant_remove_header(r, &name[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void *
ngx_http_tenant_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_main_conf_t));
    if (tmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tmcf->identity_strip, cf->pool, 4, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NULL;
    }

    return tmcf;
}


static void *
ngx_http_tenant_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_tenant_loc_conf_t  *tlcf;

    tlcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tenant_loc_conf_t));
    if (tlcf == NULL) {
        return NULL;
    }

    tlcf->by = NGX_CONF_UNSET_UINT;
    tlcf->problem = NGX_CONF_UNSET;
    tlcf->load_wait = NGX_CONF_UNSET_MSEC;

    return tlcf;
}


static char *
ngx_http_tenant_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tenant_loc_conf_t   *prev = parent;
    ngx_http_tenant_loc_conf_t   *conf = child;
    ngx_http_tenant_main_conf_t  *tmcf;

    if (conf->by == NGX_CONF_UNSET_UINT) {
        conf->header = prev->header;
    }

    ngx_conf_merge_uint_value(conf->by, prev->by, NGX_HTTP_TENANT_BY_NONE);
    ngx_conf_merge_value(conf->problem, prev->problem, 1);
    ngx_conf_merge_msec_value(conf->load_wait, prev->load_wait, 2000);

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_tenant_module);

    if (conf->by != NGX_HTTP_TENANT_BY_NONE && tmcf->shm_zone == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"tenant\" needs a registry: add "
                           "\"tenant_zone NAME SIZE\" to the http block");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tenant_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_main_conf_t  *tmcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (tmcf->shm_zone) {
        return "is duplicate";
    }

    size = ngx_parse_size(&value[2]);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid zone size \"%V\"",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    if (size < (ssize_t) (2 * TG_ZONE_MIN)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is too small, the least is %uz bytes",
                           &value[1], (size_t) (2 * TG_ZONE_MIN));
        return NGX_CONF_ERROR;
    }

    tmcf->shm_zone = ngx_shared_memory_add(cf, &value[1], size,
                                           &ngx_http_tenant_module);
    if (tmcf->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    tmcf->shm_zone->init = ngx_http_tenant_init_zone;
    tmcf->shm_zone->data = tmcf;

    return ngx_http_tenant_pages_prepare(cf, tmcf) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_tenant(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_loc_conf_t  *tlcf = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (tlcf->by != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[1].data, "header") != 0) {
            return "takes a second argument only after \"header\"";
        }

        tlcf->by = NGX_HTTP_TENANT_BY_HEADER;
        tlcf->header = value[2];

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "host") == 0) {
        tlcf->by = NGX_HTTP_TENANT_BY_HOST;

    } else if (ngx_strcmp(value[1].data, "prefix") == 0) {
        tlcf->by = NGX_HTTP_TENANT_BY_PREFIX;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        tlcf->by = NGX_HTTP_TENANT_BY_NONE;

    } else {
        return "takes \"host\", \"header NAME\", \"prefix\" or \"off\"";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tenant_strip_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tenant_main_conf_t  *tmcf = conf;

    ngx_str_t   *value, *name;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        name = ngx_array_push(&tmcf->identity_strip);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_strlow(value[i].data, value[i].data, value[i].len);
        *name = value[i];
    }

    return NGX_CONF_OK;
}


/*
 * The slab pool of the zone gives its pages to the registry in one piece, which
 * has an allocator of its own (exact sizes, no headers, rebuildable after a
 * kill).  The pool's mutex is the writer's lock: nginx frees it when its holder
 * dies.
 */
static ngx_int_t
ngx_http_tenant_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_tenant_main_conf_t  *old = data;

    size_t                        size;
    u_char                        boot[16], *base;
    uint64_t                      seed;
    ngx_slab_pool_t              *shpool;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    tmcf->shpool = shpool;

    if (old) {
        tmcf->zone = old->zone;
        ngx_http_tenant_pages_share(tmcf, old);
        return NGX_OK;
    }

    size = (shpool->pfree - NGX_HTTP_TENANT_SPARE_PAGES) * ngx_pagesize;

    if (shm_zone->shm.exists) {
        tmcf->zone = tg_zone_attach(shpool->data, size);
        return tmcf->zone ? NGX_OK : NGX_ERROR;
    }

    base = ngx_slab_alloc(shpool, size);

    if (base == NULL || RAND_bytes(boot, sizeof(boot)) != 1
        || RAND_bytes((u_char *) &seed, sizeof(seed)) != 1)
    {
        return NGX_ERROR;
    }

    tmcf->zone = tg_zone_create(ngx_http_tenant_pages_map(tmcf, base, size),
                                size, seed, boot);
    shpool->data = base;

    return tmcf->zone ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_tenant_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tenant_post_read_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tenant_preaccess_handler;

    ngx_http_tenant_init_identity();

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_init_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    ngx_queue_init(&ngx_http_tenant_requests);

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    tmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tenant_module);

    if (tmcf == NULL || tmcf->zone == NULL) {
        return NGX_OK;
    }

    ngx_shmtx_lock(&tmcf->shpool->mutex);
    ngx_http_tenant_slot = tg_zone_slot_take(tmcf->zone, ngx_pid,
                                             cycle->connection_n);
    ngx_shmtx_unlock(&tmcf->shpool->mutex);

    if (ngx_http_tenant_slot == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "tenant: no room for a worker in zone \"%V\": make it "
                      "larger, or lower worker_connections",
                      &tmcf->shm_zone->shm.name);
        return NGX_ERROR;
    }

    tmcf->hints = tg_hints_create(tmcf->zone);
    if (tmcf->hints == NULL) {
        return NGX_ERROR;
    }

    tg_json_init();

    ngx_http_tenant_sweep_start(cycle);

    return NGX_OK;
}


static void
ngx_http_tenant_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_tenant_main_conf_t  *tmcf;

    if (ngx_http_tenant_slot == -1) {
        return;
    }

    tmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_tenant_module);

    ngx_shmtx_lock(&tmcf->shpool->mutex);
    tg_zone_slot_drop(tmcf->zone, ngx_http_tenant_slot);
    ngx_shmtx_unlock(&tmcf->shpool->mutex);

    ngx_http_tenant_slot = -1;
    tg_hints_destroy(tmcf->hints);
    tmcf->hints = NULL;
}
