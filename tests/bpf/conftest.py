# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures.  Each module has a mesh of its own, attached to a scratch cgroup in
which its actors live, in network namespaces that only the run knows."""

import os
import pathlib
import shutil
import subprocess

import pytest

from support import node
from support.actor import Actor
from support.mesh import MESHCTL, Mesh
from support.site import Site, integration
from support.undo import Undo

NAME = f"tiergate-test-{os.getpid()}"
PINS = f"/sys/fs/bpf/{NAME}"

# What workloads are given: one address each, on loopback of the first namespace.
ADDRESSES = [f"10.77.0.{i}" for i in range(1, 31)] + [f"fd77::{i:x}" for i in range(1, 31)]


def missing():
    """Why nothing can be run here, or None."""
    built = os.environ.get("TIERGATE_MESH", "yes")
    if built != "yes":
        return f"the mesh is not built: missing {built}"
    if os.geteuid() != 0:
        return "needs root"
    if node.cgroup_root() is None:
        return "no cgroup2 is mounted"
    if not shutil.which("ip"):
        return "ip (package iproute2) is missing"
    if not pathlib.Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    made = subprocess.run(["ip", "netns", "add", NAME], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", NAME], check=False)
    # What the kernel refuses for want of privileges; that it does not take a program is a failure.
    said = subprocess.run([MESHCTL], input=f"open {PINS}\ndetach\n", capture_output=True, text=True,
                          check=False).stdout
    if "CAP_BPF" in said or "bpf file system" in said:
        return said.splitlines()[0].removeprefix("error -1 ")
    return None


MISSING = missing()


def pytest_collection_modifyitems(items):
    if MISSING:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=MISSING))


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(f"skipped all of tests/bpf: {MISSING}")


class Stage:
    """A mesh and its actors."""

    def __init__(self, base, netns, other, pins):
        self.base, self.netns, self.other, self.pins = base, netns, other, pins
        self.root = base.child("mesh")
        self.outside = base.child("outside")
        self.mesh = Mesh(pins)
        self.actors = []
        self.open_options = {}

    def cgroup(self, name):
        return self.root.child(name)

    def actor(self, cgroup, netns=None):
        actor = Actor(cgroup, netns or self.netns)
        self.actors.append(actor)
        return actor

    def start(self, **options):
        self.open_options = options
        self.mesh.open(**options)
        self.mesh.say("begin")

    def attach(self):
        self.mesh.say("commit")
        self.mesh.say("attach", self.root.path)

    def restart(self):
        """Another agent on what the first left."""
        self.mesh.kill()
        self.mesh = Mesh(self.pins)
        self.mesh.open(**self.open_options)

    def why(self, **like):
        """The reasons of the denials since the last call, each once; waits for the first.  A test says which
        records it means: what is sent again of a connection that an earlier one closed may be denied as well."""
        return sorted({e["reason"] for e in self.mesh.told(type=5, **like)})

    def end(self):
        undo = Undo()
        undo.add("pins", lambda: shutil.rmtree(self.pins, ignore_errors=True))
        undo.add("meshctl", lambda: self.mesh.kill())
        undo.add("mesh", lambda: os.path.exists(self.pins) and self.mesh.say("detach"))
        for actor in self.actors:
            undo.add(f"actor {actor.pid}", actor.end)
        undo.run()


@pytest.fixture(scope="session")
def namespaces():
    made = []
    try:
        for suffix in ("a", "b"):
            made.append(node.Netns(f"{NAME}-{suffix}"))
        for address in ADDRESSES:
            made[0].add(address)
        node.wire(*made, ("10.78.0.1", "fd78::1"), ("10.78.0.2", "fd78::2"))
        node.ip("route", "add", "10.77.0.0/16", "via", "10.78.0.1", netns=made[1].name)
        node.ip("-6", "route", "add", "fd77::/64", "via", "fd78::1", netns=made[1].name)
        yield made
    finally:
        for netns in made:
            netns.remove()


def name_of(request):
    """Of what a module has of its own: whatever one leaves, the next is not in its way."""
    return f"{NAME}-{request.module.__name__.removeprefix('test_').replace('_', '-')}"


@pytest.fixture(scope="module")
def stage(request, namespaces):
    name, undo = name_of(request), Undo()
    try:
        base = node.Cgroup(node.cgroup_root() / name)
        undo.add("cgroup", base.remove)
        stage = Stage(base, *namespaces, f"/sys/fs/bpf/{name}")
        undo.add("stage", stage.end)
        yield stage
    finally:
        undo.run()


@pytest.fixture(scope="session")
def postgres():
    """A server with a database that has every migration, for copies."""
    server = integration("postgres").Server(integration("process").folder("postgres"))
    try:
        server.template("tiergate_template", integration("tenantd").migrate)
        yield server
    finally:
        server.end()
        integration("process").drop(server.path)


@pytest.fixture(scope="module")
def site(request, namespaces, postgres):
    path = integration("process").folder(request.module.__name__.removeprefix("test_"))
    name, undo = name_of(request), Undo()
    try:
        base = node.Cgroup(node.cgroup_root() / name)
        undo.add("cgroup", base.remove)
        database = postgres.database("tiergate_template")
        undo.add("database", database.close)
        site = Site(name, path, base, *namespaces, database)
        undo.add("site", site.end)
        yield site
    finally:
        undo.run()
        if not request.session.testsfailed and not os.environ.get("KEEP"):
            integration("process").drop(path)
