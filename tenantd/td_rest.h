/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Routes that are one SQL function: one transaction, and its answer.
 */

#ifndef TD_REST_H
#define TD_REST_H

#include "td_pool.h"
#include "td_request.h"

/* Answers the request, whose credential is set, with its route's function. */
void td_rest_handle(td_request_t *request);

/*
 * Adds BEGIN and begin_request() to a job: the request's credential, its route's
 * scope; subject is the tenant or gateway that it is about, or NULL.
 */
void td_rest_begin(td_job_t *job, const td_request_t *request,
    const char *subject);

/* The path's parameters as a PostgreSQL array, the query as a JSON object, the
 * body as text or NULL; to be freed. */
char *td_rest_path(const td_request_t *request);
char *td_rest_query(const td_request_t *request);
char *td_rest_body(const td_request_t *request);

#endif /* TD_REST_H */
