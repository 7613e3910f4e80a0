# SPDX-License-Identifier: BSD-2-Clause
"""The mesh of a dedicated tenant: a few workloads, who may call whom, where calls go, what flowed.

All of it in a cgroup of the demo's own, so that no other process of the machine is judged.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

from stack import BUILD, cgroup_mount, free_port, until

HERE = os.path.dirname(os.path.realpath(__file__))
NODE = "demo"


def missing():
    """Why the mesh cannot be shown here, or None."""
    if os.geteuid() != 0:
        return "it takes root"
    if cgroup_mount() is None:
        return "no cgroup2 is mounted"
    if not os.access(cgroup_mount(), os.W_OK):
        return f"{cgroup_mount()} is not writable"
    if not os.path.ismount("/sys/fs/bpf"):
        return "no bpf file system is mounted on /sys/fs/bpf"
    return None


class Mesh:
    """The agent and the workloads of one tenant."""

    def __init__(self, stack, say, tenant):
        self.stack, self.say, self.tenant = stack, say, tenant
        self.config = f"{stack.dir}/tenantd.ini"
        self.base = pathlib.Path(cgroup_mount()) / stack.cgroup
        self.workloads = []
        self.attached = False

    def rest(self, method, path, body=None, expect=(200, 201, 204)):
        status, answer = self.stack.rest(method, path, body)
        if status not in expect:
            raise SystemExit(f"demo: {method} {path} answered {status}: {answer}")
        return answer

    def mesh(self, path, body):
        return self.rest("PUT", f"/v1/tenants/{self.tenant}/mesh/{path}", body)

    # --- start and stop ---

    def start(self):
        """Whether it runs; if not, it has said why."""
        self.base.mkdir(exist_ok=True)
        self.rest("PUT", f"/v1/mesh/nodes/{NODE}", {"tenants": [self.tenant]})
        agent = self.stack.spawn("agent", [f"{BUILD}/bin/tenantd", "agent", "--config", self.config])
        self.attached = True
        until("the agent", lambda: agent.poll() is not None or self.state() == "live")
        if agent.poll() is not None:
            last = pathlib.Path(f"{self.stack.dir}/logs/agent.log").read_text(encoding="utf-8").splitlines()
            self.say(f"skipped: {last[-1] if last else 'the agent ended'}")
        return agent.poll() is None

    def state(self):
        _, shown = self.stack.rest("GET", f"/v1/gateways/node-{NODE}")
        return shown.get("state")

    def stop(self):
        for workload in self.workloads:
            workload.send_signal(signal.SIGTERM)
        for workload in self.workloads:
            workload.wait(10)
        if self.attached:
            self.stack.end("agent")
            subprocess.run([f"{BUILD}/bin/tenantd", "agent", "--detach", "--config", self.config],
                           check=False, stdout=self.stack.log("agent"), stderr=subprocess.STDOUT)

    def command(self, service, words):
        return [f"{BUILD}/bin/tenantd", "exec", "--config", self.config, "--tenant", self.tenant,
                "--service", service, "--", sys.executable, "-B", *map(str, words)]

    def serve(self, service, version, weight):
        """A workload that serves, and is an endpoint of its service."""
        port = free_port()
        self.workloads.append(subprocess.Popen(self.command(service, [f"{HERE}/service.py", port, version]),
                                               stdin=subprocess.DEVNULL, stdout=self.stack.log(version),
                                               stderr=subprocess.STDOUT))
        self.mesh(f"services/{service}/endpoints/127.0.0.1:{port}", {"weight": weight})

    def call(self, service, address, count=1):
        done = subprocess.run(self.command(service, [f"{HERE}/caller.py", "call", address, 80, count]),
                              stdout=subprocess.PIPE, text=True, check=False, timeout=60)
        if done.returncode:
            raise SystemExit(f"demo: the caller ended with {done.returncode}; logs are in {self.stack.dir}/logs")
        return json.loads(done.stdout)

    def settled(self):
        """Waits until the agent has in its kernel what the registry has."""
        newest = int(self.stack.psql("SELECT max(revision) FROM tiergate.changes"))
        until("the agent to apply the mesh", lambda: int(self.stack.psql(
            f"SELECT coalesce(max(revision), 0) FROM tiergate.gateways WHERE name = 'node-{NODE}'")) >= newest)


def services(mesh):
    """orders in two versions, and web, which has no address: it only calls."""
    mesh.mesh("services/web", {"ports": []})
    orders = mesh.mesh("services/orders", {"ports": [{"port": 80, "protocol": "tcp"}]})
    mesh.mesh("policies/orders-closed", {"action": "deny", "precedence": 100, "to": {"service": "orders"}})
    mesh.mesh("policies/gateway-orders", {"action": "allow", "precedence": 200, "from": {"service": "gateway"},
                                          "to": {"service": "orders"}})
    mesh.settled()
    mesh.serve("orders", "v1", 90)
    mesh.serve("orders", "v2", 10)
    return orders["addresses"][0]


def through_gateway(mesh, gateway, host, address):
    """The tenant's own gateway is a workload as well: service gateway."""
    tenant = mesh.tenant
    mesh.rest("PUT", f"/v1/tenants/{tenant}/upstreams/mesh",
              {"endpoints": [{"address": address, "port": 80}]})
    mesh.rest("PUT", f"/v1/tenants/{tenant}/routes/mesh",
              {"match": {"path": {"type": "prefix", "value": "/mesh"}}, "auth": {"mode": "none"},
               "backends": [{"upstream": "mesh"}]})
    mesh.settled()
    until("orders through the gateway", lambda: gateway.get("/mesh", host)[0] == 200)
    status, _, body = gateway.get("/mesh/17", host)
    mesh.say(f"{status}  client, gateway of {tenant}, {address}:80 (orders {json.loads(body)['version']}): "
             "allowed, \"only the gateway may call orders\" is one policy")


def denied_then_opened(mesh, address):
    answer = mesh.call("web", address)
    mesh.say(f"{' '.join(answer['answers'])}  web, {address}:80: connect() refused by the kernel after "
             f"{answer['ms']:.1f} ms")
    caller = subprocess.Popen(mesh.command("web", [f"{HERE}/caller.py", "wait", address, 80]),
                              stdout=subprocess.PIPE, text=True)
    caller.stdout.readline()
    sql = f"SELECT tiergate.mesh_allow('{mesh.tenant}', 'web-orders', from_service => 'web', to_service => 'orders', precedence => 200)"
    committed = float(mesh.stack.psql(f"SELECT FROM ({sql}) x;\nSELECT extract(epoch FROM clock_timestamp());")
                      .splitlines()[-1])
    opened = json.loads(caller.communicate(timeout=20)[0].splitlines()[-1])
    if "at" not in opened:
        raise SystemExit("demo: the policy was not enforced within 10 s")
    mesh.say(f"psql> {sql};")
    mesh.say(f"from commit to the first call that is allowed: {max(0.0, opened['at'] - committed) * 1000:.1f} ms")


def split(mesh, address, count=1000):
    answers = mesh.call("web", address, count)["answers"]
    mesh.say(f"{count} calls of web by weights 90 and 10: " +
             ", ".join(f"{n} to {version}" for version, n in sorted(answers.items())))


def flows(mesh):
    """The last denials, and the last of what was allowed; by psql and curl alike."""
    path = f"/v1/tenants/{mesh.tenant}/flows"
    denied, allowed = [], []

    def told():
        denied[:] = mesh.rest("GET", f"{path}?verdict=denied&limit=2")["items"]
        allowed[:] = mesh.rest("GET", f"{path}?type=close&source=web&limit=8")["items"]
        return denied and allowed
    until("the flow records", told)
    mesh.say(f"GET {path}")
    for flow in denied + [flow for flow in allowed if flow["side"] == "source"][:3]:
        mesh.say(f"  {flow['type']:<7} {side(flow['source'])} -> {side(flow['destination'])}  " + (
            f"{flow['reason']} {flow.get('policy', '')}" if flow["verdict"] == "denied" else
            f"{flow['bytes_received']} bytes in {flow['duration_us'] / 1000:.1f} ms"))
    mesh.say(f"GET /v1/tenants/{mesh.tenant}/servicemap")
    shown = mesh.rest("GET", f"/v1/tenants/{mesh.tenant}/servicemap")
    for edge in shown["edges"]:
        mesh.say(f"  {side(edge['source'])} -> {side(edge['destination'])}: {edge['connections']} connections, "
                 f"{edge['denied']} denied")
    if shown["lost"]:
        mesh.say(f"  {shown['lost']} records more were over the tenant's rate, which [agent] event_rate says, and are counted only")


def side(end):
    address = end and end.get("address")
    return f"{end and end.get('service') or 'outside'}" + (f" ({address}:{end.get('port')})" if address else "")


@contextlib.contextmanager
def running(stack, say, tenant):
    """The mesh of the tenant, or None where it cannot be shown."""
    why = missing()
    if why:
        say(f"skipped: {why}")
        yield None
        return
    mesh = Mesh(stack, say, tenant)
    try:
        yield mesh if mesh.start() else None
    finally:
        mesh.stop()


def show(lives, stack, say, gateway, host):
    """The mesh goes on as long as lives; what to do with it then, or None where there is none."""
    mesh = lives.enter_context(running(stack, say, gateway.tenant))
    if mesh is None:
        return None
    address = services(mesh)
    through_gateway(mesh, gateway, host, address)
    denied_then_opened(mesh, address)
    split(mesh, address)
    flows(mesh)
    return (f"{BUILD}/bin/tenantd exec --config {mesh.config} --tenant {mesh.tenant} --service web -- "
            f"curl -s http://{address}/")
