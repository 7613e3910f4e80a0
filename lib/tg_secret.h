/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Sealed secrets: AES-256-GCM under a master key that is not in the database,
 * key id inside the sealed text, additional data "tiergate:jwk:v1".
 */

#ifndef TG_SECRET_H
#define TG_SECRET_H

#include <stddef.h>
#include <stdint.h>

/*
 * Opens what was sealed.  *secret_len: room in secret on the way in, bytes on
 * the way out.  Returns 0, or -1: not sealed with this key, damaged, or no room
 * (secret is then wiped).
 */
int tg_secret_open(const uint8_t key[32], const char *sealed, size_t sealed_len,
    uint8_t *secret, size_t *secret_len);

#endif /* TG_SECRET_H */
