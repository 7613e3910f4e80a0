# SPDX-License-Identifier: BSD-2-Clause
"""A gateway of one's own: from the tenant's creation to its removal."""

import contextlib
import json
import os
import pathlib
import pwd
import random
import re
import signal
import socket
import threading
import time

import pytest

from conftest import _drop as drop
from support import process, wire
from support.platform import Platform, Tenant, route, upstream
from support.poll import until
from support.tenantd import Tenantd
from support.tokens import Issuer

MODULES = process.MODULE.parent
USER = pwd.getpwuid(os.geteuid()).pw_name

PROVISIONER = """\
[provisioner]
driver = process
node = {node}
directory = {directory}
nginx = {nginx}
modules = {modules}
user = {user}
ports = {ports}
cgroup = {cgroup}
backoff_min = 50ms
backoff_max = 400ms
poll = 200ms
drain_timeout = 5s
{more}
"""


# below it each gateway has a cgroup; of this run alone
CGROUP = f"tiergate-tests-{os.getpid()}"

# a part of them for each platform, so that runs beside each other rarely meet
PORTS = [f"{low}-{low + 249}" for low in range(21000, 29000, 250)]


def provisioner(directory, node="n1", ports=None, nginx=process.NGINX, user=USER, more=""):
    ports = ports or random.choice(PORTS)
    return PROVISIONER.format(node=node, directory=directory, nginx=nginx, modules=MODULES,
                              user=user, ports=ports, cgroup=CGROUP, more=more)


def processes(prefix):
    """Everything that works in a prefix."""
    found, prefix = [], prefix.resolve()
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == prefix:
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def cgroup(pid):
    """The directory of a process's cgroup of its own, if it has one."""
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith(f"0::/{CGROUP}/")), None)
    return pathlib.Path(process.cgroup_mounts()[0] + path) if path else None


class Instance:
    """The gateway of a tenant, seen from outside."""

    def __init__(self, platform, tenant):
        self.platform = platform
        self.tenant = tenant
        self.id = platform.database.one("SELECT id FROM tiergate.tenants WHERE name = %s", [tenant.name])
        self.name = f"dedicated-{self.id}"
        self.prefix = platform.instances / self.name

    @property
    def row(self):
        columns = ["phase", "reason", "message", "port", "pid", "generation", "observed_generation",
                   "conditions", "restarts", "attempts", "desired"]
        rows = self.platform.database.execute(
            f"SELECT {', '.join(columns)} FROM tiergate.instances WHERE name = %s", [self.name])
        return dict(zip(columns, rows[0])) if rows else None

    @property
    def address(self):
        return ("127.0.0.1", self.row["port"])

    def condition(self, kind):
        return next((c for c in self.row["conditions"] if c["type"] == kind), None)

    def phase(self, phase, timeout=30):
        return until(lambda: self.row and self.row["phase"] == phase and self.row,
                     lambda: f"{self.name} to be {phase}: {self.row}\n{self.platform.tenantd.log.text[-4000:]}",
                     timeout)

    def settled(self, timeout=30):
        """Ready, and at the generation that is wanted."""
        return until(lambda: self.row["phase"] == "ready"
                     and self.row["generation"] == self.row["observed_generation"] and self.row,
                     lambda: f"{self.name}: {self.row}\n{self.platform.tenantd.log.text[-4000:]}", timeout)

    def get(self, target="/", headers=(), key=None):
        return wire.request(self.address, "GET", target, self.tenant.headers(headers, key))

    def serves(self, timeout=30):
        """Waits for the first 200."""
        def served():
            try:
                return self.get(key=self.tenant.keys and self.tenant.key or None).status == 200
            except (OSError, wire.Closed, TypeError):
                return False
        until(served, lambda: f"{self.name} to serve: {self.row}\n{self.platform.tenantd.log.text[-4000:]}",
              timeout, every=0.002)

    @property
    def processes(self):
        """Everything that works in its prefix."""
        return processes(self.prefix)


class Dedicated(Platform):
    """A platform whose tenantd runs gateways."""

    expected = ()       # parts of alarming lines that a test provokes

    def __init__(self, database, backend, path, **more):
        self.instances = path / "i"
        tenantd = Tenantd(database, path / "tenantd", provisioner(self.instances, **more))
        super().__init__(database, tenantd, backend, path)

    def dedicated(self, name=None, **more):
        """Onboards a tenant with a gateway of its own; does not wait for it."""
        tenant = self.onboard(name, tier="dedicated", wait=False, **more)
        return Instance(self, tenant)

    def stop(self):
        super().stop()
        for prefix in self.instances.glob("dedicated-*") if self.instances.exists() else ():
            for pid in processes(prefix):
                group = cgroup(pid)
                os.kill(pid, signal.SIGKILL)
                process.reap(pid)
                if group and not (group / "cgroup.procs").read_text():
                    group.rmdir()
        process.remove_cgroup(CGROUP)

    def problems(self):
        found = super().problems()
        for log in self.instances.glob("dedicated-*/logs/error.log"):
            found += [f"{log.parent.parent.name}: {line}" for line in process.Log(log).bad()
                      if not any(text in line for text in self.expected)]
        return found


@pytest.fixture(scope="module")
def platform(request, database, backend):
    platform = Dedicated(database, backend, process.folder("dedicated"))
    yield platform
    platform.stop()
    problems = platform.problems()
    drop(platform.path, keep=problems or request.session.testsfailed)
    assert not problems, "\n".join(problems)


KEYED = {"routes": [route(auth="required")]}


class Load(threading.Thread):
    """Requests one after the other, each on a connection of its own or, kept, on
    one that is opened anew when the server closes it between two requests."""

    def __init__(self, instance, kept=False):
        super().__init__(daemon=True)
        self.address, self.headers = instance.address, instance.tenant.headers(key=instance.tenant.key)
        self.kept = kept
        self.done = threading.Event()
        self.count, self.failed = 0, []
        self.start()

    def run(self):
        connection = None
        while not self.done.is_set():
            try:
                connection = connection if self.kept and connection else wire.Connection(self.address, 15)
                response = connection.request("GET", "/load", self.headers)
                self.count += 1
                if response.status != 200:
                    self.failed.append(response)
                if not self.kept or response.headers.get("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, wire.Closed) as error:
                # a kept connection may be closed while it is idle (RFC 9112, 9.3.1)
                if not (self.kept and isinstance(error, (wire.Closed, ConnectionResetError)) and self.count):
                    self.failed.append(error)
                connection = None

    def stop(self):
        self.done.set()
        self.join(20)
        assert self.count > 0
        assert not self.failed, (len(self.failed), self.count, self.failed[:3])


@pytest.fixture(scope="module")
def acme(platform):
    """A tenant with a gateway that is ready."""
    instance = platform.dedicated(**KEYED)
    instance.settled()
    return instance


# Creation

def test_first_request(platform):
    begin = time.monotonic()
    instance = platform.dedicated(**KEYED)
    instance.serves()
    print(f"POST to the first authenticated 200: {(time.monotonic() - begin) * 1000:.0f} ms")
    row = instance.settled()
    assert row["pid"] in instance.processes
    assert instance.condition("Ready")["status"] == "True"
    assert instance.condition("ConfigAccepted")["status"] == "True"
    assert instance.get().status == 401
    assert instance.get(headers=[("Host", "other.example.com")]).status == 404


def test_everything_is_in_the_prefix(acme):
    kinds = {path.name for path in acme.prefix.iterdir()}
    assert kinds >= {"nginx.conf", "token", "lock", "instance.json", "admin.sock", "logs", "data", "tmp"}
    assert (acme.prefix / "token").stat().st_mode & 0o077 == 0
    assert acme.prefix.stat().st_mode & 0o007 == 0
    admin = str(acme.prefix / "admin.sock")
    ready = wire.request(admin, "GET", "/readyz", {"Host": "localhost"})
    assert (ready.status, ready.json()["state"]) == (200, "live")
    generation = wire.request(admin, "GET", "/generation", {"Host": "localhost"}).text
    assert int(generation) == acme.row["generation"]
    assert "tiergate_zone_tenants 1" in wire.request(admin, "GET", "/metrics", {"Host": "localhost"}).text
    environment = pathlib.Path(f"/proc/{acme.row['pid']}/environ").read_bytes()
    assert b"TIERGATE" not in environment and b"PG" not in environment


def test_many_at_once(platform):
    begin = time.monotonic()
    instances = [platform.dedicated(**KEYED) for _ in range(12)]
    posted = time.monotonic()
    for instance in instances:
        instance.serves(30)
    print(f"{len(instances)} at once: posted in {posted - begin:.2f} s, all serve after {time.monotonic() - begin:.2f} s")
    assert len({instance.row["port"] for instance in instances}) == len(instances)
    for instance in instances:
        instance.settled()
        platform.rest.call("DELETE", instance.tenant.path)
    for instance in instances:
        until(lambda: instance.row is None and not instance.prefix.exists(), f"{instance.name} to be gone")


# Changes

def allow(platform, name, **parts):
    columns = ["name", *parts]
    platform.database.execute(
        f"INSERT INTO tiergate.plugins ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})",
        [name, *parts.values()])


def set_plugin(platform, instance, name, parameters="{}"):
    status, output = platform.database.psql(
        f"SELECT tiergate.set_plugin('{instance.tenant.name}', '{name}', $json${parameters}$json$)")
    assert status == 0, output


def test_roll_without_failed_requests(platform, acme):
    allow(platform, "banner", location="add_header X-Banner {{text}} always;",
          schema='{"type": "object", "additionalProperties": false,'
                 ' "properties": {"text": {"type": "string", "default": "hello"}}}')
    master = acme.row["pid"]
    loads = [Load(acme), Load(acme), Load(acme, kept=True)]
    for text in ["one", "two", 'three "3" \\\\']:
        set_plugin(platform, acme, "banner", '{"text": "%s"}' % text.replace('"', '\\"'))
        row = acme.settled()
        assert acme.get(key=acme.tenant.key).headers["x-banner"] == text.replace("\\\\", "\\")
    for load in loads:
        load.stop()
    assert row["pid"] == master and row["restarts"] == 0


def bound(taken, port):
    try:
        taken.bind(("127.0.0.1", port))
        return True
    except OSError:
        return False


def test_refused_configuration(platform, acme):
    allow(platform, "broken", location="no_such_directive on;")
    before = acme.settled()
    set_plugin(platform, acme, "broken")
    refused = until(lambda: (lambda c: c if c["status"] == "False" else None)(acme.condition("ConfigAccepted")),
                    lambda: f"the refusal: {acme.row}")
    assert refused["reason"] == "ConfigRefused" and 'unknown directive "no_such_directive"' in refused["message"]
    row = acme.row
    assert row["pid"] == before["pid"] and row["observed_generation"] == before["generation"]
    assert acme.get(key=acme.tenant.key).status == 200
    assert "no_such_directive" not in (acme.prefix / "nginx.conf").read_text()
    # nor does it when that has died, whoever starts it again
    for away in (False, True):
        before = acme.row
        if away:
            platform.tenantd.stop(signal.SIGKILL)
        os.kill(before["pid"], signal.SIGKILL)
        if away:
            platform.tenantd.start()
        until(lambda: acme.row["pid"] not in (before["pid"], None) and acme.row["phase"] == "ready",
              lambda: f"the restart: {acme.row}\n{platform.tenantd.log.text[-3000:]}")
        acme.serves()
        until(lambda: acme.condition("ConfigAccepted")["status"] == "False", lambda: f"{acme.row}")
        assert acme.row["observed_generation"] == row["observed_generation"] < acme.row["generation"]
        assert "no_such_directive" not in (acme.prefix / "nginx.conf").read_text()
    # nor where its port has been taken meanwhile
    platform.tenantd.stop(signal.SIGKILL)
    before = acme.row
    for pid in acme.processes:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(lambda: bound(taken, before["port"]), "the port")
        taken.listen()
        platform.tenantd.start()
        until(lambda: acme.row["port"] != before["port"] and acme.row["phase"] == "ready"
              and acme.condition("ConfigAccepted")["status"] == "False",
              lambda: f"{acme.row}\n{platform.tenantd.log.text[-3000:]}")
        acme.serves()
        assert acme.row["observed_generation"] == row["observed_generation"]
    # a restart that is asked for ends nothing that would not begin again
    before = acme.row
    platform.psql(f"SELECT tiergate.restart_gateway('{acme.tenant.name}')")
    until(lambda: platform.tenantd.log.text.count(f"generation {acme.row['generation']} is checked")
          and acme.row["phase"] == "ready" and acme.condition("ConfigAccepted")["status"] == "False",
          lambda: f"{acme.row}")
    assert acme.row["pid"] == before["pid"]
    platform.psql(f"SELECT tiergate.drop_plugin('{acme.tenant.name}', 'broken')")
    until(lambda: acme.row["pid"] not in (before["pid"], None), "the restart that was asked for")
    acme.settled()
    acme.serves()
    assert acme.condition("ConfigAccepted")["status"] == "True"


def test_refused_by_the_second_step(platform, acme):
    """nginx -t passes it, and the running master does not take it over."""
    allow(platform, "limiter", http="limit_req_zone $binary_remote_addr zone=limiter:1m rate=1000r/s;")
    set_plugin(platform, acme, "limiter")
    before = acme.settled()
    platform.expected = ['limit_req "limiter" uses']
    platform.psql("UPDATE tiergate.plugins SET http = replace(http, '$binary_remote_addr', '$host') WHERE name = 'limiter'")

    def refused():
        return acme.condition("ConfigAccepted")["status"] == "False" and acme.row["phase"] == "ready"
    until(refused, lambda: f"the refusal: {acme.row}")
    assert 'previously' in acme.condition("ConfigAccepted")["message"]
    assert acme.condition("ConfigAccepted")["reason"] == "ConfigRefused"
    assert (acme.row["pid"], acme.row["observed_generation"]) == (before["pid"], before["generation"])
    assert acme.get(key=acme.tenant.key).status == 200
    assert "$host" not in (acme.prefix / "nginx.conf.accepted").read_text()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: acme.row["restarts"] > before["restarts"] and refused(), lambda: f"{acme.row}")
    acme.serves()
    assert acme.row["observed_generation"] == before["generation"]
    # which is no reason against a start of its own
    platform.psql(f"SELECT tiergate.restart_gateway('{acme.tenant.name}')")
    acme.settled()
    assert "$host" in (acme.prefix / "nginx.conf").read_text()
    platform.psql(f"SELECT tiergate.drop_plugin('{acme.tenant.name}', 'limiter')")
    acme.settled()


@pytest.mark.parametrize("first", ["", "x"])
def test_refusal_that_is_cut_within_a_character(platform, acme, first):
    """What nginx says reaches the registry, whatever bytes it has."""
    acme.settled()
    allow(platform, f"long{first}", location=first + "\u00e9" * 600 + " on;")
    set_plugin(platform, acme, f"long{first}")
    refused = until(lambda: (lambda c: c if c["status"] == "False" else None)(acme.condition("ConfigAccepted")),
                    lambda: f"the refusal: {acme.row}")
    assert refused["reason"] == "ConfigRefused" and "unknown directive" in acme.row["message"]
    assert "\ufffd" in acme.row["message"] + refused["message"] or acme.row["message"].endswith("\u00e9")
    assert not [c for c in acme.row["message"] + refused["message"] if ord(c) < 32]
    platform.psql(f"SELECT tiergate.drop_plugin('{acme.tenant.name}', 'long{first}')")
    acme.settled()


EVIL = ['x"; return 500; #', "\\", 'a\\"', "'; return 500; '", "} } server { listen 1; }", "{", "}", ";", "#",
        "include /etc/passwd;", "\\n", "{{text}}", "{{@main}}", '"', "a b", "\u00e9\u4e16"]


def test_parameters_do_not_break_out(platform, acme):
    """nginx itself says what it has read."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in EVIL]
    for text, written in zip(EVIL, quoted):
        set_plugin(platform, acme, "banner", '{"text": "%s"}' % written)
        acme.settled()
        response = acme.get(key=acme.tenant.key)
        assert response.status == 200, (text, response)
        assert response.headers["x-banner"].encode("latin-1").decode() == text
    platform.psql(f"SELECT tiergate.drop_plugin('{acme.tenant.name}', 'banner')")
    acme.settled()


def test_restart_by_an_operator(platform, acme):
    before = acme.row["pid"]
    platform.psql(f"SELECT tiergate.restart_gateway('{acme.tenant.name}')")
    until(lambda: acme.row["pid"] not in (before, None) and acme.row["phase"] == "ready", lambda: f"{acme.row}")
    acme.serves()


# Faults

def test_crash_of_the_master(acme):
    before = acme.settled()
    workers = process.children(before["pid"])
    os.kill(before["pid"], signal.SIGKILL)
    row = until(lambda: acme.row["restarts"] == before["restarts"] + 1 and acme.row["phase"] == "ready" and acme.row,
                lambda: f"the restart: {acme.row}")
    assert row["pid"] != before["pid"]
    acme.serves()
    assert not [pid for pid in workers if process.alive(pid)]


def test_crash_loop(platform, acme):
    for _ in range(5):
        row = acme.phase("ready")
        os.kill(row["pid"], signal.SIGKILL)
        until(lambda: acme.row["restarts"] > row["restarts"], lambda: f"the restart: {acme.row}")
    until(lambda: acme.condition("CrashLooping")["status"] == "True", lambda: f"{acme.row}")
    acme.serves()
    events = platform.rest.call("GET", f"/v1/gateways/{acme.name}/events")["items"]
    assert any("signal 9" in event["message"] for event in events)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_adoption(platform, acme, how):
    """tenantd goes and comes back: nobody notices."""
    before = acme.phase("ready")
    load = Load(acme)
    platform.tenantd.stop(how)
    at = load.count
    until(lambda: load.count > at + 20, "requests without tenantd")
    platform.tenantd.start()
    platform.tenantd.log.wait(rf"{acme.name}: adopted -> ready", platform.tenantd.log.text.rindex("is up"))
    load.stop()
    set_plugin(platform, acme, "gzip", '{"level": 3}')
    acme.settled()
    assert acme.row["pid"] == before["pid"]
    platform.psql(f"SELECT tiergate.drop_plugin('{acme.tenant.name}', 'gzip')")
    acme.settled()


def test_crash_while_tenantd_is_away(platform, acme):
    before = acme.phase("ready")
    platform.tenantd.stop(signal.SIGKILL)
    os.kill(before["pid"], signal.SIGKILL)
    platform.tenantd.start()
    until(lambda: acme.row["pid"] not in (before["pid"], None) and acme.row["phase"] == "ready", lambda: f"{acme.row}")
    acme.serves()


def test_a_recycled_pid_is_left_alone(platform, acme):
    """instance.json names a pid that is somebody else's by now."""
    before = acme.phase("ready")
    platform.tenantd.stop(signal.SIGKILL)
    os.kill(before["pid"], signal.SIGKILL)
    stranger = process.start(["tail", "-f", "/dev/null"], acme.prefix.parent / "stranger.log")
    record = acme.prefix / "instance.json"
    record.write_text(re.sub(r'"pid":\d+', f'"pid":{stranger.pid}', record.read_text()))
    platform.tenantd.start()
    until(lambda: acme.row["pid"] not in (before["pid"], None) and acme.row["phase"] == "ready", lambda: f"{acme.row}")
    assert acme.row["pid"] != stranger.pid and stranger.poll() is None
    process.stop(stranger)
    acme.serves()


STATES = ["-> token", "-> starting", "-> checking", "-> reloading", "-> draining", "-> removing"]


@pytest.mark.parametrize("state", STATES)
def test_killed_in_each_state(platform, state):
    """kill -9 as soon as tenantd says that it has come there; another life goes on."""
    tenantd = platform.tenantd
    killed = threading.Event()

    def watch(mark):
        end = time.monotonic() + 60
        while time.monotonic() < end and not killed.is_set():
            if state in tenantd.log.since(mark):
                tenantd.process.kill()
                killed.set()

    watcher = threading.Thread(target=watch, args=[tenantd.log.mark()], daemon=True)
    watcher.start()
    # nothing by REST: its answer might be what is killed
    name = f"killed-{STATES.index(state)}"
    body = {"name": name, "tier": "dedicated", "hosts": [f"{name}.example.com"], "keys": [{"consumer": "mobile"}],
            "upstreams": [upstream(platform.backend.main)], **KEYED}
    made = platform.database.one("SELECT tiergate.onboard(%s::jsonb)", [json.dumps(body)])
    instance = Instance(platform, Tenant(platform, name, {**body, **made}))
    if state in STATES[2:]:
        instance.settled()
    if state in STATES[2:4]:
        set_plugin(platform, instance, "gzip", '{"level": 2}')
    if state in STATES[4:]:
        platform.psql(f"SELECT tiergate.delete_tenant('{instance.tenant.name}')")
    watcher.join(60)
    assert killed.is_set()
    tenantd.process.wait(10)
    tenantd.start()
    if state not in STATES[4:]:
        instance.settled()
        instance.serves()
        assert len([pid for pid in instance.processes if process.children(pid)]) == 1
        platform.rest.call("DELETE", instance.tenant.path)
    until(lambda: instance.row is None and not instance.prefix.exists(), lambda: f"{instance.row}")
    assert not instance.processes


def test_port_taken(platform):
    """By a program that the registry knows nothing of."""
    platform.tenantd.stop()
    platform.psql("INSERT INTO tiergate.tenants (name, tier) VALUES ('offline', 'dedicated')")
    platform.database.execute(
        "SELECT tiergate.instances_claim('n1', 'process', 1, 29000, 29999, '127.0.0.1')")
    instance = Instance(platform, Tenant(platform, "offline", {"hosts": [], "keys": []}))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = platform.database.one("SELECT port FROM tiergate.instances WHERE name = %s", [instance.name])
        taken.bind(("127.0.0.1", port))
        taken.listen()
        platform.tenantd.start()
        row = instance.settled()
        assert row["port"] != port
        assert instance.get(headers=[("Host", "offline.example.com")]).status == 404
    platform.rest.call("DELETE", instance.tenant.path)


# The end

def test_delete_leaves_nothing(platform):
    instance = platform.dedicated(**KEYED)
    row = instance.settled()
    instance.serves()
    pids = instance.processes
    group = cgroup(row["pid"])
    assert len(pids) >= 2
    platform.rest.call("DELETE", instance.tenant.path)
    until(lambda: instance.row is None, lambda: f"{instance.row}")
    assert not instance.prefix.exists()
    assert not any(process.alive(pid) for pid in pids)
    assert group is None or not group.exists()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", row["port"]))
    for table, column in [("api_tokens", "gateway"), ("gateways", "name"), ("instances", "name"),
                          ("quota_usage", "gateway")]:
        assert platform.database.one(f"SELECT count(*) FROM tiergate.{table} WHERE {column} = %s",
                                     [instance.name]) == 0, table


def test_drain_lets_requests_finish(platform, backend):
    instance = platform.dedicated(**KEYED)
    instance.serves()
    answers = []
    slow = threading.Thread(target=lambda: answers.append(
        instance.get(headers=[("X-Do", "delay=1.5")], key=instance.tenant.key)))
    slow.start()
    until(lambda: backend.inside, "the request to be inside")
    platform.psql(f"SELECT tiergate.set_tier('{instance.tenant.name}', 'vcluster')")
    slow.join(20)
    assert answers and answers[0].status == 200


# Isolation

def memory(pid):
    """Everything that a process has in memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            try:
                mem.seek(begin)
                yield mem.read(end - begin)
            except (OSError, ValueError):
                pass


def test_isolation(platform, acme):
    """Nothing of another tenant is sent to the gateway, or is in its memory."""
    marker, own = "q7zXother-tenants-secret", "q7zXmine"
    other = platform.dedicated(display_name=marker, labels={"secret": marker},
                               hosts=[f"{marker.lower()}.example.com"], **KEYED)
    shared = platform.onboard(display_name=marker, labels={"secret": marker}, wait=False)
    platform.rest.call("PATCH", acme.tenant.path, {"labels": {"secret": own}, "display_name": own})
    other.settled()
    revision = platform.database.revision()
    until(lambda: platform.rest.call("GET", f"/v1/gateways/{acme.name}")["observedRevision"] >= revision,
          "the gateway to have the revision")

    token = (acme.prefix / "token").read_text()
    sent = wire.Connection(platform.tenantd.socket, 15)
    sent.send(wire.compose("GET", f"/v1/watch?for={acme.name}&since=0",
                           [("Host", "localhost"), ("Authorization", f"Bearer {token}")]))
    assert sent.head()[0] == 200
    seen = b""
    for chunk in sent.chunks():
        seen += chunk
        if b'"complete":true' in seen:
            break
    sent.close()
    assert acme.tenant.name.encode() in seen
    # nor by another's name
    refused = wire.request(platform.tenantd.socket, "GET", f"/v1/watch?for={other.name}&since=0",
                           {"Host": "localhost", "Authorization": f"Bearer {token}"})
    assert refused.status == 403

    names = [marker.encode(), marker.lower().encode(), other.tenant.key.encode(),
             f"{other.tenant.name}.example".encode(), shared.host.encode()]
    for text in names:
        assert text not in seen
    for file in acme.prefix.glob("data/*"):
        content = file.read_bytes()
        assert not any(text in content for text in names), file
    found_own = False
    for pid in acme.processes:
        for piece in memory(pid):
            assert not any(text in piece for text in names), pid
            found_own = found_own or acme.tenant.host.encode() in piece
    assert found_own


def test_a_platform_issuer_that_is_referred_to_later(platform):
    """Its keys are there although the tenant did not have it when the gateway started."""
    issuer = Issuer("ES256", "https://platform.example")
    platform.rest.call("PUT", "/v1/issuers/platform", issuer.body())
    instance = platform.dedicated(**KEYED)
    instance.settled()
    instance.serves()
    bearer = [("Authorization", f"Bearer {issuer.token()}")]
    assert instance.get(headers=bearer).status == 401
    platform.rest.call("PUT", f"{instance.tenant.path}/issuers/platform", {"ref": "platform"})
    until(lambda: instance.get(headers=bearer).status == 200, lambda: instance.get(headers=bearer), every=0.05)
