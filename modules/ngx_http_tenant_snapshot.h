/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files that deal with the snapshot share.
 *
 *     snapshot           life, and how the file follows the stream
 *     snapshot_load      checks it and applies it to the zone
 *     snapshot_compact   writes it anew without what is superseded
 */

#ifndef NGX_HTTP_TENANT_SNAPSHOT_H
#define NGX_HTTP_TENANT_SNAPSHOT_H

#include "ngx_http_tenant_sync.h"


typedef enum {
    NGX_HTTP_TENANT_SNAPSHOT_OFF = 0,   /* none is configured */
    NGX_HTTP_TENANT_SNAPSHOT_LOCKED,    /* waits for another master's lock */
    NGX_HTTP_TENANT_SNAPSHOT_SCAN,      /* checks the file */
    NGX_HTTP_TENANT_SNAPSHOT_LOAD,      /* applies it to the zone */
    NGX_HTTP_TENANT_SNAPSHOT_READY,     /* follows the stream */
    NGX_HTTP_TENANT_SNAPSHOT_BEHIND,    /* waits to try writing again */
    NGX_HTTP_TENANT_SNAPSHOT_INDEX,     /* compacts: makes an index */
    NGX_HTTP_TENANT_SNAPSHOT_COPY,      /* compacts: copies the objects */
    NGX_HTTP_TENANT_SNAPSHOT_CATCH_UP   /* compacts: copies what came since */
} ngx_http_tenant_snapshot_phase_e;


typedef struct {
    ngx_http_tenant_snapshot_phase_e  phase;
    ngx_str_t                  path;
    ngx_str_t                  temporary;       /* path with ".tmp" */
    ngx_fd_t                   lock;            /* holds PATH.lock */

    ngx_http_tenant_file_t     live;            /* follows the stream */
    ngx_http_tenant_file_t     next;            /* list or compaction */
    unsigned                   listing:1;       /* next is a list */
    unsigned                   unnamed:1;       /* live has its temporary name */
    unsigned                   complained:1;    /* about the lock */
    unsigned                   cold:1;          /* the zone is empty */
    ngx_uint_t                 full;            /* objects without room */

    ngx_connection_t           dumb;
    ngx_event_t                work;            /* the next slice */
    ngx_http_tenant_reader_t  *reader;
    tg_snapshot_scan_t        *scan;
    tg_scan_result_t           result;
    const char                *damage;          /* NULL: none found */
    uint64_t                   damaged_at;      /* byte */
    size_t                     entry;           /* of the index, next */
    tg_text_t                  object;          /* its line */
    uint64_t                   started;         /* ms */

    void                     (*done)(void);

    ngx_msec_t                 flushed;
    time_t                     retry_at;
    time_t                     retry;
    time_t                     compact_at;      /* not before */
} ngx_http_tenant_snapshot_t;


extern ngx_http_tenant_snapshot_t  ngx_http_tenant_snapshot;


/* --- snapshot --- */

/* NGX_DECLINED: another process holds it. */
ngx_int_t ngx_http_tenant_snapshot_take_lock(void);

/* Ends what is being read or written beside the live file. */
void ngx_http_tenant_snapshot_release(void);

/* Writing failed: the file stays valid, but behind. */
void ngx_http_tenant_snapshot_failed(void);

/* Leaves to the next leader, in shared memory, how the file is. */
void ngx_http_tenant_snapshot_remember(void);

/* The live file is of no use. */
void ngx_http_tenant_snapshot_drop(void);

/* The new file is complete: it is the live one from now on. */
void ngx_http_tenant_snapshot_switch(void);


/* --- snapshot_load --- */

/* Begins to scan the file, for SCAN or INDEX, up to end. */
void ngx_http_tenant_snapshot_read(ngx_http_tenant_snapshot_phase_e phase,
    uint64_t end);

/* Goes on with the next slice in a later event. */
void ngx_http_tenant_snapshot_continue(void);

/* The handler of the work event: one slice. */
void ngx_http_tenant_snapshot_work(ngx_event_t *ev);

/* Reads the line of an entry of the index into .object. */
ngx_int_t ngx_http_tenant_snapshot_object(const tg_snapshot_entry_t *entry);


/* --- snapshot_compact --- */

/* Begins, if there is enough to gain. */
void ngx_http_tenant_snapshot_compact(void);

/* The index is made (good), or could not be. */
void ngx_http_tenant_snapshot_indexed(ngx_uint_t good);

/* A slice of COPY or CATCH_UP. */
void ngx_http_tenant_snapshot_compact_slice(uint64_t until);


#endif /* NGX_HTTP_TENANT_SNAPSHOT_H */
