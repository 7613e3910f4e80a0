# SPDX-License-Identifier: BSD-2-Clause
"""tenantd exec: a command as a workload, with and without a network of its own."""

import grp
import json
import os
import signal
import socket
import subprocess

import pytest

from support.node import cgroup_root, ip, until
from support.site import process

PYTHON = "/usr/bin/python3"
SERVED, SERVED6, HOST, HOST6 = "10.77.0.1", "fd77::1", "10.77.0.2", "fd77::2"

# What a workload does: a call, told by the exit status.
CALL = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15, (sys.argv[3], 0) if sys.argv[3:] else None)
print(s.getsockname()[0], flush=True)
"""

STAY = "import sys; print('here', flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def agent(site):
    served = site.root.child("served")
    site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated"})
    site.rest.call("POST", "/v1/tenants", {"name": "beta", "tier": "dedicated"})
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, workload_nets, tenants)
        VALUES ('a', '{{{HOST},10.78.0.1,{HOST6}}}', '{{10.79.0.0/24}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]'), ('acme', 'shop', '[]'), ('beta', 'web', '[]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'orders', '{SERVED}', 8080);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{site.below(served)}', '{{{SERVED},{SERVED6}}}')""")
    actor = site.actor(served)
    actor.listen("l", SERVED, 8080)
    actor.listen("l6", SERVED6, 8080)
    agent = site.agent().start()
    agent.served, agent.folder = actor, agent.cgroup.path / "exec"
    site.acked(site.database.revision())
    return agent


def run(agent, *words, **more):
    done = agent.exec(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    out, said = done.communicate(timeout=40)
    return done.returncode, out.strip(), said.strip()


def call_from_the_node(agent, address, port):
    """By a process that is no workload; the address that it calls from."""
    done = subprocess.run([PYTHON, "-c", CALL, address, str(port)], preexec_fn=agent.netns.enter, capture_output=True, text=True,
                          check=False)
    return done.stdout.strip() or done.stderr


def gone(agent, *path):
    until(lambda: not agent.folder.joinpath(*path).exists(), f"{path} to go")


def test_identity_is_that_of_the_service(site, agent):
    assert run(agent, PYTHON, "-c", CALL, SERVED, 8080, HOST, service="shop") == (0, HOST, "")
    status, _, said = run(agent, PYTHON, "-c", CALL, SERVED, 8080, HOST, tenant="beta", service="web")
    assert status == 1 and "PermissionError" in said
    gone(agent, "acme")
    gone(agent, "beta")
    until(lambda: json.loads((agent.state / "exec.json").read_text()) == [], "the list to be empty")


def test_the_command_is_itself(agent, tmp_path):
    """Environment, directory, standard streams, exit status and signals."""
    status, out, _ = run(agent, "sh", "-c", "echo $GREETING; pwd; cat /proc/self/cgroup; exit 42", cwd=tmp_path,
                         env={"GREETING": "hello"}, options=("--name", "one"))
    below = agent.folder.relative_to(cgroup_root())
    assert status == 42 and out.splitlines()[:2] == ["hello", str(tmp_path)]
    assert any(line.endswith(f"/{below}/acme/orders/one") for line in out.splitlines())
    running = agent.exec(PYTHON, "-c", STAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "here\n"
    running.terminate()
    assert running.wait(10) == -signal.SIGTERM
    running.communicate()
    assert run(agent, "/no/such/command")[0] == 127 and run(agent, "/etc/passwd")[0] == 126
    assert run(agent, "id", "-un", options=("--user", "nobody"))[:2] == (0, "nobody")
    status, _, said = run(agent, "id", options=("--user", "no-such-user"))
    assert status == 125 and "no such user" in said


@pytest.mark.parametrize("more, said", [
    ({"service": "nothing"}, "service acme/nothing is not known"),
    ({"tenant": "nobody"}, "service nobody/orders is not known"),
    ({"tenant": ".."}, "at most 63 of"),
    ({"service": "a/../../x"}, "at most 63 of"),
    ({"options": ("--name", "../x")}, "at most 63 of"),
    ({"options": ("--name", "x" * 64)}, "at most 63 of"),
    ({"options": ("--name", "X")}, "at most 63 of"),
])
def test_refused(agent, tmp_path, more, said):
    """Before anything is made or run."""
    until(lambda: not agent.workloads(), lambda: f"{agent.workloads()} of earlier tests to go")
    status, _, why = run(agent, "touch", tmp_path / "ran", **more)
    assert status == 125 and said in why and len(why.splitlines()) == 1
    assert not (tmp_path / "ran").exists() and not agent.workloads()


def test_name_in_use(agent):
    running = agent.exec(PYTHON, "-c", STAY, options=("--name", "same"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running.stdout.readline()
    status, _, why = run(agent, "true", options=("--name", "same"))
    assert status == 125 and "runs already" in why
    running.communicate()
    gone(agent, "acme", "orders", "same")


def links(agent):
    return {word.split("@")[0] for word in ip("-o", "link", netns=agent.netns.name).stdout.split() if word.startswith("tgm")}


def test_network_of_its_own(site, agent):
    """An address of the node's net, that is the identity, and a veth that goes with it."""
    status, out, said = run(agent, PYTHON, "-c", CALL, SERVED, 8080, service="shop", options=("--netns",))
    assert (status, said) == (0, "") and out.startswith("10.79.0.")
    status, _, said = run(agent, PYTHON, "-c", CALL, SERVED, 8080, tenant="beta", service="web", options=("--netns",))
    assert status == 1 and "PermissionError" in said
    gone(agent, "acme")
    until(lambda: not links(agent), "the veth to go")


@pytest.mark.parametrize("nets, families", [("fd79::/64", ["fd79:"]), ("10.79.0.0/24,fd79:1::/64", ["10.79.0.", "fd79:1:"])],
                         ids=["alone", "beside IPv4"])
def test_network_of_ipv6(site, agent, nets, families):
    """The address is the identity, both ways: its tenant is reached and reaches it, another is not and does not."""
    if not os.path.exists("/proc/sys/net/ipv6/conf/all/force_forwarding"):        # Linux before 6.17
        site.netns.set("ipv6/conf/all/forwarding")
    site.apply(f"UPDATE tiergate.mesh_nodes SET workload_nets = '{{{nets}}}' WHERE name = 'a'")
    serve = ("import socket, subprocess\ns = socket.create_server(('::', 7000), family=socket.AF_INET6)\n"
             "print(subprocess.run(['hostname', '-I'], capture_output=True, text=True).stdout, flush=True)\n"
             "while True: s.accept()")
    running = agent.exec(PYTHON, "-c", serve, options=("--netns", "--name", "six"), stdout=subprocess.PIPE, text=True)
    try:
        addresses = running.stdout.readline().split()
        assert sorted(addresses) == sorted(
            address for address in addresses for family in families if address.startswith(family)), addresses
        assert len(addresses) == len(families)
        known = until(lambda: site.database.execute("SELECT host(unnest(addresses)) FROM tiergate.mesh_workloads WHERE name = 'six'"),
                      "the workload in the registry")
        assert sorted(row[0] for row in known) == sorted(addresses)
        status, source, said = run(agent, PYTHON, "-c", CALL, SERVED6, 8080, service="shop", options=("--netns",))
        assert (status, said) == (0, "") and source.startswith(families[-1])
        for at, port in ((SERVED6, 8080), (addresses[-1], 7000)):
            status, _, said = run(agent, PYTHON, "-c", CALL, at, port, service="shop", options=("--netns",))
            assert (status, said) == (0, ""), at
            status, _, said = run(agent, PYTHON, "-c", CALL, at, port, tenant="beta", service="web", options=("--netns",))
            assert status == 1 and "PermissionError" in said
        assert call_from_the_node(agent, addresses[-1], 7000) == HOST6
    finally:
        running.kill()
        running.communicate()
        site.apply("UPDATE tiergate.mesh_nodes SET workload_nets = '{10.79.0.0/24}' WHERE name = 'a'")
    until(lambda: not agent.workloads() and not links(agent), "its end")


def test_the_registry_knows_it(site, agent):
    """As a workload of this node, with its address, while it lives."""
    def known():
        return site.database.execute("SELECT service, node, cgroup, host(addresses[1]) FROM tiergate.mesh_workloads "
                                     "WHERE tenant = 'acme' AND name = 'known' AND source = 'exec'")
    running = agent.exec(PYTHON, "-c", STAY, service="shop", options=("--netns", "--name", "known"), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
    running.stdout.readline()
    row = until(known, "the workload in the registry")[0]
    assert row[:3] == ("shop", "a", f"{agent.folder.relative_to(cgroup_root())}/acme/shop/known")
    assert row[3].startswith("10.79.0.")
    running.communicate()
    until(lambda: not known(), "the workload to go")
    site.acked(site.database.revision())


def test_called_in_its_network(site, agent):
    """What listens there is reached by its tenant, and not by another."""
    serve = ("import socket, subprocess\ns = socket.create_server(('', 7000))\n"
             "print(subprocess.run(['hostname', '-I'], capture_output=True, text=True).stdout, flush=True)\n"
             "while True: s.accept()")
    running = agent.exec(PYTHON, "-c", serve, service="orders", options=("--netns", "--name", "far"), stdout=subprocess.PIPE,
                         text=True)
    try:
        address = running.stdout.readline().split()[0]
        assert address.startswith("10.79.0.")
        assert run(agent, PYTHON, "-c", CALL, address, 7000, HOST, service="shop")[0] == 0
        assert run(agent, PYTHON, "-c", CALL, address, 7000, HOST, tenant="beta", service="web")[0] == 1
        assert call_from_the_node(agent, address, 7000) == HOST
    finally:
        running.kill()
        running.communicate()
    gone(agent, "acme", "orders", "far")


def test_agent_dies_meanwhile(site, agent):
    """A workload lives through it, and is found again; one that ended meanwhile is taken away."""
    stay, end = (agent.exec(PYTHON, "-c", STAY, service="shop", options=("--netns", "--name", name), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE) for name in ("stays", "ends"))
    assert stay.stdout.readline() == end.stdout.readline() == b"here\n"
    until(lambda: len(links(agent)) == 2, lambda: f"the veths of these two alone: {links(agent)}")
    agent.stop(signal.SIGKILL)
    end.communicate()
    assert (agent.folder / "acme/shop/ends").exists()
    agent.start()
    gone(agent, "acme", "shop", "ends")
    until(lambda: len(links(agent)) == 1, "the veth to go")
    assert (agent.folder / "acme/shop/stays").exists()
    assert "workload acme/stays goes on" in agent.log.since(agent.mark)
    stay.communicate()
    gone(agent, "acme", "shop")
    until(lambda: not links(agent), "the veth to go")


def ask(agent, data, close=False):
    """Bytes on the agent's socket; what it answers."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(agent.socket)
        s.settimeout(10)
        s.sendall(data)
        return b"" if close else s.makefile("rb").readline()


GOOD = b'{"tenant":"acme","service":"orders"}\n'


@pytest.mark.parametrize("data, said", [
    (b"\n", b"not one"), (b"{}\n", b"not one"), (b"[1]\n", b"not one"), (b"\xff\xfe\n", b"not one"),
    (b'{"tenant":1,"service":"orders"}\n', b"not one"),
    (b'{"tenant":"acme","tenant":"acme","service":"orders"}\n', b"not one"),
    (b'{"tenant":"acme","service":"orders\\u0000x"}\n', b"not one"),
    (b'{"tenant":"acme","service":"cgroup/../orders"}\n', b"at most 63"),
    (b'{"tenant":"acme","service":"orders","netns":true}\n', b"namespace is missing"),
    (b"x" * 2048, b"too long"), (b"[" * 2047 + b"\n", b"not one"),
    (GOOD[:10], b"in time"),
], ids=range(12))
def test_hostile_requests(agent, data, said):
    assert said in ask(agent, data)
    assert agent.process.poll() is None and not list(agent.folder.glob("acme/orders/*"))


def test_half_requests_do_no_harm(agent):
    for _ in range(200):
        ask(agent, GOOD[:10], close=True)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    for s in waiting:
        s.connect(agent.socket)
    for s in waiting:
        s.close()
    until(lambda: run(agent, "true")[0] == 0, "room for others")


NOBODY = 65534

# Refused each time, and told why each time, however quick the answer is.
OFTEN = f"""
import os, socket
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
for _ in range(200):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("agent.sock")
        s.settimeout(10)
        s.sendall({GOOD!r})
        print(s.makefile().readline(), end="")
"""


def test_who_may(agent):
    """A user without the right is refused, by the socket's mode and, when that lets anybody in, by the agent."""
    def often():
        return subprocess.run([PYTHON, "-c", OFTEN], cwd=agent.path, capture_output=True, text=True, check=False)
    until(lambda: not agent.workloads(), lambda: f"{agent.workloads()} of earlier tests to go")
    assert "PermissionError" in often().stderr
    os.chmod(agent.socket, 0o666)
    asked = often()
    assert asked.stdout.splitlines() == ['{"error":"only root and [agent] exec_group may"}'] * 200, asked.stderr
    assert not list(agent.folder.glob("acme/orders/*"))


def test_the_refused_are_in_nobodys_way(agent):
    """However many of them say nothing: root is answered, and so is each beyond the number that is waited for."""
    os.chmod(agent.socket, 0o666)
    script = OFTEN.partition("for")[0] + (
        "import sys\nopen = [socket.socket(socket.AF_UNIX) for _ in range(100)]\n"
        "for s in open: s.connect('agent.sock')\n"
        "print(sum(b'only root' in s.recv(100) for s in open[64:]), flush=True)\nsys.stdin.read()")
    with subprocess.Popen([PYTHON, "-c", script], cwd=agent.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as silent:
        assert silent.stdout.readline() == "36\n"
        assert run(agent, "true") == (0, "", "")
        # answered and closed at once, perhaps before it has sent anything
        for _ in range(20):
            assert as_nobody(agent) == (125, "", "tenantd exec: only root and [agent] exec_group may")
        silent.stdin.close()


def as_nobody(agent, *groups):
    """tenantd exec of a user without privileges, whose other groups these are."""
    config = agent.path / "nobody.ini"
    config.write_text("[agent]\nsocket = agent.sock\n")
    config.chmod(0o644)
    binary = os.open(process.TENANTD, os.O_RDONLY)       # there may be folders above that only root enters
    try:
        done = subprocess.run(
            [f"/proc/self/fd/{binary}", "exec", "--config", config.name, "--tenant", "acme", "--service", "shop", "--",
             "sh", "-c", "id -u; cat /proc/self/cgroup"], cwd=agent.path, user=NOBODY, group=NOBODY, extra_groups=groups,
            pass_fds=[binary], env=process.environment(), capture_output=True, text=True, timeout=20, check=False)
    finally:
        os.close(binary)
    return done.returncode, done.stdout, done.stderr.strip()


def test_members_of_the_group_may(agent):
    """Whether the socket's mode or the agent keeps the others away, they are told in one line."""
    group = grp.getgrnam("daemon")
    agent.configure(exec_group=group.gr_name)
    agent.restart(signal.SIGTERM)
    try:
        assert (os.stat(agent.socket).st_gid, os.stat(agent.socket).st_mode & 0o777) == (group.gr_gid, 0o660)
        status, said, why = as_nobody(agent, group.gr_gid)
        assert (status, why) == (0, "")
        assert said.startswith(f"{NOBODY}\n") and f"/{agent.folder.relative_to(cgroup_root())}/acme/shop/shop-" in said
        assert as_nobody(agent) == (125, "", "tenantd exec: cannot reach the agent: Permission denied")
        os.chmod(agent.socket, 0o666)
        assert as_nobody(agent) == (125, "", "tenantd exec: only root and [agent] exec_group may")
    finally:
        agent.configure()
        agent.restart(signal.SIGTERM)


def test_so_many_at_once(agent):
    """Those of an earlier life of the agent count; when one ends there is room again."""
    until(lambda: not agent.workloads(), lambda: f"{agent.workloads()} of earlier tests to go")
    agent.configure(exec_limit=2)
    agent.restart(signal.SIGTERM)
    try:
        first, second = (agent.exec(PYTHON, "-c", STAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2))
        assert first.stdout.readline() == second.stdout.readline() == b"here\n"
        full = (125, "", "tenantd exec: 2 workloads of tenantd exec run on this node, as many as [agent] exec_limit allows")
        assert run(agent, "true") == full
        agent.restart(signal.SIGKILL)
        assert run(agent, "true") == full and len(agent.workloads()) == 2 + 2     # and those above them
        first.communicate()
        until(lambda: len(agent.workloads()) == 2 + 1, "room")
        assert run(agent, "true") == (0, "", "")
        second.communicate()
    finally:
        agent.configure()
        agent.restart(signal.SIGTERM)
