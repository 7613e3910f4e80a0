/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Networks, and which addresses may be fetched from: a tenant names the URL of
 * its key set, so it must not be able to make tenantd talk to what only tenantd
 * can reach.
 */

#ifndef TD_CIDR_H
#define TD_CIDR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct {
    uint8_t   address[16];      /* IPv4 is held as ::ffff:a.b.c.d */
    unsigned  bits;             /* of the 128 */
} td_cidr_t;

/* "10.0.0.0/8", "fd00::/8", or an address alone.  Host bits must be 0.
 * Returns 0, or -1. */
int td_cidr_parse(const char *text, td_cidr_t *cidr);

/* Whether sa (AF_INET or AF_INET6; IPv4-mapped counts as IPv4) lies in cidr. */
int td_cidr_match(const td_cidr_t *cidr, const struct sockaddr *sa);

/*
 * NULL when sa is a public unicast address, else what it is: "loopback",
 * "link-local (metadata services are there)", "private", "unspecified",
 * "multicast", "reserved", "not an IP address".  An IPv4 address inside
 * ::ffff:0:0/96, NAT64 (64:ff9b::/96) or 6to4 (2002::/16) is judged as that
 * IPv4 address.
 */
const char *td_cidr_special(const struct sockaddr *sa);

#endif /* TD_CIDR_H */
