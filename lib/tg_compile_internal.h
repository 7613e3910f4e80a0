/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the files of the compiler share.
 *
 *  1. The block grows by realloc: no pointer into it lives across a call that
 *     may append.  Elements are built on the stack and stored with tgc_store().
 *  2. tgc_reserve() of the 8-byte-aligned arrays comes first, strings and arrays
 *     of 4-byte things after: so alignment costs next to nothing.
 *  3. Equal strings are one string.  Two refs of one compilation are equal if
 *     and only if their offsets are.
 *  4. Functions return 0, or -1 with err set; their pointer is relative to the
 *     JSON value they were given, and each caller puts its own part in front.
 */

#ifndef TG_COMPILE_INTERNAL_H
#define TG_COMPILE_INTERNAL_H

#include <sys/types.h>

#include "tg_compile.h"

typedef struct {
    uint8_t        *mem;
    size_t          size;
    size_t          capacity;

    tg_ref_t       *strings;        /* hash table; off 0: a free place */
    uint32_t        strings_mask;
    uint32_t        strings_n;
    uint64_t        seed;

    uint32_t        patterns;       /* so far */

    const uint8_t  *secret_key;
    tg_error_t     *err;
} tg_compiler_t;

/* What a string may hold.  All refuse NUL and control characters. */
typedef enum {
    TGC_TEXT = 0,
    TGC_VISIBLE,        /* 0x21 to 0x7e */
    TGC_PATH            /* begins with "/", no empty or dot segments */
} tgc_string_e;

#define TGC_OPTIONAL  1     /* absent and null leave *out as it was */

/* --- growing the block (tg_compile_build.c) --- */

int tgc_init(tg_compiler_t *c, const uint8_t *secret_key, tg_error_t *err);
void tgc_release(tg_compiler_t *c);

/* Appends n zeroed elements; fills vec.  n 0: vec is empty. */
int tgc_reserve(tg_compiler_t *c, size_t n, size_t size, size_t align,
    tg_vec_t *vec);

/* Copies an element into an array; its address, good until the next append. */
void tgc_store(tg_compiler_t *c, tg_vec_t vec, size_t i, const void *element,
    size_t size);
void *tgc_at(tg_compiler_t *c, tg_vec_t vec, size_t i, size_t size);

/* Appends bytes and a NUL, or finds them. */
int tgc_intern(tg_compiler_t *c, const void *s, size_t len, tg_ref_t *out);

/* The index of a value that occurs before, too; -1: none; -2: no memory. */
ssize_t tgc_duplicate(const uint64_t *value, size_t n);

int tgc_fail(tg_compiler_t *c, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "/<member>" or "/<index>" in front of the pointer; returns -1. */
int tgc_in(tg_compiler_t *c, const char *member);
int tgc_in_index(tg_compiler_t *c, size_t index);

/* --- reading members (tg_compile_read.c) --- */

int tgc_is_object(tg_compiler_t *c, const json_t *value);

/* A member, NULL if absent or null. */
const json_t *tgc_member(const json_t *object, const char *name);

int tgc_string(tg_compiler_t *c, const json_t *object, const char *name,
    tgc_string_e kind, size_t min, size_t max, int flags, tg_ref_t *out);
int tgc_string_value(tg_compiler_t *c, const json_t *value, tgc_string_e kind,
    size_t min, size_t max, tg_ref_t *out);
int tgc_number(tg_compiler_t *c, const json_t *object, const char *name,
    uint64_t min, uint64_t max, int flags, uint64_t *out);
int tgc_number32(tg_compiler_t *c, const json_t *object, const char *name,
    uint32_t min, uint32_t max, int flags, uint32_t *out);
int tgc_id(tg_compiler_t *c, const json_t *object, const char *name,
    uint64_t *out);
int tgc_bool(tg_compiler_t *c, const json_t *object, const char *name,
    uint8_t *out);

/* One of names (ends with NULL): its index in *out. */
int tgc_choice(tg_compiler_t *c, const json_t *object, const char *name,
    const char *const *names, int flags, uint8_t *out);

/* An array of min to max elements.  With TGC_OPTIONAL *out may become NULL. */
int tgc_array(tg_compiler_t *c, const json_t *object, const char *name,
    size_t min, size_t max, int flags, const json_t **out);

/* An optional array of strings → tg_ref_t[]. */
int tgc_strings(tg_compiler_t *c, const json_t *object, const char *name,
    tgc_string_e kind, size_t min, size_t max, tg_vec_t *out);

/* Strings that are hosts → tg_ref_t[], wildcards as ".suffix", sorted. */
int tgc_hosts(tg_compiler_t *c, const json_t *object, const char *name,
    size_t min, size_t max, int flags, tg_vec_t *out);

/* --- the parts: fill vec, which has been reserved for array --- */

int tgc_issuer(tg_compiler_t *c, const json_t *object, tg_kind_e kind,
    tg_issuer_t *issuer);
int tgc_issuers(tg_compiler_t *c, const json_t *array, tg_vec_t vec);
int tgc_consumers(tg_compiler_t *c, const json_t *array, tg_vec_t vec);
int tgc_api_keys(tg_compiler_t *c, const json_t *array, tg_vec_t vec);
int tgc_upstreams(tg_compiler_t *c, const json_t *array, tg_vec_t vec);
int tgc_routes(tg_compiler_t *c, const json_t *array, tg_vec_t vec,
    tg_vec_t upstreams);
int tgc_quotas(tg_compiler_t *c, const json_t *array, tg_vec_t vec,
    tg_vec_t routes);

/* Members for one gateway only; fills flags and handover of head. */
int tgc_handover(tg_compiler_t *c, const json_t *document, tg_block_t *head);

#endif /* TG_COMPILE_INTERNAL_H */
