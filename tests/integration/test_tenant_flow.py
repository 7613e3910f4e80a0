# SPDX-License-Identifier: BSD-2-Clause
"""Flow 3, docs/flows/tenant.md, at the entry tier: onboarded, suspended, resumed, deleted."""

import json
import time

import pytest

from support import wire
from support.platform import quota, route, upstream
from support.poll import until
from support.tokens import Issuer
from support.websocket import WebSocket

WITHIN = 10         # seconds from commit to the end of what is in flight, which ends by nothing else before


def test_one_call_carries_everything(platform, gateway):
    issuer = Issuer("ES256")
    body = {
        "name": "acme", "display_name": "Acme Inc.", "labels": {"plan": "entry"},
        "hosts": ["acme.example.com", "*.acme.example.com"],
        "issuers": [{"name": "main", **issuer.body()}],
        "consumers": [{"name": "mobile"}],
        "keys": [{"consumer": "mobile", "scopes": ["orders:read"]}, {"consumer": "web"}],
        "upstreams": [upstream(platform.backend.main, name="orders")],
        "routes": [route("orders", path="/orders", upstream="orders", auth="required"),
                   route("status", path="/status", type="exact", upstream="orders")],
        "quotas": [quota("minute", limit=6000, window="60s"), quota("parallel", limit=100, window=None,
                                                                    metric="concurrency")],
    }
    body["quotas"][1].pop("window")
    response = platform.rest.request("POST", "/v1/tenants", body)
    assert response.status == 201, response
    assert response.headers["location"] == "/v1/tenants/acme"
    revision = int(response.headers["etag"].strip('"'))
    made = response.json()
    keys = [key["key"] for key in made["keys"]]
    assert len(set(keys)) == 2

    def observed():
        shown = platform.rest.call("GET", "/v1/tenants/acme")
        return shown["observedRevision"].get(gateway.name, 0) >= revision
    until(observed, "the gateway to observe the tenant")

    for host in ("acme.example.com", "shop.acme.example.com"):
        assert gateway.request("GET", "/status", {"Host": host}).status == 200
        assert gateway.request("GET", "/orders", {"Host": host}).status == 401
        for key in keys:
            assert gateway.request("GET", "/orders", {"Host": host, "X-API-Key": key}).status == 200
        token = {"Host": host, "Authorization": f"Bearer {issuer.token()}"}
        assert gateway.request("GET", "/orders", token).status == 200

    shown = platform.rest.request("GET", "/v1/tenants/acme")
    assert not any(key in shown.text for key in keys)       # shown once
    assert shown.json()["state"] == "active"


def test_all_or_nothing(platform, gateway, onboard):
    """One bad member refuses the whole call, and says which; nothing of it is left."""
    onboard(hosts=["taken.example.com"])
    good = {"name": "half", "hosts": ["half.example.com"], "upstreams": [upstream(platform.backend.main)],
            "routes": [route()], "quotas": [quota()]}
    for change, pointer in [
            ({"hosts": ["half.example.com", "taken.example.com"]}, "/hosts/1"),
            ({"hosts": ["half.example.com", "UPPER.example.com"]}, "/hosts/1"),
            ({"routes": [route(), route("b", path="/b", upstream="nowhere")]}, "/routes/1/backends/0/upstream"),
            ({"quotas": [quota(limit=-1)]}, "/quotas/0/limit"),
            ({"quotas": [quota(window="7 fortnights")]}, "/quotas/0/window"),
            ({"upstreams": [{"name": "main", "endpoints": [{"address": "169.254.169.254", "port": 80}]}]},
             "/upstreams/0/endpoints/0/address"),
            ({"upstreams": [{"name": "main", "endpoints": [{"address": "127.0.0.1", "port": 70000}]}]},
             "/upstreams/0/endpoints/0/port"),
            ({"colour": "red"}, "/colour"),
            ({"name": "Bad_Name"}, "/name")]:
        response = platform.rest.request("POST", "/v1/tenants", {**good, **change})
        assert response.status in (400, 409, 422), (change, response)
        assert response.headers["content-type"] == "application/problem+json"
        pointers = [error["pointer"] for error in response.json()["errors"]]
        assert pointer in pointers, (change, response)
        assert platform.rest.request("GET", "/v1/tenants/half").status == 404
    assert platform.rest.request("POST", "/v1/tenants", good).status == 201
    platform.wait()
    assert gateway.request("GET", "/", {"Host": "half.example.com"}).status == 200


def test_suspend_ends_an_open_websocket(platform, onboard):
    """Soon after the commit; other tenants' connections go on."""
    tenant, other = (onboard(routes=[route(websocket=True)]) for _ in range(2))
    sockets = [WebSocket(tenant.gateway.address, tenant.host) for _ in range(4)]
    untouched = [WebSocket(other.gateway.address, other.host) for _ in range(2)]
    for socket in sockets + untouched:
        assert socket.echo("hello") == "hello"

    platform.database.execute("SELECT tiergate.suspend(%s, reason => 'unpaid')", [tenant.name])
    committed = time.monotonic()
    for socket in sockets:
        assert socket.ended(WITHIN) is not None, "still open"
        assert time.monotonic() - committed < WITHIN
    for socket in untouched:
        assert socket.echo("still here") == "still here"
        socket.close()
    assert tenant.get().status == 403
    with pytest.raises((AssertionError, wire.Closed)):
        WebSocket(tenant.gateway.address, tenant.host)
    tenant.resume()
    with WebSocket(tenant.gateway.address, tenant.host) as socket:
        assert socket.echo("back") == "back"


def test_suspend_ends_requests_in_flight(platform, onboard):
    """Waiting for the backend, streaming an answer, sending a body: all of them."""
    tenant = onboard(routes=[route(timeouts={"connect_ms": 1000, "send_ms": 60000, "read_ms": 60000})])
    waiting, streaming, sending, idle = (tenant.gateway.connect() for _ in range(4))
    waiting.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
    streaming.send(wire.compose("GET", "/", tenant.headers([("X-Do", "stream=200")])))
    streaming.read_until(b"0\n")
    sending.send(wire.compose("POST", "/", tenant.headers([("Content-Length", "1000000")])) + b"x" * 1000)
    assert idle.request("GET", "/", tenant.headers()).status == 200
    until(lambda: platform.backend.held == 1, "the held request")

    platform.database.execute("SELECT tiergate.suspend(%s)", [tenant.name])
    committed = time.monotonic()
    for connection in (waiting, streaming):
        assert connection.ended(WITHIN)
        assert time.monotonic() - committed < WITHIN
    assert sending.ended(WITHIN)
    # a connection between two requests is nobody's: it may serve or close
    try:
        assert idle.request("GET", "/", tenant.headers()).status == 403
    except (wire.Closed, OSError):
        pass
    for connection in (waiting, streaming, sending, idle):
        connection.close()
    platform.backend.release()


def test_suspend_ends_http2_streams_of_the_tenant_only(platform, onboard):
    from support.http2 import Http2
    tenant, other = (onboard(routes=[route(timeouts={"connect_ms": 1000, "send_ms": 60000,
                                                     "read_ms": 60000})]) for _ in range(2))
    with Http2(tenant.gateway.address2) as connection:
        def send(host, do):
            return connection.send([(":method", "GET"), (":scheme", "http"), (":authority", host),
                                    (":path", "/"), ("x-do", do)])
        held = [send(tenant.host, "hold") for _ in range(5)]
        theirs = [send(other.host, "hold") for _ in range(5)]
        until(lambda: platform.backend.held == 10, "ten requests in flight")
        tenant.suspend()
        for stream in held:
            status, _, _ = connection.response(stream)
            assert status in (None, 403, 503), status
        platform.backend.release()
        for stream in theirs:
            assert connection.response(stream)[0] == 200


def test_deletion_ends_connections_too(platform, onboard):
    tenant = onboard(routes=[route(websocket=True)])
    with WebSocket(tenant.gateway.address, tenant.host) as socket:
        assert socket.echo("x") == "x"
        platform.rest.call("DELETE", tenant.path)
        began = time.monotonic()
        assert socket.ended(WITHIN) is not None
        assert time.monotonic() - began < WITHIN
    platform.wait()
    assert (tenant.get().status, tenant.get().problem) == (404, "unknown-host")
    assert platform.rest.request("GET", tenant.path).status == 404


def test_deletion_leaves_usage_and_audit(platform, onboard):
    tenant = onboard()
    for _ in range(3):
        tenant.get()
    platform.change("DELETE", tenant.path)

    def counted():
        return platform.database.one("SELECT coalesce(sum(requests), 0) FROM tiergate.usage WHERE tenant = %s",
                                     [tenant.name]) == 3
    until(counted, "usage after the deletion")
    actions = platform.database.execute("SELECT action FROM tiergate.audit WHERE tenant = %s AND "
                                        "object = 'tenants'", [tenant.name])
    assert [row[0] for row in actions] == ["insert", "delete"]


def test_a_host_is_free_after_its_tenant(platform, onboard):
    first = onboard(hosts=["free.example.com"])
    response = platform.rest.request("POST", "/v1/tenants", {"name": "second", "hosts": ["free.example.com"]})
    assert response.status == 409
    assert first.name not in response.text          # not told whose it is
    platform.change("DELETE", first.path)
    second = onboard(hosts=["free.example.com"])
    assert wire.Headers(second.reached().pairs).get("x-tenant") == second.name


def test_suspended_at_onboarding(onboard):
    tenant = onboard(state="suspended", reason="not yet paid")
    assert tenant.get().status == 403
    tenant.resume()
    assert tenant.get().status == 200


def test_suspended_whatever_else_the_document_says(platform, gateway, onboard):
    """PostgreSQL takes patterns that PCRE2 does not: such a tenant must not escape its suspension."""
    tenant = onboard()
    platform.psql(f"UPDATE tiergate.routes SET path_type = 'regex', path = '(' WHERE tenant = '{tenant.name}'")
    assert tenant.get().status == 200       # the last good version
    platform.psql(f"SELECT tiergate.suspend('{tenant.name}', reason => 'unpaid')")
    assert tenant.get().status == 403

    rejected = [r for r in platform.status(gateway)["rejected"] if r["name"] == tenant.name]
    assert rejected and "/routes/0/match/path/value" in rejected[0]["reason"]
    assert f'"{tenant.name}" is suspended without the rest' in gateway.log.text

    platform.psql(f"UPDATE tiergate.routes SET path_type = 'prefix', path = '/' WHERE tenant = '{tenant.name}'")
    assert tenant.get().status == 403
    tenant.resume()
    assert tenant.get().status == 200
    assert not [r for r in platform.status(gateway)["rejected"] if r["name"] == tenant.name]


def test_suspended_however_large(platform, onboard):
    tenant = onboard()
    platform.psql("UPDATE tiergate.api_keys SET scopes = (SELECT array_agg(repeat('x', 120) || n) FROM generate_series(1, 64) n)"
                  f" WHERE tenant = '{tenant.name}';"
                  "INSERT INTO tiergate.api_keys (tenant, consumer, sha256, scopes)"
                  f" SELECT tenant, consumer, sha256(n::text::bytea), scopes FROM tiergate.api_keys, generate_series(1, 600) n"
                  f" WHERE tenant = '{tenant.name}'")
    platform.psql(f"SELECT tiergate.suspend('{tenant.name}')")
    assert tenant.get().status == 403


def test_suspending_twice_and_resuming_twice(onboard):
    tenant = onboard()
    tenant.suspend("one")
    tenant.suspend("two")
    assert "two" in tenant.get().json()["detail"]
    tenant.resume()
    tenant.resume()
    assert tenant.get().status == 200


def test_suspension_during_a_storm(platform, onboard):
    """On and off thirty times while requests run: every answer is one of the two,
    and after the acknowledgement only the right one."""
    import threading
    tenant = onboard()
    stop, statuses, wrong = threading.Event(), set(), []

    def load():
        while not stop.is_set():
            try:
                with tenant.gateway.connect() as connection:
                    while not stop.is_set():
                        status = connection.request("GET", "/", tenant.headers()).status
                        statuses.add(status)
                        if status not in (200, 403):
                            wrong.append(status)
            except (wire.Closed, OSError):
                pass        # the request was in flight
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            tenant.suspend()
            assert tenant.get().status == 403
            until(lambda: 403 in statuses, "the load to meet the suspension")
            tenant.resume()
            assert tenant.get().status == 200
            until(lambda: 200 in statuses, "the load to be served")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and statuses == {200, 403}


def test_import(platform, gateway):
    """JSON Lines: each on its own, a bad line does not stop the others."""
    good = [{"name": f"bulk{i}", "hosts": [f"bulk{i}.example.com"], "upstreams": [upstream(platform.backend.main)],
             "routes": [route()], "keys": [{"consumer": "c"}]} for i in range(50)]
    lines = [json.dumps(line) for line in good]
    lines.insert(10, json.dumps({**good[0], "name": "dup-host"}))
    lines.insert(20, "{broken")
    lines.insert(30, json.dumps({**good[1], "name": "Bad Name", "hosts": []}))
    response = platform.rest.request("POST", "/v1/import", ("\n".join(lines) + "\n").encode(),
                                     {"Content-Type": "application/jsonl"})
    assert response.status == 200, response
    results = [json.loads(line) for line in response.text.splitlines()]
    assert len(results) == len(lines)
    bad = [i for i, result in enumerate(results) if result["status"] >= 400]
    assert bad == [10, 20, 30], results
    platform.wait()
    for i in (0, 25, 49):
        assert gateway.request("GET", "/", {"Host": f"bulk{i}.example.com"}).status == 200


def test_idempotency_key(platform, gateway):
    """The portal repeats a POST whose answer was lost: one tenant, the same answer."""
    body = {"name": "once", "hosts": ["once.example.com"], "keys": [{"consumer": "c"}]}
    headers = {"Idempotency-Key": "portal-42"}
    first = platform.rest.request("POST", "/v1/tenants", body, headers)
    again = platform.rest.request("POST", "/v1/tenants", body, headers)
    assert first.status == again.status == 201
    assert first.json()["id"] == again.json()["id"]
    other = platform.rest.request("POST", "/v1/tenants", {**body, "name": "twice"}, headers)
    assert other.status == 422
    assert platform.rest.request("POST", "/v1/tenants", body).status == 409


def test_onboarding_concurrently(platform, gateway):
    """Twenty claims of one host at once: one wins, the others get 409."""
    import threading
    from support.platform import Rest
    statuses = []

    def claim(i):
        rest = Rest(platform.tenantd.socket)
        statuses.append(rest.request("POST", "/v1/tenants", {
            "name": f"claim{i}", "hosts": ["contested.example.com"],
            "upstreams": [upstream(platform.backend.main)], "routes": [route()]}).status)
        rest.close()
    threads = [threading.Thread(target=claim, args=[i]) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 19
    platform.wait()
    assert gateway.request("GET", "/", {"Host": "contested.example.com"}).status == 200
