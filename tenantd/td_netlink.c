/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "td_netlink.h"


#define TD_NETLINK_SIZE  1024

/* A request that grows. */
typedef struct {
    struct nlmsghdr  head;
    char             body[TD_NETLINK_SIZE];
} td_netlink_t;


static void *
td_netlink_add(td_netlink_t *request, const void *data, size_t len)
{
    char  *at;

    at = (char *) request + NLMSG_ALIGN(request->head.nlmsg_len);
    memcpy(at, data, len);
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + (uint32_t) len;

    return at;
}


static struct rtattr *
td_netlink_attr(td_netlink_t *request, uint16_t type, const void *data, size_t len)
{
    void           *at;
    struct rtattr   attr;

    attr.rta_type = type;
    attr.rta_len = (uint16_t) RTA_LENGTH(len);
    at = td_netlink_add(request, &attr, sizeof(attr));

    if (len > 0) {
        td_netlink_add(request, data, len);
    }

    return at;
}


/* Closes an attribute that holds what was added since. */
static void
td_netlink_close(td_netlink_t *request, struct rtattr *attr)
{
    attr->rta_len = (uint16_t) ((char *) request + request->head.nlmsg_len
                                - (char *) attr);
}


static void
td_netlink_begin(td_netlink_t *request, uint16_t type, uint16_t flags,
    const void *body, size_t len)
{
    memset(request, 0, sizeof(*request));
    request->head.nlmsg_len = NLMSG_LENGTH(0);
    request->head.nlmsg_type = type;
    request->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request->head.nlmsg_seq = 1;
    td_netlink_add(request, body, len);
}


static int
td_netlink_send(const td_netlink_t *request)
{
    int                     fd, err;
    char                    answer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
    ssize_t                 n;
    const struct nlmsghdr  *head;

    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) {
        return -errno;
    }

    err = -EIO;
    n = send(fd, request, request->head.nlmsg_len, 0);

    if (n < 0) {
        err = -errno;

    } else {
        n = recv(fd, answer, sizeof(answer), 0);
        head = (const struct nlmsghdr *) (const void *) answer;

        if (n >= (ssize_t) NLMSG_LENGTH(sizeof(struct nlmsgerr))
            && head->nlmsg_type == NLMSG_ERROR)
        {
            err = ((const struct nlmsgerr *) NLMSG_DATA(head))->error;
        }
    }

    close(fd);

    return err;
}


int
td_netlink_veth(const char *name, const char *peer, int netns)
{
    td_netlink_t       request;
    struct rtattr     *info, *data, *end;
    struct ifinfomsg   link;

    memset(&link, 0, sizeof(link));
    td_netlink_begin(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link,
                     sizeof(link));
    td_netlink_attr(&request, IFLA_IFNAME, name, strlen(name) + 1);

    info = td_netlink_attr(&request, IFLA_LINKINFO, NULL, 0);
    td_netlink_attr(&request, IFLA_INFO_KIND, "veth", 4);
    data = td_netlink_attr(&request, IFLA_INFO_DATA, NULL, 0);
    end = td_netlink_attr(&request, VETH_INFO_PEER, NULL, 0);
    td_netlink_add(&request, &link, sizeof(link));
    td_netlink_attr(&request, IFLA_IFNAME, peer, strlen(peer) + 1);
    td_netlink_attr(&request, IFLA_NET_NS_FD, &netns, sizeof(netns));
    td_netlink_close(&request, end);
    td_netlink_close(&request, data);
    td_netlink_close(&request, info);

    return td_netlink_send(&request);
}


int
td_netlink_delete(const char *name)
{
    td_netlink_t      request;
    struct ifinfomsg  link;

    memset(&link, 0, sizeof(link));
    link.ifi_index = (int) if_nametoindex(name);

    if (link.ifi_index == 0) {
        return -ENODEV;
    }

    td_netlink_begin(&request, RTM_DELLINK, 0, &link, sizeof(link));

    return td_netlink_send(&request);
}


int
td_netlink_up(const char *name)
{
    td_netlink_t      request;
    struct ifinfomsg  link;

    memset(&link, 0, sizeof(link));
    link.ifi_index = (int) if_nametoindex(name);
    link.ifi_flags = IFF_UP;
    link.ifi_change = IFF_UP;

    if (link.ifi_index == 0) {
        return -ENODEV;
    }

    td_netlink_begin(&request, RTM_NEWLINK, 0, &link, sizeof(link));

    return td_netlink_send(&request);
}


/* The address as its family has it. */
static const void *
td_netlink_bytes(const struct tg_addr *addr, uint8_t *family, size_t *len)
{
    if (addr->w[0] == 0 && addr->w[1] == 0 && addr->w[2] == htonl(0xffff)) {
        *family = AF_INET;
        *len = 4;
        return &addr->w[3];
    }

    *family = AF_INET6;
    *len = 16;

    return addr;
}


int
td_netlink_address(const char *name, const struct tg_addr *addr, uint32_t prefix)
{
    size_t             len;
    uint32_t           flags;
    const void        *bytes;
    td_netlink_t       request;
    struct ifaddrmsg   message;

    memset(&message, 0, sizeof(message));
    bytes = td_netlink_bytes(addr, &message.ifa_family, &len);
    message.ifa_prefixlen = (uint8_t) (prefix - (128 - 8 * len));
    message.ifa_index = if_nametoindex(name);

    if (message.ifa_index == 0) {
        return -ENODEV;
    }

    flags = IFA_F_NODAD | IFA_F_NOPREFIXROUTE;
    td_netlink_begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &message,
                     sizeof(message));
    td_netlink_attr(&request, IFA_LOCAL, bytes, len);
    td_netlink_attr(&request, IFA_ADDRESS, bytes, len);
    td_netlink_attr(&request, IFA_FLAGS, &flags, sizeof(flags));

    return td_netlink_send(&request);
}


int
td_netlink_route(const char *name, const struct tg_addr *addr, uint32_t prefix,
    const struct tg_addr *gateway, const struct tg_addr *source)
{
    size_t          len;
    uint32_t        index;
    const void     *bytes;
    td_netlink_t    request;
    struct rtmsg    message;

    const struct tg_addr  *one;

    one = addr != NULL ? addr : gateway;

    if (one == NULL) {
        return -EINVAL;
    }

    memset(&message, 0, sizeof(message));
    bytes = td_netlink_bytes(one, &message.rtm_family, &len);
    message.rtm_dst_len = addr != NULL ? (uint8_t) (prefix - (128 - 8 * len)) : 0;
    message.rtm_table = RT_TABLE_MAIN;
    message.rtm_protocol = RTPROT_STATIC;
    message.rtm_scope = gateway != NULL ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    message.rtm_type = RTN_UNICAST;
    index = if_nametoindex(name);

    if (index == 0) {
        return -ENODEV;
    }

    td_netlink_begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &message,
                     sizeof(message));
    td_netlink_attr(&request, RTA_OIF, &index, sizeof(index));

    if (addr != NULL) {
        td_netlink_attr(&request, RTA_DST, bytes, len);
    }

    if (gateway != NULL) {
        td_netlink_attr(&request, RTA_GATEWAY,
                        td_netlink_bytes(gateway, &message.rtm_family, &len), len);
    }

    if (source != NULL) {
        td_netlink_attr(&request, RTA_PREFSRC,
                        td_netlink_bytes(source, &message.rtm_family, &len), len);
    }

    return td_netlink_send(&request);
}
