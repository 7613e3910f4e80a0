# SPDX-License-Identifier: BSD-2-Clause
"""Key sets that tenantd fetches: from whom it does, what it takes, and that one bad
issuer does not hold up the others."""

import http.server
import json
import threading

import pytest

from support import wire
from support.nginx import Metrics
from support.poll import until
from support.tokens import Key
from tenantd_fixture import daemon, make_daemon  # noqa: F401

CONFIG = """
[jwks]
allow_http = yes
allow_cidrs = 127.0.0.0/8
timeout = 3s
connect_timeout = 2s
max_size = 16k
poll_interval = 50ms
"""


class Issuer:
    """A server of key sets; answers maps paths to what is said there, or to a
    function that returns it."""

    def __init__(self):
        outer = self
        self.answers = {}
        self.asked = []
        self.release = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                answer = outer.answers.get(self.path, (404, b""))
                if answer == "hang":
                    outer.release.wait(20)
                    return
                status, body, *headers = answer() if callable(answer) else answer
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self, path):
        return sum(asked == path for asked, _ in self.asked)

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.close()


def allow_http(database):
    """The policy of the registry, which has to allow what the configuration does."""
    database.execute("UPDATE tiergate.settings SET value = 'true' WHERE name = 'jwks.allow_http'")


@pytest.fixture(scope="module")
def registry(daemon, database):
    allow_http(database)
    return database


def keyset(*keys):
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


def put(daemon, name, uri):
    return daemon.rest.call("PUT", f"/v1/issuers/{name}", {
        "issuer": f"https://{name}.example", "algorithms": ["RS256", "ES256"], "jwks_uri": uri})


def keys(daemon, name):
    return [key["kid"] for key in daemon.rest.call("GET", f"/v1/issuers/{name}").get("jwks", {}).get("keys", [])]


def state(database, name):
    rows = database.execute("SELECT s.failures, s.error FROM tiergate.jwks_state s JOIN tiergate.issuers i"
                            " ON i.id = s.issuer_id WHERE i.name = %s", [name])
    return rows[0] if rows else (0, None)


def fetched_at(database, name):
    return database.execute("SELECT s.fetched_at FROM tiergate.jwks_state s JOIN tiergate.issuers i"
                            " ON i.id = s.issuer_id WHERE i.name = %s", [name])[0][0]


def due(database, name):
    database.execute("UPDATE tiergate.jwks_state SET next_at = now() WHERE issuer_id ="
                     " (SELECT id FROM tiergate.issuers WHERE name = %s)", [name])


def test_fetched_and_refreshed(daemon, issuer, registry):
    first, second = Key("ES256", "k1"), Key("RS256", "k2")
    issuer.answers["/good"] = (200, keyset(first))
    put(daemon, "good", issuer.url("/good"))
    until(lambda: keys(daemon, "good") == ["k1"], "the first key")
    revision = registry.revision()

    # the same set again is no change
    before = fetched_at(registry, "good")
    due(registry, "good")
    until(lambda: fetched_at(registry, "good") > before, "another fetch")
    assert registry.revision() == revision

    issuer.answers["/good"] = (200, keyset(first, second))
    due(registry, "good")
    until(lambda: keys(daemon, "good") == ["k1", "k2"], "the second key")
    assert registry.revision() > revision
    headers = issuer.asked[0][1]
    assert headers["User-Agent"].startswith("tenantd/") and "Authorization" not in headers


def under_way(daemon):
    """How many fetches the daemon has begun and not yet stored."""
    text = wire.request(daemon.address, "GET", "/metrics", {"Host": "x"}).text
    return Metrics(text).get("tiergate_tenantd_jwks_pending")


def test_a_set_of_the_place_before(daemon, issuer, registry):
    """What was still under way when jwks_uri changed does not come back."""
    go_on = threading.Event()

    def late():
        go_on.wait(2)       # less than the timeout of the fetch
        return 200, keyset(Key("ES256", "distrusted"))

    issuer.answers["/before"] = late
    put(daemon, "moved", issuer.url("/before"))
    until(lambda: issuer.count("/before") == 1, "the fetch from the place before")
    issuer.answers["/after"] = (200, keyset(Key("ES256", "trusted")))
    put(daemon, "moved", issuer.url("/after"))
    until(lambda: keys(daemon, "moved") == ["trusted"], "the key of the new place")
    go_on.set()
    until(lambda: under_way(daemon) == 0, "the end of what was under way")
    assert keys(daemon, "moved") == ["trusted"]


BAD = {
    "status": ((500, b"{}"), "status 500"),
    "empty": ((200, b""), "empty"),
    "html": ((200, b"<html>"), "not JSON"),
    "array": ((200, b"[]"), "no array"),
    "private": ((200, json.dumps({"keys": [{**Key("RS256").jwk(), "d": "x"}]}).encode()), "not a public key"),
    "symmetric": ((200, json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}).encode()), "not a public key"),
    "too many": ((200, json.dumps({"keys": [{"kty": "RSA"}] * 33}).encode()), "more than 32"),
    "too large": ((200, b" " * 20000), "max_size"),
    "redirect": ((302, b"", ("Location", "http://169.254.169.254/latest")), "redirects"),
    "useless": ((200, json.dumps({"keys": [{"kty": "EC", "crv": "P-192"}]}).encode()), "no key"),
    "hang": ("hang", "imed out"),
}


@pytest.mark.parametrize("answer,said", BAD.values(), ids=BAD.keys())
def test_the_last_good_set_stays(daemon, issuer, registry, request, answer, said):
    name = request.node.callspec.id.replace(" ", "-")
    issuer.answers[f"/{name}"] = (200, keyset(Key("ES256", "good")))
    put(daemon, name, issuer.url(f"/{name}"))
    until(lambda: keys(daemon, name) == ["good"], "the key")
    issuer.answers[f"/{name}"] = answer
    due(registry, name)
    until(lambda: said in (state(registry, name)[1] or ""), lambda: state(registry, name))
    assert state(registry, name)[0] >= 1
    assert keys(daemon, name) == ["good"]
    # and it recovers
    issuer.answers[f"/{name}"] = (200, keyset(Key("ES256", "new")))
    due(registry, name)
    until(lambda: keys(daemon, name) == ["new"], "the new key")
    assert state(registry, name) == (0, None)


def test_a_redirect_is_not_followed(issuer):
    assert not [path for path, _ in issuer.asked if "latest" in path]


REFUSED = {
    "metadata": "http://169.254.169.254/latest/meta-data",
    "metadata-mapped": "http://[::ffff:169.254.169.254]/",
    "private": "http://10.255.255.1/keys",
    "loopback-6": "http://[::1]:1/keys",
    "unspecified": "http://0.0.0.0:1/keys",
    "decimal": "http://2852039166/keys",
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED.keys())
def test_addresses_that_are_not_public(daemon, registry, request, url):
    name = request.node.callspec.id
    put(daemon, name, url)
    until(lambda: "allow_cidrs" in (state(registry, name)[1] or ""), lambda: state(registry, name))


def test_names_are_checked_after_resolution(request, postgres, template):
    """localhost is what it resolves to, whatever it is called."""
    database = postgres.database(template)      # the other tenantd, which may, must not be the one that fetches
    allow_http(database)
    daemon = make_daemon(request, database, CONFIG.replace("allow_cidrs = 127.0.0.0/8", ""))
    try:
        put(daemon, "by-name", "http://localhost:1/keys")
        until(lambda: "loopback" in (state(database, "by-name")[1] or ""), lambda: state(database, "by-name"))
    finally:
        daemon.close()
        database.close()


def test_schemes(daemon, registry):
    for bad in ("ftp://x/", "file:///etc/passwd", "gopher://x/", "javascript:1", "https://a b/"):
        answer = daemon.rest.request("PUT", "/v1/issuers/scheme", {
            "issuer": "https://x", "algorithms": ["RS256"], "jwks_uri": bad})
        assert answer.status == 422, bad


def test_slow_issuers_do_not_hold_up_others(daemon, issuer, registry):
    for n in range(10):
        issuer.answers[f"/slow{n}"] = "hang"
        put(daemon, f"slow{n}", issuer.url(f"/slow{n}"))
    issuer.answers["/quick"] = (200, keyset(Key("ES256", "quick")))
    put(daemon, "quick", issuer.url("/quick"))
    until(lambda: keys(daemon, "quick") == ["quick"], "the quick issuer's key", 15)      # of 30
    assert daemon.rest.request("GET", "/v1/tenants").status == 200


def test_two_daemons_share_the_fetching(request, daemon, issuer, registry, database):
    second = make_daemon(request, database, CONFIG)
    try:
        for n in range(20):
            issuer.answers[f"/shared{n}"] = (200, keyset(Key("ES256", "k")))
            put(daemon, f"shared{n}", issuer.url(f"/shared{n}"))
        until(lambda: all(keys(daemon, f"shared{n}") == ["k"] for n in range(20)), "all keys")
        assert all(issuer.count(f"/shared{n}") == 1 for n in range(20))
    finally:
        second.close()


def test_a_tenants_own_issuer(daemon, issuer, registry):
    issuer.answers["/own"] = (200, keyset(Key("ES256", "own")))
    daemon.rest.call("POST", "/v1/tenants", {"name": "own", "issuers": [{
        "name": "main", "issuer": "https://own.example", "algorithms": ["ES256"], "jwks_uri": issuer.url("/own")}]})
    until(lambda: [k["kid"] for i in daemon.rest.call("GET", "/v1/tenants/own/document")["issuers"]
                   for k in i["keys"]] == ["own"], "the tenant's key")
