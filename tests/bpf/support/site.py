# SPDX-License-Identifier: BSD-2-Clause
"""A real registry (private PostgreSQL, tenantd) and agents of a node, for tests of tenantd agent."""

import importlib.util
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from .actor import Actor
from .node import cgroup_root, folders, until
from .undo import Undo

TESTS = pathlib.Path(__file__).parents[2]


def integration(name):
    """A module of tests/integration/support, which has the name of our own package."""
    package = "integration_support"
    if package not in sys.modules:
        folder = TESTS / "integration/support"
        spec = importlib.util.spec_from_file_location(package, folder / "__init__.py",
                                                      submodule_search_locations=[str(folder)])
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(f"{package}.{name}")


process = integration("process")

CONFIG = """\
[agent]
node = {node}
tenantd = {registry}
cgroup = {cgroup}
workload_cgroup = {below}/exec
pins = {pins}
socket = {path}/agent.sock
state = {path}/state
{more}
[log]
level = info
"""


SIZES = {"services": 1024, "endpoints": 4096, "workloads": 1024, "tenants": 256, "rules": 16384, "flows": 4096}


class Agent:
    """tenantd agent in a cgroup and network namespace."""

    def __init__(self, site, node="a", netns=None, cgroup=None, **more):
        self.site, self.node, self.netns = site, node, netns or site.netns
        self.cgroup = cgroup or site.root
        self.path = site.path / f"agent-{node}"
        self.path.mkdir()
        self.state = self.path / "state"
        self.socket = str(self.path / "agent.sock")
        self.pins = f"{site.pins}-{node}"
        self.log = process.Log(self.path / "agent.log")
        self.config = self.path / "agent.ini"
        self.below = self.cgroup.path.relative_to(cgroup_root())
        self.configure(**more)
        self.process = None
        self.commands = []

    def configure(self, registry=None, **more):
        self.config.write_text(CONFIG.format(
            node=self.node, registry=registry or f"unix:{self.site.tenantd.socket}", cgroup=self.cgroup.path, pins=self.pins,
            path=self.path, below=self.below, more="\n".join(f"{key} = {value}" for key, value in (SIZES | more).items())))

    def start(self, binary=None, wait=True):
        self.mark = self.log.mark()
        self.process = process.start([binary or process.TENANTD, "agent", "--config", self.config], self.log.path,
                                     preexec_fn=self.netns.enter)
        if wait:
            self.wait(r"live at revision")
        return self

    def wait(self, pattern, mark=None, seconds=30):
        """The match of a line since the start."""
        mark = self.mark if mark is None else mark

        def said():
            assert self.process.poll() is None, f"the agent has ended:\n{self.log.since(self.mark)[-3000:]}"
            return re.search(pattern, self.log.since(mark))
        return until(said, lambda: f"{pattern}\n{self.log.since(mark)[-3000:]}", seconds)

    def stop(self, how=signal.SIGTERM):
        return process.stop(self.process, how)

    def restart(self, how=signal.SIGKILL, **more):
        self.stop(how)
        return self.start(**more)

    def detach(self):
        return subprocess.run([process.TENANTD, "agent", "--detach", "--config", self.config], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=process.environment())

    def workloads(self):
        """Cgroups of tenantd exec, and those above them."""
        return folders(self.cgroup.path / "exec")[1:]

    def exec(self, *words, tenant="acme", service="orders", options=(), **more):
        """tenantd exec, as a process, which ends with the agent at the latest."""
        self.commands.append(subprocess.Popen([str(word) for word in (
            process.TENANTD, "exec", "--config", self.config, "--tenant", tenant, "--service", service, *options, "--",
            *words)], preexec_fn=self.netns.enter, env=process.environment() | more.pop("env", {}), **more))
        return self.commands[-1]

    def end(self):
        """Workloads first, so that the agent takes away what it made for them."""
        undo = Undo()
        undo.add("its log", self._has_good_log)
        undo.add("its pins", self._unpin)
        if self.process:
            undo.add("it", self.stop)
            undo.add("its workloads", lambda: until(self._idle, "their end"))
        for command in self.commands:
            undo.add("a command", lambda command=command: process.stop(command))
        undo.run()

    def _idle(self):
        return self.process.poll() is not None or not self.workloads()

    def _unpin(self):
        said = self.detach()
        if said.returncode:
            shutil.rmtree(self.pins, ignore_errors=True)
            raise AssertionError(f"they were removed by force: {said.stdout.strip()}")

    def _has_good_log(self):
        assert not self.log.bad(), self.log.bad()


class Site:
    """The registry, and what runs under its mesh."""

    def __init__(self, name, path, base, netns, other, database):
        tenantd = integration("tenantd")
        self.path, self.base, self.netns, self.other, self.database = path, base, netns, other, database
        self.root = base.child("mesh")
        self.pins = f"/sys/fs/bpf/{name}-agent"
        self.tenantd = tenantd.Tenantd(database, path / "tenantd", "level = notice\n")
        self.rest = integration("platform").Rest(self.tenantd.socket)
        self.agents, self.actors = [], []

    def agent(self, **more):
        self.agents.append(Agent(self, **more))
        return self.agents[-1]

    def actor(self, cgroup, netns=None):
        self.actors.append(Actor(cgroup, netns or self.netns))
        return self.actors[-1]

    def sql(self, script):
        """psql, as an operator; the revision afterwards."""
        status, said = self.database.psql(script)
        assert status == 0, said
        return self.database.revision()

    def acked(self, revision, node="a", seconds=30):
        """Waits until the node's agent has acknowledged it; what the registry knows of the agent."""
        def known():
            shown = self.rest.call("GET", f"/v1/gateways/node-{node}")
            return shown if shown["observedRevision"] >= revision and shown["state"] == "live" else None
        return until(known, lambda: f"revision {revision}: {self.rest.call('GET', f'/v1/gateways/node-{node}')}",
                     seconds)

    def apply(self, script, node="a"):
        """A change, in force."""
        return self.acked(self.sql(script), node)

    def below(self, cgroup):
        return cgroup.path.relative_to(cgroup_root())

    def end(self):
        undo = Undo()
        undo.add("log of tenantd", self._has_good_log)
        undo.add("tenantd", self.tenantd.stop)
        undo.add("connection", self.rest.close)
        for agent in self.agents:
            undo.add(f"agent of node {agent.node}", agent.end)
        for actor in self.actors:
            undo.add(f"actor {actor.pid}", actor.end)
        undo.run()

    def _has_good_log(self):
        assert not self.tenantd.log.bad(), self.tenantd.log.bad()


def status(pid):
    """/proc/PID/status as a dict."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

