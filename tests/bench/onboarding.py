# SPDX-License-Identifier: BSD-2-Clause
"""Onboarding over REST with durable commits, and bulk import."""

import json
import multiprocessing
import time

import bed as beds
import measure
from support import platform, wire

CONNECTIONS = 16
TENANTS = 4_000
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


def over_rest(bed):
    out = multiprocessing.Queue()
    share = TENANTS // PROCESSES
    workers = [multiprocessing.Process(target=worker, args=(
        bed.tenantd.socket, bed.backend_port, range(p * share, (p + 1) * share), CONNECTIONS // PROCESSES, out))
        for p in range(PROCESSES)]
    for process in workers:
        process.start()
    ends = [out.get(timeout=300) for _ in workers]
    for process in workers:
        process.join()
    if any(failed for _, _, failed in ends):
        raise SystemExit("bench: some tenants were refused")
    return TENANTS / (max(e for _, e, _ in ends) - min(s for s, _, _ in ends))


def run(options):
    bed = beds.Bed("onboarding")
    try:
        durable = bed.database.one("SELECT current_setting('fsync') || current_setting('synchronous_commit')")
        if durable != "onon":
            raise SystemExit("bench: this PostgreSQL does not commit durably")
        bed.issuer(beds.Keys())
        rate = over_rest(bed)
        imported = bed.import_tenants(range(100_000, 120_000))
        measure.table("Onboarding, durable commits", ("how", "tenants/s"),
                      [(f"REST, {CONNECTIONS} connections", f"{rate:.0f}"), ("bulk import", f"{20_000 / imported:.0f}")])
    finally:
        bed.end()
