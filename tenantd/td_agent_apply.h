/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Batches, brought into the store and the kernel.  The order is such that at no
 * moment something is allowed that neither the state before nor that after allows:
 * rules before what they judge, identities before those who call, services last;
 * what goes, goes in reverse.  An address or cgroup that another object has taken
 * over stays.
 */

#ifndef TD_AGENT_APPLY_H
#define TD_AGENT_APPLY_H

#include "td_agent.h"
#include "td_agent_document.h"
#include "tg_text.h"

typedef struct td_agent_apply_s  td_agent_apply_t;

/* NULL: no memory. */
td_agent_apply_t *td_apply_create(td_agent_t *agent);
void td_apply_destroy(td_agent_apply_t *apply);

/*
 * Of the batch that is being collected.  put takes doc over.  refuse: an object that
 * cannot be used; what was there of it stays.
 */
void td_apply_put(td_agent_apply_t *apply, td_doc_t *doc);
void td_apply_delete(td_agent_apply_t *apply, td_doc_kind_e kind, const char *name,
    int64_t id);
void td_apply_refuse(td_agent_apply_t *apply, const td_event_t *event,
    const char *reason);

/* Forgets the batch: the stream was torn. */
void td_apply_drop(td_agent_apply_t *apply);

/*
 * The batch is complete: complete says that it is a list, so that what it does not
 * name is gone.  Afterwards the state is in force.  Returns 1 when the view of this
 * node has changed, so that a list is needed; else 0.
 */
int td_apply_commit(td_agent_apply_t *apply, uint64_t revision, int complete,
    const char *registry);

/* The revision in force; 0: none.  And whether anything is, in this life. */
uint64_t td_apply_revision(const td_agent_apply_t *apply);
int td_apply_loaded(const td_agent_apply_t *apply);

/* The list of refusals as a JSON array. */
void td_apply_rejected(const td_agent_apply_t *apply, tg_text_t *out);

#endif /* TD_AGENT_APPLY_H */
