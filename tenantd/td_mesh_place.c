/* SPDX-License-Identifier: BSD-2-Clause */

/* Identities: of cgroups on this node, of addresses anywhere. */

#define _GNU_SOURCE

#include "td_mesh_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>


#define LEVELS  15


/* Where cgroup2 is mounted: the longest mount point that path lies below. */
static size_t
mount_length(const char *path)
{
    FILE    *mounts;
    char     line[1024], at[512];
    size_t   n, best;

    best = 0;

    mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL) {
        return 0;
    }

    while (fgets(line, sizeof(line), mounts) != NULL) {
        if (strstr(line, " - cgroup2 ") == NULL
            || sscanf(line, "%*s %*s %*s / %511s", at) != 1)
        {
            continue;
        }

        n = strlen(at);
        if (n > best && strncmp(path, at, n) == 0 && (path[n] == '/' || path[n] == '\0')) {
            best = n;
        }
    }

    fclose(mounts);

    return best;
}


int
td_mesh_cgroup(const char *path, uint64_t *id, uint32_t *level)
{
    char    real[PATH_MAX];
    size_t  n;
    union {
        struct file_handle  handle;
        char                room[sizeof(struct file_handle) + sizeof(uint64_t)];
    } file;
    int     mount;

    file.handle.handle_bytes = sizeof(uint64_t);

    if (name_to_handle_at(AT_FDCWD, path, &file.handle, &mount, 0) != 0) {
        return -errno;
    }

    memcpy(id, file.handle.f_handle, sizeof(*id));

    *level = 0;
    if (realpath(path, real) == NULL) {
        return -errno;
    }

    for (n = mount_length(real); n > 0 && real[n] != '\0'; n++) {
        *level += real[n] == '/';
    }

    return 0;
}


/* Programs look at these levels from now on; fewer only after a full state. */
static void
add_level(td_mesh_t *mesh, uint32_t level)
{
    uint32_t  bits;

    bits = level == 0 || level > LEVELS ? ((1U << LEVELS) - 1) << 1 : 1U << level;
    mesh->levels |= bits;
    mesh->settings->levels |= bits;
}


typedef struct {
    td_mesh_t                 *mesh;
    const td_mesh_workload_t  *workload;
} sources_t;


/* A source of this workload that is no longer its own. */
static int
source_is_old(td_mesh_row_t *row, void *data)
{
    size_t                    i;
    sources_t                *sources;
    const struct tg_source   *source;

    sources = data;
    source = td_mesh_row_key(row);

    if (source->cgroup != sources->workload->cgroup) {
        return 0;
    }

    for (i = 0; i < sources->workload->n_addrs; i++) {
        if (memcmp(&source->addr, &sources->workload->addrs[i],
                   sizeof(source->addr)) == 0)
        {
            return 0;
        }
    }

    return 1;
}


/* How many. */
static size_t
remove_sources(td_mesh_t *mesh, const td_mesh_workload_t *workload)
{
    size_t          before;
    sources_t       sources = { mesh, workload };
    td_mesh_map_t  *map;

    map = mesh->maps[TD_MESH_SOURCES];
    before = td_mesh_map_used(map);
    td_mesh_map_filter(map, source_is_old, &sources);

    return before - td_mesh_map_used(map);
}


int
td_mesh_put_workload(td_mesh_t *mesh, const td_mesh_workload_t *workload)
{
    int                  err, same;
    size_t               i;
    uint32_t             one;
    struct tg_source     source;
    struct tg_workload   row, *old;

    if (workload->cgroup == 0 || workload->who.tenant == 0) {
        return td_mesh_fail(mesh, -EINVAL, "workload");
    }

    one = 1;
    for (i = 0; i < workload->n_addrs; i++) {
        source.cgroup = workload->cgroup;
        source.addr = workload->addrs[i];

        err = td_mesh_map_put(mesh->maps[TD_MESH_SOURCES], &source, &one);
        if (err != 0) {
            return td_mesh_fail(mesh, err, "workload's address");
        }
    }

    memset(&row, 0, sizeof(row));
    row.who = workload->who;
    row.flags = workload->flags;
    row.cgroup = workload->cgroup;

    add_level(mesh, workload->level);
    old = td_mesh_map_get(mesh->maps[TD_MESH_WORKLOADS], &row.cgroup);
    same = old != NULL && memcmp(old, &row, sizeof(row)) == 0;

    err = td_mesh_map_put(mesh->maps[TD_MESH_WORKLOADS], &row.cgroup, &row);

    /* A full state sweeps them. */
    if (!mesh->syncing && remove_sources(mesh, workload) > 0) {
        same = 0;
    }

    if (!same) {
        td_mesh_changed(mesh);
    }

    return err ? td_mesh_fail(mesh, err, "workload") : 0;
}


int
td_mesh_delete_workload(td_mesh_t *mesh, uint64_t cgroup)
{
    int                 err;
    td_mesh_workload_t  none = { .cgroup = cgroup };

    err = td_mesh_map_delete(mesh->maps[TD_MESH_WORKLOADS], &cgroup);
    remove_sources(mesh, &none);
    td_mesh_changed(mesh);

    return err ? td_mesh_fail(mesh, err, "workload") : 0;
}


int
td_mesh_put_address(td_mesh_t *mesh, const td_mesh_address_t *address)
{
    int              err, same;
    td_mesh_map_t   *map;
    struct tg_net    net;
    struct tg_place  place, *old;
    const void      *key;

    if (address->prefix > 128) {
        return td_mesh_fail(mesh, -EINVAL, "address");
    }

    memset(&place, 0, sizeof(place));
    place.who = address->who;
    place.flags = address->flags;

    net.prefix = address->prefix;
    net.addr = address->addr;
    map = mesh->maps[address->prefix == 128 ? TD_MESH_HOSTS : TD_MESH_NETS];
    key = address->prefix == 128 ? (const void *) &net.addr : (const void *) &net;

    old = td_mesh_map_get(map, key);
    same = old != NULL && memcmp(old, &place, sizeof(place)) == 0;

    err = td_mesh_map_put(map, key, &place);
    if (!same) {
        td_mesh_changed(mesh);
    }

    return err ? td_mesh_fail(mesh, err, "address") : 0;
}


int
td_mesh_delete_address(td_mesh_t *mesh, const struct tg_addr *addr, uint32_t prefix)
{
    int            err;
    struct tg_net  net;

    net.prefix = prefix;
    net.addr = *addr;

    err = prefix == 128 ? td_mesh_map_delete(mesh->maps[TD_MESH_HOSTS], addr)
                        : td_mesh_map_delete(mesh->maps[TD_MESH_NETS], &net);
    td_mesh_changed(mesh);

    return err ? td_mesh_fail(mesh, err, "address") : 0;
}
