/* SPDX-License-Identifier: BSD-2-Clause */

/* A workload's own side of its network namespace. */

#ifndef TD_EXEC_NET_H
#define TD_EXEC_NET_H

#include "tg_mesh.h"

/* The link-local address that is the gateway of an address's family. */
void td_exec_gateway(const struct tg_addr *addr, struct tg_addr *gateway);

/* Brings the link of this namespace up with the address and a default route.  0 or
 * a negative errno. */
int td_exec_wire(const char *link, const struct tg_addr *addr);

#endif /* TD_EXEC_NET_H */
