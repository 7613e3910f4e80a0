# SPDX-License-Identifier: BSD-2-Clause
"""Signing keys of issuers, good tokens, and tokens that only an attacker makes."""

import base64
import hashlib
import hmac
import json
import secrets
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def b64(data):
    """base64url without padding (RFC 7515 section 2)."""
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Key:
    """A signing key.  alg decides its type; an RSA key serves all RS and PS."""

    def __init__(self, alg, kid="k1", bits=2048, pin=False):
        self.alg = alg
        self.kid = kid
        self.pin = pin
        if alg[:2] in ("RS", "PS"):
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        elif alg in CURVES:
            self.private = ec.generate_private_key(CURVES[alg]())
        elif alg == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        elif alg[:2] == "HS":
            self.private = secrets.token_bytes(int(alg[2:]) // 8)
        else:
            raise ValueError(alg)

    @property
    def symmetric(self):
        return isinstance(self.private, bytes)

    def pem(self):
        """The public key as an attacker would use it for an HMAC secret."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def der(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def jwk(self):
        """The key as its issuer publishes it."""
        jwk = {"kid": self.kid} if self.kid is not None else {}
        if self.pin:
            jwk["alg"] = self.alg
        if self.symmetric:
            return {**jwk, "kty": "oct", "k": b64(self.private)}
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {**jwk, "kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        if isinstance(public, ec.EllipticCurvePublicKey):
            numbers = public.public_numbers()
            size = (public.curve.key_size + 7) // 8
            return {**jwk, "kty": "EC", "crv": f"P-{public.curve.key_size}",
                    "x": _number(numbers.x, size), "y": _number(numbers.y, size)}
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {**jwk, "kty": "OKP", "crv": "Ed25519", "x": b64(raw)}

    def sign(self, claims, alg=None, headers=None):
        """A token, signed by a library that has nothing to do with ours."""
        headers = dict(headers or {})
        if "kid" not in headers and self.kid is not None:
            headers["kid"] = self.kid
        headers = {key: value for key, value in headers.items() if value is not None}
        return jwt.encode(claims, self.private, algorithm=alg or self.alg, headers=headers)

    def sign_raw(self, header, payload, alg=None):
        """Signs header and payload exactly as given (bytes or str)."""
        data = f"{b64(header)}.{b64(payload)}"
        algorithm = jwt.api_jws.PyJWS().get_algorithm_by_name(alg or self.alg)
        key = algorithm.prepare_key(self.private) if self.symmetric else self.private
        return f"{data}.{b64(algorithm.sign(data.encode(), key))}"


class Issuer:
    """An issuer with one key, ready to be onboarded."""

    def __init__(self, alg="ES256", issuer="https://id.example", audience="api", **key):
        self.key = Key(alg, **key)
        self.issuer = issuer
        self.audience = audience

    def body(self, **more):
        """The issuer as the REST API takes it."""
        return {"issuer": self.issuer, "audiences": [self.audience],
                "algorithms": [self.key.alg], "consumer_claim": "sub",
                "jwks": {"keys": [self.key.jwk()]}, **more}

    def claims(self, sub="alice", **more):
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.audience, "sub": sub,
                  "iat": now, "exp": now + 600, **more}
        return {key: value for key, value in claims.items() if value is not None}

    def token(self, sub="alice", **more):
        """A good token, but for what more says; None leaves a claim out."""
        return self.key.sign(self.claims(sub, **more))


def unsigned(header, claims):
    """header.payload without the signature part."""
    return f"{b64(json.dumps(header))}.{b64(json.dumps(claims))}"


def hmac_with(secret, header, claims, digest="sha256"):
    """A token whose HMAC key is whatever bytes the attacker knows."""
    data = unsigned(header, claims)
    return f"{data}.{b64(hmac.new(secret, data.encode(), getattr(hashlib, digest)).digest())}"
