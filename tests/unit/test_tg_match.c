/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_compile.h"
#include "tg_match.h"


/* A route's "match" and name, nothing else. */
static json_t *
route(size_t id, const char *name, const char *match)
{
    char         *copy, *p;
    json_t       *json;
    json_error_t  err;

    copy = strdup(match);
    assert_non_null(copy);

    for (p = copy; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }

    json = json_loads(copy, 0, &err);

    if (json == NULL) {
        fail_msg("%s: %s", match, err.text);
    }

    free(copy);

    return json_pack("{s:I,s:s,s:o,s:[{s:s,s:i}]}", "id", (json_int_t) id,
                     "name", name, "match", json, "backends", "upstream", "u",
                     "weight", 1);
}


static tg_block_t *
tenant(json_t *routes)
{
    json_t      *json;
    tg_error_t   err;
    tg_block_t  *block;

    json = json_pack("{s:s,s:i,s:i,s:s,s:[],s:[],s:[],s:[],"
                     "s:[{s:i,s:s,s:[]}],s:o}",
                     "name", "t", "id", 1, "revision", 1, "state", "active",
                     "hosts", "issuers", "api_keys", "quotas",
                     "upstreams", "id", 1, "name", "u", "endpoints",
                     "routes", routes);
    assert_non_null(json);
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, &err);

    if (block == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    json_decref(json);
    return block;
}


typedef struct {
    const char  *name;
    const char  *match;
} spec_t;


/* Compiles them in two orders; the order of insertion must not matter. */
static tg_block_t *
tenant_of(const spec_t *spec, size_t n, int reversed)
{
    json_t  *routes;
    size_t   i, k;

    routes = json_array();

    for (i = 0; i < n; i++) {
        k = reversed ? n - 1 - i : i;
        json_array_append_new(routes, route(k + 1, spec[k].name,
                                            spec[k].match));
    }

    return tenant(routes);
}


/* "name=value;name=value" */
static int
header(void *data, const char *name, size_t name_len, const char **value,
    size_t *value_len)
{
    const char  *p, *end;

    for (p = data; p != NULL && *p; p = *end ? end + 1 : end) {
        end = strchrnul(p, ';');

        if (strncmp(p, name, name_len) == 0 && p[name_len] == '=') {
            *value = p + name_len + 1;
            *value_len = (size_t) (end - *value);
            return 1;
        }
    }

    return 0;
}


static int
match(const tg_block_t *block, const char *path, uint32_t method,
    const char *headers, const char *host, uint32_t *allowed)
{
    int                 rc;
    tg_match_result_t   result;
    tg_match_request_t  request;

    memset(&request, 0, sizeof(request));
    memset(&result, 0xff, sizeof(result));
    request.path = path;
    request.path_len = strlen(path);
    request.host = host;
    request.host_len = strlen(host);
    request.method = method;
    request.header = headers != NULL ? header : NULL;
    request.data = (void *) (uintptr_t) headers;

    rc = tg_match_route(block, &request, &result);
    assert_int_equal(tg_match_route(block, &request, NULL), rc);

    if (rc != TG_MATCH_METHOD) {
        assert_true(rc == TG_MATCH_ERROR || rc >= 0 || result.allowed == 0);
    }

    if (allowed != NULL) {
        *allowed = result.allowed;
    }

    return rc;
}


static const char *
name_of(const tg_block_t *block, int index)
{
    static const char *const  failures[] = { "none", "method", "error" };

    return index < 0 ? failures[-1 - index]
           : tg_str(block, tg_vec(block, block->routes, tg_route_t)[index].name);
}


static void
test_prefix(void **state)
{
    size_t  i;

    static const struct {
        const char  *prefix;
        const char  *path;
        int          match;
    } cases[] = {
        { "/", "/", 1 },
        { "/", "/a", 1 },
        { "/a", "/a", 1 },
        { "/a", "/a/", 1 },
        { "/a", "/a/b", 1 },
        { "/a/b", "/a/b/c", 1 },

        { "/", "", 0 },
        { "/", "*", 0 },
        { "/", "a", 0 },
        { "/a", "/", 0 },
        { "/a", "", 0 },
        { "/a", "/ab", 0 },
        { "/a", "/a.b", 0 },
        { "/a", "/a;x", 0 },
        { "/a", "/a%2fb", 0 },
        { "/a", "/A", 0 },
        { "/a", "/b/a", 0 },
        { "/a/b", "/a", 0 },
        { "/a/b", "/a/", 0 },
        { "/a/b", "/a/bc", 0 },
        { "/a/b", "/a//b", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (tg_match_prefix(cases[i].prefix, strlen(cases[i].prefix),
                            cases[i].path, strlen(cases[i].path))
            != cases[i].match)
        {
            fail_msg("\"%s\" \"%s\"", cases[i].prefix, cases[i].path);
        }
    }
}


/* Every rule of "Route order", and each against the one below it. */
static void
test_order(void **state)
{
    int         reversed;
    size_t      i;
    tg_block_t  *block;

    static const spec_t  spec[] = {
        { "any", "{'path':{'type':'prefix','value':'/'}}" },
        { "a", "{'path':{'type':'prefix','value':'/a'}}" },
        { "slash", "{'path':{'type':'prefix','value':'/s/'}}" },
        { "ab", "{'path':{'type':'prefix','value':'/a/b'}}" },
        { "exact", "{'path':{'type':'exact','value':'/a/b'}}" },
        { "exact-post",
          "{'path':{'type':'exact','value':'/a/b'},'methods':['POST']}" },
        { "regex", "{'path':{'type':'regex','value':'/a/[a-z]'}}" },
        { "regex-long", "{'path':{'type':'regex','value':'/a/[a-z]|/zzzz'}}" },
        { "h1", "{'path':{'type':'prefix','value':'/h'},"
                "'headers':[{'name':'X','value':'1'}]}" },
        { "h2", "{'path':{'type':'prefix','value':'/h'},"
                "'headers':[{'name':'X','value':'1'},"
                           "{'name':'y','type':'regex','value':'[0-9]+'}]}" },
        { "h-get", "{'path':{'type':'prefix','value':'/h'},'methods':['GET']}" },
        { "h-host", "{'path':{'type':'prefix','value':'/h'},"
                    "'hosts':['h.example']}" },
        { "h", "{'path':{'type':'prefix','value':'/h'}}" },
        { "n-b", "{'path':{'type':'prefix','value':'/n'}}" },
        { "n-a", "{'path':{'type':'prefix','value':'/n'},"
                 "'hosts':['*.n.example']}" },
        { "n-", "{'path':{'type':'prefix','value':'/n'}}" },
    };

    static const struct {
        const char  *path;
        uint32_t     method;
        const char  *headers;
        const char  *host;
        const char  *route;
    } cases[] = {
        { "/", TG_METHOD_GET, NULL, "x", "any" },
        { "/b", TG_METHOD_GET, NULL, "x", "any" },
        { "/ab", TG_METHOD_GET, NULL, "x", "any" },
        { "/a", TG_METHOD_GET, NULL, "x", "a" },
        { "/a/", TG_METHOD_GET, NULL, "x", "a" },
        { "/a/B", TG_METHOD_GET, NULL, "x", "a" },
        { "/a/bc", TG_METHOD_GET, NULL, "x", "a" },
        { "/a/b/", TG_METHOD_GET, NULL, "x", "ab" },
        { "/a/b/c", TG_METHOD_GET, NULL, "x", "ab" },
        { "/s", TG_METHOD_GET, NULL, "x", "slash" },
        { "/s/", TG_METHOD_GET, NULL, "x", "slash" },
        { "/s/t", TG_METHOD_GET, NULL, "x", "slash" },
        { "/st", TG_METHOD_GET, NULL, "x", "any" },
        { "/a/b", TG_METHOD_GET, NULL, "x", "exact" },
        { "/a/b", TG_METHOD_POST, NULL, "x", "exact-post" },
        { "/a/b", TG_METHOD_OTHER, NULL, "x", "exact" },
        { "/a/c", TG_METHOD_GET, NULL, "x", "regex-long" },
        { "/zzzz", TG_METHOD_GET, NULL, "x", "regex-long" },
        { "/h", TG_METHOD_GET, NULL, "x", "h-get" },
        { "/h", TG_METHOD_PUT, NULL, "x", "h" },
        { "/h", TG_METHOD_PUT, NULL, "h.example", "h-host" },
        { "/h", TG_METHOD_PUT, "x=1", "h.example", "h1" },
        { "/h", TG_METHOD_PUT, "x=1;y=7", "h.example", "h2" },
        { "/h", TG_METHOD_PUT, "x=1;y=", "h.example", "h1" },
        { "/h", TG_METHOD_PUT, "x=1;y=7x", "h.example", "h1" },
        { "/h", TG_METHOD_PUT, "x=2;y=7", "h.example", "h-host" },
        { "/h", TG_METHOD_PUT, "x=;y=7", "h.example", "h-host" },
        { "/h", TG_METHOD_PUT, "x=11", "h.example", "h-host" },
        { "/h", TG_METHOD_GET, "x=1;y=7", "h.example", "h-get" },
        { "/n", TG_METHOD_GET, NULL, "x", "n-" },
        { "/n", TG_METHOD_GET, NULL, "n.example", "n-" },
        { "/n", TG_METHOD_GET, NULL, "a.n.example", "n-a" },
        { "/n", TG_METHOD_GET, NULL, "b.a.n.example", "n-a" },
        { "", TG_METHOD_GET, NULL, "x", "none" },
        { "*", TG_METHOD_OTHER, NULL, "x", "none" },
    };

    (void) state;

    for (reversed = 0; reversed < 2; reversed++) {
        block = tenant_of(spec, sizeof(spec) / sizeof(spec[0]), reversed);

        for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            const char  *name = name_of(block,
                                        match(block, cases[i].path,
                                              cases[i].method,
                                              cases[i].headers,
                                              cases[i].host, NULL));

            if (strcmp(name, cases[i].route) != 0) {
                fail_msg("%zu: \"%s\" goes to %s, not %s", i, cases[i].path,
                         name, cases[i].route);
            }
        }

        tg_compile_free(block);
    }
}


static void
test_method(void **state)
{
    uint32_t     allowed;
    tg_block_t  *block;

    static const spec_t  spec[] = {
        { "read", "{'path':{'type':'exact','value':'/a'},'methods':['GET']}" },
        { "write", "{'path':{'type':'prefix','value':'/a'},"
                   "'methods':['PUT','DELETE']}" },
        { "other", "{'path':{'type':'prefix','value':'/a'},'methods':['PATCH'],"
                   "'headers':[{'name':'x','value':'1'}]}" },
    };

    (void) state;

    block = tenant_of(spec, 3, 0);

    assert_int_equal(match(block, "/a", TG_METHOD_POST, NULL, "x", &allowed),
                     TG_MATCH_METHOD);
    assert_int_equal(allowed,
                     TG_METHOD_GET | TG_METHOD_PUT | TG_METHOD_DELETE);

    assert_int_equal(match(block, "/a", TG_METHOD_POST, "x=1", "x", &allowed),
                     TG_MATCH_METHOD);
    assert_int_equal(allowed, TG_METHOD_GET | TG_METHOD_PUT | TG_METHOD_DELETE
                              | TG_METHOD_PATCH);

    assert_int_equal(match(block, "/a/b", TG_METHOD_GET, NULL, "x", &allowed),
                     TG_MATCH_METHOD);
    assert_int_equal(allowed, TG_METHOD_PUT | TG_METHOD_DELETE);

    assert_int_equal(match(block, "/a", TG_METHOD_OTHER, NULL, "x", &allowed),
                     TG_MATCH_METHOD);
    assert_int_equal(match(block, "/a", TG_METHOD_HEAD, NULL, "x", NULL),
                     TG_MATCH_METHOD);
    assert_int_equal(match(block, "/b", TG_METHOD_GET, NULL, "x", &allowed),
                     TG_MATCH_NONE);
    assert_int_equal(allowed, 0);
    assert_string_equal(name_of(block, match(block, "/a", TG_METHOD_PUT, NULL,
                                             "x", NULL)), "write");

    tg_compile_free(block);
}


/* A route that nobody can decide refuses; the one behind it is not an answer. */
static void
test_error(void **state)
{
    char         path[600];
    tg_block_t  *block;

    static const spec_t  spec[] = {
        { "guarded", "{'path':{'type':'regex','value':'/(a+)+[bc]'},"
                     "'hosts':['a.example']}" },
        { "open", "{'path':{'type':'prefix','value':'/'}}" },
    };

    (void) state;

    memset(path, 'a', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';

    block = tenant_of(spec, 2, 0);
    assert_int_equal(match(block, path, TG_METHOD_GET, NULL, "a.example", NULL),
                     TG_MATCH_ERROR);

    /* not asked where another condition has said no */
    assert_string_equal(name_of(block, match(block, path, TG_METHOD_GET, NULL,
                                             "b.example", NULL)), "open");
    assert_string_equal(name_of(block, match(block, "/aac", TG_METHOD_GET, NULL,
                                             "a.example", NULL)), "guarded");
    tg_compile_free(block);
}


static void
test_empty(void **state)
{
    tg_block_t  *block;

    (void) state;

    block = tenant(json_array());
    assert_int_equal(match(block, "/", TG_METHOD_GET, NULL, "x", NULL),
                     TG_MATCH_NONE);
    tg_compile_free(block);
}


/* The order of the block against the rules, written a second time. */
static int
rank(const tg_block_t *block, const tg_route_t *x, const tg_route_t *y)
{
    long  a[5], b[5];

#define RANK(r, v)                                                            \
    v[0] = r->path_type;                                                      \
    v[1] = r->path_type == TG_PATH_EXACT ? 0 : -(long) r->path.len;           \
    v[2] = r->methods == 0;                                                   \
    v[3] = -(long) r->headers.n;                                              \
    v[4] = r->hosts.n == 0

    RANK(x, a);
    RANK(y, b);

    for (int i = 0; i < 5; i++) {
        if (a[i] != b[i]) {
            return a[i] < b[i] ? -1 : 1;
        }
    }

    return strcmp(tg_str(block, x->name), tg_str(block, y->name));
}


static void
test_order_random(void **state)
{
    char               text[256], name[16];
    json_t            *routes;
    unsigned           seed = 1;
    tg_block_t        *block;
    const tg_route_t  *r;

    static const char *const  type[] = { "exact", "regex", "prefix" };
    static const char *const  path[] = { "/", "/a", "/b", "/a/b", "/a/c" };
    static const char *const  rest[] = {
        "", ",'methods':['GET']", ",'hosts':['a.example']",
        ",'headers':[{'name':'x','value':'1'}]",
        ",'methods':['PUT'],'hosts':['b.example'],"
        "'headers':[{'name':'x','value':'1'},{'name':'y','value':'1'}]"
    };

    (void) state;

    for (int round = 0; round < 50; round++) {
        routes = json_array();

        for (size_t i = 0; i < 40; i++) {
            snprintf(name, sizeof(name), "r%u-%zu", (unsigned) rand_r(&seed) % 97,
                     i);
            snprintf(text, sizeof(text),
                     "{'path':{'type':'%s','value':'%s'}%s}",
                     type[rand_r(&seed) % 3], path[rand_r(&seed) % 5],
                     rest[rand_r(&seed) % 5]);
            json_array_append_new(routes, route(i + 1, name, text));
        }

        block = tenant(routes);
        r = tg_vec(block, block->routes, tg_route_t);

        for (size_t i = 1; i < block->routes.n; i++) {
            assert_true(rank(block, &r[i - 1], &r[i]) < 0);
        }

        tg_compile_free(block);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_method),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_order_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
