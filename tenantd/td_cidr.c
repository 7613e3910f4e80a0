/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_cidr.h"


static const uint8_t  td_cidr_mapped[12] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff
};

/* The first that matches decides; from the IANA special-purpose registries. */
static const struct {
    const char  *cidr;
    const char  *what;
} td_cidr_specials[] = {
    { "0.0.0.0/8",        "unspecified" },
    { "127.0.0.0/8",      "loopback" },
    { "169.254.0.0/16",   "link-local (metadata services are there)" },
    { "10.0.0.0/8",       "private" },
    { "172.16.0.0/12",    "private" },
    { "192.168.0.0/16",   "private" },
    { "100.64.0.0/10",    "private" },
    { "192.0.0.0/24",     "reserved" },
    { "192.0.2.0/24",     "reserved" },
    { "192.88.99.0/24",   "reserved" },
    { "198.18.0.0/15",    "reserved" },
    { "198.51.100.0/24",  "reserved" },
    { "203.0.113.0/24",   "reserved" },
    { "224.0.0.0/4",      "multicast" },
    { "240.0.0.0/4",      "reserved" },
    { "::/128",           "unspecified" },
    { "::1/128",          "loopback" },
    { "fe80::/10",        "link-local (metadata services are there)" },
    { "fec0::/10",        "private" },
    { "fc00::/7",         "private" },
    { "ff00::/8",         "multicast" },
    { "2001:db8::/32",    "reserved" },
    { "100::/64",         "reserved" },
    { "64:ff9b:1::/48",   "private" },
    { "::/96",            "reserved" },
};


static int
td_cidr_address(const struct sockaddr *sa, uint8_t address[16])
{
    switch (sa->sa_family) {

    case AF_INET:
        memcpy(address, td_cidr_mapped, 12);
        memcpy(address + 12,
               &((const struct sockaddr_in *) (const void *) sa)->sin_addr, 4);
        return 0;

    case AF_INET6:
        memcpy(address,
               &((const struct sockaddr_in6 *) (const void *) sa)->sin6_addr,
               16);
        return 0;

    default:
        return -1;
    }
}


static int
td_cidr_covers(const td_cidr_t *cidr, const uint8_t address[16])
{
    size_t   whole;
    uint8_t  mask;

    whole = cidr->bits / 8;

    if (memcmp(cidr->address, address, whole) != 0) {
        return 0;
    }

    if (cidr->bits % 8 == 0) {
        return 1;
    }

    mask = (uint8_t) (0xff << (8 - cidr->bits % 8));

    return (cidr->address[whole] & mask) == (address[whole] & mask);
}


int
td_cidr_parse(const char *text, td_cidr_t *cidr)
{
    int        v4;
    char       buf[64], *slash, *end;
    long       bits;
    unsigned   i;
    td_cidr_t  masked;

    if (snprintf(buf, sizeof(buf), "%s", text) >= (int) sizeof(buf)) {
        return -1;
    }

    slash = strchr(buf, '/');
    if (slash != NULL) {
        *slash++ = '\0';
    }

    memcpy(cidr->address, td_cidr_mapped, 12);
    v4 = inet_pton(AF_INET, buf, cidr->address + 12) == 1;

    if (!v4 && inet_pton(AF_INET6, buf, cidr->address) != 1) {
        return -1;
    }

    bits = v4 ? 32 : 128;

    if (slash != NULL) {
        if (*slash < '0' || *slash > '9') {
            return -1;
        }

        i = (unsigned) bits;
        bits = strtol(slash, &end, 10);
        if (*end != '\0' || bits > (long) i) {
            return -1;
        }
    }

    cidr->bits = (unsigned) bits + (v4 ? 96 : 0);

    masked = *cidr;
    for (i = cidr->bits; i < 128; i++) {
        masked.address[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
    }

    return memcmp(masked.address, cidr->address, 16) == 0 ? 0 : -1;
}


int
td_cidr_match(const td_cidr_t *cidr, const struct sockaddr *sa)
{
    uint8_t  address[16];

    return td_cidr_address(sa, address) == 0 && td_cidr_covers(cidr, address);
}


/* Puts the IPv4 address that a transition address leads to in its place. */
static void
td_cidr_unwrap(uint8_t address[16])
{
    uint8_t               v4[4];
    static const uint8_t  nat64[12] = { 0, 0x64, 0xff, 0x9b };
    static const uint8_t  sixtofour[2] = { 0x20, 0x02 };

    if (memcmp(address, nat64, 12) == 0) {
        memcpy(v4, address + 12, 4);

    } else if (memcmp(address, sixtofour, 2) == 0) {
        memcpy(v4, address + 2, 4);

    } else {
        return;
    }

    memcpy(address, td_cidr_mapped, 12);
    memcpy(address + 12, v4, 4);
}


const char *
td_cidr_special(const struct sockaddr *sa)
{
    size_t     i;
    uint8_t    address[16];
    td_cidr_t  cidr;

    if (td_cidr_address(sa, address) != 0) {
        return "not an IP address";
    }

    td_cidr_unwrap(address);

    for (i = 0; i < sizeof(td_cidr_specials) / sizeof(td_cidr_specials[0]); i++)
    {
        if (td_cidr_parse(td_cidr_specials[i].cidr, &cidr) != 0
            || td_cidr_covers(&cidr, address))
        {
            return td_cidr_specials[i].what;
        }
    }

    return NULL;
}
