/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Is this a block?  Everything that a reader follows is followed here first.
 * Nothing is assumed of the bytes; the size is what the caller has.
 */

#include <string.h>
#include <sys/socket.h>

#include "tg_compile_internal.h"

typedef struct {
    const tg_block_t  *block;
    size_t             size;
} tgk_t;

typedef int (*tgk_element_pt)(const tgk_t *k, const void *element);


/* A string with its NUL, or none. */
static int
tgk_ref(const tgk_t *k, tg_ref_t ref)
{
    if (ref.off == 0) {
        return ref.len == 0;
    }

    return ref.off >= sizeof(tg_block_t) && ref.off < k->size
           && ref.len < k->size - ref.off
           && *(tg_str(k->block, ref) + ref.len) == '\0';
}


/* A string that must be there. */
static int
tgk_some(const tgk_t *k, tg_ref_t ref)
{
    return ref.off != 0 && tgk_ref(k, ref);
}


static int
tgk_vec(const tgk_t *k, tg_vec_t vec, size_t max, size_t size, size_t align,
    tgk_element_pt element)
{
    const char  *p;

    if (vec.n == 0) {
        return vec.off == 0;
    }

    if (vec.off < sizeof(tg_block_t) || vec.off % align != 0 || vec.n > max
        || vec.off > k->size || vec.n > (k->size - vec.off) / size)
    {
        return 0;
    }

    p = tg_vec(k->block, vec, const char);

    for (uint32_t i = 0; i < vec.n; i++) {
        if (!element(k, p + i * size)) {
            return 0;
        }
    }

    return 1;
}


static int
tgk_string(const tgk_t *k, const void *element)
{
    return tgk_some(k, *(const tg_ref_t *) element);
}


static int
tgk_strings(const tgk_t *k, tg_vec_t vec, size_t max)
{
    return tgk_vec(k, vec, max, sizeof(tg_ref_t), 4, tgk_string);
}


static int
tgk_key(const tgk_t *k, const void *element)
{
    const tg_key_t  *key = element;

    return tgk_ref(k, key->kid) && tgk_some(k, key->material) && key->hmac <= 1;
}


static int
tgk_issuer(const tgk_t *k, const void *element)
{
    const tg_issuer_t  *issuer = element;

    if (issuer->ref > 1
        || !tgk_strings(k, issuer->audiences, TG_MAX_AUDIENCES)
        || !tgk_vec(k, issuer->keys, TG_MAX_JWKS_KEYS, sizeof(tg_key_t), 4,
                    tgk_key))
    {
        return 0;
    }

    if (issuer->ref) {
        return k->block->kind == TG_KIND_TENANT && issuer->name.off == 0
               && issuer->issuer.off == 0 && issuer->keys.n == 0;
    }

    return tgk_some(k, issuer->name) && tgk_some(k, issuer->issuer)
           && tgk_some(k, issuer->consumer_claim);
}


static int
tgk_consumer(const tgk_t *k, const void *element)
{
    return tgk_some(k, ((const tg_consumer_t *) element)->name);
}


static int
tgk_api_key(const tgk_t *k, const void *element)
{
    const tg_api_key_t  *key = element;

    return tgk_some(k, key->consumer)
           && tgk_strings(k, key->scopes, TG_MAX_SCOPES);
}


static int
tgk_endpoint(const tgk_t *k, const void *element)
{
    const tg_endpoint_t  *endpoint = element;

    return (endpoint->family == AF_INET || endpoint->family == AF_INET6)
           && endpoint->weight <= TG_MAX_WEIGHT && tgk_some(k, endpoint->text);
}


static int
tgk_upstream(const tgk_t *k, const void *element)
{
    const tg_upstream_t  *upstream = element;

    return tgk_some(k, upstream->name) && tgk_ref(k, upstream->host)
           && tgk_vec(k, upstream->endpoints, TG_MAX_ENDPOINTS,
                      sizeof(tg_endpoint_t), 8, tgk_endpoint);
}


static int
tgk_header(const tgk_t *k, const void *element)
{
    const tg_header_match_t  *header = element;

    return tgk_some(k, header->name) && tgk_some(k, header->value)
           && header->regex <= 1;
}


static int
tgk_claim(const tgk_t *k, const void *element)
{
    const tg_claim_match_t  *claim = element;

    return tgk_some(k, claim->name)
           && tgk_strings(k, claim->values, TG_MAX_VALUES);
}


static int
tgk_backend(const tgk_t *k, const void *element)
{
    const tg_backend_t  *backend = element;

    return backend->upstream < k->block->upstreams.n
           && backend->weight <= TG_MAX_WEIGHT;
}


static int
tgk_quota_index(const tgk_t *k, const void *element)
{
    return *(const uint32_t *) element < k->block->quotas.n;
}


static uint64_t
tgk_weights(const tgk_t *k, const tg_route_t *route)
{
    uint64_t             sum;
    const tg_backend_t  *backend;

    backend = tg_vec(k->block, route->backends, const tg_backend_t);
    sum = 0;

    for (uint32_t i = 0; i < route->backends.n; i++) {
        sum += backend[i].weight;
    }

    return sum;
}


static int
tgk_route(const tgk_t *k, const void *element)
{
    const tg_route_t  *route = element;

    return tgk_some(k, route->name)
           && tgk_some(k, route->path) && route->path.len > 0
           && tgk_ref(k, route->rewrite)
           && route->path_type <= TG_PATH_PREFIX
           && route->auth_mode <= TG_AUTH_NONE
           && route->rewrite_type <= TG_REWRITE_REPLACE_PATH
           && route->retries <= TG_MAX_RETRIES
           && tgk_vec(k, route->headers, TG_MAX_HEADERS,
                      sizeof(tg_header_match_t), 4, tgk_header)
           && tgk_strings(k, route->hosts, TG_MAX_ROUTE_HOSTS)
           && tgk_strings(k, route->scopes, TG_MAX_SCOPES)
           && tgk_vec(k, route->claims, TG_MAX_CLAIMS, sizeof(tg_claim_match_t),
                      4, tgk_claim)
           && tgk_vec(k, route->backends, TG_MAX_BACKENDS, sizeof(tg_backend_t),
                      4, tgk_backend)
           && route->weight > 0 && tgk_weights(k, route) == route->weight
           && tgk_vec(k, route->quotas, TG_MAX_QUOTAS, sizeof(uint32_t), 4,
                      tgk_quota_index);
}


static int
tgk_quota(const tgk_t *k, const void *element)
{
    const tg_quota_t  *quota = element;

    if (!tgk_some(k, quota->name) || !tgk_ref(k, quota->consumer)
        || quota->scope > TG_SCOPE_CONSUMER
        || quota->metric > TG_METRIC_BODY_SIZE
        || quota->window > TG_WINDOW_MONTH || quota->keyed > 1
        || quota->limit > TG_MAX_BODY || quota->burst > TG_MAX_LIMIT
        || (quota->route != UINT32_MAX
            && quota->route >= k->block->routes.n))
    {
        return 0;
    }

    /* The rate is divided by the window. */
    return quota->metric != TG_METRIC_REQUESTS
           || quota->window != TG_WINDOW_SECONDS
           || (quota->seconds > 0 && quota->seconds <= TG_MAX_SECONDS);
}


static int
tgk_carry(const tgk_t *k, const void *element)
{
    const tg_carry_t  *carry = element;

    return tgk_ref(k, carry->name) && carry->calendar <= 1;
}


/* Forwarding needs its route. */
static int
tgk_handover(const tgk_t *k)
{
    const tg_handover_t  *handover;

    if (k->block->handover == 0) {
        return !(k->block->flags & TG_BLOCK_FORWARD);
    }

    if (k->block->handover < sizeof(tg_block_t) || k->block->handover % 8 != 0
        || k->block->handover > k->size
        || k->size - k->block->handover < sizeof(tg_handover_t))
    {
        return 0;
    }

    handover = tg_block_handover(k->block);

    return tgk_vec(k, handover->carry, TG_MAX_CARRY, sizeof(tg_carry_t), 8,
                   tgk_carry)
           && (handover->carry.n == 0 || handover->carry_id != 0)
           && (!(k->block->flags & TG_BLOCK_FORWARD)
               || handover->forward < k->block->routes.n);
}


static int
tgk_block(const tgk_t *k)
{
    const tg_block_t  *block = k->block;

    return tgk_some(k, block->name) && tgk_ref(k, block->reason)
           && block->state <= TG_TENANT_SUSPENDED
           && block->boost_milli > 0
           && block->boost_milli <= TG_MAX_BOOST * 1000
           && tgk_strings(k, block->hosts, TG_MAX_HOSTS)
           && tgk_vec(k, block->issuers, TG_MAX_ISSUERS, sizeof(tg_issuer_t), 8,
                      tgk_issuer)
           && tgk_vec(k, block->consumers, TG_MAX_CONSUMERS,
                      sizeof(tg_consumer_t), 8, tgk_consumer)
           && tgk_vec(k, block->api_keys, TG_MAX_API_KEYS,
                      sizeof(tg_api_key_t), 8, tgk_api_key)
           && tgk_vec(k, block->upstreams, TG_MAX_UPSTREAMS,
                      sizeof(tg_upstream_t), 8, tgk_upstream)
           && tgk_vec(k, block->routes, TG_MAX_ROUTES, sizeof(tg_route_t), 8,
                      tgk_route)
           && tgk_vec(k, block->quotas, TG_MAX_QUOTAS, sizeof(tg_quota_t), 8,
                      tgk_quota)
           && (block->flags & ~(uint32_t) TG_BLOCK_FLAGS) == 0
           && tgk_handover(k);
}


int
tg_block_check(const void *p, size_t n)
{
    tgk_t              k;
    const tg_block_t  *block = p;

    if (n < sizeof(tg_block_t) || (uintptr_t) p % 8 != 0
        || block->magic != TG_BLOCK_MAGIC || block->size < sizeof(tg_block_t)
        || block->size > n)
    {
        return 0;
    }

    k.block = block;
    k.size = block->size;

    switch (block->kind) {
    case TG_KIND_TENANT:
        return tgk_block(&k);

    case TG_KIND_ISSUER:
        return tgk_block(&k) && block->issuers.n == 1 && block->hosts.n == 0
               && block->routes.n == 0 && block->quotas.n == 0
               && block->flags == 0 && block->handover == 0
               && block->upstreams.n == 0 && block->api_keys.n == 0;

    default:
        return 0;
    }
}
