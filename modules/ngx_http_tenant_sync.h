/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How a gateway stays in step with the registry.  One process does it, the
 * leader: the worker 0 that holds shared->leader.  A worker 0 of a new cycle
 * waits until the old one gives that up or is gone, so at each instant at most
 * one process reads the watch stream, writes the snapshot file and reports.
 *
 *     sync_conf      directives
 *     sync_module    leadership, the tick of a second, readiness
 *     watch          the stream: connects, reads lines, resumes
 *     apply          from an event to the zone
 *     reject         objects that stay at their last good state
 *     ack            tells tenantd what was applied
 *     handover       tells tenantd what a tenant that moves has used
 *     snapshot       the file that a gateway starts from without tenantd
 *     usage_module   counts requests, reports what was counted
 *     metrics        /metrics
 */

#ifndef NGX_HTTP_TENANT_SYNC_H
#define NGX_HTTP_TENANT_SYNC_H

#include "ngx_http_tenant.h"
#include "ngx_http_tenant_client.h"
#include "ngx_http_tenant_file.h"

#include "../lib/tg_usage.h"
#include "../lib/tg_watch.h"


#define NGX_HTTP_TENANT_REJECTED  100       /* that an ack may name */
#define NGX_HTTP_TENANT_WORKERS   64        /* with counters of their own */
#define NGX_HTTP_TENANT_SERIES_MAX  10000   /* tenants in /metrics */
#define NGX_HTTP_TENANT_MOVED     256       /* hand-overs that are remembered */


typedef enum {
    NGX_HTTP_TENANT_SYNC_NONE = 0,  /* waits for a worker to lead */
    NGX_HTTP_TENANT_SYNC_SNAPSHOT,  /* reads the file; waits for its next slice */
    NGX_HTTP_TENANT_SYNC_BACKOFF,   /* waits for the time to connect */
    NGX_HTTP_TENANT_SYNC_CONNECT,   /* waits for the head of the response */
    NGX_HTTP_TENANT_SYNC_LIST,      /* waits for the end of the list */
    NGX_HTTP_TENANT_SYNC_FOLLOW,    /* live: waits for changes */
    NGX_HTTP_TENANT_SYNC_OFF        /* no tenant_source: waits for nothing */
} ngx_http_tenant_sync_state_e;


typedef struct {
    int             kind;           /* tg_kind_e; 0: the line does not say */
    char            name[TG_MAX_NAME + 1];
    uint64_t        revision;
    uint64_t        stream;         /* shared->connects when it was refused */
    ngx_uint_t      full;           /* for want of room in the zone */
    ngx_uint_t      skipped;        /* the line failed twice: it stays */
    char            reason[200];
} ngx_http_tenant_rejected_t;


/* One worker's: no other writes to these cache lines. */
typedef struct {
    _Alignas(NGX_CPU_CACHE_LINE)
    uint64_t        pid;            /* 0: none, or it has ended */
    tg_counters_t   total;
    uint64_t        refused[NGX_HTTP_TENANT_REFUSALS];
} ngx_http_tenant_worker_t;


/* A hand-over that was reported, or is not waited for. */
typedef struct {
    uint64_t        tenant;         /* id */
    uint64_t        id;             /* of the hand-over */
} ngx_http_tenant_moved_t;


/* A tenant with series of its own in /metrics. */
typedef struct {
    char            name[TG_MAX_NAME + 1];
    uint64_t        id;
    time_t          touched;
} ngx_http_tenant_series_t;


/*
 * In shared memory of its own, so that it survives reloads and workers.  The
 * leader writes, under shpool->mutex where more than one word changes; the
 * workers' counters are theirs.
 */
typedef struct {
    uint64_t        leader;         /* pid; 0: nobody */
    uint64_t        beat;           /* ms, CLOCK_MONOTONIC: the leader is well */
    uint8_t         boot[16];       /* life of the zone that all this is about */

    uint64_t        state;          /* ngx_http_tenant_sync_state_e */
    uint64_t        loaded;         /* the zone is complete, even if empty */
    uint64_t        settled;        /* and tenantd was asked what came since, or
                                     * does not answer */
    char            registry[37];   /* of what is in the zone; "": unknown */
    char            gateway[TG_SNAPSHOT_GATEWAY + 1];   /* that it was sent for */

    uint64_t        bookmark;       /* revision of the last one */
    uint64_t        last_line;      /* ms, CLOCK_MONOTONIC; 0: never */
    uint64_t        connects;
    uint64_t        lines[4];       /* by tg_watch_type_e */
    uint64_t        refused;
    uint64_t        lists;
    uint64_t        acks[2];        /* ok, failed */
    uint64_t        reports[2];
    uint64_t        handovers[2];

    uint64_t        nmoved;
    ngx_http_tenant_moved_t  moved[NGX_HTTP_TENANT_MOVED];

    /* the files as the leader left them, so that the next one need not read
     * them */
    ngx_http_tenant_file_mark_t  snapshot;
    ngx_http_tenant_file_mark_t  counts;
    uint64_t        file_fresh;     /* ms, CLOCK_MONOTONIC: snapshot was up to
                                     * date */
    uint64_t        file_failures;

    uint64_t        nrejected;
    ngx_http_tenant_rejected_t  rejected[NGX_HTTP_TENANT_REJECTED];

    ngx_http_tenant_worker_t    worker[NGX_HTTP_TENANT_WORKERS];

    uint64_t        nseries;
    uint64_t        omitted;        /* tenants that found no room */
    ngx_http_tenant_series_t    series[];
} ngx_http_tenant_shared_t;


typedef struct {
    ngx_shm_zone_t            *shm_zone;
    ngx_slab_pool_t           *shpool;
    ngx_http_tenant_shared_t  *shared;
    ngx_msec_t                 snapshot_interval;
    ngx_uint_t                 metrics_tenants;
    ngx_uint_t                 content;     /* tenant_ready or tenant_metrics */
} ngx_http_tenant_sync_conf_t;


/* The leader's. */
typedef struct {
    ngx_http_tenant_main_conf_t  *tmcf;
    ngx_http_tenant_sync_conf_t  *conf;
    ngx_http_tenant_shared_t     *shared;
    tg_zone_t                    *zone;
    ngx_log_t                    *log;
    unsigned                      leading:1;
} ngx_http_tenant_sync_t;

extern ngx_http_tenant_sync_t  ngx_http_tenant_sync;


/* --- ngx_http_tenant_sync_conf.c --- */

void *ngx_http_tenant_sync_create_conf(ngx_conf_t *cf);

/* Setters of tenant_source, tenant_snapshot and tenant_secret_key. */
char *ngx_http_tenant_source(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_tenant_snapshot_path(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_tenant_secret_key(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* --- ngx_http_tenant_sync_module.c --- */

/* Of the current cycle; NULL: no tenant_zone. */
ngx_http_tenant_sync_conf_t *ngx_http_tenant_sync_conf(void);

/* "live", "snapshot" or "loading". */
const char *ngx_http_tenant_sync_state_name(
    const ngx_http_tenant_shared_t *shared, const tg_zone_t *zone);

void ngx_http_tenant_sync_set_state(ngx_http_tenant_sync_state_e state);

/* The worker is shutting down: ends what it does as a leader. */
void ngx_http_tenant_sync_stop(void);

/* A client of this worker with url and token of tenant_source. */
void ngx_http_tenant_sync_client(ngx_http_tenant_client_t *client,
    const char *what, const ngx_http_tenant_client_handler_t *handler);

/* The registry zone's writer lock. */
void ngx_http_tenant_sync_lock(void);
void ngx_http_tenant_sync_unlock(void);

/* The lock of what is in shared. */
void ngx_http_tenant_shared_lock(ngx_http_tenant_sync_conf_t *conf);
void ngx_http_tenant_shared_unlock(ngx_http_tenant_sync_conf_t *conf);

/* An event with no connection of its own, called with data. */
void ngx_http_tenant_event_init(ngx_event_t *ev, ngx_connection_t *dumb,
    void (*handler)(ngx_event_t *ev), void *data);

/* Makes text fit for the log: one line, printable. */
void ngx_http_tenant_printable(char *s);

/* Microseconds and milliseconds of CLOCK_MONOTONIC, not cached. */
uint64_t ngx_http_tenant_now_us(void);

static ngx_inline uint64_t
ngx_http_tenant_now_ms(void)
{
    return ngx_http_tenant_now_us() / 1000;
}


/* --- watch --- */

void ngx_http_tenant_watch_start(void);
void ngx_http_tenant_watch_stop(void);

/* Connects anew, and asks for a whole list. */
void ngx_http_tenant_watch_relist(void);

/* Connects anew, from where the snapshot file ends. */
void ngx_http_tenant_watch_resume(void);

/* Newest revision that is applied. */
uint64_t ngx_http_tenant_watch_applied(void);


/* --- apply --- */

/* Puts the object of a PUT into the zone, unless it is full: then it stays as it
 * is.  NGX_DECLINED: its document is refused, and err says why. */
ngx_int_t ngx_http_tenant_apply(const tg_watch_event_t *event,
    tg_zone_status_e *status, tg_error_t *err);

/* The same for a line of the stream, and its deletions; with what belongs to it:
 * the snapshot, and the list of what is rejected. */
void ngx_http_tenant_apply_put(const tg_watch_event_t *event, const char *line,
    size_t len);
void ngx_http_tenant_apply_delete(const tg_watch_event_t *event,
    const char *line, size_t len);


/* --- reject --- */

void ngx_http_tenant_reject(const tg_watch_event_t *event, ngx_uint_t full,
    ngx_uint_t skipped, const char *reason);

/* The document of a PUT is refused, or finds no room in the zone: the object
 * stays as it is, and is not dropped at the end of a list. */
void ngx_http_tenant_reject_document(const tg_watch_event_t *event,
    tg_error_t *err);
void ngx_http_tenant_reject_no_room(const tg_watch_event_t *event);

/* The object is at its newest state, or gone. */
void ngx_http_tenant_reject_clear(int kind, const char *name,
    uint64_t revision);

/* A BOOKMARK: lines without a name that did not fail again are forgotten; at the
 * end of a list everything that this stream did not refuse. */
void ngx_http_tenant_reject_bookmark(ngx_uint_t complete);

/* True if some object waits for room in the zone. */
ngx_uint_t ngx_http_tenant_reject_full(void);

/* The list as a JSON array. */
void ngx_http_tenant_reject_json(tg_text_t *text);


/* --- ack --- */

void ngx_http_tenant_ack_start(void);
void ngx_http_tenant_ack_stop(void);

/* Something that an ack tells has changed. */
void ngx_http_tenant_ack_update(void);

/* The stream is back: no reason to wait before the next one. */
void ngx_http_tenant_ack_live(void);


/* --- handover --- */

void ngx_http_tenant_handover_start(void);
void ngx_http_tenant_handover_stop(void);

/* A version has been published. */
void ngx_http_tenant_handover_put(const tg_block_t *block);


/* --- snapshot --- */

/* Takes the file over: finds its revision and, when the zone is empty, loads it.
 * Calls done() when that is finished, in a later event or at once. */
void ngx_http_tenant_snapshot_start(void (*done)(void));
void ngx_http_tenant_snapshot_stop(void);

/* Revision up to which the file is complete; 0: there is no good file. */
uint64_t ngx_http_tenant_snapshot_revision(void);

/* True when the file is to follow the stream. */
ngx_uint_t ngx_http_tenant_snapshot_enabled(void);

/* A list begins, and is complete. */
void ngx_http_tenant_snapshot_list(const char *registry);
void ngx_http_tenant_snapshot_listed(uint64_t revision);

/* The stream's lines, in their order. */
void ngx_http_tenant_snapshot_line(const tg_watch_event_t *event,
    const char *line, size_t len);
void ngx_http_tenant_snapshot_bookmark(uint64_t revision);

void ngx_http_tenant_snapshot_tick(void);


/* --- usage --- */

void ngx_http_tenant_usage_start(void);
void ngx_http_tenant_usage_stop(void);
void ngx_http_tenant_usage_tick(void);

/* Has everything told again: a report may have been lost with its sender. */
void ngx_http_tenant_usage_again(void);

/* The last worker of all ends: reports, and saves, what is left.  Waits for
 * tenantd, but not long. */
void ngx_http_tenant_usage_last(ngx_cycle_t *cycle);

/* Calendar counts of a tenant that an empty zone was given: from the disk.  The
 * caller holds the zone's lock. */
void ngx_http_tenant_counts_restore_locked(const tg_block_t *image);

/* The zone is loaded: counts may be written. */
void ngx_http_tenant_counts_loaded(void);

/* tenantd has told what came since the snapshot: nothing more to restore. */
void ngx_http_tenant_counts_restored(void);


/* --- metrics --- */

ngx_int_t ngx_http_tenant_metrics_handler(ngx_http_request_t *r);

/* Makes handler answer in a location, which no tenant is then asked for. */
char *ngx_http_tenant_sync_content(ngx_conf_t *cf, ngx_http_handler_pt handler);

/* What content handlers here answer GET and HEAD with; frees text. */
ngx_int_t ngx_http_tenant_send_text(ngx_http_request_t *r, ngx_uint_t status,
    const char *type, tg_text_t *text);


#endif /* NGX_HTTP_TENANT_SYNC_H */
