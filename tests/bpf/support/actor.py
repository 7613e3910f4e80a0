# SPDX-License-Identifier: BSD-2-Clause
"""A process in a cgroup and a network namespace that does with sockets what it is told.

Its answers are values, and of an OSError the name: "EPERM"."""

import errno
import os
import pickle
import random
import select
import signal
import socket
import struct
import traceback

from .node import until

TIMEOUT = 10     # s; longer than between two times that TCP sends again what was cut for some seconds


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Sockets:
    """What an actor can do.  Sockets have names."""

    def __init__(self):
        self.open = {}
        self.own = {}

    def live_at(self, *addresses):
        """Where calls come from unless they say: to an address of this machine the kernel would take
        that very address."""
        for address in addresses:
            self.own["v6" if ":" in address else "v4"] = address

    def source(self, address):
        if "." not in address:
            return self.own.get("v6")
        mine = self.own.get("v4")
        return f"::ffff:{mine}" if mine and ":" in address else mine

    def listen(self, name, address, port, backlog=512, v6only=False):
        s = socket.socket(family(address), socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family(address) == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        s.bind((address, port))
        s.listen(backlog)
        s.settimeout(TIMEOUT)
        self.open[name] = s
        return s.getsockname()[1]

    def accept(self, name, listener):
        self.open[name], peer = self.open[listener].accept()
        self.open[name].settimeout(TIMEOUT)
        return peer[:2]

    def accept_all(self, listener):
        """Accepts and closes what waits; how many that were."""
        count = 0
        s = self.open[listener]
        while select.select([s], [], [], 0)[0]:
            s.accept()[0].close()
            count += 1
        return count

    def connect(self, name, address, port, kind="tcp", bind=None, timeout=TIMEOUT, af=None):
        """The peer's address as the socket tells it."""
        s = socket.socket(af or family(address),
                          socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        s.settimeout(timeout)
        bind = bind or (self.source(address) and (self.source(address), 0))
        if bind:
            s.bind(bind)
        try:
            s.connect((address, port))
        except OSError:
            s.close()
            raise
        self.open[name] = s
        return s.getpeername()[:2]

    def connect_many(self, address, port, count):
        """How often each real port was reached, as the servers say with one byte pair."""
        found = {}
        for _ in range(count):
            with socket.socket(family(address), socket.SOCK_STREAM) as s:
                s.settimeout(TIMEOUT)
                if self.source(address):
                    s.bind((self.source(address), 0))
                # No TIME_WAIT: 10,000 of them use up the ports.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.connect((address, port))
                key = s.recv(2)
                found[key] = found.get(key, 0) + 1
        return {struct.unpack("!H", key)[0]: n for key, n in found.items()}

    def try_many(self, address, port, count):
        """Outcomes of so many connects, each closed at once."""
        outcomes = {}
        for _ in range(count):
            with socket.socket(family(address), socket.SOCK_STREAM) as s:
                s.settimeout(TIMEOUT)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if self.source(address):
                    s.bind((self.source(address), 0))
                try:
                    s.connect((address, port))
                    outcome = "ok"
                except OSError as error:
                    outcome = errno.errorcode.get(error.errno, str(error))
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
        return outcomes

    def connect_until(self, address, port, stop):
        """Connects again and again until the file is there, and then fifty times more; outcomes."""
        outcomes, last = {}, False
        while not last:
            last = os.path.exists(stop)
            for outcome, n in self.try_many(address, port, 50).items():
                outcomes[outcome] = outcomes.get(outcome, 0) + n
        return outcomes

    def random_calls(self, targets, count, seed, ports):
        """Connects to targets at random from ports in turn, whatever comes of it; (remote, outcome) of each."""
        chance = random.Random(seed)
        calls = []
        for call in range(count):
            address, port = chance.choice(targets)
            with socket.socket(family(address), socket.SOCK_STREAM) as s:
                s.settimeout(TIMEOUT)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((self.source(address), ports[call % len(ports)]))
                try:
                    s.connect((address, port))
                    calls.append(((address, port), "ok"))
                except OSError as error:
                    calls.append(((address, port), errno.errorcode[error.errno]))
        return calls

    def serve_ports(self, sockets):
        """Answers each connection to the listeners with the port, until told otherwise (a child)."""
        child = os.fork()
        if child:
            self.open[f"serving {child}"] = child
            return child
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        listeners = [self.open[name] for name in sockets]
        while os.getppid() != 1:
            for s in select.select(listeners, [], [], 0.5)[0]:
                try:
                    connection, _ = s.accept()
                    connection.sendall(struct.pack("!H", s.getsockname()[1]))
                    connection.close()
                except OSError:
                    pass
        os._exit(0)

    def udp(self, name, address=None, port=0, af=socket.AF_INET):
        s = socket.socket(family(address) if address else af, socket.SOCK_DGRAM)
        s.settimeout(TIMEOUT)
        if address:
            s.bind((address, port))
        self.open[name] = s
        return s.getsockname()[1]

    def sendto(self, name, data, address, port):
        return self.open[name].sendto(data, (address, port))

    def recvfrom(self, name, timeout=TIMEOUT):
        self.open[name].settimeout(timeout)
        data, peer = self.open[name].recvfrom(65536)
        return data, peer[:2]

    def send(self, name, data):
        return self.open[name].send(data)

    def recv(self, name, timeout=TIMEOUT):
        self.open[name].settimeout(timeout)
        return self.open[name].recv(65536)

    def peer(self, name):
        return self.open[name].getpeername()[:2]

    def local(self, name):
        return self.open[name].getsockname()[:2]

    def sent_again(self, name):
        """How many segments were, so far (tcpi_total_retrans)."""
        return struct.unpack_from("=I", self.open[name].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]

    def close(self, name):
        self.open.pop(name).close()

    def move(self, cgroup):
        with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(os.getpid()))

    def fast_open(self, address, port, data):
        """A connect that no connect() is: TCP Fast Open."""
        with socket.socket(family(address), socket.SOCK_STREAM) as s:
            s.bind((self.source(address), 0))
            return s.sendto(data, socket.MSG_FASTOPEN, (address, port))

    def multipath(self, address, port, data):
        """A connect of MPTCP, which makes a connection of TCP below."""
        with socket.socket(family(address), socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as s:
            s.settimeout(TIMEOUT)
            s.bind((self.source(address), 0))
            s.connect((address, port))
            return s.send(data)

    def raw_send(self, packet, address):
        """A whole packet, header and all."""
        with socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
            return s.sendto(packet, (address, 0))

    def peek(self, name):
        """Whether anything has come."""
        s = self.open[name]
        s.setblocking(False)
        try:
            return bool(s.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            s.settimeout(TIMEOUT)


class Actor:
    """The other end of the pipe: any method of Sockets can be called on it."""

    def __init__(self, cgroup, netns):
        self.cgroup = cgroup
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.pid = os.fork()
        if self.pid == 0:
            here.close()
            self._live(there, cgroup, netns)
        there.close()
        self.pipe = here
        self.result()

    @staticmethod
    def _live(pipe, cgroup, netns):
        try:
            cgroup.enter()
            netns.enter()
            pipe.send(pickle.dumps(("ok", None)))
            sockets = Sockets()
            while True:
                data = pipe.recv(1 << 20)
                if not data:
                    break
                method, args, kwargs = pickle.loads(data)
                if method == "end":
                    break
                try:
                    answer = ("ok", getattr(sockets, method)(*args, **kwargs))
                except TimeoutError:
                    answer = ("ok", "TIMEOUT")
                except OSError as error:
                    answer = ("ok", errno.errorcode.get(error.errno, str(error)))
                pipe.send(pickle.dumps(answer))
            for thing in sockets.open.values():
                if isinstance(thing, int):
                    os.kill(thing, signal.SIGTERM)
                    os.waitpid(thing, 0)
        except BaseException:
            pipe.send(pickle.dumps(("failed", traceback.format_exc())))
        finally:
            os._exit(0)

    def begin(self, method, *args, **kwargs):
        self.pipe.send(pickle.dumps((method, args, kwargs)))

    def result(self, timeout=60):
        self.pipe.settimeout(timeout)
        kind, answer = pickle.loads(self.pipe.recv(4 << 20))
        assert kind == "ok", answer
        return answer

    def __getattr__(self, method):
        def call(*args, **kwargs):
            self.begin(method, *args, **kwargs)
            return self.result()
        return call

    def end(self):
        """Asks it to end; one that does not, because it waits for something or has died, is killed."""
        try:
            # Said, not closed: later actors hold the pipe as well.
            self.begin("end")
        except OSError:
            pass
        self.pipe.close()
        try:
            until(self._ended, f"the end of actor {self.pid}")
        except AssertionError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def _ended(self):
        return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
