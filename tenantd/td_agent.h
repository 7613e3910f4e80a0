/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd agent: the registry's mesh objects, brought into this node's kernel.
 *
 *   td_agent.c            start, the loop, the end
 *   td_agent_watch.c      the stream: lines, batches, liveness, resumption
 *   td_agent_client.c     requests to the registry
 *   td_agent_document*.c  a line's object, checked, as a struct; td_agent_read.c
 *   td_agent_store.c      the objects there are, by kind and name, id, number
 *   td_agent_policy.c     policies of documents, as rules
 *   td_agent_apply.c      a batch into store and kernel, in the safe order
 *   td_agent_kernel.c     documents as rows of the kernel's maps
 *   td_agent_place.c      cgroups of workloads: waits for them, sees them go
 *   td_agent_snapshot.c   the same objects on disk
 *   td_agent_ack.c        what is in force, told to the registry
 *   td_agent_report.c     health and workloads of exec, told to it
 *   td_agent_health.c     checks of endpoints on this node
 *   td_agent_exec.c       workloads of "tenantd exec"
 *   td_agent_flow.c       records of the kernel: metrics, and to the registry
 *
 *  1. One thread, one loop.  Nothing waits but for the kernel's maps.
 *  2. The kernel judges by what is pinned, whether the agent lives or not.  It is
 *     changed at a BOOKMARK only, by what came since the one before.
 *  3. An object that cannot be used leaves its last good state in force, and is in
 *     the list of refusals until a newer one is good, or it is deleted.
 */

#ifndef TD_AGENT_H
#define TD_AGENT_H

#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>

#include "td_config.h"
#include "td_mesh.h"

typedef struct td_agent_s {
    struct event_base         *base;
    const td_config_t         *config;
    td_mesh_t                 *mesh;
    char                       node[64];        /* [agent] node, or the host's name */
    char                       gateway[72];     /* "node-" and that */
    char                       boot[33];        /* of this life of the agent, hex */
    int                        failed;
    struct td_multi_s         *multi;
    struct td_agent_client_s  *client;
    struct td_agent_store_s   *store;
    struct td_agent_watch_s   *watch;
    struct td_agent_apply_s   *apply;
    struct td_agent_kernel_s  *kernel;
    struct td_agent_place_s   *place;
    struct td_agent_snapshot_s *snapshot;
    struct td_agent_ack_s     *ack;
    struct td_agent_health_s  *health;
    struct td_agent_exec_s    *exec;
    struct td_agent_report_s  *report;
    struct td_agent_flow_s    *flow;
} td_agent_t;

/*
 * Names by number.  The texts live until the next turn of the loop.  NULL, or 0 from
 * td_agent_name_service: this node does not know it (any more).
 */
const char *td_agent_name_tenant(const td_agent_t *agent, uint32_t number);
int td_agent_name_service(const td_agent_t *agent, uint32_t number,
    const char **tenant, const char **service);
const char *td_agent_name_policy(const td_agent_t *agent, uint32_t number);

/* Objects of each kind in force. */
size_t td_agent_tenants(const td_agent_t *agent);
size_t td_agent_services(const td_agent_t *agent);
size_t td_agent_workloads(const td_agent_t *agent);

/* The cgroup that the mesh is attached to. */
const char *td_agent_cgroup(const td_agent_t *agent);

/* Ends the loop, and the agent with exit status 1. */
void td_agent_fail(td_agent_t *agent);

/* The revision in force, 0 before the first; and "live", "snapshot", "loading". */
uint64_t td_agent_revision(const td_agent_t *agent);
const char *td_agent_state(const td_agent_t *agent);

/*
 * An answer, or why there is none: status 0, error set.  body has a NUL behind it.
 * All is borrowed.
 */
typedef void (*td_agent_posted_pt)(void *data, long status, const char *body,
    size_t len, const char *error);

/*
 * POSTs JSON to the registry of [agent] tenantd, with its credentials; path begins
 * with "/v1/".  body is copied.  done is called later, never from here, and not any
 * more once the agent ends.  -1: no memory.
 */
int td_agent_post(td_agent_t *agent, const char *path, const char *body, size_t len,
    td_agent_posted_pt done, void *data);

#endif /* TD_AGENT_H */
