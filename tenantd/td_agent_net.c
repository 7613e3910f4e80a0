/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "td_agent_kernel.h"
#include "td_agent_net.h"
#include "td_exec_net.h"
#include "td_log.h"
#include "td_netlink.h"


#define TD_NET_TRIES  65536


static int
td_net_taken(td_agent_t *agent, const td_runs_t *runs, const struct tg_addr *addr)
{
    size_t           i;
    const td_run_t  *run;

    for (run = td_runs_first(runs); run != NULL; run = run->next) {
        for (i = 0; i < run->n_addrs; i++) {
            if (memcmp(&run->addrs[i], addr, sizeof(*addr)) == 0) {
                return 1;
            }
        }
    }

    return td_kernel_taken(agent->kernel, addr);
}


/* From a random place on, so that an address is not given to the next at once: of
 * what was known of the one before something may still be under way. */
static int
td_net_pick(td_agent_t *agent, const td_runs_t *runs, const td_doc_net_t *net,
    struct tg_addr *addr)
{
    uint32_t  bits, room, start, i, host;

    bits = 128 - net->prefix;
    room = bits >= 31 ? 0x7fffffff : (1U << bits) - 1;
    start = (uint32_t) random();

    for (i = 0; i < TD_NET_TRIES && i <= room; i++) {
        host = bits == 0 ? 0 : (start + i) & room;

        /* the net itself, and what is all ones */
        if (bits > 1 && (host == 0 || host == room)) {
            continue;
        }

        *addr = net->addr;
        addr->w[3] |= htonl(host);

        if (!td_net_taken(agent, runs, addr)) {
            return 0;
        }
    }

    return -1;
}


size_t
td_net_allocate(td_agent_t *agent, const td_runs_t *runs, const td_doc_nets_t *nets,
    struct tg_addr addrs[TD_RUN_ADDRESSES])
{
    int     family, had[2] = { 0, 0 };
    size_t  i, n;

    for (i = 0, n = 0; i < nets->n; i++) {
        family = td_doc_is_ipv4(&nets->item[i].addr);

        if (!had[family]
            && td_net_pick(agent, runs, &nets->item[i], &addrs[n]) == 0)
        {
            had[family] = 1;
            n++;
        }
    }

    return n;
}


static int
td_net_forward_by(const char *link, int version, const char *name)
{
    int   fd, rc;
    char  path[96];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv%d/conf/%s/%s", version, link, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        return -1;
    }

    rc = write(fd, "1", 1) == 1 ? 0 : -1;
    close(fd);

    return rc;
}


/* What comes in by the link may go on by others.  Of IPv6 that is for the whole
 * machine to say, net.ipv6.conf.all.forwarding, unless Linux is 6.17 or newer. */
static void
td_net_forward(const char *link, int version)
{
    if (td_net_forward_by(link, version, "forwarding") != 0) {
        td_log(TD_LOG_WARN, "exec", "workloads reach this machine only: forwarding of "
               "IPv%d cannot be enabled on %s: %m", version, link);
    }

    if (version == 6) {
        (void) td_net_forward_by(link, version, "force_forwarding");
    }
}


static int
td_net_route_from(const char *link, const struct tg_addr *addr,
    const td_doc_nets_t *node)
{
    int     rc;
    size_t  i;

    for (i = 0; i < node->n; i++) {
        if (node->item[i].prefix != 128
            || td_doc_is_ipv4(&node->item[i].addr) != td_doc_is_ipv4(addr))
        {
            continue;
        }

        rc = td_netlink_route(link, addr, 128, NULL, &node->item[i].addr);

        if (rc != -EINVAL) {
            return rc;
        }
    }

    return td_netlink_route(link, addr, 128, NULL, NULL);
}


int
td_net_route(const char *link, const struct tg_addr *addr,
    const td_doc_nets_t *node)
{
    int             rc;
    struct tg_addr  gateway;

    td_exec_gateway(addr, &gateway);

    rc = td_netlink_up(link);
    rc = rc == 0 ? td_netlink_address(link, &gateway, 128) : rc;
    rc = rc == 0 ? td_net_route_from(link, addr, node) : rc;

    if (rc == 0) {
        td_net_forward(link, td_doc_is_ipv4(addr) ? 4 : 6);
    }

    return rc;
}
