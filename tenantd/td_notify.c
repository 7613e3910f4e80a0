/* SPDX-License-Identifier: BSD-2-Clause */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "td_notify.h"


void
td_notify(const char *state)
{
    int                  fd;
    size_t               n;
    const char          *path;
    struct sockaddr_un   sun = { .sun_family = AF_UNIX };

    path = getenv("NOTIFY_SOCKET");
    n = path != NULL ? strlen(path) : 0;

    if (n == 0 || n >= sizeof(sun.sun_path)) {
        return;
    }

    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }

    memcpy(sun.sun_path, path, n);

    if (path[0] == '@') {
        sun.sun_path[0] = '\0';     /* the abstract namespace */
    }

    (void) !sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                   (const struct sockaddr *) &sun,
                   (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}
