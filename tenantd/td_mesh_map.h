/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One map of the kernel that the agent alone writes, and what is in it, so that
 * only what differs costs a system call.
 *
 * A sync marks what it puts; the sweep takes away what was not marked.
 */

#ifndef TD_MESH_MAP_H
#define TD_MESH_MAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct td_mesh_map_s  td_mesh_map_t;

typedef struct td_mesh_row_s  td_mesh_row_t;

struct td_mesh_row_s {
    td_mesh_row_t  *next;
    void           *owned;      /* of the owner of the map; freed with the row */
    uint64_t        hash;
    uint32_t        round;
    uint32_t        uses;       /* for the owner of the map */
    unsigned char   data[];     /* key, padded to 8, then value */
};

/* Reads what the map holds.  NULL and errno on failure.  The fd stays the caller's. */
td_mesh_map_t *td_mesh_map_create(const char *name, int fd);
void td_mesh_map_destroy(td_mesh_map_t *map);

/* 0, or a negative errno: -E2BIG when the map is full (also counted). */
int td_mesh_map_put(td_mesh_map_t *map, const void *key, const void *value);
int td_mesh_map_delete(td_mesh_map_t *map, const void *key);

/* Marks a row, if there is one, as if the same had been put. */
void td_mesh_map_keep(td_mesh_map_t *map, const void *key);

/* NULL: not there.  Valid until the row is deleted. */
td_mesh_row_t *td_mesh_map_row(td_mesh_map_t *map, const void *key);
void *td_mesh_map_get(td_mesh_map_t *map, const void *key);

const void *td_mesh_row_key(const td_mesh_row_t *row);
void *td_mesh_row_value(const td_mesh_map_t *map, td_mesh_row_t *row);

/* Calls visit for each row; a row for which it says so is deleted. */
typedef int (*td_mesh_visit_pt)(td_mesh_row_t *row, void *data);
void td_mesh_map_filter(td_mesh_map_t *map, td_mesh_visit_pt drop, void *data);

/* What is put from now on has this mark; sweep deletes what has another, and
 * returns how many that were. */
void td_mesh_map_round(td_mesh_map_t *map, uint32_t round);
size_t td_mesh_map_sweep(td_mesh_map_t *map);

const char *td_mesh_map_name(const td_mesh_map_t *map);
size_t td_mesh_map_used(const td_mesh_map_t *map);
size_t td_mesh_map_size(const td_mesh_map_t *map);
/* Rows that found no room, since create. */
uint64_t td_mesh_map_refused(const td_mesh_map_t *map);

#endif /* TD_MESH_MAP_H */
