# SPDX-License-Identifier: BSD-2-Clause
"""Cold start, the snapshot file, resuming, and streams that lie."""

import json
import signal

import pytest

from support import process, wire
from support.fake import FakeTenantd, bookmark, delete, document, put
from support.nginx import Gateway
from support.platform import route
from support.poll import holds, until

GATEWAY = {"workers": 2}


def short(value):
    """A test's name from bytes that may be megabytes."""
    return repr(value)[:60]


def ready(gateway):
    response = gateway.request("GET", "/-/ready", {"Host": "x"})
    return response.status, response.text


def served(gateway, host):
    """Tenant that serves a host, or slug of the refusal, or "ended": the tenant went
    while its request was in flight."""
    try:
        response = gateway.request("GET", "/", {"Host": host})
    except wire.Closed:
        return "ended"
    return (wire.Headers(response.json()["headers"]).get("x-tenant") if response.status == 200
            else response.problem)


# --- with the real tenantd ---

def test_cold_start_without_tenantd(platform, onboard):
    gateway = platform.gateway()
    tenant = onboard(routes=[route(auth="required")], gateway=gateway)
    # the last bookmark is what a cold start goes by
    until(lambda: gateway.metrics().get("tiergate_snapshot_revision") == platform.database.revision(),
          "the tenant in the snapshot")
    gateway.stop(signal.SIGQUIT)
    platform.tenantd.stop()

    try:
        gateway.start()
        until(lambda: ready(gateway)[0] == 200, lambda: f"readiness: {ready(gateway)}")
        assert "snapshot" in ready(gateway)[1]
        assert gateway.metrics().get("tiergate_state", state="snapshot") == 1
        for _ in range(4):
            assert tenant.get(key=tenant.key).status == 200
            assert tenant.get().status == 401
        # a change that it cannot know of yet
        platform.database.execute("SELECT tiergate.suspend(%s)", [tenant.name])
    finally:
        platform.tenantd.start()
        platform.rest.close()
    platform.wait(gateway=gateway)
    assert "live" in ready(gateway)[1]
    assert tenant.get(key=tenant.key).status == 403
    assert gateway.metrics().get("tiergate_lists_total") in (None, 0), "a delta would have done"
    platform.retire(gateway)


def test_cold_start_with_nothing(platform):
    gateway = platform.gateway(ready=False, name="gw-nothing")
    platform.gateways.remove(gateway)
    gateway.stop()
    gateway.source = f"unix:{platform.path}/nobody.sock"
    gateway.snapshot.unlink(missing_ok=True)
    gateway.start()
    status, text = ready(gateway)
    assert status == 503 and "loading" in text
    response = gateway.request("GET", "/", {"Host": "any.example.com"})
    assert (response.status, response.problem) == (503, "not-ready")
    assert int(response.headers["retry-after"]) >= 1
    assert gateway.metrics().get("tiergate_state", state="loading") == 1
    gateway.stop()
    assert not gateway.problems()


def test_an_empty_registry_is_ready(database, postgres, template, platform):
    from support.tenantd import Tenantd
    empty = Tenantd(postgres.database(template), platform.path / "empty")
    gateway = Gateway("gw-empty", f"unix:{empty.socket}", path=process.folder("gw-empty"))
    until(lambda: ready(gateway)[0] == 200, "readiness")
    assert served(gateway, "any.example.com") == "unknown-host"
    gateway.stop()
    empty.stop()
    assert not gateway.problems()


def test_away_while_history_lasts_resumes_by_delta(platform, onboard):
    gateway = platform.gateway()
    tenants = [onboard(gateway=gateway) for _ in range(3)]
    until(lambda: tenants[-1].name in gateway.snapshot.read_text(), "the snapshot")
    gateway.stop(signal.SIGQUIT)
    platform.gateways.remove(gateway)
    tenants[0].suspend()
    platform.change("DELETE", tenants[1].path)
    fresh = onboard(gateway=gateway, wait=False)
    gateway.start()
    platform.gateways.append(gateway)
    platform.wait()
    assert [served(gateway, t.host) for t in (*tenants, fresh)] == \
        ["tenant-suspended", "unknown-host", tenants[2].name, fresh.name]
    assert gateway.metrics().get("tiergate_lists_total") in (None, 0)
    platform.retire(gateway)


def test_away_past_the_history_relists(platform, onboard):
    gateway = platform.gateway()
    gone, stays = onboard(gateway=gateway), onboard(gateway=gateway)
    until(lambda: stays.name in gateway.snapshot.read_text(), "the snapshot")
    gateway.stop(signal.SIGQUIT)
    platform.gateways.remove(gateway)
    platform.change("DELETE", gone.path)
    stays.suspend()
    platform.database.execute(
        "UPDATE tiergate.settings SET value = '\"0 seconds\"' WHERE name = 'changes.retention'")
    try:
        platform.database.execute("SELECT tiergate.housekeeping()")
        registry, revision, oldest = platform.database.one("SELECT * FROM tiergate.registry_state()")
        assert oldest > 0
        gateway.start()
        platform.gateways.append(gateway)
        platform.wait()
        assert served(gateway, gone.host) == "unknown-host"
        assert served(gateway, stays.host) == "tenant-suspended"
        assert gateway.metrics().get("tiergate_lists_total") == 1
    finally:
        platform.database.execute(
            "UPDATE tiergate.settings SET value = '\"24 hours\"' WHERE name = 'changes.retention'")
    platform.retire(gateway)


def test_tenantd_away_changes_nothing_for_requests(platform, onboard):
    tenant = onboard()
    platform.tenantd.stop(signal.SIGKILL)
    try:
        for _ in range(20):
            assert tenant.get().status == 200
    finally:
        platform.tenantd.start()
        platform.rest.close()
    tenant.suspend()
    assert tenant.get().status == 403


def test_another_registry_behind_the_same_socket(platform, postgres, template, backend):
    """The database was replaced: the gateway drops what it knew and lists anew."""
    from support.platform import Platform
    from support.tenantd import Tenantd
    worlds = []
    for name in ("one", "two"):
        tenantd = Tenantd(postgres.database(template), platform.path / "swap")
        world = Platform(tenantd.database, tenantd, backend, platform.path)
        worlds.append(world)
        world.onboard(f"world-{name}", hosts=[f"{name}.example.com"], wait=False)
        if name == "one":
            for _ in range(20):      # a higher revision than the successor's
                world.database.execute("UPDATE tiergate.tenants SET display_name = clock_timestamp()::text")
            gateway = Gateway("gw-swap", f"unix:{tenantd.socket}", path=process.folder("gw-swap"))
            until(lambda: served(gateway, "one.example.com") == "world-one", "the first world")
            world.rest.close()
            tenantd.stop()
    until(lambda: served(gateway, "two.example.com") == "world-two", lambda: gateway.log.text[-3000:])
    until(lambda: served(gateway, "one.example.com") == "unknown-host", "the end of the first world")
    gateway.stop()
    worlds[1].rest.close()
    worlds[1].tenantd.stop()
    assert not gateway.problems()


@pytest.mark.parametrize("grown", [False, True], ids=["behind", "grown past"])
def test_a_registry_restored_from_a_backup(platform, postgres, template, backend, grown):
    """Changes after the backup are gone, for gateways, too: by themselves while the registry has
    fewer revisions than they; else by its new id, as docs/operations.md says."""
    from support.platform import Platform
    from support.tenantd import Tenantd
    tenantd = Tenantd(postgres.database(template), platform.path / f"restored-{grown}")
    world = Platform(tenantd.database, tenantd, backend, platform.path)
    for name in ("kept", "lifted", "revived"):
        world.onboard(name, hosts=[f"{name}.example.com"], wait=False)
    tenantd.stop()
    world.database.close()
    backup = postgres.database(world.database.name)
    tenantd.start()
    gateway = Gateway("gw-back", f"unix:{tenantd.socket}", path=process.folder("gw-back"))
    world.rest.close()
    world.database.execute("SELECT tiergate.suspend('lifted')")
    world.database.execute("SELECT tiergate.delete_tenant('revived')")
    world.onboard("lost", hosts=["lost.example.com"], wait=False)
    hosts = [f"{name}.example.com" for name in ("kept", "lifted", "revived", "lost")]
    until(lambda: [served(gateway, host) for host in hosts]
          == ["kept", "tenant-suspended", "unknown-host", "lost"], "what is lost later")
    world.rest.close()
    tenantd.stop()

    if grown:
        for i in range(20):
            backup.execute("UPDATE tiergate.tenants SET display_name = %s WHERE name = 'kept'", [str(i)])
        assert backup.revision() > world.database.revision()
        backup.execute("UPDATE tiergate.registry SET id = gen_random_uuid()")
    restored = Tenantd(backup, platform.path / f"restored-{grown}")
    until(lambda: [served(gateway, host) for host in hosts]
          == ["kept", "lifted", "revived", "unknown-host"],
          lambda: restored.log.text[-2000:] + gateway.log.text[-2000:])
    backup.execute("SELECT tiergate.suspend('kept')")
    until(lambda: served(gateway, "kept.example.com") == "tenant-suspended", "changes go on")
    gateway.stop()
    restored.stop()
    assert not gateway.problems()


# --- damaged snapshots ---

@pytest.fixture(scope="module")
def snapshot(platform, gateway):
    """A snapshot file with a base and changes after it, and what it should serve."""
    gateway = platform.gateway()
    tenants = [platform.onboard(f"snap{i}", gateway=gateway) for i in range(5)]
    tenants[0].suspend()
    platform.change("DELETE", tenants[1].path)
    until(lambda: '"DELETE"' in gateway.snapshot.read_text()
          and gateway.metrics().get("tiergate_snapshot_revision") == platform.database.revision(),
          "the snapshot")
    gateway.stop(signal.SIGQUIT)
    data = gateway.snapshot.read_bytes()
    platform.retire(gateway)
    return data, ["tenant-suspended", "unknown-host", "snap2", "snap3", "snap4"]


@pytest.fixture
def started_with(platform):
    """Starts a gateway on a snapshot file of these bytes, without a tenantd."""
    gateways = []

    def start(data, name="gw-snap", **options):
        options.setdefault("http", "tenant_load_wait 50ms;")    # what is refused is not waited for
        gateway = Gateway(name, f"unix:{platform.path}/nobody.sock", path=process.folder(name),
                          started=False, workers=1, **options)
        if data is not None:
            gateway.snapshot.write_bytes(data)
        gateway.start()
        gateways.append(gateway)
        return gateway
    yield start
    for gateway in gateways:
        gateway.stop()
        assert not gateway.problems()
        process.drop(gateway.path)


def states(gateway):
    return [served(gateway, f"snap{i}.example.com") for i in range(5)]


def settled(gateway):
    """Waits until the file has been read, to whatever end."""
    until(lambda: ready(gateway)[0] == 200 or "is refused" in gateway.log.text, "the snapshot's fate")


def names_of(data):
    return json.loads(data.split(b"\n", 1)[0])["gateway"]


def test_whole_snapshot(snapshot, started_with):
    data, expected = snapshot
    gateway = started_with(data, names_of(data))
    until(lambda: ready(gateway)[0] == 200, "readiness")
    assert states(gateway) == expected


def last_state(data):
    """What is to be served of a file that was cut: the state at the last BOOKMARK that is
    there whole, by a reader of its own; None: nothing."""
    state, current = None, {}
    for line in data.splitlines(keepends=True)[1:]:
        if not line.endswith(b"\n"):
            break
        _, kind, what, number, event = json.loads(line)
        if kind == "PUT" and what == "tenant":
            current[event["name"]] = ("tenant-suspended" if event["object"]["state"] == "suspended"
                                      else event["name"])
        elif kind == "DELETE":
            current = {name: state for name, state in current.items() if name != event["name"]}
        elif kind == "BOOKMARK":
            state = [current.get(f"snap{i}", "unknown-host") for i in range(5)]
    return state


def test_torn_snapshot(snapshot, started_with):
    """Cut anywhere: the last complete state above that is served."""
    data, expected = snapshot
    cuts = sorted({len(data) * i // 9 for i in range(1, 9)} | {0, 1, len(data) - 1, len(data) - 2})
    served_some = 0
    for cut in cuts:
        gateway = started_with(data[:cut], names_of(data))
        settled(gateway)
        state = last_state(data[:cut])
        assert states(gateway) == (state or ["not-ready"] * 5), cut
        served_some += state is not None
        if not data[:cut].endswith(b"\n"):
            assert "snapshot" in gateway.log.text
        gateway.stop()
    assert last_state(data) == expected and 2 <= served_some < len(cuts)


def test_flipped_bits(snapshot, started_with):
    """One bit anywhere, but in what may have been torn off: refused whole."""
    data, _ = snapshot
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    for i in range(14):
        position = last * i // 14 + 3
        flipped = bytearray(data)
        flipped[position] ^= 1 << (i % 8)
        gateway = started_with(bytes(flipped), names_of(data))
        settled(gateway)
        assert states(gateway) == ["not-ready"] * 5, position
        gateway.stop()


@pytest.mark.parametrize("make", [
    lambda data: b"",
    lambda data: b"\n",
    lambda data: b"\x00" * 4096,
    lambda data: b"{" * 100000,
    lambda data: b"[" * 100000 + b"\n",
    lambda data: data.replace(b"snap2", b"snapX"),                          # digests do not follow
    lambda data: data.split(b"\n", 1)[1],                                   # no header
    lambda data: b'{"tiergate_snapshot":2}\n' + data.split(b"\n", 1)[1],
    lambda data: b"\xff\xfe" + data,
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: b"\n".join(reversed(data.split(b"\n"))),
    lambda data: data.split(b"\n", 1)[0] + b"\n" + b"x" * (5 << 20) + b"\n",
])
def test_hostile_snapshots_are_refused_whole(snapshot, started_with, make):
    data, _ = snapshot
    gateway = started_with(make(data), names_of(data))
    gateway.log.wait("snapshot")
    assert ready(gateway)[0] == 503
    assert states(gateway) == ["not-ready"] * 5


def test_snapshot_that_is_no_file(platform, started_with):
    gateway = Gateway("gw-dir", f"unix:{platform.path}/nobody.sock", path=process.folder("gw-dir"),
                      started=False, workers=1)
    gateway.snapshot.mkdir()
    gateway.start()
    gateway.log.wait("snapshot|registry.jsonl")
    assert ready(gateway)[0] == 503
    gateway.stop()
    assert not gateway.problems()


def test_snapshot_that_cannot_be_written(platform, onboard):
    """The disk is gone: requests and changes go on, and it is said."""
    gateway = platform.gateway(ready=False)
    gateway.stop()
    gateway.snapshot.unlink(missing_ok=True)
    gateway.snapshot = gateway.path / "missing" / "registry.jsonl"
    gateway.start()
    tenant = onboard(gateway=gateway)
    assert tenant.get().status == 200
    until(lambda: (gateway.metrics().get("tiergate_snapshot_failures_total") or 0) > 0, "the failure's count")
    assert "missing/registry.jsonl" in gateway.log.text
    platform.retire(gateway)


def test_snapshot_is_compacted(platform, onboard):
    """It grows with changes, but not for ever."""
    gateway = platform.gateway(workers=1)
    tenant = onboard(gateway=gateway)
    with platform.database.connect(autocommit=True) as connection:
        for i in range(600):
            connection.execute("UPDATE tiergate.tenants SET reason = %s WHERE name = %s", [f"{i}", tenant.name])
    platform.wait()
    shown = platform.rest.call("GET", f"{tenant.path}/document")
    one = len(json.dumps(shown))
    until(lambda: gateway.snapshot.stat().st_size < 600 * one, "compaction")
    platform.retire(gateway)


# --- streams that lie ---

@pytest.fixture
def world(platform):
    """A gateway on a fake tenantd with one tenant, "good", listed at revision 10."""
    path = process.folder("fake")
    port = platform.backend.main.port
    good = document("good", 1, 5, port)

    def on_watch(stream):
        stream.begin()
        if stream.since == 0:
            stream.send(put(good), bookmark(10, complete=True))
    fake = FakeTenantd(path / "tenantd.sock", on_watch)
    fake.revision = 10
    gateway = Gateway("fake", f"unix:{path}/tenantd.sock", path=path, workers=2)
    fake.wait_ack(10)
    assert served(gateway, "good.example.com") == "good"
    yield fake, gateway, port
    gateway.stop()
    fake.stop()
    assert not gateway.problems()
    process.drop(path)


def bad_documents(port):
    good = document("bad", 2, 20, port)

    def broken(**more):
        return {**good, **more}
    yield "no name", broken(name=None)
    yield "other name than the line's", broken(name="other")
    yield "name is no label", broken(name="Bad Name")
    yield "id 0", broken(id=0)
    yield "id negative", broken(id=-1)
    yield "id too big", broken(id=2 ** 53)
    yield "revision a string", broken(revision="20")
    yield "state unknown", broken(state="melting")
    yield "hosts a string", broken(hosts="bad.example.com")
    yield "host with port", broken(hosts=["bad.example.com:80"])
    yield "host in capitals", broken(hosts=["BAD.example.com"])
    yield "host wildcard inside", broken(hosts=["a.*.example.com"])
    yield "too many hosts", broken(hosts=[f"h{i}.example.com" for i in range(257)])
    yield "route to nowhere", broken(routes=[{**good["routes"][0], "backends": [{"upstream": "x", "weight": 1}]}])
    yield "weights all zero", broken(routes=[{**good["routes"][0], "backends": [{"upstream": "main", "weight": 0}]}])
    yield "path without slash", broken(routes=[{**good["routes"][0], "match": {"path": {"type": "prefix", "value": "x"}}}])
    yield "path type unknown", broken(routes=[{**good["routes"][0], "match": {"path": {"type": "glob", "value": "/"}}}])
    yield "regex broken", broken(routes=[{**good["routes"][0], "match": {"path": {"type": "regex", "value": "("}}}])
    yield "auth unknown", broken(routes=[{**good["routes"][0], "auth": {"mode": "maybe"}}])
    yield "endpoint a name", broken(upstreams=[{**good["upstreams"][0], "endpoints": [
        {"id": 1, "address": "localhost", "port": 80, "weight": 1}]}])
    yield "port 0", broken(upstreams=[{**good["upstreams"][0], "endpoints": [
        {"id": 1, "address": "127.0.0.1", "port": 0, "weight": 1}]}])
    yield "quota limit negative", broken(quotas=[{"id": 1, "name": "q", "scope": "tenant", "metric": "requests",
                                                  "limit": -1, "window": "60s"}])
    yield "quota window 0s", broken(quotas=[{"id": 1, "name": "q", "scope": "tenant", "metric": "requests",
                                             "limit": 1, "window": "0s"}])
    yield "key digest short", broken(api_keys=[{"id": 1, "sha256": "abc", "consumer": "c"}])
    yield "secret in the clear", broken(issuers=[{
        "id": 9, "name": "i", "revision": 1, "issuer": "x", "audiences": ["a"], "algorithms": ["HS256"], "leeway": 0,
        "consumer_claim": "sub", "keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}])
    yield "unknown platform issuer", broken(issuers=[{"ref": "x"}])


def test_bad_documents_are_refused_whole(world):
    """Each names a reason, stays out, and does not disturb what is there."""
    fake, gateway, port = world
    revision = 20
    for what, doc in bad_documents(port):
        revision += 1
        line = {"type": "PUT", "kind": "tenant", "name": "bad", "id": 2, "revision": revision, "object": doc}
        fake.follow(line, revision=revision)
        ack = fake.wait_ack(revision)
        rejected = [r for r in ack["rejected"] if r["name"] == "bad"]
        assert rejected and rejected[0]["reason"], (what, ack)
        assert served(gateway, "bad.example.com") == "unknown-host", what
        assert served(gateway, "good.example.com") == "good", what
    # and is forgotten with the first good one
    revision += 1
    fake.follow(put(document("bad", 2, revision, port)), revision=revision)
    ack = fake.wait_ack(revision, lambda ack: not ack["rejected"])
    assert served(gateway, "bad.example.com") == "bad"
    assert len(fake.streams) == 1, "the gateway had no reason to reconnect"


def test_a_bad_version_leaves_the_last_good_one(world):
    fake, gateway, port = world
    bad = {**document("good", 1, 21, port), "routes": "none"}
    fake.follow(put(bad), revision=21)
    ack = fake.wait_ack(21, lambda ack: ack["rejected"])
    assert ack["rejected"][0]["name"] == "good" and ack["rejected"][0]["revision"] == 21
    assert served(gateway, "good.example.com") == "good"
    assert "good" in gateway.log.text and "routes" in gateway.log.text
    assert gateway.metrics().get("tiergate_rejected_objects") == 1
    fake.follow(put(document("good", 1, 22, port, hosts=["new.example.com"])), revision=22)
    fake.wait_ack(22, lambda ack: not ack["rejected"])
    assert served(gateway, "new.example.com") == "good"
    assert served(gateway, "good.example.com") == "unknown-host"


@pytest.mark.parametrize("line", [
    b"\n", b"{\n", b"}\n", b"null\n", b"[]\n", b"5\n", b'"x"\n', b"\x00\n", b"\xff\xfe\xfd\n", b"{}\n",
    b'{"type":"PUT"}\n', b'{"type":"EXPLODE","revision":99}\n', b'{"type":5}\n',
    b'{"type":"PUT","kind":"tenant","name":"x","id":3,"revision":20}\n',
    b'{"type":"PUT","kind":"tenant","name":"x","id":3,"revision":20,"object":5}\n',
    b'{"type":"PUT","kind":"tenant","name":"x","id":3,"revision":-1,"object":{}}\n',
    b'{"type":"PUT","kind":"tenant","name":"x","id":3,"revision":1e400,"object":{}}\n',
    b'{"type":"DELETE","kind":"tenant","name":"good"}\n',
    b'{"type":"DELETE","kind":"tenant","name":"good","id":1,"revision":"x"}\n',
    b'{"type":"DELETE","kind":"tenant","name":"good","id":1,"id":2,"revision":20}\n',
    b'{"type":"BOOKMARK","revision":"11"}\n', b'{"type":"BOOKMARK"}\n',
    b'{"type":"BOOKMARK","revision":-5}\n', b'{"type":"BOOKMARK","revision":99999999999999999999}\n',
    b"x" * 70000 + b"\n", b"x" * (5 << 20) + b"\n", b"[" * 70000 + b"\n",
    b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
], ids=short)
def test_hostile_lines(world, line):
    """Refused with a reason in the log; the state stays, and the stream goes on or
    is opened anew."""
    fake, gateway, port = world
    later = document("later", 3, 30, port)

    def on_watch(stream):       # should it reconnect
        stream.begin()
        if stream.since == 0:
            stream.send(put(document("good", 1, 5, port)), put(later), bookmark(30, complete=True))
        elif stream.since < 30:
            stream.send(put(later))
    fake.on_watch = on_watch
    fake.stream.send(line)
    fake.stream.send(put(later))
    fake.revision = 30
    until(lambda: served(gateway, "later.example.com") == "later", lambda: gateway.log.text[-2000:])
    assert served(gateway, "good.example.com") == "good"
    if line.strip():
        until(lambda: gateway.metrics().get("tiergate_stream_refused_total"), "the count of refused lines")


def test_unknown_kinds_are_passed_over(world):
    """A newer tenantd may speak of more."""
    fake, gateway, port = world
    fake.follow({"type": "PUT", "kind": "weather", "name": "x", "id": 1, "revision": 20, "object": {}},
                put({**document("later", 3, 21, port), "mood": {"x": [1]}}), revision=21)
    ack = fake.wait_ack(21)
    assert not ack["rejected"]
    assert served(gateway, "later.example.com") == "later"


def test_stale_lines_change_nothing(world):
    """Older revisions of an object, and deletions of an older one, come too late."""
    fake, gateway, port = world
    newer = document("good", 1, 25, port, hosts=["new.example.com"])
    fake.follow(put(newer), revision=25)
    fake.wait_ack(25)
    fake.stream.send(put(document("good", 1, 24, port)), delete("good", 1, 24), put(newer), put(newer))
    fake.follow(put(document("later", 3, 26, port)), revision=26)
    fake.wait_ack(26)
    assert served(gateway, "new.example.com") == "good"
    assert served(gateway, "good.example.com") == "unknown-host"
    # a deletion of another id of that name
    fake.follow(delete("good", 99, 27), revision=27)
    fake.wait_ack(27)
    assert served(gateway, "new.example.com") == "good"
    fake.follow(delete("good", 1, 28), delete("never", 77, 28), revision=28)
    fake.wait_ack(28)
    assert served(gateway, "new.example.com") == "unknown-host"


def test_two_tenants_claim_a_host(world):
    """The database does not let it happen; a stream might."""
    fake, gateway, port = world
    fake.follow(put(document("thief", 4, 20, port, hosts=["good.example.com", "thief.example.com"])), revision=20)
    fake.wait_ack(20)
    owner = served(gateway, "good.example.com")
    assert owner in ("good", "thief")
    assert served(gateway, "thief.example.com") in ("thief", "unknown-host")
    fake.follow(delete("thief", 4, 21), revision=21)
    fake.wait_ack(21)
    assert served(gateway, "thief.example.com") == "unknown-host"


def test_a_list_drops_what_it_does_not_name(world):
    fake, gateway, port = world
    fake.follow(put(document("later", 3, 20, port)), revision=20)
    fake.wait_ack(20)

    def relist(stream):
        if stream.since:
            stream.begin("410 Gone", {"Content-Type": "application/problem+json", "Content-Length": "2"})
            stream.raw("{}")
            stream.close()
            return
        fake.revision = 30      # no bookmark of the stream before may say so
        stream.begin()
        stream.send(put(document("later", 3, 20, port)), bookmark(30, complete=True))
    fake.on_watch = relist
    fake.stream.close()
    until(lambda: served(gateway, "good.example.com") == "unknown-host", "the list's end")
    assert served(gateway, "later.example.com") == "later"
    since = [s.since for s in fake.streams]
    assert since[-1] == 0 and since[-2] == 20, since


def test_an_interrupted_list_drops_nothing(world):
    fake, gateway, port = world
    begun = []

    def half(stream):
        stream.begin()
        stream.send(put(document("later", 3, 20, port)))
        begun.append(stream)
        stream.close()
    fake.on_watch = lambda s: (s.begin("410 Gone", {"Content-Length": "0"}), s.close()) if s.since else half(s)
    fake.stream.close()
    until(lambda: len(begun) >= 2, "two attempts")
    holds(lambda: served(gateway, "good.example.com") == "good", "good is served", 0.5)

    def whole(stream):
        stream.begin()
        stream.send(put(document("later", 3, 20, port)), bookmark(30, complete=True))
    fake.revision = 30
    fake.on_watch = whole
    until(lambda: served(gateway, "good.example.com") == "unknown-host", "the whole list")


def test_resumes_from_the_last_revision(world):
    fake, gateway, port = world
    fake.follow(put(document("later", 3, 33, port)), revision=33)
    fake.wait_ack(33)
    before = len(fake.streams)
    fake.stream.close()
    until(lambda: len(fake.streams) > before, "a new stream")
    assert fake.streams[-1].since == 33
    assert fake.streams[-1].query["for"] == "fake"
    assert fake.streams[-1].query.get("registry") in (None, fake.registry)


def test_silence_is_death(world):
    """No line for 5 s: another connection, from where it was."""
    fake, gateway, port = world
    fake.bookmarks = False
    before = len(fake.streams)
    until(lambda: len(fake.streams) > before, "a new stream")
    fake.bookmarks = True
    assert fake.streams[-1].since == 10
    assert served(gateway, "good.example.com") == "good"


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
    "HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n"
    "Tiergate-Registry: not-a-uuid\r\n\r\n",
    "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 20000 + "\r\n",
    "HTTP/0.9 hello", "\x00\x01\x02", "SSH-2.0-OpenSSH\r\n", "",
], ids=short)
def test_answers_that_are_no_stream(world, answer):
    """Logged, tried again with backoff; what is known stays."""
    fake, gateway, port = world
    answered = []

    def lie(stream):
        answered.append(stream)
        stream.raw(answer)
        stream.close()
    good = fake.on_watch
    fake.on_watch = lie
    fake.stream.close()
    until(lambda: answered, "a first attempt")
    assert served(gateway, "good.example.com") == "good"
    fake.on_watch = good
    until(lambda: fake.streams[-1].open and fake.streams[-1].begun, "a good stream again")
    fake.follow(put(document("later", 3, 40, port)), revision=40)
    fake.wait_ack(40)
    assert served(gateway, "later.example.com") == "later"
    assert len(answered) < 60, "no backoff"


def test_bytes_in_drips(world):
    """A line in pieces of one byte, cut in the middle of chunks and UTF-8."""
    fake, gateway, port = world
    line = json.dumps(put({**document("later", 3, 20, port), "reason": "é€"}), ensure_ascii=False).encode() + b"\n"
    stream = fake.stream
    with stream.lock:           # a bookmark in its middle would be a part of it
        for i in range(0, len(line), 7):
            stream.chunk(line[i:i + 7])
    fake.follow(revision=20)
    fake.wait_ack(20)
    assert served(gateway, "later.example.com") == "later"


def test_many_at_once(world):
    """A list of 3,000 tenants in one go."""
    fake, gateway, port = world
    fake.stream.send(*[b"".join(json.dumps(put(document(f"m{i}", 1000 + i, 50 + i, port))).encode() + b"\n"
                                for i in range(start, start + 100)) for start in range(0, 3000, 100)])
    fake.follow(revision=4000)
    ack = fake.wait_ack(4000)
    assert ack["tenants"] == 3001 or ack["rejected"]
    if not ack["rejected"]:
        for i in range(0, 3000, 211):
            assert served(gateway, f"m{i}.example.com") == f"m{i}"


def test_the_acknowledgement(world):
    fake, gateway, port = world
    ack = fake.wait_ack(10)
    assert set(ack) >= {"boot", "revision", "registry", "state", "tenants", "zone", "rejected"}
    assert ack["state"] == "live" and ack["registry"] == fake.registry and ack["tenants"] == 1
    assert len(ack["boot"]) == 32
    assert 0 < ack["zone"]["used"] < ack["zone"]["size"]
