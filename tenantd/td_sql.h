/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Every SQL statement that tenantd sends.  The fixed ones are listed here; one
 * more for each REST route with an SQL function follows, TD_SQL_ROUTES + the
 * route's index.
 */

#ifndef TD_SQL_H
#define TD_SQL_H

#include "td_pg.h"

typedef enum {
    TD_SQL_BEGIN,
    TD_SQL_BEGIN_SNAPSHOT,
    TD_SQL_COMMIT,
    TD_SQL_ROLLBACK,
    TD_SQL_BEGIN_REQUEST,       /* credential, scope, name, idempotency, if_match, id */
    TD_SQL_REMEMBER,            /* idempotency, status, etag, location, body */
    TD_SQL_CREATE_TENANTS,      /* calls */
    TD_SQL_IMPORT,              /* lines */
    TD_SQL_ACK,                 /* path, query, body, as routes */
    TD_SQL_LISTEN,
    TD_SQL_REGISTRY_STATE,
    TD_SQL_WATCH_READ,          /* since, most */
    TD_SQL_WATCH_VIEW,          /* gateway */
    TD_SQL_WATCH_LIST,          /* gateway; a cursor, as the next */
    TD_SQL_WATCH_SINCE,         /* since, most, gateway */
    TD_SQL_WATCH_FETCH,         /* many rows of the cursor */
    TD_SQL_WATCH_FETCH_FEW,
    TD_SQL_DUE_JWKS,            /* how many at most */
    TD_SQL_STORE_JWKS,          /* issuer, key set */
    TD_SQL_JWKS_FAILED,         /* issuer, error */
    TD_SQL_HOUSEKEEPING,
    TD_SQL_MESH_NODES_AWAY,     /* for how long they could report, in ms */
    TD_SQL_LISTEN_INSTANCES,
    TD_SQL_INSTANCES_CLAIM,     /* node, driver, most, first port, last, address */
    TD_SQL_INSTANCES_OF,        /* node, with every spec */
    TD_SQL_INSTANCE_OBSERVED,   /* name, phase, generation, conditions, pid, attempts,
                                   retry_at, restarts, reason, message,
                                   cgroup */
    TD_SQL_INSTANCE_READY,      /* name, as the next */
    TD_SQL_INSTANCE_REMOVED,
    TD_SQL_INSTANCE_TOKEN,
    TD_SQL_INSTANCE_PORT,       /* name, first port, last */
    TD_SQL_HANDOVERS_ADVANCE,
    TD_SQL_HANDOVER_COUNTS,
    TD_SQL_LISTEN_FLOWS,
    TD_SQL_FLOWS_REPORTED,      /* first, last, nodes, tenants, most */
    TD_SQL_FLOW_FILTER,         /* tenant, query */
    TD_SQL_ROUTES
} td_sql_e;

/* The table; the routes' part is made at the first call. */
const td_statement_t *td_sql_statements(void);

/* How many there are. */
int td_sql_count(void);

#endif /* TD_SQL_H */
