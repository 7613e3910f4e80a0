# SPDX-License-Identifier: BSD-2-Clause
"""The main job on real requests: onboard two tenants, serve, refuse, limit, re-limit from psql, suspend.

On a terminal the stack stays up until interrupted; otherwise the demo ends by itself.
"""

import contextlib
import json
import signal
import socket
import sys
import threading
import time

import backend
import dedicated
import mesh
from stack import Stack, until
from tokens import Issuer

SHOP, BANK = "shop.example.com", "bank.example.com"


def say(text=""):
    print(text, flush=True)


def title(text):
    say()
    say(f"== {text}")


def tenant_body(name, host, port, issuer):
    return {
        "name": name,
        "hosts": [host],
        "issuers": [{"name": "main", "issuer": issuer.url, "audiences": ["api"], "algorithms": ["ES256"],
                     "consumer_claim": "sub", "jwks": issuer.jwks}],
        "keys": [{"consumer": "mobile", "scopes": ["orders:read"]}],
        "upstreams": [{"name": "orders", "endpoints": [{"address": "127.0.0.1", "port": port}]}],
        "routes": [{"name": "orders", "match": {"path": {"type": "prefix", "value": "/orders"}},
                    "auth": {"scopes": ["orders:read"]}, "backends": [{"upstream": "orders"}],
                    "websocket": True},
                   {"name": "status", "match": {"path": {"type": "exact", "value": "/status"}},
                    "auth": {"mode": "none"}, "backends": [{"upstream": "orders"}]}],
        "quotas": [{"name": "requests", "limit": 1000, "window": "60s", "burst": 10}],
    }


def onboard(stack, name, host, port, issuer):
    started = time.monotonic()
    status, body = stack.rest("POST", "/v1/tenants", tenant_body(name, host, port, issuer))
    if status != 201:
        raise SystemExit(f"demo: POST /v1/tenants answered {status}: {body}")
    stack.applied(name)
    say(f"POST /v1/tenants {name}: 201, served by the gateway {(time.monotonic() - started) * 1000:.0f} ms later; "
        f"its API key, shown once: {body['keys'][0]['key'][:12]}…")
    return body["keys"][0]["key"]


def show(stack, what, host, path, **headers):
    status, answer, body = stack.get(path, host, **headers)
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    if status == 200:
        note = f"tenant {document.get('tenant')}, consumer {document.get('consumer')}"
    else:
        kind = document.get("kind") or document.get("type", "").rsplit(":", 1)[-1]
        note = f"{kind}: {document.get('detail', '')}"
    limit = answer.get("RateLimit")
    say(f"{status}  {what:<44} {note}" + (f"   RateLimit: {limit}" if limit and status in (200, 429) else ""))
    return status


def exhaust(stack, host, key):
    """Sends until the quota refuses; bounded."""
    served = 0
    while served < 200:
        status, headers, _ = stack.get("/orders/1", host, X_API_Key=key)
        if status == 429:
            return served, headers
        served += 1
    raise SystemExit("demo: 200 requests at once were all served; the quota should have refused one")


def change_quota(stack, host, key):
    """Changes the limit in psql, and measures from the commit to the first request that is held to it."""
    seen = {}

    def watch():
        while "at" not in seen and not seen.get("stop"):
            _, headers, _ = stack.get("/orders/1", host, X_API_Key=key)
            if "q=4242" in headers.get("RateLimit-Policy", ""):
                seen["at"] = time.time()

    watcher = threading.Thread(target=watch)
    watcher.start()
    committed = float(stack.psql("SELECT FROM tiergate.set_quota('shop', requests => 4242, per => '1 minute', burst => 4000);\n"
                                 "SELECT extract(epoch FROM clock_timestamp());").splitlines()[-1])
    watcher.join(10)
    seen["stop"] = True
    if "at" not in seen:
        raise SystemExit("demo: the new limit was not enforced within 10 s")
    say("psql> SELECT tiergate.set_quota('shop', requests => 4242, per => '1 minute', burst => 4000);")
    say(f"from commit to the first request held to it: {max(0.0, seen['at'] - committed) * 1000:.1f} ms, no reload")
    say("audited in the same transaction:")
    say(stack.psql_table("SELECT at::time(3), db_role, action, object, name, old->>'requests' AS old,"
                         " new->>'requests' AS new FROM tiergate.audit"
                         " WHERE tenant = 'shop' AND object = 'quotas' ORDER BY id DESC LIMIT 1;"))


def open_websocket(stack, host, key):
    s = socket.create_connection(("127.0.0.1", stack.port), timeout=10)
    s.sendall(f"GET /orders/live HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n"
              "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += s.recv(4096)
    say(answer.split(b"\r\n", 1)[0].decode())
    return s


def suspend(stack, host, key):
    websocket = open_websocket(stack, host, key)
    say("psql> SELECT tiergate.suspend('bank', reason => 'unpaid');")
    committed = float(stack.psql("SELECT FROM tiergate.suspend('bank', reason => 'unpaid');\n"
                                 "SELECT extract(epoch FROM clock_timestamp());").splitlines()[-1])
    try:
        while websocket.recv(4096):
            pass
    except ConnectionResetError:
        pass
    say(f"the open WebSocket was closed {(time.time() - committed) * 1000:.0f} ms after the commit")
    show(stack, "bank, suspended", host, "/orders/1", X_API_Key=key)
    show(stack, "shop, unharmed", SHOP, "/status")


def own_gateways(stack, port, issuers, shop_key):
    """Two dedicated tenants beside each other, then shop gets a gateway of its own, under load."""
    gateways = []
    for name, host, plugin, parameters in (("corp", dedicated.CORP, "gzip", {"level": 5}),
                                           ("lab", dedicated.LAB, "security-headers", {})):
        gateway, key = dedicated.onboard(stack, say, tenant_body(name, host, port, issuers[name]), host)
        gateways.append(gateway)
        dedicated.choose_plugin(stack, gateway, plugin, parameters)
    dedicated.processes(stack, say, gateways)

    title("Promoted to the dedicated tier under load, with a WebSocket open")
    websocket = open_websocket(stack, SHOP, shop_key)
    dedicated.promote(stack, say, "shop", SHOP, shop_key, websocket)
    websocket.close()
    return gateways


def usage(stack):
    """The usage is reported each second: waits until the last request above is in."""
    query = "SELECT coalesce(sum(requests), 0) FROM tiergate.usage WHERE tenant = 'bank'"
    until("the usage report", lambda: int(stack.psql(query)) >= 5)
    say(stack.psql_table("SELECT * FROM tiergate.usage_summary ORDER BY tenant, route;"))
    say(stack.psql_table("SELECT tenant, quota, metric, \"limit\", per, used, remaining, throttled"
                         " FROM tiergate.quota_status ORDER BY tenant;"))


def main_job(stack, lives):
    """What lives then goes on with the stack."""
    port = backend.start()
    issuers = {name: Issuer(f"{stack.dir}/{name}.pem", f"https://id.{name}.example") for name in ("shop", "bank", "corp", "lab")}

    title("Two entry-tier tenants, onboarded over REST")
    shop_key = onboard(stack, "shop", SHOP, port, issuers["shop"])
    bank_key = onboard(stack, "bank", BANK, port, issuers["bank"])
    token = issuers["shop"].token("alice", scope="orders:read")

    title("Requests through the shared gateway")
    show(stack, "shop with its API key", SHOP, "/orders/1", X_API_Key=shop_key)
    show(stack, "shop with a token (ES256)", SHOP, "/orders/1", Authorization=f"Bearer {token}")
    show(stack, "shop, a route for everybody", SHOP, "/status")
    show(stack, "shop without a credential", SHOP, "/orders/1")
    show(stack, "shop with an expired token", SHOP, "/orders/1",
         Authorization="Bearer " + issuers["shop"].token("alice", lifetime=-600, scope="orders:read"))
    show(stack, "shop with a token that lacks the scope", SHOP, "/orders/1",
         Authorization="Bearer " + issuers["shop"].token("alice"))
    show(stack, "bank with shop's API key", BANK, "/orders/1", X_API_Key=shop_key)
    show(stack, "bank with shop's token", BANK, "/orders/1", Authorization=f"Bearer {token}")
    show(stack, "bank with a forged X-Tenant header", BANK, "/orders/1", X_API_Key=bank_key, X_Tenant="shop")
    show(stack, "an unknown host", "nobody.example.com", "/")

    title("Over quota, then re-limited from psql")
    served, headers = exhaust(stack, SHOP, shop_key)
    say(f"429  after {served} more requests at once          Retry-After: {headers['Retry-After']}   "
        f"RateLimit: {headers['RateLimit']}")
    change_quota(stack, SHOP, shop_key)

    title("Suspended, with a WebSocket open")
    suspend(stack, BANK, bank_key)

    title("Two dedicated tenants, each with a gateway and a plugin set of its own")
    gateways = own_gateways(stack, port, issuers, shop_key)

    title("The mesh of corp: who may call whom, where calls go, what flowed")
    call = mesh.show(lives, stack, say, gateways[0], dedicated.CORP)

    title("Usage, from psql")
    usage(stack)
    where_to_look(stack, call)


def where_to_look(stack, call):
    title("Where to look next")
    say(f"gateway    curl -H 'Host: {SHOP}' http://127.0.0.1:{stack.port}/status")
    say(f"metrics    curl http://127.0.0.1:{stack.admin_port}/metrics")
    say(f"REST       curl --unix-socket {stack.socket} http://tenantd/v1/tenants")
    say(f"psql       psql '{stack.database}' -c 'SELECT * FROM tiergate.manual'")
    if call:
        say(f"mesh       {call}")
        say(f"flows      curl -N --unix-socket {stack.socket} 'http://tenantd/v1/tenants/corp/flows?follow=1&limit=5'")
    say(f"logs       {stack.dir}/logs")
    say("docs       docs/psql.md, docs/flows/, docs/reference/")


def main():
    # of a terminal that is closed, too; and whoever started this may have had them ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stack, lives = Stack(), contextlib.ExitStack()
    try:
        stack.start()
        main_job(stack, lives)
        if sys.stdin.isatty() and sys.stdout.isatty():
            say()
            say("The stack stays up; interrupt (Ctrl-C) to end it.")
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        lives.close()
        dedicated.retire(stack)
        stack.stop()


if __name__ == "__main__":
    main()
