/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <string.h>

#include "tg_host.h"

#define TG_LABEL_MAX  63
#define TG_PORT_MAX   65535


static char
tg_host_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char) (c | 0x20) : c;
}


static int
tg_host_digit(char c)
{
    return c >= '0' && c <= '9';
}


/* Letters in lower case only: callers have lowered what may be lowered. */
static int
tg_host_ldh(char c)
{
    return (c >= 'a' && c <= 'z') || tg_host_digit(c) || c == '-' || c == '_';
}


/* ":" and what RFC 3986 calls *DIGIT, or nothing. */
static int
tg_host_port(const char *p, const char *end)
{
    unsigned  port;

    if (p == end) {
        return 1;
    }

    if (*p++ != ':') {
        return 0;
    }

    for (port = 0; p < end; p++) {
        if (!tg_host_digit(*p)) {
            return 0;
        }

        port = port * 10 + (unsigned) (*p - '0');

        if (port > TG_PORT_MAX) {
            return 0;
        }
    }

    return 1;
}


static ssize_t
tg_host_ipv6(const char *in, size_t len, char *out, size_t outsz)
{
    size_t           n;
    const char      *end;
    char             text[INET6_ADDRSTRLEN];
    struct in6_addr  addr;

    end = memchr(in, ']', len);

    if (end == NULL || !tg_host_port(end + 1, in + len)) {
        return -1;
    }

    n = (size_t) (end - in) - 1;

    if (n >= sizeof(text)) {
        return -1;
    }

    memcpy(text, in + 1, n);
    text[n] = '\0';

    /* A NUL inside would hide what follows it. */
    if (strlen(text) != n || inet_pton(AF_INET6, text, &addr) != 1) {
        return -1;
    }

    (void) inet_ntop(AF_INET6, &addr, text, sizeof(text));
    n = strlen(text);

    if (n + 3 > outsz) {
        return -1;
    }

    out[0] = '[';
    memcpy(out + 1, text, n);
    memcpy(out + 1 + n, "]", 2);

    return (ssize_t) n + 2;
}


/*
 * The labels of a lowered name.  1: a name; 4: its last label is a number, so it
 * is an IPv4 address or nothing; 0: neither.
 */
static int
tg_host_labels(const char *name, size_t len)
{
    size_t  i, start;
    int     digits;

    digits = 1;
    start = 0;

    for (i = 0; i <= len; i++) {
        if (i < len && name[i] != '.') {
            if (!tg_host_ldh(name[i])) {
                return 0;
            }

            digits &= tg_host_digit(name[i]);
            continue;
        }

        if (i == start || i - start > TG_LABEL_MAX || name[start] == '-'
            || name[i - 1] == '-')
        {
            return 0;
        }

        if (i < len) {
            start = i + 1;
            digits = 1;
        }
    }

    return digits ? 4 : 1;
}


ssize_t
tg_host_normalize(const char *in, size_t len, char *out, size_t outsz)
{
    size_t          n;
    const char     *end;
    struct in_addr  addr;

    if (len > 0 && in[0] == '[') {
        return tg_host_ipv6(in, len, out, outsz);
    }

    end = memchr(in, ':', len);

    if (end != NULL) {
        if (!tg_host_port(end, in + len)) {
            return -1;
        }

        len = (size_t) (end - in);
    }

    if (len > 0 && in[len - 1] == '.') {
        len--;
    }

    if (len == 0 || len > TG_HOST_MAX || len >= outsz) {
        return -1;
    }

    for (n = 0; n < len; n++) {
        out[n] = tg_host_lower(in[n]);
    }

    out[n] = '\0';

    switch (tg_host_labels(out, n)) {
    case 1:
        return (ssize_t) n;
    case 4:
        return inet_pton(AF_INET, out, &addr) == 1 ? (ssize_t) n : -1;
    default:
        return -1;
    }
}


int
tg_host_check(const char *host, size_t len)
{
    if (len > 2 && host[0] == '*' && host[1] == '.') {
        host += 2;
        len -= 2;
    }

    return len > 0 && len <= TG_HOST_MAX && tg_host_labels(host, len) == 1;
}


int
tg_host_match(const char *pattern, size_t pattern_len, const char *host,
    size_t len)
{
    if (pattern_len == 0 || pattern[0] != '.') {
        return pattern_len == len && memcmp(pattern, host, len) == 0;
    }

    return len > pattern_len
           && memcmp(host + len - pattern_len, pattern, pattern_len) == 0;
}
