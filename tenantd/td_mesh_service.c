/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Services, their endpoints and limits.
 *
 * A set of endpoints lies in one extent of tg_slots.  A new set is written into a
 * free extent, then the service's row is put; the old extent is free for others
 * only after a settle, when no program can still be reading it.
 *
 * An endpoint that several services have counts its uses.  Whose it is was said by
 * the first of them; tenants cannot share one.
 */

#include "td_mesh_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tg_alias.h"
#include "tg_mesh.skel.h"


/* What a service's row owns: the endpoints that it uses, also those that are down. */
typedef struct {
    size_t            n;
    struct tg_target  targets[];
} uses_t;


static int
add_extent(td_mesh_extents_t *list, uint32_t first, uint32_t count)
{
    size_t             room;
    td_mesh_extent_t  *extents;

    if (count == 0) {
        return 0;
    }

    if (list->n == list->room) {
        room = list->room ? list->room * 2 : 64;
        extents = realloc(list->extents, room * sizeof(*extents));
        if (extents == NULL) {
            return -ENOMEM;
        }
        list->extents = extents;
        list->room = room;
    }

    list->extents[list->n++] = (td_mesh_extent_t) { first, count };

    return 0;
}


/* The first that is large enough. */
static int
take_extent(td_mesh_t *mesh, uint32_t count, uint32_t *first)
{
    size_t             i;
    td_mesh_extent_t  *extent;

    if (count == 0) {
        return 0;
    }

    for (i = 0; i < mesh->free.n; i++) {
        extent = &mesh->free.extents[i];

        if (extent->count < count) {
            continue;
        }

        *first = extent->first;
        extent->first += count;
        extent->count -= count;

        if (extent->count == 0) {
            *extent = mesh->free.extents[--mesh->free.n];
        }

        return 0;
    }

    return -E2BIG;
}


static int
compare_extents(const void *a, const void *b)
{
    const td_mesh_extent_t  *x, *y;

    x = a;
    y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}


static void
merge_extents(td_mesh_extents_t *list)
{
    size_t  i, n;

    if (list->n == 0) {
        return;
    }

    qsort(list->extents, list->n, sizeof(*list->extents), compare_extents);

    for (i = 1, n = 0; i < list->n; i++) {
        if (list->extents[n].first + list->extents[n].count == list->extents[i].first) {
            list->extents[n].count += list->extents[i].count;
        } else {
            list->extents[++n] = list->extents[i];
        }
    }

    list->n = n + 1;
}


typedef struct {
    td_mesh_t          *mesh;
    td_mesh_extents_t   used;
    int                 err;
} scan_t;


static int
scan_service(td_mesh_row_t *row, void *data)
{
    scan_t             *scan;
    struct tg_service  *service;

    scan = data;
    service = td_mesh_row_value(scan->mesh->maps[TD_MESH_SERVICES], row);

    if (service->set >= scan->mesh->next_slots) {
        scan->mesh->next_slots = service->set + 1;
    }

    if (add_extent(&scan->used, service->first, service->count) != 0) {
        scan->err = -ENOMEM;
    }

    return 0;
}


/* Free is what no service has. */
static int
find_free(td_mesh_t *mesh)
{
    size_t    i;
    scan_t    scan;
    uint32_t  at;

    memset(&scan, 0, sizeof(scan));
    scan.mesh = mesh;
    td_mesh_map_filter(mesh->maps[TD_MESH_SERVICES], scan_service, &scan);

    merge_extents(&scan.used);
    mesh->free.n = 0;
    at = 0;

    for (i = 0; i < scan.used.n && scan.err == 0; i++) {
        scan.err = add_extent(&mesh->free, at, scan.used.extents[i].first - at);
        at = scan.used.extents[i].first + scan.used.extents[i].count;
    }

    if (scan.err == 0) {
        scan.err = add_extent(&mesh->free, at, (uint32_t) mesh->n_slots - at);
    }

    free(scan.used.extents);

    return scan.err;
}


/* Of services that an agent before us put: the slots say whom they use. */
static int
adopt_service(td_mesh_row_t *row, void *data)
{
    uint32_t            i;
    uses_t             *uses;
    td_mesh_t          *mesh;
    td_mesh_row_t      *endpoint;
    struct tg_slot     *slot;
    struct tg_service  *service;

    mesh = data;
    service = td_mesh_row_value(mesh->maps[TD_MESH_SERVICES], row);

    if (service->first + service->count > mesh->n_slots) {
        return 1;
    }

    uses = calloc(1, sizeof(*uses) + service->count * sizeof(uses->targets[0]));
    if (uses == NULL) {
        return 0;
    }

    for (i = 0; i < service->count; i++) {
        slot = &mesh->slots[service->first + i];
        uses->targets[i].addr = slot->endpoint[0].addr;
        uses->targets[i].port = slot->endpoint[0].port;
        uses->targets[i].proto = service->target.proto;

        endpoint = td_mesh_map_row(mesh->maps[TD_MESH_ENDPOINTS], &uses->targets[i]);
        if (endpoint != NULL) {
            endpoint->uses++;
        }
    }

    uses->n = service->count;
    row->owned = uses;

    return 0;
}


int
td_mesh_load_services(td_mesh_t *mesh)
{
    mesh->next_slots = 1;
    td_mesh_map_filter(mesh->maps[TD_MESH_SERVICES], adopt_service, mesh);

    return find_free(mesh);
}


/* Rows that were swept left their slots behind: found here, not counted there. */
void
td_mesh_settle_slots(td_mesh_t *mesh)
{
    mesh->leaving.n = 0;
    find_free(mesh);
}


void
td_mesh_slots_fill(const td_mesh_t *mesh, td_mesh_fill_t *fill)
{
    size_t  i, unused;

    unused = 0;
    for (i = 0; i < mesh->free.n; i++) {
        unused += mesh->free.extents[i].count;
    }

    fill->name = "tg_slots";
    fill->size = mesh->n_slots;
    fill->used = mesh->n_slots - unused;
    fill->refused = mesh->slots_refused;
}


static int
compare_endpoints(const void *a, const void *b)
{
    int                        order;
    const td_mesh_endpoint_t  *x, *y;

    x = a;
    y = b;

    order = memcmp(&x->addr, &y->addr, sizeof(x->addr));

    return order ? order : x->port - y->port;
}


/* Those that connections may go to, in an order of their own.  NULL: no memory. */
static td_mesh_endpoint_t *
select_endpoints(const td_mesh_service_t *service, size_t *n)
{
    size_t               i;
    td_mesh_endpoint_t  *up;

    up = calloc(service->n_endpoints ? service->n_endpoints : 1, sizeof(*up));
    if (up == NULL) {
        return NULL;
    }

    *n = 0;
    for (i = 0; i < service->n_endpoints; i++) {
        if (service->endpoints[i].healthy && service->endpoints[i].weight > 0) {
            up[(*n)++] = service->endpoints[i];
        }
    }

    qsort(up, *n, sizeof(*up), compare_endpoints);

    return up;
}


/* The slots of a service, of set 0.  NULL: no memory. */
static struct tg_slot *
build_slots(const td_mesh_endpoint_t *up, size_t n)
{
    size_t           i;
    uint32_t        *weights;
    tg_alias_t      *table;
    struct tg_slot  *slots;

    weights = calloc(n + 1, sizeof(*weights));
    table = calloc(n + 1, sizeof(*table));
    slots = calloc(n + 1, sizeof(*slots));

    for (i = 0; weights != NULL && i < n; i++) {
        weights[i] = up[i].weight;
    }

    if (weights == NULL || table == NULL || slots == NULL
        || tg_alias_build(weights, n, table) != 0)
    {
        free(slots);
        slots = NULL;
    }

    for (i = 0; slots != NULL && i < n; i++) {
        slots[i].own = table[i].own;
        slots[i].endpoint[0].addr = up[i].addr;
        slots[i].endpoint[0].port = up[i].port;
        slots[i].endpoint[1].addr = up[table[i].other].addr;
        slots[i].endpoint[1].port = up[table[i].other].port;
    }

    free(weights);
    free(table);

    return slots;
}


static int
same_slots(const struct tg_slot *a, const struct tg_slot *b, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (a[i].own != b[i].own
            || memcmp(a[i].endpoint, b[i].endpoint, sizeof(a[i].endpoint)) != 0)
        {
            return 0;
        }
    }

    return 1;
}


/* Puts a set into free slots and points the row there. */
static int
put_slots(td_mesh_t *mesh, struct tg_service *row, struct tg_slot *slots, size_t n)
{
    int                 err;
    size_t              i;
    struct tg_service  *old;

    old = td_mesh_map_get(mesh->maps[TD_MESH_SERVICES], &row->target);

    if (old != NULL && old->count == n && same_slots(&mesh->slots[old->first], slots, n)) {
        row->first = old->first;
        row->count = old->count;
        row->set = old->set;
        return td_mesh_map_put(mesh->maps[TD_MESH_SERVICES], &row->target, row);
    }

    row->set = mesh->next_slots++;
    row->count = (uint32_t) n;

    err = take_extent(mesh, (uint32_t) n, &row->first);
    if (err != 0 && mesh->leaving.n > 0) {
        td_mesh_grace();
        td_mesh_settle_slots(mesh);
        err = take_extent(mesh, (uint32_t) n, &row->first);
    }
    if (err != 0) {
        mesh->slots_refused++;
        return err;
    }

    for (i = 0; i < n; i++) {
        slots[i].set = row->set;
    }

    memcpy(&mesh->slots[row->first], slots, n * sizeof(*slots));

    if (old != NULL) {
        add_extent(&mesh->leaving, old->first, old->count);
    }

    err = td_mesh_map_put(mesh->maps[TD_MESH_SERVICES], &row->target, row);
    if (err != 0) {
        add_extent(&mesh->free, row->first, row->count);
    }

    return err;
}


/* One use less; nobody's goes. */
static void
release_endpoint(td_mesh_t *mesh, const struct tg_target *target)
{
    td_mesh_row_t  *row;

    row = td_mesh_map_row(mesh->maps[TD_MESH_ENDPOINTS], target);

    if (row != NULL && row->uses > 0 && --row->uses == 0) {
        td_mesh_map_delete(mesh->maps[TD_MESH_ENDPOINTS], target);
    }
}


static int
use_endpoint(td_mesh_t *mesh, const struct tg_target *target, struct tg_place *place)
{
    int               err;
    td_mesh_row_t    *row;
    struct tg_place  *before;

    row = td_mesh_map_row(mesh->maps[TD_MESH_ENDPOINTS], target);

    /* In a full state, one that nobody has put yet is free for a new owner. */
    if (row != NULL && row->uses > 0 && (!mesh->syncing || row->round == mesh->round)) {
        before = td_mesh_row_value(mesh->maps[TD_MESH_ENDPOINTS], row);
        if (before->who.tenant != place->who.tenant) {
            return -EEXIST;
        }
        if (row->uses > 1) {
            place->who = before->who;
        }
    }

    err = td_mesh_map_put(mesh->maps[TD_MESH_ENDPOINTS], target, place);
    if (err == 0) {
        td_mesh_map_row(mesh->maps[TD_MESH_ENDPOINTS], target)->uses++;
    }

    return err;
}


/*
 * The identities of endpoints come before anything is sent to them.  The old uses
 * are given back by the caller, once the row has changed.
 */
static int
use_endpoints(td_mesh_t *mesh, const td_mesh_service_t *service, uint32_t flags,
    uses_t **result)
{
    int              err;
    size_t           i;
    uses_t          *uses;
    struct tg_place  place;

    uses = calloc(1, sizeof(*uses) + service->n_endpoints * sizeof(uses->targets[0]));
    if (uses == NULL) {
        return -ENOMEM;
    }

    for (i = 0; i < service->n_endpoints; i++) {
        uses->targets[i].addr = service->endpoints[i].addr;
        uses->targets[i].port = service->endpoints[i].port;
        uses->targets[i].proto = service->target.proto;

        memset(&place, 0, sizeof(place));
        place.who = service->who;
        place.flags = flags | (service->endpoints[i].healthy ? 0 : TG_DOWN);

        err = use_endpoint(mesh, &uses->targets[i], &place);
        if (err != 0) {
            while (i > 0) {
                release_endpoint(mesh, &uses->targets[--i]);
            }
            free(uses);
            return err;
        }

        uses->n = i + 1;
    }

    *result = uses;

    return 0;
}


static void
release_uses(td_mesh_t *mesh, uses_t *uses)
{
    size_t  i;

    for (i = 0; uses != NULL && i < uses->n; i++) {
        release_endpoint(mesh, &uses->targets[i]);
    }

    free(uses);
}


/* In the kernel's map before the flag that sends programs there. */
static int
put_limit(td_mesh_t *mesh, const td_mesh_service_t *service, uint32_t *flags)
{
    int              err;
    struct tg_limit  limit;

    limit = service->limit;
    if (limit.rate != 0 && limit.burst == 0) {
        limit.burst = limit.rate;
    }
    limit.reserved = 0;

    if (limit.rate == 0 && limit.open == 0) {
        *flags = 0;
        td_mesh_map_delete(mesh->maps[TD_MESH_LIMITS], &service->who.service);
        return 0;
    }

    err = td_mesh_map_put(mesh->maps[TD_MESH_LIMITS], &service->who.service, &limit);
    *flags = TG_LIMITED;

    return err;
}


/* What was there stays, as if it had been put. */
static void
keep_service(td_mesh_t *mesh, const struct tg_target *target)
{
    size_t          i;
    uses_t         *uses;
    td_mesh_row_t  *row;

    row = td_mesh_map_row(mesh->maps[TD_MESH_SERVICES], target);
    if (row == NULL) {
        return;
    }

    uses = row->owned;
    row->round = mesh->round;

    for (i = 0; uses != NULL && i < uses->n; i++) {
        td_mesh_map_keep(mesh->maps[TD_MESH_ENDPOINTS], &uses->targets[i]);
    }
}


static int
sweep_service(td_mesh_row_t *row, void *data)
{
    uses_t     *uses;
    td_mesh_t  *mesh;

    mesh = data;

    if (row->round == mesh->round) {
        return 0;
    }

    uses = row->owned;
    row->owned = NULL;
    release_uses(mesh, uses);

    return 1;
}


void
td_mesh_sweep_services(td_mesh_t *mesh)
{
    td_mesh_map_filter(mesh->maps[TD_MESH_SERVICES], sweep_service, mesh);
}


static int
valid(const td_mesh_service_t *service)
{
    size_t  i;

    if (service->who.tenant == 0 || service->who.service == 0
        || service->target.port == 0 || service->target.reserved != 0)
    {
        return 0;
    }

    for (i = 0; i < service->n_endpoints; i++) {
        if (service->endpoints[i].port == 0) {
            return 0;
        }
    }

    return 1;
}


int
td_mesh_put_service(td_mesh_t *mesh, const td_mesh_service_t *service)
{
    int                  err;
    size_t               n;
    uses_t              *uses;
    td_mesh_row_t       *row;
    struct tg_slot      *slots;
    struct tg_service    value;
    td_mesh_endpoint_t  *up;

    if (!valid(service)) {
        return td_mesh_fail(mesh, -EINVAL, "service");
    }

    memset(&value, 0, sizeof(value));
    value.who = service->who;
    value.target = service->target;
    uses = NULL;
    slots = NULL;

    up = select_endpoints(service, &n);
    if (up != NULL) {
        slots = build_slots(up, n);
    }
    free(up);
    if (slots == NULL) {
        return td_mesh_fail(mesh, -ENOMEM, "service");
    }

    err = put_limit(mesh, service, &value.flags);
    if (err == 0) {
        err = use_endpoints(mesh, service, value.flags, &uses);
    }
    if (err == 0) {
        err = put_slots(mesh, &value, slots, n);
    }

    free(slots);

    if (err != 0) {
        release_uses(mesh, uses);
        keep_service(mesh, &service->target);
        return td_mesh_fail(mesh, err, "service");
    }

    row = td_mesh_map_row(mesh->maps[TD_MESH_SERVICES], &service->target);
    release_uses(mesh, row->owned);
    row->owned = uses;

    return 0;
}


int
td_mesh_delete_service(td_mesh_t *mesh, const struct tg_target *target)
{
    int                 err;
    uses_t             *uses;
    td_mesh_row_t      *row;
    struct tg_service  *service;

    row = td_mesh_map_row(mesh->maps[TD_MESH_SERVICES], target);
    if (row == NULL) {
        return 0;
    }

    service = td_mesh_row_value(mesh->maps[TD_MESH_SERVICES], row);
    add_extent(&mesh->leaving, service->first, service->count);

    uses = row->owned;
    row->owned = NULL;

    err = td_mesh_map_delete(mesh->maps[TD_MESH_SERVICES], target);
    if (err != 0) {
        row->owned = uses;
        return td_mesh_fail(mesh, err, "service");
    }

    release_uses(mesh, uses);

    return 0;
}
