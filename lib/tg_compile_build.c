/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/random.h>

#include <openssl/crypto.h>

#include "tg_compile_internal.h"
#include "tg_hash.h"

#define TGC_FIRST_BYTES    4096
#define TGC_FIRST_STRINGS  128

/* Offsets are 32 bits; what a document of TG_MAX_DOCUMENT becomes is far less. */
#define TGC_MAX_BYTES      (1u << 30)


int
tgc_fail(tg_compiler_t *c, const char *pointer, const char *fmt, ...)
{
    char     text[sizeof(c->err->message)];
    va_list  args;

    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    tg_error_set(c->err, pointer, "%s", text);
    return -1;
}


int
tgc_in(tg_compiler_t *c, const char *member)
{
    tg_error_prefix(c->err, "/%s", member);
    return -1;
}


int
tgc_in_index(tg_compiler_t *c, size_t index)
{
    tg_error_prefix(c->err, "/%zu", index);
    return -1;
}


/* Secret, so that no document can be written to make its strings collide.  What
 * comes out does not depend on it. */
static uint64_t
tgc_seed(void)
{
    static uint64_t  seed;

    if (seed == 0 && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0) {
        seed = 1;
    }

    return seed;
}


int
tgc_init(tg_compiler_t *c, const uint8_t *secret_key, tg_error_t *err)
{
    memset(c, 0, sizeof(*c));

    c->seed = tgc_seed();
    c->secret_key = secret_key;
    c->err = err;
    c->capacity = TGC_FIRST_BYTES;
    c->size = sizeof(tg_block_t);
    c->strings_mask = TGC_FIRST_STRINGS - 1;
    c->mem = calloc(1, c->capacity);
    c->strings = calloc(TGC_FIRST_STRINGS, sizeof(tg_ref_t));

    if (c->mem == NULL || c->strings == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    return 0;
}


void
tgc_release(tg_compiler_t *c)
{
    if (c->mem != NULL) {
        OPENSSL_cleanse(c->mem, c->size);
        free(c->mem);
    }

    free(c->strings);
    c->mem = NULL;
    c->strings = NULL;
}


/* realloc, but a block may hold secrets: what is left behind is wiped. */
static int
tgc_grow(tg_compiler_t *c, size_t need)
{
    size_t    capacity;
    uint8_t  *mem;

    if (need <= c->capacity) {
        return 0;
    }

    if (need > TGC_MAX_BYTES) {
        return tgc_fail(c, "", "the compiled document is too large");
    }

    for (capacity = c->capacity; capacity < need; capacity *= 2) {
        /* void */
    }

    mem = malloc(capacity);

    if (mem == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    memcpy(mem, c->mem, c->size);
    memset(mem + c->size, 0, capacity - c->size);
    OPENSSL_cleanse(c->mem, c->size);
    free(c->mem);

    c->mem = mem;
    c->capacity = capacity;

    return 0;
}


int
tgc_reserve(tg_compiler_t *c, size_t n, size_t size, size_t align,
    tg_vec_t *vec)
{
    size_t  start;

    vec->off = 0;
    vec->n = 0;

    if (n == 0) {
        return 0;
    }

    start = (c->size + align - 1) & ~(align - 1);

    if (tgc_grow(c, start + n * size) != 0) {
        return -1;
    }

    vec->off = (uint32_t) start;
    vec->n = (uint32_t) n;
    c->size = start + n * size;

    return 0;
}


void *
tgc_at(tg_compiler_t *c, tg_vec_t vec, size_t i, size_t size)
{
    return c->mem + vec.off + i * size;
}


void
tgc_store(tg_compiler_t *c, tg_vec_t vec, size_t i, const void *element,
    size_t size)
{
    memcpy(tgc_at(c, vec, i, size), element, size);
}


static uint32_t
tgc_place(const tg_compiler_t *c, const void *s, size_t len)
{
    uint32_t         i;
    const tg_ref_t  *ref;

    i = (uint32_t) tg_hash(s, len, c->seed);

    for (i &= c->strings_mask; ; i = (i + 1) & c->strings_mask) {
        ref = &c->strings[i];

        if (ref->off == 0
            || (ref->len == len && memcmp(c->mem + ref->off, s, len) == 0))
        {
            return i;
        }
    }
}


static int
tgc_rehash(tg_compiler_t *c)
{
    uint32_t   old_n;
    tg_ref_t  *old;

    old = c->strings;
    old_n = c->strings_mask + 1;

    c->strings = calloc((size_t) old_n * 2, sizeof(tg_ref_t));

    if (c->strings == NULL) {
        c->strings = old;
        return tgc_fail(c, "", "no memory");
    }

    c->strings_mask = old_n * 2 - 1;

    for (uint32_t i = 0; i < old_n; i++) {
        if (old[i].off != 0) {
            c->strings[tgc_place(c, c->mem + old[i].off, old[i].len)] = old[i];
        }
    }

    free(old);
    return 0;
}


int
tgc_intern(tg_compiler_t *c, const void *s, size_t len, tg_ref_t *out)
{
    uint32_t  i;

    i = tgc_place(c, s, len);

    if (c->strings[i].off != 0) {
        *out = c->strings[i];
        return 0;
    }

    if (tgc_grow(c, c->size + len + 1) != 0) {
        return -1;
    }

    memcpy(c->mem + c->size, s, len);
    c->mem[c->size + len] = '\0';

    out->off = (uint32_t) c->size;
    out->len = (uint32_t) len;
    c->size += len + 1;
    c->strings[i] = *out;

    if (++c->strings_n > c->strings_mask / 2) {
        return tgc_rehash(c);
    }

    return 0;
}


typedef struct {
    uint64_t  value;
    size_t    index;
} tgc_numbered_t;


static int
tgc_numbered_compare(const void *a, const void *b)
{
    const tgc_numbered_t  *x = a, *y = b;

    if (x->value != y->value) {
        return x->value < y->value ? -1 : 1;
    }

    return x->index < y->index ? -1 : x->index > y->index;
}


ssize_t
tgc_duplicate(const uint64_t *value, size_t n)
{
    ssize_t          found;
    tgc_numbered_t  *sorted;

    if (n < 2) {
        return -1;
    }

    sorted = malloc(n * sizeof(tgc_numbered_t));

    if (sorted == NULL) {
        return -2;
    }

    for (size_t i = 0; i < n; i++) {
        sorted[i].value = value[i];
        sorted[i].index = i;
    }

    qsort(sorted, n, sizeof(tgc_numbered_t), tgc_numbered_compare);
    found = -1;

    for (size_t i = 1; i < n && found < 0; i++) {
        if (sorted[i].value == sorted[i - 1].value) {
            found = (ssize_t) sorted[i].index;
        }
    }

    free(sorted);
    return found;
}
