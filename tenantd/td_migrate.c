/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd migrate: brings the database to the newest schema.  Each file
 * NNNN_name.sql is one transaction that records itself in schema_migrations;
 * this only finds out which are missing, and runs them in order, one tenantd at
 * a time.  It notes the checksum of each, and goes no further if the file of one
 * that was applied has changed since: then nobody knows what the database has.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "td_cli.h"


#define TD_MIGRATE_MAX   (4 * 1024 * 1024)
#define TD_MIGRATE_LOCK  "8388342690480383077"
#define TD_MIGRATE_SUM   (2 * SHA256_DIGEST_LENGTH + 1)     /* hex, NUL */

typedef struct {
    int    version;
    char   path[4096];
    char  *name;            /* inside path */
} td_migration_t;

typedef struct {
    td_migration_t  *item;
    size_t           n;
} td_migrations_t;


static int
td_migrate_is_file(const struct dirent *entry)
{
    const char  *name, *end;

    name = entry->d_name;
    end = name + strlen(name);

    return strspn(name, "0123456789") == 4 && name[4] == '_'
           && end - name > 9 && strcmp(end - 4, ".sql") == 0;
}


/* Returns -1 after a message. */
static int
td_migrate_find(const char *dir, td_migrations_t *found)
{
    int              i, n;
    td_migration_t  *item;
    struct dirent  **entries;

    n = scandir(dir, &entries, td_migrate_is_file, alphasort);

    if (n <= 0) {
        fprintf(stderr, "tenantd: no migrations in \"%s\"%s%s\n", dir,
                n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
        if (n == 0) {
            free(entries);
        }
        return -1;
    }

    found->item = calloc((size_t) n, sizeof(td_migration_t));

    for (i = 0; i < n; i++) {
        if (found->item != NULL) {
            item = &found->item[found->n++];
            item->version = atoi(entries[i]->d_name);
            snprintf(item->path, sizeof(item->path), "%s/%s", dir,
                     entries[i]->d_name);
            item->name = item->path + strlen(dir) + 1;
        }
        free(entries[i]);
    }

    free(entries);

    return found->item != NULL ? 0 : -1;
}


/* A file's text, NUL-terminated; NULL after a message. */
static char *
td_migrate_read(const char *path)
{
    FILE    *file;
    char    *text;
    size_t   n;

    file = fopen(path, "re");
    text = malloc(TD_MIGRATE_MAX + 1);
    n = 0;

    if (file != NULL && text != NULL) {
        n = fread(text, 1, TD_MIGRATE_MAX + 1, file);
    }

    if (n == 0 || n > TD_MIGRATE_MAX || ferror(file)) {
        fprintf(stderr, "tenantd: cannot read \"%s\": %s\n", path,
                n > TD_MIGRATE_MAX ? "too long" : strerror(errno));
        free(text);
        text = NULL;

    } else {
        text[n] = '\0';
    }

    if (file != NULL) {
        fclose(file);
    }

    return text;
}


static void
td_migrate_checksum(const char *text, char hex[TD_MIGRATE_SUM])
{
    size_t         i;
    unsigned char  digest[SHA256_DIGEST_LENGTH];

    SHA256((const unsigned char *) text, strlen(text), digest);

    for (i = 0; i < sizeof(digest); i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
}


static int
td_migrate_fail(PGconn *conn, const char *what)
{
    fprintf(stderr, "tenantd: %s: %s", what, PQerrorMessage(conn));

    return -1;
}


/* The versions that the database has; NULL after a message. */
static PGresult *
td_migrate_applied(PGconn *conn)
{
    PGresult    *result;
    const char  *sql;

    result = PQexec(conn, "SELECT to_regclass('tiergate.schema_migrations')"
                          " IS NOT NULL");

    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        td_migrate_fail(conn, "cannot look at the database");
        PQclear(result);
        return NULL;
    }

    sql = PQgetvalue(result, 0, 0)[0] == 't'
          ? "SELECT version, name, checksum FROM tiergate.schema_migrations"
            " ORDER BY version"
          : "SELECT 0 WHERE false";

    PQclear(result);
    result = PQexec(conn, sql);

    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        td_migrate_fail(conn, "cannot read tiergate.schema_migrations");
        PQclear(result);
        return NULL;
    }

    return result;
}


static int
td_migrate_has(const PGresult *applied, int version)
{
    int  i;

    for (i = 0; i < PQntuples(applied); i++) {
        if (atoi(PQgetvalue(applied, i, 0)) == version) {
            return 1;
        }
    }

    return 0;
}


static const td_migration_t *
td_migrate_of(const td_migrations_t *found, int version)
{
    size_t  i;

    for (i = 0; i < found->n; i++) {
        if (found->item[i].version == version) {
            return &found->item[i];
        }
    }

    return NULL;
}


/* A database that has a migration which we do not know is newer than we are. */
static int
td_migrate_check_known(const PGresult *applied, const td_migrations_t *found)
{
    int  i, version;

    for (i = 0; i < PQntuples(applied); i++) {
        version = atoi(PQgetvalue(applied, i, 0));

        if (td_migrate_of(found, version) == NULL) {
            fprintf(stderr, "tenantd: the database has migration %d (%s), "
                    "which this tenantd does not know: it is newer; install "
                    "the newer tenantd instead\n", version,
                    PQgetvalue(applied, i, 1));
            return -1;
        }
    }

    return 0;
}


/* What psql has applied has no checksum. */
static int
td_migrate_check_same(const PGresult *applied, const td_migrations_t *found)
{
    int                    i;
    char                   hex[TD_MIGRATE_SUM];
    char                  *text;
    const char            *checksum;
    const td_migration_t  *migration;

    for (i = 0; i < PQntuples(applied); i++) {
        if (PQgetisnull(applied, i, 2)) {
            continue;
        }

        checksum = PQgetvalue(applied, i, 2);
        migration = td_migrate_of(found, atoi(PQgetvalue(applied, i, 0)));
        text = td_migrate_read(migration->path);

        if (text == NULL) {
            return -1;
        }

        td_migrate_checksum(text, hex);
        free(text);

        if (strcmp(checksum, hex) != 0) {
            fprintf(stderr, "tenantd: %s has changed since it was applied: its "
                    "SHA-256 is %s, that of what was applied %s; nothing was "
                    "done, bring back the file that was applied\n",
                    migration->name, hex, checksum);
            return -1;
        }
    }

    return 0;
}


static int
td_migrate_record(PGconn *conn, const td_migration_t *migration,
    const char *text)
{
    int          rc;
    char         version[16], hex[TD_MIGRATE_SUM];
    PGresult    *result;
    const char  *params[2] = { hex, version };

    td_migrate_checksum(text, hex);
    snprintf(version, sizeof(version), "%d", migration->version);
    result = PQexecParams(conn, "UPDATE tiergate.schema_migrations"
                          " SET checksum = $1 WHERE version = $2::integer", 2,
                          NULL, params, NULL, NULL, 0);

    rc = PQresultStatus(result) == PGRES_COMMAND_OK
         && strcmp(PQcmdTuples(result), "1") == 0 ? 0 : -1;

    if (rc != 0) {
        fprintf(stderr, "tenantd: %s has not recorded itself: %s\n",
                migration->name, PQerrorMessage(conn));
    }

    PQclear(result);

    return rc;
}


static int
td_migrate_apply(PGconn *conn, const td_migration_t *migration)
{
    int        rc;
    char      *text;
    PGresult  *result;

    text = td_migrate_read(migration->path);
    if (text == NULL) {
        return -1;
    }

    result = PQexec(conn, text);

    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        rc = td_migrate_record(conn, migration, text);
        break;
    default:
        rc = td_migrate_fail(conn, migration->name);
    }

    PQclear(result);
    free(text);

    if (rc == 0) {
        printf("applied %s\n", migration->name);
    }

    return rc;
}


static int
td_migrate_run(PGconn *conn, const td_migrations_t *found)
{
    int        done, rc;
    size_t     i;
    PGresult  *applied;

    applied = td_migrate_applied(conn);
    if (applied == NULL) {
        return -1;
    }

    rc = td_migrate_check_known(applied, found);

    if (rc == 0) {
        rc = td_migrate_check_same(applied, found);
    }

    done = 0;

    for (i = 0; rc == 0 && i < found->n; i++) {
        if (!td_migrate_has(applied, found->item[i].version)) {
            rc = td_migrate_apply(conn, &found->item[i]);
            done++;
        }
    }

    PQclear(applied);

    if (rc == 0) {
        printf("the database is at version %d%s\n",
               found->item[found->n - 1].version,
               done == 0 ? ", nothing to do" : "");
    }

    return rc;
}


static void
td_migrate_notice(void *data, const char *message)
{
    (void) data;

    if (strncmp(message, "NOTICE", 6) != 0) {
        fputs(message, stderr);
    }
}


int
td_migrate(td_cli_t *cli)
{
    int               rc;
    PGconn           *conn;
    PGresult         *result;
    tg_error_t        err;
    td_config_t      *config;
    td_migrations_t   found = { NULL, 0 };

    config = td_cli_load(cli, &err);
    if (config == NULL) {
        return 1;
    }

    rc = td_migrate_find(config->database.sql_dir, &found);
    conn = rc == 0 ? td_cli_connect(config) : NULL;
    td_config_destroy(config);

    if (conn == NULL) {
        free(found.item);
        return 1;
    }

    PQsetNoticeProcessor(conn, td_migrate_notice, NULL);
    rc = -1;

    if (PQserverVersion(conn) < 150000) {
        fprintf(stderr, "tenantd: PostgreSQL 15 or newer is needed\n");

    } else {
        /* until the connection ends */
        result = PQexec(conn, "SELECT pg_advisory_lock(" TD_MIGRATE_LOCK ")");
        rc = PQresultStatus(result) == PGRES_TUPLES_OK
             ? td_migrate_run(conn, &found)
             : td_migrate_fail(conn, "cannot take the migration lock");
        PQclear(result);
    }

    PQfinish(conn);
    free(found.item);

    return rc == 0 ? 0 : 1;
}
