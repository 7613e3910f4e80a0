/* SPDX-License-Identifier: BSD-2-Clause */

#include <string.h>

#include "td_patterns.h"
#include "tg_regex.h"


/* {"type": "regex", "value": …} */
static int
td_patterns_check_one(const json_t *test, tg_error_t *err)
{
    const char    *type;
    const json_t  *value;

    type = json_string_value(json_object_get(test, "type"));
    value = json_object_get(test, "value");

    if (type == NULL || strcmp(type, "regex") != 0 || !json_is_string(value)) {
        return 0;
    }

    err->pointer[0] = '\0';

    if (tg_regex_check(json_string_value(value), json_string_length(value), err)
        != 0)
    {
        tg_error_prefix(err, "/value");
        return -1;
    }

    return 0;
}


static int
td_patterns_check_match(const json_t *match, tg_error_t *err)
{
    size_t   i;
    json_t  *header;

    if (td_patterns_check_one(json_object_get(match, "path"), err) != 0) {
        tg_error_prefix(err, "/match/path");
        return -1;
    }

    json_array_foreach(json_object_get(match, "headers"), i, header) {
        if (td_patterns_check_one(header, err) != 0) {
            tg_error_prefix(err, "/match/headers/%zu", i);
            return -1;
        }
    }

    return 0;
}


int
td_patterns_check(const json_t *body, tg_error_t *err)
{
    size_t   i;
    json_t  *route;

    if (td_patterns_check_match(json_object_get(body, "match"), err) != 0) {
        return -1;
    }

    json_array_foreach(json_object_get(body, "routes"), i, route) {
        if (td_patterns_check_match(json_object_get(route, "match"), err) != 0)
        {
            tg_error_prefix(err, "/routes/%zu", i);
            return -1;
        }
    }

    return 0;
}
