/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Request targets of the REST API (RFC 9112 section 3.2, RFC 3986): into
 * decoded path segments and query parameters, once and strictly.  One target has
 * one reading: no dot segments, no empty segments, no NUL, valid UTF-8, each
 * parameter once.
 */

#ifndef TG_URI_H
#define TG_URI_H

#include <stddef.h>

#include "tg_error.h"

#define TG_URI_MAX_SEGMENTS  16
#define TG_URI_MAX_QUERY     16
#define TG_URI_MAX_LENGTH    8192

typedef struct {
    const char  *name;
    const char  *value;
} tg_uri_param_t;

typedef struct {
    const char      *segment[TG_URI_MAX_SEGMENTS];
    size_t           segments;
    tg_uri_param_t   query[TG_URI_MAX_QUERY];
    size_t           queries;
    char            *memory;    /* holds all of the above */
} tg_uri_t;

/*
 * Parses an origin-form ("/v1/tenants?limit=1") or absolute-form target, whose
 * scheme and authority are dropped.  "/" has no segments; in the query "+" is a
 * blank.  Returns 0, and uri must be cleared; or -1 with err (may be NULL) set
 * and nothing to clear.
 */
int tg_uri_parse(tg_uri_t *uri, const char *target, tg_error_t *err);

void tg_uri_clear(tg_uri_t *uri);

/* The value of a query parameter, or NULL. */
const char *tg_uri_query(const tg_uri_t *uri, const char *name);

#endif /* TG_URI_H */
