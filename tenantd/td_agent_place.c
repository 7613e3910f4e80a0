/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "td_agent_kernel.h"
#include "td_agent_place.h"
#include "td_agent_store.h"
#include "td_log.h"
#include "tg_hash.h"


#define TD_PLACE_PATHS   6          /* where a pod's cgroup may be */
#define TD_PLACE_RESCAN  250        /* ms between looks, */
#define TD_PLACE_LOOKS   256        /* workloads looked at in one */
#define TD_PLACE_EVENTS  16384      /* bytes of events read at once */

/* A directory in which something that a workload waits for may come or go. */
typedef struct td_watched_s {
    td_link_t   link;               /* by wd */
    int         wd;
    unsigned    users;
} td_watched_t;

typedef struct td_placed_s {
    td_link_t             link;     /* by name */
    struct td_placed_s   *next;     /* in a ring, for rescans */
    struct td_placed_s   *prev;
    td_watched_t         *watched[TD_PLACE_PATHS];
    uint64_t              cgroup;   /* 0: waiting */
    char                  name[TD_DOC_KEY + 1];
} td_placed_t;

struct td_agent_place_s {
    td_agent_t    *agent;
    int            inotify;
    struct event  *events;
    struct event  *rescan;
    td_table_t     placed;          /* by name */
    td_table_t     watched;         /* by wd */
    td_placed_t   *ring;            /* where the next look begins */
    size_t         present;
    char           mount[PATH_MAX];
};


static int td_place_look(td_agent_place_t *place, td_placed_t *placed,
    const td_doc_t *doc, int again);


/* The first mount of type cgroup2, proc(5). */
static int
td_place_find_mount(char *path)
{
    int    found;
    FILE  *file;
    char   line[PATH_MAX + 512];

    file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL) {
        return -1;
    }

    found = 0;

    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = strstr(line, " - cgroup2 ") != NULL
                && sscanf(line, "%*s %*s %*s %*s %4095s", path) == 1;
    }

    fclose(file);

    return found ? 0 : -1;
}


int
td_place_pod_path(const char *uid, size_t i, char *path, size_t size)
{
    char    under[40];
    size_t  k;
    static const char *const  classes[] = { "", "burstable", "besteffort" };

    if (i >= TD_PLACE_PATHS) {
        return 0;
    }

    if (i < 3) {
        snprintf(path, size, "kubepods/%s%spod%s", classes[i], i > 0 ? "/" : "", uid);
        return 1;
    }

    i -= 3;
    snprintf(under, sizeof(under), "%s", uid);

    for (k = 0; under[k] != '\0'; k++) {
        under[k] = under[k] == '-' ? '_' : under[k];
    }

    if (i == 0) {
        snprintf(path, size, "kubepods.slice/kubepods-pod%s.slice", under);
    } else {
        snprintf(path, size, "kubepods.slice/kubepods-%s.slice/kubepods-%s-pod%s.slice",
                 classes[i], classes[i], under);
    }

    return 1;
}


/* The i-th path where a workload's cgroup may be; 0: there is none. */
static int
td_place_path(const td_agent_place_t *place, const td_doc_workload_t *workload,
    size_t i, char *path, size_t size)
{
    int  n;

    n = snprintf(path, size, "%s/", place->mount);

    if (workload->cgroup != NULL) {
        snprintf(path + n, size - (size_t) n, "%s",
                 workload->cgroup + strspn(workload->cgroup, "/"));
        return i == 0;
    }

    return td_place_pod_path(workload->pod, i, path + n, size - (size_t) n);
}


static td_watched_t *
td_place_find_watched(td_agent_place_t *place, int wd)
{
    td_link_t     *link;
    td_watched_t  *watched;

    for (link = td_table_chain(&place->watched, tg_hash_id((uint64_t) wd, 0));
         link != NULL;
         link = link->next)
    {
        watched = td_link_data(link, td_watched_t, link);

        if (watched->wd == wd) {
            return watched;
        }
    }

    return NULL;
}


static void
td_place_unwatch(td_agent_place_t *place, td_watched_t **at)
{
    td_watched_t  *watched;

    watched = *at;
    *at = NULL;

    if (watched != NULL && --watched->users == 0) {
        inotify_rm_watch(place->inotify, watched->wd);
        td_table_remove(&place->watched, &watched->link);
        free(watched);
    }
}


/* Watches the deepest directory above path that is there. */
static td_watched_t *
td_place_watch(td_agent_place_t *place, char *path)
{
    int            wd;
    char          *slash;
    td_watched_t  *watched;

    do {
        slash = strrchr(path, '/');
        if (slash == NULL || slash < path + strlen(place->mount)) {
            return NULL;
        }

        *slash = '\0';
        wd = inotify_add_watch(place->inotify, path, IN_CREATE | IN_DELETE
                               | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF
                               | IN_ONLYDIR);
    } while (wd < 0 && errno == ENOENT);

    if (wd < 0) {
        td_log(TD_LOG_WARN, "place", "cannot watch %s: %m", path);
        return NULL;
    }

    watched = td_place_find_watched(place, wd);

    if (watched == NULL) {
        watched = calloc(1, sizeof(td_watched_t));

        if (watched == NULL
            || td_table_add(&place->watched, &watched->link,
                            tg_hash_id((uint64_t) wd, 0)) != 0)
        {
            free(watched);
            return NULL;
        }

        watched->wd = wd;
    }

    watched->users++;

    return watched;
}


static int
td_place_to_kernel(td_agent_place_t *place, td_placed_t *placed, const td_doc_t *doc,
    uint64_t cgroup, uint32_t level)
{
    int                       err;
    size_t                    i, n;
    struct tg_addr            addrs[TD_DOC_ADDRESSES];
    td_mesh_workload_t        row;
    const td_doc_workload_t  *workload;

    workload = &doc->workload;
    memset(&row, 0, sizeof(row));

    for (i = 0, n = 0; i < workload->addresses.n; i++) {
        if (workload->addresses.item[i].prefix == 128) {
            addrs[n++] = workload->addresses.item[i].addr;
        }
    }

    row.cgroup = cgroup;
    row.level = level;
    row.who = workload->who;
    row.addrs = addrs;
    row.n_addrs = n;

    /* Without an address of its own it lives on those of the node. */
    row.flags = (workload->any_source ? TG_ANY_SOURCE : 0)
                | (n == 0 ? TG_HOST_SOURCE : 0);

    err = td_kernel_put_workload(place->agent->kernel, &row, placed);

    if (err == 0 && placed->cgroup != cgroup) {
        if (placed->cgroup != 0) {
            td_kernel_delete_workload(place->agent->kernel, placed->cgroup, placed);
        } else {
            place->present++;
        }

        placed->cgroup = cgroup;
        td_log(TD_LOG_INFO, "place", "workload %s has cgroup %llu", placed->name,
               (unsigned long long) cgroup);
    }

    return err;
}


static void
td_place_gone(td_agent_place_t *place, td_placed_t *placed)
{
    if (placed->cgroup != 0) {
        td_log(TD_LOG_INFO, "place", "the cgroup of workload %s is gone",
               placed->name);
        td_kernel_delete_workload(place->agent->kernel, placed->cgroup, placed);
        placed->cgroup = 0;
        place->present--;
    }
}


/* Finds the cgroup; again: also when it is the one that is known. */
static int
td_place_find(td_agent_place_t *place, td_placed_t *placed, const td_doc_t *doc,
    int again)
{
    int       err;
    char      path[PATH_MAX + TD_DOC_CGROUP + 64];
    size_t    i;
    uint32_t  level;
    uint64_t  cgroup;

    for (i = 0; td_place_path(place, &doc->workload, i, path, sizeof(path)); i++) {
        err = td_mesh_cgroup(path, &cgroup, &level);

        if (err == 0) {
            return placed->cgroup == cgroup && !again ? 0
                   : td_place_to_kernel(place, placed, doc, cgroup, level);
        }
    }

    td_place_gone(place, placed);

    return 0;
}


/*
 * Watches first, then looks: what comes in between is seen by one of both, unless
 * the directory that is watched is not the deepest any more, which the rescan
 * finds.
 */
static int
td_place_look(td_agent_place_t *place, td_placed_t *placed, const td_doc_t *doc,
    int again)
{
    char           path[PATH_MAX + TD_DOC_CGROUP + 64];
    size_t         i;
    td_watched_t  *watched;

    for (i = 0; td_place_path(place, &doc->workload, i, path, sizeof(path)); i++) {
        watched = td_place_watch(place, path);
        td_place_unwatch(place, &placed->watched[i]);
        placed->watched[i] = watched;
    }

    return td_place_find(place, placed, doc, again);
}


static td_placed_t *
td_place_named(td_agent_place_t *place, const char *name)
{
    uint64_t      hash;
    td_link_t    *link;
    td_placed_t  *placed;

    hash = tg_hash(name, strlen(name), 0);

    for (link = td_table_chain(&place->placed, hash); link != NULL; link = link->next) {
        placed = td_link_data(link, td_placed_t, link);

        if (strcmp(placed->name, name) == 0) {
            return placed;
        }
    }

    return NULL;
}


static void
td_place_look_again(td_agent_place_t *place, td_placed_t *placed)
{
    const td_doc_t  *doc;

    doc = td_agent_store_find(place->agent->store, TD_DOC_WORKLOAD, placed->name);

    if (doc != NULL && td_place_look(place, placed, doc, 0) != 0) {
        td_log(TD_LOG_ERR, "place", "workload %s: %s", placed->name,
               td_mesh_error(place->agent->mesh));
    }
}


/* Whose path goes through the directory of this watch. */
static void
td_place_on_watch(td_agent_place_t *place, const td_watched_t *watched)
{
    int           k;
    size_t        i, n;
    td_placed_t  *placed, *next;

    placed = place->ring;
    n = place->placed.n;

    for (i = 0; i < n; i++, placed = next) {
        next = placed->next;

        for (k = 0; k < TD_PLACE_PATHS; k++) {
            if (placed->watched[k] == watched) {
                td_place_look_again(place, placed);
                break;
            }
        }
    }
}


static void
td_place_on_events(evutil_socket_t fd, short what, void *data)
{
    int                           last;
    char                         *p;
    char                          buffer[TD_PLACE_EVENTS]
        __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t                       n;
    td_watched_t                 *watched;
    td_agent_place_t             *place = data;
    const struct inotify_event   *event;

    (void) what;

    n = read(fd, buffer, sizeof(buffer));
    last = -1;

    for (p = buffer; n > 0 && p < buffer + n; p += sizeof(*event) + event->len) {
        event = (const struct inotify_event *) (const void *) p;

        if (event->wd == last) {
            continue;
        }

        last = event->wd;
        watched = td_place_find_watched(place, event->wd);

        if (watched != NULL) {
            td_place_on_watch(place, watched);
        }
    }
}


static void
td_place_arm(td_agent_place_t *place)
{
    struct timeval  tv = { 0, TD_PLACE_RESCAN * 1000 };

    evtimer_add(place->rescan, &tv);
}


static void
td_place_on_rescan(evutil_socket_t fd, short what, void *data)
{
    size_t             i;
    td_agent_place_t  *place = data;

    (void) fd;
    (void) what;

    for (i = 0; i < TD_PLACE_LOOKS && i < place->placed.n; i++) {
        td_place_look_again(place, place->ring);
        place->ring = place->ring->next;
    }

    td_place_arm(place);
}


td_agent_place_t *
td_place_create(td_agent_t *agent)
{
    td_agent_place_t  *place;

    place = calloc(1, sizeof(td_agent_place_t));
    if (place == NULL) {
        return NULL;
    }

    place->agent = agent;
    place->inotify = -1;

    if (td_place_find_mount(place->mount) != 0) {
        td_log(TD_LOG_CRIT, "agent", "no cgroup2 is mounted: mount -t cgroup2 none "
               "/sys/fs/cgroup");
        free(place);
        return NULL;
    }

    place->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    place->rescan = evtimer_new(agent->base, td_place_on_rescan, place);
    place->events = place->inotify < 0 ? NULL
                    : event_new(agent->base, place->inotify, EV_READ | EV_PERSIST,
                                td_place_on_events, place);

    if (place->events == NULL || place->rescan == NULL
        || event_add(place->events, NULL) != 0)
    {
        td_log(TD_LOG_CRIT, "agent", "cgroups cannot be watched: %m");
        td_place_destroy(place);
        return NULL;
    }

    td_place_arm(place);

    return place;
}


static void
td_place_forget(td_agent_place_t *place, td_placed_t *placed)
{
    size_t  i;

    for (i = 0; i < TD_PLACE_PATHS; i++) {
        td_place_unwatch(place, &placed->watched[i]);
    }

    td_table_remove(&place->placed, &placed->link);
    placed->next->prev = placed->prev;
    placed->prev->next = placed->next;

    if (place->ring == placed) {
        place->ring = placed->next == placed ? NULL : placed->next;
    }

    free(placed);
}


void
td_place_destroy(td_agent_place_t *place)
{
    if (place == NULL) {
        return;
    }

    while (place->ring != NULL) {
        td_place_forget(place, place->ring);
    }

    td_table_free(&place->placed);
    td_table_free(&place->watched);

    if (place->events != NULL) {
        event_free(place->events);
    }

    if (place->rescan != NULL) {
        event_free(place->rescan);
    }

    if (place->inotify >= 0) {
        close(place->inotify);
    }

    free(place);
}


const char *
td_place_mount(const td_agent_place_t *place)
{
    return place->mount;
}


static td_placed_t *
td_place_add(td_agent_place_t *place, const char *name)
{
    td_placed_t  *placed;

    placed = calloc(1, sizeof(td_placed_t));

    if (placed == NULL
        || td_table_add(&place->placed, &placed->link, tg_hash(name, strlen(name), 0)))
    {
        free(placed);
        return NULL;
    }

    snprintf(placed->name, sizeof(placed->name), "%s", name);
    placed->next = place->ring != NULL ? place->ring : placed;
    placed->prev = place->ring != NULL ? place->ring->prev : placed;
    placed->next->prev = placed;
    placed->prev->next = placed;
    place->ring = placed;

    return placed;
}


int
td_place_put(td_agent_place_t *place, const td_doc_t *doc)
{
    td_placed_t  *placed;

    placed = td_place_named(place, doc->name);

    if (placed == NULL) {
        placed = td_place_add(place, doc->name);
    }

    return placed != NULL ? td_place_look(place, placed, doc, 1) : -ENOMEM;
}


void
td_place_remove(td_agent_place_t *place, const char *name)
{
    td_placed_t  *placed;

    placed = td_place_named(place, name);

    if (placed != NULL) {
        td_place_gone(place, placed);
        td_place_forget(place, placed);
    }
}


size_t
td_place_present(const td_agent_place_t *place)
{
    return place->present;
}


size_t
td_place_waiting(const td_agent_place_t *place)
{
    return place->placed.n - place->present;
}
