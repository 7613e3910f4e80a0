# SPDX-License-Identifier: BSD-2-Clause
"""The processes of the demo: a private PostgreSQL, tenantd, a gateway. All end with it."""

import fcntl
import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.realpath(f"{os.path.dirname(__file__)}/../..")
BUILD = os.path.abspath(os.environ.get("BUILD", f"{ROOT}/build"))
NGINX = os.environ.get("NGINX", "/usr/sbin/nginx")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("tenantd", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, condition, seconds=20):
    """Waits until condition() is true; the deadline is a bug, not a pause."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"demo: gave up waiting for {what}; logs are in {BUILD}/demo")
        time.sleep(0.002)


def cgroup_mount():
    """Where cgroup2 is mounted, or None."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                return fields.split()[4]
    return None


class Stack:
    def __init__(self):
        self.dir = f"{BUILD}/demo"
        self.socket = f"{self.dir}/tenantd.sock"
        self.port = free_port()
        self.admin_port = free_port()
        self.processes = {}
        self.cgroup = f"tiergate-demo-{os.getpid()}"
        self.database = None
        self.alone = open(f"{BUILD}/demo.lock", "w", encoding="ascii")
        try:
            fcntl.flock(self.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"demo: another one runs in {self.dir}; end that first") from None
        self.clear()

    def clear(self):
        """Begins with an empty folder: a registry of an earlier run has its tenants already."""
        if os.path.exists(f"{self.dir}/postgres/data/postmaster.pid"):
            self.postgres("stop", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)
        for name in ("logs", "tmp"):
            os.makedirs(f"{self.dir}/{name}")

    def postgres(self, command, check=True):
        return subprocess.run([f"{ROOT}/tests/tools/private-postgres", command, f"{self.dir}/postgres"],
                              stdout=subprocess.PIPE, text=True, check=check).stdout.strip()

    # --- start and stop ---

    def start(self):
        self.database = self.postgres("start")
        self.write_config()
        subprocess.run([f"{BUILD}/bin/tenantd", "migrate", "--config", f"{self.dir}/tenantd.ini"],
                       check=True, stdout=self.log("migrate"), stderr=subprocess.STDOUT)
        self.spawn("tenantd", [f"{BUILD}/bin/tenantd", "serve", "--config", f"{self.dir}/tenantd.ini"])
        until("tenantd", lambda: self.answers(lambda: self.rest("GET", "/v1/readyz")[0] == 200))
        self.rest("PUT", "/v1/gateways/demo", {"kind": "shared"})
        self.spawn("gateway", [NGINX, "-p", self.dir, "-c", f"{self.dir}/nginx.conf", "-g", "daemon off;"])
        until("the gateway", lambda: self.answers(lambda: self.get("/readyz", port=self.admin_port)[0] == 200))

    def stop(self):
        for name in reversed(list(self.processes)):
            self.end(name)
        self.postgres("stop", check=False)
        self.remove_cgroups()

    def remove_cgroups(self):
        """The empty ones that are left of instances and workloads."""
        for path, _, _ in os.walk(f"{cgroup_mount()}/{self.cgroup}", topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                pass

    def end(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name):
        return open(f"{self.dir}/logs/{name}.log", "ab")

    def spawn(self, name, command):
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log(name),
                                                stderr=subprocess.STDOUT)
        return self.processes[name]

    @staticmethod
    def answers(call):
        try:
            return call()
        except (OSError, http.client.HTTPException):
            return False

    def write_config(self):
        here = os.path.dirname(os.path.realpath(__file__))
        values = {"DIR": self.dir, "SOCKET": self.socket, "DATABASE": self.database, "PORT": str(self.port),
                  "ADMIN_PORT": str(self.admin_port), "ROOT": ROOT, "BUILD": BUILD, "NGINX": NGINX,
                  "CGROUP": self.cgroup, "CGROUP_MOUNT": cgroup_mount() or "/sys/fs/cgroup",
                  "OWNER": pwd.getpwuid(os.getuid()).pw_name,
                  "USER": f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}",
                  "MODULE": f"{BUILD}/modules/ngx_http_tenant_module.so"}
        for name in ("tenantd.ini", "nginx.conf"):
            with open(f"{here}/{name}.in", encoding="utf-8") as template:
                text = template.read()
            for key, value in values.items():
                text = text.replace(f"@{key}@", value)
            with open(f"{self.dir}/{name}", "w", encoding="utf-8") as out:
                out.write(text)

    # --- use ---

    def rest(self, method, path, body=None):
        """A call of the REST API over its unix socket: status, JSON."""
        connection = UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def get(self, path, host="localhost", port=None, **headers):
        """A request to the gateway: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        connection.request("GET", path, headers={"Host": host, **{k.replace("_", "-"): v
                                                                  for k, v in headers.items()}})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, response.headers, body

    def psql(self, sql):
        """One psql session: what it prints, unaligned."""
        return subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.database], input=sql, text=True,
                              stdout=subprocess.PIPE, check=True).stdout.strip()

    def psql_table(self, sql):
        return subprocess.run(["psql", "-Xq", "-P", "footer=off", self.database], input=sql, text=True,
                              stdout=subprocess.PIPE, check=True).stdout

    def applied(self, tenant):
        """Waits until the gateway has acknowledged the tenant's newest revision."""
        def observed():
            _, body = self.rest("GET", f"/v1/tenants/{tenant}")
            return body["observedRevision"].get("demo", 0) >= body["revision"]
        until(f"the gateway to apply {tenant}", observed)
