/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_uri.h"


/* The parsed target written down: segments in <>, parameters as {name=value}. */
static void
describe(const char *target, char *out, size_t size)
{
    size_t      i, n;
    tg_uri_t    uri;
    tg_error_t  err;

    if (tg_uri_parse(&uri, target, &err) != 0) {
        assert_true(err.message[0] != '\0');
        snprintf(out, size, "refused");
        return;
    }

    n = 0;
    out[0] = '\0';

    for (i = 0; i < uri.segments; i++) {
        n += (size_t) snprintf(out + n, size - n, "<%s>", uri.segment[i]);
    }

    for (i = 0; i < uri.queries; i++) {
        n += (size_t) snprintf(out + n, size - n, "{%s=%s}", uri.query[i].name,
                               uri.query[i].value);
    }

    tg_uri_clear(&uri);
}


static void
test_targets(void **state)
{
    char    out[1024];
    size_t  i;

    static const struct {
        const char  *target;
        const char  *result;
    } cases[] = {
        { "/", "" },
        { "/v1", "<v1>" },
        { "/v1/tenants/acme", "<v1><tenants><acme>" },
        { "/v1/%74enants", "<v1><tenants>" },
        { "/v1/endpoints/[::1]:80", "<v1><endpoints><[::1]:80>" },
        { "/a%2Fb", "<a/b>" },
        { "/a%20b+c", "<a b+c>" },
        { "/caf%C3%A9", "<caf\xc3\xa9>" },
        { "/%C2%80", "<\xc2\x80>" },
        { "/v1?limit=10&cursor=abc", "<v1>{limit=10}{cursor=abc}" },
        { "/v1?a=%26%3d&b", "<v1>{a=&=}{b=}" },
        { "/v1?a=b+c", "<v1>{a=b c}" },
        { "/v1?", "<v1>" },
        { "/v1?&&a=1&", "<v1>{a=1}" },
        { "/v1?a=b=c", "<v1>{a=b=c}" },
        { "/v1?a=/?", "<v1>{a=/?}" },
        { "http://host:80/v1?x=1", "<v1>{x=1}" },
        { "HTTPS://host/v1", "<v1>" },
        { "http://host", "" },
        { "/...", "<...>" },
        { "/.a", "<.a>" },

        { "", "refused" },
        { "v1", "refused" },
        { "*", "refused" },
        { "http://", "refused" },
        { "http:///v1", "refused" },
        { "http://host?x=1", "refused" },
        { "ftp://host/v1", "refused" },
        { "//v1", "refused" },
        { "/v1/", "refused" },
        { "/v1//tenants", "refused" },
        { "/v1/./tenants", "refused" },
        { "/v1/../tenants", "refused" },
        { "/v1/%2e%2e/tenants", "refused" },
        { "/v1/%2E", "refused" },
        { "/v1/..", "refused" },
        { "/%", "refused" },
        { "/%4", "refused" },
        { "/%4x", "refused" },
        { "/%zz", "refused" },
        { "/a%00b", "refused" },
        { "/%c0%ae", "refused" },
        { "/%ff", "refused" },
        { "/%ed%a0%80", "refused" },
        { "/%e2%82", "refused" },
        { "/caf\xc3\xa9", "refused" },
        { "/a b", "refused" },
        { "/a\tb", "refused" },
        { "/a\"b", "refused" },
        { "/a\\b", "refused" },
        { "/a#b", "refused" },
        { "/v1?a=1#b", "refused" },
        { "/v1?a=1&a=2", "refused" },
        { "/v1?a=1&%61=2", "refused" },
        { "/v1?a=%00", "refused" },
        { "/v1?%=1", "refused" },
        { "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", "refused" },
        { "/v1?a=&b=&c=&d=&e=&f=&g=&h=&i=&j=&k=&l=&m=&n=&o=&p=&q=", "refused" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        describe(cases[i].target, out, sizeof(out));
        if (strcmp(out, cases[i].result) != 0) {
            fail_msg("%s gives %s, not %s", cases[i].target, out,
                     cases[i].result);
        }
    }
}


static void
test_length(void **state)
{
    char      *target;
    tg_uri_t   uri;

    (void) state;

    target = malloc(TG_URI_MAX_LENGTH + 2);
    assert_non_null(target);
    memset(target, 'a', TG_URI_MAX_LENGTH + 1);
    target[0] = '/';
    target[TG_URI_MAX_LENGTH + 1] = '\0';

    assert_int_equal(tg_uri_parse(&uri, target, NULL), -1);

    target[TG_URI_MAX_LENGTH] = '\0';
    assert_int_equal(tg_uri_parse(&uri, target, NULL), 0);
    assert_string_equal(uri.segment[0], target + 1);

    tg_uri_clear(&uri);
    free(target);
}


static void
test_query(void **state)
{
    tg_uri_t  uri;

    (void) state;

    assert_int_equal(tg_uri_parse(&uri, "/x?a=1&b", NULL), 0);
    assert_string_equal(tg_uri_query(&uri, "a"), "1");
    assert_string_equal(tg_uri_query(&uri, "b"), "");
    assert_null(tg_uri_query(&uri, "c"));
    tg_uri_clear(&uri);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_query),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
