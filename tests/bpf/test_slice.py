# SPDX-License-Identifier: BSD-2-Clause
"""One service, one connect, one verdict, one record."""

import pytest

from support.mesh import AT_CONNECT, AT_SOCKOPS, CLOSE, CONNECT, DENY, WHY

ORDERS, SHOP, STRANGER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
VIRTUAL = "10.96.0.1"


@pytest.fixture(scope="module")
def cast(stage):
    """Orders and shop are of tenant 1, the stranger is of tenant 2."""
    cgroups = {name: stage.cgroup(name) for name in ("orders", "shop", "stranger")}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    port = actors["orders"].listen("l", ORDERS, 8080)
    stage.start()
    mesh = stage.mesh
    mesh.tenant(1)
    mesh.tenant(2)
    mesh.workload(cgroups["orders"], 1, 11, ORDERS)
    mesh.workload(cgroups["shop"], 1, 12, SHOP, flags=4)
    mesh.workload(cgroups["stranger"], 2, 21, STRANGER, flags=4)
    mesh.service(1, 11, VIRTUAL, 80, (ORDERS, port))
    stage.attach()
    return actors


def test_service_is_found_and_shown_as_asked_for(stage, cast):
    assert cast["shop"].connect("c", VIRTUAL, 80) == (VIRTUAL, 80)
    assert cast["orders"].accept("a", "l")[0] == ORDERS
    cast["shop"].send("c", b"hello")
    assert cast["orders"].recv("a") == b"hello"
    cast["shop"].close("c")
    cast["orders"].close("a")

    records = stage.mesh.told(4, hook=AT_SOCKOPS)       # of each end, opened and closed
    opened = [e for e in records if e["type"] == CONNECT]
    closed = [e for e in records if e["type"] == CLOSE and e["out"] >= 5]
    assert len(opened) == 1 and len(closed) == 1
    assert opened[0]["src"] == [1, 12] and opened[0]["dst"] == [1, 11]
    assert opened[0]["to"] == [ORDERS, 8080] and opened[0]["virt"] == [VIRTUAL, 80]
    assert opened[0]["reason"] == WHY["SAME_TENANT"]
    assert closed[0]["ns"] > 0


def test_other_tenant_is_refused_at_once(stage, cast):
    assert cast["stranger"].connect("c", VIRTUAL, 80) == "EPERM"
    (record,) = stage.mesh.events(type=DENY)
    assert record["hook"] == AT_CONNECT and record["reason"] == WHY["DENY_OTHER_TENANT"]
    assert record["src"] == [2, 21] and record["dst"] == [1, 11]
