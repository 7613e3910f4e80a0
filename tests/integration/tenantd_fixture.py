# SPDX-License-Identifier: BSD-2-Clause
"""tenantd alone, without gateways: a module's daemon, tokens of every kind, and a
reader of the watch stream."""

import json
import os
import re
import subprocess

import pytest

from support import process, wire
from support.platform import Rest
from support.tenantd import Tenantd

PROBLEM = "application/problem+json"


def routes():
    """The route table, as "tenantd routes" prints it: (method, pattern, scope,
    function, body)."""
    out = subprocess.run([process.TENANTD, "routes"], check=True, text=True, timeout=10,
                         stdout=subprocess.PIPE).stdout
    return [tuple(line.split("\t")) for line in out.splitlines()]


class Daemon(Tenantd):
    """A tenantd with a plain listener on a port of its own; more is configuration."""

    def __init__(self, database, path, more=""):
        super().__init__(database, path, f"level = info\n[listen]\naddresses = 127.0.0.1:0\n{more}")
        self.rest = Rest(self.socket)

    def start(self):
        mark = self.log.mark()
        super().start()
        self.port = int(self.log.wait(r"listening on http://127\.0\.0\.1:(\d+)", mark)[1])

    @property
    def address(self):
        return "127.0.0.1", self.port

    def port_of(self, scheme):
        """Port of the last listener of that scheme."""
        return int(re.findall(rf"listening on {scheme}://127\.0\.0\.1:(\d+)", self.log.text)[-1])

    def as_(self, token):
        """The REST API on the port, with a token or without."""
        return Rest(self.address, token)

    def close(self):
        self.rest.close()
        code = self.process.poll()
        if code is None:
            self.stop()
            assert self.process.returncode == 0, self.log.text[-3000:]
        assert not self.log.bad(), self.log.bad()
        if not os.environ.get("KEEP"):
            process.drop(self.path)


class Stream:
    """One watch stream, read line by line."""

    def __init__(self, address, gateway="gw", since=0, token=None, timeout=15, query=""):
        self.connection = wire.Connection(address, timeout)
        headers = [("Host", "localhost")] + ([("Authorization", f"Bearer {token}")] if token else [])
        self.connection.send(wire.compose("GET", f"/v1/watch?for={gateway}&since={since}{query}", headers))
        self.status, self.headers = self.connection.head()
        self.body = b""
        self.chunks = self.connection.chunks()

    @property
    def problem(self):
        body = self.connection.read_exactly(int(self.headers["content-length"]))
        return wire.Response(self.status, self.headers, body).problem

    def line(self):
        """The next line; None at the end of the stream, or if there is none."""
        if self.status != 200:
            return None
        while b"\n" not in self.body:
            try:
                self.body += next(self.chunks)
            except (StopIteration, wire.Closed, ConnectionResetError):
                return None
        line, self.body = self.body.split(b"\n", 1)
        return json.loads(line)

    def lines(self, enough):
        """Lines up to and with the first for which enough(line)."""
        seen = []
        while True:
            seen.append(self.line())
            assert seen[-1] is not None, f"the stream ended after {seen[-5:]}"
            if enough(seen[-1]):
                return seen

    def list(self):
        """The lines of the initial list, without BOOKMARKs, and its revision."""
        assert self.status == 200, self.status
        seen = self.lines(lambda line: line.get("complete"))
        return [line for line in seen if line["type"] != "BOOKMARK"], seen[-1]["revision"]

    def until_revision(self, revision):
        """PUT and DELETE lines until a BOOKMARK says that nothing is missing."""
        seen = self.lines(lambda line: line["type"] == "BOOKMARK" and line["revision"] >= revision)
        return [line for line in seen if line["type"] != "BOOKMARK"]

    def close(self):
        self.connection.close()


def make_daemon(request, database, more=""):
    path = process.folder(request.module.__name__.removeprefix("test_"))
    return Daemon(database, path, more)


@pytest.fixture(scope="module")
def daemon(request, database):
    daemon = make_daemon(request, database, getattr(request.module, "CONFIG", ""))
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def admin(daemon):
    """The REST API as root on the unix socket."""
    return daemon.rest


def token(admin, name, scope, **more):
    return admin.call("POST", "/v1/tokens", {"name": name, "scope": scope, **more})["token"]
