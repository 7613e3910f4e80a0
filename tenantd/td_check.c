/* SPDX-License-Identifier: BSD-2-Clause */

#include "td_body.h"
#include "td_check.h"
#include "td_keys.h"
#include "td_patterns.h"


static int
td_check_presence(td_request_t *request)
{
    td_body_e  wanted;

    wanted = request->match.route->body;

    if (wanted == TD_BODY_NONE && request->body_len > 0) {
        td_reply_kind(request, TD_PROBLEM_UNEXPECTED_BODY, "this request takes "
                      "no body: leave it out");
        return -1;
    }

    if ((wanted == TD_BODY_JSON || wanted == TD_BODY_LINES)
        && request->body_len == 0)
    {
        td_reply_kind(request, TD_PROBLEM_MISSING_BODY, "this request needs a "
                      "JSON body");
        return -1;
    }

    return 0;
}


static int
td_check_type(td_request_t *request)
{
    const char  *subtypes, *detail;

    subtypes = "json";
    detail = "send the body as application/json, in UTF-8";

    if (request->method == TD_PATCH) {
        subtypes = "json merge-patch+json";
        detail = "send the patch as application/merge-patch+json or "
                 "application/json, in UTF-8";

    } else if (request->match.route->body == TD_BODY_LINES) {
        subtypes = "jsonl x-ndjson json-lines";
        detail = "send the lines as application/jsonl, in UTF-8";
    }

    if (td_body_is_type(td_request_header(request, "Content-Type"), subtypes)) {
        return 0;
    }

    td_reply_kind(request, TD_PROBLEM_UNSUPPORTED_MEDIA_TYPE, detail);

    return -1;
}


static int
td_check_keys(const td_daemon_t *daemon, json_t *json, td_problem_t *problem,
    tg_error_t *err)
{
    td_keys_status_e  status;

    status = td_keys_prepare(json, daemon->has_secret_key ? daemon->secret_key
                                                          : NULL, err);

    if (status >= 0) {
        return status == TD_KEYS_CHANGED;
    }

    *problem = td_problem(status == TD_KEYS_PRIVATE ? TD_PROBLEM_PRIVATE_KEY
                          : status == TD_KEYS_NO_SEALING
                            ? TD_PROBLEM_SEALING_UNAVAILABLE
                            : TD_PROBLEM_INVALID_KEY, err->message);
    problem->pointer = err->pointer;

    return -1;
}


int
td_check_json(const td_daemon_t *daemon, json_t *json, int keys,
    td_problem_t *problem, tg_error_t *err)
{
    if (td_patterns_check(json, err) != 0) {
        *problem = td_problem(TD_PROBLEM_INVALID_PATTERN, err->message);
        problem->pointer = err->pointer;
        return -1;
    }

    return keys ? td_check_keys(daemon, json, problem, err) : 0;
}


int
td_check_body(td_request_t *request)
{
    int           changed;
    char          detail[TD_BODY_MAX_DETAIL];
    json_t       *json;
    tg_error_t    err;
    td_problem_t  problem;

    if (td_check_presence(request) != 0) {
        return -1;
    }

    if (request->body_len == 0) {
        return 0;
    }

    if (td_check_type(request) != 0) {
        return -1;
    }

    if (request->match.route->body == TD_BODY_LINES) {
        return 0;
    }

    json = td_body_parse(request->body, request->body_len, &problem, detail);
    if (json == NULL) {
        td_reply_problem(request, &problem);
        return -1;
    }

    changed = td_check_json(request->daemon, json, request->match.route->keys,
                            &problem, &err);

    if (changed == 1) {
        request->sealed = json_dumps(json, JSON_COMPACT);
        if (request->sealed == NULL) {
            problem = td_problem(TD_PROBLEM_OVERLOADED, "out of memory");
            changed = -1;
        }
    }

    json_decref(json);

    if (changed < 0) {
        td_reply_problem(request, &problem);
        return -1;
    }

    return 0;
}
