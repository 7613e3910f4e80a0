/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Authentication itself: a token or a key to a consumer, with what this worker
 * keeps for it.
 *
 *  1. Verification is one call without an event in between, so a platform issuer's
 *     block is read inside a section of the zone and needs no pin.
 *  2. Only refused credentials count as failures.  An address that has too many is
 *     spared new verifications; what is cheap to recognise (a token that was
 *     verified before, an API key) passes meanwhile.
 */

#include "ngx_http_tenant_auth.h"

#include <openssl/rand.h>

#include "../lib/tg_api_key.h"


#define NGX_HTTP_TENANT_KEYRING        4096     /* parsed keys of a worker */
#define NGX_HTTP_TENANT_FAILURE_SLOTS  8192


static tg_bearer_status_e ngx_http_tenant_auth_verify(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const ngx_str_t *text, tg_token_t **token,
    uint32_t *wait);
static const tg_block_t *ngx_http_tenant_auth_find_issuer(void *data,
    uint64_t id);
static ngx_int_t ngx_http_tenant_auth_take_token(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, tg_token_t *token);
static void ngx_http_tenant_auth_cleanup(void *data);
static ngx_int_t ngx_http_tenant_auth_take_key(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const tg_api_key_t *key);
static ngx_int_t ngx_http_tenant_auth_bad(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, const char *reason);
static ngx_int_t ngx_http_tenant_auth_limited(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, uint32_t wait);
static uint64_t ngx_http_tenant_auth_failure_key(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx);


/* This worker's; NULL members where no tenant is served. */
static tg_bearer_t      ngx_http_tenant_bearer;
static tg_failures_t   *ngx_http_tenant_failures;


ngx_int_t
ngx_http_tenant_auth_token(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const ngx_str_t *text)
{
    uint32_t             wait;
    tg_token_t          *token;
    tg_bearer_status_e   rc;

    wait = 0;
    rc = ngx_http_tenant_auth_verify(r, ctx, text, &token, &wait);

    if (wait != 0) {
        return ngx_http_tenant_auth_limited(r, ctx, wait);
    }

    switch (rc) {

    case TG_BEARER_OK:
        return ngx_http_tenant_auth_take_token(r, ctx, token);

    case TG_BEARER_ERROR:
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tenant: %s", tg_bearer_text(rc));
        return NGX_HTTP_INTERNAL_SERVER_ERROR;

    default:
        return ngx_http_tenant_auth_bad(r, ctx, tg_bearer_text(rc));
    }
}


/* The verdict on a token; *wait, if not 0, says that there is none yet. */
static tg_bearer_status_e
ngx_http_tenant_auth_verify(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const ngx_str_t *text, tg_token_t **token, uint32_t *wait)
{
    uint64_t                      key;
    tg_bearer_status_e            rc;
    tg_bearer_request_t           request;
    ngx_http_tenant_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_tenant_module);

    ngx_http_tenant_bearer.data = tmcf->zone;

    ngx_memzero(&request, sizeof(tg_bearer_request_t));

    tg_zone_enter(tmcf->zone, ngx_http_tenant_slot);

    request.block = ctx->block;
    request.version = tg_zone_version(tmcf->zone);
    request.now = ngx_time();
    request.token = (char *) text->data;
    request.len = text->len;

    rc = TG_BEARER_OK;
    *token = tg_bearer_find(&ngx_http_tenant_bearer, &request);

    if (*token == NULL) {

        if (ngx_http_tenant_failures) {
            key = ngx_http_tenant_auth_failure_key(r, ctx);
            *wait = tg_failures_wait(ngx_http_tenant_failures, key,
                                     ngx_current_msec);
        }

        if (*wait == 0) {
            rc = tg_bearer_verify(&ngx_http_tenant_bearer, &request, token);
        }
    }

    tg_zone_exit(tmcf->zone, ngx_http_tenant_slot);

    return rc;
}


static const tg_block_t *
ngx_http_tenant_auth_find_issuer(void *data, uint64_t id)
{
    return tg_zone_find_issuer(data, id);
}


void
ngx_http_tenant_auth_expect(ngx_http_request_t *r, const tg_block_t *block)
{
    ngx_table_elt_t  *header;

    header = r->headers_in.authorization;

    if (header && ngx_http_tenant_bearer.cache) {
        tg_token_cache_expect(ngx_http_tenant_bearer.cache, (char *) header->value.data,
                              header->value.len, block->id);
    }
}


/* Takes the reference over. */
static ngx_int_t
ngx_http_tenant_auth_take_token(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx, tg_token_t *token)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(r->main->pool, 0);
    if (cln == NULL) {
        tg_token_release(token);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_tenant_auth_cleanup;
    cln->data = token;

    ctx->auth = NGX_HTTP_TENANT_JWT;
    ctx->consumer.data = (u_char *) token->consumer;
    ctx->consumer.len = token->consumer_len;
    ctx->scopes.data = (u_char *) token->scopes;
    ctx->scopes.len = token->scopes_len;
    ctx->claims = token->claims;

    return NGX_OK;
}


static void
ngx_http_tenant_auth_cleanup(void *data)
{
    tg_token_release(data);
}


ngx_int_t
ngx_http_tenant_auth_key(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const ngx_str_t *text)
{
    uint8_t              digest[TG_SHA256_LEN];
    uint32_t             wait;
    const tg_api_key_t  *key;

    if (tg_crypto_sha256(ngx_http_tenant_bearer.crypto, text->data, text->len,
                         digest)
        != 0)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    key = tg_api_key_find(ctx->block, digest);

    if (key && tg_api_key_alive(key, ngx_time())) {
        return ngx_http_tenant_auth_take_key(r, ctx, key);
    }

    wait = ngx_http_tenant_failures
           ? tg_failures_wait(ngx_http_tenant_failures,
                              ngx_http_tenant_auth_failure_key(r, ctx),
                              ngx_current_msec)
           : 0;

    if (wait != 0) {
        return ngx_http_tenant_auth_limited(r, ctx, wait);
    }

    return ngx_http_tenant_auth_bad(r, ctx, key ? "the API key has expired"
                                                : "the API key is unknown");
}


static ngx_int_t
ngx_http_tenant_auth_take_key(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const tg_api_key_t *key)
{
    ctx->auth = NGX_HTTP_TENANT_API_KEY;
    ctx->consumer = ngx_http_tenant_str(ctx->block, key->consumer);
    ctx->credential_id = key->id;

    if (key->scopes.n == 0) {
        return NGX_OK;
    }

    ctx->scopes.len = tg_api_key_scopes(ctx->block, key, NULL);
    ctx->scopes.data = ngx_pnalloc(r->main->pool, ctx->scopes.len);

    if (ctx->scopes.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    tg_api_key_scopes(ctx->block, key, (char *) ctx->scopes.data);

    return NGX_OK;
}


static ngx_int_t
ngx_http_tenant_auth_bad(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    const char *reason)
{
    ngx_http_tenant_denial_t  denial;

    if (ngx_http_tenant_failures) {
        tg_failures_add(ngx_http_tenant_failures,
                        ngx_http_tenant_auth_failure_key(r, ctx),
                        ngx_current_msec);
    }

    ngx_memzero(&denial, sizeof(ngx_http_tenant_denial_t));
    denial.refusal = NGX_HTTP_TENANT_BAD_CREDENTIAL;
    denial.error = "invalid_token";
    denial.reason.data = (u_char *) reason;
    denial.reason.len = ngx_strlen(reason);

    return ngx_http_tenant_auth_deny(r, ctx, &denial);
}


static ngx_int_t
ngx_http_tenant_auth_limited(ngx_http_request_t *r, ngx_http_tenant_ctx_t *ctx,
    uint32_t wait)
{
    ngx_http_tenant_denial_t  denial;

    ngx_memzero(&denial, sizeof(ngx_http_tenant_denial_t));
    denial.refusal = NGX_HTTP_TENANT_AUTH_LIMITED;
    denial.retry_after = wait;
    ngx_str_set(&denial.reason,
                "too many refused credentials came from this address");

    return ngx_http_tenant_auth_deny(r, ctx, &denial);
}


static uint64_t
ngx_http_tenant_auth_failure_key(ngx_http_request_t *r,
    ngx_http_tenant_ctx_t *ctx)
{
    size_t                len;
    const uint8_t        *address;
    struct sockaddr      *sockaddr;

    sockaddr = r->connection->sockaddr;
    address = NULL;
    len = 0;

    switch (sockaddr->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        address = ((struct sockaddr_in6 *) sockaddr)->sin6_addr.s6_addr;
        len = 16;

        if (IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *) sockaddr)->sin6_addr))
        {
            address += 12;
            len = 4;
        }

        break;
#endif

    case AF_INET:
        address = (uint8_t *) &((struct sockaddr_in *) sockaddr)->sin_addr;
        len = 4;
        break;
    }

    return tg_failures_key(ngx_http_tenant_failures, address, len,
                           ctx->block->id);
}


ngx_int_t
ngx_http_tenant_auth_start(ngx_cycle_t *cycle, ngx_uint_t token_cache,
    ngx_uint_t rate, ngx_uint_t burst)
{
    uint64_t      seed;
    tg_bearer_t  *bearer;

    bearer = &ngx_http_tenant_bearer;
    bearer->find_issuer = ngx_http_tenant_auth_find_issuer;
    bearer->crypto = tg_crypto_create();

    if (bearer->crypto == NULL || RAND_bytes((u_char *) &seed, 8) != 1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "tenant: OpenSSL offers no SHA-2, HMAC or randomness");
        return NGX_ERROR;
    }

    bearer->keyring = tg_keyring_create(bearer->crypto,
                                        NGX_HTTP_TENANT_KEYRING);
    bearer->memo = tg_jwt_memo_create();
    bearer->cache = tg_token_cache_create(token_cache);

    if (bearer->keyring == NULL || bearer->memo == NULL
        || bearer->cache == NULL)
    {
        return NGX_ERROR;
    }

    if (rate != 0) {
        ngx_http_tenant_failures
            = tg_failures_create(NGX_HTTP_TENANT_FAILURE_SLOTS, rate, burst,
                                 seed);

        if (ngx_http_tenant_failures == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_http_tenant_auth_stop(void)
{
    tg_failures_destroy(ngx_http_tenant_failures);
    tg_token_cache_destroy(ngx_http_tenant_bearer.cache);
    tg_jwt_memo_destroy(ngx_http_tenant_bearer.memo);
    tg_keyring_destroy(ngx_http_tenant_bearer.keyring);
    tg_crypto_destroy(ngx_http_tenant_bearer.crypto);

    ngx_http_tenant_failures = NULL;
    ngx_memzero(&ngx_http_tenant_bearer, sizeof(tg_bearer_t));
}
