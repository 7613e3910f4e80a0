/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Workloads of "tenantd exec": asked for on a unix socket, one line of JSON each
 * way, docs/reference/agent.md.
 *
 *     {"tenant":"acme","service":"orders","name":"orders-1","netns":true}
 *     {"name":"orders-1","addresses":["10.90.0.7"]}        or {"error":"..."}
 *
 *  1. Who asks is known by the kernel: root, or a member of [agent] exec_group.
 *  2. The process that asks becomes the workload: its cgroup is in the kernel's map
 *     before it enters.
 *  3. What was made is on disk (STATE/exec.json) before it is answered, so that
 *     another life of the agent can take it away.
 */

#ifndef TD_AGENT_EXEC_H
#define TD_AGENT_EXEC_H

#include "td_agent.h"
#include "tg_text.h"

typedef struct td_agent_exec_s  td_agent_exec_t;

/* Listens.  NULL after a line in the log. */
td_agent_exec_t *td_agent_exec_create(td_agent_t *agent);
void td_agent_exec_destroy(td_agent_exec_t *exec);

/* Of a full state: puts all that there are into the kernel. */
void td_agent_exec_put_all(td_agent_exec_t *exec);

/* All of them as a JSON array, for the registry. */
void td_agent_exec_list(const td_agent_exec_t *exec, tg_text_t *out);

#endif /* TD_AGENT_EXEC_H */
