# SPDX-License-Identifier: BSD-2-Clause
"""Which route, which backend: precedence, methods, headers, rewrites, weights."""

import collections
import json
import math
import random

import pytest

from support import wire
from support.platform import Refused, route, upstream
from support.poll import until
from support.tokens import Issuer


def marked(name, **more):
    """A route that says its name: by the fixed path that reaches the backend."""
    return route(name, rewrite={"type": "replace_path", "value": f"/is/{name}"}, **more)


def which(tenant, target="/", headers=(), method="GET"):
    """Name of the route that served, or slug of the refusal."""
    response = tenant.request(method, target, headers, b"" if method in ("POST", "PUT") else None)
    if response.status == 200:
        return response.json()["target"].split("?")[0].removeprefix("/is/")
    return response.problem


ROUTES = [
    marked("root", path="/"),
    marked("a", path="/a"),
    marked("ab", path="/a/b"),
    marked("abc", path="/a/b/c"),
    marked("exact-a", path="/a", type="exact"),
    marked("exact-ab", path="/a/b", type="exact"),
    marked("regex-short", path="/a/.*", type="regex"),
    marked("regex-long", path="/a/b/[cd]/[0-9]+", type="regex"),
    marked("post-a", path="/a", match={"methods": ["POST", "PUT"]}),
    marked("v2", path="/a", match={"headers": [{"name": "X-Version", "type": "exact", "value": "2"}]}),
    marked("v2-beta", path="/a", match={"headers": [
        {"name": "X-Version", "type": "exact", "value": "2"},
        {"name": "X-Beta", "type": "regex", "value": "(yes|true|1)"}]}),
    marked("v2-post", path="/a", match={"methods": ["POST"], "headers": [
        {"name": "X-Version", "type": "exact", "value": "2"}]}),
    marked("host", path="/h", match={"hosts": ["two.precedence.example"]}),
    marked("nohost", path="/h"),
    marked("tie-a", path="/tie", match={"headers": [{"name": "X-A", "value": "1"}]}),
    marked("tie-b", path="/tie", match={"headers": [{"name": "X-B", "value": "1"}]}),
]

EXPECTED = [
    # (method, target, headers, route)
    ("GET", "/", (), "root"),
    ("GET", "/x", (), "root"),
    ("GET", "/ab", (), "root"),                     # by segments: /a does not cover it
    ("GET", "/a", (), "exact-a"),
    ("GET", "/a?x=1", (), "exact-a"),
    ("GET", "/a/", (), "regex-short"),
    ("GET", "/a/b", (), "exact-ab"),
    ("GET", "/a/b/c", (), "regex-short"),           # regex before prefix, however long
    ("GET", "/a/b/c/7", (), "regex-long"),          # the longer pattern first
    ("GET", "/a/b/d/42", (), "regex-long"),
    ("GET", "/a/b/d/42x", (), "regex-short"),       # anchored at both ends
    ("GET", "/h", (), "nohost"),
    ("GET", "/h", (("Host", "two.precedence.example"),), "host"),
    ("GET", "/h/deeper", (("Host", "TWO.precedence.example.:80"),), "host"),
    ("GET", "/tie", (("X-A", "1"),), "tie-a"),
    ("GET", "/tie", (("X-B", "1"),), "tie-b"),
    ("GET", "/tie", (("X-B", "1"), ("X-A", "1")), "tie-a"),    # names in byte order
    ("GET", "/tie", (), "root"),
]


@pytest.mark.parametrize("seed", range(3))
def test_order_of_insertion_never_matters(platform, onboard, seed):
    shuffled = ROUTES[:]
    random.Random(seed).shuffle(shuffled)
    tenant = onboard(hosts=[f"one{seed}.precedence.example", "two.precedence.example"],
                     routes=shuffled[:9])
    for each in shuffled[9:]:
        platform.rest.call("PUT", f"{tenant.path}/routes/{each['name']}",
                           {key: value for key, value in each.items() if key != "name"})
    platform.wait()
    tenant.host = f"one{seed}.precedence.example"
    for method, target, headers, name in EXPECTED:
        assert which(tenant, target, headers, method) == name, (method, target, headers)
    platform.change("DELETE", tenant.path)


def test_methods_and_headers_among_prefixes(onboard):
    tenant = onboard(routes=[r for r in ROUTES if r["name"] in
                             ("root", "a", "post-a", "v2", "v2-beta", "v2-post")])
    v2, beta = ("X-Version", "2"), ("X-Beta", "yes")
    for method, headers, name in [
            ("GET", (), "a"), ("HEAD", (), None), ("POST", (), "post-a"), ("PUT", (), "post-a"),
            ("DELETE", (), "a"), ("GET", (v2,), "v2"), ("GET", (v2, beta), "v2-beta"), ("GET", (beta,), "a"),
            ("POST", (v2,), "v2-post"),         # with methods before more headers
            ("POST", (v2, beta), "v2-post"), ("PUT", (v2, beta), "post-a"),
            ("GET", (("x-version", "2"),), "v2"), ("GET", (("X-Version", "20"),), "a"),
            ("GET", (("X-Version", "2 "),), "v2"), ("GET", (v2, ("X-Beta", "yesterday")), "v2"),
            ("GET", (v2, ("X-Beta", "YES")), "v2"), ("GET", (("X-Version", ""),), "a")]:
        if name:
            assert which(tenant, "/a/x", headers, method) == name, (method, headers)


def test_repeated_header_matches_as_the_upstream_sees_it(onboard):
    """"1" and "2" in two fields is the value "1, 2", neither of them alone: a client
    must not be able to choose by one and be understood by the other."""
    tenant = onboard(routes=[marked("root"), marked("two", path="/", match={"headers": [
        {"name": "X-V", "type": "exact", "value": "2"}]})])
    assert which(tenant, "/", [("X-V", "2")]) == "two"
    assert which(tenant, "/", [("X-V", "1"), ("X-V", "2")]) == "root"


def test_wrong_method(onboard):
    tenant = onboard(routes=[route("get", path="/r", match={"methods": ["GET"]}),
                             route("put", path="/r", match={"methods": ["PUT", "DELETE"]})])
    assert tenant.get("/r").status == 200
    response = tenant.request("POST", "/r", body=b"")
    assert (response.status, response.problem) == (405, "bad-method")
    assert set(response.headers["allow"].replace(" ", "").split(",")) >= {"GET", "PUT", "DELETE"}
    assert "POST" not in response.headers["allow"]
    assert (tenant.get("/elsewhere").status, tenant.get("/elsewhere").problem) == (404, "no-route")


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "FOO", "get", "MKCOL", "PURGE", "CONNECT"])
def test_odd_methods(onboard, platform, method):
    tenant = onboard(routes=[route("get", path="/r", match={"methods": ["GET"]}, auth="required"),
                             route("any", path="/any")])
    assert tenant.request(method, "/r").status in (400, 405)
    response = tenant.request(method, "/any")
    assert response.status in (200, 400, 405)
    if response.status == 200:
        assert response.json()["method"] == method


def test_head_is_not_get_unless_listed(onboard):
    tenant = onboard(routes=[route("get", path="/g", match={"methods": ["GET"]}),
                             route("both", path="/b", match={"methods": ["GET", "HEAD"]})])
    assert tenant.request("HEAD", "/b").status == 200
    assert tenant.request("HEAD", "/g").status == 405


@pytest.mark.parametrize("pattern, yes, no", [
    (r"/v[0-9]+/.*", ["/v1/", "/v22/x/y"], ["/v/", "/vx/", "/v1", "/x/v1/"]),
    (r"/(a|b)", ["/a", "/b"], ["/ab", "/a/", "/c"]),
    (r"/a|/b", ["/a", "/b"], ["/ax", "/xb", "/a/b"]),       # the anchors hold for each
    (r"/[^/]+\.json", ["/x.json", "/%20.json"], ["/x/y.json", "/xjson", "/.json"]),
    (r"/%", ["/%25"], ["/%2525"]),
    (r"/\x{e9}", [], ["/x"]),
    (r"(?i)/case", ["/case", "/CASE"], ["/cases"]),
    (r"/a$", ["/a"], ["/a%0a"]),
    (r"/.", ["/x"], ["/", "/xy", "/%0a"]),
    (r"^/anchored$", ["/anchored"], ["/anchored/"]),
])
def test_regex(onboard, pattern, yes, no):
    tenant = onboard(routes=[marked("regex", path=pattern, type="regex"), marked("root")])
    for target in yes:
        assert which(tenant, target) == "regex", target
    for target in no:
        assert which(tenant, target) == "root", target


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "(?P<x", "(?R)", "(?C1)", "\\K/x", "(*LIMIT_MATCH=1)x",
                                     "x" * 513])
def test_patterns_that_no_gateway_takes(platform, onboard, pattern):
    """Refused when they are written, or by the gateway and said so; the tenant
    goes on as it was."""
    tenant = onboard(routes=[marked("root")])
    try:
        platform.rest.call("PUT", f"{tenant.path}/routes/bad", route("bad", path=pattern, type="regex"))
    except Refused as refused:
        assert refused.response.status in (400, 422)
        assert "errors" in refused.response.json()
        return
    platform.wait()
    shown = platform.rest.call("GET", tenant.path)
    if "rejected" in shown:
        assert "routes" in str(shown["rejected"])
    assert which(tenant, "/") == "root"


def test_catastrophic_patterns_are_bounded(onboard):
    """A pattern that backtracks for ever ends by its limit, as a refusal, in time."""
    tenant = onboard(routes=[marked("evil", path="/(a+)+b", type="regex"), marked("root")])
    assert which(tenant, "/aaab") == "evil"
    assert which(tenant, "/" + "a" * 3000) in ("bad-request", "root")


def test_many_patterns_together_are_bounded(onboard):
    """Each within its limits, hundreds of them for one request: refused like one that is beyond them."""
    tenant = onboard(routes=[marked(f"r{i}", path="/" + "(a|a)" * 11 + f"[bc](?#{i})", type="regex") for i in range(500)])
    assert which(tenant, "/" + "a" * 11 + "b").startswith("r")
    assert which(tenant, "/" + "a" * 11 + "d") == "bad-request"
    assert which(tenant, "/x") == "no-route"
    worst = onboard(routes=[marked("r", path="/" + "(a|a)" * 40 + "[bc]", type="regex")])
    assert which(worst, "/" + "a" * 40 + "d") == "bad-request"      # else the worker would be at it for an hour
    assert tenant.gateway.request("GET", "/-/ready", {"Host": "x"}).status == 200


@pytest.mark.parametrize("rewrite, path, sent, got", [
    (None, "/api", "/api/x?q=1", "/api/x?q=1"),
    ({"type": "strip_prefix"}, "/api", "/api/x?q=1", "/x?q=1"),
    ({"type": "strip_prefix"}, "/api", "/api", "/"),
    ({"type": "strip_prefix"}, "/api", "/api/", "/"),
    ({"type": "strip_prefix"}, "/", "/api/x", "/api/x"),
    ({"type": "strip_prefix"}, "/api/", "/api/x", "/x"),
    ({"type": "replace_prefix", "value": "/v2"}, "/api", "/api/x", "/v2/x"),
    ({"type": "replace_prefix", "value": "/v2"}, "/api", "/api", "/v2"),
    ({"type": "replace_prefix", "value": "/v2/"}, "/api", "/api/x", "/v2/x"),
    ({"type": "replace_prefix", "value": "/v2"}, "/", "/x", "/v2/x"),
    ({"type": "replace_prefix", "value": "/"}, "/api", "/api/x", "/x"),
    ({"type": "replace_path", "value": "/fixed"}, "/api", "/api/x/y?q=1", "/fixed?q=1"),
])
def test_rewrites(onboard, rewrite, path, sent, got):
    extra = {"rewrite": rewrite} if rewrite else {}
    tenant = onboard(routes=[route("r", path=path, **extra)])
    assert tenant.reached(sent).target == got


def test_replace_path_of_an_exact_route(onboard):
    tenant = onboard(routes=[route("r", path="/old", type="exact",
                                   rewrite={"type": "replace_path", "value": "/new"})])
    assert tenant.reached("/old?a=b").target == "/new?a=b"


def test_host_header_upstream(onboard, platform):
    tenant = onboard(
        upstreams=[upstream(platform.backend.main, name="keeps"),
                   upstream(platform.backend.main, name="sets", host="orders.internal:8080")],
        routes=[route("keep", path="/keep", upstream="keeps"), route("set", path="/set", upstream="sets")])
    assert tenant.reached("/keep").headers["host"] == tenant.host
    assert tenant.reached("/set").headers["host"] == "orders.internal:8080"


def split(tenant, count, **more):
    """How many of count requests each port of the backend got."""
    ports = collections.Counter()
    with tenant.gateway.connect() as connection:
        for _ in range(count):
            response = connection.request("GET", "/", tenant.headers(**more))
            assert response.status == 200, response
            ports[response.json()["port"]] += 1
    return ports


def within(count, total, share, sigmas=5):
    """Inside the binomial distribution's bounds: wrong by chance once in 3.5 million."""
    deviation = math.sqrt(total * share * (1 - share))
    assert abs(count - total * share) <= sigmas * deviation + 1, (count, total, share)


def canary(platform, stable, fresh, weights=(95, 5), **more):
    return {"upstreams": [upstream(stable, name="stable"), upstream(fresh, name="canary")],
            "routes": [route(backends=[{"upstream": "stable", "weight": weights[0]},
                                       {"upstream": "canary", "weight": weights[1]}], **more)]}


@pytest.fixture(scope="module")
def fresh(backend):
    return backend.endpoint()


def test_canary(platform, onboard, fresh):
    tenant = onboard(**canary(platform, platform.backend.main, fresh))
    ports = split(tenant, 2000)
    within(ports[fresh.port], 2000, 0.05)

    platform.psql(f"""UPDATE tiergate.routes SET backends =
        '[{{"upstream": "stable", "weight": 1}}, {{"upstream": "canary", "weight": 1}}]'
        WHERE tenant = '{tenant.name}'""")
    within(split(tenant, 1000)[fresh.port], 1000, 0.5)


def test_weight_zero_gets_nothing(platform, onboard, fresh):
    tenant = onboard(**canary(platform, platform.backend.main, fresh, (1, 0)))
    assert set(split(tenant, 300)) == {platform.backend.main.port}


def test_sticky_by_consumer(platform, onboard, fresh):
    """Each consumer stays on one backend, the shares hold over many consumers, the choice is the
    same on every connection and gateway, and a canary that grows keeps those whom it has."""
    issuer = Issuer("EdDSA")
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}],
                     **canary(platform, platform.backend.main, fresh, auth="required", sticky="consumer"))

    def home(name):
        return tenant.get(token=issuer.token(name)).json()["port"]
    homes = {f"user{i}": home(f"user{i}") for i in range(300)}
    early = [name for name, port in homes.items() if port == fresh.port]
    within(len(early), 300, 0.05)
    assert early, "nobody is in the canary: the rest would show nothing"
    second = platform.gateway()
    try:
        for name in early + random.Random(1).sample(sorted(homes), 40):
            assert [home(name) for _ in range(3)] == [homes[name]] * 3
            response = second.request("GET", "/", tenant.headers(token=issuer.token(name)))
            assert response.json()["port"] == homes[name]
    finally:
        platform.retire(second)

    platform.psql(f"""SELECT tiergate.set_weights('{tenant.name}', 'all', '{{"stable": 70, "canary": 30}}')""")
    later = [name for name in homes if home(name) == fresh.port]
    within(len(later), 300, 0.3)
    assert set(early) < set(later)


def test_endpoints_by_weight(platform, onboard, fresh):
    tenant = onboard(upstreams=[{"name": "main", "endpoints": [
        {"address": "127.0.0.1", "port": platform.backend.main.port, "weight": 3},
        {"address": "127.0.0.1", "port": fresh.port, "weight": 1}]}])
    ports = split(tenant, 400)
    within(ports[fresh.port], 400, 0.25)


def test_an_endpoint_of_weight_zero_is_drained(platform, onboard, fresh):
    tenant = onboard(upstreams=[upstream(platform.backend.main, fresh)])
    assert len(split(tenant, 40)) == 2
    platform.change("PUT", f"{tenant.path}/upstreams/main/endpoints/{fresh.address}", {"weight": 0})
    assert set(split(tenant, 100)) == {platform.backend.main.port}
    platform.change("DELETE", f"{tenant.path}/upstreams/main/endpoints/{platform.backend.main.address}")
    response = tenant.get()
    assert (response.status, response.problem) == (503, "no-endpoint")


def test_no_endpoint(onboard):
    tenant = onboard(upstreams=[{"name": "main", "endpoints": []}])
    response = tenant.get()
    assert (response.status, response.problem) == (503, "no-endpoint")


def test_no_routes_at_all(onboard):
    tenant = onboard(routes=[])
    assert (tenant.get().status, tenant.get().problem) == (404, "no-route")


def test_a_thousand_routes(onboard):
    tenant = onboard(routes=[marked(f"r{i}", path=f"/service/{i}") for i in range(1000)])
    for i in random.Random(2).sample(range(1000), 60):
        assert which(tenant, f"/service/{i}/x") == f"r{i}"
    assert which(tenant, "/service/1000") == "no-route"


def test_switching_routes_under_requests(platform, onboard):
    """A route that is renamed, moved and replaced again and again: each request is
    served by one state or the other."""
    tenant = onboard(routes=[marked("one", path="/s")])
    import threading
    stop, seen, wrong = threading.Event(), set(), []

    def load():
        with tenant.gateway.connect() as connection:
            while not stop.is_set():
                response = connection.request("GET", "/s", tenant.headers())
                name = response.json()["target"] if response.status == 200 else response.text
                seen.add(name)
                if name not in ("/is/one", "/is/two"):
                    wrong.append(name)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for i in range(20):
            name = ("two", "one")[i % 2]
            platform.database.execute(
                "UPDATE tiergate.routes SET name = %s, rewrite_value = %s WHERE tenant = %s",
                [name, f"/is/{name}", tenant.name])
            if i < 2:
                until(lambda: f"/is/{name}" in seen, f"a request by {name}")
        platform.wait()
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert seen == {"/is/one", "/is/two"}


def test_json_documents_of_unknown_members_are_refused(platform, onboard):
    tenant = onboard()
    response = platform.rest.request("PUT", f"{tenant.path}/routes/x",
                                     json.dumps({**route("x"), "colour": "red"}).encode())
    assert response.status in (400, 422)
    assert response.json()["errors"][0]["pointer"] == "/colour"
