/* SPDX-License-Identifier: BSD-2-Clause */

#include "compile_fixture.h"


/* value NULL: removed.  where NULL: at the pointer itself. */
static const struct {
    const char  *pointer;
    const char  *value;
    const char  *where;
} refused[] = {
    { "/name", NULL, NULL },
    { "/name", "null", NULL },
    { "/name", "7", NULL },
    { "/name", "''", NULL },
    { "/name", "'Acme'", NULL },
    { "/name", "'-acme'", NULL },
    { "/name", "'acme-'", NULL },
    { "/name", "'ac.me'", NULL },
    { "/name", "'ac\\u0001me'", NULL },
    { "/name", "'a123456789012345678901234567890123456789012345678901234567890123'",
      NULL },
    { "/id", NULL, NULL },
    { "/id", "0", NULL },
    { "/id", "-1", NULL },
    { "/id", "1.5", NULL },
    { "/id", "1e3", NULL },
    { "/id", "'17'", NULL },
    { "/id", "9007199254740992", NULL },
    { "/revision", NULL, NULL },
    { "/revision", "0", NULL },
    { "/state", NULL, NULL },
    { "/state", "'deleted'", NULL },
    { "/state", "1", NULL },
    { "/reason", "'a\\nb'", NULL },
    { "/reason", "'a\\r\\nSet-Cookie: x'", NULL },
    { "/reason", "7", NULL },
    { "/boost", "3", NULL },
    { "/boost/factor", NULL, NULL },
    { "/boost/factor", "0", NULL },
    { "/boost/factor", "-1", NULL },
    { "/boost/factor", "1000.5", NULL },
    { "/boost/factor", "'3'", NULL },
    { "/boost/until", NULL, NULL },
    { "/boost/until", "1.5", NULL },

    { "/hosts", NULL, NULL },
    { "/hosts", "{}", NULL },
    { "/hosts", "'acme.example.com'", NULL },
    { "/hosts/0", "7", NULL },
    { "/hosts/1", "'Acme.example.com'", NULL },
    { "/hosts/1", "'acme.example.com:80'", NULL },
    { "/hosts/1", "'acme.example.com.'", NULL },
    { "/hosts/1", "'acme.example.com'", NULL },
    { "/hosts/1", "'a.*.com'", NULL },
    { "/hosts/1", "'192.0.2.1'", NULL },
    { "/hosts/1", "'*'", NULL },

    { "/issuers", NULL, NULL },
    { "/issuers", "{}", NULL },
    { "/issuers/0", "7", NULL },
    { "/issuers/0/id", NULL, NULL },
    { "/issuers/0/id", "3", "/issuers/1" },
    { "/issuers/0/name", "''", NULL },
    { "/issuers/0/revision", NULL, NULL },
    { "/issuers/0/issuer", NULL, NULL },
    { "/issuers/0/issuer", "''", NULL },
    { "/issuers/0/audiences", "[]", NULL },
    { "/issuers/0/audiences", "'api'", NULL },
    { "/issuers/0/audiences/0", "7", NULL },
    { "/issuers/0/algorithms", NULL, NULL },
    { "/issuers/0/algorithms", "[]", NULL },
    { "/issuers/0/algorithms/1", "'none'", NULL },
    { "/issuers/0/algorithms/1", "'rs256'", NULL },
    { "/issuers/0/algorithms/1", "'RS256\\u0000x'", NULL },
    { "/issuers/0/algorithms/1", "256", NULL },
    { "/issuers/0/leeway", NULL, NULL },
    { "/issuers/0/leeway", "301", NULL },
    { "/issuers/0/leeway", "-1", NULL },
    { "/issuers/0/consumer_claim", NULL, NULL },
    { "/issuers/0/keys", NULL, NULL },
    { "/issuers/0/keys", "{}", NULL },
    { "/issuers/0/keys/0", "7", NULL },
    { "/issuers/0/keys/0/x", "'AA'", NULL },
    { "/issuers/0/keys/0/d", "'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A'",
      NULL },
    { "/issuers/0/keys/0", "{'kty':'oct','alg':'HS256','k':'AAAA'}",
      "/issuers/0/keys/0/k" },
    { "/issuers/1/ref", "0", NULL },
    { "/issuers/1/ref", "'3'", NULL },
    { "/issuers/1/audiences", "[]", NULL },
    { "/issuers/-", "{'ref':3}", "/issuers/2" },

    { "/consumers", "{}", NULL },
    { "/consumers/0/id", "8", "/consumers/1" },
    { "/consumers/0/name", "'batch'", "/consumers/1" },
    { "/consumers/1/name", "'a b'", NULL },
    { "/consumers/1/name", "'b\xc3\xa9'", NULL },
    { "/consumers/1/name", "'a\\r\\nX: y'", NULL },

    { "/api_keys", NULL, NULL },
    { "/api_keys/0/id", "12", "/api_keys/1" },
    { "/api_keys/0/sha256", "'" DIGEST "a'", "/api_keys" },
    { "/api_keys/0/sha256", "'" DIGEST "'", NULL },
    { "/api_keys/0/sha256", "'" DIGEST "B'", NULL },
    { "/api_keys/0/sha256", "'" DIGEST "g'", NULL },
    { "/api_keys/0/sha256", "'" DIGEST "bb'", NULL },
    { "/api_keys/0/sha256", "null", NULL },
    { "/api_keys/0/consumer", NULL, NULL },
    { "/api_keys/0/consumer", "''", NULL },
    { "/api_keys/0/expires", "0", NULL },
    { "/api_keys/0/expires", "'never'", NULL },
    { "/api_keys/0/scopes", "'orders:read'", NULL },
    { "/api_keys/0/scopes/0", "'a b'", NULL },
    { "/api_keys/0/scopes/0", "''", NULL },

    { "/upstreams", NULL, NULL },
    { "/upstreams/0", "null", NULL },
    { "/upstreams/0/id", "32", "/upstreams/1" },
    { "/upstreams/1/name", "'orders-v1'", "/upstreams/1" },
    { "/upstreams/0/host", "'a b'", NULL },
    { "/upstreams/0/host", "'a/b'", NULL },
    { "/upstreams/0/host", "'a\\r\\nX: y'", NULL },
    { "/upstreams/0/host", "''", NULL },
    { "/upstreams/0/max_outstanding", "-1", NULL },
    { "/upstreams/0/max_outstanding", "1000001", NULL },
    { "/upstreams/0/health", "[]", NULL },
    { "/upstreams/0/health/max_fails", "1001", NULL },
    { "/upstreams/0/health/fail_timeout_ms", "0", NULL },
    { "/upstreams/0/health/fail_timeout_ms", "3600001", NULL },
    { "/upstreams/0/health/slow_start_ms", "3600001", NULL },
    { "/upstreams/0/endpoints", NULL, NULL },
    { "/upstreams/0/endpoints/0", "'10.0.0.1:8080'", NULL },
    { "/upstreams/0/endpoints/0/id", "52", "/upstreams" },
    { "/upstreams/0/endpoints/0/address", "'orders.internal'", NULL },
    { "/upstreams/0/endpoints/0/address", "'10.0.0'", NULL },
    { "/upstreams/0/endpoints/0/address", "'10.0.0.256'", NULL },
    { "/upstreams/0/endpoints/0/address", "'[::1]'", NULL },
    { "/upstreams/0/endpoints/0/address", "'fe80::1%eth0'", NULL },
    { "/upstreams/0/endpoints/0/address", "'10.0.0.1 '", NULL },
    { "/upstreams/0/endpoints/0/address", "7", NULL },
    { "/upstreams/0/endpoints/0/port", NULL, NULL },
    { "/upstreams/0/endpoints/0/port", "0", NULL },
    { "/upstreams/0/endpoints/0/port", "65536", NULL },
    { "/upstreams/0/endpoints/0/weight", "1000001", NULL },
    { "/upstreams/0/endpoints/-", "{'id':59,'address':'10.0.0.1','port':8080}",
      "/upstreams/0/endpoints/2" },
    { "/upstreams/1/endpoints/-", "{'id':51,'address':'10.0.0.9','port':1}",
      "/upstreams" },

    { "/routes", NULL, NULL },
    { "/routes/0", "[]", NULL },
    { "/routes/0/id", "22", "/routes/1" },
    { "/routes/1/name", "'orders'", "/routes/1" },
    { "/routes/0/match", NULL, NULL },
    { "/routes/0/match/path", NULL, NULL },
    { "/routes/0/match/path/type", "'glob'", NULL },
    { "/routes/0/match/path/type", NULL, NULL },
    { "/routes/0/match/path/value", "''", NULL },
    { "/routes/0/match/path/value", "'orders'", NULL },
    { "/routes/0/match/path/value", "'//orders'", NULL },
    { "/routes/0/match/path/value", "'/a//b'", NULL },
    { "/routes/0/match/path/value", "'/a/./b'", NULL },
    { "/routes/0/match/path/value", "'/a/..'", NULL },
    { "/routes/0/match/path/value", "'/a\\u0000b'", NULL },
    { "/routes/0/match/path/value", "'/a\\nb'", NULL },
    { "/routes/1/match/path", "{'type':'regex','value':'('}",
      "/routes/1/match/path/value" },
    { "/routes/1/match/path", "{'type':'regex','value':''}",
      "/routes/1/match/path/value" },
    { "/routes/0/match/methods", "[]", NULL },
    { "/routes/0/match/methods", "'GET'", NULL },
    { "/routes/0/match/methods/0", "'get'", NULL },
    { "/routes/0/match/methods/0", "'TRACE'", NULL },
    { "/routes/0/match/methods/0", "'CONNECT'", NULL },
    { "/routes/0/match/methods/0", "'GET\\u0000'", NULL },
    { "/routes/0/match/headers", "{}", NULL },
    { "/routes/0/match/headers/0/name", NULL, NULL },
    { "/routes/0/match/headers/0/name", "'a b'", NULL },
    { "/routes/0/match/headers/0/name", "'a:'", NULL },
    { "/routes/0/match/headers/0/name", "''", NULL },
    { "/routes/0/match/headers/0/type", "'prefix'", NULL },
    { "/routes/0/match/headers/0/value", NULL, NULL },
    { "/routes/0/match/headers/0", "{'name':'a','type':'regex','value':'['}",
      "/routes/0/match/headers/0/value" },
    { "/routes/0/match/hosts", "[]", NULL },
    { "/routes/0/match/hosts/0", "'A'", NULL },
    { "/routes/0/match/hosts/-", "'acme.example.com'",
      "/routes/0/match/hosts/1" },
    { "/routes/0/auth", "'none'", NULL },
    { "/routes/0/auth/mode", NULL, NULL },
    { "/routes/0/auth/mode", "'off'", NULL },
    { "/routes/0/auth/methods", "[]", NULL },
    { "/routes/0/auth/methods/0", "'basic'", NULL },
    { "/routes/0/auth/scopes", "'a'", NULL },
    { "/routes/0/auth/scopes/0", "'a b'", NULL },
    { "/routes/0/auth/claims", "{}", NULL },
    { "/routes/0/auth/claims/0/name", NULL, NULL },
    { "/routes/0/auth/claims/0/values", NULL, NULL },
    { "/routes/0/auth/claims/0/values", "[]", NULL },
    { "/routes/0/auth/claims/0/values/0", "true", NULL },
    { "/routes/0/auth/hide_credentials", "1", NULL },
    { "/routes/0/rewrite", "'/v2'", NULL },
    { "/routes/0/rewrite/type", "'regex'", NULL },
    { "/routes/0/rewrite/value", NULL, NULL },
    { "/routes/0/rewrite/value", "'v2'", NULL },
    { "/routes/0/rewrite/value", "'/../x'", NULL },
    { "/routes/0/match/path/type", "'exact'", "/routes/0/rewrite/type" },
    { "/routes/0/backends", NULL, NULL },
    { "/routes/0/backends", "[]", NULL },
    { "/routes/0/backends/0/upstream", "'orders-v3'", NULL },
    { "/routes/0/backends/0/upstream", NULL, NULL },
    { "/routes/0/backends/1/upstream", "'orders-v1'", "/routes/0/backends/1" },
    { "/routes/0/backends/0/weight", NULL, NULL },
    { "/routes/0/backends/0/weight", "-1", NULL },
    { "/routes/0/backends/0/weight", "1000001", NULL },
    { "/routes/1/backends/0/weight", "0", "/routes/1/backends" },
    { "/routes/0/sticky", "'cookie'", NULL },
    { "/routes/0/timeouts", "30", NULL },
    { "/routes/0/timeouts/connect_ms", "0", NULL },
    { "/routes/0/timeouts/read_ms", "3600001", NULL },
    { "/routes/0/timeouts/send_ms", "'1s'", NULL },
    { "/routes/0/retries", "6", NULL },
    { "/routes/0/retries", "-1", NULL },
    { "/routes/0/websocket", "'yes'", NULL },

    { "/quotas", NULL, NULL },
    { "/quotas/0", "7", NULL },
    { "/quotas/0/id", "42", "/quotas/1" },
    { "/quotas/0/name", "'each'", "/quotas/1" },
    { "/quotas/0/name", "'a\\\"b c'", NULL },
    { "/quotas/0/scope", NULL, NULL },
    { "/quotas/0/scope", "'global'", NULL },
    { "/quotas/0/scope", "'route'", "/quotas/0/route" },
    { "/quotas/0/route", "'orders'", NULL },
    { "/quotas/0/consumer", "'mobile'", NULL },
    { "/quotas/2/route", "'nope'", NULL },
    { "/quotas/2/consumer", "'mobile'", NULL },
    { "/quotas/0/metric", "'bytes'", NULL },
    { "/quotas/0/metric", "'concurrency'", "/quotas/0/window" },
    { "/quotas/0/limit", NULL, NULL },
    { "/quotas/0/limit", "0", NULL },
    { "/quotas/0/limit", "-5", NULL },
    { "/quotas/0/limit", "1.5", NULL },
    { "/quotas/0/limit", "1000000000001", NULL },
    { "/quotas/0/limit", "'5000'", NULL },
    { "/quotas/0/window", NULL, NULL },
    { "/quotas/0/window", "60", NULL },
    { "/quotas/0/window", "'0s'", NULL },
    { "/quotas/0/window", "'86400s'", NULL },
    { "/quotas/0/window", "'60'", NULL },
    { "/quotas/0/window", "'+60s'", NULL },
    { "/quotas/0/window", "' 60s'", NULL },
    { "/quotas/0/window", "'60 s'", NULL },
    { "/quotas/0/window", "'60sx'", NULL },
    { "/quotas/0/window", "'060s'", NULL },
    { "/quotas/0/window", "'99999999999999999999s'", NULL },
    { "/quotas/0/window", "'week'", NULL },
    { "/quotas/0/burst", "-1", NULL },
    { "/quotas/0/burst", "1000000001", NULL },
    { "/quotas/3/burst", "5", NULL },
    { "/quotas/1/limit", "0", NULL },
    { "/quotas/1/limit", "1000001", NULL },
    { "/quotas/1/burst", "1", NULL },
    { "/quotas/2/limit", "1099511627777", NULL },
    { "/quotas/0/dry_run", "1", NULL },
};


static void
test_refused(void **state)
{
    size_t       i;
    tg_error_t   err;
    tg_block_t  *block;
    const char  *where;

    (void) state;

    for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        memset(&err, 'x', sizeof(err));
        block = changed(refused[i].pointer,
                        refused[i].value ? load(refused[i].value) : NULL, &err);
        where = refused[i].where ? refused[i].where : refused[i].pointer;

        if (block != NULL) {
            fail_msg("%s %s passed", refused[i].pointer,
                     refused[i].value ? refused[i].value : "removed");
        }

        if (strcmp(err.pointer, where) != 0) {
            fail_msg("%s %s: pointer is \"%s\" (%s)", refused[i].pointer,
                     refused[i].value ? refused[i].value : "removed",
                     err.pointer, err.message);
        }

        assert_true(err.message[0] != '\0');
    }
}


static void
test_not_json(void **state)
{
    size_t       i, len;
    char        *text;
    tg_error_t   err;
    tg_block_t  *block;

    static const char *const  bad[] = {
        "", " ", "null", "[]", "7", "'x'", "{", "{}x", "{'name':'a','name':'b'}",
        "{'id':1e999}", "{'id':123456789012345678901234567890}",
        "{'name':'\xff'}", "{'name':'\xed\xa0\x80'}", "nan"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        text = quoted(bad[i]);
        assert_null(tg_compile(text, strlen(text), TG_KIND_TENANT, NULL, &err));
        assert_null(tg_compile(text, strlen(text), TG_KIND_ISSUER, NULL, NULL));
        free(text);
    }

    /* every shorter document than the whole is none */
    text = quoted(document);
    len = strlen(text);

    for (i = 0; i < len; i++) {
        if (tg_compile(text, i, TG_KIND_TENANT, NULL, NULL) != NULL) {
            fail_msg("%zu bytes passed", i);
        }
    }

    block = tg_compile(text, len, TG_KIND_TENANT, NULL, NULL);
    assert_non_null(block);
    tg_compile_free(block);
    free(text);

    text = calloc(1, TG_MAX_DOCUMENT + 1);
    assert_non_null(text);
    memset(text, ' ', TG_MAX_DOCUMENT + 1);
    assert_null(tg_compile(text, TG_MAX_DOCUMENT + 1, TG_KIND_TENANT, NULL,
                           &err));
    assert_non_null(strstr(err.message, "bytes"));
    free(text);

    assert_null(tg_compile_json(NULL, TG_KIND_TENANT, NULL, &err));
    tg_compile_free(NULL);
}


/* n elements made by a format with the number in it. */
static json_t *
many(size_t n, const char *format)
{
    char     text[512];
    size_t   i;
    json_t  *array;

    array = json_array();

    for (i = 0; i < n; i++) {
        snprintf(text, sizeof(text), format, i + 1000, i + 1000, i + 1000);
        assert_int_equal(json_array_append_new(array, load(text)), 0);
    }

    return array;
}


static void
test_counts(void **state)
{
    size_t       i;
    tg_error_t   err;
    tg_block_t  *block;

    static const struct {
        const char  *pointer;
        size_t       max;
        const char  *format;
    } cases[] = {
        { "/hosts", TG_MAX_HOSTS, "'h%zu.example'" },
        { "/issuers", TG_MAX_ISSUERS, "{'ref':%zu}" },
        { "/issuers/0/audiences", TG_MAX_AUDIENCES, "'a%zu'" },
        { "/issuers/0/keys", TG_MAX_JWKS_KEYS,
          "{'kty':'OKP','crv':'Ed25519','kid':'%zu',"
          "'x':'11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'}" },
        { "/consumers", TG_MAX_CONSUMERS, "{'id':%zu,'name':'c%zu'}" },
        { "/api_keys", TG_MAX_API_KEYS,
          "{'id':%zu,'consumer':'c','sha256':'00000000000000000000000000000000"
          "000000000000000000000000%08zx'}" },
        { "/api_keys/0/scopes", TG_MAX_SCOPES, "'s%zu'" },
        { "/upstreams/0/endpoints", TG_MAX_ENDPOINTS,
          "{'id':%zu,'address':'10.0.0.1','port':%zu}" },
        { "/routes", TG_MAX_ROUTES,
          "{'id':%zu,'name':'r%zu','match':{'path':{'type':'exact',"
          "'value':'/%zu'}},'backends':[{'upstream':'orders-v1','weight':1}]}" },
        { "/routes/0/match/headers", TG_MAX_HEADERS,
          "{'name':'h%zu','value':'1'}" },
        { "/routes/0/match/hosts", TG_MAX_ROUTE_HOSTS, "'h%zu.example'" },
        { "/routes/0/auth/scopes", TG_MAX_SCOPES, "'s%zu'" },
        { "/routes/0/auth/claims", TG_MAX_CLAIMS,
          "{'name':'c%zu','values':['x']}" },
        { "/routes/0/auth/claims/0/values", TG_MAX_VALUES, "'v%zu'" },
        { "/quotas", TG_MAX_QUOTAS,
          "{'id':%zu,'name':'q%zu','scope':'consumer','consumer':'c%zu',"
          "'metric':'concurrency','limit':1}" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t  *json = load(document);

        /* of which some name a route that the case replaces */
        put(json, "/quotas", json_array());

        put(json, cases[i].pointer, many(cases[i].max, cases[i].format));

        block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);

        if (block == NULL) {
            fail_msg("%zu of %s: %s: %s", cases[i].max, cases[i].pointer,
                     err.pointer, err.message);
        }

        assert_true(tg_block_check(block, block->size));
        tg_compile_free(block);

        put(json, cases[i].pointer,
            many(cases[i].max + 1, cases[i].format));
        assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));
        assert_string_equal(err.pointer, cases[i].pointer);
        json_decref(json);
    }
}


static void
test_lengths(void **state)
{
    size_t       i;
    char         text[1024];
    tg_error_t   err;
    tg_block_t  *block;

    static const struct {
        const char  *pointer;
        size_t       max;
    } cases[] = {
        { "/reason", TG_MAX_REASON },
        { "/issuers/0/name", TG_MAX_NAME },
        { "/issuers/0/issuer", TG_MAX_TEXT },
        { "/issuers/0/audiences/0", TG_MAX_TEXT },
        { "/consumers/0/name", TG_MAX_CONSUMER },
        { "/api_keys/0/consumer", TG_MAX_CONSUMER },
        { "/api_keys/0/scopes/0", TG_MAX_TEXT },
        { "/upstreams/1/host", TG_MAX_TEXT },
        { "/routes/1/name", TG_MAX_NAME },
        { "/routes/0/match/headers/0/name", TG_MAX_NAME },
        { "/routes/0/match/headers/0/value", TG_MAX_TEXT },
        { "/routes/0/auth/claims/0/name", TG_MAX_TEXT },
        { "/routes/0/auth/claims/0/values/0", TG_MAX_TEXT },
        { "/routes/0/match/path/value", TG_MAX_PATH },
        { "/routes/0/rewrite/value", TG_MAX_PATH },
        { "/quotas/0/name", TG_MAX_NAME },
        { "/quotas/3/consumer", TG_MAX_CONSUMER },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(text, 'a', sizeof(text));
        text[0] = strstr(cases[i].pointer, "path/") != NULL
                  || strstr(cases[i].pointer, "rewrite/") != NULL ? '/' : 'a';

        text[cases[i].max] = '\0';
        block = changed(cases[i].pointer, json_string(text), &err);

        if (block == NULL) {
            fail_msg("%s: %s: %s", cases[i].pointer, err.pointer, err.message);
        }

        tg_compile_free(block);

        text[cases[i].max] = 'a';
        text[cases[i].max + 1] = '\0';
        assert_null(changed(cases[i].pointer, json_string(text), &err));
        assert_string_equal(err.pointer, cases[i].pointer);
    }
}


/* Each is compiled and tried when a version comes: so many, of paths and headers
 * together. */
static void
test_patterns(void **state)
{
    json_t      *json;
    tg_error_t   err;
    tg_block_t  *block;

    static const char  two[] =
        "{'id':%zu,'name':'r%zu','match':{'path':{'type':'regex',"
        "'value':'/[a-z]%zu'},'headers':[{'name':'x','type':'regex',"
        "'value':'[0-9]'},{'name':'y','value':'1'}]},"
        "'backends':[{'upstream':'orders-v1','weight':1}]}";

    (void) state;

    json = load(document);
    put(json, "/quotas", json_array());
    put(json, "/routes", many(TG_MAX_PATTERNS / 2, two));
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);
    assert_non_null(block);
    tg_compile_free(block);

    put(json, "/routes", many(TG_MAX_PATTERNS / 2 + 1, two));
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));
    assert_string_equal(err.pointer, "/routes/500/match/path/value");
    assert_string_equal(err.message, "there are more than 1000 patterns");
    json_decref(json);
}


/* At most 16 quotas may meet in one request, however many there are. */
static void
test_meeting_quotas(void **state)
{
    json_t      *json;
    tg_error_t   err;
    tg_block_t  *block;

    static const char  of_all[] =
        "{'id':%zu,'name':'q%zu','scope':'tenant','metric':'body_size',"
        "'limit':%zu}";
    static const char  of_one[] =
        "{'id':%zu,'name':'c%zu','scope':'consumer','consumer':'mobile',"
        "'metric':'body_size','limit':%zu}";
    static const char  in_flight[] =
        "{'id':%zu,'name':'f%zu','scope':'tenant','metric':'concurrency',"
        "'limit':%zu}";

    (void) state;

    json = load(document);
    put(json, "/quotas", many(TG_MAX_REQUEST_QUOTAS, of_all));
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);
    assert_non_null(block);
    tg_compile_free(block);

    put(json, "/quotas/-", load("{'id':1,'name':'x','scope':'consumer',"
        "'consumer':'a','metric':'body_size','limit':1}"));
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));
    assert_string_equal(err.pointer, "/quotas");

    put(json, "/quotas", many(TG_MAX_REQUEST_QUOTAS + 1, of_all));
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));

    put(json, "/quotas", many(TG_MAX_REQUEST_QUOTAS + 1, of_one));
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));

    /* and of them at most six of concurrency */
    put(json, "/quotas", many(TG_MAX_REQUEST_HOLDS, in_flight));
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);
    assert_non_null(block);
    tg_compile_free(block);

    put(json, "/quotas", many(TG_MAX_REQUEST_HOLDS + 1, in_flight));
    assert_null(tg_compile_json(json, TG_KIND_TENANT, NULL, &err));
    assert_string_equal(err.pointer, "/quotas");
    json_decref(json);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_meeting_quotas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
