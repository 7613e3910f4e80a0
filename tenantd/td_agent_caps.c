/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "td_agent_caps.h"


static const struct {
    const char  *name;
    int          number;
    int          kept;
} td_caps[] = {
    { "CAP_BPF",       CAP_BPF,       1 },
    { "CAP_NET_ADMIN", CAP_NET_ADMIN, 1 },
    { "CAP_PERFMON",   CAP_PERFMON,   0 },
};

#define TD_CAPS  (sizeof(td_caps) / sizeof(td_caps[0]))


static uint64_t
td_caps_wanted(void)
{
    size_t    i;
    uint64_t  wanted;

    for (i = 0, wanted = 0; i < TD_CAPS; i++) {
        wanted |= td_caps[i].kept ? UINT64_C(1) << td_caps[i].number : 0;
    }

    return wanted;
}


static int
td_caps_get(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct  header;

    header.version = _LINUX_CAPABILITY_VERSION_3;
    header.pid = 0;

    return (int) syscall(SYS_capget, &header, data);
}


const char *
td_caps_missing(void)
{
    int                            number;
    size_t                         i;
    struct __user_cap_data_struct  data[2];

    memset(data, 0, sizeof(data));
    (void) td_caps_get(data);

    for (i = 0; i < TD_CAPS; i++) {
        number = td_caps[i].number;

        if ((data[number / 32].effective & 1U << number % 32) == 0) {
            return td_caps[i].name;
        }
    }

    return NULL;
}


/* EPERM: without CAP_SETPCAP the bounding set stays, but so do we without it. */
static int
td_caps_bound(uint64_t wanted)
{
    int  number;

    for (number = 0; number < 64; number++) {
        if (wanted >> number & 1) {
            continue;
        }

        if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0 && errno != EINVAL
            && errno != EPERM)
        {
            return -1;
        }
    }

    return 0;
}


int
td_caps_drop(void)
{
    uint64_t                         wanted;
    struct __user_cap_data_struct    data[2];
    struct __user_cap_header_struct  header;

    wanted = td_caps_wanted();

    if (td_caps_bound(wanted) != 0
        || (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0
            && errno != EINVAL))
    {
        return -1;
    }

    memset(data, 0, sizeof(data));
    data[0].effective = data[0].permitted = (uint32_t) wanted;
    data[1].effective = data[1].permitted = (uint32_t) (wanted >> 32);
    header.version = _LINUX_CAPABILITY_VERSION_3;
    header.pid = 0;

    if (syscall(SYS_capset, &header, data) != 0) {
        return -1;
    }

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
