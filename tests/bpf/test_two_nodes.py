# SPDX-License-Identifier: BSD-2-Clause
"""Two nodes with an agent each: one identity from the caller's kernel to the called one's."""

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
    ip("route", "add", "10.76.0.0/16", "via", "10.78.0.2", netns=site.netns.name)
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
    site.agent().start()
    site.agent(node="b", netns=site.other, cgroup=far).start()
    actors = {"orders": site.actor(orders), "shop": site.actor(shop, site.other), "web": site.actor(web, site.other)}
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
    """Refused where it begins; opened again by one statement."""
    apply(site, "SELECT tiergate.mesh_deny('acme', 'no-shop', from_service => 'shop', to_service => 'orders')")
    assert cast["shop"].connect("d", cast["virtual"], 80) == "EPERM"
    apply(site, "SELECT tiergate.mesh_drop_policy('acme', 'no-shop')")
    assert cast["shop"].connect("e", cast["virtual"], 80) == (cast["virtual"], 80)
    assert cast["orders"].accept("b", "l")[0] == SHOP


def test_another_tenant_by_policy_of_the_called_one(site, cast):
    apply(site, "SELECT tiergate.mesh_allow('acme', 'beta-in', from_tenant => 'beta', to_service => 'orders')")
    assert cast["web"].connect("f", cast["virtual"], 80) == (cast["virtual"], 80)
    assert cast["orders"].accept("c", "l")[0] == WEB
    apply(site, "SELECT tiergate.mesh_drop_policy('acme', 'beta-in')")
    assert cast["web"].connect("g", cast["virtual"], 80) == "EPERM"
