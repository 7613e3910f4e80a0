# SPDX-License-Identifier: BSD-2-Clause
"""kill -9 of everything in turn, under load: no wrong verdict, no lost change."""

import json
import os
import signal
import threading

import psycopg
import pytest

from support import process, wire
from support.fake import document
from support.load import Load
from support.platform import Refused, Rest, quota, route, upstream
from support.poll import until
from support.tokens import Issuer

GATEWAY = {"workers": 3}


@pytest.fixture(scope="module")
def gateway(platform):
    gateway = platform.gateway(**GATEWAY)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    return gateway


@pytest.fixture(scope="module")
def cast(platform, gateway):
    """Tenants whose verdicts never change, whatever is killed."""
    issuer = Issuer()
    open_ = platform.onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    suspended = platform.onboard()
    suspended.suspend()
    spent = platform.onboard(quotas=[quota(limit=2, window="86399s")])      # no midnight is far enough from all tests
    while spent.get().status == 200:
        pass
    return open_, suspended, spent, issuer


def probes(cast):
    open_, suspended, spent, issuer = cast

    def get(tenant, **more):
        return wire.compose("GET", "/", tenant.headers(**more))
    return [("key", get(open_, key=open_.key), {200}),
            ("token", get(open_, token=issuer.token()), {200}),
            ("nobody", get(open_), {401}),
            ("suspended", get(suspended), {403}),
            ("spent", get(spent), {429}),
            ("unknown", wire.compose("GET", "/", {"Host": "nobody.example.com"}), {404})]


@pytest.fixture
def load(cast, gateway):
    # "nobody" brings no credential, which is no failure that an address is held to
    with Load(gateway.address, probes(cast), threads=4) as load:
        load.wait(60)
        yield load
        load.wait(60)
    assert not load.wrong, load.wrong[:5]
    assert {name for name, _ in load.counts} == {"key", "token", "nobody", "suspended", "spent", "unknown"}


def respawned(gateway, before, count):
    until(lambda: len([pid for pid in gateway.workers if pid not in before]) >= count
          and len(gateway.workers) == gateway.options["workers"], "the successors")


def checked_change(platform, onboard):
    """A change now, served everywhere."""
    tenant = onboard()
    assert tenant.get().status == 200
    tenant.suspend()
    for _ in range(6):
        assert tenant.get().status == 403


@pytest.mark.parametrize("which", ["first", "last", "all"])
def test_killed_workers(platform, gateway, load, onboard, which):
    for _ in range(3):
        before = sorted(gateway.workers)
        victims = {"first": before[:1], "last": before[-1:], "all": before}[which]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        respawned(gateway, before, len(victims))
        load.wait(60)
    checked_change(platform, onboard)


def test_worker_killed_while_changes_flow(platform, gateway, load, onboard):
    """The writer of the zone dies in the middle of whatever it was writing."""
    tenants = [onboard(wait=False) for _ in range(4)]
    stop = threading.Event()
    changes = 0

    def change():
        nonlocal changes
        with platform.database.connect(autocommit=True) as connection:
            while not stop.is_set():
                i = changes + 1
                connection.execute("UPDATE tiergate.routes SET rewrite = 'replace_path', rewrite_value = %s "
                                   "WHERE tenant = %s", [f"/v{i}" + "x" * (i % 300), tenants[i % 4].name])
                changes = i
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(6):
            before, seen = gateway.workers, changes
            load.wait(40)
            until(lambda: changes >= seen + len(tenants), "a change of each tenant")
            os.kill(gateway.sync_worker, signal.SIGKILL)
            respawned(gateway, before, 1)
    finally:
        stop.set()
        thread.join()
    platform.wait()
    for tenant in tenants:
        expected = platform.database.one("SELECT rewrite_value FROM tiergate.routes WHERE tenant = %s",
                                         [tenant.name])
        for _ in range(4):
            assert tenant.reached().target == expected
    until(lambda: gateway.metrics().get("tiergate_zone_retired_objects") < 50, "old versions to go")


def test_killed_tenantd(platform, gateway, load, onboard):
    """While it is away requests go on; what was committed meanwhile arrives."""
    tenant = onboard()
    for _ in range(3):
        platform.tenantd.stop(signal.SIGKILL)
        platform.database.execute("SELECT tiergate.suspend(%s)", [tenant.name])
        load.wait(100)
        assert tenant.get().status == 200       # nobody could tell the gateway
        platform.tenantd.start()
        platform.rest.close()
        platform.wait()
        assert tenant.get().status == 403
        tenant.resume()
        assert tenant.get().status == 200


def test_tenantd_killed_while_changes_flow(platform, gateway, load, onboard):
    tenants = [onboard(wait=False) for _ in range(3)]
    stop, made = threading.Event(), {}

    def change():
        with platform.database.connect(autocommit=True) as connection:
            i = 0
            while not stop.is_set():
                i += 1
                name = tenants[i % 3].name
                connection.execute("UPDATE tiergate.routes SET rewrite = 'replace_path', rewrite_value = %s "
                                   "WHERE tenant = %s", [f"/v{i}", name])
                made[name] = f"/v{i}"
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            load.wait(60)
            platform.tenantd.stop(signal.SIGKILL)
            platform.tenantd.start()
    finally:
        stop.set()
        thread.join()
    platform.rest.close()
    platform.wait()
    for tenant in tenants:
        assert tenant.reached().target == made[tenant.name]


def test_killed_postgres(platform, postgres, gateway, load, onboard):
    """503 with Retry-After meanwhile; then it reconnects, listens again, and every
    change that was committed, before or after, is enforced."""
    tenants = [onboard() for _ in range(3)]
    for round in range(2):
        committed = []
        for tenant in tenants:
            platform.database.execute("UPDATE tiergate.routes SET rewrite = 'replace_path', rewrite_value = %s "
                                      "WHERE tenant = %s", [f"/r{round}", tenant.name])
            committed.append(tenant)
        postgres.kill9()
        load.wait(60)
        rest = Rest(platform.tenantd.socket)
        response = rest.request("GET", f"/v1/tenants/{tenants[0].name}")
        assert response.status == 503, response
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["content-type"] == "application/problem+json"
        assert rest.request("GET", "/v1/healthz").status == 200
        assert rest.request("GET", "/v1/readyz").status == 503
        rest.close()
        postgres.start()
        platform.database.execute("INSERT INTO tiergate.hosts (host, tenant) VALUES (%s, %s)",
                                  [f"after{round}.example.com", tenants[0].name])
        until(lambda: answers(platform), "tenantd to be back")
        platform.rest.close()
        platform.wait()
        for tenant in committed:
            assert tenant.reached().target == f"/r{round}"
        response = tenants[0].request("GET", "/", {"Host": f"after{round}.example.com"})
        assert response.status == 200


def answers(platform):
    rest = Rest(platform.tenantd.socket)
    try:
        return rest.request("GET", "/v1/readyz").status == 200
    except (OSError, wire.Closed):
        return False
    finally:
        rest.close()


def test_postgres_restarted_under_rest_load(platform, postgres, gateway, load):
    """Every answer is success or 503; what was confirmed is there, and what was not
    confirmed is there whole or not at all."""
    results, stop = {}, threading.Event()

    def onboard(turn):
        rest = Rest(platform.tenantd.socket)
        i = 0
        while not stop.is_set():
            i += 1
            name = f"restart-{turn}-{i}"
            try:
                status = rest.request("POST", "/v1/tenants", {
                    "name": name, "hosts": [f"{name}.example.com"],
                    "upstreams": [upstream(platform.backend.main)], "routes": [route()]}).status
            except (OSError, wire.Closed) as error:
                status = repr(error)
            results[name] = status
        rest.close()
    threads = [threading.Thread(target=onboard, args=[turn]) for turn in range(2)]
    for thread in threads:
        thread.start()
    try:
        for restart in (postgres.restart, lambda: (postgres.kill9(), postgres.start())):
            before = len(results)
            until(lambda: list(results.values())[before:].count(201) > 5, "onboardings")
            restart()
            before = len(results)
            until(lambda: list(results.values())[before:].count(201) > 5, "onboardings again")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(results.values()) <= {201, 503}, set(results.values())
    assert 503 in results.values()
    platform.rest.close()
    platform.wait()
    there = {row[0] for row in platform.database.execute(
        "SELECT name FROM tiergate.tenants WHERE name LIKE 'restart-%'")}
    confirmed = [name for name, status in results.items() if status == 201]
    assert set(confirmed) <= there, "a confirmed tenant was lost"
    for name in (confirmed[0], confirmed[-1], *there.difference(confirmed)):
        assert gateway.request("GET", "/", {"Host": f"{name}.example.com"}).status == 200


def test_everything_at_once(platform, postgres, gateway, load, onboard):
    """tenantd, PostgreSQL and all workers die together."""
    tenant = onboard()
    platform.database.execute("SELECT tiergate.suspend(%s)", [tenant.name])
    platform.tenantd.stop(signal.SIGKILL)
    postgres.kill9()
    before = gateway.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    respawned(gateway, before, len(before))
    load.wait(100)
    postgres.start()
    platform.tenantd.start()
    platform.rest.close()
    platform.wait()
    assert tenant.get().status == 403
    checked_change(platform, onboard)


def test_killed_gateway_starts_again(platform, onboard):
    """The master, too; the snapshot is whole because it always was."""
    gateway = platform.gateway(workers=2)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    tenant = onboard(gateway=gateway)
    # the last bookmark is what a start goes by
    until(lambda: gateway.metrics().get("tiergate_snapshot_revision") == platform.database.revision(), "the snapshot")
    for _ in range(2):
        pids = [gateway.master, *gateway.workers]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        gateway.process.wait(30)
        for pid in pids[1:]:
            process.reap(pid)
        gateway.start()
        until(lambda: gateway.ready()[0] == 200, "readiness")
        assert tenant.get().status == 200
    platform.wait(gateway=gateway)
    assert platform.status(gateway)["state"] == "live"
    platform.retire(gateway)


# --- a full zone ---

@pytest.fixture
def full(platform, gateway):
    """A gateway of the smallest zone, and tenants until it is full."""
    small = platform.gateway(zone="2m", workers=2, connections=128)
    small.log.allow("zone full|full")
    platform.gateways.remove(small)         # it may stay behind: nobody waits for it
    names, rejected = [], []
    for batch in range(60):
        lines = [json.dumps(big_tenant(f"full-{batch}-{i}", platform.backend.main)) for i in range(10)]
        assert platform.rest.request("POST", "/v1/import", "\n".join(lines).encode(),
                                     {"Content-Type": "application/jsonl"}).status == 200
        names += [f"full-{batch}-{i}" for i in range(10)]
        revision = platform.wait()
        until(lambda: platform.status(small).get("revision", 0) >= revision, "the small gateway")
        rejected = platform.status(small).get("rejected") or []
        if rejected:
            break
    assert rejected, "2 MiB were enough for 600 tenants?"
    yield small, names, rejected
    small.stop()
    assert not small.problems()
    for name in names:
        platform.rest.request("DELETE", f"/v1/tenants/{name}")
    platform.wait()


def big_tenant(name, endpoint):
    return {"name": name, "hosts": [f"{name}.example.com"], "upstreams": [upstream(endpoint)],
            "routes": [route(), *(route(f"r{i}", path=f"/r{i}") for i in range(20))],
            "quotas": [quota(limit=1000000, window="60s")]}


def test_full_zone(platform, gateway, full):
    """Refused and reported; requests go on; room that is made is used."""
    small, names, rejected = full

    def status(name):
        return small.request("GET", "/", {"Host": f"{name}.example.com"}).status

    assert all("full" in entry["reason"] for entry in rejected)

    def agreed():
        """What is not served if it is what was refused: one may have found room in between."""
        refused = {entry["name"] for entry in platform.status(small)["rejected"]}
        lost = [name for name in names if status(name) == 404]
        return (set(lost) == refused or len(refused) == 100) and lost
    lost = until(agreed, "what is refused to be what is not served")
    kept = [name for name in names if name not in lost]
    for name in kept[:5] + kept[-5:]:
        assert status(name) == 200
    assert "full" in small.log.text
    assert small.metrics().get("tiergate_zone_full_total") > 0
    shown = platform.rest.call("GET", f"/v1/tenants/{lost[0]}")
    assert "full" in shown["rejected"][small.name]

    # a version that does not fit: the last good one stays
    grown = kept[0]
    for i in range(200):
        platform.database.execute(
            "INSERT INTO tiergate.routes (tenant, name, path, auth, backends) SELECT %s, 'g'||n, '/g/'||n||repeat('x', 300), "
            "'none', '[{\"upstream\": \"main\", \"weight\": 1}]' FROM generate_series(%s::integer, %s::integer) n",
            [grown, i * 4, i * 4 + 3])
        if i % 20 == 19:
            revision = platform.database.revision()
            until(lambda: platform.status(small)["revision"] >= revision, "the small gateway")
            if grown in {entry["name"] for entry in platform.status(small)["rejected"]}:
                break
    else:
        raise AssertionError("it grew by 800 routes and still fits")
    assert status(grown) == 200

    # room for all of it again
    for name in kept[1:len(kept) * 3 // 4]:
        platform.rest.call("DELETE", f"/v1/tenants/{name}")
    platform.rest.call("DELETE", f"/v1/tenants/{grown}")
    until(lambda: not platform.status(small)["rejected"], lambda: str(platform.status(small))[:2000], 30)
    for name in lost[:10]:
        assert status(name) == 200


def test_churn_leaks_nothing(platform, onboard):
    """Hundreds of versions of a tenant need no more room than one."""
    gateway = platform.gateway(zone="4m", workers=2)
    tenant = onboard("churn", gateway=gateway,
                     routes=[route(), *(route(f"r{i}", path=f"/r{i}") for i in range(30))])
    used = []
    with Load(gateway.address, [("x", wire.compose("GET", "/", tenant.headers()), {200})], threads=2) as load:
        with platform.database.connect(autocommit=True) as connection:
            for batch in range(5):
                for i in range(80):
                    connection.execute("UPDATE tiergate.routes SET retries = %s WHERE tenant = 'churn'", [i % 5])
                revision = platform.wait()
                until(lambda: gateway.metrics().get("tiergate_zone_retired_objects") <= 4, "old versions to go")
                used.append(gateway.metrics().get("tiergate_zone_used_bytes"))
    assert not load.wrong and not load.failed
    assert max(used) - min(used) < 65536, used
    platform.retire(gateway)


def test_more_requests_than_connections(platform, onboard):
    """worker_connections are used up: refused by nginx, and afterwards all is well."""
    gateway = platform.gateway(workers=1, connections=40)
    gateway.log.allow("worker_connections are not enough")
    tenant = onboard(gateway=gateway)
    connections = []
    try:
        for _ in range(60):
            connection = gateway.connect(timeout=2)
            connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
            connections.append(connection)
    except OSError:
        pass
    platform.backend.release()
    for connection in connections:
        connection.close()
    until(lambda: quietly(tenant) == 200, "service again")
    checked = [tenant.get().status for _ in range(20)]
    assert checked == [200] * 20
    platform.retire(gateway)


def quietly(tenant):
    try:
        return tenant.get(timeout=3).status
    except (wire.Closed, OSError):
        return None
