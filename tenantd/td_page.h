/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The answer of a route's SQL function, for who gives it another form than JSON.
 */

#ifndef TD_PAGE_H
#define TD_PAGE_H

#include <jansson.h>

#include "td_request.h"

/* Answers the request; body is the function's, borrowed. */
typedef void (*td_page_pt)(td_request_t *request, const json_t *body);

/*
 * Calls the function of the request's route, and show with what it answers.  What
 * is refused is answered here.
 */
void td_page_call(td_request_t *request, td_page_pt show);

/* Whether the Accept header names type, before "*" or anything else. */
int td_page_accepts(const td_request_t *request, const char *type);

#endif /* TD_PAGE_H */
