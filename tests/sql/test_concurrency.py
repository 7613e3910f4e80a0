# SPDX-License-Identifier: BSD-2-Clause
"""Invariants that only several sessions can break."""

import json
import random
import threading

import psycopg
import pytest

from conftest import until


def one(session, query, *params):
    return session.execute(query, params).fetchone()[0]


def revision(session):
    return one(session, "SELECT revision FROM tiergate.registry_state()")


def onboard(session, name, **body):
    session.execute("SELECT tiergate.onboard(%s)", (json.dumps({"name": name, **body}),))


def waits_for_lock(session, pid):
    return one(session, "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", pid) == 1


def run_all(workers):
    """Runs callables in threads and raises the first exception of any."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:  # a thread's own would be lost
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_reader_of_later_revisions_loses_nothing(connect):
    """Writers commit in any order and sit in open transactions meanwhile; a reader
    that only ever asks for what came after its last revision sees every change."""
    setup = connect()
    tenants = [f"order-{n}" for n in range(8)]
    for tenant in tenants:
        onboard(setup, tenant, quotas=[{"name": "q", "limit": 1, "window": "1s"}])
    start = revision(setup)

    rounds = 40
    written = {}
    stop = threading.Event()

    def write(tenant):
        session = connect(autocommit=False)
        pick = random.Random(tenant)
        for n in range(1, rounds + 1):
            session.execute("UPDATE tiergate.quotas SET requests = %s WHERE tenant = %s", (n + 1, tenant))
            session.execute("SELECT pg_sleep(%s)", (pick.random() / 200,))
            session.commit()
        written[tenant] = rounds + 1

    seen = {}
    last = [start]
    order = []

    def read():
        session = connect()
        while True:
            done = stop.is_set()
            rows = session.execute("SELECT revision, name, document FROM tiergate.watch_since(%s, 3)",
                                   (last[0],)).fetchall()
            for rev, name, document in rows:
                order.append(rev)
                seen[name] = json.loads(document)["quotas"][0]["limit"]
            if rows:
                last[0] = rows[-1][0]
            elif done:
                return

    def write_all():
        run_all([lambda t=t: write(t) for t in tenants])
        stop.set()

    run_all([read, write_all])
    assert seen == written
    assert order == sorted(order)
    assert order[0] > start
    assert last[0] == revision(setup)


def test_revisions_become_visible_in_order(connect):
    """Whoever sees a revision sees every smaller one that there will ever be."""
    setup = connect()
    for n in range(4):
        onboard(setup, f"visible-{n}", quotas=[{"name": "q", "limit": 1, "window": "1s"}])
    stop = threading.Event()
    snapshots = []

    def write(n):
        session = connect(autocommit=False)
        for limit in range(2, 60):
            session.execute("UPDATE tiergate.quotas SET requests = %s WHERE tenant = %s", (limit, f"visible-{n}"))
            session.commit()

    def watch():
        session = connect()
        while not stop.is_set():
            snapshots.append(frozenset(r for (r,) in session.execute("SELECT revision FROM tiergate.changes")))

    def write_all():
        run_all([lambda n=n: write(n) for n in range(4)])
        stop.set()

    run_all([watch, write_all])
    everything = {r for (r,) in setup.execute("SELECT revision FROM tiergate.changes")}
    assert len(snapshots) > 3
    for snapshot in snapshots:
        assert {r for r in everything if r <= max(snapshot)} == snapshot


def test_a_drawn_revision_keeps_later_ones_back(connect):
    """Whoever has drawn a revision and not committed is waited for: a later one would be seen first."""
    setup, a, b = connect(), connect(autocommit=False), connect()
    for name in ("drawn-a", "drawn-b"):
        onboard(setup, name)
    before = revision(setup)
    a.execute("UPDATE tiergate.tenants SET display_name = 'a' WHERE name = 'drawn-a'")
    a.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert one(a, "SELECT max(revision) FROM tiergate.changes WHERE name = 'drawn-a'") == before + 1

    thread = threading.Thread(target=lambda: b.execute(
        "UPDATE tiergate.tenants SET display_name = 'b' WHERE name = 'drawn-b'"))
    thread.start()
    try:
        until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the revision lock")
        assert revision(setup) == before
    finally:
        a.commit()
        thread.join()
    assert setup.execute("SELECT revision, name FROM tiergate.changes WHERE revision > %s ORDER BY 1", (before,)).fetchall() \
        == [(before + 1, "drawn-a"), (before + 2, "drawn-b")]


def test_idle_in_transaction_delays_nobody(connect):
    """A psql that was left open after an UPDATE holds neither a lock that others
    need nor a revision."""
    idle = connect(autocommit=False)
    other = connect()
    onboard(other, "idle", quotas=[{"name": "q", "limit": 1, "window": "1s"}, {"name": "p", "limit": 1, "window": "2s"}])
    onboard(other, "busy")
    before = revision(other)

    idle.execute("UPDATE tiergate.quotas SET requests = 5 WHERE tenant = 'idle' AND name = 'q'")
    idle.execute("INSERT INTO tiergate.hosts VALUES ('idle.example.com', 'idle'), ('*.idle.example.com', 'idle')")

    other.execute("SET statement_timeout = '20s'")
    # another tenant, the same tenant, and a new one: all of them go through
    other.execute("UPDATE tiergate.tenants SET display_name = 'b' WHERE name = 'busy'")
    other.execute("UPDATE tiergate.quotas SET requests = 7 WHERE tenant = 'idle' AND name = 'p'")
    other.execute("UPDATE tiergate.tenants SET display_name = 'i' WHERE name = 'idle'")
    onboard(other, "idle-new", hosts=["new.example.com"])
    assert revision(other) == before + 4

    idle.commit()
    assert revision(other) == before + 5
    assert other.execute("SELECT name, revision FROM tiergate.watch_since(%s, 10)", (before + 4,)).fetchall() \
        == [("idle", before + 5)]


def test_one_transaction_is_one_switch(connect):
    """A reader sees all of a transaction or nothing, and once."""
    writer = connect(autocommit=False)
    reader = connect()
    onboard(reader, "switch", upstreams=[{"name": "v1"}], routes=[{"name": "r", "backends": [{"upstream": "v1"}]}])
    before = revision(reader)
    document = one(reader, "SELECT tiergate.tenant_document('switch')")

    writer.execute("INSERT INTO tiergate.upstreams (tenant, name) VALUES ('switch', 'v2')")
    writer.execute("UPDATE tiergate.routes SET backends = '[{\"upstream\": \"v2\"}]' WHERE tenant = 'switch'")
    writer.execute("DELETE FROM tiergate.upstreams WHERE tenant = 'switch' AND name = 'v1'")
    writer.execute("SELECT tiergate.set_quota('switch', requests => 5)")
    writer.execute("INSERT INTO tiergate.hosts VALUES ('switch.example.com', 'switch')")
    assert revision(reader) == before
    assert one(reader, "SELECT tiergate.tenant_document('switch')") == document
    writer.commit()

    assert revision(reader) == before + 1
    rows = reader.execute("SELECT revision, op, document FROM tiergate.watch_since(%s, 100)", (before,)).fetchall()
    assert [(r, op) for r, op, _ in rows] == [(before + 1, "PUT")]
    new = json.loads(rows[0][2])
    assert [u["name"] for u in new["upstreams"]] == ["v2"]
    assert new["routes"][0]["backends"] == [{"upstream": "v2", "weight": 1}]
    assert new["hosts"] == ["switch.example.com"]


def test_notify_is_one_hint_per_transaction(connect):
    """No payload, once, for administrative changes only."""
    listener = connect()
    writer = connect(autocommit=False)
    onboard(writer, "notify", quotas=[{"name": "q", "limit": 1, "window": "1s"}])
    writer.commit()
    listener.execute("LISTEN tiergate_changes")
    listener.execute("LISTEN tap_end")
    queue = []
    listener.add_notify_handler(lambda n: queue.append((n.channel, n.payload)))

    def heard():
        # notifications come in the order of the commits, so the last one ends them
        writer.execute("NOTIFY tap_end")
        writer.commit()

        def ended():
            listener.execute("SELECT 1")
            return ("tap_end", "") in queue

        until(ended, "the last notification")
        before_end = queue[:-1]
        queue.clear()
        return before_end

    for n in range(10):
        writer.execute("UPDATE tiergate.quotas SET requests = %s WHERE tenant = 'notify'", (n + 2,))
    onboard(writer, "notify-2")
    writer.commit()
    assert heard() == [("tiergate_changes", "")]

    usage = {"boot": "b", "counters": [{"tenant": "notify", "requests": 5}],
             "quotas": [{"id": one(writer, "SELECT id FROM tiergate.quotas WHERE tenant = 'notify'"), "used": 1}]}
    before = revision(writer)
    writer.execute("SELECT tiergate.record_usage('g1', %s)", (json.dumps(usage),))
    writer.commit()
    writer.execute("SELECT tiergate.gateway_ack('g1', 'b', 1, '{\"state\": \"live\"}')")
    writer.commit()
    writer.execute("SELECT tiergate.housekeeping()")
    writer.commit()
    writer.execute("SELECT tiergate.create_token('notify')")
    writer.commit()
    writer.execute("UPDATE tiergate.quotas SET requests = 99 WHERE tenant = 'notify'")
    writer.rollback()
    assert heard() == []
    assert revision(writer) == before


def test_a_hostname_has_one_owner(connect):
    """10,000 claims of one hostname from many sessions leave one owner."""
    sessions = 20
    claims = 10000 // sessions
    setup = connect()
    for n in range(sessions):
        onboard(setup, f"claim-{n}")
    won = []
    barrier = threading.Barrier(sessions)

    def claim(n):
        session = connect(autocommit=False)
        barrier.wait()
        for _ in range(claims):
            try:
                session.execute("INSERT INTO tiergate.hosts VALUES ('prize.example.com', %s)", (f"claim-{n}",))
                session.commit()
                won.append(n)
            except psycopg.errors.UniqueViolation:
                session.rollback()

    run_all([lambda n=n: claim(n) for n in range(sessions)])
    assert len(won) == 1
    assert setup.execute("SELECT tenant FROM tiergate.hosts WHERE host = 'prize.example.com'").fetchall() \
        == [(f"claim-{won[0]}",)]


def test_rest_claims_of_a_hostname(connect):
    """The same by the functions that REST calls: one 201, the others 409."""
    sessions = 16
    barrier = threading.Barrier(sessions)
    answers = []

    def claim(n):
        session = connect()
        barrier.wait()
        try:
            onboard(session, f"rest-{n}", hosts=["rest.example.com"])
            answers.append(201)
        except psycopg.DatabaseError as error:
            answers.append(error.sqlstate)

    run_all([lambda n=n: claim(n) for n in range(sessions)])
    assert sorted(map(str, answers)) == ["201"] + ["TG409"] * (sessions - 1)
    db = connect()
    assert one(db, "SELECT count(*) FROM tiergate.tenants WHERE name LIKE 'rest-%%'") == 1


@pytest.mark.parametrize("first, second", [("*.race.example.com", "x.race.example.com"),
                                           ("y.race.example.org", "*.race.example.org"),
                                           ("*.race.example.net", "*.deep.race.example.net")])
def test_wildcard_and_name_below_it_race(connect, first, second):
    """Neither transaction can see the other's host; the later commit is refused."""
    a, b = connect(autocommit=False), connect(autocommit=False)
    setup = connect()
    for name in ("race-a", "race-b"):
        setup.execute("INSERT INTO tiergate.tenants (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
    a.execute("INSERT INTO tiergate.hosts VALUES (%s, 'race-a')", (first,))
    b.execute("INSERT INTO tiergate.hosts VALUES (%s, 'race-b')", (second,))
    a.commit()
    with pytest.raises(psycopg.DatabaseError) as refused:
        b.commit()
    assert refused.value.sqlstate == "TG409"


def test_import_settles_each_line(connect):
    """A host that is refused only under the revision lock costs its own line, not the import."""
    setup, a, b = connect(), connect(autocommit=False), connect()
    onboard(setup, "settle-a")
    a.execute("INSERT INTO tiergate.hosts VALUES ('*.settle.example.com', 'settle-a')")
    a.execute("SET CONSTRAINTS ALL IMMEDIATE")
    lines = [{"name": f"settle-{n}", "hosts": [f"settle-{n}.example.org"]} for n in range(9)]
    lines[4]["hosts"].append("x.settle.example.com")
    lines[6] = {"name": "settle-2"}

    outcome = []
    thread = threading.Thread(target=lambda: outcome.extend(b.execute(
        "SELECT line, status, body::json->>'type' FROM tiergate.import_tenants(%s)", (json.dumps(lines),)).fetchall()))
    thread.start()
    until(lambda: waits_for_lock(setup, b.info.backend_pid), "the import waits for the revision lock")
    a.commit()
    thread.join()
    assert {line: (status, slug) for line, status, slug in outcome if status != 201} == {
        5: (409, "urn:tiergate:problem:host-taken"), 7: (409, "urn:tiergate:problem:tenant-exists")}
    assert [line for line, _, _ in outcome] == list(range(1, 10))
    assert one(setup, "SELECT count(*) FROM tiergate.tenants WHERE name ~ '^settle-[0-9]'") == 7
    assert one(setup, "SELECT count(*) FROM tiergate.changes WHERE revision IS NULL") == 0


def test_limits_hold_for_concurrent_transactions(connect):
    """Two transactions that cannot see each other do not pass a limit together."""
    setup = connect()
    onboard(setup, "limit")
    setup.execute("UPDATE tiergate.limits SET value = 10 WHERE name = 'consumers_per_tenant'")
    try:
        setup.execute("INSERT INTO tiergate.consumers (tenant, name) SELECT 'limit', 'c' || n FROM generate_series(1, 8) n")
        a, b = connect(autocommit=False), connect(autocommit=False)
        a.execute("INSERT INTO tiergate.consumers (tenant, name) VALUES ('limit', 'a1'), ('limit', 'a2')")

        outcome = []

        def add():
            try:
                b.execute("INSERT INTO tiergate.consumers (tenant, name) VALUES ('limit', 'b1')")
                outcome.append("in")
            except psycopg.DatabaseError as error:
                outcome.append(error.sqlstate)

        thread = threading.Thread(target=add)
        thread.start()
        until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the first")
        a.commit()
        thread.join()
        assert outcome == ["TG422"]
        b.rollback()
        assert one(setup, "SELECT count(*) FROM tiergate.consumers WHERE tenant = 'limit'") == 10
    finally:
        setup.execute("UPDATE tiergate.limits SET value = maximum WHERE name = 'consumers_per_tenant'")


@pytest.mark.parametrize("route_first", [True, False])
def test_upstream_and_route_that_names_it(connect, route_first):
    """An upstream is not deleted under a route that a concurrent transaction makes."""
    setup = connect()
    tenant = f"upstream-{route_first}".lower()
    onboard(setup, tenant, upstreams=[{"name": "v1"}])
    a, b = connect(autocommit=False), connect(autocommit=False)
    make = ("INSERT INTO tiergate.routes (tenant, name, backends) VALUES (%s, 'r', '[{\"upstream\": \"v1\"}]')", (tenant,))
    drop = ("DELETE FROM tiergate.upstreams WHERE tenant = %s", (tenant,))
    first, second = (make, drop) if route_first else (drop, make)

    a.execute(*first)
    outcome = []

    def follow():
        try:
            b.execute(*second)
            outcome.append("in")
        except psycopg.DatabaseError as error:
            outcome.append(error.sqlstate)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the first")
    a.commit()
    thread.join()
    assert outcome == ["TG409" if route_first else "TG422"]


@pytest.mark.parametrize("reference_first", [True, False])
def test_platform_issuer_and_reference_to_it(connect, reference_first):
    """An issuer of the platform is not deleted under a concurrent reference to it."""
    setup = connect()
    name = f"issuer-{reference_first}".lower()
    onboard(setup, name)
    setup.execute("SELECT tiergate.put_object('issuer', NULL, %s, %s)",
                  (name, json.dumps({"issuer": "https://x", "jwks_uri": "https://x/keys"})))
    issuer = one(setup, "SELECT id FROM tiergate.issuers WHERE tenant IS NULL AND name = %s", name)
    a, b = connect(autocommit=False), connect(autocommit=False)
    refer = ("INSERT INTO tiergate.issuers (tenant, name, ref) VALUES (%s, 'r', %s)", (name, issuer))
    drop = ("DELETE FROM tiergate.issuers WHERE id = %s", (issuer,))
    first, second = (refer, drop) if reference_first else (drop, refer)

    a.execute(*first)
    outcome = []

    def follow():
        try:
            b.execute(*second)
            outcome.append("in")
        except psycopg.DatabaseError as error:
            outcome.append(error.sqlstate)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the first")
    a.commit()
    thread.join()
    assert outcome == ["TG409" if reference_first else "TG422"]


def test_if_match_is_judged_under_the_lock(connect):
    """Two calls with the same ETag: the later one is refused, also when both were
    under way before either committed."""
    setup = connect()
    onboard(setup, "match")
    etag = f'"{one(setup, "SELECT tiergate.revision_of(%s, id) FROM tiergate.tenants WHERE name = %s", "tenant", "match")}"'
    a, b = connect(autocommit=False), connect(autocommit=False)
    peer = json.dumps({"peer": {"user": "root", "role": "admin"}})
    for session in (a, b):
        session.execute("SELECT tiergate_api.begin_request(%s, 'tenant', 'match', NULL, %s, 'r')", (peer, etag))
    put = "SELECT (r).status FROM tiergate_api.put_host(%s, '{}', NULL) r"
    assert one(a, put, ["match", "a.match.example.com"]) == 201

    outcome = []

    def follow():
        try:
            outcome.append(one(b, put, ["match", "b.match.example.com"]))
        except psycopg.DatabaseError as error:
            outcome.append(error.sqlstate)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the revision lock")
    a.commit()
    thread.join()
    assert outcome == ["TG412"]


def test_a_repeated_call_waits_for_the_first(connect):
    """The same Idempotency-Key twice at the same time: one effect, one answer."""
    a, b = connect(autocommit=False), connect(autocommit=False)
    setup = connect()
    peer = json.dumps({"peer": {"user": "root", "role": "admin"}})
    key = json.dumps({"key": "same", "digest": "d"})
    begin = "SELECT status, body FROM tiergate_api.begin_request(%s, 'admin', NULL, %s, NULL, 'r')"
    assert a.execute(begin, (peer, key)).fetchone() == (None, None)

    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(b.execute(begin, (peer, key)).fetchone()))
    thread.start()
    until(lambda: waits_for_lock(setup, b.info.backend_pid), "the second waits for the first")
    a.execute("SELECT tiergate_api.remember(%s, ROW(201, NULL, NULL, '{}')::tiergate_api.response)", (key,))
    a.commit()
    thread.join()
    assert outcome == [(201, "{}")]


def test_reports_from_both_tenantd(connect):
    """The same report by two tenantd at once counts once."""
    setup = connect()
    onboard(setup, "twice")
    sessions = 8
    barrier = threading.Barrier(sessions)

    def report():
        session = connect()
        barrier.wait()
        for n in range(1, 21):
            session.execute("SELECT tiergate.record_usage('twin', %s)", (json.dumps(
                {"boot": "b", "counters": [{"tenant": "twice", "requests": n * 10}]}),))

    run_all([report] * sessions)
    assert one(setup, "SELECT sum(requests) FROM tiergate.usage WHERE tenant = 'twice'") == 200


def test_audit_of_the_session_that_made_the_change(connect):
    """Neither a set role nor a set variable hides the login."""
    db = connect()
    onboard(db, "audited")
    db.execute("DO $$ BEGIN CREATE ROLE conc_admin LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.execute("GRANT tiergate_admin TO conc_admin")
    try:
        with psycopg.connect(db.info.dsn, user="conc_admin", dbname=db.info.dbname, autocommit=True) as admin:
            admin.execute("SELECT set_config('tiergate.actor', 'token:forged', false)")
            admin.execute("UPDATE tiergate.tenants SET display_name = 'x' WHERE name = 'audited'")
            admin.execute("SET ROLE tiergate_admin")
            admin.execute("UPDATE tiergate.tenants SET display_name = 'y' WHERE name = 'audited'")
        rows = db.execute("SELECT db_role, actor, old, new FROM tiergate.audit WHERE tenant = 'audited'"
                          " AND action = 'update' ORDER BY id").fetchall()
        assert rows == [("conc_admin", None, {"display_name": None}, {"display_name": "x"}),
                        ("conc_admin as tiergate_admin", None, {"display_name": "x"}, {"display_name": "y"})]
    finally:
        db.execute("DROP OWNED BY conc_admin")
        db.execute("DROP ROLE conc_admin")


def test_tenants_that_are_deleted_and_made_again(connect):
    """Under constant coming and going a reader ends with what is there."""
    setup = connect()
    start = revision(setup)
    stop = threading.Event()
    state = {}

    def churn(n):
        session = connect()
        for _ in range(15):
            onboard(session, f"churn-{n}", hosts=[f"churn-{n}.example.com"])
            session.execute("SELECT tiergate.delete_tenant(%s)", (f"churn-{n}",))
        onboard(session, f"churn-{n}")

    def follow():
        session = connect()
        last = start
        while True:
            done = stop.is_set()
            rows = session.execute("SELECT revision, name, id, op FROM tiergate.watch_since(%s, 5)", (last,)).fetchall()
            for rev, name, object_id, op in rows:
                last = rev
                if op == "PUT":
                    state[name] = object_id
                elif state.get(name) == object_id:
                    del state[name]
            if done and not rows:
                return

    def churn_all():
        run_all([lambda n=n: churn(n) for n in range(4)])
        stop.set()

    run_all([follow, churn_all])
    assert state == dict(setup.execute("SELECT name, id FROM tiergate.tenants WHERE name LIKE 'churn-%'").fetchall())
