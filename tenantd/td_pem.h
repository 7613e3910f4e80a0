/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Public keys in PEM, as people have them at hand, into JWKs.
 */

#ifndef TD_PEM_H
#define TD_PEM_H

#include <jansson.h>

#include "tg_error.h"

#define TD_PEM_MAX  16384

typedef enum {
    TD_PEM_OK = 0,
    TD_PEM_INVALID = -1,
    TD_PEM_PRIVATE = -2
} td_pem_status_e;

/*
 * Replaces the member "pem" of jwk, one "PUBLIC KEY" (RFC 7468 section 13) or
 * "CERTIFICATE", by the members of RFC 7518 and RFC 8037.  RSA, P-256, P-384,
 * P-521, Ed25519 and Ed448.  On failure err says why, its pointer is "/pem".
 */
td_pem_status_e td_pem_to_jwk(json_t *jwk, tg_error_t *err);

#endif /* TD_PEM_H */
