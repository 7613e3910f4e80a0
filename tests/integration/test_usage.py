# SPDX-License-Identifier: BSD-2-Clause
"""Usage: counted once each, whatever restarts; and metrics of bounded size."""

import os
import signal
import threading
import time

import pytest

from support import process, wire
from support.platform import quota, route
from support.poll import until
from support.tokens import Issuer
from support.websocket import WebSocket

GATEWAY = {"workers": 2}

COLUMNS = ("requests", "status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx", "denied",
           "throttled", "bytes_in", "bytes_out", "latency_us")


def usage(platform, tenant, route=None):
    """Sums from psql."""
    sums = ", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS)
    where = "" if route is None else " AND route = %s"
    row = platform.database.execute(f"SELECT {sums} FROM tiergate.usage WHERE tenant = %s{where}",
                                    [tenant.name, *([] if route is None else [route])])[0]
    return dict(zip(COLUMNS, map(int, row)))


def wait_usage(platform, tenant, expected, route=None):
    """Waits for exactly these sums, and fails at once if one is exceeded."""
    last = {}

    def exact():
        last.update(usage(platform, tenant, route))
        over = {name: last[name] for name, value in expected.items() if last[name] > value}
        assert not over, f"counted more than there was: {over}, expected {expected}"
        return all(last[name] == value for name, value in expected.items())
    until(exact, lambda: f"{expected} of {tenant.name}/{route}: {last}", every=0.05)
    return last


def test_counters(platform, onboard):
    issuer = Issuer()
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}], routes=[
        route("open", path="/open"), route("closed", path="/closed", auth="required"),
        route("small", path="/small")],
        quotas=[quota("small", limit=2, window="3600s", burst=2, scope="route", route="small")])
    for _ in range(7):
        assert tenant.get("/open").status == 200
    for status in (302, 404, 404, 500, 503, 503, 503):
        tenant.get("/open", {"X-Do": f"status={status}"})
    for _ in range(3):
        assert tenant.get("/closed").status == 401
    assert tenant.get("/closed", token=issuer.token()).status == 200
    assert [tenant.get("/small").status for _ in range(6)].count(429) == 4
    assert tenant.get("/nowhere").status == 404

    got = wait_usage(platform, tenant, {"requests": 14, "status_2xx": 7, "status_3xx": 1, "status_4xx": 2,
                                        "status_5xx": 4, "denied": 0}, "open")
    assert got["bytes_in"] > 14 * 40 and got["bytes_out"] > 14 * 100 and got["latency_us"] > 0
    wait_usage(platform, tenant, {"requests": 4, "status_4xx": 3, "status_2xx": 1, "denied": 3}, "closed")
    wait_usage(platform, tenant, {"requests": 6, "status_2xx": 2, "status_4xx": 4, "throttled": 4}, "small")
    wait_usage(platform, tenant, {"requests": 1, "status_4xx": 1}, "")

    over_rest = platform.rest.call("GET", f"{tenant.path}/usage?route=open")
    assert sum(item["requests"] for item in over_rest["items"]) == 14


def test_bytes_and_latency(platform, onboard):
    tenant = onboard()
    began = time.monotonic()
    tenant.request("POST", "/", body=b"x" * 50000)
    tenant.get(headers={"X-Do": "size=70000"})
    tenant.get(headers={"X-Do": "delay=0.3"})
    took = time.monotonic() - began
    got = wait_usage(platform, tenant, {"requests": 3})
    assert 50000 < got["bytes_in"] < 52000
    assert 70000 + 50000 < got["bytes_out"] < 125000
    assert 300000 <= got["latency_us"] <= took * 1000000
    histogram = platform.database.one("SELECT tiergate.total(latency) FROM tiergate.usage WHERE tenant = %s",
                                      [tenant.name])
    assert sum(histogram) == 3
    slowest = max(i for i, count in enumerate(histogram) if count)
    assert 8 <= slowest <= 8 + sum(took > bound for bound in (0.5, 1, 2.5, 5, 10)), histogram       # 8: 250 to 500 ms


def test_websocket_is_counted_at_its_end(platform, onboard):
    tenant = onboard(routes=[route(websocket=True)])
    with WebSocket(tenant.gateway.address, tenant.host) as socket:
        socket.echo("x" * 100)
    wait_usage(platform, tenant, {"requests": 1, "status_1xx": 1})


def test_aborted_requests_are_counted_once(platform, onboard):
    tenant = onboard()
    for n in range(3):
        with tenant.gateway.connect() as connection:
            connection.send(wire.compose("GET", "/", tenant.headers([("X-Do", "hold")])))
            until(lambda: platform.backend.held == n + 1, "the request")
    wait_usage(platform, tenant, {"requests": 3, "status_4xx": 3})
    platform.backend.release()
    # one of them counted once more would have been, with a later one
    assert tenant.get().status == 200
    wait_usage(platform, tenant, {"requests": 4, "status_2xx": 1, "status_4xx": 3})


def test_views(platform, onboard):
    tenant = onboard()
    for _ in range(5):
        tenant.get()
    wait_usage(platform, tenant, {"requests": 5})
    for view in ("usage_by_minute", "usage_by_hour", "usage_summary"):
        status, output = platform.database.psql(
            f"SELECT sum(requests), sum(ok), max(p99_ms) FROM tiergate.{view} WHERE tenant = '{tenant.name}';")
        assert status == 0 and output.startswith("5|5|"), output        # of two minutes, perhaps


class Load:
    """Requests from some threads; counts the answers."""

    def __init__(self, tenant, threads=2):
        self.tenant = tenant
        self.stop = threading.Event()
        self.served = 0
        self.unanswered = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stop.is_set():
            try:
                with self.tenant.gateway.connect() as connection:
                    while not self.stop.is_set():
                        status = None
                        try:
                            status = connection.request("GET", "/", self.tenant.headers()).status
                        finally:
                            with self.lock:
                                if status is None:
                                    self.unanswered += 1
                                else:
                                    self.served += 1
            except (wire.Closed, OSError):
                pass

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return self.served

    def wait(self, more):
        target = self.served + more
        until(lambda: self.served >= target, f"{more} more requests")


def test_exact_over_restarts_of_tenantd(platform, onboard):
    """Stopped, killed, and started again under load: to the request."""
    tenant = onboard()
    load = Load(tenant)
    try:
        for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            load.wait(200)
            platform.tenantd.stop(how)
            load.wait(300)
            platform.tenantd.start()
            load.wait(200)
    finally:
        served = load.finish()
    platform.rest.close()
    assert load.unanswered == 0
    wait_usage(platform, tenant, {"requests": served, "status_2xx": served})


def test_exact_over_lost_answers(platform, onboard):
    """The report arrives but its answer does not: the same counters come again."""
    tenant = onboard()
    for _ in range(5):
        tenant.get()
    wait_usage(platform, tenant, {"requests": 5})
    body = platform.database.execute("SELECT boot, life, counters FROM tiergate.usage_counters WHERE tenant = %s",
                                     [tenant.name])
    boot, number, counters = body[0]
    report = {"boot": boot, "time": 0, "counters": [{
        "tenant": tenant.name, "route": "all", "life": number, "requests": counters[0], "status": counters[1:6],
        "denied": counters[6], "throttled": counters[7], "bytes_in": counters[8], "bytes_out": counters[9],
        "latency_us": counters[10], "latency": counters[11:]}]}
    for _ in range(3):
        platform.rest.call("POST", f"/v1/gateways/{tenant.gateway.name}/usage", report)
    assert usage(platform, tenant)["requests"] == 5
    older = {**report, "counters": [{**report["counters"][0], "requests": 2}]}
    platform.rest.call("POST", f"/v1/gateways/{tenant.gateway.name}/usage", older)
    tenant.get()
    wait_usage(platform, tenant, {"requests": 6})


@pytest.mark.parametrize("which", ["leader", "other"])
def test_exact_over_a_killed_worker(platform, onboard, which):
    """A worker dies: what it counted is kept.  Only the requests that it was at may
    be missing: unanswered, or answered but not yet logged."""
    gateway = platform.gateway(workers=2)
    gateway.log.allow(r"exited on signal 9|shared memory zone .* was locked by")
    tenant = onboard(gateway=gateway)
    load, kills = Load(tenant), 3
    try:
        for _ in range(kills):
            load.wait(200)
            workers = sorted(gateway.workers)
            os.kill(workers[0] if which == "leader" else workers[-1], signal.SIGKILL)
            until(lambda: len(gateway.workers) == 2, "the worker's successor")
        load.wait(300)
    finally:
        served = load.finish()

    def close():
        requests = usage(platform, tenant)["requests"]
        assert requests <= served + load.unanswered
        return requests >= served - kills * len(load.threads)
    until(close, lambda: f"{served} (+{load.unanswered}): {usage(platform, tenant)}", 20, every=0.1)
    platform.retire(gateway)


def test_exact_over_reload(platform, onboard):
    gateway = platform.gateway(workers=2)
    tenant = onboard(gateway=gateway)
    for _ in range(3):
        for _ in range(50):
            assert tenant.get().status == 200
        gateway.reload()
    for _ in range(50):
        assert tenant.get().status == 200
    wait_usage(platform, tenant, {"requests": 200})
    platform.retire(gateway)


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGTERM])
def test_a_stopped_gateway_has_reported_everything(platform, onboard, how):
    """The last second is not lost, and after the next start nothing is counted twice."""
    gateway = platform.gateway(workers=2)
    tenant = onboard(gateway=gateway)
    for _ in range(40):
        tenant.get()
    gateway.stop(how)
    wait_usage(platform, tenant, {"requests": 40})
    gateway.start()
    until(lambda: gateway.ready()[0] == 200, "readiness")      # the registry still has what it said before
    assert tenant.get().status == 200
    wait_usage(platform, tenant, {"requests": 41, "status_2xx": 41})
    platform.retire(gateway)


def test_recreated_routes_and_tenants_count_on(platform, onboard):
    """A new object of an old name starts its counters at zero: the sums go on."""
    tenant = onboard(routes=[route("all"), route("extra", path="/extra")])
    for _ in range(9):
        tenant.get("/extra")
    wait_usage(platform, tenant, {"requests": 9}, "extra")
    tenant.delete("routes", "extra")
    tenant.put("routes", "extra", route("extra", path="/extra"))
    for _ in range(4):
        tenant.get("/extra")
    wait_usage(platform, tenant, {"requests": 13}, "extra")

    platform.change("DELETE", tenant.path)
    again = onboard(tenant.name)
    for _ in range(3):
        again.get()
    wait_usage(platform, again, {"requests": 3}, "all")
    assert usage(platform, again, "extra")["requests"] == 13


def test_two_gateways_add_up(platform, onboard):
    second = platform.gateway(workers=1)
    tenant = onboard()
    for _ in range(5):
        tenant.get()
        second.request("GET", "/", tenant.headers())
    wait_usage(platform, tenant, {"requests": 10})
    by_gateway = dict(platform.database.execute(
        "SELECT gateway, sum(requests)::int FROM tiergate.usage WHERE tenant = %s GROUP BY gateway", [tenant.name]))
    assert by_gateway == {tenant.gateway.name: 5, second.name: 5}
    platform.retire(second)


# --- metrics ---

def test_metrics_parse_and_count(platform, onboard):
    gateway = platform.gateway(workers=2)
    tenant = onboard(gateway=gateway, routes=[route(), route("closed", path="/closed", auth="required")],
                     quotas=[quota(limit=1000, window="60s")])
    for _ in range(6):
        tenant.get()
    tenant.get("/closed")
    gateway.request("GET", "/", {"Host": "nobody.example.com"})

    def counted():
        """Each is counted when its answer has been sent, one thing after the other."""
        metrics = gateway.metrics()
        return (metrics.get("tiergate_tenant_requests_total", tenant=tenant.name) == 7
                and metrics.get("tiergate_tenant_request_duration_seconds_count", tenant=tenant.name) == 7
                and metrics.get("tiergate_tenant_denied_total", tenant=tenant.name) == 1
                and metrics.get("tiergate_refused_total", reason="unknown-host") == 1
                and metrics.get("tiergate_refused_total", reason="no-credential") == 1 and metrics)
    metrics = until(counted, lambda: str(gateway.metrics().samples))
    assert metrics.get("tiergate_state", state="live") == 1
    until(lambda: gateway.metrics().get("tiergate_revision") == platform.database.revision(), "the last revision")
    assert metrics.get("tiergate_zone_tenants") >= 1
    assert 0 < metrics.get("tiergate_zone_used_bytes") < metrics.get("tiergate_zone_size_bytes")

    name = "tiergate_tenant_request_duration_seconds"
    buckets = sorted((float(dict(pairs)["le"]), value) for (key, pairs), value in metrics.samples.items()
                     if key == f"{name}_bucket" and dict(pairs).get("tenant") == tenant.name)
    assert buckets[-1] == (float("inf"), 7)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets), "not cumulative"
    assert metrics.get(f"{name}_count", tenant=tenant.name) == 7
    for family in metrics.types:
        assert family in metrics.helps
    platform.retire(gateway)


def test_openmetrics(gateway, onboard):
    onboard().get()
    response = gateway.request("GET", "/-/metrics", {
        "Host": "x", "Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")
    assert response.text.count("# EOF") == 1


def test_cardinality_is_bounded(platform, backend):
    """Whatever clients send and however many tenants there are."""
    from support.platform import upstream
    import json
    gateway = platform.gateway(http="tenant_metrics_tenants 20;", workers=1)
    lines = [json.dumps({"name": f"card{i}", "hosts": [f"card{i}.example.com"],
                         "upstreams": [upstream(backend.main)], "routes": [route()]}) for i in range(100)]
    assert platform.rest.request("POST", "/v1/import", "\n".join(lines).encode(),
                                 {"Content-Type": "application/jsonl"}).status == 200
    platform.wait()
    with gateway.connect() as connection:
        for i in range(100):
            connection.request("GET", f"/path{i}?x={i}", {"Host": f"card{i}.example.com", "X-Random": str(i)})
            connection.request("GET", "/", {"Host": f"nobody{i}.example.com"})
    until(lambda: gateway.metrics().get("tiergate_requests_total") >= 200, "the requests in the metrics")
    until(lambda: gateway.metrics().get("tiergate_metrics_tenants", shown="no") >= 79, "the tenants without series")
    metrics = gateway.metrics()
    tenants = {dict(pairs)["tenant"] for _, pairs in metrics.samples if "tenant" in dict(pairs)}
    assert len(tenants) <= 21, len(tenants)
    assert len(metrics.samples) < 2000
    assert "nobody" not in str(metrics.samples)
    platform.retire(gateway)
    for i in range(100):
        platform.rest.call("DELETE", f"/v1/tenants/card{i}")


def test_metric_labels_are_escaped_and_named(gateway):
    metrics = gateway.metrics()
    assert all(name.startswith("tiergate_") for name in metrics.names())
    for name, kind in metrics.types.items():
        if kind == "counter":
            assert name.endswith("_total"), name
