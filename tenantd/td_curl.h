/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * libcurl's multi interface on the event loop: fetching without waiting, from
 * addresses that are allowed.
 */

#ifndef TD_CURL_H
#define TD_CURL_H

#include <stddef.h>

#include <event2/event.h>

#include "td_config.h"

typedef struct td_curl_s  td_curl_t;

/* body is NULL on failure; then error says why.  Both are borrowed. */
typedef void (*td_curl_done_pt)(void *data, const char *body, size_t len,
    const char *error);

/* config is looked at for each fetch.  NULL: no memory. */
td_curl_t *td_curl_create(struct event_base *base, const td_config_t *config);

/* Ends all fetches; done is not called. */
void td_curl_destroy(td_curl_t *curl);

/*
 * Fetches url: GET, http or https as [jwks] allows, no redirects, a public
 * address or one of allow_cidrs, time and size limited.  Anything but 200 is a
 * failure.  done is called later, never from here.  Returns -1: no memory.
 */
int td_curl_get(td_curl_t *curl, const char *url, td_curl_done_pt done,
    void *data);

#endif /* TD_CURL_H */
