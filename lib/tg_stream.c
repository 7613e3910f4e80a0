/* SPDX-License-Identifier: BSD-2-Clause */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tg_stream.h"


#define TG_LINES_KEEP  65536    /* of a longer line the memory is given back */


/* What the next byte belongs to. */
typedef enum {
    TG_HTTP_STATUS = 0,     /* the status line */
    TG_HTTP_HEADER,         /* a header, or the empty line after them */
    TG_HTTP_LENGTH,         /* a body of "left" bytes */
    TG_HTTP_CLOSE,          /* a body that ends with the connection */
    TG_HTTP_CHUNK_SIZE,     /* the line before a chunk */
    TG_HTTP_CHUNK,          /* a chunk, "left" bytes of it */
    TG_HTTP_CHUNK_END,      /* CR LF after a chunk */
    TG_HTTP_TRAILER,        /* a trailer, or the empty line that ends all */
    TG_HTTP_END,
    TG_HTTP_FAILED
} tg_http_state_e;


typedef const char *(*tg_header_pt)(tg_response_t *r, const char *value);

typedef struct {
    const char    *name;
    tg_header_pt   take;    /* returns why the value is refused, or NULL */
} tg_header_t;


static const char *tg_header_length(tg_response_t *r, const char *value);
static const char *tg_header_encoding(tg_response_t *r, const char *value);
static const char *tg_header_connection(tg_response_t *r, const char *value);
static const char *tg_header_type(tg_response_t *r, const char *value);
static const char *tg_header_registry(tg_response_t *r, const char *value);
static const char *tg_header_retry(tg_response_t *r, const char *value);


static const tg_header_t  tg_headers[] = {
    { "Content-Length",    tg_header_length },
    { "Transfer-Encoding", tg_header_encoding },
    { "Connection",        tg_header_connection },
    { "Content-Type",      tg_header_type },
    { "Tiergate-Registry", tg_header_registry },
    { "Retry-After",       tg_header_retry },
};


int
tg_uuid_copy(char uuid[37], const char *s, size_t len)
{
    uuid[0] = '\0';

    if (len != 36) {
        return -1;
    }

    for (size_t i = 0; i < 36; i++) {
        if ((i == 8 || i == 13 || i == 18 || i == 23)
            ? s[i] != '-' : !isxdigit((unsigned char) s[i]))
        {
            uuid[0] = '\0';
            return -1;
        }

        uuid[i] = (char) tolower((unsigned char) s[i]);
    }

    uuid[36] = '\0';
    return 0;
}


void
tg_response_init(tg_response_t *r)
{
    memset(r, 0, offsetof(tg_response_t, line));
    r->content_length = -1;
}


int
tg_response_untouched(const tg_response_t *r)
{
    return r->state == TG_HTTP_STATUS && r->head == 0;
}


static tg_response_event_e
tg_response_fail(tg_response_t *r, const char *error)
{
    r->state = TG_HTTP_FAILED;
    r->error = error;

    return TG_RESPONSE_ERROR;
}


/* A decimal number of nothing but digits; -1: it is not one, or too large. */
static int64_t
tg_decimal(const char *s)
{
    int64_t  n;

    if (*s == '\0') {
        return -1;
    }

    for (n = 0; *s; s++) {
        if (*s < '0' || *s > '9' || n > (INT64_MAX - 9) / 10) {
            return -1;
        }

        n = n * 10 + (*s - '0');
    }

    return n;
}


static const char *
tg_header_length(tg_response_t *r, const char *value)
{
    if (r->content_length != -1) {
        return "two Content-Length headers";
    }

    r->content_length = tg_decimal(value);

    return r->content_length == -1 ? "invalid Content-Length" : NULL;
}


static const char *
tg_header_encoding(tg_response_t *r, const char *value)
{
    if (r->has_chunked || strcasecmp(value, "chunked") != 0) {
        return "unknown Transfer-Encoding";
    }

    r->has_chunked = 1;
    return NULL;
}


static const char *
tg_header_connection(tg_response_t *r, const char *value)
{
    if (strcasecmp(value, "close") == 0) {
        r->keepalive = 0;

    } else if (strcasecmp(value, "keep-alive") == 0 && r->http_minor == 0) {
        r->keepalive = 1;
    }

    return NULL;
}


static const char *
tg_header_type(tg_response_t *r, const char *value)
{
    static const char  jsonl[] = "application/jsonl";

    r->jsonl = strncasecmp(value, jsonl, sizeof(jsonl) - 1) == 0
               && strchr("; \t", value[sizeof(jsonl) - 1]) != NULL;
    return NULL;
}


static const char *
tg_header_registry(tg_response_t *r, const char *value)
{
    if (r->registry[0]) {
        return "two Tiergate-Registry headers";
    }

    return tg_uuid_copy(r->registry, value, strlen(value)) == 0
           ? NULL : "Tiergate-Registry is no UUID";
}


static const char *
tg_header_retry(tg_response_t *r, const char *value)
{
    int64_t  n;

    n = tg_decimal(value);
    r->retry_after = n < 0 ? 0 : n > 3600 ? 3600 : (uint32_t) n;

    return NULL;
}


/* "HTTP/1.1 200 OK" (RFC 9112 section 4); the reason may be empty. */
static const char *
tg_status_line(tg_response_t *r)
{
    const char  *p = r->line;

    if (strncmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1')
        || p[8] != ' ' || p[9] < '1' || p[9] > '5'
        || !isdigit((unsigned char) p[10]) || !isdigit((unsigned char) p[11])
        || (p[12] != ' ' && p[12] != '\0'))
    {
        return "invalid status line";
    }

    r->http_minor = p[7] - '0';
    r->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
    r->keepalive = r->http_minor;

    return r->status == 101 ? "unasked upgrade" : NULL;
}


/* field-name ":" OWS field-value OWS, RFC 9112 section 5. */
static const char *
tg_header_line(tg_response_t *r)
{
    char                *value, *end;
    size_t               len;
    static const char    token[] = "!#$%&'*+-.^_`|~0123456789"
                                   "abcdefghijklmnopqrstuvwxyz"
                                   "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    len = strspn(r->line, token);

    if (len == 0 || r->line[len] != ':') {
        return "invalid header";
    }

    if (r->state == TG_HTTP_TRAILER) {
        return NULL;
    }

    r->line[len] = '\0';
    value = r->line + len + 1;
    value += strspn(value, " \t");

    for (end = r->line + r->line_len;
         end > value && (end[-1] == ' ' || end[-1] == '\t');
         end--)
    {
        end[-1] = '\0';
    }

    for (size_t i = 0; i < sizeof(tg_headers) / sizeof(tg_headers[0]); i++) {
        if (strcasecmp(r->line, tg_headers[i].name) == 0) {
            return tg_headers[i].take(r, value);
        }
    }

    return NULL;
}


/* How long the body is: RFC 9112 section 6.3. */
static tg_response_event_e
tg_response_ready(tg_response_t *r)
{
    if (r->status < 200) {
        if (r->has_chunked || r->content_length != -1) {
            return tg_response_fail(r, "body in an interim response");
        }

        tg_response_init(r);
        return TG_RESPONSE_MORE;
    }

    if (r->has_chunked && (r->content_length != -1 || r->http_minor == 0)) {
        return tg_response_fail(r, "Transfer-Encoding where it must not be");
    }

    r->chunked = r->has_chunked;

    if (r->status == 204 || r->status == 304) {
        r->left = 0;
        r->state = TG_HTTP_LENGTH;

    } else if (r->chunked) {
        r->state = TG_HTTP_CHUNK_SIZE;

    } else if (r->content_length != -1) {
        r->left = (uint64_t) r->content_length;
        r->state = TG_HTTP_LENGTH;

    } else {
        r->keepalive = 0;
        r->state = TG_HTTP_CLOSE;
    }

    return TG_RESPONSE_READY;
}


/* chunk-size [chunk-ext], RFC 9112 section 7.1. */
static const char *
tg_chunk_size(tg_response_t *r)
{
    uint64_t     n;
    const char  *p;

    n = 0;

    for (p = r->line; isxdigit((unsigned char) *p); p++) {
        if (n >> 58) {
            return "chunk too large";
        }

        n = n * 16 + (uint64_t) (*p <= '9' ? *p - '0'
                                 : (*p | 0x20) - 'a' + 10);
    }

    if (p == r->line || (*p && *p != ';' && *p != ' ' && *p != '\t')) {
        return "invalid chunk size";
    }

    r->left = n;
    r->head = 0;    /* from now on it counts the trailer */
    r->state = n ? TG_HTTP_CHUNK : TG_HTTP_TRAILER;

    return NULL;
}


/* A whole line of the head, a chunk's size or the trailer is in r->line. */
static tg_response_event_e
tg_response_line(tg_response_t *r)
{
    const char  *error;

    switch (r->state) {

    case TG_HTTP_STATUS:
        error = tg_status_line(r);
        r->state = TG_HTTP_HEADER;
        break;

    case TG_HTTP_CHUNK_SIZE:
        error = tg_chunk_size(r);
        break;

    case TG_HTTP_CHUNK_END:
        error = r->line_len ? "chunk longer than its size" : NULL;
        r->state = TG_HTTP_CHUNK_SIZE;
        break;

    case TG_HTTP_HEADER:
        if (r->line_len == 0) {
            return tg_response_ready(r);
        }

        error = tg_header_line(r);
        break;

    default:  /* TG_HTTP_TRAILER */
        if (r->line_len == 0) {
            r->state = TG_HTTP_END;
            return TG_RESPONSE_DONE;
        }

        error = tg_header_line(r);
    }

    return error ? tg_response_fail(r, error) : TG_RESPONSE_MORE;
}


/* Gathers a line up to its CR LF: 1 when it is whole, 0 not yet, -1 failed. */
static int
tg_response_gather(tg_response_t *r, const char **pos, const char *end)
{
    size_t       n;
    const char  *lf;

    lf = memchr(*pos, '\n', (size_t) (end - *pos));
    n = (size_t) ((lf ? lf + 1 : end) - *pos);

    if (n > sizeof(r->line) - r->line_len || n > TG_RESPONSE_HEAD - r->head) {
        (void) tg_response_fail(r, "head too long");
        return -1;
    }

    memcpy(r->line + r->line_len, *pos, n);
    r->line_len += n;
    r->head += n;
    *pos += n;

    if (lf == NULL) {
        return 0;
    }

    if (r->line_len < 2 || r->line[r->line_len - 2] != '\r') {
        (void) tg_response_fail(r, "line without CR LF");
        return -1;
    }

    r->line_len -= 2;
    r->line[r->line_len] = '\0';

    for (size_t i = 0; i < r->line_len; i++) {
        if ((unsigned char) r->line[i] < ' ' && r->line[i] != '\t') {
            (void) tg_response_fail(r, "control character in the head");
            return -1;
        }
    }

    return 1;
}


/* Takes what there is of the body, or of the present chunk. */
static tg_response_event_e
tg_response_body(tg_response_t *r, const char **pos, const char *end,
    const char **body, size_t *len)
{
    *body = *pos;
    *len = (size_t) (end - *pos);

    if (*len == 0) {
        return TG_RESPONSE_MORE;
    }

    if (r->state != TG_HTTP_CLOSE) {
        if (*len > r->left) {
            *len = (size_t) r->left;
        }

        r->left -= *len;

        if (r->state == TG_HTTP_CHUNK && r->left == 0) {
            r->state = TG_HTTP_CHUNK_END;
        }
    }

    *pos += *len;

    return TG_RESPONSE_BODY;
}


tg_response_event_e
tg_response_next(tg_response_t *r, const char **pos, const char *end,
    const char **body, size_t *len)
{
    int                  rc;
    tg_response_event_e  event;

    for ( ;; ) {
        switch (r->state) {

        case TG_HTTP_FAILED:
            return TG_RESPONSE_ERROR;

        case TG_HTTP_END:
            return TG_RESPONSE_DONE;

        case TG_HTTP_LENGTH:
            if (r->left == 0) {
                r->state = TG_HTTP_END;
                return TG_RESPONSE_DONE;
            }

            /* fall through */

        case TG_HTTP_CHUNK:
        case TG_HTTP_CLOSE:
            return tg_response_body(r, pos, end, body, len);
        }

        rc = *pos == end ? 0 : tg_response_gather(r, pos, end);

        if (rc != 1) {
            return rc == 0 ? TG_RESPONSE_MORE : TG_RESPONSE_ERROR;
        }

        event = tg_response_line(r);
        r->line_len = 0;

        if (event != TG_RESPONSE_MORE) {
            return event;
        }
    }
}


tg_response_event_e
tg_response_eof(tg_response_t *r)
{
    if (r->state == TG_HTTP_CLOSE || r->state == TG_HTTP_END
        || (r->state == TG_HTTP_LENGTH && r->left == 0))
    {
        r->state = TG_HTTP_END;
        return TG_RESPONSE_DONE;
    }

    if (r->state == TG_HTTP_FAILED) {
        return TG_RESPONSE_ERROR;
    }

    return tg_response_fail(r, "connection closed inside a response");
}


void
tg_lines_init(tg_lines_t *lines, size_t max)
{
    memset(lines, 0, sizeof(tg_lines_t));
    lines->max = max;
}


void
tg_lines_free(tg_lines_t *lines)
{
    free(lines->data);
    tg_lines_init(lines, lines->max);
}


void
tg_lines_reset(tg_lines_t *lines)
{
    lines->len = 0;
    lines->taken = 0;
    lines->skipping = 0;
}


int
tg_lines_idle(const tg_lines_t *lines)
{
    return (lines->len == 0 || lines->taken) && !lines->skipping;
}


/* Keeps the beginning of a line that goes on in the next read. */
static int
tg_lines_keep(tg_lines_t *lines, const char *p, size_t n)
{
    char    *data;
    size_t   size;

    size = lines->size ? lines->size : 4096;

    while (size - lines->len < n) {
        size *= 2;
    }

    if (size != lines->size) {
        data = realloc(lines->data, size);

        if (data == NULL) {
            return -1;
        }

        lines->data = data;
        lines->size = size;
    }

    memcpy(lines->data + lines->len, p, n);
    lines->len += n;

    return 0;
}


/* What was handed out by the last call is not needed any more. */
static void
tg_lines_release(tg_lines_t *lines)
{
    if (!lines->taken) {
        return;
    }

    lines->taken = 0;
    lines->len = 0;

    if (lines->size > TG_LINES_KEEP) {
        free(lines->data);
        lines->data = NULL;
        lines->size = 0;
    }
}


tg_lines_event_e
tg_lines_next(tg_lines_t *lines, const char **pos, const char *end,
    const char **line, size_t *len)
{
    size_t       n;
    const char  *lf, *start;

    tg_lines_release(lines);

    if (*pos == end) {
        return TG_LINES_MORE;
    }

    start = *pos;
    lf = memchr(start, '\n', (size_t) (end - start));
    n = (size_t) ((lf ? lf : end) - start);
    *pos = lf ? lf + 1 : end;

    if (lines->skipping) {
        lines->skipping = (lf == NULL);
        return lf ? tg_lines_next(lines, pos, end, line, len) : TG_LINES_MORE;
    }

    if (n > lines->max - lines->len) {
        n = lines->max - lines->len;
        lines->skipping = (lf == NULL);

        if (tg_lines_keep(lines, start, n) != 0) {
            return TG_LINES_NOMEM;
        }

        lines->taken = 1;
        *line = lines->data;
        *len = lines->len;

        return TG_LINES_TOO_LONG;
    }

    if (lf != NULL && lines->len == 0) {
        *line = start;
        *len = n;
        return TG_LINES_LINE;
    }

    if (tg_lines_keep(lines, start, n) != 0) {
        return TG_LINES_NOMEM;
    }

    if (lf == NULL) {
        return TG_LINES_MORE;
    }

    lines->taken = 1;
    *line = lines->data;
    *len = lines->len;

    return TG_LINES_LINE;
}
