# SPDX-License-Identifier: BSD-2-Clause
"""A service of the demo's mesh: service.py PORT VERSION answers on loopback with its version."""

import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"path": self.path, "version": self.server.version,
                           "tenant": self.headers.get("X-Tenant")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    version = sys.argv[2]


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
