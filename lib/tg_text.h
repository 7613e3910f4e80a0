/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A text that grows, for documents that are written piece by piece: reports,
 * acknowledgements, metrics, snapshot records.
 */

#ifndef TG_TEXT_H
#define TG_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char   *data;       /* not NUL-terminated; NULL: nothing was added yet */
    size_t  len;
    size_t  size;       /* bytes allocated */
    int     failed;     /* no memory: the text is incomplete, adding is void */
} tg_text_t;

/* An empty text is all zero bytes; this makes one. */
void tg_text_init(tg_text_t *text);

/* Frees, and leaves an empty text. */
void tg_text_free(tg_text_t *text);

/* Empties, and keeps the memory for the next use. */
void tg_text_reset(tg_text_t *text);

/* Room for len bytes more, or NULL: no memory. */
char *tg_text_room(tg_text_t *text, size_t len);

static inline void
tg_text_add(tg_text_t *text, const void *data, size_t len)
{
    char  *p;

    if (len == 0 || text->failed) {
        return;
    }

    p = text->size - text->len >= len ? text->data + text->len
                                      : tg_text_room(text, len);

    if (p != NULL) {
        memcpy(p, data, len);
        text->len += len;
    }
}

/* In line, because of a constant the compiler knows the length. */
static inline void
tg_text_str(tg_text_t *text, const char *s)
{
    tg_text_add(text, s, strlen(s));
}

void tg_text_u64(tg_text_t *text, uint64_t n);
void tg_text_printf(tg_text_t *text, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * A JSON string with its quotes (RFC 8259).  What is not UTF-8 (RFC 3629, NUL
 * included, which PostgreSQL cannot store) becomes U+FFFD.
 */
void tg_text_json(tg_text_t *text, const char *s, size_t len);

/*
 * A text to be stored and shown: what is not UTF-8 becomes U+FFFD, and a control
 * character (C1 and DEL included) a space.
 */
void tg_text_plain(tg_text_t *text, const char *s, size_t len);

/* The value of a Prometheus label, without its quotes: \, " and newline are
 * escaped, what is not UTF-8 becomes U+FFFD. */
void tg_text_label(tg_text_t *text, const char *s, size_t len);

/*
 * Bytes of the UTF-8 character at s (RFC 3629: no surrogates, no overlong
 * forms, no NUL), or 0: there is none.
 */
size_t tg_utf8_len(const char *s, size_t len);

#endif /* TG_TEXT_H */
