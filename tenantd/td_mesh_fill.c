/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How full the maps are.  The agent knows it of those that it writes.  Those that
 * programs write are counted in the kernel, some milliseconds when they are full: so
 * not more often than people look.
 */

#include "td_mesh_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tg_mesh.skel.h"

#define ROWS_AT_ONCE  4096
#define COUNT_EACH    5       /* seconds */


static size_t
count_rows(const struct bpf_map *map)
{
    int        err;
    void      *keys, *values;
    size_t     n;
    uint32_t   at, rows;

    keys = calloc(ROWS_AT_ONCE, bpf_map__key_size(map));
    values = calloc(ROWS_AT_ONCE, bpf_map__value_size(map));
    err = keys == NULL || values == NULL ? -ENOMEM : 0;
    at = 0;
    n = 0;

    /* Rows that come meanwhile may be counted twice, and without end. */
    while (err == 0 && n < bpf_map__max_entries(map)) {
        rows = ROWS_AT_ONCE;
        err = bpf_map_lookup_batch(bpf_map__fd(map), n == 0 ? NULL : &at, &at, keys,
                                   values, &rows, NULL);

        /* what is left, and then there is no more */
        n += err == 0 || err == -ENOENT ? rows : 0;
        err = err == 0 && rows == 0 ? -ENOENT : err;
    }

    free(keys);
    free(values);

    return n < bpf_map__max_entries(map) ? n : bpf_map__max_entries(map);
}


static void
count_all(td_mesh_t *mesh, struct bpf_map *const maps[TD_MESH_COUNTED])
{
    size_t           i;
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    if (mesh->counted != 0 && now.tv_sec - mesh->counted < COUNT_EACH) {
        return;
    }

    mesh->counted = now.tv_sec;

    for (i = 0; i < TD_MESH_COUNTED; i++) {
        mesh->rows[i] = count_rows(maps[i]);
    }
}


size_t
td_mesh_fill(td_mesh_t *mesh, td_mesh_fill_t *fill, size_t n)
{
    size_t           i;
    td_mesh_fill_t  *row, all[TD_MESH_MAPS + 1 + TD_MESH_COUNTED];
    struct bpf_map  *counted[TD_MESH_COUNTED] = {
        mesh->skeleton->maps.tg_meters, mesh->skeleton->maps.tg_flows,
        mesh->skeleton->maps.tg_chosen, mesh->skeleton->maps.tg_origins,
        mesh->skeleton->maps.tg_callers, mesh->skeleton->maps.tg_buckets,
    };

    memset(all, 0, sizeof(all));
    row = all;

    for (i = 0; i < TD_MESH_MAPS; i++, row++) {
        row->name = td_mesh_map_name(mesh->maps[i]);
        row->used = td_mesh_map_used(mesh->maps[i]);
        row->size = td_mesh_map_size(mesh->maps[i]);
        row->refused = td_mesh_map_refused(mesh->maps[i]);
    }

    td_mesh_slots_fill(mesh, row++);
    count_all(mesh, counted);

    for (i = 0; i < TD_MESH_COUNTED; i++, row++) {
        row->name = bpf_map__name(counted[i]);
        row->used = mesh->rows[i];
        row->size = bpf_map__max_entries(counted[i]);
    }

    i = (size_t) (row - all);
    memcpy(fill, all, (n < i ? n : i) * sizeof(*fill));

    return i;
}
