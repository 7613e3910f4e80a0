# SPDX-License-Identifier: BSD-2-Clause
"""The REST API: what it does, and what it says when it does not."""

import base64
import concurrent.futures
import datetime
import itertools
import json

import pytest

from support import wire
from support.tokens import Key
from tenantd_fixture import PROBLEM, admin, daemon, routes, token  # noqa: F401

NUMBERS = itertools.count(1)
UNTIL = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)).isoformat()


@pytest.fixture
def tenant(admin):
    name = f"t{next(NUMBERS)}"
    admin.call("POST", "/v1/tenants", {"name": name})
    return name


def full(name):
    return {
        "name": name, "display_name": "Full", "labels": {"team": "a"},
        "hosts": [f"{name}.example.com", f"*.{name}.example.com"],
        "issuers": [{"name": "main", "issuer": "https://id.example", "audiences": ["api"],
                     "algorithms": ["ES256"], "jwks": {"keys": [Key("ES256").jwk()]}}],
        "consumers": [{"name": "mobile"}],
        "keys": [{"consumer": "mobile", "scopes": ["read"]}],
        "upstreams": [{"name": "main", "endpoints": [{"address": "10.0.0.1", "port": 80}]}],
        "routes": [{"name": "all", "backends": [{"upstream": "main", "weight": 1}]}],
        "quotas": [{"name": "rate", "limit": 10, "window": "60s"}],
    }


# Life of a tenant

def test_create_read_change_delete(admin):
    made = admin.request("POST", "/v1/tenants", full("life"))
    assert made.status == 201
    assert made.headers["location"] == "/v1/tenants/life"
    document = made.json()
    assert made.headers["etag"] == f'"{document["revision"]}"'
    assert document["keys"][0]["key"].startswith("tgk_")

    read = admin.request("GET", "/v1/tenants/life")
    assert read.status == 200 and read.headers["etag"] == made.headers["etag"]
    assert read.headers["cache-control"] == "no-store"
    assert "key" not in json.dumps(read.json().get("keys", []))
    assert read.json()["hosts"] == ["*.life.example.com", "life.example.com"]

    patched = admin.request("PATCH", "/v1/tenants/life", {"display_name": None, "labels": {"x": "1"}},
                            {"Content-Type": "application/merge-patch+json"})
    assert patched.status == 200
    assert "display_name" not in patched.json()
    assert patched.json()["labels"] == {"team": "a", "x": "1"}
    assert patched.json()["revision"] > document["revision"]

    assert admin.call("POST", "/v1/tenants/life/suspend", {"reason": "unpaid"})["reason"] == "unpaid"
    assert admin.call("GET", "/v1/tenants/life/document")["state"] == "suspended"
    assert admin.call("POST", "/v1/tenants/life/resume")["state"] == "active"

    assert admin.request("DELETE", "/v1/tenants/life").status == 204
    assert admin.request("GET", "/v1/tenants/life").problem == "unknown-tenant"
    assert admin.request("DELETE", "/v1/tenants/life").status == 404


COLLECTIONS = [
    ("hosts", "b.example.org", None, None),
    ("issuers", "second", {"issuer": "https://two.example", "algorithms": ["RS256"],
                           "jwks": {"keys": [Key("RS256").jwk()]}},
     {"issuer": "https://two.example", "algorithms": ["PS256"], "jwks_uri": "https://two.example/keys"}),
    ("consumers", "web", {"labels": {"a": "b"}}, {"labels": {}}),
    ("upstreams", "other", {"endpoints": [{"address": "10.0.0.9", "port": 81}]}, {"endpoints": []}),
    ("routes", "deep", {"match": {"path": {"value": "/deep"}},
                        "backends": [{"upstream": "base", "weight": 1}]},
     {"match": {"path": {"value": "/deeper"}}, "backends": [{"upstream": "base", "weight": 2}]}),
    ("quotas", "more", {"limit": 5, "window": "day"}, {"limit": 6, "metric": "concurrency"}),
]


@pytest.mark.parametrize("names,name,first,second", COLLECTIONS, ids=[c[0] for c in COLLECTIONS])
def test_collection(admin, tenant, names, name, first, second):
    base = f"/v1/tenants/{tenant}"
    admin.call("PUT", f"{base}/upstreams/base", {})
    path = f"{base}/{names}/{name}"

    assert admin.request("GET", path).status == 404
    made = admin.request("PUT", path, first)
    assert made.status == 201, made
    assert admin.call("GET", path) == made.json()
    again = admin.request("PUT", path, second)
    assert again.status == 200, again
    assert admin.request("PUT", path, made.json() if names != "hosts" else None).status == 200
    assert name in [item.get("name", item.get("host")) for item in admin.call("GET", f"{base}/{names}")["items"]]
    assert admin.request("DELETE", path).status == 204
    assert admin.request("DELETE", path).status == 404


def test_endpoints(admin, tenant):
    base = f"/v1/tenants/{tenant}/upstreams/main"
    admin.call("PUT", base, {})
    assert admin.request("PUT", f"{base}/endpoints/10.0.0.1:80").status == 201
    assert admin.request("PUT", f"{base}/endpoints/[2001:4860::1]:8080", {"weight": 3}).status == 201
    assert admin.request("PUT", f"{base}/endpoints/10.0.0.1:80", {"weight": 0}).status == 200
    items = admin.call("GET", f"{base}/endpoints")["items"]
    assert [(e["address"], e["port"], e["weight"]) for e in items] == [
        ("10.0.0.1", 80, 0), ("2001:4860::1", 8080, 3)]
    assert admin.request("DELETE", f"{base}/endpoints/10.0.0.1:80").status == 204
    for bad in ("10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "localhost:80", "10.0.0.256:80"):
        assert admin.request("PUT", f"{base}/endpoints/{bad}").status == 422, bad


def test_keys_are_shown_once(admin, tenant, daemon):
    base = f"/v1/tenants/{tenant}/keys"
    made = admin.request("POST", base, {"consumer": "mobile"})
    assert made.status == 201
    key = made.json()["key"]
    assert len(key) == len("tgk_") + 43
    assert key not in json.dumps(admin.call("GET", base))
    assert key not in json.dumps(admin.call("GET", f"/v1/tenants/{tenant}/audit"))
    assert key not in json.dumps(admin.call("GET", f"/v1/tenants/{tenant}/document"))
    assert key not in daemon.log.text

    rotated = admin.request("POST", f"{base}/{made.json()['id']}/rotate", {"grace": 60})
    assert rotated.status == 201 and rotated.json()["key"] != key
    assert len(admin.call("GET", base)["items"]) == 2
    assert admin.request("DELETE", f"{base}/{rotated.json()['id']}").status == 204
    for number in ("0", "999999999", "x", "1x", "99999999999999999999"):
        assert admin.request("DELETE", f"{base}/{number}").status == 404, number


def test_boost(admin, tenant):
    path = f"/v1/tenants/{tenant}/boost"
    assert admin.call("PUT", path, {"factor": 2.5, "until": UNTIL})["boost"]["factor"] == 2.5
    assert admin.request("DELETE", path).status == 204
    for factor in (0, -1, 1001, "2", None):
        assert admin.request("PUT", path, {"factor": factor, "until": UNTIL}).status == 422


# Conditions

def test_if_match(admin, tenant):
    path = f"/v1/tenants/{tenant}"
    etag = admin.request("GET", path).headers["etag"]
    assert admin.request("PATCH", path, {"display_name": "a"}, {"If-Match": etag}).status == 200
    refused = admin.request("PATCH", path, {"display_name": "b"}, {"If-Match": etag})
    assert refused.status == 412 and refused.problem == "precondition-failed"
    assert admin.call("GET", path)["display_name"] == "a"
    assert admin.request("PATCH", path, {"display_name": "c"}, {"If-Match": "*"}).status == 200
    assert admin.request("DELETE", path, None, {"If-Match": etag}).status == 412
    assert admin.request("PUT", f"{path}/hosts/x.example.org", None, {"If-Match": etag}).status == 412
    assert admin.request("PATCH", path, {"display_name": "d"}, {"If-Match": "W/" + etag}).status == 412
    now = admin.request("GET", path).headers["etag"]
    assert admin.request("DELETE", path, None, {"If-Match": f'"1", {now}'}).status == 204


def test_if_none_match(admin, tenant):
    path = f"/v1/tenants/{tenant}"
    etag = admin.request("GET", path).headers["etag"]
    unchanged = admin.request("GET", path, None, {"If-None-Match": etag})
    assert unchanged.status == 304 and unchanged.body == b""
    assert admin.request("GET", path, None, {"If-None-Match": '"1"'}).status == 200


def test_idempotency_key(admin, tenant):
    base = f"/v1/tenants/{tenant}/keys"
    again = {"Idempotency-Key": f"once-{tenant}"}
    first = admin.request("POST", base, {"consumer": "a"}, again)
    assert first.status == 201 and first.json()["key"]
    second = admin.request("POST", base, {"consumer": "a"}, again)
    assert second.status == 201 and second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["key"] is None
    assert len(admin.call("GET", base)["items"]) == 1
    other = admin.request("POST", base, {"consumer": "b"}, again)
    assert other.status == 422 and other.problem == "idempotency-key-reused"
    assert admin.request("POST", base, {"consumer": "b"}, {"Idempotency-Key": "x" * 256}).status == 400

    # a refused call has not happened: its key can be used again
    refused = {"Idempotency-Key": f"refused-{tenant}"}
    assert admin.request("POST", base, {"consumer": ""}, refused).status == 422
    assert admin.request("POST", base, {"consumer": "c"}, refused).status == 201


def test_idempotency_under_concurrency(daemon, admin):
    def create(_):
        return wire.request(daemon.socket, "POST", "/v1/tenants", {
            "Host": "x", "Content-Type": "application/json", "Idempotency-Key": "race"},
            b'{"name": "race"}')
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    assert {a.status for a in answers} == {201}
    assert sum("idempotency-replayed" not in a.headers for a in answers) == 1


def test_pages(admin):
    names = sorted(f"page-{n:02}" for n in range(7))
    for name in names:
        admin.call("POST", "/v1/tenants", {"name": name, "labels": {"l": name}})
    seen, cursor = [], ""
    while True:
        page = admin.call("GET", f"/v1/tenants?limit=3{cursor}")
        assert len(page["items"]) <= 3
        seen += [item["name"] for item in page["items"]]
        if not page.get("next"):
            break
        cursor = "&cursor=" + page["next"]
    assert seen == sorted(seen) and set(names) <= set(seen) and len(seen) == len(set(seen))
    for bad in ("limit=0", "limit=1001", "limit=x", "limit=", "cursor=%21", "nothing=1", "limit=1&limit=2"):
        assert admin.request("GET", f"/v1/tenants?{bad}").status == 400, bad


# Requests and their ids

def test_request_id(admin, tenant, daemon):
    mine = admin.request("PATCH", f"/v1/tenants/{tenant}", {"display_name": "x"}, {"X-Request-Id": "abc-123"})
    assert mine.headers["x-request-id"] == "abc-123"
    audit = admin.call("GET", f"/v1/tenants/{tenant}/audit")["items"]
    assert audit[0]["request_id"] == "abc-123" and audit[0]["actor"] == "peer:root"
    for bad in ("a b", "x" * 65, "é", "<script>", ""):
        answer = admin.request("GET", "/v1/healthz", None, {"X-Request-Id": bad})
        assert answer.headers["x-request-id"] not in ("", bad)
    refused = admin.request("GET", "/v1/tenants/nobody", None, {"X-Request-Id": "why"})
    assert refused.json()["request_id"] == "why"


def test_head(admin, tenant):
    path = f"/v1/tenants/{tenant}"
    get, head = admin.request("GET", path), admin.request("HEAD", path)
    assert head.status == 200 and head.body == b""
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["etag"] == get.headers["etag"]
    assert admin.request("HEAD", "/v1/tenants/nobody").status == 404


def test_service_routes(daemon):
    anybody = daemon.as_(None)
    assert anybody.call("GET", "/v1/healthz") == {"status": "alive"}
    assert anybody.call("GET", "/v1/readyz")["status"] == "ready"
    assert anybody.request("GET", "/v1/openapi.yaml").body.startswith(b"# SPDX")
    metrics = anybody.request("GET", "/metrics").text
    assert 'tiergate_tenantd_requests_total{method="GET",route="/v1/healthz",status="200"}' in metrics
    assert "tiergate_tenantd_database_up 1" in metrics
    assert anybody.request("GET", "/v1/healthz", b"{}").problem == "unexpected-body"


# Refusals

def test_unknown_paths_and_methods(admin):
    for path in ("/", "/v1", "/v1/tenant", "/v2/tenants", "/v1/tenants/a/b/c/d/e", "/V1/tenants"):
        assert admin.request("GET", path).problem == "unknown-route", path
    for path in ("/v1/tenants/", "//v1/tenants", "/v1/../v1/tenants", "/v1/%2e%2e/x", "/v1/a%00b", "/v1/%ff"):
        assert admin.request("GET", path).problem == "malformed-request", path
    wrong = admin.request("PUT", "/v1/tenants", {})
    assert wrong.status == 405 and wrong.problem == "method-not-allowed"
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    assert admin.request("OPTIONS", "/v1/import").headers["allow"] == "POST"
    assert admin.request("TRACE", "/v1/tenants").status == 405


MALFORMED = [
    (b"", "missing-body", None), (b"{", "malformed-json", 1), (b'{"name": "a",}', "malformed-json", 1),
    (b'{\n "name": "a"\n "x": 1}', "malformed-json", 3), (b'{"name":"a","name":"b"}', "malformed-json", 1),
    (b'{"name": "a\x00"}', "malformed-json", 1), (b'{"name": "\\u0000"}', "malformed-json", 1),
    (b'{"name": "\xff"}', "malformed-json", 1), (b'{"name": "\\ud800"}', "malformed-json", 1),
    (b"null", "malformed-json", 1), (b"1", "malformed-json", 1), (b'"x"', "malformed-json", 1),
    (b"[" * 5000 + b"]" * 5000, "malformed-json", None), (b'{"a":' * 100 + b"1" + b"}" * 100, "malformed-json", None),
    (b'{"n": 1e999}', "malformed-json", 1), (b'{"n": 123456789012345678901234567890}', "malformed-json", 1),
    (b'{"n": NaN}', "malformed-json", 1), (b"\xef\xbb\xbf{}", "malformed-json", 1), (b"{} {}", "malformed-json", 1),
]


@pytest.mark.parametrize("body,problem,line", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_json(admin, body, problem, line):
    answer = admin.request("POST", "/v1/tenants", body, {"Content-Type": "application/json"})
    assert answer.status == 400 and answer.problem == problem
    if line:
        assert answer.json()["errors"][0]["line"] == line


REFUSED = [
    ([], None), ({}, "/name"), ({"name": 1}, "/name"), ({"name": "A"}, "/name"), ({"name": "a" * 64}, "/name"),
    ({"name": "-a"}, "/name"), ({"name": "a", "nope": 1}, "/nope"), ({"name": "a", "hosts": "x"}, "/hosts"),
    ({"name": "a", "hosts": ["a.example", "B.example"]}, "/hosts/1"),
    ({"name": "a", "hosts": ["a.example:80"]}, "/hosts/0"), ({"name": "a", "hosts": ["10.0.0.1"]}, "/hosts/0"),
    ({"name": "a", "hosts": ["a.*.example"]}, "/hosts/0"), ({"name": "a", "hosts": ["münchen.example"]}, "/hosts/0"),
    ({"name": "a", "hosts": ["a.example", "a.example"]}, "/hosts/1"), ({"name": "a", "tier": "gold"}, "/tier"),
    ({"name": "a", "state": "gone"}, "/state"), ({"name": "a", "labels": {"x": 1}}, "/labels/x"),
    ({"name": "a", "quotas": [{"name": "q", "limit": -1}]}, "/quotas/0/limit"),
    ({"name": "a", "quotas": [{"name": "q", "limit": 1.5}]}, "/quotas/0/limit"),
    ({"name": "a", "quotas": [{"name": "q", "limit": 9e18}]}, "/quotas/0/limit"),
    ({"name": "a", "quotas": [{"name": "q", "limit": 1, "window": "0s"}]}, "/quotas/0/window"),
    ({"name": "a", "quotas": [{"name": "q", "limit": 1, "window": "1 week"}]}, "/quotas/0/window"),
    ({"name": "a", "upstreams": [{"name": "u", "endpoints": [{"address": "x", "port": 1}]}]},
     "/upstreams/0/endpoints/0/address"),
    ({"name": "a", "upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.1", "port": 0}]}]},
     "/upstreams/0/endpoints/0/port"),
    ({"name": "a", "upstreams": [{"name": "u", "endpoints": [{"address": "10.0.0.0/8", "port": 1}]}]},
     "/upstreams/0/endpoints/0/address"),
    ({"name": "a", "issuers": [{"name": "i", "issuer": "x", "algorithms": ["none"]}]}, "/issuers/0/algorithms/0"),
    ({"name": "a", "keys": [{"consumer": "with blank"}]}, "/keys/0/consumer"),
]


@pytest.mark.parametrize("body,pointer", REFUSED, ids=range(len(REFUSED)))
def test_bad_bodies_name_the_field(admin, body, pointer):
    answer = admin.request("POST", "/v1/tenants", body)
    assert answer.status == 422, answer
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert answer.json()["detail"]
    assert admin.request("GET", "/v1/tenants/a").status == 404


def test_hosts_have_one_owner(admin, tenant):
    admin.call("PUT", f"/v1/tenants/{tenant}/hosts/{tenant}.example.net")
    taken = admin.request("POST", "/v1/tenants", {"name": f"{tenant}x", "hosts": [f"{tenant}.example.net"]})
    assert taken.status == 409, taken


def test_overlapping_routes(admin, tenant):
    """The same requests matched twice, by the match as it is meant, not as it is written."""
    def route(name, **match):
        return {"name": name, "match": {"path": {"value": "/same"}, **match}, "backends": [{"upstream": "main"}]}
    path = f"/v1/tenants/{tenant}/routes"
    admin.call("PUT", f"/v1/tenants/{tenant}/upstreams/main", {})
    assert admin.request("PUT", f"{path}/one", route("one", methods=["GET", "POST"])).status == 201
    for name, match in (("two", {"methods": ["POST", "GET"]}), ("three", {"methods": ["POST", "GET", "GET"]})):
        answer = admin.request("PUT", f"{path}/{name}", route(name, **match))
        assert answer.status in (409, 422), answer
        assert answer.json()["errors"][0]["pointer"].startswith("/match")
    answer = admin.request("PUT", f"{path}/two", route("two", methods=["POST", "GET"]))
    assert (answer.status, answer.problem) == (409, "overlapping-route")
    assert admin.request("PUT", f"{path}/one", route("one", methods=["GET"])).status == 200      # not with itself
    answer = admin.request("POST", "/v1/tenants", {
        "name": "overlap", "upstreams": [{"name": "main"}], "routes": [route("one"), route("two")]})
    assert (answer.status, answer.problem) == (409, "overlapping-route")
    assert answer.json()["errors"][0]["pointer"] == "/routes/1/match"
    assert admin.request("GET", "/v1/tenants/overlap").status == 404


@pytest.mark.parametrize("body, pointer", [
    ({"addresses": ["10.0.0.300"]}, "/addresses/0"), ({"addresses": ["10.0.0.0/8"]}, "/addresses/0"),
    ({"workload_nets": ["10.0.0.0/33"]}, "/workload_nets/0"), ({"workload_nets": ["10.0.0.1/8"]}, "/workload_nets/0"),
    ({"workload_nets": ["10.0.0.0/8", "nonsense"]}, "/workload_nets/1"), ({"workload_nets": [10]}, "/workload_nets/0")])
def test_bad_networks(admin, body, pointer):
    answer = admin.request("PUT", "/v1/mesh/nodes/nets", {"addresses": ["10.9.9.9"], **body})
    assert answer.status == 422, answer
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert admin.request("GET", "/v1/mesh/nodes/nets").status == 404


def test_content_types(admin):
    for bad in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "json",
                "application/jsonl", "application/merge-patch+json"):
        answer = admin.request("POST", "/v1/tenants", b'{"name": "x"}', {"Content-Type": bad})
        assert answer.status == 415 and answer.problem == "unsupported-media-type", bad
    good = {"Content-Type": "application/json; charset=utf-8"}
    assert admin.request("POST", "/v1/tenants", b'{"name": "x"}', good).status == 201


def test_unexpected_bodies(admin, tenant):
    for method, path in (("GET", "/v1/tenants"), ("DELETE", f"/v1/tenants/{tenant}"), ("GET", "/v1/watch?for=g")):
        assert admin.request(method, path, b"{}").problem == "unexpected-body"


def test_large_bodies(admin):
    big = json.dumps({"name": "big", "labels": {"x": "y" * (5 << 20)}}).encode()
    answer = wire.request(admin.address, "POST", "/v1/tenants", {
        "Host": "x", "Content-Type": "application/json"}, big)
    assert answer.status == 413 and answer.problem == "body-too-large"


@pytest.mark.parametrize("match, pointer", [
    ({"path": {"type": "regex", "value": "/("}}, "/match/path/value"),
    ({"path": {"value": "/x"}, "headers": [{"name": "A", "type": "exact", "value": "("},
                                           {"name": "A", "type": "regex", "value": "[z-a]"}]}, "/match/headers/1/value")])
def test_patterns_are_tried(admin, tenant, match, pointer):
    route = {"name": "odd", "match": match, "backends": [{"upstream": "main"}]}
    answer = admin.request("PUT", f"/v1/tenants/{tenant}/routes/odd", route)
    assert answer.status == 422 and answer.problem == "invalid-pattern"
    assert answer.json()["errors"][0]["pointer"] == pointer and "byte" in answer.json()["detail"]
    answer = admin.request("POST", "/v1/tenants", {"name": "odd", "routes": [route]})
    assert answer.status == 422 and answer.json()["errors"][0]["pointer"] == f"/routes/0{pointer}"
    answer = wire.request(admin.address, "POST", "/v1/import", {"Host": "x", "Content-Type": "application/jsonl"},
                          json.dumps({"name": "odd", "routes": [route]}).encode())
    assert json.loads(answer.body)["problem"]["type"] == "urn:tiergate:problem:invalid-pattern"


# Secrets

def test_hmac_secrets_are_sealed(admin, tenant, daemon, database):
    secret = base64.urlsafe_b64encode(b"sesame " * 6).rstrip(b"=").decode()
    made = admin.request("PUT", f"/v1/tenants/{tenant}/issuers/hs", {
        "issuer": "https://hs.example", "algorithms": ["HS256"],
        "jwks": {"keys": [{"kty": "oct", "kid": "s", "k": secret}]}})
    assert made.status == 201, made
    key = made.json()["jwks"]["keys"][0]
    assert "k" not in key and key["k_sealed"].startswith("tg1.")
    everything = "".join(database.psql(f"SELECT t::text FROM tiergate.{t} t")[1]
                         for t in ("issuers", "audit", "idempotency_keys"))
    assert secret not in everything and secret not in daemon.log.text
    again = admin.request("PUT", f"/v1/tenants/{tenant}/issuers/hs", made.json())
    assert again.status == 200, again

    sealed_elsewhere = {**key, "k_sealed": key["k_sealed"][:-4] + "AAAA"}
    answer = admin.request("PUT", f"/v1/tenants/{tenant}/issuers/hs", {
        "issuer": "x", "algorithms": ["HS256"], "jwks": {"keys": [sealed_elsewhere]}})
    assert answer.status == 422 and answer.problem == "invalid-key"
    weak = admin.request("PUT", f"/v1/tenants/{tenant}/issuers/hs", {
        "issuer": "x", "algorithms": ["HS256"], "jwks": {"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}})
    assert weak.status == 422 and weak.json()["errors"][0]["pointer"] == "/jwks/keys/0/k"


def test_pem_keys(admin, tenant):
    key = Key("RS256")
    path = f"/v1/tenants/{tenant}/issuers/pem"
    made = admin.request("PUT", path, {
        "issuer": "https://pem.example", "algorithms": ["RS256"],
        "jwks": {"keys": [{"kid": "p", "pem": key.pem().decode()}]}})
    assert made.status == 201, made
    assert made.json()["jwks"]["keys"][0]["n"] == key.jwk()["n"]
    for bad in ("", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"):
        answer = admin.request("PUT", path, {"issuer": "x", "algorithms": ["RS256"], "jwks": {"keys": [{"pem": bad}]}})
        assert answer.status == 422 and answer.json()["errors"][0]["pointer"] == "/jwks/keys/0/pem"


@pytest.mark.parametrize("where", ["create", "put", "import"])
def test_private_keys_are_refused(admin, tenant, where, daemon):
    jwk = {**Key("RS256").jwk(), "d": "SECRET-EXPONENT"}
    issuer = {"name": "i", "issuer": "x", "algorithms": ["RS256"], "jwks": {"keys": [jwk]}}
    if where == "put":
        answer = admin.request("PUT", f"/v1/tenants/{tenant}/issuers/i", issuer)
    elif where == "create":
        answer = admin.request("POST", "/v1/tenants", {"name": "priv", "issuers": [issuer]})
    else:
        answer = admin.request("POST", "/v1/import", json.dumps({"name": "priv", "issuers": [issuer]}).encode(),
                               {"Content-Type": "application/jsonl"})
        assert answer.status == 200
        assert answer.json()["problem"]["type"].endswith(":private-key")
        return
    assert answer.status == 422 and answer.problem == "private-key"
    assert answer.json()["errors"][0]["pointer"].endswith("/jwks/keys/0")
    assert "SECRET-EXPONENT" not in daemon.log.text + answer.text


# Many new tenants at once

def post_all(daemon, bodies, headers=None):
    """All calls at the same time, each on a connection of its own."""
    def post(n):
        more = headers(n) if headers else {}
        return wire.request(daemon.socket, "POST", "/v1/tenants", {
            "Host": "x", "Content-Type": "application/json", "X-Request-Id": f"call-{n}", **more},
            json.dumps(bodies[n]).encode())
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(post, range(len(bodies))))


def test_new_tenants_share_a_transaction(admin, daemon, database):
    """Each call has its own answer and audit, although they were written together."""
    for attempt in itertools.count():
        bodies = [full(f"share-{attempt}-{n}") for n in range(24)]
        answers = post_all(daemon, bodies)
        assert {a.status for a in answers} == {201}
        if len({a.headers["etag"] for a in answers}) < len(answers):
            break
        assert attempt < 20, "no two calls ever shared a revision"
    for n, (body, answer) in enumerate(zip(bodies, answers)):
        name = body["name"]
        assert answer.headers["location"] == f"/v1/tenants/{name}"
        shown = answer.json()
        assert shown.pop("keys")[0]["key"].startswith("tgk_")
        got = admin.request("GET", f"/v1/tenants/{name}")
        assert got.json() == shown and got.headers["etag"] == answer.headers["etag"]
        assert {(a["request_id"], a["actor"]) for a in admin.call("GET", f"/v1/tenants/{name}/audit")["items"]} \
            == {(f"call-{n}", "peer:root")}


def test_a_refused_call_fails_no_other(admin, daemon):
    bad = {3: {"name": "Bad"}, 7: {"name": "mixed-1"}, 11: {"name": "mixed-11", "nope": 1},
           15: {**full("mixed-15"), "hosts": ["mixed-1.example.com"]}, 19: ["nonsense"]}
    bodies = [bad.get(n, full(f"mixed-{n}")) for n in range(24)]
    admin.call("POST", "/v1/tenants", full("mixed-1"))
    bodies[1] = full("mixed-other")
    answers = post_all(daemon, bodies)
    assert {n: a.status for n, a in enumerate(answers) if a.status != 201} == {3: 422, 7: 409, 11: 422, 15: 409, 19: 422}
    assert answers[11].json()["errors"][0]["pointer"] == "/nope"
    assert answers[15].json()["errors"][0]["pointer"] == "/hosts/0" and answers[15].problem == "host-taken"
    assert answers[7].json()["request_id"] == "call-7"
    assert len(admin.call("GET", "/v1/tenants?limit=1000")["items"]) >= 20
    assert admin.request("GET", "/v1/tenants/mixed-15").status == 404


def test_one_name_in_many_calls(admin, daemon):
    answers = post_all(daemon, [{"name": "wanted"}] * 16)
    assert sorted(a.status for a in answers) == [201] + [409] * 15
    assert {a.problem for a in answers if a.status == 409} == {"tenant-exists"}


def test_new_tenants_with_idempotency_keys(admin, daemon):
    bodies = [{"name": f"idem-{n // 2}", "keys": [{"consumer": "web"}]} for n in range(24)]
    answers = post_all(daemon, bodies, lambda n: {"Idempotency-Key": f"idem-{n // 2}"})
    assert {a.status for a in answers} == {201}
    for one, two in zip(answers[::2], answers[1::2]):
        assert sum("idempotency-replayed" in a.headers for a in (one, two)) == 1
        assert one.headers["location"] == two.headers["location"] and one.json()["id"] == two.json()["id"]
        assert sorted(a.json()["keys"][0]["key"] is None for a in (one, two)) == [False, True]
    other = post_all(daemon, [full("idem-0x")], lambda n: {"Idempotency-Key": "idem-0"})[0]
    assert other.status == 422 and other.problem == "idempotency-key-reused"


def test_new_tenants_are_audited_as_who_made_them(admin, daemon):
    tokens = [token(admin, f"portal-{n}", "admin") for n in range(3)] + ["tgt_" + "x" * 43]
    answers = post_all(daemon, [{"name": f"portal-{n}"} for n in range(24)],
                       lambda n: {"Authorization": f"Bearer {tokens[n % 4]}"})
    assert [a.status for a in answers] == [201, 201, 201, 401] * 6
    for n in range(24):
        if n % 4 < 3:
            items = admin.call("GET", f"/v1/tenants/portal-{n}/audit")["items"]
            assert {a["actor"] for a in items} == {f"token:portal-{n % 4}"}


def test_a_call_that_waits_delays_no_other(admin, daemon, database):
    """Another transaction has a name that one of the calls wants."""
    with database.connect() as connection:
        connection.execute("INSERT INTO tiergate.tenants (name) VALUES ('held-5')")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            def others():
                return [a for a in post_all(daemon, [{"name": f"held-{n}"} for n in range(5)])]
            held = pool.submit(post_all, daemon, [{"name": "held-5"}])
            assert {a.status for a in others()} == {201}
            assert not held.done()
            connection.rollback()
            assert held.result()[0].status == 201


# Import

def lines(*bodies):
    return b"\n".join(b if isinstance(b, bytes) else json.dumps(b).encode() for b in bodies)


def import_(admin, body, **headers):
    return admin.request("POST", "/v1/import", body, {"Content-Type": "application/jsonl", **headers})


def answers(response):
    assert response.status == 200 and response.headers["content-type"] == "application/jsonl", response
    return [json.loads(line) for line in response.text.splitlines()]


def test_import(admin):
    got = answers(import_(admin, lines(
        full("imp1"), b"", b"{", {"name": "Bad"}, b"  ", {"name": "imp2", "nope": 1}, {"name": "imp1"}, {"name": "imp3"},
        b'{"name": "imp4"}\r')))
    assert [a["line"] for a in got] == [1, 3, 4, 6, 7, 8, 9]
    assert [a["status"] for a in got] == [201, 400, 422, 422, 409, 201, 201]
    assert got[0]["result"]["name"] == "imp1" and got[0]["result"]["keys"][0]["key"].startswith("tgk_")
    assert got[1]["problem"]["errors"][0]["line"] == 1
    assert got[3]["problem"]["errors"][0]["pointer"] == "/nope"
    assert admin.call("GET", "/v1/tenants/imp3")["name"] == "imp3"
    assert admin.request("GET", "/v1/tenants/imp2").status == 404


def test_import_of_many_chunks(admin):
    bodies = [{"name": f"many-{n}"} for n in range(1700)]
    bodies[777] = {"name": "many-1"}
    bodies[1234] = b"nonsense"
    got = answers(import_(admin, lines(*bodies)))
    assert [a["line"] for a in got] == list(range(1, 1701))
    assert [a["line"] for a in got if a["status"] != 201] == [778, 1235]


def test_import_of_lines_that_are_too_large(admin):
    """Each line is bounded as a request's body is."""
    large = {"name": "large", "display_name": "x" * (5 * 1024 * 1024)}
    got = answers(import_(admin, lines({"name": "beside-1"}, large, {"name": "beside-2"}, b"[" * 1000000)))
    assert [a["status"] for a in got] == [201, 413, 201, 400]
    assert got[1]["problem"]["type"] == "urn:tiergate:problem:body-too-large"


def test_import_of_hardly_anything(admin):
    """Millions of blank lines are passed over, in turns; lines keep their numbers."""
    got = answers(import_(admin, b"\n" * 2_000_000 + lines({"name": "sparse-1"}) + b"\n \n" * 20_000 + lines({"name": "sparse-2"})))
    assert [(a["line"], a["status"]) for a in got] == [(2_000_001, 201), (2_040_001, 201)]


def test_import_refusals(admin, daemon):
    assert import_(admin, b"").problem == "missing-body"
    assert admin.request("POST", "/v1/import", b"{}", {"Content-Type": "application/json"}).status == 415
    for scope in ("reader", "tenant"):
        more = {"tenant": "imp1"} if scope == "tenant" else {}
        answer = import_(daemon.as_(token(admin, f"imp-{scope}", scope, **more)), lines({"name": "never"}))
        assert answer.status == 403, answer
    assert import_(daemon.as_(None), lines({"name": "never"})).status == 401
    assert admin.request("GET", "/v1/tenants/never").status == 404
    assert answers(import_(admin, b"\n \n\n")) == []


# Scopes

def concrete(pattern, values):
    for name, value in values.items():
        pattern = pattern.replace("{" + name + "}", value)
    return pattern


def test_every_route_with_every_token(admin, daemon):
    """Who gets past the door of each route, by the route table itself."""
    for name in ("mine", "yours"):
        admin.call("POST", "/v1/tenants", {"name": name})
    gone = admin.call("POST", "/v1/tokens", {"name": "revoked", "scope": "admin"})
    admin.request("DELETE", f"/v1/tokens/{gone['id']}")
    tokens = {
        "nobody": None, "garbage": "tgt_" + "A" * 43, "revoked": gone["token"],
        "expired": token(admin, "expired", "admin", expires_at="2001-01-01T00:00:00Z"),
        "admin": token(admin, "all", "admin"), "reader": token(admin, "see", "reader"),
        "mine": token(admin, "mine", "tenant", tenant="mine"),
        "yours": token(admin, "yours", "tenant", tenant="yours"),
        "gw": token(admin, "gw", "gateway", gateway="mine"),
        "other": token(admin, "gw2", "gateway", gateway="yours"),
    }
    passes = {"admin": {"admin"}, "reader": {"admin", "reader"}, "tenant": {"admin"}, "gateway": {"admin"}}
    # nothing that is named here exists below the tenant, so nothing changes
    values = {"tenant": "mine", "gateway": "mine", "host": "none.example", "issuer": "none", "consumer": "none",
              "route": "none", "upstream": "none", "quota": "none", "endpoint": "10.0.0.1:1", "plugin": "none",
              "tier": "none", "id": "999999", "service": "none", "workload": "none", "policy": "none",
              "node": "none"}

    for who, secret in tokens.items():
        rest = daemon.as_(secret)
        for method, pattern, scope, _, body in routes():
            if scope == "-" or (method, pattern) == ("GET", "/v1/watch"):
                continue
            allowed = set(passes[scope])
            if scope in ("tenant", "reader") and "{tenant}" in pattern:
                allowed.add("mine")
            if scope == "gateway":
                allowed.add("gw")
            if who in allowed and method == "DELETE" and pattern in ("/v1/tenants/{tenant}", "/v1/gateways/{gateway}"):
                continue
            sent = b"{\"bad\": 1}" if body != "-" else None
            kind = {"Content-Type": "application/jsonl" if pattern == "/v1/import" else "application/json"}
            answer = rest.request(method, concrete(pattern, values), sent, kind)
            what = f"{who}: {method} {pattern}: {answer}"
            if who in ("nobody", "garbage", "revoked", "expired"):
                assert answer.status == 401, what
                assert answer.headers["www-authenticate"].startswith("Bearer"), what
            elif who in allowed:
                assert answer.status not in (401, 403, 500), what
            else:
                assert answer.status == 403 and answer.problem == "forbidden", what
            if answer.status >= 400:
                assert answer.headers["content-type"] == PROBLEM, what
        rest.close()


def test_malformed_credentials(daemon):
    for bad in ("Basic YTpi", "Bearer", "Bearer ", "Bearer a b", "Bearer é", "Bearer " + "x" * 513, "bearer=tgt_x",
                "Bearer tgt_x, Bearer tgt_y", "Token x"):
        answer = wire.request(daemon.address, "GET", "/v1/tenants", [("Host", "x"), ("Authorization", bad)])
        assert answer.status == 401 and answer.problem == "unauthenticated", bad
    both = [("Host", "x"), ("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    assert wire.request(daemon.address, "GET", "/v1/tenants", both).status == 400


def test_tenants_name_no_upstream_on_loopback(admin, daemon):
    """It would be a service of the gateway's machine: its metrics, tenantd itself."""
    admin.call("POST", "/v1/tenants", {"name": "inside", "upstreams": [{"name": "web", "endpoints": [
        {"address": "127.0.0.1", "port": 80}]}]})           # the platform may
    rest = daemon.as_(token(admin, "inside", "tenant", tenant="inside"))
    path = "/v1/tenants/inside/upstreams"
    for address in ("127.0.0.1", "127.255.0.9", "::1"):
        written = f"[{address}]" if ":" in address else address
        answer = rest.request("PUT", f"{path}/web/endpoints/{written}:8081", {})
        assert (answer.status, answer.problem) == (403, "address-forbidden"), answer
        answer = rest.request("PUT", f"{path}/other", {"endpoints": [
            {"address": "10.0.0.1", "port": 80}, {"address": address, "port": 8081}]})
        assert (answer.status, answer.problem) == (403, "address-forbidden"), answer
        assert answer.json()["errors"][0]["pointer"].endswith("/address"), answer
    assert rest.request("GET", f"{path}/other").status == 404
    assert [e["port"] for e in admin.call("GET", f"{path}/web/endpoints")["items"]] == [80]
    assert rest.request("PUT", f"{path}/web/endpoints/10.0.0.1:8081", {}).status == 201
    rest.close()


def test_tenants_may_not_change_what_the_platform_decides(admin, daemon):
    admin.call("POST", "/v1/tenants", {"name": "bound"})
    rest = daemon.as_(token(admin, "bound", "tenant", tenant="bound"))
    for patch in ({"tier": "dedicated"}, {"state": "active"}, {"reason": "x"}):
        assert rest.request("PATCH", "/v1/tenants/bound", patch).status == 403, patch
    assert rest.request("PATCH", "/v1/tenants/bound", {"display_name": "ok"}).status == 200
    assert rest.request("PUT", "/v1/tenants/bound/quotas/q", {"limit": 1, "window": "1s"}).status == 403
    assert rest.request("PUT", "/v1/tenants/bound/boost", {"factor": 9, "until": UNTIL}).status == 403
    rest.close()
