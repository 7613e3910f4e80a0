/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Credentials: what a request brings, in the form that SQL's begin_request()
 * takes.  Whether it is good, and for what, is SQL's to say.
 */

#ifndef TD_AUTH_H
#define TD_AUTH_H

#include "td_request.h"

/*
 * Sets request->credential from, in this order: the Authorization header, the
 * user at the other end of the unix socket, the client certificate.  Returns 0,
 * or -1 with problem filled: there is none, or the header is malformed.
 */
int td_auth(td_request_t *request, td_problem_t *problem);

/* The credential of a bearer token; to be freed.  NULL: no memory. */
char *td_auth_token(const char *token, size_t len);

#endif /* TD_AUTH_H */
