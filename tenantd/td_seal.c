/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tenantd seal: a secret from standard input, sealed, for psql users.
 */

#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "td_cli.h"
#include "tg_b64.h"
#include "tg_secret.h"


/* Reads the secret.  Returns its length, or -1 after a message. */
static ssize_t
td_seal_read(const td_cli_t *cli, uint8_t *secret, size_t size)
{
    char     input[TG_SECRET_MAX * 2];
    size_t   n;
    ssize_t  len;

    n = fread(input, 1, sizeof(input), stdin);

    if ((cli->text || cli->base64url) && n > 0 && input[n - 1] == '\n') {
        n--;
    }

    if (n == sizeof(input) || (!cli->base64url && n > size)) {
        fprintf(stderr, "tenantd: a secret has at most %d bytes\n",
                TG_SECRET_MAX);
        return -1;
    }

    len = (ssize_t) n;

    if (cli->base64url) {
        if (tg_b64url_decoded_size(n) > size
            || (len = tg_b64url_decode(secret, input, n)) < 0)
        {
            fprintf(stderr, "tenantd: this is not base64url\n");
            len = -1;
        }

    } else {
        memcpy(secret, input, n);
    }

    OPENSSL_cleanse(input, sizeof(input));

    return len;
}


int
td_seal(td_cli_t *cli)
{
    int           rc;
    char          sealed[tg_secret_sealed_size(TG_SECRET_MAX)];
    uint8_t       key[TG_SECRET_KEY_SIZE], secret[TG_SECRET_MAX];
    ssize_t       len;
    tg_error_t    err;
    td_config_t  *config;

    config = td_cli_load(cli, &err);
    if (config == NULL) {
        return 1;
    }

    if (config->secrets.key_file[0] == '\0') {
        tg_error_set(&err, "", "[secrets] key_file is not set");
        rc = -1;

    } else {
        rc = tg_secret_load_key(config->secrets.key_file, key, &err);
    }

    td_config_destroy(config);

    if (rc != 0) {
        fprintf(stderr, "tenantd: %s\n", err.message);
        return 1;
    }

    len = td_seal_read(cli, secret, sizeof(secret));
    rc = len <= 0 ? -1 : tg_secret_seal(key, secret, (size_t) len, sealed);

    OPENSSL_cleanse(key, sizeof(key));
    OPENSSL_cleanse(secret, sizeof(secret));

    if (rc != 0) {
        if (len == 0) {
            fprintf(stderr, "tenantd: there is no secret on standard input\n");
        }
        return 1;
    }

    puts(sealed);

    return 0;
}
