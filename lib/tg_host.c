/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <string.h>

#include "tg_host.h"

#define TG_LABEL_MAX  63
#define TG_PORT_MAX   65535


static int
tg_host_digit(char c)
{
    return c >= '0' && c <= '9';
}


/* What a byte of a name becomes; 0: no name has it. */
static const char  tg_host_bytes[256] = {
    ['-'] = '-', ['.'] = '.', ['_'] = '_',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4',
    ['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9',
    ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e',
    ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j',
    ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o',
    ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't',
    ['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y',
    ['z'] = 'z',
    ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e',
    ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j',
    ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o',
    ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't',
    ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y',
    ['Z'] = 'z'
};


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


static int
tg_host_label(const char *label, size_t len)
{
    return len > 0 && len <= TG_LABEL_MAX && label[0] != '-'
           && label[len - 1] != '-';
}


/*
 * Lowers a name of labels into out.  1: a name; 4: its last label is a number, so
 * it is an IPv4 address or nothing; 0: neither.
 */
static int
tg_host_labels(const char *in, size_t len, char *out)
{
    int     digits;
    char    c;
    size_t  i, start;

    digits = 1;
    start = 0;

    for (i = 0; i < len; i++) {
        c = tg_host_bytes[(unsigned char) in[i]];
        out[i] = c;

        if (c == '.') {
            if (!tg_host_label(out + start, i - start)) {
                return 0;
            }

            start = i + 1;
            digits = 1;
            continue;
        }

        if (c == '\0') {
            return 0;
        }

        digits &= tg_host_digit(c);
    }

    if (!tg_host_label(out + start, i - start)) {
        return 0;
    }

    return digits ? 4 : 1;
}


ssize_t
tg_host_normalize(const char *in, size_t len, char *out, size_t outsz)
{
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

    out[len] = '\0';

    switch (tg_host_labels(in, len, out)) {
    case 1:
        return (ssize_t) len;
    case 4:
        return inet_pton(AF_INET, out, &addr) == 1 ? (ssize_t) len : -1;
    default:
        return -1;
    }
}


int
tg_host_check(const char *host, size_t len)
{
    char  lowered[TG_HOST_SIZE];

    if (len > 2 && host[0] == '*' && host[1] == '.') {
        host += 2;
        len -= 2;
    }

    return len > 0 && len <= TG_HOST_MAX
           && tg_host_labels(host, len, lowered) == 1
           && memcmp(lowered, host, len) == 0;
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
