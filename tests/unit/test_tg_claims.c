/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tg_claims.h"

#define NOW     1700000000
#define LEEWAY  60


/* A block with one issuer and a few lists of strings, put together by hand. */
static struct {
    tg_block_t   block;
    tg_ref_t     list[4];
    char         text[256];
    size_t       used;
} image;

static tg_issuer_t  issuer;


static tg_ref_t
put(const char *s)
{
    tg_ref_t  ref;

    ref.len = (uint32_t) strlen(s);
    ref.off = (uint32_t) (offsetof(__typeof__(image), text) + image.used);
    strcpy(image.text + image.used, s);
    image.used += ref.len + 1;

    return ref;
}


/* Strings separated by commas, as a vector. */
static tg_vec_t
list(const char *strings)
{
    char      copy[128], *s, *rest;
    tg_vec_t  vec;

    vec.off = offsetof(__typeof__(image), list);
    vec.n = 0;
    strcpy(copy, strings);

    for (s = strtok_r(copy, ",", &rest); s; s = strtok_r(NULL, ",", &rest)) {
        image.list[vec.n++] = put(s);
    }

    return vec;
}


static void
reset(const char *audiences)
{
    memset(&image, 0, sizeof(image));
    memset(&issuer, 0, sizeof(issuer));

    issuer.issuer = put("https://id.acme");
    issuer.consumer_claim = put("sub");
    issuer.leeway = LEEWAY;
    issuer.audiences = list(audiences);
}


static json_t *
load(const char *text)
{
    json_t  *claims;

    claims = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(claims);

    return claims;
}


static tg_claims_status_e
check(const char *text, tg_claims_t *out)
{
    json_t              *claims;
    tg_claims_t          own;
    tg_claims_status_e   rc;

    claims = load(text);
    rc = tg_claims_check(claims, &image.block, &issuer, NOW,
                         out != NULL ? out : &own);
    json_decref(claims);

    return rc;
}


/* The members every good token here has, and more. */
#define WITH(more)                                                            \
    "{\"iss\":\"https://id.acme\",\"sub\":\"alice\"" more "}"
#define GOOD(more)  WITH(",\"exp\":1700000100" more)


static void
test_times(void **state)
{
    size_t  i;

    /* NOW is 1700000000, the leeway a minute */
    static const struct {
        const char          *claims;
        tg_claims_status_e   rc;
    } cases[] = {
        { WITH(",\"exp\":1700000001"), TG_CLAIMS_OK },
        { WITH(",\"exp\":1700000000"), TG_CLAIMS_OK },
        { WITH(",\"exp\":1699999941"), TG_CLAIMS_OK },
        { WITH(",\"exp\":1699999940"), TG_CLAIMS_EXPIRED },
        { WITH(",\"exp\":1699999939"), TG_CLAIMS_EXPIRED },
        { WITH(",\"exp\":0"), TG_CLAIMS_EXPIRED },
        { WITH(",\"exp\":9007199254740992"), TG_CLAIMS_OK },
        { WITH(",\"exp\":1699999940.5"), TG_CLAIMS_OK },
        { WITH(",\"exp\":1699999939.999"), TG_CLAIMS_EXPIRED },
        { WITH(",\"exp\":1.7e9"), TG_CLAIMS_OK },
        { WITH(",\"exp\":0.0"), TG_CLAIMS_EXPIRED },

        { WITH(""), TG_CLAIMS_NO_EXPIRY },
        { WITH(",\"EXP\":1700000100"), TG_CLAIMS_NO_EXPIRY },
        { WITH(",\"x\":{\"exp\":1700000100}"), TG_CLAIMS_NO_EXPIRY },

        { WITH(",\"exp\":null"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":\"1700000100\""), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":true"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":[1700000100]"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":-1"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":-1.5"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":9007199254740993"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":9223372036854775807"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":1e300"), TG_CLAIMS_MALFORMED },
        { WITH(",\"exp\":9.1e15"), TG_CLAIMS_MALFORMED },

        { GOOD(",\"nbf\":1700000000"), TG_CLAIMS_OK },
        { GOOD(",\"nbf\":1700000060"), TG_CLAIMS_OK },
        { GOOD(",\"nbf\":1700000061"), TG_CLAIMS_EARLY },
        { GOOD(",\"nbf\":1700000060.1"), TG_CLAIMS_EARLY },
        { GOOD(",\"nbf\":0"), TG_CLAIMS_OK },
        { GOOD(",\"nbf\":null"), TG_CLAIMS_MALFORMED },
        { GOOD(",\"nbf\":\"0\""), TG_CLAIMS_MALFORMED },
        { GOOD(",\"nbf\":-5"), TG_CLAIMS_MALFORMED },
        { GOOD(",\"nbf\":1e20"), TG_CLAIMS_MALFORMED },

        { GOOD(",\"iat\":1700000060"), TG_CLAIMS_OK },
        { GOOD(",\"iat\":1700000061"), TG_CLAIMS_EARLY },
        { GOOD(",\"iat\":1"), TG_CLAIMS_OK },
        { GOOD(",\"iat\":\"now\""), TG_CLAIMS_MALFORMED },
        { GOOD(",\"iat\":false"), TG_CLAIMS_MALFORMED },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        reset("");
        assert_int_equal(check(cases[i].claims, NULL), cases[i].rc);
    }
}


static void
test_times_out(void **state)
{
    tg_claims_t  out;

    (void) state;

    reset("");
    assert_int_equal(check(GOOD(",\"nbf\":1699999999.5,\"iat\":1600000000"),
                           &out), TG_CLAIMS_OK);
    assert_int_equal(out.expires, 1700000100 + LEEWAY);
    assert_int_equal(out.not_before, 1700000000 - LEEWAY);

    /* no leeway: the second of "exp" itself is too late (RFC 7519: before) */
    issuer.leeway = 0;
    assert_int_equal(check(WITH(",\"exp\":1700000001"), NULL), TG_CLAIMS_OK);
    assert_int_equal(check(WITH(",\"exp\":1700000000"), NULL),
                     TG_CLAIMS_EXPIRED);
    assert_int_equal(check(GOOD(",\"nbf\":1700000000"), NULL), TG_CLAIMS_OK);
    assert_int_equal(check(GOOD(",\"nbf\":1700000001"), NULL),
                     TG_CLAIMS_EARLY);
}


static void
test_issuer(void **state)
{
    size_t  i;

    static const char *const  wrong[] = {
        "{\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":\"\",\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":null,\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":[\"https://id.acme\"],\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":\"https://id.acme/\",\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":\"https://id.acm\",\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":\"https://ID.acme\",\"sub\":\"a\",\"exp\":1700000100}",
        "{\"iss\":\"https://evil\",\"x\":{\"iss\":\"https://id.acme\"},"
            "\"sub\":\"a\",\"exp\":1700000100}",
    };

    (void) state;

    reset("");

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(check(wrong[i], NULL), TG_CLAIMS_ISSUER);
    }
}


static void
test_audience(void **state)
{
    size_t  i;

    static const struct {
        const char          *audiences;
        const char          *claims;
        tg_claims_status_e   rc;
    } cases[] = {
        { "api", GOOD(",\"aud\":\"api\""), TG_CLAIMS_OK },
        { "api", GOOD(",\"aud\":[\"api\"]"), TG_CLAIMS_OK },
        { "api", GOOD(",\"aud\":[\"other\",\"api\"]"), TG_CLAIMS_OK },
        { "web,api", GOOD(",\"aud\":\"api\""), TG_CLAIMS_OK },

        { "api", GOOD(""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":\"\""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":[]"), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":\"other\""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":\"API\""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":\"api \""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"aud\":\"api,other\""), TG_CLAIMS_AUDIENCE },
        { "api", GOOD(",\"x\":{\"aud\":\"api\"}"), TG_CLAIMS_AUDIENCE },

        { "api", GOOD(",\"aud\":{\"api\":true}"), TG_CLAIMS_MALFORMED },
        { "api", GOOD(",\"aud\":null"), TG_CLAIMS_MALFORMED },
        { "api", GOOD(",\"aud\":[\"api\",1]"), TG_CLAIMS_MALFORMED },
        { "api", GOOD(",\"aud\":[[\"api\"]]"), TG_CLAIMS_MALFORMED },

        /* nobody asks, but the form is checked */
        { "", GOOD(""), TG_CLAIMS_OK },
        { "", GOOD(",\"aud\":\"whoever\""), TG_CLAIMS_OK },
        { "", GOOD(",\"aud\":7"), TG_CLAIMS_MALFORMED },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        reset(cases[i].audiences);
        assert_int_equal(check(cases[i].claims, NULL), cases[i].rc);
    }
}


static tg_claims_status_e
check_consumer(json_t *consumer, tg_claims_t *out)
{
    json_t              *claims;
    tg_claims_status_e   rc;

    reset("");
    claims = json_pack("{s:s,s:i,s:o}", "iss", "https://id.acme", "exp",
                       NOW + 9, "sub", consumer);
    rc = tg_claims_check(claims, &image.block, &issuer, NOW, out);
    json_decref(claims);

    return rc;
}


static void
test_consumer(void **state)
{
    char         name[300];
    size_t       i;
    tg_claims_t  out;

    static const char *const  bad[] = {
        "", " ", " a", "a ", "a\nb", "a\r\nX-Admin: 1", "a\tb", "\x01",
        "a\x7f", "\x1b[31m", "a\xc2\x85z", "\xc2\x9f",
    };

    (void) state;

    memset(name, 'n', sizeof(name));

    assert_int_equal(check_consumer(json_string("alice"), &out), TG_CLAIMS_OK);
    assert_int_equal(out.consumer_len, 5);
    assert_int_equal(check_consumer(json_string("J\xc3\xb6rg \xe2\x82\xac"),
                                    &out), TG_CLAIMS_OK);
    assert_int_equal(check_consumer(json_stringn(name, 256), &out),
                     TG_CLAIMS_OK);

    assert_int_equal(check_consumer(json_stringn(name, 257), &out),
                     TG_CLAIMS_CONSUMER);
    assert_int_equal(check_consumer(json_stringn("a\0b", 3), &out),
                     TG_CLAIMS_CONSUMER);
    assert_int_equal(check_consumer(json_integer(7), &out),
                     TG_CLAIMS_CONSUMER);
    assert_int_equal(check_consumer(json_null(), &out), TG_CLAIMS_CONSUMER);
    assert_int_equal(check_consumer(json_array(), &out), TG_CLAIMS_CONSUMER);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(check_consumer(json_string(bad[i]), &out),
                         TG_CLAIMS_CONSUMER);
    }

    /* the claim is the issuer's choice */
    reset("");
    issuer.consumer_claim = put("client_id");
    assert_int_equal(check(GOOD(""), NULL), TG_CLAIMS_CONSUMER);
    assert_int_equal(check(GOOD(",\"client_id\":\"app\""), &out),
                     TG_CLAIMS_OK);
}


static void
test_scopes(void **state)
{
    size_t       i;
    tg_claims_t  out;

    static const struct {
        const char  *claims;
        const char  *scopes;    /* NULL: refused */
    } cases[] = {
        { GOOD(""), "" },
        { GOOD(",\"scope\":\"\""), "" },
        { GOOD(",\"scope\":\"a\""), "a" },
        { GOOD(",\"scope\":\"a b:c d\""), "a b:c d" },
        { GOOD(",\"scope\":\"  a   b \""), "a b" },
        { GOOD(",\"scp\":\"a b\""), "a b" },
        { GOOD(",\"scp\":[\"a\",\"b\"]"), "a b" },
        { GOOD(",\"scp\":[]"), "" },
        { GOOD(",\"scope\":\"a\",\"scp\":[\"admin\"]"), "a" },

        { GOOD(",\"scope\":[\"a\"]"), "a" },
        { GOOD(",\"scope\":null"), NULL },
        { GOOD(",\"scope\":1"), NULL },
        { GOOD(",\"scope\":\"a\\tb\""), NULL },
        { GOOD(",\"scope\":\"a\\nb\""), NULL },
        { GOOD(",\"scope\":\"a\\r\\nX: y\""), NULL },
        { GOOD(",\"scope\":\"a\\\"b\""), NULL },
        { GOOD(",\"scope\":\"a\\\\b\""), NULL },
        { GOOD(",\"scope\":\"\xc3\xa9\""), NULL },
        { GOOD(",\"scp\":[\"a b\"]"), NULL },
        { GOOD(",\"scope\":[[\"a\"]]"), NULL },
        { GOOD(",\"scp\":[\"\"]"), NULL },
        { GOOD(",\"scp\":[1]"), NULL },
        { GOOD(",\"scp\":{\"a\":true}"), NULL },
        { GOOD(",\"scp\":true"), NULL },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        reset("");

        if (cases[i].scopes == NULL) {
            assert_int_equal(check(cases[i].claims, &out), TG_CLAIMS_SCOPE);
            continue;
        }

        assert_int_equal(check(cases[i].claims, &out), TG_CLAIMS_OK);
        assert_int_equal(out.scopes_len, strlen(cases[i].scopes));
        assert_memory_equal(out.scopes, cases[i].scopes, out.scopes_len);
    }
}


static void
test_scopes_bound(void **state)
{
    char          long_scope[TG_CLAIMS_MAX_SCOPES + 1];
    size_t        i;
    json_t       *claims, *scp;
    tg_claims_t  *out;

    (void) state;

    reset("");
    out = malloc(sizeof(*out));     /* a sanitizer sees its end */
    memset(long_scope, 's', sizeof(long_scope));

    claims = load(GOOD(""));
    json_object_set_new(claims, "scope",
                        json_stringn(long_scope, TG_CLAIMS_MAX_SCOPES - 1));
    assert_int_equal(tg_claims_check(claims, &image.block, &issuer, NOW, out),
                     TG_CLAIMS_OK);
    json_object_set_new(claims, "scope",
                        json_stringn(long_scope, TG_CLAIMS_MAX_SCOPES));
    assert_int_equal(tg_claims_check(claims, &image.block, &issuer, NOW, out),
                     TG_CLAIMS_SCOPE);
    json_object_del(claims, "scope");

    scp = json_array();
    json_object_set_new(claims, "scp", scp);

    for (i = 0; i < TG_CLAIMS_MAX_SCOPES / 2; i++) {
        json_array_append_new(scp, json_string("s"));
    }

    assert_int_equal(tg_claims_check(claims, &image.block, &issuer, NOW, out),
                     TG_CLAIMS_OK);
    assert_int_equal(out->scopes_len, TG_CLAIMS_MAX_SCOPES - 1);
    json_array_append_new(scp, json_string("s"));
    assert_int_equal(tg_claims_check(claims, &image.block, &issuer, NOW, out),
                     TG_CLAIMS_SCOPE);

    json_decref(claims);
    free(out);
}


static void
test_has_scopes(void **state)
{
    size_t    i;
    tg_ref_t  missing;

    static const struct {
        const char  *scopes;
        const char  *needed;
        const char  *missing;   /* NULL: none */
    } cases[] = {
        { "", "", NULL },
        { "a", "", NULL },
        { "a", "a", NULL },
        { "a b c", "c,a", NULL },
        { "orders:read orders:write", "orders:read", NULL },

        { "", "a", "a" },
        { "a b", "a,c", "c" },
        { "orders:read", "orders", "orders" },
        { "orders", "orders:read", "orders:read" },
        { "xa", "a", "a" },
        { "ax", "a", "a" },
        { "A", "a", "a" },
        { "b a", "aa", "aa" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        reset("");
        missing.off = 0;

        assert_int_equal(tg_claims_has_scopes(cases[i].scopes,
                                              strlen(cases[i].scopes),
                                              &image.block,
                                              list(cases[i].needed), &missing),
                         cases[i].missing == NULL);

        if (cases[i].missing != NULL) {
            assert_string_equal(tg_str(&image.block, missing),
                                cases[i].missing);
        }
    }
}


static void
test_no_scopes(void **state)
{
    (void) state;

    reset("");
    assert_int_equal(tg_claims_has_scopes(NULL, 0, &image.block, list(""),
                                          NULL), 1);
    assert_int_equal(tg_claims_has_scopes(NULL, 0, &image.block, list("a"),
                                          NULL), 0);
    assert_int_equal(tg_claims_has_scopes("a ", 2, &image.block, list("b"),
                                          NULL), 0);
}


static void
test_match(void **state)
{
    size_t            i;
    json_t           *claims;
    tg_claim_match_t  match;

    static const struct {
        const char  *claims;
        const char  *values;
        int          ok;
    } cases[] = {
        { "{\"role\":\"admin\"}", "admin", 1 },
        { "{\"role\":\"ops\"}", "admin,ops", 1 },
        { "{\"role\":[\"x\",\"ops\"]}", "admin,ops", 1 },
        { "{\"role\":5}", "5", 1 },
        { "{\"role\":[4,5]}", "5", 1 },
        { "{\"role\":-5}", "-5", 1 },
        { "{\"role\":true}", "true", 1 },
        { "{\"role\":[false]}", "false", 1 },

        { "{}", "admin", 0 },
        { "{\"role\":\"\"}", "admin", 0 },
        { "{\"role\":\"Admin\"}", "admin", 0 },
        { "{\"role\":\"admin \"}", "admin", 0 },
        { "{\"role\":\"administrator\"}", "admin", 0 },
        { "{\"role\":\"admin,ops\"}", "admin", 0 },
        { "{\"role\":[]}", "admin", 0 },
        { "{\"role\":[[\"admin\"]]}", "admin", 0 },
        { "{\"role\":{\"admin\":true}}", "admin", 0 },
        { "{\"x\":{\"role\":\"admin\"}}", "admin", 0 },
        { "{\"role\":null}", "null", 0 },
        { "{\"role\":5.0}", "5", 0 },
        { "{\"role\":1}", "true", 0 },
        { "{\"role\":9223372036854775807}", "9223372036854775806", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        reset("");
        match.name = put("role");
        match.values = list(cases[i].values);
        claims = load(cases[i].claims);

        assert_int_equal(tg_claims_match(claims, &image.block, &match),
                         cases[i].ok);
        json_decref(claims);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_times_out),
        cmocka_unit_test(test_issuer),
        cmocka_unit_test(test_audience),
        cmocka_unit_test(test_consumer),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_scopes_bound),
        cmocka_unit_test(test_has_scopes),
        cmocka_unit_test(test_no_scopes),
        cmocka_unit_test(test_match),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
