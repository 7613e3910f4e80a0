/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How a job that did not succeed is told to the client.
 */

#ifndef TD_FAULT_H
#define TD_FAULT_H

#include "td_pool.h"
#include "td_problem.h"

/*
 * The problem for what PostgreSQL said, or, with error NULL, for how the job
 * ended.  changes: whether the job would have changed something, so that an
 * unknown outcome matters.  Its texts point into error.  Logs what is not the
 * client's fault; id is the request's.
 */
td_problem_t td_fault(td_job_outcome_e outcome, const PGresult *error,
    int changes, const char *id);

/* Whether the transaction is worth repeating as it is: serialisation failure or
 * deadlock. */
int td_fault_may_retry(const PGresult *error);

/* What PostgreSQL said, in one line for the log, and what to do when its schema is
 * of another version.  Valid until the next call. */
const char *td_fault_text(const PGresult *error);

#endif /* TD_FAULT_H */
