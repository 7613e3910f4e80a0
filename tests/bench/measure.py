# SPDX-License-Identifier: BSD-2-Clause
"""Processes pinned to cores, their CPU time from the kernel's accounting, and load by wrk."""

import contextlib
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading

GATEWAY_CORE, LOAD_CORE = 0, 1
SLICE_MS = 600
HERE = os.path.dirname(os.path.realpath(__file__))

# the harness of the integration tests starts and ends the same processes, and waits for them
sys.path.insert(0, f"{os.path.dirname(HERE)}/integration")
from support import process  # noqa: E402
from support.poll import until  # noqa: E402


def raise_limits():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port):
    def accepts():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            return False
    until(accepts, f"port {port} to be listened on")


def pin(pid, core):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {core})


def descendants(pid):
    found = [pid]
    for child in children(pid):
        found += descendants(child)
    return found


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


def cpu_seconds(pid):
    """Time on a core, in s; from the scheduler in ns, or from the ticks where that is not built in."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9
    except (OSError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_within(pids, seconds):
    """Time that processes are on a core in an interval of so many s from now: in s, of those that outlive it."""
    before = {pid: cpu_seconds(pid) for pid in pids}
    threading.Event().wait(seconds)     # the interval that is measured
    return sum(cpu_seconds(pid) - cpu for pid, cpu in before.items() if os.path.exists(f"/proc/{pid}"))


def wait_idle(pid):
    """Until a process has worked off what it was given: it uses less than a twentieth of a second in one."""
    until(lambda: cpu_within([pid], 1) < 0.05, f"process {pid} to come to rest", 300)


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) / 1024


class Processes:
    """Ends what it started, by pid, last first."""

    def __init__(self, directory):
        self.dir = directory
        self.started = []
        os.makedirs(directory, exist_ok=True)

    def spawn(self, name, command, core=None, **kwargs):
        log = open(f"{self.dir}/{name}.log", "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kwargs)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        self.started.append(process)
        return process

    def end(self, process):
        self.started.remove(process)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end_all(self):
        for process in list(reversed(self.started)):
            self.end(process)


class Result:
    """One round: CPU in us per request, requests per s, latency percentiles in us."""

    def __init__(self, requests, seconds, cpu, p50, p99, failed, refused):
        self.requests, self.failed, self.refused = requests, failed, refused
        self.rate = requests / seconds
        self.cpu_us = cpu * 1e6 / max(1, requests)
        self.p50, self.p99 = p50, p99


def wrk(port, requests_file, pid, seconds, connections=32, pace=0):
    """Load from LOAD_CORE on a port, while pid's CPU time is counted.  With a pace, in ms, connections rest so
    long between two requests on average, and the load comes before whatever else is on its core."""
    before = cpu_seconds(pid)
    first = ["nice", "-n", "-10"] if pace else []
    out = subprocess.run([*first, "taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s",
                          "--timeout", "10s", "-s", f"{HERE}/load.lua", f"http://127.0.0.1:{port}"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
                         env={**os.environ, "REQUESTS": requests_file, "PACE": str(pace)}).stdout
    cpu = cpu_seconds(pid) - before
    found = re.search(r"RESULT requests=(\d+) duration=(\d+) p50=(\d+) p99=(\d+) failed=(\d+) status=(\d+)", out)
    if not found:
        raise SystemExit(f"bench: wrk said:\n{out}")
    requests, duration, p50, p99, failed, status = map(int, found.groups())
    return Result(requests, duration / 1e6, cpu, p50, p99, failed, status)


def send_each(port, requests_file):
    """Sends every request of a file once, so that what is to be in a cache is."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s, open(requests_file, encoding="ascii") as lines:
        for line in lines:
            s.sendall(line.rstrip("\n").replace("\\r\\n", "\r\n").encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\nok\n"):
                more = s.recv(4096)
                answer += more
                if not more or b" 200 " not in answer[:16]:
                    raise SystemExit(f"bench: {answer.decode(errors='replace')}")


class Target:
    """What a round is run against: a port, the process that is charged, a file of requests, and how many of the
    answers are to be refusals ("none" or "all")."""

    def __init__(self, name, port, pid, requests_file, refusals="none"):
        self.name, self.port, self.pid = name, port, pid
        self.file, self.refusals = requests_file, refusals

    def check(self, result):
        wrong = result.refused if self.refusals == "none" else result.requests - result.refused
        if wrong > result.requests * 0.001 or result.failed:
            raise SystemExit(f"bench: {self.name}: {wrong} of {result.requests} answers were not as expected, "
                             f"{result.failed} failed")


def compiled(name):
    """A program of the bench, from its source beside this file."""
    binary = process.BUILD / "tests" / f"bench-{name}"
    subprocess.run(["cc", "-O2", "-std=gnu11", "-o", binary, f"{HERE}/{name}.c", "-lm", "-lcrypto"], check=True)
    return str(binary)


def slice_result(line):
    """Of a line of load: the target's number and what it did."""
    k, requests, us, cpu_ns, p50, p99, refused, failed = map(int, line.split())
    return k, Result(requests, us / 1e6, cpu_ns / 1e9, p50, p99, failed, refused)


def start_load(words):
    """On LOAD_CORE, before whatever else is there.  Where sessions are scheduled as groups (sched(7), "The autogroup
    feature"), what a process is worth counts within its own session only."""
    load = subprocess.Popen(["nice", "-n", "-10", "taskset", "-c", str(LOAD_CORE), compiled("load"), *words],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with contextlib.suppress(OSError), open(f"/proc/{load.pid}/autogroup", "w", encoding="ascii") as group:
        group.write("-10")
    return load


def slices(targets, count, backend_port, connections=32):
    """Load on every target by turns of SLICE_MS, so that drift of the machine hits them alike: results by target
    name.  The first turn warms caches and does not count.  The load is the backend too, on a port that must be free,
    and does not sleep (load.c says why)."""
    words = [f"{target.port}:{target.pid}:{target.file}" for target in targets]
    load = start_load(["-b", str(backend_port), str(connections), str(SLICE_MS), str(count + 1), *words])
    out, _ = load.communicate()
    if load.returncode:
        raise SystemExit(f"bench: load ended with {load.returncode}")
    results = {target.name: [] for target in targets}
    for line in out.splitlines():
        k, result = slice_result(line)
        targets[k].check(result)
        results[targets[k].name].append(result)
    return {name: found[1:] for name, found in results.items()}


class Paced:
    """Load on one target at a rate, a slice whenever it is asked for.  It is the backend, too."""

    def __init__(self, target, rate, slice_ms, backend_port, connections=32):
        self.target = target
        self.process = start_load(["-b", str(backend_port), "-p", str(rate), "-w", str(connections), str(slice_ms), "1000000",
                                   f"{target.port}:{target.pid}:{target.file}"])

    def slice(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        _, result = slice_result(self.process.stdout.readline())
        self.target.check(result)
        return result

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)


def median(results, field):
    return statistics.median(getattr(result, field) for result in results)


def ratio(results, others, field):
    """Median over the rounds of one target's figure by another's of the same round: drift hits both."""
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(results, others))


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def table(title, columns, rows):
    print(f"\n{title}\n", flush=True)
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, ["-" * w for w in widths], *rows]:
        cells = [str(row[0]).ljust(widths[0])] + [str(c).rjust(w) for c, w in zip(row[1:], widths[1:])]
        print("  ".join(cells), flush=True)
