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
