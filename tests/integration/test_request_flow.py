# SPDX-License-Identifier: BSD-2-Clause
"""Flow 1, docs/flows/request.md: client, tenant, route, auth, quota, upstream, usage."""

import pytest

from support import wire
from support.platform import quota, route, upstream
from support.poll import until
from support.tokens import Issuer


@pytest.fixture(scope="module")
def issuer():
    return Issuer("RS256", "https://id.acme.example")


@pytest.fixture(scope="module")
def acme(platform, gateway, issuer):
    return platform.onboard(
        "acme", hosts=["acme.example.com", "*.acme.example.com"],
        issuers=[{"name": "main", **issuer.body()}],
        keys=[{"consumer": "mobile", "scopes": ["orders:read"]}],
        upstreams=[upstream(platform.backend.main, name="orders", host="orders.internal")],
        routes=[route("orders", path="/orders", upstream="orders", match={"methods": ["GET", "POST"]},
                      auth={"mode": "required", "scopes": ["orders:read"]},
                      rewrite={"type": "replace_prefix", "value": "/v2"}),
                route("status", path="/status", type="exact", upstream="orders")],
        quotas=[quota("minute", limit=60, window="60s", burst=9)])


def test_one_request_through_every_layer(platform, acme, issuer):
    """By key and by token: tenant, route, identity, rewrite, quota headers, log, usage."""
    gateway = acme.gateway
    mark = len(gateway.access_log())
    for credential, kind, consumer in [({"key": acme.key}, "api_key", "mobile"),
                                       ({"token": issuer.token("alice", scope="orders:read")}, "jwt", "alice")]:
        response = acme.get("/orders/7?full=1", {"X-Own": "kept"}, **credential)
        assert response.status == 200, response
        document = response.json()
        headers = wire.Headers(document["headers"])
        assert document["target"] == "/v2/7?full=1"
        assert headers["host"] == "orders.internal"
        assert headers["x-tenant"] == "acme"
        assert headers["x-tenant-auth"] == kind
        assert headers["x-tenant-consumer"] == consumer
        assert headers["x-tenant-scopes"] == "orders:read"
        assert headers["x-own"] == "kept"
        assert "authorization" not in headers and "x-api-key" not in headers
        assert "60" in response.headers["ratelimit-policy"]
        assert "ratelimit" in response.headers
    assert acme.get("/status").status == 200
    log = until(lambda: (text := gateway.access_log()[mark:]).count("\n") == 3 and text, "the access log")
    assert "200 tenant=acme route=orders consumer=mobile auth=api_key refusal=-" in log
    assert "200 tenant=acme route=orders consumer=alice auth=jwt refusal=-" in log

    def counted():
        rows = dict(platform.database.execute(
            "SELECT route, sum(requests) FROM tiergate.usage WHERE tenant = 'acme' GROUP BY route"))
        return rows.get("orders") == 2 and rows.get("status") == 1
    until(counted, "usage in psql")


def test_each_refusal_by_its_layer(platform, acme, issuer):
    platform.backend.clear()
    cases = [
        ({"headers": {"Host": "nobody.example.com"}}, 404, "unknown-host"),
        ({"target": "/nowhere"}, 404, "no-route"),
        ({"target": "/orders", "method": "DELETE"}, 405, "bad-method"),
        ({"target": "/orders"}, 401, "no-credential"),
        ({"target": "/orders", "key": "wrong"}, 401, "invalid-credential"),
        ({"target": "/orders", "token": issuer.token(exp=1)}, 401, "invalid-credential"),
        ({"target": "/orders", "token": issuer.token()}, 403, "forbidden"),
        ({"target": "/orders", "key": acme.key, "token": issuer.token()}, 400, "two-credentials"),
    ]
    for case, status, slug in cases:
        response = acme.request(case.pop("method", "GET"), case.pop("target", "/"), **case)
        assert (response.status, response.problem) == (status, slug), response
        document = response.json()
        assert document["title"] and document["detail"] and document["status"] == status
        assert "no-store" in response.headers["cache-control"]
    assert not platform.backend.seen, "a refused request was sent"


def test_over_quota(acme):
    statuses = []
    for _ in range(30):
        response = acme.get("/status")
        statuses.append(response.status)
        if response.status == 429:
            break
    assert response.status == 429 and response.problem == "over-quota"
    assert int(response.headers["retry-after"]) >= 1
    assert "minute" in response.headers["ratelimit-policy"]
    assert "minute" in response.headers["ratelimit"] and "r=0" in response.headers["ratelimit"]


def test_http2_is_served_alike(onboard):
    from support.http2 import Http2
    tenant = onboard(routes=[route(auth="required")])
    with Http2(tenant.gateway.address2) as connection:
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", tenant.host), (":path", "/h2?x=1")]
        streams = [connection.send([*pseudo, ("x-api-key", tenant.key)], b"body %d" % i) for i in range(20)]
        refused = connection.send(pseudo, b"x")
        import json
        for i, stream in enumerate(streams):
            status, _, body = connection.response(stream)
            document = json.loads(body)
            assert status == 200 and document["target"] == "/h2?x=1"
            assert document["body"] == f"body {i}"
        assert connection.response(refused)[0] == 401


def test_operator_directives_still_work(platform, onboard):
    """nginx keeps everything it can do: header directives, variables, error pages."""
    gateway = platform.gateway(location="""
        tenant host; tenant_auth on; tenant_quota on;
        add_header X-Served-By "$tenant_name/$tenant_route" always;
        proxy_set_header X-Edge edge-1;
        error_page 401 /-/login;
    """, locations="""
        location = /-/login { internal; return 401 "please log in\\n"; }
        location /public/ { tenant host; tenant_auth off; tenant_quota off; proxy_pass http://tenants; }
    """)
    tenant = onboard(routes=[route("all", auth="required")], gateway=gateway)
    response = tenant.get("/x", key=tenant.key)
    assert response.headers["x-served-by"] == f"{tenant.name}/all"
    assert wire.Headers(response.json()["headers"])["x-edge"] == "edge-1"
    response = tenant.get("/x")
    assert (response.status, response.text) == (401, "please log in\n")
    platform.retire(gateway)


def test_internal_redirects_keep_the_decisions(platform, onboard):
    """An error_page of the operator and X-Accel-Redirect go through the phases again:
    the quota is charged once and the identity is still the gateway's."""
    gateway = platform.gateway(location="""
        tenant host; tenant_auth on; tenant_quota on;
        proxy_intercept_errors on;
        error_page 418 = @fallback;
        error_page 419 = /elsewhere;
    """, locations="""
        location @fallback { tenant host; tenant_auth on; tenant_quota on;
                             proxy_pass http://tenants; proxy_set_header X-Do ""; }
    """)
    tenant = onboard(routes=[route(auth="required")], gateway=gateway,
                     quotas=[quota(limit=5, window="3600s", burst=5)])
    platform.backend.clear()
    for code in (418, 419):
        response = tenant.get("/x", {"X-Do": f"status={code}", "X-Tenant-Consumer": "forged"}, key=tenant.key)
        assert response.status in (200, 419, 418), response
    statuses = [tenant.get("/x", key=tenant.key).status for _ in range(6)]
    assert statuses.count(200) == 3, "each redirected request was charged once"
    for seen in platform.backend.seen:
        headers = wire.Headers(seen.headers)
        assert headers.all("x-tenant-consumer") == ["mobile"]
        assert headers.all("x-tenant") == [tenant.name]
    platform.retire(gateway)


def test_subrequests_are_not_charged(platform, onboard):
    """auth_request of the operator's own beside ours."""
    gateway = platform.gateway(location="""
        auth_request /-/check;
        tenant host; tenant_auth on; tenant_quota on;
    """, locations="""
        location = /-/check { internal; return 204; }
    """)
    tenant = onboard(routes=[route(auth="required")], gateway=gateway,
                     quotas=[quota(limit=5, window="3600s", burst=5)])
    statuses = [tenant.get("/x", key=tenant.key).status for _ in range(8)]
    assert statuses.count(200) == 5, statuses
    assert tenant.get("/x").status == 401
    platform.retire(gateway)


def test_satisfy_any_does_not_skip_the_quota(platform, onboard):
    gateway = platform.gateway(location="""
        satisfy any; allow 127.0.0.0/8; deny all;
        tenant host; tenant_auth on; tenant_quota on;
    """)
    tenant = onboard(gateway=gateway, quotas=[quota(limit=3, window="3600s", burst=3)])
    statuses = [tenant.get("/x").status for _ in range(6)]
    assert statuses == [200] * 3 + [429] * 3
    platform.retire(gateway)


def test_expect_continue(onboard):
    tenant = onboard()
    with tenant.gateway.connect() as connection:
        connection.send(wire.compose("POST", "/", tenant.headers(
            [("Expect", "100-continue"), ("Content-Length", "5")])))
        connection.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(b"hello")
        assert connection.response().json()["body"] == "hello"
