/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>

#include "tg_api_key.h"


/* How far two digests agree says nothing about a key, so time may tell it. */
static int
tg_api_key_compare(const void *digest, const void *key)
{
    return memcmp(digest, ((const tg_api_key_t *) key)->sha256, TG_SHA256_LEN);
}


const tg_api_key_t *
tg_api_key_find(const tg_block_t *block, const uint8_t digest[TG_SHA256_LEN])
{
    if (block->api_keys.n == 0) {
        return NULL;
    }

    return bsearch(digest, tg_vec(block, block->api_keys, const tg_api_key_t),
                   block->api_keys.n, sizeof(tg_api_key_t), tg_api_key_compare);
}


int
tg_api_key_alive(const tg_api_key_t *key, int64_t now)
{
    return key->expires == 0 || now < (int64_t) key->expires;
}


size_t
tg_api_key_scopes(const tg_block_t *block, const tg_api_key_t *key, char *dst)
{
    size_t           len;
    uint32_t         i;
    const tg_ref_t  *ref;

    ref = tg_vec(block, key->scopes, const tg_ref_t);
    len = 0;

    for (i = 0; i < key->scopes.n; i++) {

        if (i != 0) {
            if (dst != NULL) {
                dst[len] = ' ';
            }

            len++;
        }

        if (dst != NULL) {
            memcpy(dst + len, tg_str(block, ref[i]), ref[i].len);
        }

        len += ref[i].len;
    }

    return len;
}
