/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_agent_ack.h"
#include "td_agent_apply.h"
#include "td_agent_exec.h"
#include "td_agent_health.h"
#include "td_agent_kernel.h"
#include "td_agent_place.h"
#include "td_agent_snapshot.h"
#include "td_agent_store.h"
#include "td_log.h"
#include "tg_hash.h"


#define TD_APPLY_SETTLE    1        /* s after a change; it takes some ms itself */
#define TD_APPLY_REJECTED  100      /* refusals that are told */
#define TD_APPLY_REASON    200

typedef enum {
    TD_CHANGE_PUT,
    TD_CHANGE_DELETE,
    TD_CHANGE_REFUSED
} td_change_e;

/* What becomes of one object in this batch. */
typedef struct td_change_s {
    td_link_t            link;
    struct td_change_s  *next;          /* of its kind, in order of arrival */
    td_change_e          what;
    td_doc_kind_e        kind;
    int64_t              id;
    uint64_t             revision;
    td_doc_t            *doc;           /* PUT */
    int                  failed;        /* its endpoints are another's as yet */
    char                 name[TD_DOC_KEY + 1];
    char                 reason[TD_APPLY_REASON];
} td_change_t;

typedef struct {
    td_change_t   *first;
    td_change_t  **last;
} td_changes_t;

/* An object that stays at its last good state. */
typedef struct td_rejected_s {
    struct td_rejected_s  *next;
    td_doc_kind_e          kind;
    uint64_t               revision;
    char                   name[TD_DOC_KEY + 1];
    char                   reason[TD_APPLY_REASON];
} td_rejected_t;

struct td_agent_apply_s {
    td_agent_t     *agent;
    struct event   *settle;
    td_table_t      changes;            /* of the batch, by kind and name */
    td_changes_t    kinds[TD_DOC_KINDS];
    td_rejected_t  *rejected;
    uint64_t        revision;
    int             loaded;
    int             attached;
};


static void
td_apply_on_settle(evutil_socket_t fd, short what, void *data)
{
    td_agent_apply_t  *apply = data;

    (void) fd;
    (void) what;

    td_mesh_settle(apply->agent->mesh);
}


static void
td_apply_reset(td_agent_apply_t *apply)
{
    int           kind;
    td_change_t  *change, *next;

    for (kind = 0; kind < TD_DOC_KINDS; kind++) {
        for (change = apply->kinds[kind].first; change != NULL; change = next) {
            next = change->next;
            td_doc_free(change->doc);
            free(change);
        }

        apply->kinds[kind].first = NULL;
        apply->kinds[kind].last = &apply->kinds[kind].first;
    }

    td_table_free(&apply->changes);
}


td_agent_apply_t *
td_apply_create(td_agent_t *agent)
{
    td_agent_apply_t  *apply;

    apply = calloc(1, sizeof(td_agent_apply_t));
    if (apply == NULL) {
        return NULL;
    }

    apply->agent = agent;
    apply->settle = evtimer_new(agent->base, td_apply_on_settle, apply);
    td_apply_reset(apply);

    if (apply->settle == NULL) {
        free(apply);
        return NULL;
    }

    return apply;
}


void
td_apply_destroy(td_agent_apply_t *apply)
{
    td_rejected_t  *rejected;

    if (apply == NULL) {
        return;
    }

    while ((rejected = apply->rejected) != NULL) {
        apply->rejected = rejected->next;
        free(rejected);
    }

    td_apply_reset(apply);
    event_free(apply->settle);
    free(apply);
}


/* The change of an object in this batch, which is made when there is none. */
static td_change_t *
td_apply_change(td_agent_apply_t *apply, td_doc_kind_e kind, const char *name)
{
    uint64_t      hash;
    td_link_t    *link;
    td_change_t  *change;

    hash = tg_hash(name, strlen(name), (uint64_t) kind);

    for (link = td_table_chain(&apply->changes, hash); link != NULL; link = link->next) {
        change = td_link_data(link, td_change_t, link);

        if (change->kind == kind && strcmp(change->name, name) == 0) {
            return change;
        }
    }

    change = calloc(1, sizeof(td_change_t));

    if (change == NULL || td_table_add(&apply->changes, &change->link, hash) != 0) {
        free(change);
        td_log(TD_LOG_CRIT, "agent", "out of memory");
        abort();
    }

    change->kind = kind;
    snprintf(change->name, sizeof(change->name), "%s", name);
    *apply->kinds[kind].last = change;
    apply->kinds[kind].last = &change->next;

    return change;
}


void
td_apply_put(td_agent_apply_t *apply, td_doc_t *doc)
{
    td_change_t  *change;

    change = td_apply_change(apply, doc->kind, doc->name);
    td_doc_free(change->doc);
    change->what = TD_CHANGE_PUT;
    change->id = doc->id;
    change->revision = doc->revision;
    change->doc = doc;
}


void
td_apply_delete(td_agent_apply_t *apply, td_doc_kind_e kind, const char *name,
    int64_t id)
{
    td_change_t  *change;

    change = td_apply_change(apply, kind, name);

    /* one of the same name may have been made since */
    if (change->doc != NULL && change->doc->id != id) {
        return;
    }

    td_doc_free(change->doc);
    change->doc = NULL;
    change->what = TD_CHANGE_DELETE;
    change->id = id;
}


void
td_apply_refuse(td_agent_apply_t *apply, const td_event_t *event, const char *reason)
{
    td_change_t  *change;

    change = td_apply_change(apply, event->kind, event->name);
    td_doc_free(change->doc);
    change->doc = NULL;
    change->what = TD_CHANGE_REFUSED;
    change->id = event->id;
    change->revision = event->revision;
    snprintf(change->reason, sizeof(change->reason), "%.*s",
             (int) sizeof(change->reason) - 1, reason);
}


void
td_apply_drop(td_agent_apply_t *apply)
{
    td_apply_reset(apply);
}


static void
td_apply_accepted(td_agent_apply_t *apply, td_doc_kind_e kind, const char *name)
{
    td_rejected_t  **at, *rejected;

    for (at = &apply->rejected; (rejected = *at) != NULL; at = &rejected->next) {
        if (rejected->kind == kind && strcmp(rejected->name, name) == 0) {
            *at = rejected->next;
            free(rejected);
            return;
        }
    }
}


static void
td_apply_reject(td_agent_apply_t *apply, const td_change_t *change,
    const char *reason)
{
    td_rejected_t  *rejected;

    td_apply_accepted(apply, change->kind, change->name);
    td_log(TD_LOG_ERR, "agent", "%s %s of revision %llu is refused: %s",
           td_doc_kind_name(change->kind), change->name,
           (unsigned long long) change->revision, reason);

    rejected = calloc(1, sizeof(td_rejected_t));

    if (rejected != NULL) {
        rejected->kind = change->kind;
        rejected->revision = change->revision;
        memcpy(rejected->name, change->name, sizeof(rejected->name));
        snprintf(rejected->reason, sizeof(rejected->reason), "%s", reason);
        rejected->next = apply->rejected;
        apply->rejected = rejected;
    }
}


/*
 * Brings a document into kernel and store.  What it replaces leaves the kernel as
 * far as the new one does not have it.
 */
static void
td_apply_one(td_agent_apply_t *apply, td_change_t *change, int last)
{
    int          err;
    char         reason[TD_APPLY_REASON];
    td_doc_t    *doc, *old;
    td_agent_t  *agent;

    agent = apply->agent;
    doc = change->doc;
    old = td_agent_store_find(agent->store, doc->kind, doc->name);
    err = td_kernel_put(agent, doc);

    if (err == -EEXIST && !last) {
        change->failed = 1;
        return;
    }

    if (err != 0) {
        snprintf(reason, sizeof(reason), "%s", td_mesh_error(agent->mesh));

        if (old != NULL) {
            td_kernel_put(agent, old);
        }

        td_kernel_delete(agent, doc, old);
        td_apply_reject(apply, change, reason);
        return;
    }

    if (td_agent_store_put(agent->store, doc, &old) != 0) {
        td_log(TD_LOG_CRIT, "agent", "out of memory");
        abort();
    }

    change->doc = NULL;
    doc->seen = 1;
    td_apply_accepted(apply, doc->kind, doc->name);
    td_agent_snapshot_put(agent->snapshot, doc);

    if (old != NULL) {
        td_kernel_delete(agent, old, doc);
        td_doc_free(old);
    }
}


static void
td_apply_puts(td_agent_apply_t *apply, td_doc_kind_e kind)
{
    td_change_t  *change;

    for (change = apply->kinds[kind].first; change != NULL; change = change->next) {
        if (change->what == TD_CHANGE_PUT) {
            td_apply_one(apply, change, 0);

        } else if (change->what == TD_CHANGE_REFUSED) {
            td_apply_reject(apply, change, change->reason);
        }
    }

    /* An endpoint that has gone from one tenant to another in this batch. */
    for (change = apply->kinds[kind].first; change != NULL; change = change->next) {
        if (change->failed) {
            td_apply_one(apply, change, 1);
        }
    }
}


static void
td_apply_remove(td_agent_apply_t *apply, td_doc_t *doc)
{
    td_agent_snapshot_delete(apply->agent->snapshot, doc);
    td_apply_accepted(apply, doc->kind, doc->name);
    td_agent_store_remove(apply->agent->store, doc);
    td_kernel_delete(apply->agent, doc, NULL);
    td_doc_free(doc);
}


static void
td_apply_deletes(td_agent_apply_t *apply, td_doc_kind_e kind)
{
    td_doc_t     *doc;
    td_change_t  *change;

    for (change = apply->kinds[kind].first; change != NULL; change = change->next) {
        if (change->what != TD_CHANGE_DELETE) {
            continue;
        }

        doc = td_agent_store_find(apply->agent->store, kind, change->name);

        if (doc != NULL && doc->id == change->id) {
            td_apply_remove(apply, doc);

        } else if (doc == NULL) {
            td_apply_accepted(apply, kind, change->name);
        }
    }
}


static void
td_apply_delta(td_agent_apply_t *apply)
{
    td_apply_puts(apply, TD_DOC_AGENT);
    td_apply_puts(apply, TD_DOC_TENANT);
    td_apply_puts(apply, TD_DOC_NODE);
    td_apply_puts(apply, TD_DOC_WORKLOAD);
    td_apply_deletes(apply, TD_DOC_SERVICE);
    td_apply_puts(apply, TD_DOC_SERVICE);
    td_apply_deletes(apply, TD_DOC_WORKLOAD);
    td_apply_deletes(apply, TD_DOC_NODE);
    td_apply_deletes(apply, TD_DOC_TENANT);
    td_apply_deletes(apply, TD_DOC_AGENT);
}


static void
td_apply_unsee(td_doc_t *doc, void *data)
{
    (void) data;

    doc->seen = 0;
}


/* Of a list: what it did not name goes, what it named but could not be used stays. */
static void
td_apply_unnamed(td_doc_t *doc, void *data)
{
    td_change_t       *change;
    td_agent_apply_t  *apply = data;

    if (doc->seen) {
        return;
    }

    change = td_apply_change(apply, doc->kind, doc->name);

    if (change->what == TD_CHANGE_REFUSED || change->doc != NULL) {
        td_kernel_put(apply->agent, doc);
        return;
    }

    td_apply_remove(apply, doc);
}


static void
td_apply_list(td_agent_apply_t *apply)
{
    int             kind;
    td_agent_t     *agent;
    td_rejected_t  *rejected;

    agent = apply->agent;

    while ((rejected = apply->rejected) != NULL) {
        apply->rejected = rejected->next;
        free(rejected);
    }

    for (kind = TD_DOC_AGENT; kind < TD_DOC_KINDS; kind++) {
        td_agent_store_each(agent->store, kind, td_apply_unsee, NULL);
    }

    td_mesh_begin(agent->mesh);

    for (kind = TD_DOC_AGENT; kind < TD_DOC_KINDS; kind++) {
        td_apply_puts(apply, kind);

        if (kind == TD_DOC_WORKLOAD) {
            td_agent_exec_put_all(agent->exec);
        }
    }

    for (kind = TD_DOC_KINDS - 1; kind >= TD_DOC_AGENT; kind--) {
        td_agent_store_each(agent->store, kind, td_apply_unnamed, apply);
    }

    td_mesh_commit(agent->mesh);
}


/* Programs are attached after the first state, and replaced by ours in any case. */
static void
td_apply_attach(td_agent_apply_t *apply)
{
    td_agent_t  *agent;

    agent = apply->agent;

    if (apply->attached) {
        return;
    }

    if (td_mesh_attach(agent->mesh, td_agent_cgroup(agent)) != 0) {
        td_log(TD_LOG_CRIT, "agent", "cannot attach to %s: %s",
               td_agent_cgroup(agent), td_mesh_error(agent->mesh));
        td_agent_fail(agent);
        return;
    }

    apply->attached = 1;
    td_log(TD_LOG_NOTICE, "agent", "enforcing below %s", td_agent_cgroup(agent));
}


/* Of td_agent_s: what this node shall look at, as a text to compare. */
static void
td_apply_view(const td_agent_t *agent, tg_text_t *view)
{
    size_t           i;
    const td_doc_t  *doc;

    doc = td_agent_store_find(agent->store, TD_DOC_AGENT, agent->gateway);

    if (doc != NULL) {
        tg_text_printf(view, "%s %d", doc->agent.node, doc->agent.all);

        for (i = 0; i < doc->agent.n_tenants; i++) {
            tg_text_printf(view, " %u", doc->agent.tenants[i]);
        }
    }
}


/* Whether the view differs from the one in before. */
static int
td_apply_view_changed(td_agent_apply_t *apply, const tg_text_t *before)
{
    int        changed;
    tg_text_t  view;

    tg_text_init(&view);
    td_apply_view(apply->agent, &view);
    changed = view.len != before->len
              || (view.len > 0 && memcmp(view.data, before->data, view.len) != 0);
    tg_text_free(&view);

    return changed;
}


int
td_apply_commit(td_agent_apply_t *apply, uint64_t revision, int complete,
    const char *registry)
{
    int             changed;
    tg_text_t       before;
    struct timeval  settle = { TD_APPLY_SETTLE, 0 };

    if (!complete && apply->changes.n == 0) {
        if (apply->revision != revision) {
            apply->revision = revision;
            td_agent_snapshot_bookmark(apply->agent->snapshot, revision, 0);
        }
        return 0;
    }

    tg_text_init(&before);
    td_apply_view(apply->agent, &before);

    if (complete) {
        td_apply_list(apply);
        apply->loaded = 1;
        td_apply_attach(apply);

    } else {
        td_apply_delta(apply);

        if (!evtimer_pending(apply->settle, NULL)) {
            evtimer_add(apply->settle, &settle);
        }
    }

    changed = !complete && td_apply_view_changed(apply, &before);
    tg_text_free(&before);
    apply->revision = revision;
    td_apply_reset(apply);
    td_agent_ack_hurry(apply->agent->ack);
    td_agent_health_changed(apply->agent->health);

    if (complete) {
        td_agent_snapshot_write(apply->agent->snapshot, registry, revision);
    } else {
        td_agent_snapshot_bookmark(apply->agent->snapshot, revision, 1);
    }

    return changed;
}


uint64_t
td_apply_revision(const td_agent_apply_t *apply)
{
    return apply->revision;
}


int
td_apply_loaded(const td_agent_apply_t *apply)
{
    return apply->loaded;
}


void
td_apply_rejected(const td_agent_apply_t *apply, tg_text_t *out)
{
    size_t                n;
    const td_rejected_t  *rejected;

    n = 0;
    tg_text_str(out, "[");

    for (rejected = apply->rejected;
         rejected != NULL && n < TD_APPLY_REJECTED;
         rejected = rejected->next)
    {
        tg_text_printf(out, "%s{\"kind\":\"%s\",\"name\":", n++ > 0 ? "," : "",
                       td_doc_kind_name(rejected->kind));
        tg_text_json(out, rejected->name, strlen(rejected->name));
        tg_text_printf(out, ",\"revision\":%llu,\"reason\":",
                       (unsigned long long) rejected->revision);
        tg_text_json(out, rejected->reason, strlen(rejected->reason));
        tg_text_str(out, "}");
    }

    tg_text_str(out, "]");
}
