/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Lines that are no good are answered at once; the others of a chunk go to SQL as
 * one array.  A chunk's answers are sent in order of lines when it is committed;
 * the next waits until the client has taken most of them.  The credential is
 * judged anew with each chunk; the status is sent after the first.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>

#include "td_body.h"
#include "td_check.h"
#include "td_fault.h"
#include "td_import.h"
#include "td_metrics.h"
#include "td_rest.h"
#include "td_sql.h"
#include "tg_text.h"


#define TD_IMPORT_LINES  500
#define TD_IMPORT_BYTES  (4 * 1024 * 1024)  /* of a chunk, about */
#define TD_IMPORT_AHEAD  (1024 * 1024)      /* answers that may be pending */

typedef struct {
    unsigned long   number;     /* in the body, from 1 */
    char           *answer;     /* NULL: SQL's to give */
} td_import_line_t;

typedef struct {
    td_request_t               *request;
    td_job_t                    job;
    struct evbuffer            *input;
    struct evbuffer            *output;
    struct evbuffer_cb_entry   *on_drain;
    struct event               *wake;
    int                         begun;      /* the status has been sent */
    int                         resting;    /* waits for the client */
    unsigned long               number;     /* of the last line taken */
    td_import_line_t            line[TD_IMPORT_LINES];
    unsigned                    lines;
    tg_text_t                   array;      /* the chunk, for SQL */
    unsigned                    element[TD_IMPORT_LINES];  /* which line each is */
    unsigned                    elements;
} td_import_t;

static void td_import_next(td_import_t *import);


static struct evbuffer *
td_import_pending(const td_import_t *import)
{
    return bufferevent_get_output(td_conn_bufferevent(import->request->conn));
}


static void
td_import_clear_chunk(td_import_t *import)
{
    while (import->lines > 0) {
        free(import->line[--import->lines].answer);
    }

    tg_text_reset(&import->array);
    import->elements = 0;
}


static void
td_import_free(td_import_t *import)
{
    td_job_cancel(&import->job);
    td_import_clear_chunk(import);
    tg_text_free(&import->array);

    if (import->on_drain != NULL) {
        evbuffer_remove_cb_entry(td_import_pending(import), import->on_drain);
    }

    if (import->wake != NULL) {
        event_free(import->wake);
    }

    if (import->output != NULL) {
        evbuffer_free(import->output);
    }

    free(import);
}


static void
td_import_on_closed(td_request_t *request)
{
    td_import_free(request->data);
    td_request_free(request);
}


/* {"line":N,"status":S,"problem":{...}} */
static char *
td_import_refusal(unsigned long number, const td_problem_t *problem)
{
    char       *body;
    size_t      len;
    tg_text_t   text;

    body = td_problem_body(problem, &len);
    if (body == NULL) {
        return NULL;
    }

    tg_text_init(&text);
    tg_text_printf(&text, "{\"line\":%lu,\"status\":%d,\"problem\":", number,
                   problem->status);
    tg_text_add(&text, body, len - 1);
    tg_text_add(&text, "}\n", sizeof("}\n"));
    free(body);

    if (text.failed) {
        tg_text_free(&text);
    }

    return text.data;
}


/* Checks a line: it becomes part of the array, or gets its answer. */
static void
td_import_take_line(td_import_t *import, const char *text, size_t len)
{
    int                 keys;
    char                detail[TD_BODY_MAX_DETAIL];
    char               *dump;
    json_t             *json;
    tg_error_t          err;
    td_problem_t        problem;
    td_import_line_t   *line;

    line = &import->line[import->lines++];
    line->number = import->number;
    line->answer = NULL;

    json = td_body_parse(text, len, &problem, detail);
    keys = json == NULL ? -1
           : td_check_keys(import->request->daemon, json, &problem, &err);

    if (keys < 0) {
        line->answer = td_import_refusal(line->number, &problem);
        json_decref(json);
        return;
    }

    dump = keys > 0 ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);

    tg_text_str(&import->array, import->elements > 0 ? "," : "[");
    import->element[import->elements++] = import->lines - 1;

    if (dump != NULL) {
        tg_text_str(&import->array, dump);
        free(dump);
        return;
    }

    tg_text_add(&import->array, text, len);
}


static int
td_import_is_blank(const char *text, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if (text[i] != ' ' && text[i] != '\t') {
            return 0;
        }
    }

    return 1;
}


/* Fills the chunk from the body. */
static void
td_import_read_chunk(td_import_t *import)
{
    char    *text;
    size_t   len;

    td_import_clear_chunk(import);

    while (import->lines < TD_IMPORT_LINES
           && import->array.len < TD_IMPORT_BYTES
           && evbuffer_get_length(import->input) > 0)
    {
        text = evbuffer_readln(import->input, &len, EVBUFFER_EOL_CRLF);

        if (text == NULL) {
            /* the last line need not end in a newline */
            len = evbuffer_get_length(import->input);
            text = malloc(len + 1);
            if (text == NULL) {
                evbuffer_drain(import->input, len);
                return;
            }
            evbuffer_remove(import->input, text, len);
        }

        import->number++;

        if (!td_import_is_blank(text, len)) {
            td_import_take_line(import, text, len);
        }

        free(text);
    }

    if (import->elements > 0) {
        tg_text_add(&import->array, "]", sizeof("]"));
    }
}


/* The answer of SQL to one element. */
static char *
td_import_answer(unsigned long number, const PGresult *result, int row)
{
    const char  *status;
    tg_text_t    text;

    status = PQgetvalue(result, row, 1);

    tg_text_init(&text);
    tg_text_printf(&text, "{\"line\":%lu,\"status\":%s,\"%s\":", number, status,
                   status[0] == '2' ? "result" : "problem");
    tg_text_str(&text, PQgetvalue(result, row, 2));
    tg_text_add(&text, "}\n", sizeof("}\n"));

    if (text.failed) {
        tg_text_free(&text);
    }

    return text.data;
}


/* SQL numbers the elements from 1. */
static void
td_import_result(td_job_t *job, unsigned step, PGresult *result)
{
    int                row;
    unsigned           element;
    td_import_t       *import = job->data;
    td_import_line_t  *line;

    if (job->step[step].statement != TD_SQL_IMPORT) {
        return;
    }

    for (row = 0; row < PQntuples(result); row++) {
        element = (unsigned) atoi(PQgetvalue(result, row, 0)) - 1;

        if (element < import->elements) {
            line = &import->line[import->element[element]];
            free(line->answer);
            line->answer = td_import_answer(line->number, result, row);
        }
    }
}


/* Sends the chunk's answers; problem is for lines that have none. */
static void
td_import_send_answers(td_import_t *import, const td_problem_t *problem)
{
    unsigned           i;
    td_import_line_t  *line;

    if (!import->begun) {
        import->begun = 1;
        td_stream_begin(import->request, 200, "application/jsonl");
    }

    for (i = 0; i < import->lines; i++) {
        line = &import->line[i];

        if (line->answer == NULL) {
            line->answer = td_import_refusal(line->number, problem);
        }

        if (line->answer != NULL) {
            evbuffer_add(import->output, line->answer, strlen(line->answer));
        }
    }

    td_metric_add(TD_METRIC_IMPORT_LINES, import->lines);
    td_stream_send(import->request, import->output);
}


/* The credential is no good, or the database away, and nothing was said yet. */
static void
td_import_refuse(td_import_t *import, const td_problem_t *problem)
{
    td_request_t  *request;

    request = import->request;
    td_import_free(import);
    td_reply_problem(request, problem);
}


static void
td_import_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_import_t   *import = job->data;
    td_problem_t   problem;

    problem = outcome == TD_JOB_OK
              ? td_problem(TD_PROBLEM_INTERNAL_ERROR, "the registry gave no "
                           "answer to this line")
              : td_fault(outcome, error, 1, import->request->id);

    if (outcome != TD_JOB_OK && !import->begun) {
        td_import_refuse(import, &problem);
        return;
    }

    td_import_send_answers(import, &problem);
    td_import_next(import);
}


static void
td_import_submit(td_import_t *import)
{
    td_pg_step_t  *step;

    td_job_reset(&import->job);
    td_rest_begin(&import->job, import->request, NULL);

    step = td_job_step(&import->job, TD_SQL_IMPORT);
    step->param[0] = import->elements > 0 ? import->array.data : "[]";

    td_job_step(&import->job, TD_SQL_COMMIT);
    td_job_submit(import->request->daemon->pool, &import->job);
}


/* The next chunk, unless the client does not read, or the end. */
static void
td_import_next(td_import_t *import)
{
    td_problem_t   problem;
    td_request_t  *request;

    if (evbuffer_get_length(import->input) == 0) {
        request = import->request;
        td_import_free(import);
        td_stream_end(request);
        return;
    }

    if (evbuffer_get_length(td_import_pending(import)) > TD_IMPORT_AHEAD) {
        import->resting = 1;
        return;
    }

    td_import_read_chunk(import);

    /* nothing but blank lines, or all refused already: SQL judges the credential
     * once, and then need not be asked for those */
    if (import->elements == 0 && import->begun) {
        problem = td_problem(TD_PROBLEM_OVERLOADED, "out of memory");
        td_import_send_answers(import, &problem);
        event_active(import->wake, EV_TIMEOUT, 0);
        import->resting = 1;
        return;
    }

    td_import_submit(import);
}


static void
td_import_on_wake(evutil_socket_t fd, short what, void *data)
{
    td_import_t  *import = data;

    (void) fd;
    (void) what;

    if (import->resting) {
        import->resting = 0;
        td_import_next(import);
    }
}


static void
td_import_on_drain(struct evbuffer *output, const struct evbuffer_cb_info *info,
    void *data)
{
    td_import_t  *import = data;

    if (info->n_deleted > 0 && import->resting
        && evbuffer_get_length(output) <= TD_IMPORT_AHEAD)
    {
        event_active(import->wake, EV_TIMEOUT, 0);
    }
}


void
td_import_handle(td_request_t *request)
{
    td_import_t  *import;

    if (td_check_body(request) != 0) {
        return;
    }

    import = calloc(1, sizeof(td_import_t));
    if (import == NULL) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    import->request = request;
    import->input = evhttp_request_get_input_buffer(request->http);
    import->output = evbuffer_new();
    import->wake = event_new(request->daemon->base, -1, 0, td_import_on_wake,
                             import);
    import->on_drain = evbuffer_add_cb(td_import_pending(import),
                                       td_import_on_drain, import);
    import->job.result = td_import_result;
    import->job.done = td_import_done;
    import->job.data = import;
    tg_text_init(&import->array);

    if (import->output == NULL || import->wake == NULL
        || import->on_drain == NULL)
    {
        td_import_free(import);
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    request->data = import;
    request->closed = td_import_on_closed;
    td_import_next(import);
}
