/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A JSON Web Token in compact serialisation (RFC 7519, RFC 7515 section 7.1),
 * taken apart and nothing else: what comes out is what the sender claims, not
 * what is true.
 *
 * Strict where a second reader of the same token could see something else:
 * exactly three parts, canonical base64url, UTF-8, no duplicate member at any
 * depth, no NUL in a string, nothing after the JSON text.
 */

#ifndef TG_JWT_H
#define TG_JWT_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tg_b64.h"
#include "tg_block.h"
#include "tg_jwk.h"
#include "tg_verify.h"

#define TG_JWT_MAX_TOKEN   (16 * 1024)  /* characters in all */
#define TG_JWT_MAX_HEADER  (2 * 1024)   /* characters of the first part */

typedef enum {
    TG_JWT_OK = 0,
    TG_JWT_TOO_LONG,
    TG_JWT_PARTS,           /* not three parts, or an empty one */
    TG_JWT_BASE64,
    TG_JWT_JSON,            /* header or claims are not one JSON object */
    TG_JWT_HEADER,          /* "typ", "kid" or "alg" of the wrong form */
    TG_JWT_CRITICAL,        /* "crit": an extension must be understood */
    TG_JWT_ALGORITHM        /* one that is never verified; "none" is */
} tg_jwt_status_e;

/*
 * Headers that were read before.  All tokens of one key have the same header, to
 * the letter, and reading it is a fifth of the work on a token.
 */
typedef struct tg_jwt_memo_s  tg_jwt_memo_t;

typedef struct {
    uint32_t     alg;               /* one bit of TG_ALG_* */
    size_t       kid_len;
    const char  *kid;               /* in header or memo; NULL: has none */
    json_t      *header;            /* NULL: the memo had it */
    json_t      *claims;            /* an object */
    const char  *signed_part;       /* header and claims as sent; in the token */
    size_t       signed_len;
    size_t       signature_len;
    uint8_t      signature[tg_b64url_decoded_size(
                     tg_b64url_encoded_size(TG_VERIFY_MAX_SIGNATURE))];
} tg_jwt_t;

/* Empty, or NULL: no memory. */
tg_jwt_memo_t *tg_jwt_memo_create(void);

void tg_jwt_memo_destroy(tg_jwt_memo_t *memo);

/*
 * Takes a token apart.  memo may be NULL.  TG_JWT_OK: jwt must be cleared, before
 * the memo is used again; the token must outlive it.  Otherwise nothing is held.
 */
tg_jwt_status_e tg_jwt_parse(tg_jwt_t *jwt, tg_jwt_memo_t *memo,
    const char *token, size_t len);

void tg_jwt_clear(tg_jwt_t *jwt);

#endif /* TG_JWT_H */
