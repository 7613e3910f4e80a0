/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>

#include "td_log.h"
#include "td_route.h"
#include "td_sql.h"


#define TD_SQL_WATCH_COLUMNS                                                  \
    "revision, kind, name, id, shared, object_revision, document,"            \
    " shared_document, mesh_tenant"

static const td_statement_t  td_sql_fixed[TD_SQL_ROUTES] = {
    [TD_SQL_BEGIN] = { "td_begin", "BEGIN", 0 },
    [TD_SQL_BEGIN_SNAPSHOT] = {
        "td_begin_snapshot",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0 },
    [TD_SQL_COMMIT] = { "td_commit", "COMMIT", 0 },
    [TD_SQL_ROLLBACK] = { "td_rollback", "ROLLBACK", 0 },
    [TD_SQL_BEGIN_REQUEST] = {
        "td_begin_request",
        "SELECT * FROM tiergate_api.begin_request"
        "($1::jsonb, $2::text, $3::text, $4::jsonb, $5::text, $6::text)", 6 },
    [TD_SQL_REMEMBER] = {
        "td_remember",
        "SELECT tiergate_api.remember($1::jsonb, ROW($2::integer, $3::text,"
        " $4::text, $5::text)::tiergate_api.response)", 5 },
    [TD_SQL_CREATE_TENANTS] = {
        "td_create_tenants",
        "SELECT r.status, r.etag, r.location, r.body"
        " FROM tiergate_api.create_tenants($1::jsonb) r", 1 },
    [TD_SQL_IMPORT] = {
        "td_import",
        "SELECT line, status, body FROM tiergate.import_tenants($1::jsonb)",
        1 },
    [TD_SQL_ACK] = {
        "td_ack",
        "SELECT tiergate_api.ack_gateway($1::text[], $2::jsonb, $3::jsonb)",
        3 },
    [TD_SQL_LISTEN] = { "td_listen", "LISTEN tiergate_changes", 0 },
    [TD_SQL_REGISTRY_STATE] = {
        "td_registry_state",
        "SELECT registry, revision, oldest FROM tiergate.registry_state()",
        0 },
    [TD_SQL_WATCH_READ] = {
        "td_watch_read",
        "SELECT " TD_SQL_WATCH_COLUMNS
        " FROM tiergate.watch_read($1::bigint, $2::integer)", 2 },
    [TD_SQL_WATCH_VIEW] = {
        "td_watch_view",
        "SELECT kind, tenant_id, numbers, revision"
        " FROM tiergate.watch_view($1::text)", 1 },
    /* called in the select list, the function gives its rows one by one; in
     * FROM it would make all of them first */
    [TD_SQL_WATCH_LIST] = {
        "td_watch_list",
        "DECLARE td_watch NO SCROLL CURSOR FOR"
        " SELECT (x.o).revision, (x.o).kind, (x.o).name, (x.o).id, true,"
        " (x.o).revision, (x.o).document, NULL,"
        " (x.o).mesh_tenant"
        " FROM (SELECT tiergate.watch_list($1::text) AS o) x", 1 },
    [TD_SQL_WATCH_SINCE] = {
        "td_watch_since",
        "DECLARE td_watch NO SCROLL CURSOR FOR"
        " SELECT " TD_SQL_WATCH_COLUMNS
        " FROM tiergate.watch_feed($1::bigint, $2::integer, $3::text)", 3 },
    [TD_SQL_WATCH_FETCH] = { "td_watch_fetch", "FETCH 250 FROM td_watch", 0 },
    [TD_SQL_WATCH_FETCH_FEW] = { "td_watch_fetch_few", "FETCH 8 FROM td_watch",
                                 0 },
    [TD_SQL_DUE_JWKS] = {
        "td_due_jwks",
        "SELECT issuer_id, jwks_uri, attempt FROM tiergate.due_jwks($1::integer)", 1 },
    [TD_SQL_STORE_JWKS] = {
        "td_store_jwks",
        "SELECT tiergate.store_jwks($1::bigint, $2::bigint, $3::jsonb)", 3 },
    [TD_SQL_JWKS_FAILED] = {
        "td_jwks_failed",
        "SELECT tiergate.jwks_failed($1::bigint, $2::bigint, $3::text)", 3 },
    [TD_SQL_HOUSEKEEPING] = {
        "td_housekeeping", "SELECT tiergate.housekeeping()", 0 },
    [TD_SQL_MESH_NODES_AWAY] = {
        "td_mesh_nodes_away", "SELECT tiergate.mesh_nodes_away($1::bigint)", 1 },
    [TD_SQL_LISTEN_INSTANCES] = {
        "td_listen_instances", "LISTEN tiergate_instances", 0 },
    [TD_SQL_INSTANCES_CLAIM] = {
        "td_instances_claim",
        "SELECT name FROM tiergate.instances_claim($1::text, $2::text,"
        " $3::integer, $4::integer, $5::integer, $6::text)", 6 },
    [TD_SQL_INSTANCES_OF] = {
        "td_instances_of",
        "SELECT name, tenant, desired, generation, observed_generation, attempts,"
        " retry_at, port, spec FROM tiergate.instances_of($1::text, $2::boolean)",
        2 },
    [TD_SQL_INSTANCE_OBSERVED] = {
        "td_instance_observed",
        "SELECT tiergate.instance_observed($1::text, $2::text, $3::bigint,"
        " $4::jsonb, $5::integer, $6::integer, $7::bigint, $8::integer,"
        " $9::text, $10::text, $11::text)", 11 },
    [TD_SQL_INSTANCE_READY] = {
        "td_instance_ready", "SELECT tiergate.instance_ready($1::text)", 1 },
    [TD_SQL_INSTANCE_REMOVED] = {
        "td_instance_removed", "SELECT tiergate.instance_removed($1::text)", 1 },
    [TD_SQL_INSTANCE_TOKEN] = {
        "td_instance_token", "SELECT tiergate.instance_token($1::text)", 1 },
    [TD_SQL_INSTANCE_PORT] = {
        "td_instance_port",
        "SELECT tiergate.instance_port($1::text, $2::integer, $3::integer)", 3 },
    [TD_SQL_HANDOVERS_ADVANCE] = {
        "td_handovers_advance",
        "SELECT open, next_ms FROM tiergate.handovers_advance()", 0 },
    [TD_SQL_HANDOVER_COUNTS] = {
        "td_handover_counts",
        "SELECT outcome, count FROM tiergate.handover_counts()", 0 },
    [TD_SQL_LISTEN_FLOWS] = {
        "td_listen_flows", "LISTEN tiergate_flows", 0 },
    [TD_SQL_FLOWS_REPORTED] = {
        "td_flows_reported",
        "SELECT tenant, id, type, source_tenant, source_service,"
        " destination_tenant, destination_service, port, virtual_port, reason,"
        " document FROM tiergate.flows_reported($1::bigint[], $2::bigint[],"
        " $3::text[], $4::text[], $5::integer)", 5 },
    [TD_SQL_FLOW_FILTER] = {
        "td_flow_filter",
        "SELECT tiergate_api.flow_filter($1::text, $2::jsonb)", 2 },
};

static td_statement_t  *td_sql_table;


static char *
td_sql_format(const char *fmt, const char *function)
{
    int    n;
    char  *text;

    n = snprintf(NULL, 0, fmt, function);
    text = malloc((size_t) n + 1);

    if (text != NULL) {
        snprintf(text, (size_t) n + 1, fmt, function);
    }

    return text;
}


const td_statement_t *
td_sql_statements(void)
{
    size_t           i;
    const char      *function;
    td_statement_t  *statement;

    if (td_sql_table != NULL) {
        return td_sql_table;
    }

    td_sql_table = calloc((size_t) td_sql_count(), sizeof(td_statement_t));
    if (td_sql_table == NULL) {
        td_log(TD_LOG_CRIT, NULL, "out of memory");
        abort();
    }

    for (i = 0; i < TD_SQL_ROUTES; i++) {
        td_sql_table[i] = td_sql_fixed[i];
    }

    for (i = 0; i < td_routes_n; i++) {
        function = td_routes[i].function;
        statement = &td_sql_table[TD_SQL_ROUTES + i];

        if (function != NULL) {
            statement->name = function;
            statement->params = 3;
            statement->text = td_sql_format(
                "SELECT r.status, r.etag, r.location, r.body"
                " FROM tiergate_api.%s($1::text[], $2::jsonb, $3::jsonb) r",
                function);
        }
    }

    return td_sql_table;
}


int
td_sql_count(void)
{
    return TD_SQL_ROUTES + (int) td_routes_n;
}
