/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One look at an instance: GET /readyz on its admin.sock, and which generation of
 * its configuration answered.
 */

#ifndef TD_PROBE_H
#define TD_PROBE_H

#include <stdint.h>

#include <event2/event.h>

typedef struct td_probe_s  td_probe_t;

typedef struct {
    int      status;            /* of HTTP; 0: no answer */
    int64_t  generation;        /* 0: the answer had none */
    char     state[16];         /* live, snapshot, loading */
} td_probe_answer_t;

/*
 * Asks.  answered is called once, never before this returns; the probe is gone
 * then.  NULL: it could not even be asked, as while nothing listens.
 */
td_probe_t *td_probe_start(struct event_base *base, const char *socket,
    long timeout, void (*answered)(void *data, const td_probe_answer_t *answer),
    void *data);

/* Gives it up; answered is not called. */
void td_probe_cancel(td_probe_t *probe);

/* What an answer says: status line, headers and body as they came. */
void td_probe_parse(const char *text, td_probe_answer_t *answer);

#endif /* TD_PROBE_H */
