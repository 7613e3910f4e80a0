# SPDX-License-Identifier: BSD-2-Clause
"""A tenant that moves to another gateway: held, passed on, sent away, and its quota
state taken along.  Documents are written by hand: tenantd has no part in this."""

import shutil
import threading
import time

import pytest

from support import process, wire
from support.backend import Backend
from support.fake import FakeTenantd, bookmark, document, put
from support.load import Load
from support.nginx import Gateway
from support.poll import until
from support.websocket import WebSocket

FORWARD = "tiergate-forward"


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
        self.gateway = Gateway(name, f"unix:{self.path}/tenantd.sock", path=self.path, **options)
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
            shutil.rmtree(self.path.resolve(), ignore_errors=True)
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
    assert shared.gateway.metrics().get("tiergate_refused_total", reason="misdirected-request") == 1
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
        thread.join(5)
    took = time.monotonic() - began
    assert [answer.status for answer in answers] == [200] * 10
    assert {answer.json()["body"] for answer in answers} == {"body"}
    assert took < 0.5, f"woken after {took} s"
    socket.close()


def test_hold_ends_with_its_time(shared, backend):
    tenant = Tenant(backend)
    shared.tell(tenant.full, hold=True)
    began = time.monotonic()
    answer = tenant.get(shared)
    took = time.monotonic() - began
    assert (answer.status, answer.problem) == (503, "not-ready")
    assert answer.headers["retry-after"] == "1" and "moved" in answer.json()["detail"]
    assert 1.8 < took < 4
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
    log = shared.gateway.access_log().splitlines()[-1]
    assert f"tenant={tenant.name} route={FORWARD}" in log
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
    assert "tenant=" + tenant.name in own.gateway.access_log().splitlines()[-1]
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
