# SPDX-License-Identifier: BSD-2-Clause
"""Two nodes with an agent each: one identity from the caller's kernel to the called one's."""

import signal
import subprocess

import pytest

from support.node import ip, until

ORDERS = "10.77.0.1"
SHOP, WEB = "10.76.0.5", "10.76.0.6"


@pytest.fixture(scope="module")
def cast(site):
    """orders of acme on node a; shop of acme and web of beta on node b."""
    far = site.base.child("mesh-b")
    for address in (SHOP, WEB):
        site.other.add(address)
    ip("route", "replace", "10.76.0.0/16", "via", "10.78.0.2", netns=site.netns.name)
    orders, shop, web = site.root.child("orders"), far.child("shop"), far.child("web")
    for tenant in ("acme", "beta"):
        site.rest.call("POST", "/v1/tenants", {"name": tenant, "tier": "dedicated"})
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants)
        VALUES ('a', '{{10.78.0.1}}', '{{*}}'), ('b', '{{10.78.0.2}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]'), ('acme', 'shop', '[]'), ('beta', 'web', '[]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'orders', '{ORDERS}', 8080);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{site.below(orders)}', '{{{ORDERS}}}'),
               ('acme', 'shop-1', 'shop', 'b', '{site.below(shop)}', '{{{SHOP}}}'),
               ('beta', 'web-1', 'web', 'b', '{site.below(web)}', '{{{WEB}}}')""")
    agents = {"a": site.agent().start(), "b": site.agent(node="b", netns=site.other, cgroup=far).start()}
    actors = {"agents": agents, "orders": site.actor(orders), "shop": site.actor(shop, site.other), "web": site.actor(web, site.other)}
    for name, address in (("orders", ORDERS), ("shop", SHOP), ("web", WEB)):
        actors[name].live_at(address)
    actors["orders"].listen("l", ORDERS, 8080)
    for node in ("a", "b"):
        site.acked(site.database.revision(), node)
    actors["virtual"] = site.database.one("SELECT host(ipv4) FROM tiergate.mesh_services WHERE name = 'orders'")
    return actors


def apply(site, script):
    revision = site.sql(script)
    for node in ("a", "b"):
        site.acked(revision, node)


def test_a_call_from_one_node_to_the_other(site, cast):
    at = cast["virtual"]
    assert cast["shop"].connect("c", at, 80) == (at, 80)
    assert cast["orders"].accept("a", "l")[0] == SHOP
    assert cast["web"].connect("w", at, 80) == "EPERM"

    def seen():
        flows = site.rest.call("GET", "/v1/tenants/acme/flows?destination=orders&limit=100")["items"]
        return {(flow["node"], flow["type"], flow["source"]["tenant"], flow["source"]["service"])
                for flow in flows if "node" in flow}
    until(lambda: {("b", "open", "acme", "shop"), ("a", "accept", "acme", "shop")} <= seen(),
          lambda: f"records of both nodes: {seen()}")


def test_a_policy_is_enforced_on_both(site, cast):
    """Refused where it begins, and what is open is cut; opened again by one statement."""
    apply(site, "SELECT tiergate.mesh_deny('acme', 'no-shop', from_service => 'shop', to_service => 'orders')")
    assert cast["shop"].connect("d", cast["virtual"], 80) == "EPERM"
    cast["shop"].send("c", b"late")
    assert cast["orders"].recv("a", timeout=0.3) == "TIMEOUT"
    apply(site, "SELECT tiergate.mesh_drop_policy('acme', 'no-shop')")
    assert cast["orders"].recv("a") == b"late"
    assert cast["shop"].connect("e", cast["virtual"], 80) == (cast["virtual"], 80)
    assert cast["orders"].accept("b", "l")[0] == SHOP


def test_another_tenant_by_policy_of_the_called_one(site, cast):
    apply(site, "SELECT tiergate.mesh_allow('acme', 'beta-in', from_tenant => 'beta', to_service => 'orders')")
    assert cast["web"].connect("f", cast["virtual"], 80) == (cast["virtual"], 80)
    assert cast["orders"].accept("c", "l")[0] == WEB
    apply(site, "SELECT tiergate.mesh_drop_policy('acme', 'beta-in')")
    assert cast["web"].connect("g", cast["virtual"], 80) == "EPERM"


PYTHON = "/usr/bin/python3"

# Workloads of tenantd exec: one that answers each caller with the caller's address, and one that calls.
SERVE = """
import socket
s = socket.create_server(("", 7000))
print("ready", flush=True)
while True:
    c, peer = s.accept()
    c.sendall(peer[0].encode())
    c.close()
"""
CALL = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), float(sys.argv[2]))
print(s.makefile().read())
"""

PATIENCE = 15       # s; the other node has to hear of a new caller first


def run(agent, at, service="shop", tenant="acme", options=("--netns",), patience=PATIENCE):
    done = agent.exec(PYTHON, "-c", CALL, at, patience, service=service, tenant=tenant, options=options, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, text=True)
    said, why = done.communicate(timeout=40)
    return done.returncode, said.strip(), why.strip()


@pytest.fixture(scope="module")
def running(site, cast):
    """A batch service that is served on node b by tenantd exec, in a network of its own, and its addresses.
    The nodes route to each other's nets, as an operator has them."""
    for netns, net, via in ((site.netns, "10.79.1.0/24", "10.78.0.2"), (site.other, "10.79.0.0/24", "10.78.0.1")):
        ip("route", "replace", net, "via", via, netns=netns.name)
        netns.set("ipv4/ip_forward")
    apply(site, """
        UPDATE tiergate.mesh_nodes SET workload_nets = '{10.79.0.0/24}' WHERE name = 'a';
        UPDATE tiergate.mesh_nodes SET workload_nets = '{10.79.1.0/24}' WHERE name = 'b';
        INSERT INTO tiergate.mesh_services (tenant, name, ports) VALUES ('acme', 'batch', '[{"port": 80, "protocol": "tcp"}]')""")
    command = cast["agents"]["b"].exec(PYTHON, "-c", SERVE, service="batch", options=("--netns", "--name", "far"),
                                       stdout=subprocess.PIPE)
    assert command.stdout.readline() == b"ready\n"
    address = until(lambda: site.database.execute(
        "SELECT host(addresses[1]) FROM tiergate.mesh_workloads WHERE name = 'far' AND node = 'b'"), "the workload")[0][0]
    assert address.startswith("10.79.1.")
    apply(site, f"INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'batch', '{address}', 7000)")
    yield {"address": address,
           "at": site.database.one("SELECT host(ipv4) FROM tiergate.mesh_services WHERE name = 'batch'")}
    command.kill()
    command.communicate()


def test_workloads_of_exec_call_across_nodes(site, cast, running):
    """The called node knows the caller by the address that the other node's agent has reported."""
    a, b = cast["agents"]["a"], cast["agents"]["b"]
    status, source, why = run(a, running["at"])
    assert (status, why) == (0, "") and source.startswith("10.79.0.")
    status, source, why = run(b, running["at"])
    assert (status, why) == (0, "") and source.startswith("10.79.1.")
    for agent in (a, b):
        status, _, why = run(agent, running["at"], "web", "beta")
        assert status == 1 and "PermissionError" in why

    def seen():
        flows = site.rest.call("GET", "/v1/tenants/acme/flows?destination=batch&limit=100")["items"]
        return {(flow["node"], flow["type"], flow["source"].get("tenant"), flow["source"].get("service"))
                for flow in flows if "node" in flow}
    until(lambda: {("a", "open", "acme", "shop"), ("b", "accept", "acme", "shop")} <= seen(),
          lambda: f"records of both nodes: {seen()}")

    def denied():
        """What the refused one's tenant has of it."""
        flows = site.rest.call("GET", "/v1/tenants/beta/flows?verdict=denied&limit=100")["items"]
        return {flow["node"] for flow in flows if flow["destination"].get("service") == "batch"}
    until(lambda: denied() == {"a", "b"}, lambda: f"denials of both nodes: {denied()}")


def test_a_workload_of_exec_without_a_network_of_its_own(site, cast, running):
    """It has its identity where it calls; elsewhere its address is the node's, which the service may let in or not."""
    a = cast["agents"]["a"]
    status, source, why = run(a, running["at"], options=())
    assert (status, source, why) == (0, "10.78.0.1", "")
    assert run(a, running["at"], "web", "beta", options=())[0] == 1
    apply(site, "SELECT tiergate.mesh_set_default('acme', from_node => false)")
    status, _, why = run(a, running["at"], options=(), patience=5)
    assert status == 1 and "timed out" in why
    apply(site, "SELECT tiergate.mesh_set_default('acme', from_node => true)")


def test_policies_hold_for_workloads_of_exec(site, cast, running):
    apply(site, "SELECT tiergate.mesh_deny('acme', 'no-batch', from_service => 'shop', to_service => 'batch')")
    status, _, why = run(cast["agents"]["a"], running["at"])
    assert status == 1 and "PermissionError" in why
    apply(site, "SELECT tiergate.mesh_drop_policy('acme', 'no-batch')")
    assert run(cast["agents"]["a"], running["at"])[0] == 0


def test_an_agent_that_was_away_knows_new_callers(site, cast, running):
    """Killed and started again, node b takes up who has come to be on node a meanwhile."""
    a, b = cast["agents"]["a"], cast["agents"]["b"]
    b.stop(signal.SIGKILL)
    waits = "import sys; print('here', flush=True); sys.stdin.readline()\n"
    caller = a.exec(PYTHON, "-c", waits + CALL, running["at"], PATIENCE, service="shop", options=("--netns", "--name", "meanwhile"),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert caller.stdout.readline() == "here\n"
    until(lambda: site.database.execute("SELECT name FROM tiergate.mesh_workloads WHERE name = 'meanwhile'"), "the workload")
    b.start()
    for node in ("a", "b"):
        site.acked(site.database.revision(), node)
    said, _ = caller.communicate("go\n", timeout=40)
    assert caller.returncode == 0 and said.startswith("10.79.0.")
