# SPDX-License-Identifier: BSD-2-Clause
"""A service of the demo's mesh: service.py PORT VERSION answers on loopback with its version."""

import http.server
import sys

import backend


class Handler(backend.Handler):
    def document(self):
        return {**super().document(), "version": sys.argv[2]}


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
