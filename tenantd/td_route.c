/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <string.h>

#include "td_route.h"


/* clang-format off */
#define OPEN(method, pattern, kind)                                           \
    { method, pattern, NULL, kind, NULL, TD_BODY_NONE, 0 }
#define OWN(method, pattern, scope, kind, body)                               \
    { method, pattern, scope, kind, NULL, body, 0 }
#define SQL(method, pattern, scope, function, body)                           \
    { method, pattern, scope, TD_ROUTE_SQL, function, body, 0 }
#define KEYS(method, pattern, scope, function, body)                          \
    { method, pattern, scope, TD_ROUTE_SQL, function, body, 1 }
/* clang-format on */

#define TENANT  "/v1/tenants/{tenant}"

/* A collection of a tenant: list, and read, write, delete by name. */
#define COLLECTION(names, name, writer, put)                                  \
    SQL(TD_GET, TENANT "/" #names, "reader", "list_" #names, TD_BODY_NONE),   \
    SQL(TD_GET, TENANT "/" #names "/{" #name "}", "reader", "get_" #name,     \
        TD_BODY_NONE),                                                        \
    put(TD_PUT, TENANT "/" #names "/{" #name "}", writer, "put_" #name,       \
        TD_BODY_JSON),                                                        \
    SQL(TD_DELETE, TENANT "/" #names "/{" #name "}", writer,                  \
        "delete_" #name, TD_BODY_NONE)

#define MESH  TENANT "/mesh"

/* The same of the mesh. */
#define MESHED(names, name, writer)                                           \
    SQL(TD_GET, MESH "/" #names, "reader", "list_mesh_" #names, TD_BODY_NONE),\
    SQL(TD_GET, MESH "/" #names "/{" #name "}", "reader", "get_mesh_" #name,  \
        TD_BODY_NONE),                                                        \
    SQL(TD_PUT, MESH "/" #names "/{" #name "}", writer, "put_mesh_" #name,    \
        TD_BODY_JSON),                                                        \
    SQL(TD_DELETE, MESH "/" #names "/{" #name "}", writer,                    \
        "delete_mesh_" #name, TD_BODY_NONE)


const td_route_t  td_routes[] = {
    OPEN(TD_GET, "/v1/healthz", TD_ROUTE_HEALTHZ),
    OPEN(TD_GET, "/v1/readyz", TD_ROUTE_READYZ),
    OPEN(TD_GET, "/metrics", TD_ROUTE_METRICS),
    OPEN(TD_GET, "/v1/openapi.yaml", TD_ROUTE_OPENAPI),

    OWN(TD_GET, "/v1/watch", "gateway", TD_ROUTE_WATCH, TD_BODY_NONE),
    OWN(TD_POST, "/v1/gateways/{gateway}/ack", "gateway", TD_ROUTE_ACK,
        TD_BODY_JSON),
    SQL(TD_POST, "/v1/gateways/{gateway}/usage", "gateway", "report_usage",
        TD_BODY_JSON),
    SQL(TD_POST, "/v1/gateways/{gateway}/handover", "gateway",
        "report_handover", TD_BODY_JSON),
    SQL(TD_POST, "/v1/gateways/{gateway}/mesh", "gateway", "report_mesh",
        TD_BODY_JSON),
    SQL(TD_POST, "/v1/gateways/{gateway}/flows", "gateway", "report_flows",
        TD_BODY_JSON),

    SQL(TD_GET, "/v1/tenants", "reader", "list_tenants", TD_BODY_NONE),
    { TD_POST, "/v1/tenants", "admin", TD_ROUTE_TENANT, "create_tenant",
      TD_BODY_JSON, 1 },
    SQL(TD_GET, TENANT, "reader", "get_tenant", TD_BODY_NONE),
    SQL(TD_PATCH, TENANT, "tenant", "patch_tenant", TD_BODY_JSON),
    SQL(TD_DELETE, TENANT, "admin", "delete_tenant", TD_BODY_NONE),
    SQL(TD_POST, TENANT "/suspend", "admin", "suspend_tenant",
        TD_BODY_OPTIONAL),
    SQL(TD_POST, TENANT "/resume", "admin", "resume_tenant", TD_BODY_OPTIONAL),
    SQL(TD_GET, TENANT "/document", "reader", "get_document", TD_BODY_NONE),
    OWN(TD_POST, "/v1/import", "admin", TD_ROUTE_IMPORT, TD_BODY_LINES),

    SQL(TD_GET, TENANT "/hosts", "reader", "list_hosts", TD_BODY_NONE),
    SQL(TD_GET, TENANT "/hosts/{host}", "reader", "get_host", TD_BODY_NONE),
    SQL(TD_PUT, TENANT "/hosts/{host}", "tenant", "put_host",
        TD_BODY_OPTIONAL),
    SQL(TD_DELETE, TENANT "/hosts/{host}", "tenant", "delete_host",
        TD_BODY_NONE),

    COLLECTION(issuers, issuer, "tenant", KEYS),
    COLLECTION(consumers, consumer, "tenant", SQL),
    COLLECTION(routes, route, "tenant", SQL),
    COLLECTION(upstreams, upstream, "tenant", SQL),
    /* what limits a tenant is not for the tenant to write */
    COLLECTION(quotas, quota, "admin", SQL),

    SQL(TD_GET, TENANT "/upstreams/{upstream}/endpoints", "reader",
        "list_endpoints", TD_BODY_NONE),
    SQL(TD_PUT, TENANT "/upstreams/{upstream}/endpoints/{endpoint}", "tenant",
        "put_endpoint", TD_BODY_OPTIONAL),
    SQL(TD_DELETE, TENANT "/upstreams/{upstream}/endpoints/{endpoint}",
        "tenant", "delete_endpoint", TD_BODY_NONE),

    SQL(TD_GET, TENANT "/plugins", "reader", "list_tenant_plugins",
        TD_BODY_NONE),
    SQL(TD_GET, TENANT "/plugins/{plugin}", "reader", "get_tenant_plugin",
        TD_BODY_NONE),
    SQL(TD_PUT, TENANT "/plugins/{plugin}", "tenant", "put_tenant_plugin",
        TD_BODY_OPTIONAL),
    SQL(TD_DELETE, TENANT "/plugins/{plugin}", "tenant",
        "delete_tenant_plugin", TD_BODY_NONE),
    SQL(TD_GET, TENANT "/gateway", "reader", "get_tenant_gateway",
        TD_BODY_NONE),

    SQL(TD_GET, MESH, "reader", "get_mesh", TD_BODY_NONE),
    SQL(TD_PATCH, MESH, "tenant", "patch_mesh", TD_BODY_JSON),
    SQL(TD_DELETE, MESH, "admin", "delete_mesh", TD_BODY_NONE),
    MESHED(services, service, "tenant"),
    SQL(TD_GET, MESH "/services/{service}/endpoints", "reader",
        "list_mesh_endpoints", TD_BODY_NONE),
    SQL(TD_PUT, MESH "/services/{service}/endpoints/{endpoint}", "tenant",
        "put_mesh_endpoint", TD_BODY_OPTIONAL),
    SQL(TD_DELETE, MESH "/services/{service}/endpoints/{endpoint}", "tenant",
        "delete_mesh_endpoint", TD_BODY_NONE),
    /* whose a process is, is not for its tenant to say */
    MESHED(workloads, workload, "admin"),
    MESHED(policies, policy, "tenant"),

    SQL(TD_GET, TENANT "/keys", "reader", "list_keys", TD_BODY_NONE),
    SQL(TD_POST, TENANT "/keys", "tenant", "create_key", TD_BODY_JSON),
    SQL(TD_POST, TENANT "/keys/{id}/rotate", "tenant", "rotate_key",
        TD_BODY_OPTIONAL),
    SQL(TD_DELETE, TENANT "/keys/{id}", "tenant", "delete_key", TD_BODY_NONE),

    SQL(TD_PUT, TENANT "/boost", "admin", "put_boost", TD_BODY_JSON),
    SQL(TD_DELETE, TENANT "/boost", "admin", "delete_boost", TD_BODY_NONE),
    SQL(TD_GET, TENANT "/usage", "reader", "get_usage", TD_BODY_NONE),
    SQL(TD_GET, TENANT "/quota-status", "reader", "get_quota_status",
        TD_BODY_NONE),
    { TD_GET, TENANT "/flows", "reader", TD_ROUTE_FLOWS, "get_flows",
      TD_BODY_NONE, 0 },
    { TD_GET, TENANT "/servicemap", "reader", TD_ROUTE_SERVICEMAP,
      "get_servicemap", TD_BODY_NONE, 0 },
    SQL(TD_GET, TENANT "/audit", "reader", "get_tenant_audit", TD_BODY_NONE),

    SQL(TD_GET, "/v1/issuers", "reader", "list_platform_issuers",
        TD_BODY_NONE),
    SQL(TD_GET, "/v1/issuers/{issuer}", "reader", "get_platform_issuer",
        TD_BODY_NONE),
    KEYS(TD_PUT, "/v1/issuers/{issuer}", "admin", "put_platform_issuer",
        TD_BODY_JSON),
    SQL(TD_DELETE, "/v1/issuers/{issuer}", "admin", "delete_platform_issuer",
        TD_BODY_NONE),

    SQL(TD_GET, "/v1/tiers", "reader", "list_tiers", TD_BODY_NONE),
    SQL(TD_PUT, "/v1/tiers/{tier}/plugins/{plugin}", "admin",
        "put_tier_plugin", TD_BODY_OPTIONAL),
    SQL(TD_DELETE, "/v1/tiers/{tier}/plugins/{plugin}", "admin",
        "delete_tier_plugin", TD_BODY_NONE),
    SQL(TD_GET, "/v1/plugins", "reader", "list_plugins", TD_BODY_NONE),
    SQL(TD_GET, "/v1/plugins/{plugin}", "reader", "get_plugin", TD_BODY_NONE),
    SQL(TD_PUT, "/v1/plugins/{plugin}", "admin", "put_plugin", TD_BODY_JSON),
    SQL(TD_DELETE, "/v1/plugins/{plugin}", "admin", "delete_plugin",
        TD_BODY_NONE),
    SQL(TD_GET, "/v1/gateways", "reader", "list_gateways", TD_BODY_NONE),
    SQL(TD_GET, "/v1/gateways/{gateway}", "reader", "get_gateway",
        TD_BODY_NONE),
    SQL(TD_PUT, "/v1/gateways/{gateway}", "admin", "put_gateway",
        TD_BODY_OPTIONAL),
    SQL(TD_DELETE, "/v1/gateways/{gateway}", "admin", "delete_gateway",
        TD_BODY_NONE),
    SQL(TD_GET, "/v1/gateways/{gateway}/events", "reader",
        "list_gateway_events", TD_BODY_NONE),
    SQL(TD_POST, "/v1/nodes/{node}/evacuate", "admin", "evacuate_node",
        TD_BODY_NONE),

    SQL(TD_GET, "/v1/mesh/nodes", "reader", "list_mesh_nodes", TD_BODY_NONE),
    SQL(TD_GET, "/v1/mesh/nodes/{node}", "reader", "get_mesh_node",
        TD_BODY_NONE),
    SQL(TD_PUT, "/v1/mesh/nodes/{node}", "admin", "put_mesh_node",
        TD_BODY_JSON),
    SQL(TD_DELETE, "/v1/mesh/nodes/{node}", "admin", "delete_mesh_node",
        TD_BODY_NONE),

    SQL(TD_GET, "/v1/tokens", "admin", "list_tokens", TD_BODY_NONE),
    SQL(TD_POST, "/v1/tokens", "admin", "create_token", TD_BODY_JSON),
    SQL(TD_DELETE, "/v1/tokens/{id}", "admin", "delete_token", TD_BODY_NONE),
    SQL(TD_GET, "/v1/audit", "reader", "get_audit", TD_BODY_NONE),
};

const size_t  td_routes_n = sizeof(td_routes) / sizeof(td_routes[0]);

static const struct {
    td_method_e  method;
    const char  *name;
} td_methods[] = {
    { TD_GET, "GET" },
    { TD_HEAD, "HEAD" },
    { TD_POST, "POST" },
    { TD_PUT, "PUT" },
    { TD_PATCH, "PATCH" },
    { TD_DELETE, "DELETE" },
};


/* The subject of a scope is a tenant, or for gateways the gateway. */
static int
td_route_names_subject(const td_route_t *route, const char *name, size_t len)
{
    const char  *wanted;

    if (route->scope == NULL) {
        return 0;
    }

    wanted = strcmp(route->scope, "gateway") == 0 ? "{gateway}" : "{tenant}";

    return strlen(wanted) == len && memcmp(wanted, name, len) == 0;
}


static int
td_route_fits(const td_route_t *route, const tg_uri_t *uri, td_match_t *match)
{
    size_t       i, len;
    const char  *p;

    p = route->pattern;
    match->params = 0;
    match->subject = NULL;

    for (i = 0; *p == '/'; i++) {
        p++;
        len = strcspn(p, "/");

        if (i == uri->segments) {
            return 0;
        }

        if (*p == '{') {
            match->param[match->params++] = uri->segment[i];
            if (td_route_names_subject(route, p, len)) {
                match->subject = uri->segment[i];
            }

        } else if (strlen(uri->segment[i]) != len
                   || memcmp(uri->segment[i], p, len) != 0)
        {
            return 0;
        }

        p += len;
    }

    return i == uri->segments;
}


void
td_route_match(const tg_uri_t *uri, td_method_e method, td_match_t *match)
{
    size_t      i;
    td_match_t  one;

    memset(match, 0, sizeof(td_match_t));
    memset(&one, 0, sizeof(td_match_t));

    if (method == TD_HEAD) {
        method = TD_GET;
    }

    for (i = 0; i < td_routes_n; i++) {
        if (!td_route_fits(&td_routes[i], uri, &one)) {
            continue;
        }

        match->allowed |= td_routes[i].method;

        if (td_routes[i].method == method) {
            one.route = &td_routes[i];
            one.allowed = match->allowed;
            *match = one;
            return;
        }
    }

    if (match->allowed & TD_GET) {
        match->allowed |= TD_HEAD;
    }
}


const char *
td_method_name(td_method_e method)
{
    size_t  i;

    for (i = 0; i < sizeof(td_methods) / sizeof(td_methods[0]); i++) {
        if (td_methods[i].method == method) {
            return td_methods[i].name;
        }
    }

    return "";
}


void
td_method_list(unsigned methods, char *text, size_t size)
{
    size_t  i, n;

    n = 0;
    text[0] = '\0';

    for (i = 0; i < sizeof(td_methods) / sizeof(td_methods[0]) && n < size; i++)
    {
        if (methods & td_methods[i].method) {
            n += (size_t) snprintf(text + n, size - n, "%s%s", n ? ", " : "",
                                   td_methods[i].name);
        }
    }
}
