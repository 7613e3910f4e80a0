/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Hostnames as requests carry them (Host, :authority, the target's authority:
 * RFC 9110 section 7.2, RFC 3986 section 3.2.2) and as tenants own them.
 */

#ifndef TG_HOST_H
#define TG_HOST_H

#include <stddef.h>
#include <sys/types.h>

#define TG_HOST_MAX  253

/* Room for every normalised host and its NUL. */
#define TG_HOST_SIZE  (TG_HOST_MAX + 1)

/*
 * Normalises what a client sent: lower case, without port, without one trailing
 * dot; an IPv6 address in its canonical form (RFC 5952) in brackets.  Only names
 * of letters, digits, hyphens and underscores in labels of 1 to 63 bytes, IPv4
 * addresses and bracketed IPv6 addresses pass; a name whose last label is a
 * number must be an IPv4 address.
 *
 * Returns the length of what is in out, NUL-terminated, or -1: refused, or out
 * is too small.
 */
ssize_t tg_host_normalize(const char *in, size_t len, char *out, size_t outsz);

/*
 * Whether a host of a tenant document is as it must be: already normalised, no
 * address, perhaps with "*." in front.
 */
int tg_host_check(const char *host, size_t len);

/*
 * Whether a normalised host belongs to a host of a block, where a wildcard is
 * written ".suffix" and stands for one or more further labels.
 */
int tg_host_match(const char *pattern, size_t pattern_len, const char *host,
    size_t len);

#endif /* TG_HOST_H */
