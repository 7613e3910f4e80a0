# SPDX-License-Identifier: BSD-2-Clause
"""Identity headers come from the gateway alone, whatever the client sends."""

import pytest

from support import wire
from support.platform import route
from support.tokens import Issuer

# underscores_in_headers: an upstream that folds "_" and "-" must not be fooled
# even where the operator lets such names through.
GATEWAY = {"http": "underscores_in_headers on; ignore_invalid_headers off;"
                   "tenant_strip_header X-Legacy-User X-Old-*;"}

FORGED = "forged"

VARIANTS = [
    "X-Tenant", "x-tenant", "X-TENANT", "X_Tenant", "x_tenant",
    "X-Tenant-Consumer", "x-tenant-consumer", "X_Tenant_Consumer", "X-Tenant_Consumer",
    "X_Tenant-Consumer", "X-TENANT_CONSUMER",
    "X-Tenant-Auth", "X_Tenant_Auth", "X-Tenant-Scopes", "X_TENANT_SCOPES",
    "X-Tenant-Id", "X-Tenant-Anything-At-All", "X-Tenantx",
    "X-Legacy-User", "x_legacy_user", "X-Old-", "X-Old-Subject", "X_Old_Subject",
]


@pytest.fixture(scope="module")
def issuer():
    return Issuer("ES256")


@pytest.fixture(scope="module")
def tenant(platform, gateway, issuer):
    return platform.onboard(issuers=[{"name": "main", **issuer.body()}],
                            keys=[{"consumer": "mobile", "scopes": ["a:read", "a:write"]}],
                            routes=[route("open", path="/open", auth="none"),
                                    route("optional", path="/optional", auth="optional"),
                                    route("closed", path="/", auth="required")])


def folded(reached):
    """Every header as a CGI-like upstream would see it: - and _ are the same."""
    return {}.__class__((key, [v for k, v in reached.pairs
                               if k.lower().replace("_", "-") == key])
                        for key in {k.lower().replace("_", "-") for k, _ in reached.pairs})


def test_what_the_upstream_gets(tenant, issuer):
    got = folded(tenant.reached("/x", key=tenant.key))
    assert got["x-tenant"] == [tenant.name]
    assert got["x-tenant-auth"] == ["api_key"]
    assert got["x-tenant-consumer"] == ["mobile"]
    assert got["x-tenant-scopes"] == ["a:read a:write"]

    got = folded(tenant.reached("/x", token=issuer.token("alice", scope="b c")))
    assert got["x-tenant-auth"] == ["jwt"]
    assert got["x-tenant-consumer"] == ["alice"]
    assert got["x-tenant-scopes"] == ["b c"]

    for target in ("/open", "/optional"):
        got = folded(tenant.reached(target))
        assert got["x-tenant"] == [tenant.name]
        assert got["x-tenant-auth"] == ["anonymous"]
        assert "x-tenant-consumer" not in got
        assert "x-tenant-scopes" not in got


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("target", ["/open", "/closed"])
def test_a_client_cannot_inject(tenant, name, target):
    key = tenant.key if target == "/closed" else None
    reached = tenant.reached(target, [(name, FORGED), ("X-Other", "stays")], key=key)
    assert FORGED not in str(reached.pairs)
    assert reached.headers.all("x-other") == ["stays"]
    assert folded(reached)["x-tenant"] == [tenant.name]


def test_a_client_cannot_inject_many_at_once(tenant):
    forged = [(name, FORGED) for name in VARIANTS] * 2
    headers = []
    for i, pair in enumerate(forged):       # spread over several list parts
        headers += [pair, (f"X-Filler-{i}", str(i))]
    reached = tenant.reached("/closed", headers, key=tenant.key)
    assert FORGED not in str(reached.pairs)
    for i in range(len(forged)):
        assert reached.headers.all(f"x-filler-{i}") == [str(i)]
    got = folded(reached)
    assert got["x-tenant"] == [tenant.name]
    assert got["x-tenant-consumer"] == ["mobile"]


def test_headers_that_only_look_alike_stay(tenant):
    headers = [("Tenant", "1"), ("X-Ten", "2"), ("XX-Tenant", "3"), ("X-Legacy-User2", "4"),
               ("X-Older", "5"), ("My-X-Tenant", "6")]
    reached = tenant.reached("/open", headers)
    for name, value in headers:
        assert reached.headers.all(name) == [value]


@pytest.mark.parametrize("raw", [
    b"X-Tenant : forged", b"X-Tenant\t: forged", b"X-Tenant:\tforged", b" X-Tenant: forged",
    b"X-Tenant\x00: forged", b"X.Tenant: forged", b"X-Other: a\nX-Tenant: forged",
    b"X-Other: a\rX-Tenant: forged", b"X-Other: a\r\n X-Tenant: forged", b"X-Tenant:forged",
    b"X-Tenant-\xc3\xa9: forged",
])
def test_odd_spellings_of_the_name(tenant, raw):
    """Served without the forged value, or refused."""
    data = (b"GET /open HTTP/1.1\r\nHost: " + tenant.host.encode() + b"\r\n" + raw +
            b"\r\nConnection: close\r\n\r\n")
    response = wire.exchange(tenant.gateway.address, data)[0]
    if response.status == 200:
        headers = response.json()["headers"]
        for name, value in headers:
            if name.lower().replace("_", "-").startswith("x-tenant"):
                assert FORGED not in value
        assert wire.Headers(headers).all("x-tenant") == [tenant.name]
    else:
        assert response.status == 400


@pytest.mark.parametrize("connection", [
    "X-Tenant", "close, X-Tenant", "x-tenant, x-tenant-consumer, x-tenant-auth, x-tenant-scopes",
    "keep-alive, X-Tenant-Consumer",
])
def test_connection_cannot_take_identity_away(tenant, connection):
    """A client that lists them as hop-by-hop (RFC 9110 section 7.6.1) must not make
    anybody drop them: neither the gateway nor, through it, the upstream."""
    reached = tenant.reached("/closed", [("Connection", connection)], key=tenant.key)
    got = folded(reached)
    assert got["x-tenant"] == [tenant.name]
    assert got["x-tenant-consumer"] == ["mobile"]
    assert "x-tenant" not in got.get("connection", [""])[0].lower()


def test_subject_cannot_break_out(tenant, issuer):
    """A consumer's name travels in a header: control characters and
    separators in the claim must never make a second header."""
    for sub in ["a\r\nX-Tenant-Scopes: admin", "a\nX-Evil: 1", "a\x00b", "", "x" * 257, "a\tb", "a\x7f",
                "a\x85b"]:
        response = tenant.get("/closed", token=issuer.token(sub))
        assert response.status == 401, (sub, response)
        assert response.problem == "invalid-credential"
    for sub in ["é", "a b", "a: b", "a, b", "\u2028", "x" * 256]:
        got = wire.Headers(tenant.reached("/closed", token=issuer.token(sub)).pairs)
        assert got.all("x-tenant-consumer") == [sub.encode().decode("latin-1")]
        assert got.all("x-tenant") == [tenant.name]


def test_scopes_cannot_break_out(tenant, issuer):
    for scope in ["a\r\nX-Evil: 1", "a\nb", "a\x00b", ["a\r\nb"], ["x", "y\nz"]]:
        response = tenant.get("/closed", token=issuer.token(scope=scope))
        if response.status == 200:
            headers = wire.Headers(response.json()["headers"])
            assert "x-evil" not in headers
            assert headers.all("x-tenant") == [tenant.name]
            value = headers.get("x-tenant-scopes", "")
            assert all(" " <= c < "\x7f" for c in value), value


def test_http2_cannot_inject(tenant):
    from support.http2 import get
    for name in ["x-tenant", "x_tenant", "x-tenant-consumer", "x_tenant_consumer"]:
        status, _, body = get(tenant.gateway.address2, tenant.host, "/open", [(name, FORGED)])
        assert status == 200
        assert FORGED.encode() not in body


def test_log_variables(tenant, issuer):
    mark = len(tenant.gateway.access_log())
    tenant.get("/closed/log-key", key=tenant.key)
    tenant.get("/closed/log-token", token=issuer.token("bob"))
    tenant.get("/open/log-nobody")
    from support.poll import until
    log = until(lambda: (text := tenant.gateway.access_log()[mark:]).count("\n") >= 3 and text,
                "three lines of access log")
    assert f"200 tenant={tenant.name} route=closed consumer=mobile auth=api_key refusal=-" in log
    assert f"200 tenant={tenant.name} route=closed consumer=bob auth=jwt refusal=-" in log
    assert f"200 tenant={tenant.name} route=open consumer=- auth=anonymous refusal=-" in log
