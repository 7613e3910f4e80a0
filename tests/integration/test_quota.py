# SPDX-License-Identifier: BSD-2-Clause
"""Quotas: every kind, several at once, exact whatever the number of workers."""

import collections
import datetime
import os
import re
import select
import signal
import threading
import time

import pytest

from support import process, wire
from support.platform import quota, route, upstream
from support.poll import no_midnight, until
from support.tokens import Issuer

GATEWAY = {"workers": 4, "locations": """
        location /dry/ { tenant host; tenant_auth on; tenant_quota dry_run; proxy_pass http://tenants; }
        location /off/ { tenant host; tenant_auth on; tenant_quota off; proxy_pass http://tenants; }
        location /unbuffered/ {
            tenant host; tenant_auth on; tenant_quota on; proxy_pass http://tenants;
            proxy_http_version 1.1; proxy_request_buffering off;
        }
"""}


def statuses(tenant, count, target="/", **more):
    return [tenant.get(target, **more).status for _ in range(count)]


def served(tenant, count, target="/", **more):
    """How many of count requests were served; the others must be 429."""
    counted = collections.Counter(statuses(tenant, count, target, **more))
    assert set(counted) <= {200, 429}, counted
    return counted[200]


# --- windows ---

@pytest.mark.parametrize("window", ["60s", "3600s", "86399s", "day", "month"])
def test_windows(onboard, window):
    """A full window may come at once, and no more."""
    tenant = onboard(quotas=[quota(limit=7, window=window)])
    assert statuses(tenant, 12) == [200] * 7 + [429] * 5


def test_a_second(onboard):
    """Refills evenly: in t seconds never more than capacity + rate * t, and, asked all
    the time, hardly less."""
    tenant = onboard(quotas=[quota(limit=50, window="1s", burst=5)])
    began = last = time.monotonic()
    count = lost = 0
    with tenant.gateway.connect() as connection:
        while last - began < 2:
            status = connection.request("GET", "/", tenant.headers()).status
            assert status in (200, 429)
            count += status == 200
            last, gap = time.monotonic(), time.monotonic() - last
            lost += max(0, gap - 0.05)          # nobody asked: what is above the burst is not saved up
    assert count <= 5 + 50 * (last - began) + 1
    assert count >= 50 * (last - began - lost - 0.3)


@pytest.mark.parametrize("burst, at_once", [(0, 1), (1, 1), (4, 4), (10, 10)])
def test_burst(onboard, burst, at_once):
    tenant = onboard(quotas=[quota(limit=10, window="3600s", burst=burst)])
    assert served(tenant, 15) == at_once


def test_refill_after_refusal(onboard):
    """Retry-After is true: not earlier, and then at once."""
    tenant = onboard(quotas=[quota(limit=1, window="2s", burst=1)])
    began = time.monotonic()

    def refused():
        """On a slow machine the next may be due when it is asked for."""
        nonlocal began
        before = time.monotonic()
        response = tenant.get()
        if response.status == 200:
            began = before
        return response.status == 429 and response
    response = until(refused, "a refusal")
    wait = int(response.headers["retry-after"])
    assert 1 <= wait <= 2
    until(lambda: tenant.get().status == 200, "the next one")
    assert time.monotonic() - began > 1.9


def test_calendar_windows_say_when_they_end(onboard):
    no_midnight()
    now = datetime.datetime.now(datetime.timezone.utc)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    month = (now.replace(day=1) + datetime.timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0,
                                                                       microsecond=0)
    for window, end in (("day", midnight), ("month", month)):
        tenant = onboard(quotas=[quota(limit=1, window=window)])
        assert statuses(tenant, 1) == [200]
        response = tenant.get()
        assert response.status == 429
        assert abs(int(response.headers["retry-after"]) - (end - now).total_seconds()) < 30


# --- what is counted together ---

def test_per_route(onboard):
    tenant = onboard(routes=[route("a", path="/a"), route("b", path="/b")],
                     quotas=[quota("a", limit=3, window="day", scope="route", route="a")])
    assert served(tenant, 6, "/a") == 3
    assert served(tenant, 6, "/b") == 6


def test_per_consumer(onboard):
    """Each has a count of its own; anonymous requests are one consumer."""
    issuer = Issuer()
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}], routes=[route(auth="optional")],
                     keys=[{"consumer": "alice"}, {"consumer": "bob"}],
                     quotas=[quota("each", limit=3, window="day", scope="consumer")])
    assert served(tenant, 5, key=tenant.keys[0]) == 3
    assert served(tenant, 5, key=tenant.keys[1]) == 3
    assert served(tenant, 5, token=issuer.token("carol")) == 3
    assert served(tenant, 5, token=issuer.token("alice")) == 0      # the same consumer, by token
    assert served(tenant, 5) == 3
    assert served(tenant, 5) == 0


def test_one_consumer(onboard):
    tenant = onboard(routes=[route(auth="required")], keys=[{"consumer": "alice"}, {"consumer": "bob"}],
                     quotas=[quota("alice", limit=2, window="day", scope="consumer", consumer="alice")])
    assert served(tenant, 5, key=tenant.keys[0]) == 2
    assert served(tenant, 8, key=tenant.keys[1]) == 8


def test_consumer_on_a_route(onboard):
    tenant = onboard(routes=[route("a", path="/a", auth="required"), route("b", path="/b", auth="required")],
                     keys=[{"consumer": "alice"}, {"consumer": "bob"}],
                     quotas=[quota("q", limit=2, window="day", scope="consumer", route="a")])
    for key in tenant.keys:
        assert served(tenant, 4, "/a", key=key) == 2
        assert served(tenant, 4, "/b", key=key) == 4


def test_more_consumers_than_buckets(onboard):
    """400 consumers, 256 buckets: those that share one get less together, never more."""
    issuer = Issuer("EdDSA")
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}], routes=[route(auth="required")],
                     quotas=[quota("each", limit=2, window="day", scope="consumer")])
    total = 0
    for i in range(400):
        token = issuer.token(f"user{i}")
        count = served(tenant, 3, token=token)
        assert count <= 2
        total += count
    assert total >= 2 * 200


# --- several at once ---

def test_the_tightest_decides_and_none_is_charged(onboard):
    tenant = onboard(routes=[route("a", path="/a"), route("b", path="/b")],
                     quotas=[quota("tenant", limit=10, window="day"),
                             quota("a", limit=3, window="day", scope="route", route="a"),
                             quota("burst", limit=1000, window="60s")])
    assert statuses(tenant, 8, "/a") == [200] * 3 + [429] * 5
    response = tenant.get("/a")
    assert '"a"' in response.headers["ratelimit"]
    # the five refusals cost the tenant nothing: 7 of 10 are left
    assert served(tenant, 12, "/b") == 7
    assert '"tenant"' in tenant.get("/b").headers["ratelimit"]


def test_refused_by_the_last_of_many(onboard):
    """Five quotas of which any may be the one that refuses."""
    limits = {"q1": 50, "q2": 40, "q3": 5, "q4": 30, "q5": 20}
    windows = ["day", "month", "3600s", "60s", "7200s"]
    tenant = onboard(quotas=[quota(name, limit=limit, window=window)
                             for (name, limit), window in zip(limits.items(), windows)])
    assert served(tenant, 30) == 5
    tenant.delete("quotas", "q3")
    assert served(tenant, 40) == 15         # of q5's 20, 5 were used


def test_a_requests_quota_is_not_charged_when_concurrency_refuses(platform, onboard):
    tenant = onboard(quotas=[quota("day", limit=4, window="day"),
                             {"name": "parallel", "metric": "concurrency", "limit": 1}])
    with tenant.gateway.connect() as held:
        held.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
        until(lambda: platform.backend.held == 1, "the held request")
        for _ in range(5):
            assert (tenant.get().status, tenant.get().problem) == (429, "over-concurrency")
        platform.backend.release()
        assert held.response().status == 200
    until(lambda: tenant.get().status == 200, "the slot")
    assert served(tenant, 5) == 2


def test_nothing_is_charged_for_what_never_reaches_the_quota(onboard):
    tenant = onboard(routes=[route("a", path="/a", auth="required", match={"methods": ["GET"]})],
                     quotas=[quota(limit=3, window="day")])
    for _ in range(5):
        assert tenant.get("/nowhere").status == 404
        assert tenant.get("/a").status == 401
        assert tenant.request("POST", "/a", body=b"").status == 405
    assert served(tenant, 5, "/a", key=tenant.key) == 3


def test_no_charge_for_a_closed_circuit(platform, onboard):
    """docs/flows/request.md: the upstream is asked before the quota is charged."""
    tenant = onboard(upstreams=[{"name": "main", "endpoints": []}], quotas=[quota(limit=3, window="day")])
    assert statuses(tenant, 6) == [503] * 6
    tenant.put("upstreams", "main", upstream(platform.backend.main))
    assert served(tenant, 5) == 3


# --- dry run ---

def test_dry_run_of_a_quota(platform, onboard):
    tenant = onboard(quotas=[quota("dry", limit=2, window="day", dry_run=True),
                             quota("real", limit=6, window="60s")])
    assert statuses(tenant, 8) == [200] * 6 + [429] * 2

    def status():
        return dict(platform.database.execute(
            "SELECT quota, throttled FROM tiergate.quota_status WHERE tenant = %s", [tenant.name]))
    until(lambda: status() == {"dry": 4, "real": 2}, lambda: str(status()))
    tenant.put("quotas", "dry", quota("dry", limit=2, window="day"))
    assert tenant.get().status == 429


def test_dry_run_of_a_location(onboard):
    tenant = onboard(quotas=[quota(limit=2, window="day")])
    assert statuses(tenant, 6, "/dry/x") == [200] * 6
    assert tenant.get("/x").status == 429          # what it counted counts


def test_quota_off_in_a_location(onboard):
    tenant = onboard(quotas=[quota(limit=2, window="day")])
    assert statuses(tenant, 6, "/off/x") == [200] * 6
    assert served(tenant, 4, "/x") == 2


# --- concurrency ---

def hold(tenant, count, headers=()):
    connections = [tenant.gateway.connect() for _ in range(count)]
    for connection in connections:
        connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold"), *headers])))
    return connections


def together(tenant, count):
    """How many of so many requests at the same time are let in."""
    backend = tenant.platform.backend
    connections = hold(tenant, count)

    def decided():
        answered, _, _ = select.select([connection.socket for connection in connections], [], [], 0)
        return backend.held + len(answered) == count
    until(decided, "each to be held or refused")
    backend.release()
    statuses = [connection.response().status for connection in connections]
    for connection in connections:
        connection.close()
    assert set(statuses) <= {200, 429}, statuses
    return statuses.count(200)


@pytest.fixture
def parallel(platform, onboard):
    return onboard(quotas=[{"name": "parallel", "metric": "concurrency", "limit": 3}])


def test_concurrency(platform, parallel):
    connections = hold(parallel, 3)
    until(lambda: platform.backend.held == 3, "three in flight")
    response = parallel.get()
    assert (response.status, response.problem) == (429, "over-concurrency")
    platform.backend.release()
    for connection in connections:
        assert connection.response().status == 200
    assert statuses(parallel, 10) == [200] * 10
    for connection in connections:
        connection.close()


def test_concurrency_is_released_when_clients_leave(platform, parallel):
    for _ in range(3):
        connections = hold(parallel, 3)
        until(lambda: platform.backend.held == 3, "three in flight")
        assert parallel.get().status == 429
        for connection in connections:
            connection.close()
        until(lambda: parallel.get().status == 200, "a slot to come back")
        platform.backend.release()
        # each worker finds out for itself which of its clients have left
        until(lambda: together(parallel, 3) == 3, "all slots to come back")


def test_concurrency_is_released_on_errors(platform, onboard):
    tenant = onboard(upstreams=[upstream(platform.backend.main, health={"max_fails": 0})],
                     quotas=[{"name": "parallel", "metric": "concurrency", "limit": 1}])
    for do in ["close", "reset", "status=500", "half,size=100", "status=404"] * 3:
        with tenant.gateway.connect() as connection:
            try:
                assert connection.request("GET", "/", tenant.headers([("X-Do", do)])).status != 429
            except wire.Closed:
                pass
        until(lambda: tenant.get().status == 200, f"the slot after {do}")


def test_concurrency_survives_a_killed_worker(platform, onboard):
    """What a dead worker held is given back."""
    gateway = platform.gateway(workers=2)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    tenant = onboard(quotas=[{"name": "parallel", "metric": "concurrency", "limit": 4}], gateway=gateway)
    for which in (0, 1):
        until(lambda: len(gateway.workers) == 2, "two workers")
        connections = hold(tenant, 4)
        until(lambda: platform.backend.held == 4, "four in flight")
        assert tenant.get().status == 429
        victims = sorted(gateway.workers)[which:which + 1] if which else gateway.workers
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(process.alive, victims)), "their end, and that of what they held")
        for connection in connections if not which else []:
            assert connection.ended(30)
        if which:
            # one worker died: what the other holds still counts
            ended = [c for c in connections if c.ended(1)]
            until(lambda: served_or_none(tenant) == (200 if ended else 429), "the dead worker's slots")
        for connection in connections:
            connection.close()
        until(lambda: served_or_none(tenant) == 200, "a slot")
        platform.backend.release()
        until(lambda: together(tenant, 4) == 4, "all slots")
    platform.retire(gateway)


def served_or_none(tenant):
    try:
        return tenant.get().status
    except (wire.Closed, OSError):
        return None


def test_concurrency_of_websockets(platform, onboard):
    from support.websocket import WebSocket
    tenant = onboard(routes=[route(websocket=True)],
                     quotas=[{"name": "parallel", "metric": "concurrency", "limit": 2}])
    sockets = [WebSocket(tenant.gateway.address, tenant.host) for _ in range(2)]
    assert sockets[0].echo("x") == "x"
    assert tenant.get().status == 429
    sockets.pop().close()
    until(lambda: tenant.get().status == 200, "the slot")
    sockets.pop().close()


def test_concurrency_under_load_is_exact(platform, parallel):
    """Never more than three at the backend, and at the end none is lost."""
    platform.backend.most = 0
    counts = Storm(parallel, 1500, headers=[("X-Do", "delay=0.01")]).counts
    assert set(counts) == {200, 429} and counts[200] > 10
    assert platform.backend.most <= 3
    connections = hold(parallel, 3)
    until(lambda: platform.backend.held == 3, "exactly three")
    assert parallel.get().status == 429
    platform.backend.release()
    for connection in connections:
        connection.response()
        connection.close()


# --- body size ---

@pytest.fixture
def small(onboard):
    return onboard(quotas=[{"name": "body", "metric": "body_size", "limit": 1000},
                           {"name": "wide", "metric": "body_size", "limit": 500000, "route": "all"}])


@pytest.mark.parametrize("target", ["/", "/unbuffered/"])
def test_body_size(platform, small, target):
    platform.backend.clear()
    assert small.post(target, b"x" * 1000).status == 200
    assert small.post(target, b"").status == 200
    for size in (1001, 5000, 300000):
        response = small.post(target, b"x" * size)
        assert (response.status, response.problem) == (413, "body-too-large"), size
    assert {len(seen.body) for seen in platform.backend.seen} == {1000, 0}


def test_body_size_is_refused_before_it_is_sent(small):
    with small.gateway.connect() as connection:
        connection.send(wire.compose("POST", "/", small.headers(
            [("Content-Length", str(1 << 30)), ("Expect", "100-continue")])))
        assert connection.response().status == 413


@pytest.mark.parametrize("target", ["/", "/unbuffered/"])
def test_chunked_body_size(platform, small, target):
    platform.backend.clear()
    headers = [("Transfer-Encoding", "chunked")]
    response = small.request("POST", target, headers, wire.chunked(b"x" * 600, b"y" * 400))
    assert response.status == 200 and len(response.json()["body"]) == 1000
    for pieces in ([b"x" * 1001], [b"x" * 10] * 101, [b"x" * 600, b"y" * 401], [b"x" * 100000] * 3):
        with small.gateway.connect() as connection:
            try:
                connection.send(wire.compose("POST", target, small.headers(headers), wire.chunked(*pieces)))
            except OSError:
                pass
            try:
                response = connection.response()
                assert response.status == 413, response
                assert response.problem in ("body-too-large", None)
            except wire.Closed:
                pass        # cut off while it was still sending
    assert all(len(seen.body) <= 1000 for seen in platform.backend.seen)
    assert len(platform.backend.seen) == 1


def test_chunked_body_that_never_ends(platform, small):
    """Bounded although no length was announced: cut off long before the client ends."""
    with small.gateway.connect(timeout=10) as connection:
        connection.send(wire.compose("POST", "/", small.headers([("Transfer-Encoding", "chunked")])))
        sent = 0
        try:
            while sent < 50_000_000:
                connection.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
                sent += 0x2000
        except OSError:
            pass
        assert sent < 50_000_000


def test_http2_body_size(platform, small):
    from support.http2 import Http2
    with Http2(small.gateway.address2) as connection:
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", small.host), (":path", "/")]
        assert connection.response(connection.send(pseudo, b"x" * 1000))[0] == 200
        assert connection.response(connection.send(pseudo, b"x" * 1001))[0] in (413, None)
        assert connection.response(connection.send(pseudo, b"x" * 10))[0] == 200


def test_body_size_dry_run(onboard):
    tenant = onboard(quotas=[{"name": "body", "metric": "body_size", "limit": 10, "dry_run": True}])
    assert tenant.post("/", b"x" * 5000).status == 200


def test_body_size_zero(onboard):
    tenant = onboard(quotas=[{"name": "body", "metric": "body_size", "limit": 0}])
    assert tenant.get().status == 200
    assert tenant.post("/", b"").status == 200
    assert tenant.post("/", b"x").status == 413


# --- headers (draft-ietf-httpapi-ratelimit-headers) ---

ITEM = re.compile(r'"([^"]+)"((?:;[a-z]+=(?:\d+|"[^"]*"))*)')


def items(value):
    """A list of strings with parameters (RFC 9651), as name -> parameters."""
    parsed = {}
    for part in value.split(", "):
        match = ITEM.fullmatch(part)
        assert match, f"not a structured field: {value!r}"
        parsed[match.group(1)] = {key: number.strip('"') for key, number in
                                  (p.split("=") for p in match.group(2).split(";") if p)}
    return parsed


def test_headers(onboard):
    tenant = onboard(quotas=[quota("minute", limit=60, window="60s", burst=10),
                             quota("day", limit=1000, window="day")])
    began = time.monotonic()
    response = tenant.get()
    policy, state = items(response.headers["ratelimit-policy"]), items(response.headers["ratelimit"])
    assert policy["minute"]["q"] == "60" and policy["minute"]["w"] == "60"
    assert policy["day"]["q"] == "1000" and int(policy["day"]["w"]) == 86400
    name, values = next(iter(state.items()))
    assert name == "minute" and values["r"] == "9" and 0 < int(values["t"]) <= 60

    for remaining in (8, 7, 6):
        left = int(items(tenant.get().headers["ratelimit"])["minute"]["r"])
        assert remaining <= left <= min(9, remaining + int(time.monotonic() - began) + 1)   # one is refilled each second
    while (response := tenant.get()).status == 200:
        pass
    assert response.problem == "over-quota"
    state = items(response.headers["ratelimit"])
    assert state["minute"]["r"] == "0" and 0 < int(state["minute"]["t"]) <= 60
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "no-store" in response.headers["cache-control"]


def test_problem_types(platform, onboard):
    """Both refusals of a quota policy are of the type that the draft registers; the kind
    tells them apart."""
    tenant = onboard(quotas=[quota("minute", limit=1, window="60s")])
    assert tenant.get().status == 200
    spent = tenant.get().json()
    full = onboard(quotas=[{"name": "parallel", "metric": "concurrency", "limit": 1}])
    [held] = hold(full, 1)
    until(lambda: platform.backend.held == 1, "one in flight")
    busy = full.get().json()
    platform.backend.release()
    assert held.response().status == 200
    held.close()
    for document, kind, name in ((spent, "over-quota", "minute"), (busy, "over-concurrency", "parallel")):
        assert document["type"] == wire.QUOTA_EXCEEDED
        assert document["title"] == "Request cannot be satisfied as assigned quota has been exceeded"
        assert (document["status"], document["kind"], document["violated-policies"]) == (429, kind, [name])


def test_no_headers_without_quotas(onboard):
    response = onboard().get()
    assert "ratelimit" not in response.headers and "ratelimit-policy" not in response.headers


# --- exactness ---

class Storm:
    """Requests from several threads, on kept connections, for all workers."""

    def __init__(self, tenant, requests, threads=8, headers=()):
        self.counts = collections.Counter()
        self.tenant, self.requests, self.headers = tenant, requests, headers
        lock = threading.Lock()
        left = [requests]

        def run():
            mine = collections.Counter()
            with tenant.gateway.connect() as connection:
                while True:
                    with lock:
                        if left[0] <= 0:
                            break
                        left[0] -= 1
                    mine[connection.request("GET", "/", tenant.headers(headers)).status] += 1
            with lock:
                self.counts.update(mine)
        threads = [threading.Thread(target=run) for _ in range(threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("window", ["day", "86399s"])
def test_exact_with_several_workers(onboard, window):
    tenant = onboard(quotas=[quota(limit=300, window=window)])
    assert len(tenant.gateway.workers) == 4
    counts = Storm(tenant, 1200).counts
    # of 86399 s, one more is refilled every 288 s
    assert counts[200] == 300 and counts[429] == 900, counts


def test_exact_with_two_quotas_and_several_workers(onboard):
    """Refusals by one give back what was charged to the other."""
    tenant = onboard(quotas=[quota("day", limit=1000, window="day"), quota("hour", limit=200, window="80000s")])
    assert Storm(tenant, 900).counts[200] == 200
    tenant.delete("quotas", "hour")
    assert Storm(tenant, 1200).counts[200] == 800


def test_exact_per_consumer_with_several_workers(onboard):
    tenant = onboard(routes=[route(auth="required")], keys=[{"consumer": f"c{i}"} for i in range(3)],
                     quotas=[quota("each", limit=100, window="day", scope="consumer")])
    for key in tenant.keys:
        assert Storm(tenant, 300, headers=[("X-API-Key", key)]).counts[200] == 100


def test_exact_over_reload_and_crash(platform, onboard):
    gateway = platform.gateway(workers=2)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    tenant = onboard(quotas=[quota(limit=100, window="day")], gateway=gateway)
    assert served(tenant, 30) == 30
    gateway.reload()
    assert served(tenant, 30) == 30
    for pid in gateway.workers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: served_or_none(tenant) == 200, "the new workers")
    count = 61 + served(tenant, 60)
    assert count == 100
    platform.retire(gateway)


def test_calendar_quotas_survive_a_restart(platform, onboard):
    """Day and month counters are kept on disk; windows in seconds begin anew."""
    gateway = platform.gateway(workers=1)
    tenant = onboard(quotas=[quota("day", limit=10, window="day"), quota("hour", limit=1000, window="3600s")],
                     gateway=gateway)
    assert served(tenant, 6) == 6
    gateway.stop(signal.SIGQUIT)
    gateway.start()
    platform.wait(gateway=gateway)
    until(lambda: gateway.ready()[0] == 200, "readiness")
    assert served(tenant, 8) == 4
    platform.retire(gateway)


# --- changes ---

def test_a_change_does_not_reset_the_count(platform, onboard):
    tenant = onboard(quotas=[quota("day", limit=10, window="day"), quota("hour", limit=12, window="3600s")])
    assert served(tenant, 6) == 6
    tenant.put("routes", "other", route("other", path="/other"))        # not a quota at all
    tenant.put("quotas", "day", quota("day", limit=8, window="day"))
    assert served(tenant, 6) == 2
    tenant.put("quotas", "day", quota("day", limit=100, window="day"))
    assert served(tenant, 10) == 4                                      # the hour's 12, 8 of them used
    tenant.put("quotas", "hour", quota("hour", limit=20, window="3600s"))
    assert served(tenant, 20) == 8
    tenant.put("quotas", "day", quota("day", limit=5, window="day"))
    assert served(tenant, 3) == 0


def test_a_new_quota_starts_empty(onboard):
    tenant = onboard()
    assert served(tenant, 20) == 20
    tenant.put("quotas", "new", quota("new", limit=3, window="day"))
    assert served(tenant, 6) == 3
    tenant.delete("quotas", "new")
    assert served(tenant, 6) == 6
    tenant.put("quotas", "new", quota("new", limit=3, window="day"))    # another one of that name
    assert served(tenant, 6) == 3


def test_many_quotas_of_a_tenant(onboard):
    routes = [route(f"r{i}", path=f"/r{i}") for i in range(60)]
    tenant = onboard(routes=routes, quotas=[
        quota(f"q{i}", limit=i % 4 + 1, window="day", scope="route", route=f"r{i}") for i in range(60)])
    for i in (0, 1, 2, 3, 30, 59):
        assert served(tenant, 6, f"/r{i}") == i % 4 + 1


def test_refusals_keep_the_connection(onboard):
    """A 429 to a request with a body, on a kept connection, and the next is in step."""
    tenant = onboard(quotas=[quota(limit=1, window="day")])
    with tenant.gateway.connect() as connection:
        assert connection.request("POST", "/", tenant.headers(), b"one").status == 200
        for _ in range(5):
            assert connection.request("POST", "/", tenant.headers(), b"x" * 5000).status == 429
        assert connection.request("GET", "/nowhere", {"Host": "nobody.example.com"}).status == 404
