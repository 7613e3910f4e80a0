/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The files of an instance, below DIRECTORY/NAME:
 *
 *   nginx.conf  nginx.conf.next  token  nginx.pid  admin.sock  logs/
 *   nginx.conf.accepted   the last with which nginx has answered
 *   data/  tmp/...    written by the workers; tmp itself is not theirs
 *   lock              held by the tenantd that looks after the instance
 *   instance.json     what another life of tenantd must know
 *
 * What the workers' user may write is in directories of its own: the master may be
 * root, and reads the rest.  Where the master has the same user, and the instance
 * its own, nginx.pid and admin.sock are in run/, and secret.key is a copy of the
 * site's key; all that is in the prefix then is of the user's group, which may read
 * it.
 */

#ifndef TD_PREFIX_H
#define TD_PREFIX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tg_error.h"

/* As sun_path is long, with room for "/run/admin.sock". */
#define TD_PREFIX_MAX  92

/* Of [provisioner] directory: the rest is for "/dedicated-" and a number. */
#define TD_PREFIX_DIRECTORY  70

typedef struct {
    int64_t             generation;     /* of nginx.conf */
    int64_t             restart;        /* that the spec had */
    int                 port;
    int64_t             accepted;       /* of nginx.conf.accepted; 0: none */
    int                 accepted_port;
    int                 ending;         /* it was told to end */
    pid_t               pid;            /* 0: nothing was running */
    unsigned long long  started;
    long long           since;          /* unix ms at which it was started */
    int                 restarts;
    char                registry[40];
} td_prefix_record_t;

/* Makes what is not there.  uid -1: everything belongs to tenantd's user.  own: the
 * master is of that user, too. */
int td_prefix_make(const char *directory, const char *path, uid_t uid, gid_t gid,
    int own, tg_error_t *err);

/* mkdir -p */
int td_prefix_make_parents(const char *directory, tg_error_t *err);

/* Takes the lock.  A descriptor that holds it, or -1 with errno: EWOULDBLOCK when
 * somebody else has it, ENOENT when there is no such prefix. */
int td_prefix_lock(const char *path);

/* Writes a file as a whole, or leaves it as it was. */
int td_prefix_write(const char *path, const char *file, const char *text,
    size_t len, mode_t mode, tg_error_t *err);

/* Up to max bytes from a file's end, NUL-terminated; NULL: there is none. */
char *td_prefix_read(const char *path, const char *file, size_t max);

int td_prefix_has(const char *path, const char *file);
void td_prefix_unlink(const char *path, const char *file);
int td_prefix_rename(const char *path, const char *from, const char *to,
    tg_error_t *err);

/* Makes to another name of the file from, in place of what it was. */
int td_prefix_link(const char *path, const char *from, const char *to,
    tg_error_t *err);

/* Bytes of a file; 0: it is empty, or there is none. */
long td_prefix_size(const char *path, const char *file);

/* instance.json.  Load returns 0, or -1: there is none, or it says nothing. */
int td_prefix_save(const char *path, const td_prefix_record_t *record,
    tg_error_t *err);
int td_prefix_load(const char *path, td_prefix_record_t *record);

/* Removes all of it.  Returns 0, or -1 with errno. */
int td_prefix_remove(const char *path);

#endif /* TD_PREFIX_H */
