/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tg_hash.h"
#include "tg_json.h"
#include "tg_jwt.h"


#define TG_JWT_MEMO       64        /* headers */
#define TG_JWT_MEMO_TEXT  192       /* characters of one */
#define TG_JWT_MEMO_KID   64        /* bytes of its kid */

typedef struct {
    const char  *start;
    size_t       len;
} tg_jwt_part_t;

typedef struct {
    size_t       len;               /* 0: empty */
    uint32_t     alg;
    int          has_kid;
    size_t       kid_len;
    char         kid[TG_JWT_MEMO_KID];
    char         text[TG_JWT_MEMO_TEXT];
} tg_jwt_known_t;

struct tg_jwt_memo_s {
    tg_jwt_known_t  known[TG_JWT_MEMO];
};


static const char *const  tg_jwt_types[] = {
    "JWT", "at+jwt", "application/jwt", "application/at+jwt", NULL
};


tg_jwt_memo_t *
tg_jwt_memo_create(void)
{
    return calloc(1, sizeof(tg_jwt_memo_t));
}


void
tg_jwt_memo_destroy(tg_jwt_memo_t *memo)
{
    free(memo);
}


/* Where a header is, or would be; NULL: it is not of the usual kind. */
static tg_jwt_known_t *
tg_jwt_known(tg_jwt_memo_t *memo, const tg_jwt_part_t *part)
{
    if (memo == NULL || part->len > TG_JWT_MEMO_TEXT) {
        return NULL;
    }

    return &memo->known[tg_hash(part->start, part->len, 0) % TG_JWT_MEMO];
}


static int
tg_jwt_recall(tg_jwt_t *jwt, const tg_jwt_known_t *known,
    const tg_jwt_part_t *part)
{
    if (known == NULL || known->len != part->len
        || memcmp(known->text, part->start, part->len) != 0)
    {
        return 0;
    }

    jwt->alg = known->alg;

    if (known->has_kid) {
        jwt->kid = known->kid;
        jwt->kid_len = known->kid_len;
    }

    return 1;
}


static void
tg_jwt_memorize(const tg_jwt_t *jwt, tg_jwt_known_t *known,
    const tg_jwt_part_t *part)
{
    if (known == NULL || jwt->kid_len > TG_JWT_MEMO_KID) {
        return;
    }

    known->len = part->len;
    memcpy(known->text, part->start, part->len);
    known->alg = jwt->alg;
    known->has_kid = jwt->kid != NULL;
    known->kid_len = jwt->kid_len;

    if (jwt->kid_len != 0) {
        memcpy(known->kid, jwt->kid, jwt->kid_len);
    }
}


/* Splits at the dots; 0 unless there are exactly three parts, none empty. */
static int
tg_jwt_split(tg_jwt_part_t part[3], const char *token, size_t len)
{
    int          i;
    const char  *dot;

    for (i = 0; i < 2; i++) {
        dot = memchr(token, '.', len);

        if (dot == NULL || dot == token) {
            return 0;
        }

        part[i].start = token;
        part[i].len = (size_t) (dot - token);

        len -= part[i].len + 1;
        token = dot + 1;
    }

    part[2].start = token;
    part[2].len = len;

    /* a dot in the last part is not base64url: four parts fail there */
    return len != 0;
}


/* Decodes a part and parses it as a JSON object. */
static tg_jwt_status_e
tg_jwt_object(json_t **object, const tg_jwt_part_t *part)
{
    ssize_t  len;
    uint8_t  text[tg_b64url_decoded_size(TG_JWT_MAX_TOKEN)];

    len = tg_b64url_decode(text, part->start, part->len);
    if (len < 0) {
        return TG_JWT_BASE64;
    }

    *object = tg_json_load((char *) text, (size_t) len, JSON_REJECT_DUPLICATES,
                         NULL);

    if (!json_is_object(*object)) {
        json_decref(*object);
        *object = NULL;
        return TG_JWT_JSON;
    }

    return TG_JWT_OK;
}


static int
tg_jwt_type_ok(const json_t *typ)
{
    const char        *value;
    const char *const *type;

    if (typ == NULL) {
        return 1;
    }

    value = json_string_value(typ);     /* jansson lets no NUL in */

    for (type = tg_jwt_types; value != NULL && *type != NULL; type++) {
        if (strcasecmp(value, *type) == 0) {
            return 1;
        }
    }

    return 0;
}


static tg_jwt_status_e
tg_jwt_check_header(tg_jwt_t *jwt)
{
    const json_t  *alg, *kid;

    /* RFC 7515 section 4.1.11: no extension is understood here */
    if (json_object_get(jwt->header, "crit") != NULL) {
        return TG_JWT_CRITICAL;
    }

    alg = json_object_get(jwt->header, "alg");
    kid = json_object_get(jwt->header, "kid");

    if (!json_is_string(alg) || (kid != NULL && !json_is_string(kid))
        || !tg_jwt_type_ok(json_object_get(jwt->header, "typ")))
    {
        return TG_JWT_HEADER;
    }

    if (kid != NULL) {
        jwt->kid = json_string_value(kid);
        jwt->kid_len = json_string_length(kid);
    }

    jwt->alg = tg_alg_parse(json_string_value(alg), json_string_length(alg));

    return jwt->alg != 0 ? TG_JWT_OK : TG_JWT_ALGORITHM;
}


static tg_jwt_status_e
tg_jwt_read_header(tg_jwt_t *jwt, tg_jwt_memo_t *memo,
    const tg_jwt_part_t *part)
{
    tg_jwt_known_t   *known;
    tg_jwt_status_e   rc;

    known = tg_jwt_known(memo, part);

    if (tg_jwt_recall(jwt, known, part)) {
        return TG_JWT_OK;
    }

    rc = tg_jwt_object(&jwt->header, part);

    if (rc == TG_JWT_OK) {
        rc = tg_jwt_check_header(jwt);
    }

    if (rc == TG_JWT_OK) {
        tg_jwt_memorize(jwt, known, part);
    }

    return rc;
}


static tg_jwt_status_e
tg_jwt_read_signature(tg_jwt_t *jwt, const tg_jwt_part_t *part)
{
    ssize_t  len;

    if (tg_b64url_decoded_size(part->len) > sizeof(jwt->signature)) {
        return TG_JWT_TOO_LONG;
    }

    len = tg_b64url_decode(jwt->signature, part->start, part->len);
    if (len < 0) {
        return TG_JWT_BASE64;
    }

    jwt->signature_len = (size_t) len;

    return TG_JWT_OK;
}


tg_jwt_status_e
tg_jwt_parse(tg_jwt_t *jwt, tg_jwt_memo_t *memo, const char *token, size_t len)
{
    tg_jwt_part_t    part[3];
    tg_jwt_status_e  rc;

    if (len > TG_JWT_MAX_TOKEN) {
        return TG_JWT_TOO_LONG;
    }

    if (!tg_jwt_split(part, token, len)) {
        return TG_JWT_PARTS;
    }

    if (part[0].len > TG_JWT_MAX_HEADER) {
        return TG_JWT_TOO_LONG;
    }

    jwt->kid = NULL;
    jwt->kid_len = 0;
    jwt->header = NULL;
    jwt->claims = NULL;
    jwt->signed_part = token;
    jwt->signed_len = part[0].len + 1 + part[1].len;

    /* what is cheap to refuse comes first */
    rc = tg_jwt_read_signature(jwt, &part[2]);

    if (rc == TG_JWT_OK) {
        rc = tg_jwt_read_header(jwt, memo, &part[0]);
    }

    if (rc == TG_JWT_OK) {
        rc = tg_jwt_object(&jwt->claims, &part[1]);
    }

    if (rc != TG_JWT_OK) {
        tg_jwt_clear(jwt);
    }

    return rc;
}


void
tg_jwt_clear(tg_jwt_t *jwt)
{
    json_decref(jwt->header);
    json_decref(jwt->claims);
    jwt->header = NULL;
    jwt->claims = NULL;
}
