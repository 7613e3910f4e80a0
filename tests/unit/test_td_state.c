/* SPDX-License-Identifier: BSD-2-Clause */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "td_state.h"


static void
test_names(void **state)
{
    int  s, t;

    (void) state;

    for (s = 0; s < TD_STATE_N; s++) {
        assert_non_null(td_state_name((td_state_e) s));
        assert_in_range(td_state_phase((td_state_e) s), 0, TD_PHASE_N - 1);

        for (t = 0; t < s; t++) {
            assert_string_not_equal(td_state_name((td_state_e) s),
                                    td_state_name((td_state_e) t));
        }
    }

    assert_string_equal(td_phase_name(td_state_phase(TD_STATE_BACKOFF)),
                        "failed");
    assert_string_equal(td_phase_name(td_state_phase(TD_STATE_CHECKING)),
                        "rolling");
}


static void
test_transitions(void **state)
{
    int  s, t, n;

    (void) state;

    assert_true(td_state_may_follow(TD_STATE_STARTING, TD_STATE_READY));
    assert_true(td_state_may_follow(TD_STATE_READY, TD_STATE_CHECKING));
    assert_true(td_state_may_follow(TD_STATE_CHECKING, TD_STATE_READY));
    assert_true(td_state_may_follow(TD_STATE_REMOVING, TD_STATE_GONE));

    assert_false(td_state_may_follow(TD_STATE_READY, TD_STATE_RELOADING));
    assert_false(td_state_may_follow(TD_STATE_READY, TD_STATE_REMOVING));
    assert_false(td_state_may_follow(TD_STATE_STARTING, TD_STATE_REMOVING));
    assert_false(td_state_may_follow(TD_STATE_BACKOFF, TD_STATE_READY));
    assert_false(td_state_may_follow(TD_STATE_DRAINING, TD_STATE_READY));
    assert_false(td_state_may_follow(TD_STATE_DRAINING, TD_STATE_GONE));

    for (s = 0; s < TD_STATE_N; s++) {
        for (t = 0, n = 0; t < TD_STATE_N; t++) {
            n += td_state_may_follow((td_state_e) s, (td_state_e) t);
        }
        /* from everywhere it goes on, but from the end */
        assert_int_equal(n > 0, s != TD_STATE_GONE);
    }
}


static void
test_backoff(void **state)
{
    (void) state;

    assert_int_equal(td_state_backoff(1, 500, 60000, 0), 250);
    assert_int_equal(td_state_backoff(1, 500, 60000, 250), 500);
    assert_int_equal(td_state_backoff(2, 500, 60000, 0), 500);
    assert_int_equal(td_state_backoff(4, 500, 60000, 0), 2000);
    assert_int_equal(td_state_backoff(100, 500, 60000, 0), 30000);
    assert_in_range(td_state_backoff(100, 500, 60000, 0xffffffff), 30000, 60000);
    assert_in_range(td_state_backoff(2147483647, 500, 60000, 7), 30000, 60000);

    /* no more than the most, were it less than the least */
    assert_in_range(td_state_backoff(1, 500, 100, 0xffffffff), 50, 100);
    assert_in_range(td_state_backoff(1, 1, 1, 3), 0, 1);
}


static void
test_deaths(void **state)
{
    int          i;
    td_deaths_t  deaths;

    (void) state;

    memset(&deaths, 0, sizeof(deaths));
    assert_false(td_deaths_loop(&deaths, 1000));

    for (i = 1; i < TD_STATE_LOOP_DEATHS; i++) {
        assert_false(td_deaths_add(&deaths, i * 1000));
    }

    assert_true(td_deaths_add(&deaths, 5000));
    assert_true(td_deaths_loop(&deaths, 1000 + TD_STATE_LOOP_TIME));
    assert_false(td_deaths_loop(&deaths, 1001 + TD_STATE_LOOP_TIME));

    /* seldom is no loop */
    memset(&deaths, 0, sizeof(deaths));
    for (i = 1; i < 20; i++) {
        assert_false(td_deaths_add(&deaths, i * 20000));
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_deaths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
