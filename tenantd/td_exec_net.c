/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <string.h>

#include "td_exec_net.h"
#include "td_netlink.h"


static int
td_exec_is_ipv4(const struct tg_addr *addr)
{
    return addr->w[0] == 0 && addr->w[1] == 0 && addr->w[2] == htonl(0xffff);
}


void
td_exec_gateway(const struct tg_addr *addr, struct tg_addr *gateway)
{
    memset(gateway, 0, sizeof(*gateway));

    if (td_exec_is_ipv4(addr)) {
        gateway->w[2] = htonl(0xffff);
        inet_pton(AF_INET, "169.254.1.1", &gateway->w[3]);
    } else {
        inet_pton(AF_INET6, "fe80::1", gateway);
    }
}


int
td_exec_wire(const char *link, const struct tg_addr *addr)
{
    int             rc;
    struct tg_addr  gateway;

    td_exec_gateway(addr, &gateway);

    rc = td_netlink_up("lo");
    rc = rc == 0 ? td_netlink_up(link) : rc;
    rc = rc == 0 ? td_netlink_address(link, addr, 128) : rc;
    rc = rc == 0 ? td_netlink_route(link, &gateway, 128, NULL, NULL) : rc;

    return rc == 0 ? td_netlink_route(link, NULL, 0, &gateway, NULL) : rc;
}
