# SPDX-License-Identifier: BSD-2-Clause
"""API keys: in a header or the query, shown once, rotated, revoked, expired."""

import datetime
import hashlib
import itertools
import secrets
import time

import pytest

from support import wire
from support.platform import quota, route
from support.poll import until

GATEWAY = {"location": "tenant host; tenant_auth on; tenant_quota on; tenant_api_key_query api_key;"}

SOURCES = itertools.cycle(f"127.{a}.{b}.7" for a in range(20, 90) for b in range(1, 250))


def ask(tenant, key=None, target="/", headers=()):
    pairs = list(headers)
    if key is not None:
        pairs.append(("X-API-Key", key))
    return tenant.get(target, pairs, source=next(SOURCES))


def consumer(response):
    assert response.status == 200, response
    return wire.Headers(response.json()["headers"]).get("x-tenant-consumer")


@pytest.fixture(scope="module")
def tenant(platform, gateway):
    return platform.onboard(
        routes=[route("closed", auth="required"),
                route("show", path="/show", auth={"mode": "required", "hide_credentials": False}),
                route("optional", path="/optional", auth="optional"),
                route("read", path="/read", auth={"mode": "required", "scopes": ["read"]})],
        keys=[{"consumer": "mobile"}, {"consumer": "web", "scopes": ["read", "write"]},
              {"consumer": "mobile", "scopes": ["write"]}])


def test_keys_name_their_consumer(tenant):
    names = ["mobile", "web", "mobile"]
    for key, name in zip(tenant.keys, names):
        assert key.startswith("tgk_") and len(key) == 47
        assert consumer(ask(tenant, key)) == name
    assert len(set(tenant.keys)) == 3


def test_scopes(tenant):
    assert ask(tenant, tenant.keys[1], "/read").status == 200
    for key in (tenant.keys[0], tenant.keys[2]):
        response = ask(tenant, key, "/read")
        assert (response.status, response.problem) == (403, "forbidden"), response


@pytest.mark.parametrize("change", [
    lambda key: key[:-1], lambda key: key + "A", lambda key: key.upper(), lambda key: key.lower(),
    lambda key: key[4:], lambda key: "tgt_" + key[4:], lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
    lambda key: key + "\x00", lambda key: "\x00" + key, lambda key: key + " x", lambda key: f'"{key}"',
    lambda key: key + "," + key, lambda key: "", lambda key: "tgk_", lambda key: "x" * 7000,
    lambda key: hashlib.sha256(key.encode()).hexdigest(), lambda key: key.replace("_", "-", 1),
    lambda key: "tgk_" + secrets.token_urlsafe(32), lambda key: "*", lambda key: "' OR '1'='1",
])
def test_other_keys_are_refused(tenant, change):
    response = ask(tenant, change(tenant.key))
    assert response.status in (400, 401), response
    if response.status == 401:
        assert response.problem in ("invalid-credential", "no-credential")
        assert "www-authenticate" in response.headers


def test_surrounding_blanks_are_no_part_of_a_header(tenant):
    """RFC 9110 section 5.5."""
    assert consumer(ask(tenant, f"  {tenant.key}\t ")) == "mobile"


def test_header_name_case(tenant):
    assert consumer(ask(tenant, headers=[("x-api-KEY", tenant.key)])) == "mobile"


def test_key_in_the_query(tenant):
    """Taken, and hidden from the upstream together with its parameter."""
    for target, left in [("/?api_key=@", "/"), ("/?a=1&api_key=@&b=2", "/?a=1&b=2"),
                         ("/?api_key=@&b=2", "/?b=2"), ("/?a=1&api_key=@", "/?a=1")]:
        response = ask(tenant, target=target.replace("@", tenant.key))
        assert consumer(response) == "mobile"
        assert response.json()["target"] in (left, left + "?"), target
    response = ask(tenant, target=f"/show?a=1&api_key={tenant.key}")
    assert response.json()["target"] == f"/show?a=1&api_key={tenant.key}"
    for target in ["/?api_key=", "/?api_key", "/?API_KEY=@", "/?xapi_key=@", "/?api_keyx=@",
                   "/?a=api_key=@", "/#api_key=@"]:
        response = ask(tenant, target=target.replace("@", tenant.key))
        assert response.status == 401, (target, response)


def test_key_in_the_query_is_not_logged(tenant):
    """The access log of this gateway writes the request line; nginx's log is the
    operator's, but our own lines in the error log never show a key."""
    ask(tenant, target=f"/?api_key={tenant.key}x")
    assert tenant.key not in tenant.gateway.log.text.replace('request: "', "\n").split("\n")[0]


def test_two_keys_at_once(tenant):
    one, two = tenant.keys[:2]
    for headers, target in [([("X-API-Key", one), ("X-API-Key", two)], "/"),
                            ([("X-API-Key", one), ("X-API-Key", one)], "/"),
                            ([("X-API-Key", one)], f"/?api_key={two}"),
                            ([], f"/?api_key={one}&api_key={two}")]:
        response = ask(tenant, headers=headers, target=target)
        assert (response.status, response.problem) == (400, "two-credentials"), (headers, target, response)


def test_hidden_unless_asked(tenant):
    hidden = ask(tenant, tenant.key)
    assert tenant.key not in hidden.text
    assert tenant.key in ask(tenant, tenant.key, "/show").text


def test_underscore_variant_is_no_key_but_is_hidden(tenant):
    """X_API_Key is another header to nginx and the same one to CGI."""
    response = ask(tenant, headers=[("X_API_Key", tenant.key)])
    assert response.status in (200, 401)
    response = ask(tenant, tenant.key, headers=[("X_API_Key", "other")])
    if response.status == 200:
        names = [name.lower().replace("_", "-") for name, _ in response.json()["headers"]]
        assert "x-api-key" not in names


def test_optional(tenant):
    assert consumer(ask(tenant, target="/optional")) is None
    assert consumer(ask(tenant, tenant.key, "/optional")) == "mobile"
    assert ask(tenant, "wrong", "/optional").status == 401


def test_shown_once(platform, tenant):
    listed = platform.rest.call("GET", f"{tenant.path}/keys")
    assert len(listed["items"]) >= 3
    for key in tenant.keys:
        assert key not in str(listed)
        assert hashlib.sha256(key.encode()).hexdigest() not in str(listed)
    dump = platform.database.execute("SELECT a::text FROM tiergate.audit a UNION ALL "
                                     "SELECT k::text FROM tiergate.api_keys k")
    assert not any(key in row[0] for key in tenant.keys for row in dump)


def test_new_key_works_at_once_and_ends_with_its_revision(platform, onboard):
    tenant = onboard(routes=[route(auth="required")])
    made = tenant.new_key("late", scopes=["x"])
    for _ in range(4):
        assert consumer(ask(tenant, made["key"])) == "late"
    platform.change("DELETE", f"{tenant.path}/keys/{made['id']}")
    for _ in range(4):
        assert ask(tenant, made["key"]).status == 401
    assert consumer(ask(tenant, tenant.key)) == "mobile"


def test_rotation_without_grace(platform, onboard):
    tenant = onboard(routes=[route(auth="required")])
    number = platform.rest.call("GET", f"{tenant.path}/keys")["items"][0]["id"]
    new = platform.change("POST", f"{tenant.path}/keys/{number}/rotate")
    assert new["key"] != tenant.key
    assert consumer(ask(tenant, new["key"])) == "mobile"
    assert ask(tenant, tenant.key).status == 401


def test_rotation_with_grace(platform, onboard):
    """Both work for a while; then the old one ends, without another change."""
    tenant = onboard(routes=[route(auth="required")])
    number = platform.rest.call("GET", f"{tenant.path}/keys")["items"][0]["id"]
    began = time.time()
    new = platform.change("POST", f"{tenant.path}/keys/{number}/rotate", {"grace": 6})
    assert consumer(ask(tenant, new["key"])) == "mobile"
    assert consumer(ask(tenant, tenant.key)) == "mobile"

    def old():
        status = ask(tenant, tenant.key).status
        assert status == 200 or time.time() - began >= 5
        return status == 401
    until(old, "the old key's end")
    assert consumer(ask(tenant, new["key"])) == "mobile"


def test_expiry(platform, onboard):
    tenant = onboard(routes=[route(auth="required")])
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=6)
    made = tenant.new_key("brief", expires_at=end.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert consumer(ask(tenant, made["key"])) == "brief"
    until(lambda: ask(tenant, made["key"]).status == 401, "the key's end")


def test_keys_that_existed_before(platform, onboard):
    """A migration brings digests of keys that another gateway gave out."""
    tenant = onboard(routes=[route(auth="required")])
    legacy = "legacy-" + secrets.token_hex(16)
    tenant.new_key("partner", sha256=hashlib.sha256(legacy.encode()).hexdigest())
    assert consumer(ask(tenant, legacy)) == "partner"


def test_many_keys(platform, onboard):
    """1,000 keys of one tenant: every one is found."""
    keys = ["k" + secrets.token_hex(16) for _ in range(1000)]
    tenant = onboard(routes=[route(auth="required")], keys=[
        {"consumer": f"c{i}", "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for i, key in enumerate(keys)])
    for i in range(0, 1000, 37):
        assert consumer(ask(tenant, keys[i])) == f"c{i}"
    assert ask(tenant, "k" + secrets.token_hex(16)).status == 401


def test_refused_keys_cost_no_quota(onboard):
    tenant = onboard(routes=[route(auth="required")], quotas=[quota(limit=3, window="3600s", burst=3)])
    for _ in range(20):
        assert ask(tenant, "wrong").status == 401
    statuses = [ask(tenant, tenant.key).status for _ in range(6)]
    assert statuses.count(200) == 3 and set(statuses) == {200, 429}


def test_psql_revocation(platform, onboard):
    tenant = onboard(routes=[route(auth="required")])
    assert ask(tenant, tenant.key).status == 200
    platform.psql(f"DELETE FROM tiergate.api_keys WHERE tenant = '{tenant.name}'")
    assert ask(tenant, tenant.key).status == 401


def test_deleting_a_consumer_revokes_its_keys(platform, onboard):
    tenant = onboard(routes=[route(auth="required")], consumers=[{"name": "gone"}],
                     keys=[{"consumer": "gone"}, {"consumer": "stays"}])
    assert consumer(ask(tenant, tenant.keys[0])) == "gone"
    tenant.delete("consumers", "gone")
    assert ask(tenant, tenant.keys[0]).status == 401
    assert consumer(ask(tenant, tenant.keys[1])) == "stays"


def test_preflight_has_a_route_of_its_own(onboard):
    """docs/reference/auth.md: OPTIONS comes without a credential, and must not open the rest."""
    tenant = onboard(routes=[route(auth="required"),
                             route("preflight", match={"methods": ["OPTIONS"]})])
    assert tenant.request("OPTIONS", "/").status == 200
    assert tenant.get().status == 401
    assert tenant.get(key=tenant.key).status == 200
