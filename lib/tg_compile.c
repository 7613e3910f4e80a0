/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "tg_compile_internal.h"

const char *const  tg_method_names[TG_METHODS] = {
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"
};

/* The arrays of a tenant document, and where their elements go. */
typedef struct {
    const char  *name;
    size_t       max;
    int          flags;
    size_t       size;          /* of an element; all are 8-byte aligned */
    size_t       vec;           /* offset in tg_block_t */
} tgc_part_t;

enum {
    TGC_ISSUERS, TGC_CONSUMERS, TGC_API_KEYS, TGC_UPSTREAMS, TGC_ROUTES,
    TGC_QUOTAS, TGC_PARTS
};

static const tgc_part_t  tgc_parts[TGC_PARTS] = {
    { "issuers", TG_MAX_ISSUERS, 0, sizeof(tg_issuer_t),
      offsetof(tg_block_t, issuers) },
    { "consumers", TG_MAX_CONSUMERS, TGC_OPTIONAL, sizeof(tg_consumer_t),
      offsetof(tg_block_t, consumers) },
    { "api_keys", TG_MAX_API_KEYS, 0, sizeof(tg_api_key_t),
      offsetof(tg_block_t, api_keys) },
    { "upstreams", TG_MAX_UPSTREAMS, 0, sizeof(tg_upstream_t),
      offsetof(tg_block_t, upstreams) },
    { "routes", TG_MAX_ROUTES, 0, sizeof(tg_route_t),
      offsetof(tg_block_t, routes) },
    { "quotas", TG_MAX_QUOTAS, 0, sizeof(tg_quota_t),
      offsetof(tg_block_t, quotas) }
};


uint32_t
tg_method_parse(const char *name, size_t len)
{
    for (int i = 0; i < TG_METHODS; i++) {
        if (strlen(tg_method_names[i]) == len
            && memcmp(tg_method_names[i], name, len) == 0)
        {
            return 1u << i;
        }
    }

    return 0;
}


static int
tgc_label(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9')
              || (s[i] == '-' && i > 0 && i + 1 < len)))
        {
            return 0;
        }
    }

    return len > 0 && len <= TG_MAX_NAME;
}


static int
tgc_tenant_name(tg_compiler_t *c, const json_t *document, tg_ref_t *name)
{
    if (tgc_string(c, document, "name", TGC_TEXT, 1, TG_MAX_NAME, 0, name)
        != 0)
    {
        return -1;
    }

    if (!tgc_label((char *) c->mem + name->off, name->len)) {
        (void) tgc_fail(c, "", "must be a DNS label in lower case");
        return tgc_in(c, "name");
    }

    return 0;
}


static int
tgc_boost(tg_compiler_t *c, const json_t *document, tg_block_t *head)
{
    double         factor;
    const json_t  *boost, *member;

    head->boost_milli = 1000;
    boost = tgc_member(document, "boost");

    if (boost == NULL) {
        return 0;
    }

    if (tgc_is_object(c, boost) != 0
        || tgc_id(c, boost, "until", &head->boost_until) != 0)
    {
        return tgc_in(c, "boost");
    }

    member = tgc_member(boost, "factor");
    factor = json_number_value(member);

    if (!(factor > 0 && factor <= TG_MAX_BOOST)) {
        (void) tgc_fail(c, "", "must be a number above 0, at most %d",
                        TG_MAX_BOOST);
        return tgc_in(c, "boost/factor");
    }

    head->boost_milli = (uint32_t) (factor * 1000 + 0.5);

    if (head->boost_milli == 0) {
        head->boost_milli = 1;
    }

    return 0;
}


/* Members that no array holds. */
static int
tgc_tenant_head(tg_compiler_t *c, const json_t *document, tg_block_t *head)
{
    uint8_t                    state;
    static const char *const   states[] = { "active", "suspended", NULL };

    if (tgc_tenant_name(c, document, &head->name) != 0
        || tgc_id(c, document, "id", &head->id) != 0
        || tgc_id(c, document, "revision", &head->revision) != 0
        || tgc_choice(c, document, "state", states, 0, &state) != 0
        || tgc_string(c, document, "reason", TGC_TEXT, 0, TG_MAX_REASON,
                      TGC_OPTIONAL, &head->reason) != 0
        || tgc_boost(c, document, head) != 0)
    {
        return -1;
    }

    head->state = state;

    return tgc_hosts(c, document, "hosts", 0, TG_MAX_HOSTS, 0, &head->hosts);
}


static int
tgc_tenant(tg_compiler_t *c, const json_t *document, tg_block_t *head)
{
    tg_vec_t      *vec;
    const json_t  *part[TGC_PARTS];

    for (int i = 0; i < TGC_PARTS; i++) {
        vec = (tg_vec_t *) ((char *) head + tgc_parts[i].vec);

        if (tgc_array(c, document, tgc_parts[i].name, 0, tgc_parts[i].max,
                      tgc_parts[i].flags, &part[i]) != 0
            || tgc_reserve(c, json_array_size(part[i]), tgc_parts[i].size, 8,
                           vec) != 0)
        {
            return -1;
        }
    }

    /* Upstreams first: they hold further arrays that are 8-byte aligned. */
    if (tgc_upstreams(c, part[TGC_UPSTREAMS], head->upstreams) != 0) {
        return tgc_in(c, "upstreams");
    }

    if (tgc_tenant_head(c, document, head) != 0) {
        return -1;
    }

    if (tgc_issuers(c, part[TGC_ISSUERS], head->issuers) != 0) {
        return tgc_in(c, "issuers");
    }

    if (tgc_consumers(c, part[TGC_CONSUMERS], head->consumers) != 0) {
        return tgc_in(c, "consumers");
    }

    if (tgc_api_keys(c, part[TGC_API_KEYS], head->api_keys) != 0) {
        return tgc_in(c, "api_keys");
    }

    if (tgc_routes(c, part[TGC_ROUTES], head->routes, head->upstreams) != 0) {
        return tgc_in(c, "routes");
    }

    if (tgc_quotas(c, part[TGC_QUOTAS], head->quotas, head->routes) != 0) {
        return tgc_in(c, "quotas");
    }

    return tgc_handover(c, document, head);
}


static int
tgc_platform_issuer(tg_compiler_t *c, const json_t *document, tg_block_t *head)
{
    tg_issuer_t  issuer;

    if (tgc_reserve(c, 1, sizeof(tg_issuer_t), 8, &head->issuers) != 0
        || tgc_issuer(c, document, TG_KIND_ISSUER, &issuer) != 0)
    {
        return -1;
    }

    tgc_store(c, head->issuers, 0, &issuer, sizeof(issuer));

    head->id = issuer.id;
    head->revision = issuer.revision;
    head->name = issuer.name;
    head->boost_milli = 1000;

    return 0;
}


tg_block_t *
tg_compile_json(const json_t *document, tg_kind_e kind,
    const uint8_t *secret_key, tg_error_t *err)
{
    int            rc;
    uint8_t       *block;
    tg_block_t     head;
    tg_error_t     ignored;
    tg_compiler_t  c;

    if (tgc_init(&c, secret_key, err != NULL ? err : &ignored) != 0) {
        tgc_release(&c);
        return NULL;
    }

    memset(&head, 0, sizeof(head));
    block = NULL;
    rc = tgc_is_object(&c, document);

    if (rc == 0) {
        rc = kind == TG_KIND_ISSUER ? tgc_platform_issuer(&c, document, &head)
                                    : tgc_tenant(&c, document, &head);
    }

    if (rc == 0) {
        head.magic = TG_BLOCK_MAGIC;
        head.kind = (uint16_t) kind;
        head.size = (uint32_t) c.size;
        memcpy(c.mem, &head, sizeof(head));

        block = c.mem;
        c.mem = NULL;
    }

    tgc_release(&c);

    return (tg_block_t *) block;
}


tg_block_t *
tg_compile(const char *json, size_t len, tg_kind_e kind,
    const uint8_t *secret_key, tg_error_t *err)
{
    json_t        *document;
    tg_block_t    *block;
    json_error_t   why;

    if (len > TG_MAX_DOCUMENT) {
        tg_error_set(err, "", "the document has %zu bytes, more than %d", len,
                     TG_MAX_DOCUMENT);
        return NULL;
    }

    document = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);

    if (document == NULL) {
        tg_error_set(err, "", "not JSON, at byte %d: %s", why.position,
                     why.text);
        return NULL;
    }

    block = tg_compile_json(document, kind, secret_key, err);
    json_decref(document);

    return block;
}


void
tg_compile_free(tg_block_t *block)
{
    if (block != NULL) {
        OPENSSL_cleanse(block, block->size);
        free(block);
    }
}
