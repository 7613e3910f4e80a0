/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * cgroups (version 2) of instances: DIRECTORY/NAME below the mount, with limits as
 * far as the kernel has the controllers.
 */

#ifndef TD_CGROUP_H
#define TD_CGROUP_H

#include <stddef.h>

typedef struct td_cgroup_s  td_cgroup_t;

typedef struct {
    long long  memory;      /* bytes; 0: no limit, as for the others */
    long       pids;
    long       cpu;         /* thousandths of a processor */
} td_cgroup_limits_t;

/*
 * Looks for the mount, makes the directory (a path below the mount) and enables
 * the controllers that there are.  path "": no cgroups are wanted.  Never NULL but
 * without memory.
 */
td_cgroup_t *td_cgroup_create(const char *path);
void td_cgroup_destroy(td_cgroup_t *cgroup);

/* The path of an instance's cgroup below the mount; "" if there are no cgroups
 * here. */
void td_cgroup_where(const td_cgroup_t *cgroup, const char *name, char *path,
    size_t size);

/* Makes the cgroup of an instance; its directory's descriptor, or -1: there are no
 * cgroups here. */
int td_cgroup_open(td_cgroup_t *cgroup, const char *name);

/*
 * Sets the limits.  Writes what cannot be enforced to missing, as a sentence, and
 * returns -1 then; or returns 0.
 */
int td_cgroup_limit(td_cgroup_t *cgroup, const char *name,
    const td_cgroup_limits_t *limits, char *missing, size_t size);

/* Kills everything in it. */
void td_cgroup_kill(td_cgroup_t *cgroup, const char *name);

/* Removes it.  Returns 0 if it is not there any more, else -1 with errno: EBUSY
 * while something in it lives. */
int td_cgroup_remove(td_cgroup_t *cgroup, const char *name);

#endif /* TD_CGROUP_H */
