/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "td_cli.h"
#include "td_route.h"


#define TD_CLI_CONFIG  TIERGATE_SYSCONFDIR "/tenantd.ini"

/* Options with a value: kept as it is, or short for a --set. */
static const struct {
    const char  *name;
    size_t       offset;
    const char  *set;
} td_cli_values[] = {
    { "--config",   offsetof(td_cli_t, config),  NULL },
    { "--scope",    offsetof(td_cli_t, scope),   NULL },
    { "--name",     offsetof(td_cli_t, name),    NULL },
    { "--tenant",   offsetof(td_cli_t, tenant),  NULL },
    { "--gateway",  offsetof(td_cli_t, gateway), NULL },
    { "--expires",  offsetof(td_cli_t, expires), NULL },
    { "--service",  offsetof(td_cli_t, service), NULL },
    { "--user",     offsetof(td_cli_t, user),    NULL },
    { "--set",      0, "%s" },
    { "--sql-dir",  0, "database.sql_dir=%s" },
    { "--conninfo", 0, "database.conninfo=%s" },
};

static const struct {
    const char  *name;
    size_t       offset;
} td_cli_flags[] = {
    { "--check",     offsetof(td_cli_t, check) },
    { "--text",      offsetof(td_cli_t, text) },
    { "--base64url", offsetof(td_cli_t, base64url) },
    { "--netns",     offsetof(td_cli_t, netns) },
    { "--detach",    offsetof(td_cli_t, detach) },
};


static int
td_cli_add_set(td_cli_t *cli, const char *fmt, const char *value)
{
    size_t   size;
    char    *text;

    size = strlen(fmt) + strlen(value) + 1;
    text = malloc(size);

    if (text == NULL || cli->sets == TD_CLI_MAX_SET) {
        free(text);
        fprintf(stderr, "tenantd: too many --set\n");
        return -1;
    }

    /* each format has one %s */
    snprintf(text, size, "%.*s%s", (int) (strstr(fmt, "%s") - fmt), fmt, value);
    cli->set[cli->sets++] = text;

    return 0;
}


/* Takes an option at argv[0]; *used says how many words it was.  -1: unknown or
 * incomplete. */
static int
td_cli_take(td_cli_t *cli, char **argv, int argc, int *used)
{
    size_t       i, len;
    const char  *value;

    for (i = 0; i < sizeof(td_cli_flags) / sizeof(td_cli_flags[0]); i++) {
        if (strcmp(argv[0], td_cli_flags[i].name) == 0) {
            *(int *) (void *) ((char *) cli + td_cli_flags[i].offset) = 1;
            *used = 1;
            return 0;
        }
    }

    for (i = 0; i < sizeof(td_cli_values) / sizeof(td_cli_values[0]); i++) {
        len = strlen(td_cli_values[i].name);

        if (strncmp(argv[0], td_cli_values[i].name, len) != 0
            || (argv[0][len] != '=' && argv[0][len] != '\0')
            || (argv[0][len] == '\0' && argc < 2))
        {
            continue;
        }

        value = argv[0][len] == '=' ? argv[0] + len + 1 : argv[1];
        *used = argv[0][len] == '=' ? 1 : 2;

        if (td_cli_values[i].set != NULL) {
            return td_cli_add_set(cli, td_cli_values[i].set, value);
        }

        *(const char **) (void *) ((char *) cli + td_cli_values[i].offset) =
            value;
        return 0;
    }

    fprintf(stderr, "tenantd: unknown option \"%s\", or its value is missing "
            "(see tenantd help)\n", argv[0]);

    return -1;
}


int
td_cli_parse(td_cli_t *cli, int argc, char **argv)
{
    int  used;

    memset(cli, 0, sizeof(td_cli_t));
    cli->word = argv;

    while (argc > 0) {
        if (strcmp(argv[0], "--") == 0) {
            while (--argc > 0) {
                cli->word[cli->words++] = *++argv;
            }
            break;
        }

        if (argv[0][0] != '-') {
            cli->word[cli->words++] = argv[0];
            argv++;
            argc--;
            continue;
        }

        if (td_cli_take(cli, argv, argc, &used) != 0) {
            return -1;
        }

        argv += used;
        argc -= used;
    }

    cli->word[cli->words] = NULL;

    return 0;
}


td_config_t *
td_cli_load(const td_cli_t *cli, tg_error_t *err)
{
    const char   *path;
    td_config_t  *config;

    path = cli->config;

    if (path == NULL && access(TD_CLI_CONFIG, F_OK) == 0) {
        path = TD_CLI_CONFIG;
    }

    config = td_config_load(path, cli->set, cli->sets, err);

    if (config == NULL) {
        fprintf(stderr, "tenantd: %s\n", err->message);
    }

    return config;
}


PGconn *
td_cli_connect(const td_config_t *config)
{
    PGconn             *conn;
    const char *const   keys[] = {
        "dbname", "client_encoding", "fallback_application_name", NULL
    };
    const char *const   values[] = {
        config->database.conninfo, "UTF8", "tenantd", NULL
    };

    conn = PQconnectdbParams(keys, values, 1);

    /* NULL is fine; what functions the registry was in helps nobody here */
    PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_NEVER);

    if (PQstatus(conn) != CONNECTION_OK) {
        fprintf(stderr, "tenantd: cannot connect: %s", PQerrorMessage(conn));
        PQfinish(conn);
        return NULL;
    }

    return conn;
}


int
td_print_routes(td_cli_t *cli)
{
    size_t             i;
    const td_route_t  *route;

    (void) cli;

    for (i = 0; i < td_routes_n; i++) {
        route = &td_routes[i];
        printf("%s\t%s\t%s\t%s\t%s\n", td_method_name(route->method),
               route->pattern, route->scope != NULL ? route->scope : "-",
               route->function != NULL ? route->function : "-",
               route->body == TD_BODY_NONE ? "-"
               : route->body == TD_BODY_OPTIONAL ? "optional" : "required");
    }

    return 0;
}


int
td_print_options(td_cli_t *cli)
{
    size_t  i;

    (void) cli;

    for (i = 0; i < td_options_n; i++) {
        printf("%s\t%s\t%s\t%s\t%s\n", td_options[i].section,
               td_options[i].key, td_options[i].fallback,
               td_options[i].reloadable ? "reload" : "restart",
               td_options[i].help);
    }

    return 0;
}
