/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "td_replace.h"


/* The directory, in which the name is. */
static int
td_replace_settle(const char *path)
{
    int          fd, rc, error;
    char         directory[PATH_MAX];
    const char  *slash;

    slash = strrchr(path, '/');
    snprintf(directory, sizeof(directory), "%.*s",
             slash != NULL ? (int) (slash - path) + 1 : 1, slash != NULL ? path : ".");

    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }

    rc = fsync(fd);
    error = errno;
    close(fd);
    errno = error;

    return rc;
}


int
td_replace(int fd, const char *from, const char *to)
{
    /* in this order: a name that is on disk before its content would lose both */
    return fsync(fd) == 0 && rename(from, to) == 0 ? td_replace_settle(to) : -1;
}
