/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"

#define TGC_HOST_HEADER  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  \
                         "0123456789-._:[]"


static int
tgc_address(tg_compiler_t *c, const json_t *object, tg_endpoint_t *endpoint)
{
    const char  *s;

    s = json_string_value(tgc_member(object, "address"));

    if (s != NULL && inet_pton(AF_INET, s, endpoint->address) == 1) {
        endpoint->family = AF_INET;
        return 0;
    }

    if (s != NULL && inet_pton(AF_INET6, s, endpoint->address) == 1) {
        endpoint->family = AF_INET6;
        return 0;
    }

    (void) tgc_fail(c, "", "must be an IPv4 or IPv6 address");
    return tgc_in(c, "address");
}


static int
tgc_endpoint(tg_compiler_t *c, const json_t *object, tg_endpoint_t *endpoint)
{
    int       n;
    char      address[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 8];
    uint32_t  port;

    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->weight = 1;
    port = 0;

    if (tgc_is_object(c, object) != 0
        || tgc_id(c, object, "id", &endpoint->id) != 0
        || tgc_address(c, object, endpoint) != 0
        || tgc_number32(c, object, "port", 1, 65535, 0, &port) != 0
        || tgc_number32(c, object, "weight", 0, TG_MAX_WEIGHT, TGC_OPTIONAL,
                        &endpoint->weight) != 0)
    {
        return -1;
    }

    endpoint->port = (uint16_t) port;

    (void) inet_ntop(endpoint->family, endpoint->address, address,
                     sizeof(address));
    n = snprintf(text, sizeof(text),
                 endpoint->family == AF_INET ? "%s:%u" : "[%s]:%u", address,
                 (unsigned) port);

    return tgc_intern(c, text, (size_t) n, &endpoint->text);
}


/* No two endpoints of an upstream may be one address and port. */
static int
tgc_same_endpoint(tg_compiler_t *c, tg_vec_t vec)
{
    ssize_t               twice;
    uint64_t              text[TG_MAX_ENDPOINTS];
    const tg_endpoint_t  *endpoint;

    endpoint = tgc_at(c, vec, 0, sizeof(tg_endpoint_t));

    for (size_t i = 0; i < vec.n; i++) {
        text[i] = endpoint[i].text.off;
    }

    twice = tgc_duplicate(text, vec.n);

    if (twice != -1) {
        (void) tgc_fail(c, "", "has the address and port of another endpoint");
        return tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
    }

    return 0;
}


static int
tgc_endpoints(tg_compiler_t *c, const json_t *object, tg_vec_t vec)
{
    tg_endpoint_t  endpoint;
    const json_t  *array;

    array = json_object_get(object, "endpoints");

    for (size_t i = 0; i < vec.n; i++) {
        if (tgc_endpoint(c, json_array_get(array, i), &endpoint) != 0) {
            (void) tgc_in_index(c, i);
            return tgc_in(c, "endpoints");
        }

        tgc_store(c, vec, i, &endpoint, sizeof(endpoint));
    }

    if (tgc_same_endpoint(c, vec) != 0) {
        return tgc_in(c, "endpoints");
    }

    return 0;
}


static int
tgc_health(tg_compiler_t *c, const json_t *object, tg_upstream_t *upstream)
{
    const json_t  *health;

    health = tgc_member(object, "health");
    upstream->fail_timeout_ms = 10000;

    if (health == NULL) {
        return 0;
    }

    if (tgc_is_object(c, health) != 0
        || tgc_number32(c, health, "max_fails", 0, TG_MAX_FAILS, TGC_OPTIONAL,
                        &upstream->max_fails) != 0
        || tgc_number32(c, health, "fail_timeout_ms", 1, TG_MAX_MS,
                        TGC_OPTIONAL, &upstream->fail_timeout_ms) != 0
        || tgc_number32(c, health, "slow_start_ms", 0, TG_MAX_MS, TGC_OPTIONAL,
                        &upstream->slow_start_ms) != 0)
    {
        return tgc_in(c, "health");
    }

    return 0;
}


static int
tgc_upstream(tg_compiler_t *c, const json_t *object, tg_upstream_t *upstream)
{
    const char  *host;

    if (tgc_id(c, object, "id", &upstream->id) != 0
        || tgc_string(c, object, "name", TGC_VISIBLE, 1, TG_MAX_NAME, 0,
                      &upstream->name) != 0
        || tgc_string(c, object, "host", TGC_VISIBLE, 1, TG_MAX_TEXT,
                      TGC_OPTIONAL, &upstream->host) != 0
        || tgc_number32(c, object, "max_outstanding", 0, TG_MAX_OUTSTANDING,
                        TGC_OPTIONAL, &upstream->max_outstanding) != 0
        || tgc_health(c, object, upstream) != 0)
    {
        return -1;
    }

    host = (char *) c->mem + upstream->host.off;

    if (upstream->host.off != 0
        && strspn(host, TGC_HOST_HEADER) != upstream->host.len)
    {
        (void) tgc_fail(c, "", "must be a hostname, with or without a port");
        return tgc_in(c, "host");
    }

    return tgc_endpoints(c, object, upstream->endpoints);
}


/* All arrays of endpoints, before any string: see tg_compile_internal.h. */
static int
tgc_reserve_endpoints(tg_compiler_t *c, const json_t *array, tg_vec_t vec,
    size_t *total)
{
    tg_upstream_t  upstream;
    const json_t  *object, *endpoints;

    *total = 0;

    for (size_t i = 0; i < vec.n; i++) {
        object = json_array_get(array, i);
        memset(&upstream, 0, sizeof(upstream));

        if (tgc_is_object(c, object) != 0
            || tgc_array(c, object, "endpoints", 0, TG_MAX_ENDPOINTS, 0,
                         &endpoints) != 0
            || tgc_reserve(c, json_array_size(endpoints),
                           sizeof(tg_endpoint_t), 8, &upstream.endpoints) != 0)
        {
            return tgc_in_index(c, i);
        }

        *total += upstream.endpoints.n;
        tgc_store(c, vec, i, &upstream, sizeof(upstream));
    }

    return 0;
}


/* Endpoint ids are unique in the tenant: their health is known by id. */
static int
tgc_same_endpoint_id(tg_compiler_t *c, tg_vec_t vec, size_t total)
{
    size_t                n;
    ssize_t               twice;
    uint64_t             *id;
    const tg_endpoint_t  *endpoint;
    const tg_upstream_t  *upstream;

    id = malloc((total + 1) * sizeof(uint64_t));

    if (id == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    upstream = tgc_at(c, vec, 0, sizeof(tg_upstream_t));
    n = 0;

    for (size_t i = 0; i < vec.n; i++) {
        endpoint = tgc_at(c, upstream[i].endpoints, 0, sizeof(tg_endpoint_t));

        for (size_t k = 0; k < upstream[i].endpoints.n; k++) {
            id[n++] = endpoint[k].id;
        }
    }

    twice = tgc_duplicate(id, n);

    if (twice >= 0) {
        (void) tgc_fail(c, "", "endpoint id %llu is there twice",
                        (unsigned long long) id[twice]);
    }

    free(id);

    return twice == -1 ? 0 : -1;
}


int
tgc_upstreams(tg_compiler_t *c, const json_t *array, tg_vec_t vec)
{
    size_t          total;
    ssize_t         twice;
    uint64_t        id[TG_MAX_UPSTREAMS], name[TG_MAX_UPSTREAMS];
    tg_upstream_t   upstream;

    if (tgc_reserve_endpoints(c, array, vec, &total) != 0) {
        return -1;
    }

    for (size_t i = 0; i < vec.n; i++) {
        upstream = *(tg_upstream_t *) tgc_at(c, vec, i, sizeof(upstream));

        if (tgc_upstream(c, json_array_get(array, i), &upstream) != 0) {
            return tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &upstream, sizeof(upstream));
        id[i] = upstream.id;
        name[i] = upstream.name.off;
    }

    twice = tgc_duplicate(id, vec.n);

    if (twice == -1) {
        twice = tgc_duplicate(name, vec.n);
    }

    if (twice != -1) {
        (void) tgc_fail(c, "", "has the id or name of another upstream");
        return tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
    }

    return tgc_same_endpoint_id(c, vec, total);
}
