/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_host.h"

#define LABEL_63  "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"
#define NAME_253  LABEL_63 "." LABEL_63 "." LABEL_63 "."                          \
                  "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxy"


static void
test_normalize(void **state)
{
    size_t   i;
    char     out[TG_HOST_SIZE];
    ssize_t  n;

    static const struct {
        const char  *in;
        const char  *out;       /* NULL: refused */
    } cases[] = {
        { "example.com", "example.com" },
        { "EXAMPLE.Com", "example.com" },
        { "example.com:443", "example.com" },
        { "example.com:", "example.com" },
        { "example.com.", "example.com" },
        { "example.com.:8443", "example.com" },
        { "a", "a" },
        { "a_b.example", "a_b.example" },
        { "_dmarc.example", "_dmarc.example" },
        { "xn--bcher-kva.example", "xn--bcher-kva.example" },
        { "1.example", "1.example" },
        { "0x7f.example", "0x7f.example" },
        { "192.0.2.7", "192.0.2.7" },
        { "192.0.2.7:80", "192.0.2.7" },
        { "192.0.2.7.", "192.0.2.7" },
        { "[::1]", "[::1]" },
        { "[::1]:8080", "[::1]" },
        { "[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]" },
        { "[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]" },
        { LABEL_63 ".example", LABEL_63 ".example" },
        { NAME_253, NAME_253 },
        { NAME_253 ".", NAME_253 },

        { "", NULL },
        { ".", NULL },
        { ":80", NULL },
        { ".:80", NULL },
        { "..", NULL },
        { "example.com..", NULL },
        { ".example.com", NULL },
        { "a..b", NULL },
        { "-a.example", NULL },
        { "a-.example", NULL },
        { "a.-", NULL },
        { "*.example.com", NULL },
        { "exa mple.com", NULL },
        { " example.com", NULL },
        { "example.com ", NULL },
        { "example.com\t", NULL },
        { "example.com\r\nX: y", NULL },
        { "user@example.com", NULL },
        { "example.com/path", NULL },
        { "example.com?x", NULL },
        { "example.com#x", NULL },
        { "example.com\\", NULL },
        { "example.com%2e", NULL },
        { "example,com", NULL },
        { "b\xc3\xbc" "cher.example", NULL },
        { "\xc0\xae.example", NULL },
        { "example.com:80:80", NULL },
        { "example.com:http", NULL },
        { "example.com:-1", NULL },
        { "example.com:65536", NULL },
        { "example.com:99999999999999999999", NULL },
        { "example.com:80.", NULL },
        { "1", NULL },
        { "127.1", NULL },
        { "127.0.0.1.1", NULL },
        { "256.0.0.1", NULL },
        { "127.0.0.01", NULL },
        { "example.1", NULL },
        { "2130706433", NULL },
        { "::1", NULL },
        { "[::1", NULL },
        { "::1]", NULL },
        { "[]", NULL },
        { "[", NULL },
        { "[]]", NULL },
        { "[::1]x", NULL },
        { "[::1].", NULL },
        { "[::1]:x", NULL },
        { "[::1]:65536", NULL },
        { "[::1%25eth0]", NULL },
        { "[fe80::1%eth0]", NULL },
        { "[127.0.0.1]", NULL },
        { "[v1.x]", NULL },
        { "[::g]", NULL },
        { "[1:2:3:4:5:6:7:8:9]", NULL },
        { "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", NULL },
        { LABEL_63 "x.example", NULL },
        { NAME_253 "x", NULL },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        n = tg_host_normalize(cases[i].in, strlen(cases[i].in), out,
                              sizeof(out));

        if (cases[i].out == NULL) {
            if (n != -1) {
                fail_msg("\"%s\" became \"%s\"", cases[i].in, out);
            }

            continue;
        }

        if (n != (ssize_t) strlen(cases[i].out)
            || strcmp(out, cases[i].out) != 0)
        {
            fail_msg("\"%s\" became %zd", cases[i].in, n);
        }

        /* normalising twice changes nothing */
        assert_int_equal(tg_host_normalize(out, (size_t) n, out, sizeof(out)),
                         n);
        assert_string_equal(out, cases[i].out);
    }
}


/* Every byte value in the middle of a name. */
static void
test_every_byte(void **state)
{
    int   c;
    char  in[3], out[TG_HOST_SIZE];

    (void) state;

    for (c = 0; c < 256; c++) {
        in[0] = 'a';
        in[1] = (char) c;
        in[2] = 'b';

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.')
        {
            assert_int_equal(tg_host_normalize(in, 3, out, sizeof(out)), 3);

        } else {
            assert_int_equal(tg_host_normalize(in, 3, out, sizeof(out)), -1);
        }
    }
}


static void
test_room(void **state)
{
    char  out[TG_HOST_SIZE];

    (void) state;

    assert_int_equal(tg_host_normalize("abc", 3, out, 4), 3);
    assert_int_equal(tg_host_normalize("abc", 3, out, 3), -1);
    assert_int_equal(tg_host_normalize("abc.", 4, out, 4), 3);
    assert_int_equal(tg_host_normalize("[::1]", 5, out, 6), 5);
    assert_int_equal(tg_host_normalize("[::1]", 5, out, 5), -1);
    assert_int_equal(tg_host_normalize("a", 1, out, 0), -1);
    assert_int_equal(tg_host_normalize("[::1\0]", 6, out, sizeof(out)), -1);
    assert_int_equal(tg_host_normalize("a\0b", 3, out, sizeof(out)), -1);
}


static void
test_check(void **state)
{
    size_t  i;

    static const struct {
        const char  *host;
        int          good;
    } cases[] = {
        { "acme.example.com", 1 },
        { "*.acme.example.com", 1 },
        { "*.com", 1 },
        { "localhost", 1 },
        { "a_b.example", 1 },

        { "", 0 },
        { "*", 0 },
        { "*.", 0 },
        { "*..com", 0 },
        { "**.com", 0 },
        { "*.*.com", 0 },
        { "a.*.com", 0 },
        { "*a.com", 0 },
        { ".com", 0 },
        { "Acme.example.com", 0 },
        { "acme.example.com.", 0 },
        { "acme.example.com:80", 0 },
        { "192.0.2.1", 0 },
        { "*.0.2.1", 0 },
        { "[::1]", 0 },
        { "a b", 0 },
        { NAME_253 "x", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (tg_host_check(cases[i].host, strlen(cases[i].host))
            != cases[i].good)
        {
            fail_msg("\"%s\"", cases[i].host);
        }
    }
}


static void
test_match(void **state)
{
    size_t  i;

    static const struct {
        const char  *pattern;
        const char  *host;
        int          match;
    } cases[] = {
        { "a.example", "a.example", 1 },
        { ".example", "a.example", 1 },
        { ".example", "b.a.example", 1 },

        { "a.example", "b.example", 0 },
        { "a.example", "a.exampl", 0 },
        { "a.example", "x.a.example", 0 },
        { ".example", "example", 0 },
        { ".example", ".example", 0 },
        { ".a.example", "xa.example", 0 },
        { ".a.example", "b.example", 0 },
        { "", "a", 0 },
        { ".example", "", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (tg_host_match(cases[i].pattern, strlen(cases[i].pattern),
                          cases[i].host, strlen(cases[i].host))
            != cases[i].match)
        {
            fail_msg("\"%s\" \"%s\"", cases[i].pattern, cases[i].host);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_match),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
