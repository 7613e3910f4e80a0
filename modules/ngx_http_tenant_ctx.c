/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The context of a request, and its memory.
 *
 *  1. A context is not of the request's pool: this worker uses the one again that
 *     became free last, whose cache lines are warm, and the pool needs no further
 *     block for it.
 *  2. The pool's clean-up gives it back, so it lives as long as the pool does: what
 *     ngx_http_tenant_alloc() returns may be put wherever memory of the pool may.
 */

#include "ngx_http_tenant.h"


/* What the modules allocate for a request with up to a dozen headers. */
#define NGX_HTTP_TENANT_MEMORY  1536

/* Contexts that are kept while no request uses them. */
#define NGX_HTTP_TENANT_FREE    512


typedef struct ngx_http_tenant_space_s  ngx_http_tenant_space_t;

struct ngx_http_tenant_space_s {
    ngx_http_tenant_ctx_t      ctx;
    ngx_http_tenant_space_t   *next;
    u_char                     memory[NGX_HTTP_TENANT_MEMORY];
};


static void ngx_http_tenant_cleanup(void *data);


/* This worker's. */
static ngx_http_tenant_space_t  *ngx_http_tenant_free;
static ngx_uint_t                ngx_http_tenant_nfree;


ngx_http_tenant_ctx_t *
ngx_http_tenant_create_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t       *cln;
    ngx_http_tenant_ctx_t    *ctx;
    ngx_http_tenant_space_t  *space;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    space = ngx_http_tenant_free;

    if (space) {
        ngx_http_tenant_free = space->next;
        ngx_http_tenant_nfree--;

    } else {
        space = ngx_alloc(sizeof(ngx_http_tenant_space_t), r->connection->log);
        if (space == NULL) {
            return NULL;
        }
    }

    ctx = &space->ctx;
    ngx_memzero(ctx, sizeof(ngx_http_tenant_ctx_t));

    ctx->request = r->main;
    ctx->pos = space->memory;
    ctx->last = space->memory + NGX_HTTP_TENANT_MEMORY;
    ngx_queue_insert_tail(&ngx_http_tenant_requests, &ctx->queue);

    cln->handler = ngx_http_tenant_cleanup;
    cln->data = ctx;
    ngx_http_set_ctx(r->main, ctx, ngx_http_tenant_module);

    return ctx;
}


static void
ngx_http_tenant_cleanup(void *data)
{
    ngx_http_tenant_ctx_t        *ctx = data;
    ngx_http_tenant_space_t      *space;
    ngx_http_tenant_main_conf_t  *tmcf;

    ngx_queue_remove(&ctx->queue);
    ngx_http_tenant_wait_cancel(ctx);

    if (ctx->pin && ngx_http_tenant_slot != -1) {
        tmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                                   ngx_http_tenant_module);
        tg_zone_unpin(tmcf->zone, ngx_http_tenant_slot, ctx->pin);
    }

    space = (ngx_http_tenant_space_t *) ctx;

    if (ngx_http_tenant_nfree == NGX_HTTP_TENANT_FREE) {
        ngx_free(space);
        return;
    }

    space->next = ngx_http_tenant_free;
    ngx_http_tenant_free = space;
    ngx_http_tenant_nfree++;
}


ngx_http_tenant_ctx_t *
ngx_http_tenant_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t     *cln;
    ngx_http_tenant_ctx_t  *ctx;

    r = r->main;
    ctx = ngx_http_get_module_ctx(r, ngx_http_tenant_module);

    if (ctx || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    /* an internal redirect has wiped the contexts */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_tenant_cleanup) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_tenant_module);
            break;
        }
    }

    return ctx;
}


void *
ngx_http_tenant_alloc(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    size_t size)
{
    u_char  *p;

    size = ngx_align(size, NGX_ALIGNMENT);

    if (ctx == NULL || (size_t) (ctx->last - ctx->pos) < size) {
        return ngx_palloc(r->main->pool, size);
    }

    p = ctx->pos;
    ctx->pos += size;

    return p;
}
