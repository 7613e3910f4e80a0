/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * JSON Web Keys in request bodies: what must not go on to the database as it
 * came.  Private keys are refused, HMAC secrets sealed, PEM is turned into a JWK,
 * and each key is tried as a gateway would.
 */

#ifndef TD_KEYS_H
#define TD_KEYS_H

#include <stdint.h>

#include <jansson.h>

#include "tg_error.h"

typedef enum {
    TD_KEYS_SAME,               /* nothing was changed */
    TD_KEYS_CHANGED,            /* body must be written anew */
    TD_KEYS_INVALID = -1,       /* err says why, and where in the body */
    TD_KEYS_PRIVATE = -2,
    TD_KEYS_NO_SEALING = -3     /* there is a secret, but no key to seal with */
} td_keys_status_e;

/*
 * Looks at /jwks/keys and /issuers/N/jwks/keys of a body.  What has another shape
 * is left alone: SQL refuses it.  secret_key may be NULL.
 */
td_keys_status_e td_keys_prepare(json_t *body, const uint8_t *secret_key,
    tg_error_t *err);

/* The same for the "keys" array of a fetched set: public keys only. */
td_keys_status_e td_keys_check_public(const json_t *keys, tg_error_t *err);

#endif /* TD_KEYS_H */
