# SPDX-License-Identifier: BSD-2-Clause
"""Flows from the kernel to the registry: a real agent, tenantd and PostgreSQL."""

import re
import socket
import time

import pytest

from support.node import ip, until

ORDERS, SHOP, STRANGER = "10.77.0.1", "10.77.0.2", "10.77.0.3"


@pytest.fixture(scope="module")
def cast(site):
    """Two tenants; orders and shop of acme, web of beta.  The agent has metrics and low rates."""
    cgroups = {name: site.root.child(name) for name in ("orders", "shop", "web")}
    for tenant in ("acme", "beta"):
        site.rest.call("POST", "/v1/tenants", {"name": tenant, "tier": "dedicated"})
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants) VALUES ('a', '{{10.78.0.1}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]'), ('acme', 'shop', '[]'), ('beta', 'web', '[]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'orders', '{ORDERS}', 8080);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{site.below(cgroups["orders"])}', '{{{ORDERS}}}'),
               ('acme', 'shop-1', 'shop', 'a', '{site.below(cgroups["shop"])}', '{{{SHOP}}}'),
               ('beta', 'web-1', 'web', 'a', '{site.below(cgroups["web"])}', '{{{STRANGER}}}')""")
    actors = {name: site.actor(cgroup) for name, cgroup in cgroups.items()}
    for name, address in (("orders", ORDERS), ("shop", SHOP), ("web", STRANGER)):
        actors[name].live_at(address)
    actors["orders"].listen("l", ORDERS, 8080)
    agent = site.agent(event_rate=200, event_burst=100, metrics=f"unix:{site.path}/metrics.sock")
    agent.start()
    site.acked(site.database.revision())
    actors["agent"] = agent
    return actors


def virtual(site):
    return site.database.one("SELECT host(ipv4) FROM tiergate.mesh_services WHERE name = 'orders'")


def flows(site, query="", tenant="acme"):
    return site.rest.call("GET", f"/v1/tenants/{tenant}/flows?limit=1000&{query}")


def wait_flows(site, n, query="", tenant="acme"):
    """The items, once there are n of them."""
    return until(lambda: (items := flows(site, query, tenant)["items"]) and len(items) >= n and items,
                 lambda: f"{n} of {query}: {flows(site, query, tenant)}")


def metrics(site):
    """The metrics as {name{labels}: value}, after they were read as Prometheus does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{site.path}/metrics.sock")
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, body = answer.decode().split("\r\n\r\n", 1)
    assert head.startswith("HTTP/1.1 200") and "text/plain; version=0.0.4" in head
    return parse(body)


def parse(text):
    """Prometheus' text format, strictly: each family has HELP and TYPE before its samples, which stand
    together; names, labels and values are well-formed; no series comes twice."""
    assert text.endswith("\n")
    types, values, family = {}, {}, None
    for line in text.splitlines():
        if found := re.fullmatch(r"# HELP ([a-z_]+) (\S.*)", line):
            assert found[1] not in types
            family = found[1]
            types[family] = None
        elif found := re.fullmatch(r"# TYPE ([a-z_]+) (counter|gauge|summary)", line):
            assert found[1] == family and types[family] is None
            types[family] = found[2]
        else:
            label = r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
            found = re.fullmatch(rf"([a-z_]+)(\{{{label}(?:,{label})*\}})? ([0-9.e+-]+)", line)
            assert found, line
            suffixes = {"summary": ("_sum", "_count")}.get(types[family], ("",))
            assert found[1] in [family + suffix for suffix in suffixes], line
            assert types[family] != "counter" or family.endswith("_total")
            assert (found[1], found[2]) not in values, line
            values[found[1], found[2]] = float(found[3])
    assert None not in types.values()
    return {name + (labels or ""): value for (name, labels), value in values.items()}


def pair(source, destination, tenant="acme"):
    return f'tenant="{tenant}",source="{source}",destination="{destination}"'


def test_a_call(site, cast):
    """Open, accept and two closes, all with the same addresses, and what was measured."""
    at = virtual(site)
    assert cast["shop"].connect("c", at, 80) == (at, 80)
    here = cast["shop"].local("c")
    cast["orders"].accept("a", "l")
    cast["shop"].send("c", b"x" * 1000)
    cast["orders"].recv("a")
    cast["orders"].send("a", b"y" * 3000)
    cast["shop"].recv("c")
    again = cast["shop"].sent_again("c")        # none, unless the machine stood still
    cast["shop"].close("c")
    cast["orders"].close("a")
    items = wait_flows(site, 4, "port=8080")
    seen = {(i["type"], i["side"]): i for i in items}
    assert set(seen) == {("open", "source"), ("accept", "destination"), ("close", "source"), ("close", "destination")}
    for item in items:
        assert item["source"] == {"tenant": "acme", "service": "shop", "address": SHOP, "port": here[1]}
        assert item["destination"] == {"tenant": "acme", "service": "orders", "address": ORDERS, "port": 8080}
        assert item["verdict"] == "allowed" and item["node"] == "a" and item["protocol"] == "tcp"
        assert item.get("virtual") == ({"address": at, "port": 80} if item["side"] == "source" else None)
    assert seen["open", "source"]["reason"] == "SAME_TENANT"
    closed = seen["close", "source"]
    # TCP counts SYN and FIN, as far as they were acknowledged
    assert 1000 <= closed["bytes_sent"] <= 1002 and 3000 <= closed["bytes_received"] <= 3002
    assert closed["rtt_us"] > 0 and closed["duration_us"] > 0
    assert again <= closed["retransmits"] <= again + 1      # the last segment is the end
    other = seen["close", "destination"]
    assert 3000 <= other["bytes_sent"] <= 3002 and 1000 <= other["bytes_received"] <= 1002

    edges = site.rest.call("GET", "/v1/tenants/acme/servicemap")["edges"]
    edge = next(e for e in edges if e["destination"].get("service") == "orders")
    assert edge["source"] == {"tenant": "acme", "service": "shop"}
    assert (edge["connections"], edge["bytes_sent"], edge["bytes_received"]) == (
        1, closed["bytes_sent"], closed["bytes_received"])
    shown = metrics(site)
    labels = pair("acme/shop", "acme/orders")
    assert shown[f'tiergate_mesh_connections_total{{{labels},verdict="allowed"}}'] == 1
    assert shown[f'tiergate_mesh_bytes_total{{{labels},direction="received"}}'] == closed["bytes_received"]
    assert shown[f"tiergate_mesh_rtt_seconds_count{{{labels}}}"] == 1


def test_what_was_sent_again(site, cast):
    """The other end has no address for a while: segments of the call are lost, and counted."""
    far = "10.78.9.1"
    site.other.add(far)
    ip("route", "add", far, "via", "10.78.0.2", netns=site.netns.name)
    remote = site.actor(site.base.child("remote"), site.other)
    remote.listen("l", far, 9100)
    assert cast["shop"].connect("r", far, 9100) == (far, 9100)
    remote.accept("a", "l")
    ip("addr", "del", f"{far}/32", "dev", "lo", netns=site.other.name)
    cast["shop"].send("r", b"again")
    assert remote.recv("a", timeout=0.3) == "TIMEOUT"
    site.other.add(far)
    assert remote.recv("a") == b"again"
    cast["shop"].close("r")
    remote.close("a")
    (closed,) = wait_flows(site, 1, "port=9100&type=close")
    assert closed["retransmits"] >= 1 and closed["duration_us"] >= 300_000
    assert closed["destination"] == {"address": far, "port": 9100} and closed["reason"] == "OUTSIDE"
    shown = metrics(site)
    assert shown[f"tiergate_mesh_retransmits_total{{{pair('acme/shop', 'outside')}}}"] == closed["retransmits"]
    edges = site.rest.call("GET", "/v1/tenants/acme/servicemap")["edges"]
    assert [e["retransmits"] for e in edges if e["destination"] == {}] == [closed["retransmits"]]
    ip("route", "del", far, netns=site.netns.name)
    ip("addr", "del", f"{far}/32", "dev", "lo", netns=site.other.name)


def test_a_denied_call(site, cast):
    assert cast["web"].connect("c", virtual(site), 80) == "EPERM"
    item = wait_flows(site, 1, "verdict=denied", "beta")[0]
    assert (item["type"], item["side"], item["tenant"]) == ("denied", "source", "beta")
    assert item["source"] == {"tenant": "beta", "service": "web"}
    assert item["destination"]["service"] == "orders" and item["reason"] == "DENY_OTHER_TENANT"
    assert "node" in item and "node" not in flows(site, "verdict=denied")["items"][0]
    shown = metrics(site)
    assert shown[f'tiergate_mesh_connections_total{{{pair("beta/web", "acme/orders", "beta")},verdict="denied"}}'] == 1
    assert shown['tiergate_mesh_denied_total{reason="DENY_OTHER_TENANT"}'] == 1


def test_whose_policy_denied(site, cast):
    """A policy is named to whose it is."""
    shown = site.apply("""INSERT INTO tiergate.mesh_policies (tenant, name, action, from_tenant, to_service)
                          VALUES ('acme', 'no-beta', 'deny', 'beta', 'orders')""")
    # With the acknowledgement came what was denied before: operators see it by name.
    assert site.database.one("SELECT denied FROM tiergate.mesh_agents WHERE node = 'a'") == 1
    assert site.database.one("SELECT counters->>'DENY_OTHER_TENANT' FROM tiergate.mesh_agents WHERE node = 'a'") == "1"
    assert shown["mesh"]["counters"]["DENY_OTHER_TENANT"] == 1
    fill = {row["map"]: row for row in shown["mesh"]["fill"]}
    assert fill["tg_services"] == {"map": "tg_services", "used": 2, "size": 1024, "refused": 0}
    assert metrics(site)['tiergate_mesh_map_entries{map="tg_services"}'] == 2
    assert cast["web"].connect("c", virtual(site), 80) == "EPERM"
    mine = wait_flows(site, 1, "reason=DENY_RULE")[0]
    assert mine["policy"] == "no-beta"
    assert "policy" not in wait_flows(site, 1, "reason=DENY_RULE", "beta")[0]


def test_a_flood_hides_nothing_of_others(site, cast):
    """While beta floods, each single denial of acme is there; what beta lost is counted, and told."""
    before = len(flows(site, "verdict=denied&source=shop")["items"])
    at = virtual(site)
    begin = time.monotonic()
    cast["web"].begin("try_many", at, 80, 20000)
    for n in range(30):
        assert cast["shop"].connect(f"d{n}", STRANGER, 9000 + n) == "EPERM"
    cast["web"].result()
    took = time.monotonic() - begin
    wait_flows(site, before + 30, "verdict=denied&source=shop")
    for n in range(30):
        assert len(flows(site, f"port={9000 + n}")["items"]) == 1
    assert not [i for i in flows(site, "verdict=denied&source=shop")["items"] if "lost" in i]

    sampled = metrics(site)['tiergate_mesh_lost_records_total{reason="denials_sampled"}']
    assert sampled > max(0, 10_000 - 200 * took)

    def told():
        """The next record tells; there is one when the bucket has filled again."""
        cast["web"].connect("e", at, 80)
        return flows(site, "", "beta")["lost"] >= sampled
    until(told, lambda: f"{sampled}: {flows(site, '', 'beta')['lost']}")


def test_the_registry_away(site, cast):
    """Records wait, and arrive once."""
    at = virtual(site)
    site.tenantd.stop()
    for _ in range(5):
        assert cast["shop"].connect("w", at, 80) == (at, 80)
        cast["orders"].accept("v", "l")
        for name, socket_name in (("shop", "w"), ("orders", "v")):
            cast[name].close(socket_name)
    until(lambda: metrics(site)["tiergate_mesh_records_queued"] + 1 > 0, "metrics without a registry")
    before = site.database.one("SELECT count(*) FROM tiergate.flows WHERE type = 'open'")
    site.tenantd.start()
    until(lambda: site.database.one("SELECT count(*) FROM tiergate.flows WHERE type = 'open'") == before + 5,
          lambda: site.database.one("SELECT count(*) FROM tiergate.flows WHERE type = 'open'"))
    until(lambda: metrics(site)["tiergate_mesh_records_queued"] == 0, "an empty queue")
    assert site.database.one("SELECT count(*) FROM tiergate.flows WHERE type = 'open'") == before + 5
