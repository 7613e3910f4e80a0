/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A call is one round trip: BEGIN, begin_request(), the function, COMMIT.  With
 * an Idempotency-Key it is three, for only begin_request() tells whether the
 * call has been answered before, and the answer must be remembered in the same
 * transaction.  New tenants are first tried together with others, see td_batch.h.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "td_batch.h"
#include "td_check.h"
#include "td_fault.h"
#include "td_metrics.h"
#include "td_rest.h"
#include "td_sql.h"
#include "tg_text.h"


typedef enum {
    TD_REST_TOGETHER,       /* waits for the transaction of several calls */
    TD_REST_ALL,            /* waits for the one pipeline there is */
    TD_REST_OPENING,        /* waits for begin_request() alone */
    TD_REST_CALLING,        /* waits for the function */
    TD_REST_CLOSING         /* waits for remember() and COMMIT */
} td_rest_phase_e;

typedef struct {
    int    status;          /* 0: none */
    char  *etag;
    char  *location;
    char  *body;
} td_rest_answer_t;

typedef struct {
    td_request_t      *request;
    td_job_t           job;
    td_call_t          call;
    td_rest_phase_e    phase;
    int                retried;

    char              *path;
    char              *query;
    char              *body;
    char              *idempotency;
    const char        *if_match;

    td_rest_answer_t   replay;
    td_rest_answer_t   answer;
} td_rest_t;


static void
td_rest_clear_answer(td_rest_answer_t *answer)
{
    free(answer->etag);
    free(answer->location);
    free(answer->body);
    memset(answer, 0, sizeof(td_rest_answer_t));
}


static void
td_rest_free(td_rest_t *rest)
{
    td_job_cancel(&rest->job);
    td_call_cancel(&rest->call);
    td_rest_clear_answer(&rest->replay);
    td_rest_clear_answer(&rest->answer);
    free(rest->path);
    free(rest->query);
    free(rest->body);
    free(rest->idempotency);
    free(rest);
}


static void
td_rest_closed(td_request_t *request)
{
    td_rest_free(request->data);
    td_request_free(request);
}


static char *
td_rest_finish_text(tg_text_t *text)
{
    tg_text_add(text, "", 1);

    if (text->failed) {
        tg_text_free(text);
    }

    return text->data;
}


char *
td_rest_path(const td_request_t *request)
{
    size_t       i;
    tg_text_t    text;
    const char  *p;

    tg_text_init(&text);
    tg_text_str(&text, "{");

    for (i = 0; i < request->match.params; i++) {
        tg_text_str(&text, i > 0 ? ",\"" : "\"");

        for (p = request->match.param[i]; *p != '\0'; p++) {
            if (*p == '"' || *p == '\\') {
                tg_text_str(&text, "\\");
            }
            tg_text_add(&text, p, 1);
        }

        tg_text_str(&text, "\"");
    }

    tg_text_str(&text, "}");

    return td_rest_finish_text(&text);
}


char *
td_rest_query(const td_request_t *request)
{
    size_t                 i;
    tg_text_t              text;
    const tg_uri_param_t  *param;

    tg_text_init(&text);
    tg_text_str(&text, "{");

    for (i = 0; i < request->uri.queries; i++) {
        param = &request->uri.query[i];
        tg_text_str(&text, i > 0 ? "," : "");
        tg_text_json(&text, param->name, strlen(param->name));
        tg_text_str(&text, ":");
        tg_text_json(&text, param->value, strlen(param->value));
    }

    tg_text_str(&text, "}");

    return td_rest_finish_text(&text);
}


char *
td_rest_body(const td_request_t *request)
{
    if (request->sealed != NULL) {
        return strdup(request->sealed);
    }

    return request->body_len > 0 ? strndup(request->body, request->body_len)
                                 : NULL;
}


/* Digest of method, target and body as they came: sealing is random. */
static char *
td_rest_idempotency(const td_request_t *request, const char *key)
{
    unsigned        i, len;
    char            hex[2 * EVP_MAX_MD_SIZE + 1];
    tg_text_t       text;
    EVP_MD_CTX     *md;
    const char     *method, *target;
    unsigned char   digest[EVP_MAX_MD_SIZE];

    method = td_method_name(request->method);
    target = evhttp_request_get_uri(request->http);
    len = 0;
    md = EVP_MD_CTX_new();

    if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1
        || EVP_DigestUpdate(md, method, strlen(method) + 1) != 1
        || EVP_DigestUpdate(md, target, strlen(target) + 1) != 1
        || EVP_DigestUpdate(md, request->body, request->body_len) != 1
        || EVP_DigestFinal_ex(md, digest, &len) != 1)
    {
        EVP_MD_CTX_free(md);
        return NULL;
    }

    EVP_MD_CTX_free(md);

    for (i = 0; i < len; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }

    tg_text_init(&text);
    tg_text_str(&text, "{\"key\":");
    tg_text_json(&text, key, strlen(key));
    tg_text_printf(&text, ",\"digest\":\"%s\"}", hex);

    return td_rest_finish_text(&text);
}


/* Copies a row of tiergate_api.response; all null means none. */
static void
td_rest_take_answer(td_rest_answer_t *answer, const PGresult *result, int row)
{
    int     i;
    char  **field[] = { &answer->etag, &answer->location, &answer->body };

    td_rest_clear_answer(answer);

    if (PQntuples(result) <= row || PQnfields(result) != 4
        || PQgetisnull(result, row, 0))
    {
        return;
    }

    answer->status = atoi(PQgetvalue(result, row, 0));

    for (i = 0; i < 3; i++) {
        if (!PQgetisnull(result, row, i + 1)) {
            *field[i] = strdup(PQgetvalue(result, row, i + 1));
        }
    }
}


static void
td_rest_result(td_job_t *job, unsigned step, PGresult *result)
{
    td_rest_t  *rest = job->data;

    if (job->step[step].statement == TD_SQL_BEGIN_REQUEST) {
        td_rest_take_answer(&rest->replay, result, 0);

    } else if (job->step[step].statement >= TD_SQL_ROUTES) {
        td_rest_take_answer(&rest->answer, result, 0);
    }
}


void
td_rest_begin(td_job_t *job, const td_request_t *request, const char *subject)
{
    td_pg_step_t  *step;

    td_job_step(job, TD_SQL_BEGIN);
    step = td_job_step(job, TD_SQL_BEGIN_REQUEST);
    step->param[0] = request->credential;
    step->param[1] = request->match.route->scope;
    step->param[2] = subject;
    step->param[5] = request->id;
}


static void
td_rest_add_call(td_rest_t *rest)
{
    td_pg_step_t  *step;

    step = td_job_step(&rest->job, TD_SQL_ROUTES
                       + (int) (rest->request->match.route - td_routes));
    step->param[0] = rest->path;
    step->param[1] = rest->query;
    step->param[2] = rest->body;
}


static void
td_rest_submit(td_rest_t *rest)
{
    td_request_t  *request;
    td_pg_step_t  *step;

    request = rest->request;
    td_job_reset(&rest->job);
    td_rest_begin(&rest->job, request, request->match.subject);

    step = &rest->job.step[rest->job.steps - 1];
    step->param[3] = rest->idempotency;
    step->param[4] = rest->if_match;

    rest->phase = TD_REST_OPENING;

    if (rest->idempotency == NULL) {
        rest->phase = TD_REST_ALL;
        td_rest_add_call(rest);
        td_job_step(&rest->job, TD_SQL_COMMIT);
    }

    td_job_submit(request->daemon->pool, &rest->job);
}


static void
td_rest_send_call(td_rest_t *rest)
{
    rest->phase = TD_REST_CALLING;
    td_job_reset(&rest->job);
    td_rest_add_call(rest);
    td_job_again(&rest->job);
}


static void
td_rest_send_close(td_rest_t *rest)
{
    char           status[16];
    td_pg_step_t  *step;

    snprintf(status, sizeof(status), "%d", rest->answer.status);
    rest->phase = TD_REST_CLOSING;

    td_job_reset(&rest->job);
    step = td_job_step(&rest->job, TD_SQL_REMEMBER);
    step->param[0] = rest->idempotency;
    step->param[1] = status;
    step->param[2] = rest->answer.etag;
    step->param[3] = rest->answer.location;
    step->param[4] = rest->answer.body;
    td_job_step(&rest->job, TD_SQL_COMMIT);
    td_job_again(&rest->job);
}


/* RFC 9110 section 13.1.2 */
static int
td_rest_is_unchanged(td_request_t *request, const td_rest_answer_t *answer)
{
    const char  *wanted;

    if ((request->method != TD_GET && request->method != TD_HEAD)
        || answer->status != 200 || answer->etag == NULL)
    {
        return 0;
    }

    wanted = td_request_header(request, "If-None-Match");

    return wanted != NULL && strstr(wanted, answer->etag) != NULL;
}


static void
td_rest_reply(td_rest_t *rest, td_rest_answer_t *answer)
{
    char          *body;
    td_request_t  *request;

    request = rest->request;

    if (answer->etag != NULL) {
        td_reply_header(request, "ETag", answer->etag);
    }

    if (answer->location != NULL) {
        td_reply_header(request, "Location", answer->location);
    }

    if (td_rest_is_unchanged(request, answer)) {
        td_rest_free(rest);
        td_reply(request, 304, NULL, NULL, 0);
        return;
    }

    body = answer->body;
    answer->body = NULL;

    if (answer->status == 0) {
        td_rest_free(rest);
        td_reply_kind(request, TD_PROBLEM_INTERNAL_ERROR, "the registry gave "
                      "no answer");
        return;
    }

    request->status = answer->status;
    td_rest_free(rest);
    td_reply(request, request->status, body ? "application/json" : NULL, body,
             body ? strlen(body) : 0);
    free(body);
}


static void
td_rest_fail(td_rest_t *rest, td_job_outcome_e outcome, const PGresult *error)
{
    int            changes;
    td_problem_t   problem;
    td_request_t  *request;

    request = rest->request;

    if (outcome == TD_JOB_ERROR && td_fault_may_retry(error) && !rest->retried)
    {
        rest->retried = 1;
        td_metric_add(TD_METRIC_DATABASE_RETRIES, 1);
        td_rest_submit(rest);
        return;
    }

    /* Without COMMIT in the pipeline nothing can have been done. */
    changes = request->method != TD_GET && request->method != TD_HEAD
              && (rest->phase == TD_REST_TOGETHER || rest->phase == TD_REST_ALL
                  || rest->phase == TD_REST_CLOSING);

    problem = td_fault(outcome, error, changes, request->id);
    td_rest_free(rest);
    td_reply_problem(request, &problem);
}


static void
td_rest_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_rest_t  *rest = job->data;

    if (outcome != TD_JOB_OK) {
        td_rest_fail(rest, outcome, error);
        return;
    }

    switch (rest->phase) {

    case TD_REST_TOGETHER:
    case TD_REST_ALL:
    case TD_REST_CLOSING:
        td_rest_reply(rest, &rest->answer);
        return;

    case TD_REST_OPENING:
        if (rest->replay.status != 0) {
            td_reply_header(rest->request, "Idempotency-Replayed", "true");
            td_rest_reply(rest, &rest->replay);
            return;
        }

        td_rest_send_call(rest);
        return;

    case TD_REST_CALLING:
        td_rest_send_close(rest);
        return;
    }
}


static void
td_rest_answer_together(td_call_t *call, const PGresult *result, int row)
{
    td_rest_t  *rest = call->data;

    td_rest_take_answer(&rest->answer, result, row);
}


static void
td_rest_done_together(td_call_t *call, td_job_outcome_e outcome)
{
    td_rest_t  *rest = call->data;

    if (outcome == TD_JOB_ERROR) {
        td_rest_clear_answer(&rest->answer);
        td_rest_submit(rest);
        return;
    }

    td_rest_done(&rest->job, outcome, NULL);
}


/* What is conditional, or will be refused for its parameters, goes alone. */
static int
td_rest_may_share(const td_rest_t *rest)
{
    return rest->request->match.route->kind == TD_ROUTE_TENANT
           && rest->request->uri.queries == 0 && rest->if_match == NULL
           && rest->body != NULL && rest->request->credential != NULL;
}


static void
td_rest_submit_together(td_rest_t *rest)
{
    td_call_t     *call;
    td_request_t  *request;

    call = &rest->call;
    request = rest->request;

    call->credential = request->credential;
    call->scope = request->match.route->scope;
    call->request_id = request->id;
    call->idempotency = rest->idempotency;
    call->body = rest->body;
    call->answer = td_rest_answer_together;
    call->done = td_rest_done_together;
    call->data = rest;

    rest->phase = TD_REST_TOGETHER;
    td_batches_add(request->daemon->batches, call);
}


/* Headers that make a call conditional or repeatable.  Returns 0 or -1. */
static int
td_rest_take_headers(td_rest_t *rest)
{
    const char    *key;
    td_request_t  *request;

    request = rest->request;

    if (request->method != TD_GET && request->method != TD_HEAD) {
        rest->if_match = td_request_header(request, "If-Match");
    }

    key = request->method == TD_POST
          ? td_request_header(request, "Idempotency-Key") : NULL;

    if (key == NULL) {
        return 0;
    }

    if (*key == '\0' || strlen(key) > 255) {
        td_rest_free(rest);
        td_reply_kind(request, TD_PROBLEM_MALFORMED_REQUEST, "an "
                      "Idempotency-Key has 1 to 255 bytes");
        return -1;
    }

    rest->idempotency = td_rest_idempotency(request, key);

    return 0;
}


void
td_rest_handle(td_request_t *request)
{
    td_rest_t  *rest;

    if (td_check_body(request) != 0) {
        return;
    }

    rest = calloc(1, sizeof(td_rest_t));
    if (rest == NULL) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    rest->request = request;
    rest->path = td_rest_path(request);
    rest->query = td_rest_query(request);
    rest->body = td_rest_body(request);
    rest->job.result = td_rest_result;
    rest->job.done = td_rest_done;
    rest->job.data = rest;
    rest->job.writes = request->method != TD_GET && request->method != TD_HEAD
                       && strcmp(request->match.route->scope, "gateway") != 0;

    if (rest->path == NULL || rest->query == NULL
        || (rest->body == NULL && request->body_len > 0))
    {
        td_rest_free(rest);
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    if (td_rest_take_headers(rest) != 0) {
        return;
    }

    request->data = rest;
    request->closed = td_rest_closed;

    if (td_rest_may_share(rest)) {
        td_rest_submit_together(rest);
        return;
    }

    td_rest_submit(rest);
}
