/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which configuration nginx is given.  nginx.conf is what it reads; it may be one
 * that was never tried.  nginx.conf.accepted is the last with which it has
 * answered, and it is what a death, of whatever cause, brings back: newer ones come
 * by a roll, which checks them first.  Both are names of one file most of the time.
 */

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "td_life.h"
#include "td_log.h"


#define TD_ACCEPTED    "nginx.conf.accepted"
#define TD_ACCEPT_SPEC "accepted.json"      /* what it was made from */
#define TD_ACCEPT_KEY  256                  /* bytes of a key's file */
#define TD_ACCEPT_MAX  (4 * 1024 * 1024)    /* and of a spec */


/* For a master that may not read the site's. */
static int
td_instance_copy_key(td_instance_t *i, tg_error_t *err)
{
    int          rc;
    char        *text;
    const char  *file;

    file = td_instance_config(i)->secrets.key_file;

    if (file[0] == '\0') {
        return 0;
    }

    text = td_prefix_read(file[0] == '/' ? "" : ".", file, TD_ACCEPT_KEY);

    if (text == NULL) {
        tg_error_set(err, "", "cannot read %.150s", file);
        return -1;
    }

    rc = td_prefix_write(i->path, "secret.key", text, strlen(text), 0640, err);
    OPENSSL_cleanse(text, strlen(text));
    free(text);

    return rc;
}


static int
td_instance_render(td_instance_t *i, const td_work_t *work, const char *file,
    tg_error_t *err, const char **reason)
{
    int        rc;
    tg_text_t  text;

    tg_text_init(&text);
    *reason = "ConfigInvalid";
    rc = td_gateway_render(&text, td_instance_config(i), i->host->template,
                           i->own ? NULL : i->host->user, i->host->group,
                           i->own, i->path, work, err);

    if (rc == 0) {
        *reason = "PrefixUnwritable";
        rc = i->own ? td_instance_copy_key(i, err) : 0;
    }

    if (rc == 0) {
        rc = td_prefix_write(i->path, file, text.data, text.len, 0640, err);
    }

    tg_text_free(&text);

    return rc;
}


int
td_instance_write_conf(td_instance_t *i, const char *file, tg_error_t *err,
    const char **reason)
{
    return td_instance_render(i, &i->work, file, err, reason);
}


int
td_instance_has_accepted(const td_instance_t *i)
{
    return i->record.accepted != 0 && td_prefix_has(i->path, TD_ACCEPTED);
}


/* Whether the next start is with the accepted configuration. */
static int
td_instance_keeps(const td_instance_t *i)
{
    if (!td_instance_has_accepted(i)) {
        return 0;
    }

    if (i->work.spec == NULL) {
        return 1;
    }

    /* the same one is made anew, for options of tenantd may have changed */
    return !i->fresh && (i->refused == i->work.generation
                         || i->record.accepted != i->work.generation);
}


/* What is wanted becomes nginx.conf. */
static int
td_instance_renew(td_instance_t *i, tg_error_t *err, const char **reason)
{
    if (i->work.spec == NULL && td_prefix_has(i->path, "nginx.conf")) {
        return 0;       /* of an older tenantd, while the registry is away */
    }

    if (td_instance_write_conf(i, "nginx.conf", err, reason) != 0) {
        return -1;
    }

    i->record.generation = i->work.generation;
    i->record.port = i->work.port;

    return 0;
}


/* The accepted configuration becomes nginx.conf, for another port if it must be. */
static int
td_instance_bring_back(td_instance_t *i, tg_error_t *err, const char **reason)
{
    int        rc;
    char      *text;
    td_work_t  work;

    if (!i->known || i->record.accepted_port == i->work.port) {
        *reason = "PrefixUnwritable";
        rc = td_prefix_link(i->path, TD_ACCEPTED, "nginx.conf", err);
        i->record.port = i->record.accepted_port;

    } else {
        work = i->work;
        work.generation = i->record.accepted;
        text = td_prefix_read(i->path, TD_ACCEPT_SPEC, TD_ACCEPT_MAX);
        work.spec = text != NULL ? json_loads(text, 0, NULL) : NULL;
        free(text);
        rc = td_instance_render(i, &work, "nginx.conf", err, reason);
        json_decref(work.spec);
        i->record.port = i->work.port;
    }

    i->record.generation = i->record.accepted;

    return rc;
}


int
td_instance_prepare(td_instance_t *i, tg_error_t *err, const char **reason)
{
    i->kept = td_instance_keeps(i);

    if (!i->kept) {
        if (td_instance_renew(i, err, reason) == 0) {
            return 0;
        }

        if (strcmp(*reason, "ConfigInvalid") == 0) {
            i->refused = i->work.generation;
            td_instance_condition(i, TD_CONDITION_CONFIG_ACCEPTED, 0, *reason,
                                  err->message);
        }

        i->fresh = 0;
        i->kept = td_instance_has_accepted(i);

        if (!i->kept) {
            return -1;
        }
    }

    return td_instance_bring_back(i, err, reason);
}


static int
td_instance_keep_spec(td_instance_t *i, tg_error_t *err)
{
    int    rc;
    char  *text;

    /* one that was brought back for another port is still there */
    if (i->work.spec == NULL || i->record.generation != i->work.generation) {
        return 0;
    }

    text = json_dumps(i->work.spec, JSON_COMPACT);
    if (text == NULL) {
        tg_error_set(err, "", "out of memory");
        return -1;
    }

    rc = td_prefix_write(i->path, TD_ACCEPT_SPEC, text, strlen(text), 0640, err);
    free(text);

    return rc;
}


void
td_instance_accept(td_instance_t *i)
{
    tg_error_t  err;

    if (i->record.generation == i->record.accepted
        && i->record.port == i->record.accepted_port && i->kept)
    {
        return;
    }

    if (td_instance_keep_spec(i, &err) != 0
        || td_prefix_link(i->path, "nginx.conf", TD_ACCEPTED, &err) != 0)
    {
        td_log(TD_LOG_WARN, i->work.name, "%s", err.message);
        return;
    }

    i->kept = 1;
    i->record.accepted = i->record.generation;
    i->record.accepted_port = i->record.port;
    td_instance_save(i);
}


void
td_instance_fall_back(td_instance_t *i)
{
    tg_error_t  err;

    if (!td_instance_has_accepted(i)) {
        return;
    }

    if (td_prefix_link(i->path, TD_ACCEPTED, "nginx.conf", &err) != 0) {
        td_log(TD_LOG_WARN, i->work.name, "%s", err.message);
        return;
    }

    i->kept = 1;
    i->record.generation = i->record.accepted;
    i->record.port = i->record.accepted_port;
    td_instance_save(i);
}


void
td_instance_judge(td_instance_t *i)
{
    if (i->refused == 0 && i->known && i->running == i->work.generation) {
        td_instance_condition(i, TD_CONDITION_CONFIG_ACCEPTED, 1, "Accepted",
                              "");
    }
}
