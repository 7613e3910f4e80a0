/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The command line, and the commands.  Each command returns the exit status.
 */

#ifndef TD_CLI_H
#define TD_CLI_H

#include <libpq-fe.h>

#include "td_config.h"

#define TD_CLI_MAX_SET  32

typedef struct {
    const char  *config;        /* NULL: the installed one, if it is there */
    char        *set[TD_CLI_MAX_SET];
    size_t       sets;
    int          check;         /* serve */
    int          text;          /* seal */
    int          base64url;
    const char  *scope;         /* token */
    const char  *name;
    const char  *tenant;
    const char  *gateway;
    const char  *expires;
    const char  *service;       /* exec */
    const char  *user;
    int          netns;
    int          detach;        /* agent */
    char       **word;          /* what is no option */
    int          words;         /* with a NULL behind them */
} td_cli_t;

/* Parses argv behind the command's name.  Returns -1 after a message. */
int td_cli_parse(td_cli_t *cli, int argc, char **argv);

/* The configuration that the command line asks for; NULL after a message. */
td_config_t *td_cli_load(const td_cli_t *cli, tg_error_t *err);

/* A connection for a command, which waits; NULL after a message. */
PGconn *td_cli_connect(const td_config_t *config);

int td_serve(td_cli_t *cli);
int td_migrate(td_cli_t *cli);
int td_seal(td_cli_t *cli);
int td_token(td_cli_t *cli);
int td_print_routes(td_cli_t *cli);
int td_print_options(td_cli_t *cli);
int td_agent(td_cli_t *cli);
int td_exec(td_cli_t *cli);

#endif /* TD_CLI_H */
