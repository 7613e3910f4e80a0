# SPDX-License-Identifier: BSD-2-Clause
"""The dedicated tier: gateways of their own, each with its plugin set, and a promotion under load."""

import glob
import http.client
import os
import signal
import socket
import subprocess
import threading
import time

from stack import until

CORP, LAB = "corp.example.com", "lab.example.com"
LOADERS = 4         # clients during the promotion


class Gateway:
    """A tenant's own gateway, as the API shows it."""

    def __init__(self, stack, tenant):
        self.stack, self.tenant, self.port, self.pid = stack, tenant, None, None

    def read(self):
        status, body = self.stack.rest("GET", f"/v1/tenants/{self.tenant}/gateway")
        if status != 200:
            return {}
        self.port, self.pid = body.get("port"), body.get("pid")
        return body

    def ready(self):
        return self.read().get("phase") == "ready"

    def get(self, path, host, **headers):
        return self.stack.get(path, host, self.port, **headers)


def onboard(stack, say, body, host):
    """POST, then requests to its own gateway until the first that is authenticated and served."""
    started = time.monotonic()
    status, answer = stack.rest("POST", "/v1/tenants", {**body, "tier": "dedicated"})
    if status != 201:
        raise SystemExit(f"demo: POST /v1/tenants answered {status}: {answer}")
    key, gateway = answer["keys"][0]["key"], Gateway(stack, body["name"])

    def served():
        if gateway.port is None:
            gateway.read()
        return gateway.port and stack.answers(lambda: gateway.get("/orders/1", host, X_API_Key=key)[0] == 200)
    until(f"the gateway of {body['name']}", served)
    say(f"POST /v1/tenants {body['name']}: first authenticated 200 through its own gateway after "
        f"{(time.monotonic() - started) * 1000:.0f} ms (127.0.0.1:{gateway.port})")
    return gateway, key


def choose_plugin(stack, gateway, plugin, parameters):
    """Waits until the gateway runs with the new set."""
    status, answer = stack.rest("PUT", f"/v1/tenants/{gateway.tenant}/plugins/{plugin}", {"parameters": parameters})
    if status not in (200, 201):
        raise SystemExit(f"demo: plugin {plugin} of {gateway.tenant}: {status} {answer}")

    def rolled():
        state = gateway.read()
        return state.get("phase") == "ready" and state.get("observedGeneration") == state.get("generation")
    until(f"the plugins of {gateway.tenant}", rolled)


def processes(stack, say, gateways):
    for gateway in gateways:
        gateway.ready()
        with open(f"/proc/{gateway.pid}/task/{gateway.pid}/children", encoding="ascii") as f:
            workers = f.read().split()
        say(f"{gateway.tenant}: master {gateway.pid}, worker {' '.join(workers)}, "
            f"prefix {os.path.relpath(os.readlink(f'/proc/{gateway.pid}/cwd'))}")
    say(stack.psql_table("SELECT gateway, tenant, phase, address, plugins FROM tiergate.gateway_status"
                         " WHERE tenant IS NOT NULL ORDER BY tenant;"))


class Load(threading.Thread):
    """One client with one connection that asks without pause and counts what was not 200."""

    def __init__(self, stack, host, key):
        super().__init__()
        self.stack, self.headers = stack, {"Host": host, "X-API-Key": key}
        self.requests, self.failed, self.ended = 0, 0, False
        self.places = set()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=10)
        while not self.ended:
            try:
                connection.request("GET", "/orders/1", headers=self.headers)
                response = connection.getresponse()
                response.read()
                self.failed += response.status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
            self.requests += 1
        connection.close()


def placed(stack, tenant, where):
    return stack.psql(f"SELECT placement FROM tiergate.tenants WHERE name = '{tenant}'") == where


def promote(stack, say, tenant, host, key, websocket):
    clients = [Load(stack, host, key) for _ in range(LOADERS)]
    for client in clients:
        client.start()
    try:
        until("load", lambda: all(client.requests > 50 for client in clients))
        say(f"psql> SELECT tiergate.set_tier('{tenant}', 'dedicated');")
        started = time.monotonic()
        stack.psql(f"SELECT FROM tiergate.set_tier('{tenant}', 'dedicated');")
        until("the promotion", lambda: placed(stack, tenant, "dedicated"))
        took = time.monotonic() - started
        before = sum(client.requests for client in clients)
        until("requests after it", lambda: sum(client.requests for client in clients) > before + 200)
    finally:
        for client in clients:
            client.ended = True
        for client in clients:
            client.join()
    say(f"moved to its own gateway after {took * 1000:.0f} ms; requests during the move: "
        f"{sum(client.requests for client in clients)}, failed: {sum(client.failed for client in clients)}")
    say("the WebSocket that was open before is " + ("still open" if websocket_open(websocket) else "closed"))
    say(stack.psql_table(f"SELECT at::time(3), phase, reason, message FROM tiergate.gateway_log WHERE tenant = '{tenant}'"
                         " ORDER BY at;"))


def websocket_open(websocket):
    websocket.settimeout(0.05)
    try:
        return websocket.recv(4096) != b""
    except socket.timeout:
        return True
    except OSError:
        return False


def retire(stack):
    """Deletes the dedicated tenants and waits until nothing of their gateways is left; a gateway that tenantd
    cannot end any more, since it has failed itself, is ended here."""
    try:
        for tenant in stack.psql("SELECT tenant FROM tiergate.instances").split():
            stack.psql(f"SELECT tiergate.delete_tenant('{tenant}')")
        until("the gateways to go", lambda: stack.psql("SELECT count(*) FROM tiergate.instances") == "0")
    except (SystemExit, subprocess.CalledProcessError, OSError):
        for file in glob.glob(f"{stack.dir}/instances/*/nginx.pid"):
            end_master(os.path.dirname(file), file)


def end_master(prefix, file):
    try:
        with open(file, encoding="ascii") as f:
            pid = int(f.read())
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            ours = prefix.encode() in f.read()
        if ours:
            os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        pass
