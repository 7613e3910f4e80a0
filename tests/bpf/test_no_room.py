# SPDX-License-Identifier: BSD-2-Clause
"""What is refused when there is no room, or what is registered cannot be."""

import pytest

from support.mesh import AT_CONNECT, FULL_METERS, WHY

ORDERS, SHOP = "10.77.0.1", "10.77.0.2"
FIRST, SECOND = "10.96.0.1", "10.96.0.2"


@pytest.fixture(scope="module")
def cast(stage):
    """A mesh that has room for two services, their limits and their meters."""
    cgroups = {name: stage.cgroup(name) for name in ("orders", "shop")}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    actors["orders"].listen("l", ORDERS, 8080)
    stage.start(services=2)
    stage.mesh.tenant(1)
    for name, service, address in (("orders", 11, ORDERS), ("shop", 12, SHOP)):
        actors[name].live_at(address)
        stage.mesh.workload(cgroups[name], 1, service, address)
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
