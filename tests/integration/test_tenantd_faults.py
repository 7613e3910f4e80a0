# SPDX-License-Identifier: BSD-2-Clause
"""tenantd when PostgreSQL goes away, when it is itself told to end, and when its
configuration changes."""

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

from support import process, wire
from support.poll import until
from support.postgres import Server
from support.tenantd import migrate
from support.tokens import Key
from tenantd_fixture import Stream, make_daemon


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL that may be killed."""
    server = Server(process.folder("fault-pg"))
    server.template("tiergate", migrate)
    yield server
    server.end()


@pytest.fixture(scope="module")
def database(server):
    return server.database("tiergate")


@pytest.fixture
def daemon(request, database):
    daemon = make_daemon(request, database)
    yield daemon
    daemon.close()


def ready(daemon):
    return daemon.rest.request("GET", "/v1/readyz").status == 200


def wait_ready(daemon):
    until(lambda: ready(daemon), lambda: daemon.log.text[-3000:], 30)


def test_restart_under_load(server, database, daemon):
    """Requests get 503 meanwhile; what was confirmed is there, and nobody misses it."""
    stop = threading.Event()
    confirmed, unknown, refused = [], [], []

    def load(worker):
        rest = daemon.as_(None)
        rest.address = daemon.socket
        n = 0
        while not stop.is_set():
            n += 1
            name = f"load-{worker}-{n}"
            answer = rest.request("POST", "/v1/tenants", {"name": name})
            if answer.status == 201:
                confirmed.append(name)
            else:
                assert answer.status == 503, answer
                assert answer.headers["retry-after"]
                (unknown if answer.problem == "outcome-unknown" else refused).append(name)
        rest.close()

    seen, last = set(), []

    def watch():
        """Reads as a gateway does: when the stream ends it goes on from where it was."""
        at = 0
        while not ended.is_set():
            try:
                stream = Stream(daemon.socket, since=at)
                for line in iter(stream.line, None):
                    if line["type"] == "PUT":
                        seen.add(line["name"])
                    if at or line.get("complete"):
                        at = max(at, line["revision"])
                    last[:] = [line["type"], line["revision"]]
                stream.close()
            except OSError as error:
                last.append(error)

    ended = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    workers = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for restart in (server.kill9, server.restart, server.kill9):
        before = len(confirmed)
        until(lambda: len(confirmed) > before + 20, "tenants to be created", 30)
        restart()
        if restart == server.kill9:
            server.start()
        wait_ready(daemon)
    stop.set()
    for worker in workers:
        worker.join(30)

    there = {row[0] for row in database.execute("SELECT name FROM tiergate.tenants")}
    assert set(confirmed) <= there
    assert not there & set(refused), "something was done although the answer said that nothing was"
    assert there - set(confirmed) <= set(unknown)
    # whoever watched has missed nothing
    until(lambda: there <= seen,
          lambda: f"{sorted(there - seen)[:5]} on the stream, which is at {last}\n" + daemon.log.text[-3000:], 30)
    ended.set()
    assert len(daemon.log.text) < 100000 + 200 * len(confirmed + refused + unknown)


def imported(daemon, names):
    """An import of tenants with these names: what became of each."""
    body = "\n".join(f'{{"name": "{name}", "hosts": ["{name}.example.com"]}}' for name in names).encode()
    response = daemon.rest.request("POST", "/v1/import", body, {"Content-Type": "application/jsonl"})
    assert response.status == 200, response
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["line"] for line in lines] == list(range(1, len(names) + 1))
    return {name: str(line["status"]) + line.get("problem", {}).get("type", "").replace("urn:tiergate:problem:", " ")
            for name, line in zip(names, lines)}


def tenants(database, like):
    return {row[0] for row in database.execute("SELECT name FROM tiergate.tenants WHERE name LIKE %s", (like,))}


def test_an_import_through_a_restart(server, database, daemon):
    """Each line is told what became of it, and the whole can be sent again."""
    database.close()
    names = [f"torn-{n}" for n in range(6000)]
    outcome = {}
    held = database.connect()       # what it has not committed keeps the chunk with that name waiting
    held.execute("INSERT INTO tiergate.tenants (name) VALUES ('torn-3000')")
    work = threading.Thread(target=lambda: outcome.update(imported(daemon, names)))
    work.start()
    until(lambda: tenants(database, "torn-%"), "the first chunk", 30)
    server.kill9()
    held.close()
    server.start()
    work.join(120)
    wait_ready(daemon)

    there = tenants(database, "torn-%")
    assert {"201"} < set(outcome.values()), "nothing was interrupted"
    assert set(outcome.values()) <= {"201", "503 database-unavailable", "503 outcome-unknown"}
    assert {name for name in names if outcome[name] == "201"} <= there
    assert not {name for name in names if outcome[name] == "503 database-unavailable"} & there

    again = imported(daemon, names)
    assert {name for name in names if again[name] == "409 tenant-exists"} == there
    assert {name for name in names if again[name] == "201"} == set(names) - there
    assert tenants(database, "torn-%") == set(names)
    assert database.one("SELECT count(*) FROM tiergate.changes WHERE revision IS NULL") == 0


def test_an_import_whose_client_leaves(database, daemon):
    """What is committed stays, in whole chunks; its place is free; the whole can be sent again."""
    database.close()
    names = [f"left-{n}" for n in range(8000)]
    body = "\n".join(f'{{"name": "{name}"}}' for name in names).encode()
    for _ in range(3):      # two may run at once
        with wire.Connection(daemon.socket) as client:
            client.send(wire.compose("POST", "/v1/import", [("Host", "x"), ("Content-Type", "application/jsonl")], body))
            assert client.head()[0] == 200
    assert len(tenants(database, "left-%")) % 500 == 0
    again = imported(daemon, names)
    assert set(again.values()) <= {"201", "409 tenant-exists"}
    assert tenants(database, "left-%") == set(names)
    assert ready(daemon)


def test_without_a_database(server, daemon):
    server.stop()
    try:
        until(lambda: not ready(daemon), "tenantd to notice")
        stream_attempt = Stream(daemon.socket)
        assert stream_attempt.status == 503
        for method, path, body in (("GET", "/v1/tenants", None), ("POST", "/v1/tenants", {"name": "x"}),
                                   ("POST", "/v1/gateways/g/ack", {}), ("POST", "/v1/gateways/g/usage", {})):
            answer = daemon.rest.request(method, path, body)
            assert answer.status == 503 and answer.problem == "database-unavailable", answer
        assert daemon.rest.request("GET", "/v1/healthz").status == 200
        assert "database_up 0" in daemon.rest.request("GET", "/metrics").text
        answer = daemon.rest.request("POST", "/v1/import", b"{}\n", {"Content-Type": "application/jsonl"})
        assert answer.status == 503
    finally:
        server.start()
    wait_ready(daemon)
    assert daemon.rest.request("GET", "/v1/tenants").status == 200


def test_start_before_the_database(server, database):
    """It starts, says that it is not ready, and becomes so by itself."""
    server.stop()
    path = process.folder("early")
    config = path / "tenantd.ini"
    config.write_text(f"[listen]\nsocket = {path}/s\n[database]\nconninfo = {database.conninfo()}\n")
    log = process.Log(path / "log")
    tenantd = process.start([process.TENANTD, "serve", "--config", config], log.path)

    def status():
        return wire.request(f"{path}/s", "GET", "/v1/readyz", {"Host": "x"}).status
    try:
        log.wait("is up")
        assert status() == 503
        server.start()
        until(lambda: status() == 200, lambda: log.text[-2000:], 30)
    finally:
        server.start()
        process.stop(tenantd)


def test_stream_goes_on_where_it_was(server, database, daemon):
    """Changes that are made while tenantd is cut off are told when it is back."""
    database.close()        # an earlier test has restarted its server
    database.execute("INSERT INTO tiergate.tenants (name) VALUES ('cut')")
    stream = Stream(daemon.socket, since=database.revision())
    database.close()
    server.restart()
    database.execute("UPDATE tiergate.tenants SET display_name = 'meanwhile' WHERE name = 'cut'")
    lines = stream.until_revision(database.revision())
    assert [line["name"] for line in lines] == ["cut"]


def test_backends_that_are_killed(database, daemon):
    """All connections at once, the feed's too, while the server stays."""
    for n in range(3):
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                         " WHERE application_name = 'tenantd' AND datname = current_database()")
        database.execute(f"INSERT INTO tiergate.tenants (name) VALUES ('k{n}')")

        def listed():
            stream = Stream(daemon.socket)
            try:
                return stream.list()
            except AssertionError:
                return None         # refused, or cut off: a gateway comes again
            finally:
                stream.close()
        lines, at = until(listed, "a list")
        assert at == database.revision() and f"k{n}" in [line["name"] for line in lines]


def test_a_stuck_lock_does_not_stick_to_everybody(database, daemon):
    daemon.rest.call("POST", "/v1/tenants", {"name": "locked"})
    with database.connect() as connection:
        connection.execute("SELECT * FROM tiergate.tenants WHERE name = 'locked' FOR UPDATE")
        answer = daemon.rest.request("PATCH", "/v1/tenants/locked", {"display_name": "x"})
        assert answer.status == 503 and answer.problem == "overloaded", answer
        assert daemon.rest.request("GET", "/v1/tenants/locked").status == 200


def test_term_finishes_what_is_under_way(request, database):
    daemon = make_daemon(request, database)
    daemon.rest.call("POST", "/v1/tenants", {"name": "busy"})
    stream = Stream(daemon.socket)
    stream.list()
    idle = wire.Connection(daemon.socket)
    idle.send(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.response().status == 200

    lock = database.connect()
    lock.execute("SELECT * FROM tiergate.tenants WHERE name = 'busy' FOR UPDATE")
    connection = wire.Connection(daemon.socket)
    connection.send(wire.compose("PATCH", "/v1/tenants/busy", {"Host": "x", "Content-Type": "application/json"},
                                 b'{"display_name": "done"}'))
    until(lambda: lock.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                               " AND application_name = 'tenantd'").fetchone()[0], "the request to be under way")

    daemon.process.send_signal(signal.SIGTERM)
    assert None in iter(stream.line, "never")
    assert idle.ended()
    with pytest.raises((OSError, wire.Closed)):
        wire.Connection(daemon.socket).request("GET", "/v1/healthz", {"Host": "x"})
    lock.rollback()
    answer = connection.response()
    assert answer.status == 200 and answer.json()["display_name"] == "done"
    assert answer.headers["connection"] == "close"
    assert daemon.process.wait(30) == 0
    assert not os.path.exists(daemon.socket)


def test_term_does_not_wait_for_ever(request, database):
    daemon = make_daemon(request, database, "[http]\ndrain_timeout = 500ms\n")
    connection = wire.Connection(daemon.socket)
    connection.send(b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    daemon.rest.request("GET", "/v1/healthz")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(30) == 0


def test_reload(request, database):
    daemon = make_daemon(request, database)
    assert daemon.rest.request("GET", "/v1/tenants").status == 200
    text = daemon.config.read_text()

    def reload(text):
        mark = daemon.log.mark()
        daemon.config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.log.wait(r"config: (reloaded|not reloaded|certificates)", mark)
        return daemon.log.since(mark)

    assert "socket_admin_users has changed" in reload(text + "[listen]\nsocket_admin_users = nobody\n")
    assert daemon.rest.request("GET", "/v1/tenants").status == 401
    assert "connections has changed: this takes a restart" in reload(text.replace("connections = 8", "connections = 9"))
    assert daemon.rest.request("GET", "/v1/tenants").status == 200
    for broken in ("[http]\nmax_body = lots\n", "[nonsense]\na = b\n", "[secrets]\nkey_file = /nonexistent\n"):
        assert "not reloaded" in reload(text.replace(f"key_file = {daemon.secret_key}", "") + broken)
        assert daemon.rest.request("GET", "/v1/tenants").status == 200
    daemon.close()


def test_gateway_users_of_the_socket(request, database):
    more = "[listen]\nsocket_admin_users =\nsocket_gateway_users = root\n"
    daemon = make_daemon(request, database, more)
    assert Stream(daemon.socket, "any").status == 200
    assert daemon.rest.request("GET", "/v1/tenants").status == 403
    assert daemon.rest.request("POST", "/v1/gateways/any/ack", {
        "boot": "b", "revision": 0, "state": "live"}).status == 204
    daemon.close()


def test_no_key_to_seal_secrets_with(database, tmp_path):
    """A shared secret is refused, and is not kept in the clear instead; public keys are taken."""
    (tmp_path / "ini").write_text(f"[listen]\nsocket = {tmp_path}/s\n[database]\nconninfo = {database.conninfo()}\n")
    log = process.Log(tmp_path / "log")
    tenantd = process.start([process.TENANTD, "serve", "--config", tmp_path / "ini"], log.path)

    def post(algorithm, jwk):
        return wire.request(f"{tmp_path}/s", "POST", "/v1/tenants", {"Host": "x", "Content-Type": "application/json"},
                            json.dumps({"name": "sealed", "issuers": [{
                                "name": "i", "issuer": "x", "algorithms": [algorithm], "jwks": {"keys": [jwk]}}]}).encode())
    try:
        log.wait("is up")       # before, the socket may be there and take nothing
        until(lambda: wire.request(f"{tmp_path}/s", "GET", "/v1/readyz", {"Host": "x"}).status == 200, lambda: log.text)
        jwk = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"sesame" * 8).rstrip(b"=").decode()}
        answer = post("HS256", jwk)
        assert (answer.status, answer.problem) == (422, "sealing-unavailable")
        assert answer.json()["errors"][0]["pointer"].startswith("/issuers/0/jwks/keys/0")
        assert jwk["k"] not in answer.text + log.text
        assert post("ES256", Key("ES256").jwk()).status == 201
    finally:
        process.stop(tenantd)


def test_socket_permissions(request, database):
    daemon = make_daemon(request, database, "[listen]\nsocket_mode = 0600\nsocket_group = daemon\n")
    status = os.stat(daemon.socket)
    assert status.st_mode & 0o777 == 0o600
    assert status.st_gid == 1
    # a second one does not take the socket of the first
    done = subprocess.run([process.TENANTD, "serve", "--config", daemon.config], text=True, timeout=10,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=process.environment())
    assert done.returncode == 1 and "another process listens" in done.stdout
    daemon.process.kill()
    daemon.process.wait()
    daemon.start()          # over the socket that the killed one has left
    daemon.close()


def test_a_socket_that_is_about_to_be_free(request, database):
    """A child of a tenantd that was killed may hold it for a moment: the next one waits."""
    daemon = make_daemon(request, database)
    before, mark = daemon.process, daemon.log.mark()
    daemon.process = process.start([process.TENANTD, "serve", "--config", daemon.config], daemon.log.path)
    until(lambda: "is in use: waiting" in daemon.log.since(mark), "the next one to find the socket in use")
    before.kill()
    before.wait()
    until(lambda: "is up" in daemon.log.since(mark) and ready(daemon), lambda: daemon.log.text[-3000:], 30)
    assert daemon.rest.request("GET", "/v1/tenants").status == 200
    daemon.close()


def run(*words, **more):
    return subprocess.run([process.TENANTD, *words], text=True, timeout=30, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=process.environment(), **more)


def test_commands(request, database, tmp_path):
    conninfo = ["--conninfo", database.conninfo()]
    for name in ("help", "version", "routes", "options"):
        assert run(name).returncode == 0
    assert run("nonsense").returncode == 2
    assert run("serve", "--nonsense").returncode == 2
    assert run("serve", "nonsense").returncode == 2

    up_to_date = run("migrate", *conninfo, "--sql-dir", process.ROOT / "sql")
    assert up_to_date.returncode == 0 and "nothing to do" in up_to_date.stdout
    (tmp_path / "0001_foundation.sql").write_text("SELECT 1")
    newer = run("migrate", *conninfo, "--sql-dir", tmp_path)
    assert newer.returncode == 1 and "is newer" in newer.stdout
    assert run("migrate", *conninfo, "--sql-dir", tmp_path / "none").returncode == 1

    token = run("token", "create", "--name", "cli", "--scope", "reader", *conninfo)
    assert token.returncode == 0 and token.stdout.startswith("tgt_")
    daemon = make_daemon(request, database)
    assert daemon.as_(token.stdout.strip()).request("GET", "/v1/tenants").status == 200
    assert run("token", "revoke", "--name", "cli", *conninfo).returncode == 0
    assert daemon.as_(token.stdout.strip()).request("GET", "/v1/tenants").status == 401
    assert run("token", "create", "--name", "cli", *conninfo).returncode == 1
    assert run("token", "create", *conninfo).returncode == 2
    daemon.close()


def test_migrating_an_empty_database(server, tmp_path):
    empty = server.database("template1")
    conninfo = ["--conninfo", empty.conninfo()]
    first = run("migrate", *conninfo, "--sql-dir", process.ROOT / "sql")
    assert first.returncode == 0, first.stdout
    assert first.stdout.count("applied ") == len(list((process.ROOT / "sql").glob("[0-9]*.sql")))
    assert empty.one("SELECT count(*) FROM tiergate.schema_migrations WHERE checksum IS NULL") == 0

    # one that fails leaves nothing behind, and can be tried again
    for path in (process.ROOT / "sql").glob("[0-9]*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "9999_broken.sql").write_text(
        "BEGIN; INSERT INTO tiergate.schema_migrations (version, name) VALUES (9999, 'broken');"
        "CREATE TABLE tiergate.half (a integer); SELECT 1/0; COMMIT;")
    broken = run("migrate", *conninfo, "--sql-dir", tmp_path)
    assert broken.returncode == 1 and "9999_broken" in broken.stdout and "division by zero" in broken.stdout
    assert empty.one("SELECT to_regclass('tiergate.half')") is None
    assert empty.one("SELECT count(*) FROM tiergate.schema_migrations WHERE version = 9999") == 0


def test_migrations_that_have_changed(server, tmp_path):
    database = server.database("template1")
    conninfo = ["--conninfo", database.conninfo(), "--sql-dir", tmp_path]
    for path in (process.ROOT / "sql").glob("[0-9]*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert run("migrate", *conninfo).returncode == 0
    assert run("migrate", *conninfo).returncode == 0

    applied = (tmp_path / "0004_documents.sql").read_bytes()
    (tmp_path / "0004_documents.sql").write_bytes(applied + b"-- later\n")
    (tmp_path / "9998_next.sql").write_text(
        "INSERT INTO tiergate.schema_migrations (version, name) VALUES (9998, 'next')")
    changed = run("migrate", *conninfo)
    assert changed.returncode == 1, changed.stdout
    assert "0004_documents.sql has changed since it was applied" in changed.stdout
    assert hashlib.sha256(applied).hexdigest() in changed.stdout
    assert "applied 9998_next.sql" not in changed.stdout
    assert database.one("SELECT count(*) FROM tiergate.schema_migrations WHERE version = 9998") == 0

    # what psql has applied has no checksum to compare with
    database.execute("UPDATE tiergate.schema_migrations SET checksum = NULL WHERE version = 4")
    assert "applied 9998_next.sql" in run("migrate", *conninfo).stdout
    assert database.one("SELECT checksum FROM tiergate.schema_migrations WHERE version = 9998") \
        == hashlib.sha256((tmp_path / "9998_next.sql").read_bytes()).hexdigest()


@pytest.mark.parametrize("migrated", [False, True], ids=["empty", "older"])
def test_a_database_that_lacks_migrations(server, tmp_path, migrated):
    """It says what to do, to the log and to who asks; and is well once that was done."""
    database = server.database("tiergate" if migrated else "template1")
    if migrated:
        database.execute("DROP FUNCTION tiergate.mesh_nodes_away(bigint)")
        database.execute("DROP FUNCTION tiergate_api.list_tenants(text[], jsonb, jsonb) CASCADE")
    (tmp_path / "ini").write_text(f"[listen]\nsocket = {tmp_path}/s\n[database]\nconninfo = {database.conninfo()}\n")
    log = process.Log(tmp_path / "log")
    tenantd = process.start([process.TENANTD, "serve", "--config", tmp_path / "ini"], log.path)
    try:
        log.wait("does not exist; the schema is not that of this version: run tenantd migrate")
        assert "LINE 1" not in log.text
        answer = wire.request(f"{tmp_path}/s", "GET", "/v1/tenants", {"Host": "x"})
        assert answer.status == 500 and "run tenantd migrate" in answer.json()["detail"]
        if not migrated:
            assert wire.request(f"{tmp_path}/s", "GET", "/v1/readyz", {"Host": "x"}).status == 503
            assert run("migrate", "--conninfo", database.conninfo(), "--sql-dir", process.ROOT / "sql").returncode == 0
            until(lambda: wire.request(f"{tmp_path}/s", "GET", "/v1/readyz", {"Host": "x"}).status == 200,
                  lambda: log.text[-2000:], 30)
    finally:
        process.stop(tenantd)


def test_serve_check(tmp_path):
    key = tmp_path / "key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    assert run("serve", "--check", "--set", f"secrets.key_file={key}").returncode == 0
    key.chmod(0o644)
    assert "everybody" in run("serve", "--check", "--set", f"secrets.key_file={key}").stdout
    for bad in ("http.max_body=x", "listen.nothing=1", "listen.tls_addresses=127.0.0.1:1"):
        assert run("serve", "--check", "--set", bad).returncode == 1, bad


def test_listening_in_the_clear_takes_a_word():
    for address, said in (("0.0.0.0:0", "in the clear"), ("[::]:0", "in the clear"), ("nonsense", "no address"),
                          ("127.0.0.1", "no address"), ("127.0.0.1:99999", "no address")):
        done = run("serve", "--set", "listen.socket=", "--set", f"listen.addresses={address}")
        assert done.returncode == 1 and said in done.stdout, (address, done.stdout)
    assert "nothing to listen on" in run("serve", "--set", "listen.socket=").stdout


def test_sealing_on_the_command_line(tmp_path):
    key = tmp_path / "key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    option = ["--set", f"secrets.key_file={key}"]
    sealed = run("seal", *option, input="secret")
    assert sealed.returncode == 0 and sealed.stdout.startswith("tg1.")
    assert run("seal", *option, input="secret").stdout != sealed.stdout
    assert run("seal", *option, input="").returncode == 1
    assert run("seal", *option, "--base64url", input="c2VjcmV0\n").returncode == 0
    assert run("seal", *option, "--base64url", input="c2VjcmV0=").returncode == 1
    assert run("seal", *option, input="x" * 5000).returncode == 1
    assert run("seal", input="secret").returncode == 1


def test_notify(request, database, tmp_path):
    """systemd's protocol, Type=notify."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(10)
    daemon = make_daemon(request, database)
    daemon.stop()
    daemon.process = process.start([process.TENANTD, "serve", "--config", daemon.config], daemon.log.path,
                                   env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert listener.recv(100) == b"READY=1"
    daemon.process.send_signal(signal.SIGTERM)
    assert listener.recv(100) == b"STOPPING=1"
    assert daemon.process.wait(30) == 0
