/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Regular expressions in request bodies.  PostgreSQL has no PCRE2: what the
 * registry cannot judge is tried here, as a gateway would.
 */

#ifndef TD_PATTERNS_H
#define TD_PATTERNS_H

#include <jansson.h>

#include "tg_error.h"

/*
 * Looks at the match of a route, and at those of /routes/N.  What has another
 * shape is left alone: SQL refuses it.  Returns 0, or -1: err says why, and
 * where in the body.
 */
int td_patterns_check(const json_t *body, tg_error_t *err);

#endif /* TD_PATTERNS_H */
