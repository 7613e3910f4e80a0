/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tg_compile.h"

#define DIGEST  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

/* The example of docs/reference/tenant-document.md, with what it leaves out. */
static const char  document[] =
"{'name':'acme','id':17,'revision':1234,'tier':'vcluster','state':'active',"
"'reason':'unpaid','boost':{'factor':2.5,'until':1790000000},"
"'hosts':['acme.example.com','*.acme.example.com'],"
"'issuers':[{'id':5,'name':'main','revision':1200,"
"  'issuer':'https://id.acme.example','audiences':['api'],"
"  'algorithms':['RS256','EdDSA'],'leeway':60,'consumer_claim':'sub',"
"  'keys':[{'kty':'OKP','crv':'Ed25519','kid':'k1',"
"    'x':'11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'}]},"
"  {'ref':3,'audiences':['acme-api']}],"
"'consumers':[{'id':9,'name':'mobile'},{'id':8,'name':'batch'}],"
"'api_keys':["
"  {'id':11,'sha256':'" DIGEST "b','consumer':'mobile','expires':1790000000,"
"   'scopes':['orders:read']},"
"  {'id':12,'sha256':'" DIGEST "a','consumer':'batch'}],"
"'upstreams':["
"  {'id':31,'name':'orders-v1','host':'orders.internal','max_outstanding':512,"
"   'health':{'max_fails':3,'fail_timeout_ms':10000,'slow_start_ms':5000},"
"   'endpoints':[{'id':51,'address':'10.0.0.1','port':8080,'weight':2},"
"                {'id':52,'address':'2001:DB8:0::1','port':80}]},"
"  {'id':32,'name':'orders-v2','endpoints':[]}],"
"'routes':[{'id':21,'name':'orders',"
"  'match':{'path':{'type':'prefix','value':'/orders/'},"
"    'methods':['GET','POST'],"
"    'headers':[{'name':'X-Version','type':'exact','value':'2'}],"
"    'hosts':['acme.example.com']},"
"  'auth':{'mode':'optional','methods':['jwt'],'scopes':['orders:read'],"
"    'claims':[{'name':'role','values':['admin','ops']}],"
"    'hide_credentials':true},"
"  'rewrite':{'type':'replace_prefix','value':'/v2'},"
"  'backends':[{'upstream':'orders-v1','weight':95},"
"              {'upstream':'orders-v2','weight':5}],"
"  'sticky':'consumer',"
"  'timeouts':{'connect_ms':1000,'send_ms':30000,'read_ms':40000},"
"  'retries':1,'websocket':true},"
" {'id':22,'name':'root','match':{'path':{'type':'prefix','value':'/'}},"
"  'backends':[{'upstream':'orders-v1','weight':1}]}],"
"'quotas':[{'id':41,'name':'requests','scope':'tenant','metric':'requests',"
"  'limit':5000,'window':'60s','burst':100,'dry_run':false},"
" {'id':42,'name':'each','scope':'consumer','metric':'concurrency','limit':7,"
"  'dry_run':true},"
" {'id':43,'name':'orders','scope':'route','route':'orders',"
"  'metric':'body_size','limit':0},"
" {'id':44,'name':'mobile','scope':'consumer','consumer':'mobile',"
"  'route':'orders','metric':'requests','limit':10,'window':'month'}]}";

static const char  platform[] =
"{'name':'shared','id':3,'revision':7,'issuer':'https://id.example',"
"'algorithms':['EdDSA'],'leeway':0,'consumer_claim':'sub',"
"'keys':[{'kty':'OKP','crv':'Ed25519',"
"  'x':'11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'}]}";


static char *
quoted(const char *text)
{
    char  *copy, *p;

    copy = strdup(text);
    assert_non_null(copy);

    for (p = copy; *p; p++) {
        if (*p == '\'') {
            *p = '"';
        }
    }

    return copy;
}


static json_t *
load(const char *text)
{
    char    *copy;
    json_t  *json;

    copy = quoted(text);
    json = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    free(copy);

    return json;
}


/* Puts value (NULL: nothing) at a JSON pointer; "-" appends. */
static void
put(json_t *json, const char *pointer, json_t *value)
{
    char   *copy, *token, *next;
    char   *save = NULL;

    copy = strdup(pointer);
    assert_non_null(copy);
    token = strtok_r(copy, "/", &save);

    while ((next = strtok_r(NULL, "/", &save)) != NULL) {
        json = json_is_array(json) ? json_array_get(json, (size_t) atoi(token))
                                   : json_object_get(json, token);
        assert_non_null(json);
        token = next;
    }

    if (json_is_object(json)) {
        assert_int_equal(value != NULL ? json_object_set_new(json, token, value)
                                       : json_object_del(json, token), 0);

    } else if (token[0] == '-') {
        assert_int_equal(json_array_append_new(json, value), 0);

    } else {
        assert_int_equal(value != NULL
                         ? json_array_set_new(json, (size_t) atoi(token), value)
                         : json_array_remove(json, (size_t) atoi(token)), 0);
    }

    free(copy);
}


static tg_block_t *
compile(const char *text, tg_kind_e kind)
{
    char        *copy;
    tg_error_t   err;
    tg_block_t  *block;

    copy = quoted(text);
    block = tg_compile(copy, strlen(copy), kind, NULL, &err);
    free(copy);

    if (block == NULL) {
        fail_msg("%s: %s", err.pointer, err.message);
    }

    return block;
}


/* The document with one change. */
static tg_block_t *
changed(const char *pointer, json_t *value, tg_error_t *err)
{
    json_t      *json;
    tg_block_t  *block;

    json = load(document);
    assert_non_null(json);
    put(json, pointer, value);
    block = tg_compile_json(json, TG_KIND_TENANT, NULL, err);
    json_decref(json);

    return block;
}


static void
assert_ref(const tg_block_t *block, tg_ref_t ref, const char *text)
{
    assert_int_equal(ref.len, strlen(text));
    assert_string_equal(tg_str(block, ref), text);
}


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
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_meeting_quotas),
        cmocka_unit_test(test_check_damage),
        cmocka_unit_test(test_check_refused),
        cmocka_unit_test(test_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
