/* SPDX-License-Identifier: BSD-2-Clause */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "td_cidr.h"


static const struct sockaddr *
address(const char *text)
{
    struct sockaddr_in                *sin;
    struct sockaddr_in6               *sin6;
    static struct sockaddr_storage     ss;

    memset(&ss, 0, sizeof(ss));
    sin = (struct sockaddr_in *) &ss;
    sin6 = (struct sockaddr_in6 *) &ss;

    if (inet_pton(AF_INET, text, &sin->sin_addr) == 1) {
        sin->sin_family = AF_INET;

    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &sin6->sin6_addr), 1);
        sin6->sin6_family = AF_INET6;
    }

    return (const struct sockaddr *) &ss;
}


static void
test_parse(void **state)
{
    size_t     i;
    td_cidr_t  cidr;

    static const char *const  good[] = {
        "10.0.0.0/8", "127.0.0.1", "127.0.0.1/32", "0.0.0.0/0", "::/0", "::1",
        "fd00::/8", "2001:db8:1::/48", "192.168.1.128/25"
    };
    static const char *const  bad[] = {
        "", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x",
        "10.0.0.0/ 8", "10.0.0.1/8", "10.0.0/8", "010.0.0.0/8", "::/129",
        "fd00::1/8", "localhost", "1.2.3.4.5", "10.0.0.0/8/8",
        "::ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    };

    (void) state;

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (td_cidr_parse(good[i], &cidr) != 0) {
            fail_msg("%s was refused", good[i]);
        }
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (td_cidr_parse(bad[i], &cidr) == 0) {
            fail_msg("%s was taken", bad[i]);
        }
    }
}


static void
test_match(void **state)
{
    size_t     i;
    td_cidr_t  cidr;

    static const struct {
        const char  *cidr;
        const char  *address;
        int          match;
    } cases[] = {
        { "10.0.0.0/8", "10.255.255.255", 1 },
        { "10.0.0.0/8", "11.0.0.0", 0 },
        { "10.0.0.0/8", "::ffff:10.1.2.3", 1 },
        { "10.0.0.0/9", "10.128.0.0", 0 },
        { "10.0.0.0/9", "10.127.255.255", 1 },
        { "127.0.0.1", "127.0.0.1", 1 },
        { "127.0.0.1", "127.0.0.2", 0 },
        { "0.0.0.0/0", "8.8.8.8", 1 },
        { "0.0.0.0/0", "2001:4860::8888", 0 },
        { "::/0", "2001:4860::8888", 1 },
        { "fd00::/8", "fdff::1", 1 },
        { "fd00::/8", "fe00::1", 0 },
        { "::1", "::1", 1 },
        { "::1", "::2", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(td_cidr_parse(cases[i].cidr, &cidr), 0);
        if (td_cidr_match(&cidr, address(cases[i].address)) != cases[i].match) {
            fail_msg("%s in %s", cases[i].address, cases[i].cidr);
        }
    }
}


static void
test_special(void **state)
{
    size_t             i;
    const char        *what;
    struct sockaddr    other = { .sa_family = AF_UNIX };

    static const struct {
        const char  *address;
        const char  *what;      /* a part of it; NULL: public */
    } cases[] = {
        { "8.8.8.8", NULL },
        { "1.1.1.1", NULL },
        { "172.32.0.1", NULL },
        { "169.253.255.255", NULL },
        { "2606:4700::1111", NULL },
        { "64:ff9b::808:808", NULL },
        { "::ffff:8.8.8.8", NULL },
        { "127.0.0.1", "loopback" },
        { "127.255.255.255", "loopback" },
        { "::1", "loopback" },
        { "::ffff:127.0.0.1", "loopback" },
        { "64:ff9b::7f00:1", "loopback" },
        { "2002:7f00:1::", "loopback" },
        { "169.254.169.254", "metadata" },
        { "::ffff:169.254.169.254", "metadata" },
        { "64:ff9b::a9fe:a9fe", "metadata" },
        { "fe80::1", "link-local" },
        { "fd00:ec2::254", "private" },
        { "10.0.0.1", "private" },
        { "172.16.0.1", "private" },
        { "172.31.255.255", "private" },
        { "192.168.0.1", "private" },
        { "100.64.0.1", "private" },
        { "fc00::1", "private" },
        { "0.0.0.0", "unspecified" },
        { "0.1.2.3", "unspecified" },
        { "::", "unspecified" },
        { "::ffff:0.0.0.0", "unspecified" },
        { "224.0.0.1", "multicast" },
        { "ff02::1", "multicast" },
        { "255.255.255.255", "reserved" },
        { "192.0.2.1", "reserved" },
        { "::7f00:1", "reserved" },
        { "2001:db8::1", "reserved" },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        what = td_cidr_special(address(cases[i].address));

        if ((what == NULL) != (cases[i].what == NULL)
            || (what != NULL && strstr(what, cases[i].what) == NULL))
        {
            fail_msg("%s is %s", cases[i].address, what ? what : "public");
        }
    }

    assert_string_equal(td_cidr_special(&other), "not an IP address");
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_special),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
