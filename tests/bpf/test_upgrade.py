# SPDX-License-Identifier: BSD-2-Clause
"""The agent comes and goes; what is enforced stays."""

import os
import pathlib

import pytest

from support.mesh import LAYOUT, WHY, Mesh, policy

ORDERS, SHOP, STRANGER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
VIRTUAL = "10.96.0.1"


@pytest.fixture(scope="module")
def cast(stage):
    places = {"orders": (1, 11, ORDERS), "shop": (1, 12, SHOP), "stranger": (2, 21, STRANGER)}
    cgroups = {name: stage.cgroup(name) for name in places}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].listen("served", ORDERS, 8081)
    actors["orders"].serve_ports(["served"])
    for name, (_, _, address) in places.items():
        actors[name].live_at(address)
    actors["cgroups"] = cgroups
    actors["places"] = places
    stage.start()
    fill(stage, actors)
    stage.attach()
    return actors


def fill(stage, cast, served=True):
    mesh = stage.mesh
    mesh.tenant(1, policy("deny", "tenant=9", number=5), policy("allow", "net=10.200.0.0/16", number=6))
    mesh.tenant(2)
    for name, (tenant, service, address) in cast["places"].items():
        mesh.workload(cast["cgroups"][name], tenant, service, address)
        mesh.address(address, tenant, service)
    mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8080))
    if served:
        mesh.service(1, 11, VIRTUAL, 81, (ORDERS, 8081))


BY_PROGRAMS = {"tg_meters", "tg_flows", "tg_chosen", "tg_origins", "tg_callers", "tg_buckets"}


def used(stage):
    """Rows of the maps that the agent fills; the others have as many as there were calls."""
    return {name: numbers[0] for name, numbers in stage.mesh.fill().items() if name not in BY_PROGRAMS}


def test_no_moment_without_enforcement(stage, cast, tmp_path):
    stop = str(tmp_path / "stop")
    cast["shop"].connect("c", VIRTUAL, 80)
    cast["orders"].accept("a", "l")
    cast["stranger"].begin("connect_until", VIRTUAL, 81, stop)
    cast["shop"].begin("connect_until", VIRTUAL, 81, stop)
    before = used(stage)
    for _ in range(5):
        stage.restart()                       # kill -9
        assert used(stage) == before
        stage.mesh.say("begin")
        fill(stage, cast)
        stage.mesh.say("commit")
        stage.mesh.say("attach", stage.root.path)
        assert used(stage) == before
    pathlib.Path(stop).touch()
    refused, served = cast["stranger"].result(), cast["shop"].result()
    assert set(refused) == {"EPERM"} and refused["EPERM"] >= 50
    assert set(served) == {"ok"} and served["ok"] >= 50
    cast["shop"].send("c", b"still here")
    assert cast["orders"].recv("a") == b"still here"
    assert cast["shop"].peer("c") == (VIRTUAL, 80)
    cast["shop"].close("c")
    cast["orders"].close("a")


def test_another_layout(stage, cast, tmp_path):
    """What an agent finds whose maps have another layout: it fills its own, then each program changes over."""
    stop = str(tmp_path / "stop")
    pins = pathlib.Path(stage.mesh.pins)
    cast["shop"].connect("c", VIRTUAL, 80)
    cast["orders"].accept("a", "l")
    cast["stranger"].begin("connect_until", VIRTUAL, 81, stop)
    cast["shop"].begin("connect_until", VIRTUAL, 81, stop)
    for _ in range(5):
        stage.mesh.kill()
        os.rename(pins / f"maps-{LAYOUT}", pins / f"maps-{LAYOUT - 1}")
        stage.mesh = Mesh(stage.mesh.pins)
        stage.mesh.open()
        assert not used(stage)["tg_services"]
        stage.mesh.say("begin")
        fill(stage, cast)
        stage.attach()
        assert sorted(path.name for path in pins.iterdir()) == ["links", f"maps-{LAYOUT}"]
    pathlib.Path(stop).touch()
    refused, served = cast["stranger"].result(), cast["shop"].result()
    assert set(refused) == {"EPERM"} and refused["EPERM"] >= 50
    assert set(served) == {"ok"} and served["ok"] >= 50
    cast["shop"].send("c", b"still here")
    assert cast["orders"].recv("a") == b"still here"
    cast["shop"].close("c")
    cast["orders"].close("a")
    stage.mesh.events()
    assert cast["stranger"].connect("c", VIRTUAL, 80) == "EPERM"
    assert stage.why() == [WHY["DENY_OTHER_TENANT"]]


def test_stale_rows_go_with_the_next_state(stage, cast):
    before = used(stage)
    stage.restart()
    stage.mesh.say("begin")
    fill(stage, cast, served=False)
    stage.mesh.say("commit")
    after = used(stage)
    assert after["tg_services"] == before["tg_services"] - 1
    assert after["tg_endpoints"] == before["tg_endpoints"] - 1
    assert after["tg_slots"] == before["tg_slots"] - 1
    assert after["tg_rules"] == before["tg_rules"]


def test_rules_change_as_one(stage, cast):
    """Old sets of rules go; the number of rows is that of one set."""
    before = used(stage)
    for number in range(20):
        stage.mesh.tenant(1, policy("deny", "tenant=9", number=number),
                          policy("allow", "net=10.200.0.0/16", number=6))
    stage.mesh.say("settle")
    assert used(stage)["tg_rules"] == before["tg_rules"]
    assert used(stage)["tg_cidrs"] == before["tg_cidrs"]


def test_another_cgroup(stage, cast):
    """Attaching elsewhere replaces the links; the old place is free of them."""
    stage.mesh.say("attach", cast["cgroups"]["stranger"].path)
    assert cast["stranger"].connect("c", ORDERS, 8080) == "EPERM"
    assert cast["shop"].connect("c", VIRTUAL, 80, timeout=0.2) != (VIRTUAL, 80)
    stage.mesh.say("attach", stage.root.path)
    assert cast["shop"].connect("c", VIRTUAL, 80) == (VIRTUAL, 80)


def test_detach_leaves_nothing(stage, cast):
    """From the moment that it is said on, each time."""
    for _ in range(20):
        stage.mesh.say("detach")
        assert cast["stranger"].connect("c", ORDERS, 8080) == (ORDERS, 8080)
        assert not os.path.exists(stage.mesh.pins)
        stage.mesh.kill()
        stage.mesh = Mesh(stage.mesh.pins)
        stage.mesh.open()
        stage.mesh.say("begin")
        fill(stage, cast)
        stage.attach()
        assert cast["stranger"].connect("c", ORDERS, 8080) == "EPERM"
        assert stage.why() == [WHY["DENY_OTHER_TENANT"]]
