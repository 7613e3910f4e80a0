/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A line of the watch stream as an agent gets it, docs/reference/mesh-document.md,
 * checked and as a struct.  Pure: no I/O, no state.  Members that are not known are
 * passed over; what is known must be right.
 */

#ifndef TD_AGENT_DOCUMENT_H
#define TD_AGENT_DOCUMENT_H

#include <stddef.h>
#include <stdint.h>

#include "td_table.h"
#include "tg_error.h"
#include "tg_mesh.h"

#define TD_DOC_NAME       63                    /* of a tenant, service, node */
#define TD_DOC_KEY        (2 * TD_DOC_NAME + 1) /* "tenant/service" */
#define TD_DOC_NUMBER     0x7fffffff
#define TD_DOC_ENDPOINTS  10000
#define TD_DOC_POLICIES   1000
#define TD_DOC_PORTS      16
#define TD_DOC_ADDRESSES  256
#define TD_DOC_CGROUP     1024
#define TD_DOC_WEIGHT     1000

/* In the order in which a batch brings them into force. */
typedef enum {
    TD_DOC_NONE,            /* of a later version of the stream: pass it over */
    TD_DOC_AGENT,
    TD_DOC_TENANT,
    TD_DOC_NODE,
    TD_DOC_WORKLOAD,
    TD_DOC_SERVICE,
    TD_DOC_KINDS
} td_doc_kind_e;

typedef struct {
    struct tg_addr  addr;
    uint32_t        prefix;     /* of 128 */
} td_doc_net_t;

typedef struct {
    td_doc_net_t  *item;
    size_t         n;
} td_doc_nets_t;

typedef enum {
    TD_SIDE_ANY,
    TD_SIDE_SERVICE,
    TD_SIDE_TENANT,
    TD_SIDE_NET
} td_side_e;

typedef struct {
    td_side_e     kind;
    uint32_t      number;
    td_doc_net_t  net;
} td_side_t;

typedef struct {
    td_link_t    link;          /* by number */
    const char  *name;
    uint32_t     number;
    uint32_t     precedence;
    int          deny;
    td_side_t    from;
    td_side_t    to;
    int          own_from;      /* the tenant itself may be this side */
    int          own_to;
    uint8_t      proto;         /* 0: any */
    uint16_t     ports[TD_DOC_PORTS];
    size_t       n_ports;       /* 0: any */
} td_doc_policy_t;

typedef struct {
    uint32_t          number;
    uint32_t          defaults; /* enum tg_default */
    td_doc_policy_t  *policies;
    size_t            n_policies;
} td_doc_tenant_t;

typedef struct {
    int64_t         id;
    struct tg_addr  addr;
    uint16_t        port;
    uint16_t        service_port;
    uint32_t        weight;
    int             healthy;
    const char     *node;       /* NULL: nobody checks it */
} td_doc_endpoint_t;

typedef enum {
    TD_CHECK_NONE,
    TD_CHECK_TCP,
    TD_CHECK_HTTP
} td_check_e;

typedef struct {
    td_check_e   type;
    const char  *path;
    uint16_t     port;          /* 0: the endpoint's */
    uint32_t     interval;      /* ms */
    uint32_t     timeout;
    uint32_t     rise;
    uint32_t     fall;
} td_doc_check_t;

typedef struct {
    uint16_t  port;
    uint8_t   proto;
} td_doc_port_t;

typedef struct {
    const char         *tenant;
    const char         *service;        /* the name alone */
    struct tg_who       who;
    td_doc_nets_t       addresses;      /* virtual ones */
    td_doc_port_t       ports[TD_DOC_PORTS];
    size_t              n_ports;
    struct tg_limit     limit;
    td_doc_check_t      check;
    td_doc_endpoint_t  *endpoints;
    size_t              n_endpoints;
} td_doc_service_t;

typedef struct {
    const char     *tenant;
    const char     *workload;           /* the name alone */
    struct tg_who   who;
    const char     *node;
    const char     *cgroup;             /* below the mount; NULL: none */
    const char     *pod;                /* uid, lower case; NULL: none */
    td_doc_nets_t   addresses;
    int             any_source;
} td_doc_workload_t;

typedef struct {
    td_doc_nets_t   addresses;
    td_doc_nets_t   nets;               /* its workloads' addresses come from */
} td_doc_node_t;

typedef struct {
    const char  *node;
    int          all;                   /* every tenant */
    uint32_t    *tenants;               /* numbers, ascending */
    size_t       n_tenants;
} td_doc_agent_t;

/* An object.  All in it lives as long as it does. */
typedef struct {
    td_link_t           link;           /* in the store, by kind and name */
    td_link_t           number_link;    /* of tenants and services */
    td_doc_kind_e       kind;
    int64_t             id;
    uint64_t            revision;       /* object.revision */
    char                name[TD_DOC_KEY + 1];
    int                 seen;           /* for the store */
    char               *line;           /* as it came */
    size_t              len;
    union {
        td_doc_agent_t      agent;
        td_doc_tenant_t     tenant;
        td_doc_node_t       node;
        td_doc_workload_t   workload;
        td_doc_service_t    service;
    };
    void               *memory;         /* of its parts */
} td_doc_t;

typedef enum {
    TD_EVENT_PUT,
    TD_EVENT_DELETE,
    TD_EVENT_BOOKMARK
} td_event_type_e;

typedef struct {
    td_event_type_e      type;
    td_doc_kind_e  kind;
    int64_t        id;
    uint64_t       revision;
    int            complete;            /* BOOKMARK: the end of a list */
    char           name[TD_DOC_KEY + 1];
    td_doc_t      *doc;                 /* PUT; the caller's */
} td_event_t;

typedef enum {
    TD_EVENT_OK,
    TD_EVENT_BAD_LINE,      /* not an event: damaged on its way, or hostile */
    TD_EVENT_BAD_OBJECT     /* an event, whose object cannot be used */
} td_event_status_e;

/*
 * Takes a line.  Unless it is TD_EVENT_OK err is set, and doc is NULL; with a bad
 * object the rest of event is good.
 */
td_event_status_e td_event_parse(const char *line, size_t len, td_event_t *event,
    tg_error_t *err);

void td_doc_free(td_doc_t *doc);

/* "mesh_tenant"; "" for TD_DOC_NONE. */
const char *td_doc_kind_name(td_doc_kind_e kind);

/* Lower-case letters, digits, -, . and _, at most TD_DOC_NAME: what may be a path's
 * component. */
int td_doc_is_name(const char *name);

/* An address alone, IPv4 mapped.  0, or -1. */
int td_doc_address(const char *text, struct tg_addr *addr);

int td_doc_is_ipv4(const struct tg_addr *addr);

/* "10.0.0.1"; at least INET6_ADDRSTRLEN bytes. */
const char *td_doc_address_text(const struct tg_addr *addr, char *text);

#endif /* TD_AGENT_DOCUMENT_H */
