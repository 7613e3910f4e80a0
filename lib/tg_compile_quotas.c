/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Quotas, and which of them may apply to a request of a route.
 */

#define _GNU_SOURCE

#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"


static int
tgc_quota_route(tg_compiler_t *c, const json_t *object, tg_vec_t routes,
    tg_quota_t *quota)
{
    tg_ref_t           name;
    const tg_route_t  *route;

    memset(&name, 0, sizeof(name));
    quota->route = UINT32_MAX;

    if (tgc_string(c, object, "route", TGC_VISIBLE, 1, TG_MAX_NAME,
                   quota->scope == TG_SCOPE_ROUTE ? 0 : TGC_OPTIONAL, &name)
        != 0)
    {
        return -1;
    }

    if (name.off == 0) {
        return 0;
    }

    if (quota->scope == TG_SCOPE_TENANT) {
        (void) tgc_fail(c, "", "is for scope \"route\" or \"consumer\"");
        return tgc_in(c, "route");
    }

    route = tgc_at(c, routes, 0, sizeof(tg_route_t));

    for (uint32_t i = 0; i < routes.n; i++) {
        if (route[i].name.off == name.off) {
            quota->route = i;
            return 0;
        }
    }

    (void) tgc_fail(c, "", "names no route of the tenant");
    return tgc_in(c, "route");
}


static int
tgc_quota_consumer(tg_compiler_t *c, const json_t *object, tg_quota_t *quota)
{
    if (tgc_string(c, object, "consumer", TGC_VISIBLE, 1, TG_MAX_CONSUMER,
                   TGC_OPTIONAL, &quota->consumer) != 0)
    {
        return -1;
    }

    if (quota->consumer.off != 0 && quota->scope != TG_SCOPE_CONSUMER) {
        (void) tgc_fail(c, "", "is for scope \"consumer\"");
        return tgc_in(c, "consumer");
    }

    return 0;
}


/* "day", "month", or "<n>s". */
static int
tgc_window(tg_compiler_t *c, const json_t *object, tg_quota_t *quota)
{
    char        *end;
    long         seconds;
    const char  *s;

    s = json_string_value(tgc_member(object, "window"));

    if (s != NULL && strcmp(s, "day") == 0) {
        quota->window = TG_WINDOW_DAY;
        return 0;
    }

    if (s != NULL && strcmp(s, "month") == 0) {
        quota->window = TG_WINDOW_MONTH;
        return 0;
    }

    if (s != NULL && s[0] >= '1' && s[0] <= '9') {
        seconds = strtol(s, &end, 10);

        if (strcmp(end, "s") == 0 && seconds <= TG_MAX_SECONDS) {
            quota->seconds = (uint32_t) seconds;
            return 0;
        }
    }

    (void) tgc_fail(c, "", "must be \"day\", \"month\", or \"1s\" to \"%ds\"",
                    TG_MAX_SECONDS);
    return tgc_in(c, "window");
}


static int
tgc_refuse_member(tg_compiler_t *c, const json_t *object, const char *name,
    const char *why)
{
    if (tgc_member(object, name) == NULL) {
        return 0;
    }

    (void) tgc_fail(c, "", "%s", why);
    return tgc_in(c, name);
}


static int
tgc_requests(tg_compiler_t *c, const json_t *object, tg_quota_t *quota)
{
    if (tgc_number(c, object, "limit", 1, TG_MAX_LIMIT, 0, &quota->limit) != 0
        || tgc_window(c, object, quota) != 0)
    {
        return -1;
    }

    if (quota->window != TG_WINDOW_SECONDS) {
        return tgc_refuse_member(c, object, "burst",
                                 "is for windows in seconds");
    }

    quota->burst = quota->limit;

    return tgc_number(c, object, "burst", 0, TG_MAX_BURST, TGC_OPTIONAL,
                      &quota->burst);
}


static int
tgc_limit(tg_compiler_t *c, const json_t *object, tg_quota_t *quota)
{
    if (quota->metric == TG_METRIC_REQUESTS) {
        return tgc_requests(c, object, quota);
    }

    if (tgc_refuse_member(c, object, "window", "is for metric \"requests\"") != 0
        || tgc_refuse_member(c, object, "burst", "is for metric \"requests\"")
           != 0)
    {
        return -1;
    }

    if (quota->metric == TG_METRIC_CONCURRENCY) {
        return tgc_number(c, object, "limit", 1, TG_MAX_CONCURRENCY, 0,
                          &quota->limit);
    }

    return tgc_number(c, object, "limit", 0, TG_MAX_BODY, 0, &quota->limit);
}


static int
tgc_quota(tg_compiler_t *c, const json_t *object, tg_vec_t routes,
    tg_quota_t *quota)
{
    static const char *const  scopes[] = {
        "tenant", "route", "consumer", NULL
    };
    static const char *const  metrics[] = {
        "requests", "concurrency", "body_size", NULL
    };

    memset(quota, 0, sizeof(*quota));

    if (tgc_is_object(c, object) != 0
        || tgc_id(c, object, "id", &quota->id) != 0
        || tgc_string(c, object, "name", TGC_VISIBLE, 1, TG_MAX_NAME, 0,
                      &quota->name) != 0
        || tgc_choice(c, object, "scope", scopes, 0, &quota->scope) != 0
        || tgc_choice(c, object, "metric", metrics, 0, &quota->metric) != 0
        || tgc_quota_route(c, object, routes, quota) != 0
        || tgc_quota_consumer(c, object, quota) != 0
        || tgc_limit(c, object, quota) != 0
        || tgc_bool(c, object, "dry_run", &quota->dry_run) != 0)
    {
        return -1;
    }

    quota->keyed = quota->scope == TG_SCOPE_CONSUMER && quota->consumer.off == 0
                   && quota->metric != TG_METRIC_BODY_SIZE;

    return 0;
}


typedef struct {
    const tg_compiler_t  *c;
    const tg_quota_t     *quota;
} tgc_quota_order_t;


/* Those of everybody first, then those of one consumer, by its name. */
static int
tgc_compare_quotas(const void *a, const void *b, void *data)
{
    int                       rc;
    uint32_t                  i = *(const uint32_t *) a;
    uint32_t                  k = *(const uint32_t *) b;
    tg_ref_t                  x, y;
    const tgc_quota_order_t  *order = data;

    x = order->quota[i].consumer;
    y = order->quota[k].consumer;

    if (x.off != y.off) {
        if (x.off == 0 || y.off == 0) {
            return x.off == 0 ? -1 : 1;
        }

        rc = memcmp(order->c->mem + x.off, order->c->mem + y.off,
                    x.len < y.len ? x.len : y.len);

        return rc != 0 ? rc : (x.len > y.len) - (x.len < y.len);
    }

    return i < k ? -1 : i > k;
}


/* How many of a sorted list can meet in one request; concurrency: of these. */
static size_t
tgc_meeting(const tg_quota_t *quota, const uint32_t *list, size_t n,
    int concurrency)
{
    size_t             all, same, most;
    uint32_t           consumer;
    const tg_quota_t  *q;

    all = 0;
    same = 0;
    most = 0;
    consumer = 0;

    for (size_t i = 0; i < n; i++) {
        q = &quota[list[i]];

        if (concurrency && q->metric != TG_METRIC_CONCURRENCY) {
            continue;
        }

        if (q->consumer.off == 0) {
            all++;
            continue;
        }

        same = q->consumer.off == consumer ? same + 1 : 1;
        consumer = q->consumer.off;
        most = same > most ? same : most;
    }

    return all + most;
}


/*
 * The list of one route.  Most routes have no quota of their own: these share
 * one list (*shared).
 */
static int
tgc_attach(tg_compiler_t *c, tg_vec_t vec, tg_route_t *route, uint32_t index,
    tg_vec_t *shared)
{
    int                 own;
    size_t              n;
    uint32_t            list[TG_MAX_QUOTAS];
    tgc_quota_order_t   order;

    order.c = c;
    order.quota = tgc_at(c, vec, 0, sizeof(tg_quota_t));
    own = 0;
    n = 0;

    for (uint32_t i = 0; i < vec.n; i++) {
        if (order.quota[i].route == index) {
            own = 1;

        } else if (order.quota[i].route != UINT32_MAX) {
            continue;
        }

        list[n++] = i;
    }

    if (n == 0 || (!own && shared->n != 0)) {
        route->quotas = *shared;
        return 0;
    }

    qsort_r(list, n, sizeof(uint32_t), tgc_compare_quotas, &order);

    if (tgc_meeting(order.quota, list, n, 0) > TG_MAX_REQUEST_QUOTAS) {
        return tgc_fail(c, "", "more than %d apply to one request of route "
                        "\"%s\"", TG_MAX_REQUEST_QUOTAS,
                        (char *) c->mem + route->name.off);
    }

    if (tgc_meeting(order.quota, list, n, 1) > TG_MAX_REQUEST_HOLDS) {
        return tgc_fail(c, "", "more than %d of concurrency apply to one "
                        "request of route \"%s\"", TG_MAX_REQUEST_HOLDS,
                        (char *) c->mem + route->name.off);
    }

    if (tgc_reserve(c, n, sizeof(uint32_t), 4, &route->quotas) != 0) {
        return -1;
    }

    memcpy(tgc_at(c, route->quotas, 0, sizeof(uint32_t)), list,
           n * sizeof(uint32_t));

    if (!own) {
        *shared = route->quotas;
    }

    return 0;
}


static int
tgc_attach_all(tg_compiler_t *c, tg_vec_t vec, tg_vec_t routes)
{
    tg_vec_t    shared;
    tg_route_t  route;

    shared.off = 0;
    shared.n = 0;

    for (uint32_t i = 0; i < routes.n; i++) {
        route = *(tg_route_t *) tgc_at(c, routes, i, sizeof(route));

        if (tgc_attach(c, vec, &route, i, &shared) != 0) {
            return -1;
        }

        tgc_store(c, routes, i, &route, sizeof(route));
    }

    return 0;
}


int
tgc_quotas(tg_compiler_t *c, const json_t *array, tg_vec_t vec,
    tg_vec_t routes)
{
    ssize_t     twice;
    uint64_t    id[TG_MAX_QUOTAS], name[TG_MAX_QUOTAS];
    tg_quota_t  quota;

    for (size_t i = 0; i < vec.n; i++) {
        if (tgc_quota(c, json_array_get(array, i), routes, &quota) != 0) {
            return tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &quota, sizeof(quota));
        id[i] = quota.id;
        name[i] = quota.name.off;
    }

    twice = tgc_duplicate(id, vec.n);

    if (twice == -1) {
        twice = tgc_duplicate(name, vec.n);
    }

    if (twice != -1) {
        (void) tgc_fail(c, "", "has the id or name of another quota");
        return tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
    }

    return tgc_attach_all(c, vec, routes);
}
