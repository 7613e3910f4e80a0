/* SPDX-License-Identifier: BSD-2-Clause */

#include <sys/socket.h>

#include "compile_fixture.h"


static void
test_head(void **state)
{
    tg_block_t      *block;
    const tg_ref_t  *hosts;

    (void) state;

    block = compile(document, TG_KIND_TENANT);

    assert_true(tg_block_check(block, block->size));
    assert_int_equal(block->magic, TG_BLOCK_MAGIC);
    assert_int_equal(block->kind, TG_KIND_TENANT);
    assert_int_equal(block->id, 17);
    assert_int_equal(block->revision, 1234);
    assert_int_equal(block->state, TG_TENANT_ACTIVE);
    assert_int_equal(block->boost_milli, 2500);
    assert_int_equal(block->boost_until, 1790000000);
    assert_int_equal(block->counters, 0);
    assert_ref(block, block->name, "acme");
    assert_ref(block, block->reason, "unpaid");

    hosts = tg_vec(block, block->hosts, tg_ref_t);
    assert_int_equal(block->hosts.n, 2);
    assert_ref(block, hosts[0], ".acme.example.com");
    assert_ref(block, hosts[1], "acme.example.com");

    tg_compile_free(block);
}


static void
test_identity(void **state)
{
    tg_block_t           *block;
    const tg_key_t       *key;
    const tg_issuer_t    *issuer;
    const tg_api_key_t   *api_key;
    const tg_consumer_t  *consumer;

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    issuer = tg_vec(block, block->issuers, tg_issuer_t);

    assert_int_equal(block->issuers.n, 2);
    assert_int_equal(issuer[0].id, 5);
    assert_int_equal(issuer[0].revision, 1200);
    assert_int_equal(issuer[0].leeway, 60);
    assert_int_equal(issuer[0].ref, 0);
    assert_int_equal(issuer[0].algorithms, TG_ALG_RS256 | TG_ALG_EDDSA);
    assert_ref(block, issuer[0].issuer, "https://id.acme.example");
    assert_ref(block, issuer[0].consumer_claim, "sub");
    assert_ref(block, *tg_vec(block, issuer[0].audiences, tg_ref_t), "api");

    key = tg_vec(block, issuer[0].keys, tg_key_t);
    assert_int_equal(issuer[0].keys.n, 1);
    assert_ref(block, key->kid, "k1");
    assert_int_equal(key->algorithms, TG_ALG_EDDSA);
    assert_int_equal(key->hmac, 0);
    assert_int_equal(key->material.len, 44);    /* RFC 8410: 12 and 32 bytes */

    assert_int_equal(issuer[1].ref, 1);
    assert_int_equal(issuer[1].id, 3);
    assert_int_equal(issuer[1].revision, 0);
    assert_int_equal(issuer[1].audiences.n, 1);

    consumer = tg_vec(block, block->consumers, tg_consumer_t);
    assert_int_equal(block->consumers.n, 2);
    assert_ref(block, consumer[0].name, "batch");
    assert_int_equal(consumer[1].id, 9);

    api_key = tg_vec(block, block->api_keys, tg_api_key_t);
    assert_int_equal(block->api_keys.n, 2);
    assert_int_equal(api_key[0].id, 12);
    assert_int_equal(api_key[0].expires, 0);
    assert_int_equal(api_key[0].sha256[31], 0xea);
    assert_int_equal(api_key[0].scopes.n, 0);
    assert_int_equal(api_key[1].expires, 1790000000);
    assert_int_equal(api_key[1].scopes.n, 1);

    /* one string however often it occurs */
    assert_int_equal(api_key[1].consumer.off, consumer[1].name.off);

    tg_compile_free(block);
}


static void
test_upstreams(void **state)
{
    tg_block_t           *block;
    const tg_endpoint_t  *endpoint;
    const tg_upstream_t  *upstream;

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    upstream = tg_vec(block, block->upstreams, tg_upstream_t);
    endpoint = tg_vec(block, upstream[0].endpoints, tg_endpoint_t);

    assert_int_equal(block->upstreams.n, 2);
    assert_ref(block, upstream[0].name, "orders-v1");
    assert_ref(block, upstream[0].host, "orders.internal");
    assert_int_equal(upstream[0].max_outstanding, 512);
    assert_int_equal(upstream[0].max_fails, 3);
    assert_int_equal(upstream[0].fail_timeout_ms, 10000);
    assert_int_equal(upstream[0].slow_start_ms, 5000);
    assert_int_equal(upstream[0].endpoints.n, 2);
    assert_int_equal(endpoint[0].family, AF_INET);
    assert_memory_equal(endpoint[0].address, "\x0a\0\0\1", 4);
    assert_int_equal(endpoint[0].port, 8080);
    assert_int_equal(endpoint[0].weight, 2);
    assert_ref(block, endpoint[0].text, "10.0.0.1:8080");
    assert_int_equal(endpoint[1].family, AF_INET6);
    assert_int_equal(endpoint[1].weight, 1);
    assert_ref(block, endpoint[1].text, "[2001:db8::1]:80");

    assert_int_equal(upstream[1].host.off, 0);
    assert_int_equal(upstream[1].endpoints.n, 0);
    assert_int_equal(upstream[1].max_outstanding, 0);
    assert_int_equal(upstream[1].max_fails, 0);

    tg_compile_free(block);
}


static void
test_routes(void **state)
{
    tg_block_t               *block;
    const tg_route_t         *route;
    const tg_backend_t       *backend;
    const tg_claim_match_t   *claim;
    const tg_header_match_t  *header;

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    route = tg_vec(block, block->routes, tg_route_t);
    header = tg_vec(block, route[0].headers, tg_header_match_t);
    claim = tg_vec(block, route[0].claims, tg_claim_match_t);
    backend = tg_vec(block, route[0].backends, tg_backend_t);

    assert_int_equal(block->routes.n, 2);
    assert_ref(block, route[0].name, "orders");
    assert_ref(block, route[0].path, "/orders");
    assert_int_equal(route[0].path_type, TG_PATH_PREFIX);
    assert_int_equal(route[0].methods, TG_METHOD_GET | TG_METHOD_POST);
    assert_ref(block, header->name, "x-version");
    assert_ref(block, header->value, "2");
    assert_int_equal(header->regex, 0);
    assert_int_equal(route[0].hosts.n, 1);
    assert_int_equal(route[0].auth_mode, TG_AUTH_OPTIONAL);
    assert_int_equal(route[0].auth_methods, TG_AUTH_JWT);
    assert_int_equal(route[0].scopes.n, 1);
    assert_ref(block, claim->name, "role");
    assert_int_equal(claim->values.n, 2);
    assert_int_equal(route[0].hide_credentials, 1);
    assert_int_equal(route[0].rewrite_type, TG_REWRITE_REPLACE_PREFIX);
    assert_ref(block, route[0].rewrite, "/v2");
    assert_int_equal(route[0].weight, 100);
    assert_int_equal(route[0].backends.n, 2);
    assert_int_equal(backend[1].upstream, 1);
    assert_int_equal(backend[1].weight, 5);
    assert_int_equal(route[0].sticky, 1);
    assert_int_equal(route[0].connect_ms, 1000);
    assert_int_equal(route[0].send_ms, 30000);
    assert_int_equal(route[0].read_ms, 40000);
    assert_int_equal(route[0].retries, 1);
    assert_int_equal(route[0].websocket, 1);

    /* what is not said is the safe or the neutral thing */
    assert_ref(block, route[1].path, "/");
    assert_int_equal(route[1].auth_mode, TG_AUTH_REQUIRED);
    assert_int_equal(route[1].auth_methods, TG_AUTH_JWT | TG_AUTH_API_KEY);
    assert_int_equal(route[1].methods, 0);
    assert_int_equal(route[1].sticky, 0);
    assert_int_equal(route[1].retries, 0);
    assert_int_equal(route[1].websocket, 0);
    assert_int_equal(route[1].rewrite_type, TG_REWRITE_NONE);

    tg_compile_free(block);
}


static void
test_quotas(void **state)
{
    tg_block_t        *block;
    const uint32_t    *list;
    const tg_quota_t  *quota;
    const tg_route_t  *route;

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    quota = tg_vec(block, block->quotas, tg_quota_t);
    route = tg_vec(block, block->routes, tg_route_t);

    assert_int_equal(block->quotas.n, 4);
    assert_int_equal(quota[0].limit, 5000);
    assert_int_equal(quota[0].burst, 100);
    assert_int_equal(quota[0].seconds, 60);
    assert_int_equal(quota[0].window, TG_WINDOW_SECONDS);
    assert_int_equal(quota[0].route, UINT32_MAX);
    assert_int_equal(quota[0].keyed, 0);
    assert_int_equal(quota[0].state, 0);
    assert_int_equal(quota[1].metric, TG_METRIC_CONCURRENCY);
    assert_int_equal(quota[1].keyed, 1);
    assert_int_equal(quota[1].dry_run, 1);
    assert_int_equal(quota[2].scope, TG_SCOPE_ROUTE);
    assert_int_equal(quota[2].route, 0);
    assert_int_equal(quota[2].limit, 0);
    assert_int_equal(quota[3].window, TG_WINDOW_MONTH);
    assert_int_equal(quota[3].keyed, 0);
    assert_ref(block, quota[3].consumer, "mobile");

    /* those of one consumer come last */
    list = tg_vec(block, route[0].quotas, uint32_t);
    assert_int_equal(route[0].quotas.n, 4);
    assert_int_equal(list[3], 3);

    list = tg_vec(block, route[1].quotas, uint32_t);
    assert_int_equal(route[1].quotas.n, 2);
    assert_int_equal(list[0], 0);
    assert_int_equal(list[1], 1);

    tg_compile_free(block);
}


static void
test_issuer(void **state)
{
    tg_block_t         *block;
    const tg_issuer_t  *issuer;

    (void) state;

    block = compile(platform, TG_KIND_ISSUER);
    issuer = tg_vec(block, block->issuers, tg_issuer_t);

    assert_true(tg_block_check(block, block->size));
    assert_int_equal(block->kind, TG_KIND_ISSUER);
    assert_int_equal(block->id, 3);
    assert_int_equal(block->revision, 7);
    assert_ref(block, block->name, "shared");
    assert_int_equal(block->issuers.n, 1);
    assert_int_equal(issuer->keys.n, 1);
    assert_int_equal(issuer->audiences.n, 0);
    assert_int_equal(tg_vec(block, issuer->keys, tg_key_t)->kid.off, 0);

    tg_compile_free(block);

    assert_null(tg_compile("{\"ref\":3}", 9, TG_KIND_ISSUER, NULL, NULL));
}


/* What optional members may be, and what an older gateway does not know. */
static void
test_accepted(void **state)
{
    size_t       i;
    tg_error_t   err;
    tg_block_t  *block;

    static const struct {
        const char  *pointer;
        const char  *value;     /* NULL: removed */
    } cases[] = {
        { "/unheard_of", "{'a':[1]}" },
        { "/tier", NULL },
        { "/reason", "null" },
        { "/reason", "'Gr\xc3\xbc\xc3\x9f" "e'" },
        { "/boost", "null" },
        { "/boost/factor", "1000" },
        { "/boost/factor", "0.0001" },
        { "/hosts", "[]" },
        { "/consumers", "null" },
        { "/consumers", NULL },
        { "/api_keys", "[]" },
        { "/issuers", "[]" },
        { "/issuers/0/audiences", "null" },
        { "/issuers/0/keys", "[]" },
        { "/quotas", "[]" },
        { "/upstreams/0/health", "null" },
        { "/upstreams/0/health/max_fails", "0" },
        { "/upstreams/0/host", "'[2001:db8::1]:8080'" },
        { "/upstreams/0/endpoints", "[]" },
        { "/upstreams/0/endpoints/0/weight", "0" },
        { "/routes/0/match/headers", "[]" },
        { "/routes/0/match/headers/0/type", "'regex'" },
        { "/routes/0/match/headers/0/value", "''" },
        { "/routes/0/match/hosts", "null" },
        { "/routes/0/match/path/value", "'/'" },
        { "/routes/0/match/path/value", "'/a b/%2e/;x'" },
        { "/routes/0/auth", NULL },
        { "/routes/0/auth/mode", "'none'" },
        { "/routes/0/auth/claims", "null" },
        { "/routes/0/rewrite", "{'type':'strip_prefix','value':'/v2'}" },
        { "/routes/0/rewrite", "{'type':'replace_path','value':'/x/'}" },
        { "/routes/0/backends/1/weight", "0" },
        { "/routes/0/timeouts", "{}" },
        { "/routes/0/sticky", "'none'" },
        { "/quotas/0/burst", "0" },
        { "/quotas/0/burst", "null" },
        { "/quotas/0/window", "'86399s'" },
        { "/quotas/0/window", "'1s'" },
        { "/quotas/0/limit", "1000000000000" },
        { "/quotas/1/window", "null" },
        { "/quotas/1/limit", "1000000" },
        { "/quotas/2/limit", "1099511627776" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        block = changed(cases[i].pointer,
                        cases[i].value ? load(cases[i].value) : NULL, &err);

        if (block == NULL) {
            fail_msg("%s %s: %s: %s", cases[i].pointer,
                     cases[i].value ? cases[i].value : "removed", err.pointer,
                     err.message);
        }

        assert_true(tg_block_check(block, block->size));
        tg_compile_free(block);
    }
}


/* Damage one byte or word of a block anywhere: the check refuses it, or every
 * place that a reader follows is still inside (a sanitizer would tell). */
static void
test_check_damage(void **state)
{
    size_t       i, k, refusals;
    uint8_t     *copy;
    tg_block_t  *block;

    static const uint32_t  words[] = {
        0, 1, 7, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8
    };

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    copy = malloc(block->size);
    assert_non_null(copy);
    refusals = 0;

    for (i = 0; i + 4 <= block->size; i += 4) {
        for (k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
            memcpy(copy, block, block->size);
            memcpy(copy + i, &words[k], 4);
            refusals += !tg_block_check(copy, block->size);
        }
    }

    assert_true(refusals > 500);

    for (i = 0; i < block->size; i++) {
        memcpy(copy, block, i);
        assert_false(tg_block_check(copy, i));
    }

    free(copy);
    tg_compile_free(block);
}


static void
test_check_refused(void **state)
{
    tg_block_t   *block, *copy;
    tg_route_t   *route;
    tg_quota_t   *quota;

    (void) state;

    block = compile(document, TG_KIND_TENANT);
    copy = malloc(block->size + 8);
    assert_non_null(copy);

    memcpy((char *) copy + 1, block, block->size);
    assert_false(tg_block_check((char *) copy + 1, block->size));
    assert_false(tg_block_check(block, block->size - 1));
    assert_true(tg_block_check(block, block->size));

#define DAMAGE(change)                                                        \
    memcpy(copy, block, block->size);                                         \
    route = tg_vec(copy, copy->routes, tg_route_t);                           \
    quota = tg_vec(copy, copy->quotas, tg_quota_t);                           \
    (void) route;                                                             \
    (void) quota;                                                             \
    change;                                                                   \
    assert_false(tg_block_check(copy, block->size))

    DAMAGE(copy->magic++);
    DAMAGE(copy->size = 8);
    DAMAGE(copy->kind = 0);
    DAMAGE(copy->kind = 3);
    DAMAGE(copy->kind = TG_KIND_ISSUER);
    DAMAGE(copy->state = 2);
    DAMAGE(copy->boost_milli = 0);
    DAMAGE(copy->name.off = 0);
    DAMAGE(copy->name.len = 100000);
    DAMAGE(copy->name.off = copy->size - 2);
    DAMAGE(copy->routes.off += 4);
    DAMAGE(copy->routes.n += 1000);
    DAMAGE(copy->routes.n = 0);
    DAMAGE(route[0].path_type = 3);
    DAMAGE(route[0].auth_mode = 3);
    DAMAGE(route[0].rewrite_type = 4);
    DAMAGE(route[0].weight++);
    DAMAGE(route[0].path.len = 0);
    DAMAGE(tg_vec(copy, route[0].backends, tg_backend_t)->upstream = 2);
    DAMAGE(*tg_vec(copy, route[0].quotas, uint32_t) = 4);
    DAMAGE(quota[0].seconds = 0);
    DAMAGE(quota[0].route = 2);
    DAMAGE(quota[0].metric = 3);
    DAMAGE(quota[0].scope = 3);
    DAMAGE(quota[0].window = 3);
    DAMAGE(quota[0].keyed = 2);
    DAMAGE(quota[0].limit = UINT64_MAX);

#undef DAMAGE

    free(copy);
    tg_compile_free(block);
}


/* What the budget of zone memory counts as typical. */
static void
test_size(void **state)
{
    tg_block_t  *block;

    (void) state;

    block = compile(
        "{'name':'t0000001','id':17,'revision':1234,'state':'active',"
        "'hosts':['t0000001.example.com'],'issuers':[{'ref':3}],'api_keys':["
        "{'id':11,'sha256':'" DIGEST "a','consumer':'mobile'},"
        "{'id':12,'sha256':'" DIGEST "b','consumer':'web'}],"
        "'upstreams':[{'id':31,'name':'main','max_outstanding':512,"
        "'endpoints':[{'id':51,'address':'10.0.0.1','port':8080},"
        "{'id':52,'address':'10.0.0.2','port':8080}]}],"
        "'routes':[{'id':21,'name':'orders','match':{'path':{'type':'prefix',"
        "'value':'/orders'}},'backends':[{'upstream':'main','weight':1}]},"
        "{'id':22,'name':'root','match':{'path':{'type':'prefix','value':'/'}},"
        "'backends':[{'upstream':'main','weight':1}]}],"
        "'quotas':[{'id':41,'name':'requests','scope':'tenant',"
        "'metric':'requests','limit':5000,'window':'60s'},"
        "{'id':42,'name':'daily','scope':'tenant','metric':'requests',"
        "'limit':100000,'window':'day'}]}", TG_KIND_TENANT);

    assert_true(block->size < 1126);
    tg_compile_free(block);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_upstreams),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_quotas),
        cmocka_unit_test(test_issuer),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_check_damage),
        cmocka_unit_test(test_check_refused),
        cmocka_unit_test(test_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
