# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 with prior knowledge, one connection, headers as given."""

import socket

import h2.config
import h2.connection
import h2.events

TIMEOUT = 15.0


class Http2:
    """A connection.  Nothing of what is sent is validated: that is the gateway's job."""

    def __init__(self, address, timeout=TIMEOUT):
        self.socket = socket.create_connection(address, timeout)
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="latin-1", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.protocol.initiate_connection()
        self.flush()
        self.ended = set()
        self.statuses = {}
        self.headers = {}
        self.bodies = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.protocol.data_to_send())

    def send(self, headers, body=None, end=True):
        """Opens a stream; returns its number."""
        stream = self.protocol.get_next_available_stream_id()
        self.protocol.send_headers(stream, headers, end_stream=end and body is None)
        if body is not None:
            self.protocol.send_data(stream, body, end_stream=end)
        self.flush()
        self.bodies[stream] = b""
        return stream

    def receive(self):
        """Reads once; False when the connection has ended."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        for event in self.protocol.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers[event.stream_id] = event.headers
                self.statuses[event.stream_id] = int(dict(event.headers)[":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.protocol.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.ended.add(event.stream_id)
                self.statuses.setdefault(event.stream_id, None)
            elif isinstance(event, h2.events.ConnectionTerminated):
                return False
        self.flush()
        return True

    def response(self, stream):
        """(status, headers, body); status None: the stream was reset or refused."""
        while stream not in self.ended:
            if not self.receive():
                self.statuses.setdefault(stream, None)
                break
        return self.statuses[stream], self.headers.get(stream), self.bodies[stream]


def get(address, host, path, headers=(), method="GET", body=None):
    """One request on a connection of its own."""
    with Http2(address) as connection:
        return connection.response(connection.send(
            [(":method", method), (":scheme", "http"), (":authority", host), (":path", path),
             *headers], body))
