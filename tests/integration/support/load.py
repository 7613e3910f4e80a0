# SPDX-License-Identifier: BSD-2-Clause
"""Requests in the background that know what the answer has to be."""

import collections
import threading
import time

from . import wire
from .poll import until


class Load:
    """Runs probes, each a function connection -> status, against expected statuses.

    probes: list of (name, request bytes, expected set of statuses).  What is not
    expected goes to wrong; a connection that breaks before an answer to failed.
    fresh: a connection for each request.
    """

    def __init__(self, address, probes, threads=2, fresh=False, pause=0.0):
        self.address = address
        self.probes = probes
        self.fresh = fresh
        self.pause = pause
        self.counts = collections.Counter()
        self.wrong = []
        self.failed = []
        self.slowest = 0.0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=[i]) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _run(self, turn):
        while not self.stopping.is_set():
            try:
                with wire.Connection(self.address, 15) as connection:
                    used = False
                    while not self.stopping.is_set():
                        name, data, expected = self.probes[turn % len(self.probes)]
                        turn += 1
                        if not self._one(connection, name, data, expected, used) or self.fresh:
                            break
                        used = True
                        if self.pause:
                            self.stopping.wait(self.pause)
            except OSError as error:
                self._note_failure("connect", error)

    def _one(self, connection, name, data, expected, used):
        began = time.monotonic()
        try:
            connection.send(data)
            response = connection.response()
        except (wire.Closed, OSError) as error:
            seen = getattr(error, "seen", b"")
            # A server may close a kept connection between two requests, and a
            # client that has not had a byte of an answer has to ask again (RFC
            # 9112 section 9.3.1): on a connection that has served before, that is
            # no failure.
            if not (used and not seen):
                self._note_failure(name, error)
            return False
        took = time.monotonic() - began
        with self.lock:
            self.counts[name, response.status] += 1
            self.slowest = max(self.slowest, took)
            if response.status not in expected:
                self.wrong.append((name, response.status, response.body[:200]))
        return response.headers.get("connection", "").lower() != "close"

    def _note_failure(self, name, error):
        with self.lock:
            self.failed.append((name, repr(error), time.monotonic()))

    @property
    def total(self):
        with self.lock:
            return sum(self.counts.values())

    def wait(self, more, timeout=30):
        """Lets it run until there are that many more answers."""
        target = self.total + more
        until(lambda: self.total >= target, f"{more} more answers", timeout)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
