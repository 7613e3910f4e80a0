/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A stranger's token, and an issuer's.  The first byte says which: "t", the rest
 * is the token; "s", the rest is header and claims, a line feed between them, and
 * is signed here, so that what comes after a right signature is reached too.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "tg_b64.h"
#include "tg_bearer.h"
#include "tg_compile.h"
#include "tg_secret.h"

#define NOW  1700000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const uint8_t  master[32] = "the key that the fuzzer seals by";
static const uint8_t  secret[32] = "the key that the fuzzer signs by";

static tg_bearer_t  bearer;
static tg_block_t  *tenant;


static void
must(int ok)
{
    if (!ok) {
        abort();
    }
}


static const tg_block_t *
no_issuer(void *data, uint64_t id)
{
    (void) data;
    (void) id;

    return NULL;
}


static void
start(void)
{
    char     sealed[tg_secret_sealed_size(32)];
    json_t  *document;

    must(tg_secret_seal(master, secret, sizeof(secret), sealed) == 0);

    document = json_pack("{s:s,s:i,s:i,s:s,s:s,s:[],s:[{s:i,s:s,s:i,s:s,s:[s],"
                         "s:[s,s],s:i,s:s,s:[{s:s,s:s,s:s}]}],s:[],s:[],s:[],"
                         "s:[]}",
                         "name", "acme", "id", 1, "revision", 1, "tier",
                         "vcluster", "state", "active", "hosts", "issuers",
                         "id", 1, "name", "main", "revision", 1, "issuer",
                         "https://id", "audiences", "api", "algorithms",
                         "HS256", "RS256", "leeway", 60, "consumer_claim",
                         "sub", "keys", "kty", "oct", "kid", "k", "k_sealed",
                         sealed, "api_keys", "upstreams", "routes", "quotas");
    tenant = tg_compile_json(document, TG_KIND_TENANT, master, NULL);
    must(tenant != NULL);
    json_decref(document);

    bearer.crypto = tg_crypto_create();
    bearer.keyring = tg_keyring_create(bearer.crypto, 4);
    bearer.memo = tg_jwt_memo_create();
    bearer.cache = tg_token_cache_create(4);
    bearer.find_issuer = no_issuer;
}


/* Header and claims as a token with a right signature; the caller frees. */
static char *
sign(const uint8_t *data, size_t size, size_t *len)
{
    char           *token;
    size_t          n;
    uint8_t         mac[32];
    const uint8_t  *claims;

    claims = memchr(data, '\n', size);
    if (claims == NULL) {
        return NULL;
    }

    claims++;
    token = malloc(tg_b64url_encoded_size(size) + 64);

    n = tg_b64url_encode(token, data, (size_t) (claims - 1 - data));
    token[n++] = '.';
    n += tg_b64url_encode(token + n, claims, size - (size_t) (claims - data));

    HMAC(EVP_sha256(), secret, sizeof(secret), (uint8_t *) token, n, mac, NULL);

    token[n++] = '.';
    *len = n + tg_b64url_encode(token + n, mac, sizeof(mac));

    return token;
}


/* A part decodes to bytes that encode to that part and to no other. */
static void
check_canonical(const char *token, size_t len)
{
    char    *again;
    size_t   n;
    uint8_t *bytes;
    ssize_t  size;

    bytes = malloc(tg_b64url_decoded_size(len));
    size = tg_b64url_decode(bytes, token, len);
    must(size >= 0);

    again = malloc(tg_b64url_encoded_size((size_t) size) + 1);
    n = tg_b64url_encode(again, bytes, (size_t) size);
    must(n == len && memcmp(again, token, len) == 0);

    free(bytes);
    free(again);
}


/* The memo changes nothing, whether it knows the header or not. */
static void
check_parse(const char *token, size_t len)
{
    int               round;
    tg_jwt_t          plain, known;
    const char       *dot;
    tg_jwt_status_e   rc;

    rc = tg_jwt_parse(&plain, NULL, token, len);

    for (round = 0; round < 2; round++) {
        must(tg_jwt_parse(&known, bearer.memo, token, len) == rc);

        if (rc != TG_JWT_OK) {
            continue;
        }

        must(known.alg == plain.alg && known.kid_len == plain.kid_len
             && (known.kid == NULL) == (plain.kid == NULL)
             && (known.kid == NULL
                 || memcmp(known.kid, plain.kid, plain.kid_len) == 0));
        tg_jwt_clear(&known);
    }

    if (rc != TG_JWT_OK) {
        return;
    }

    dot = memchr(token, '.', len);
    check_canonical(token, (size_t) (dot - token));
    check_canonical(dot + 1, plain.signed_len - (size_t) (dot + 1 - token));
    check_canonical(token + plain.signed_len + 1, len - plain.signed_len - 1);
    tg_jwt_clear(&plain);
}


static void
check_text(const char *text, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        must((unsigned char) text[i] >= 0x20 && text[i] != 0x7f);
    }
}


static void
check_verdict(const char *text, size_t len)
{
    tg_token_t           *token;
    tg_bearer_request_t   request;

    request.block = tenant;
    request.version = 1;
    request.now = NOW;
    request.token = text;
    request.len = len;

    token = tg_bearer_find(&bearer, &request);

    if (token == NULL
        && tg_bearer_verify(&bearer, &request, &token) != TG_BEARER_OK)
    {
        /* refused once, refused again */
        must(tg_bearer_find(&bearer, &request) == NULL);
        return;
    }

    must(token->consumer_len > 0 && token->expires > NOW
         && token->not_before <= NOW
         && strcmp(json_string_value(json_object_get(token->claims, "iss")),
                   "https://id") == 0);
    check_text(token->consumer, token->consumer_len);
    check_text(token->scopes, token->scopes_len);
    tg_token_release(token);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char    *token;
    size_t   len;

    if (tenant == NULL) {
        start();
    }

    if (size == 0) {
        return 0;
    }

    if (data[0] == 's') {
        token = sign(data + 1, size - 1, &len);

    } else {
        /* of exactly its size, so that a byte too far is seen */
        len = size - 1;
        token = malloc(len != 0 ? len : 1);
        memcpy(token, data + 1, len);
    }

    if (token != NULL) {
        check_parse(token, len);
        check_verdict(token, len);
        free(token);
    }

    return 0;
}
