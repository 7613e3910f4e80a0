/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Workloads of this node and their cgroups: a workload is in the kernel while its
 * cgroup is there.  inotify tells of cgroups that come and go; a look at some of
 * them now and then finds what it did not tell.
 */

#ifndef TD_AGENT_PLACE_H
#define TD_AGENT_PLACE_H

#include "td_agent.h"
#include "td_agent_document.h"

typedef struct td_agent_place_s  td_agent_place_t;

/* NULL after a line in the log. */
td_agent_place_t *td_place_create(td_agent_t *agent);
void td_place_destroy(td_agent_place_t *place);

/* Where cgroup2 is mounted. */
const char *td_place_mount(const td_agent_place_t *place);

/*
 * A workload of this node with a cgroup or pod; again for a newer document of the
 * same name, or in a full state.  0, or a negative errno with td_mesh_error().
 */
int td_place_put(td_agent_place_t *place, const td_doc_t *doc);

/* It is no workload of this node any more. */
void td_place_remove(td_agent_place_t *place, const char *name);

/* Workloads that are in the kernel, and those that wait for their cgroup. */
size_t td_place_present(const td_agent_place_t *place);
size_t td_place_waiting(const td_agent_place_t *place);

/*
 * Of a pod, the paths below the mount where its cgroup may be, as kubelet names it
 * with the drivers cgroupfs and systemd.  Returns 0 when there is no i-th.
 */
int td_place_pod_path(const char *uid, size_t i, char *path, size_t size);

#endif /* TD_AGENT_PLACE_H */
