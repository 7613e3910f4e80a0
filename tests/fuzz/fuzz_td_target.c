/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Request targets: whatever is taken is written down again and must be read as
 * the same, and the route table must be able to look at it.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "td_route.h"
#include "tg_text.h"
#include "tg_uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int condition)
{
    if (!condition) {
        abort();
    }
}


static void
write_component(tg_text_t *text, const char *s)
{
    for ( ; *s != '\0'; s++) {
        tg_text_printf(text, "%%%02x", (unsigned char) *s);
    }
}


/* The target with every byte escaped. */
static char *
write_down(const tg_uri_t *uri)
{
    size_t     i;
    tg_text_t  text;

    tg_text_init(&text);

    for (i = 0; i < uri->segments; i++) {
        tg_text_str(&text, "/");
        write_component(&text, uri->segment[i]);
    }

    if (uri->segments == 0) {
        tg_text_str(&text, "/");
    }

    for (i = 0; i < uri->queries; i++) {
        tg_text_str(&text, i == 0 ? "?" : "&");
        write_component(&text, uri->query[i].name);
        tg_text_str(&text, "=");
        write_component(&text, uri->query[i].value);
    }

    tg_text_add(&text, "", 1);

    return text.data;
}


static void
check_same(const tg_uri_t *one, const tg_uri_t *other)
{
    size_t  i;

    check(one->segments == other->segments && one->queries == other->queries);

    for (i = 0; i < one->segments; i++) {
        check(strcmp(one->segment[i], other->segment[i]) == 0);
        check(one->segment[i][0] != '\0');
        check(strcmp(one->segment[i], ".") != 0);
        check(strcmp(one->segment[i], "..") != 0);
    }

    for (i = 0; i < one->queries; i++) {
        check(strcmp(one->query[i].name, other->query[i].name) == 0);
        check(strcmp(one->query[i].value, other->query[i].value) == 0);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char        *target, *again;
    tg_uri_t     uri, other;
    td_match_t   match;
    tg_error_t   err;

    target = strndup((const char *) data, size);

    if (tg_uri_parse(&uri, target, &err) == 0) {
        again = write_down(&uri);

        if (strlen(again) <= TG_URI_MAX_LENGTH) {
            check(tg_uri_parse(&other, again, &err) == 0);
            check_same(&uri, &other);
            tg_uri_clear(&other);
        }

        td_route_match(&uri, TD_GET, &match);
        td_route_match(&uri, TD_PUT, &match);
        check(match.params <= TD_ROUTE_MAX_PARAMS);

        free(again);
        tg_uri_clear(&uri);

    } else {
        check(err.message[0] != '\0');
    }

    free(target);

    return 0;
}
