# SPDX-License-Identifier: BSD-2-Clause
"""A blocking WebSocket client: the protocol is the websockets library's, the
bytes go over a plain connection, so that the end of that can be timed."""

import time

from websockets.client import ClientConnection
from websockets.connection import State
from websockets.frames import Opcode
from websockets.uri import parse_uri

from . import wire


class WebSocket:
    """Opens on construction; raises wire.Closed or AssertionError if refused."""

    def __init__(self, address, host, target="/", headers=(), timeout=15):
        self.connection = wire.Connection(address, timeout)
        self.protocol = ClientConnection(parse_uri(f"ws://{host}{target}"))
        request = self.protocol.connect()
        for name, value in (headers.items() if isinstance(headers, dict) else headers):
            request.headers[name] = value
        self.protocol.send_request(request)
        self._flush()
        while self.protocol.state is State.CONNECTING:
            self._receive()
            if self.protocol.handshake_exc is not None:
                self.connection.close()
                raise AssertionError(f"not upgraded: {self.protocol.handshake_exc}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.connection.close()

    def _flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.connection.send(data)

    def _receive(self):
        try:
            data = self.connection.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        return bool(data)

    def echo(self, text):
        """Sends a text message and returns the next one that comes."""
        self.protocol.send_text(text.encode())
        self._flush()
        while True:
            for event in self.protocol.events_received():
                if getattr(event, "opcode", None) is Opcode.TEXT:
                    return event.data.decode()
            if not self._receive():
                raise wire.Closed(b"")

    def ended(self, timeout):
        """Seconds until the connection ends, or None if it does not in time."""
        began = time.monotonic()
        self.connection.socket.settimeout(timeout)
        try:
            while self._receive():
                pass
        except OSError:
            return None
        return time.monotonic() - began
