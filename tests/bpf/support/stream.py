# SPDX-License-Identifier: BSD-2-Clause
"""A tenantd that says on the watch stream what a test wants said."""

import json
import os
import socket
import socketserver
import threading

REGISTRY = "0b6d1f6e-6f0d-4b6c-9d3e-1f2a3b4c5d6e"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            request = self.rfile.readline().decode()
            if not request:
                return
            headers = {}
            for line in iter(self.rfile.readline, b"\r\n"):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            method, path, _ = request.split()
            if method == "GET":
                self.server.watch(self, path)
                return
            body = json.loads(self.rfile.read(int(headers["content-length"])))
            self.server.posts.append((path, body))
            self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class FakeTenantd(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path):
        super().__init__(path, Handler)
        self.address = path
        self.posts, self.watches = [], []
        self.changed = threading.Condition()
        self.current = None
        self.answer = None              # to the next stream, instead of one
        self.last, self.quiet = None, False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def watch(self, handler, path):
        with self.changed:
            self.watches.append(path)
            number = len(self.watches)
            if self.answer:
                handler.wfile.write(self.answer)
                self.answer = None
                self.changed.notify_all()
                return
            self.current, self.last = (number, handler), None
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\n"
                                b"Transfer-Encoding: chunked\r\nTiergate-Registry: " + REGISTRY.encode() + b"\r\n\r\n")
            self.changed.notify_all()
            while self.current and self.current[0] == number:
                if not self.changed.wait(1) and self.last and not self.quiet:
                    self.say(self.last)         # as tenantd does; agents leave a stream that says nothing

    def streams(self, number):
        """Waits for the number-th stream; its path."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.watches) >= number, 10), self.watches
            return self.watches[number - 1]

    def say(self, *lines):
        """Lines: text as it is, others as JSON.  A BOOKMARK at their end is said again, until there is more to say."""
        data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        with self.changed:
            handler = self.current[1]
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            handler.wfile.flush()
            ended = isinstance(lines[-1], dict) and lines[-1]["type"] == "BOOKMARK"
            self.last = bookmark(lines[-1]["revision"]) if ended else None

    def cut(self):
        with self.changed:
            handler = self.current[1]
            handler.connection.shutdown(socket.SHUT_RDWR)
            self.current = None
            self.changed.notify_all()

    def acks(self):
        return [body for path, body in self.posts if path.endswith("/ack")]

    def end(self):
        with self.changed:
            self.current = None
            self.changed.notify_all()
        self.shutdown()
        self.server_close()
        os.unlink(self.address)


def put(kind, name, number, revision, /, **object_):
    return {"type": "PUT", "kind": kind, "name": name, "id": number, "revision": revision,
            "object": {"id": number, "name": name, "revision": revision, **object_}}


def bookmark(revision, **more):
    return {"type": "BOOKMARK", "revision": revision, **more}
