# SPDX-License-Identifier: BSD-2-Clause
"""Where things are, folders to run them in, and processes that are surely ended."""

import atexit
import contextlib
import ctypes
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile

from .poll import until

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("TIERGATE_BUILD")
                     or os.environ.get("BUILD") or ROOT / "build").absolute()
NGINX = os.environ.get("TIERGATE_NGINX") or shutil.which("nginx", path=":".join(
    [str(BUILD / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])) or "nginx"
MODULE = BUILD / "modules" / "ngx_http_tenant_module.so"
TENANTD = BUILD / "bin" / "tenantd"
SANITIZED = (BUILD / "config.mk").exists() and re.search(
    r"^SANITIZERS\s*:?=\s*yes", (BUILD / "config.mk").read_text(), re.M) is not None

# What must never be in a log.  Sanitizers write to the standard error.
BAD = re.compile(r"\[(?:alert|emerg)\]|Sanitizer|runtime error:|"
                 r"Assertion .* failed|double free|corrupted|stack smashing")


def folder(name):
    """A fresh folder below build/tests.  Where that makes the path of a socket too long, it is called by a link to
    it from /tmp: [provisioner] directory has at most 70 bytes, and is two folders below."""
    parent = BUILD / "tests" / "integration"
    parent.mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"{name[:24]}-", dir=parent))
    path.chmod(0o755)
    return short(path) if len(str(path)) > 48 else path


def short(path):
    """A link to a folder, until this process ends."""
    while True:
        link = pathlib.Path(tempfile.gettempdir()) / f"tiergate-{secrets.token_hex(4)}"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(path)
            atexit.register(link.unlink, missing_ok=True)
            return link


def drop(path):
    """Removes a folder of folder()."""
    shutil.rmtree(path.resolve(), ignore_errors=True)
    if path.is_symlink():
        path.unlink()


def free_port():
    """A TCP port that was free a moment ago, and that the kernel gives to no client: whoever uses it tries again."""
    for port in random.sample(range(10000, 21000), 100):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("none of a hundred ports is free")


def environment():
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("PG", "TIERGATE_", "TENANTD_", "NGINX", "PYTEST_"))}
    env["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=0"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=0"
    return env


def start(command, output, **more):
    """Starts a process whose output goes to a file, in a process group of its own."""
    with open(output, "ab") as stream:
        return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                stdout=stream, stderr=stream, start_new_session=True,
                                env={**environment(), **more.pop("env", {})}, **more)


def stop(process, how=signal.SIGTERM, timeout=30):
    """Ends a process by its pid, with violence after timeout."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)
    return process.returncode


def adopt_orphans():
    """Makes this process the parent of daemons that its children leave behind, so
    that they can be waited for (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children(pid):
    """Pids of the children, in the order of their start."""
    try:
        pids = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in pids if alive(int(child))]


def reap(pid, timeout=30):
    """Waits for the end of a process that may or may not be our child."""
    def gone():
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        return not alive(pid)
    until(gone, f"the end of process {pid}", timeout)


class Log:
    """A log file that is read as it grows, and searched for what must not be there."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.allowed = []

    @property
    def text(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def allow(self, pattern):
        """Says that a test provokes lines like this."""
        self.allowed.append(re.compile(pattern))

    def bad(self):
        return [line for line in self.text.splitlines()
                if BAD.search(line) and not any(a.search(line) for a in self.allowed)]

    def mark(self):
        """Where the log ends now, for since()."""
        return len(self.text)

    def since(self, mark):
        return self.text[mark:]

    def wait(self, pattern, mark=0, timeout=30):
        """Waits for a line."""
        return until(lambda: re.search(pattern, self.since(mark)),
                     lambda: f"{pattern!r} in {self.path}:\n{self.since(mark)[-2000:]}", timeout)


def cgroup_mounts():
    """Where cgroup2 is mounted."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    return [mount[1] for mount in mounts if mount[2] == "cgroup2"]


def remove_cgroup(name):
    """A cgroup below the root of cgroup2 in which nothing lives any more, if there is one."""
    for mount in cgroup_mounts():
        for path, _, _ in os.walk(f"{mount}/{name}", topdown=False):
            os.rmdir(path)
