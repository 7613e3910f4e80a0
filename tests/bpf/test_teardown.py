# SPDX-License-Identifier: BSD-2-Clause
"""What a failed module leaves does no harm to the next, and is told in one message."""

import os
import signal
import subprocess

import pytest

from support import node
from support.actor import Actor
from support.undo import Undo


@pytest.fixture
def base():
    base = node.Cgroup(node.cgroup_root() / f"tiergate-test-{os.getpid()}-teardown")
    yield base
    if base.path.exists():
        base.remove()


def test_what_lives_on_in_a_cgroup_is_killed_and_named(base):
    inner = base.child("exec").child("left")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=inner.enter) as left:
        with pytest.raises(AssertionError, match=rf"left behind, and killed now: {left.pid} cat \(in exec/left\)$"):
            base.remove(seconds=0)
        assert left.wait(10) == -signal.SIGKILL
    assert not base.path.exists()


def test_what_is_just_going_is_waited_for(base):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=base.child("going").enter) as going:
        going.stdin.close()
        base.remove()
    assert not base.path.exists()


def test_every_step_is_taken():
    taken, undo = [], Undo()
    for number in range(4):
        undo.add(f"step {number}", lambda number=number: taken.append(number) or 1 // (number % 2))
    with pytest.raises(AssertionError) as told:
        undo.run()
    assert taken == [3, 2, 1, 0]
    assert [line.split(":")[0] for line in str(told.value).splitlines()[1:]] == ["step 2", "step 0"]
    undo.run()


def test_an_actor_that_is_gone_ends(base, namespaces):
    actor = Actor(base, namespaces[0])
    os.kill(actor.pid, signal.SIGKILL)
    actor.end()
