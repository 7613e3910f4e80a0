# SPDX-License-Identifier: BSD-2-Clause
"""Flow 2, docs/flows/change.md: psql or REST, revision at commit, stream, zone, ack."""

import json
import threading
import time

import pytest

from support import wire
from support.platform import quota, route
from support.poll import until


def unchanged(gateway):
    """Pids of master and workers: none of our changes may touch them."""
    return gateway.master, sorted(gateway.workers)


@pytest.fixture(autouse=True)
def no_reload(gateway):
    before = unchanged(gateway)
    yield
    assert unchanged(gateway) == before
    assert "reconfiguring" not in gateway.log.text


def test_update_in_psql_is_enforced(platform, onboard):
    tenant = onboard(quotas=[quota("requests", limit=1000, window="3600s")])
    assert [tenant.get().status for _ in range(5)] == [200] * 5
    platform.psql(f"UPDATE tiergate.quotas SET requests = 1, burst = 0 WHERE tenant = '{tenant.name}'")
    assert 429 in [tenant.get().status for _ in range(3)]
    platform.psql(f"UPDATE tiergate.quotas SET requests = 100000, burst = 1000 WHERE tenant = '{tenant.name}'")
    assert [tenant.get().status for _ in range(20)] == [200] * 20


def test_the_functions_as_printed_in_the_manual(platform, onboard):
    """DESIGN section 3, word for word but for the names."""
    acme = onboard("acme", routes=[route(), route("orders", path="/orders")])
    platform.psql("SELECT tiergate.set_quota('acme', requests => 5000, per => '1 minute');")
    assert "q=5000" in acme.get().headers["ratelimit-policy"]
    platform.psql("SELECT tiergate.set_quota('acme', route => 'orders', requests => 50, per => '1 second', burst => 20);")
    policy = acme.get("/orders").headers["ratelimit-policy"]
    assert "q=5000" in policy and "q=50" in policy
    platform.psql("SELECT tiergate.grant_boost('acme', factor => 3, until => now() + interval '2 hours');")
    assert acme.get().status == 200
    platform.psql("SELECT tiergate.suspend('acme', reason => 'unpaid');")
    response = acme.get()
    assert response.status == 403 and "unpaid" in response.json()["detail"]
    platform.psql("SELECT tiergate.resume('acme');")
    acme.get()

    def live():
        rows = platform.database.psql("SELECT * FROM tiergate.quota_status WHERE tenant = 'acme';")[1]
        return "5000" in rows or "15000" in rows
    until(live, "quota_status")
    platform.psql("UPDATE tiergate.quotas SET requests = 100 WHERE tenant = 'acme' AND per = interval '1 minute';")
    assert "q=100" in acme.get().headers["ratelimit-policy"] or "q=300" in acme.get().headers["ratelimit-policy"]


def test_boost(platform, onboard):
    tenant = onboard(quotas=[quota(limit=2, window="3600s", burst=2)])
    assert [tenant.get().status for _ in range(4)].count(200) == 2
    fresh = onboard(quotas=[quota(limit=2, window="day")])
    platform.psql(f"SELECT tiergate.grant_boost('{fresh.name}', factor => 3, until => now() + interval '1 hour');")
    assert [fresh.get().status for _ in range(9)].count(200) == 6
    brief = onboard(quotas=[quota(limit=2, window="day")])
    platform.psql(f"SELECT tiergate.grant_boost('{brief.name}', factor => 100, until => now() + interval '10 seconds');")
    assert [brief.get().status for _ in range(10)] == [200] * 10
    until(lambda: brief.get().status == 429, "the boost's end")


def test_quota_status_is_live(platform, onboard):
    """limit, used, remaining and throttled, to about a second."""
    tenant = onboard(quotas=[quota("day", limit=10, window="day")])
    for _ in range(4):
        tenant.get()

    def status():
        rows = platform.database.execute(
            'SELECT "limit", used, remaining, throttled FROM tiergate.quota_status WHERE tenant = %s',
            [tenant.name])
        return tuple(rows[0]) if rows else None
    until(lambda: status() == (10, 4, 6, 0), lambda: f"4 used of 10: {status()}")
    for _ in range(9):
        tenant.get()
    until(lambda: status() == (10, 10, 0, 3), lambda: f"10 used, 3 throttled: {status()}")


def test_audited_in_the_same_transaction(platform, onboard):
    tenant = onboard(quotas=[quota("requests", limit=1000, window="60s")])
    before = platform.database.revision()
    with platform.database.connect() as connection:
        connection.execute("UPDATE tiergate.quotas SET requests = 77 WHERE tenant = %s", [tenant.name])
        connection.execute("INSERT INTO tiergate.hosts (host, tenant) VALUES (%s, %s)",
                           [f"second.{tenant.host}", tenant.name])
        # inside, before the commit
        rows = connection.execute("SELECT action, object, old, new FROM tiergate.audit WHERE tenant = %s "
                                  "AND xid = pg_current_xact_id() ORDER BY id", [tenant.name]).fetchall()
        assert [row[:2] for row in rows] == [("update", "quotas"), ("insert", "hosts")]
        assert rows[0][2] == {"requests": 1000} and rows[0][3] == {"requests": 77}
        # and nobody else sees any of it
        assert platform.database.one("SELECT count(*) FROM tiergate.audit WHERE tenant = %s AND object = 'quotas' "
                                     "AND action = 'update'", [tenant.name]) == 0
    platform.wait()
    rows = platform.database.execute(
        "SELECT a.db_role, a.actor, c.revision FROM tiergate.audit a JOIN tiergate.changes c USING (xid) "
        "WHERE a.tenant = %s AND a.action = 'update' AND a.object = 'quotas'", [tenant.name])
    assert len(rows) == 1
    assert rows[0][0] == "postgres" and rows[0][1] is None and rows[0][2] == before + 1
    assert tenant.request("GET", "/", {"Host": f"second.{tenant.host}"}).status == 200


def test_audited_over_rest_alike(platform, onboard):
    tenant = onboard(quotas=[quota("requests", limit=1000, window="60s")])
    tenant.put("quotas", "requests", quota("requests", limit=55, window="60s"))
    rows = platform.database.execute(
        "SELECT actor, old->'requests', new->'requests', request_id FROM tiergate.audit "
        "WHERE tenant = %s AND object = 'quotas' AND action = 'update'", [tenant.name])
    assert len(rows) == 1
    assert rows[0][0] and rows[0][1:3] == (1000, 55) and rows[0][3]
    listed = platform.rest.call("GET", f"{tenant.path}/audit")
    assert any(entry.get("object") == "quotas" for entry in listed["items"])


def test_one_switch_per_transaction(platform, onboard):
    """Two routes are changed together, again and again.  Whoever asks one and then
    the other never sees the second older than the first."""
    def at(version):
        return {"type": "replace_path", "value": f"/{version}"}
    tenant = onboard(routes=[route("a", path="/a", rewrite=at(0)), route("b", path="/b", rewrite=at(0))])
    stop, wrong, seen = threading.Event(), [], set()

    def watch():
        with tenant.gateway.connect() as connection:
            newest = 0
            while not stop.is_set():
                for path in ("/a", "/b"):
                    response = connection.request("GET", path, tenant.headers())
                    version = int(response.json()["target"][1:])
                    if version < newest:
                        wrong.append((path, version, newest))
                    newest = max(newest, version)
                    seen.add(version)
    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for thread in watchers:
        thread.start()
    try:
        with platform.database.connect() as connection:
            for version in range(1, 41):
                # the order alternates: neither is always first
                for name in ("ab" if version % 2 else "ba"):
                    connection.execute("UPDATE tiergate.routes SET rewrite_value = %s "
                                       "WHERE tenant = %s AND name = %s", [f"/{version}", tenant.name, name])
                connection.commit()
                if version == 20:
                    until(lambda: len(seen) > 1, "a version on the way")
        platform.wait()
        until(lambda: 40 in seen, "the last version")
    finally:
        stop.set()
        for thread in watchers:
            thread.join()
    assert not wrong, wrong[:5]
    assert len(seen) > 2


def test_ten_rows_are_one_revision(platform, onboard):
    tenant = onboard()
    before = platform.database.revision()
    with platform.database.connect() as connection:
        for i in range(5):
            connection.execute("INSERT INTO tiergate.hosts (host, tenant) VALUES (%s, %s)",
                               [f"h{i}.{tenant.host}", tenant.name])
            connection.execute("INSERT INTO tiergate.consumers (tenant, name) VALUES (%s, %s)",
                               [tenant.name, f"c{i}"])
    assert platform.database.revision() == before + 1
    platform.wait()
    assert tenant.request("GET", "/", {"Host": f"h4.{tenant.host}"}).status == 200


def test_a_rollback_is_never_seen(platform, onboard):
    tenant = onboard()
    with platform.database.connect() as connection:
        connection.execute("UPDATE tiergate.tenants SET state = 'suspended' WHERE name = %s", [tenant.name])
        connection.rollback()
    other = onboard()
    assert other.get().status == 200 and tenant.get().status == 200
    assert platform.database.one("SELECT count(*) FROM tiergate.changes WHERE revision IS NULL") == 0


def test_an_idle_transaction_delays_nobody(platform, onboard):
    """psql, BEGIN, UPDATE, lunch."""
    lunch, others = onboard(), [onboard() for _ in range(3)]
    idle = platform.database.connect()
    try:
        idle.execute("UPDATE tiergate.tenants SET reason = 'lunch' WHERE name = %s", [lunch.name])
        idle.execute("INSERT INTO tiergate.hosts (host, tenant) VALUES (%s, %s)",
                     [f"lunch.{lunch.host}", lunch.name])
        for tenant in others:
            tenant.put("routes", "extra", route("extra", path="/extra"))
            assert tenant.get("/extra").status == 200
        assert lunch.request("GET", "/", {"Host": f"lunch.{lunch.host}"}).status == 404
        idle.commit()
    finally:
        idle.close()
    platform.wait()
    assert lunch.request("GET", "/", {"Host": f"lunch.{lunch.host}"}).status == 200


def test_revisions_are_never_seen_out_of_order(platform, onboard):
    """Writers in parallel; a reader of the registry never meets a revision that is
    smaller than one it has already read past."""
    tenants = [onboard(wait=False) for _ in range(4)]
    stop, problems = threading.Event(), []

    def write(tenant):
        with platform.database.connect() as connection:
            i = 0
            while not stop.is_set():
                i += 1
                connection.execute("UPDATE tiergate.tenants SET display_name = %s WHERE name = %s",
                                   [str(i), tenant.name])
                connection.commit()

    writers = [threading.Thread(target=write, args=[tenant]) for tenant in tenants]
    for thread in writers:
        thread.start()
    try:
        last, end = platform.database.revision(), time.monotonic() + 2
        first = last
        with platform.database.connect(autocommit=True) as connection:
            while time.monotonic() < end or (last <= first + 20 and time.monotonic() < end + 30):
                rows = [row[0] for row in connection.execute(
                    "SELECT DISTINCT revision FROM tiergate.changes WHERE revision > %s ORDER BY 1", [last])]
                if rows and rows != list(range(last + 1, rows[-1] + 1)):
                    problems.append((last, rows))
                last = rows[-1] if rows else last
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    assert not problems, problems[:3]
    assert last > first + 20
    platform.wait()


def test_many_changes_quickly(platform, onboard):
    """The last state wins, and it is the one that is served."""
    tenant = onboard(routes=[route(rewrite={"type": "replace_path", "value": "/0"})])
    with platform.database.connect(autocommit=True) as connection:
        for i in range(1, 201):
            connection.execute("UPDATE tiergate.routes SET rewrite_value = %s WHERE tenant = %s",
                               [f"/{i}", tenant.name])
    platform.wait()
    assert tenant.reached("/").target == "/200"


def test_acknowledged_means_enforced(platform, onboard):
    """As soon as the acknowledgement is there, no worker decides by the old version."""
    tenant = onboard(routes=[route(rewrite={"type": "replace_path", "value": "/0"})])
    connections = [tenant.gateway.connect() for _ in range(4)]
    for i in range(1, 16):
        tenant.put("routes", "all", route(rewrite={"type": "replace_path", "value": f"/{i}"}))
        for connection in connections:
            assert connection.request("GET", "/", tenant.headers()).json()["target"] == f"/{i}"
    for connection in connections:
        connection.close()


def test_observed_revision(platform, onboard):
    tenant = onboard()
    response = platform.rest.request("PATCH", tenant.path, {"display_name": "New"},
                                     {"Content-Type": "application/merge-patch+json"})
    assert response.status == 200, response
    revision = int(response.headers["etag"].strip('"'))
    platform.wait(revision)
    shown = platform.rest.call("GET", tenant.path)
    assert shown["revision"] == revision
    assert shown["observedRevision"][tenant.gateway.name] >= revision


def test_bad_dml_is_refused_as_over_rest(platform, onboard):
    import psycopg
    tenant = onboard()
    before = platform.database.revision()
    for statement, parameters in [
            ("UPDATE tiergate.routes SET path = 'no-slash' WHERE tenant = %s", [tenant.name]),
            ("INSERT INTO tiergate.hosts (host, tenant) VALUES ('UPPER.example.com', %s)", [tenant.name]),
            ("INSERT INTO tiergate.quotas (tenant, name, requests, per) VALUES (%s, 'x', -1, '1 minute')",
             [tenant.name]),
            ("UPDATE tiergate.tenants SET state = 'confused' WHERE name = %s", [tenant.name]),
            ("DELETE FROM tiergate.upstreams WHERE tenant = %s", [tenant.name])]:
        with pytest.raises(psycopg.Error):
            platform.database.execute(statement, parameters)
    assert platform.database.revision() == before
    assert tenant.get().status == 200


def test_etag_guards_against_lost_updates(platform, onboard):
    tenant = onboard()
    etag = platform.rest.request("GET", f"{tenant.path}/routes/all").headers["etag"]
    body = {key: value for key, value in route(auth="optional").items() if key != "name"}
    assert platform.rest.request("PUT", f"{tenant.path}/routes/all", body, {"If-Match": etag}).status == 200
    response = platform.rest.request("PUT", f"{tenant.path}/routes/all", body, {"If-Match": etag})
    assert response.status == 412
    assert response.headers["content-type"] == "application/problem+json"


def test_change_of_a_tenants_tier_waits_for_its_gateway(platform, onboard):
    """Nobody runs gateways here: the tenant stays served where it is."""
    tenant = onboard()
    assert tenant.get().status == 200
    platform.psql(f"UPDATE tiergate.tenants SET tier = 'dedicated' WHERE name = '{tenant.name}'")
    assert tenant.get().status == 200
    platform.psql(f"UPDATE tiergate.tenants SET tier = 'vcluster' WHERE name = '{tenant.name}'")
    assert tenant.get().status == 200


def test_commit_to_enforced(platform, onboard):
    """Not a benchmark: that it is a matter of milliseconds, not of a poll's second."""
    tenant = onboard(routes=[route(rewrite={"type": "replace_path", "value": "/0"})])
    took = []
    with tenant.gateway.connect() as connection:
        for i in range(1, 31):
            platform.database.execute("UPDATE tiergate.routes SET rewrite_value = %s WHERE tenant = %s",
                                      [f"/{i}", tenant.name])
            began = time.monotonic()
            until(lambda: connection.request("GET", "/", tenant.headers()).json()["target"] == f"/{i}",
                  f"version {i}", every=0)
            took.append(time.monotonic() - began)
    took.sort()
    print(f"commit to enforced: median {took[15] * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms")
    assert took[15] < 0.5


def test_three_gateways(platform, onboard):
    """Each acknowledges for itself, and all enforce."""
    more = [platform.gateway(workers=1) for _ in range(2)]
    tenant = onboard()
    for gateway in [tenant.gateway, *more]:
        assert gateway.request("GET", "/", tenant.headers()).status == 200
    tenant.suspend()
    for gateway in [tenant.gateway, *more]:
        assert gateway.request("GET", "/", tenant.headers()).status == 403
    shown = platform.rest.call("GET", tenant.path)["observedRevision"]
    assert {gateway.name for gateway in [tenant.gateway, *more]} <= set(shown)
    for gateway in more:
        platform.retire(gateway)


def test_a_second_tenantd_on_the_same_database(platform, onboard):
    """Changes made through one reach gateways that hang on the other."""
    from support.tenantd import Tenantd
    second = Tenantd(platform.database, platform.path / "second")
    try:
        from support.platform import Rest
        tenant = onboard()
        rest = Rest(second.socket)
        rest.call("POST", f"{tenant.path}/suspend", {"reason": "by the second"})
        platform.wait()
        assert tenant.get().status == 403
        rest.call("POST", f"{tenant.path}/resume")
        platform.wait()
        assert tenant.get().status == 200
        rest.close()
    finally:
        second.stop()
    assert not second.log.bad()


def test_the_document_of_rest_is_what_the_gateway_got(platform, onboard):
    tenant = onboard()
    shown = platform.rest.call("GET", f"{tenant.path}/document")
    snapshot = tenant.gateway.snapshot

    def stored():
        lines = [json.loads(line) for line in snapshot.read_text().splitlines()[1:]]
        mine = [line[-1]["object"] for line in lines
                if line[1] == "PUT" and line[2] == "tenant" and line[3] == shown["id"]]
        return mine and mine[-1] == shown
    until(stored, "the tenant in the snapshot")
