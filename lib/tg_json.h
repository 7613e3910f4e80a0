/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * JSON values that are read often and fast: of tokens, and of the registry's stream.
 * jansson allocates each name, value and table by itself, and that is half of what
 * reading costs.  Here they lie one behind the other in chunks; a chunk is used again
 * when nothing in it lives any more.
 *
 *  1. Only what tg_json_load() reads lies in chunks.  All other memory of jansson's,
 *     that of other modules in the process included, comes from where it came from.
 *  2. Values are jansson's in every way: of any life, and freed by json_decref().
 *  3. Chunks are taken from an area of fixed size.  When it is used up, and for what
 *     is larger than half a chunk, memory comes from where it came from.
 *
 * For one thread: values may be read by another one, but not loaded or freed.
 */

#ifndef TG_JSON_H
#define TG_JSON_H

#include <stddef.h>

#include <jansson.h>

#define TG_JSON_CHUNK  2048             /* bytes */
#define TG_JSON_AREA   (64 << 20)       /* of addresses, not of memory */

/* Once in a process, before tg_json_load(); without it, or when there is no memory,
 * that is json_loadb(). */
void tg_json_init(void);

/* As json_loadb(). */
json_t *tg_json_load(const char *text, size_t len, size_t flags,
    json_error_t *error);

/* Chunks in which something lives. */
size_t tg_json_chunks(void);

#endif /* TG_JSON_H */
