/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd token: the first token of a site, before there is one to make others
 * with over REST.  Needs a database login that is tiergate_admin or the owner.
 */

#include <stdio.h>
#include <string.h>

#include "td_cli.h"


static int
td_token_run(td_cli_t *cli, const char *sql, int n, const char *const *params)
{
    int           rc;
    PGconn       *conn;
    PGresult     *result;
    tg_error_t    err;
    td_config_t  *config;

    config = td_cli_load(cli, &err);
    if (config == NULL) {
        return 1;
    }

    conn = td_cli_connect(config);
    td_config_destroy(config);

    if (conn == NULL) {
        return 1;
    }

    result = PQexecParams(conn, sql, n, NULL, params, NULL, NULL, 0);
    rc = PQresultStatus(result) != PGRES_TUPLES_OK;

    if (rc != 0) {
        fprintf(stderr, "tenantd: %s", PQerrorMessage(conn));

    } else if (PQgetvalue(result, 0, 0)[0] != '\0') {
        puts(PQgetvalue(result, 0, 0));
    }

    PQclear(result);
    PQfinish(conn);

    return rc;
}


int
td_token(td_cli_t *cli)
{
    const char  *params[5];

    if (cli->words == 1 && strcmp(cli->word[0], "create") == 0
        && cli->name != NULL)
    {
        params[0] = cli->name;
        params[1] = cli->scope != NULL ? cli->scope : "admin";
        params[2] = cli->tenant;
        params[3] = cli->gateway;
        params[4] = cli->expires;

        return td_token_run(cli, "SELECT tiergate.create_token($1::text,"
                            " $2::text, $3::text, $4::text, $5::timestamptz)",
                            5, params);
    }

    if (cli->words == 1 && strcmp(cli->word[0], "revoke") == 0
        && cli->name != NULL)
    {
        params[0] = cli->name;

        return td_token_run(cli, "SELECT tiergate.revoke_token($1::text)", 1,
                            params);
    }

    fprintf(stderr, "usage: tenantd token create --name NAME [--scope admin|"
            "reader|tenant|gateway] [--tenant T] [--gateway G] [--expires TIME]"
            "\n       tenantd token revoke --name NAME\n");

    return 2;
}
