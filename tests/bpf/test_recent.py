# SPDX-License-Identifier: BSD-2-Clause
"""What a CPU keeps of earlier calls is never what a later one is judged by wrongly.  Actors run on one CPU, so that it
is there to be found."""

import os

import pytest

from support.mesh import ACCEPT, ANY_SOURCE, AT_EGRESS, AT_INGRESS, UDP, WHY, policy

ORDERS, SHOP, SECOND, TAKER = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"
NODE = "10.78.0.2"
QUIET = 0.4     # s, in which an answer would have come


@pytest.fixture(scope="module")
def cast(stage, namespaces):
    places = {"orders": (11, [ORDERS], 0), "shop": (12, [SHOP, SECOND], 0), "taker": (14, [TAKER], ANY_SOURCE)}
    cgroups = {name: stage.cgroup(name) for name in places}
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
        actors["outside"] = stage.actor(stage.outside, namespaces[1])
    finally:
        os.sched_setaffinity(0, cpus)
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].listen("m", ORDERS, 8081)
    stage.start(rate=1_000_000, burst=1_000_000)
    stage.mesh.tenant(1)
    for name, (service, addresses, flags) in places.items():
        stage.mesh.workload(cgroups[name], 1, service, *addresses, flags=flags)
        for address in addresses:
            stage.mesh.address(address, 1, service)
    stage.attach()
    actors["cgroups"] = cgroups
    return actors


def call(stage, cast, caller, source, port=0):
    """Who was seen to call."""
    stage.mesh.events()
    cast[caller].live_at(source)
    assert cast[caller].random_calls([(ORDERS, 8080)], 1, 0, [port]) == [((ORDERS, 8080), "ok")]
    cast["orders"].accept("a", "l")
    cast["orders"].close("a")
    (accepted,) = stage.mesh.events(type=ACCEPT)
    return accepted["src"]


def test_an_address_that_is_taken_away(stage, cast):
    for _ in range(3):
        assert call(stage, cast, "shop", SECOND) == [1, 12]
    cast["shop"].connect("open", ORDERS, 8080, bind=(SECOND, 0))
    cast["orders"].accept("o", "l")
    stage.mesh.workload(cast["cgroups"]["shop"], 1, 12, SHOP)
    stage.mesh.events()
    assert cast["shop"].connect("c", ORDERS, 8080, bind=(SECOND, 0), timeout=QUIET) != (ORDERS, 8080)
    cast["shop"].send("open", b"x")
    assert cast["orders"].recv("o", QUIET) == "TIMEOUT"
    assert stage.why(hook=AT_EGRESS) == [WHY["DENY_SPOOFED"]]
    stage.mesh.workload(cast["cgroups"]["shop"], 1, 12, SHOP, SECOND)
    assert cast["orders"].recv("o") == b"x"
    assert call(stage, cast, "shop", SECOND) == [1, 12]
    cast["shop"].close("open")
    cast["orders"].close("o")


def test_an_address_that_others_call_from_too(stage, cast):
    """Until then the address says who calls; from then on each flow does, also with the same ports."""
    for _ in range(3):
        assert call(stage, cast, "shop", SHOP, 5000) == [1, 12]
    for _ in range(3):
        assert call(stage, cast, "taker", SHOP, 5000) == [1, 14]
        assert call(stage, cast, "shop", SHOP, 5000) == [1, 12]


def test_a_service_that_takes_a_port_over(stage, cast):
    """An endpoint comes without a change of policies: the next call is judged by it at the destination."""
    stage.mesh.address(NODE, 1, 12)
    stage.mesh.tenant(1, policy("deny", service=13))
    for _ in range(3):
        assert cast["outside"].connect("c", ORDERS, 8081) == (ORDERS, 8081)
        cast["orders"].accept("a", "m")
        cast["outside"].close("c")
        cast["orders"].close("a")
    stage.mesh.service(1, 13, "10.96.0.13", 80, (ORDERS, 8081))
    stage.mesh.events()
    assert cast["outside"].connect("c", ORDERS, 8081, timeout=QUIET) == "TIMEOUT"
    assert stage.why(hook=AT_INGRESS) == [WHY["DENY_RULE"]]


def test_verdicts_of_many(stage, cast):
    """More pairs of ends than rows that are kept, each with the verdict of its own."""
    denied = [port for port in range(9000, 9200) if port % 3 == 0]
    stage.mesh.tenant(1, *(policy("deny", number=port, service=11, proto=UDP, port=port) for port in denied))
    for turn in range(3):
        for port in range(9000, 9200):
            cast["shop"].udp("u", SHOP)
            assert (cast["shop"].sendto("u", b"x", ORDERS, port) == "EPERM") == (port in denied), (turn, port)
    stage.mesh.events()
    cast["shop"].udp("u", SHOP)
    cast["shop"].sendto("u", b"x", ORDERS, denied[0])
    (record,) = stage.mesh.events(type=5)
    assert record["rule"] == denied[0] and record["reason"] == WHY["DENY_RULE"]
    cast["shop"].close("u")
