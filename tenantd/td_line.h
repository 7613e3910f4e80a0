/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A line of the watch stream, written once and shared by every stream that it
 * goes to, and the view that a gateway has.  docs/reference/watch.md is the
 * contract.
 */

#ifndef TD_LINE_H
#define TD_LINE_H

#include <stddef.h>
#include <stdint.h>

#include <event2/buffer.h>

#define TD_LINE_MAX  (4 * 1024 * 1024)

typedef enum {
    TD_KIND_ISSUER,
    TD_KIND_TENANT,
    TD_KIND_MESH_NODE,
    TD_KIND_MESH_AGENT,
    TD_KIND_MESH_TENANT,
    TD_KIND_MESH_WORKLOAD,
    TD_KIND_MESH_SERVICE
} td_line_kind_e;

typedef struct {
    const char  *kind;              /* "issuer", "tenant", "mesh_node" ... */
    const char  *name;
    int64_t      id;
    int64_t      revision;
    int64_t      object_revision;   /* how new the document is */
    int          shared;            /* a tenant that shared gateways see */
    const char  *document;          /* NULL: DELETE */
    const char  *shared_document;   /* what they get instead, or NULL */
    int64_t      mesh_tenant;       /* number of the tenant whose mesh object it
                                       is; 0: nobody's */
} td_line_source_t;

typedef struct td_line_s  td_line_t;

struct td_line_s {
    unsigned         refs;
    td_line_kind_e   kind;
    int              put;
    int              shared;
    int64_t          id;
    int64_t          revision;
    int64_t          object_revision;
    int64_t          mesh_tenant;
    td_line_t       *removal;       /* the same as DELETE, once it was needed */
    td_line_t       *forward;       /* the same for shared gateways, if it differs */
    char            *name;
    size_t           len;
    char             data[];        /* the line with its newline, then the name */
};

typedef enum {
    TD_VIEW_SHARED,         /* issuers, and every tenant of shared tiers */
    TD_VIEW_DEDICATED,      /* issuers, and one tenant */
    TD_VIEW_AGENT           /* mesh objects of its tenants */
} td_view_kind_e;

/*
 * What a gateway may see.  It is ids and numbers that count: another tenant may
 * have had the name, or come to have it.
 */
typedef struct {
    td_view_kind_e   kind;
    int64_t          id;        /* of the tenant, or of the agent's node */
    int64_t         *numbers;   /* of an agent's tenants, ascending; allocated */
    size_t           n_numbers;
    int              all;       /* tenants, whatever numbers says */
} td_view_t;

/*
 * Reads a view as tiergate.watch_view() tells it: kind, id, and numbers as an
 * array of PostgreSQL ("{1,5}"), NULL for all.  Returns 0, or -1: no memory; the
 * view is then one that sees nothing.
 */
int td_view_parse(td_view_t *view, const char *kind, int64_t id,
    const char *numbers);

void td_view_free(td_view_t *view);
int td_view_copy(td_view_t *to, const td_view_t *from);
int td_view_equal(const td_view_t *a, const td_view_t *b);

/* A line with one reference.  NULL: no memory, or longer than TD_LINE_MAX; so for
 * each of its documents. */
td_line_t *td_line_create(const td_line_source_t *source);

td_line_t *td_line_ref(td_line_t *line);
void td_line_unref(td_line_t *line);

/* Bytes of the line in all its forms. */
size_t td_line_size(const td_line_t *line);

/* Adds the line to a buffer without copying it. */
void td_line_add(td_line_t *line, struct evbuffer *buffer);

/*
 * Which line a gateway with this view gets for line: itself, its form for shared
 * gateways, a DELETE for what is not, or no longer, in its view, or NULL for what
 * is none of its business.  Borrowed.
 */
td_line_t *td_line_seen(td_line_t *line, const td_view_t *view);

/*
 * A line for somebody who already has everything up to revision "at", when line
 * itself is of at or before but its object may have changed since: the same at
 * revision at + 1.  Returns NULL if there is nothing new in it (or no memory),
 * else a line with one reference.
 */
td_line_t *td_line_after(const td_line_t *line, int64_t at);

/* Adds a BOOKMARK; complete: it ends a list. */
void td_line_bookmark(struct evbuffer *buffer, int64_t revision, int complete);

#endif /* TD_LINE_H */
