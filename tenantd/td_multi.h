/* SPDX-License-Identifier: BSD-2-Clause */

/* libcurl's multi interface on the event loop. */

#ifndef TD_MULTI_H
#define TD_MULTI_H

#include <curl/curl.h>
#include <event2/event.h>

typedef struct td_multi_s  td_multi_t;

/* A transfer has ended.  It is not in the multi any more, and is the callee's. */
typedef void (*td_multi_done_pt)(CURL *easy, CURLcode code, void *data);

/* NULL: no memory. */
td_multi_t *td_multi_create(struct event_base *base);

/* All transfers must have been removed. */
void td_multi_destroy(td_multi_t *multi);

/* Begins a transfer.  done is called later, never from here.  -1: no memory. */
int td_multi_add(td_multi_t *multi, CURL *easy, td_multi_done_pt done, void *data);

/* Ends one; done is not called.  Not from a callback of libcurl. */
void td_multi_remove(td_multi_t *multi, CURL *easy);

#endif /* TD_MULTI_H */
