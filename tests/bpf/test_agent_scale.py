# SPDX-License-Identifier: BSD-2-Clause
"""10,000 services and 100,000 endpoints from the registry into the kernel.  Prints what it took."""

import re
import time

import pytest

from support.node import until
from support.site import status

SERVICES, ENDPOINTS = 9_999, 100_000          # and the gateway, which each tenant has


@pytest.fixture(scope="module")
def filled(site):
    site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated"})
    site.sql(f"""
        BEGIN;
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants) VALUES ('a', '{{10.78.0.1}}', '{{*}}');
        UPDATE tiergate.mesh_tenants SET families = 'ipv4' WHERE tenant = 'acme';
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        SELECT 'acme', 's' || n, '[{{"port": 80, "protocol": "tcp"}}]' FROM generate_series(1, {SERVICES}) n;
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port)
        SELECT 'acme', 's' || (n % {SERVICES} + 1), '11.0.0.0'::inet + n, 8080 FROM generate_series(1, {ENDPOINTS}) n;
        COMMIT""")
    return site.agent(services=SERVICES * 2, endpoints=ENDPOINTS * 2)



def memory(agent):
    return int(status(agent.process.pid)["VmRSS"].split()[0]) // 1024


def test_ten_thousand_services(site, filled):
    agent = filled
    begin = time.monotonic()
    agent.start(wait=False)
    agent.wait("live at revision", seconds=120)
    first = time.monotonic() - begin
    shown = site.acked(site.database.revision(), seconds=30)
    assert shown["rejected"] == []
    fill = {row["map"]: row["used"] for (row,) in site.database.execute(
        "SELECT jsonb_array_elements(mesh->'fill') FROM tiergate.gateways WHERE name = 'node-a'")}
    assert (fill["tg_services"], fill["tg_endpoints"]) == (SERVICES, ENDPOINTS)

    begin = time.monotonic()
    site.apply("UPDATE tiergate.mesh_endpoints SET weight = 7 WHERE service = 's77'")
    one = time.monotonic() - begin

    agent.stop()
    begin = time.monotonic()
    agent.start(wait=False)
    agent.wait("enforcing below", seconds=60)
    restart = time.monotonic() - begin
    agent.wait("live at revision", seconds=60)
    site.acked(site.database.revision(), seconds=30)
    size = (agent.state / "registry.jsonl").stat().st_size >> 20
    print(f"first state {first:.2f} s, one change acknowledged {one * 1000:.0f} ms, restart from the snapshot ({size} MiB) "
          f"{restart:.2f} s, {memory(agent)} MiB")
    assert not re.search(r"\[(err|crit)", agent.log.text), agent.log.text[-2000:]
    until(lambda: site.rest.call("GET", "/v1/gateways/node-a")["state"] == "live", "the agent")
