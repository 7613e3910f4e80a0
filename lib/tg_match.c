/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_host.h"
#include "tg_match.h"
#include "tg_regex.h"

typedef enum {
    TG_NO = 0,
    TG_YES = 1,
    TG_FAILED = -1
} tg_match_e;


int
tg_match_prefix(const char *prefix, size_t prefix_len, const char *path,
    size_t path_len)
{
    /* A block's prefixes end with "/" only when they are "/". */
    if (prefix_len == 1) {
        return path_len > 0 && path[0] == prefix[0];
    }

    return path_len >= prefix_len
           && (path_len == prefix_len || path[prefix_len] == '/')
           && memcmp(path, prefix, prefix_len) == 0;
}


static tg_match_e
tg_match_path(const tg_block_t *block, const tg_route_t *route,
    const tg_match_request_t *request)
{
    const char  *path;

    path = tg_str(block, route->path);

    switch (route->path_type) {
    case TG_PATH_EXACT:
        return route->path.len == request->path_len
               && memcmp(path, request->path, request->path_len) == 0;

    case TG_PATH_PREFIX:
        return tg_match_prefix(path, route->path.len, request->path,
                               request->path_len);

    default:
        return (tg_match_e) tg_regex_match(path, route->path.len,
                                           request->path, request->path_len);
    }
}


static tg_match_e
tg_match_hosts(const tg_block_t *block, const tg_route_t *route,
    const tg_match_request_t *request)
{
    const tg_ref_t  *host;

    if (route->hosts.n == 0) {
        return TG_YES;
    }

    host = tg_vec(block, route->hosts, tg_ref_t);

    for (uint32_t i = 0; i < route->hosts.n; i++) {
        if (tg_host_match(tg_str(block, host[i]), host[i].len, request->host,
                          request->host_len))
        {
            return TG_YES;
        }
    }

    return TG_NO;
}


static tg_match_e
tg_match_header(const tg_block_t *block, const tg_header_match_t *want,
    const tg_match_request_t *request)
{
    size_t       len;
    const char  *value;

    if (request->header == NULL
        || !request->header(request->data, tg_str(block, want->name),
                            want->name.len, &value, &len))
    {
        return TG_NO;
    }

    if (want->regex) {
        return (tg_match_e) tg_regex_match(tg_str(block, want->value),
                                           want->value.len, value, len);
    }

    return want->value.len == len
           && memcmp(tg_str(block, want->value), value, len) == 0;
}


static tg_match_e
tg_match_headers(const tg_block_t *block, const tg_route_t *route,
    const tg_match_request_t *request)
{
    tg_match_e                rc;
    const tg_header_match_t  *want;

    want = tg_vec(block, route->headers, tg_header_match_t);

    for (uint32_t i = 0; i < route->headers.n; i++) {
        rc = tg_match_header(block, &want[i], request);

        if (rc != TG_YES) {
            return rc;
        }
    }

    return TG_YES;
}


/* The cheap conditions first: a pattern is only asked when all else fits. */
static tg_match_e
tg_match_one(const tg_block_t *block, const tg_route_t *route,
    const tg_match_request_t *request)
{
    tg_match_e  rc;

    if (route->path_type != TG_PATH_REGEX) {
        rc = tg_match_path(block, route, request);

        if (rc != TG_YES) {
            return rc;
        }
    }

    if (route->hosts.n != 0 && !tg_match_hosts(block, route, request)) {
        return TG_NO;
    }

    if (route->headers.n != 0) {
        rc = tg_match_headers(block, route, request);

        if (rc != TG_YES) {
            return rc;
        }
    }

    if (route->path_type == TG_PATH_REGEX) {
        return tg_match_path(block, route, request);
    }

    return TG_YES;
}


int
tg_match_route(const tg_block_t *block, const tg_match_request_t *request,
    tg_match_result_t *result)
{
    uint32_t            i;
    tg_match_e          rc;
    tg_match_result_t   ignored;
    const tg_route_t   *route;

    route = tg_vec(block, block->routes, tg_route_t);

    if (result == NULL) {
        result = &ignored;
    }

    result->allowed = 0;
    tg_regex_begin();

    for (i = 0; i < block->routes.n; i++) {
        rc = tg_match_one(block, &route[i], request);

        if (rc == TG_NO) {
            continue;
        }

        if (rc == TG_FAILED) {
            return TG_MATCH_ERROR;
        }

        if (route[i].methods == 0 || (route[i].methods & request->method)) {
            return (int) i;
        }

        result->allowed |= route[i].methods;
    }

    return result->allowed == 0 ? TG_MATCH_NONE : TG_MATCH_METHOD;
}
