/* SPDX-License-Identifier: BSD-2-Clause */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tg_compile_internal.h"
#include "tg_host.h"

/* Ids and revisions are JSON numbers that every reader can hold exactly. */
#define TGC_MAX_ID  ((UINT64_C(1) << 53) - 1)


const json_t *
tgc_member(const json_t *object, const char *name)
{
    const json_t  *value;

    value = json_object_get(object, name);

    return json_is_null(value) ? NULL : value;
}


int
tgc_is_object(tg_compiler_t *c, const json_t *value)
{
    return json_is_object(value) ? 0 : tgc_fail(c, "", "must be an object");
}


/* 0: there it is; 1: absent, and may be; -1. */
static int
tgc_want(tg_compiler_t *c, const json_t *object, const char *name, int flags,
    const json_t **value)
{
    *value = tgc_member(object, name);

    if (*value != NULL) {
        return 0;
    }

    if (flags & TGC_OPTIONAL) {
        return 1;
    }

    (void) tgc_fail(c, "", "is missing");
    return tgc_in(c, name);
}


static int
tgc_path_segments(tg_compiler_t *c, const char *s, size_t len)
{
    size_t  n;

    if (len == 0 || s[0] != '/') {
        return tgc_fail(c, "", "must begin with \"/\"");
    }

    for (const char *p = s + 1, *end = s + len; p < end; p += n + 1) {
        const char  *slash = memchr(p, '/', (size_t) (end - p));

        n = (size_t) ((slash != NULL ? slash : end) - p);

        if ((n == 0) || (n == 1 && p[0] == '.')
            || (n == 2 && p[0] == '.' && p[1] == '.'))
        {
            return tgc_fail(c, "", "has an empty, \".\" or \"..\" segment, "
                            "which no normalised path has");
        }
    }

    return 0;
}


int
tgc_string_value(tg_compiler_t *c, const json_t *value, tgc_string_e kind,
    size_t min, size_t max, tg_ref_t *out)
{
    size_t       len;
    const char  *s;

    s = json_string_value(value);

    if (s == NULL) {
        return tgc_fail(c, "", "must be a string");
    }

    len = json_string_length(value);

    if (len < min || len > max) {
        return tgc_fail(c, "", "must have %zu to %zu bytes, and has %zu", min,
                        max, len);
    }

    for (size_t i = 0; i < len; i++) {
        unsigned char  ch = (unsigned char) s[i];

        if (ch < 0x20 || ch == 0x7f) {
            return tgc_fail(c, "", "has a control character at byte %zu", i);
        }

        if (kind == TGC_VISIBLE && (ch == ' ' || ch > 0x7e)) {
            return tgc_fail(c, "", "must be of visible ASCII characters, and "
                            "byte %zu is none", i);
        }
    }

    if (kind == TGC_PATH && tgc_path_segments(c, s, len) != 0) {
        return -1;
    }

    return tgc_intern(c, s, len, out);
}


int
tgc_string(tg_compiler_t *c, const json_t *object, const char *name,
    tgc_string_e kind, size_t min, size_t max, int flags, tg_ref_t *out)
{
    int            rc;
    const json_t  *value;

    rc = tgc_want(c, object, name, flags, &value);

    if (rc != 0) {
        return rc > 0 ? 0 : -1;
    }

    if (tgc_string_value(c, value, kind, min, max, out) != 0) {
        return tgc_in(c, name);
    }

    return 0;
}


int
tgc_number(tg_compiler_t *c, const json_t *object, const char *name,
    uint64_t min, uint64_t max, int flags, uint64_t *out)
{
    int            rc;
    json_int_t     n;
    const json_t  *value;

    rc = tgc_want(c, object, name, flags, &value);

    if (rc != 0) {
        return rc > 0 ? 0 : -1;
    }

    n = json_integer_value(value);

    if (!json_is_integer(value) || n < 0 || (uint64_t) n < min
        || (uint64_t) n > max)
    {
        (void) tgc_fail(c, "", "must be an integer from %llu to %llu",
                        (unsigned long long) min, (unsigned long long) max);
        return tgc_in(c, name);
    }

    *out = (uint64_t) n;
    return 0;
}


int
tgc_number32(tg_compiler_t *c, const json_t *object, const char *name,
    uint32_t min, uint32_t max, int flags, uint32_t *out)
{
    uint64_t  n;

    n = *out;

    if (tgc_number(c, object, name, min, max, flags, &n) != 0) {
        return -1;
    }

    *out = (uint32_t) n;
    return 0;
}


int
tgc_id(tg_compiler_t *c, const json_t *object, const char *name, uint64_t *out)
{
    return tgc_number(c, object, name, 1, TGC_MAX_ID, 0, out);
}


int
tgc_bool(tg_compiler_t *c, const json_t *object, const char *name, uint8_t *out)
{
    const json_t  *value;

    value = tgc_member(object, name);

    if (value == NULL) {
        return 0;
    }

    if (!json_is_boolean(value)) {
        (void) tgc_fail(c, "", "must be true or false");
        return tgc_in(c, name);
    }

    *out = json_is_true(value);
    return 0;
}


int
tgc_choice(tg_compiler_t *c, const json_t *object, const char *name,
    const char *const *names, int flags, uint8_t *out)
{
    int            rc;
    char           list[128];
    size_t         n;
    const char    *s;
    const json_t  *value;

    rc = tgc_want(c, object, name, flags, &value);

    if (rc != 0) {
        return rc > 0 ? 0 : -1;
    }

    s = json_string_value(value);
    n = 0;
    list[0] = '\0';

    for (uint8_t i = 0; names[i] != NULL; i++) {
        if (s != NULL && strcmp(s, names[i]) == 0) {
            *out = i;
            return 0;
        }

        n += (size_t) snprintf(list + n, sizeof(list) - n, "%s\"%s\"",
                               i == 0 ? "" : ", ", names[i]);
    }

    (void) tgc_fail(c, "", "must be one of %s", list);
    return tgc_in(c, name);
}


int
tgc_array(tg_compiler_t *c, const json_t *object, const char *name,
    size_t min, size_t max, int flags, const json_t **out)
{
    int     rc;
    size_t  n;

    rc = tgc_want(c, object, name, flags, out);

    if (rc != 0) {
        return rc > 0 ? 0 : -1;
    }

    n = json_array_size(*out);

    if (!json_is_array(*out) || n < min || n > max) {
        (void) tgc_fail(c, "", "must be an array of %zu to %zu elements", min,
                        max);
        return tgc_in(c, name);
    }

    return 0;
}


int
tgc_strings(tg_compiler_t *c, const json_t *object, const char *name,
    tgc_string_e kind, size_t min, size_t max, tg_vec_t *out)
{
    tg_ref_t       ref;
    const json_t  *array;

    if (tgc_array(c, object, name, min, max, TGC_OPTIONAL, &array) != 0) {
        return -1;
    }

    if (tgc_reserve(c, json_array_size(array), sizeof(tg_ref_t), 4, out) != 0) {
        return -1;
    }

    for (size_t i = 0; i < out->n; i++) {
        if (tgc_string_value(c, json_array_get(array, i), kind, 1, TG_MAX_TEXT,
                             &ref) != 0)
        {
            (void) tgc_in_index(c, i);
            return tgc_in(c, name);
        }

        tgc_store(c, *out, i, &ref, sizeof(ref));
    }

    return 0;
}


static int
tgc_host(tg_compiler_t *c, const json_t *value, tg_ref_t *out)
{
    size_t       len;
    const char  *s;

    s = json_string_value(value);
    len = json_string_length(value);

    if (s == NULL || !tg_host_check(s, len)) {
        return tgc_fail(c, "", "must be a hostname in lower case without port "
                        "and trailing dot, with or without \"*.\" in front");
    }

    return s[0] == '*' ? tgc_intern(c, s + 1, len - 1, out)
                       : tgc_intern(c, s, len, out);
}


typedef struct {
    const char  *s;
    tg_ref_t     ref;
    size_t       index;
} tgc_sorted_t;


/* Bytes, then length; equal strings (they are one) by place in the document. */
static int
tgc_sorted_compare(const void *a, const void *b)
{
    int                  rc;
    const tgc_sorted_t  *x = a, *y = b;

    rc = memcmp(x->s, y->s, x->ref.len < y->ref.len ? x->ref.len : y->ref.len);

    if (rc != 0) {
        return rc;
    }

    if (x->ref.len != y->ref.len) {
        return x->ref.len < y->ref.len ? -1 : 1;
    }

    return x->index < y->index ? -1 : x->index > y->index;
}


/* Sorts an array of refs in the block; a string that comes twice is refused. */
static int
tgc_sort_unique(tg_compiler_t *c, tg_vec_t vec)
{
    int            rc;
    tg_ref_t      *ref;
    tgc_sorted_t  *sorted;

    if (vec.n < 2) {
        return 0;
    }

    sorted = malloc(vec.n * sizeof(tgc_sorted_t));

    if (sorted == NULL) {
        return tgc_fail(c, "", "no memory");
    }

    ref = tgc_at(c, vec, 0, sizeof(tg_ref_t));

    for (size_t i = 0; i < vec.n; i++) {
        sorted[i].ref = ref[i];
        sorted[i].s = (char *) c->mem + ref[i].off;
        sorted[i].index = i;
    }

    qsort(sorted, vec.n, sizeof(tgc_sorted_t), tgc_sorted_compare);
    rc = 0;

    for (size_t i = 0; i < vec.n && rc == 0; i++) {
        ref[i] = sorted[i].ref;

        if (i > 0 && ref[i].off == ref[i - 1].off) {
            (void) tgc_fail(c, "", "is named twice");
            rc = tgc_in_index(c, sorted[i].index);
        }
    }

    free(sorted);
    return rc;
}


int
tgc_hosts(tg_compiler_t *c, const json_t *object, const char *name,
    size_t min, size_t max, int flags, tg_vec_t *out)
{
    tg_ref_t       ref;
    const json_t  *array;

    if (tgc_array(c, object, name, min, max, flags, &array) != 0) {
        return -1;
    }

    if (tgc_reserve(c, json_array_size(array), sizeof(tg_ref_t), 4, out) != 0) {
        return -1;
    }

    for (size_t i = 0; i < out->n; i++) {
        if (tgc_host(c, json_array_get(array, i), &ref) != 0) {
            (void) tgc_in_index(c, i);
            return tgc_in(c, name);
        }

        tgc_store(c, *out, i, &ref, sizeof(ref));
    }

    if (tgc_sort_unique(c, *out) != 0) {
        return tgc_in(c, name);
    }

    return 0;
}
