/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Key sets of issuers: asks the registry which are due, fetches them side by
 * side, and stores what they hold.  An issuer that is slow, down or hostile costs
 * a place among [jwks] parallel until its timeout, and its last good set stays.
 * When a set is due next, and how it backs off, the registry says; the rows are
 * taken with SKIP LOCKED, so that several tenantd share the work.
 */

#ifndef TD_JWKS_H
#define TD_JWKS_H

#include "td_daemon.h"

typedef struct td_jwks_s  td_jwks_t;

td_jwks_t *td_jwks_create(td_daemon_t *daemon);
void td_jwks_destroy(td_jwks_t *jwks);

/*
 * What is wrong with a fetched key set, or NULL: JSON, an object with "keys", at
 * most 32, public keys only.  text (size bytes) holds the sentence.
 */
const char *td_jwks_check(const char *body, size_t len, char *text,
    size_t size);

#endif /* TD_JWKS_H */
