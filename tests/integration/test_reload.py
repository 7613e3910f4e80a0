# SPDX-License-Identifier: BSD-2-Clause
"""Reload and binary upgrade of nginx under load: not one request fails."""

import fcntl
import json
import os
import pathlib
import signal
import time

import pytest

from support import process, wire
from support.load import Load
from support.platform import quota, route
from support.poll import until
from support.websocket import WebSocket

# As a daemon: a master that is its parent's child ignores USR2 otherwise.
GATEWAY = {"workers": 2, "daemon": "on", "shutdown": "30s"}


@pytest.fixture(scope="module")
def tenant(platform, gateway):
    return platform.onboard(routes=[route(auth="required", websocket=True)],
                            quotas=[quota(limit=100000000, window="day")])


@pytest.fixture
def loads(tenant, gateway):
    """Kept connections and fresh ones; nothing may fail."""
    good = wire.compose("GET", "/", tenant.headers(key=tenant.key))
    bad = wire.compose("GET", "/", tenant.headers())
    probes = [("good", good, {200}), ("bad", bad, {401})]
    close = [(name, data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), expected)
             for name, data, expected in probes]
    with Load(gateway.address, probes, threads=2) as kept, \
            Load(gateway.address, close, threads=2, fresh=True) as fresh:
        kept.wait(50)
        fresh.wait(50)
        yield kept, fresh
        kept.wait(50)
        fresh.wait(50)
    for load in (kept, fresh):
        assert not load.wrong, load.wrong[:5]
        assert not load.failed, load.failed[:5]


def on_disk(platform, gateway):
    """Whether the snapshot file has all that the registry has."""
    return gateway.metrics().get("tiergate_snapshot_revision") == platform.database.revision()


def test_reload(platform, gateway, tenant, loads):
    """Zone, counts, revision and stream are carried over: nothing is loaded anew."""
    for i in range(2):      # below revision 2 there may be nothing to resume from
        tenant.put("routes", "extra", route("extra", path=f"/before{i}"))
    # a leader resumes from what its predecessor has written: see to it that there is
    until(lambda: on_disk(platform, gateway), "the snapshot")
    lists = gateway.metrics().get("tiergate_lists_total")
    boot = platform.status(gateway)["boot"]
    for i in range(5):
        old = set(gateway.workers)
        gateway.reload()
        loads[0].wait(40)
        until(lambda: not old & set(gateway.workers), "the end of the old workers")
        tenant.put("routes", "extra", route("extra", path=f"/extra{i}"))
        assert tenant.get(f"/extra{i}").status == 200
    assert gateway.metrics().get("tiergate_lists_total") == lists
    assert platform.status(gateway)["boot"] == boot
    assert platform.status(gateway)["state"] == "live"


def test_reloads_in_quick_succession(platform, gateway, tenant, loads):
    for _ in range(10):
        gateway.kill(signal.SIGHUP)
    loads[0].wait(100)
    tenant.put("routes", "quick", route("quick", path="/quick"))
    assert tenant.get("/quick").status == 200


def test_changes_while_reloading(platform, gateway, tenant, loads):
    """Two cycles overlap: changes reach both, and never an older one after a newer."""
    for i in range(1, 31):
        if i % 5 == 0:
            gateway.kill(signal.SIGHUP)
        platform.database.execute("UPDATE tiergate.routes SET rewrite = 'replace_path', rewrite_value = %s "
                                  "WHERE tenant = %s AND name = 'all'", [f"/{i}", tenant.name])
        platform.wait()
        for _ in range(2):
            assert tenant.reached(key=tenant.key).target == f"/{i}"


def test_refused_configuration_changes_nothing(platform, gateway, tenant, loads):
    config = gateway.path / "nginx.conf"
    good = config.read_text()
    # those of earlier reloads must be gone
    until(lambda: len(gateway.workers) == gateway.options["workers"], "two workers")
    old = sorted(gateway.workers)
    gateway.log.allow(r"\[emerg\].*(nonsense|tenant_zone)")
    try:
        for bad in (good.replace("tenant_zone", "nonsense; tenant_zone"),
                    good.replace("tenant_zone registry", "tenant_zone other 4m; tenant_zone registry")):
            config.write_text(bad)
            mark = gateway.log.mark()
            gateway.kill(signal.SIGHUP)
            gateway.log.wait(r"\[emerg\]", mark)
            assert sorted(gateway.workers) == old
            assert tenant.get(key=tenant.key).status == 200
    finally:
        config.write_text(good)
    gateway.reload()
    tenant.put("routes", "after", route("after", path="/after"))
    assert tenant.get("/after").status == 200


def test_requests_in_flight_end_with_their_old_worker(platform, gateway, tenant):
    """Slow answers, uploads and WebSockets go on in the old workers; suspension ends
    them there, too."""
    platform.psql(f"UPDATE tiergate.routes SET rewrite = NULL, rewrite_value = NULL WHERE tenant = '{tenant.name}'")
    slow, upload = gateway.connect(), gateway.connect()
    slow.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")], key=tenant.key)))
    upload.send(wire.compose("POST", "/", tenant.headers([("Content-Length", "10")], key=tenant.key)) + b"half ")
    socket = WebSocket(gateway.address, tenant.host, headers=[("X-API-Key", tenant.key)])
    assert socket.echo("before") == "before"
    until(lambda: platform.backend.held == 1, "the held request")
    old = set(gateway.workers)
    gateway.reload()
    assert socket.echo("after") == "after"
    upload.send(b"done.")
    assert upload.response().json()["body"] == "half done."
    platform.backend.release()
    assert slow.response().status == 200
    assert socket.echo("still") == "still"
    assert old & set(gateway.workers), "the old worker of the WebSocket"

    other = platform.onboard(routes=[route(websocket=True)])
    platform.database.execute("SELECT tiergate.suspend(%s)", [tenant.name])
    committed = time.monotonic()
    assert socket.ended(10) is not None and time.monotonic() - committed < 10       # of the 30 that old workers have
    tenant.resume()
    until(lambda: not old & set(gateway.workers), "the end of the old workers")
    assert other.get().status == 200
    for connection in (slow, upload, socket):
        connection.close()


def upgrade(gateway):
    """USR2, WINCH, QUIT, as nginx documents it."""
    old = gateway.master
    os.kill(old, signal.SIGUSR2)
    new = until(lambda: (pid := gateway.master) and pid != old and process.children(pid) and pid,
                "the new master")
    until(lambda: len(process.children(new)) >= gateway.options["workers"], "the new workers")
    return old, new


def test_binary_upgrade(platform, gateway, tenant, loads):
    before = platform.status(gateway)["boot"]
    for i in range(2):
        old, new = upgrade(gateway)
        loads[1].wait(60)
        os.kill(old, signal.SIGWINCH)
        until(lambda: not process.children(old) or process.children(old) == [new], "the old workers' end", 30)
        loads[1].wait(60)
        os.kill(old, signal.SIGQUIT)
        process.reap(old)
        loads[1].wait(60)
        platform.wait()
        tenant.put("routes", "upgraded", route("upgraded", path=f"/upgraded{i}"))
        assert tenant.get(f"/upgraded{i}").status == 200
        assert gateway.master == new
    assert platform.status(gateway)["state"] == "live"
    assert before


def test_binary_upgrade_taken_back(platform, gateway, tenant, loads):
    """WINCH, then second thoughts: HUP to the old master, QUIT to the new."""
    old, new = upgrade(gateway)
    os.kill(old, signal.SIGWINCH)
    until(lambda: not [p for p in process.children(old) if p != new], "the old workers' end", 30)
    loads[1].wait(60)
    os.kill(old, signal.SIGHUP)
    until(lambda: len([p for p in process.children(old) if p != new]) >= 2, "workers of the old master")
    loads[1].wait(30)
    os.kill(new, signal.SIGQUIT)
    process.reap(new, 30)
    until(lambda: gateway.master == old, "the old pid file")
    loads[1].wait(60)
    tenant.put("routes", "back", route("back", path="/back"))
    assert tenant.get("/back").status == 200


def counted_on_disk(gateway, tenant):
    """Requests of a tenant's one calendar quota, as its last record on disk has it:
    the lower 40 bits of the word."""
    path = pathlib.Path(f"{gateway.snapshot}.counts")
    records = [json.loads(line)[-1] for line in path.read_text().splitlines()[1:]] if path.exists() else []
    words = [record["words"] for record in records if record.get("tenant") == tenant.name]
    return int(words[-1][0][1], 16) & ((1 << 40) - 1) if words else 0


def counts_are_held(gateway):
    """Whether a master has the file."""
    with open(f"{gateway.snapshot}.counts.lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True


def test_calendar_counts_survive_the_upgrade(platform, gateway):
    """A new binary has new shared memory.  What the old one has counted by then comes
    along with the file, and what it counts while both serve, when it gives the file up:
    nothing is lost, nothing is counted twice."""
    tenant = platform.onboard(quotas=[quota(limit=60, window="day")])
    for i in range(2):
        done = counted_on_disk(gateway, tenant)
        # the present master has the file: it tries for it once a second
        assert tenant.get().status == 200
        until(lambda: counted_on_disk(gateway, tenant) == done + 1, "the first count on disk")
        # the others are on disk when the new master starts, or not
        assert [tenant.get().status for _ in range(5)] == [200] * 5
        if i:
            until(lambda: counted_on_disk(gateway, tenant) == done + 6, "the counts on disk")
        old, new = upgrade(gateway)
        assert [tenant.get().status for _ in range(20)] == [200] * 20      # by one or the other
        os.kill(old, signal.SIGQUIT)
        process.reap(old, 30)
        # the new one takes the file within a second, with what the old one has written to it; then
        # its leader comes to the next change
        until(lambda: counts_are_held(gateway), "the new master to have the file")
        tenant.put("routes", "later", route("later", path=f"/later/{i}"))
        until(lambda: counted_on_disk(gateway, tenant) == done + 26,
              lambda: f"{done + 26} counts on disk, not {counted_on_disk(gateway, tenant)}")
    assert [tenant.get().status for _ in range(12)].count(200) == 60 - 52


def test_another_size_of_the_zone(platform, gateway, tenant, loads):
    """An empty zone, filled from the snapshot and the stream, while requests run."""
    gateway.configure(zone="12m")
    gateway.reload()
    loads[1].wait(60)
    platform.wait()
    until(lambda: gateway.metrics().get("tiergate_zone_size_bytes") > 9 << 20, "the new zone")
    tenant.put("routes", "resized", route("resized", path="/resized"))
    assert tenant.get("/resized").status == 200


def zones_mapped(pid):
    """Shared memory that a process has mapped: (mappings, bytes)."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as lines:
        sizes = [int(end, 16) - int(start, 16) for start, end in
                 (line.split()[0].split("-") for line in lines if "/dev/zero" in line)]
    return len(sizes), sum(sizes)


def test_zones_leave_nothing_mapped(platform, gateway, tenant):
    """The registry is mapped twice, for large pages; both go with the last cycle that has it."""
    gateway.reload()
    before = zones_mapped(gateway.master)
    old = gateway.options["zone"]
    for size in ("16m", old, "20m", old):
        gateway.configure(zone=size)
        gateway.reload()
        # another zone starts from the snapshot
        until(lambda: tenant.get(key=tenant.key).status == 200, "the tenants in the zone")
    until(lambda: zones_mapped(gateway.master) == before, "the mappings of the first zone, and no more")


def large_pages(pid):
    """KiB of shared memory that a process has mapped as large pages."""
    with open(f"/proc/{pid}/smaps", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("ShmemPmdMapped:"))


def threads(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


@pytest.mark.skipif(tuple(map(int, os.uname().release.split(".")[:2])) < (6, 1), reason="MADV_COLLAPSE is of Linux 6.1")
def test_large_pages(platform, gateway, tenant, loads):
    """What tenants fill becomes large pages; workers stay programs without threads, and leave no process."""
    gateway.configure(zone="24m")
    gateway.reload()
    many = [{"name": f"many{i}", "hosts": [f"many{i}.example.com"],
             "upstreams": [{"name": "main", "endpoints": [{"address": "127.0.0.1", "port": 9}]}],
             "routes": [{"name": "all", "auth": {"mode": "required"}, "backends": [{"upstream": "main"}]}]}
            for i in range(8000)]
    answer = platform.rest.request("POST", "/v1/import", "\n".join(map(json.dumps, many)).encode(),
                                   {"Content-Type": "application/jsonl"})
    assert answer.status == 200 and answer.text.count('"status":201') == len(many), answer.text[:300]
    platform.wait()
    loads[1].wait(60)

    def mapped():
        """Pages of another size come with the next touch; where memory is in no one piece, they are tried again."""
        for i in range(0, len(many), 250):
            gateway.request("GET", "/", [("Host", f"many{i}.example.com")])
        return any(large_pages(pid) >= 2048 for pid in gateway.workers)
    until(mapped, "large pages where tenants are", 60)
    until(lambda: len(gateway.workers) == gateway.options["workers"], "the end of the old workers")
    assert [threads(pid) for pid in gateway.workers] == [1] * gateway.options["workers"]
    assert [pid for worker in gateway.workers for pid in process.children(worker)] == []


def test_more_and_fewer_workers(platform, gateway, tenant, loads):
    for workers in (4, 1, 2):
        gateway.configure(workers=workers)
        gateway.reload()
        until(lambda: len(gateway.workers) == workers, f"{workers} workers", 30)
        loads[0].wait(40)
        tenant.put("routes", "workers", route("workers", path=f"/workers{workers}"))
        assert tenant.get(f"/workers{workers}").status == 200


def test_graceful_end(platform):
    """QUIT: what is in flight is answered, then all is gone."""
    gateway = platform.gateway(workers=2)
    tenant = platform.onboard(gateway=gateway)
    with gateway.connect() as connection:
        connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
        until(lambda: platform.backend.held == 1, "the held request")
        pids = [gateway.master, *gateway.workers]
        gateway.kill(signal.SIGQUIT)
        until(lambda: not gateway.accepts(), "the end of accepting")
        platform.backend.release()
        assert connection.response().status == 200
    gateway.process.wait(20)
    assert not [pid for pid in pids if process.alive(pid)]
    platform.retire(gateway)


def test_idle_workers_end_at_once(platform):
    """Timers and streams of ours do not keep a worker that is told to end."""
    gateway = platform.gateway(workers=2)
    began = time.monotonic()
    gateway.kill(signal.SIGQUIT)
    gateway.process.wait(20)
    assert time.monotonic() - began < 9
    platform.retire(gateway)
