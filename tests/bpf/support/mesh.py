# SPDX-License-Identifier: BSD-2-Clause
"""The mesh library, driven by lines through tests/bpf/meshctl.c, and the numbers of bpf/tg_mesh.h."""

import json
import os
import pathlib
import re
import subprocess

from .node import until

HEADER = (pathlib.Path(__file__).parents[3] / "bpf/tg_mesh.h").read_text()
MESHCTL = os.environ.get("TIERGATE_BUILD", "build") + "/tests/meshctl"

LAYOUT = int(re.search(r"#define TG_LAYOUT +(\d+)", HEADER)[1])

# Reasons by name: WHY["DENY_RULE"].
WHY = {name: int(number) for number, name in re.findall(r"R\((\d+), ([A-Z_]+),", HEADER)}

FROM_SAME, FROM_OTHER, FROM_OUTSIDE, FROM_HOST, TO_SAME, TO_OTHER, TO_OUTSIDE = (1 << i for i in range(7))
DEFAULTS = FROM_SAME | FROM_HOST | TO_SAME | TO_OTHER | TO_OUTSIDE
HOST, LIMITED, ANY_SOURCE, HOST_SOURCE = 1, 2, 4, 8
CONNECT, ACCEPT, CLOSE, FAILED, DENY = 1, 2, 3, 4, 5
AT_CONNECT, AT_SENDMSG, AT_INGRESS, AT_EGRESS, AT_SOCKOPS = 1, 2, 3, 4, 5
TCP, UDP = 6, 17

LOST_RING, LOST_SAMPLED, LOST_DENY_SAMPLED, FULL_SOCKETS, FULL_FLOWS, FULL_METERS = range(96, 102)


class MeshError(Exception):
    pass


class Mesh:
    """One meshctl.  start=False leaves opening to the test."""

    def __init__(self, pins):
        self.pins = pins
        self.process = subprocess.Popen([MESHCTL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.kept = []

    def say(self, *words):
        """The answer's words; records on the way are kept."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if line.startswith("{"):
                self.kept.append(json.loads(line))
            elif line.startswith("ok"):
                return line[3:].strip()
            else:
                raise MeshError(f"{' '.join(map(str, words))[:200]}: {line.strip()}")

    def open(self, **options):
        return self.say("open", self.pins, *(f"{k}={v}" for k, v in options.items()))

    def tenant(self, number, *policies, defaults="-"):
        return self.say("tenant", number, defaults, *policies)

    def service(self, tenant, service, address, port, *endpoints, proto=TCP, rate=0, burst=0, limit=0):
        """An endpoint is (address, port), or (address, port, weight[, healthy])."""
        words = [",".join(map(str, (*endpoint, 1, 1)[:4] if len(endpoint) == 2 else (*endpoint, 1)[:4]))
                 for endpoint in endpoints]
        return self.say("service", tenant, service, address, port, proto, rate, burst, limit, *words)

    def workload(self, cgroup, tenant, service, *addresses, flags=0):
        return self.say("workload", cgroup.path, tenant, service, flags, *addresses)

    def address(self, net, tenant, service, flags=0):
        return self.say("address", net, tenant, service, flags)

    def events(self, ms=0, **like):
        """Records since the last call that have these values."""
        self.say("events", ms)
        kept, self.kept = self.kept, []
        return [e for e in kept if all(e[k] == v for k, v in like.items())]

    def told(self, count=1, **like):
        """The same, once there are so many: what the kernel does after a call has returned, on the way of a packet
        or of a socket to its end, is not recorded at once."""
        records = []

        def enough():
            records.extend(self.events(**like))
            return len(records) >= count
        until(enough, lambda: f"{count} records of {like}: {records}")
        return records

    def counters(self):
        return {int(k): int(v) for k, v in (pair.split("=") for pair in self.say("counters").split())}

    def fill(self):
        """Name: (used, size, refused)."""
        return {name: tuple(map(int, numbers.split("/")))
                for name, numbers in (pair.split("=") for pair in self.say("fill").split())}

    def kill(self):
        self.process.kill()
        self.process.wait()



def policy(verdict, peer="any", number=1, precedence=100, direction="in", service=0, proto=0, port=0):
    return f"{number}|{precedence}|{verdict}|{direction}|{service}|{peer}|{proto}|{port}"
