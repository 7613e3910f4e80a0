# SPDX-License-Identifier: BSD-2-Clause
"""What an agent makes of a stream that is torn, hostile, or of another view; a fake tenantd says it."""

import hashlib
import json
import socket
import threading

import pytest

from support.actor import Actor
from support.node import Cgroup, cgroup_root, until
from support.site import Agent, process
from support.stream import REGISTRY, FakeTenantd, bookmark, put
from support.undo import Undo

ORDERS, SHOP, WEB = "10.77.0.1", "10.77.0.2", "10.77.0.3"
VIRTUAL = "10.96.0.1"


def tenant(number=1, name="acme", revision=2, **more):
    return put("mesh_tenant", name, number, revision, **{"number": number, "policies": [], "defaults": {}, **more})


def service(revision=5, port=8080, **more):
    return put("mesh_service", "acme/orders", 11, revision, **{
        "tenant": "acme", "tenant_number": 1, "number": 11, "addresses": [VIRTUAL], "ports": [{"port": 80, "protocol": "tcp"}],
        "endpoints": [{"id": 1, "address": ORDERS, "port": port, "service_port": 80, "weight": 100, "healthy": True}], **more})


def workload(name, address, cgroup, tenant="acme", number=1, service=11, revision=4, id=0):
    return put("mesh_workload", f"{tenant}/{name}", id or 100 + service, revision, tenant=tenant, tenant_number=number,
               service="any", service_number=service, node="a", cgroup=str(cgroup), addresses=[address])


class Stage:
    """An agent that listens to a fake tenantd; actors of two tenants."""

    def __init__(self, path, base, netns, name):
        self.path, self.netns, self.root = path, netns, base.child("mesh")
        self.pins = f"/sys/fs/bpf/{name}-stream"
        self.fake = FakeTenantd(str(path / "fake.sock"))
        self.cgroups = {name: self.root.child(name) for name in ("orders", "shop", "web")}
        self.actors = {}
        for name, address in (("orders", ORDERS), ("shop", SHOP), ("web", WEB)):
            self.actors[name] = Actor(self.cgroups[name], netns)
            self.actors[name].live_at(address)
        self.actors["orders"].listen("l", ORDERS, 8080)
        self.actors["orders"].listen("m", ORDERS, 8081)
        self.agent = Agent(self, registry=f"unix:{self.fake.address}")

    def everything(self):
        below = self.root.path.relative_to(cgroup_root())
        return [
            put("mesh_agent", "node-a", 1, 1, node="a", tenants="*"),
            put("mesh_node", "a", 1, 1, addresses=["10.78.0.1"], workload_nets=[]),
            tenant(), tenant(2, "beta"),
            workload("orders", ORDERS, below / "orders"), workload("shop", SHOP, below / "shop", service=12),
            workload("web", WEB, below / "web", "beta", 2, 21), service()]

    def holds(self, port=8080):
        """The state that the first list made is in force."""
        assert self.actors["shop"].connect("c", VIRTUAL, 80) == (VIRTUAL, 80)
        self.actors["orders"].accept("a", "l" if port == 8080 else "m")
        assert self.actors["web"].connect("d", ORDERS, port) == "EPERM"

    def ack(self, revision):
        return until(lambda: next((ack for ack in self.fake.acks() if ack["revision"] == revision), None),
                     f"an ack of {revision}: {self.fake.acks()[-1:]}")


    def end(self):
        undo = Undo()
        undo.add("fake tenantd", self.fake.end)
        undo.add("agent", self.agent.end)
        for name, actor in self.actors.items():
            undo.add(f"actor {name}", actor.end)
        undo.run()


@pytest.fixture(scope="module")
def stage(namespaces):
    name = f"{namespaces[0].name.removesuffix('-a')}-agent-stream"
    path, undo = process.folder("agent_stream"), Undo()
    try:
        base = Cgroup(cgroup_root() / name)
        undo.add("cgroup", base.remove)
        stage = Stage(path, base, namespaces[0], name)
        undo.add("stage", stage.end)
        stage.agent.start(wait=False)
        assert stage.fake.streams(1) == "/v1/watch?since=0&for=node-a"
        stage.fake.say(*stage.everything(), bookmark(10, complete=True))
        stage.ack(10)
        yield stage
    finally:
        undo.run()


def test_state_of_a_list(stage):
    ack = stage.ack(10)
    assert ack["registry"] == REGISTRY and ack["state"] == "live" and ack["rejected"] == []
    assert ack["mesh"]["workloads"] == 3 and len(ack["boot"]) == 32
    fill = {row["map"]: row for row in ack["mesh"]["fill"]}
    assert fill["tg_services"]["used"] == 1 and fill["tg_services"]["size"] == 1024
    stage.holds()


BAD_LINES = [b"not json", b"[]", b"{}", b'"PUT"', b'{"type":"PUT"}', b'{"type":"MOVE","revision":3}', b"\x00\xff",
             b'{"type":"PUT","kind":"mesh_service","name":"acme/orders","revision":12}',
             b'{"type":"DELETE","kind":"mesh_service","name":"acme/orders","id":-1,"revision":12}',
             b'{"type":"BOOKMARK","revision":-3}', b'{"type":"BOOKMARK","revision":11,"revision":12}',
             b'{"type":"DELETE","kind":"mesh_service","name":"' + b"x" * 200 + b'","id":1,"revision":12}',
             b"[" * 100000, b"x" * (4 << 20) + b"xx"]


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_voids_its_batch(stage, line):
    """Nothing of it is applied; the stream begins again after the last BOOKMARK."""
    seen, mark = len(stage.fake.watches), stage.agent.log.mark()
    stage.fake.say({"type": "DELETE", "kind": "mesh_tenant", "name": "acme", "id": 1, "revision": 11}, line)
    assert stage.fake.streams(seen + 1) == f"/v1/watch?since=10&for=node-a&registry={REGISTRY}"
    stage.fake.say(bookmark(10))
    stage.agent.wait("live at revision 10", mark)
    assert "stream is refused, and its batch" in stage.agent.log.since(mark) or "too long" in stage.agent.log.since(mark)
    stage.holds()


def test_a_torn_batch_is_void(stage):
    seen = len(stage.fake.watches)
    stage.fake.say({"type": "DELETE", "kind": "mesh_tenant", "name": "acme", "id": 1, "revision": 11}, service(11, 8081))
    stage.fake.cut()
    assert "since=10" in stage.fake.streams(seen + 1)
    stage.fake.say(bookmark(10))
    stage.holds()


def with_(line, **more):
    return {**line, "object": {**line["object"], **more}}


BAD_OBJECTS = [
    with_(service(11), number=0), with_(service(11), number=1 << 31), with_(service(11), number="11"),
    with_(service(11), addresses=["10.96.0.0/24"]), with_(service(11), addresses="10.96.0.1"), with_(service(11), addresses=[1]),
    with_(service(11), ports=[{"port": 0}]), with_(service(11), ports=[{"port": 80, "protocol": "sctp"}]),
    with_(service(11), ports=[{"port": p} for p in range(1, 18)]), with_(service(11), endpoints={}),
    with_(service(11), endpoints=[{"id": 1, "address": "10.77.0.1", "port": 70000}]),
    with_(service(11), endpoints=[{"id": 1, "address": "somewhere", "port": 80}]),
    with_(service(11), endpoints=[{"id": 1, "address": ORDERS, "port": 80, "weight": -1}]),
    with_(service(11), health={"type": "exec"}), with_(service(11), health={"type": "http", "path": "/a b\r\nX: y"}),
    with_(service(11), limits={"burst": -1}), with_(service(11), tenant="../acme"), with_(service(11), id=12),
    with_(tenant(revision=11), policies=[{}]), with_(tenant(revision=11), policies="all"),
    with_(tenant(revision=11), defaults={"from_other": "yes"}),
    with_(tenant(revision=11), policies=[{"name": "p", "number": 1, "action": "shrug", "from": {}, "to": {}}]),
    with_(tenant(revision=11), policies=[{"name": "p", "number": 1, "action": "allow", "from": {"cidr": "10.0.0.1/8"}, "to": {}}]),
    with_(tenant(revision=11), policies=[{"name": "p", "number": 1, "action": "allow", "from": {"tenant": 1, "service": 2}, "to": {}}]),
    with_(tenant(revision=11), policies=[{"name": "p", "number": 1, "action": "allow", "from": {}, "to": {}, "ports": [99999]}]),
    with_(workload("shop", SHOP, "../../x", service=12, revision=11)),
    with_(workload("shop", SHOP, "x/../..", service=12, revision=11)),
    with_(workload("shop", SHOP, "/", service=12, revision=11)),
    with_(workload("shop", SHOP, "x", service=12, revision=11), pod_uid="../../../../etc"),
    {"type": "PUT", "kind": "mesh_service", "name": "acme/orders", "id": 11, "revision": 11},
]


@pytest.mark.parametrize("line", BAD_OBJECTS, ids=range(len(BAD_OBJECTS)))
def test_a_bad_object_stays_as_it_was(stage, line):
    """It is refused by itself, told with the reason, and gone from the list with the next good one."""
    stage.fake.posts.clear()
    stage.fake.say(line, bookmark(11))
    rejected = stage.ack(11)["rejected"]
    assert [(r["kind"], r["name"], r["revision"]) for r in rejected] == [(line["kind"], line["name"], 11)]
    assert rejected[0]["reason"]
    stage.holds()
    stage.fake.posts.clear()
    good = next(good for good in stage.everything() if (good["kind"], good["name"]) == (line["kind"], line["name"]))
    stage.fake.say(good, bookmark(10))
    assert stage.ack(10)["rejected"] == []
    stage.holds()


def test_unknown_kinds_and_members_are_passed_over(stage):
    stage.fake.posts.clear()
    stage.fake.say({"type": "PUT", "kind": "mesh_wish", "name": "x", "id": 1, "revision": 10, "object": {}},
                   with_(service(10), colour="blue"), bookmark(12))
    assert stage.ack(12)["rejected"] == []
    stage.fake.say(bookmark(10))
    stage.holds()


def test_too_much_for_the_kernel(stage):
    """More than a map takes: the object is refused, what was there goes on."""
    stage.fake.posts.clear()
    many = [{"id": n, "address": f"10.88.{n // 250}.{n % 250 + 1}", "port": 80, "weight": 1} for n in range(9000)]
    stage.fake.say(with_(service(11), endpoints=many), bookmark(11))
    rejected = stage.ack(11)["rejected"]
    assert len(rejected) == 1 and "full" in rejected[0]["reason"]
    stage.holds()
    stage.fake.posts.clear()
    stage.fake.say(service(), bookmark(10))
    assert stage.ack(10)["rejected"] == []


def test_an_endpoint_goes_to_another_tenant(stage):
    """In one batch, whichever line comes first."""
    theirs = put("mesh_service", "beta/web", 21, 11, tenant="beta", tenant_number=2, number=21, addresses=["10.96.0.2"],
                 ports=[{"port": 80, "protocol": "tcp"}], endpoints=[{"id": 9, "address": ORDERS, "port": 8080, "service_port": 80}])
    stage.fake.posts.clear()
    stage.fake.say(theirs, service(11, 8081), bookmark(11))
    assert stage.ack(11)["rejected"] == []
    stage.holds(8081)
    stage.fake.posts.clear()
    stage.fake.say({"type": "DELETE", "kind": "mesh_service", "name": "beta/web", "id": 21, "revision": 12}, service(12), bookmark(10))
    assert stage.ack(10)["rejected"] == []
    stage.holds()


def test_a_workload_changes_its_name(stage):
    """The cgroup and address are the new one's before the old one goes, so at no moment nobody's."""
    below = stage.root.path.relative_to(cgroup_root())
    old, new = workload("web", WEB, below / "web", "beta", 2, 21), workload("web2", WEB, below / "web", "beta", 2, 21, 11, 222)
    for gone, come, revision in ((old, new, 11), (new, old, 10)):
        stage.fake.posts.clear()
        stage.fake.say({key: gone[key] for key in ("kind", "name", "id")} | {"type": "DELETE", "revision": 11}, come,
                       bookmark(revision))
        assert stage.ack(revision)["mesh"]["workloads"] == 3
        stage.holds()


def checked(stage, healthy):
    """What the agent has reported last of each endpoint, once that is as wanted."""
    def told():
        last = {}
        for path, body in list(stage.fake.posts):
            if path == "/v1/gateways/node-a/mesh":
                last |= {entry["endpoint"]: entry for entry in body["health"]}
        return last if {number: entry["healthy"] for number, entry in last.items()} == healthy else None
    return until(told, lambda: f"{healthy}: {[p for p in stage.fake.posts if p[0].endswith('/mesh')][-3:]}")


UNFINISHED = b"HTTP/1.1 2"


class Web(threading.Thread):
    """An HTTP server in the agent's network that answers as it is told."""

    def __init__(self, netns, address, port):
        super().__init__(daemon=True)
        self.answer, self.seen, self.netns = b"HTTP/1.1 200 OK\r\n\r\n", [], netns
        ready = threading.Event()
        self.run = lambda: self.serve(address, port, ready)
        self.start()
        assert ready.wait(10)

    def serve(self, address, port, ready):
        self.netns.enter()                      # of this thread alone
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, port), family=family) as listener:
            ready.set()
            while self.answer is not None:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(2)
                    try:
                        self.seen.append(connection.recv(4096))
                        connection.sendall(self.answer or b"")
                        if self.answer == UNFINISHED:
                            connection.recv(1)          # until the other end has enough
                    except OSError:
                        pass


CHECK = {"interval_ms": 50, "timeout_ms": 300, "rise": 2, "fall": 2}


def test_health_by_tcp(stage):
    """rise and fall; only endpoints of this node; all of it again with each stream."""
    stage.fake.posts.clear()
    endpoints = [{"id": 1, "address": ORDERS, "port": 8080, "node": "a"}, {"id": 2, "address": ORDERS, "port": 8089, "node": "a"},
                 {"id": 3, "address": ORDERS, "port": 8088, "node": "b"}, {"id": 4, "address": ORDERS, "port": 8087}]
    stage.fake.say(with_(service(11), endpoints=endpoints, health={"type": "tcp", **CHECK}), bookmark(11))
    told = checked(stage, {1: True, 2: False})
    assert "refused" in told[2]["reason"]
    stage.actors["orders"].listen("late", ORDERS, 8089)
    checked(stage, {1: True, 2: True})
    stage.actors["orders"].close("late")
    checked(stage, {1: True, 2: False})
    seen = len(stage.fake.watches)
    stage.fake.posts.clear()
    stage.fake.cut()
    stage.fake.streams(seen + 1)
    stage.fake.say(bookmark(11))
    checked(stage, {1: True, 2: False})


def test_health_by_ipv6(stage):
    web = Web(stage.netns, "fd77::1", 8085)
    stage.fake.posts.clear()
    endpoints = [{"id": 6, "address": "fd77::1", "port": 8085, "node": "a"}, {"id": 7, "address": "fd77::1", "port": 8084, "node": "a"}]
    stage.fake.say(with_(service(11), addresses=[VIRTUAL, "fd96::1"], endpoints=endpoints,
                         health={"type": "http", "path": "/", **CHECK}), bookmark(11))
    checked(stage, {6: True, 7: False})
    assert web.seen[0].startswith(b"GET / HTTP/1.1\r\nHost: [fd77::1]\r\n")
    web.answer = None
    stage.fake.posts.clear()
    stage.fake.say(service(), bookmark(10))
    stage.ack(10)
    stage.holds()


def test_health_by_http(stage):
    """2xx and 3xx are good; what is none, comes late or is another status is not."""
    web = Web(stage.netns, ORDERS, 8086)
    stage.fake.posts.clear()
    health = {"type": "http", "path": "/healthz?deep=1", **CHECK}
    stage.fake.say(with_(service(11), endpoints=[{"id": 5, "address": ORDERS, "port": 8086, "node": "a"}], health=health),
                   bookmark(11))
    checked(stage, {5: True})
    assert web.seen[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\nHost: 10.77.0.1\r\n")
    for answer, why in ((b"HTTP/1.1 500 No\r\n\r\n", "status 500"), (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"), (b"", "closed"),
                        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"), (UNFINISHED, "no answer in time")):
        web.answer = answer
        assert why in checked(stage, {5: False})[5]["reason"]
        web.answer = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
        checked(stage, {5: True})
    web.answer = None
    stage.fake.posts.clear()
    stage.fake.say(service(), bookmark(10))
    stage.ack(10)
    stage.holds()


def test_gone(stage):
    """410: everything is listed anew; what the list does not name goes."""
    seen, mark = len(stage.fake.watches), stage.agent.log.mark()
    stage.fake.answer = b"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\n{}"
    stage.fake.cut()
    stage.fake.streams(seen + 1)
    stage.agent.wait("everything is listed anew", mark)
    until(lambda: "since=0" in stage.fake.watches[-1], "a list")
    stage.fake.posts.clear()
    stage.fake.say(*[line for line in stage.everything() if line["name"] != "acme/orders" or line["kind"] != "mesh_service"],
                   bookmark(20, complete=True))
    stage.ack(20)
    assert stage.actors["shop"].connect("c", VIRTUAL, 80, timeout=0.2) != (VIRTUAL, 80)
    stage.fake.posts.clear()
    stage.fake.say(service(), bookmark(10))
    stage.ack(10)
    stage.holds()


def test_silence(stage):
    """No line for five seconds: the stream is begun anew."""
    seen, stage.fake.quiet = len(stage.fake.watches), True
    assert "since=10" in stage.fake.streams(seen + 1)
    stage.fake.quiet = False
    stage.fake.say(bookmark(10))
    stage.holds()


def test_hostile_snapshot(stage):
    """Sealed as it should be, but with lines that are none: it is not used."""
    stage.agent.stop()
    file = stage.agent.state / "registry.jsonl"
    lines = [json.dumps({"tiergate_mesh": 1, "registry": REGISTRY, "node": "a"}), json.dumps(tenant()), "nonsense",
             json.dumps(bookmark(99))]
    text = "".join(line + "\n" for line in lines)
    file.write_text(text + "#" + hashlib.sha256(text.encode()).hexdigest() + "\n")
    seen = len(stage.fake.watches)
    stage.agent.start(wait=False)
    assert "since=0" in stage.fake.streams(seen + 1)
    assert "is refused" in stage.agent.log.since(stage.agent.mark)
    stage.holds()                                  # the kernel goes on with what it had
    stage.fake.posts.clear()
    stage.fake.say(*stage.everything(), bookmark(10, complete=True))
    stage.ack(10)
    stage.holds()
