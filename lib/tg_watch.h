/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One line of the watch stream, docs/reference/watch.md, as a typed event.
 */

#ifndef TG_WATCH_H
#define TG_WATCH_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_block.h"
#include "tg_error.h"

typedef enum {
    TG_WATCH_PUT = 1,
    TG_WATCH_DELETE,
    TG_WATCH_BOOKMARK
} tg_watch_type_e;

typedef struct {
    tg_watch_type_e  type;
    int              kind;          /* tg_kind_e; 0: BOOKMARK, or a kind that
                                     * this version does not know: pass over */
    uint64_t         id;
    uint64_t         revision;
    char             name[TG_MAX_NAME + 1];
    int              complete;      /* BOOKMARK: the list ends here */
    json_t          *object;        /* PUT; belongs to line */
    json_t          *line;          /* the whole; released by tg_watch_release */
} tg_watch_event_t;

typedef enum {
    TG_WATCH_OK = 0,
    TG_WATCH_BAD_LINE,      /* not an event: perhaps damaged on its way */
    TG_WATCH_BAD_OBJECT     /* an event, whose object is not the one it names */
} tg_watch_status_e;

/*
 * Reads a line.  Unless TG_WATCH_OK err is set, and event holds as much of kind,
 * name, id and revision as could be read.  In all cases call tg_watch_release().
 */
tg_watch_status_e tg_watch_parse(const char *line, size_t len,
    tg_watch_event_t *event, tg_error_t *err);

void tg_watch_release(tg_watch_event_t *event);

/*
 * What is left to do when the object of a PUT is refused, but says that its
 * tenant is suspended: a line that says so and nothing else.  NULL: not such an
 * object, or no memory.  To be freed.
 */
char *tg_watch_suspension(const tg_watch_event_t *event);

/* "PUT", "DELETE", "BOOKMARK"; "tenant", "issuer", or "" for 0. */
const char *tg_watch_type_name(tg_watch_type_e type);
const char *tg_watch_kind_name(int kind);

/* The reverse; 0: no such type or kind. */
tg_watch_type_e tg_watch_type(const char *name, size_t len);
int tg_watch_kind(const char *name, size_t len);

#endif /* TG_WATCH_H */
