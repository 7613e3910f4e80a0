/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "tg_bearer.h"
#include "tg_claims.h"


/* An issuer as a tenant sees it: the rules may be in another block. */
typedef struct {
    const tg_block_t   *block;
    const tg_issuer_t  *rules;
    const tg_issuer_t  *entry;      /* in the tenant's block */
} tg_bearer_issuer_t;

/* A token on its way to a verdict. */
typedef struct {
    tg_bearer_t                *bearer;
    const tg_bearer_request_t  *request;
    const tg_jwt_t             *jwt;
    int                         tries;  /* verifications done */
} tg_bearer_check_t;


/* In the order of tg_bearer_status_e. */
static const char *const  tg_bearer_texts[TG_BEARER_STATUSES] = {
    "the token is valid",
    "the token is too long",
    "the token is not a well-formed JWT",
    "the token's header is not that of a JWT",
    "the token needs an extension that is not supported",
    "the token's issuer is unknown",
    "the token's key is unknown",
    "the token's algorithm is not allowed",
    "the token's signature is wrong",
    "a registered claim of the token is malformed",
    "the token has no expiry",
    "the token has expired",
    "the token is not valid yet",
    "the token is for another audience",
    "the token does not name its consumer",
    "the token's scopes are malformed",
    "the token could not be verified"
};

static const tg_bearer_status_e  tg_bearer_of_jwt[] = {
    [TG_JWT_OK] = TG_BEARER_OK,
    [TG_JWT_TOO_LONG] = TG_BEARER_TOO_LONG,
    [TG_JWT_PARTS] = TG_BEARER_MALFORMED,
    [TG_JWT_BASE64] = TG_BEARER_MALFORMED,
    [TG_JWT_JSON] = TG_BEARER_MALFORMED,
    [TG_JWT_HEADER] = TG_BEARER_HEADER,
    [TG_JWT_CRITICAL] = TG_BEARER_CRITICAL,
    [TG_JWT_ALGORITHM] = TG_BEARER_ALGORITHM
};

static const tg_bearer_status_e  tg_bearer_of_claims[] = {
    [TG_CLAIMS_OK] = TG_BEARER_OK,
    [TG_CLAIMS_MALFORMED] = TG_BEARER_CLAIM,
    [TG_CLAIMS_NO_EXPIRY] = TG_BEARER_NO_EXPIRY,
    [TG_CLAIMS_EXPIRED] = TG_BEARER_EXPIRED,
    [TG_CLAIMS_EARLY] = TG_BEARER_EARLY,
    [TG_CLAIMS_ISSUER] = TG_BEARER_UNKNOWN_ISSUER,
    [TG_CLAIMS_AUDIENCE] = TG_BEARER_AUDIENCE,
    [TG_CLAIMS_CONSUMER] = TG_BEARER_CONSUMER,
    [TG_CLAIMS_SCOPE] = TG_BEARER_SCOPE
};


const char *
tg_bearer_text(tg_bearer_status_e status)
{
    return tg_bearer_texts[status];
}


/* Where the rules of one of the tenant's issuers are.  0: the platform issuer
 * that it refers to is not (or no longer) there. */
static int
tg_bearer_resolve(const tg_bearer_t *bearer, const tg_block_t *block,
    const tg_issuer_t *entry, tg_bearer_issuer_t *issuer)
{
    issuer->entry = entry;
    issuer->block = block;
    issuer->rules = entry;

    if (!entry->ref) {
        return 1;
    }

    issuer->block = bearer->find_issuer(bearer->data, entry->id);

    if (issuer->block == NULL || issuer->block->issuers.n != 1) {
        return 0;
    }

    issuer->rules = tg_vec(issuer->block, issuer->block->issuers,
                           const tg_issuer_t);

    return 1;
}


/* Whether the issuer that vouched for a token is still the tenant's, unchanged,
 * and the tenant would still take the token's audience. */
static int
tg_bearer_still_holds(const tg_bearer_t *bearer, const tg_block_t *block,
    const tg_token_t *token)
{
    uint32_t             i;
    tg_bearer_issuer_t   issuer;
    const tg_issuer_t   *entry;

    entry = tg_vec(block, block->issuers, const tg_issuer_t);

    for (i = 0; i < block->issuers.n; i++) {
        if (entry[i].id == token->issuer && entry[i].ref == token->platform) {
            return tg_bearer_resolve(bearer, block, &entry[i], &issuer)
                   && issuer.rules->revision == token->issuer_revision
                   && tg_claims_audience(token->claims, block,
                                         entry[i].audiences);
        }
    }

    return 0;
}


tg_token_t *
tg_bearer_find(tg_bearer_t *bearer, tg_bearer_request_t *request)
{
    tg_token_t        *token;
    const tg_block_t  *block;

    block = request->block;

    request->hash = tg_token_cache_fetch(bearer->cache, request->token,
                                         request->len, block->id);

    request->digested = tg_crypto_sha256(bearer->crypto, request->token,
                                         request->len, request->digest)
                        == 0;
    if (!request->digested) {
        return NULL;
    }

    token = tg_token_cache_find(bearer->cache, request->hash, request->digest,
                                block->id);
    if (token == NULL) {
        return NULL;
    }

    if (request->now < token->not_before || request->now >= token->expires) {
        goto gone;
    }

    /* nothing was published since, so nothing can have changed */
    if (token->zone_version == request->version
        && token->block_revision == block->revision)
    {
        return token;
    }

    if (!tg_bearer_still_holds(bearer, block, token)) {
        goto gone;
    }

    token->zone_version = request->version;
    token->block_revision = block->revision;

    return token;

gone:

    tg_token_cache_remove(bearer->cache, token);
    tg_token_release(token);

    return NULL;
}


static int
tg_bearer_has_kid(const tg_bearer_issuer_t *issuer, const tg_key_t *key,
    const tg_jwt_t *jwt)
{
    if (jwt->kid == NULL) {
        return 1;
    }

    return key->kid.off != 0 && key->kid.len == jwt->kid_len
           && memcmp(tg_str(issuer->block, key->kid), jwt->kid, jwt->kid_len)
              == 0;
}


static int
tg_bearer_check_key(const tg_bearer_check_t *check,
    const tg_bearer_issuer_t *issuer, const tg_key_t *key)
{
    tg_verifier_t   *verifier;
    const tg_jwt_t  *jwt;

    jwt = check->jwt;

    verifier = tg_keyring_get(check->bearer->keyring, jwt->alg,
                   tg_at(issuer->block, key->material.off), key->material.len,
                   (int) key->hmac);

    return verifier != NULL
           && tg_verifier_check(verifier, jwt->signed_part, jwt->signed_len,
                                jwt->signature, jwt->signature_len);
}


/* The algorithm is the key's and the issuer's choice; the token only says which
 * of theirs it used. */
static tg_bearer_status_e
tg_bearer_check_signature(tg_bearer_check_t *check,
    const tg_bearer_issuer_t *issuer)
{
    uint32_t             i, allowed;
    const tg_key_t      *key;
    tg_bearer_status_e   rc;

    rc = TG_BEARER_UNKNOWN_KEY;
    allowed = check->jwt->alg & issuer->rules->algorithms;
    key = tg_vec(issuer->block, issuer->rules->keys, const tg_key_t);

    if (allowed == 0) {
        return TG_BEARER_ALGORITHM;
    }

    for (i = 0; i < issuer->rules->keys.n; i++) {

        if (!tg_bearer_has_kid(issuer, &key[i], check->jwt)) {
            continue;
        }

        if ((key[i].algorithms & allowed) == 0) {
            rc = rc == TG_BEARER_UNKNOWN_KEY ? TG_BEARER_ALGORITHM : rc;
            continue;
        }

        if (check->tries++ >= TG_BEARER_MAX_TRIES) {
            return TG_BEARER_SIGNATURE;
        }

        if (tg_bearer_check_key(check, issuer, &key[i])) {
            return TG_BEARER_OK;
        }

        rc = TG_BEARER_SIGNATURE;
    }

    return rc;
}


static tg_bearer_status_e
tg_bearer_accept(tg_bearer_check_t *check, const tg_bearer_issuer_t *issuer,
    const tg_claims_t *claims, tg_token_t **out)
{
    tg_token_t        *token;
    const tg_block_t  *block;

    block = check->request->block;

    token = tg_token_create(check->jwt->claims, claims->consumer,
                            claims->consumer_len, claims->scopes,
                            claims->scopes_len);
    if (token == NULL) {
        return TG_BEARER_ERROR;
    }

    memcpy(token->digest, check->request->digest, sizeof(token->digest));
    token->tenant = block->id;
    token->hash = check->request->hash;
    token->not_before = claims->not_before;
    token->expires = claims->expires;
    token->issuer = issuer->entry->id;
    token->issuer_revision = issuer->rules->revision;
    token->platform = issuer->entry->ref;
    token->block_revision = block->revision;
    token->zone_version = check->request->version;

    if (check->request->digested) {
        tg_token_cache_add(check->bearer->cache, token);
    }

    *out = token;

    return TG_BEARER_OK;
}


static tg_bearer_status_e
tg_bearer_check_issuer(tg_bearer_check_t *check,
    const tg_bearer_issuer_t *issuer, tg_token_t **out)
{
    tg_claims_t          claims;
    tg_bearer_status_e   rc;
    const tg_block_t    *block;

    rc = tg_bearer_check_signature(check, issuer);
    if (rc != TG_BEARER_OK) {
        return rc;
    }

    rc = tg_bearer_of_claims[tg_claims_check(check->jwt->claims, issuer->block,
                                             issuer->rules,
                                             check->request->now, &claims)];
    if (rc != TG_BEARER_OK) {
        return rc;
    }

    block = check->request->block;

    if (issuer->entry->ref
        && !tg_claims_audience(check->jwt->claims, block,
                               issuer->entry->audiences))
    {
        return TG_BEARER_AUDIENCE;
    }

    return tg_bearer_accept(check, issuer, &claims, out);
}


static int
tg_bearer_is_issuer(const tg_bearer_issuer_t *issuer, const json_t *iss)
{
    tg_ref_t  name;

    name = issuer->rules->issuer;

    return json_is_string(iss) && json_string_length(iss) == name.len
           && memcmp(json_string_value(iss), tg_str(issuer->block, name),
                     name.len)
              == 0;
}


/* Two issuers may have one name (an own one and a platform issuer): each may
 * vouch.  When none does, the reason is that of the one which came furthest. */
static tg_bearer_status_e
tg_bearer_check_issuers(tg_bearer_check_t *check, tg_token_t **out)
{
    uint32_t             i;
    const json_t        *iss;
    tg_bearer_issuer_t   issuer;
    tg_bearer_status_e   rc, worst;
    const tg_block_t    *block;
    const tg_issuer_t   *entry;

    block = check->request->block;
    entry = tg_vec(block, block->issuers, const tg_issuer_t);
    iss = json_object_get(check->jwt->claims, "iss");
    worst = TG_BEARER_UNKNOWN_ISSUER;

    for (i = 0; i < block->issuers.n; i++) {

        if (!tg_bearer_resolve(check->bearer, block, &entry[i], &issuer)
            || !tg_bearer_is_issuer(&issuer, iss))
        {
            continue;
        }

        rc = tg_bearer_check_issuer(check, &issuer, out);
        if (rc == TG_BEARER_OK) {
            return rc;
        }

        worst = rc > worst ? rc : worst;
    }

    return worst;
}


tg_bearer_status_e
tg_bearer_verify(tg_bearer_t *bearer, const tg_bearer_request_t *request,
    tg_token_t **token)
{
    tg_jwt_t            jwt;
    tg_bearer_check_t   check;
    tg_bearer_status_e  rc;

    rc = tg_bearer_of_jwt[tg_jwt_parse(&jwt, bearer->memo, request->token,
                                       request->len)];
    if (rc != TG_BEARER_OK) {
        return rc;
    }

    check.bearer = bearer;
    check.request = request;
    check.jwt = &jwt;
    check.tries = 0;

    rc = tg_bearer_check_issuers(&check, token);

    tg_jwt_clear(&jwt);

    return rc;
}
