# SPDX-License-Identifier: BSD-2-Clause
"""Commit to enforced: from the commit of a quota change to the first answer held to it, on every gateway."""

import os
import re
import select
import socket
import threading
import time

import psycopg

import bed as beds
import measure
from measure import Target

CHANGES = 200
WARM = 5            # before these, uncounted: sessions plan their statements, workers fill their caches
FLOOD_RATE = 100    # other changes per second
RATE = 2_000        # requests per second whose latency is measured
SLICE_MS = 1_000    # of them


class Probe:
    """One kept connection to a gateway; asks for the limit that is enforced now."""

    def __init__(self, port, request):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.seen = None

    def send(self):
        self.socket.sendall(self.request)

    def receive(self):
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        self.seen = int(re.search(rb"RateLimit-Policy:.*?q=(\d+)", data)[1])
        size = re.search(rb"Content-Length: (\d+)", data)
        rest = int(size[1]) - len(data.split(b"\r\n\r\n", 1)[1]) if size else 0
        while rest > 0:
            rest -= len(self.socket.recv(rest))
        return self.seen


def wait_enforced(probes, limit, deadline):
    """Polls every gateway until it enforces the limit; when each did."""
    waiting, at = {p.socket: p for p in probes}, []
    for probe in probes:
        probe.send()
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], max(0, deadline - time.time()))
        if not ready:
            raise SystemExit("bench: a change was not enforced in time")
        for s in ready:
            if waiting[s].receive() == limit:
                at.append(time.time())
                del waiting[s]
            else:
                waiting[s].send()
    return at


def flood(bed, stop):
    """FLOOD_RATE changes of other tenants per second, until told to stop."""
    with psycopg.connect(bed.database.conninfo(), autocommit=True) as connection:
        started, n = time.monotonic(), 0
        while not stop.is_set():
            n += 1
            connection.execute("SELECT tiergate.set_quota(%s, requests => %s, per => '1 minute')",
                               (f"t{1 + n % 99}", 1_000_000 + n))
            stop.wait(max(0, started + n / FLOOD_RATE - time.monotonic()))


def delays(bed, probes):
    found = []
    with psycopg.connect(bed.database.conninfo(), autocommit=True) as connection:
        for n in range(WARM + CHANGES):
            limit = 500_000 + len(probes) * 1000 + n + int(time.time()) % 100_000 * 10_000
            connection.execute("SELECT tiergate.set_quota('t0', requests => %s, per => '1 minute')", (limit,))
            committed = time.time()
            took = [(at - committed) * 1000 for at in wait_enforced(probes, limit, committed + 10)]
            found += took if n >= WARM else []
    return found


def measure_gateways(bed, gateways):
    request = f"GET /x HTTP/1.1\r\nHost: {beds.host(0)}\r\nX-API-Key: {beds.api_key(0)}\r\n\r\n".encode()
    probes = [Probe(g.port, request) for g in gateways]
    alone = delays(bed, probes)
    stop = threading.Event()
    flooder = threading.Thread(target=flood, args=(bed, stop))
    flooder.start()
    try:
        flooded = delays(bed, probes)
    finally:
        stop.set()
        flooder.join()
    for probe in probes:
        probe.socket.close()
    return alone, flooded


def make_room(bed, gateway):
    """One gateway has its core to itself; what makes the changes shares the load's, and comes after it."""
    for other in bed.gateways:
        if other is not gateway:
            other.stop()
    bed.make_room()
    for each in measure.descendants(os.getpid()):
        if each != gateway.master and each not in gateway.workers:
            measure.pin(each, measure.LOAD_CORE)


def slice_while(load, bed):
    """A slice of load while changes flow through a registry; None: quiet."""
    if bed is None:
        return load.slice()
    stop = threading.Event()
    flooder = threading.Thread(target=flood, args=(bed, stop))
    flooder.start()
    try:
        return load.slice()
    finally:
        stop.set()
        flooder.join()


def latencies(bed, elsewhere, gateway, backend, turns):
    """Latency of requests at a fixed pace: quiet, while changes flow to the gateway, and while they flow through
    another registry on the same cores, which costs the load the same but the gateway nothing; interleaved."""
    keys = beds.requests_with_keys(bed.dir / "keys.txt", range(100))
    target = Target("gw", gateway.port, beds.core_of(gateway.workers[0]), keys)
    make_room(bed, gateway)
    elsewhere.make_room()
    bed.processes.end(backend)
    registries = {"quiet": None, f"{FLOOD_RATE} changes/s elsewhere": elsewhere, f"{FLOOD_RATE} changes/s": bed}
    found = {name: [] for name in registries}
    load = measure.Paced(target, RATE, SLICE_MS, bed.backend_port)
    try:
        load.slice()
        for _ in range(turns):
            for name, registry in registries.items():
                found[name].append(slice_while(load, registry))
    finally:
        load.end()
    return found


def measure_latencies(bed, gateway, backend, options):
    elsewhere = beds.Bed("changes-elsewhere")
    try:
        elsewhere.issuer(beds.Keys())
        elsewhere.import_tenants(range(100))
        found = latencies(bed, elsewhere, gateway, backend, options.turns)
    finally:
        elsewhere.end()
    quiet, other, _ = found.values()
    rows = [(name, f"{measure.median(got, 'p50'):.0f}", f"{measure.ratio(got, quiet, 'p50'):.2f}",
             f"{measure.median(got, 'p99'):.0f}", f"{measure.ratio(got, quiet, 'p99'):.2f}",
             f"{measure.ratio(got, other, 'p99'):.2f}", f"{measure.median(got, 'cpu_us'):.1f}")
            for name, got in found.items()]
    measure.table(f"Requests at {RATE}/s, medians of {len(quiet)} interleaved slices of {SLICE_MS / 1000:g} s",
                  ("", "p50 us", "of quiet", "p99 us", "of quiet", "of elsewhere", "CPU us"), rows)


def run(options):
    bed = beds.Bed("changes")
    try:
        backend = bed.backend()
        bed.issuer(beds.Keys())
        bed.import_tenants(range(100))
        rows, gateways, pids = [], [], []
        for count in (1, 8, 32):
            while len(gateways) < count:
                gateways.append(bed.gateway(f"gw-{len(gateways)}", zone="8m", connections=256))
                pids.append(gateways[-1].workers)
            for what, found in zip(("alone", f"{FLOOD_RATE}/s"), measure_gateways(bed, gateways)):
                rows.append((count, what, f"{measure.percentile(found, 50):.1f}", f"{measure.percentile(found, 99):.1f}",
                             f"{max(found):.1f}"))
        unchanged = [g.workers for g in gateways] == pids
        measure.table("Commit to enforced on every gateway, ms", ("gateways", "changes", "p50", "p99", "max"), rows)
        measure_latencies(bed, gateways[0], backend, options)
        unchanged = unchanged and gateways[0].workers == pids[0]
        print(f"worker pids unchanged: {'yes' if unchanged else 'NO'}")
    finally:
        bed.end()
