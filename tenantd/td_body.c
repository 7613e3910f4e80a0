/* SPDX-License-Identifier: BSD-2-Clause */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "td_body.h"


/* How deep arrays and objects are nested; more than limit is limit + 1. */
static int
td_body_depth(const json_t *value, int limit)
{
    int          depth, deepest;
    size_t       i;
    json_t      *child;
    const char  *name;

    if (!json_is_array(value) && !json_is_object(value)) {
        return 0;
    }

    if (limit == 0) {
        return 1;
    }

    deepest = 0;

    json_array_foreach(value, i, child) {
        depth = td_body_depth(child, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }

    json_object_foreach((json_t *) (uintptr_t) value, name, child) {
        depth = td_body_depth(child, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }

    return deepest + 1;
}


json_t *
td_body_parse(const char *text, size_t len, td_problem_t *problem, char *detail)
{
    json_t        *json;
    json_error_t   error;

    json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

    if (json == NULL) {
        snprintf(detail, TD_BODY_MAX_DETAIL, "line %d, column %d: %s",
                 error.line, error.column, error.text);
        *problem = td_problem(TD_PROBLEM_MALFORMED_JSON, detail);
        problem->line = error.line > 0 ? (unsigned) error.line : 1;
        problem->column = error.column > 0 ? (unsigned) error.column : 0;
        return NULL;
    }

    if (td_body_depth(json, TD_BODY_MAX_DEPTH) > TD_BODY_MAX_DEPTH) {
        json_decref(json);
        snprintf(detail, TD_BODY_MAX_DETAIL, "the body is nested more than %d "
                 "levels deep", TD_BODY_MAX_DEPTH);
        *problem = td_problem(TD_PROBLEM_MALFORMED_JSON, detail);
        return NULL;
    }

    return json;
}


static int
td_body_has_word(const char *words, const char *word, size_t len)
{
    size_t  n;

    while (*words != '\0') {
        n = strcspn(words, " ");
        if (n == len && strncasecmp(words, word, len) == 0) {
            return 1;
        }

        words += n;
        words += strspn(words, " ");
    }

    return 0;
}


/* The parameters behind the type: charset must be UTF-8, others do not matter. */
static int
td_body_is_utf8(const char *parameters)
{
    const char  *charset;

    charset = strcasestr(parameters, "charset=");
    if (charset == NULL) {
        return 1;
    }

    charset += strlen("charset=");
    charset += *charset == '"';

    return strncasecmp(charset, "utf-8", 5) == 0
           && strchr("\"; \t", charset[5]) != NULL;
}


int
td_body_is_type(const char *content_type, const char *subtypes)
{
    size_t  len;

    if (content_type == NULL
        || strncasecmp(content_type, "application/", 12) != 0)
    {
        return 0;
    }

    content_type += 12;
    len = strcspn(content_type, "; \t");

    return td_body_has_word(subtypes, content_type, len)
           && td_body_is_utf8(content_type + len);
}
