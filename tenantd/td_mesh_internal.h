/* SPDX-License-Identifier: BSD-2-Clause */

/* What the parts of the mesh share: td_mesh.c opens, the others fill. */

#ifndef TD_MESH_INTERNAL_H
#define TD_MESH_INTERNAL_H

#include <time.h>

#include "td_mesh.h"
#include "td_mesh_map.h"

/* The maps that the agent writes, in the order in which stale rows go: what calls
 * are translated by first, what they are judged by last. */
typedef enum {
    TD_MESH_SERVICES,
    TD_MESH_ENDPOINTS,
    TD_MESH_LIMITS,
    TD_MESH_WORKLOADS,
    TD_MESH_SOURCES,
    TD_MESH_HOSTS,
    TD_MESH_NETS,
    TD_MESH_TENANTS,
    TD_MESH_RULES,          /* by set, not by mark */
    TD_MESH_CIDRS,
    TD_MESH_MAPS
} td_mesh_map_e;

typedef struct {
    uint32_t  first;
    uint32_t  count;
} td_mesh_extent_t;

typedef struct {
    td_mesh_extent_t  *extents;
    size_t             n;
    size_t             room;
} td_mesh_extents_t;

#define TD_MESH_COUNTED  6      /* td_mesh_fill.c */

struct td_mesh_s {
    struct tg_mesh        *skeleton;
    struct ring_buffer    *ring;
    td_mesh_event_pt       handler;
    void                  *handler_data;
    char                   pins[256];
    char                   error[256];

    td_mesh_map_t         *maps[TD_MESH_MAPS];
    uint32_t               round;
    int                    syncing;

    struct tg_settings    *settings;    /* the kernel's own, mapped */
    uint32_t               epoch;
    uint32_t               levels;      /* of workloads put in this round */

    struct tg_slot        *slots;       /* the kernel's own, mapped */
    size_t                 n_slots;
    td_mesh_extents_t      free;
    td_mesh_extents_t      leaving;     /* free after the next settle */
    uint64_t               slots_refused;
    uint32_t               next_slots;  /* numbers of sets, never used again */
    uint32_t               next_rules;

    size_t                 rows[TD_MESH_COUNTED];   /* of maps that programs write */
    time_t                 counted;     /* when they were, 0 never */
};

/* Sets the error; returns err, so that a caller can end with it. */
int td_mesh_fail(td_mesh_t *mesh, int err, const char *what);

/* Verdicts may be others now. */
void td_mesh_changed(td_mesh_t *mesh);

/* What was pinned before: slots that are in use, sets of rules in force. */
int td_mesh_load_services(td_mesh_t *mesh);
void td_mesh_load_tenants(td_mesh_t *mesh);

/* Until no program can see what was replaced before. */
void td_mesh_grace(void);

/* Those that a full state did not put. */
void td_mesh_sweep_services(td_mesh_t *mesh);

void td_mesh_settle_slots(td_mesh_t *mesh);
void td_mesh_settle_rules(td_mesh_t *mesh);

/* Of the services' slots. */
void td_mesh_slots_fill(const td_mesh_t *mesh, td_mesh_fill_t *fill);

#endif /* TD_MESH_INTERNAL_H */
