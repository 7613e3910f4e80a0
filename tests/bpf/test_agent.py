# SPDX-License-Identifier: BSD-2-Clause
"""tenantd agent with a real registry: what psql says is what sockets meet."""

import os
import pathlib
import re
import signal
import time

import pytest

from support.node import until
from support.site import process, status

ORDERS, SHOP, STRANGER, NEWCOMER = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"


def virtual(site, service="orders", tenant="acme"):
    return site.database.one("SELECT host(ipv4) FROM tiergate.mesh_services WHERE tenant = %s AND name = %s",
                             (tenant, service))


@pytest.fixture(scope="module")
def cast(site):
    """Two tenants; orders and shop of acme, web of beta, on node a."""
    cgroups = {name: site.root.child(name) for name in ("orders", "shop", "web")}
    for tenant in ("acme", "beta"):
        site.rest.call("POST", "/v1/tenants", {"name": tenant, "tier": "dedicated"})
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, workload_nets, tenants)
        VALUES ('a', '{{10.78.0.1}}', '{{10.79.0.0/24}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]'), ('acme', 'shop', '[]'), ('beta', 'web', '[]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port)
        VALUES ('acme', 'orders', '{ORDERS}', 8080);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{site.below(cgroups["orders"])}', '{{{ORDERS}}}'),
               ('acme', 'shop-1', 'shop', 'a', '{site.below(cgroups["shop"])}', '{{{SHOP}}}'),
               ('beta', 'web-1', 'web', 'a', '{site.below(cgroups["web"])}', '{{{STRANGER}}}')""")
    agent = site.agent()
    actors = {name: site.actor(cgroup) for name, cgroup in cgroups.items()}
    for name, address in (("orders", ORDERS), ("shop", SHOP), ("web", STRANGER)):
        actors[name].live_at(address)
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].listen("served", ORDERS, 8081)
    actors["orders"].serve_ports(["served"])
    agent.start()
    actors["agent"], actors["cgroups"] = agent, cgroups
    return actors


def test_first_state(site, cast):
    """Services are found, the own tenant may, another may not."""
    shown = site.acked(site.database.revision())
    assert shown["rejected"] == []
    at = virtual(site)
    assert cast["shop"].connect("c", at, 80) == (at, 80)
    assert cast["orders"].accept("a", "l")[0] == SHOP
    assert cast["web"].connect("c", ORDERS, 8080) == "EPERM"
    assert cast["web"].connect("c", at, 80) == "EPERM"


def allow(site, name="web-may", action="allow", **parts):
    columns = {"tenant": "acme", "name": name, "action": action, "from_tenant": "beta", "from_service": "web",
               "to_service": "orders"} | parts
    return site.apply(f"INSERT INTO tiergate.mesh_policies ({', '.join(columns)}) "
                      f"VALUES ({', '.join(repr(value) for value in columns.values())})")


def disallow(site, name="web-may"):
    return site.apply(f"DELETE FROM tiergate.mesh_policies WHERE name = '{name}'")


def test_policy_holds_for_open_and_new_connections(site, cast):
    allow(site)
    assert cast["web"].connect("c", ORDERS, 8080) == (ORDERS, 8080)
    cast["orders"].accept("a", "l")
    cast["web"].send("c", b"hello")
    assert cast["orders"].recv("a") == b"hello"
    disallow(site)
    assert cast["web"].connect("d", ORDERS, 8080) == "EPERM"
    cast["web"].send("c", b"lost")
    assert cast["orders"].recv("a", timeout=0.3) == "TIMEOUT"
    allow(site)
    assert cast["orders"].recv("a") == b"lost"          # sent again by TCP
    allow(site, "not-here", "deny", precedence=2000, ports="{8080}")
    assert cast["web"].connect("d", ORDERS, 8080) == "EPERM"
    disallow(site, "not-here")
    disallow(site)


def test_limits(site, cast):
    """By psql and by REST, from the registry into the kernel; without them nothing is held."""
    at = virtual(site)
    site.apply("SELECT tiergate.mesh_set_limit('acme', 'orders', open_connections => 2)")
    for name in ("one", "two"):
        assert cast["shop"].connect(name, at, 80) == (at, 80)
    assert cast["shop"].connect("three", at, 80) == "EPERM"
    assert cast["shop"].connect("three", ORDERS, 8080) == "EPERM"
    cast["shop"].close("one")
    assert cast["shop"].connect("three", at, 80) == (at, 80)
    for name in ("two", "three"):
        cast["shop"].close(name)

    path = "/v1/tenants/acme/mesh/services/orders"
    limited = site.rest.call("GET", path) | {"limits": {"connections_per_second": 1, "burst": 5}}
    site.rest.call("PUT", path, limited)
    site.acked(site.database.revision())
    begin = time.monotonic()
    outcomes = cast["shop"].try_many(at, 80, 100)
    assert 5 <= outcomes["ok"] <= 6 + (time.monotonic() - begin) and outcomes["EPERM"] == 100 - outcomes["ok"] > 0
    counters = "SELECT (counters->>'DENY_RATE')::integer, (counters->>'DENY_OPEN')::integer FROM tiergate.mesh_agents"
    site.apply("SELECT tiergate.mesh_set_limit('acme', 'orders')")
    assert site.database.one(counters) == (outcomes["EPERM"], 2)
    assert cast["shop"].try_many(at, 80, 100) == {"ok": 100}
    cast["orders"].accept_all("l")


def test_nets(site, cast):
    """Policies about who has no identity: where calls go, and from where they come."""
    far = "10.78.0.2"
    remote = site.actor(site.base.child("remote"), site.other)
    remote.listen("l", far, 9200)
    site.apply("SELECT tiergate.mesh_deny('acme', 'no-net', from_tenant => 'acme', to_cidr => '10.78.0.0/24', protocol => 'tcp', "
               "ports => '{9200}')")
    assert cast["shop"].connect("n", far, 9200) == "EPERM"
    assert cast["shop"].connect("n", f"::ffff:{far}", 9200) == "EPERM"
    assert cast["shop"].connect("n", far, 9201) == "ECONNREFUSED"
    assert cast["web"].connect("n", far, 9200) == (far, 9200)
    disallow(site, "no-net")
    assert cast["shop"].connect("n", far, 9200) == (far, 9200)

    assert remote.connect("c", ORDERS, 8080, timeout=0.4) == "TIMEOUT"
    site.apply(f"SELECT tiergate.mesh_allow('acme', 'net-in', from_cidr => '{far}/32', to_service => 'orders')")
    assert remote.connect("c", ORDERS, 8080) == (ORDERS, 8080)
    while cast["orders"].accept("r", "l")[0] != far:
        pass
    remote.send("c", b"one")
    assert cast["orders"].recv("r") == b"one"
    disallow(site, "net-in")
    remote.send("c", b"two")
    assert cast["orders"].recv("r", timeout=0.3) == "TIMEOUT"
    assert remote.connect("d", ORDERS, 8080, timeout=0.4) == "TIMEOUT"


def test_ipv6(site, cast):
    """A service has an address of each family, and endpoints of the caller's."""
    site.apply("UPDATE tiergate.mesh_workloads SET addresses = addresses || 'fd77::1'::inet WHERE name = 'orders-1';"
               "UPDATE tiergate.mesh_workloads SET addresses = addresses || 'fd77::2'::inet WHERE name = 'shop-1'")
    at = site.database.one("SELECT host(ipv6) FROM tiergate.mesh_services WHERE name = 'orders'")
    cast["orders"].listen("l6", "fd77::1", 8080)
    cast["shop"].live_at("fd77::2")
    cast["web"].live_at("fd77::3")
    assert cast["shop"].connect("c", at, 80) == "EPERM"         # nobody is there yet
    site.apply("SELECT tiergate.mesh_set_endpoint('acme', 'orders', 'fd77::1', 8080)")
    assert cast["shop"].connect("c", at, 80) == (at, 80)
    assert cast["orders"].accept("a", "l6")[0] == "fd77::2"
    assert cast["web"].connect("c", at, 80) == "EPERM"
    assert cast["web"].connect("c", "fd77::1", 8080) == "EPERM"
    site.apply("SELECT tiergate.mesh_drop_endpoint('acme', 'orders', 'fd77::1', 8080)")


def test_commit_to_verdict(site, cast):
    """Each change by psql's kind of session is met by a socket within the time that anybody notices."""
    took = []
    cast["web"].connect("c", ORDERS, 8081)
    for turn in range(20):
        if turn % 2 == 0:
            statement = ("INSERT INTO tiergate.mesh_policies (tenant, name, action, from_tenant, to_service) "
                         "VALUES ('acme', 'turn', 'allow', 'beta', 'orders')")
        else:
            statement = "DELETE FROM tiergate.mesh_policies WHERE name = 'turn'"
        wanted = {"ok": 1} if turn % 2 == 0 else {"EPERM": 1}
        site.database.execute(statement)
        begin = time.monotonic()
        until(lambda: cast["web"].try_many(ORDERS, 8081, 1) == wanted, f"turn {turn}")
        took.append((time.monotonic() - begin) * 1000)
    took.sort()
    print(f"commit to verdict: p50 {took[10]:.1f} ms, worst {took[-1]:.1f} ms")
    assert took[10] < 1000


def test_endpoints_change(site, cast):
    at = virtual(site)
    site.apply(f"INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'orders', '{ORDERS}', 8081);"
               "UPDATE tiergate.mesh_endpoints SET weight = 0 WHERE port = 8080")
    assert cast["shop"].connect_many(at, 80, 50) == {8081: 50}
    site.apply("UPDATE tiergate.mesh_endpoints SET healthy = false WHERE port = 8081")
    assert cast["shop"].connect("c", at, 80) == "EPERM"
    site.apply("UPDATE tiergate.mesh_endpoints SET healthy = true WHERE port = 8081")
    assert cast["shop"].connect_many(at, 80, 50) == {8081: 50}


def test_no_moment_without_enforcement(site, cast, tmp_path):
    """kill -9, SIGTERM, another binary: what runs is judged, what is open stays."""
    agent, at = cast["agent"], virtual(site)
    stop = str(tmp_path / "stop")
    upgraded = agent.path / "tenantd-2"
    upgraded.write_bytes(process.TENANTD.read_bytes())
    upgraded.chmod(0o755)
    assert cast["shop"].connect("open", ORDERS, 8080) == (ORDERS, 8080)
    while cast["orders"].accept("a", "l")[1] != cast["shop"].local("open")[1]:
        pass
    cast["web"].begin("connect_until", at, 80, stop)
    cast["shop"].begin("connect_until", at, 80, stop)
    for turn in range(6):
        agent.restart(signal.SIGTERM if turn % 3 == 2 else signal.SIGKILL, binary=upgraded if turn > 3 else None)
        site.apply(f"UPDATE tiergate.mesh_endpoints SET weight = {10 + turn} WHERE port = 8081")
    pathlib.Path(stop).touch()
    refused, served = cast["web"].result(), cast["shop"].result()
    assert set(refused) == {"EPERM"} and refused["EPERM"] >= 50
    assert set(served) == {"ok"} and served["ok"] >= 50
    cast["shop"].send("open", b"still here")
    assert cast["orders"].recv("a") == b"still here"


def test_stale_objects_go_with_a_restart(site, cast):
    site.apply("INSERT INTO tiergate.mesh_services (tenant, name, ports) VALUES ('acme', 'brief', '[{\"port\": 81, \"protocol\": \"tcp\"}]');"
               f"INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'brief', '{ORDERS}', 9000)")
    at = virtual(site, "brief")
    assert cast["shop"].connect("c", at, 81) == "ECONNREFUSED"      # translated: nobody listens
    cast["agent"].stop(signal.SIGKILL)
    site.sql("DELETE FROM tiergate.mesh_services WHERE name = 'brief'")
    (cast["agent"].state / "registry.jsonl").unlink()
    cast["agent"].start()
    site.acked(site.database.revision())
    assert cast["shop"].connect("c", at, 81, timeout=0.2) != "ECONNREFUSED"
    assert cast["shop"].connect_many(virtual(site), 80, 5) == {8081: 5}


def test_snapshot_without_tenantd(site, cast):
    """A node that starts with nothing in the kernel and no registry."""
    agent = cast["agent"]
    agent.stop()
    site.tenantd.stop()
    try:
        assert "does not act" in agent.detach().stdout
        assert cast["web"].connect("c", ORDERS, 8080) == (ORDERS, 8080)
        agent.start(wait=False)
        agent.wait("enforcing below")
        assert cast["web"].connect("d", ORDERS, 8080) == "EPERM"
        assert cast["shop"].connect_many(virtual(site), 80, 5) == {8081: 5}
    finally:
        site.tenantd.start()
    agent.wait("live at revision", seconds=20)
    site.acked(site.database.revision())


@pytest.mark.parametrize("damage, said", [
    (lambda text: text[:-30], "there is no|live"),                              # torn: good up to the digest before
    (lambda text: text.replace(b"10.77.0.1", b"10.77.0.9", 1), "is not whole"),
    (lambda text: b"", "is not whole"),
    (lambda text: text.replace(b'"node":"a"', b'"node":"b"', 1), "is not whole, or of another node"),
])
def test_damaged_snapshot(site, cast, damage, said):
    agent = cast["agent"]
    agent.stop()
    file = agent.state / "registry.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    agent.start()
    assert re.search(said, agent.log.since(agent.mark)), agent.log.since(agent.mark)
    site.acked(site.database.revision())
    assert cast["web"].connect("d", ORDERS, 8080) == "EPERM"
    assert cast["shop"].connect_many(virtual(site), 80, 5) == {8081: 5}


def test_other_tenants(site, cast):
    """The node gets other tenants: everything is listed anew, and what it does not see is not there."""
    web = ("INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses) VALUES ('beta', 'web-1', "
           f"'web', 'a', '{site.below(cast['cgroups']['web'])}', '{{{STRANGER}}}')")
    shown = site.apply("DELETE FROM tiergate.mesh_workloads WHERE tenant = 'beta';"
                       "UPDATE tiergate.mesh_nodes SET tenants = '{acme}' WHERE name = 'a'")
    assert shown["state"] == "live"
    assert cast["web"].connect("c", ORDERS, 8080, timeout=0.4) != (ORDERS, 8080)
    assert cast["shop"].connect_many(virtual(site), 80, 5) == {8081: 5}
    site.apply("UPDATE tiergate.mesh_nodes SET tenants = '{*}' WHERE name = 'a';" + web)
    assert cast["web"].connect("c", ORDERS, 8080) == "EPERM"


def test_cgroups_come_and_go(site, cast):
    """A workload is one while its cgroup is there, also when it is made later, below folders made later."""
    agent, path = cast["agent"], site.root.path / "late" / "inner"
    mark = agent.log.mark()
    site.apply("INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses) VALUES "
               f"('acme', 'late', 'shop', 'a', '{site.below(site.root)}/late/inner', '{{{NEWCOMER}}}')")
    assert not re.search("workload acme/late has", agent.log.since(mark))
    for turn in range(2):
        mark = agent.log.mark()
        inner = site.root.child("late").child("inner")
        agent.wait("workload acme/late has cgroup", mark)
        actor = site.actor(inner)
        actor.live_at(NEWCOMER)
        assert actor.connect("c", virtual(site), 80) == (virtual(site), 80)
        site.actors.remove(actor)
        actor.end()
        until(lambda: not (inner.path / "cgroup.procs").read_text(), "the actor's end")
        os.rmdir(path)
        agent.wait("cgroup of workload acme/late is gone", mark)
        os.rmdir(path.parent)


def test_pods(site, cast):
    """By uid, as kubelet names cgroups; those are below the mount, so this one makes its own."""
    uid = "11111111-2222-3333-4444-555555555555"
    top = site.root.path.parent.parent / "kubepods"
    if top.exists():
        pytest.skip("this machine has kubepods")
    mark = cast["agent"].log.mark()
    site.apply("INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, pod_uid) VALUES "
               f"('acme', 'pod', 'shop', 'a', '{uid}')")
    try:
        (top / "burstable" / f"pod{uid}").mkdir(parents=True)
        cast["agent"].wait("workload acme/pod has cgroup", mark)
    finally:
        for path in (top / "burstable" / f"pod{uid}", top / "burstable", top):
            path.rmdir()
    cast["agent"].wait("cgroup of workload acme/pod is gone", mark)
    site.apply("DELETE FROM tiergate.mesh_workloads WHERE name = 'pod'")


def test_privileges(cast):
    """Two capabilities, for good."""
    shown = status(cast["agent"].process.pid)
    kept = 1 << 39 | 1 << 12                                # CAP_BPF, CAP_NET_ADMIN
    assert {int(shown[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}
    assert int(shown["CapInh"], 16) == int(shown["CapAmb"], 16) == 0 and shown["NoNewPrivs"] == "1"


def test_two_agents(site, cast):
    """The second one says why it does not run."""
    other = process.start([process.TENANTD, "agent", "--config", cast["agent"].config], site.path / "second.log")
    assert other.wait(10) == 1
    said = (site.path / "second.log").read_text()
    assert "another agent runs with pins at" in said and "[crit]" in said


def test_detach_is_not_for_a_mesh_with_an_agent(cast):
    """Which would fill what nobody is judged by."""
    said = cast["agent"].detach()
    assert said.returncode == 1 and "another agent runs with pins at" in said.stdout
    assert cast["agent"].process.poll() is None
    assert cast["web"].connect("c", ORDERS, 8080) == "EPERM"


def test_endpoint_dies_under_load(site, cast, tmp_path):
    """The agent of its node finds out and the registry tells all: new connections avoid it, established ones live."""
    at, stop = virtual(site), str(tmp_path / "stop")
    mortal = site.actor(cast["cgroups"]["orders"])
    mortal.live_at(ORDERS)
    mortal.listen("l", ORDERS, 8082)
    site.apply("UPDATE tiergate.mesh_services SET health = "
               '\'{"type": "tcp", "interval_ms": 100, "timeout_ms": 200, "rise": 2, "fall": 2}\' WHERE name = \'orders\';'
               f"INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port, node, weight) VALUES "
               f"('acme', 'orders', '{ORDERS}', 8082, 'a', 1000)")
    cast["shop"].connect("open", ORDERS, 8082)
    mine = cast["shop"].local("open")
    while mortal.accept("a", "l") != mine:
        pass
    cast["shop"].begin("connect_until", at, 80, stop)
    mortal.close("l")
    def down():
        return site.database.one("SELECT NOT healthy FROM tiergate.mesh_endpoints WHERE port = 8082")
    until(down, "the endpoint to be found dead")
    site.acked(site.database.revision())
    pathlib.Path(stop).touch()
    outcomes = cast["shop"].result()
    assert outcomes["ok"] > 0 and set(outcomes) <= {"ok", "ECONNREFUSED", "ECONNRESET"}, outcomes
    assert cast["shop"].connect_many(at, 80, 50) == {8081: 50}
    cast["shop"].send("open", b"still here")
    assert mortal.recv("a") == b"still here"
    mortal.listen("l", ORDERS, 8082)
    until(lambda: not down(), "the endpoint to be found alive")
    site.apply("DELETE FROM tiergate.mesh_endpoints WHERE port = 8082")
