/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Document → block.  docs/reference/tenant-document.md has the rules,
 * docs/reference/limits.md the limits; what breaks one is refused whole.
 */

#ifndef TG_COMPILE_H
#define TG_COMPILE_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_block.h"
#include "tg_error.h"

/*
 * Compiles a document of len bytes.  secret_key: the 32 bytes that open sealed
 * HMAC secrets, or NULL: a document with such a secret is refused.
 *
 * Returns a block that the caller frees with tg_compile_free(), or NULL; then
 * err (may be NULL) says why and where.
 */
tg_block_t *tg_compile(const char *json, size_t len, tg_kind_e kind,
    const uint8_t *secret_key, tg_error_t *err);

/* The same from a parsed document (loaded with JSON_REJECT_DUPLICATES). */
tg_block_t *tg_compile_json(const json_t *document, tg_kind_e kind,
    const uint8_t *secret_key, tg_error_t *err);

/* Frees a block; wipes it, since it may hold secrets. */
void tg_compile_free(tg_block_t *block);

/*
 * Whether the n bytes at p (8-byte aligned) are a block in which every offset,
 * length, index and enumeration stays within bounds, so that reading it the way
 * the gateway does reads nothing outside.  1 or 0.
 */
int tg_block_check(const void *p, size_t n);

#define TG_METHODS  7

/* Names of the TG_METHOD_* bits, in their order. */
extern const char *const  tg_method_names[TG_METHODS];

/* The bit of a method's name (case matters); 0: not one that a route can name. */
uint32_t tg_method_parse(const char *name, size_t len);

#endif /* TG_COMPILE_H */
