/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mesh objects that there are: the newest good state of each.  It holds what
 * shall be in force; td_agent_apply.c brings it into the kernel.
 */

#ifndef TD_AGENT_STORE_H
#define TD_AGENT_STORE_H

#include "td_agent_document.h"

typedef struct td_agent_store_s  td_agent_store_t;

/* NULL: no memory. */
td_agent_store_t *td_agent_store_create(void);
void td_agent_store_destroy(td_agent_store_t *store);

/* By kind and name; NULL: there is none. */
td_doc_t *td_agent_store_find(const td_agent_store_t *store, td_doc_kind_e kind,
    const char *name);

/* By the registry's number. */
td_doc_t *td_agent_store_tenant(const td_agent_store_t *store, uint32_t number);
td_doc_t *td_agent_store_service(const td_agent_store_t *store, uint32_t number);
const td_doc_policy_t *td_agent_store_policy(const td_agent_store_t *store,
    uint32_t number);

/* Takes doc in; what it replaces is the caller's then, as is doc with -1 (no
 * memory: nothing has changed). */
int td_agent_store_put(td_agent_store_t *store, td_doc_t *doc, td_doc_t **replaced);

/* Takes it out; it is the caller's. */
void td_agent_store_remove(td_agent_store_t *store, td_doc_t *doc);

size_t td_agent_store_count(const td_agent_store_t *store, td_doc_kind_e kind);

/* Each of the kind; visit may remove the one that it is called with. */
void td_agent_store_each(td_agent_store_t *store, td_doc_kind_e kind,
    void (*visit)(td_doc_t *doc, void *data), void *data);

#endif /* TD_AGENT_STORE_H */
