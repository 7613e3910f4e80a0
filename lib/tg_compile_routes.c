/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"
#include "tg_regex.h"


static int
tgc_regex(tg_compiler_t *c, tg_ref_t pattern)
{
    tg_error_t  why;

    if (++c->patterns > TG_MAX_PATTERNS) {
        (void) tgc_fail(c, "", "there are more than %d patterns",
                        TG_MAX_PATTERNS);
        return tgc_in(c, "value");
    }

    if (tg_regex_check((char *) c->mem + pattern.off, pattern.len, &why) != 0) {
        (void) tgc_fail(c, "", "%s", why.message);
        return tgc_in(c, "value");
    }

    return 0;
}


static int
tgc_path(tg_compiler_t *c, const json_t *object, tg_route_t *route)
{
    const char                *path;
    static const char *const   types[] = { "exact", "regex", "prefix", NULL };

    if (tgc_is_object(c, object) != 0
        || tgc_choice(c, object, "type", types, 0, &route->path_type) != 0)
    {
        return -1;
    }

    if (route->path_type == TG_PATH_REGEX) {
        return tgc_string(c, object, "value", TGC_TEXT, 1, TG_MAX_REGEX, 0,
                          &route->path) != 0 ? -1 : tgc_regex(c, route->path);
    }

    if (tgc_string(c, object, "value", TGC_PATH, 1, TG_MAX_PATH, 0,
                   &route->path) != 0)
    {
        return -1;
    }

    /* By whole segments "/a/" covers what "/a" does. */
    path = (char *) c->mem + route->path.off;

    if (route->path_type == TG_PATH_PREFIX && route->path.len > 1
        && path[route->path.len - 1] == '/')
    {
        char  stripped[TG_MAX_PATH];

        memcpy(stripped, path, route->path.len - 1);
        return tgc_intern(c, stripped, route->path.len - 1, &route->path);
    }

    return 0;
}


static int
tgc_methods(tg_compiler_t *c, const json_t *object, uint32_t *mask)
{
    uint32_t       bit;
    const json_t  *array, *value;

    if (tgc_array(c, object, "methods", 1, 16, TGC_OPTIONAL, &array) != 0) {
        return -1;
    }

    for (size_t i = 0; i < json_array_size(array); i++) {
        value = json_array_get(array, i);
        bit = json_is_string(value)
              ? tg_method_parse(json_string_value(value),
                                json_string_length(value))
              : 0;

        if (bit == 0) {
            (void) tgc_fail(c, "", "must be GET, HEAD, POST, PUT, DELETE, PATCH "
                            "or OPTIONS");
            (void) tgc_in_index(c, i);
            return tgc_in(c, "methods");
        }

        *mask |= bit;
    }

    return 0;
}


/* A field name, RFC 9110 section 5.1; stored in lower case. */
static int
tgc_header_name(tg_compiler_t *c, const json_t *object, tg_ref_t *out)
{
    char           name[TG_MAX_NAME];
    size_t         len;
    const char    *s;
    const json_t  *value;

    value = tgc_member(object, "name");
    s = json_string_value(value);
    len = json_string_length(value);

    if (s == NULL || len == 0 || len > sizeof(name)
        || strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789!#$%&'*+-.^_`|~") != len)
    {
        (void) tgc_fail(c, "", "must be a header name of at most %d bytes",
                        TG_MAX_NAME);
        return tgc_in(c, "name");
    }

    for (size_t i = 0; i < len; i++) {
        name[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char) (s[i] | 0x20) : s[i];
    }

    return tgc_intern(c, name, len, out);
}


static int
tgc_header(tg_compiler_t *c, const json_t *object, tg_header_match_t *header)
{
    uint8_t                    type;
    static const char *const   types[] = { "exact", "regex", NULL };

    memset(header, 0, sizeof(*header));
    type = 0;

    if (tgc_is_object(c, object) != 0
        || tgc_header_name(c, object, &header->name) != 0
        || tgc_choice(c, object, "type", types, TGC_OPTIONAL, &type) != 0
        || tgc_string(c, object, "value", TGC_TEXT, type ? 1 : 0, TG_MAX_TEXT,
                      0, &header->value) != 0)
    {
        return -1;
    }

    header->regex = type;

    return type ? tgc_regex(c, header->value) : 0;
}


static int
tgc_headers(tg_compiler_t *c, const json_t *object, tg_vec_t *vec)
{
    const json_t       *array;
    tg_header_match_t   header;

    if (tgc_array(c, object, "headers", 0, TG_MAX_HEADERS, TGC_OPTIONAL, &array)
        != 0
        || tgc_reserve(c, json_array_size(array), sizeof(header), 4, vec) != 0)
    {
        return -1;
    }

    for (size_t i = 0; i < vec->n; i++) {
        if (tgc_header(c, json_array_get(array, i), &header) != 0) {
            (void) tgc_in_index(c, i);
            return tgc_in(c, "headers");
        }

        tgc_store(c, *vec, i, &header, sizeof(header));
    }

    return 0;
}


static int
tgc_match(tg_compiler_t *c, const json_t *object, tg_route_t *route)
{
    const json_t  *match;

    match = tgc_member(object, "match");

    if (tgc_is_object(c, match) != 0) {
        return tgc_in(c, "match");
    }

    if (tgc_path(c, tgc_member(match, "path"), route) != 0) {
        (void) tgc_in(c, "path");
        return tgc_in(c, "match");
    }

    if (tgc_methods(c, match, &route->methods) != 0
        || tgc_headers(c, match, &route->headers) != 0
        || tgc_hosts(c, match, "hosts", 1, TG_MAX_ROUTE_HOSTS, TGC_OPTIONAL,
                     &route->hosts) != 0)
    {
        return tgc_in(c, "match");
    }

    return 0;
}


static int
tgc_claims(tg_compiler_t *c, const json_t *object, tg_vec_t *vec)
{
    const json_t      *array, *one;
    tg_claim_match_t   claim;

    if (tgc_array(c, object, "claims", 0, TG_MAX_CLAIMS, TGC_OPTIONAL, &array)
        != 0
        || tgc_reserve(c, json_array_size(array), sizeof(claim), 4, vec) != 0)
    {
        return -1;
    }

    for (size_t i = 0; i < vec->n; i++) {
        one = json_array_get(array, i);
        memset(&claim, 0, sizeof(claim));

        if (tgc_is_object(c, one) != 0
            || tgc_string(c, one, "name", TGC_TEXT, 1, TG_MAX_TEXT, 0,
                          &claim.name) != 0
            || tgc_strings(c, one, "values", TGC_TEXT, 1, TG_MAX_VALUES,
                           &claim.values) != 0)
        {
            (void) tgc_in_index(c, i);
            return tgc_in(c, "claims");
        }

        if (claim.values.n == 0) {
            (void) tgc_fail(c, "", "is missing");
            (void) tgc_in(c, "values");
            (void) tgc_in_index(c, i);
            return tgc_in(c, "claims");
        }

        tgc_store(c, *vec, i, &claim, sizeof(claim));
    }

    return 0;
}


static int
tgc_auth_methods(tg_compiler_t *c, const json_t *object, uint8_t *mask)
{
    const char    *s;
    const json_t  *array;

    *mask = TG_AUTH_JWT | TG_AUTH_API_KEY;

    if (tgc_array(c, object, "methods", 1, 2, TGC_OPTIONAL, &array) != 0) {
        return -1;
    }

    if (array != NULL) {
        *mask = 0;
    }

    for (size_t i = 0; i < json_array_size(array); i++) {
        s = json_string_value(json_array_get(array, i));

        if (s != NULL && strcmp(s, "jwt") == 0) {
            *mask |= TG_AUTH_JWT;

        } else if (s != NULL && strcmp(s, "api_key") == 0) {
            *mask |= TG_AUTH_API_KEY;

        } else {
            (void) tgc_fail(c, "", "must be \"jwt\" or \"api_key\"");
            (void) tgc_in_index(c, i);
            return tgc_in(c, "methods");
        }
    }

    return 0;
}


/* Without a word about authentication it is required. */
static int
tgc_auth(tg_compiler_t *c, const json_t *object, tg_route_t *route)
{
    const json_t              *auth;
    static const char *const   modes[] = {
        "required", "optional", "none", NULL
    };

    auth = tgc_member(object, "auth");
    route->auth_methods = TG_AUTH_JWT | TG_AUTH_API_KEY;

    if (auth == NULL) {
        return 0;
    }

    if (tgc_is_object(c, auth) != 0
        || tgc_choice(c, auth, "mode", modes, 0, &route->auth_mode) != 0
        || tgc_auth_methods(c, auth, &route->auth_methods) != 0
        || tgc_strings(c, auth, "scopes", TGC_VISIBLE, 0, TG_MAX_SCOPES,
                       &route->scopes) != 0
        || tgc_claims(c, auth, &route->claims) != 0
        || tgc_bool(c, auth, "hide_credentials", &route->hide_credentials) != 0)
    {
        return tgc_in(c, "auth");
    }

    return 0;
}


static int
tgc_rewrite(tg_compiler_t *c, const json_t *object, tg_route_t *route)
{
    uint8_t                    type;
    const json_t              *rewrite;
    static const char *const   types[] = {
        "strip_prefix", "replace_prefix", "replace_path", NULL
    };

    rewrite = tgc_member(object, "rewrite");

    if (rewrite == NULL) {
        return 0;
    }

    if (tgc_is_object(c, rewrite) != 0
        || tgc_choice(c, rewrite, "type", types, 0, &type) != 0)
    {
        return tgc_in(c, "rewrite");
    }

    route->rewrite_type = (uint8_t) (TG_REWRITE_STRIP_PREFIX + type);

    if (route->rewrite_type != TG_REWRITE_REPLACE_PATH
        && route->path_type != TG_PATH_PREFIX)
    {
        (void) tgc_fail(c, "", "needs a match by prefix");
        return tgc_in(c, "rewrite/type");
    }

    if (route->rewrite_type != TG_REWRITE_STRIP_PREFIX
        && tgc_string(c, rewrite, "value", TGC_PATH, 1, TG_MAX_PATH, 0,
                      &route->rewrite) != 0)
    {
        return tgc_in(c, "rewrite");
    }

    return 0;
}


static int
tgc_backend(tg_compiler_t *c, const json_t *object, tg_vec_t upstreams,
    tg_backend_t *backend)
{
    tg_ref_t              name;
    const tg_upstream_t  *upstream;

    memset(backend, 0, sizeof(*backend));

    if (tgc_is_object(c, object) != 0
        || tgc_string(c, object, "upstream", TGC_VISIBLE, 1, TG_MAX_NAME, 0,
                      &name) != 0
        || tgc_number32(c, object, "weight", 0, TG_MAX_WEIGHT, 0,
                        &backend->weight) != 0)
    {
        return -1;
    }

    upstream = tgc_at(c, upstreams, 0, sizeof(tg_upstream_t));

    for (uint32_t i = 0; i < upstreams.n; i++) {
        if (upstream[i].name.off == name.off) {
            backend->upstream = i;
            return 0;
        }
    }

    (void) tgc_fail(c, "", "names no upstream of the tenant");
    return tgc_in(c, "upstream");
}


static int
tgc_backends(tg_compiler_t *c, const json_t *object, tg_vec_t upstreams,
    tg_route_t *route)
{
    ssize_t        twice;
    uint64_t       index[TG_MAX_BACKENDS];
    tg_backend_t   backend;
    const json_t  *array;

    if (tgc_array(c, object, "backends", 1, TG_MAX_BACKENDS, 0, &array) != 0
        || tgc_reserve(c, json_array_size(array), sizeof(backend), 4,
                       &route->backends) != 0)
    {
        return -1;
    }

    for (size_t i = 0; i < route->backends.n; i++) {
        if (tgc_backend(c, json_array_get(array, i), upstreams, &backend) != 0)
        {
            (void) tgc_in_index(c, i);
            return tgc_in(c, "backends");
        }

        tgc_store(c, route->backends, i, &backend, sizeof(backend));
        index[i] = backend.upstream;
        route->weight += backend.weight;
    }

    twice = tgc_duplicate(index, route->backends.n);

    if (twice != -1) {
        (void) tgc_fail(c, "", "names the upstream of another backend");
        (void) tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
        return tgc_in(c, "backends");
    }

    if (route->weight == 0) {
        (void) tgc_fail(c, "", "need one weight above 0");
        return tgc_in(c, "backends");
    }

    return 0;
}


static int
tgc_timeouts(tg_compiler_t *c, const json_t *object, tg_route_t *route)
{
    const json_t  *timeouts;

    timeouts = tgc_member(object, "timeouts");

    if (timeouts == NULL) {
        return 0;
    }

    if (tgc_is_object(c, timeouts) != 0
        || tgc_number32(c, timeouts, "connect_ms", 1, TG_MAX_MS, TGC_OPTIONAL,
                        &route->connect_ms) != 0
        || tgc_number32(c, timeouts, "send_ms", 1, TG_MAX_MS, TGC_OPTIONAL,
                        &route->send_ms) != 0
        || tgc_number32(c, timeouts, "read_ms", 1, TG_MAX_MS, TGC_OPTIONAL,
                        &route->read_ms) != 0)
    {
        return tgc_in(c, "timeouts");
    }

    return 0;
}


static int
tgc_route(tg_compiler_t *c, const json_t *object, tg_vec_t upstreams,
    tg_route_t *route)
{
    uint32_t                   retries;
    static const char *const   sticky[] = { "none", "consumer", NULL };

    memset(route, 0, sizeof(*route));
    retries = 0;

    if (tgc_is_object(c, object) != 0
        || tgc_id(c, object, "id", &route->id) != 0
        || tgc_string(c, object, "name", TGC_VISIBLE, 1, TG_MAX_NAME, 0,
                      &route->name) != 0
        || tgc_match(c, object, route) != 0
        || tgc_auth(c, object, route) != 0
        || tgc_rewrite(c, object, route) != 0
        || tgc_backends(c, object, upstreams, route) != 0
        || tgc_choice(c, object, "sticky", sticky, TGC_OPTIONAL,
                      &route->sticky) != 0
        || tgc_timeouts(c, object, route) != 0
        || tgc_number32(c, object, "retries", 0, TG_MAX_RETRIES, TGC_OPTIONAL,
                        &retries) != 0)
    {
        return -1;
    }

    route->retries = (uint8_t) retries;

    return tgc_bool(c, object, "websocket", &route->websocket);
}


/*
 * Match order: see "Route order" in tenant-document.md.  Exact paths of equal
 * length and other value, and prefixes likewise, never meet one request, so
 * between them the name decides, as everywhere.
 */
static int
tgc_compare_routes(const void *a, const void *b, void *data)
{
    int                   rc;
    uint32_t              len;
    const tg_route_t     *x = a, *y = b;
    const tg_compiler_t  *c = data;

    if (x->path_type != y->path_type) {
        return x->path_type < y->path_type ? -1 : 1;
    }

    if (x->path.len != y->path.len && x->path_type != TG_PATH_EXACT) {
        return x->path.len > y->path.len ? -1 : 1;
    }

    if ((x->methods == 0) != (y->methods == 0)) {
        return x->methods != 0 ? -1 : 1;
    }

    if (x->headers.n != y->headers.n) {
        return x->headers.n > y->headers.n ? -1 : 1;
    }

    if ((x->hosts.n == 0) != (y->hosts.n == 0)) {
        return x->hosts.n != 0 ? -1 : 1;
    }

    len = x->name.len < y->name.len ? x->name.len : y->name.len;
    rc = memcmp(c->mem + x->name.off, c->mem + y->name.off, len);

    return rc != 0 ? rc : (x->name.len > y->name.len)
                          - (x->name.len < y->name.len);
}


int
tgc_routes(tg_compiler_t *c, const json_t *array, tg_vec_t vec,
    tg_vec_t upstreams)
{
    ssize_t     twice;
    uint64_t    id[TG_MAX_ROUTES], name[TG_MAX_ROUTES];
    tg_route_t  route;

    for (size_t i = 0; i < vec.n; i++) {
        if (tgc_route(c, json_array_get(array, i), upstreams, &route) != 0) {
            return tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &route, sizeof(route));
        id[i] = route.id;
        name[i] = route.name.off;
    }

    twice = tgc_duplicate(id, vec.n);

    if (twice == -1) {
        twice = tgc_duplicate(name, vec.n);
    }

    if (twice != -1) {
        (void) tgc_fail(c, "", "has the id or name of another route");
        return tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
    }

    qsort_r(tgc_at(c, vec, 0, sizeof(route)), vec.n, sizeof(route),
            tgc_compare_routes, c);

    return 0;
}
