/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tg_text.h"


#define TG_TEXT_FIRST    512
#define TG_REPLACEMENT   "\xef\xbf\xbd"     /* U+FFFD */


void
tg_text_init(tg_text_t *text)
{
    memset(text, 0, sizeof(tg_text_t));
}


void
tg_text_free(tg_text_t *text)
{
    free(text->data);
    tg_text_init(text);
}


void
tg_text_reset(tg_text_t *text)
{
    text->len = 0;
    text->failed = 0;
}


char *
tg_text_room(tg_text_t *text, size_t len)
{
    char    *data;
    size_t   size;

    if (text->failed) {
        return NULL;
    }

    if (text->size - text->len >= len) {
        return text->data + text->len;
    }

    size = text->size ? text->size : TG_TEXT_FIRST;

    while (size - text->len < len) {
        size *= 2;
    }

    data = realloc(text->data, size);

    if (data == NULL) {
        text->failed = 1;
        return NULL;
    }

    text->data = data;
    text->size = size;

    return data + text->len;
}


void
tg_text_u64(tg_text_t *text, uint64_t n)
{
    char  digits[20], *p;

    p = digits + sizeof(digits);

    do {
        *--p = (char) ('0' + n % 10);
        n /= 10;
    } while (n);

    tg_text_add(text, p, (size_t) (digits + sizeof(digits) - p));
}


void
tg_text_printf(tg_text_t *text, const char *fmt, ...)
{
    int      n;
    char    *p, buf[256];
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, args);
    va_end(args);

    if (n < (int) sizeof(buf)) {
        tg_text_add(text, buf, n > 0 ? (size_t) n : 0);
        return;
    }

    p = tg_text_room(text, (size_t) n + 1);

    if (p != NULL) {
        va_start(args, fmt);
        (void) vsnprintf(p, (size_t) n + 1, fmt, args);
        va_end(args);
        text->len += (size_t) n;
    }
}


size_t
tg_utf8_len(const char *s, size_t len)
{
    size_t         n;
    const uint8_t  *p = (const uint8_t *) s;

    if (len == 0 || p[0] == 0) {
        return 0;
    }

    if (p[0] < 0x80) {
        return 1;
    }

    n = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

    if (n == 0 || n > len) {
        return 0;
    }

    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    if ((p[0] == 0xe0 && p[1] < 0xa0)           /* overlong */
        || (p[0] == 0xed && p[1] > 0x9f)        /* surrogates */
        || (p[0] == 0xf0 && p[1] < 0x90)        /* overlong */
        || (p[0] == 0xf4 && p[1] > 0x8f))       /* above U+10FFFF */
    {
        return 0;
    }

    return n;
}


/* Adds s, each byte below 0x80 that is not plain written by escape(). */
static void
tg_text_escaped(tg_text_t *text, const char *s, size_t len,
    void (*escape)(tg_text_t *text, char c))
{
    size_t  n, start;

    start = 0;

    for (size_t i = 0; i < len; i += n ? n : 1) {
        n = tg_utf8_len(s + i, len - i);

        if (n > 1 || (n == 1 && s[i] >= ' ' && s[i] != '"' && s[i] != '\\'
                      && s[i] != 0x7f))
        {
            continue;
        }

        tg_text_add(text, s + start, i - start);
        start = i + 1;

        if (n == 0) {
            tg_text_str(text, TG_REPLACEMENT);

        } else {
            escape(text, s[i]);
        }
    }

    tg_text_add(text, s + start, len - start);
}


static void
tg_text_escape_json(tg_text_t *text, char c)
{
    switch (c) {

    case '"':
    case '\\':
        tg_text_printf(text, "\\%c", c);
        break;

    case '\n':
        tg_text_str(text, "\\n");
        break;

    default:
        tg_text_printf(text, "\\u%04x", (unsigned) c);
    }
}


static void
tg_text_escape_label(tg_text_t *text, char c)
{
    switch (c) {

    case '"':
    case '\\':
        tg_text_printf(text, "\\%c", c);
        break;

    case '\n':
        tg_text_str(text, "\\n");
        break;

    default:
        tg_text_add(text, &c, 1);
    }
}


void
tg_text_json(tg_text_t *text, const char *s, size_t len)
{
    tg_text_str(text, "\"");
    tg_text_escaped(text, s, len, tg_text_escape_json);
    tg_text_str(text, "\"");
}


void
tg_text_plain(tg_text_t *text, const char *s, size_t len)
{
    size_t         n;
    const char    *end;
    unsigned char  c;

    for (end = s + len; s < end; s += n) {
        n = tg_utf8_len(s, (size_t) (end - s));
        c = (unsigned char) *s;

        if (n == 0) {
            tg_text_str(text, "\xef\xbf\xbd");
            n = 1;

        } else if (c < 0x20 || c == 0x7f
                   || (c == 0xc2 && (unsigned char) s[1] < 0xa0))
        {
            tg_text_str(text, " ");

        } else {
            tg_text_add(text, s, n);
        }
    }
}


void
tg_text_label(tg_text_t *text, const char *s, size_t len)
{
    tg_text_escaped(text, s, len, tg_text_escape_label);
}
