# SPDX-License-Identifier: BSD-2-Clause
"""The dedicated tier: from POST to the first answer through a gateway of one's own, what such a gateway takes when
idle, what many of them cost tenantd, how soon a restarted tenantd has them again, and promotion under load."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import pwd
import re
import signal
import statistics
import time

import bed as beds
import measure
from measure import Target
from support import platform, process, wire

ALONE = 20          # one after the other
AT_ONCE = 50
ADOPTED = 200
IDLE = 500
PROMOTIONS = 5
LOADED = 0.1        # s on a core by which a gateway shows that it is under load
PACE = 16           # ms that each of 32 connections rests: 2,000 requests/s
TIME = 480          # s, for all of it but the end: what is not reached by then is measured with fewer

CGROUP = f"tiergate-bench-{os.getpid()}"

# what docs/benchmarks.md promises
BUDGETS = []

PROVISIONER = """\
[provisioner]
driver    = process
directory = {directory}
modules   = {modules}
nginx     = {nginx}
user      = {user}
cgroup    = {cgroup}
trusted   = 127.0.0.1/32

[http]
max_connections = 8192
"""


def name(i):
    return f"t{i}"


def budget(what, found, limit, unit=""):
    BUDGETS.append((what, f"{found}{unit}", f"{limit}{unit}", "kept" if found <= limit else "EXCEEDED"))


def first_answer(bed, i):
    """POST, then requests to the tenant's own gateway until the first authenticated 200: seconds."""
    rest = platform.Rest(bed.tenantd.socket)
    body = json.dumps({**beds.typical(i, bed.backend_port), "tier": "dedicated"}).encode()
    headers = {"Content-Type": "application/json"}
    started = time.monotonic()
    response = rest.request("POST", "/v1/tenants", body, headers)
    if response.status != 201:
        raise SystemExit(f"bench: POST /v1/tenants: {response}")
    port = measure.until(lambda: rest.request("GET", f"/v1/tenants/{name(i)}/gateway").json().get("port"),
                         f"a port of {name(i)}", 60)
    rest.close()

    def served():
        try:
            return wire.request(("127.0.0.1", port), "GET", "/orders/1",
                                {"Host": beds.host(i), "X-API-Key": beds.api_key(i)}, timeout=5).status == 200
        except (OSError, wire.Closed):
            return False
    measure.until(served, f"the gateway of {name(i)} to answer", 60)
    return time.monotonic() - started


def worker(bed, i, start, out):
    start.wait()
    out.put(first_answer(bed, i))


def at_once(bed, numbers):
    """All POSTs at the same moment; seconds of each."""
    start, out = multiprocessing.Event(), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=worker, args=(bed, i, start, out)) for i in numbers]
    for each in workers:
        each.start()
    start.set()
    found = [out.get(timeout=120) for _ in workers]
    for each in workers:
        each.join()
    return found


def ready(bed):
    return bed.database.one("SELECT count(*) FROM tiergate.instances WHERE phase = 'ready'")


def grow(bed, total, next_tenant, end):
    """More dedicated tenants, until there are so many gateways that are ready, or the time is over."""
    missing = total - bed.database.one("SELECT count(*) FROM tiergate.instances WHERE desired = 'running'")
    if missing <= 0:
        return next_tenant
    lines = "\n".join(json.dumps({**beds.typical(next_tenant + n, bed.backend_port), "tier": "dedicated"})
                      for n in range(missing)).encode()
    response = bed.rest.request("POST", "/v1/import", lines, {"Content-Type": "application/jsonl"})
    if response.status != 200:
        raise SystemExit(f"bench: import: {response}")
    measure.until(lambda: ready(bed) >= total or time.monotonic() > end, f"{total} gateways to be ready", TIME, every=0.2)
    return next_tenant + missing


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M)[1])


def memory(bed):
    """Of master and worker of each gateway, shared pages counted in part: median, in MiB."""
    masters = [row[0] for row in bed.database.execute("SELECT pid FROM tiergate.instances WHERE phase = 'ready'")]
    return statistics.median(sum(pss_kib(pid) for pid in measure.descendants(master)) for master in masters) / 1024


def idle(bed, seconds=10):
    """CPU of tenantd and PostgreSQL while nothing is to be done, in ms per second."""
    postmaster = int((bed.dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    watched = measure.descendants(postmaster) + [bed.tenantd.process.pid]
    return measure.cpu_within(watched, seconds) * 1000 / seconds


def adoption(bed):
    """tenantd is killed and started: until it has taken back all gateways, in s."""
    masters = bed.database.execute("SELECT name, pid FROM tiergate.instances ORDER BY name")
    bed.tenantd.stop(signal.SIGKILL)
    started = time.monotonic()
    bed.tenantd.start()

    def adopted():
        metrics = wire.request(bed.tenantd.socket, "GET", "/metrics", {"Host": "localhost"}, timeout=30).text
        return int(re.search(r'^tiergate_instances\{phase="ready"\} (\d+)', metrics, re.M)[1])
    measure.until(lambda: adopted() >= len(masters), lambda: f"{len(masters)} gateways; {adopted()} are adopted", 60)
    took = round(time.monotonic() - started, 2)
    if bed.database.execute("SELECT name, pid FROM tiergate.instances ORDER BY name") != masters:
        raise SystemExit("bench: some gateways were started anew")
    return took


def promotions(bed, first):
    """Tenants of the shared gateway are promoted while each is under load: requests, failed."""
    gateway = bed.gateway("shared", zone="8m")
    requests = failed = 0
    delays = []
    for i in range(first, first + PROMOTIONS):
        bed.rest.call("POST", "/v1/tenants", beds.typical(i, bed.backend_port, limit=10_000_000))
        bed.wait(gateway)
        keys = beds.requests_with_keys(bed.dir / f"keys-{i}.txt", [i])
        target = Target(name(i), gateway.port, gateway.workers[0], keys)
        out = multiprocessing.Queue()
        load = multiprocessing.Process(target=lambda t=target: out.put(measure.wrk(t.port, t.file, t.pid, 8, 32, PACE)))
        before = measure.cpu_seconds(target.pid)
        load.start()
        measure.until(lambda: measure.cpu_seconds(target.pid) > before + LOADED, "the load")
        started = time.monotonic()
        bed.database.execute("SELECT tiergate.set_tier(%s, 'dedicated')", [name(i)])
        measure.until(lambda: bed.database.one("SELECT placement = 'dedicated' FROM tiergate.tenants WHERE name = %s",
                                               [name(i)]), f"the promotion of {name(i)}")
        delays.append((time.monotonic() - started) * 1000)
        result = out.get(timeout=60)
        load.join()
        requests += result.requests
        failed += result.failed + result.refused
    return requests, failed, delays


def works_in(directory):
    """Everything that works in a prefix below it."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pathlib.Path(os.readlink(f"/proc/{pid}/cwd")).parent == directory:
                yield int(pid)
        except OSError:
            pass


def retire(bed, directory):
    """Deletes all tenants and waits for the last of their gateways to go; ends what is left then, or of a failure."""
    try:
        if bed.tenantd.process.poll() is None:
            bed.database.execute("DELETE FROM tiergate.tenants")
            measure.until(lambda: bed.database.one("SELECT count(*) = 0 FROM tiergate.instances"),
                          "the last gateway to go", 60, every=0.2)
    except (AssertionError, KeyboardInterrupt) as error:
        print(f"bench: {error}", flush=True)
    finally:
        # tenantd first, which would start them again
        bed.tenantd.stop(signal.SIGKILL)
        for pid in works_in(directory.resolve()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.drop(directory)
        with contextlib.suppress(OSError):
            process.remove_cgroup(CGROUP)


def interrupted(_signal, _frame):
    raise KeyboardInterrupt


def onboarding(bed):
    alone = [first_answer(bed, i) * 1000 for i in range(ALONE)]
    together = [s * 1000 for s in at_once(bed, range(100, 100 + AT_ONCE))]
    measure.table("POST to the first authenticated 200, ms", ("", "p50", "p99", "max"), [
        (what, f"{measure.percentile(found, 50):.0f}", f"{measure.percentile(found, 99):.0f}", f"{max(found):.0f}")
        for what, found in ((f"alone ({ALONE})", alone), (f"{AT_ONCE} at once", together))])
    budget("first answer alone, p99", round(measure.percentile(alone, 99)), 1000, " ms")
    budget(f"first answer of the last of {AT_ONCE} at once", round(max(together)), 5000, " ms")


def moving(bed):
    requests, failed, delays = promotions(bed, 1000)
    measure.table(f"Promotion under 2,000 requests/s, {PROMOTIONS} tenants", ("requests", "failed", "ms p50", "ms max"),
                  [(requests, failed, f"{statistics.median(delays):.0f}", f"{max(delays):.0f}")])
    budget("failed requests in promotions", failed, 0)


def crowd(bed, end):
    next_tenant = grow(bed, ADOPTED, 10_000, end)
    count = ready(bed)
    adopted = adoption(bed)
    rows = [("memory of an idle one (PSS of master and worker), MiB", f"{memory(bed):.1f}"),
            (f"tenantd killed and restarted: {count} adopted after, s", f"{adopted:.2f}")]
    budget(f"adoption of {count}", adopted, 2, " s")
    grow(bed, IDLE, next_tenant, end)
    count = ready(bed)
    rows.append((f"{count} with nothing to be done: CPU of tenantd and PostgreSQL, ms/s", f"{idle(bed):.1f}"))
    if bed.database.one("SELECT count(*) FROM tiergate.instances WHERE phase <> 'ready'"):
        rows.append(("the time was over before all were ready: of", IDLE))
    rows.append((f"{count} of them reconciled once, ms", f"{reconcile(bed):.1f}"))
    measure.table("Many gateways", ("what", ""), rows)


def reconcile(bed):
    """Of tenantd's own figures: a read of what is wanted when nothing is to be done, in ms."""
    def figures():
        text = wire.request(bed.tenantd.socket, "GET", "/metrics", {"Host": "localhost"}, timeout=30).text
        return [float(re.search(rf"^tiergate_reconcile_seconds_{part} (\S+)", text, re.M)[1]) for part in ("sum", "count")]
    begin = figures()
    measure.until(lambda: figures()[1] >= begin[1] + 3, "three rounds", 60, every=0.1)
    took, rounds = (after - before for after, before in zip(figures(), begin))
    return took * 1000 / rounds


def run(_options):
    signal.signal(signal.SIGTERM, interrupted)
    BUDGETS.clear()
    end = time.monotonic() + TIME
    directory = process.folder("bench-instances")
    bed = beds.Bed("tier", PROVISIONER.format(directory=directory, modules=process.MODULE.parent,
                                              nginx=process.NGINX, user=pwd.getpwuid(os.geteuid()).pw_name, cgroup=CGROUP))
    try:
        bed.backend()
        bed.issuer(beds.Keys())
        onboarding(bed)
        moving(bed)
        crowd(bed, end)
        measure.table("Budgets", ("what", "found", "budget", ""), BUDGETS)
    finally:
        retire(bed, directory)
        bed.end()
