/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Request bodies: strict JSON before anything reaches SQL.
 */

#ifndef TD_BODY_H
#define TD_BODY_H

#include <jansson.h>

#include "td_problem.h"

#define TD_BODY_MAX_DEPTH   32
#define TD_BODY_MAX_DETAIL  320

/*
 * Parses len bytes: RFC 8259, an object or array at the top, UTF-8, no NUL, no
 * member twice, nesting of at most TD_BODY_MAX_DEPTH, numbers that have a value.
 * Returns NULL with problem filled; detail (TD_BODY_MAX_DETAIL bytes) holds its
 * text.
 */
json_t *td_body_parse(const char *text, size_t len, td_problem_t *problem,
    char *detail);

/*
 * Whether a Content-Type is JSON of one of the wanted subtypes, separated by
 * blanks: "json merge-patch+json".  Parameters are allowed, of which charset may
 * only be UTF-8.
 */
int td_body_is_type(const char *content_type, const char *subtypes);

#endif /* TD_BODY_H */
