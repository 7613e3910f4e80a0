# SPDX-License-Identifier: BSD-2-Clause
"""A tenant that moves to another gateway: held, passed on, sent away, and its quota
state taken along.  Documents are written by hand: tenantd has no part in this."""

import threading
import time

import pytest

from support import process, wire
from support.backend import Backend
from support.fake import FakeTenantd, bookmark, document, put
from support.load import Load
from support.nginx import Gateway
from support.poll import no_midnight, until
from support.websocket import WebSocket

FORWARD = "tiergate-forward"

# Held for longer than any change here takes, and for a short time.
PATIENT = {"http": "underscores_in_headers on; tenant_load_wait 10s;", "locations": """
        location /brief/ { tenant host; tenant_load_wait 2s; proxy_pass http://tenants; }
"""}


@pytest.fixture(scope="module")
def backend():
    backend = Backend()
    yield backend
    backend.stop()


class Side:
    """A gateway and the tenantd that it believes."""

    def __init__(self, name, **options):
        self.path = process.folder(name)
        self.registry = {}      # documents by name, for a list
        self.revision = 1
        self.fake = FakeTenantd(self.path / "tenantd.sock", self._watch)
        self.fake.revision = 1
        self.gateway = Gateway(name, f"unix:{self.path}/tenantd.sock", path=self.path, **{**PATIENT, **options})
        self.fake.wait_ack(1)

    def _watch(self, stream):
        stream.begin()
        if stream.since == 0:
            stream.send(*[put(doc) for doc in self.registry.values()], bookmark(self.fake.revision, complete=True))
        else:
            stream.send(*[put(doc) for doc in self.registry.values() if doc["revision"] > stream.since])

    def tell(self, make, wait=True, **more):
        """Sends a new version of a document; returns its revision."""
        self.revision += 1
        doc = make(self.revision, **more)
        self.registry[doc["name"]] = doc
        self.fake.follow(put(doc), revision=self.revision)
        if wait:
            self.fake.wait_ack(self.revision)
        return self.revision

    def stop(self):
        self.gateway.stop()
        self.fake.stop()
        problems = self.gateway.problems()
        if not problems:
            process.drop(self.path)
        assert not problems, problems


@pytest.fixture(scope="module")
def shared():
    side = Side("fw-shared", workers=2)
    yield side
    side.stop()


@pytest.fixture(scope="module")
def own():
    """The tenant's own gateway."""
    side = Side("fw-own", workers=1)
    yield side
    side.stop()


numbers = iter(range(1, 1000))


class Tenant:
    """A tenant as the two kinds of gateways are told of it."""

    def __init__(self, backend, own=None, quotas=(), auth="none"):
        self.number = next(numbers)
        self.name = f"fw{self.number}"
        self.host = f"{self.name}.example.com"
        self.port = backend.main.port
        self.own = own
        self.quotas = [{"id": self.number * 100 + 50 + i, "dry_run": False, **q} for i, q in enumerate(quotas)]
        self.auth = auth

    def full(self, revision, **more):
        doc = document(self.name, self.number, revision, self.port)
        doc["routes"][0] |= {"websocket": True, "auth": {"mode": self.auth}}
        doc["quotas"] = self.quotas
        return {**doc, **more}

    def forward(self, revision, port=None, **more):
        doc = self.full(revision)
        number = self.number * 100
        doc["upstreams"].append(
            {"id": number + 11, "name": FORWARD, "max_outstanding": 0,
             "endpoints": [{"id": number + 12, "address": "127.0.0.1", "port": port or self.own.gateway.port}]})
        doc["routes"].append(
            {"id": number + 13, "name": FORWARD, "match": {"path": {"type": "prefix", "value": "/"}},
             "auth": {"mode": "none"}, "backends": [{"upstream": FORWARD, "weight": 1}], "retries": 1,
             "timeouts": {"connect_ms": 1000, "send_ms": 60000, "read_ms": 60000}, "websocket": True})
        return {**doc, "forward": FORWARD, "issuers": [], "api_keys": [], **more}

    def get(self, side, target="/", headers=(), **more):
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        return side.gateway.request("GET", target, [("Host", self.host), *pairs], **more)


# --- misdirected ---

def test_misdirected(shared, backend):
    tenant = Tenant(backend)
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 200
    socket = WebSocket(shared.gateway.address, tenant.host)
    shared.tell(tenant.full, misdirected=True)
    answer = tenant.get(shared, "/any?x")
    assert (answer.status, answer.problem) == (421, "misdirected-request")
    assert answer.json()["tenant"] == tenant.name
    until(lambda: shared.gateway.metrics().get("tiergate_refused_total", reason="misdirected-request") == 1, "its count")
    assert socket.echo("goes on") == "goes on"
    # a suspended tenant is suspended, wherever it is
    shared.tell(tenant.full, misdirected=True, state="suspended")
    assert tenant.get(shared).problem == "tenant-suspended"
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 200
    socket.close()


# --- hold ---

def test_hold_then_release(shared, backend):
    tenant = Tenant(backend)
    shared.tell(tenant.full)
    socket = WebSocket(shared.gateway.address, tenant.host)
    kept = shared.gateway.connect()
    assert kept.request("GET", "/", {"Host": tenant.host}).status == 200
    shared.tell(tenant.full, hold=True)

    answers = []

    def ask(connection):
        answers.append(connection.request("POST", "/x", {"Host": tenant.host}, b"body"))

    threads = [threading.Thread(target=ask, args=[c]) for c in (kept, *(shared.gateway.connect() for _ in range(9)))]
    backend.clear()
    for thread in threads:
        thread.start()
    other = Tenant(backend)
    shared.tell(other.full)         # another change wakes nobody for good
    assert other.get(shared).status == 200
    assert socket.echo("untouched") == "untouched"
    assert not answers and len(backend.seen) == 1
    began = time.monotonic()
    shared.tell(tenant.full, wait=False)
    for thread in threads:
        thread.join(20)
    took = time.monotonic() - began
    assert [answer.status for answer in answers] == [200] * 10
    assert {answer.json()["body"] for answer in answers} == {"body"}
    assert took < 5, f"woken after {took} s"
    socket.close()


def test_hold_ends_with_its_time(shared, backend):
    tenant = Tenant(backend)
    shared.tell(tenant.full, hold=True)
    began = time.monotonic()
    answer = tenant.get(shared, "/brief/")
    took = time.monotonic() - began
    assert (answer.status, answer.problem) == (503, "not-ready")
    assert answer.headers["retry-after"] == "1" and "moved" in answer.json()["detail"]
    assert 1.8 < took < 8
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 200


def test_hold_and_clients_that_go(shared, backend):
    """A client that gives up leaves nothing behind, and its tenant may end meanwhile."""
    tenant = Tenant(backend)
    shared.tell(tenant.full, hold=True)
    connections = [shared.gateway.connect() for _ in range(20)]
    for connection in connections:
        connection.send(wire.compose("GET", "/", {"Host": tenant.host}))
    for connection in connections[:10]:
        connection.close()
    shared.tell(tenant.full, state="suspended", hold=True)
    for connection in connections[10:]:
        assert connection.response().problem == "tenant-suspended"
        connection.close()
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 200


def test_hold_under_load(shared, backend):
    tenant = Tenant(backend)
    shared.tell(tenant.full)
    probes = [("get", wire.compose("GET", "/", {"Host": tenant.host}), {200})]
    with Load(shared.gateway.address, probes, threads=4) as load:
        for _ in range(5):
            load.wait(20)
            shared.tell(tenant.full, hold=True)
            shared.tell(tenant.full)
        load.wait(20)
    assert not load.wrong and not load.failed, (load.wrong[:3], load.failed[:3])


# --- forward ---

ODD_TARGETS = ["/", "/a/b?x=1&y=%20", "/a%2fb", "/a/%2e%2e/x", "/a//b///c", "/a;p=1/b;q", "/a/./b/../c",
               "/caf%C3%A9", "/%7euser", "/~user", "/a?b?c=/../d", "/?", "/a%20b", "/a+b", "/%41", "/a%5cb",
               "/public/..;/private", "/x?" + "y" * 2000, "/*", "/a'b(c)!$,=@:"]


def test_forward_passes_the_target_on(shared, backend):
    """Byte for byte, although none of these routes would match, or would be refused."""
    tenant = Tenant(backend, auth="required")
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 401
    shared.tell(tenant.forward, port=backend.main.port)
    for target in ODD_TARGETS:
        assert tenant.get(shared, target).json()["target"] == target
    absolute = shared.gateway.request("GET", f"http://{tenant.host}/a%2fb//c?d", {"Host": tenant.host})
    assert absolute.json()["target"] == "/a%2fb//c?d"
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        seen = shared.gateway.request(method, "/m%2f", {"Host": tenant.host}, b"\0body\xff").json()
        assert (seen["method"], seen["target"], seen["body"]) == (method, "/m%2f", "\0body\xff")


def test_forward_headers(shared, backend):
    tenant = Tenant(backend, quotas=[{"name": "all", "scope": "tenant", "metric": "requests", "limit": 1,
                                      "window": "day"}])
    shared.tell(tenant.forward, port=backend.main.port)
    sent = [("Authorization", "Bearer not.a.token"), ("X-API-Key", "tg_nonsense"), ("X-Tenant", "other"),
            ("X-Tenant-Consumer", "root"), ("x_tenant_auth", "jwt"), ("X-Own", "1"), ("Cookie", "a=b"),
            ("X-Do", "header=RateLimit:\"all\";r=5")]
    for _ in range(3):      # more than the quota allows here
        answer = shared.gateway.request("GET", "/", [("Host", f"{tenant.host.upper()}:8080"), *sent])
        assert answer.status == 200
        got = wire.Headers(answer.json()["headers"])
        assert got["host"] == f"{tenant.host.upper()}:8080"
        assert got["authorization"] == "Bearer not.a.token" and got["x-api-key"] == "tg_nonsense"
        assert got["x-own"] == "1" and got["cookie"] == "a=b"
        assert not [name for name, _ in got.pairs if name.lower().replace("_", "-").startswith("x-tenant")]
        # what the other gateway says of its limits stands
        assert answer.headers["ratelimit"] == '"all";r=5' and "ratelimit-policy" not in answer.headers
    until(lambda: f"tenant={tenant.name} route={FORWARD}" in shared.gateway.access_log(), "the log")
    until(lambda: [c for r in shared.fake.reports for c in r["counters"]
                   if c["tenant"] == tenant.name and c["route"] == FORWARD and c["requests"] == 3], "the usage")


def test_forward_websocket_and_what_was_pinned(shared, own, backend):
    """Through both gateways; what began before the switch ends where it began."""
    tenant = Tenant(backend, own)
    own.tell(tenant.full)
    shared.tell(tenant.full)
    before = WebSocket(shared.gateway.address, tenant.host)
    slow = shared.gateway.connect()
    slow.send(wire.compose("GET", "/", {"Host": tenant.host, "X-Do": "hold"}))
    until(lambda: backend.held == 1, "the held request")
    shared.tell(tenant.forward)
    after = WebSocket(shared.gateway.address, tenant.host)
    assert before.echo("a") == "a" and after.echo("b") == "b"
    backend.release()
    assert slow.response().status == 200
    assert tenant.get(shared).json()["target"] == "/"
    until(lambda: f"tenant={tenant.name} route=all" in own.gateway.access_log(), "the other gateway's log")
    shared.tell(tenant.full)
    assert before.echo("c") == "c" and after.echo("d") == "d"
    for socket in (before, after, slow):
        socket.close()


def test_forward_retries(shared, backend):
    """One endpoint, and still a second attempt, but not for what may have had effect."""
    tenant = Tenant(backend)
    endpoint = backend.endpoint()
    shared.tell(tenant.forward, port=endpoint.port)
    endpoint.do = "close"
    count = endpoint.requests
    assert tenant.get(shared).status == 502
    assert endpoint.requests - count == 2
    count = endpoint.requests
    assert shared.gateway.request("POST", "/", {"Host": tenant.host}, b"x").status == 502
    assert endpoint.requests - count == 1
    endpoint.do = ""
    assert tenant.get(shared).status == 200


def test_forward_while_the_other_reloads(shared, own, backend):
    tenant = Tenant(backend, own)
    own.tell(tenant.full)
    shared.tell(tenant.forward)
    probes = [("get", wire.compose("GET", "/", {"Host": tenant.host}), {200})]
    with Load(shared.gateway.address, probes, threads=3) as load:
        for _ in range(3):
            load.wait(30)
            own.gateway.reload()
        load.wait(30)
    assert not load.wrong and not load.failed, (load.wrong[:3], load.failed[:3])


# --- the quota state ---

DAY = {"name": "day", "scope": "tenant", "metric": "requests", "limit": 10, "window": "day"}
HOUR = {"name": "hour", "scope": "tenant", "metric": "requests", "limit": 10, "window": "3600s"}
EACH = {"name": "each", "scope": "consumer", "metric": "requests", "limit": 5, "window": "3600s"}
UNIT = 1 << 20


def reported(side, tenant, number):
    """The report of a hand-over, when it has come."""
    return until(lambda: next((h for h in side.fake.handovers
                               if h["id"] == tenant.number and h["handover"] == number), None),
                 f"the report of {number}")


def taken(side):
    """How many reports of hand-overs the gateway knows to have been taken."""
    return side.gateway.metrics().get("tiergate_handover_reports_total", result="ok") or 0


def test_report_is_exact(shared, own, backend):
    no_midnight()
    tenant = Tenant(backend, own, quotas=[DAY, HOUR, EACH])
    shared.tell(tenant.full)
    before = taken(shared)
    began = time.time()
    assert [tenant.get(shared).status for _ in range(4)] == [200] * 4
    shared.tell(tenant.forward, handover={"id": 71})
    report = reported(shared, tenant, 71)
    ended = time.time()
    assert report["tenant"] == tenant.name and len(report["boot"]) == 32
    assert shared.fake.acks[-1]["boot"] == report["boot"]
    words = {word["quota"]: word for word in report["words"]}
    day, hour, each = (tenant.number * 100 + 50 + i for i in range(3))
    assert len(words) == len(report["words"]) == 3
    assert words[day] == {"quota": day, "word": f"{int(ended // 86400) << 40 | 4:x}"}
    # 4 requests less what has drained since
    level = int(words[hour]["level"], 16)
    assert 4 * UNIT - (ended - began + 1) * 10 / 3600 * UNIT <= level <= 4 * UNIT
    assert began * 1000 <= words[hour]["at"] <= ended * 1000 + 1
    assert words[each]["name"] == "" and int(words[each]["key"], 16) > 0
    assert 0 < int(words[each]["level"], 16) <= 4 * UNIT
    # what has come here is not yet known to have been taken there
    until(lambda: taken(shared) == before + 1, "the answer")

    # it is told, and gone from here: what comes back is all there is
    shared.tell(tenant.forward, handover={"id": 72})
    assert reported(shared, tenant, 72)["words"] == []
    until(lambda: taken(shared) == before + 2, "the answer")
    # further versions with a hand-over that was reported, and a reload
    shared.tell(tenant.forward, handover={"id": 72})
    shared.gateway.reload()
    shared.tell(tenant.forward, handover={"id": 72})
    shared.tell(tenant.forward, handover={"id": 73})
    reported(shared, tenant, 73)
    assert len([h for h in shared.fake.handovers if h["handover"] == 72]) == 1


def test_report_waits_for_undecided_requests(shared, own, backend):
    """One that has pinned the older version and not been charged yet: its client is
    slow to be let in by another module of nginx."""
    # limit_req delays in preaccess, after the tenant was found: see the location
    tenant = Tenant(backend, own, quotas=[DAY])
    gateway = shared.gateway
    gateway.configure(http=PATIENT["http"] + " limit_req_zone $http_x_slow zone=slow:1m rate=15r/m;",
                      location="tenant host; tenant_auth on; tenant_quota on; limit_req zone=slow burst=5;")
    old = set(gateway.workers)
    gateway.reload()
    until(lambda: not old & set(gateway.workers), "the end of the old workers")
    no_midnight()
    shared.tell(tenant.full)
    slow = gateway.connect()
    first = tenant.get(shared, headers=[("X-Slow", "1")])
    assert first.status == 200
    mark = gateway.log.mark()
    slow.send(wire.compose("GET", "/", {"Host": tenant.host, "X-Slow": "1"}))
    gateway.log.wait(r"delaying request", mark)
    shared.tell(tenant.forward, handover={"id": 75})
    assert not [h for h in shared.fake.handovers if h["handover"] == 75]
    assert slow.response().status == 200
    word = reported(shared, tenant, 75)["words"][0]["word"]
    assert int(word, 16) & 0xffff == 2
    slow.close()
    gateway.configure(http=PATIENT["http"], location="tenant host; tenant_auth on; tenant_quota on;")
    gateway.reload()


def test_report_is_repeated_until_taken(shared, own, backend):
    tenant = Tenant(backend, own, quotas=[DAY])
    no_midnight()
    shared.tell(tenant.full)
    assert tenant.get(shared).status == 200
    shared.fake.handover_status = "503 Service Unavailable"
    shared.tell(tenant.forward, handover={"id": 81})

    def sent():
        return [h for h in shared.fake.handovers if h["handover"] == 81]
    until(lambda: len(sent()) >= 2, "a second report")
    shared.fake.handover_status = None      # breaks off
    until(lambda: len(sent()) >= 4, "further reports")
    # a new leader makes one of its own
    shared.gateway.reload()
    count = len(sent())
    until(lambda: len(sent()) > count, "the new leader's report")
    shared.fake.handover_status = "204 No Content"
    until(lambda: shared.gateway.log.text.count(f'"{tenant.name}": handed 1 counts over') == 1, "the end")
    assert len({h["words"][0]["word"] for h in sent()}) == 1
    count = len(sent())
    shared.tell(tenant.forward)
    assert len(sent()) == count


@pytest.mark.parametrize("status", ["404 Not Found", "409 Conflict", "410 Gone"])
def test_report_that_nobody_waits_for(shared, own, backend, status):
    """The counts stay, and nothing is sent again."""
    tenant = Tenant(backend, own, quotas=[DAY])
    no_midnight()
    number = 9000 + int(status[:3])
    shared.tell(tenant.full)
    assert [tenant.get(shared).status for _ in range(7)] == [200] * 7
    shared.fake.handover_status = status
    try:
        shared.tell(tenant.forward, handover={"id": number})
        reported(shared, tenant, number)
        shared.tell(tenant.full)
    finally:
        shared.fake.handover_status = "204 No Content"
    assert [tenant.get(shared).status for _ in range(5)].count(200) == 3
    assert len([h for h in shared.fake.handovers if h["handover"] == number]) == 1


def test_carry_is_exact(own, backend):
    no_midnight()
    now = int(time.time())
    for i, quota in enumerate((DAY, HOUR)):
        tenant = Tenant(backend, quotas=[quota])
        number = tenant.number * 100 + 50
        word = ({"quota": number, "word": f"{now // 86400 << 40 | 6:x}"} if quota is DAY
                else {"quota": number, "level": f"{6 * UNIT:x}", "at": now * 1000 + 5000})
        own.tell(tenant.full, hold=True)
        carry = {"carry_id": 90 + i, "carry": [word]}
        own.tell(tenant.full, **carry)
        own.tell(tenant.full, **carry)                  # again
        own.gateway.reload()
        own.tell(tenant.full, **carry)
        assert [tenant.get(own).status for _ in range(8)].count(200) == 4, quota["name"]
        own.tell(tenant.full, **carry)
        assert tenant.get(own).status == 429
    assert own.gateway.metrics().get("tiergate_zone_carried_counts_total", result="added") == 2


def test_carry_after_a_restart(backend):
    """A zone that starts empty: the document in the snapshot brings its carry again,
    and the file of the counts has it already."""
    no_midnight()
    side = Side("fw-again", workers=1)
    try:
        tenant = Tenant(backend, quotas=[DAY])
        word = {"quota": tenant.number * 100 + 50, "word": f"{int(time.time()) // 86400 << 40 | 6:x}"}
        side.tell(tenant.full, carry_id=7, carry=[word])
        assert [tenant.get(side).status for _ in range(2)] == [200] * 2
        until(lambda: side.gateway.metrics().get("tiergate_snapshot_revision") == side.revision, "the snapshot")
        side.gateway.stop()
        side.gateway.start()
        until(lambda: side.gateway.ready()[0] == 200, "the gateway")
        assert [tenant.get(side).status for _ in range(5)].count(200) == 2
        side.tell(tenant.full, carry_id=7, carry=[word])
        assert tenant.get(side).status == 429
    finally:
        side.stop()


class Move:
    """What tenantd and SQL do when a tenant moves, with one shared gateway."""

    def __init__(self, tenant, shared, own, number):
        self.tenant, self.shared, self.own, self.number = tenant, shared, own, number

    def promote(self):
        self.number += 1
        self.own.tell(self.tenant.full, hold=True)
        self.shared.tell(self.tenant.forward, handover={"id": self.number}, wait=False)
        words = reported(self.shared, self.tenant, self.number)["words"]
        self.own.tell(self.tenant.full, carry_id=self.number, carry=words)
        return words

    def back(self):
        self.number += 1
        self.shared.tell(self.tenant.full, hold=True)
        # what was on its way to the other gateway has been decided there
        until(lambda: self.tenant.load.waiting == len(self.tenant.load.threads), "all clients to wait")
        self.own.gateway.metrics()      # its one worker has come to this, and so to all before it
        self.own.tell(self.tenant.full, hold=True, handover={"id": self.number}, wait=False)
        words = reported(self.own, self.tenant, self.number)["words"]
        self.shared.tell(self.tenant.full, carry_id=self.number, carry=words)
        self.own.tell(self.tenant.full, misdirected=True)
        return words


class Watched(Load):
    """A load that knows how many of its clients wait for an answer for long."""

    def _one(self, connection, *rest):
        began = self.pending.setdefault(threading.get_ident(), [0.0])
        began[0] = time.monotonic()
        try:
            return super()._one(connection, *rest)
        finally:
            began[0] = 0.0

    @property
    def waiting(self):
        now = time.monotonic()
        return sum(1 for began in list(self.pending.values()) if began[0] and now - began[0] > 0.5)


def echo_all(sockets):
    """That all are open; none is idle for so long that the gateway ends it."""
    for number, socket in enumerate(sockets):
        assert socket.echo(str(number)) == str(number)


@pytest.mark.parametrize("kind", ["day", "seconds"])
def test_promote_and_return(shared, own, backend, kind):
    """There and back, twice, under load and with WebSockets: no request fails, and
    over both gateways no more are let in than the one limit says."""
    no_midnight()
    limit = 1200     # more than is asked for while it moves
    window = {"day": {"window": "day"}, "seconds": {"window": "86399s", "burst": limit}}[kind]
    tenant = Tenant(backend, own, quotas=[{**DAY, "limit": limit, **window},
                                          {**EACH, "limit": 10**6, "window": "day"}])
    move = Move(tenant, shared, own, 500 if kind == "day" else 600)
    shared.tell(tenant.full)
    began = time.monotonic()
    sockets = [WebSocket(shared.gateway.address, tenant.host)]
    Watched.pending = {}
    probes = [("get", wire.compose("GET", "/a%2fb", {"Host": tenant.host}), {200, 429})]
    with Watched(shared.gateway.address, probes, threads=4, pause=0.005) as tenant.load:
        for _ in range(2):
            tenant.load.wait(60)
            move.promote()
            sockets.append(WebSocket(shared.gateway.address, tenant.host))
            echo_all(sockets)
            tenant.load.wait(60)
            move.back()
            sockets.append(WebSocket(shared.gateway.address, tenant.host))
            echo_all(sockets)
        tenant.load.wait(60)
        until(lambda: tenant.load.counts["get", 429] > 20, "the limit", 30)
    assert not tenant.load.failed and not tenant.load.wrong, (tenant.load.failed[:3], tenant.load.wrong[:3])
    assert len(tenant.load.threads) == 4 and tenant.load.slowest < 8
    refilled = int((time.monotonic() - began) * limit / 86399) + 1 if kind == "seconds" else 0
    let_in = tenant.load.counts["get", 200] + len(sockets)
    assert limit <= let_in <= limit + refilled, f"{let_in} of {limit}"
    echo_all(sockets)
    for socket in sockets:
        socket.close()
