# SPDX-License-Identifier: BSD-2-Clause
"""A million calls among workloads that share one address: how many records name another end than it was."""

import os
import time

import flows
import measure

CALLS, BATCH = 1_000_000, 400       # in all; of a caller at a time
SHARED = "10.77.0.9"
SERVERS = {"orders": (1, 11), "stock": (2, 21), "books": (3, 31)}
CALLERS = {"shop": (1, 12), "till": (2, 22), "desk": (3, 32)}
NAME = f"tiergate-bench-attribution-{os.getpid()}"
os.environ.setdefault("TIERGATE_BUILD", os.environ.get("BUILD", "build"))


class Bed:
    """Six workloads of three tenants on one address, as in a node's own network.  A caller is known by its ports, a
    server by its own."""

    def __init__(self):
        self.node, self.kit = flows.support("node"), flows.support("mesh")
        self.base = self.node.Cgroup(self.node.cgroup_root() / NAME)
        self.netns = self.node.Netns(NAME, [SHARED])
        self.mesh = self.kit.Mesh(f"/sys/fs/bpf/{NAME}")
        self.root, self.actors = self.base.child("mesh"), {}

    def start(self):
        mesh, actor = self.mesh, flows.support("actor").Actor
        mesh.open(rate=1_000_000, burst=1_000_000)
        mesh.say("begin")
        mesh.address(SHARED, 0, 0, self.kit.HOST)
        for name, (tenant, service) in {**SERVERS, **CALLERS}.items():
            cgroup = self.root.child(name)
            self.actors[name] = actor(cgroup, self.netns)
            self.actors[name].live_at(SHARED)
            mesh.workload(cgroup, tenant, service, flags=self.kit.HOST_SOURCE)
        for i, (name, (tenant, service)) in enumerate(SERVERS.items()):
            self.actors[name].listen("l", SHARED, 8000 + i)
            self.actors[name].serve_ports(["l"])
            mesh.tenant(tenant)
            mesh.service(tenant, service, f"10.96.0.{1 + i}", 80, (SHARED, 8000 + i))
        mesh.say("commit")
        mesh.say("attach", self.root.path)

    def batch(self, number):
        """Calls of each caller to endpoints and virtual addresses at random: how many, served, and their records."""
        targets = [(f"10.96.0.{1 + i}", 80) for i in range(3)] + [(SHARED, 8000 + i) for i in range(3)]
        for i, name in enumerate(CALLERS):
            first = 10_000 * (1 + i) + number * BATCH % 9_000
            self.actors[name].begin("random_calls", targets, BATCH, 10 * number + i, range(first, first + BATCH))
        made, records = [], []
        for name in CALLERS:
            calls = self.actors[name].result()
            assert isinstance(calls, list), calls
            made += calls
            records += self.mesh.events()
        return len(made), sum(outcome == "ok" for _, outcome in made), records + self.mesh.events(20)

    def wrong(self, record):
        """Whether a record names another server than the port's, or another caller.  A denial comes before the caller's
        port is chosen: there it is wrong to name a tenant that may call."""
        server = list(SERVERS.values())[record["to"][1] - 8000]
        if record["type"] == self.kit.DENY:
            return tuple(record["dst"]) != server or record["src"][0] == server[0]
        return tuple(record["dst"]) != server or tuple(record["src"]) != list(CALLERS.values())[record["from"][1] // 10_000 - 1]

    def end(self):
        for actor in self.actors.values():
            actor.end()
        try:
            self.mesh.say("detach")
        finally:
            self.mesh.kill()
            self.netns.remove()
            self.base.remove()


def run(_options):
    if os.geteuid() or flows.support("node").cgroup_root() is None or not os.path.exists(flows.support("mesh").MESHCTL):
        print("skipped attribution: needs root, cgroup2 and build/tests/meshctl (make build/tests/meshctl)")
        return
    bed = Bed()
    calls = told = served = wrong = number = lost = 0
    begin = time.monotonic()
    try:
        bed.start()
        while calls < CALLS:
            made, ok, records = bed.batch(number)
            number += 1
            calls, served, told = calls + made, served + ok, told + len(records)
            wrong += sum(bed.wrong(record) for record in records)
            # an open record for each call that was served, a denial for each that was not
            lost += made - sum(record["type"] in (bed.kit.CONNECT, bed.kit.DENY) for record in records)
    finally:
        bed.end()
    measure.table(f"Who called whom, by the records of workloads that share an address ({time.monotonic() - begin:.0f} s)",
                  ("calls", "served", "refused", "records", "misattributed", "calls without record"),
                  [(calls, served, calls - served, told, wrong, lost)])
