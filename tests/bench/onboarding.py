# SPDX-License-Identifier: BSD-2-Clause
"""Onboarding over REST with durable commits, and bulk import."""

import json
import multiprocessing
import statistics
import time

import bed as beds
import measure
from support import platform, wire

CONNECTIONS = 16
TENANTS = 4_000
IMPORTED = 10_000
ROUNDS = 3
PROCESSES = 4
HEADERS = [("Host", "bench"), ("Content-Type", "application/json")]


def worker(socket_path, port, numbers, connections, out):
    """Posts tenants on several connections in turn, each with one request in flight."""
    rests = [platform.Rest(socket_path) for _ in range(connections)]
    bodies = [json.dumps(beds.typical(i, port)).encode() for i in numbers]
    waiting, failed = [], 0
    for rest in rests:
        rest.call("GET", "/v1/tiers")
    started = time.time()
    for n, body in enumerate(bodies):
        rest = rests[n % connections]
        if len(waiting) == connections:
            failed += waiting.pop(0).connection.response().status != 201
        rest.connection.send(wire.compose("POST", "/v1/tenants", HEADERS, body))
        waiting.append(rest)
    while waiting:
        failed += waiting.pop(0).connection.response().status != 201
    out.put((started, time.time(), failed))


def over_rest(bed, first):
    """Seconds for TENANTS tenants, numbered from first."""
    out = multiprocessing.Queue()
    share = TENANTS // PROCESSES
    workers = [multiprocessing.Process(target=worker, args=(
        bed.tenantd.socket, bed.backend_port, range(first + p * share, first + (p + 1) * share), CONNECTIONS // PROCESSES, out))
        for p in range(PROCESSES)]
    for process in workers:
        process.start()
    ends = [out.get(timeout=300) for _ in workers]
    for process in workers:
        process.join()
    if any(failed for _, _, failed in ends):
        raise SystemExit("bench: some tenants were refused")
    return max(e for _, e, _ in ends) - min(s for s, _, _ in ends)


def cpu(bed):
    """Time on a core so far, in s: of PostgreSQL with all its processes, and of tenantd."""
    with open(bed.server.path / "data" / "postmaster.pid", encoding="ascii") as f:
        postmaster = int(f.readline())
    return (sum(measure.cpu_seconds(pid) for pid in measure.descendants(postmaster)),
            measure.cpu_seconds(bed.tenantd.process.pid))


def measured(bed, tenants, work):
    """One round: tenants/s, and us per tenant of PostgreSQL and of tenantd."""
    before = cpu(bed)
    seconds = work()
    return tenants / seconds, *((b - a) * 1e6 / tenants for a, b in zip(before, cpu(bed)))


def row(name, rounds):
    rates, postgres, tenantd = zip(*rounds)
    return (name, f"{statistics.median(rates):.0f}", f"{max(rates):.0f}",
            f"{statistics.median(postgres):.0f}", f"{statistics.median(tenantd):.0f}")


def run(options):
    bed = beds.Bed("onboarding")
    try:
        durable = bed.database.one("SELECT current_setting('fsync') || current_setting('synchronous_commit')")
        if durable != "onon":
            raise SystemExit("bench: this PostgreSQL does not commit durably")
        bed.issuer(beds.Keys())
        rest, imported = [], []
        for n in range(ROUNDS):
            first = (n + 1) * 1_000_000
            rest.append(measured(bed, TENANTS, lambda: over_rest(bed, first)))
            imported.append(measured(bed, IMPORTED, lambda: bed.import_tenants(
                range(first + TENANTS, first + TENANTS + IMPORTED))))
        measure.table(f"Onboarding, durable commits, {ROUNDS} interleaved rounds",
                      ("how", "tenants/s", "best", "PostgreSQL us", "tenantd us"),
                      [row(f"REST, {CONNECTIONS} connections", rest), row("bulk import", imported)])
    finally:
        bed.end()
