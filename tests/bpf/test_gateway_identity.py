# SPDX-License-Identifier: BSD-2-Clause
"""A tenant's own gateway is a workload of the tenant: one policy lets it alone call a service, and a line
of its access log is the kernel's record of the same connection."""

import json
import os
import pwd
import subprocess
import sys

import pytest

from support.node import until
from support.site import TESTS, integration, process
from support.undo import Undo

wire = integration("wire")
DEMO = TESTS.parent / "examples/demo"
HOST = "acme.example.com"

PROVISIONER = """\
level = notice

[provisioner]
driver = process
node = a
directory = {path}/instances
nginx = {nginx}
modules = {modules}
user = {user}
ports = 29000-29249
cgroup = {cgroup}
poll = 200ms
drain_timeout = 5s
"""


class Here:
    """The network namespace that the tests run in."""

    @staticmethod
    def enter():
        pass


@pytest.fixture(scope="module")
def driver(site):
    """Another tenantd on the same registry, which runs gateways, below the cgroup of the mesh."""
    tenantd = integration("tenantd")
    path = site.path / "driver"
    more = PROVISIONER.format(path=path, nginx=process.NGINX, modules=process.MODULE.parent,
                              user=pwd.getpwuid(os.geteuid()).pw_name, cgroup=site.below(site.root) / "instances")
    running, undo = tenantd.Tenantd(site.database, path, more), Undo()
    undo.add("tenantd", running.stop)
    undo.add("gateway", lambda: until(
        lambda: site.database.one("SELECT count(*) FROM tiergate.instances") == 0, lambda: "its end\n" + story(site, running), 20))
    undo.add("tenant", lambda: site.sql(
        "SELECT tiergate.delete_tenant(name) FROM tiergate.tenants WHERE name = 'acme'"))
    try:
        yield running
    finally:
        undo.run()


def story(site, driver):
    """Why the gateway is as it is: what the registry knows, and what its tenantd and nginx have said."""
    said = [str(row) for row in site.database.execute(
        "SELECT name, phase, reason, message, port, attempts, conditions FROM tiergate.instances")]
    said += [str(row) for row in site.database.execute(
        "SELECT at, gateway, reason, message FROM tiergate.gateway_events ORDER BY id DESC LIMIT 10")]
    for log in (driver.log.path, *sorted(driver.path.glob("instances/*/logs/*.log"))):
        said.append(f"{log}:\n" + log.read_text(errors="replace")[-3000:])
    return "\n".join(said)


@pytest.fixture(scope="module")
def cast(site, driver):
    """acme: orders, which only its gateway may call, shop, and the gateway with a route to orders."""
    site.rest.call("PUT", "/v1/mesh/nodes/a", {"tenants": ["*"]})
    site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated", "hosts": [HOST]})
    mesh = "/v1/tenants/acme/mesh"
    port = process.free_port()
    orders = site.rest.call("PUT", f"{mesh}/services/orders", {"ports": [{"port": 80, "protocol": "tcp"}]})
    site.rest.call("PUT", f"{mesh}/services/shop", {"ports": []})
    site.rest.call("PUT", f"{mesh}/services/orders/endpoints/127.0.0.1:{port}", {})
    site.rest.call("PUT", f"{mesh}/policies/closed",
                   {"action": "deny", "precedence": 100, "to": {"service": "orders"}})
    site.rest.call("PUT", f"{mesh}/policies/gateway",
                   {"action": "allow", "precedence": 200, "from": {"service": "gateway"}, "to": {"service": "orders"}})
    address = orders["addresses"][0]
    site.rest.call("PUT", "/v1/tenants/acme/upstreams/orders", {"endpoints": [{"address": address, "port": 80}]})
    site.rest.call("PUT", "/v1/tenants/acme/routes/orders",
                   {"match": {"path": {"type": "prefix", "value": "/"}}, "auth": {"mode": "none"},
                    "backends": [{"upstream": "orders"}]})
    agent = site.agent(netns=Here)
    agent.start()
    site.acked(site.database.revision())
    agent.exec(sys.executable, "-B", DEMO / "service.py", port, "v1")
    gateway = until(lambda: (state := site.rest.call("GET", "/v1/tenants/acme/gateway"))["phase"] == "ready" and state,
                    lambda: "the gateway to be ready\n" + story(site, driver), 20)
    site.acked(site.database.revision())
    return {"agent": agent, "gateway": gateway, "address": address, "driver": driver}


def get(cast, path):
    return wire.request(("127.0.0.1", cast["gateway"]["port"]), "GET", path, {"Host": HOST}, timeout=10)


def test_only_the_gateway_may_call(cast):
    until(lambda: get(cast, "/up").status == 200, "orders through the gateway")
    said = cast["agent"].exec(sys.executable, "-B", DEMO / "caller.py", "call", cast["address"], 80, 3,
                              service="shop", stdout=subprocess.PIPE, text=True)
    assert json.loads(said.communicate(timeout=20)[0])["answers"] == {"EPERM": 3}


def test_the_workers_cannot_leave_their_identity(site, cast):
    """Every process of the instance is in the cgroup that the registry names."""
    cgroup = site.database.one("SELECT cgroup FROM tiergate.mesh_workloads WHERE tenant = 'acme' AND source = 'gateway'")
    pid = cast["gateway"]["pid"]
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        workers = f.read().split()
    assert workers
    for one in [pid, *workers]:
        with open(f"/proc/{one}/cgroup", encoding="ascii") as f:
            assert f"/{cgroup}" in f.read()


def test_a_request_in_the_log_is_a_record_of_the_kernel(site, cast):
    """By the source of the connection, and with the same identity."""
    gateway = cast["gateway"]["name"]
    log = cast["driver"].path / "instances" / gateway / "logs/access.log"
    answers = [get(cast, f"/joined/{i}") for i in range(3)]
    assert [answer.status for answer in answers] == [200] * 3

    def logged():
        lines = [line for line in log.read_text().splitlines() if "/joined/" in line]
        return len(lines) == 3 and lines
    lines = until(logged, "the access log")
    sources = {line.split()[-2] for line in lines}
    assert all(line.split()[1] == "acme" and line.split()[-3] == f"{cast['address']}:80" for line in lines), lines

    def recorded():
        flows = site.rest.call("GET", "/v1/tenants/acme/flows?destination=orders&limit=1000")["items"]
        found = {f"{flow['source']['address']}:{flow['source']['port']}": flow for flow in flows
                 if flow["source"].get("port")}
        return sources <= set(found) and [found[source] for source in sources]
    for flow in until(recorded, "the records"):
        assert (flow["source"]["tenant"], flow["source"]["service"]) == ("acme", "gateway")
        assert (flow["destination"]["tenant"], flow["destination"]["service"]) == ("acme", "orders")
        assert flow["virtual"] == {"address": cast["address"], "port": 80}
        assert flow["verdict"] == "allowed"
