# SPDX-License-Identifier: BSD-2-Clause
"""Dedicated gateways when something is missing, full, taken or away."""

import contextlib
import json
import os
import pathlib
import pwd
import re
import signal
import subprocess

import psycopg
import pytest

from support import process, wire
from support.poll import until
from support.tenantd import Tenantd
from test_dedicated import KEYED, Dedicated, Load, cgroup, drop, provisioner


@pytest.fixture
def make(request, database, backend):
    """Makes platforms whose tenantd runs gateways."""
    made = []

    def make(**more):
        made.append(Dedicated(database, backend, process.folder("dedicated"), **more))
        return made[-1]
    yield make
    for platform in made:
        try:
            until(platform.tenantd._ready, "tenantd to reach the registry")
            for name, in platform.database.execute("SELECT name FROM tiergate.tenants WHERE tier = 'dedicated'"):
                platform.rest.call("DELETE", f"/v1/tenants/{name}")
            until(lambda: not platform.database.one("SELECT count(*) FROM tiergate.instances"),
                  lambda: platform.tenantd.log.text[-3000:], 30)
        finally:
            platform.stop()
    for platform in made:
        problems = platform.problems()
        drop(platform.path, keep=problems or request.session.testsfailed)
        assert not problems, "\n".join(problems)


@contextlib.contextmanager
def away(database):
    """The registry takes no connections."""
    name = database.name
    database.close()
    with psycopg.connect(database.server.conninfo, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def failed(instance, reason):
    return until(lambda: instance.row["phase"] == "failed" and instance.row["reason"] == reason and instance.row,
                 lambda: f"{reason}: {instance.row}")


def test_nginx_is_missing(make, tmp_path):
    platform = make(nginx=tmp_path / "nginx")
    instance = platform.dedicated(**KEYED)
    row = failed(instance, "CannotStart")
    assert "nginx" in row["message"] and row["attempts"] >= 1
    assert instance.condition("Ready")["status"] == "False"
    (tmp_path / "nginx").symlink_to(process.NGINX)
    instance.settled()
    instance.serves()


def test_module_is_missing(make):
    """nginx starts, and says what is wrong."""
    platform = make()
    platform.psql("""SELECT tiergate.allow_plugin('ghost', modules => '{ngx_http_ghost_module.so}')""")
    platform.psql("INSERT INTO tiergate.tier_plugins (tier, plugin) VALUES ('dedicated', 'ghost')")
    instance = platform.dedicated(**KEYED)
    row = failed(instance, "ConfigRefused")
    assert "ngx_http_ghost_module.so" in row["message"]
    assert instance.condition("ConfigAccepted")["status"] == "False"
    # a new life of tenantd does not know better
    platform.tenantd.stop(signal.SIGKILL)
    mark = platform.tenantd.log.mark()
    platform.tenantd.start()
    platform.tenantd.log.wait(f"{instance.name}: starting -> backoff", mark)
    assert "ngx_http_ghost_module.so" in failed(instance, "ConfigRefused")["message"]
    platform.psql("DELETE FROM tiergate.tier_plugins WHERE plugin = 'ghost'")
    instance.settled()
    instance.serves()
    assert instance.condition("ConfigAccepted")["status"] == "True"


def test_prefix_cannot_be_made(make):
    platform = make()
    platform.instances.write_text("in the way")
    instance = platform.dedicated(**KEYED)
    row = failed(instance, "PrefixUnwritable")
    assert str(platform.instances) in row["message"]
    platform.instances.unlink()
    instance.settled()
    instance.serves()


def test_disk_full(make):
    platform = make()
    platform.instances.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "tmpfs", platform.instances],
                      stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        instance = platform.dedicated(**KEYED)
        row = until(lambda: instance.row["phase"] == "failed" and "No space left" in instance.row["message"]
                    and instance.row, lambda: f"{instance.row}")
        assert row["pid"] is None
        subprocess.run(["mount", "-o", "remount,size=64m", platform.instances], check=True)
        instance.settled()
        instance.serves()
        # full again while it runs: what runs goes on
        (platform.instances / "filler").write_bytes(b"x")
        with contextlib.suppress(OSError), open(platform.instances / "filler", "wb", 0) as filler:
            while True:
                filler.write(b"x" * 65536)
        platform.psql(f"SELECT tiergate.set_plugin('{instance.tenant.name}', 'gzip', '{{\"level\": 2}}')")
        until(lambda: instance.condition("ConfigAccepted")["reason"] == "PrefixUnwritable", lambda: f"{instance.row}")
        assert instance.get(key=instance.tenant.key).status == 200
        (platform.instances / "filler").unlink()
        instance.settled()
        platform.rest.call("DELETE", instance.tenant.path)
        until(lambda: instance.row is None, lambda: f"{instance.row}")
    finally:
        subprocess.run(["umount", "-l", platform.instances], check=True)


def test_registry_away_while_it_runs(make, database):
    platform = make()
    instance = platform.dedicated(**KEYED)
    row = instance.settled()
    instance.serves()
    address = instance.address

    def request():
        try:
            return wire.request(address, "GET", "/", instance.tenant.headers(key=instance.tenant.key)).status
        except (OSError, wire.Closed):
            return 0
    with away(database):
        mark = platform.tenantd.log.mark()
        os.kill(row["pid"], signal.SIGKILL)
        # the workers that it leaves behind answer, too
        platform.tenantd.log.wait(f"{instance.name}: starting -> ready", mark)
        until(lambda: not process.alive(row["pid"]) and request() == 200, "the restart")
        # nor does a new life of tenantd need it for that
        platform.tenantd.process.kill()
        platform.tenantd.process.wait()
        mark = platform.tenantd.log.mark()
        platform.tenantd.process = process.start(
            [process.TENANTD, "serve", "--config", platform.tenantd.config], platform.tenantd.log.path)
        platform.tenantd.log.wait(f"{instance.name}: adopted -> ready", mark)
        master = next(pid for pid in instance.processes if process.children(pid))
        mark, token = platform.tenantd.log.mark(), (instance.prefix / "token").read_text()
        os.kill(master, signal.SIGKILL)
        platform.tenantd.log.wait(f"{instance.name}: starting -> ready", mark)
        until(lambda: not process.alive(master) and request() == 200, "the restart")
        assert (instance.prefix / "token").read_text() == token
        # nor for one that has died while tenantd was away
        platform.tenantd.process.kill()
        platform.tenantd.process.wait()
        master = next(pid for pid in instance.processes if process.children(pid))
        os.kill(master, signal.SIGKILL)
        mark = platform.tenantd.log.mark()
        platform.tenantd.process = process.start(
            [process.TENANTD, "serve", "--config", platform.tenantd.config], platform.tenantd.log.path)
        platform.tenantd.log.wait(f"{instance.name}: starting -> ready", mark)
        assert not process.alive(master) and request() == 200
    # what happened meanwhile is told
    after = until(lambda: instance.row["phase"] == "ready" and instance.row["restarts"] == row["restarts"] + 2
                  and instance.row, lambda: f"{instance.row}", 30)
    assert after["pid"] in instance.processes


@pytest.mark.parametrize("state", ["-> token", "-> starting", "starting -> ready", "-> checking", "-> draining"])
def test_registry_goes_away_in_each_state(make, database, state):
    platform = make()
    name = f"cut-{abs(hash(state)) % 10 ** 6}"
    if state in ("-> checking", "-> draining"):
        instance = platform.dedicated(name, **KEYED)
        instance.settled()
    mark = platform.tenantd.log.mark()
    if state == "-> checking":
        platform.psql(f"SELECT tiergate.set_plugin('{name}', 'gzip', '{{\"level\": 2}}')")
    elif state == "-> draining":
        platform.rest.call("DELETE", instance.tenant.path)
    else:
        instance = platform.dedicated(name, **KEYED)
    platform.tenantd.log.wait(state, mark)
    with away(database):
        until(lambda: "database: " in platform.tenantd.log.since(mark), "tenantd to notice")
    if state == "-> draining":
        until(lambda: instance.row is None, lambda: f"{instance.row}", 30)
        assert not instance.processes
    else:
        instance.settled(30)
        instance.serves()


def test_two_tenantd_share_a_machine(make, database):
    """One looks after an instance; when it is gone, the other does."""
    platform = make()
    instances = [platform.dedicated(**KEYED) for _ in range(3)]
    for instance in instances:
        instance.settled()
    second = Tenantd(database, platform.path / "second", provisioner(platform.instances))
    try:
        for instance in instances:
            second.log.wait(rf"{instance.name}: new -> leased")
        instance = platform.dedicated(**KEYED)
        instance.settled()
        # started once, by one of the two
        both = platform.tenantd.log.text + second.log.text
        assert both.count(f"{instance.name}: token -> starting") == 1
        instances.append(instance)
        pids = {each.name: each.row["pid"] for each in instances}

        load = Load(instances[0])
        platform.tenantd.stop(signal.SIGKILL)
        for each in instances:
            until(lambda: f"{each.name}: adopted -> ready" in second.log.text
                  or f"{each.name}: starting -> ready" in second.log.text, each.name)
        load.stop()
        assert {each.name: each.row["pid"] for each in instances} == pids
    finally:
        second.stop()
        platform.tenantd.start()
    for each in instances:
        platform.tenantd.log.wait(rf"{each.name}: adopted -> ready", platform.tenantd.log.text.rindex("is up"))
    assert not second.log.bad()


def test_two_machines_share_the_work(make, database):
    """Each takes what nobody has, and nobody takes what another has."""
    platform = make()
    second = Tenantd(database, platform.path / "second",
                     provisioner(platform.path / "j", node="n2", ports="29000-29999"))
    try:
        instances = [platform.dedicated(**KEYED) for _ in range(6)]
        for instance in instances:
            instance.settled()
        places = database.execute("SELECT name, node FROM tiergate.instances")
        for name, node in places:
            here, there = (platform.instances, platform.path / "j")[:: 1 if node == "n1" else -1]
            assert (here / name).exists() and not (there / name).exists()
        for instance in instances:
            platform.rest.call("DELETE", instance.tenant.path)
        until(lambda: not database.one("SELECT count(*) FROM tiergate.instances"), "all to be gone", 30)
        assert list(platform.instances.iterdir()) == list((platform.path / "j").iterdir()) == []
    finally:
        second.stop()
    assert not second.log.bad()


def test_limits(make):
    platform = make()
    platform.psql("""UPDATE tiergate.tiers SET gateway = '{"limits": {"memory": 268435456, "nofile": 777}}'
                     WHERE name = 'dedicated'""")
    try:
        instance = platform.dedicated(**KEYED)
        row = instance.settled()
        for pid in [row["pid"], *process.children(row["pid"])]:
            limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
            assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open")] == [["777", "777"]]
        enforced = instance.condition("LimitsEnforced")
        group = cgroup(row["pid"])
        if group and (group / "memory.max").exists():
            assert (group / "memory.max").read_text() == "268435456\n"
        else:
            assert enforced["status"] == "False" and "memory.max" in enforced["message"]
    finally:
        platform.psql("UPDATE tiergate.tiers SET gateway = '{}' WHERE name = 'dedicated'")


def enterable():
    """Skips where another user cannot come to what was built."""
    closed = [str(folder) for folder in process.BUILD.resolve().parents if not folder.stat().st_mode & 0o001]
    if closed:
        pytest.skip(f"another user cannot enter {closed[0]}")


def may_read(uid, path):
    return subprocess.run(["cat", path], user=uid, group=uid, extra_groups=[], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def uids(pid):
    return set(map(int, pathlib.Path(f"/proc/{pid}/status").read_text().split("\nUid:")[1].split()[:4]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give gateways users")
def test_users_of_their_own(make):
    """Master and workers of each gateway have a user that no other has, and that reads nothing of another."""
    enterable()
    platform = make(more="users = 700000-700002\n[listen]\nsocket_mode = 0666")
    instances = [platform.dedicated(**KEYED) for _ in range(3)]
    rows = [instance.settled() for instance in instances]
    numbers = []
    for instance, row in zip(instances, rows):
        instance.serves()
        found = [uids(pid) for pid in instance.processes]
        assert len(found) >= 2 and all(each == found[0] for each in found) and len(found[0]) == 1
        numbers.append(found[0].pop())
    assert sorted(numbers) == [700000, 700001, 700002]
    # what each may read, and what not
    for uid, own in zip(numbers, instances):
        until(lambda: (own.prefix / "data/registry.jsonl").exists(), "the snapshot")
        for name in ["token", "secret.key", "nginx.conf", "data/registry.jsonl", "logs/access.log"]:
            assert may_read(uid, own.prefix / name), name
            for other in instances:
                assert other is own or not may_read(uid, other.prefix / name), name
        assert not may_read(uid, platform.tenantd.secret_key)
        other = rows[(numbers.index(uid) + 1) % 3]["pid"]
        assert not may_read(uid, f"/proc/{other}/environ")
        # and nothing is there that it could put another's file in the place of
        for folder in ["", "logs"]:
            status = (own.prefix / folder).stat()
            assert status.st_uid == 0 and not status.st_mode & 0o022, folder
    # a fourth finds none, until one is free again
    fourth = platform.dedicated(**KEYED)
    assert "[provisioner] users" in failed(fourth, "PrefixUnwritable")["message"]
    platform.rest.call("DELETE", instances[2].tenant.path)
    fourth.settled()
    fourth.serves()
    assert uids(fourth.row["pid"]) == {numbers[2]}
    # changes, deaths and another tenantd make no difference
    instance, before = instances[0], rows[0]
    platform.psql(f"SELECT tiergate.set_plugin('{instance.tenant.name}', 'gzip', '{{\"level\": 2}}')")
    assert instance.settled()["pid"] == before["pid"]
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: instance.row["restarts"] == 1 and instance.row["phase"] == "ready", lambda: f"{instance.row}")
    platform.tenantd.stop(signal.SIGKILL)
    mark = platform.tenantd.log.mark()
    platform.tenantd.start()
    platform.tenantd.log.wait(f"{instance.name}: adopted -> ready", mark)
    instance.serves()
    assert all(uids(pid) == {numbers[0]} for pid in instance.processes)
    # a larger body than a buffer goes through its own tmp
    response = wire.request(instance.address, "POST", "/", instance.tenant.headers(key=instance.tenant.key), b"x" * 100000)
    assert response.status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give gateways users")
@pytest.mark.parametrize("users", ["users = 700010-700019", "user = nobody"])
def test_with_the_rights_of_the_packaged_unit(make, users):
    """Root with no more than the drop-in leaves it starts, changes, restarts and removes gateways."""
    enterable()
    drop_in = (process.ROOT / "packaging/systemd/tiergate-tenantd.provisioner.conf").read_text()
    rights = re.findall(r"CAP_(\w+)", re.findall(r"^CapabilityBoundingSet=(.+)$", drop_in, re.M)[-1])
    bounds = "-all," + ",".join(f"+{right.lower()}" for right in rights)
    platform = make(user="nobody", more=("" if "nobody" in users else users) + "\n[listen]\nsocket_mode = 0666")
    tenantd = platform.tenantd
    tenantd.stop()
    tenantd.process = process.start(["setpriv", "--bounding-set", bounds, process.TENANTD, "serve",
                                     "--config", tenantd.config], tenantd.log.path)
    until(tenantd._ready, "tenantd")
    status = pathlib.Path(f"/proc/{tenantd.process.pid}/status").read_text()
    # some machines have not even these
    assert bin(int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)).count("1") <= len(rights)
    platform.psql("UPDATE tiergate.tiers SET gateway = '{\"limits\": {\"nofile\": 1777}}' WHERE name = 'dedicated'")
    instance = platform.dedicated(**KEYED)
    row = instance.settled()
    instance.serves()
    platform.psql("UPDATE tiergate.tiers SET gateway = '{\"limits\": {\"nofile\": 777}}' WHERE name = 'dedicated'")
    assert instance.settled()["pid"] == row["pid"]
    if int(re.search(r"CapEff:\s*(\w+)", status)[1], 16) & 1 << 24:     # SYS_RESOURCE, for another user's process
        until(lambda: any(" 777 " in pathlib.Path(f"/proc/{pid}/limits").read_text()
                          for pid in process.children(row["pid"])), "the limit")
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: instance.row["restarts"] == 1 and instance.row["phase"] == "ready", lambda: f"{instance.row}")
    instance.serves()
    platform.psql("UPDATE tiergate.tiers SET gateway = '{}' WHERE name = 'dedicated'")
    platform.rest.call("DELETE", instance.tenant.path)
    until(lambda: instance.row is None and not instance.prefix.exists(), lambda: f"{instance.row}")
    assert "cannot" not in "".join(line for line in tenantd.log.text.splitlines(True) if "cgroup2 has no" not in line)


@pytest.mark.parametrize("users", ["", "users = 700020-700029"])
def test_logs_are_rotated(make, users):
    """By the rules that are shipped: no line is lost, and none goes on into the old file."""
    if users and os.geteuid() != 0:
        pytest.skip("only root can give gateways users")
    if users:
        enterable()
    platform = make(more=users + "\n[listen]\nsocket_mode = 0666")
    instance = platform.dedicated(**KEYED)
    before = instance.settled()
    instance.serves()
    rules = (process.ROOT / "packaging/logrotate/tiergate-gateways.in").read_text()
    assert "copytruncate" not in rules
    script = re.search(r"postrotate\n(.*?)endscript", rules, re.S)[1]
    script = script.replace("/var/lib/tiergate/instances", str(platform.instances))
    log, old = instance.prefix / "logs/access.log", instance.prefix / "logs/access.log.1"
    # of another process by now
    stale = platform.instances / "dedicated-0"
    stale.mkdir()
    stranger = process.start(["tail", "-f", "/dev/null"], platform.path / "stranger.log")
    (stale / "nginx.pid").write_text(f"{stranger.pid}\n")

    def get(target):
        assert instance.get(target, key=instance.tenant.key).status == 200
    get("/before")
    until(lambda: "/before" in log.read_text(), "the line")
    status = log.stat()
    log.rename(old)
    get("/between")
    log.touch(0o640)                    # as "create" does
    os.chown(log, status.st_uid, status.st_gid)
    subprocess.run(["sh", "-c", script], check=True)
    until(lambda: "/between" in old.read_text() + log.read_text(), "the line before")

    def reopened():
        get("/after")
        return "/after" in log.read_text()
    until(reopened, "the new file", every=0.1)
    kept = old.read_text()
    get("/last")
    until(lambda: "/last" in log.read_text(), "the new file")
    assert "/last" not in old.read_text() and "/before" in kept
    assert instance.row["pid"] == before["pid"] and stranger.poll() is None
    process.stop(stranger)
    (stale / "nginx.pid").unlink()
    stale.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the workers another user")
def test_workers_of_another_user(make):
    """The workers cannot read the token, nor write what the master reads."""
    enterable()
    platform = make(user="nobody", more="[listen]\nsocket_mode = 0666")
    instance = platform.dedicated(**KEYED)
    row = instance.settled()
    instance.serves()
    uid = pwd.getpwnam("nobody").pw_uid
    assert pathlib.Path(f"/proc/{row['pid']}").stat().st_uid == 0
    for pid in process.children(row["pid"]):
        assert pathlib.Path(f"/proc/{pid}/status").read_text().split("\nUid:")[1].split()[:4] == [str(uid)] * 4
    until(lambda: list(instance.prefix.glob("data/registry.jsonl")), "the snapshot")
    for name in ["", "token", "nginx.conf", "lock", "instance.json", "logs"]:
        assert (instance.prefix / name).stat().st_uid == 0, name
    assert (instance.prefix / "token").stat().st_mode & 0o077 == 0


def test_what_is_trusted(make):
    """A client's address is taken from X-Forwarded-For where the networks say so, and from nowhere else."""
    platform = make(more="trusted = 10.9.0.0/16, 127.0.0.1/32")
    trusting = platform.dedicated(**KEYED)
    trusting.settled()
    trusting.serves()

    def last():
        """The address in the log's last line."""
        return ((trusting.prefix / "logs/access.log").read_text().split("\n")[-2:-1] or [""])[0].split(" ")[0]
    for forwarded, client in [("203.0.113.7", "203.0.113.7"), ("198.51.100.1, 203.0.113.8", "203.0.113.8"),
                              ("203.0.113.9, 10.9.1.1", "203.0.113.9")]:
        assert trusting.get(headers=[("X-Forwarded-For", forwarded)], key=trusting.tenant.key).status == 200
        until(lambda: last() == client, last)
    platform.tenantd.stop()
    config = platform.tenantd.config.read_text().replace(", 127.0.0.1/32", "")
    platform.tenantd.config.write_text(config)
    platform.tenantd.start()
    platform.psql(f"SELECT tiergate.restart_gateway('{trusting.tenant.name}')")
    trusting.settled()
    trusting.serves()
    assert trusting.get(headers=[("X-Forwarded-For", "203.0.113.10")], key=trusting.tenant.key).status == 200
    until(lambda: last() == "127.0.0.1", last)


def test_the_operators_template(make):
    """What it says is what nginx reads; one that nginx refuses is said to be refused, and the accepted one stays."""
    platform = make()
    instance = platform.dedicated(**KEYED)
    before = instance.settled()
    # from the one built in, as it stands in a prefix
    source = pathlib.Path(process.ROOT / "tenantd/td_gateway.c").read_text()
    lines = re.search(r"td_gateway_template\[\] =\n(.*?);\n\n", source, re.S)[1]
    text = "".join(json.loads(line.strip()) for line in lines.splitlines())
    template = platform.path / "template.conf"
    template.write_text(text.replace("server {", "server {\n        add_header X-Template {{tenant}} always;", 1))
    config = platform.tenantd.config.read_text()
    platform.tenantd.stop()
    platform.tenantd.config.write_text(config.replace("[provisioner]", f"[provisioner]\ntemplate = {template}"))
    platform.tenantd.start()
    platform.psql(f"SELECT tiergate.set_plugin('{instance.tenant.name}', 'gzip', '{{\"level\": 2}}')")
    assert instance.settled()["pid"] == before["pid"]
    assert instance.get(key=instance.tenant.key).headers["x-template"] == instance.tenant.name
    for wrong, reason, words in [("{{no_such_place}}", "ConfigInvalid", "no_such_place"),
                                 ("no_such_directive on;", "ConfigRefused", "no_such_directive")]:
        platform.tenantd.stop()
        template.write_text(text.replace("server {", f"server {{\n        add_header X-Wrong {wrong};" if "{{" in wrong
                                         else f"server {{\n        {wrong}", 1))
        platform.tenantd.start()
        # of the same generation: a death is what would bring it in, when tenantd has heard what is wanted
        until(lambda: "tiergate_reconcile_seconds_count 0" not in
              wire.request(platform.tenantd.socket, "GET", "/metrics", {"Host": "localhost"}).text, "the registry")
        os.kill(instance.row["pid"], signal.SIGKILL)
        until(lambda: instance.condition("ConfigAccepted")["reason"] == reason and instance.row["phase"] == "ready",
              lambda: f"{instance.row}\n{platform.tenantd.log.text[-3000:]}")
        assert words in instance.condition("ConfigAccepted")["message"]
        instance.serves()
        assert instance.get(key=instance.tenant.key).headers["x-template"] == instance.tenant.name
    platform.tenantd.stop()
    platform.tenantd.config.write_text(config.replace("[provisioner]", "[provisioner]\ntemplate = /nowhere/at.all"))
    done = subprocess.run([process.TENANTD, "serve", "--config", platform.tenantd.config], capture_output=True, text=True,
                          timeout=30, env=process.environment())
    assert done.returncode != 0 and "/nowhere/at.all" in done.stdout + done.stderr
    platform.tenantd.config.write_text(config)
    platform.tenantd.start()


def test_a_row_that_is_gone(make, database):
    """An instance of which the registry knows nothing any more is removed."""
    platform = make()
    instance = platform.dedicated(**KEYED)
    instance.settled()
    platform.tenantd.stop()
    database.execute("DELETE FROM tiergate.instances WHERE name = %s", [instance.name])
    platform.tenantd.start()
    until(lambda: not instance.prefix.exists(), lambda: platform.tenantd.log.text[-2000:])
    assert not instance.processes
    database.execute("UPDATE tiergate.tenants SET tier = 'vcluster' WHERE name = %s", [instance.tenant.name])
    platform.rest.call("DELETE", instance.tenant.path)


def test_a_directory_that_has_no_room_for_sockets(make, database):
    """It is refused at the start, not by each gateway for ever."""
    platform = make()
    room = 70 - len(str(platform.path)) - 1
    Tenantd(database, platform.path / "fits", provisioner(platform.path / ("i" * room), node="n2")).stop()
    with pytest.raises(AssertionError, match=r'directory: ".*/i+" is longer than 70 bytes, too long for sockets below it'):
        Tenantd(database, platform.path / "long", provisioner(platform.path / ("i" * (room + 1)), node="n2"))
