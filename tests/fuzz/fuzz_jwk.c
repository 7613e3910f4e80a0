/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A key set of somebody else.  A key that is taken makes a verifier for each of
 * its algorithms and for no other.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/err.h>

#include "tg_jwk.h"
#include "tg_verify.h"

#define MAX_KEYS  4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const uint8_t  master[32] = "the key that the fuzzer seals by";


static void
must(int ok)
{
    if (!ok) {
        abort();
    }
}


static void
check_key(tg_crypto_t *crypto, const tg_jwk_t *jwk)
{
    uint32_t        alg;
    tg_verifier_t  *verifier;

    must(jwk->algorithms != 0 && (jwk->algorithms & ~TG_ALG_ANY) == 0);
    must(jwk->hmac == ((jwk->algorithms & TG_ALG_ANY_HMAC) != 0));
    must(!jwk->hmac || (jwk->algorithms & ~TG_ALG_ANY_HMAC) == 0);
    must(jwk->kid == NULL
         || (jwk->kid_len > 0 && jwk->kid_len <= TG_JWK_MAX_KID
             && strlen(jwk->kid) == jwk->kid_len));

    for (alg = 1; alg <= TG_ALG_EDDSA; alg <<= 1) {

        /* the six of RSA differ in nothing that depends on the key */
        if (alg & TG_ALG_ANY_RSA & ~TG_ALG_PS512) {
            continue;
        }

        verifier = tg_verifier_create(crypto, alg, jwk->material,
                                      jwk->material_len, jwk->hmac);

        if (jwk->algorithms & alg) {
            must(verifier != NULL);
            must(tg_verifier_check(verifier, "", 0, jwk->material,
                                   jwk->material_len) == 0);
        }

        tg_verifier_destroy(verifier);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t            i, n;
    json_t           *keys;
    tg_jwk_t          jwk[MAX_KEYS];
    tg_error_t        err;
    tg_jwk_status_e   rc;

    static tg_crypto_t  *crypto;

    if (crypto == NULL) {
        crypto = tg_crypto_create();
    }

    keys = json_loadb((const char *) data, size, JSON_REJECT_DUPLICATES
                                                 |JSON_ALLOW_NUL, NULL);
    if (keys == NULL) {
        return 0;
    }

    err.message[0] = '\0';
    rc = tg_jwk_set_parse(keys, TG_ALG_ANY, master, jwk, MAX_KEYS, &n, &err);

    must(rc == TG_JWK_OK || (n == 0 && err.message[0] != '\0'));

    for (i = 0; i < n; i++) {
        check_key(crypto, &jwk[i]);
        tg_jwk_clear(&jwk[i]);
    }

    must(ERR_peek_error() == 0);
    json_decref(keys);

    return 0;
}
