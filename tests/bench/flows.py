# SPDX-License-Identifier: BSD-2-Clause
"""With a real agent, tenantd and PostgreSQL: how many records of flows a second get from the kernel to the
registry without loss, and how long a change by psql takes to be a verdict."""

import importlib.util
import multiprocessing
import os
import pathlib
import socket
import struct
import sys
import time

import measure

RATES = (2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 40_000, 60_000)     # records a second
SECONDS = 5
CHANGES = 200
RECORDS = 4     # of a call: open, accept, and a close at each end
NAME = f"tiergate-bench-flows-{os.getpid()}"
ADDRESS, PORT = "10.77.0.1", 8080
SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "bpf" / "support"


def support(name):
    """A module of tests/bpf/support, whose package has the name of another one here."""
    if "bpf_support" not in sys.modules:
        spec = importlib.util.spec_from_file_location("bpf_support", SUPPORT / "__init__.py",
                                                      submodule_search_locations=[str(SUPPORT)])
        sys.modules["bpf_support"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["bpf_support"])
    return importlib.import_module(f"bpf_support.{name}")


def caller(pipe, cgroup, netns):
    """Calls itself at the pace that it is told, or until what comes of a call changes."""
    cgroup.enter()
    netns.enter()
    listener = socket.create_server((ADDRESS, PORT), backlog=128)
    listener.settimeout(0.05)
    reset = struct.pack("ii", 1, 0)

    def call():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            s.bind((ADDRESS, 0))
            s.settimeout(0.05)
            try:
                s.connect((ADDRESS, PORT))
                listener.accept()[0].close()
            except (PermissionError, TimeoutError):     # dropped, where the change came in the middle of a call
                return "denied"
            return "allowed"

    def pace(rate, seconds):
        begin, made = time.monotonic(), 0
        while (now := time.monotonic() - begin) < seconds:
            if made < now * rate / RECORDS:
                call()
                made += 1
            else:
                pipe.poll(0.0005)
        return made

    def watch(outcome):
        pipe.send(None)
        while True:
            begin = time.monotonic()
            if call() == outcome:
                return begin

    while True:
        word, *more = pipe.recv()
        pipe.send({"pace": pace, "watch": watch}[word](*more))


class Bed:
    """A registry, an agent, and a workload that calls itself."""

    def __init__(self):
        self.node, site = support("node"), support("site")
        process = site.integration("process")
        self.drop = process.drop
        self.path = process.folder("bench-flows")
        self.base = self.node.Cgroup(self.node.cgroup_root() / NAME)
        self.netns = self.node.Netns(NAME, [ADDRESS])
        self.server = site.integration("postgres").Server(process.folder("postgres"))
        self.server.template("tiergate_template", site.integration("tenantd").migrate)
        self.database = self.server.database("tiergate_template")
        self.site = site.Site(NAME, self.path, self.base, self.netns, self.netns, self.database)
        self.caller = None

    def start(self):
        cgroup = self.site.root.child("web")
        self.site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated"})
        self.site.sql(f"""
            INSERT INTO tiergate.mesh_nodes (name, tenants) VALUES ('a', '{{*}}');
            INSERT INTO tiergate.mesh_services (tenant, name, ports) VALUES ('acme', 'web', '[]');
            INSERT INTO tiergate.mesh_workloads (tenant, name, service, node, cgroup, addresses)
            VALUES ('acme', 'web-1', 'web', 'a', '{self.site.below(cgroup)}', '{{{ADDRESS}}}')""")
        agent = self.site.agent(event_rate=1_000_000, event_burst=100_000, metrics=f"unix:{self.path}/metrics.sock")
        agent.start()
        self.site.acked(self.database.revision())
        context = multiprocessing.get_context("fork")
        self.pipe, there = context.Pipe()
        self.caller = context.Process(target=caller, args=(there, cgroup, self.netns))
        self.caller.start()

    def figures(self):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{self.path}/metrics.sock")
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            body = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        lines = [line.split() for line in body.splitlines() if line.startswith("tiergate_mesh_")]
        values = {line[0]: float(line[-1]) for line in lines}
        return {"lost": sum(v for k, v in values.items() if k.startswith("tiergate_mesh_lost_records_total")),
                "sent": values["tiergate_mesh_records_sent_total"], "queued": values["tiergate_mesh_records_queued"]}

    def rate(self, rate):
        """One row of the table, and whether the rate was held without loss."""
        self.node.until(lambda: self.figures()["queued"] == 0, "an empty queue", 120)
        before = self.figures()
        self.pipe.send(("pace", rate, SECONDS))
        made = self.pipe.recv() * RECORDS
        waiting = self.figures()["queued"]
        end = time.monotonic()
        self.node.until(lambda: self.figures()["queued"] == 0, "an empty queue", 120)
        drained = time.monotonic() - end
        lost = self.figures()["lost"] - before["lost"]
        row = (f"{rate}", f"{made / SECONDS:.0f}", f"{lost:.0f}", f"{waiting:.0f}", f"{drained:.2f}")
        return row, lost == 0 and waiting < rate and made >= 0.95 * rate * SECONDS

    def change(self, statement, outcome):
        """ms from the commit to the first call that it was the verdict of."""
        self.pipe.send(("watch", outcome))
        self.pipe.recv()
        self.database.execute(statement)
        committed = time.monotonic()
        return (self.pipe.recv() - committed) * 1000

    def changes(self):
        self.database.execute("SELECT 1")
        times = []
        for _ in range(CHANGES // 2):
            times.append(self.change("""INSERT INTO tiergate.mesh_policies (tenant, name, action, from_service, to_service)
                                        VALUES ('acme', 'stop', 'deny', 'web', 'web')""", "denied"))
            times.append(self.change("DELETE FROM tiergate.mesh_policies WHERE name = 'stop'", "allowed"))
        return times

    def end(self):
        if self.caller:
            self.caller.kill()
            self.caller.join()
        self.site.end()
        self.database.close()
        self.server.stop()
        self.netns.remove()
        self.base.remove()
        self.drop(self.path)
        self.drop(self.server.path)


def run():
    bed = Bed()
    rows, held = [], 0
    try:
        bed.start()
        times = bed.changes()
        for rate in RATES:
            row, sound = bed.rate(rate)
            rows.append(row)
            if not sound:
                break
            held = rate
    finally:
        bed.end()
    measure.table(f"Records of flows from the kernel to the registry, {SECONDS} s each; up to {held} a second none was lost",
                  ("wanted a second", "made a second", "lost", "waiting at the end", "s until none"), rows)
    measure.table(f"From the commit of a policy to the first call that it decides, {CHANGES} changes",
                  ("", "ms"), [("p50", f"{measure.percentile(times, 50):.1f}"), ("p99", f"{measure.percentile(times, 99):.1f}")])
