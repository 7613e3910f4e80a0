/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which tenants have series of their own in /metrics: those that came first,
 * until they have not been counted for a while and others want their place.  So
 * the size of a scrape is bounded, and the series of a busy tenant do not come
 * and go.  The names are in shared memory, where any worker finds them.
 */

#include "ngx_http_tenant_usage.h"


#define NGX_HTTP_TENANT_SERIES_IDLE  600    /* s: then the place can be taken */


typedef struct {
    uint32_t    *table;         /* by id: index in series plus one; 0: free */
    size_t       mask;
    uint8_t     *omitted;       /* bits, by dense number of the tenant */
    size_t       nomitted;      /* bytes */
    time_t       omitted_since;
    time_t       full_until;    /* no place will be free before */
} ngx_http_tenant_series_index_t;


static ngx_http_tenant_series_index_t  ngx_http_tenant_series;


static uint32_t *
ngx_http_tenant_series_place(uint64_t id)
{
    size_t                           i;
    ngx_http_tenant_shared_t        *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    for (i = (id * 0x9e3779b97f4a7c15) >> 20; /* void */ ; i++) {
        if (index->table[i & index->mask] == 0
            || shared->series[index->table[i & index->mask] - 1].id == id)
        {
            return &index->table[i & index->mask];
        }
    }
}


static void
ngx_http_tenant_series_rebuild(void)
{
    ngx_uint_t                       i;
    ngx_http_tenant_shared_t        *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    ngx_memzero(index->table, (index->mask + 1) * sizeof(uint32_t));

    for (i = 0; i < shared->nseries; i++) {
        *ngx_http_tenant_series_place(shared->series[i].id) = i + 1;
    }
}


void
ngx_http_tenant_series_start(void)
{
    size_t                           size;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    ngx_memzero(index, sizeof(ngx_http_tenant_series_index_t));

    for (size = 16;
         size < 2 * ngx_http_tenant_sync.conf->metrics_tenants;
         size *= 2)
    {
        /* void */
    }

    index->table = ngx_alloc(size * sizeof(uint32_t), ngx_http_tenant_sync.log);

    if (index->table) {
        index->mask = size - 1;
        ngx_http_tenant_series_rebuild();
    }
}


void
ngx_http_tenant_series_stop(void)
{
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    ngx_free(index->table);
    ngx_free(index->omitted);
    index->table = NULL;
    index->omitted = NULL;
}


/* Drops those that were not counted for long; where none is, says until when. */
static void
ngx_http_tenant_series_evict(void)
{
    time_t                           oldest;
    ngx_uint_t                       i, n;
    ngx_http_tenant_shared_t        *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    oldest = ngx_time();
    n = 0;

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    for (i = 0; i < shared->nseries; i++) {
        if (shared->series[i].touched + NGX_HTTP_TENANT_SERIES_IDLE
            > ngx_time())
        {
            oldest = ngx_min(oldest, shared->series[i].touched);
            shared->series[n++] = shared->series[i];
        }
    }

    shared->nseries = n;

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    ngx_http_tenant_series_rebuild();
    index->full_until = oldest + NGX_HTTP_TENANT_SERIES_IDLE;
}


/* Counts the tenants without room, each once in a while. */
static void
ngx_http_tenant_series_omit(uint32_t slot)
{
    size_t                           size;
    uint8_t                         *bits;
    ngx_http_tenant_shared_t        *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    if (index->omitted_since + NGX_HTTP_TENANT_SERIES_IDLE < ngx_time()) {
        if (index->omitted) {
            ngx_memzero(index->omitted, index->nomitted);
        }

        index->omitted_since = ngx_time();
        shared->omitted = 0;
    }

    if (slot / 8 >= index->nomitted) {
        size = ngx_max(slot / 8 + 1, 2 * index->nomitted);
        bits = realloc(index->omitted, size);

        if (bits == NULL) {
            return;
        }

        ngx_memzero(bits + index->nomitted, size - index->nomitted);
        index->omitted = bits;
        index->nomitted = size;
    }

    if (!(index->omitted[slot / 8] & 1 << slot % 8)) {
        index->omitted[slot / 8] |= 1 << slot % 8;
        shared->omitted++;
    }
}


void
ngx_http_tenant_series_touch(const tg_block_t *block)
{
    uint32_t                        *place;
    ngx_http_tenant_series_t        *series;
    ngx_http_tenant_shared_t        *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_series_index_t  *index = &ngx_http_tenant_series;

    if (index->table == NULL) {
        return;
    }

    place = ngx_http_tenant_series_place(block->id);

    if (*place) {
        shared->series[*place - 1].touched = ngx_time();
        return;
    }

    if (shared->nseries == ngx_http_tenant_sync.conf->metrics_tenants
        && shared->nseries && ngx_time() >= index->full_until)
    {
        ngx_http_tenant_series_evict();
        place = ngx_http_tenant_series_place(block->id);
    }

    if (shared->nseries >= ngx_http_tenant_sync.conf->metrics_tenants) {
        ngx_http_tenant_series_omit(block->slot);
        return;
    }

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    series = &shared->series[shared->nseries];
    series->id = block->id;
    series->touched = ngx_time();
    (void) ngx_cpystrn((u_char *) series->name,
                       (u_char *) tg_str(block, block->name),
                       sizeof(series->name));
    shared->nseries++;
    *place = shared->nseries;

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);
}
