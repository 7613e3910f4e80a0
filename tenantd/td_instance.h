/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One dedicated instance, brought from where it is to where the registry wants it.
 * Everything happens in its own time: a call here never waits.
 */

#ifndef TD_INSTANCE_H
#define TD_INSTANCE_H

#include <sys/queue.h>
#include <sys/types.h>

#include <event2/event.h>

#include "td_cgroup.h"
#include "td_config.h"
#include "td_gateway.h"
#include "td_pool.h"
#include "td_state.h"

typedef struct td_instance_s  td_instance_t;

/* What the instances of this tenantd have in common; outlives them. */
typedef struct {
    struct event_base  *base;
    const td_config_t  *config;
    td_pool_t          *pool;
    td_cgroup_t        *cgroup;
    const char         *user;           /* of the workers, or NULL */
    int                 users;          /* each has one of its own: td_users.h */
    char                group[64];      /* their group, when user is set */
    uid_t               uid;            /* -1: as they are */
    gid_t               gid;
    char               *template;       /* NULL: the one built in */
    const char         *registry;       /* its id, "" before it was read */

    /* It is served, so that handovers may have begun. */
    void              (*ready)(void *data);
    /* Nothing is left of it: destroy it, from the event loop. */
    void              (*gone)(void *data, td_instance_t *instance);
    void               *data;
} td_host_t;

/* NULL: no memory. */
td_instance_t *td_instance_create(const td_host_t *host, const char *name);

/* Forgets it; what runs goes on. */
void td_instance_destroy(td_instance_t *instance);

/* What the registry wants; takes work->spec. */
void td_instance_want(td_instance_t *instance, td_work_t *work);

/* Whether want() would have nothing new: then the spec need not be parsed. */
int td_instance_wants(const td_instance_t *instance, const td_work_t *work);

/* The registry knows it no more. */
void td_instance_vanish(td_instance_t *instance);

/* Takes over what another life of tenantd has left, before the registry is read. */
void td_instance_adopt(td_instance_t *instance);

/* The registry can be reached (again). */
void td_instance_retry(td_instance_t *instance);

const char *td_instance_name(const td_instance_t *instance);
td_state_e td_instance_state(const td_instance_t *instance);

/* Of the owner: a round of the reconciler, in which it was seen. */
unsigned td_instance_seen(const td_instance_t *instance);
void td_instance_see(td_instance_t *instance, unsigned round);

#endif /* TD_INSTANCE_H */
