/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tg_block.h"
#include "tg_regex.h"


static tg_regex_e
match(const char *pattern, const char *subject)
{
    return tg_regex_match(pattern, strlen(pattern), subject, strlen(subject));
}


static void
test_anchored(void **state)
{
    size_t  i;

    static const struct {
        const char  *pattern;
        const char  *subject;
        tg_regex_e   result;
    } cases[] = {
        { "/a", "/a", TG_REGEX_MATCH },
        { "/a/[0-9]+", "/a/123", TG_REGEX_MATCH },
        { "/(a|ab)", "/ab", TG_REGEX_MATCH },
        { "/a|/b", "/b", TG_REGEX_MATCH },
        { "/a.*", "/abc", TG_REGEX_MATCH },
        { "(?i)/A", "/a", TG_REGEX_MATCH },
        { "/\xff", "/\xff", TG_REGEX_MATCH },
        { "", "", TG_REGEX_ERROR },

        { "/a", "/ab", TG_REGEX_NO },
        { "/a", "x/a", TG_REGEX_NO },
        { "/a|/b", "/a/b", TG_REGEX_NO },
        { "/a|/b", "/ab", TG_REGEX_NO },
        { "/a$", "/a\n", TG_REGEX_NO },
        { "/a", "/a\n", TG_REGEX_NO },
        { "^/a$", "/b\n/a", TG_REGEX_NO },
        { "(?m)^/a$", "/b\n/a", TG_REGEX_NO },
        { "/a", "/A", TG_REGEX_NO },
        { "/a", "", TG_REGEX_NO },
        { "/a\\K", "/ab", TG_REGEX_NO },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (match(cases[i].pattern, cases[i].subject) != cases[i].result) {
            fail_msg("\"%s\" on \"%s\"", cases[i].pattern, cases[i].subject);
        }
    }

    assert_int_equal(tg_regex_match("/a", 2, "/a\0b", 4), TG_REGEX_NO);
    assert_int_equal(tg_regex_match("/a.b", 4, "/a\0b", 4), TG_REGEX_MATCH);
}


static void
test_check(void **state)
{
    size_t      i;
    char        longest[TG_MAX_REGEX + 1];
    tg_error_t  err;

    static const char *const  bad[] = {
        "", "(", ")", "[", "a{2,1}", "*", "(?P<n>", "\\", "(?<n>a)(?<n>b)",
        "(*UTF)a", "(*UCP)a", "\\C", "(?<=a*)b", "[[:nope:]]", "\\p{Nope}",
        "(?1)", "(?C256)", "((((((((a{1,65535}){1,100}){1,100}){1,100}"
        "){1,100}){1,100}){1,100})", "(?R)", "(*LIMIT_MATCH=1)/x?"
    };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&err, 0, sizeof(err));

        if (tg_regex_check(bad[i], strlen(bad[i]), &err) != -1) {
            fail_msg("\"%s\" passed", bad[i]);
        }

        assert_true(err.message[0] != '\0');
        assert_string_equal(err.pointer, "");
    }

    memset(longest, 'a', sizeof(longest));
    assert_int_equal(tg_regex_check(longest, TG_MAX_REGEX, &err), 0);
    assert_int_equal(tg_regex_check(longest, TG_MAX_REGEX + 1, &err), -1);
    assert_int_equal(tg_regex_check("a\0(", 3, &err), -1);
    assert_int_equal(tg_regex_check("(", 1, NULL), -1);
}


/* (a|a) so many times, on as many "a" with a wrong end. */
static tg_regex_e
match_groups(size_t n)
{
    size_t  i;
    char    pattern[TG_MAX_REGEX + 1], subject[TG_MAX_REGEX];

    for (i = 0; i < n; i++) {
        memcpy(pattern + 5 * i, "(a|a)", 5);
        subject[i] = 'a';
    }

    memcpy(pattern + 5 * n, "[bc]", 5);
    subject[n] = 'd';
    tg_regex_begin();

    return tg_regex_match(pattern, 5 * n + 4, subject, n + 1);
}


/* Patterns that explode must end in an error, soon. */
static void
test_limits(void **state)
{
    size_t  i;
    char    subject[TG_REGEX_SUBJECT + 1];

    static const char *const  evil[] = {
        "(a+)+[bc]", "(a|a)*[bc]", "(a|aa)+[bc]", "(.*)*[xy]", "((a*)*)*[bc]",
        "(?:(?:a?){50}){50}[bc]", "(a*)*\\1[bc]",
        "(*LIMIT_MATCH=4000000000)(a+)+[bc]", "(*NO_JIT)(a+)+[bc]",
        "(*NO_JIT)(*LIMIT_HEAP=4000000000)((a)|(b))*[xy]",
        "(*LIMIT_DEPTH=4000000000)^(a?){30}a{30}[xy]", "(?R)?a+[bc]"
    };

    (void) state;

    memset(subject, 'a', sizeof(subject));

    for (i = 0; i < sizeof(evil) / sizeof(evil[0]); i++) {
        if (tg_regex_match(evil[i], strlen(evil[i]), subject, 2000)
            == TG_REGEX_MATCH)
        {
            fail_msg("\"%s\" matched", evil[i]);
        }
    }

    /* [bc], since PCRE2 sees without matching that there is no "b" */
    assert_int_equal(tg_regex_match("(a+)+[bc]", 9, subject, 2000),
                     TG_REGEX_ERROR);
    assert_int_equal(tg_regex_match("(*NO_JIT)(a+)+[bc]", 18, subject, 2000),
                     TG_REGEX_ERROR);

    /* which PCRE2's JIT does not count: 2^24 ways, and 2^40 */
    assert_int_equal(match_groups(24), TG_REGEX_ERROR);
    assert_int_equal(match_groups(40), TG_REGEX_ERROR);

    assert_int_equal(tg_regex_match("a*", 2, subject, TG_REGEX_SUBJECT),
                     TG_REGEX_MATCH);
    assert_int_equal(tg_regex_match("a*", 2, subject, TG_REGEX_SUBJECT + 1),
                     TG_REGEX_ERROR);

    /* a pattern that does not compile is nobody's "no" */
    assert_int_equal(match("(", "("), TG_REGEX_ERROR);
}


/* One request's patterns may not cost what one may cost each. */
static void
test_heavy(void **state)
{
    int   i;
    char  subject[151], pattern[32];

    (void) state;

    memset(subject, 'a', sizeof(subject) - 1);
    subject[sizeof(subject) - 1] = '\0';

    for (int request = 0; request < 3; request++) {
        tg_regex_begin();

        for (i = 0; i < TG_REGEX_HEAVY; i++) {
            snprintf(pattern, sizeof(pattern), ".*.*[bc](?#%d)", i);
            assert_int_equal(match(pattern, subject), TG_REGEX_NO);
        }

        assert_int_equal(match(".*.*[bc]", subject), TG_REGEX_ERROR);
        assert_int_equal(match(".*.*[bc]", subject), TG_REGEX_ERROR);

        /* the others go on */
        for (i = 0; i < 2000; i++) {
            assert_int_equal(match("a*", subject), TG_REGEX_MATCH);
            assert_int_equal(match(".*[bc]", subject), TG_REGEX_NO);
        }
    }
}


static void
test_cache(void **state)
{
    int     i;
    char    pattern[32];
    size_t  cached, compiled, before;

    (void) state;

    tg_regex_clear();
    tg_regex_stats(&cached, &compiled);
    assert_int_equal(cached, 0);

    for (i = 0; i < 1000; i++) {
        assert_int_equal(match("/a/[0-9]+", "/a/1"), TG_REGEX_MATCH);
    }

    tg_regex_stats(&cached, &compiled);
    assert_int_equal(cached, 1);
    assert_int_equal(compiled, 1);

    /* three times what fits: bounded, and right all the time */
    for (i = 0; i < 3 * TG_REGEX_CACHE; i++) {
        snprintf(pattern, sizeof(pattern), "/p%d", i);
        assert_int_equal(match(pattern, pattern), TG_REGEX_MATCH);
        assert_int_equal(match(pattern, "/p"), TG_REGEX_NO);
    }

    tg_regex_stats(&cached, &compiled);
    assert_true(cached <= TG_REGEX_CACHE);
    assert_int_equal(compiled, 1 + 3 * TG_REGEX_CACHE);

    /* one that is used all the time is not the one that goes */
    assert_int_equal(match("/hot", "/hot"), TG_REGEX_MATCH);

    for (i = 0; i < 3 * TG_REGEX_CACHE; i++) {
        snprintf(pattern, sizeof(pattern), "/q%d", i);
        assert_int_equal(match(pattern, pattern), TG_REGEX_MATCH);
        assert_int_equal(match("/hot", "/hot"), TG_REGEX_MATCH);
    }

    tg_regex_stats(&cached, &before);
    assert_int_equal(before, compiled + 1 + 3 * TG_REGEX_CACHE);

    tg_regex_clear();
    tg_regex_stats(&cached, &compiled);
    assert_int_equal(cached, 0);
    assert_int_equal(match("/a", "/a"), TG_REGEX_MATCH);
    tg_regex_clear();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_anchored),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_heavy),
        cmocka_unit_test(test_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
