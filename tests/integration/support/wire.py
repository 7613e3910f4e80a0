# SPDX-License-Identifier: BSD-2-Clause
"""An HTTP/1.1 client that sends what it is told, byte for byte.

The usual clients tidy a request up before they send it: dot segments, header
case, duplicate headers.  The tests need requests that a tidy client never sends.
"""

import json
import socket

TIMEOUT = 15.0
IP_BIND_ADDRESS_NO_PORT = 24


class Headers:
    """Response headers, in order, with repetitions."""

    def __init__(self, pairs):
        self.pairs = pairs

    def all(self, name):
        name = name.lower()
        return [value for key, value in self.pairs if key.lower() == name]

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default

    def __getitem__(self, name):
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __contains__(self, name):
        return bool(self.all(name))

    def __repr__(self):
        return repr(self.pairs)


# draft-ietf-httpapi-ratelimit-headers-11 section 5.1
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)

    @property
    def problem(self):
        """Slug of a problem document, None of anything else."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        document = self.json()
        assert document["status"] == self.status
        prefix = "urn:tiergate:problem:"
        if document["type"] == QUOTA_EXCEEDED:
            return document["kind"]
        assert document["type"].startswith(prefix) and "kind" not in document
        return document["type"][len(prefix):]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Closed(Exception):
    """The peer closed the connection where a response was due."""

    def __init__(self, seen):
        super().__init__(f"connection closed after {seen[:200]!r}")
        self.seen = seen


class Connection:
    """One connection.  address: (host, port), or the path of a unix socket.
    source: the client's address, any of 127.0.0.0/8."""

    def __init__(self, address, timeout=TIMEOUT, source=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.buffer = b""
        try:
            if source and family == socket.AF_INET:
                self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                self.socket.bind((source, 0))
            self.socket.connect(address)
            if family == socket.AF_INET:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        """Reads once more; False at the end of the stream."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def read_until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise Closed(self.buffer)
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def read_exactly(self, size):
        while len(self.buffer) < size:
            if not self.more():
                raise Closed(self.buffer)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_all(self):
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        """Reads the next final response's head: (status, headers)."""
        while True:
            lines = self.read_until(b"\r\n\r\n").split(b"\r\n")
            status = int(lines[0].split(b" ")[1])
            pairs = []
            for line in lines[1:]:
                key, value = line.split(b":", 1)
                pairs.append((key.decode("latin-1"), value.strip().decode("latin-1")))
            if status == 101 or status >= 200:
                return status, Headers(pairs)

    def response(self, method="GET"):
        """Reads the next response, its body too."""
        status, headers = self.head()
        if method == "HEAD" or status in (101, 204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(self.chunks())
        elif "content-length" in headers:
            body = self.read_exactly(int(headers["content-length"]))
        else:
            body = self.read_all()
        return Response(status, headers, body)

    def chunks(self):
        while True:
            size = int(self.read_until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                while self.read_until(b"\r\n"):
                    pass
                return
            yield self.read_exactly(size)
            self.read_until(b"\r\n")

    def request(self, method, target, headers=(), body=None):
        self.send(compose(method, target, headers, body))
        return self.response(method)

    def ended(self, timeout=TIMEOUT):
        """Whether the peer ends the connection within timeout; drops the data."""
        self.socket.settimeout(timeout)
        try:
            while self.more():
                pass
            return True
        except socket.timeout:
            return False


def compose(method, target, headers=(), body=None):
    """A request as bytes.  A header may be repeated; body sets Content-Length."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    names = {key.lower() for key, _ in pairs}
    lines = [_bytes(method) + b" " + _bytes(target) + b" HTTP/1.1"]
    lines += [_bytes(key) + b": " + _bytes(value) for key, value in pairs]
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*pieces):
    """A body in the chunked coding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"


def request(address, method, target, headers=(), body=None, **more):
    """One request on a connection of its own; more: as Connection."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    if "connection" not in {key.lower() for key, _ in pairs}:
        pairs.append(("Connection", "close"))
    with Connection(address, **more) as connection:
        return connection.request(method, target, pairs, body)


def exchange(address, data, methods=(), timeout=TIMEOUT):
    """Sends raw bytes and returns every response until the peer closes or, after the
    first, is silent for the time-out.  methods: of the requests, where one is a HEAD."""
    responses = []
    with Connection(address, max(timeout, TIMEOUT)) as connection:
        try:
            connection.send(data)
        except OSError:
            pass        # refused before it was sent
        while True:
            method = methods[len(responses)] if len(responses) < len(methods) else "GET"
            try:
                responses.append(connection.response(method))
                connection.socket.settimeout(timeout)
            except (Closed, socket.timeout):
                if connection.buffer:
                    assert not responses and not connection.buffer.startswith(b"HTTP/"), connection.buffer
                    return [Response(9, Headers([]), connection.buffer)]     # HTTP/0.9
                return responses


def _bytes(text):
    return text if isinstance(text, bytes) else str(text).encode("latin-1")
