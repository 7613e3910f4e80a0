/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "td_patterns.h"


#define PATH(type, value)                                                     \
    "{'path':{'type':'" type "','value':" value "}}"


static void
test_patterns(void **state)
{
    int          rc;
    size_t       i;
    json_t      *body;
    tg_error_t   err;
    static const struct {
        const char  *body;
        const char  *pointer;       /* NULL: nothing is wrong */
    } cases[] = {
        { "{'match':" PATH("regex", "'/a(b|c)+'") "}", NULL },
        { "{'match':" PATH("regex", "'/('") "}", "/match/path/value" },
        { "{'match':" PATH("exact", "'/('") "}", NULL },
        { "{'match':" PATH("prefix", "'/('") "}", NULL },
        { "{'match':{'headers':[{'name':'A','type':'regex','value':'x|y'}]}}",
          NULL },
        { "{'match':{'headers':[{'type':'exact','value':'('},"
          "{'type':'regex','value':'[z-a]'}]}}", "/match/headers/1/value" },
        { "{'routes':[{},{'match':" PATH("regex", "'*'") "}]}",
          "/routes/1/match/path/value" },

        /* of another shape: SQL says so */
        { "{'match':" PATH("regex", "5") "}", NULL },
        { "{'match':{'path':'('}}", NULL },
        { "{'match':{'headers':{'type':'regex','value':'('}}}", NULL },
        { "{'routes':{'match':1}}", NULL },
        { "{'routes':['(',null,[]]}", NULL },
        { "['(']", NULL },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char  text[256], *p;

        assert_true(strlen(cases[i].body) < sizeof(text));
        strcpy(text, cases[i].body);

        for (p = text; *p != '\0'; p++) {
            *p = *p == '\'' ? '"' : *p;
        }

        body = json_loads(text, 0, NULL);
        assert_non_null(body);
        rc = td_patterns_check(body, &err);
        json_decref(body);

        assert_int_equal(rc, cases[i].pointer != NULL ? -1 : 0);

        if (cases[i].pointer != NULL) {
            assert_string_equal(err.pointer, cases[i].pointer);
            assert_true(err.message[0] != '\0');
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
