/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_fault.h"
#include "td_log.h"


#define TD_FAULT_SCHEMA                                                       \
    "the schema is not that of this version: run tenantd migrate"

/* Prefixes of SQLSTATEs (PostgreSQL, appendix A); the first that fits decides. */
static const struct {
    const char         *sqlstate;
    td_problem_kind_e   kind;
    const char         *detail;     /* NULL: PostgreSQL's own sentence */
    td_log_level_e      level;
} td_faults[] = {
    { "40001", TD_PROBLEM_CONFLICTING_CHANGES,
      "other changes got in the way twice; nothing was done, try again",
      TD_LOG_INFO },
    { "40P01", TD_PROBLEM_CONFLICTING_CHANGES,
      "other changes got in the way twice; nothing was done, try again",
      TD_LOG_INFO },
    { "57014", TD_PROBLEM_OVERLOADED,
      "the registry took too long; nothing was done, try again", TD_LOG_WARN },
    { "55P03", TD_PROBLEM_OVERLOADED,
      "the registry took too long; nothing was done, try again", TD_LOG_WARN },
    { "25P0", TD_PROBLEM_DATABASE_UNAVAILABLE,
      "the registry ended the transaction; nothing was done, try again",
      TD_LOG_WARN },
    { "53", TD_PROBLEM_DATABASE_UNAVAILABLE,
      "the registry is short of resources; nothing was done, try again",
      TD_LOG_WARN },
    { "57P", TD_PROBLEM_DATABASE_UNAVAILABLE,
      "the registry is restarting; nothing was done, try again", TD_LOG_INFO },
    { "08", TD_PROBLEM_DATABASE_UNAVAILABLE,
      "the registry cannot be reached; nothing was done, try again",
      TD_LOG_INFO },
    { "25006", TD_PROBLEM_DATABASE_UNAVAILABLE,
      "the registry is a read-only standby; nothing was done", TD_LOG_ERR },
    /* schema, table, column, function that is not there */
    { "3F000", TD_PROBLEM_INTERNAL_ERROR, TD_FAULT_SCHEMA, TD_LOG_ERR },
    { "42P01", TD_PROBLEM_INTERNAL_ERROR, TD_FAULT_SCHEMA, TD_LOG_ERR },
    { "42703", TD_PROBLEM_INTERNAL_ERROR, TD_FAULT_SCHEMA, TD_LOG_ERR },
    { "42883", TD_PROBLEM_INTERNAL_ERROR, TD_FAULT_SCHEMA, TD_LOG_ERR },
    { "22", TD_PROBLEM_INVALID_VALUE, NULL, TD_LOG_DEBUG },
    { "54", TD_PROBLEM_INVALID_VALUE, NULL, TD_LOG_INFO },
    { "", TD_PROBLEM_INTERNAL_ERROR,
      "the registry refused for a reason that tenantd does not know; its log "
      "says more", TD_LOG_ERR },
};


static const char *
td_fault_field(const PGresult *error, int field)
{
    const char  *text;

    text = PQresultErrorField(error, field);

    return text != NULL ? text : "";
}


/* SQLSTATE TGnnn: how SQL functions refuse. */
static td_problem_t
td_fault_refusal(const PGresult *error, const char *sqlstate)
{
    td_problem_t  problem;

    memset(&problem, 0, sizeof(problem));
    problem.status = atoi(sqlstate + 2);
    problem.slug = td_fault_field(error, PG_DIAG_MESSAGE_DETAIL);
    problem.detail = td_fault_field(error, PG_DIAG_MESSAGE_PRIMARY);
    problem.hint = td_fault_field(error, PG_DIAG_MESSAGE_HINT);
    problem.pointer = td_fault_field(error, PG_DIAG_COLUMN_NAME);

    return problem;
}


static int
td_fault_is_refusal(const PGresult *error, const char *sqlstate)
{
    int          status;
    const char  *slug;

    slug = td_fault_field(error, PG_DIAG_MESSAGE_DETAIL);
    status = strncmp(sqlstate, "TG", 2) == 0 ? atoi(sqlstate + 2) : 0;

    return status >= 400 && status < 600 && slug[0] != '\0'
           && strspn(slug, "abcdefghijklmnopqrstuvwxyz0123456789-")
              == strlen(slug);
}


static size_t
td_fault_find(const char *sqlstate)
{
    size_t  i = 0;

    /* the last one fits */
    while (strncmp(sqlstate, td_faults[i].sqlstate,
                   strlen(td_faults[i].sqlstate)) != 0)
    {
        i++;
    }

    return i;
}


static td_problem_t
td_fault_of_error(const PGresult *error, const char *id)
{
    size_t       i;
    const char  *sqlstate, *detail;

    sqlstate = td_fault_field(error, PG_DIAG_SQLSTATE);

    if (td_fault_is_refusal(error, sqlstate)) {
        return td_fault_refusal(error, sqlstate);
    }

    i = td_fault_find(sqlstate);

    td_log(td_faults[i].level, "database", "request %s: %s: %s (%s)", id,
           sqlstate, td_fault_field(error, PG_DIAG_MESSAGE_PRIMARY),
           td_fault_field(error, PG_DIAG_CONTEXT));

    detail = td_faults[i].detail;

    return td_problem(td_faults[i].kind, detail != NULL ? detail
                      : td_fault_field(error, PG_DIAG_MESSAGE_PRIMARY));
}


td_problem_t
td_fault(td_job_outcome_e outcome, const PGresult *error, int changes,
    const char *id)
{
    if (error != NULL) {
        return td_fault_of_error(error, id);
    }

    if (outcome == TD_JOB_FULL) {
        return td_problem(TD_PROBLEM_OVERLOADED, "too many requests wait for "
                          "the registry; nothing was done, try again");
    }

    if (outcome == TD_JOB_UNKNOWN && changes) {
        return td_problem(TD_PROBLEM_OUTCOME_UNKNOWN, "the connection to the "
                          "registry broke while the change was being "
                          "committed: it may or may not have been done; look "
                          "before you repeat it");
    }

    return td_problem(TD_PROBLEM_DATABASE_UNAVAILABLE, "the registry cannot be "
                      "reached; nothing was done, try again");
}


int
td_fault_may_retry(const PGresult *error)
{
    const char  *sqlstate;

    if (error == NULL) {
        return 0;
    }

    sqlstate = td_fault_field(error, PG_DIAG_SQLSTATE);

    return strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0;
}


const char *
td_fault_text(const PGresult *error)
{
    const char   *message, *detail;
    static char   text[512];

    message = td_fault_field(error, PG_DIAG_MESSAGE_PRIMARY);
    detail = td_faults[td_fault_find(td_fault_field(error,
                                                    PG_DIAG_SQLSTATE))].detail;

    if (message[0] == '\0') {
        message = PQresultErrorMessage(error);
    }

    if (detail == NULL || strcmp(detail, TD_FAULT_SCHEMA) != 0) {
        return message;
    }

    (void) snprintf(text, sizeof(text), "%s; %s", message, detail);

    return text;
}
