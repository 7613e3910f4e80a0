/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What one verification of a signature costs in OpenSSL alone, with a key that is
 * parsed: below that no gateway can be whose every token is new.
 *
 *     verify RS256|ES256|HS256
 *
 * Prints ns of CPU time, the median of batches.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#define BATCHES  51
#define BATCH    200

static unsigned char  message[400], signature[512], secret[64];
static size_t         signature_len = sizeof(signature);


static void
fail(const char *what)
{
    fprintf(stderr, "verify: %s\n", what);
    exit(1);
}


static double
cpu_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return (double) ts.tv_sec * 1e9 + (double) ts.tv_nsec;
}


static void
verify(EVP_PKEY *key)
{
    unsigned       len;
    EVP_MD_CTX    *ctx;
    unsigned char  mac[EVP_MAX_MD_SIZE];

    if (key == NULL) {
        if (HMAC(EVP_sha256(), secret, sizeof(secret), message, sizeof(message), mac,
                 &len) == NULL)
        {
            fail("HMAC");
        }
        return;
    }

    ctx = EVP_MD_CTX_new();

    if (ctx == NULL || EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) != 1
        || EVP_DigestVerify(ctx, signature, signature_len, message, sizeof(message))
           != 1)
    {
        fail("the signature is not taken");
    }

    EVP_MD_CTX_free(ctx);
}


static void
sign(EVP_PKEY *key)
{
    EVP_MD_CTX  *ctx;

    ctx = EVP_MD_CTX_new();

    if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1
        || EVP_DigestSign(ctx, signature, &signature_len, message, sizeof(message)) != 1)
    {
        fail("cannot sign");
    }

    EVP_MD_CTX_free(ctx);
}


static int
by_size(const void *a, const void *b)
{
    double  x = *(const double *) a, y = *(const double *) b;

    return x < y ? -1 : x > y;
}


int
main(int argc, char **argv)
{
    int        i, k;
    double     start, batch[BATCHES];
    EVP_PKEY  *key;

    if (argc != 2) {
        fail("write RS256, ES256 or HS256");
    }

    key = strcmp(argv[1], "RS256") == 0 ? EVP_RSA_gen(2048)
          : strcmp(argv[1], "ES256") == 0 ? EVP_EC_gen("P-256") : NULL;

    if (key != NULL) {
        sign(key);

    } else if (strcmp(argv[1], "HS256") != 0) {
        fail("no key");
    }

    for (i = 0; i < BATCHES; i++) {
        start = cpu_ns();

        for (k = 0; k < BATCH; k++) {
            verify(key);
        }

        batch[i] = (cpu_ns() - start) / BATCH;
    }

    qsort(batch, BATCHES, sizeof(batch[0]), by_size);
    printf("%.0f\n", batch[BATCHES / 2]);
    EVP_PKEY_free(key);

    return 0;
}
