/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Lines that are no good are answered without SQL; the others of a chunk go there
 * as one array.  Two chunks are under way at once, on connections of their own;
 * answers are sent in order of lines.  The first chunk goes alone: with it the
 * credential is judged, and the status sent.  Each later one is judged anew.
 *
 * The body may come from anybody, and be made to keep tenantd busy.  So no line is
 * parsed that POST /v1/tenants would not take, and whatever takes no SQL is done
 * in turns, between which others have theirs.
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


#define TD_IMPORT_LINES   500
#define TD_IMPORT_BYTES   (4 * 1024 * 1024)     /* of a chunk, about */
#define TD_IMPORT_CHUNKS  2
#define TD_IMPORT_TURN    5000                  /* lines looked at, blank or not */
#define TD_IMPORT_AHEAD   (1024 * 1024)         /* answers that may be pending */

typedef struct {
    unsigned long   number;     /* in the body, from 1 */
    char           *answer;     /* NULL: SQL's to give */
} td_import_line_t;

typedef enum {
    TD_CHUNK_EMPTY,             /* waits for lines */
    TD_CHUNK_RUNNING,           /* waits for SQL */
    TD_CHUNK_DONE               /* waits for the chunk before it */
} td_chunk_state_e;

typedef struct td_import_s  td_import_t;

typedef struct {
    td_import_t        *import;
    td_chunk_state_e    state;
    td_job_t            job;
    td_import_line_t    line[TD_IMPORT_LINES];
    unsigned            lines;
    tg_text_t           array;                      /* for SQL */
    unsigned            element[TD_IMPORT_LINES];   /* which line each is */
    unsigned            elements;
} td_chunk_t;

struct td_import_s {
    td_request_t               *request;
    struct evbuffer            *input;
    struct evbuffer            *output;
    struct evbuffer_cb_entry   *on_drain;
    struct event               *wake;
    int                         begun;      /* the status has been sent */
    unsigned long               number;     /* of the last line taken */
    td_chunk_t                  chunk[TD_IMPORT_CHUNKS];
    unsigned                    fill;       /* the chunk to be filled next */
    unsigned                    send;       /* and to be answered next */
};


static struct evbuffer *
td_import_pending(const td_import_t *import)
{
    return bufferevent_get_output(td_conn_bufferevent(import->request->conn));
}


static void
td_chunk_clear(td_chunk_t *chunk)
{
    while (chunk->lines > 0) {
        free(chunk->line[--chunk->lines].answer);
    }

    tg_text_reset(&chunk->array);
    chunk->elements = 0;
    chunk->state = TD_CHUNK_EMPTY;
}


static void
td_import_free(td_import_t *import)
{
    size_t  i;

    for (i = 0; i < TD_IMPORT_CHUNKS; i++) {
        td_job_cancel(&import->chunk[i].job);
        td_chunk_clear(&import->chunk[i]);
        tg_text_free(&import->chunk[i].array);
    }

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


/* NULL: problem says why not.  detail is for its text. */
static json_t *
td_import_parse(const td_daemon_t *daemon, const char *text, size_t len,
    td_problem_t *problem, char *detail)
{
    if (len > (size_t) daemon->config->http.max_body) {
        *problem = td_problem(TD_PROBLEM_BODY_TOO_LARGE, "the line is larger "
                              "than the body of a request may be");
        return NULL;
    }

    return td_body_parse(text, len, problem, detail);
}


/* Checks a line: it becomes an element, or gets its answer. */
static void
td_chunk_take_line(td_chunk_t *chunk, const char *text, size_t len)
{
    int                 keys;
    char                detail[TD_BODY_MAX_DETAIL];
    char               *dump;
    json_t             *json;
    tg_error_t          err;
    td_daemon_t        *daemon;
    td_problem_t        problem;
    td_import_line_t   *line;

    line = &chunk->line[chunk->lines++];
    line->number = chunk->import->number;
    line->answer = NULL;

    daemon = chunk->import->request->daemon;
    json = td_import_parse(daemon, text, len, &problem, detail);
    keys = json == NULL ? -1 : td_check_json(daemon, json, 1, &problem, &err);

    if (keys < 0) {
        line->answer = td_import_refusal(line->number, &problem);
        json_decref(json);
        return;
    }

    dump = keys > 0 ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);

    tg_text_str(&chunk->array, chunk->elements > 0 ? "," : "[");
    chunk->element[chunk->elements++] = chunk->lines - 1;

    if (dump != NULL) {
        tg_text_str(&chunk->array, dump);
        free(dump);
        return;
    }

    tg_text_add(&chunk->array, text, len);
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


/* The next line of the body, to be freed; NULL: out of memory. */
static char *
td_import_read_line(td_import_t *import, size_t *len)
{
    char  *text;

    text = evbuffer_readln(import->input, len, EVBUFFER_EOL_CRLF);

    if (text == NULL) {
        /* the last line need not end in a newline */
        *len = evbuffer_get_length(import->input);
        text = malloc(*len + 1);

        if (text == NULL) {
            evbuffer_drain(import->input, *len);
            return NULL;
        }

        evbuffer_remove(import->input, text, *len);
    }

    import->number++;

    return text;
}


static void
td_chunk_fill(td_chunk_t *chunk)
{
    char             *text;
    size_t            len;
    unsigned          taken;
    struct evbuffer  *input;

    taken = 0;
    input = chunk->import->input;

    while (taken++ < TD_IMPORT_TURN && chunk->lines < TD_IMPORT_LINES
           && chunk->array.len < TD_IMPORT_BYTES
           && evbuffer_get_length(input) > 0)
    {
        text = td_import_read_line(chunk->import, &len);

        if (text != NULL && !td_import_is_blank(text, len)) {
            td_chunk_take_line(chunk, text, len);
        }

        free(text);
    }

    if (chunk->elements == 0) {
        tg_text_str(&chunk->array, "[");
    }

    tg_text_add(&chunk->array, "]", sizeof("]"));
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
td_chunk_result(td_job_t *job, unsigned step, PGresult *result)
{
    int                row;
    unsigned           element;
    td_chunk_t        *chunk = job->data;
    td_import_line_t  *line;

    if (job->step[step].statement != TD_SQL_IMPORT) {
        return;
    }

    for (row = 0; row < PQntuples(result); row++) {
        element = (unsigned) atoi(PQgetvalue(result, row, 0)) - 1;

        if (element < chunk->elements) {
            line = &chunk->line[chunk->element[element]];
            free(line->answer);
            line->answer = td_import_answer(line->number, result, row);
        }
    }
}


/* What SQL has said is void unless it was committed; problem says why not. */
static void
td_chunk_settle(td_chunk_t *chunk, int committed, const td_problem_t *problem)
{
    unsigned           i;
    td_import_line_t  *line;

    for (i = 0; i < chunk->elements; i++) {
        line = &chunk->line[chunk->element[i]];

        if (!committed) {
            free(line->answer);
            line->answer = NULL;
        }

        if (line->answer == NULL) {
            line->answer = td_import_refusal(line->number, problem);
        }
    }

    chunk->state = TD_CHUNK_DONE;
}


/* Sends the answers of the chunks that are done, in order. */
static void
td_import_send(td_import_t *import)
{
    unsigned     i;
    td_chunk_t  *chunk;

    while (import->chunk[import->send].state == TD_CHUNK_DONE) {
        chunk = &import->chunk[import->send];

        for (i = 0; i < chunk->lines; i++) {
            if (chunk->line[i].answer != NULL) {
                evbuffer_add(import->output, chunk->line[i].answer,
                             strlen(chunk->line[i].answer));
            }
        }

        td_metric_add(TD_METRIC_IMPORT_LINES, chunk->lines);
        td_chunk_clear(chunk);
        import->send = (import->send + 1) % TD_IMPORT_CHUNKS;
    }

    td_stream_send(import->request, import->output);
}


static void
td_chunk_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    td_chunk_t    *chunk = job->data;
    td_import_t   *import;
    td_request_t  *request;
    td_problem_t   problem;

    import = chunk->import;
    request = import->request;
    problem = outcome == TD_JOB_OK
              ? td_problem(TD_PROBLEM_INTERNAL_ERROR, "the registry gave no "
                           "answer to this line")
              : td_fault(outcome, error, 1, request->id);

    /* nothing was said yet: the credential is no good, or the database away */
    if (outcome != TD_JOB_OK && !import->begun) {
        td_import_free(import);
        td_reply_problem(request, &problem);
        return;
    }

    if (!import->begun) {
        import->begun = 1;
        td_stream_begin(request, 200, "application/jsonl");
    }

    td_chunk_settle(chunk, outcome == TD_JOB_OK, &problem);

    /* not from within the pool's own turn: the next chunk may be answered at
     * once, and so on */
    event_active(import->wake, EV_TIMEOUT, 0);
}


static void
td_chunk_submit(td_chunk_t *chunk)
{
    td_pg_step_t  *step;

    chunk->state = TD_CHUNK_RUNNING;
    td_job_reset(&chunk->job);
    td_rest_begin(&chunk->job, chunk->import->request, NULL);

    step = td_job_step(&chunk->job, TD_SQL_IMPORT);
    step->param[0] = chunk->array.data;

    td_job_step(&chunk->job, TD_SQL_COMMIT);
    td_job_submit(chunk->import->request->daemon->pool, &chunk->job);
}


static int
td_import_may_fill(td_import_t *import)
{
    return import->chunk[import->fill].state == TD_CHUNK_EMPTY
           && evbuffer_get_length(import->input) > 0
           && evbuffer_get_length(td_import_pending(import)) <= TD_IMPORT_AHEAD;
}


/* Sends what can be sent, and starts what can be started. */
static void
td_import_on_wake(evutil_socket_t fd, short what, void *data)
{
    td_chunk_t      *chunk;
    td_import_t     *import = data;
    td_request_t    *request;
    struct timeval   others_first = { 0, 0 };

    (void) fd;
    (void) what;

    td_import_send(import);

    while (td_import_may_fill(import)) {
        chunk = &import->chunk[import->fill];
        import->fill = (import->fill + 1) % TD_IMPORT_CHUNKS;
        td_chunk_fill(chunk);

        if (chunk->elements == 0) {
            chunk->state = TD_CHUNK_DONE;
            evtimer_add(import->wake, &others_first);
            return;
        }

        td_chunk_submit(chunk);
    }

    if (evbuffer_get_length(import->input) == 0
        && import->chunk[import->send].state == TD_CHUNK_EMPTY)
    {
        request = import->request;
        td_import_free(import);
        td_stream_end(request);
    }
}


static void
td_import_on_drain(struct evbuffer *output, const struct evbuffer_cb_info *info,
    void *data)
{
    td_import_t  *import = data;

    if (info->n_deleted > 0 && import->begun
        && evbuffer_get_length(output) <= TD_IMPORT_AHEAD)
    {
        event_active(import->wake, EV_TIMEOUT, 0);
    }
}


/* NULL: out of memory. */
static td_import_t *
td_import_create(td_request_t *request)
{
    size_t        i;
    td_import_t  *import;

    import = calloc(1, sizeof(td_import_t));
    if (import == NULL) {
        return NULL;
    }

    import->request = request;
    import->input = evhttp_request_get_input_buffer(request->http);
    import->output = evbuffer_new();
    import->wake = event_new(request->daemon->base, -1, 0, td_import_on_wake,
                             import);
    import->on_drain = evbuffer_add_cb(td_import_pending(import),
                                       td_import_on_drain, import);

    for (i = 0; i < TD_IMPORT_CHUNKS; i++) {
        import->chunk[i].import = import;
        import->chunk[i].job.result = td_chunk_result;
        import->chunk[i].job.done = td_chunk_done;
        import->chunk[i].job.data = &import->chunk[i];
        import->chunk[i].job.writes = 1;
        tg_text_init(&import->chunk[i].array);
    }

    if (import->output == NULL || import->wake == NULL
        || import->on_drain == NULL)
    {
        td_import_free(import);
        return NULL;
    }

    return import;
}


void
td_import_handle(td_request_t *request)
{
    td_import_t  *import;

    if (td_check_body(request) != 0) {
        return;
    }

    import = td_import_create(request);
    if (import == NULL) {
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    request->data = import;
    request->closed = td_import_on_closed;

    import->fill = 1;
    td_chunk_fill(&import->chunk[0]);
    td_chunk_submit(&import->chunk[0]);
}
