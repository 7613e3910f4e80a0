# SPDX-License-Identifier: BSD-2-Clause
"""The mesh, where several sessions write at once."""

import psycopg

from conftest import until
from test_concurrency import one, revision, run_all, waits_for_lock


def tenant(db, *names):
    for name in names:
        db.execute("SELECT tiergate.create_tenant(%s)", (name,))
        db.execute("SELECT tiergate.mesh_enable(%s)", (name,))


def policies(db, name):
    return one(db, """SELECT jsonb_array_length(d.document::jsonb->'policies') FROM tiergate.mesh_tenants m,
                             tiergate.mesh_tenant_documents(ARRAY[m.number]) d WHERE m.tenant = %s""", name)


def test_each_service_has_its_own_addresses_and_number(connect, db):
    """16 sessions at once; each transaction is one revision, in the order of the commits."""
    tenant(db, "many", "more")
    before = revision(db)

    def make(worker):
        session = connect()
        for n in range(20):
            session.execute("SELECT tiergate.mesh_put_service(%s, %s, 80)", (("many", "more")[worker % 2], f"w{worker}-{n}"))

    run_all([lambda w=w: make(w) for w in range(16)])
    made = db.execute("SELECT ipv4, ipv6, number, id FROM tiergate.mesh_services WHERE name LIKE 'w%'").fetchall()
    assert len(made) == 320 and all(len(set(column)) == 320 for column in zip(*made))
    held = db.execute("SELECT count(*) FROM tiergate.mesh_addresses WHERE released_at IS NULL").fetchone()[0]
    assert held == 640
    revisions = [r for (r,) in db.execute("""SELECT revision FROM tiergate.changes WHERE kind = 'mesh_service' AND revision > %s
                                              ORDER BY at""", (before,))]
    assert revisions == sorted(revisions) and len(set(revisions)) == 320


def test_one_of_two_gets_an_endpoint(connect, db):
    tenant(db, "left", "right")
    for name in ("left", "right"):
        db.execute("SELECT tiergate.mesh_put_service(%s, 's', 80)", (name,))
    first, second = connect(autocommit=False), connect()
    first.execute("SELECT tiergate.mesh_set_endpoint('left', 's', '10.5.0.1', 80)")
    failed = []

    def other():
        try:
            second.execute("SELECT tiergate.mesh_set_endpoint('right', 's', '10.5.0.1', 80)")
        except psycopg.errors.UniqueViolation as error:
            failed.append(error.diag.constraint_name)

    def commit():
        until(lambda: waits_for_lock(db, second.info.backend_pid), "the second waits for the first")
        first.commit()

    run_all([other, commit])
    assert failed == ["mesh_endpoints_tcp"]


def test_who_names_a_service_and_who_makes_it(connect, db):
    """They cannot see each other, so one waits: the policy never stays without its service."""
    tenant(db, "caller", "called")
    for first_names in (True, False):
        name = f"s-{first_names}".lower()
        names = ("SELECT tiergate.mesh_allow('caller', %s, to_tenant => 'called', to_service => %s)", (name, name))
        makes = ("SELECT tiergate.mesh_put_service('called', %s, 80)", (name,))
        first, second = connect(autocommit=False), connect()
        first.execute(*(names if first_names else makes))
        before = revision(db)

        def commit(first=first, second=second):
            until(lambda: waits_for_lock(db, second.info.backend_pid), "the second waits for the first")
            first.commit()

        run_all([lambda s=second, f=first_names: s.execute(*(makes if f else names)), commit])
        last = db.execute("""SELECT max(revision) FROM tiergate.changes WHERE kind = 'mesh_tenant' AND name = 'caller'
                              AND revision > %s""", (before,)).fetchone()[0]
        assert last == revision(db), "the last of the two has marked who names it"
    assert policies(db, "caller") == 2


def test_a_service_that_is_named_meanwhile_stays(connect, db):
    tenant(db, "own")
    db.execute("SELECT tiergate.mesh_put_service('own', 's', 80)")
    first, second = connect(autocommit=False), connect()
    first.execute("SELECT tiergate.mesh_allow('own', 'p', to_service => 's')")
    failed = []

    def drop():
        try:
            second.execute("SELECT tiergate.mesh_drop_service('own', 's')")
        except psycopg.Error as error:
            failed.append(error.sqlstate)

    def commit():
        until(lambda: waits_for_lock(db, second.info.backend_pid), "the second waits for the first")
        first.commit()

    run_all([drop, commit])
    assert failed in (["23503"], ["TG409"]) and policies(db, "own") == 1


def test_a_psql_update_is_audited(connect, db):
    tenant(db, "told")
    db.execute("SELECT tiergate.mesh_put_service('told', 's', 80)")
    db.execute("SELECT tiergate.mesh_set_endpoint('told', 's', '10.6.0.1', 80)")
    before = revision(db)
    connect().execute("UPDATE tiergate.mesh_endpoints SET weight = 5 WHERE tenant = 'told'")
    row = db.execute("""SELECT a.action, a.object, a.name, a.old, a.new, a.actor, c.revision FROM tiergate.audit a
                          JOIN tiergate.changes c ON c.xid = a.xid WHERE a.tenant = 'told' ORDER BY a.id DESC LIMIT 1""").fetchone()
    assert row == ("update", "mesh_endpoints", "s/10.6.0.1/80", {"weight": 100}, {"weight": 5}, None, before + 1)
