# SPDX-License-Identifier: BSD-2-Clause
"""A node whose agent is silent: what the registry says of it, and what goes on."""

import signal
import subprocess

import pytest

from support.node import ip, until

PYTHON = "/usr/bin/python3"
HERE, SHOP = "10.77.0.1", "10.77.0.2"

SERVE = """
import socket
s = socket.create_server(("", 8080))
print("ready", flush=True)
while True: s.accept()[0].close()
"""


@pytest.fixture(scope="module")
def cast(site):
    """orders of acme with an endpoint on each of two nodes, which their agents check; on node b it is a workload of
    tenantd exec, and a second one ends while the agent is away."""
    far = site.base.child("mesh-b")
    ip("route", "replace", "10.79.1.0/24", "via", "10.78.0.2", netns=site.netns.name)
    site.other.set("ipv4/ip_forward")
    site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated"})
    orders, shop = site.root.child("orders"), site.root.child("shop")
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, workload_nets, tenants)
        VALUES ('a', '{{10.78.0.1}}', '{{}}', '{{*}}'), ('b', '{{10.78.0.2}}', '{{10.79.1.0/24}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports, health)
        VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]',
                '{{"type": "tcp", "interval_ms": 100, "timeout_ms": 1000, "rise": 1, "fall": 2}}'), ('acme', 'shop', '[]', NULL);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{site.below(orders)}', '{{{HERE}}}'),
               ('acme', 'shop-1', 'shop', 'a', '{site.below(shop)}', '{{{SHOP}}}')""")
    actors = {"orders": site.actor(orders), "shop": site.actor(shop)}
    for name, address in (("orders", HERE), ("shop", SHOP)):
        actors[name].live_at(address)
    actors["orders"].listen("l", HERE, 8080)
    site.agent().start()
    agent = site.agent(node="b", netns=site.other, cgroup=far).start()
    for node in ("a", "b"):
        site.acked(site.database.revision(), node)
    lives, ends = (agent.exec(PYTHON, "-c", SERVE, options=("--netns", "--name", name), stdout=subprocess.PIPE)
                   for name in ("lives", "ends"))
    assert lives.stdout.readline() == ends.stdout.readline() == b"ready\n"
    addresses = until(lambda: len(rows := workloads(site)) == 2 and dict(rows), "the workloads in the registry")
    for address, node in ((HERE, "a"), (addresses["lives"], "b"), (addresses["ends"], "b")):
        # not well until a check has found it
        site.sql("INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port, node, healthy) "
                 f"VALUES ('acme', 'orders', '{address}', 8080, '{node}', false)")
    until(lambda: status(site) == (3, 3, None), lambda: f"all to be well: {status(site)}")
    return actors | {"agent": agent, "lives": lives, "ends": ends, "address": addresses,
                     "at": site.database.one("SELECT host(ipv4) FROM tiergate.mesh_services WHERE name = 'orders'")}


def workloads(site):
    return site.database.execute("SELECT name, host(addresses[1]) FROM tiergate.mesh_workloads WHERE source = 'exec' ORDER BY 1")


def status(site):
    return site.database.one("SELECT endpoints, healthy, down FROM tiergate.mesh_status WHERE service = 'orders'")


def patience(site, interval):
    site.sql(f"UPDATE tiergate.settings SET value = '\"{interval}\"' WHERE name = 'mesh.node_timeout'")


def test_the_registry_says_so(site, cast):
    """Only of the endpoints that the silent agent checks, and only after the time; callers go to the others."""
    seen = "SELECT seen FROM tiergate.mesh_agents WHERE node = 'b'"
    agent = cast["agent"]
    agent.stop(signal.SIGKILL)
    last = site.database.one(seen)
    cast["ends"].kill()
    cast["ends"].communicate()
    assert status(site) == (3, 3, None)
    patience(site, "15 seconds")          # agents report each 10 s
    away = sorted(f"{cast['address'][name]}:8080: node away" for name in ("lives", "ends"))
    until(lambda: status(site)[1] == 1, lambda: f"the node to be away: {status(site)}", 30)
    endpoints, healthy, down = status(site)
    assert (endpoints, healthy, sorted(down.split("; "))) == (3, 1, away)
    assert site.database.one(seen) == last
    assert site.database.one("SELECT state FROM tiergate.mesh_agents WHERE node = 'b'") == "away"
    site.acked(site.database.revision())
    assert cast["shop"].try_many(cast["at"], 80, 20) == {"ok": 20}

    def called():
        """Where these calls went, as the kernel says."""
        flows = site.rest.call("GET", "/v1/tenants/acme/flows?source=shop&limit=100")["items"]
        return [flow["destination"]["address"] for flow in flows if flow["type"] == "open"]
    until(lambda: len(called()) == 20, lambda: f"records of all calls: {called()}")
    assert set(called()) == {HERE}


def test_what_ran_there_goes_on(site, cast):
    """With its identity: the programs and maps are pinned, and the registry keeps what the agent has said last."""
    assert cast["lives"].poll() is None
    assert [name for name, _ in workloads(site)] == ["ends", "lives"]
    at = cast["address"]["lives"]
    assert cast["shop"].connect("direct", at, 8080) == (at, 8080)
    cast["shop"].close("direct")
    denied = cast["agent"].exec("true", stderr=subprocess.PIPE, text=True)
    assert denied.communicate(timeout=20)[1] == "tenantd exec: cannot reach the agent: Connection refused\n"
    assert denied.returncode == 125


def test_it_comes_back(site, cast):
    """Started again, the agent reports what lives and what it checks; what has ended meanwhile goes."""
    cast["agent"].start()
    until(lambda: [name for name, _ in workloads(site)] == ["lives"], lambda: f"what has ended to go: {workloads(site)}")
    until(lambda: status(site)[1] == 2, lambda: f"what lives to be well: {status(site)}")
    gone = cast["address"]["ends"]
    until(lambda: f"{gone}:8080: node away" not in status(site)[2], lambda: f"what has ended to be checked: {status(site)}")
    assert status(site)[2].startswith(f"{gone}:8080: ")
    patience(site, "30 seconds")
