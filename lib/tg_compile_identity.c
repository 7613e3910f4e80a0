/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Who calls: issuers and their keys, consumers, API keys.
 */

#define _GNU_SOURCE

#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"
#include "tg_jwk.h"


static int
tgc_algorithms(tg_compiler_t *c, const json_t *object, uint32_t *mask)
{
    uint32_t       alg;
    const json_t  *array, *value;

    if (tgc_array(c, object, "algorithms", 1, 13, 0, &array) != 0) {
        return -1;
    }

    for (size_t i = 0; i < json_array_size(array); i++) {
        value = json_array_get(array, i);
        alg = json_is_string(value)
              ? tg_alg_parse(json_string_value(value),
                             json_string_length(value))
              : 0;

        if (alg == 0) {
            (void) tgc_fail(c, "", "must be an algorithm: RS, PS, ES or HS with "
                            "256, 384 or 512, or EdDSA");
            (void) tgc_in_index(c, i);
            return tgc_in(c, "algorithms");
        }

        *mask |= alg;
    }

    return 0;
}


static int
tgc_store_keys(tg_compiler_t *c, const tg_jwk_t *jwk, size_t n, tg_vec_t *vec)
{
    tg_key_t  key;

    if (tgc_reserve(c, n, sizeof(tg_key_t), 4, vec) != 0) {
        return -1;
    }

    for (size_t i = 0; i < n; i++) {
        memset(&key, 0, sizeof(key));
        key.algorithms = jwk[i].algorithms;
        key.hmac = jwk[i].hmac ? 1 : 0;

        if ((jwk[i].kid != NULL
             && tgc_intern(c, jwk[i].kid, jwk[i].kid_len, &key.kid) != 0)
            || tgc_intern(c, jwk[i].material, jwk[i].material_len,
                          &key.material) != 0)
        {
            return -1;
        }

        tgc_store(c, *vec, i, &key, sizeof(key));
    }

    return 0;
}


static int
tgc_keys(tg_compiler_t *c, const json_t *object, tg_issuer_t *issuer)
{
    int            rc;
    size_t         n;
    tg_jwk_t       jwk[TG_MAX_JWKS_KEYS];
    const json_t  *array;

    if (tgc_array(c, object, "keys", 0, TG_MAX_JWKS_KEYS, 0, &array) != 0) {
        return -1;
    }

    if (tg_jwk_set_parse(array, issuer->algorithms, c->secret_key, jwk,
                         TG_MAX_JWKS_KEYS, &n, c->err) != TG_JWK_OK)
    {
        return tgc_in(c, "keys");
    }

    rc = tgc_store_keys(c, jwk, n, &issuer->keys);

    for (size_t i = 0; i < n; i++) {
        tg_jwk_clear(&jwk[i]);
    }

    return rc;
}


static int
tgc_own_issuer(tg_compiler_t *c, const json_t *object, tg_issuer_t *issuer)
{
    uint32_t  leeway;

    leeway = 0;

    if (tgc_id(c, object, "id", &issuer->id) != 0
        || tgc_id(c, object, "revision", &issuer->revision) != 0
        || tgc_string(c, object, "name", TGC_VISIBLE, 1, TG_MAX_NAME, 0,
                      &issuer->name) != 0
        || tgc_string(c, object, "issuer", TGC_TEXT, 1, TG_MAX_TEXT, 0,
                      &issuer->issuer) != 0
        || tgc_string(c, object, "consumer_claim", TGC_TEXT, 1, TG_MAX_TEXT, 0,
                      &issuer->consumer_claim) != 0
        || tgc_number32(c, object, "leeway", 0, TG_MAX_LEEWAY, 0, &leeway) != 0
        || tgc_algorithms(c, object, &issuer->algorithms) != 0)
    {
        return -1;
    }

    issuer->leeway = (uint16_t) leeway;

    return tgc_keys(c, object, issuer);
}


int
tgc_issuer(tg_compiler_t *c, const json_t *object, tg_kind_e kind,
    tg_issuer_t *issuer)
{
    memset(issuer, 0, sizeof(*issuer));

    if (tgc_is_object(c, object) != 0
        || tgc_strings(c, object, "audiences", TGC_TEXT, 1, TG_MAX_AUDIENCES,
                       &issuer->audiences) != 0)
    {
        return -1;
    }

    if (kind == TG_KIND_TENANT && tgc_member(object, "ref") != NULL) {
        issuer->ref = 1;
        return tgc_id(c, object, "ref", &issuer->id);
    }

    return tgc_own_issuer(c, object, issuer);
}


int
tgc_issuers(tg_compiler_t *c, const json_t *array, tg_vec_t vec)
{
    ssize_t      twice;
    uint64_t     id[TG_MAX_ISSUERS], name[TG_MAX_ISSUERS];
    tg_issuer_t  issuer;

    for (size_t i = 0; i < vec.n; i++) {
        if (tgc_issuer(c, json_array_get(array, i), TG_KIND_TENANT, &issuer)
            != 0)
        {
            return tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &issuer, sizeof(issuer));

        /* A reference has no name: nothing that a name's offset could be. */
        id[i] = issuer.id;
        name[i] = issuer.ref ? UINT64_MAX - i : issuer.name.off;
    }

    twice = tgc_duplicate(id, vec.n);

    if (twice == -1) {
        twice = tgc_duplicate(name, vec.n);
    }

    if (twice != -1) {
        (void) tgc_fail(c, "", "has the id or name of another issuer");
        return tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
    }

    return 0;
}


static int
tgc_compare_names(const tg_compiler_t *c, tg_ref_t x, tg_ref_t y)
{
    int  rc;

    rc = memcmp(c->mem + x.off, c->mem + y.off, x.len < y.len ? x.len : y.len);

    return rc != 0 ? rc : (x.len > y.len) - (x.len < y.len);
}


static int
tgc_compare_consumers(const void *a, const void *b, void *c)
{
    const tg_consumer_t  *x = a, *y = b;

    return tgc_compare_names(c, x->name, y->name);
}


/* ids and names of n elements, which follow each other in value. */
static int
tgc_unique(tg_compiler_t *c, const uint64_t *value, size_t n, const char *what)
{
    ssize_t  twice;

    twice = tgc_duplicate(value, n);

    if (twice == -1) {
        twice = tgc_duplicate(value + n, n);
    }

    if (twice == -1) {
        return 0;
    }

    if (twice < 0) {
        return tgc_fail(c, "", "no memory");
    }

    (void) tgc_fail(c, "", "has the same id or %s as another", what);
    return tgc_in_index(c, (size_t) twice);
}


int
tgc_consumers(tg_compiler_t *c, const json_t *array, tg_vec_t vec)
{
    int             rc;
    uint64_t       *value;
    const json_t   *object;
    tg_consumer_t   consumer;

    if (vec.n == 0) {
        return 0;
    }

    value = malloc(2 * vec.n * sizeof(uint64_t));

    if (value == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    rc = 0;

    for (size_t i = 0; i < vec.n && rc == 0; i++) {
        object = json_array_get(array, i);
        memset(&consumer, 0, sizeof(consumer));

        if (tgc_is_object(c, object) != 0
            || tgc_id(c, object, "id", &consumer.id) != 0
            || tgc_string(c, object, "name", TGC_VISIBLE, 1, TG_MAX_CONSUMER, 0,
                          &consumer.name) != 0)
        {
            rc = tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &consumer, sizeof(consumer));
        value[i] = consumer.id;
        value[vec.n + i] = consumer.name.off;
    }

    if (rc == 0) {
        rc = tgc_unique(c, value, vec.n, "name");
    }

    if (rc == 0) {
        qsort_r(tgc_at(c, vec, 0, sizeof(consumer)), vec.n, sizeof(consumer),
                tgc_compare_consumers, c);
    }

    free(value);
    return rc;
}


static int
tgc_hex(char ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }

    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}


static int
tgc_sha256(tg_compiler_t *c, const json_t *object, uint8_t out[32])
{
    int            high, low;
    const char    *s;
    const json_t  *value;

    value = tgc_member(object, "sha256");
    s = json_string_value(value);

    for (size_t i = 0; i < 32; i++) {
        if (s == NULL || json_string_length(value) != 64
            || (high = tgc_hex(s[2 * i])) < 0
            || (low = tgc_hex(s[2 * i + 1])) < 0)
        {
            (void) tgc_fail(c, "", "must be 64 hexadecimal digits in lower case");
            return tgc_in(c, "sha256");
        }

        out[i] = (uint8_t) (high << 4 | low);
    }

    return 0;
}


static int
tgc_api_key(tg_compiler_t *c, const json_t *object, tg_api_key_t *key)
{
    memset(key, 0, sizeof(*key));

    if (tgc_is_object(c, object) != 0
        || tgc_id(c, object, "id", &key->id) != 0
        || tgc_sha256(c, object, key->sha256) != 0
        || tgc_string(c, object, "consumer", TGC_VISIBLE, 1, TG_MAX_CONSUMER, 0,
                      &key->consumer) != 0
        || tgc_strings(c, object, "scopes", TGC_VISIBLE, 0, TG_MAX_SCOPES,
                       &key->scopes) != 0)
    {
        return -1;
    }

    return tgc_number(c, object, "expires", 1, INT64_MAX, TGC_OPTIONAL,
                      &key->expires);
}


static int
tgc_compare_keys(const void *a, const void *b)
{
    const tg_api_key_t  *x = a, *y = b;

    return memcmp(x->sha256, y->sha256, sizeof(x->sha256));
}


/* Sorted by now; which of the document's two it was is for the reader to find:
 * the digest tells. */
static int
tgc_same_digest(tg_compiler_t *c, tg_vec_t vec)
{
    const tg_api_key_t  *key;

    key = tgc_at(c, vec, 0, sizeof(tg_api_key_t));

    for (size_t i = 1; i < vec.n; i++) {
        if (tgc_compare_keys(&key[i - 1], &key[i]) == 0) {
            return tgc_fail(c, "", "keys %llu and %llu have the same sha256",
                            (unsigned long long) key[i - 1].id,
                            (unsigned long long) key[i].id);
        }
    }

    return 0;
}


int
tgc_api_keys(tg_compiler_t *c, const json_t *array, tg_vec_t vec)
{
    int            rc;
    uint64_t      *id;
    ssize_t        twice;
    tg_api_key_t   key;

    if (vec.n == 0) {
        return 0;
    }

    id = malloc(vec.n * sizeof(uint64_t));

    if (id == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    rc = 0;

    for (size_t i = 0; i < vec.n && rc == 0; i++) {
        if (tgc_api_key(c, json_array_get(array, i), &key) != 0) {
            rc = tgc_in_index(c, i);
        }

        tgc_store(c, vec, i, &key, sizeof(key));
        id[i] = key.id;
    }

    if (rc == 0) {
        twice = tgc_duplicate(id, vec.n);

        if (twice != -1) {
            (void) tgc_fail(c, "", "has the id of another key");
            rc = tgc_in_index(c, twice < 0 ? 0 : (size_t) twice);
        }
    }

    free(id);

    if (rc == 0) {
        qsort(tgc_at(c, vec, 0, sizeof(key)), vec.n, sizeof(key),
              tgc_compare_keys);
        rc = tgc_same_digest(c, vec);
    }

    return rc;
}
