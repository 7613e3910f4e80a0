/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Problem documents (RFC 9457).  Two sources: tenantd itself, whose kinds are
 * the table here, and SQL functions, which raise SQLSTATE TGnnn with the kind's
 * slug.  docs/reference/problems.md lists both.
 */

#ifndef TD_PROBLEM_H
#define TD_PROBLEM_H

#include <stddef.h>

typedef enum {
    TD_PROBLEM_MALFORMED_REQUEST,
    TD_PROBLEM_MALFORMED_JSON,
    TD_PROBLEM_INVALID_VALUE,
    TD_PROBLEM_UNEXPECTED_BODY,
    TD_PROBLEM_MISSING_BODY,
    TD_PROBLEM_MISSING_PARAMETER,
    TD_PROBLEM_UNAUTHENTICATED,
    TD_PROBLEM_UNKNOWN_ROUTE,
    TD_PROBLEM_METHOD_NOT_ALLOWED,
    TD_PROBLEM_REQUEST_TIMEOUT,
    TD_PROBLEM_REVISION_GONE,
    TD_PROBLEM_BODY_TOO_LARGE,
    TD_PROBLEM_UNSUPPORTED_MEDIA_TYPE,
    TD_PROBLEM_EXPECTATION_FAILED,
    TD_PROBLEM_INVALID_KEY,
    TD_PROBLEM_INVALID_PATTERN,
    TD_PROBLEM_PRIVATE_KEY,
    TD_PROBLEM_SEALING_UNAVAILABLE,
    TD_PROBLEM_INTERNAL_ERROR,
    TD_PROBLEM_METHOD_UNKNOWN,
    TD_PROBLEM_OVERLOADED,
    TD_PROBLEM_DATABASE_UNAVAILABLE,
    TD_PROBLEM_OUTCOME_UNKNOWN,
    TD_PROBLEM_CONFLICTING_CHANGES,
    TD_PROBLEM_SHUTTING_DOWN,
    TD_PROBLEM_N
} td_problem_kind_e;

typedef struct {
    int          status;
    const char  *slug;
    const char  *title;
} td_problem_kind_t;

extern const td_problem_kind_t  td_problem_kinds[TD_PROBLEM_N];

typedef struct {
    int          status;
    const char  *slug;
    const char  *title;         /* NULL: made of the slug */
    const char  *detail;        /* a sentence: what is wrong and what to change */
    const char  *hint;          /* NULL or "": none */
    const char  *pointer;       /* JSON pointer of the member; NULL or "": none */
    const char  *request_id;    /* NULL: none */
    unsigned     line, column;  /* of malformed JSON; line 0: none */
} td_problem_t;

/* A problem of one of tenantd's own kinds; detail is kept by reference. */
td_problem_t td_problem(td_problem_kind_e kind, const char *detail);

/* The document; to be freed with free().  NULL: no memory. */
char *td_problem_body(const td_problem_t *problem, size_t *len);

/* The kind for an HTTP status that evhttp answers by itself. */
td_problem_kind_e td_problem_of_status(int status);

/* The reason phrase of a status (RFC 9110 section 15), "" if it has none. */
const char *td_problem_reason(int status);

#endif /* TD_PROBLEM_H */
