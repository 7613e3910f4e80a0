# SPDX-License-Identifier: BSD-2-Clause
"""The way to the backend: kept connections, time limits, retries, health, WebSocket."""

import collections
import os
import select
import signal
import socket
import time

import pytest

from support import wire
from support.platform import route, upstream
from support.poll import holds, until
from support.websocket import WebSocket

GATEWAY = {"workers": 1, "http": "client_max_body_size 32m;"}


def timeouts(**more):
    return {"connect_ms": 1000, "send_ms": 60000, "read_ms": 60000, **more}




# --- connections ---

def test_connections_are_kept(platform, onboard):
    endpoint = platform.backend.endpoint()
    tenant = onboard(upstreams=[upstream(endpoint)])
    with tenant.gateway.connect() as connection:
        for _ in range(50):
            assert connection.request("GET", "/", tenant.headers()).status == 200
    assert endpoint.requests == 50
    assert endpoint.connections == 1
    for _ in range(20):                     # from other clients' connections, too
        assert tenant.get().status == 200
    assert endpoint.connections <= 2


def test_connections_of_two_tenants_to_one_address_are_shared_safely(platform, onboard):
    endpoint = platform.backend.endpoint()
    tenants = [onboard(upstreams=[upstream(endpoint)]) for _ in range(2)]
    for i in range(30):
        tenant = tenants[i % 2]
        assert wire.Headers(tenant.reached(f"/{i}").pairs).get("x-tenant") == tenant.name
    assert endpoint.connections <= 2


def test_a_connection_that_the_backend_closed_while_idle(platform, onboard):
    """Not the client's problem, also for a method that is not idempotent as long as
    nginx can tell that nothing was processed."""
    endpoint = platform.backend.endpoint()
    tenant = onboard(upstreams=[upstream(endpoint)], routes=[route(retries=1)])
    for _ in range(5):
        assert tenant.get().status == 200
        platform.backend.call(_close_all(endpoint))
        assert tenant.get().status == 200


async def _close_all(endpoint):
    for writer in list(endpoint.open):
        writer.transport.abort()


def test_the_log_says_from_where_the_endpoint_was_called(onboard):
    """Of new connections and of kept ones, whoever opened them; "-" where nobody answered."""
    tenant = onboard()
    mark = len(tenant.gateway.access_log())
    sources = [tenant.get(f"/from/{i}").json()["source"] for i in range(4)]
    assert tenant.get("/nobody", {"X-Do": "close"}).status == 502

    def logged(path):
        return next((line.split("source=")[1].split()[0] for line in
                     tenant.gateway.access_log()[mark:].splitlines() if f" {path} " in line), None)
    until(lambda: logged("/nobody"), "the access log")
    assert [logged(f"/from/{i}") for i in range(4)] == sources
    assert logged("/nobody") == "-"


def test_endpoint_over_ipv6(platform, onboard):
    try:
        probe = socket.socket(socket.AF_INET6)
        probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on the loopback interface")
    with probe:         # nobody else can have the port, and nobody listens
        port = probe.getsockname()[1]
        tenant = onboard(upstreams=[{"name": "main", "endpoints": [{"address": "::1", "port": port}]}])
        assert tenant.get().status == 502           # refused there, but well-formed and tried
        assert f"[::1]:{port}" in tenant.gateway.log.text


# --- bodies ---

def test_bodies_pass_untouched(onboard):
    tenant = onboard()
    body = bytes(range(256)) * 4096
    assert tenant.reached("/", method="POST", body=body).body.encode("latin-1") == body
    response = tenant.request("POST", "/", [("Transfer-Encoding", "chunked")],
                              wire.chunked(body[:5], body[5:70000], body[70000:]))
    assert response.json()["body"].encode("latin-1") == body


def test_large_and_streamed_answers(onboard):
    tenant = onboard()
    assert len(tenant.get(headers={"X-Do": "size=3000000"}).body) == 3000000
    assert tenant.get(headers={"X-Do": "stream=3"}).text == "0\n1\n2\n"


def test_head_and_no_body_answers(onboard):
    tenant = onboard()
    with tenant.gateway.connect() as connection:
        for _ in range(3):
            assert connection.request("HEAD", "/", tenant.headers()).status == 200
            response = connection.request("GET", "/", tenant.headers([("X-Do", "status=204,size=0")]))
            assert response.status == 204


# --- time limits ---

def test_read_timeout_of_the_route(onboard):
    tenant = onboard(routes=[route("fast", path="/fast", timeouts=timeouts(read_ms=300)),
                             route("slow", path="/slow", timeouts=timeouts(read_ms=10000))])
    began = time.monotonic()
    assert tenant.get("/fast", {"X-Do": "delay=3"}).status == 504
    assert time.monotonic() - began >= 0.25
    assert tenant.get("/slow", {"X-Do": "delay=0.6"}).status == 200


@pytest.fixture
def deaf():
    """Address of a port whose queue of connections is full: a further one is never made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port
        for client in clients:
            client.close()


def test_connect_timeout_of_the_route(platform, onboard, deaf):
    """It ends the attempt; nothing was sent, so another endpoint may have the request, whatever its method."""
    good = platform.backend.endpoint()
    endpoints = [{"address": "127.0.0.1", "port": deaf}]
    health = {"max_fails": 0}
    tenant = onboard(
        upstreams=[{"name": "deaf", "endpoints": endpoints, "health": health},
                   {"name": "both", "endpoints": [*endpoints, {"address": "127.0.0.1", "port": good.port}],
                    "health": health}],
        routes=[route("deaf", path="/deaf", upstream="deaf", retries=0,
                      timeouts=timeouts(connect_ms=300, send_ms=60000, read_ms=60000)),
                route("both", path="/both", upstream="both", retries=1, timeouts=timeouts(connect_ms=300))])
    began = time.monotonic()
    assert tenant.get("/deaf").status == 504
    assert 0.25 <= time.monotonic() - began < 30        # neither read_ms nor send_ms
    assert [tenant.post("/both", b"once").status for _ in range(12)] == [200] * 12
    assert good.requests == 12


def test_send_timeout_of_the_route(onboard):
    """For a backend that takes the connection and then nothing more."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        tenant = onboard(upstreams=[{"name": "main", "health": {"max_fails": 0}, "endpoints": [
            {"address": "127.0.0.1", "port": listener.getsockname()[1]}]}],
            routes=[route(retries=0, timeouts=timeouts(send_ms=300, read_ms=60000))])
        began = time.monotonic()
        assert tenant.post("/", b"x" * 16_000_000).status == 504
        assert 0.25 <= time.monotonic() - began < 30    # not read_ms


def test_timeout_changes_without_reload(platform, onboard):
    tenant = onboard(routes=[route(timeouts=timeouts(read_ms=200))])
    assert tenant.get(headers={"X-Do": "delay=3"}).status == 504
    platform.psql(f"UPDATE tiergate.routes SET read_ms = 10000 WHERE tenant = '{tenant.name}'")
    assert tenant.get(headers={"X-Do": "delay=0.6"}).status == 200


def test_a_streamed_answer_is_limited_between_reads_only(onboard):
    tenant = onboard(routes=[route(timeouts=timeouts(read_ms=2000))])
    assert tenant.get(headers={"X-Do": "stream=25"}).text.count("\n") == 25     # of 100 ms each


# --- retries ---

MANY = 40           # endpoints are drawn: each is met in so many requests


@pytest.fixture
def flaky(platform, onboard):
    """Two endpoints, of which one fails; passive health off, so that it is tried
    again and again.  Returns make(do, **route)."""
    def make(do, health={"max_fails": 0}, **more):
        good, bad = platform.backend.endpoint(), platform.backend.endpoint()
        bad.do = do
        tenant = onboard(upstreams=[upstream(good, bad, health=health)],
                         routes=[route(**{"retries": 1, **more})])
        return tenant, good, bad
    return make


@pytest.mark.parametrize("do", ["close", "reset", "status=503", "status=502", "status=504"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_methods_are_retried(flaky, method, do):
    tenant, good, bad = flaky(do)
    body = b"body" if method == "PUT" else None
    statuses = [tenant.request(method, "/", body=body).status for _ in range(MANY)]
    assert statuses == [200] * MANY
    assert bad.requests >= 1 and good.requests == MANY


@pytest.mark.parametrize("do", ["close", "reset", "status=503"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_other_methods_are_not(flaky, method, do):
    tenant, good, bad = flaky(do)
    statuses = [tenant.request(method, "/", body=b"pay 100").status for _ in range(MANY)]
    assert set(statuses) == {200, 503 if do.startswith("status") else 502}
    assert bad.requests + good.requests == MANY, "a request was sent twice"


def test_other_methods_are_retried_if_nothing_was_sent(flaky):
    """A refused connection has done no harm."""
    tenant, good, bad = flaky("")
    bad.refuse()
    statuses = [tenant.post("/", b"pay 100").status for _ in range(MANY)]
    assert statuses == [200] * MANY
    assert good.requests == MANY
    bad.accept()


@pytest.mark.parametrize("status", [500, 501, 404, 429, 400])
def test_answers_that_are_not_retried(flaky, status):
    """They are the application's own."""
    tenant, good, bad = flaky(f"status={status}")
    statuses = [tenant.get().status for _ in range(MANY)]
    assert set(statuses) == {200, status}
    assert bad.requests + good.requests == MANY


def test_no_retry_after_the_answer_has_begun(flaky):
    tenant, good, bad = flaky("half,size=100000")
    cut = 0
    for _ in range(MANY):
        with tenant.gateway.connect() as connection:
            try:
                connection.request("GET", "/", tenant.headers())
            except wire.Closed:
                cut += 1
    assert cut == bad.requests >= 1
    assert bad.requests + good.requests == MANY


def test_number_of_attempts(platform, onboard):
    bad = [platform.backend.endpoint() for _ in range(4)]
    for endpoint in bad:
        endpoint.do = "status=503"
    tenant = onboard(upstreams=[upstream(*bad, health={"max_fails": 0})],
                     routes=[route(f"r{n}", path=f"/r{n}", retries=n) for n in range(4)])
    for n in range(4):
        before = sum(endpoint.requests for endpoint in bad)
        assert tenant.get(f"/r{n}").status == 503
        assert sum(endpoint.requests for endpoint in bad) - before == n + 1


def test_a_retry_does_not_ask_the_same_endpoint_while_there_are_others(flaky):
    tenant, good, bad = flaky("status=503", retries=1)
    for _ in range(10):
        assert tenant.get().status == 200


def test_a_retry_within_the_time_limits(flaky):
    tenant, good, bad = flaky("delay=8", timeouts=timeouts(read_ms=1500))
    statuses = [tenant.get().status for _ in range(4)]
    assert statuses == [200] * 4


# --- passive health ---

def ask_each(tenant, count):
    return collections.Counter(tenant.get().status for _ in range(count))


def test_ejection_and_return(flaky):
    tenant, good, bad = flaky("status=503", retries=0, health={
        "max_fails": 3, "fail_timeout_ms": 5000, "slow_start_ms": 0})
    until(lambda: tenant.get().status == 503 and bad.requests == 3, "its third failure")
    out, asked = time.monotonic(), 0
    while asked < 60 and time.monotonic() < out + 4:    # it is out for 5 s, however few fit in
        asked += tenant.get().status == 200
        assert bad.requests == 3 or time.monotonic() > out + 4
    assert bad.requests == 3 and asked > 0
    bad.do = ""
    until(lambda: tenant.get().status == 200 and bad.requests > 3, "its return")
    before = bad.requests
    assert ask_each(tenant, 80) == {200: 80}
    assert bad.requests - before >= 15


def test_health_is_shared_by_workers_and_survives_changes(platform, onboard):
    """Ejected once, ejected in every worker, and by a new version of the tenant, too."""
    gateway = platform.gateway(workers=3)
    good, bad = platform.backend.endpoint(), platform.backend.endpoint()
    bad.do = "status=503"
    tenant = onboard(upstreams=[upstream(good, bad, health={
        "max_fails": 2, "fail_timeout_ms": 60000, "slow_start_ms": 0})], gateway=gateway)
    ask_each(tenant, 20)
    assert bad.requests == 2
    assert ask_each(tenant, 60) == {200: 60}
    tenant.put("routes", "all", route(timeouts=timeouts()))
    assert ask_each(tenant, 30) == {200: 30}
    assert bad.requests == 2
    platform.retire(gateway)


def test_slow_start(flaky):
    """Back after ejection it gets few requests at first."""
    tenant, good, bad = flaky("status=503", retries=0, health={
        "max_fails": 1, "fail_timeout_ms": 500, "slow_start_ms": 6000})
    ask_each(tenant, 30)
    bad.do = ""
    before = bad.requests

    def returned():
        nonlocal began
        began = time.monotonic()
        return tenant.get().status and bad.requests > before
    began = 0
    until(returned, "the first request after return")
    before, all_before = bad.requests, good.requests + bad.requests
    ask_each(tenant, 60)
    early = (bad.requests - before) / (good.requests + bad.requests - all_before)
    weight = min(1, (time.monotonic() - began + 0.5) / 6)       # at most: it grows with time
    assert early < weight / (1 + weight) + 0.25, (early, weight)
    time_up = time.monotonic() + 6.5
    until(lambda: time.monotonic() > time_up, "the end of the slow start", every=0.1)
    before = bad.requests
    ask_each(tenant, 200)
    assert (bad.requests - before) / 200 > 0.3


def test_all_endpoints_out(flaky, platform, onboard):
    """With nothing better left, the gateway says so at once or tries one: but it
    recovers by itself."""
    bad = platform.backend.endpoint()
    bad.do = "status=503"
    tenant = onboard(upstreams=[upstream(bad, health={"max_fails": 1, "fail_timeout_ms": 1000,
                                                      "slow_start_ms": 0})])
    assert ask_each(tenant, 5)[503] == 5
    bad.do = ""
    until(lambda: tenant.get().status == 200, "recovery")


def test_application_errors_are_no_ill_health(flaky):
    tenant, good, bad = flaky("status=500", retries=0, health={
        "max_fails": 2, "fail_timeout_ms": 60000, "slow_start_ms": 0})
    statuses = ask_each(tenant, 80)
    assert statuses[500] >= 15


def test_health_can_be_off(flaky):
    tenant, good, bad = flaky("status=503", retries=0)
    assert ask_each(tenant, 80)[503] >= 15


def test_a_client_that_leaves_is_no_failure_of_the_endpoint(platform, onboard):
    endpoint = platform.backend.endpoint()
    tenant = onboard(upstreams=[upstream(endpoint, health={
        "max_fails": 1, "fail_timeout_ms": 60000, "slow_start_ms": 0})])
    for n in range(5):
        with tenant.gateway.connect() as connection:
            connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
            until(lambda: endpoint.requests > n, "the request")
    platform.backend.release()
    assert ask_each(tenant, 5) == {200: 5}


# --- circuit breaking ---

def test_circuit_breaking_on_outstanding_requests(platform, onboard):
    tenant = onboard(upstreams=[upstream(platform.backend.main, max_outstanding=3)])
    held = [tenant.gateway.connect() for _ in range(3)]
    for connection in held:
        connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
    until(lambda: platform.backend.held == 3, "three requests in flight")
    for _ in range(5):
        response = tenant.get()
        assert (response.status, response.problem) == (503, "circuit-open"), response
    platform.backend.release()
    for connection in held:
        assert connection.response().status == 200
        connection.close()
    assert ask_each(tenant, 5) == {200: 5}


def test_the_circuit_closes_when_clients_leave(platform, onboard):
    tenant = onboard(upstreams=[upstream(platform.backend.main, max_outstanding=2)])
    held = [tenant.gateway.connect() for _ in range(2)]
    for connection in held:
        connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
    until(lambda: platform.backend.held == 2, "two requests in flight")
    assert tenant.get().status == 503
    for connection in held:
        connection.close()
    until(lambda: tenant.get().status == 200, "the slots to be given back")
    platform.backend.release()


def test_the_circuit_closes_when_workers_die(platform, onboard):
    """What a killed worker had in flight counts no more, whichever worker asks."""
    gateway = platform.gateway(workers=2)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    tenant = onboard(upstreams=[upstream(platform.backend.main, max_outstanding=4)], gateway=gateway)
    held = [gateway.connect() for _ in range(4)]
    for connection in held:
        connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
    until(lambda: platform.backend.held == 4, "four requests in flight")
    assert (tenant.get().status, tenant.get().problem) == (503, "circuit-open")
    before = set(gateway.workers)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(gateway.workers) == 2 and not before & set(gateway.workers), "the successors")
    for connection in held:
        connection.close()
    platform.backend.release()
    until(lambda: platform.backend.held == 0, "the backend")

    def together(count):
        """Statuses of so many requests at the same time."""
        connections = [gateway.connect() for _ in range(count)]
        for connection in connections:
            connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))

        def decided():
            answered, _, _ = select.select([connection.socket for connection in connections], [], [], 0)
            return platform.backend.held + len(answered) == count
        until(decided, "each to be held or refused")
        platform.backend.release()
        statuses = sorted(connection.response().status for connection in connections)
        for connection in connections:
            connection.close()
        return statuses
    until(lambda: together(4) == [200] * 4, "all four places")
    assert together(5) == [200] * 4 + [503]
    platform.retire(gateway)


def test_retries_do_not_leak_the_count(platform, onboard):
    good, bad = platform.backend.endpoint(), platform.backend.endpoint()
    bad.do = "close"
    tenant = onboard(upstreams=[upstream(good, bad, max_outstanding=2, health={"max_fails": 0})],
                     routes=[route(retries=1)])
    assert ask_each(tenant, 50) == {200: 50}


# --- WebSocket ---

def test_websocket(onboard):
    tenant = onboard(routes=[route("ws", path="/ws", websocket=True), route("plain", path="/plain")])
    with WebSocket(tenant.gateway.address, tenant.host, "/ws/chat") as socket:
        for i in range(10):
            assert socket.echo(f"message {i}") == f"message {i}"


def test_websocket_only_where_the_route_says_so(onboard, platform):
    tenant = onboard(routes=[route("plain", path="/plain"), route("ws", path="/ws", websocket=True)])
    platform.backend.clear()
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    response = tenant.get("/plain", headers)
    assert response.status != 101
    for seen in platform.backend.seen:
        assert "upgrade" not in wire.Headers(seen.headers)
    assert tenant.get("/ws", [*headers[:1], ("Upgrade", "h2c")]).status != 101


def test_websocket_needs_its_credential(onboard):
    from support.tokens import Issuer
    issuer = Issuer()
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}],
                     routes=[route(websocket=True, auth="required")])
    with pytest.raises((AssertionError, wire.Closed)):
        WebSocket(tenant.gateway.address, tenant.host)
    headers = [("Authorization", f"Bearer {issuer.token()}")]
    with WebSocket(tenant.gateway.address, tenant.host, headers=headers) as socket:
        assert socket.echo("x") == "x"
    with WebSocket(tenant.gateway.address, tenant.host, headers=[("X-API-Key", tenant.key)]) as socket:
        assert socket.echo("x") == "x"


def test_websocket_survives_changes_of_its_tenant(platform, onboard):
    """It goes on with the version that it began with."""
    tenant = onboard(routes=[route(websocket=True)])
    with WebSocket(tenant.gateway.address, tenant.host) as socket:
        for i in range(5):
            tenant.put("routes", f"r{i}", route(f"r{i}", path=f"/r{i}"))
            assert socket.echo(f"{i}") == f"{i}"
        tenant.put("routes", "all", route())        # no WebSocket any more: for new ones
        assert socket.echo("still") == "still"
        with pytest.raises((AssertionError, wire.Closed)):
            WebSocket(tenant.gateway.address, tenant.host)
        holds(lambda: socket.echo("on") == "on", "the old connection", 1.2, every=0.2)


# --- endpoints change ---

def test_endpoints_change_under_load(platform, onboard):
    """The backend moves from port to port: no request fails."""
    endpoints = [platform.backend.endpoint() for _ in range(2)]
    tenant = onboard(upstreams=[upstream(endpoints[0])])
    statuses = collections.Counter()
    for i in range(6):
        tenant.put("upstreams", "main", upstream(endpoints[(i + 1) % 2]))
        response = tenant.get()
        statuses[response.status] += 1
        assert response.json()["port"] == endpoints[(i + 1) % 2].port
    assert statuses == {200: 6}
