# SPDX-License-Identifier: BSD-2-Clause
"""Who reads records is woken by none of them, but before the ring is full."""

import concurrent.futures
import pathlib

import pytest

from support.mesh import LOST_RING
from support.node import until

ORDERS, SHOP = "10.77.0.1", "10.77.0.2"
RING, RECORD = 4 << 20, 160      # bytes; of a record with the ring's own header


@pytest.fixture(scope="module")
def cast(stage):
    cgroups = {name: stage.cgroup(name) for name in ("orders", "shop")}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].serve_ports(["l"])
    actors["shop"].live_at(SHOP)
    stage.start(rate=1_000_000, burst=1_000_000, ring=RING)
    stage.mesh.tenant(1)
    for name, service, address in (("orders", 11, ORDERS), ("shop", 12, SHOP)):
        stage.mesh.workload(cgroups[name], 1, service, address)
        stage.mesh.address(address, 1, service)
    stage.attach()
    return actors


def test_called_when_a_quarter_waits(stage, cast):
    """Without the call the reader would wait for a minute; fewer are written than the ring holds, however slow it is."""
    stage.mesh.events()
    calls = RING // RECORD // 4      # two records each: half of the ring
    waits = pathlib.Path(f"/proc/{stage.mesh.process.pid}/wchan")
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        read = reader.submit(stage.mesh.events, 60_000)
        until(lambda: "poll" in waits.read_text(), lambda: f"the reader to wait, not {waits.read_text()}")
        assert cast["shop"].try_many(ORDERS, 8080, calls) == {"ok": calls}
        until(read.done, lambda: "the reader to be called")
        records = read.result()
    assert len(records) > RING // RECORD // 5
    assert LOST_RING not in stage.mesh.counters()
