/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mesh of this node: loads the programs of bpf/, keeps their maps at what the
 * caller wants, attaches, tells what happened.
 *
 *     open -> begin, put..., commit -> attach -> poll, put, delete ...
 *
 *  1. Nothing is enforced before the first commit, and attach comes after it: there
 *     is no moment in which programs judge by maps that are half full.
 *  2. A restart opens the pinned maps and links.  What is enforced goes on as it is;
 *     the first commit takes away what the new desired state does not have.
 *  3. attach gives each link the new program in one step (BPF_LINK_UPDATE).
 *  4. Each put is one switch as a program sees it: a call is judged by the rules of
 *     a tenant as they were before or as they are after, a service's endpoints are
 *     the old or the new ones.
 *  5. What no program can see any more (old rules, old slots) is kept until settle,
 *     which commit does as well.
 *
 * Functions that return int: 0 or a negative errno, with a sentence in
 * td_mesh_error().  -E2BIG: the map is full; what was in it goes on, and the fill
 * counts the refusal.  One thread.
 */

#ifndef TD_MESH_H
#define TD_MESH_H

#include <stddef.h>
#include <stdint.h>

#include "tg_mesh.h"
#include "tg_rules.h"

typedef struct td_mesh_s  td_mesh_t;

typedef struct {
    const char  *pins;          /* below a bpf file system; NULL: /sys/fs/bpf/tiergate */
    uint32_t     services;      /* sizes of maps; 0: as in bpf/tg_maps.h */
    uint32_t     endpoints;     /* the maps of pinned programs keep their size */
    uint32_t     workloads;
    uint32_t     tenants;
    uint32_t     rules;
    uint32_t     flows;
    uint32_t     ring_bytes;    /* a power of two */
    uint32_t     event_rate;    /* records per second and tenant; 0: 1000 */
    uint32_t     event_burst;   /* 0: 512 */
    uint32_t     unknown;       /* enum tg_unknown */
} td_mesh_options_t;

typedef struct {
    struct tg_addr  addr;
    uint16_t        port;
    uint32_t        weight;     /* 0: drained, as if it were not healthy */
    int             healthy;
} td_mesh_endpoint_t;

/* One address of a service; a service may have several. */
typedef struct {
    struct tg_who              who;
    struct tg_target           target;      /* virtual address, port, protocol */
    struct tg_limit            limit;       /* all zero: none */
    const td_mesh_endpoint_t  *endpoints;   /* of the family of the address */
    size_t                     n_endpoints;
} td_mesh_service_t;

typedef struct {
    uint64_t               cgroup;      /* td_mesh_cgroup() finds it */
    uint32_t               level;       /* below the root; 0: not known */
    struct tg_who          who;
    uint32_t               flags;       /* TG_ANY_SOURCE, TG_HOST_SOURCE */
    const struct tg_addr  *addrs;       /* its own */
    size_t                 n_addrs;
} td_mesh_workload_t;

/* Whose an address or net is, on any node. */
typedef struct {
    struct tg_addr  addr;
    uint32_t        prefix;     /* of 128 */
    struct tg_who   who;
    uint32_t        flags;      /* TG_HOST */
} td_mesh_address_t;

typedef struct {
    uint32_t                 tenant;
    uint32_t                 defaults;  /* enum tg_default */
    const tg_rule_policy_t  *policies;
    size_t                   n_policies;
} td_mesh_tenant_t;

typedef struct {
    const char  *name;
    size_t       used;      /* of maps that programs write: some seconds ago */
    size_t       size;
    uint64_t     refused;
} td_mesh_fill_t;

typedef void (*td_mesh_event_pt)(const struct tg_event *event, void *data);

/* NULL: *error says why, as do errno and the log of libbpf on standard error. */
td_mesh_t *td_mesh_open(const td_mesh_options_t *options, const char **error);

/* Leaves the pinned programs and maps as they are. */
void td_mesh_close(td_mesh_t *mesh);

const char *td_mesh_error(const td_mesh_t *mesh);

/* The id and level of a cgroup by path. */
int td_mesh_cgroup(const char *path, uint64_t *id, uint32_t *level);

/* A full state: what is not put between the two is taken away. */
void td_mesh_begin(td_mesh_t *mesh);
int td_mesh_commit(td_mesh_t *mesh);

/* Waits until no program can see what was replaced, and frees it. */
int td_mesh_settle(td_mesh_t *mesh);

int td_mesh_put_tenant(td_mesh_t *mesh, const td_mesh_tenant_t *tenant);
int td_mesh_delete_tenant(td_mesh_t *mesh, uint32_t tenant);
int td_mesh_put_service(td_mesh_t *mesh, const td_mesh_service_t *service);
/* Its limit stays for other addresses of the service, until the next full state. */
int td_mesh_delete_service(td_mesh_t *mesh, const struct tg_target *target);
int td_mesh_put_workload(td_mesh_t *mesh, const td_mesh_workload_t *workload);
int td_mesh_delete_workload(td_mesh_t *mesh, uint64_t cgroup);
int td_mesh_put_address(td_mesh_t *mesh, const td_mesh_address_t *address);
int td_mesh_delete_address(td_mesh_t *mesh, const struct tg_addr *addr, uint32_t prefix);

/* Attaches to a cgroup, or replaces the programs that are attached there.  With
 * links elsewhere, they go after the new ones are in place. */
int td_mesh_attach(td_mesh_t *mesh, const char *cgroup);

/* Ends enforcement: takes links and maps away, and this handle with them. */
int td_mesh_detach(td_mesh_t *mesh);

/* Records: what is there now, or comes within the timeout (ms).  The number of
 * records, or a negative errno.  The fd is readable when many wait; nobody is woken
 * for one, so look from time to time. */
int td_mesh_events_fd(const td_mesh_t *mesh);
int td_mesh_poll(td_mesh_t *mesh, int timeout, td_mesh_event_pt handler, void *data);

/* By number of enum tg_reason and tg_counter. */
int td_mesh_counters(const td_mesh_t *mesh, uint64_t counters[TG_COUNTERS]);

/* Its name in docs/reference/mesh.md; NULL for a number that nothing has. */
const char *td_mesh_counter_name(unsigned int number);

/* Fills up to n; returns how many there are. */
size_t td_mesh_fill(td_mesh_t *mesh, td_mesh_fill_t *fill, size_t n);

/* "denied by a policy"; NULL for a number that is none. */
const char *td_mesh_reason(uint32_t reason);

#endif /* TD_MESH_H */
