/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "td_users.h"


static int
td_users_fail(tg_error_t *err, const char *what, const char *path)
{
    tg_error_set(err, "", "cannot %s %.150s: %s", what, path, strerror(errno));

    return -1;
}


static int
td_users_has(const td_range_t *range, gid_t gid)
{
    return (long) gid >= range->first && (long) gid <= range->last;
}


/* Marks those of the range that a prefix below the directory has. */
static void
td_users_mark(DIR *dir, const td_range_t *range, char *taken)
{
    struct stat     st;
    struct dirent  *entry;

    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.'
            && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0
            && td_users_has(range, st.st_gid))
        {
            taken[(long) st.st_gid - range->first] = 1;
        }
    }
}


/* The directory is locked: nobody else takes one meanwhile. */
static int
td_users_make(DIR *dir, const char *path, const td_range_t *range, uid_t *uid,
    tg_error_t *err)
{
    long   i, n;
    char  *taken;

    n = range->last - range->first + 1;
    taken = calloc(1, (size_t) n);

    if (taken == NULL) {
        return td_users_fail(err, "make", path);
    }

    td_users_mark(dir, range, taken);

    for (i = 0; i < n && taken[i]; i++) { /* void */ }

    free(taken);

    if (i == n) {
        tg_error_set(err, "", "each of the %ld users of [provisioner] users has "
                     "a gateway", n);
        return -1;
    }

    *uid = (uid_t) (range->first + i);

    if (mkdir(path, 0700) != 0) {
        return td_users_fail(err, "make", path);
    }

    if (chown(path, (uid_t) -1, (gid_t) *uid) != 0) {
        (void) td_users_fail(err, "give away", path);
        rmdir(path);
        return -1;
    }

    return 0;
}


int
td_users_take(const char *directory, const char *path, const td_range_t *range,
    int make, uid_t *uid, tg_error_t *err)
{
    int          rc;
    DIR         *dir;
    struct stat  st;

    if (lstat(path, &st) == 0) {
        *uid = (uid_t) st.st_gid;
        return td_users_has(range, st.st_gid) ? 0 : 1;
    }

    if (!make) {
        return td_users_fail(err, "find", path);
    }

    dir = opendir(directory);
    if (dir == NULL) {
        return td_users_fail(err, "read", directory);
    }

    /* held for as long as it takes to read the directory */
    if (flock(dirfd(dir), LOCK_EX) != 0) {
        rc = td_users_fail(err, "lock", directory);
    } else {
        rc = td_users_make(dir, path, range, uid, err);
    }

    closedir(dir);

    return rc;
}
