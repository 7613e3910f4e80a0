# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for a condition, with a deadline and a reason."""

import time

DEADLINE = 30.0


def until(condition, what, timeout=DEADLINE, every=0.005):
    """Calls condition until it returns something true, and returns that.

    what: what is being waited for, for the failure's message; may be a callable.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(
                f"waited {timeout:g} s for {what() if callable(what) else what}")
        time.sleep(every)


def no_midnight(seconds=120):
    """Waits for it, if it is so close: quotas of days and months begin anew."""
    until(lambda: time.time() % 86400 < 86400 - seconds, "midnight", seconds + DEADLINE, every=0.1)


def holds(condition, what, seconds, every=0.02):
    """Fails as soon as condition is false within the given time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer true: {what}"
        time.sleep(every)
