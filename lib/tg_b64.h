/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * base64url without padding (RFC 4648 section 5, RFC 7515 section 2), strictly:
 * one text for one value.  OpenSSL's decoders take the other alphabet and let
 * white space and stray bits pass, so two texts could carry one signature.
 */

#ifndef TG_B64_H
#define TG_B64_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Room that decoding n characters, or encoding n bytes, can need. */
#define tg_b64url_decoded_size(n)  ((n) / 4 * 3 + 2)
#define tg_b64url_encoded_size(n)  (((n) * 4 + 2) / 3)

/*
 * Decodes len characters into dst, which must have
 * tg_b64url_decoded_size(len) bytes.  Returns the number of bytes, or -1: a
 * character outside the alphabet (padding and white space included), an
 * impossible length, or trailing bits that are not zero.
 */
ssize_t tg_b64url_decode(uint8_t *dst, const char *src, size_t len);

/*
 * Encodes; dst has tg_b64url_encoded_size(len) bytes, no NUL is added.  Returns
 * the number of characters.
 */
size_t tg_b64url_encode(char *dst, const uint8_t *src, size_t len);

#endif /* TG_B64_H */
