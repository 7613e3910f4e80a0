# SPDX-License-Identifier: BSD-2-Clause
"""An identity provider in a few lines: an ES256 key made by openssl, and tokens signed with it."""

import base64
import json
import subprocess
import time


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *args], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout


def integers(der):
    """The two INTEGERs of an ECDSA signature as r || s (RFC 7518, section 3.4)."""
    out, at = b"", 2
    for _ in range(2):
        size = der[at + 1]
        out += der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + size
    return out


class Issuer:
    def __init__(self, key, url):
        """Makes a key and keeps it in the file key."""
        self.url = url
        self.key = key
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key)
        point = openssl("ec", "-in", self.key, "-pubout", "-outform", "DER")[-64:]
        self.jwks = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "demo", "alg": "ES256",
                               "x": b64url(point[:32]), "y": b64url(point[32:])}]}

    def token(self, subject, lifetime=600, **claims):
        now = int(time.time())
        parts = [{"alg": "ES256", "typ": "JWT", "kid": "demo"},
                 {"iss": self.url, "aud": "api", "sub": subject, "iat": now, "exp": now + lifetime, **claims}]
        signed = ".".join(b64url(json.dumps(part).encode()) for part in parts)
        signature = openssl("dgst", "-sha256", "-sign", self.key, stdin=signed.encode())
        return f"{signed}.{b64url(integers(signature))}"
