/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Links, addresses and routes by rtnetlink(7), in the network namespace of the
 * caller.  All return 0 or a negative errno.
 */

#ifndef TD_NETLINK_H
#define TD_NETLINK_H

#include <stdint.h>

#include "tg_mesh.h"

/* A pair of virtual links; peer is made in the namespace of that descriptor. */
int td_netlink_veth(const char *name, const char *peer, int netns);

/* -ENODEV: it is gone already. */
int td_netlink_delete(const char *name);

int td_netlink_up(const char *name);

/* prefix is of 128; no duplicate detection, no route to the net. */
int td_netlink_address(const char *name, const struct tg_addr *addr, uint32_t prefix);

/* To addr/prefix by the link, over gateway unless that is NULL, from source unless
 * that is NULL.  addr NULL: the default, of the gateway's family.  -EINVAL: source is
 * no address of this machine. */
int td_netlink_route(const char *name, const struct tg_addr *addr, uint32_t prefix,
    const struct tg_addr *gateway, const struct tg_addr *source);

#endif /* TD_NETLINK_H */
