# SPDX-License-Identifier: BSD-2-Clause
"""Records: each names the right two ends, also where workloads share an address."""

import os

import pytest

from support.mesh import ACCEPT, CLOSE, CONNECT, DENY, FAILED, HOST, HOST_SOURCE, WHY

BATCH = 400
CALLS = int(os.environ.get("TIERGATE_FLOWS", "4000"))      # of each of three callers
SHARED = "10.77.0.9"
SERVERS = {"orders": (1, 11), "stock": (2, 21), "books": (3, 31)}
CALLERS = {"shop": (1, 12), "till": (2, 22), "desk": (3, 32)}


@pytest.fixture(scope="module")
def cast(stage):
    """Six workloads of three tenants on one address, as in a node's own network."""
    cgroups = {name: stage.cgroup(name) for name in (*SERVERS, *CALLERS)}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    stage.start(rate=1_000_000, burst=1_000_000)
    mesh = stage.mesh
    mesh.address(SHARED, 0, 0, HOST)
    for i, (name, (tenant, service)) in enumerate(SERVERS.items()):
        actors[name].listen("l", SHARED, 8000 + i)
        actors[name].serve_ports(["l"])
        mesh.tenant(tenant)
        mesh.service(tenant, service, f"10.96.0.{1 + i}", 80, (SHARED, 8000 + i))
    for name, (tenant, service) in {**SERVERS, **CALLERS}.items():
        actors[name].live_at(SHARED)
        mesh.workload(cgroups[name], tenant, service, flags=HOST_SOURCE)
    stage.attach()
    return actors


def test_no_misattribution(stage, cast):
    services = list(SERVERS.values())
    targets = [(f"10.96.0.{1 + i}", 80) for i in range(3)] + [(SHARED, 8000 + i) for i in range(3)]
    for batch in range(0, CALLS, BATCH):
        for i, name in enumerate(CALLERS):
            first = 10_000 * (1 + i) + batch % 9_000
            cast[name].begin("random_calls", targets, BATCH, batch + i, range(first, first + BATCH))
        records, calls = [], {}
        for name in CALLERS:
            calls[name] = cast[name].result()
            assert isinstance(calls[name], list), calls[name]
            records += stage.mesh.events()
        check(records + stage.mesh.events(20), calls, services)


def check(records, calls, services):
    """What was recorded of these calls is what was done."""
    assert not any(e["lost"] for e in records)

    # Who called is known by the port.
    callers = list(CALLERS.values())
    opened = [e for e in records if e["type"] in (CONNECT, ACCEPT, CLOSE)]
    served = sum(outcome == "ok" for made in calls.values() for _, outcome in made)
    assert len([e for e in opened if e["type"] == CONNECT]) == served > 0
    for e in opened:
        assert tuple(e["src"]) == callers[e["from"][1] // 10_000 - 1], e
        assert tuple(e["dst"]) == services[e["to"][1] - 8000], e
        assert e["src"][0] == e["dst"][0], e

    denied = [e for e in records if e["type"] == DENY]
    assert len(denied) == sum(outcome == "EPERM" for made in calls.values() for _, outcome in made)
    for e in denied:
        assert e["reason"] == WHY["DENY_OTHER_TENANT"] and e["src"][0] != e["dst"][0]
        assert tuple(e["dst"]) == services[e["to"][1] - 8000], e

    # Each call got what its tenant may have.
    for name, made in calls.items():
        for (address, port), outcome in made:
            server = services[port - 8000 if address == SHARED else int(address[-1]) - 1]
            assert outcome == ("ok" if server[0] == CALLERS[name][0] else "EPERM")


def test_what_a_close_tells(stage, cast):
    stage.mesh.events()
    cast["orders"].listen("m", SHARED, 8100)
    cast["shop"].connect("c", SHARED, 8100)
    cast["orders"].accept("a", "m")
    for _ in range(100):
        cast["shop"].send("c", b"x" * 1000)
    got = 0
    while got < 100_000:
        got += len(cast["orders"].recv("a"))
    cast["orders"].send("a", b"y" * 5000)
    assert cast["shop"].recv("c")
    cast["shop"].close("c")
    cast["orders"].close("a")
    closed = stage.mesh.told(2, type=CLOSE, to=[SHARED, 8100])
    caller = [e for e in closed if e["out"] >= 100_000]
    assert caller and caller[0]["ns"] > 0 and caller[0]["srtt"] > 0
    assert any(e["in"] >= 100_000 for e in closed)


def test_nobody_there(stage, cast):
    stage.mesh.events()
    cast["orders"].listen("gone", SHARED, 8101)
    cast["orders"].close("gone")
    stage.mesh.service(1, 11, "10.96.0.9", 80, (SHARED, 8101))
    assert cast["shop"].connect("c", "10.96.0.9", 80) == "ECONNREFUSED"
    (record,) = stage.mesh.events(type=FAILED)
    assert record["src"] == [1, 12] and record["dst"] == [1, 11] and record["to"] == [SHARED, 8101]
