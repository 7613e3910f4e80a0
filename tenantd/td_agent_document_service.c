/* SPDX-License-Identifier: BSD-2-Clause */

/* A mesh service: where it is, and who answers. */

#include <netinet/in.h>
#include <string.h>

#include "td_agent_read.h"


static int
td_doc_read_service_ports(td_doc_service_t *service, json_t *object, tg_error_t *err)
{
    size_t   i;
    json_t  *ports, *port;

    ports = json_object_get(object, "ports");
    service->n_ports = json_array_size(ports);

    if (ports != NULL && (!json_is_array(ports) || service->n_ports > TD_DOC_PORTS)) {
        return td_read_fail(err, "ports", "must be at most 16 ports");
    }

    for (i = 0; i < service->n_ports; i++) {
        port = json_array_get(ports, i);

        if (td_read_port_value(json_object_get(port, "port"), "ports",
                               &service->ports[i].port, err) != 0
            || td_read_protocol(port, IPPROTO_TCP, &service->ports[i].proto, err) != 0)
        {
            return -1;
        }
    }

    return 0;
}


static int
td_doc_read_limits(td_doc_service_t *service, json_t *object, tg_error_t *err)
{
    size_t       i;
    json_t      *limits;
    json_int_t   value[3] = { 0, 0, 0 };
    static const char *const  names[] = {
        "connections_per_second", "burst", "open_connections"
    };

    limits = json_object_get(object, "limits");

    if (limits == NULL || json_is_null(limits)) {
        return 0;
    }

    if (!json_is_object(limits)) {
        return td_read_fail(err, "limits", "must be an object");
    }

    for (i = 0; i < 3; i++) {
        if (td_read_int(limits, names[i], 0, 1000000000, &value[i], err) != 0) {
            return -1;
        }
    }

    service->limit.rate = (uint32_t) value[0];
    service->limit.burst = (uint32_t) value[1];
    service->limit.open = (uint32_t) value[2];

    return 0;
}


/* A path that can stand in a request's first line. */
static int
td_doc_is_path(const char *path)
{
    if (path[0] != '/') {
        return 0;
    }

    for ( ; *path != '\0'; path++) {
        if ((unsigned char) *path <= ' ' || (unsigned char) *path >= 0x7f) {
            return 0;
        }
    }

    return 1;
}


static int
td_doc_read_check(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    size_t           i;
    json_t          *health;
    td_doc_check_t  *check;
    const char      *type;
    json_int_t       value[5] = { 0, 1000, 500, 2, 3 };
    static const struct {
        const char  *name;
        json_int_t   low, high;
    } members[5] = {
        { "port", 1, 65535 }, { "interval_ms", 10, 3600000 },
        { "timeout_ms", 1, 60000 }, { "rise", 1, 100 }, { "fall", 1, 100 },
    };

    check = &doc->service.check;
    health = json_object_get(object, "health");

    if (health == NULL || json_is_null(health)) {
        return 0;
    }

    type = json_string_value(json_object_get(health, "type"));

    if (type == NULL || (strcmp(type, "tcp") != 0 && strcmp(type, "http") != 0)) {
        return td_read_fail(err, "health", "must be of type tcp or http");
    }

    for (i = 0; i < 5; i++) {
        if (td_read_int(health, members[i].name, members[i].low, members[i].high,
                        &value[i], err) != 0)
        {
            tg_error_prefix(err, "/health");
            return -1;
        }
    }

    check->type = type[0] == 't' ? TD_CHECK_TCP : TD_CHECK_HTTP;
    check->port = (uint16_t) value[0];
    check->interval = (uint32_t) value[1];
    check->timeout = (uint32_t) value[2];
    check->rise = (uint32_t) value[3];
    check->fall = (uint32_t) value[4];

    if (td_read_text(doc, health, "path", 512, &check->path, err) != 0) {
        return -1;
    }

    if (check->path == NULL) {
        check->path = "/";
    }

    return td_doc_is_path(check->path) ? 0
           : td_read_fail(err, "health", "has a path that is none");
}


static int
td_doc_read_endpoint(td_doc_t *doc, td_doc_endpoint_t *endpoint, json_t *object,
    tg_error_t *err)
{
    json_t       *port;
    json_int_t    id, weight;
    td_doc_net_t  net;

    id = 0;
    weight = 100;
    endpoint->healthy = 1;
    port = json_object_get(object, "service_port");

    if (td_read_int(object, "id", 0, INT64_MAX, &id, err) != 0
        || td_read_int(object, "weight", 0, TD_DOC_WEIGHT, &weight, err) != 0
        || td_read_flag(object, "healthy", &endpoint->healthy, err) != 0
        || td_read_text(doc, object, "node", TD_DOC_NAME, &endpoint->node, err) != 0
        || td_read_net_value(json_object_get(object, "address"), "address", &net, err)
        || td_read_port_value(json_object_get(object, "port"), "port",
                              &endpoint->port, err) != 0)
    {
        return -1;
    }

    if (net.prefix != 128) {
        return td_read_fail(err, "address", "must be an address");
    }

    endpoint->id = id;
    endpoint->weight = (uint32_t) weight;
    endpoint->addr = net.addr;
    endpoint->service_port = doc->service.n_ports > 0 ? doc->service.ports[0].port : 0;

    return port == NULL || json_is_null(port) ? 0
           : td_read_port_value(port, "service_port", &endpoint->service_port, err);
}


static int
td_doc_read_endpoints(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    size_t             i;
    json_t            *endpoints;
    td_doc_service_t  *service;

    service = &doc->service;
    endpoints = json_object_get(object, "endpoints");

    if (endpoints == NULL || json_is_null(endpoints)) {
        return 0;
    }

    if (!json_is_array(endpoints) || json_array_size(endpoints) > TD_DOC_ENDPOINTS) {
        return td_read_fail(err, "endpoints", "must be at most 10000");
    }

    service->n_endpoints = json_array_size(endpoints);
    service->endpoints = td_read_alloc(doc, service->n_endpoints,
                                       sizeof(td_doc_endpoint_t), err);
    if (service->endpoints == NULL) {
        return -1;
    }

    for (i = 0; i < service->n_endpoints; i++) {
        if (td_doc_read_endpoint(doc, &service->endpoints[i],
                                 json_array_get(endpoints, i), err) != 0)
        {
            tg_error_prefix(err, "/endpoints/%zu", i);
            return -1;
        }
    }

    return 0;
}


int
td_doc_read_service(td_doc_t *doc, json_t *object, tg_error_t *err)
{
    td_doc_service_t  *service;

    service = &doc->service;
    service->tenant = td_read_name(doc, object, "tenant", err);

    if (service->tenant == NULL
        || td_read_who(object, "number", &service->who, err) != 0
        || td_read_nets(doc, object, "addresses", 1, &service->addresses, err) != 0
        || td_doc_read_service_ports(service, object, err) != 0
        || td_doc_read_limits(service, object, err) != 0
        || td_doc_read_check(doc, object, err) != 0
        || td_doc_read_endpoints(doc, object, err) != 0)
    {
        return -1;
    }

    service->service = strchr(doc->name, '/');
    service->service = service->service ? service->service + 1 : doc->name;

    return 0;
}
