# SPDX-License-Identifier: BSD-2-Clause
"""A gateway of one's own: from the tenant's creation to its removal."""

import os
import pathlib
import pwd
import re
import signal
import time

import pytest

from support import process, wire
from support.platform import Platform, Tenant, route, upstream
from support.poll import holds, until
from support.tenantd import Tenantd

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
backoff_min = 50ms
backoff_max = 400ms
poll = 200ms
drain_timeout = 5s
{more}
"""


def provisioner(directory, node="n1", ports="21000-28999", nginx=process.NGINX, more=""):
    return PROVISIONER.format(node=node, directory=directory, nginx=nginx, modules=MODULES,
                              user=USER, ports=ports, more=more)


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

    def phase(self, phase, timeout=15):
        return until(lambda: self.row and self.row["phase"] == phase and self.row,
                     lambda: f"{self.name} to be {phase}: {self.row}\n{self.platform.tenantd.log.text[-4000:]}",
                     timeout)

    def settled(self, timeout=15):
        """Ready, and at the generation that is wanted."""
        return until(lambda: self.row["phase"] == "ready"
                     and self.row["generation"] == self.row["observed_generation"] and self.row,
                     lambda: f"{self.name}: {self.row}\n{self.platform.tenantd.log.text[-4000:]}", timeout)

    def get(self, target="/", headers=(), key=None):
        return wire.request(self.address, "GET", target, self.tenant.headers(headers, key))

    def serves(self, timeout=15):
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
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "cwd").readlink() == self.prefix:
                    found.append(int(entry.name))
            except OSError:
                pass
        return found


class Dedicated(Platform):
    """A platform whose tenantd runs gateways."""

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
            for entry in pathlib.Path("/proc").iterdir():
                try:
                    if entry.name.isdigit() and (entry / "cwd").readlink() == prefix:
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    pass

    def problems(self):
        found = super().problems()
        for log in self.instances.glob("dedicated-*/logs/error.log"):
            found += [f"{log.parent.parent.name}: {line}" for line in process.Log(log).bad()]
        return found


@pytest.fixture(scope="module")
def platform(database, backend):
    platform = Dedicated(database, backend, process.folder("dedicated"))
    yield platform
    platform.stop()
    assert not platform.problems(), "\n".join(platform.problems())


KEYED = {"routes": [route(auth="required")]}


def test_first_request(platform):
    begin = time.monotonic()
    instance = platform.dedicated(**KEYED)
    instance.serves()
    took = time.monotonic() - begin
    print(f"POST to the first authenticated 200: {took * 1000:.0f} ms")
    row = instance.settled()
    assert row["pid"] in instance.processes
    assert instance.condition("Ready")["status"] == "True"
    assert instance.condition("ConfigAccepted")["status"] == "True"
    assert instance.get().status == 401
    assert instance.get(headers=[("Host", "other.example.com")]).status == 404
