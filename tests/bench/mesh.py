# SPDX-License-Identifier: BSD-2-Clause
"""Cost of a connect without a mesh, with Tiergate's at several sizes, and with the kernel's own DNAT."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

import flows
import measure

SIZES = (10, 1_000, 10_000)
CONNECTS, REQUESTS, BLOCKS = 2_000, 5_000, 1_000     # of one turn
TURNS = 8       # a round: short ones, for what else the machine does comes and goes
ALL = 1_000_000     # records a second and at once, so that none is left out
NAME = f"tiergate-bench-{os.getpid()}"
ENDPOINT, VIRTUAL = "10.77.0.1", "10.96.200.1"
os.environ.setdefault("TIERGATE_BUILD", os.environ.get("BUILD", "build"))


def virtual(i):
    """Service i; the one that is called stands in the middle."""
    return f"10.96.{i // 250}.{i % 250 + 1}"


def services(size):
    return [VIRTUAL if i == size // 2 else virtual(i) for i in range(size)]


def iptables_rules(size):
    """As kube-proxy writes them: one rule a service, a chain a service, a chain an endpoint."""
    lines = ["*nat", ":OUTPUT ACCEPT", ":KUBE-SERVICES -"]
    lines += [f":KUBE-SVC-{i} -" for i in range(size)] + [f":KUBE-SEP-{i} -" for i in range(size)]
    lines += ["-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"]
    for i, address in enumerate(services(size)):
        lines += [f"-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment \"ns/s{i} cluster IP\" -m tcp "
                  f"--dport 80 -j KUBE-SVC-{i}",
                  f"-A KUBE-SVC-{i} -m comment --comment \"ns/s{i}\" -j KUBE-SEP-{i}",
                  f"-A KUBE-SEP-{i} -p tcp -m comment --comment \"ns/s{i}\" -m tcp -j DNAT "
                  f"--to-destination {ENDPOINT}:8080"]
    return "\n".join([*lines, "COMMIT", ""])


def nftables_rules(size):
    chains = "\n".join(f"chain s{i} {{ meta l4proto tcp dnat to {ENDPOINT}:8080; }}" for i in range(size))
    elements = ", ".join(f"{address} . tcp . 80 : goto s{i}" for i, address in enumerate(services(size)))
    return f"""table ip bench {{
{chains}
map services {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }} }}
chain output {{ type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @services; }}
}}
"""


class Target:
    """Both ends are in the cgroup, or the caller alone moves to another."""

    def __init__(self, name, cgroup, netns, address, caller=None):
        self.name, self.cgroup, self.netns, self.address = name, cgroup, netns, address
        self.env = {**os.environ, "CALLER_CGROUP": f"{caller.path}/cgroup.procs"} if caller else None
        self.results = {}

    def dial(self, dial, mode, count):
        address, port = self.address

        def enter():
            os.sched_setaffinity(0, {measure.LOAD_CORE})
            self.cgroup.enter()
            self.netns.enter()

        out = subprocess.run([dial, mode, address, str(port), ENDPOINT, "8080", str(count)], preexec_fn=enter, env=self.env,
                             check=True, capture_output=True, text=True, timeout=120).stdout
        self.results.setdefault(mode, []).append([float(word) for word in out.split()])

    def median(self, mode, column=0):
        return statistics.median(row[column] for row in self.results[mode])

    def ratio(self, plain, mode):
        """To the turn of plain next to it, so that both had the same machine."""
        return statistics.median(mine[0] / other[0] for mine, other in zip(self.results[mode], plain.results[mode]))


class Bench:
    """Makes the targets, and takes everything away again."""

    def __init__(self):
        self.node, self.mesh = flows.support("node"), flows.support("mesh")
        self.made, self.meshes, self.readers, self.targets, self.callers = [], [], [], [], []

    def namespace(self, suffix):
        netns = self.node.Netns(f"{NAME}-{suffix}", [ENDPOINT])
        self.made.append(netns)
        self.node.ip("route", "add", "10.96.0.0/16", "dev", "lo", netns=netns.name)
        return netns

    def add_mesh(self, size, name="mesh", said="services", **options):
        cgroup = self.base.child(f"{name}{size}")
        mesh = self.mesh.Mesh(f"/sys/fs/bpf/{NAME}-{name}{size}")
        self.meshes.append(mesh)
        mesh.open(**options)
        mesh.say("begin")
        mesh.tenant(1)
        mesh.workload(cgroup, 1, 11, ENDPOINT)
        mesh.address(ENDPOINT, 1, 11)
        mesh.say("bulk", size, size * 10, 1)
        mesh.service(1, 11, VIRTUAL, 81, (ENDPOINT, 8080))
        mesh.say("commit")
        mesh.say("attach", cgroup.path)
        self.targets.append(Target(f"tiergate, {size} {said}", cgroup, self.plain, (VIRTUAL, 81)))
        self.callers.append(Target(f"tiergate, {size} {said}, caller's end", self.outside, self.plain, (VIRTUAL, 81), cgroup))

    def add_read(self, size):
        """Each record is made, and read by another process as it comes."""
        self.add_mesh(size, "read", "services, all recorded", rate=ALL, burst=ALL)
        with tempfile.TemporaryFile("w+") as commands:
            commands.write(f"open {self.meshes[-1].pins} rate={ALL} burst={ALL}\n" + "events 1000\n" * 1_000_000)
            commands.seek(0)
            self.readers.append(subprocess.Popen([self.mesh.MESHCTL], stdin=commands, stdout=subprocess.DEVNULL))
        os.sched_setaffinity(self.readers[-1].pid, {measure.GATEWAY_CORE})

    def add_floor(self, name="floor", said="", *defines):
        """Programs that do nothing, at the same hooks."""
        cgroup = self.base.child(name)
        pins = pathlib.Path(f"/sys/fs/bpf/{NAME}-{name}")
        code = f"{os.environ['TIERGATE_BUILD']}/tests/floor.bpf.o"
        arch = subprocess.run(["cc", "-print-multiarch"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([os.environ.get("CLANG", "clang"), "-target", "bpf", "-O2", "-g", *defines, f"-I/usr/include/{arch}",
                        "-c", "-o", code, pathlib.Path(__file__).with_name("floor.bpf.c")], check=True)
        subprocess.run(["bpftool", "prog", "loadall", code, pins], check=True)
        try:
            for pin in pins.iterdir():
                subprocess.run(["bpftool", "cgroup", "attach", cgroup.path, pin.name, "pinned", pin], check=True)
        finally:
            shutil.rmtree(pins)     # the cgroup holds them
        self.targets.append(Target(f"empty programs{said}", cgroup, self.plain, (ENDPOINT, 8080)))
        self.callers.append(Target(f"empty programs{said}, caller's end", self.outside, self.plain, (ENDPOINT, 8080), cgroup))

    def add_dnat(self, tool, command, rules, size):
        netns = self.namespace(f"{tool}{size}")
        done = subprocess.run(["ip", "netns", "exec", netns.name, *command], input=rules(size), text=True,
                              capture_output=True, check=False, timeout=300)
        if done.returncode:
            print(f"skipped {tool} with {size} services: {done.stderr.strip()[:200]}", flush=True)
            return
        self.targets.append(Target(f"{tool} DNAT, {size} services", self.outside, netns, (VIRTUAL, 80)))

    def build(self):
        self.base = self.node.Cgroup(self.node.cgroup_root() / NAME)
        self.outside = self.base.child("outside")
        self.plain = self.namespace("plain")
        self.targets.append(Target("no mesh", self.outside, self.plain, (ENDPOINT, 8080)))
        self.add_floor()
        self.add_floor("storage", ", sockets with storage", "-DSTORAGE")
        for size in SIZES:
            self.add_mesh(size)
        self.add_read(SIZES[-1])
        self.targets += self.callers
        for tool, command, rules in (("iptables", ["iptables-restore"], iptables_rules),
                                     ("nftables", ["nft", "-f", "-"], nftables_rules)):
            if not shutil.which(command[0]):
                print(f"skipped {tool}: {command[0]} is missing")
                continue
            for size in SIZES:
                self.add_dnat(tool, command, rules, size)

    def end(self):
        for reader in self.readers:
            reader.kill()
            reader.wait()
        for mesh in self.meshes:
            try:
                mesh.say("detach")
            finally:
                mesh.kill()
        for netns in self.made:
            netns.remove()
        self.base.remove()


def program_times(bench, dial):
    """ns a run of each program, with the kernel's own statistics on."""
    switch = pathlib.Path("/proc/sys/kernel/bpf_stats_enabled")
    before = switch.read_text()
    largest = next(t for t in bench.targets if t.name == f"tiergate, {SIZES[-1]} services")
    pins = f"/sys/fs/bpf/{NAME}-mesh{SIZES[-1]}/links"

    def counts():
        out = json.loads(subprocess.run(["bpftool", "-j", "link", "show"], check=True, capture_output=True,
                                        text=True).stdout)
        ids = {link["prog_id"] for link in out if link.get("type") == "cgroup"
               and link.get("cgroup_id") == os.stat(largest.cgroup.path).st_ino}
        programs = json.loads(subprocess.run(["bpftool", "-j", "prog", "show"], check=True, capture_output=True,
                                             text=True).stdout)
        return {p["name"]: (p.get("run_time_ns", 0), p.get("run_cnt", 0)) for p in programs if p["id"] in ids}

    assert os.path.isdir(pins)
    switch.write_text("1")
    try:
        first = counts()
        largest.dial(dial, "connect", 5 * CONNECTS)
        last = counts()
    finally:
        switch.write_text(before)
        largest.results["connect"].pop()
    rows = []
    for name, (ns, runs) in sorted(last.items()):
        ns, runs = ns - first[name][0], runs - first[name][1]
        if runs:
            rows.append((name, f"{ns / runs:.0f}", f"{runs / CONNECTS / 5:.1f}", f"{ns / CONNECTS / 5:.0f}"))
    return rows


def run(options):
    bench = Bench()
    dial = f"{os.environ.get('BUILD', 'build')}/tests/dial"
    if os.geteuid() or bench.node.cgroup_root() is None or not os.path.exists(bench.mesh.MESHCTL):
        print("skipped mesh: needs root, cgroup2 and build/tests/meshctl (make build/tests/meshctl)")
        return
    subprocess.run(["cc", "-O2", "-o", dial, pathlib.Path(__file__).with_name("dial.c")], check=True)
    try:
        bench.build()
        for target in bench.targets:
            target.dial(dial, "connect", 1_000)     # warm
            target.results.clear()
        for _ in range(options.rounds * TURNS):
            for target in bench.targets:
                target.dial(dial, "connect", CONNECTS)
                target.dial(dial, "request", REQUESTS)
                target.dial(dial, "stream", BLOCKS)
        programs = program_times(bench, dial)
    finally:
        bench.end()

    plain = bench.targets[0]
    rows = []
    for target in bench.targets:
        cpu, wall = target.median("connect"), target.median("connect", 2)
        rows.append((target.name, f"{cpu / 1e3:.2f}", f"{target.ratio(plain, 'connect'):.2f}",
                     f"{target.median('connect', 1) / 1e3:.2f}", f"{1e9 / wall:.0f}",
                     f"{1 / target.ratio(plain, 'request'):.2f}",
                     f"{1 / target.ratio(plain, 'stream'):.2f}"))
    measure.table(f"Mesh: connect, accept and close in one thread, medians of {options.rounds * TURNS} interleaved turns",
                  ("target", "CPU us", "of plain", "in connect us", "connects/s", "requests/plain", "stream/plain"),
                  rows)
    measure.table("Programs at the largest size, by the kernel's statistics (which cost some themselves)",
                  ("program", "ns a run", "runs a connect", "ns a connect"), programs)
    flows.run()
