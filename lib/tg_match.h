/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A request → the route of its tenant.  The order in which routes are tried is
 * the block's (tg_compile.c sorts them), so the first that matches is the one.
 */

#ifndef TG_MATCH_H
#define TG_MATCH_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"

/* Finds a request header, name in lower case: 1 and its value, or 0.  A header
 * that came in several fields is the first of them or all joined, as the caller
 * likes; it must be what the upstream will take it for. */
typedef int (*tg_match_header_pt)(void *data, const char *name, size_t name_len,
    const char **value, size_t *value_len);

typedef struct {
    const char          *path;      /* normalised, begins with "/" */
    size_t               path_len;
    const char          *host;      /* as tg_host_normalize() leaves it */
    size_t               host_len;
    uint32_t             method;    /* one TG_METHOD_* */
    tg_match_header_pt   header;    /* NULL: there are none */
    void                *data;
} tg_match_request_t;

typedef struct {
    /* With TG_MATCH_METHOD: TG_METHOD_* of the routes that only the method kept
     * from matching, for Allow. */
    uint32_t  allowed;
} tg_match_result_t;

#define TG_MATCH_NONE    (-1)   /* no route */
#define TG_MATCH_METHOD  (-2)   /* 405: only the method kept it from a route */
#define TG_MATCH_ERROR   (-3)   /* a regular expression hit its limits */

/*
 * Index of the route in block->routes, or one of the above.  result may be NULL.
 *
 * TG_MATCH_ERROR must refuse the request: going on with the next route could
 * serve it under weaker rules than those of the route that nobody could decide.
 */
int tg_match_route(const tg_block_t *block, const tg_match_request_t *request,
    tg_match_result_t *result);

/* Whether a prefix ("/a", "/") covers a path by whole segments. */
int tg_match_prefix(const char *prefix, size_t prefix_len, const char *path,
    size_t path_len);

#endif /* TG_MATCH_H */
