# SPDX-License-Identifier: BSD-2-Clause
"""A whole platform: database, tenantd, gateways, a backend, and tenants on it."""

import itertools
import json

from . import process, wire
from .nginx import Gateway
from .poll import no_midnight, until

NUMBERS = itertools.count(1)
CALENDAR = ("day", "month")     # windows of quotas that begin anew at midnight


def upstream(*endpoints, name="main", **more):
    """An upstream as the REST API takes it."""
    return {"name": name, "endpoints": [
        {"address": "127.0.0.1", "port": e.port} for e in endpoints], **more}


def route(name="all", path="/", type="prefix", auth="none", upstream="main", match=None, **more):
    """A route; auth is a mode, or the whole object."""
    body = {"name": name,
            "match": {"path": {"type": type, "value": path}, **(match or {})},
            "auth": auth if isinstance(auth, dict) else {"mode": auth},
            "backends": [{"upstream": upstream, "weight": 1}], "retries": 0}
    body.update(more)
    return body


def quota(name="requests", limit=10, window="60s", **more):
    return {"name": name, "limit": limit, "window": window, **more}


class Refused(AssertionError):
    """The REST API did not answer with success."""

    def __init__(self, what, response):
        super().__init__(f"{what}: {response}")
        self.response = response


class Rest:
    """The REST API over one kept connection.  address: unix socket or (host, port)."""

    def __init__(self, address, token=None):
        self.address = address
        self.token = token
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def request(self, method, path, body=None, headers=()):
        """Any request; body is sent as JSON unless it is bytes."""
        pairs = [("Host", "localhost"), *dict(headers).items()]
        if self.token:
            pairs.append(("Authorization", f"Bearer {self.token}"))
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None and "content-type" not in {k.lower() for k, _ in pairs}:
            pairs.append(("Content-Type", "application/json"))
        fresh = self.connection is None
        if fresh:
            self.connection = wire.Connection(self.address, 30)
        try:
            response = self.connection.request(method, path, pairs, body)
        except (wire.Closed, OSError):
            self.close()
            if fresh:
                raise
            return self.request(method, path, body, headers)   # it was closed while idle
        if response.headers.get("connection", "").lower() == "close":
            self.close()
        return response

    def call(self, method, path, body=None, headers=()):
        """A request that must succeed; returns the response's document."""
        response = self.request(method, path, body, headers)
        if not 200 <= response.status < 300:
            raise Refused(f"{method} {path}", response)
        return response.json() if response.body else None


class Platform:
    def __init__(self, database, tenantd, backend, path):
        self.database = database
        self.tenantd = tenantd
        self.backend = backend
        self.path = path
        self.rest = Rest(tenantd.socket)
        self.gateways = []

    # --- gateways ---

    def gateway(self, name=None, ready=True, **options):
        """Starts another gateway; ready: waits until it has what the registry has."""
        name = name or f"gw-{next(NUMBERS)}"
        gateway = Gateway(name, f"unix:{self.tenantd.socket}", self.tenantd.secret_key,
                          path=process.folder(name), **options)
        self.gateways.append(gateway)
        if ready:
            self.wait(gateway=gateway)
        return gateway

    def retire(self, gateway):
        """Stops a gateway before the others; its logs must be clean, too."""
        gateway.stop()
        self.gateways.remove(gateway)
        assert not gateway.problems(), gateway.problems()

    def status(self, gateway):
        """What REST says of a gateway, with its applied revision as "revision"."""
        response = self.rest.request("GET", f"/v1/gateways/{gateway.name}")
        if response.status != 200:
            return {}
        status = response.json()
        return {**status, "revision": status["observedRevision"]}

    def wait(self, revision=None, gateway=None, timeout=30):
        """Waits until the gateway (default: all) has acknowledged a revision
        (default: the registry's newest)."""
        if revision is None:
            revision = self.database.revision() or 0
        for each in [gateway] if gateway else self.gateways:
            last = {}

            def applied():
                last.update(self.status(each))
                return last.get("state") == "live" and last.get("revision", -1) >= revision
            until(applied, lambda: f"revision {revision} on {each.name}: {last}\n"
                  + each.log.text[-3000:], timeout)
        return revision

    # --- changes ---

    def change(self, method, path, body=None, headers=()):
        """A change over REST that every gateway has applied when this returns."""
        document = self.rest.call(method, path, body, headers)
        self.wait()
        return document

    def psql(self, script, **more):
        """A change from psql that every gateway has applied when this returns."""
        status, output = self.database.psql(script, **more)
        assert status == 0, output
        self.wait()
        return output

    def onboard(self, name=None, routes=None, upstreams=None, hosts=None, keys=None, wait=True,
                gateway=None, **more):
        """Creates a tenant.  Default: one host, everything to the backend without
        authentication, one API key of the consumer "mobile"."""
        name = name or f"t{next(NUMBERS)}"
        if any(quota.get("window") in CALENDAR for quota in more.get("quotas", ())):
            no_midnight()
        body = {"name": name,
                "hosts": [f"{name}.example.com"] if hosts is None else hosts,
                "upstreams": [upstream(self.backend.main)] if upstreams is None else upstreams,
                "routes": [route()] if routes is None else routes,
                "keys": [{"consumer": "mobile"}] if keys is None else keys,
                **more}
        document = self.rest.call("POST", "/v1/tenants", body)
        tenant = Tenant(self, name, document, gateway)
        if wait:
            self.wait()
        return tenant

    # --- end ---

    def stop(self):
        self.rest.close()
        for gateway in self.gateways:
            gateway.stop()
        self.tenantd.stop()

    def problems(self):
        found = [f"tenantd: {line}" for line in self.tenantd.log.bad()]
        for gateway in self.gateways:
            found += [f"{gateway.name}: {line}" for line in gateway.problems()]
        return found


class Tenant:
    """A tenant, and requests to it."""

    def __init__(self, platform, name, document, gateway=None):
        self.platform = platform
        self.name = name
        self.document = document
        self.gateway = gateway or (platform.gateways[0] if platform.gateways else None)
        self.host = next((host for host in document["hosts"] if host[0] != "*"), None)
        self.keys = [key.get("key") for key in document.get("keys", [])]

    @property
    def key(self):
        return self.keys[0]

    @property
    def path(self):
        return f"/v1/tenants/{self.name}"

    # --- requests to the gateway ---

    def headers(self, headers=(), key=None, token=None):
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        if "host" not in {name.lower() for name, _ in pairs}:
            pairs.insert(0, ("Host", self.host))
        if key:
            pairs.append(("X-API-Key", key))
        if token:
            pairs.append(("Authorization", f"Bearer {token}"))
        return pairs

    def request(self, method, target, headers=(), body=None, key=None, token=None, **more):
        return self.gateway.request(method, target, self.headers(headers, key, token), body,
                                    **more)

    def get(self, target="/", headers=(), **more):
        return self.request("GET", target, headers, **more)

    def post(self, target="/", body=b"", headers=(), **more):
        return self.request("POST", target, headers, body, **more)

    def reached(self, target="/", headers=(), method="GET", **more):
        """A request that must be served; what the backend got of it."""
        response = self.request(method, target, headers, **more)
        assert response.status == 200, response
        return Reached(response.json())

    # --- changes ---

    def put(self, collection, name, body, **headers):
        body = {key: value for key, value in body.items() if key != "name"}
        if body.get("window") in CALENDAR:
            no_midnight()
        return self.platform.change("PUT", f"{self.path}/{collection}/{name}", body, headers)

    def delete(self, collection, name):
        return self.platform.change("DELETE", f"{self.path}/{collection}/{name}")

    def suspend(self, reason="unpaid"):
        return self.platform.change("POST", f"{self.path}/suspend", {"reason": reason})

    def resume(self):
        return self.platform.change("POST", f"{self.path}/resume")

    def new_key(self, consumer="mobile", **more):
        """Makes an API key; the answer with its secret."""
        return self.platform.change("POST", f"{self.path}/keys", {"consumer": consumer, **more})


class Reached:
    """What a request looked like to the backend."""

    def __init__(self, document):
        self.method = document["method"]
        self.target = document["target"]
        self.pairs = [tuple(pair) for pair in document["headers"]]
        self.headers = wire.Headers(self.pairs)
        self.body = document["body"]
        self.port = document["port"]
        self.connection = document["connection"]
        self.version = document["version"]
