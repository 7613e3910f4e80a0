# SPDX-License-Identifier: BSD-2-Clause
"""The tenants' service in the demo: says what it got, and echoes WebSocket frames."""

import base64
import hashlib
import http.server
import json
import threading

WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.upgrade()
            return

        body = json.dumps(self.document()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def document(self):
        return {
            "path": self.path,
            "tenant": self.headers.get("X-Tenant"),
            "consumer": self.headers.get("X-Tenant-Consumer"),
        }

    def upgrade(self):
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + WEBSOCKET_GUID).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        self.connection.recv(1)     # until the gateway closes

    def log_message(self, *args):
        pass


def start():
    """Starts the service on a free port of loopback and returns the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
