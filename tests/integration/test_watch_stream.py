# SPDX-License-Identifier: BSD-2-Clause
"""The watch stream, as docs/reference/watch.md says."""

import concurrent.futures
import json
import threading
import time

import pytest

from support import wire
from support.poll import until
from tenantd_fixture import Stream, admin, daemon, make_daemon, token  # noqa: F401

CONFIG = """
[watch]
ring_lines = 50
recheck_interval = 300ms
"""

IMPATIENT = """
[watch]
max_pending = 256k
stall_timeout = 1s
"""


def names(lines):
    return [(line["type"], line["name"]) for line in lines]


def test_list_then_changes(daemon, admin, database):
    admin.call("PUT", "/v1/issuers/platform", {
        "issuer": "https://p.example", "algorithms": ["RS256"], "jwks_uri": "https://p.example/keys"})
    admin.call("POST", "/v1/tenants", {"name": "acme", "hosts": ["acme.example.com"]})
    stream = Stream(daemon.socket)
    assert stream.status == 200
    assert stream.headers["content-type"] == "application/jsonl"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert stream.headers["tiergate-registry"] == admin.call("GET", "/v1/readyz")["registry"]

    listed, at = stream.list()
    assert names(listed)[0] == ("PUT", "platform")
    assert ("PUT", "acme") in names(listed)
    acme = next(line for line in listed if line["name"] == "acme")
    assert acme["object"]["hosts"] == ["acme.example.com"] and acme["kind"] == "tenant"
    assert at == database.revision()

    changed = admin.call("PATCH", "/v1/tenants/acme", {"hosts": []})["revision"]
    line = next(line for line in iter(stream.line, None) if line["type"] != "BOOKMARK")
    assert (line["type"], line["name"], line["revision"]) == ("PUT", "acme", changed)
    assert line["object"]["revision"] == changed and line["object"]["hosts"] == []

    admin.call("DELETE", "/v1/tenants/acme")
    line = next(line for line in iter(stream.line, None) if line["type"] != "BOOKMARK")
    assert (line["type"], line["name"], line["id"]) == ("DELETE", "acme", acme["id"])
    stream.close()


def test_changes_from_psql(daemon, admin, database):
    admin.call("POST", "/v1/tenants", {"name": "sql", "quotas": [{"name": "q", "limit": 1, "window": "1s"}]})
    stream = Stream(daemon.socket, since=database.revision())
    database.psql("BEGIN; UPDATE tiergate.quotas SET requests = 7 WHERE tenant = 'sql';"
                  "INSERT INTO tiergate.hosts VALUES ('sql.example.com', 'sql'); COMMIT")
    line = next(line for line in iter(stream.line, None) if line["type"] != "BOOKMARK")
    assert line["object"]["quotas"][0]["limit"] == 7 and line["object"]["hosts"] == ["sql.example.com"]
    stream.close()


def test_bookmarks_every_second(daemon):
    stream = Stream(daemon.socket)
    _, at = stream.list()
    begin = time.monotonic()
    for _ in range(3):
        line = stream.line()
        assert line == {"type": "BOOKMARK", "revision": at}
    assert time.monotonic() - begin < 9
    stream.close()


def test_resume_by_delta(daemon, admin, database):
    for name in ("one", "two", "three"):
        admin.call("POST", "/v1/tenants", {"name": name})
    begin = database.revision()
    admin.call("PATCH", "/v1/tenants/one", {"display_name": "a"})
    admin.call("DELETE", "/v1/tenants/two")
    middle = database.revision()
    admin.call("PATCH", "/v1/tenants/three", {"display_name": "b"})
    end = database.revision()

    assert names(Stream(daemon.socket, since=begin).until_revision(end)) == [
        ("PUT", "one"), ("DELETE", "two"), ("PUT", "three")]
    assert names(Stream(daemon.socket, since=middle).until_revision(end)) == [("PUT", "three")]
    assert names(Stream(daemon.socket, since=end).until_revision(end)) == []
    registry = admin.call("GET", "/v1/readyz")["registry"]
    assert Stream(daemon.socket, since=end, query=f"&registry={registry}").status == 200


def test_resume_beyond_the_ring(daemon, admin, database):
    """Older than what is in memory: SQL has it, and nothing is missing."""
    admin.call("POST", "/v1/tenants", {"name": "often"})
    begin = database.revision()
    for n in range(80):
        admin.call("PUT", f"/v1/tenants/often/consumers/c{n}", {})
    end = database.revision()
    lines = Stream(daemon.socket, since=begin).until_revision(end)
    assert names(lines)[-1] == ("PUT", "often")
    assert len(lines[-1]["object"]["consumers"]) == 80
    assert [line["revision"] for line in lines] == sorted(line["revision"] for line in lines)


def test_resume_after_nobody_watched(daemon, admin, database):
    """While there is no stream the feed reads no documents; who comes back misses nothing."""
    lonely = Stream(daemon.socket, "lonely", since=database.revision())
    seen = admin.call("POST", "/v1/tenants", {"name": "seen"})["revision"]
    assert ("PUT", "seen") in names(lonely.until_revision(seen))
    lonely.close()
    until(lambda: "\ntiergate_tenantd_watch_streams 0\n" in admin.request("GET", "/metrics").text, "the stream to be gone")
    missed = [admin.call("POST", "/v1/tenants", {"name": f"missed{n}"})["revision"] for n in range(3)]
    until(lambda: admin.call("GET", "/v1/readyz")["revision"] == missed[-1], "the feed to have moved")

    again, late = Stream(daemon.socket, "lonely", since=seen), Stream(daemon.socket, "late", since=missed[1])
    assert names(again.until_revision(missed[-1])) == [("PUT", f"missed{n}") for n in range(3)]
    assert names(late.until_revision(missed[-1])) == [("PUT", "missed2")]
    live = admin.call("PATCH", "/v1/tenants/missed1", {"display_name": "M"})["revision"]
    for stream in (again, late):
        assert names(stream.until_revision(live)) == [("PUT", "missed1")]
        stream.close()


def test_gone(daemon, admin, database):
    admin.call("POST", "/v1/tenants", {"name": "gone"})
    now = database.revision()
    other = "00000000-0000-0000-0000-000000000000"
    for since, query in ((now + 1, ""), (now + 10**12, ""), (now, f"&registry={other}"), (now, f"&seen={now + 1}"),
                         (1, f"&seen={now + 1}")):
        stream = Stream(daemon.socket, since=since, query=query)
        assert stream.status == 410 and stream.problem == "revision-gone", (since, query)
    # a list asks for nothing that could be gone
    assert Stream(daemon.socket, since=0, query=f"&registry={other}").status == 200
    assert Stream(daemon.socket, since=now, query=f"&seen={now}").status == 200

    database.execute("UPDATE tiergate.changes SET at = now() - interval '2 days'")
    database.execute("SELECT tiergate.housekeeping()")
    assert Stream(daemon.socket, since=1).status == 410
    assert Stream(daemon.socket, since=now).status == 200


BAD_QUERIES = ["", "?for=", "?for=g&since=x", "?for=g&since=-1", "?for=g&since=", "?for=g&since=1.5",
               "?for=g&since=99999999999999999999", "?for=g&since=1&seen=x", "?for=g&x=1", "?for=" + "g" * 64]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_bad_queries(admin, query):
    answer = admin.request("GET", f"/v1/watch{query}")
    assert answer.status == 400 and answer.problem == "missing-parameter"


def test_who_may_watch(daemon, admin):
    tokens = {"nobody": None, "reader": token(admin, "reader", "reader"),
              "other": token(admin, "other", "gateway", gateway="other"),
              "own": token(admin, "own", "gateway", gateway="gw"), "admin": token(admin, "admin", "admin")}
    expected = {"nobody": 401, "reader": 403, "other": 403, "own": 200, "admin": 200}
    for who, secret in tokens.items():
        assert Stream(daemon.address, "gw", token=secret).status == expected[who], who


def test_a_revoked_token_ends_its_stream(daemon, admin):
    made = admin.call("POST", "/v1/tokens", {"name": "short", "scope": "gateway", "gateway": "short"})
    stream = Stream(daemon.address, "short", token=made["token"])
    stream.list()
    admin.request("DELETE", f"/v1/tokens/{made['id']}")
    assert None in iter(stream.line, "never")


def test_views(daemon, admin):
    """A dedicated gateway sees its tenant; a shared one of such a tenant no more than
    it needs to pass requests on."""
    admin.call("POST", "/v1/tenants", {"name": "big", "tier": "dedicated", "keys": [{"consumer": "mobile"}]})
    admin.call("POST", "/v1/tenants", {"name": "small"})
    admin.call("PUT", "/v1/gateways/big-1", {"kind": "dedicated", "tenant": "big"})
    shared, dedicated = Stream(daemon.socket, "shared-1"), Stream(daemon.socket, "big-1")
    listed = shared.list()[0]
    assert ("PUT", "small") in names(listed)
    assert [line["object"]["api_keys"] for line in listed if line["name"] == "big"] == [[]]
    seen = [line for line in dedicated.list()[0] if line["kind"] == "tenant"]
    assert names(seen) == [("PUT", "big")] and len(seen[0]["object"]["api_keys"]) == 1

    # the two documents come with the same revision
    at = admin.call("PATCH", "/v1/tenants/big", {"display_name": "Big"})["revision"]
    theirs, own = shared.until_revision(at), dedicated.until_revision(at)
    assert names(theirs) == names(own) == [("PUT", "big")]
    assert theirs[0]["object"]["api_keys"] == [] and len(own[0]["object"]["api_keys"]) == 1
    assert theirs[0]["revision"] == own[0]["revision"]

    # with the tier the tenant moves; until there is a gateway it stays where it is
    at = admin.call("PATCH", "/v1/tenants/small", {"tier": "dedicated"})["revision"]
    assert names(shared.until_revision(at)) == [("PUT", "small")]
    at = admin.call("PATCH", "/v1/tenants/big", {"tier": "vcluster"})["revision"]
    theirs = shared.until_revision(at)
    assert names(theirs) == [("PUT", "big")] and len(theirs[0]["object"]["api_keys"]) == 1
    # the dedicated gateway learns nothing of others, not even their names
    assert set(names(dedicated.until_revision(at))) <= {("PUT", "big")}
    at = admin.call("PATCH", "/v1/tenants/small", {"tier": "vcluster"})["revision"]
    assert names(dedicated.until_revision(at)) == []


def test_one_transaction_is_one_revision(daemon, admin, database):
    for n in range(5):
        admin.call("POST", "/v1/tenants", {"name": f"batch{n}"})
    stream = Stream(daemon.socket, since=database.revision())
    database.execute("UPDATE tiergate.tenants SET display_name = 'x' WHERE name LIKE 'batch%'")
    lines = stream.until_revision(database.revision())
    assert sorted(names(lines)) == [("PUT", f"batch{n}") for n in range(5)]
    assert len({line["revision"] for line in lines}) == 1


def test_a_flood_reaches_everybody(daemon, admin, database):
    """More changes at once than the ring holds, while streams are open."""
    body = "\n".join(json.dumps({"name": f"flood{n}", "labels": {"l": "x" * 200}}) for n in range(1500)).encode()
    streams = [Stream(daemon.socket, f"gw{n}", since=database.revision()) for n in range(3)]
    last = []

    def collect(stream, found):
        for line in iter(stream.line, None):
            if line["type"] == "PUT":
                found[line["name"]] = line["object"]["revision"]
            elif last and line["revision"] >= last[0]:
                return

    found = [{} for _ in streams]
    threads = [threading.Thread(target=collect, args=pair) for pair in zip(streams, found)]
    for thread in threads:
        thread.start()
    answer = admin.request("POST", "/v1/import", body, {"Content-Type": "application/jsonl"})
    assert answer.text.count('"status":201') == 1500
    database.execute("UPDATE tiergate.tenants SET display_name = 'all' WHERE name LIKE 'flood%'")
    last.append(database.revision())
    for thread in threads:
        thread.join(60)
    for each in found:
        newest = {name: at for name, at in each.items() if name.startswith("flood")}
        assert len(newest) == 1500 and set(newest.values()) == {last[0]}


@pytest.fixture
def impatient(request, database):
    daemon = make_daemon(request, database, IMPATIENT)
    yield daemon
    daemon.close()


def test_slow_readers_are_dropped_and_others_are_not(impatient, admin, database):
    daemon = impatient
    admin.call("POST", "/v1/tenants", {"name": "noisy", "labels": {str(n): "x" * 200 for n in range(50)}})
    begin = database.revision()
    slow, good = Stream(daemon.socket, "slow", since=begin), Stream(daemon.socket, "good", since=begin)
    mark = daemon.log.mark()
    consumers = ",".join(f"('noisy', 'c{n}')" for n in range(3000))
    database.execute(f"INSERT INTO tiergate.consumers (tenant, name) VALUES {consumers}")

    def change():
        database.execute("UPDATE tiergate.tenants SET display_name = clock_timestamp()::text WHERE name = 'noisy'")
        good.until_revision(database.revision())
        return "slow dropped" in daemon.log.since(mark)
    until(change, "the slow reader to be dropped", 30)
    assert "good dropped" not in daemon.log.since(mark)
    # it resumes by delta from the last line it had
    last = begin
    for line in iter(slow.line, None):
        last = max(last, line["revision"])
    again = Stream(daemon.socket, "slow", since=last)
    assert names(again.until_revision(database.revision()))[-1] == ("PUT", "noisy")


def test_many_streams_share_the_work(daemon, admin):
    streams = [Stream(daemon.socket, f"many{n}") for n in range(30)]

    def listed(stream):
        return sorted((line["name"], line["object"]["revision"]) for line in stream.list()[0])
    # all at once: who is not read for long is dropped
    with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
        lists = list(pool.map(listed, streams))
    assert all(each == lists[0] for each in lists)
    at = admin.call("POST", "/v1/tenants", {"name": "everybody"})["revision"]
    for stream in streams:
        assert ("PUT", "everybody") in names(stream.until_revision(at))
    metrics = admin.request("GET", "/metrics").text
    assert int(metrics.split("\ntiergate_tenantd_watch_streams ")[1].split("\n")[0]) >= 30


def test_acknowledgements(daemon, admin):
    at = admin.call("POST", "/v1/tenants", {"name": "acked"})["revision"]
    report = {"boot": "b1", "revision": at, "state": "live", "tenants": 3, "zone": {"size": 100, "used": 10},
              "rejected": [{"kind": "tenant", "name": "acked", "revision": at, "reason": "zone full"}]}
    assert admin.request("POST", "/v1/gateways/ack-1/ack", report).status == 204
    gateway = admin.call("GET", "/v1/gateways/ack-1")
    assert gateway["observedRevision"] == at and gateway["state"] == "live"
    tenant = admin.call("GET", "/v1/tenants/acked")
    assert tenant["observedRevision"]["ack-1"] == at and tenant["rejected"] == {"ack-1": "zone full"}
    for bad in ({}, {**report, "state": "asleep"}, {**report, "revision": "x"}, {**report, "boot": ""},
                {**report, "registry": "00000000-0000-0000-0000-000000000000"}):
        assert admin.request("POST", "/v1/gateways/ack-1/ack", bad).status in (409, 422), bad


def test_overtaken_acknowledgements_are_answered_all_the_same(daemon, admin, database):
    at = database.revision()
    connections = [wire.Connection(daemon.socket) for _ in range(20)]
    for n, connection in enumerate(connections):
        body = json.dumps({"boot": "b", "revision": at - 20 + n + 1 if at > 20 else at, "state": "live"}).encode()
        connection.send(wire.compose("POST", "/v1/gateways/busy/ack", [
            ("Host", "x"), ("Content-Type", "application/json")], body))
    assert [connection.response().status for connection in connections] == [204] * 20
    assert admin.call("GET", "/v1/gateways/busy")["observedRevision"] == at


def test_usage_reports_count_once(admin, database):
    admin.call("POST", "/v1/tenants", {"name": "used"})
    report = {"boot": "b", "time": int(time.time() * 1000), "counters": [{
        "tenant": "used", "route": "", "requests": 10, "status": [0, 9, 0, 1, 0], "denied": 0, "throttled": 1,
        "bytes_in": 100, "bytes_out": 2000, "latency_us": 12345, "latency": [0, 4, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]}],
        "quotas": []}
    for _ in range(3):
        assert admin.request("POST", "/v1/gateways/use-1/usage", report).status == 204
    items = admin.call("GET", "/v1/tenants/used/usage?step=minute")["items"]
    assert sum(item["requests"] for item in items) == 10


def test_two_daemons_on_one_database(request, daemon, admin, database):
    second = make_daemon(request, database)
    try:
        stream = Stream(second.socket, since=database.revision())
        at = admin.call("POST", "/v1/tenants", {"name": "both"})["revision"]
        assert ("PUT", "both") in names(stream.until_revision(at))
        at = second.rest.call("DELETE", "/v1/tenants/both") or database.revision()
        assert ("DELETE", "both") in names(Stream(daemon.socket, since=at - 1).until_revision(at))
        # a gateway may go on at the other one from where it was
        assert Stream(daemon.socket, since=at).status == 200
    finally:
        second.close()
