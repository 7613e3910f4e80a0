/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "td_cli.h"


static int td_version(td_cli_t *cli);
static int td_help(td_cli_t *cli);

static const struct {
    const char  *name;
    int        (*run)(td_cli_t *cli);
    const char  *help;
} td_commands[] = {
    { "serve",   td_serve,         "run the daemon; --check only looks at the "
                                   "configuration" },
    { "migrate", td_migrate,       "bring the database to the newest schema" },
    { "token",   td_token,         "create or revoke a token of the REST API" },
    { "seal",    td_seal,          "seal a secret from standard input; --text, "
                                   "--base64url" },
    { "agent",   td_agent,         "enforce the mesh on this machine; --detach "
                                   "ends that" },
    { "exec",    td_exec,          "run a command as a workload of the mesh" },
    { "routes",  td_print_routes,  "print the routes of the REST API" },
    { "options", td_print_options, "print the options of the configuration" },
    { "version", td_version,       "print the version" },
    { "help",    td_help,          "print this" },
};


#if !TIERGATE_MESH

int
td_agent(td_cli_t *cli)
{
    (void) cli;

    fprintf(stderr, "tenantd: this is built without the mesh (clang, bpftool and "
            "libbpf were missing)\n");

    return 1;
}

#endif


static int
td_version(td_cli_t *cli)
{
    (void) cli;

    printf("tenantd %s\n", TIERGATE_VERSION);

    return 0;
}


static int
td_help(td_cli_t *cli)
{
    size_t  i;

    (void) cli;

    printf("Usage: tenantd COMMAND [OPTION]...\n\n");

    for (i = 0; i < sizeof(td_commands) / sizeof(td_commands[0]); i++) {
        printf("  %-9s %s\n", td_commands[i].name, td_commands[i].help);
    }

    printf("\n"
           "  --config FILE       configuration [%s/tenantd.ini]\n"
           "  --set SECTION.KEY=VALUE\n"
           "                      overrides an option; so does "
           "TIERGATE_SECTION_KEY\n"
           "  --conninfo TEXT     the same as --set database.conninfo=TEXT\n"
           "  --sql-dir DIR       the same as --set database.sql_dir=DIR\n\n"
           "  token create --name NAME [--scope admin|reader|tenant|gateway]\n"
           "               [--tenant T] [--gateway G] [--expires TIME]\n"
           "  token revoke --name NAME\n\n"
           "  exec --tenant T --service S [--name NAME] [--netns] [--user U]\n"
           "       -- COMMAND [ARGUMENT]...\n", TIERGATE_SYSCONFDIR);

    return 0;
}


int
main(int argc, char **argv)
{
    int          rc;
    size_t       i;
    td_cli_t     cli;
    const char  *name;

    name = argc > 1 ? argv[1] : "help";

    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        name = "help";
    }

    if (strcmp(name, "--version") == 0) {
        name = "version";
    }

    for (i = 0; i < sizeof(td_commands) / sizeof(td_commands[0]); i++) {
        if (strcmp(name, td_commands[i].name) != 0) {
            continue;
        }

        if (argc > 2 && strcmp(argv[2], "--help") == 0) {
            return td_help(&cli);
        }

        if (td_cli_parse(&cli, argc > 2 ? argc - 2 : 0, argv + 2) != 0) {
            return 2;
        }

        if (cli.words > 0 && td_commands[i].run != td_token
            && td_commands[i].run != td_exec)
        {
            fprintf(stderr, "tenantd %s: \"%s\" is too much\n", name,
                    cli.word[0]);
            return 2;
        }

        rc = td_commands[i].run(&cli);

        while (cli.sets > 0) {
            free(cli.set[--cli.sets]);
        }

        return rc;
    }

    fprintf(stderr, "tenantd: unknown command \"%s\" (see tenantd help)\n",
            name);

    return 2;
}
