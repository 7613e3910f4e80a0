/* SPDX-License-Identifier: BSD-2-Clause */

#include <ctype.h>
#include <string.h>

#include "td_problem.h"
#include "tg_text.h"


const td_problem_kind_t  td_problem_kinds[TD_PROBLEM_N] = {
    [TD_PROBLEM_MALFORMED_REQUEST] =
        { 400, "malformed-request", "The request is not well-formed HTTP" },
    [TD_PROBLEM_MALFORMED_JSON] =
        { 400, "malformed-json", "The body is not the JSON it should be" },
    [TD_PROBLEM_INVALID_VALUE] =
        { 400, "invalid-value", "A value cannot be stored" },
    [TD_PROBLEM_UNEXPECTED_BODY] =
        { 400, "unexpected-body", "This request takes no body" },
    [TD_PROBLEM_MISSING_BODY] =
        { 400, "missing-body", "This request needs a body" },
    [TD_PROBLEM_MISSING_PARAMETER] =
        { 400, "missing-parameter", "A query parameter is missing or wrong" },
    [TD_PROBLEM_UNAUTHENTICATED] =
        { 401, "unauthenticated", "A valid credential is needed" },
    [TD_PROBLEM_UNKNOWN_ROUTE] =
        { 404, "unknown-route", "There is nothing at this path" },
    [TD_PROBLEM_METHOD_NOT_ALLOWED] =
        { 405, "method-not-allowed", "This path does not know the method" },
    [TD_PROBLEM_REQUEST_TIMEOUT] =
        { 408, "request-timeout", "The request took too long to arrive" },
    [TD_PROBLEM_REVISION_GONE] =
        { 410, "revision-gone", "Changes since that revision cannot be told" },
    [TD_PROBLEM_BODY_TOO_LARGE] =
        { 413, "body-too-large", "The body is too large" },
    [TD_PROBLEM_UNSUPPORTED_MEDIA_TYPE] =
        { 415, "unsupported-media-type", "The body is of the wrong type" },
    [TD_PROBLEM_EXPECTATION_FAILED] =
        { 417, "expectation-failed", "The expectation is not known" },
    [TD_PROBLEM_INVALID_KEY] =
        { 422, "invalid-key", "A key is not usable" },
    [TD_PROBLEM_INVALID_PATTERN] =
        { 422, "invalid-pattern", "A regular expression is not usable" },
    [TD_PROBLEM_PRIVATE_KEY] =
        { 422, "private-key", "Private keys do not belong here" },
    [TD_PROBLEM_SEALING_UNAVAILABLE] =
        { 422, "sealing-unavailable", "Shared secrets cannot be taken" },
    [TD_PROBLEM_INTERNAL_ERROR] =
        { 500, "internal-error", "Something went wrong here" },
    [TD_PROBLEM_METHOD_UNKNOWN] =
        { 501, "method-unknown", "The method is not known" },
    [TD_PROBLEM_OVERLOADED] =
        { 503, "overloaded", "There is too much to do" },
    [TD_PROBLEM_DATABASE_UNAVAILABLE] =
        { 503, "database-unavailable", "The registry cannot be reached" },
    [TD_PROBLEM_OUTCOME_UNKNOWN] =
        { 503, "outcome-unknown", "It is not known whether this was done" },
    [TD_PROBLEM_CONFLICTING_CHANGES] =
        { 503, "conflicting-changes", "Other changes got in the way" },
    [TD_PROBLEM_SHUTTING_DOWN] =
        { 503, "shutting-down", "This tenantd is about to end" },
};

static const struct {
    int          status;
    const char  *reason;
} td_problem_reasons[] = {
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 304, "Not Modified" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 410, "Gone" },
    { 412, "Precondition Failed" },
    { 413, "Content Too Large" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 422, "Unprocessable Content" },
    { 428, "Precondition Required" },
    { 429, "Too Many Requests" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 503, "Service Unavailable" },
};


td_problem_t
td_problem(td_problem_kind_e kind, const char *detail)
{
    td_problem_t  problem;

    memset(&problem, 0, sizeof(problem));
    problem.status = td_problem_kinds[kind].status;
    problem.slug = td_problem_kinds[kind].slug;
    problem.title = td_problem_kinds[kind].title;
    problem.detail = detail;

    return problem;
}


static void
td_problem_member(tg_text_t *text, const char *name, const char *value)
{
    tg_text_printf(text, ",\"%s\":", name);
    tg_text_json(text, value, strlen(value));
}


/* "invalid-hostname" → "Invalid hostname" */
static void
td_problem_title(tg_text_t *text, const td_problem_t *problem)
{
    char    title[128];
    size_t  i;

    if (problem->title != NULL) {
        td_problem_member(text, "title", problem->title);
        return;
    }

    for (i = 0; i < sizeof(title) - 1 && problem->slug[i] != '\0'; i++) {
        title[i] = problem->slug[i] == '-' ? ' ' : problem->slug[i];
    }

    title[i] = '\0';
    title[0] = (char) toupper((unsigned char) title[0]);
    td_problem_member(text, "title", title);
}


static void
td_problem_errors(tg_text_t *text, const td_problem_t *problem)
{
    if (problem->line != 0) {
        tg_text_printf(text, ",\"errors\":[{\"line\":%u,\"column\":%u,"
                       "\"detail\":", problem->line, problem->column);

    } else if (problem->pointer != NULL && problem->pointer[0] != '\0') {
        tg_text_str(text, ",\"errors\":[{\"pointer\":");
        tg_text_json(text, problem->pointer, strlen(problem->pointer));
        tg_text_str(text, ",\"detail\":");

    } else {
        return;
    }

    tg_text_json(text, problem->detail, strlen(problem->detail));
    tg_text_str(text, "}]");
}


char *
td_problem_body(const td_problem_t *problem, size_t *len)
{
    tg_text_t  text;

    tg_text_init(&text);

    tg_text_printf(&text, "{\"type\":\"urn:tiergate:problem:%s\"",
                   problem->slug);
    td_problem_title(&text, problem);
    tg_text_printf(&text, ",\"status\":%d", problem->status);
    td_problem_member(&text, "detail", problem->detail);

    if (problem->hint != NULL && problem->hint[0] != '\0') {
        td_problem_member(&text, "hint", problem->hint);
    }

    td_problem_errors(&text, problem);

    if (problem->request_id != NULL) {
        td_problem_member(&text, "request_id", problem->request_id);
    }

    tg_text_str(&text, "}\n");

    if (text.failed) {
        tg_text_free(&text);
        return NULL;
    }

    *len = text.len;

    return text.data;
}


td_problem_kind_e
td_problem_of_status(int status)
{
    switch (status) {
    case 413: return TD_PROBLEM_BODY_TOO_LARGE;
    case 417: return TD_PROBLEM_EXPECTATION_FAILED;
    case 501: return TD_PROBLEM_METHOD_UNKNOWN;
    default:  return TD_PROBLEM_MALFORMED_REQUEST;
    }
}


const char *
td_problem_reason(int status)
{
    size_t  i;

    for (i = 0; i < sizeof(td_problem_reasons) / sizeof(td_problem_reasons[0]);
         i++)
    {
        if (td_problem_reasons[i].status == status) {
            return td_problem_reasons[i].reason;
        }
    }

    return "";
}
