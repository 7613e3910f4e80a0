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

    def __init__(self, base, netns, other):
        self.base, self.netns, self.other = base, netns, other
        self.root = base.child("mesh")
        self.outside = base.child("outside")
        self.mesh = Mesh(PINS)
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
        self.mesh = Mesh(PINS)
        self.mesh.open(**self.open_options)

    def why(self, **like):
        """The reasons of the denials since the last call, each once."""
        return sorted({e["reason"] for e in self.mesh.events(type=5, **like)})

    def end(self):
        for actor in self.actors:
            actor.end()
        try:
            self.mesh.say("detach")
        except Exception:
            shutil.rmtree(PINS, ignore_errors=True)
        self.mesh.kill()


@pytest.fixture(scope="session")
def namespaces():
    made = []
    try:
        for suffix in ("a", "b"):
            made.append(node.Netns(f"{NAME}-{suffix}"))
        for address in ADDRESSES:
            made[0].add(address)
        node.wire(made[0], made[1], "10.78.0.1", "10.78.0.2")
        node.ip("route", "add", "10.77.0.0/16", "via", "10.78.0.1", netns=made[1].name)
        yield made
    finally:
        for netns in made:
            netns.remove()


@pytest.fixture(scope="module")
def stage(namespaces):
    base = node.Cgroup(node.cgroup_root() / NAME)
    stage = None
    try:
        stage = Stage(base, *namespaces)
        yield stage
    finally:
        if stage:
            stage.end()
        base.remove()


@pytest.fixture(scope="session")
def postgres():
    """A server with a database that has every migration, for copies."""
    server = integration("postgres").Server(integration("process").folder("postgres"))
    try:
        server.template("tiergate_template", integration("tenantd").migrate)
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.path, ignore_errors=True)


@pytest.fixture(scope="module")
def site(request, namespaces, postgres):
    path = integration("process").folder(request.module.__name__.removeprefix("test_"))
    base = node.Cgroup(node.cgroup_root() / NAME)
    database = postgres.database("tiergate_template")
    site = None
    try:
        site = Site(NAME, path, base, *namespaces, database)
        yield site
    finally:
        if site:
            site.end()
        database.close()
        base.remove()
        if not request.session.testsfailed and not os.environ.get("KEEP"):
            shutil.rmtree(path.resolve(), ignore_errors=True)
