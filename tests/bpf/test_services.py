# SPDX-License-Identifier: BSD-2-Clause
"""Endpoints: by weight, healthy ones only, many; limits; full maps; records under flood."""

import math
import time

import pytest

from support.mesh import AT_CONNECT, DENY, LOST_DENY_SAMPLED, LOST_SAMPLED, UDP, WHY, MeshError
from support.node import until

ORDERS, SHOP, STRANGER, QUEER = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"
VIRTUAL = "10.96.0.1"


@pytest.fixture(scope="module")
def cast(stage):
    places = {"orders": (1, 11, ORDERS), "shop": (1, 12, SHOP), "stranger": (2, 21, STRANGER),
              "other": (3, 31, QUEER)}
    cgroups = {name: stage.cgroup(name) for name in places}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    for i in range(4):
        actors["orders"].listen(f"l{i}", ORDERS, 8000 + i)
    actors["orders"].serve_ports([f"l{i}" for i in range(3)])
    stage.start(rate=100, burst=100)
    mesh = stage.mesh
    for name, (tenant, service, address) in places.items():
        actors[name].live_at(address)
        mesh.tenant(tenant)
        mesh.workload(cgroups[name], tenant, service, address)
    mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000))
    stage.attach()
    return actors


def within(found, n, p, sigmas=5):
    return abs(found - n * p) <= sigmas * math.sqrt(n * p * (1 - p))


def test_split_by_weight(stage, cast):
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000, 90), (ORDERS, 8001, 10))
    found = cast["shop"].connect_many(VIRTUAL, 80, 10_000)
    assert sum(found.values()) == 10_000
    assert within(found[8001], 10_000, 0.1), found
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000, 1), (ORDERS, 8001, 2), (ORDERS, 8002, 3))
    found = cast["shop"].connect_many(VIRTUAL, 80, 1_200)
    assert all(within(found[8000 + i], 1_200, (i + 1) / 6) for i in range(3)), found


@pytest.mark.parametrize("gone", [(ORDERS, 8000, 90, 0), (ORDERS, 8000, 0, 1), None])
def test_endpoint_leaves(stage, cast, gone):
    """Unhealthy, drained or removed: nothing new goes there, what is open lives on."""
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8003))
    cast["shop"].connect("c", VIRTUAL, 80)
    cast["orders"].accept("a", "l3")
    left = [(ORDERS, 8001)] + ([(ORDERS, 8003, *gone[2:])] if gone else [])
    stage.mesh.service(1, 11, VIRTUAL, 80, *left)
    stage.mesh.say("settle")
    assert cast["shop"].connect_many(VIRTUAL, 80, 100) == {8001: 100}
    cast["shop"].send("c", b"still here")
    assert cast["orders"].recv("a") == b"still here"
    cast["orders"].send("a", b"so am I")
    assert cast["shop"].recv("c") == b"so am I"
    assert cast["shop"].peer("c") == (VIRTUAL, 80)
    cast["shop"].close("c")
    cast["orders"].close("a")


def test_datagrams_of_a_socket_stay_with_an_endpoint(stage, cast):
    cast["orders"].udp("u0", ORDERS, 8000)
    cast["orders"].udp("u1", ORDERS, 8001)
    both = [(ORDERS, 8000, 50), (ORDERS, 8001, 50)]
    stage.mesh.service(1, 11, VIRTUAL, 53, *both, proto=UDP)
    cast["shop"].udp("s", SHOP)
    for _ in range(20):
        cast["shop"].sendto("s", b"x", VIRTUAL, 53)
    heard = until(lambda: [name for name in ("u0", "u1") if cast["orders"].peek(name)], "one of them to arrive")
    assert len(heard) == 1
    assert [cast["orders"].recv(heard[0]) for _ in range(20)] == [b"x"] * 20
    # Its endpoint goes down: the other one from now on.
    down = int(heard[0][1])
    both[down] = (*both[down][:2], 50, 0)
    stage.mesh.service(1, 11, VIRTUAL, 53, *both, proto=UDP)
    cast["shop"].sendto("s", b"y", VIRTUAL, 53)
    assert cast["orders"].recv(f"u{1 - down}") == b"y"


def test_open_connections_are_limited(stage, cast):
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8003), limit=3)
    for i in range(3):
        assert cast["shop"].connect(f"c{i}", VIRTUAL, 80) == (VIRTUAL, 80)
    stage.mesh.events()
    assert cast["shop"].connect("more", VIRTUAL, 80) == "EPERM"
    assert cast["shop"].connect("raw", ORDERS, 8003) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_OPEN"]]
    cast["shop"].close("c0")
    assert cast["shop"].connect("c0", VIRTUAL, 80) == (VIRTUAL, 80)
    for i in range(3):
        cast["shop"].close(f"c{i}")
    # A connect that finds nobody holds nothing.
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 9), limit=3)
    for _ in range(10):
        assert cast["shop"].connect("c", VIRTUAL, 80) == "ECONNREFUSED"


def test_rate_is_limited(stage, cast):
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000), rate=5, burst=20)
    stage.mesh.events()
    begin = time.monotonic()
    outcomes = cast["shop"].try_many(VIRTUAL, 80, 200)
    assert 20 <= outcomes["ok"] <= 21 + 5 * (time.monotonic() - begin) and outcomes["EPERM"] == 200 - outcomes["ok"] > 0
    assert stage.why(hook=AT_CONNECT, dst=[1, 11]) == [WHY["DENY_RATE"]]
    stage.mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000))
    assert cast["shop"].try_many(VIRTUAL, 80, 50) == {"ok": 50}


def test_flood_hides_nobody(stage, cast):
    """Tenant 2 is refused thousands of times; the one refusal of tenant 3 is told, and what was left out is counted."""
    stage.mesh.events()
    before, begin = stage.mesh.counters(), time.monotonic()
    assert cast["stranger"].try_many(VIRTUAL, 80, 5_000) == {"EPERM": 5_000}
    took = time.monotonic() - begin
    assert cast["other"].connect("c", VIRTUAL, 80) == "EPERM"
    records = stage.mesh.events(type=DENY)
    after = stage.mesh.counters()
    flood = [e for e in records if e["src"] == [2, 21]]
    assert len([e for e in records if e["src"] == [3, 31]]) == 1
    left_out = after[LOST_DENY_SAMPLED] - before.get(LOST_DENY_SAMPLED, 0)
    assert len(flood) + left_out == 5_000 and left_out > max(0, 3_000 - 100 * took)
    assert after[WHY["DENY_OTHER_TENANT"]] - before.get(WHY["DENY_OTHER_TENANT"], 0) == 5_001
    # The next record of the flooder says how many were left out.
    told = sum(e["lost"] for e in flood)

    def all_told():
        nonlocal told
        cast["stranger"].connect("c", VIRTUAL, 80)
        told += sum(e["lost"] for e in stage.mesh.events(src=[2, 21]))
        return told >= left_out

    until(all_told, lambda: f"{left_out} told, not {told}")
    assert LOST_SAMPLED in after


def test_many_services(stage, cast):
    """10,000 services with 100,000 endpoints: loaded, looked up, unchanged by a second load, gone with the next."""
    mesh = stage.mesh
    mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8000))
    seconds = float(mesh.say("bulk", 10_000, 100_000, 1))
    fill = mesh.fill()
    assert fill["tg_services"][0] >= 10_000 and fill["tg_endpoints"][0] >= 100_000
    again = float(mesh.say("bulk", 10_000, 100_000, 1))
    print(f"10,000 services loaded in {seconds} s, compared in {again} s")
    # bulk took the address of our service; another port of another address is not disturbed.
    mesh.service(1, 11, VIRTUAL, 81, (ORDERS, 8000))
    assert cast["shop"].connect_many(VIRTUAL, 81, 100) == {8000: 100}
    # Endpoints 10.128.x.y are nowhere: what connect asked for is what it is told.
    answer = cast["shop"].connect("c", "10.96.39.15", 80, timeout=0.2)
    assert answer in ("TIMEOUT", "ENETUNREACH", "EHOSTUNREACH")
    assert cast["shop"].connect("c", "10.96.39.16", 80, timeout=0.2) != "EPERM"


def test_full_maps(stage, cast):
    """What finds no room is refused and counted; what was there goes on."""
    mesh = stage.mesh
    mesh.service(1, 11, VIRTUAL, 81, (ORDERS, 8000))
    with pytest.raises(MeshError, match="error -7"):
        mesh.say("bulk", 32_768, 32_768, 1)
    used, size, refused = mesh.fill()["tg_services"]
    assert used == size and refused == 1
    with pytest.raises(MeshError, match="error -7"):
        mesh.service(1, 11, "10.200.0.1", 80, (ORDERS, 8000))
    mesh.service(1, 11, VIRTUAL, 81, (ORDERS, 8001))
    assert cast["shop"].connect_many(VIRTUAL, 81, 10) == {8001: 10}
    mesh.service(1, 11, VIRTUAL, 81, (ORDERS, 8000))
    assert cast["shop"].connect_many(VIRTUAL, 81, 10) == {8000: 10}
