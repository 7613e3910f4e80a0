/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files that deal with usage share.
 *
 *     usage_module       counts each request when it is logged
 *     report             visits what was counted, sends it to tenantd
 *     series             which tenants have series in /metrics
 *     counts             calendar counts, on disk
 */

#ifndef NGX_HTTP_TENANT_USAGE_H
#define NGX_HTTP_TENANT_USAGE_H

#include "ngx_http_tenant_sync.h"

#include "../lib/tg_quota.h"


/* --- series --- */

void ngx_http_tenant_series_start(void);
void ngx_http_tenant_series_stop(void);

/* This tenant was counted lately. */
void ngx_http_tenant_series_touch(const tg_block_t *block);


/* --- counts --- */

/* Goes on where the last leader ended, or reads what there is to restore. */
void ngx_http_tenant_counts_start(void);
void ngx_http_tenant_counts_stop(void);

/* Before the last sweep: a file that was to be written anew still is. */
void ngx_http_tenant_counts_last(void);

/* Notes the calendar counts of a tenant. */
void ngx_http_tenant_counts_save(const tg_block_t *block,
    const tg_quota_now_t *now);

/* A zone starts empty: counts of the tenants that are put come from the file, until
 * the end.  enabled: the file is ours to write. */
void ngx_http_tenant_counts_restore_begin(const ngx_str_t *path);
void ngx_http_tenant_counts_restore_end(ngx_uint_t enabled);
void ngx_http_tenant_counts_restore_stop(void);

/* The file is ours from now on: adds what another master has written since it was
 * read.  What is put later is restored from it as it is now. */
void ngx_http_tenant_counts_catch_up(void);

/* The same also where nothing is counted any more: what the file has is gone. */
void ngx_http_tenant_counts_replace(const tg_block_t *block,
    const tg_quota_now_t *now);

/* All that was touched has been visited. */
void ngx_http_tenant_counts_swept(void);

/* Once a second.  stuck: reports do not arrive, so nobody visits; between: no
 * sweep is under way, and one will begin. */
void ngx_http_tenant_counts_tick(ngx_uint_t stuck, ngx_uint_t between);


/* Time for tg_quota.h, not cached. */
static ngx_inline tg_quota_now_t
ngx_http_tenant_quota_now(void)
{
    tg_quota_now_t  now;

    now.mono_us = ngx_http_tenant_now_us();
    now.unix_s = (uint64_t) ngx_time();

    return now;
}


#endif /* NGX_HTTP_TENANT_USAGE_H */
