/* SPDX-License-Identifier: BSD-2-Clause */

#include "tg_b64.h"


/* 0x80: not in the alphabet. */
#define X16  0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, \
             0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80

static const uint8_t  tg_b64url_value[256] = {
    X16, X16,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 62, 0x80, 0x80,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 0x80, 0x80, 0x80, 0x80, 63,
    0x80, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 0x80, 0x80, 0x80, 0x80, 0x80,
    X16, X16, X16, X16, X16, X16, X16, X16
};

static const char  tg_b64url_char[64] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


ssize_t
tg_b64url_decode(uint8_t *dst, const char *src, size_t len)
{
    uint8_t         bad, a, b, c, d;
    uint8_t        *out;
    const uint8_t  *p, *last;

    p = (const uint8_t *) src;
    last = p + len / 4 * 4;
    out = dst;
    bad = 0;

    while (p < last) {
        a = tg_b64url_value[p[0]];
        b = tg_b64url_value[p[1]];
        c = tg_b64url_value[p[2]];
        d = tg_b64url_value[p[3]];
        p += 4;

        bad |= a | b | c | d;

        *out++ = (uint8_t) (a << 2 | b >> 4);
        *out++ = (uint8_t) (b << 4 | c >> 2);
        *out++ = (uint8_t) (c << 6 | d);
    }

    switch (len % 4) {

    case 0:
        break;

    case 2:
        a = tg_b64url_value[p[0]];
        b = tg_b64url_value[p[1]];
        bad |= a | b | (b & 0x0f ? 0x80 : 0);
        *out++ = (uint8_t) (a << 2 | b >> 4);
        break;

    case 3:
        a = tg_b64url_value[p[0]];
        b = tg_b64url_value[p[1]];
        c = tg_b64url_value[p[2]];
        bad |= a | b | c | (c & 0x03 ? 0x80 : 0);
        *out++ = (uint8_t) (a << 2 | b >> 4);
        *out++ = (uint8_t) (b << 4 | c >> 2);
        break;

    default:    /* one character carries no byte */
        return -1;
    }

    return bad & 0x80 ? -1 : out - dst;
}


size_t
tg_b64url_encode(char *dst, const uint8_t *src, size_t len)
{
    char  *out;

    out = dst;

    for ( /* void */ ; len >= 3; len -= 3, src += 3) {
        *out++ = tg_b64url_char[src[0] >> 2];
        *out++ = tg_b64url_char[(src[0] & 0x03) << 4 | src[1] >> 4];
        *out++ = tg_b64url_char[(src[1] & 0x0f) << 2 | src[2] >> 6];
        *out++ = tg_b64url_char[src[2] & 0x3f];
    }

    if (len == 2) {
        *out++ = tg_b64url_char[src[0] >> 2];
        *out++ = tg_b64url_char[(src[0] & 0x03) << 4 | src[1] >> 4];
        *out++ = tg_b64url_char[(src[1] & 0x0f) << 2];

    } else if (len == 1) {
        *out++ = tg_b64url_char[src[0] >> 2];
        *out++ = tg_b64url_char[(src[0] & 0x03) << 4];
    }

    return (size_t) (out - dst);
}
