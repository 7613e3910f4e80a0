/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The route table of the REST API.  docs/openapi.yaml describes the same routes;
 * a test compares it with "tenantd routes".
 */

#ifndef TD_ROUTE_H
#define TD_ROUTE_H

#include <stddef.h>

#include "tg_uri.h"

#define TD_ROUTE_MAX_PARAMS  4

typedef enum {
    TD_GET    = 0x01,
    TD_POST   = 0x02,
    TD_PUT    = 0x04,
    TD_PATCH  = 0x08,
    TD_DELETE = 0x10,
    TD_HEAD   = 0x20,
    TD_OTHER  = 0x40        /* known to HTTP, but to no route */
} td_method_e;

typedef enum {
    TD_ROUTE_SQL,           /* calls its SQL function, nothing else */
    TD_ROUTE_TENANT,        /* the same, but several calls together if it can */
    TD_ROUTE_IMPORT,
    TD_ROUTE_WATCH,
    TD_ROUTE_ACK,
    TD_ROUTE_FLOWS,         /* SQL, and the same as lines and as a stream */
    TD_ROUTE_SERVICEMAP,    /* SQL, and the same as a picture */
    TD_ROUTE_HEALTHZ,
    TD_ROUTE_READYZ,
    TD_ROUTE_METRICS,
    TD_ROUTE_OPENAPI
} td_route_kind_e;

typedef enum {
    TD_BODY_NONE,
    TD_BODY_OPTIONAL,
    TD_BODY_JSON,           /* needed */
    TD_BODY_LINES           /* needed; JSON Lines */
} td_body_e;

typedef struct {
    td_method_e      method;
    const char      *pattern;   /* "/v1/tenants/{tenant}" */
    const char      *scope;     /* "admin", "tenant", "reader", "gateway", or
                                 * NULL: open to everybody */
    td_route_kind_e  kind;
    const char      *function;  /* in schema tiergate_api, or NULL */
    td_body_e        body;
    int              keys;      /* the body may hold JWKs: check and seal them */
} td_route_t;

extern const td_route_t  td_routes[];
extern const size_t      td_routes_n;

typedef struct {
    const td_route_t  *route;
    const char        *param[TD_ROUTE_MAX_PARAMS];  /* in order of the pattern */
    size_t             params;
    /* Whom the scope is about: the tenant or gateway of the path, or NULL. */
    const char        *subject;
    unsigned           allowed;     /* td_method_e of the path's routes */
} td_match_t;

/*
 * Finds the route; HEAD finds that of GET.  The parameters point into uri.
 * route is NULL when there is none; allowed is then not 0 if only the method is
 * wrong.
 */
void td_route_match(const tg_uri_t *uri, td_method_e method, td_match_t *match);

/* "GET"; "" for TD_OTHER. */
const char *td_method_name(td_method_e method);

/* Writes "GET, HEAD, PUT" for the set of methods into text. */
void td_method_list(unsigned methods, char *text, size_t size);

#endif /* TD_ROUTE_H */
