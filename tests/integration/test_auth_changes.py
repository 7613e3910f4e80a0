# SPDX-License-Identifier: BSD-2-Clause
"""Tokens while issuers, keys and routes change; what refused credentials cost; and
issuers beside each other."""

from support.platform import quota, route
from support.tokens import Issuer, Key
from test_auth_jwt import accepted, ask, refused

# --- changes ---

def test_rotation_takes_effect_with_its_revision(onboard):
    issuer = Issuer("ES256", kid="old")
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    old, successor = issuer.key, Key("ES256", kid="new")
    token = issuer.token()
    for _ in range(6):
        accepted(tenant, token)             # in the caches

    both = issuer.body(jwks={"keys": [old.jwk(), successor.jwk()]})
    tenant.put("issuers", "main", both)
    accepted(tenant, token)
    accepted(tenant, successor.sign(issuer.claims()))

    tenant.put("issuers", "main", issuer.body(jwks={"keys": [successor.jwk()]}))
    for _ in range(6):
        refused(tenant, token)
    accepted(tenant, successor.sign(issuer.claims()))

    # a new key under the old kid
    impostor = Key("ES256", kid="new")
    fresh = successor.sign(issuer.claims())
    accepted(tenant, fresh)
    tenant.put("issuers", "main", issuer.body(jwks={"keys": [impostor.jwk()]}))
    refused(tenant, fresh)
    accepted(tenant, impostor.sign(issuer.claims()))

    tenant.delete("issuers", "main")
    refused(tenant, impostor.sign(issuer.claims()))


def test_rules_of_the_issuer_take_effect_with_their_revision(onboard):
    """The token is the same and cached; what is asked of it changes."""
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    token = issuer.token(client_id="app")
    for _ in range(4):
        accepted(tenant, token)
    tenant.put("issuers", "main", issuer.body(audiences=["other"]))
    refused(tenant, token)
    tenant.put("issuers", "main", issuer.body(consumer_claim="client_id"))
    accepted(tenant, token, "app")
    tenant.put("issuers", "main", issuer.body(algorithms=["ES384"], jwks={"keys": [Key("ES384").jwk()]}))
    refused(tenant, token)


def test_scopes_of_a_route_change_for_cached_tokens(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    token = issuer.token(scope="a")
    accepted(tenant, token)
    tenant.put("routes", "all", route(auth={"mode": "required", "scopes": ["b"]}))
    assert ask(tenant, token).status == 403
    tenant.put("routes", "all", route(auth={"mode": "required", "scopes": ["a"]}))
    accepted(tenant, token)


def test_platform_issuer(platform, onboard):
    """One issuer for many tenants: by reference, narrowed by audience, rotated once."""
    issuer = Issuer("RS256", "https://sso.platform.example", kid="p1")
    platform.rest.call("PUT", "/v1/issuers/sso", issuer.body(audiences=["one", "two"]))
    one = onboard(routes=[route(auth="required")], issuers=[{"ref": "sso", "audiences": ["one"]}])
    two = onboard(routes=[route(auth="required")], issuers=[{"ref": "sso", "audiences": ["two"]}])
    wide = onboard(routes=[route(auth="required")], issuers=[{"ref": "sso"}])
    none = onboard(routes=[route(auth="required")])

    accepted(one, issuer.token(aud="one"))
    accepted(two, issuer.token(aud="two"))
    accepted(wide, issuer.token(aud="one"))
    accepted(wide, issuer.token(aud="two"))
    refused(one, issuer.token(aud="two"))
    refused(two, issuer.token(aud="one"))
    refused(none, issuer.token(aud="one"))

    token = issuer.token(aud="one")
    accepted(one, token)
    successor = Key("RS256", kid="p2")
    platform.change("PUT", "/v1/issuers/sso",
                    issuer.body(audiences=["one", "two"], jwks={"keys": [successor.jwk()]}))
    refused(one, token)
    refused(wide, token)
    accepted(one, successor.sign(issuer.claims(aud="one")))
    accepted(two, successor.sign(issuer.claims(aud="two")))


def test_refused_credentials_cost_no_quota(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}],
                     quotas=[quota(limit=3, window="3600s", burst=3)])
    for _ in range(20):
        refused(tenant, issuer.token(aud="wrong"))
        assert ask(tenant).status == 401
    statuses = [ask(tenant, issuer.token()).status for _ in range(6)]
    assert statuses.count(200) == 3, statuses
    assert set(statuses) == {200, 429}
    refused(tenant, issuer.token(aud="wrong"))      # not 429: authentication comes first


def test_repeated_failures_are_limited_by_address(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    attacker, other = "127.200.0.1", "127.200.0.2"

    def bad(source):
        return tenant.get("/", [("Authorization", f"Bearer {issuer.token(aud='wrong')}")], source=source)

    limited = next(response for response in (bad(attacker) for _ in range(2000))
                   if response.status != 401)
    assert (limited.status, limited.problem) == (429, "too-many-failures")
    assert int(limited.headers["retry-after"]) >= 1
    assert bad(other).status == 401
    good = [("Authorization", f"Bearer {issuer.token()}")]
    assert tenant.get("/", good, source=other).status == 200


def test_tokens_of_many_issuers_at_once(platform, onboard):
    """16 issuers of one tenant, each key for its own."""
    many = [Issuer("ES256", f"https://i{i}.example", kid=f"k{i % 3}") for i in range(16)]
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": f"i{i}", **issuer.body()} for i, issuer in enumerate(many)])
    for i, issuer in enumerate(many):
        accepted(tenant, issuer.token(f"user{i}"), f"user{i}")
        refused(tenant, many[(i + 1) % 16].key.sign(issuer.claims(),
                                                   headers={"kid": issuer.key.kid}))
