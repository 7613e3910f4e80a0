# SPDX-License-Identifier: BSD-2-Clause
"""Tokens: what RFC 8725 (JWT best current practices) asks for, one by one, and the
rest of what an attacker or a careless issuer sends.  RFC 6750 for the answers."""

import base64
import itertools
import json
import time

import jwt
import pytest

from support import wire
from support.platform import Refused, route
from support.poll import until
from support.tokens import Issuer, Key, b64, hmac_with, unsigned

GATEWAY = {"http": "large_client_header_buffers 4 64k; underscores_in_headers on;"}

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
              "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA"]

# Failures are limited by client address; each test brings addresses of its own.
SOURCES = itertools.cycle(f"127.{a}.{b}.{c}" for a in range(1, 9)
                          for b in range(1, 200) for c in range(1, 200))


def ask(tenant, token=None, target="/", headers=()):
    pairs = list(headers)
    if token is not None:
        pairs.append(("Authorization", b"Bearer " + (token if isinstance(token, bytes)
                                                     else token.encode("latin-1"))))
    return tenant.get(target, pairs, source=next(SOURCES))


def accepted(tenant, token, consumer="alice", **more):
    response = ask(tenant, token, **more)
    assert response.status == 200, response
    assert wire.Headers(response.json()["headers"]).get("x-tenant-consumer") == consumer
    return response


def refused(tenant, token, **more):
    response = ask(tenant, token, **more)
    assert (response.status, response.problem) == (401, "invalid-credential"), response
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer "), challenge
    assert 'error="invalid_token"' in challenge, challenge
    return response


@pytest.fixture(scope="module")
def issuers():
    return {alg: Issuer(alg, f"https://{alg.lower()}.example", kid=f"key-{alg}")
            for alg in ALGORITHMS}


@pytest.fixture(scope="module")
def tenant(platform, gateway, issuers):
    return platform.onboard(
        routes=[route(auth="required")],
        issuers=[{"name": alg.lower(), **issuer.body()} for alg, issuer in issuers.items()])


@pytest.fixture(scope="module")
def es(issuers):
    return issuers["ES256"]


# --- what must pass ---

@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm(tenant, issuers, alg):
    for _ in range(3):      # from the cache, too, in whichever worker
        accepted(tenant, issuers[alg].token())


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm_refuses_a_changed_token(tenant, issuers, alg):
    token = issuers[alg].token()
    header, payload, signature = token.split(".")
    other = b64(json.dumps(issuers[alg].claims("mallory")))
    refused(tenant, f"{header}.{other}.{signature}")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    for position in (0, len(raw) // 2, len(raw) - 1):
        flipped = bytearray(raw)
        flipped[position] ^= 1
        refused(tenant, f"{header}.{payload}.{b64(bytes(flipped))}")
    refused(tenant, f"{header}.{payload}.{b64(bytes(raw[:-1]))}")
    refused(tenant, f"{header}.{payload}.{b64(bytes(raw) + b'x')}")
    refused(tenant, f"{header}.{payload}.{b64(bytes(len(raw)))}")
    refused(tenant, f"{header}.{payload}.")
    refused(tenant, f"{header}.{payload}")
    accepted(tenant, token)


@pytest.mark.parametrize("claims", [
    {"aud": ["api"]}, {"aud": ["other", "api", "third"]}, {"iat": None}, {"nbf": 0},
    {"jti": "x", "extra": {"deep": [1, 2, {"a": None}]}}, {"big": "x" * 4000},
    {"exp": lambda now: now + 600.5}, {"exp": 4102444800}, {"nbf": lambda now: now - 0.5},
    {"name": "Jos\u00e9 \U0001f600"},
])
def test_claims_that_pass(tenant, es, claims):
    accepted(tenant, es.token(**{name: value(time.time()) if callable(value) else value for name, value in claims.items()}))


@pytest.mark.parametrize("headers", [
    {"typ": "JWT"}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"typ": "application/at+jwt"}, {"typ": None},
    {"x-unknown": [1, {"a": "b"}]}, {"cty": "json"},
])
def test_headers_that_pass(tenant, es, headers):
    accepted(tenant, es.key.sign(es.claims(), headers=headers))


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"bEaReR "])
def test_scheme_case_does_not_matter(tenant, es, scheme):
    response = ask(tenant, headers=[("Authorization", scheme + es.token().encode())])
    assert response.status == 200, response


# --- RFC 8725 section 3.1: the key decides the algorithm ---

@pytest.mark.parametrize("alg", [
    "none", "None", "NONE", "nOnE", "none ", "", "null", None, 0, True, [], {}, ["none"],
    ["ES256"], "es256", "ES256 ", "ES256\x00", "HS1", "RS1", "ES256K", "A128KW", "dir", "RSA-OAEP",
])
def test_alg_none_and_nonsense(tenant, es, alg):
    header = {"typ": "JWT", "alg": alg, "kid": es.key.kid}
    claims = es.claims("mallory")
    for signature in ("", b64(b"x"), b64(bytes(64))):
        refused(tenant, f"{unsigned(header, claims)}.{signature}")
    header.pop("kid")
    refused(tenant, f"{unsigned(header, claims)}.")
    # with a signature that would be right for the right name
    refused(tenant, es.key.sign_raw(json.dumps({**header, "kid": es.key.kid}), json.dumps(claims)))


def test_alg_missing(tenant, es):
    refused(tenant, es.key.sign_raw(json.dumps({"kid": es.key.kid}), json.dumps(es.claims())))


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("hmac_alg, digest", [("HS256", "sha256"), ("HS512", "sha512")])
def test_public_key_is_no_hmac_secret(tenant, issuers, alg, hmac_alg, digest):
    issuer = issuers[alg]
    pem, der = issuer.key.pem(), issuer.key.der()
    jwk = json.dumps(issuer.key.jwk()).encode()
    for secret in (pem, pem.rstrip(b"\n"), pem.replace(b"\n", b""), der, base64.b64encode(der),
                   jwk, b"", b"\x00"):
        for header in ({"alg": hmac_alg, "kid": issuer.key.kid}, {"alg": hmac_alg}):
            refused(tenant, hmac_with(secret, header, issuer.claims("mallory"), digest))


def test_secret_is_no_public_key(tenant, issuers):
    """An HMAC key is not tried with a public-key algorithm, nor with another digest."""
    hs = issuers["HS256"]
    for alg in ("RS256", "ES256", "EdDSA", "HS384", "HS512"):
        refused(tenant, hmac_with(hs.key.private, {"alg": alg, "kid": hs.key.kid},
                                  hs.claims("mallory")))


def test_other_algorithms_of_the_same_key(tenant, issuers):
    """The issuer lists RS256: the same RSA key in RS512 or PS256 does not pass."""
    rs = issuers["RS256"]
    for alg in ("RS384", "RS512", "PS256", "PS512"):
        refused(tenant, rs.key.sign(rs.claims(), alg=alg))
    refused(tenant, issuers["HS512"].key.sign(issuers["HS512"].claims(), alg="HS256"))


def test_alg_of_the_jwk_pins(platform, onboard):
    """"alg" in the JWK narrows what the issuer's list allows."""
    issuer = Issuer("RS256", pin=True)
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": "main", **issuer.body(algorithms=["RS256", "RS512", "PS256"])}])
    accepted(tenant, issuer.token())
    for alg in ("RS512", "PS256"):
        refused(tenant, issuer.key.sign(issuer.claims(), alg=alg))


def test_an_unpinned_key_serves_the_listed_algorithms(onboard):
    issuer = Issuer("RS256")
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": "main", **issuer.body(algorithms=["RS256", "PS384"])}])
    accepted(tenant, issuer.token())
    accepted(tenant, issuer.key.sign(issuer.claims(), alg="PS384"))
    refused(tenant, issuer.key.sign(issuer.claims(), alg="RS384"))


# --- 3.3 to 3.6: all of it is verified ---

def test_nested_tokens(tenant, es):
    inner = es.token()
    refused(tenant, es.key.sign_raw(json.dumps({"alg": "ES256", "kid": es.key.kid, "cty": "JWT"}), inner))
    refused(tenant, es.key.sign_raw(json.dumps({"alg": "ES256", "kid": es.key.kid}), json.dumps(inner)))


def test_psychic_signatures(tenant, issuers):
    """CVE-2022-21449: r and s zero, or multiples of the order."""
    order = {"ES256": 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551}
    for alg, size in (("ES256", 64), ("ES384", 96), ("ES512", 132)):
        data = unsigned({"alg": alg, "kid": issuers[alg].key.kid}, issuers[alg].claims("mallory"))
        refused(tenant, f"{data}.{b64(bytes(size))}")
    n = order["ES256"].to_bytes(32, "big")
    data = unsigned({"alg": "ES256", "kid": issuers["ES256"].key.kid}, issuers["ES256"].claims("m"))
    for raw in (n + n, n + bytes(31) + b"\x01", bytes(31) + b"\x01" + n, b"\xff" * 64):
        refused(tenant, f"{data}.{b64(raw)}")


def test_ecdsa_signature_in_der_is_refused(tenant, es):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    data = unsigned({"alg": "ES256", "kid": es.key.kid}, es.claims())
    der = es.key.private.sign(data.encode(), ec.ECDSA(hashes.SHA256()))
    refused(tenant, f"{data}.{b64(der)}")


@pytest.mark.parametrize("header", [
    {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"crit": ["x"], "x": 1}, {"crit": []},
    {"crit": "exp"}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF", "crit": ["zip"]},
])
def test_critical_extensions_are_not_understood(tenant, es, header):
    refused(tenant, es.key.sign_raw(json.dumps({"alg": "ES256", "kid": es.key.kid, **header}),
                                    json.dumps(es.claims())))


@pytest.mark.parametrize("jwk, what", [
    (lambda: Key("RS256", bits=1024).jwk(), "RSA below 2048 bits"),
    (lambda: {**Key("HS256").jwk(), "k": b64(b"short")}, "HMAC secret shorter than its digest"),
    (lambda: {**Key("ES256").jwk(), "y": b64(bytes(32))}, "a point off the curve"),
    (lambda: {**Key("ES256").jwk(), "crv": "P-384"}, "the wrong curve"),
    (lambda: {**Key("RS256").jwk(), "e": b64(b"\x01")}, "exponent 1"),
    (lambda: {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(31)), "kid": "x"}, "a short Ed25519 key"),
])
def test_weak_or_broken_keys_are_not_taken(platform, onboard, jwk, what):
    issuer = Issuer()
    tenant = onboard(wait=False)
    body = issuer.body(algorithms=["RS256", "HS256", "ES256", "ES384", "EdDSA"], jwks={"keys": [jwk()]})
    with pytest.raises(Refused) as refusal:
        platform.rest.call("PUT", f"{tenant.path}/issuers/main", body)
    assert refusal.value.response.status in (400, 422), what
    assert refusal.value.response.json()["errors"][0]["pointer"].startswith("/jwks")


# --- 3.7, and everything else about the form ---

def raw(es, payload, header=None):
    return es.key.sign_raw(header or json.dumps({"alg": "ES256", "kid": es.key.kid}), payload)


def test_payload_must_be_utf8_json_object(tenant, es):
    good = json.dumps(es.claims())
    accepted(tenant, raw(es, good))
    for payload in [good.encode("utf-16"), good.encode("utf-16-le"), b"\xef\xbb\xbf" + good.encode(),
                    good.encode() + b"\xff", good.encode()[:-1] + b',"x":"\xc0\x80"}',
                    good.encode()[:-1] + b',"x":"\xed\xa0\x80"}', good + "x", good + good, good + "\x00",
                    good[:-1], "[" + good + "]", "[]", "null", "true", "1", '"x"', "{}", " ", "{",
                    good[:-1] + ",}", good[:-1] + ',"x":NaN}', good[:-1] + ',"x":Infinity}',
                    good[:-1] + ",'x':1}", "/**/" + good, good[:-1] + ',"x":01}',
                    good[:-1] + ',"x":"\\u0000"}', good[:-1] + ',"x":"\\ud800"}',
                    good[:-1] + ',"x":' + "[" * 5000 + "]" * 5000 + "}"]:
        refused(tenant, raw(es, payload))


def test_duplicate_members_are_refused(tenant, es):
    good = json.dumps(es.claims())[:-1]
    for more in ['"sub":"mallory"', '"exp":9999999999', '"iss":"https://es256.example"', '"\\u0073ub":"m"',
                 '"x":{"a":1,"a":2}', '"x":[{"a":1,"a":1}]']:
        refused(tenant, raw(es, good + "," + more + "}"))
    for header in ['{"alg":"ES256","alg":"none","kid":"%s"}', '{"alg":"none","alg":"ES256","kid":"%s"}',
                   '{"alg":"ES256","kid":"x","kid":"%s"}', '{"alg":"ES256","kid":"%s","\\u0061lg":"none"}']:
        refused(tenant, raw(es, json.dumps(es.claims()), header % es.key.kid))


def test_truncated_tokens(tenant, es):
    token = es.token()
    for length in [*range(0, len(token), 7), len(token) - 1, len(token) - 2]:
        response = ask(tenant, token[:length])
        assert response.status == 401, (length, response)
        assert response.problem in ("invalid-credential", "no-credential")


def test_token_with_something_more(tenant, es):
    token = es.token()
    header, payload, signature = token.split(".")
    for odd in [token + ".", token + ".x", "." + token, token + "=", token + "==", token + "%3d",
                f"{header}..{signature}", f".{payload}.{signature}", f"{header}.{payload}.{signature}.a.b",
                f"{header}=.{payload}.{signature}", f"{header}.{payload} .{signature}", f'"{token}"',
                f"{header}.{payload}.{signature}\x7f", token + ",", token + ";", token + ", " + token,
                token + " " + token, f"{header}.{payload}.{signature[:-1]}+", f"{header}.{payload}.{signature[:-1]}/",
                f"{header}\t.{payload}.{signature}", "..", ".", "...", "x", "x.y.z", f"Bearer {token}"]:
        response = ask(tenant, odd)
        assert response.status in (400, 401), (odd, response)
        assert response.problem in ("invalid-credential", "no-credential", "two-credentials")


def test_base64_must_be_canonical(tenant, es):
    """A last character with bits that decode to nothing makes a second spelling of
    the same token, which would be a second entry in a cache."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = es.token()      # 64 bytes of signature: the last character has 4 idle bits
    for step in (1, 2, 15):
        other = alphabet[(alphabet.index(token[-1]) & ~15) + (alphabet.index(token[-1]) + step) % 16]
        if other != token[-1]:
            refused(tenant, token[:-1] + other)


def test_huge_tokens(tenant, es):
    accepted(tenant, es.token(pad="x" * 8000))
    refused(tenant, es.token(pad="x" * 20000))
    refused(tenant, "a" * 40000)
    refused(tenant, es.key.sign(es.claims(), headers={"pad": "x" * 4000}))
    response = ask(tenant, "a" * 100000)
    assert response.status in (400, 401, 431)


def test_many_claims(tenant, es):
    accepted(tenant, es.token(**{f"c{i}": i for i in range(300)}))


# --- 3.8: issuer and subject ---

@pytest.mark.parametrize("iss", [
    None, "", "https://evil.example", "https://es256.example/", "https://ES256.example",
    "HTTPS://es256.example", " https://es256.example", "https://es256.example\x00", "es256.example",
    ["https://es256.example"], {"a": 1}, 5, True, "https://rs256.example",
])
def test_wrong_issuer(tenant, es, iss):
    refused(tenant, es.token(iss=iss))


@pytest.mark.parametrize("sub", [None, "", 5, True, [], ["alice"], {"a": "b"}, 1.5])
def test_consumer_claim_must_be_a_name(tenant, es, sub):
    refused(tenant, es.token(sub))


def test_consumer_claim_is_the_issuers_choice(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": "main", **issuer.body(consumer_claim="client_id")}])
    accepted(tenant, issuer.token("ignored", client_id="app-7"), "app-7")
    refused(tenant, issuer.token("alice"))


# --- 3.9: audience ---

@pytest.mark.parametrize("aud", [
    None, "", "other", "API", "api ", "ap", "apis", [], ["other"], ["ap", "i"], [["api"]], {"api": 1}, 5,
    True, [5, None], "api,other", "api\x00",
])
def test_wrong_audience(tenant, es, aud):
    refused(tenant, es.token(aud=aud))


def test_several_audiences(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": "main", **issuer.body(audiences=["one", "two"])}])
    accepted(tenant, issuer.token(aud="one"))
    accepted(tenant, issuer.token(aud=["x", "two"]))
    refused(tenant, issuer.token(aud="three"))


# --- 3.10: kid and embedded keys ---

@pytest.mark.parametrize("kid", [
    "unknown", "", "key-RS256", "KEY-ES256", "key-ES256 ", "../../../../dev/null", "/dev/null",
    "' OR '1'='1", "key-ES256' --", "key-ES256\x00", "x" * 1500, 5, None.__class__, [], ["key-ES256"],
    {"a": 1}, True, "%00", "$(id)", "key-ES256\n",
])
def test_kid_is_only_a_lookup(tenant, es, kid):
    kid = None if kid is type(None) else kid
    header = json.dumps({"alg": "ES256", "kid": kid})
    refused(tenant, es.key.sign_raw(header, json.dumps(es.claims())))


def test_token_without_kid(tenant, es, onboard):
    """A token without kid is tried with the keys that allow its algorithm; a token
    with kid is not tried with a key that has none."""
    accepted(tenant, es.key.sign(es.claims(), headers={"kid": None}))
    refused(tenant, Key("ES256").sign(es.claims(), headers={"kid": None}))
    issuer = Issuer("ES256", kid=None)
    other = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    accepted(other, issuer.token())
    refused(other, issuer.key.sign(issuer.claims(), headers={"kid": "k1"}))


@pytest.mark.parametrize("make", [
    lambda evil: {"jwk": evil.jwk()},
    lambda evil: {"jku": "http://127.0.0.1:1/jwks.json"},
    lambda evil: {"x5u": "http://127.0.0.1:1/x.pem"},
    lambda evil: {"x5c": [base64.b64encode(evil.der()).decode()]},
    lambda evil: {"x5t": b64(b"x" * 20)},
])
def test_keys_in_the_token_are_ignored(tenant, es, make):
    evil = Key("ES256", kid=es.key.kid)
    header = {"alg": "ES256", "kid": evil.kid, **make(evil)}
    refused(tenant, evil.sign_raw(json.dumps(header), json.dumps(es.claims("mallory"))))
    # nor do they make a good token bad
    accepted(tenant, es.key.sign_raw(json.dumps(header), json.dumps(es.claims())))


def test_key_of_another_issuer_of_the_tenant(tenant, issuers):
    """Both keys are the tenant's own, but each speaks for its issuer only."""
    es, ed = issuers["ES256"], issuers["EdDSA"]
    claims = ed.claims("mallory")
    refused(tenant, es.key.sign(claims))
    refused(tenant, es.key.sign(claims, headers={"kid": ed.key.kid}))


def test_same_kid_at_two_issuers(onboard):
    one = Issuer("ES256", "https://one.example", kid="same")
    two = Issuer("ES256", "https://two.example", kid="same")
    tenant = onboard(routes=[route(auth="required")],
                     issuers=[{"name": "one", **one.body()}, {"name": "two", **two.body()}])
    accepted(tenant, one.token())
    accepted(tenant, two.token())
    refused(tenant, one.key.sign(two.claims()))


def test_several_keys_of_one_issuer(onboard):
    issuer = Issuer("ES256", kid="a")
    second, third = Key("RS256", kid="b"), Key("ES256", kid="c")
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body(
        algorithms=["ES256", "RS256"],
        jwks={"keys": [issuer.key.jwk(), second.jwk(), third.jwk()]})}])
    for key in (issuer.key, second, third):
        accepted(tenant, key.sign(issuer.claims()))
    refused(tenant, third.sign(issuer.claims(), headers={"kid": "a"}))


# --- 3.11: typ ---

@pytest.mark.parametrize("typ", [5, [], {}, True])
def test_typ_must_be_a_string(tenant, es, typ):
    refused(tenant, es.key.sign_raw(json.dumps({"alg": "ES256", "kid": es.key.kid, "typ": typ}),
                                    json.dumps(es.claims())))


# --- times ---

@pytest.fixture(scope="module")
def timed(platform, gateway):
    strict, lenient = Issuer("ES256", "https://strict.example"), Issuer("ES256", "https://lenient.example")
    tenant = platform.onboard(routes=[route(auth="required")], issuers=[
        {"name": "strict", **strict.body(leeway=0)}, {"name": "lenient", **lenient.body(leeway=60)}])
    return tenant, strict, lenient


def test_leeway_edges(timed):
    tenant, strict, lenient = timed
    now = int(time.time())
    refused(tenant, strict.token(exp=now - 1))
    refused(tenant, strict.token(exp=now))              # "on or after" (RFC 7519 section 4.1.4)
    accepted(tenant, strict.token(exp=now + 30))
    accepted(tenant, strict.token(nbf=now - 1))
    refused(tenant, strict.token(nbf=now + 30))
    accepted(tenant, lenient.token(exp=now - 50))
    refused(tenant, lenient.token(exp=now - 61))
    accepted(tenant, lenient.token(nbf=now + 50))
    refused(tenant, lenient.token(nbf=now + 70))


@pytest.mark.parametrize("exp", [
    None, "9999999999", "", -1, 0, -9999999999, [], {}, True, False, [9999999999], "never",
])
def test_odd_exp(timed, exp):
    tenant, _, lenient = timed
    refused(tenant, lenient.token(exp=exp))


@pytest.mark.parametrize("nbf", ["0", [], {}, True, False, "", 1e300, 2 ** 62])
def test_odd_nbf(timed, nbf):
    tenant, _, lenient = timed
    refused(tenant, lenient.token(nbf=nbf))


@pytest.mark.parametrize("number", ["1e300", "-1e300", "1e400", "99999999999999999999999", "-0", "1e-5"])
def test_absurd_numbers(timed, number):
    """Whatever they come to, they do not overflow into something accepted wrongly."""
    tenant, _, lenient = timed
    claims = json.dumps(lenient.claims(exp=None))[:-1]
    response = ask(tenant, raw(lenient, claims + f',"exp":{number}}}'))
    if response.status == 200:
        assert not number.startswith("-") and float(number) > time.time()
    else:
        assert (response.status, response.problem) == (401, "invalid-credential")


def test_null_times_are_no_times(timed):
    tenant, _, lenient = timed
    claims = json.dumps(lenient.claims(exp=None))[:-1]
    refused(tenant, raw(lenient, claims + ',"exp":null}'))


def test_a_cached_token_ends_with_its_exp(timed):
    """Asked all the time, so that it is in the cache of both workers."""
    tenant, strict, _ = timed
    exp = int(time.time()) + 4
    token = strict.token(exp=exp)

    def status():
        before = time.time()
        response = ask(tenant, token)
        # a clock read before must not be past exp when it passed; nginx's own clock
        # may be a moment behind
        assert response.status == 401 or before < exp + 0.5
        assert response.status == 200 or time.time() >= exp
        return response.status

    assert status() == 200
    until(lambda: status() == 401, "the token's end")


# --- two credentials, none, and the wrong kind ---

def test_no_credential(tenant):
    response = ask(tenant)
    assert (response.status, response.problem) == (401, "no-credential")
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer")
    assert "error" not in challenge         # RFC 6750 section 3: none without a token


@pytest.mark.parametrize("value", [
    b"", b"Bearer", b"Bearer ", b"Basic YWxpY2U6c2VjcmV0", b"Digest x", b"Negotiate abc", b"Token x",
    b"BearerX y", b"Bearer\x00", b"bearer", b"Bearer\ty", b"=", b":", b"\xff",
])
def test_other_authorizations(tenant, value):
    response = ask(tenant, headers=[("Authorization", value)])
    assert response.status in (400, 401), response
    if response.status == 401:
        assert response.problem in ("no-credential", "invalid-credential")
        assert "www-authenticate" in response.headers


def test_two_credentials_at_once(tenant, es):
    token, key = es.token(), tenant.key
    bearer = ("Authorization", f"Bearer {token}")
    for headers, target in [([bearer, bearer], "/"), ([bearer, ("Authorization", "Bearer x")], "/"),
                            ([("Authorization", "Bearer x"), bearer], "/"),
                            ([bearer, ("X-API-Key", key)], "/"), ([bearer, ("X-API-Key", "wrong")], "/")]:
        response = ask(tenant, target=target, headers=headers)
        assert response.status == 400, (headers, response)
        if response.problem:
            assert response.problem == "two-credentials"
            assert 'error="invalid_request"' in response.headers["www-authenticate"]


def test_another_authorization_beside_the_token(tenant, es):
    """Refused, or served with the token kept from the upstream all the same."""
    token = es.token()
    bearer = ("Authorization", f"Bearer {token}")
    for other in ("Basic eDp5", "", "Digest x"):
        for headers in ([("Authorization", other), bearer], [bearer, ("Authorization", other)]):
            response = ask(tenant, headers=headers)
            assert response.status in (200, 400), response
            assert response.status == 400 or token not in response.text


def test_token_in_the_query_is_not_looked_at(tenant, es):
    response = ask(tenant, target=f"/?access_token={es.token()}")
    assert (response.status, response.problem) == (401, "no-credential")


def test_credentials_are_hidden_from_the_upstream(onboard):
    issuer = Issuer()
    tenant = onboard(issuers=[{"name": "main", **issuer.body()}], routes=[
        route("hide", path="/hide", auth={"mode": "required", "hide_credentials": True}),
        route("show", path="/show", auth={"mode": "required", "hide_credentials": False}),
        route("open", path="/open", auth="none")])
    token = issuer.token()
    assert token not in str(tenant.reached("/hide", token=token).pairs)
    assert tenant.reached("/show", token=token).headers["authorization"] == f"Bearer {token}"
    assert tenant.reached("/hide", key=tenant.key).headers.get("x-api-key") is None
    assert tenant.reached("/show", key=tenant.key).headers["x-api-key"] == tenant.key


# --- routes: modes, methods, scopes, claims ---

@pytest.fixture(scope="module")
def guarded(platform, gateway):
    issuer = Issuer()
    tenant = platform.onboard(
        issuers=[{"name": "main", **issuer.body()}],
        keys=[{"consumer": "mobile", "scopes": ["orders:read"]}],
        routes=[
            route("none", path="/none", auth="none"),
            route("optional", path="/optional", auth="optional"),
            route("jwt", path="/jwt", auth={"mode": "required", "methods": ["jwt"]}),
            route("key", path="/key", auth={"mode": "required", "methods": ["api_key"]}),
            route("scoped", path="/scoped", auth={"mode": "required",
                                                  "scopes": ["orders:read", "orders:write"]}),
            route("optscoped", path="/optscoped", auth={"mode": "optional", "scopes": ["orders:read"]}),
            route("claims", path="/claims", auth={"mode": "required", "claims": [
                {"name": "role", "values": ["admin", "ops"]}, {"name": "org", "values": ["acme"]}]}),
        ])
    return tenant, issuer


def test_auth_modes(guarded):
    tenant, issuer = guarded
    token = issuer.token()
    assert ask(tenant, target="/none").status == 200
    assert ask(tenant, target="/optional").status == 200
    accepted(tenant, token, target="/optional")
    refused(tenant, token[:-4] + "AAAA", target="/optional")
    refused(tenant, "x", target="/optional")
    # where nobody is asked, nobody is identified
    response = ask(tenant, token, target="/none")
    headers = wire.Headers(response.json()["headers"])
    assert headers.get("x-tenant-auth") == "anonymous"
    assert "x-tenant-consumer" not in headers
    assert ask(tenant, "garbage", target="/none").status == 200


def test_auth_methods(guarded):
    tenant, issuer = guarded
    accepted(tenant, issuer.token(), target="/jwt")
    assert tenant.get("/key", key=tenant.key, source=next(SOURCES)).status == 200
    response = tenant.get("/jwt", key=tenant.key, source=next(SOURCES))
    assert response.status == 401, response
    assert ask(tenant, issuer.token(), target="/key").status == 401


@pytest.mark.parametrize("claims, status", [
    ({"scope": "orders:read orders:write"}, 200),
    ({"scope": "x orders:write y orders:read"}, 200),
    ({"scope": ["orders:read", "orders:write"]}, 200),
    ({"scp": ["orders:read", "orders:write"]}, 200),
    ({"scope": "orders:read"}, 403),
    ({"scope": "orders:read,orders:write"}, 403),
    ({"scope": "orders:readorders:write"}, 403),
    ({"scope": "ORDERS:READ ORDERS:WRITE"}, 403),
    ({"scope": "orders:read orders:writer"}, 403),
    ({"scope": ""}, 403),
    ({}, 403),
    ({"scope": 5}, 403),
    ({"scope": {"orders:read": 1, "orders:write": 1}}, 403),
    ({"scope": [["orders:read"], "orders:write"]}, 403),
    ({"scopes": "orders:read orders:write"}, 403),
])
def test_scopes(guarded, claims, status):
    tenant, issuer = guarded
    response = ask(tenant, issuer.token(**claims), target="/scoped")
    if status == 403 and response.status == 401:
        assert not isinstance(claims.get("scope", ""), str)     # of the wrong type
        return
    assert response.status == status, response
    if status == 403:
        assert response.problem == "forbidden"
        challenge = response.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="orders:read orders:write"' in challenge


def test_scopes_of_anonymous_requests(guarded):
    tenant, issuer = guarded
    response = ask(tenant, target="/optscoped")
    assert response.status in (401, 403), response
    accepted(tenant, issuer.token(scope="orders:read"), target="/optscoped")
    assert ask(tenant, issuer.token(), target="/optscoped").status == 403


@pytest.mark.parametrize("claims, status", [
    ({"role": "admin", "org": "acme"}, 200),
    ({"role": "ops", "org": "acme"}, 200),
    ({"role": ["dev", "ops"], "org": ["acme"]}, 200),
    ({"role": "dev", "org": "acme"}, 403),
    ({"role": "admin"}, 403),
    ({"org": "acme"}, 403),
    ({"role": "admin", "org": "acme2"}, 403),
    ({"role": "ADMIN", "org": "acme"}, 403),
    ({"role": "admin ops", "org": "acme"}, 403),
    ({"role": {"admin": True}, "org": "acme"}, 403),
    ({"role": True, "org": "acme"}, 403),
    ({"role": [], "org": "acme"}, 403),
    ({"role": [["admin"]], "org": "acme"}, 403),
    ({"role": "admin\x00", "org": "acme"}, 401),
    ({"role": None, "org": None}, 403),
])
def test_claims(guarded, claims, status):
    tenant, issuer = guarded
    response = ask(tenant, issuer.token(**claims), target="/claims")
    assert response.status == status, response


def test_an_api_key_has_no_claims(guarded):
    tenant, _ = guarded
    response = tenant.get("/claims", key=tenant.key, source=next(SOURCES))
    assert response.status in (401, 403), response


def test_pyjwt_agrees(es):
    """The tokens that this file calls good are good for an independent library."""
    assert jwt.decode(es.token(), es.key.private.public_key(), algorithms=["ES256"],
                      audience="api", issuer=es.issuer)["sub"] == "alice"
