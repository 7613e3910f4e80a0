/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "td_prefix.h"


#define TD_PREFIX_RECORD_MAX   4096
#define TD_PREFIX_DEPTH        32       /* of directories that are removed */


static int
td_prefix_fail(tg_error_t *err, const char *what, const char *path,
    const char *file)
{
    tg_error_set(err, "", "cannot %s %.100s%s%s: %s", what, path,
                 file[0] != '\0' ? "/" : "", file, strerror(errno));

    return -1;
}


static void
td_prefix_join(char *joined, const char *path, const char *file)
{
    snprintf(joined, PATH_MAX, "%s/%s", path, file);
}


static int
td_prefix_make_path(const char *directory)
{
    char  path[PATH_MAX], *slash;

    snprintf(path, sizeof(path), "%s", directory);

    for (slash = strchr(path + 1, '/');
         slash != NULL;
         slash = strchr(slash + 1, '/'))
    {
        *slash = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST) {
            return -1;
        }
        *slash = '/';
    }

    return mkdir(path, 0711) == 0 || errno == EEXIST ? 0 : -1;
}


int
td_prefix_make_parents(const char *directory, tg_error_t *err)
{
    return td_prefix_make_path(directory) == 0 ? 0
           : td_prefix_fail(err, "make", directory, "");
}


/* A log that the master must find, for it may make none beside it. */
static int
td_prefix_make_log(const char *path, const char *file, uid_t uid, gid_t gid)
{
    int   fd, rc;
    char  name[PATH_MAX];

    td_prefix_join(name, path, file);
    fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
              0640);
    if (fd < 0) {
        return -1;
    }

    rc = fchown(fd, uid, gid);
    close(fd);

    return rc;
}


static int
td_prefix_make_one(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    if (mkdir(path, mode) != 0 && errno != EEXIST) {
        return -1;
    }

    return chmod(path, mode) == 0
           && ((uid == (uid_t) -1 && gid == (gid_t) -1)
               || chown(path, uid, gid) == 0) ? 0 : -1;
}


/* Whose a part of the prefix is. */
typedef enum {
    TD_PART_TENANTD,
    TD_PART_WORKERS,
    TD_PART_MASTER,         /* the workers', if the master is of their user */
    TD_PART_NONE            /* only there then */
} td_part_e;


static int
td_prefix_make_parts(const char *path, uid_t uid, gid_t gid, int own,
    tg_error_t *err)
{
    int     theirs;
    size_t  i;
    char    sub[PATH_MAX];
    static const struct {
        const char  *name;
        mode_t       mode;
        td_part_e    whose;
    } parts[] = {
        { "logs", 0750, TD_PART_TENANTD }, { "data", 0700, TD_PART_WORKERS },
        /* what is in it is theirs; nginx as root gives it to them by name, so
         * that they must not put anything else in its place */
        { "tmp", 0710, TD_PART_MASTER },
        { "run", 0700, TD_PART_NONE },
    };

    for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].whose == TD_PART_NONE && !own) {
            continue;
        }

        td_prefix_join(sub, path, parts[i].name);
        theirs = own ? parts[i].whose != TD_PART_TENANTD
                 : parts[i].whose == TD_PART_WORKERS || gid == (gid_t) -1;

        if (td_prefix_make_one(sub, parts[i].mode, theirs ? uid : geteuid(),
                               gid) != 0)
        {
            return td_prefix_fail(err, "make", path, parts[i].name);
        }
    }

    return 0;
}


int
td_prefix_make(const char *directory, const char *path, uid_t uid, gid_t gid,
    int own, tg_error_t *err)
{

    if (strlen(path) > TD_PREFIX_MAX) {
        tg_error_set(err, "", "%.110s is longer than %d bytes, too long for a "
                     "socket in it", path, TD_PREFIX_MAX);
        return -1;
    }

    if (td_prefix_make_parents(directory, err) != 0) {
        return -1;
    }

    /* the workers may pass through, and see nothing; files that are made in it get
     * the group of a user of its own */
    if (td_prefix_make_one(path, own ? 02710 : 0710, (uid_t) -1, gid) != 0) {
        return td_prefix_fail(err, "make", path, "");
    }

    if (td_prefix_make_parts(path, uid, gid, own, err) != 0) {
        return -1;
    }

    if (own && (td_prefix_make_log(path, "logs/access.log", uid, gid) != 0
                || td_prefix_make_log(path, "logs/error.log", uid, gid) != 0))
    {
        return td_prefix_fail(err, "make", path, "logs");
    }

    return 0;
}


int
td_prefix_lock(const char *path)
{
    int          fd, error;
    char         file[PATH_MAX];
    struct stat  held, there;

    td_prefix_join(file, path, "lock");
    fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -1;
    }

    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        error = errno;
        close(fd);
        errno = error;
        return -1;
    }

    /* whoever had it before may have removed the prefix meanwhile */
    if (fstat(fd, &held) != 0 || stat(file, &there) != 0
        || held.st_ino != there.st_ino || held.st_dev != there.st_dev)
    {
        close(fd);
        errno = EWOULDBLOCK;
        return -1;
    }

    return fd;
}


int
td_prefix_write(const char *path, const char *file, const char *text,
    size_t len, mode_t mode, tg_error_t *err)
{
    int      fd, failed, error;
    char     name[PATH_MAX], fresh[PATH_MAX + 8];
    size_t   done;
    ssize_t  n;

    td_prefix_join(name, path, file);
    snprintf(fresh, sizeof(fresh), "%s.tmp", name);

    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
              mode);
    if (fd < 0) {
        return td_prefix_fail(err, "write", path, file);
    }

    for (done = 0, failed = 0; done < len && !failed; done += (size_t) n) {
        n = write(fd, text + done, len - done);
        failed = n < 0;
    }

    error = errno;

    /* some file systems say only now that they are full */
    if (close(fd) != 0 && !failed) {
        failed = 1;
        error = errno;
    }

    if (!failed && rename(fresh, name) == 0) {
        return 0;
    }

    errno = failed ? error : errno;
    td_prefix_fail(err, "write", path, file);
    unlink(fresh);

    return -1;
}


char *
td_prefix_read(const char *path, const char *file, size_t max)
{
    char   *text, name[PATH_MAX];
    int     fd;
    FILE   *stream;
    long    size;
    size_t  n;

    td_prefix_join(name, path, file);
    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    stream = fd >= 0 ? fdopen(fd, "r") : NULL;

    if (stream == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }

    text = malloc(max + 1);

    if (text == NULL || fseek(stream, 0, SEEK_END) != 0
        || (size = ftell(stream)) < 0
        || fseek(stream, (size_t) size > max ? size - (long) max : 0, SEEK_SET)
           != 0)
    {
        fclose(stream);
        free(text);
        return NULL;
    }

    n = fread(text, 1, max, stream);
    text[n] = '\0';
    fclose(stream);

    return text;
}


int
td_prefix_has(const char *path, const char *file)
{
    char  name[PATH_MAX];

    td_prefix_join(name, path, file);

    return access(name, F_OK) == 0;
}


void
td_prefix_unlink(const char *path, const char *file)
{
    char  name[PATH_MAX];

    td_prefix_join(name, path, file);
    unlink(name);
}


int
td_prefix_rename(const char *path, const char *from, const char *to,
    tg_error_t *err)
{
    char  old[PATH_MAX], fresh[PATH_MAX];

    td_prefix_join(old, path, from);
    td_prefix_join(fresh, path, to);

    return rename(old, fresh) == 0 ? 0
           : td_prefix_fail(err, "rename", path, from);
}


int
td_prefix_link(const char *path, const char *from, const char *to,
    tg_error_t *err)
{
    int   rc;
    char  old[PATH_MAX], name[PATH_MAX], fresh[PATH_MAX + 8];

    td_prefix_join(old, path, from);
    td_prefix_join(name, path, to);
    snprintf(fresh, sizeof(fresh), "%s.tmp", name);
    unlink(fresh);

    if (link(old, fresh) != 0 || rename(fresh, name) != 0) {
        rc = td_prefix_fail(err, "link", path, from);
        unlink(fresh);
        return rc;
    }

    /* rename() leaves both where they are names of one file already */
    unlink(fresh);

    return 0;
}


long
td_prefix_size(const char *path, const char *file)
{
    char         name[PATH_MAX];
    struct stat  st;

    td_prefix_join(name, path, file);

    return stat(name, &st) == 0 ? (long) st.st_size : 0;
}


int
td_prefix_save(const char *path, const td_prefix_record_t *record,
    tg_error_t *err)
{
    int   n;
    char  text[512];

    n = snprintf(text, sizeof(text),
                 "{\"generation\":%lld,\"restart\":%lld,\"port\":%d,"
                 "\"accepted\":%lld,\"accepted_port\":%d,\"ending\":%d,"
                 "\"pid\":%d,"
                 "\"started\":%llu,\"since\":%lld,\"restarts\":%d,"
                 "\"registry\":\"%s\"}\n", (long long) record->generation,
                 (long long) record->restart, record->port,
                 (long long) record->accepted, record->accepted_port,
                 record->ending, (int) record->pid, record->started,
                 record->since, record->restarts, record->registry);

    return td_prefix_write(path, "instance.json", text, (size_t) n, 0640, err);
}


int
td_prefix_load(const char *path, td_prefix_record_t *record)
{
    int          rc;
    char        *text;
    json_t      *root;
    json_int_t   generation, restart, accepted, started, since;
    const char  *registry;

    memset(record, 0, sizeof(td_prefix_record_t));

    text = td_prefix_read(path, "instance.json", TD_PREFIX_RECORD_MAX);
    root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    free(text);

    accepted = 0;       /* one that an older tenantd wrote has none */
    rc = root == NULL ? -1
         : json_unpack(root, "{s:I, s:I, s:i, s?I, s?i, s?i, s:i, s:I, s:I, s:i,"
                       " s:s}", "generation", &generation, "restart", &restart,
                       "port", &record->port, "accepted", &accepted,
                       "accepted_port", &record->accepted_port, "ending",
                       &record->ending, "pid", &record->pid, "started",
                       &started, "since", &since, "restarts",
                       &record->restarts, "registry", &registry);

    if (rc == 0) {
        record->generation = generation;
        record->restart = restart;
        record->accepted = accepted;
        record->started = (unsigned long long) started;
        record->since = since;
        snprintf(record->registry, sizeof(record->registry), "%s", registry);
    }

    json_decref(root);

    return rc;
}


/*
 * Names are never looked up from the root: what the workers' user exchanges for a
 * symbolic link meanwhile leads nowhere.
 */
static int
td_prefix_remove_at(int parent, const char *name, int depth)
{
    int             fd, rc;
    DIR            *dir;
    struct dirent  *entry;

    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }

    if (errno != EISDIR && errno != EPERM) {
        return -1;
    }

    if (depth == TD_PREFIX_DEPTH) {
        errno = ELOOP;
        return -1;
    }

    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL) {
        rc = errno;
        if (fd >= 0) {
            close(fd);
        }
        errno = rc;
        return rc == ENOENT ? 0 : -1;
    }

    rc = 0;

    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
        {
            rc = td_prefix_remove_at(dirfd(dir), entry->d_name, depth + 1);
        }
    }

    fd = errno;
    closedir(dir);
    errno = fd;

    if (rc != 0) {
        return -1;
    }

    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}


int
td_prefix_remove(const char *path)
{
    return td_prefix_remove_at(AT_FDCWD, path, 0);
}
