/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "td_check.h"
#include "td_fault.h"
#include "td_page.h"
#include "td_rest.h"
#include "td_sql.h"


typedef struct {
    td_request_t  *request;
    td_job_t       job;
    td_page_pt     show;
    char          *path;
    char          *query;
    json_t        *body;
} td_page_t;


static void
td_page_free(td_page_t *page)
{
    td_job_cancel(&page->job);
    free(page->path);
    free(page->query);
    json_decref(page->body);
    free(page);
}


static void
td_page_closed(td_request_t *request)
{
    td_page_free(request->data);
    td_request_free(request);
}


static void
td_page_result(td_job_t *job, unsigned step, PGresult *result)
{
    td_page_t  *page = job->data;

    if (job->step[step].statement >= TD_SQL_ROUTES && PQntuples(result) == 1
        && page->body == NULL)
    {
        page->body = json_loadb(PQgetvalue(result, 0, 3),
                                (size_t) PQgetlength(result, 0, 3), 0, NULL);
    }
}


static void
td_page_done(td_job_t *job, td_job_outcome_e outcome, const PGresult *error)
{
    json_t        *body;
    td_page_t     *page = job->data;
    td_page_pt     show;
    td_problem_t   problem;
    td_request_t  *request;

    request = page->request;
    show = page->show;
    body = json_incref(page->body);

    if (outcome != TD_JOB_OK) {
        problem = td_fault(outcome, error, 0, request->id);
    }

    td_page_free(page);

    if (outcome != TD_JOB_OK) {
        td_reply_problem(request, &problem);

    } else if (body == NULL) {
        td_reply_kind(request, TD_PROBLEM_INTERNAL_ERROR, "the registry gave "
                      "no answer");

    } else {
        show(request, body);
    }

    json_decref(body);
}


void
td_page_call(td_request_t *request, td_page_pt show)
{
    td_page_t     *page;
    td_pg_step_t  *step;

    if (td_check_body(request) != 0) {
        return;
    }

    page = calloc(1, sizeof(td_page_t));

    if (page != NULL) {
        page->path = td_rest_path(request);
        page->query = td_rest_query(request);
    }

    if (page == NULL || page->path == NULL || page->query == NULL) {
        if (page != NULL) {
            td_page_free(page);
        }
        td_reply_kind(request, TD_PROBLEM_OVERLOADED, "out of memory");
        return;
    }

    page->request = request;
    page->show = show;
    page->job.result = td_page_result;
    page->job.done = td_page_done;
    page->job.data = page;
    request->data = page;
    request->closed = td_page_closed;

    td_rest_begin(&page->job, request, request->match.subject);
    step = td_job_step(&page->job, TD_SQL_ROUTES
                       + (int) (request->match.route - td_routes));
    step->param[0] = page->path;
    step->param[1] = page->query;
    td_job_step(&page->job, TD_SQL_COMMIT);
    td_job_submit(request->daemon->pool, &page->job);
}


int
td_page_accepts(const td_request_t *request, const char *type)
{
    size_t       len;
    const char  *accept;

    accept = td_request_header(request, "Accept");
    if (accept == NULL) {
        return 0;
    }

    accept += strspn(accept, " ");
    len = strlen(type);

    return strncmp(accept, type, len) == 0
           && strspn(accept + len, ",; ") + (accept[len] == '\0') > 0;
}
