/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The objects that stay at their last good state because their newest one was
 * refused.  The list is in shared memory: it outlives the worker that made it.
 */

#include "ngx_http_tenant_sync.h"


static ngx_http_tenant_rejected_t *
ngx_http_tenant_reject_find(int kind, const char *name)
{
    ngx_uint_t                 i;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    for (i = 0; i < shared->nrejected; i++) {
        if (shared->rejected[i].kind == kind
            && ngx_strcmp(shared->rejected[i].name, name) == 0)
        {
            return &shared->rejected[i];
        }
    }

    return NULL;
}


void
ngx_http_tenant_reject(const tg_watch_event_t *event, ngx_uint_t full,
    ngx_uint_t skipped, const char *reason)
{
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_rejected_t  *rejected;

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    shared->refused++;
    rejected = ngx_http_tenant_reject_find(event->kind, event->name);

    if (rejected == NULL && shared->nrejected < NGX_HTTP_TENANT_REJECTED) {
        rejected = &shared->rejected[shared->nrejected];
        ngx_memzero(rejected, sizeof(ngx_http_tenant_rejected_t));
        rejected->kind = event->kind;
        ngx_memcpy(rejected->name, event->name, sizeof(rejected->name));
        shared->nrejected++;
    }

    if (rejected) {
        rejected->revision = event->revision;
        rejected->stream = shared->connects;
        rejected->full = full;
        rejected->skipped = skipped;
        (void) ngx_cpystrn((u_char *) rejected->reason, (u_char *) reason,
                           sizeof(rejected->reason));
    }

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    ngx_http_tenant_ack_update();
}


void
ngx_http_tenant_reject_document(const tg_watch_event_t *event,
    tg_error_t *err)
{
    char  reason[sizeof(err->message) + sizeof(err->pointer) + 32];

    (void) snprintf(reason, sizeof(reason), "%s%s%s", err->message,
                    err->pointer[0] ? " at " : "", err->pointer);
    ngx_http_tenant_printable(reason);

    ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                  "tenant: %s \"%s\" stays as it is, revision %uL is refused: "
                  "%s", tg_watch_kind_name(event->kind), event->name,
                  event->revision, reason);

    ngx_http_tenant_reject(event, 0, 0, reason);

    ngx_http_tenant_sync_lock();
    tg_zone_keep(ngx_http_tenant_sync.zone, event->kind, event->name,
                 ngx_strlen(event->name), event->id);
    ngx_http_tenant_sync_unlock();
}


void
ngx_http_tenant_reject_no_room(const tg_watch_event_t *event)
{
    char             reason[128];
    static time_t    logged;
    tg_zone_stats_t  stats;

    tg_zone_stats(ngx_http_tenant_sync.zone, &stats);

    (void) snprintf(reason, sizeof(reason),
                    "zone full: %llu of %llu bytes are used, make tenant_zone "
                    "larger", (unsigned long long) stats.used,
                    (unsigned long long) stats.size);

    ngx_http_tenant_reject(event, 1, 0, reason);

    /* a list can bring thousands: say it once a second */

    if (logged != ngx_time()) {
        logged = ngx_time();
        ngx_log_error(NGX_LOG_ERR, ngx_http_tenant_sync.log, 0,
                      "tenant: %s \"%s\" stays as it is, revision %uL is "
                      "refused: %s", tg_watch_kind_name(event->kind),
                      event->name, event->revision, reason);
    }
}


/* Closes the gap that an entry leaves. */
static void
ngx_http_tenant_reject_drop(ngx_http_tenant_rejected_t *rejected)
{
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    *rejected = shared->rejected[shared->nrejected - 1];
    shared->nrejected--;
}


void
ngx_http_tenant_reject_clear(int kind, const char *name, uint64_t revision)
{
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_rejected_t  *rejected;

    if (shared->nrejected == 0) {
        return;
    }

    rejected = ngx_http_tenant_reject_find(kind, name);

    if (rejected == NULL || rejected->revision > revision) {
        return;
    }

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);
    ngx_http_tenant_reject_drop(rejected);
    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    ngx_http_tenant_ack_update();
}


void
ngx_http_tenant_reject_bookmark(ngx_uint_t complete)
{
    ngx_uint_t                   i, before;
    ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;
    ngx_http_tenant_rejected_t  *rejected;

    if (shared->nrejected == 0) {
        return;
    }

    ngx_http_tenant_shared_lock(ngx_http_tenant_sync.conf);

    before = shared->nrejected;

    for (i = 0; i < shared->nrejected; /* void */ ) {
        rejected = &shared->rejected[i];

        if (rejected->stream != shared->connects
            && (complete || (rejected->kind == 0 && !rejected->skipped)))
        {
            ngx_http_tenant_reject_drop(rejected);
            continue;
        }

        i++;
    }

    ngx_http_tenant_shared_unlock(ngx_http_tenant_sync.conf);

    if (shared->nrejected != before) {
        ngx_http_tenant_ack_update();
    }
}


ngx_uint_t
ngx_http_tenant_reject_full(void)
{
    ngx_uint_t                 i;
    ngx_http_tenant_shared_t  *shared = ngx_http_tenant_sync.shared;

    for (i = 0; i < shared->nrejected; i++) {
        if (shared->rejected[i].full) {
            return 1;
        }
    }

    return 0;
}


void
ngx_http_tenant_reject_json(tg_text_t *text)
{
    ngx_uint_t                         i;
    const ngx_http_tenant_shared_t    *shared = ngx_http_tenant_sync.shared;
    const ngx_http_tenant_rejected_t  *rejected;

    for (i = 0; i < shared->nrejected; i++) {
        rejected = &shared->rejected[i];

        tg_text_str(text, i ? ",{\"kind\":\"" : "[{\"kind\":\"");
        tg_text_str(text, tg_watch_kind_name(rejected->kind));
        tg_text_str(text, "\",\"name\":");
        tg_text_json(text, rejected->name, ngx_strlen(rejected->name));
        tg_text_str(text, ",\"revision\":");
        tg_text_u64(text, rejected->revision);
        tg_text_str(text, ",\"reason\":");
        tg_text_json(text, rejected->reason, ngx_strlen(rejected->reason));
        tg_text_str(text, "}");
    }

    tg_text_str(text, i ? "]" : "[]");
}
