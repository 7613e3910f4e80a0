/* SPDX-License-Identifier: BSD-2-Clause */

/* Taking a token apart.  What a token is worth is test_tg_bearer.c's matter. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_jwt.h"
#include "token.h"

#define GOOD_HEADER  "{\"alg\":\"HS256\"}"
#define GOOD_CLAIMS  "{\"sub\":\"a\"}"


/* Parses, from memory of exactly its size, so that a sanitizer sees the byte
 * behind it being read. */
static tg_jwt_status_e
parse(const char *token, size_t len)
{
    char             *copy;
    tg_jwt_t          jwt;
    tg_jwt_status_e   rc;

    copy = malloc(len != 0 ? len : 1);
    memcpy(copy, token, len);
    rc = tg_jwt_parse(&jwt, NULL, copy, len);

    if (rc == TG_JWT_OK) {
        tg_jwt_clear(&jwt);
    }

    free(copy);

    return rc;
}


/* header.claims.AAAA of two texts with their lengths. */
static tg_jwt_status_e
parse_parts(const char *header, size_t header_len, const char *claims,
    size_t claims_len)
{
    char             *token;
    tg_jwt_status_e   rc;

    token = token_unsigned(header, header_len, claims, claims_len);
    strcat(token, "AAAA");
    rc = parse(token, strlen(token));
    free(token);

    return rc;
}


static tg_jwt_status_e
parse_header(const char *header)
{
    return parse_parts(header, strlen(header), GOOD_CLAIMS,
                       strlen(GOOD_CLAIMS));
}


static tg_jwt_status_e
parse_claims(const char *claims)
{
    return parse_parts(GOOD_HEADER, strlen(GOOD_HEADER), claims,
                       strlen(claims));
}


static void
test_good(void **state)
{
    char      *token;
    tg_jwt_t   jwt;

    static const char  header[] =
        "{\"typ\":\"JWT\",\"kid\":\"k\\u00e9y\",\"alg\":\"ES384\"}";
    static const char  claims[] = "{\"sub\":\"a\",\"n\":[1,{\"x\":null}]}";

    (void) state;

    token = token_unsigned(header, strlen(header), claims, strlen(claims));
    strcat(token, "Zm9v");

    assert_int_equal(tg_jwt_parse(&jwt, NULL, token, strlen(token)), TG_JWT_OK);
    assert_int_equal(jwt.alg, TG_ALG_ES384);
    assert_int_equal(jwt.kid_len, 4);
    assert_memory_equal(jwt.kid, "k\xc3\xa9y", 4);
    assert_string_equal(json_string_value(json_object_get(jwt.claims, "sub")),
                        "a");
    assert_int_equal(jwt.signature_len, 3);
    assert_memory_equal(jwt.signature, "foo", 3);
    assert_ptr_equal(jwt.signed_part, token);
    assert_int_equal(jwt.signed_len, strlen(token) - 5);

    tg_jwt_clear(&jwt);
    free(token);
}


static void
test_parts(void **state)
{
    size_t  i;

    static const struct {
        const char       *token;
        tg_jwt_status_e   rc;
    } cases[] = {
        { "", TG_JWT_PARTS },
        { ".", TG_JWT_PARTS },
        { "..", TG_JWT_PARTS },
        { "...", TG_JWT_PARTS },
        { "e30", TG_JWT_PARTS },
        { "e30.e30", TG_JWT_PARTS },
        { "e30.e30.", TG_JWT_PARTS },       /* alg none has no signature */
        { ".e30.AAAA", TG_JWT_PARTS },
        { "e30..AAAA", TG_JWT_PARTS },
        { "e30.e30.AAAA.", TG_JWT_BASE64 },
        { "e30.e30.AAAA.AAAA", TG_JWT_BASE64 },
        { "e30.e30.AAAA.AAAA.AAAA", TG_JWT_BASE64 },    /* JWE */
        { "e30.e30.AAAA ", TG_JWT_BASE64 },
        { " e30.e30.AAAA", TG_JWT_BASE64 },
        { "e30 .e30.AAAA", TG_JWT_BASE64 },
        { "e30.e30.AA==", TG_JWT_BASE64 },
        { "e30=.e30.AAAA", TG_JWT_BASE64 },
        { "e30.e30.AB", TG_JWT_BASE64 },    /* not canonical */
        { "e31.e30.AAAA", TG_JWT_BASE64 },
        { "e30.e30.A", TG_JWT_BASE64 },
        { "eyJhbGciOiJIUzI1NiJ9.e30=.AAAA", TG_JWT_BASE64 },
        { "eyJhbGciOiJIUzI1NiJ9.e31.AAAA", TG_JWT_BASE64 },
        { "eyJhbGciOiJIUzI1NiJ9.e 30.AAAA", TG_JWT_BASE64 },
        { "e30.e30.AA+A", TG_JWT_BASE64 },
        { "e30.e30.AA/A", TG_JWT_BASE64 },
        { "{\"payload\":\"e30\"}", TG_JWT_PARTS },      /* JSON serialisation */
        { "e30.e30.AAAA", TG_JWT_HEADER },  /* {} has no alg */
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(cases[i].token, strlen(cases[i].token)),
                         cases[i].rc);
    }

    assert_int_equal(parse("eyJhbGciOiJIUzI1NiJ9.e30\0.AAAA", 30),
                     TG_JWT_BASE64);
    assert_int_equal(parse("eyJhbGciOiJIUzI1NiJ9.e30.AAAA\0", 30),
                     TG_JWT_BASE64);
}


static void
test_header(void **state)
{
    size_t  i;

    static const struct {
        const char       *header;
        tg_jwt_status_e   rc;
    } cases[] = {
        { "{\"alg\":\"RS256\"}", TG_JWT_OK },
        { "{\"alg\":\"EdDSA\",\"typ\":\"jwt\"}", TG_JWT_OK },
        { "{\"alg\":\"RS256\",\"typ\":\"AT+JWT\"}", TG_JWT_OK },
        { "{\"alg\":\"RS256\",\"typ\":\"application/at+jwt\"}", TG_JWT_OK },
        { "{\"alg\":\"RS256\",\"kid\":\"\"}", TG_JWT_OK },

        /* never "none", in no spelling */
        { "{\"alg\":\"none\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"None\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"NONE\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"nOnE\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"rs256\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"RS256 \"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"RS1\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"ES256K\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"RSA-OAEP\"}", TG_JWT_ALGORITHM },
        { "{\"alg\":\"dir\",\"enc\":\"A128GCM\"}", TG_JWT_ALGORITHM },

        { "{}", TG_JWT_HEADER },
        { "{\"Alg\":\"RS256\"}", TG_JWT_HEADER },
        { "{\"alg\":null}", TG_JWT_HEADER },
        { "{\"alg\":[\"RS256\"]}", TG_JWT_HEADER },
        { "{\"alg\":true}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"kid\":1}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"kid\":null}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"kid\":[\"a\"]}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":\"JWE\"}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":\"dpop+jwt\"}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":\"logout+jwt\"}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":\"\"}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":null}", TG_JWT_HEADER },
        { "{\"alg\":\"RS256\",\"typ\":7}", TG_JWT_HEADER },

        { "{\"alg\":\"RS256\",\"crit\":[\"exp\"]}", TG_JWT_CRITICAL },
        { "{\"alg\":\"RS256\",\"crit\":[]}", TG_JWT_CRITICAL },
        { "{\"alg\":\"RS256\",\"crit\":null}", TG_JWT_CRITICAL },
        { "{\"alg\":\"RS256\",\"crit\":[\"b64\"],\"b64\":false}",
          TG_JWT_CRITICAL },

        /* which one would the next reader take? */
        { "{\"alg\":\"RS256\",\"alg\":\"none\"}", TG_JWT_JSON },
        { "{\"alg\":\"none\",\"alg\":\"RS256\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"al\\u0067\":\"HS256\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"kid\":\"a\",\"kid\":\"b\"}", TG_JWT_JSON },

        { "[]", TG_JWT_JSON },
        { "\"RS256\"", TG_JWT_JSON },
        { "null", TG_JWT_JSON },
        { "1", TG_JWT_JSON },
        { "", TG_JWT_PARTS },
        { " ", TG_JWT_JSON },
        { "{", TG_JWT_JSON },
        { "{\"alg\":\"RS256\"", TG_JWT_JSON },
        { "{\"alg\":\"RS256\"}}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\"}{}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",}", TG_JWT_JSON },
        { "{'alg':'RS256'}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\"}//", TG_JWT_JSON },
        { "\xef\xbb\xbf{\"alg\":\"RS256\"}", TG_JWT_JSON },     /* BOM */
        { "{\"alg\":\"RS256\",\"kid\":\"\xc0\xaf\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"kid\":\"\xed\xa0\x80\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"kid\":\"\xff\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"kid\":\"\\ud800\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\",\"kid\":\"a\\u0000b\"}", TG_JWT_JSON },
        { "{\"alg\":\"RS256\\u0000\"}", TG_JWT_JSON },
        { "{\"alg\\u0000\":\"none\",\"alg\":\"RS256\"}", TG_JWT_JSON },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse_header(cases[i].header), cases[i].rc);
    }

    /* a NUL must not end it */
    assert_int_equal(parse_parts(GOOD_HEADER "\0x", sizeof(GOOD_HEADER) + 1,
                                 GOOD_CLAIMS, strlen(GOOD_CLAIMS)),
                     TG_JWT_JSON);
}


static void
test_claims(void **state)
{
    size_t  i;

    static const struct {
        const char       *claims;
        tg_jwt_status_e   rc;
    } cases[] = {
        { "{}", TG_JWT_OK },
        { " {\"a\":1}\n", TG_JWT_OK },
        { "{\"a\":9007199254740993}", TG_JWT_OK },

        { "{\"sub\":\"alice\",\"sub\":\"bob\"}", TG_JWT_JSON },
        { "{\"sub\":\"alice\",\"su\\u0062\":\"bob\"}", TG_JWT_JSON },
        { "{\"a\":{\"b\":1,\"b\":2}}", TG_JWT_JSON },
        { "{\"a\":[{\"b\":1,\"b\":2}]}", TG_JWT_JSON },

        { "[]", TG_JWT_JSON },
        { "\"eyJhbGciOiJIUzI1NiJ9.e30.AAAA\"", TG_JWT_JSON },
        { "eyJhbGciOiJIUzI1NiJ9.e30.AAAA", TG_JWT_JSON },   /* nested token */
        { "null", TG_JWT_JSON },
        { "{\"a\":1e400}", TG_JWT_JSON },
        { "{\"a\":NaN}", TG_JWT_JSON },
        { "{\"a\":Infinity}", TG_JWT_JSON },
        { "{\"a\":99999999999999999999}", TG_JWT_JSON },
        { "{\"a\":01}", TG_JWT_JSON },
        { "{\"a\":+1}", TG_JWT_JSON },
        { "{\"a\":0x10}", TG_JWT_JSON },
        { "{\"a\":\"\x01\"}", TG_JWT_JSON },
        { "{\"a\":\"\xf4\x90\x80\x80\"}", TG_JWT_JSON },
        { "{\"a\":\"\xe0\x80\xaf\"}", TG_JWT_JSON },
        { "{\"sub\":\"admin\\u0000x\"}", TG_JWT_JSON },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse_claims(cases[i].claims), cases[i].rc);
    }

    assert_int_equal(parse_parts(GOOD_HEADER, strlen(GOOD_HEADER), "{}\0{}", 5),
                     TG_JWT_JSON);
}


/* A header with a filler that makes its base64url form len characters long. */
static char *
header_of(size_t len)
{
    char    *header;
    size_t   n, head;

    n = len / 4 * 3;
    header = malloc(n + 1);
    head = (size_t) sprintf(header, "{\"alg\":\"HS256\",\"x\":\"");
    memset(header + head, 'x', n - head - 2);
    strcpy(header + n - 2, "\"}");

    return header;
}


static void
test_limits(void **state)
{
    char    *header, *claims, *token;
    size_t   head;

    (void) state;

    header = header_of(TG_JWT_MAX_HEADER);
    assert_int_equal(parse_header(header), TG_JWT_OK);
    free(header);

    header = header_of(TG_JWT_MAX_HEADER + 4);
    assert_int_equal(parse_header(header), TG_JWT_TOO_LONG);
    free(header);

    /* the whole token: one character under, at and over the limit */
    head = tg_b64url_encoded_size(strlen(GOOD_HEADER)) + 2 + 4;
    claims = header_of(TG_JWT_MAX_TOKEN - head);
    token = token_unsigned(GOOD_HEADER, strlen(GOOD_HEADER), claims,
                           strlen(claims));
    strcat(token, "AAAA");
    assert_true(strlen(token) <= TG_JWT_MAX_TOKEN);
    assert_true(strlen(token) + 4 > TG_JWT_MAX_TOKEN);
    assert_int_equal(parse(token, strlen(token)), TG_JWT_OK);
    strcat(token, "AAAA");
    assert_int_equal(parse(token, strlen(token)), TG_JWT_TOO_LONG);
    free(claims);
    free(token);

    token = malloc(1 << 20);
    memset(token, 'A', 1 << 20);
    assert_int_equal(parse(token, 1 << 20), TG_JWT_TOO_LONG);
    memset(token, '.', TG_JWT_MAX_TOKEN);
    assert_int_equal(parse(token, TG_JWT_MAX_TOKEN), TG_JWT_PARTS);
    free(token);
}


static void
test_signature_limit(void **state)
{
    char    *token;
    size_t   head, max;

    (void) state;

    max = tg_b64url_encoded_size(TG_VERIFY_MAX_SIGNATURE);
    token = malloc(TG_JWT_MAX_TOKEN);
    head = (size_t) sprintf(token, "eyJhbGciOiJIUzI1NiJ9.e30.");

    memset(token + head, 'A', max + 4);
    assert_int_equal(parse(token, head + max), TG_JWT_OK);
    assert_int_equal(parse(token, head + max + 4), TG_JWT_TOO_LONG);
    free(token);
}


/* Nesting as deep as the token has room for: refused, or parsed without harm. */
static void
test_depth(void **state)
{
    char    *claims;
    size_t   i;

    (void) state;

    claims = malloc(12000);
    memcpy(claims, "{\"a\":", 5);

    for (i = 5; i < 11000; i++) {
        claims[i] = '[';
    }

    claims[i] = '\0';
    assert_int_equal(parse_claims(claims), TG_JWT_JSON);

    for (i = 5; i < 2000; i++) {
        claims[i] = '[';
    }

    memset(claims + 2000, ']', 1995);
    strcpy(claims + 3995, "}");
    assert_int_equal(parse_claims(claims), TG_JWT_OK);

    free(claims);
}


static tg_jwt_status_e
parse_with_memo(tg_jwt_memo_t *memo, const char *header, char kid[100],
    uint32_t *alg, int *had)
{
    char             *token;
    tg_jwt_t          jwt;
    tg_jwt_status_e   rc;

    token = token_unsigned(header, strlen(header), GOOD_CLAIMS,
                           strlen(GOOD_CLAIMS));
    strcat(token, "AAAA");
    rc = tg_jwt_parse(&jwt, memo, token, strlen(token));

    if (rc == TG_JWT_OK) {
        *alg = jwt.alg;
        *had = jwt.header == NULL;

        if (jwt.kid != NULL) {
            snprintf(kid, 100, "%.*s", (int) jwt.kid_len, jwt.kid);
        } else {
            strcpy(kid, "none");
        }

        tg_jwt_clear(&jwt);
    }

    free(token);

    return rc;
}


/* A known header reads as it did the first time; a refused one is never known,
 * nor is one that differs. */
static void
test_memo(void **state)
{
    int             i, round, had;
    char            kid[100], header[200];
    uint32_t        alg;
    tg_jwt_memo_t  *memo;

    (void) state;

    memo = tg_jwt_memo_create();

    for (round = 0; round < 3; round++) {
        assert_int_equal(parse_with_memo(memo, "{\"alg\":\"ES256\"}", kid, &alg,
                                         &had), TG_JWT_OK);
        assert_int_equal(alg, TG_ALG_ES256);
        assert_string_equal(kid, "none");
        assert_int_equal(had, round != 0);

        assert_int_equal(parse_with_memo(memo, "{\"alg\":\"none\"}", kid, &alg,
                                         &had), TG_JWT_ALGORITHM);
        assert_int_equal(parse_with_memo(memo,
                                         "{\"alg\":\"ES256\",\"crit\":[]}",
                                         kid, &alg, &had), TG_JWT_CRITICAL);
        assert_int_equal(parse_with_memo(memo,
                                         "{\"alg\":\"ES256\",\"kid\":\"\"}",
                                         kid, &alg, &had), TG_JWT_OK);
        assert_string_equal(kid, "");
    }

    /* more than there is room for, and longer ones */
    for (round = 0; round < 2; round++) {
        for (i = 1; i < 300; i++) {
            sprintf(header, "{\"alg\":\"HS%s\",\"kid\":\"%0*d\"}",
                    i % 2 ? "256" : "384", i % 90 + 1, i);
            assert_int_equal(parse_with_memo(memo, header, kid, &alg, &had),
                             TG_JWT_OK);
            assert_int_equal(alg, i % 2 ? TG_ALG_HS256 : TG_ALG_HS384);
            assert_int_equal(strtol(kid, NULL, 10), i);
        }
    }

    tg_jwt_memo_destroy(memo);
}


/* Every truncation of a good token, and every one-character change of it, is
 * either refused or says what it says; no sanitizer complains. */
static void
test_mutations(void **state)
{
    char    *token, saved;
    size_t   i, len;

    (void) state;

    token = token_unsigned("{\"alg\":\"HS256\",\"kid\":\"k\"}", 25,
                           "{\"sub\":\"a\",\"exp\":1}", 19);
    strcat(token, "c2lnbmF0dXJl");
    len = strlen(token);

    for (i = 0; i < len; i++) {
        parse(token, i);

        for (saved = token[i], token[i] = 1; token[i] != 0; token[i]++) {
            parse(token, len);
        }

        token[i] = saved;
    }

    assert_int_equal(parse(token, len), TG_JWT_OK);
    free(token);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_signature_limit),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_memo),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
