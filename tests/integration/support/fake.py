# SPDX-License-Identifier: BSD-2-Clause
"""A tenantd that says whatever a test wants on the watch stream."""

import json
import os
import socket
import threading
import urllib.parse

from . import wire
from .poll import until

REGISTRY = "6f1d3f0e-0000-4000-8000-000000000001"


def document(name, number, revision, port, hosts=None, **more):
    """A tenant's document: one host, everything to a port of the loopback."""
    return {
        "name": name, "id": number, "revision": revision, "tier": "vcluster", "state": "active",
        "hosts": [f"{name}.example.com"] if hosts is None else hosts, "issuers": [], "api_keys": [],
        "upstreams": [{"id": number * 100 + 1, "name": "main", "max_outstanding": 0,
                       "health": {"max_fails": 0, "fail_timeout_ms": 1000, "slow_start_ms": 0},
                       "endpoints": [{"id": number * 100 + 2, "address": "127.0.0.1", "port": port,
                                      "weight": 1}]}],
        "routes": [{"id": number * 100 + 3, "name": "all", "match": {"path": {"type": "prefix", "value": "/"}},
                    "auth": {"mode": "none"}, "backends": [{"upstream": "main", "weight": 1}], "retries": 0,
                    "timeouts": {"connect_ms": 1000, "send_ms": 60000, "read_ms": 60000}}],
        "quotas": [], **more}


def put(doc, revision=None, **more):
    return {"type": "PUT", "kind": "tenant", "name": doc["name"], "id": doc["id"],
            "revision": revision or doc["revision"], "object": doc, **more}


def delete(name, number, revision):
    return {"type": "DELETE", "kind": "tenant", "name": name, "id": number, "revision": revision}


def bookmark(revision, **more):
    return {"type": "BOOKMARK", "revision": revision, **more}


class Stream:
    """One watch stream that a gateway has opened."""

    def __init__(self, connection, query, registry):
        self.connection = connection
        self.query = query
        self.since = int(query.get("since", 0))
        self.ended = threading.Event()
        self.begun = False
        self.registry = registry
        self.lock = threading.RLock()    # held by a test, it keeps bookmarks back

    @property
    def open(self):
        return not self.ended.is_set()

    def begin(self, status="200 OK", headers=None):
        lines = {"Content-Type": "application/jsonl", "Transfer-Encoding": "chunked",
                 "Tiergate-Registry": self.registry} if headers is None else headers
        self.raw(f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n")
        self.begun = True       # not before: whoever finds it so may send

    def raw(self, data):
        if isinstance(data, str):
            data = data.encode()
        try:
            with self.lock:     # bookmarks come from another thread
                self.connection.sendall(data)
        except OSError:
            self.ended.set()

    def chunk(self, data):
        if data:
            self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def send(self, *lines):
        """Lines as objects, or as bytes that are sent as they are."""
        for line in lines:
            self.chunk(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def close(self):
        self.ended.set()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class FakeTenantd:
    """Listens on path.  on_watch(stream) is called for each stream in its own
    thread; when it returns the stream stays open, with a bookmark each 500 ms of
    the highest revision that was given to follow()."""

    def __init__(self, path, on_watch, registry=REGISTRY):
        self.path = str(path)
        self.on_watch = on_watch
        self.registry = registry
        self.revision = 0
        self.bookmarks = True
        self.streams = []
        self.requests = []
        self.acks = []
        self.reports = []
        self.handovers = []
        self.handover_status = "204 No Content"    # or None: closes instead
        self.stopped = False
        self.listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while not self.stopped:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            if self.stopped:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection):
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split(" ")
                fields = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
                while len(buffer) < int(fields.get("content-length", 0)):
                    buffer += connection.recv(65536)
                size = int(fields.get("content-length", 0))
                body, buffer = buffer[:size], buffer[size:]
                self.requests.append((method, target, fields, body))
                if target.startswith("/v1/watch"):
                    self._watch(connection, target)
                    return
                if target.endswith("/ack"):
                    self.acks.append(json.loads(body))
                elif target.endswith("/usage"):
                    self.reports.append(json.loads(body))
                elif target.endswith("/handover"):
                    status = self.handover_status       # who sees the report may change it
                    self.handovers.append(json.loads(body))
                    if status is None:
                        return
                    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                    continue
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except OSError:
            pass
        finally:
            connection.close()

    def _watch(self, connection, target):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
        stream = Stream(connection, query, self.registry)
        self.streams.append(stream)
        self.on_watch(stream)
        while stream.open and not self.stopped:
            if self.bookmarks and stream.begun and self.revision:
                stream.send(bookmark(self.revision))
            stream.ended.wait(0.5)

    @property
    def stream(self):
        """The stream that is open now."""
        return until(lambda: next((s for s in reversed(self.streams) if s.open and s.begun), None),
                     "a watch stream")

    def follow(self, *lines, revision):
        """Sends lines on the open stream, then bookmarks of revision."""
        self.stream.send(*lines)
        self.revision = revision
        self.stream.send(bookmark(revision))

    def wait_ack(self, revision=None, condition=None, timeout=30):
        """Waits for an acknowledgement of a revision; returns it."""
        def found():
            return next((ack for ack in reversed(self.acks)
                         if (revision is None or ack["revision"] >= revision)
                         and (condition is None or condition(ack))), None)
        return until(found, lambda: f"ack of {revision}: {self.acks[-1:]}", timeout)

    def stop(self):
        self.stopped = True
        try:
            wire.Connection(self.path, 1).close()
        except OSError:
            pass
        self.listener.close()
        for stream in self.streams:
            stream.close()
        for thread in self.threads:
            thread.join(5)
        if os.path.exists(self.path):
            os.unlink(self.path)
