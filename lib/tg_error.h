/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Why input was refused: a sentence for the person who has to change it, and
 * the place of the offending member.
 */

#ifndef TG_ERROR_H
#define TG_ERROR_H

typedef struct {
    char  message[256];
    char  pointer[128];     /* JSON pointer, RFC 6901; "": the whole document */
} tg_error_t;

/* Fills err; does nothing when err is NULL.  Too long a text is cut. */
void tg_error_set(tg_error_t *err, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<prefix>" in front of the pointer that a callee has set. */
void tg_error_prefix(tg_error_t *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif /* TG_ERROR_H */
