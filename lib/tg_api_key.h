/* SPDX-License-Identifier: BSD-2-Clause */

/* API keys of a tenant: found by the SHA-256 of the whole key string. */

#ifndef TG_API_KEY_H
#define TG_API_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "tg_block.h"
#include "tg_crypto.h"

/* The tenant's key with this digest, expired or not; NULL: none. */
const tg_api_key_t *tg_api_key_find(const tg_block_t *block,
    const uint8_t digest[TG_SHA256_LEN]);

/* 1: the key counts at the Unix time now. */
int tg_api_key_alive(const tg_api_key_t *key, int64_t now);

/* Writes the key's scopes to dst, separated by spaces, no NUL; returns their
 * length.  dst NULL: only the length. */
size_t tg_api_key_scopes(const tg_block_t *block, const tg_api_key_t *key,
    char *dst);

#endif /* TG_API_KEY_H */
