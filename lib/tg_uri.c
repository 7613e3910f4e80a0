/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tg_text.h"
#include "tg_uri.h"


static int
tg_uri_hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


/* RFC 3986 section 3.3 and 3.4: what may stand unescaped in path and query. */
static int
tg_uri_plain(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
           || (c >= 'A' && c <= 'Z')
           || (c != '\0' && strchr("-._~!$&'()*+,;=:@/?[]|", c) != NULL);
}


/* Decodes a component in place; NUL-terminates it.  Returns NULL, or what is
 * wrong. */
static const char *
tg_uri_decode(char *text, size_t len, int plus)
{
    int     hi, lo;
    char   *out;
    size_t  i, n, width;

    out = text;

    for (i = 0; i < len; i++) {
        if (text[i] == '+' && plus) {
            *out++ = ' ';
            continue;
        }

        if (text[i] != '%') {
            if (!tg_uri_plain((unsigned char) text[i])) {
                return "has a character that must be percent-encoded";
            }
            *out++ = text[i];
            continue;
        }

        hi = len - i > 2 ? tg_uri_hex(text[i + 1]) : -1;
        lo = len - i > 2 ? tg_uri_hex(text[i + 2]) : -1;

        if (hi < 0 || lo < 0) {
            return "has a % that is not followed by two hex digits";
        }

        *out++ = (char) (hi << 4 | lo);
        i += 2;
    }

    n = (size_t) (out - text);

    for (i = 0; i < n; i += width) {
        width = tg_utf8_len(text + i, n - i);
        if (width == 0) {
            return "is not UTF-8 without NUL when decoded";
        }
    }

    *out = '\0';

    return NULL;
}


static int
tg_uri_parse_path(tg_uri_t *uri, char *path, tg_error_t *err)
{
    char        *slash;
    size_t       len;
    const char  *problem;

    if (path[0] == '\0') {
        return 0;       /* the target was "/" */
    }

    for ( ;; ) {
        slash = strchr(path, '/');
        len = slash != NULL ? (size_t) (slash - path) : strlen(path);

        if (uri->segments == TG_URI_MAX_SEGMENTS) {
            tg_error_set(err, "", "the path has more than %d segments",
                         TG_URI_MAX_SEGMENTS);
            return -1;
        }

        problem = tg_uri_decode(path, len, 0);
        if (problem == NULL && path[0] == '\0') {
            problem = "has an empty segment";
        }
        if (problem == NULL
            && (strcmp(path, ".") == 0 || strcmp(path, "..") == 0))
        {
            problem = "has a dot segment";
        }
        if (problem != NULL) {
            tg_error_set(err, "", "the path %s", problem);
            return -1;
        }

        uri->segment[uri->segments++] = path;

        if (slash == NULL) {
            return 0;
        }

        path = slash + 1;
    }
}


static int
tg_uri_add_param(tg_uri_t *uri, char *param, size_t len, tg_error_t *err)
{
    char        *equals, *value;
    size_t       name_len;
    const char  *problem;

    if (uri->queries == TG_URI_MAX_QUERY) {
        tg_error_set(err, "", "the query has more than %d parameters",
                     TG_URI_MAX_QUERY);
        return -1;
    }

    equals = memchr(param, '=', len);
    name_len = equals != NULL ? (size_t) (equals - param) : len;
    value = equals != NULL ? equals + 1 : param + len;

    problem = tg_uri_decode(value, (size_t) (param + len - value), 1);
    if (problem == NULL) {
        problem = tg_uri_decode(param, name_len, 1);
    }
    if (problem != NULL) {
        tg_error_set(err, "", "the query %s", problem);
        return -1;
    }

    if (tg_uri_query(uri, param) != NULL) {
        tg_error_set(err, "", "the query has \"%.60s\" twice", param);
        return -1;
    }

    uri->query[uri->queries].name = param;
    uri->query[uri->queries++].value = equals != NULL ? value : "";

    return 0;
}


static int
tg_uri_parse_query(tg_uri_t *uri, char *query, tg_error_t *err)
{
    char    *ampersand;
    size_t   len;

    while (query != NULL) {
        ampersand = strchr(query, '&');
        len = ampersand != NULL ? (size_t) (ampersand - query) : strlen(query);

        if (len > 0 && tg_uri_add_param(uri, query, len, err) != 0) {
            return -1;
        }

        query = ampersand != NULL ? ampersand + 1 : NULL;
    }

    return 0;
}


/* The path and query of a target, or NULL. */
static const char *
tg_uri_origin(const char *target)
{
    const char  *p;

    if (target[0] == '/') {
        return target;
    }

    if (strncasecmp(target, "http://", 7) == 0) {
        p = target + 7;

    } else if (strncasecmp(target, "https://", 8) == 0) {
        p = target + 8;

    } else {
        return NULL;
    }

    if (strcspn(p, "/?#") == 0) {
        return NULL;
    }

    p += strcspn(p, "/?#");

    return *p == '/' ? p : *p == '\0' ? "/" : NULL;
}


int
tg_uri_parse(tg_uri_t *uri, const char *target, tg_error_t *err)
{
    char  *query;

    memset(uri, 0, sizeof(tg_uri_t));

    if (strlen(target) > TG_URI_MAX_LENGTH) {
        tg_error_set(err, "", "the request target is longer than %d bytes",
                     TG_URI_MAX_LENGTH);
        return -1;
    }

    target = tg_uri_origin(target);
    if (target == NULL) {
        tg_error_set(err, "", "the request target must begin with /");
        return -1;
    }

    uri->memory = strdup(target + 1);
    if (uri->memory == NULL) {
        tg_error_set(err, "", "out of memory");
        return -1;
    }

    query = strchr(uri->memory, '?');
    if (query != NULL) {
        *query++ = '\0';
    }

    if (tg_uri_parse_path(uri, uri->memory, err) != 0
        || tg_uri_parse_query(uri, query, err) != 0)
    {
        tg_uri_clear(uri);
        return -1;
    }

    return 0;
}


void
tg_uri_clear(tg_uri_t *uri)
{
    free(uri->memory);
    memset(uri, 0, sizeof(tg_uri_t));
}


const char *
tg_uri_query(const tg_uri_t *uri, const char *name)
{
    size_t  i;

    for (i = 0; i < uri->queries; i++) {
        if (strcmp(uri->query[i].name, name) == 0) {
            return uri->query[i].value;
        }
    }

    return NULL;
}
