/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "tg_hash.h"
#include "tg_keyring.h"
#include "tg_list.h"


typedef struct tg_keyring_entry_s  tg_keyring_entry_t;

struct tg_keyring_entry_s {
    tg_list_t            used;      /* by last use, first is latest */
    tg_keyring_entry_t  *next;      /* in the bucket */
    uint64_t             hash;
    tg_verifier_t       *verifier;
    uint32_t             alg;
    int                  hmac;
    size_t               len;
    uint8_t              material[];
};

struct tg_keyring_s {
    tg_crypto_t          *crypto;
    tg_list_t             used;
    size_t                size;
    size_t                max;
    size_t                made;
    uint64_t              seed;     /* nobody outside can aim at a bucket */
    size_t                mask;
    tg_keyring_entry_t   *bucket[];
};


tg_keyring_t *
tg_keyring_create(tg_crypto_t *crypto, size_t max)
{
    size_t         buckets;
    tg_keyring_t  *ring;

    for (buckets = 16; buckets < max; buckets *= 2) { /* void */ }

    ring = calloc(1, sizeof(*ring) + buckets * sizeof(ring->bucket[0]));
    if (ring == NULL) {
        return NULL;
    }

    if (RAND_bytes((unsigned char *) &ring->seed, sizeof(ring->seed)) != 1) {
        free(ring);
        return NULL;
    }

    ring->crypto = crypto;
    ring->max = max;
    ring->mask = buckets - 1;
    tg_list_init(&ring->used);

    return ring;
}


static void
tg_keyring_free(tg_keyring_entry_t *entry)
{
    tg_verifier_destroy(entry->verifier);
    OPENSSL_cleanse(entry->material, entry->len);
    free(entry);
}


static void
tg_keyring_remove(tg_keyring_t *ring, tg_keyring_entry_t *entry)
{
    tg_keyring_entry_t  **p;

    p = &ring->bucket[entry->hash & ring->mask];

    while (*p != entry) {
        p = &(*p)->next;
    }

    *p = entry->next;
    tg_list_remove(&entry->used);
    ring->size--;

    tg_keyring_free(entry);
}


void
tg_keyring_destroy(tg_keyring_t *ring)
{
    if (ring == NULL) {
        return;
    }

    while (!tg_list_empty(&ring->used)) {
        tg_keyring_remove(ring, tg_list_data(ring->used.next,
                                             tg_keyring_entry_t, used));
    }

    free(ring);
}


static tg_keyring_entry_t *
tg_keyring_find(const tg_keyring_t *ring, uint64_t hash, uint32_t alg,
    const uint8_t *material, size_t len, int hmac)
{
    tg_keyring_entry_t  *entry;

    entry = ring->bucket[hash & ring->mask];

    while (entry != NULL
           && (entry->hash != hash || entry->alg != alg || entry->hmac != hmac
               || entry->len != len
               || memcmp(entry->material, material, len) != 0))
    {
        entry = entry->next;
    }

    return entry;
}


static tg_keyring_entry_t *
tg_keyring_add(tg_keyring_t *ring, uint64_t hash, uint32_t alg,
    const uint8_t *material, size_t len, int hmac)
{
    tg_keyring_entry_t  *entry;

    entry = malloc(sizeof(*entry) + len);
    if (entry == NULL) {
        return NULL;
    }

    entry->hash = hash;
    entry->alg = alg;
    entry->hmac = hmac;
    entry->len = len;
    memcpy(entry->material, material, len);

    entry->verifier = tg_verifier_create(ring->crypto, alg, material, len,
                                         hmac);
    if (entry->verifier == NULL) {
        tg_keyring_free(entry);
        return NULL;
    }

    if (ring->size == ring->max) {
        tg_keyring_remove(ring, tg_list_data(ring->used.prev,
                                             tg_keyring_entry_t, used));
    }

    entry->next = ring->bucket[hash & ring->mask];
    ring->bucket[hash & ring->mask] = entry;
    tg_list_insert_first(&ring->used, &entry->used);
    ring->size++;
    ring->made++;

    return entry;
}


tg_verifier_t *
tg_keyring_get(tg_keyring_t *ring, uint32_t alg, const uint8_t *material,
    size_t len, int hmac)
{
    uint64_t             hash;
    tg_keyring_entry_t  *entry;

    hash = tg_hash(material, len, ring->seed);
    entry = tg_keyring_find(ring, hash, alg, material, len, hmac);

    if (entry == NULL) {
        entry = tg_keyring_add(ring, hash, alg, material, len, hmac);
        return entry != NULL ? entry->verifier : NULL;
    }

    tg_list_remove(&entry->used);
    tg_list_insert_first(&ring->used, &entry->used);

    return entry->verifier;
}


size_t
tg_keyring_size(const tg_keyring_t *ring)
{
    return ring->size;
}


size_t
tg_keyring_made(const tg_keyring_t *ring)
{
    return ring->made;
}
