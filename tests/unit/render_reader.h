/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * nginx's reading of a configuration (ngx_conf_read_token() of nginx 1.22), written
 * anew for tests and the fuzz target: what the renderer writes must be read as
 * exactly the arguments that were meant.
 */

#ifndef RENDER_READER_H
#define RENDER_READER_H

#include <stddef.h>
#include <string.h>

#define READER_WORDS  64
#define READER_TEXT   (64 * 1024)

typedef enum {
    READER_END, READER_DIRECTIVE, READER_BLOCK, READER_BLOCK_END, READER_ERROR
} reader_e;

typedef struct {
    const char  *p;
    size_t       words;
    const char  *word[READER_WORDS];
    size_t       len[READER_WORDS];
    size_t       used;
    char         text[READER_TEXT];
} reader_t;


static int
reader_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}


/* Takes a word from "begin" to "end" with its escapes undone. */
static int
reader_take(reader_t *r, const char *begin, const char *end)
{
    char  *out;

    if (r->words == READER_WORDS
        || r->used + (size_t) (end - begin) + 1 > READER_TEXT)
    {
        return -1;
    }

    out = r->text + r->used;
    r->word[r->words] = out;

    while (begin < end) {
        if (*begin == '\\' && begin + 1 < end
            && strchr("\"'\\trn", begin[1]) != NULL)
        {
            begin++;
            *out++ = *begin == 't' ? '\t' : *begin == 'r' ? '\r'
                     : *begin == 'n' ? '\n' : *begin;
            begin++;
            continue;
        }
        *out++ = *begin++;
    }

    r->len[r->words++] = (size_t) (out - (r->text + r->used));
    r->used = (size_t) (out - r->text);

    return 0;
}


/* The next directive, beginning or end of a block. */
static reader_e
reader_next(reader_t *r)
{
    char         quote;
    int          variable;
    const char  *begin;

    r->words = 0;
    r->used = 0;

    for ( ;; ) {
        while (reader_space(*r->p)) {
            r->p++;
        }

        switch (*r->p) {

        case '\0':
            return r->words == 0 ? READER_END : READER_ERROR;

        case ';':
        case '{':
            if (r->words == 0) {
                return READER_ERROR;
            }
            return *r->p++ == ';' ? READER_DIRECTIVE : READER_BLOCK;

        case '}':
            r->p++;
            return r->words == 0 ? READER_BLOCK_END : READER_ERROR;

        case '#':
            while (*r->p != '\0' && *r->p != '\n') {
                r->p++;
            }
            continue;

        case '"':
        case '\'':
            quote = *r->p++;
            begin = r->p;

            while (*r->p != quote) {
                r->p += *r->p == '\\' && r->p[1] != '\0';
                if (*r->p == '\0') {
                    return READER_ERROR;
                }
                r->p++;
            }

            if (reader_take(r, begin, r->p++) != 0) {
                return READER_ERROR;
            }

            if (!reader_space(*r->p) && *r->p != ';' && *r->p != '{'
                && *r->p != ')')
            {
                return READER_ERROR;
            }
            continue;

        default:
            begin = r->p;
            variable = 0;

            while (*r->p != '\0'
                   && ((variable && *r->p == '{')
                       || (!reader_space(*r->p) && *r->p != ';'
                           && *r->p != '{')))
            {
                variable = *r->p == '$';
                r->p += *r->p == '\\' && r->p[1] != '\0' ? 2 : 1;
            }

            if (reader_take(r, begin, r->p) != 0) {
                return READER_ERROR;
            }
        }
    }
}

#endif /* RENDER_READER_H */
