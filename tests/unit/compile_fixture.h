/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The document of docs/reference/tenant-document.md, and ways to change it.
 */

#ifndef COMPILE_FIXTURE_H
#define COMPILE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

__attribute__((unused)) static const char  platform[] =
"{'name':'shared','id':3,'revision':7,'issuer':'https://id.example',"
"'algorithms':['EdDSA'],'leeway':0,'consumer_claim':'sub',"
"'keys':[{'kty':'OKP','crv':'Ed25519',"
"  'x':'11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'}]}";


static inline char *
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


static inline json_t *
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
static inline void
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


static inline tg_block_t *
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
static inline tg_block_t *
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


static inline void
assert_ref(const tg_block_t *block, tg_ref_t ref, const char *text)
{
    assert_int_equal(ref.len, strlen(text));
    assert_string_equal(tg_str(block, ref), text);
}

#endif /* COMPILE_FIXTURE_H */
