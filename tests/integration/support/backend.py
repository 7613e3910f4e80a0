# SPDX-License-Identifier: BSD-2-Clause
"""An upstream that says exactly what reached it, and misbehaves on demand.

Each endpoint is a port of its own.  It answers with JSON: method, target and
headers as they came over the wire, body, and which port and connection took it.
A request can ask for behaviour in a header, which the gateway passes on:

    X-Do: delay=0.2, status=503, close, reset, half, size=100000, stream=5,
          header=Name:value

"close" ends the connection without an answer, "reset" with RST, "half" in the
middle of the body.  "hold" answers when Backend.release() is called.  An
endpoint can also be told to do the same to every request: endpoint.do = "close".
"""

import asyncio
import base64
import collections
import hashlib
import json
import socket
import struct
import threading

from .process import free_port

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Seen = collections.namedtuple(
    "Seen", "method target headers body port connection")


class Endpoint:
    """One listening port."""

    def __init__(self, backend):
        self.backend = backend
        self.do = ""
        self.connections = 0
        self.requests = 0
        self.open = set()
        self.server = None
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = free_port()         # so that it is still there for accept()
        self.socket.bind(("127.0.0.1", self.port))
        self.address = f"127.0.0.1:{self.port}"

    def listen(self):
        self.backend.call(self._listen())

    async def _listen(self):
        self.socket.listen(1024)
        self.socket.setblocking(False)
        self.server = await asyncio.start_server(self._serve, sock=self.socket)

    def refuse(self):
        """Closes the port and its connections: connects are refused from now on."""
        async def shut():
            self.server.close()
            for writer in list(self.open):
                writer.transport.abort()
        self.backend.call(shut())

    def accept(self):
        """Opens the port again after refuse()."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", self.port))
        self.listen()

    async def _serve(self, reader, writer):
        self.connections += 1
        connection = self.connections
        self.open.add(writer)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._one(reader, writer, connection):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _one(self, reader, writer, connection):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        method, target, version = lines[0].split(b" ")
        headers = [tuple(part.decode("latin-1") for part in
                         (key, value.strip()))
                   for key, value in (line.split(b":", 1) for line in lines[1:])]
        fields = {key.lower(): value for key, value in headers}
        body = await _body(reader, fields)
        seen = Seen(method.decode(), target.decode("latin-1"), headers, body,
                    self.port, connection)
        self.requests += 1
        self.backend.seen.append(seen)

        do = _orders(self.do) or _orders(fields.get("x-do", ""))
        if fields.get("upgrade", "").lower() == "websocket" and "status" not in do:
            await _websocket(reader, writer, fields)
            return False
        self.backend.inside += 1
        self.backend.most = max(self.backend.most, self.backend.inside)
        try:
            return await self._answer(writer, seen, do, version)
        finally:
            self.backend.inside -= 1

    async def _answer(self, writer, seen, do, version):
        if "hold" in do:
            self.backend.held += 1
            await self.backend.gate.wait()
        if "delay" in do:
            await asyncio.sleep(float(do["delay"]))
        if "reset" in do:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if "close" in do:
            return False

        status = int(do.get("status", 200))
        extra = ""
        if "header" in do:
            name, value = do["header"].split(":", 1)
            extra = f"{name}: {value}\r\n"
        if "stream" in do:
            return await self._stream(writer, int(do["stream"]))

        body = json.dumps({
            "method": seen.method, "target": seen.target, "headers": seen.headers,
            "body": seen.body.decode("latin-1"), "port": seen.port,
            "connection": seen.connection, "version": version.decode(),
            "source": "%s:%d" % writer.get_extra_info("peername")[:2],
        }).encode()
        if "size" in do:
            body = b"x" * int(do["size"])
        head = (f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n"
                f"{extra}Content-Length: {len(body)}\r\n\r\n").encode()
        if seen.method == "HEAD":
            body = b""
        elif "half" in do:
            body = body[:len(body) // 2]
        writer.write(head + body)
        await writer.drain()
        return "half" not in do

    async def _stream(self, writer, pieces):
        """One chunk each 100 ms."""
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in range(pieces):
            writer.write(b"%x\r\n%d\n\r\n" % (len(str(piece)) + 1, piece))
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _body(reader, fields):
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return body
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    return await reader.readexactly(int(fields.get("content-length", 0)))


async def _websocket(reader, writer, fields):
    """Accepts the upgrade and sends every byte back unmasked, frame by frame."""
    accept = base64.b64encode(hashlib.sha1(
        fields["sec-websocket-key"].encode() + WEBSOCKET_GUID).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                 b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = await reader.readexactly(2)
        assert second & 0x80 and second & 0x7f < 126, "small masked frames only"
        mask = await reader.readexactly(4)
        data = await reader.readexactly(second & 0x7f)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        writer.write(bytes([first, len(data)]) + data)
        await writer.drain()
        if first & 0x0f == 8:
            return


def _orders(text):
    orders = {}
    for order in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = order.partition("=")
        orders[key] = value
    return orders


class Backend:
    """Endpoints on an event loop in a thread of its own."""

    def __init__(self):
        self.seen = collections.deque(maxlen=100000)
        self.held = 0
        self.inside = 0         # requests that are being answered
        self.most = 0           # the most there were at once
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.gate = self.call(self._event())
        self.endpoints = []
        self.main = self.endpoint()

    async def _event(self):
        return asyncio.Event()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(15)

    def endpoint(self):
        """Another port."""
        endpoint = Endpoint(self)
        endpoint.listen()
        self.endpoints.append(endpoint)
        return endpoint

    def release(self):
        """Lets every request that is held be answered."""
        async def turn():
            self.gate.set()
            self.gate = asyncio.Event()
            self.held = 0
        self.call(turn())

    def clear(self):
        self.seen.clear()

    def stop(self):
        self.release()

        async def shut():
            for endpoint in self.endpoints:
                endpoint.server.close()
                for writer in list(endpoint.open):
                    writer.transport.abort()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self.call(shut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
