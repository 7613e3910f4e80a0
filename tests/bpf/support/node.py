# SPDX-License-Identifier: BSD-2-Clause
"""Scratch cgroups and network namespaces: made by the run, found again by its
name, gone after it."""

import ctypes
import errno
import os
import pathlib
import signal
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def cgroup_root():
    """Where cgroup2 is mounted, or None."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return pathlib.Path(fields.split()[4])
    return None


def until(check, what, seconds=30):
    """Waits for a true answer, which it returns.  what may be a callable: it is asked at the end."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.005)


def folders(path):
    """It and all below, each after the one that it is in."""
    return [pathlib.Path(folder) for folder, _, _ in os.walk(path)]


class Cgroup:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir()

    def child(self, name):
        return Cgroup(self.path / name)

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self):
        """Pid: what runs, and where, of all that lives in it and below."""
        found = {}
        for folder in folders(self.path):
            try:
                for pid in (folder / "cgroup.procs").read_text().split():
                    command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                    found[int(pid)] = f"{command.replace(chr(0), ' ').strip()[:160]} (in {folder.relative_to(self.path)})"
            except (FileNotFoundError, ProcessLookupError):
                pass                    # it has gone meanwhile
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
        return found

    def remove(self, seconds=15):
        """It and all below, once their processes have gone.  Those that do not go are killed, and named."""
        left = {}
        try:
            until(self._removed, f"{self.path} to be empty", seconds)
        except AssertionError:
            left = self.processes()
            until(self._killed, lambda: f"the end of what lives in {self.path}: {self.processes()}")
        assert not left, "left behind, and killed now: " + "; ".join(f"{pid} {what}" for pid, what in left.items())

    def _killed(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return self._removed()

    def _removed(self):
        """Whether nothing of it is there any more; takes away what is empty."""
        for path in reversed(folders(self.path)):
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                if error.errno != errno.ENOENT:
                    raise
        return True


def ip(*words, netns=None, check=True):
    prefix = ["ip", "-n", netns] if netns else ["ip"]
    done = subprocess.run([*prefix, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"{' '.join([*prefix, *words])}: {done.stderr.strip()}"
    return done


class Netns:
    """With loopback up, and addresses of its own on it."""

    def __init__(self, name, addresses=()):
        self.name = name
        ip("netns", "add", name)
        ip("link", "set", "lo", "up", netns=name)
        for address in addresses:
            self.add(address)

    def add(self, address, device="lo"):
        bits = 128 if ":" in address else 32
        extra = ["nodad"] if ":" in address else []
        ip("addr", "add", f"{address}/{bits}", "dev", device, *extra, netns=self.name)

    def enter(self):
        with open(f"/run/netns/{self.name}", "rb") as f:
            if LIBC.setns(f.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def set(self, name, value=1):
        """A setting of /proc/sys/net."""
        ip("netns", "exec", self.name, "sh", "-c", f"echo {value} > /proc/sys/net/{name}")

    def remove(self):
        ip("netns", "del", self.name, check=False)


def wire(one, other, addresses_one, addresses_other):
    """A cable between two namespaces; each end is reached by a route to the other's addresses."""
    ip("link", "add", "wire0", "netns", one.name, "type", "veth", "peer", "name", "wire0",
       "netns", other.name)
    for netns in (one, other):
        ip("link", "set", "wire0", "up", netns=netns.name)
    for netns, mine, theirs in ((one, addresses_one, addresses_other), (other, addresses_other, addresses_one)):
        for address, peer in zip(mine, theirs):
            extra = ["nodad"] if ":" in address else []
            ip("addr", "add", address, "peer", peer, "dev", "wire0", *extra, netns=netns.name)
