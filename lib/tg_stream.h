/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The bytes that tenantd sends: an HTTP/1.1 response (RFC 9112) taken apart as
 * it arrives, and lines cut out of its body.
 *
 * Both are pulled: the caller gives what it has read and asks for the next
 * event until there is none.  Nothing is copied but what a read has cut in two.
 * The parser is strict where leniency has been used to smuggle: lines end with
 * CR LF, no folding, no blank before the colon, one Content-Length, never
 * together with Transfer-Encoding, of which only "chunked" is known.
 */

#ifndef TG_STREAM_H
#define TG_STREAM_H

#include <stddef.h>
#include <stdint.h>

#define TG_RESPONSE_LINE    4096            /* bytes of one line of the head */
#define TG_RESPONSE_HEAD    32768           /* bytes of the head, or trailer */
#define TG_LINE_MAX         (4 * 1024 * 1024)

typedef enum {
    TG_RESPONSE_MORE = 0,   /* all was taken; read on */
    TG_RESPONSE_READY,      /* the head is complete */
    TG_RESPONSE_BODY,       /* a piece of the body */
    TG_RESPONSE_DONE,       /* the response is complete */
    TG_RESPONSE_ERROR       /* not HTTP; "error" says why; nothing follows */
} tg_response_event_e;

typedef struct {
    int          status;            /* 200 to 599; 1xx are passed over */
    int64_t      content_length;    /* -1: not known */
    int          chunked;
    int          keepalive;         /* the connection can serve again */
    int          jsonl;             /* Content-Type is application/jsonl */
    uint32_t     retry_after;       /* seconds; 0: absent, or a date */
    char         registry[37];      /* Tiergate-Registry, a UUID, or "" */
    const char  *error;

    /* private */
    int          state;
    int          http_minor;
    int          has_chunked;
    uint64_t     left;              /* bytes of the body or chunk to come */
    size_t       head;              /* bytes of the head so far */
    size_t       line_len;
    char         line[TG_RESPONSE_LINE];
} tg_response_t;

/* Before each response. */
void tg_response_init(tg_response_t *response);

/*
 * Takes bytes from *pos, not beyond end.  TG_RESPONSE_BODY: *body and *len are
 * inside the bytes given.  Call again until MORE, DONE or ERROR.  After DONE
 * *pos is at the first byte that is not of this response.
 */
tg_response_event_e tg_response_next(tg_response_t *response, const char **pos,
    const char *end, const char **body, size_t *len);

/* The peer has closed: DONE when that is how the body ends, else ERROR. */
tg_response_event_e tg_response_eof(tg_response_t *response);

/* True when not a byte of the response has been seen. */
int tg_response_untouched(const tg_response_t *response);

/* The text form of a UUID (RFC 9562), in lower case with a NUL.  0, or -1: s is
 * not one, and uuid is "". */
int tg_uuid_copy(char uuid[37], const char *s, size_t len);


typedef enum {
    TG_LINES_MORE = 0,      /* all was taken */
    TG_LINES_LINE,          /* a line, without its newline */
    TG_LINES_TOO_LONG,      /* its first bytes; the rest will be passed over */
    TG_LINES_NOMEM
} tg_lines_event_e;

typedef struct {
    size_t   max;           /* bytes of a line, the newline not counted */

    /* private */
    char    *data;          /* the beginning of a line that a read cut */
    size_t   len;
    size_t   size;
    int      taken;         /* data was handed out as a line */
    int      skipping;      /* up to the next newline */
} tg_lines_t;

void tg_lines_init(tg_lines_t *lines, size_t max);
void tg_lines_free(tg_lines_t *lines);

/* Forgets a line that was begun. */
void tg_lines_reset(tg_lines_t *lines);

/*
 * Takes bytes from *pos, not beyond end.  *line stays valid until the next call
 * and as long as the bytes given.  Call again until MORE.
 */
tg_lines_event_e tg_lines_next(tg_lines_t *lines, const char **pos,
    const char *end, const char **line, size_t *len);

/* True between two lines. */
int tg_lines_idle(const tg_lines_t *lines);

#endif /* TG_STREAM_H */
