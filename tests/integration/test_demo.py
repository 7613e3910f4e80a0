# SPDX-License-Identifier: BSD-2-Clause
"""make demo: what it shows, that it stays on a terminal until interrupted, and leaves nothing."""

import os
import pty
import re
import signal
import subprocess
import threading

import pytest

from support import process, wire
from support.poll import until

pytestmark = pytest.mark.skipif(process.SANITIZED, reason="the demo is for a plain build")

# In this order.
SHOWN = [
    r"POST /v1/tenants shop: 201, served by the gateway \d+ ms later; its API key, shown once: tgk_",
    r"POST /v1/tenants bank: 201",
    r"200  shop with its API key .*tenant shop, consumer mobile   RateLimit: ",
    r"200  shop with a token .*tenant shop, consumer alice",
    r"401  shop without a credential .*no-credential: ",
    r"401  shop with an expired token .*invalid-credential: ",
    r"403  shop with a token that lacks the scope .*forbidden: ",
    r"401  bank with shop's API key .*invalid-credential: ",
    r"401  bank with shop's token .*invalid-credential: ",
    r"200  bank with a forged X-Tenant header .*tenant bank, ",
    r"404  an unknown host .*unknown-host: ",
    r"429  after \d+ more requests at once +Retry-After: ",
    r"psql> SELECT tiergate.set_quota\('shop', requests => 4242",
    r"from commit to the first request held to it: [\d.]+ ms, no reload",
    r"\| update \| quotas \| requests \| 1000 \| 4242",
    r"HTTP/1.1 101 Switching Protocols",
    r"psql> SELECT tiergate.suspend\('bank', reason => 'unpaid'\);",
    r"the open WebSocket was closed \d+ ms after the commit",
    r"403  bank, suspended .*tenant-suspended: unpaid",
    r"200  shop, unharmed",
    r"The mesh of corp",
    r"Usage, from psql",
    r" shop +\| orders +\| +\d+ \|",
    r"Where to look next",
]

# The same, where the mesh can be.
MESH = [
    r"200  client, gateway of corp, .* \(orders v\d\): allowed",
    r"EPERM  web, .*: connect\(\) refused by the kernel after [\d.]+ ms",
    r"psql> SELECT tiergate.mesh_allow\('corp', 'web-orders'",
    r"from commit to the first call that is allowed: [\d.]+ ms",
    r"1000 calls of web by weights 90 and 10: \d+ to v1, \d+ to v2",
    r"  denied  web -> orders .*DENY_RULE orders-closed",
    r"  close   web .* -> orders .* bytes in ",
    r"  web -> orders: \d+ connections, \d+ denied",
    r"Usage, from psql",
]


class Demo:
    """The demo in a folder of its own, with what was built linked to."""

    def __init__(self, terminal):
        self.build = process.folder("demo")
        for name in ("bin", "modules"):
            (self.build / name).symlink_to(process.BUILD / name)
        self.text = ""
        self.terminal = terminal
        self.start()

    def start(self):
        environment = {**process.environment(), "BUILD": str(self.build), "NGINX": str(process.NGINX)}
        command = [process.ROOT / "examples" / "demo" / "run"]
        if not self.terminal:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.output = self.process.stdout.fileno()
        else:
            self.output, end = pty.openpty()
            self.process = subprocess.Popen(command, env=environment, stdin=end, stdout=end, stderr=end,
                                            start_new_session=True)
            os.close(end)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        try:
            while data := os.read(self.output, 65536):
                self.text += data.decode("utf-8", "replace").replace("\r", "")
        except OSError:
            pass        # the last process has closed the terminal

    def ended(self):
        return self.process.wait(180)

    def left(self):
        """Processes that work with the demo's folder."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as line:
                    if f"{self.build}/".encode() in line.read():
                        found.append(pid)
            except OSError:
                pass
        return found

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.reader.join(10)
        os.close(self.output) if self.terminal else self.process.stdout.close()
        process.drop(self.build)


@pytest.fixture
def demo():
    demos = []

    def make(terminal):
        demos.append(Demo(terminal))
        return demos[-1]
    yield make
    for each in demos:
        each.close()


def in_order(patterns, text):
    at = 0
    for pattern in patterns:
        match = re.compile(pattern).search(text, at)
        assert match, (pattern, text[at:])
        at = match.end()


def check(text):
    """Whether it shows a mesh; where it does not, it says why."""
    in_order(SHOWN, text)
    if re.search(r"^skipped: \S", text, re.M):
        return False
    in_order(MESH, text)
    return True


def test_ends_by_itself_without_a_terminal(demo):
    run = demo(terminal=False)
    assert run.ended() == 0, run.text
    run.reader.join(30)
    check(run.text)
    assert "The stack stays up" not in run.text
    assert run.left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_stays_on_a_terminal(demo, how):
    run = demo(terminal=True)
    until(lambda: "interrupt (Ctrl-C) to end it" in run.text or run.process.poll() is not None,
          lambda: run.text, 180)
    meshed = check(run.text)

    port = int(re.search(r"http://127.0.0.1:(\d+)/status", run.text).group(1))
    assert wire.request(("127.0.0.1", port), "GET", "/status", {"Host": "shop.example.com"}).status == 200
    psql = re.search(r"^psql +(psql .*)$", run.text, re.M).group(1)
    shown = subprocess.run(["sh", "-c", psql], env={**process.environment(), "PAGER": "cat"}, check=True,
                           capture_output=True, text=True).stdout
    assert "set_quota" in shown

    # a workload is one as long as the stack is there
    if meshed:
        call = re.search(r"^mesh +(\S.*)$", run.text, re.M).group(1)
        said = subprocess.run(["sh", "-c", call], check=True, capture_output=True, text=True, timeout=30).stdout
        assert re.search(r'"version": ?"v[12]"', said), said

    # a second one does not take its folder away
    second = subprocess.run([process.ROOT / "examples" / "demo" / "run"], stdin=subprocess.DEVNULL,
                            env={**process.environment(), "BUILD": str(run.build)}, capture_output=True, text=True)
    assert second.returncode == 1 and "another one runs" in second.stderr
    assert wire.request(("127.0.0.1", port), "GET", "/status", {"Host": "shop.example.com"}).status == 200

    assert len(run.left()) > 5
    os.kill(run.process.pid, how)
    run.ended()
    assert run.left() == []
