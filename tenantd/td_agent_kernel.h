/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Documents as rows of the kernel's maps, and who owns which row: an address or
 * cgroup goes from one object to another in the middle of a batch, and the one that
 * loses it must not take it away.
 */

#ifndef TD_AGENT_KERNEL_H
#define TD_AGENT_KERNEL_H

#include "td_agent.h"
#include "td_agent_document.h"

typedef struct td_agent_kernel_s  td_agent_kernel_t;

/* NULL: no memory. */
td_agent_kernel_t *td_kernel_create(td_agent_t *agent);
void td_kernel_destroy(td_agent_kernel_t *kernel);

/* Puts all that the document says.  0, or a negative errno with td_mesh_error(): a
 * part of it may be there then. */
int td_kernel_put(td_agent_t *agent, const td_doc_t *doc);

/* Takes away what doc has, but not what keep (may be NULL), of the same kind, has
 * as well. */
void td_kernel_delete(td_agent_t *agent, const td_doc_t *doc, const td_doc_t *keep);

/*
 * Identities, each with whoever brought it: a document, a cgroup that was found, a
 * workload of tenantd exec.  The last one to put it owns it; a delete by somebody
 * else does nothing.  0, or a negative errno with td_mesh_error().
 */
int td_kernel_put_address(td_agent_kernel_t *kernel, const td_mesh_address_t *address,
    const void *owner);
void td_kernel_delete_address(td_agent_kernel_t *kernel, const struct tg_addr *addr,
    uint32_t prefix, const void *owner);
int td_kernel_put_workload(td_agent_kernel_t *kernel, const td_mesh_workload_t *workload,
    const void *owner);
void td_kernel_delete_workload(td_agent_kernel_t *kernel, uint64_t cgroup,
    const void *owner);

/* Whether the address is somebody's. */
int td_kernel_taken(td_agent_kernel_t *kernel, const struct tg_addr *addr);

#endif /* TD_AGENT_KERNEL_H */
