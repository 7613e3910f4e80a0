/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * libjwt as an independent opinion, on each algorithm that it knows: what it
 * signs we accept, what we take for signed it accepts, and of a thousand damaged
 * tokens we accept none that it refuses.  Where it is more lenient than a gateway
 * may be is listed, so that nobody takes the difference for a mistake.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jwt.h>
#include <openssl/pem.h>

#include "tg_jwt.h"
#include "token.h"

#define MUTATIONS  120


typedef struct {
    uint32_t         alg;
    jwt_alg_t        jwt_alg;
    token_key_t      key;
    unsigned char   *private_key;   /* as libjwt wants it: PEM, or the secret */
    int              private_len;
    unsigned char   *public_key;
    int              public_len;
    tg_verifier_t   *verifier;
} pair_t;

static pair_t  pairs[] = {
    { .alg = TG_ALG_HS256, .jwt_alg = JWT_ALG_HS256 },
    { .alg = TG_ALG_HS384, .jwt_alg = JWT_ALG_HS384 },
    { .alg = TG_ALG_HS512, .jwt_alg = JWT_ALG_HS512 },
    { .alg = TG_ALG_RS256, .jwt_alg = JWT_ALG_RS256 },
    { .alg = TG_ALG_RS384, .jwt_alg = JWT_ALG_RS384 },
    { .alg = TG_ALG_RS512, .jwt_alg = JWT_ALG_RS512 },
    { .alg = TG_ALG_ES256, .jwt_alg = JWT_ALG_ES256 },
    { .alg = TG_ALG_ES384, .jwt_alg = JWT_ALG_ES384 },
    { .alg = TG_ALG_ES512, .jwt_alg = JWT_ALG_ES512 },
};

#define N_PAIRS  (sizeof(pairs) / sizeof(pairs[0]))

static tg_crypto_t  *crypto;


static unsigned char *
pem_of(EVP_PKEY *pkey, int private, int *len)
{
    BIO            *bio;
    char           *data;
    long            n;
    unsigned char  *copy;

    bio = BIO_new(BIO_s_mem());
    assert_int_equal(private ? PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL,
                                                        0, NULL, NULL)
                             : PEM_write_bio_PUBKEY(bio, pkey), 1);
    n = BIO_get_mem_data(bio, &data);
    copy = calloc(1, (size_t) n + 1);
    memcpy(copy, data, (size_t) n);
    BIO_free(bio);

    *len = (int) n;

    return copy;
}


static void
pair_init(pair_t *pair)
{
    int       len;
    uint8_t  *der;

    pair->key = token_key_new(pair->alg);

    if (pair->key.pkey == NULL) {
        pair->private_key = pair->public_key = pair->key.secret;
        pair->private_len = pair->public_len = (int) pair->key.secret_len;
        pair->verifier = tg_verifier_create(crypto, pair->alg, pair->key.secret,
                                            pair->key.secret_len, 1);
        return;
    }

    pair->private_key = pem_of(pair->key.pkey, 1, &pair->private_len);
    pair->public_key = pem_of(pair->key.pkey, 0, &pair->public_len);

    der = NULL;
    len = i2d_PUBKEY(pair->key.pkey, &der);
    pair->verifier = tg_verifier_create(crypto, pair->alg, der, (size_t) len,
                                        0);
    OPENSSL_free(der);
}


static int
setup(void **state)
{
    size_t  i;

    (void) state;

    crypto = tg_crypto_create();

    for (i = 0; i < N_PAIRS; i++) {
        pair_init(&pairs[i]);
        assert_non_null(pairs[i].verifier);
    }

    return 0;
}


static int
teardown(void **state)
{
    size_t  i;

    (void) state;

    for (i = 0; i < N_PAIRS; i++) {
        tg_verifier_destroy(pairs[i].verifier);

        if (pairs[i].key.pkey != NULL) {
            free(pairs[i].private_key);
            free(pairs[i].public_key);
            token_key_free(&pairs[i].key);
        }
    }

    tg_crypto_destroy(crypto);

    return 0;
}


static int
ours(const pair_t *pair, const char *token)
{
    int       ok;
    tg_jwt_t  jwt;

    if (tg_jwt_parse(&jwt, NULL, token, strlen(token)) != TG_JWT_OK) {
        return 0;
    }

    ok = jwt.alg == pair->alg
         && tg_verifier_check(pair->verifier, jwt.signed_part, jwt.signed_len,
                              jwt.signature, jwt.signature_len);
    tg_jwt_clear(&jwt);

    return ok;
}


static int
theirs(const pair_t *pair, const char *token)
{
    int     ok;
    jwt_t  *jwt;

    jwt = NULL;
    ok = jwt_decode(&jwt, token, pair->public_key, pair->public_len) == 0
         && jwt_get_alg(jwt) == pair->jwt_alg;
    jwt_free(jwt);

    return ok;
}


static char *
signed_by_libjwt(const pair_t *pair)
{
    char   *token;
    jwt_t  *jwt;

    assert_int_equal(jwt_new(&jwt), 0);
    assert_int_equal(jwt_add_grant(jwt, "iss", "https://id.acme"), 0);
    assert_int_equal(jwt_add_grant(jwt, "sub", "alice"), 0);
    assert_int_equal(jwt_add_grant_int(jwt, "exp", 1700000100), 0);
    assert_int_equal(jwt_add_grants_json(jwt, "{\"aud\":[\"api\",\"x\"]}"), 0);
    assert_int_equal(jwt_add_header(jwt, "kid", "k1"), 0);
    assert_int_equal(jwt_set_alg(jwt, pair->jwt_alg, pair->private_key,
                                 pair->private_len), 0);
    token = jwt_encode_str(jwt);
    assert_non_null(token);
    jwt_free(jwt);

    return token;
}


static void
test_signed_by_libjwt(void **state)
{
    char      *token;
    size_t     i;
    tg_jwt_t   jwt;

    (void) state;

    for (i = 0; i < N_PAIRS; i++) {
        token = signed_by_libjwt(&pairs[i]);
        assert_true(theirs(&pairs[i], token));
        assert_true(ours(&pairs[i], token));

        /* and both read the same in it */
        assert_int_equal(tg_jwt_parse(&jwt, NULL, token, strlen(token)), TG_JWT_OK);
        assert_string_equal(jwt.kid, "k1");
        assert_string_equal(json_string_value(json_object_get(jwt.claims,
                                                              "sub")), "alice");
        assert_int_equal(json_integer_value(json_object_get(jwt.claims,
                                                            "exp")),
                         1700000100);
        tg_jwt_clear(&jwt);
        free(token);
    }
}


static void
test_signed_by_openssl(void **state)
{
    char    *token, header[64];
    size_t   i;

    (void) state;

    for (i = 0; i < N_PAIRS; i++) {
        sprintf(header, "{\"alg\":\"%s\",\"typ\":\"JWT\"}",
                tg_alg_name(pairs[i].alg));
        token = token_sign(&pairs[i].key, header, "{\"sub\":\"alice\"}");
        assert_true(ours(&pairs[i], token));
        assert_true(theirs(&pairs[i], token));
        free(token);
    }
}


/* A token damaged in one place: a character replaced, removed or doubled. */
static void
mutate(char *token, uint32_t random)
{
    size_t  len, at;

    static const char  chars[] = "ABab01-_.=+/ \n\xff";

    len = strlen(token);
    at = random % len;

    switch (random / 65536 % 4) {

    case 0:
        memmove(token + at, token + at + 1, len - at);
        break;

    case 1:
        memmove(token + at + 1, token + at, len - at + 1);
        break;

    default:
        token[at] = chars[random / 16777216 % (sizeof(chars) - 1)];
        break;
    }
}


static void
test_mutated(void **state)
{
    int        differ, n;
    char      *token, *copy;
    size_t     i;
    uint32_t   random;

    (void) state;

    random = 20240601;      /* the same tokens at each run */
    differ = 0;

    for (i = 0; i < N_PAIRS; i++) {
        token = signed_by_libjwt(&pairs[i]);
        copy = malloc(strlen(token) + 2);

        for (n = 0; n < MUTATIONS; n++) {
            random = random * 1664525 + 1013904223;
            strcpy(copy, token);
            mutate(copy, random);

            if (strcmp(copy, token) == 0) {
                continue;
            }

            /* every accepted text but the signed one is a second text for it */
            assert_false(ours(&pairs[i], copy));
            differ += theirs(&pairs[i], copy);
        }

        free(copy);
        free(token);
    }

    print_message("damaged tokens that only libjwt accepts: %d of %d\n", differ,
                  (int) N_PAIRS * MUTATIONS);
}


/* Signed all right, refused all the same.  libjwt 1.10 takes each of these. */
static void
test_stricter(void **state)
{
    char    *token;
    size_t   i;

    static const struct {
        const char  *header;
        const char  *claims;
    } cases[] = {
        { "{\"alg\":\"HS256\"}", "{\"sub\":\"alice\",\"sub\":\"bob\"}" },
        { "{\"alg\":\"none\",\"alg\":\"HS256\"}", "{\"sub\":\"alice\"}" },
        { "{\"alg\":\"HS256\",\"crit\":[\"x\"],\"x\":1}", "{}" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        token = token_sign(&pairs[0].key, cases[i].header, cases[i].claims);
        assert_true(theirs(&pairs[0], token));
        assert_false(ours(&pairs[0], token));
        free(token);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_signed_by_libjwt),
        cmocka_unit_test(test_signed_by_openssl),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_stricter),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
