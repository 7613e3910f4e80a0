# SPDX-License-Identifier: BSD-2-Clause
"""What is refused when there is no room, or what is registered cannot be."""

import pytest

from support.mesh import AT_CONNECT, FULL_METERS, WHY

ORDERS, SHOP, STRANGER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
FLOWS = 64
FIRST, SECOND = "10.96.0.1", "10.96.0.2"


@pytest.fixture(scope="module")
def cast(stage):
    """A mesh that has room for two services, their limits and their meters, and a few flows."""
    cgroups = {name: stage.cgroup(name) for name in ("orders", "shop", "stranger")}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].udp("u", ORDERS, 8053)
    stage.start(services=2, flows=FLOWS)
    for name, tenant, service, address in (("orders", 1, 11, ORDERS), ("shop", 1, 12, SHOP), ("stranger", 2, 21, STRANGER)):
        actors[name].live_at(address)
        stage.mesh.tenant(tenant)
        stage.mesh.workload(cgroups[name], tenant, service, address)
        stage.mesh.address(address, tenant, service)
    stage.attach()
    return actors


def test_meter(stage, cast):
    """A limit that cannot be kept refuses, until the meter of a limit that there is not any more has gone."""
    mesh = stage.mesh
    mesh.service(1, 11, FIRST, 80, (ORDERS, 8080), limit=100)
    mesh.service(1, 13, SECOND, 80, (ORDERS, 8080), limit=100)
    for address in (FIRST, SECOND):
        assert cast["shop"].connect("c", address, 80) == (address, 80)
    mesh.service(1, 11, FIRST, 80, (ORDERS, 8080))
    mesh.service(1, 14, FIRST, 80, (ORDERS, 8080), limit=100)
    before = mesh.counters().get(FULL_METERS, 0)
    mesh.events()
    assert cast["shop"].connect("c", FIRST, 80) == "EPERM"
    assert stage.why(hook=AT_CONNECT, dst=[1, 14]) == [WHY["DENY_FULL"]]
    assert mesh.counters()[FULL_METERS] == before + 1
    assert cast["shop"].connect("c", SECOND, 80) == (SECOND, 80)
    mesh.say("settle")
    assert cast["shop"].connect("c", FIRST, 80) == (FIRST, 80)


def test_another_family(stage, cast):
    """An endpoint of the other family is none that a socket could be sent to."""
    stage.mesh.service(1, 13, SECOND, 80, ("fd77::1", 8080))
    stage.mesh.events()
    assert cast["shop"].connect("c", SECOND, 80) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_FAMILY"]]


def test_flows(stage, cast):
    """The oldest row goes: who has none is known by the address, and what is refused stays refused."""
    shop, orders, stranger = cast["shop"], cast["orders"], cast["stranger"]
    for n in range(FLOWS * 8):
        shop.udp(f"u{n % 4}", SHOP)
        assert shop.sendto(f"u{n % 4}", b"ask", ORDERS, 8053) == 3
        data, peer = orders.recvfrom("u")
        assert data == b"ask" and peer[0] == SHOP
        orders.sendto("u", b"answer", *peer)
        assert shop.recvfrom(f"u{n % 4}")[0] == b"answer"
        stranger.udp("s", STRANGER)
        assert stranger.sendto("s", b"evil", ORDERS, 8053) == "EPERM"
    fill = stage.mesh.fill()
    for name in ("tg_flows", "tg_callers", "tg_buckets"):
        used, size, _ = fill[name]
        assert 0 < used <= size, (name, fill)
    assert fill["tg_flows"][1] == FLOWS
    assert shop.connect("c", ORDERS, 8080) == (ORDERS, 8080)
    assert not orders.peek("u")
