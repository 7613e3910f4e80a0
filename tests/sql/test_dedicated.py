# SPDX-License-Identifier: BSD-2-Clause
"""Gateways of single tenants, where several sessions are at work at once."""

import json

import psycopg
import pytest

from conftest import until
from test_concurrency import one, revision, run_all, waits_for_lock


def own(session, tenant):
    return "dedicated-%d" % one(session, "SELECT id FROM tiergate.tenants WHERE name = %s", tenant)


def claim(session, node, most=100, first=20000, last=20999):
    return session.execute("SELECT name, port FROM tiergate.instances_claim(%s, 'process', %s, %s, %s, '127.0.0.1')",
                           (node, most, first, last)).fetchall()


def ack(session, gateway):
    session.execute("SELECT tiergate.gateway_ack(%s, 'b', %s, '{\"state\": \"live\"}')", (gateway, revision(session)))


def report(session, gateway, handover, words=()):
    session.execute("SELECT tiergate.handover_report(%s, %s)",
                    (gateway, json.dumps({"handover": handover, "words": list(words)})))


def state(session, tenant):
    return session.execute("""SELECT t.placement, h.direction, h.step, h.outcome FROM tiergate.tenants t
                                LEFT JOIN LATERAL (SELECT * FROM tiergate.handovers x WHERE x.tenant_id = t.id
                                                    ORDER BY x.id DESC LIMIT 1) h ON true
                               WHERE t.name = %s""", (tenant,)).fetchone()


@pytest.fixture
def promoted(db):
    """Brings a tenant to the export step of its promotion."""
    def bring(tenant, *shared):
        db.execute("SELECT tiergate.create_tenant(%s)", (tenant,))
        db.execute("UPDATE tiergate.gateways SET last_seen = NULL WHERE kind = 'shared'")
        for gateway in shared:
            ack(db, gateway)
        db.execute("SELECT tiergate.set_tier(%s, 'dedicated')", (tenant,))
        claim(db, "n1")
        ack(db, own(db, tenant))
        db.execute("SELECT tiergate.instance_ready(%s)", (own(db, tenant),))
        assert state(db, tenant) == ("dedicated", "promote", "export", None)
        return one(db, "SELECT max(id) FROM tiergate.handovers")
    return bring


def test_an_instance_is_taken_once(connect, db):
    """Several tenantd on two nodes take instances as fast as they can: each has one
    owner, and no port is given twice."""
    names = {n for (n,) in db.execute("""SELECT 'dedicated-' || t.id FROM (SELECT tiergate.create_tenant('take-' || n, tier => 'dedicated') AS id
                                           FROM generate_series(1, 60) n) t""")}
    taken = []

    def take(node):
        session = connect()
        while True:
            got = claim(session, node, 3)
            if not got:
                return
            taken.extend((node, name, port) for name, port in got)

    run_all([lambda n=n: take(n) for n in ("a", "a", "b", "b")])
    while True:     # what one had locked the others skipped
        rest = claim(db, "a")
        taken.extend(("a", name, port) for name, port in rest)
        if not rest:
            break
    assert sorted(name for _, name, _ in taken) == sorted(names)
    assert len({(node, port) for node, _, port in taken}) == 60
    listed = {row for node in "ab" for row in db.execute(
        "SELECT node, name, port FROM tiergate.instances_of(%s) WHERE tenant LIKE 'take-%%'", (node,))}
    assert listed == set(taken)


def test_a_claim_in_progress_blocks_no_other(connect, db):
    for tenant in ("slow-1", "slow-2"):
        db.execute("SELECT tiergate.create_tenant(%s, tier => 'dedicated')", (tenant,))
    first = connect(autocommit=False)
    held = claim(first, "x", 1)
    assert len(held) == 1
    others = claim(db, "y")
    assert held[0][0] not in {name for name, _ in others} and others
    first.rollback()
    assert claim(db, "y") and not claim(db, "y")


def test_one_notification_for_a_transaction(connect, db):
    listener = connect()
    listener.execute("LISTEN tiergate_instances")
    listener.execute("LISTEN tap_end")
    queue = []
    listener.add_notify_handler(lambda n: queue.append((n.channel, n.payload)))

    def heard():
        # notifications come in the order of the commits, so the last one ends them
        db.execute("NOTIFY tap_end")

        def ended():
            listener.execute("SELECT 1")
            return ("tap_end", "") in queue

        until(ended, "the last notification")
        before_end = [payload for _, payload in queue[:-1]]
        queue.clear()
        return before_end

    with connect(autocommit=False) as session:
        for n in range(3):
            session.execute("SELECT tiergate.create_tenant(%s, tier => 'dedicated')", (f"note-{n}",))
        session.execute("SELECT tiergate.set_tier_plugin('dedicated', 'buffering')")
        session.commit()
    assert heard() == [""]
    db.execute("SELECT tiergate.create_tenant('note-vc')")
    db.execute("UPDATE tiergate.tenants SET display_name = 'x' WHERE name = 'note-0'")
    ack(db, own(db, "note-0"))
    db.execute("SELECT tiergate.instance_observed(%s, 'starting', 1, '[]', 1, 0, NULL, 0, 'x', 'y')", (own(db, "note-0"),))
    assert heard() == []
    for statement in ("SELECT tiergate.restart_gateway('note-0')", "SELECT tiergate.delete_tenant('note-1')",
                      "SELECT tiergate.drop_tier_plugin('dedicated', 'buffering')"):
        db.execute(statement)
        assert heard() == [""], statement


def test_reports_at_once(connect, db, promoted):
    """Gateways that report at the same time: none is lost, none counts twice, and the
    handover ends once."""
    shared = [f"at-once-{n}" for n in range(6)]
    handover = promoted("together", *shared)
    quota = one(db, "INSERT INTO tiergate.quotas (tenant, requests, per) VALUES ('together', 5, '1 minute') RETURNING id")

    def send(gateway):
        session = connect()
        for _ in range(3):
            try:
                report(session, gateway, handover, [{"quota": quota, "key": "a", "name": gateway, "word": "1"}])
            except psycopg.Error as error:
                assert error.sqlstate == "TG410"

    run_all([lambda g=g: send(g) for g in shared])
    assert state(db, "together") == ("dedicated", "promote", "done", "complete")
    words = one(db, "SELECT words FROM tiergate.handovers WHERE id = %s", handover)
    assert sorted(w["name"] for w in words) == shared
    assert one(db, "SELECT count(*) FROM tiergate.gateway_events WHERE gateway = %s AND reason = 'Promoted'",
               own(db, "together")) == 1


def test_two_tenantd_advance(connect, db, promoted):
    """Several tenantd poll: one moves a handover on, the others pass it by."""
    handover = promoted("polled", "polled-shared")
    holder = connect(autocommit=False)
    holder.execute("SELECT FROM tiergate.tenants WHERE name = 'polled' FOR NO KEY UPDATE")
    db.execute("UPDATE tiergate.handovers SET step_at = step_at - interval '1 minute' WHERE id = %s", (handover,))
    assert db.execute("SELECT * FROM tiergate.handovers_advance()").fetchone() == (1, 25)
    assert state(db, "polled") == ("dedicated", "promote", "export", None)
    holder.rollback()

    def poll():
        session = connect()
        for _ in range(20):
            session.execute("SELECT * FROM tiergate.handovers_advance()")

    run_all([poll] * 3)
    assert state(db, "polled") == ("dedicated", "promote", "done", "incomplete")
    assert one(db, "SELECT count(*) FROM tiergate.gateway_events WHERE gateway = %s AND reason = 'Promoted'",
               own(db, "polled")) == 1


def test_a_tier_changes_while_a_report_comes(connect, db, promoted):
    """Whoever comes second waits, and sees what the first did."""
    handover = promoted("crossed", "crossed-shared")
    reporter = connect(autocommit=False)
    report(reporter, "crossed-shared", handover)

    operator = connect()
    pid = operator.info.backend_pid

    def change():
        operator.execute("SELECT tiergate.set_tier('crossed', 'vcluster')")

    def finish():
        until(lambda: waits_for_lock(db, pid), "the operator waits")
        reporter.commit()

    run_all([change, finish])
    assert state(db, "crossed") == ("dedicated", "return", "hold", None)
    assert one(db, "SELECT count(*) FROM tiergate.handovers WHERE tenant = 'crossed' AND finished_at IS NULL") == 1


def test_a_tenant_is_deleted_while_its_instance_becomes_ready(connect, db):
    db.execute("SELECT tiergate.create_tenant('short', tier => 'dedicated')")
    claim(db, "n1")
    name = own(db, "short")
    deleter = connect(autocommit=False)
    deleter.execute("SELECT tiergate.delete_tenant('short')")

    driver = connect()
    pid = driver.info.backend_pid

    def ready():
        assert one(driver, "SELECT tiergate.instance_ready(%s)", name)

    def finish():
        until(lambda: waits_for_lock(db, pid), "the driver waits")
        deleter.commit()

    run_all([ready, finish])
    assert one(db, "SELECT desired FROM tiergate.instances WHERE name = %s", name) == "absent"
    assert one(db, "SELECT count(*) FROM tiergate.handovers WHERE tenant = 'short'") == 0


def test_a_schema_changes_while_a_tenant_picks(connect, db):
    """A tenant's parameters and a new schema cannot pass each other by."""
    db.execute("SELECT tiergate.create_tenant('picky')")
    db.execute("""SELECT tiergate.allow_plugin('race', schema => '{"type": "object", "properties": {"a": {"type": "integer"}}}')""")
    tenant = connect(autocommit=False)
    tenant.execute("SELECT tiergate.set_plugin('picky', 'race', '{\"a\": 5}')")

    operator = connect()
    pid = operator.info.backend_pid
    outcome = []

    def change():
        try:
            operator.execute("""UPDATE tiergate.plugins SET schema = '{"type": "object"}' WHERE name = 'race'""")
        except psycopg.Error as error:
            outcome.append(error.sqlstate)

    def finish():
        until(lambda: waits_for_lock(db, pid), "the operator waits")
        tenant.commit()

    run_all([change, finish])
    assert outcome == ["TG409"]


def test_many_renewals_at_once(connect, db):
    """Operators who change what many gateways have do not block each other for good."""
    for n in range(20):
        db.execute("SELECT tiergate.create_tenant(%s, tier => 'dedicated')", (f"many-{n}",))

    def change(plugin):
        session = connect()
        for n in range(10):
            session.execute("SELECT tiergate.set_tier_plugin('dedicated', %s, '{}')", (plugin,))
            session.execute("SELECT tiergate.drop_tier_plugin('dedicated', %s)", (plugin,))

    run_all([lambda p=p: change(p) for p in ("buffering", "client-limits", "brotli")])
    assert one(db, "SELECT count(DISTINCT generation) FROM tiergate.instances WHERE tenant ^@ 'many-'") == 1
    assert one(db, "SELECT min(generation) FROM tiergate.instances WHERE tenant ^@ 'many-'") == 61


def test_acknowledgements_do_not_wait(connect, db):
    """What is done to an instance keeps nobody from acknowledging."""
    db.execute("SELECT tiergate.create_tenant('busy', tier => 'dedicated')")
    claim(db, "n1")
    name = own(db, "busy")
    with connect(autocommit=False) as session:
        session.execute("SELECT tiergate.instance_observed(%s, 'starting', 1, '[]', 1, 0, NULL, 0, 'x', 'y')", (name,))
        session.execute("SELECT tiergate.restart_gateway('busy')")
        db.execute("SET statement_timeout = '5s'")
        ack(db, name)
        session.rollback()
