# SPDX-License-Identifier: BSD-2-Clause
"""Tenants do not meet: not by keys, tokens, issuers, quotas, states or numbers."""

import itertools

import pytest

from support import wire
from support.platform import quota, route, upstream
from support.tokens import Issuer

SOURCES = itertools.cycle(f"127.{a}.{b}.9" for a in range(100, 140) for b in range(1, 250))


@pytest.fixture(scope="module")
def pair(platform, gateway):
    """Two tenants that are alike in everything that a tenant may choose."""
    issuers = [Issuer("ES256", "https://id.example", kid="k1") for _ in range(2)]
    other = platform.backend.endpoint()
    tenants = [platform.onboard(
        name, routes=[route("all", auth="required")], upstreams=[upstream(endpoint)],
        issuers=[{"name": "main", **issuer.body()}], keys=[{"consumer": "mobile"}],
        quotas=[quota(limit=1000000, window="1s")])
        for name, issuer, endpoint in zip(("alpha", "beta"), issuers, (platform.backend.main, other))]
    return list(zip(tenants, issuers))


def ask(tenant, key=None, token=None, **more):
    return tenant.get("/", key=key, token=token, source=next(SOURCES), **more)


def test_keys_and_tokens_are_valid_at_home_only(pair):
    for (home, issuer), (away, _) in (pair, pair[::-1]):
        for _ in range(4):      # the second round comes from caches
            assert ask(home, key=home.key).status == 200
            assert ask(home, token=issuer.token()).status == 200
            assert ask(away, key=home.key).status == 401
            assert ask(away, token=issuer.token()).status == 401


def test_the_same_token_cached_for_one_is_nothing_to_the_other(pair):
    (alpha, issuer), (beta, _) = pair
    token = issuer.token()
    statuses = [(ask(alpha, token=token).status, ask(beta, token=token).status) for _ in range(10)]
    assert statuses == [(200, 401)] * 10


def test_no_header_selects_another_tenant(pair):
    (alpha, _), (beta, _) = pair
    for name in ("X-Tenant", "X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-Host", "X-Acme-Tenant",
                 "X-Rewrite-URL", "X-Original-URL"):
        response = ask(alpha, key=alpha.key, headers=[(name, beta.host)])
        assert response.status == 200
        assert wire.Headers(response.json()["headers"]).all("x-tenant") == ["alpha"]


def test_each_has_its_own_backend(pair):
    ports = {tenant.name: {ask(tenant, key=tenant.key).json()["port"] for _ in range(5)}
             for tenant, _ in pair}
    assert not ports["alpha"] & ports["beta"]


def test_platform_issuer_needs_a_reference(platform, pair):
    issuer = Issuer("ES256", "https://sso.example")
    platform.rest.call("PUT", "/v1/issuers/shared-sso", issuer.body())
    (alpha, _), (beta, _) = pair
    alpha.put("issuers", "sso", {"ref": "shared-sso"})
    assert ask(alpha, token=issuer.token()).status == 200
    assert ask(beta, token=issuer.token()).status == 401
    alpha.delete("issuers", "sso")
    assert ask(alpha, token=issuer.token()).status == 401


def test_suspending_one_does_not_touch_the_other(pair):
    (alpha, _), (beta, issuer) = pair
    alpha.suspend()
    try:
        assert ask(alpha, key=alpha.key).status == 403
        assert ask(alpha).status == 403
        assert ask(beta, key=beta.key).status == 200
        assert ask(beta, token=issuer.token()).status == 200
        with beta.gateway.connect() as connection:      # one connection, both hosts
            for _ in range(5):
                assert connection.request("GET", "/", beta.headers(key=beta.key)).status == 200
                assert connection.request("GET", "/", alpha.headers(key=alpha.key)).status == 403
    finally:
        alpha.resume()
    assert ask(alpha, key=alpha.key).status == 200


def test_one_over_its_limit_does_not_touch_the_other(platform, onboard):
    small = onboard(quotas=[quota(limit=1, window="3600s", burst=0)])
    other = onboard(quotas=[quota(limit=1, window="3600s", burst=0)])
    assert small.get().status == 200
    assert {small.get().status for _ in range(20)} == {429}
    assert other.get().status == 200


def test_a_full_upstream_of_one_does_not_touch_the_other(platform, onboard):
    """Same address, but each tenant's upstream has a count of its own."""
    one = onboard(upstreams=[upstream(platform.backend.main, max_outstanding=1)])
    two = onboard(upstreams=[upstream(platform.backend.main, max_outstanding=1)])
    with one.gateway.connect() as held:
        held.send(wire.compose("GET", "/", one.headers([("X-Do", "hold")])))
        from support.poll import until
        until(lambda: platform.backend.held == 1, "the held request")
        assert one.get().status == 503
        assert two.get().status == 200
        platform.backend.release()
        assert held.response().status == 200


def test_http2_streams_of_two_tenants_on_one_connection(pair):
    from support.http2 import Http2
    (alpha, _), (beta, _) = pair
    with Http2(alpha.gateway.address2) as connection:
        def send(tenant, key):
            return connection.send([(":method", "GET"), (":scheme", "http"), (":authority", tenant.host),
                                    (":path", "/"), ("x-api-key", key)])
        streams = [(send(alpha, alpha.key), 200), (send(beta, alpha.key), 401), (send(beta, beta.key), 200),
                   (send(alpha, beta.key), 401)]
        for stream, status in streams:
            assert connection.response(stream)[0] == status


def test_names_that_begin_alike(onboard):
    """Prefixes and suffixes of names are other names."""
    names = ["co", "co-1", "co-11", "xco"]
    tenants = [onboard(name, hosts=[f"{name}.example.net"], routes=[route(auth="required")],
                       keys=[{"consumer": name}]) for name in names]
    for a in tenants:
        for b in tenants:
            response = ask(a, key=b.key)
            assert response.status == (200 if a is b else 401)


def test_a_recreated_tenant_inherits_nothing(platform, onboard):
    """Same name, same host: the keys, quota counts and revisions of the first are gone."""
    first = onboard("phoenix", routes=[route(auth="required")],
                    quotas=[quota(limit=2, window="3600s", burst=0)])
    assert ask(first, key=first.key).status == 200
    while ask(first, key=first.key).status == 200:
        pass
    platform.change("DELETE", first.path)
    assert ask(first, key=first.key).status == 404
    second = onboard("phoenix", routes=[route(auth="required")],
                     quotas=[quota(limit=2, window="3600s", burst=0)])
    assert ask(second, key=first.key).status == 401
    assert ask(second, key=second.key).status == 200
    assert second.document["id"] > first.document["id"]


def test_rest_tokens_of_one_tenant(platform, pair):
    """The tenant's own administrator reads and changes its tenant alone."""
    from support.platform import Rest
    (alpha, _), (beta, _) = pair
    made = platform.rest.call("POST", "/v1/tokens", {"name": "alpha-admin", "scope": "tenant",
                                                    "tenant": "alpha"})
    rest = Rest(platform.tenantd.socket, made["token"])
    assert rest.request("GET", "/v1/tenants/alpha").status == 200
    for method, path, body in [
            ("GET", "/v1/tenants/beta", None), ("GET", "/v1/tenants", None),
            ("PATCH", "/v1/tenants/beta", {"display_name": "x"}), ("DELETE", "/v1/tenants/alpha", None),
            ("POST", "/v1/tenants/alpha/suspend", {}), ("POST", "/v1/tenants", {"name": "x"}),
            ("GET", "/v1/tenants/beta/keys", None), ("PUT", "/v1/tenants/beta/routes/all", route()),
            ("GET", "/v1/audit", None), ("GET", "/v1/watch?for=gw", None), ("GET", "/v1/tokens", None),
            ("POST", "/v1/gateways/x/ack", {}), ("GET", "/v1/tenants/beta/usage", None)]:
        response = rest.request(method, path, body)
        assert response.status in (403, 404), (method, path, response)
        assert response.headers["content-type"] == "application/problem+json"
    rest.close()
    platform.rest.call("DELETE", f"/v1/tokens/{made['id']}")
