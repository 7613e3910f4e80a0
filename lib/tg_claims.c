/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdio.h>
#include <string.h>

#include "tg_claims.h"


static int
tg_claims_string_is(const json_t *value, const tg_block_t *block, tg_ref_t ref)
{
    return json_is_string(value) && json_string_length(value) == ref.len
           && memcmp(json_string_value(value), tg_str(block, ref), ref.len) == 0;
}


static int
tg_claims_string_in(const json_t *value, const tg_block_t *block,
    tg_vec_t strings)
{
    uint32_t         i;
    const tg_ref_t  *ref;

    ref = tg_vec(block, strings, const tg_ref_t);

    for (i = 0; i < strings.n; i++) {
        if (tg_claims_string_is(value, block, ref[i])) {
            return 1;
        }
    }

    return 0;
}


/*
 * A NumericDate (RFC 7519 section 2) as the first whole second that is not
 * before it.  1: there; 0: absent; -1: not a number, or an absurd one.
 */
static int
tg_claims_time(const json_t *claims, const char *name, int64_t *time)
{
    double         real;
    const json_t  *value;

    value = json_object_get(claims, name);

    if (value == NULL) {
        return 0;
    }

    if (json_is_integer(value)) {
        *time = json_integer_value(value);
        return *time >= 0 && *time <= TG_CLAIMS_MAX_TIME ? 1 : -1;
    }

    if (!json_is_real(value)) {
        return -1;
    }

    real = json_real_value(value);

    if (!(real >= 0 && real <= (double) TG_CLAIMS_MAX_TIME)) {
        return -1;
    }

    *time = (int64_t) real;

    if ((double) *time < real) {
        (*time)++;
    }

    return 1;
}


/* From when the token holds: the later of "nbf" and "iat". */
static int
tg_claims_begin(const json_t *claims, int64_t *begin)
{
    int      nbf, iat;
    int64_t  not_before, issued_at;

    not_before = 0;
    issued_at = 0;

    nbf = tg_claims_time(claims, "nbf", &not_before);
    iat = tg_claims_time(claims, "iat", &issued_at);

    *begin = not_before > issued_at ? not_before : issued_at;

    return nbf < 0 || iat < 0 ? -1 : 0;
}


static tg_claims_status_e
tg_claims_check_times(const json_t *claims, uint16_t leeway, int64_t now,
    tg_claims_t *out)
{
    int      found;
    int64_t  begin, end;

    found = tg_claims_time(claims, "exp", &end);

    if (found < 0 || tg_claims_begin(claims, &begin) < 0) {
        return TG_CLAIMS_MALFORMED;
    }

    if (found == 0) {
        return TG_CLAIMS_NO_EXPIRY;
    }

    out->expires = end + leeway;
    out->not_before = begin - leeway;

    if (now >= out->expires) {
        return TG_CLAIMS_EXPIRED;
    }

    return now < out->not_before ? TG_CLAIMS_EARLY : TG_CLAIMS_OK;
}


/* "aud" is a string or an array of strings, if it is there at all. */
static int
tg_claims_audience_sound(const json_t *aud)
{
    size_t         i;
    const json_t  *value;

    if (aud == NULL || json_is_string(aud)) {
        return 1;
    }

    if (!json_is_array(aud)) {
        return 0;
    }

    json_array_foreach(aud, i, value) {
        if (!json_is_string(value)) {
            return 0;
        }
    }

    return 1;
}


int
tg_claims_audience(const json_t *claims, const tg_block_t *block,
    tg_vec_t audiences)
{
    size_t         i;
    const json_t  *aud, *value;

    if (audiences.n == 0) {
        return 1;
    }

    aud = json_object_get(claims, "aud");

    if (!json_is_array(aud)) {
        return tg_claims_string_in(aud, block, audiences);
    }

    json_array_foreach(aud, i, value) {
        if (tg_claims_string_in(value, block, audiences)) {
            return 1;
        }
    }

    return 0;
}


/*
 * A name that can be a header value and a line in a log, and that no reader
 * trims to another: no controls (C0, DEL, C1), no space at an end.
 */
static int
tg_claims_name_ok(const char *name, size_t len)
{
    size_t                i;
    const unsigned char  *p;

    if (len == 0 || len > TG_CLAIMS_MAX_CONSUMER || name[0] == ' '
        || name[len - 1] == ' ')
    {
        return 0;
    }

    p = (const unsigned char *) name;

    for (i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f
            || (p[i] == 0xc2 && i + 1 < len && p[i + 1] < 0xa0))
        {
            return 0;
        }
    }

    return 1;
}


static tg_claims_status_e
tg_claims_read_consumer(const json_t *claims, const tg_block_t *block,
    const tg_issuer_t *issuer, tg_claims_t *out)
{
    const json_t  *value;

    value = json_object_get(claims, tg_str(block, issuer->consumer_claim));

    if (!json_is_string(value)
        || !tg_claims_name_ok(json_string_value(value),
                              json_string_length(value)))
    {
        return TG_CLAIMS_CONSUMER;
    }

    out->consumer = json_string_value(value);
    out->consumer_len = json_string_length(value);

    return TG_CLAIMS_OK;
}


/* RFC 6749 section 3.3: printable ASCII without quote and backslash. */
static int
tg_claims_scope_char(char c)
{
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\';
}


/* Appends the words of a string.  0: another character, or no room. */
static int
tg_claims_add_scopes(tg_claims_t *out, const char *text, size_t len)
{
    size_t  i;

    if (len + 1 > sizeof(out->scopes) - out->scopes_len) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (text[i] == ' ') {
            continue;
        }

        if (!tg_claims_scope_char(text[i])) {
            return 0;
        }

        if (out->scopes_len != 0 && (i == 0 || text[i - 1] == ' ')) {
            out->scopes[out->scopes_len++] = ' ';
        }

        out->scopes[out->scopes_len++] = text[i];
    }

    return 1;
}


/* A member of the array form is one scope, not a list of them. */
static int
tg_claims_add_scope(tg_claims_t *out, const json_t *value)
{
    const char  *text;
    size_t       len;

    text = json_string_value(value);
    len = json_string_length(value);

    return len != 0 && memchr(text, ' ', len) == NULL
           && tg_claims_add_scopes(out, text, len);
}


/* "scope" (RFC 8693 section 4.2), or "scp"; some issuers make it an array. */
static tg_claims_status_e
tg_claims_read_scopes(const json_t *claims, tg_claims_t *out)
{
    size_t         i;
    const json_t  *scope, *value;

    out->scopes_len = 0;

    scope = json_object_get(claims, "scope");

    if (scope == NULL) {
        scope = json_object_get(claims, "scp");
    }

    if (scope == NULL) {
        return TG_CLAIMS_OK;
    }

    if (!json_is_array(scope)) {
        return json_is_string(scope)
               && tg_claims_add_scopes(out, json_string_value(scope),
                                       json_string_length(scope))
               ? TG_CLAIMS_OK
               : TG_CLAIMS_SCOPE;
    }

    json_array_foreach(scope, i, value) {
        if (!json_is_string(value) || !tg_claims_add_scope(out, value)) {
            return TG_CLAIMS_SCOPE;
        }
    }

    return TG_CLAIMS_OK;
}


tg_claims_status_e
tg_claims_check(const json_t *claims, const tg_block_t *block,
    const tg_issuer_t *issuer, int64_t now, tg_claims_t *out)
{
    tg_claims_status_e  rc;

    if (!tg_claims_string_is(json_object_get(claims, "iss"), block,
                             issuer->issuer))
    {
        return TG_CLAIMS_ISSUER;
    }

    rc = tg_claims_check_times(claims, issuer->leeway, now, out);
    if (rc != TG_CLAIMS_OK) {
        return rc;
    }

    if (!tg_claims_audience_sound(json_object_get(claims, "aud"))) {
        return TG_CLAIMS_MALFORMED;
    }

    if (!tg_claims_audience(claims, block, issuer->audiences)) {
        return TG_CLAIMS_AUDIENCE;
    }

    rc = tg_claims_read_consumer(claims, block, issuer, out);
    if (rc != TG_CLAIMS_OK) {
        return rc;
    }

    return tg_claims_read_scopes(claims, out);
}


static int
tg_claims_value_in(const json_t *value, const tg_block_t *block,
    tg_vec_t values)
{
    int              n;
    char             text[24];
    uint32_t         i;
    const tg_ref_t  *ref;

    switch (json_typeof(value)) {

    case JSON_STRING:
        return tg_claims_string_in(value, block, values);

    case JSON_INTEGER:
        n = snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT,
                     json_integer_value(value));
        break;

    case JSON_TRUE:
    case JSON_FALSE:
        n = snprintf(text, sizeof(text), "%s",
                     json_is_true(value) ? "true" : "false");
        break;

    default:
        return 0;
    }

    ref = tg_vec(block, values, const tg_ref_t);

    for (i = 0; i < values.n; i++) {
        if (ref[i].len == (uint32_t) n
            && memcmp(tg_str(block, ref[i]), text, (size_t) n) == 0)
        {
            return 1;
        }
    }

    return 0;
}


int
tg_claims_match(const json_t *claims, const tg_block_t *block,
    const tg_claim_match_t *match)
{
    size_t         i;
    const json_t  *claim, *value;

    claim = json_object_get(claims, tg_str(block, match->name));

    if (claim == NULL) {
        return 0;
    }

    if (!json_is_array(claim)) {
        return tg_claims_value_in(claim, block, match->values);
    }

    json_array_foreach(claim, i, value) {
        if (tg_claims_value_in(value, block, match->values)) {
            return 1;
        }
    }

    return 0;
}


static int
tg_claims_has_scope(const char *scopes, size_t len, const char *scope, size_t n)
{
    const char  *space;
    size_t       word;

    if (len == 0) {     /* and scopes may be NULL */
        return 0;
    }

    for ( ;; ) {
        space = memchr(scopes, ' ', len);
        word = space != NULL ? (size_t) (space - scopes) : len;

        if (word == n && memcmp(scopes, scope, n) == 0) {
            return 1;
        }

        if (space == NULL) {
            return 0;
        }

        scopes += word + 1;
        len -= word + 1;
    }
}


int
tg_claims_has_scopes(const char *scopes, size_t len, const tg_block_t *block,
    tg_vec_t needed, tg_ref_t *missing)
{
    uint32_t         i;
    const tg_ref_t  *ref;

    ref = tg_vec(block, needed, const tg_ref_t);

    for (i = 0; i < needed.n; i++) {
        if (!tg_claims_has_scope(scopes, len, tg_str(block, ref[i]),
                                 ref[i].len))
        {
            if (missing != NULL) {
                *missing = ref[i];
            }

            return 0;
        }
    }

    return 1;
}
