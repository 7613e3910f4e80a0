/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Sealed secrets: what must be kept in the database or sent to a gateway, yet
 * be of no use to who reads it there.  AES-256-GCM (NIST SP 800-38D) under a
 * key that is in a file beside tenantd and the gateways, never in the database.
 *
 *     tg1.<key id>.<base64url of nonce (12), ciphertext, tag (16)>
 *
 * The key id is the first 4 bytes, in hex, of SHA-256("tiergate:key-id:v1" and
 * the key): it tells "wrong key" from "forged" and gives nothing of the key away.
 * The nonce is random; one key must not seal more than 2^32 secrets.  The
 * associated data is "tiergate:jwk:v1": a text sealed for another purpose does
 * not open here.
 */

#ifndef TG_SECRET_H
#define TG_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "tg_error.h"

#define TG_SECRET_KEY_SIZE   32
#define TG_SECRET_KEY_ID     8          /* characters */
#define TG_SECRET_MAX        4096       /* bytes of one secret */

/* Room for the sealed form of n bytes, and its NUL. */
#define tg_secret_sealed_size(n)                                              \
    (sizeof("tg1.12345678.") + (12 + (n) + 16) / 3 * 4 + 4)

typedef enum {
    TG_SECRET_OK = 0,
    TG_SECRET_MALFORMED = -1,   /* not the form above, or too long */
    TG_SECRET_OTHER_KEY = -2,   /* sealed under another key */
    TG_SECRET_FORGED = -3       /* the tag does not match */
} tg_secret_status_e;

/*
 * The key of text: 64 hex digits, white space around them allowed.  Returns 0,
 * or -1 with err (may be NULL) set and key wiped.
 */
int tg_secret_parse_key(const char *text, size_t len,
    uint8_t key[TG_SECRET_KEY_SIZE], tg_error_t *err);

/* The same from a file, which others than owner and group must not reach. */
int tg_secret_load_key(const char *path, uint8_t key[TG_SECRET_KEY_SIZE],
    tg_error_t *err);

/* Writes the key's id and a NUL. */
void tg_secret_key_id(const uint8_t key[TG_SECRET_KEY_SIZE],
    char id[TG_SECRET_KEY_ID + 1]);

/*
 * Seals len bytes (1 to TG_SECRET_MAX) into out, which has
 * tg_secret_sealed_size(len) bytes; NUL-terminated.  Returns 0, or -1: a bad
 * length or no randomness.
 */
int tg_secret_seal(const uint8_t key[TG_SECRET_KEY_SIZE],
    const uint8_t *secret, size_t len, char *out);

/*
 * Opens.  *secret_len is the room in secret before, the length after.  Unless
 * TG_SECRET_OK, secret holds nothing of the plain text.
 */
tg_secret_status_e tg_secret_open(const uint8_t key[TG_SECRET_KEY_SIZE],
    const char *sealed, size_t len, uint8_t *secret, size_t *secret_len);

#endif /* TG_SECRET_H */
