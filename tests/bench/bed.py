# SPDX-License-Identifier: BSD-2-Clause
"""The test bed: the real stack, filled with typical tenants, and credentials that go with them."""

import hashlib
import json
import os
import subprocess
import time

import jwt

import measure
from support import platform, postgres, process, tenantd, tokens

ISSUER = "https://id.bench.example"
SECRET = hashlib.sha256(b"bench").hexdigest()   # HMAC, as text of 64 bytes
ALGORITHMS = ("RS256", "ES256", "HS256")


def host(i):
    return f"t{i}.bench.example"


def api_key(i):
    return "tgk_" + hashlib.sha256(f"bench {i}".encode()).hexdigest()[:43]


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


def typical(i, port, limit=1_000_000):
    """One host, two routes, one issuer reference, two keys, two quotas, as issue budgets count it."""
    return {
        "name": f"t{i}", "hosts": [host(i)], "issuers": [{"ref": "bench"}],
        "keys": [{"consumer": "mobile", "sha256": digest(api_key(i))},
                 {"consumer": "web", "sha256": digest(api_key(i) + "-web")}],
        "upstreams": [{"name": "main", "endpoints": [{"address": "127.0.0.1", "port": port}]}],
        "routes": [{"name": "orders", "match": {"path": {"type": "prefix", "value": "/orders"}},
                    "backends": [{"upstream": "main"}]},
                   {"name": "all", "backends": [{"upstream": "main"}]}],
        "quotas": [{"name": "requests", "limit": limit, "window": "60s"},
                   {"name": "orders", "scope": "route", "route": "orders", "limit": limit, "window": "60s"}],
    }


class Keys:
    """Signing keys of the one platform issuer."""

    def __init__(self):
        self.keys = {alg: tokens.Key(alg, kid=alg, pin=True) for alg in ("RS256", "ES256")}

    def pem(self, alg):
        return self.keys[alg].pem().decode()

    def jwks(self, seal):
        secret = {"kty": "oct", "kid": "HS256", "alg": "HS256", "k_sealed": seal(SECRET)}
        return {"keys": [key.jwk() for key in self.keys.values()] + [secret]}

    def token(self, alg, i):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "api", "sub": f"user{i}", "iat": now, "exp": now + 86400, "scope": "orders:read"}
        return jwt.encode(claims, SECRET if alg == "HS256" else self.keys[alg].private, alg, headers={"kid": alg})


def write_requests(path, requests):
    """requests: of (host, target, header lines).  One request a line, for load.lua."""
    with open(path, "w", encoding="ascii") as out:
        for name, target, headers in requests:
            lines = "".join(f"{line}\\r\\n" for line in headers)
            out.write(f"GET {target} HTTP/1.1\\r\\nHost: {name}\\r\\nUser-Agent: bench\\r\\nAccept: */*\\r\\n{lines}\\r\\n\n")
    return path


class Bed:
    """PostgreSQL, tenantd, a backend, and any number of gateways."""

    def __init__(self, name, more="", backend_port=None):
        """more: further lines of tenantd's configuration."""
        self.more = more
        self.dir = process.folder(f"bench-{name}")
        self.processes = measure.Processes(str(self.dir / "logs"))
        self.backend_port = backend_port or measure.free_port()
        self.server = self.tenantd = self.rest = None
        self.gateways = []
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    def start(self):
        self.server = postgres.Server(self.dir / "postgres")
        self.database = self.server.database()
        tenantd.migrate(self.database)
        self.tenantd = tenantd.Tenantd(self.database, self.dir / "tenantd", self.more)
        self.rest = platform.Rest(self.tenantd.socket)

    def backend(self):
        """A backend until it is ended: measure.slices brings one of its own."""
        process = self.processes.spawn("backend", [measure.compiled("backend"), str(self.backend_port)],
                                       core=measure.LOAD_CORE)
        measure.wait_port(self.backend_port)
        return process

    def slices(self, targets, count, backend):
        """Load on targets by turns; the backend that they had until now is ended."""
        self.processes.end(backend)
        return measure.slices(targets, count, self.backend_port)

    def make_room(self):
        """The gateway's core is its own: database and tenantd, which usage reports keep busy, share the load's."""
        postmaster = int((self.dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        for pid in (postmaster, self.tenantd.process.pid):
            for each in measure.descendants(pid):
                measure.pin(each, measure.LOAD_CORE)

    def seal(self, secret):
        return subprocess.run([str(process.TENANTD), "seal", "--config", str(self.tenantd.config)], input=secret,
                              text=True, stdout=subprocess.PIPE, check=True).stdout.strip()

    def issuer(self, keys):
        """The platform issuer that every tenant refers to."""
        self.rest.call("PUT", "/v1/issuers/bench", {"issuer": ISSUER, "audiences": ["api"],
                                                    "algorithms": list(ALGORITHMS), "jwks": keys.jwks(self.seal)})

    def gateway(self, name, ready=True, **options):
        options = {"workers": 1, "connections": 4096, "keepalive": 256, "level": "notice", "zone": "64m",
                   "log": "access_log off;", **options}
        gateway = platform.Gateway(name, f"unix:{self.tenantd.socket}", self.tenantd.secret_key, **options)
        self.gateways.append(gateway)
        if ready:
            self.wait(gateway)
        return gateway

    def wait(self, gateway):
        """Until the gateway has acknowledged what the registry has now."""
        revision = self.database.revision()

        def observed():
            response = self.rest.request("GET", f"/v1/gateways/{gateway.name}")
            return response.status == 200 and (response.json().get("observedRevision") or 0) >= revision
        measure.until(observed, f"{gateway.name} to reach revision {revision}", 120, every=0.01)

    def import_tenants(self, numbers, **more):
        """Bulk import; seconds that it took."""
        body = "\n".join(json.dumps(typical(i, self.backend_port, **more)) for i in numbers).encode()
        started = time.monotonic()
        response = self.rest.request("POST", "/v1/import", body, {"Content-Type": "application/jsonl"})
        seconds = time.monotonic() - started
        failed = [line for line in response.text.splitlines() if '"status":201' not in line.replace(" ", "")]
        if response.status != 200 or failed:
            raise SystemExit(f"bench: import: {response.status} {failed[:3]}")
        return seconds

    def end(self):
        for gateway in self.gateways:
            gateway.stop()
        self.processes.end_all()
        if self.rest:
            self.rest.close()
        if self.tenantd:
            self.tenantd.stop()
        if self.server:
            self.server.stop()


def requests_with_keys(path, numbers):
    return write_requests(path, [(host(i), "/orders/1", [f"X-API-Key: {api_key(i)}"]) for i in numbers])


def core_of(pid):
    measure.pin(pid, measure.GATEWAY_CORE)
    return pid


def environment_line():
    with open("/proc/cpuinfo", encoding="ascii") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores, {model}, {os.uname().release}"
