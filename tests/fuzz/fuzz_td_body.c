/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Request bodies: the strict JSON of tenantd, the keys in it, and fetched key
 * sets.  No plain secret and no private member may be left in what goes on.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "td_body.h"
#include "td_jwks.h"
#include "td_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const uint8_t  secret_key[32] = "an entirely public key: 32 bytes";


static void
check(int condition)
{
    if (!condition) {
        abort();
    }
}


static void
check_keys(const json_t *issuer)
{
    size_t   i;
    json_t  *jwk;

    json_array_foreach(json_object_get(json_object_get(issuer, "jwks"), "keys"),
                       i, jwk)
    {
        check(json_object_get(jwk, "k") == NULL);
        check(json_object_get(jwk, "d") == NULL);
        check(json_object_get(jwk, "pem") == NULL);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char          detail[TD_BODY_MAX_DETAIL], text[TD_BODY_MAX_DETAIL + 64];
    size_t        i;
    json_t       *body, *issuer;
    tg_error_t    err;
    td_problem_t  problem;

    td_jwks_check((const char *) data, size, text, sizeof(text));

    body = td_body_parse((const char *) data, size, &problem, detail);

    if (body == NULL) {
        check(problem.status == 400 && problem.detail[0] != '\0');
        return 0;
    }

    if (td_keys_prepare(body, secret_key, &err) >= 0) {
        check_keys(body);

        json_array_foreach(json_object_get(body, "issuers"), i, issuer) {
            check_keys(issuer);
        }

    } else {
        check(err.message[0] != '\0' && err.pointer[0] == '/');
    }

    json_decref(body);

    return 0;
}
