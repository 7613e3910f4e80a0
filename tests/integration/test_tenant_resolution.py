# SPDX-License-Identifier: BSD-2-Clause
"""Which tenant a request belongs to: by host, header or path prefix."""

import json

import pytest

from support import wire
from support.platform import route
from support.poll import until

GATEWAY = {
    "locations": """
        location /by-header/ {
            tenant header X-Acme-Tenant;
            proxy_pass http://tenants;
        }
        location /plain/ {
            tenant host;
            tenant_problem off;
            proxy_pass http://tenants;
        }
        location /paged/ {
            tenant host;
            error_page 404 =404 /-/own-404;
            proxy_pass http://tenants;
        }
        location = /-/own-404 { internal; return 404 "the operator's page\n"; }
        location = /-/off { tenant off; return 200 "not taken: [$tenant_name]"; }
    """,
    "servers": """
    server {
        listen unix:@PATH@/prefix.sock;
        location / { tenant prefix; proxy_pass http://tenants; }
    }
    """,
}


@pytest.fixture(scope="module")
def exact(platform, gateway):
    return platform.onboard("exact", hosts=["exact.example.com", "two.example.com"])


@pytest.fixture(scope="module")
def wildcards(platform, gateway):
    return {
        "wide": platform.onboard("wide", hosts=["*.wild.example.org"]),
        "deep": platform.onboard("deep", hosts=["*.deep.example.net", "apex.example.net",
                                                "*.very.deep.example.net",
                                                "named.very.deep.example.net"],
                                 routes=[route(),
                                         route("deeper", match={"hosts": ["*.very.deep.example.net"]})]),
    }


def who(gateway, host, target="/"):
    """(status, tenant or slug) of a request with this Host."""
    response = gateway.request("GET", target, [("Host", host)])
    if response.status == 200:
        return 200, wire.Headers(response.json()["headers"]).get("x-tenant")
    return response.status, response.problem


@pytest.mark.parametrize("host", [
    "exact.example.com", "two.example.com",
    "EXACT.Example.COM",                # RFC 3986 section 3.2.2: case does not matter
    "exact.example.com:80", "exact.example.com:8443",
    "exact.example.com.",               # the DNS root's dot
    "exact.example.com.:80", "Exact.Example.Com.:443",
])
def test_host_names_its_tenant(gateway, exact, host):
    assert who(gateway, host) == (200, "exact")


@pytest.mark.parametrize("host", [
    "unknown.example.com", "example.com", "sub.exact.example.com", "xexact.example.com",
    "exact.example.com.evil.example", "exact.example.co", "127.0.0.1", "localhost",
    "exact-example.com", "exact.example.comm",
])
def test_other_hosts_are_nobody(gateway, exact, host):
    status, slug = who(gateway, host)
    assert (status, slug) == (404, "unknown-host")


@pytest.mark.parametrize("host", [
    "exact.example.com..", "exact..example.com", ".exact.example.com", "exact.example.com/",
    "exact.example.com/x", "exact.example.com@evil", "user@exact.example.com",
    "exact.example.com, two.example.com", "exact.example.com two.example.com",
    "exact.example.com\x00", "exact.example.com%00", "[exact.example.com]",
    "exact.example.com:80:80", "exact.example.com\t", "é.example.com", "",
    "exact.example.com:99999999999", "exact.example.com:80x",
])
def test_odd_hosts_are_refused_or_plain(gateway, exact, host):
    """Whatever nginx makes of these, they are either refused or no other than the
    tenant itself: never a server error, and never a second one."""
    response = wire.exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: " +
                             host.encode("utf-8") + b"\r\nConnection: close\r\n\r\n")[0]
    if response.status == 200:
        assert host.strip().rstrip(":0123456789x").rstrip(".") == "exact.example.com"
        got = wire.Headers(response.json()["headers"])
        assert got.all("x-tenant") == ["exact"]
    else:
        assert response.status in (400, 404, 421)


def test_wildcards_cover_every_depth_below(gateway, wildcards):
    assert who(gateway, "a.wild.example.org") == (200, "wide")
    assert who(gateway, "a.b.c.wild.example.org") == (200, "wide")
    assert who(gateway, "A.WILD.example.org.:99") == (200, "wide")
    assert who(gateway, "wild.example.org") == (404, "unknown-host")
    assert who(gateway, "awild.example.org") == (404, "unknown-host")
    assert who(gateway, "*.wild.example.org")[0] in (400, 404)


def test_exact_beats_wildcard_and_longer_beats_shorter(gateway, wildcards):
    deep = wildcards["deep"]
    for host, name in [("x.deep.example.net", "all"), ("x.very.deep.example.net", "deeper"),
                       ("named.very.deep.example.net", "deeper"),
                       ("apex.example.net", "all")]:
        mark = len(gateway.access_log())
        assert who(gateway, host) == (200, "deep")
        until(lambda: f"tenant=deep route={name} " in gateway.access_log()[mark:],
              f"{name} in the log")
    assert deep.name == "deep"


def test_an_exact_host_below_anothers_wildcard(platform, gateway, wildcards):
    """Nested claims need the site's permission; then the exact one wins."""
    platform.database.execute(
        "UPDATE tiergate.settings SET value = 'true' WHERE name = 'hosts.allow_nested_claims'")
    try:
        platform.onboard("nested", hosts=["nested.wild.example.org", "*.sub.wild.example.org"])
        assert who(gateway, "nested.wild.example.org") == (200, "nested")
        assert who(gateway, "x.sub.wild.example.org") == (200, "nested")
        assert who(gateway, "other.wild.example.org") == (200, "wide")
        platform.change("DELETE", "/v1/tenants/nested")
        assert who(gateway, "nested.wild.example.org") == (200, "wide")
    finally:
        platform.database.execute("UPDATE tiergate.settings SET value = 'false' "
                                  "WHERE name = 'hosts.allow_nested_claims'")


def test_a_host_can_move(platform, gateway, onboard):
    first = onboard(hosts=["moving.example.com", "stays.example.com"])
    second = onboard(hosts=[])
    assert who(gateway, "moving.example.com") == (200, first.name)
    platform.database.execute("UPDATE tiergate.hosts SET tenant = %s WHERE host = %s",
                              [second.name, "moving.example.com"])
    platform.wait()
    assert who(gateway, "moving.example.com") == (200, second.name)
    assert who(gateway, "stays.example.com") == (200, first.name)


def test_duplicate_host_headers_are_refused(gateway, exact, wildcards):
    for second in ("exact.example.com", "a.wild.example.org"):
        response = gateway.request("GET", "/", [("Host", "exact.example.com"), ("Host", second)])
        assert response.status == 400


def test_no_host_is_refused(gateway, exact):
    assert gateway.request("GET", "/", []).status == 400
    response = wire.exchange(gateway.address, b"GET / HTTP/1.0\r\n\r\n")[0]
    assert (response.status, response.problem) == (404, "unknown-host")


@pytest.mark.parametrize("target", [
    "http://exact.example.com/x", "http://EXACT.example.com:8080/x", "http://exact.example.com./x",
])
def test_absolute_form_names_the_tenant(gateway, exact, target):
    """RFC 9112 section 3.2.2: the target's host counts, and replaces Host."""
    response = gateway.request("GET", target, [("Host", "a.wild.example.org")])
    assert response.status == 200, response
    got = wire.Headers(response.json()["headers"])
    assert got.get("x-tenant") == "exact"
    assert got["host"].lower().split(":")[0].rstrip(".") == "exact.example.com"
    assert response.json()["target"] == "/x"


@pytest.mark.parametrize("target", [
    "http://user@exact.example.com/", "http:///x", "http://exact.example.com:x/", "exact.example.com:80",
    "*", "http://", "http://a b/", "//exact.example.com/x", "ftp://exact.example.com/",
])
def test_odd_absolute_forms_are_never_another_tenants(gateway, exact, wildcards, target):
    response = gateway.request("GET", target, [("Host", "a.wild.example.org")])
    if response.status == 200:
        headers = wire.Headers(response.json()["headers"])
        named = "exact" if "://exact.example.com/" in target else "wide"
        assert headers.get("x-tenant") == named
        assert headers["host"] == ("exact.example.com" if named == "exact" else "a.wild.example.org")
    else:
        assert 400 <= response.status < 500


def test_connect_is_refused(gateway, exact):
    assert gateway.request("CONNECT", "exact.example.com:443",
                           [("Host", "exact.example.com")]).status in (400, 405)


def test_unknown_host_is_a_problem_document(gateway, exact):
    response = gateway.request("GET", "/", [("Host", "nobody.example.com")])
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert "no-store" in response.headers["cache-control"]
    document = response.json()
    assert document["type"] == "urn:tiergate:problem:unknown-host"
    assert document["title"] and document["detail"]
    assert "tenant" not in document


def test_refusals_without_problem_documents(gateway, exact):
    response = gateway.request("GET", "/plain/", [("Host", "nobody.example.com")])
    assert (response.status, response.problem) == (404, None)
    assert response.headers["content-type"].startswith("text/html")
    response = gateway.request("GET", "/paged/", [("Host", "nobody.example.com")])
    assert (response.status, response.text) == (404, "the operator's page\n")


def test_head_gets_no_body(gateway, exact):
    with gateway.connect() as connection:
        for _ in range(2):      # a body would spoil the second
            response = connection.request("HEAD", "/", {"Host": "nobody.example.com"})
            assert response.status == 404


def test_a_refusal_keeps_the_connection_in_step(gateway, exact):
    """The body of a refused request is not the next request."""
    with gateway.connect() as connection:
        body = b"GET /evil HTTP/1.1\r\nHost: exact.example.com\r\n\r\n"
        response = connection.request("POST", "/", {"Host": "nobody.example.com"}, body)
        assert response.status == 404
        response = connection.request("GET", "/good", {"Host": "exact.example.com"})
        assert response.json()["target"] == "/good"


def test_suspended_tenant(platform, gateway, onboard):
    tenant = onboard()
    assert tenant.get().status == 200
    tenant.suspend("unpaid since March")
    response = tenant.get()
    assert (response.status, response.problem) == (403, "tenant-suspended")
    assert "unpaid since March" in response.json()["detail"]
    tenant.resume()
    assert tenant.get().status == 200


def test_suspension_without_reason(onboard):
    tenant = onboard()
    tenant.suspend(None)
    response = tenant.get()
    assert (response.status, response.problem) == (403, "tenant-suspended")
    assert response.json()["detail"]


def test_by_header(gateway, exact, wildcards):
    def ask(*names):
        return gateway.request("GET", "/by-header/x", [
            ("Host", "whatever.example"), *(("X-Acme-Tenant", name) for name in names)])

    assert wire.Headers(ask("exact").json()["headers"]).get("x-tenant") == "exact"
    assert wire.Headers(ask("wide").json()["headers"]).get("x-tenant") == "wide"
    for names in [(), ("nobody",), ("exact", "wide"), ("exact", "exact"), ("",), ("exact,wide",),
                  ("EXACT",), ("exact\x01",), ("x" * 4000,), ("", "exact")]:
        response = ask(*names)
        assert response.status in (400, 404), (names, response)


def test_by_prefix(platform, gateway, exact):
    tenant = platform.onboard("pre", routes=[
        route("api", path="/api", auth="none"),
        route("root", path="/", type="exact"),
    ])
    socket = f"{gateway.path}/prefix.sock"

    def ask(target):
        response = wire.request(socket, "GET", target, {"Host": "any.example"})
        return response.status, (response.json()["target"] if response.status == 200
                                 else response.problem)

    assert tenant.name == "pre"
    assert ask("/pre/api/x?q=1") == (200, "/api/x?q=1")
    assert ask("/pre/api") == (200, "/api")
    assert ask("/pre") == (200, "/")
    assert ask("/pre/") == (200, "/")
    assert ask("/pre?x=y") == (200, "/?x=y")
    assert ask("/%70re/api") == (200, "/api")
    assert ask("//pre//api") == (200, "/api")
    assert ask("/other/../pre/api") == (200, "/api")
    assert ask("/pre/../exact/api") == (200, "/api")     # which is tenant exact's
    assert ask("/") == (404, "unknown-host")
    assert ask("/prefix/api") == (404, "unknown-host")
    assert ask("/PRE/api") == (404, "unknown-host")
    assert ask("/pre%2fapi") == (200, "/api")
    assert ask("/pre%00/api")[0] in (400, 404)
    assert ask("/pre/other") == (404, "no-route")
    response = wire.request(socket, "GET", "/pre/../exact/api", {"Host": "any.example"})
    assert wire.Headers(response.json()["headers"]).get("x-tenant") == "exact"


def test_tenant_off(gateway, exact):
    response = gateway.request("GET", "/-/off", {"Host": "exact.example.com"})
    assert (response.status, response.text) == (200, "not taken: []")


def test_many_hosts_of_many_tenants(platform, gateway):
    """Wildcards and exact hosts of 200 tenants, each found and none mixed up."""
    lines = [{"name": f"many{i}", "hosts": [f"h{i}.many.example", f"*.w{i}.many.example"],
              "upstreams": [{"name": "main", "endpoints": [
                  {"address": "127.0.0.1", "port": platform.backend.main.port}]}],
              "routes": [route()]} for i in range(200)]
    response = platform.rest.request(
        "POST", "/v1/import", "\n".join(map(json.dumps, lines)).encode() + b"\n",
        {"Content-Type": "application/jsonl"})
    assert response.status == 200, response
    platform.wait()
    for i in range(200):
        assert who(gateway, f"h{i}.many.example") == (200, f"many{i}")
        assert who(gateway, f"a.b.w{i}.many.example") == (200, f"many{i}")
