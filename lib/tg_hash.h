/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The hash of everything that a client can choose: XXH3 with a secret seed, so
 * that nobody can aim at one chain.
 */

#ifndef TG_HASH_H
#define TG_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

static inline uint64_t
tg_hash(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

static inline uint64_t
tg_hash_id(uint64_t id, uint64_t seed)
{
    return XXH3_64bits_withSeed(&id, sizeof(id), seed);
}

#endif /* TG_HASH_H */
