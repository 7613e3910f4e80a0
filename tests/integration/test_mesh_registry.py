# SPDX-License-Identifier: BSD-2-Clause
"""The mesh in the registry: what agents see of it on the watch stream, and how soon."""

import concurrent.futures
import contextlib
import ipaddress
import json
import os
import time

import pytest

from support.platform import Rest
from tenantd_fixture import Stream, admin, daemon, token  # noqa: F401

CONFIG = """
[watch]
ring_lines = 200
recheck_interval = 300ms
"""

ALL = ("mesh_agent", "mesh_node", "mesh_tenant", "mesh_workload", "mesh_service")


def named(lines, *kinds):
    return [(line["type"], line["name"]) for line in lines if line["kind"] in (kinds or ALL)]


def run(database, script):
    """psql, each statement a transaction."""
    status, said = database.psql(script)
    assert status == 0, said
    return said


def next_line(stream):
    return next(line for line in iter(stream.line, None) if line["type"] != "BOOKMARK")


@pytest.fixture(scope="module")
def site(admin, database):
    """Two tenants with a service each, a node for each and one for all."""
    for name, tier in (("acme", "dedicated"), ("beta", "vcluster")):
        admin.call("POST", "/v1/tenants", {"name": name, "tier": tier})
    run(database, """
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants)
        VALUES ('a', '{10.1.0.1}', '{acme}'), ('b', '{10.1.0.2}', '{beta}'), ('all', '{10.1.0.3}', '{*}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        VALUES ('acme', 'orders', '[{"port": 80, "protocol": "tcp"}]'), ('beta', 'web', '[{"port": 80, "protocol": "tcp"}]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port)
        VALUES ('acme', 'orders', '10.2.0.1', 8080), ('beta', 'web', '10.2.0.2', 8080);
        INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, addresses)
        VALUES ('acme', 'orders-1', 'orders', 'a', '{10.2.0.1}'), ('beta', 'web-1', 'web', 'b', '{10.2.0.2}')""")


def test_an_agent_lists_its_tenants(daemon, site):
    listed, _ = Stream(daemon.socket, "node-a").list()
    assert named(listed) == [
        ("PUT", "node-a"), ("PUT", "a"), ("PUT", "b"), ("PUT", "all"), ("PUT", "acme"), ("PUT", "acme/orders-1"),
        ("PUT", "acme/gateway"), ("PUT", "acme/orders")] and len(named(listed)) == len(listed)
    objects = {line["name"]: line["object"] for line in listed}
    assert objects["node-a"]["tenants"] == [objects["acme"]["number"]] and objects["node-a"]["node"] == "a"
    assert objects["acme/orders"]["endpoints"][0] | {"id": 0} == {
        "id": 0, "address": "10.2.0.1", "port": 8080, "service_port": 80, "weight": 100, "healthy": True}
    assert "beta" not in json.dumps(listed) and "10.2.0.2" not in json.dumps(listed)

    everything, _ = Stream(daemon.socket, "node-all").list()
    assert {"acme/orders", "beta/web", "acme", "beta", "node-all"} <= {line["name"] for line in everything}
    assert not {"node-a", "node-b"} & {line["name"] for line in everything}


def test_gateways_get_nothing_of_the_mesh(daemon, site):
    listed, _ = Stream(daemon.socket, "gw").list()
    assert named(listed) == [] and {"acme", "beta"} <= {line["name"] for line in listed}


def test_changes_go_to_whom_they_concern(daemon, site, database):
    streams = {name: Stream(daemon.socket, name) for name in ("node-a", "node-b", "node-all", "gw")}
    for stream in streams.values():
        stream.list()
    run(database, "UPDATE tiergate.mesh_endpoints SET weight = 7 WHERE tenant = 'acme'")
    changed = database.revision()
    run(database, "INSERT INTO tiergate.mesh_services (tenant, name) VALUES ('beta', 'batch')")
    run(database, "DELETE FROM tiergate.mesh_services WHERE tenant = 'beta' AND name = 'batch'")
    end = database.revision()

    line = next_line(streams["node-a"])
    assert (line["kind"], line["name"], line["revision"]) == ("mesh_service", "acme/orders", changed)
    assert line["object"]["endpoints"][0]["weight"] == 7 and line["object"]["revision"] == changed
    assert len(json.dumps(line)) < 700
    assert named(streams["node-a"].until_revision(end)) == []
    assert named(streams["node-b"].until_revision(end))[-1] == ("DELETE", "beta/batch")
    assert [n for _, n in named(streams["node-all"].until_revision(end))][:2] == ["acme/orders", "beta/batch"]
    assert streams["gw"].until_revision(end) == []


def test_resume_by_delta(daemon, site, database):
    """From memory and from SQL it is the same."""
    begin = database.revision()
    for n in range(3):
        run(database, f"UPDATE tiergate.mesh_endpoints SET weight = {10 + n}")
    middle = database.revision()
    run(database, ";\n".join(f"UPDATE tiergate.mesh_nodes SET addresses = '{{10.1.0.2,10.1.9.{n + 1}}}' WHERE name = 'b'"
                            for n in range(250)))
    end = database.revision()
    for since in (begin, middle - 1):
        lines = Stream(daemon.socket, "node-a", since).until_revision(end)
        assert set(named(lines, "mesh_service")) == {("PUT", "acme/orders")}
        assert set(named(lines, "mesh_node")) == {("PUT", "b")} and not named(lines, "mesh_agent", "mesh_tenant")
        assert "beta" not in json.dumps(lines)
    assert Stream(daemon.socket, "gw", begin).until_revision(end) == []


def test_other_tenants_for_an_agent(daemon, site, database):
    """What it sees changes: the stream ends before it, and from before it goes no delta."""
    stream = Stream(daemon.socket, "node-b")
    listed, at = stream.list()
    assert "acme/orders" not in {line["name"] for line in listed}
    run(database, "UPDATE tiergate.mesh_nodes SET tenants = '{acme,beta}' WHERE name = 'b'")
    last = at
    for line in iter(stream.line, None):
        last = line["revision"] if line["type"] == "BOOKMARK" else last
        assert line.get("kind") != "mesh_agent" and "acme" not in json.dumps(line)
    assert last < database.revision()
    again = Stream(daemon.socket, "node-b", last)
    assert again.status == 410 and again.problem == "revision-gone"
    stream = Stream(daemon.socket, "node-b")
    listed, at = stream.list()
    assert {"acme/orders", "beta/web"} <= {line["name"] for line in listed}
    assert Stream(daemon.socket, "node-b", at).status == 200

    run(database, "UPDATE tiergate.mesh_nodes SET tenants = '{beta}' WHERE name = 'b';"
                  "UPDATE tiergate.mesh_endpoints SET weight = 33 WHERE tenant = 'acme'")
    assert not [line for line in iter(stream.line, None) if "acme" in json.dumps(line)]
    assert Stream(daemon.socket, "node-b", at).status == 410


def test_a_node_that_there_is_not(daemon, site, database):
    """It is not told that there is nothing: it would let go of what it enforces."""
    stream = Stream(daemon.socket, "node-nobody")
    assert stream.status == 404 and stream.problem == "unknown-node"
    run(database, "INSERT INTO tiergate.mesh_nodes (name, tenants) VALUES ('brief', '{acme}')")
    stream = Stream(daemon.socket, "node-brief")
    stream.list()
    run(database, "DELETE FROM tiergate.mesh_nodes WHERE name = 'brief'")
    assert not [line for line in iter(stream.line, None) if line.get("kind") == "mesh_agent"]
    assert Stream(daemon.socket, "node-brief", database.revision()).status == 404


def test_rest_and_psql_are_audited_alike(site, admin, database):
    """The same rows, one by a credential and one by a role; what is no change leaves none."""
    def last():
        return admin.call("GET", "/v1/tenants/acme/audit?limit=1")["items"][0]

    path = "/v1/tenants/acme/mesh/services/orders"
    admin.call("PUT", path, admin.call("GET", path) | {"limits": {"open_connections": 7}})
    by_rest = last()
    run(database, "SELECT tiergate.mesh_set_limit('acme', 'orders', open_connections => 8)")
    by_psql = last()
    assert by_rest["object"] == by_psql["object"] == "mesh_services" and by_rest["action"] == by_psql["action"] == "update"
    assert (by_rest["old"], by_rest["new"]) == ({"limits": {}}, {"limits": {"open_connections": 7}})
    assert (by_psql["old"], by_psql["new"]) == ({"limits": {"open_connections": 7}}, {"limits": {"open_connections": 8}})
    assert by_rest["actor"] and not by_psql.get("actor")
    admin.call("PUT", path, admin.call("GET", path))
    assert last()["id"] == by_psql["id"]
    run(database, "SELECT tiergate.mesh_set_limit('acme', 'orders')")


def test_an_agent_acknowledges(daemon, site, admin, database):
    key = token(admin, "agent-a", "gateway", gateway="node-a")
    rest = daemon.as_(key)
    body = {"boot": "b1", "revision": database.revision(), "state": "live"}
    assert rest.request("POST", "/v1/gateways/node-a/ack", body).status == 204
    assert rest.request("POST", "/v1/gateways/node-b/ack", body).status == 403
    shown = admin.call("GET", "/v1/gateways/node-a")
    assert shown["kind"] == "agent" and shown["observedRevision"] == body["revision"] and shown["state"] == "live"
    stranger = admin.request("POST", "/v1/gateways/node-stranger/ack", body)
    assert stranger.status == 422 and stranger.problem == "reserved-name"
    assert "node-a" not in admin.call("GET", "/v1/tenants/beta")["observedRevision"]
    assert Stream(daemon.address, "node-b", token=key).status == 403
    assert Stream(daemon.address, "node-a", token=key).status == 200


def test_many_services(daemon, admin, database):
    """Onboarded by SQL and by REST, listed, and changed one by one; MESH_SERVICES=10000 is the full size."""
    services = int(os.environ.get("MESH_SERVICES", "300"))
    half = services // 2
    admin.call("POST", "/v1/tenants", {"name": "large", "tier": "dedicated"})
    admin.call("PUT", "/v1/mesh/nodes/large", {"addresses": ["10.99.0.1"], "tenants": ["large"]})
    spent = {}

    begin = time.monotonic()
    run(database, f"""
        INSERT INTO tiergate.mesh_services (tenant, name, ports)
        SELECT 'large', 's' || n, '[{{"port": 80, "protocol": "tcp"}}]' FROM generate_series(1, {half}) n;
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port)
        SELECT 'large', 's' || n, '10.100.0.0'::inet + n, 8000 + e FROM generate_series(1, {half}) n, generate_series(0, 9) e""")
    spent["sql"] = time.monotonic() - begin

    def put(numbers):
        with contextlib.closing(Rest(daemon.socket)) as rest:
            for n in numbers:
                address = str(ipaddress.ip_address("10.120.0.0") + n)
                answer = rest.request("PUT", f"/v1/tenants/large/mesh/services/r{n}", {
                    "ports": [{"port": 80}],
                    "endpoints": [{"address": address, "port": 8000 + e} for e in range(10)]})
                assert answer.status == 201, answer

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(put, [range(w, services - half, 8) for w in range(8)]))
    spent["rest"] = time.monotonic() - begin

    stream = Stream(daemon.socket, "node-large", timeout=60)
    begin = time.monotonic()
    listed, _ = stream.list()
    spent["list"] = time.monotonic() - begin
    found = {line["name"]: line["object"] for line in listed if line["kind"] == "mesh_service"}
    assert len(found) == services + 1 and sum(len(s["endpoints"]) for s in found.values()) == 10 * services
    assert len({a for s in found.values() for a in s["addresses"]}) == 2 * services

    with contextlib.closing(database.connect(autocommit=True)) as session:
        waits = []
        for n in range(1, 101):
            session.execute("UPDATE tiergate.mesh_endpoints SET weight = %s WHERE tenant = 'large' AND service = %s"
                            " AND port = 8003", (n + 200, f"s{n}"))
            begin = time.monotonic()
            line = next_line(stream)
            waits.append(time.monotonic() - begin)
            assert line["name"] == f"large/s{n}" and len(json.dumps(line)) < 2048
    waits.sort()
    print(f"{services} services, {10 * services} endpoints: half by SQL {spent['sql']:.1f} s, half by REST {spent['rest']:.1f} s,"
          f" listed in {spent['list']:.2f} s ({sum(len(json.dumps(line)) for line in listed)} bytes);"
          f" commit to line p50 {waits[50] * 1000:.1f} ms, p99 {waits[98] * 1000:.1f} ms")
    stream.close()
