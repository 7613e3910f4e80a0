/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The life of one workload of tenantd exec: cgroup, link, rows in the kernel.  The
 * list is kept here, and on disk.
 */

#ifndef TD_AGENT_RUN_H
#define TD_AGENT_RUN_H

#include <net/if.h>
#include <sys/types.h>

#include "td_agent.h"
#include "td_agent_document.h"
#include "tg_text.h"

#define TD_RUN_ADDRESSES  2             /* one of each family */
#define TD_RUN_LINK       "eth0"        /* in the workload's namespace */

typedef struct td_runs_s  td_runs_t;

typedef struct {
    const char  *tenant;
    const char  *service;
    const char  *name;                  /* "": any */
    int          netns;                 /* descriptor, or -1 */
    pid_t        pid;
} td_run_request_t;

typedef struct td_run_s {
    struct td_run_s  *next;
    char              tenant[TD_DOC_NAME + 1];
    char              service[TD_DOC_NAME + 1];
    char              name[TD_DOC_NAME + 1];
    struct tg_who     who;
    uint64_t          cgroup;
    uint32_t          level;
    struct tg_addr    addrs[TD_RUN_ADDRESSES];
    size_t            n_addrs;
    char              link[IFNAMSIZ];   /* of the node; "": none */
    int               watch;            /* of inotify */
    int               made;             /* the cgroup is ours */
} td_run_t;

/* Takes over what another life of the agent left.  NULL after a line in the log. */
td_runs_t *td_runs_create(td_agent_t *agent);

/* Leaves the workloads as they are. */
void td_runs_destroy(td_runs_t *runs);

/* Makes it, and moves the process in.  NULL with err. */
const td_run_t *td_runs_start(td_runs_t *runs, const td_run_request_t *request,
    tg_error_t *err);

const td_run_t *td_runs_first(const td_runs_t *runs);

/* Puts all into the kernel. */
void td_runs_put_all(td_runs_t *runs);

/* Its cgroup below the mount. */
void td_runs_cgroup(const td_runs_t *runs, const td_run_t *run, char *path,
    size_t size);

#endif /* TD_AGENT_RUN_H */
