# SPDX-License-Identifier: BSD-2-Clause
"""Flat in the number of tenants: cost per request, zone bytes per tenant, load time of the snapshot."""

import time

import bed as beds
import measure
from measure import Target

SIZES = (10, 10_000, 100_000)


def load_seconds(gateway):
    """Time of a cold start from the snapshot until it is served, and requests served meanwhile."""
    started = time.monotonic()
    gateway.start()
    measure.until(lambda: gateway.ready()[0] == 200, "the snapshot to be loaded", 120, every=0.01)
    return time.monotonic() - started


def zone_bytes(gateway, size):
    metrics = gateway.metrics()
    return metrics.get("tiergate_zone_used_bytes") / size


def measure_size(size, backend_port):
    bed = beds.Bed(f"tenants-{size}", backend_port=backend_port)
    try:
        bed.issuer(beds.Keys())
        imported = bed.import_tenants(range(size))
        gateway = bed.gateway("gw", zone="512m")
        worker = beds.core_of(gateway.workers[0])
        bed.make_room()
        measure.wait_idle(worker)       # it still writes its snapshot
        bytes_each = zone_bytes(gateway, size)
        keys = beds.requests_with_keys(bed.dir / "keys.txt", range(size))
        target = Target(str(size), gateway.port, worker, keys)
        yield target
        rss = measure.rss_mib(worker)
        gateway.stop()
        loaded = load_seconds(gateway)
        yield {"imported": imported, "bytes": bytes_each, "rss": rss, "loaded": loaded}
    finally:
        bed.end()


def run(options):
    backend_port = measure.free_port()
    beds_ = [measure_size(size, backend_port) for size in SIZES]
    try:
        targets = [next(b) for b in beds_]
        results = measure.slices(targets, options.turns, backend_port)
        facts = [next(b) for b in beds_]
    finally:
        for b in beds_:
            b.close()
    base = results[str(SIZES[0])]
    rows = []
    for size, fact in zip(SIZES, facts):
        found = results[str(size)]
        rows.append((size, f"{measure.median(found, 'cpu_us'):.1f}", f"{measure.ratio(found, base, 'cpu_us'):.3f}",
                     f"{measure.median(found, 'p99'):.0f}", f"{fact['bytes']:.0f}", f"{fact['loaded']:.2f}",
                     f"{fact['rss']:.0f}", f"{size / fact['imported']:.0f}"))
    measure.table("Tenants at random, API key", ("tenants", "CPU us", f"of {SIZES[0]}", "p99 us", "zone B/tenant",
                                                 "snapshot s", "worker RSS MiB", "import/s"), rows)
