/* SPDX-License-Identifier: BSD-2-Clause */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "td_cgroup.h"
#include "td_log.h"


#define TD_CGROUP_PERIOD  100000        /* us, of cpu.max */

struct td_cgroup_s {
    size_t  mount_len;              /* of path: where the mount ends */
    char  path[PATH_MAX];               /* "": there are none */
    char  why[256];                     /* why there are none */
};


static int
td_cgroup_write(const char *directory, const char *name, const char *text)
{
    int      fd;
    char     path[PATH_MAX + 64];
    ssize_t  n;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }

    n = write(fd, text, strlen(text));
    close(fd);

    return n < 0 ? -1 : 0;
}


/* The first mount of type cgroup2, see proc(5), mountinfo. */
static int
td_cgroup_find_mount(char *path, size_t size)
{
    int    found;
    FILE  *file;
    char   line[PATH_MAX + 512], mount[PATH_MAX];

    file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL) {
        return -1;
    }

    found = 0;

    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = strstr(line, " - cgroup2 ") != NULL
                && sscanf(line, "%*s %*s %*s %*s %4095s", mount) == 1;
    }

    fclose(file);

    if (found) {
        snprintf(path, size, "%s", mount);
    }

    return found ? 0 : -1;
}


/* Makes every directory from the mount down, with the controllers on. */
static int
td_cgroup_make(td_cgroup_t *cgroup, const char *below)
{
    size_t       i, len;
    char         name[NAME_MAX + 1];
    const char  *p;
    static const char *const  controllers[] = { "+cpu", "+memory", "+pids" };

    for (p = below; ; p += len) {
        /* one by one: of those that are not there the others know nothing */
        for (i = 0; i < 3; i++) {
            (void) td_cgroup_write(cgroup->path, "cgroup.subtree_control",
                                   controllers[i]);
        }

        p += strspn(p, "/");
        len = strcspn(p, "/");

        if (len == 0) {
            return 0;
        }

        if (len > NAME_MAX
            || strlen(cgroup->path) + len + 2 > sizeof(cgroup->path) - 128)
        {
            errno = ENAMETOOLONG;
            return -1;
        }

        memcpy(name, p, len);
        name[len] = '\0';
        strcat(cgroup->path, "/");
        strcat(cgroup->path, name);

        if (mkdir(cgroup->path, 0755) != 0 && errno != EEXIST) {
            return -1;
        }
    }
}


td_cgroup_t *
td_cgroup_create(const char *path)
{
    td_cgroup_t  *cgroup;

    cgroup = calloc(1, sizeof(td_cgroup_t));

    if (cgroup == NULL) {
        return NULL;
    }

    if (path[0] == '\0') {
        snprintf(cgroup->why, sizeof(cgroup->why), "[provisioner] cgroup is "
                 "empty");
        return cgroup;
    }

    if (td_cgroup_find_mount(cgroup->path, sizeof(cgroup->path)) != 0) {
        cgroup->path[0] = '\0';
        snprintf(cgroup->why, sizeof(cgroup->why), "no cgroup2 is mounted");

    } else if ((cgroup->mount_len = strlen(cgroup->path)) > 0
               && td_cgroup_make(cgroup, path) != 0)
    {
        snprintf(cgroup->why, sizeof(cgroup->why), "cannot make %.180s: %s",
                 cgroup->path, strerror(errno));
        cgroup->path[0] = '\0';
    }

    if (cgroup->path[0] == '\0') {
        td_log(TD_LOG_WARN, "provision", "instances get no cgroups: %s",
               cgroup->why);
    }

    return cgroup;
}


void
td_cgroup_destroy(td_cgroup_t *cgroup)
{
    free(cgroup);
}


static void
td_cgroup_path(const td_cgroup_t *cgroup, const char *name, char *path,
    size_t size)
{
    snprintf(path, size, "%s/%s", cgroup->path, name);
}


void
td_cgroup_where(const td_cgroup_t *cgroup, const char *name, char *path,
    size_t size)
{
    const char  *below;

    below = cgroup->path + cgroup->mount_len;
    below += strspn(below, "/");
    snprintf(path, size, "%s%s%s", below, *below != '\0' ? "/" : "",
             cgroup->path[0] != '\0' ? name : "");
}


int
td_cgroup_open(td_cgroup_t *cgroup, const char *name)
{
    char  path[PATH_MAX + 64];

    if (cgroup->path[0] == '\0') {
        return -1;
    }

    td_cgroup_path(cgroup, name, path, sizeof(path));

    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        td_log(TD_LOG_WARN, "provision", "cannot make %s: %s", path,
               strerror(errno));
        return -1;
    }

    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}


/* One limit; adds its name to missing, if it is wanted but cannot be had. */
static void
td_cgroup_limit_one(const char *path, const char *file, long long wanted,
    const char *text, char *missing, size_t size)
{
    size_t  n;

    if (path != NULL && td_cgroup_write(path, file, wanted > 0 ? text : "max")
        == 0)
    {
        return;
    }

    n = strlen(missing);

    if (wanted > 0 && n < size) {
        snprintf(missing + n, size - n, "%s%s", n > 0 ? ", " : "", file);
    }
}


int
td_cgroup_limit(td_cgroup_t *cgroup, const char *name,
    const td_cgroup_limits_t *limits, char *missing, size_t size)
{
    char         path[PATH_MAX + 64], memory[32], pids[32], cpu[64];
    size_t       n;
    const char  *at;

    missing[0] = '\0';
    at = cgroup->path[0] != '\0' ? path : NULL;
    td_cgroup_path(cgroup, name, path, sizeof(path));
    snprintf(memory, sizeof(memory), "%lld", limits->memory);
    snprintf(pids, sizeof(pids), "%ld", limits->pids);
    snprintf(cpu, sizeof(cpu), "%ld %d",
             limits->cpu * (TD_CGROUP_PERIOD / 1000), TD_CGROUP_PERIOD);

    td_cgroup_limit_one(at, "memory.max", limits->memory, memory, missing, size);
    td_cgroup_limit_one(at, "pids.max", limits->pids, pids, missing, size);
    td_cgroup_limit_one(at, "cpu.max", limits->cpu, cpu, missing, size);

    if (missing[0] == '\0') {
        return 0;
    }

    n = strlen(missing);

    if (n < size) {
        snprintf(missing + n, size - n, " cannot be set: %s", at == NULL
                 ? cgroup->why : "cgroup2 has no such controller here");
    }

    return -1;
}


void
td_cgroup_kill(td_cgroup_t *cgroup, const char *name)
{
    char  path[PATH_MAX + 64];

    if (cgroup->path[0] != '\0') {
        td_cgroup_path(cgroup, name, path, sizeof(path));
        (void) td_cgroup_write(path, "cgroup.kill", "1");
    }
}


int
td_cgroup_remove(td_cgroup_t *cgroup, const char *name)
{
    char  path[PATH_MAX + 64];

    if (cgroup->path[0] == '\0') {
        return 0;
    }

    td_cgroup_path(cgroup, name, path, sizeof(path));

    return rmdir(path) == 0 || errno == ENOENT ? 0 : -1;
}
