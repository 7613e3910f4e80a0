# SPDX-License-Identifier: BSD-2-Clause
"""An agent where something is missing says what in one line, ends with status 1 and has changed nothing."""

import os
import pathlib
import subprocess

import pytest

from support.node import LIBC, cgroup_root
from support.site import CONFIG, process

PR_CAPBSET_DROP = 24
PINS = f"/sys/fs/bpf/tiergate-test-{os.getpid()}-lacks"
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}

# In a mount namespace of its own, without any cgroup2.
NO_CGROUPS = """
while read -r _ _ _ _ at rest; do case $rest in *' - cgroup2 '*) umount -l "$at";; esac; done < /proc/self/mountinfo
exec "$@"
"""


@pytest.fixture
def agent(tmp_path):
    """Its command.  There is no registry; none is asked."""
    config, pins = tmp_path / "agent.ini", pathlib.Path(PINS)
    config.write_text(CONFIG.format(node="a", registry="unix:/nowhere", cgroup=cgroup_root(), pins=pins, path=tmp_path,
                                    below="tiergate-test-lacks", more=""))
    yield [process.TENANTD, "agent", "--config", config]
    assert not pins.exists() and not (tmp_path / "agent.sock").exists()


def lines(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=process.environment(), **more)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def drop(*numbers):
    """From the bounding set, of which root's next program has its capabilities."""
    for number in numbers:
        assert LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0


@pytest.mark.parametrize("name", CAPABILITIES)
@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["start", "detach"])
def test_a_capability(agent, name, detach, tmp_path):
    if detach:
        agent = [*agent, *detach]
        config = agent[3]
        config.write_text(config.read_text().replace(f"pins = {PINS}", f"pins = {tmp_path}"))
    status, said = lines(agent, preexec_fn=lambda: drop(CAPABILITIES[name]))
    assert (status, len(said)) == (1, 1), said
    assert said[0].endswith(f" [crit] agent: {name} is missing: run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")


def test_cgroup2(agent):
    status, said = lines(["unshare", "--mount", "--propagation", "private", "sh", "-c", NO_CGROUPS, "sh", *agent])
    assert (status, len(said)) == (1, 1), said
    assert said[0].endswith(" [crit] agent: no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")


def test_a_bpf_file_system_that_cannot_be_mounted(agent):
    """Where there is none, CAP_SYS_ADMIN is needed."""
    script = 'umount -l /sys/fs/bpf; exec "$@"'
    status, said = lines(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
                          "setpriv", "--bounding-set", "-sys_admin", *agent])
    assert (status, len(said)) == (1, 1), said
    assert "bpf file system" in said[0] and "/sys/fs/bpf" in said[0], said


def test_the_groups_name(agent):
    config = agent[3]
    config.write_text(config.read_text().replace("[log]", "exec_group = no-such-group\n[log]"))
    status, said = lines(agent)
    assert status == 1 and "no-such-group" in said[-1] and "agent.sock" in said[-1], said
    subprocess.run([*agent, "--detach"], check=True, capture_output=True)
