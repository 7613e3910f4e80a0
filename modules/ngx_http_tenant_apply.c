/* SPDX-License-Identifier: BSD-2-Clause */

/* From an event of the stream or of the snapshot to the zone. */

#include "ngx_http_tenant_sync.h"

#include "../lib/tg_compile.h"


/* See ngx_http_tenant_apply().  The block is the caller's to free; NULL: the
 * document is refused. */
static tg_block_t *
ngx_http_tenant_apply_block(const tg_watch_event_t *event,
    tg_zone_status_e *status, tg_error_t *err)
{
    tg_block_t                   *block;
    const u_char                 *key;
    ngx_http_tenant_main_conf_t  *tmcf = ngx_http_tenant_sync.tmcf;

    key = tmcf->secret_key.len ? tmcf->secret_key.data : NULL;
    block = tg_compile_json(event->object, event->kind, key, err);

    if (block == NULL) {
        return NULL;
    }

    ngx_http_tenant_sync_lock();
    *status = tg_zone_put(ngx_http_tenant_sync.zone, block);
    ngx_http_tenant_counts_restore_locked(block);
    ngx_http_tenant_sync_unlock();

    if (*status == TG_ZONE_INVALID) {
        tg_compile_free(block);
        tg_error_set(err, "", "the compiled block is invalid");
        return NULL;
    }

    return block;
}


ngx_int_t
ngx_http_tenant_apply(const tg_watch_event_t *event, tg_zone_status_e *status,
    tg_error_t *err)
{
    tg_block_t  *block;

    block = ngx_http_tenant_apply_block(event, status, err);

    if (block == NULL) {
        return NGX_DECLINED;
    }

    tg_compile_free(block);

    return NGX_OK;
}


/* Applies a line of the stream.  NGX_DECLINED: see ngx_http_tenant_apply(). */
static ngx_int_t
ngx_http_tenant_apply_line(const tg_watch_event_t *event, const char *line,
    size_t len, tg_error_t *err)
{
    tg_block_t        *block;
    tg_zone_status_e   status;

    block = ngx_http_tenant_apply_block(event, &status, err);

    if (block == NULL) {
        return NGX_DECLINED;
    }

    if (status == TG_ZONE_FULL) {
        ngx_http_tenant_reject_no_room(event);

    } else {
        ngx_http_tenant_reject_clear(event->kind, event->name, event->revision);
    }

    if (status == TG_ZONE_OK) {
        /* those of the snapshot are found when the stream is begun */
        ngx_http_tenant_handover_put(block);
    }

    tg_compile_free(block);
    ngx_http_tenant_snapshot_line(event, line, len);

    return NGX_OK;
}


/* A tenant must not escape its suspension by what else its document says. */
static void
ngx_http_tenant_apply_suspension(const tg_watch_event_t *event)
{
    char              *line;
    tg_error_t         err;
    tg_watch_event_t   bare;

    line = tg_watch_suspension(event);
    if (line == NULL) {
        return;
    }

    if (tg_watch_parse(line, ngx_strlen(line), &bare, &err) == TG_WATCH_OK
        && ngx_http_tenant_apply_line(&bare, line, ngx_strlen(line), &err)
           == NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: \"%s\" is suspended without the rest of its "
                      "document, which is refused", event->name);
    }

    tg_watch_release(&bare);
    free(line);
}


void
ngx_http_tenant_apply_put(const tg_watch_event_t *event, const char *line,
    size_t len)
{
    tg_error_t  err;

    if (ngx_http_tenant_apply_line(event, line, len, &err) == NGX_DECLINED) {
        ngx_http_tenant_apply_suspension(event);
        ngx_http_tenant_reject_document(event, &err);
    }
}


void
ngx_http_tenant_apply_delete(const tg_watch_event_t *event, const char *line,
    size_t len)
{
    ngx_http_tenant_sync_lock();
    (void) tg_zone_delete(ngx_http_tenant_sync.zone, event->kind, event->name,
                          ngx_strlen(event->name), event->id, event->revision);
    ngx_http_tenant_sync_unlock();

    ngx_http_tenant_reject_clear(event->kind, event->name, event->revision);
    ngx_http_tenant_snapshot_line(event, line, len);
}
