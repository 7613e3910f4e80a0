# SPDX-License-Identifier: BSD-2-Clause
"""A gateway: a real nginx with the module, in a prefix of its own."""

import os
import pathlib
import re
import signal
import subprocess

from . import process, wire
from .poll import until

CONFIG = """\
{globals}
load_module {module};
user root root;
worker_processes {workers};
worker_shutdown_timeout {shutdown};
daemon {daemon};
pid {path}/nginx.pid;
error_log {path}/error.log {level};
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path {path}/tmp/body;
    proxy_temp_path {path}/tmp/proxy;
    fastcgi_temp_path {path}/tmp/fastcgi;
    uwsgi_temp_path {path}/tmp/uwsgi;
    scgi_temp_path {path}/tmp/scgi;

    {log}
    lingering_close off;
    keepalive_requests 1000000;

    tenant_zone registry {zone};
    {sync}
    {http}

    upstream tenants {{
        tenant_balancer;
        keepalive {keepalive};
        keepalive_timeout 30s;
    }}

    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{port2} http2;
        {server}

        location / {{
            {location}
            proxy_pass http://tenants;
            proxy_http_version 1.1;
            proxy_set_header Host $tenant_upstream_host;
            proxy_set_header Upgrade $tenant_upgrade;
            proxy_set_header Connection $tenant_connection;
        }}
        location = /-/metrics {{ tenant_metrics; }}
        location = /-/ready   {{ tenant_ready; }}
        {locations}
    }}
    {servers}
}}
"""

LOG = """\
log_format tests '$status tenant=$tenant_name route=$tenant_route '
                     'consumer=$tenant_consumer auth=$tenant_auth_method '
                     'refusal=$tenant_refusal source=$tenant_upstream_source '
                     'uri="$request"';
    access_log @PATH@/access.log tests;"""

DEFAULTS = {
    "log": LOG,
    "globals": "", "workers": 2, "shutdown": "10s", "daemon": "off", "level": "info",
    "connections": 256, "zone": "8m", "http": "underscores_in_headers on;", "keepalive": 16,
    "server": "", "locations": "", "servers": "",
    "location": "tenant host; tenant_auth on; tenant_quota on;",
}


class Gateway:
    """A gateway that is started at once and lives until stop().

    source: path of tenantd's socket, or any other address that tenant_source
    takes.  options: what DEFAULTS names; @PATH@ in them is the gateway's folder.
    """

    def __init__(self, name, source, secret_key=None, snapshot=True, path=None,
                 started=True, **options):
        self.name = name
        self.path = pathlib.Path(path or process.folder(name))
        (self.path / "tmp").mkdir(exist_ok=True)
        self.options = {**DEFAULTS, **options}
        self.snapshot = self.path / "registry.jsonl" if snapshot else None
        self.secret_key = secret_key
        self.source = source
        self.log = process.Log(self.path / "error.log")
        self.output = process.Log(self.path / "output.log")
        self.process = None
        self.port = self.port2 = None
        if started:
            self.start()

    # --- life ---

    def sync(self):
        lines = []
        if self.source:
            source = self.source
            if "=" not in source.split()[-1]:
                source += f" gateway={self.name}"
            lines.append(f"tenant_source {source};")
        if self.snapshot:
            lines.append(f"tenant_snapshot {self.snapshot};")
        if self.secret_key:
            lines.append(f"tenant_secret_key {self.secret_key};")
        return "\n    ".join(lines)

    def configure(self, **options):
        """Writes nginx.conf anew; effective with the next start or reload."""
        self.options.update(options)
        text = CONFIG.format(path=self.path, module=process.MODULE, port=self.port,
                             port2=self.port2, sync=self.sync(), **self.options)
        (self.path / "nginx.conf").write_text(text.replace("@PATH@", str(self.path)))

    def command(self, *arguments):
        return [process.NGINX, "-p", f"{self.path}/", "-c", f"{self.path}/nginx.conf",
                "-e", f"{self.path}/error.log", *arguments]

    def check(self):
        """nginx -t: (exit status, what it says)."""
        if self.port is None:
            self.port, self.port2 = process.free_port(), process.free_port()
        self.configure()
        done = subprocess.run(self.command("-t"), text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60,
                              env=process.environment())
        return done.returncode, done.stdout

    def start(self):
        for _ in range(5):
            if self._start():
                return self
        raise AssertionError(f"nginx did not start:\n{self.log.text}{self.output.text}")

    def _start(self):
        if self.port is None:
            self.port, self.port2 = process.free_port(), process.free_port()
        self.configure()
        (self.path / "nginx.pid").unlink(missing_ok=True)
        mark = self.log.mark()
        self.process = process.start(self.command(), self.path / "output.log",
                                     env={"TZ": "UTC"})
        daemon = self.options["daemon"] == "on"

        def up():
            if self.process.poll() is not None and not (daemon and self.process.returncode == 0):
                return "ended"
            if "Address already in use" in self.log.since(mark):
                return "taken"
            return self.master and self.accepts() and "up"

        state = until(up, lambda: f"nginx:\n{self.log.text}{self.output.text}", 30)
        if state == "up":
            return True
        taken = "Address already in use" in self.log.since(mark)
        process.stop(self.process, signal.SIGKILL)
        if taken:
            self.port = None
            self.log.allow(r"bind\(\).*Address already in use|could not bind")
            return False
        raise AssertionError(f"nginx did not start:\n{self.log.text}{self.output.text}")

    def accepts(self):
        try:
            wire.Connection(self.address, 5).close()
            return True
        except OSError:
            return False

    @property
    def master(self):
        """Pid of the master process."""
        if self.options["daemon"] == "off":
            return self.process.pid if self.process else None
        try:
            return int((self.path / "nginx.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    @property
    def workers(self):
        """Pids of the workers, helpers and those that are shutting down included."""
        return process.children(self.master)

    @property
    def sync_worker(self):
        """Pid of worker 0, which nginx starts first."""
        return min(self.workers)

    def kill(self, number):
        os.kill(self.master, number)

    def reload(self):
        """SIGHUP; returns when the old workers take no new connections."""
        old = set(self.workers)
        self.kill(signal.SIGHUP)
        until(lambda: len(set(self.workers) - old) >= self.options["workers"],
              "the new workers", 30)

    def stop(self, how=signal.SIGTERM):
        if self.options["daemon"] == "on":
            # two masters, when a test of the upgrade failed half-way
            for file in self.path.glob("nginx.pid*"):
                master = int(file.read_text() or 0)
                if master and process.alive(master):
                    os.kill(master, how)
                    process.reap(master, 30)
        if self.process:
            process.stop(self.process, how, 30)

    def problems(self):
        """Lines that must not be in a log."""
        return self.log.bad() + self.output.bad()

    # --- requests ---

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def address2(self):
        """Where HTTP/2 with prior knowledge is spoken."""
        return ("127.0.0.1", self.port2)

    def request(self, method, target, headers=(), body=None, **more):
        return wire.request(self.address, method, target, headers, body, **more)

    def connect(self, **more):
        return wire.Connection(self.address, **more)

    def ready(self):
        """What the readiness page says: (status, document)."""
        response = self.request("GET", "/-/ready", {"Host": "gateway.example"})
        return response.status, response

    def metrics(self):
        response = self.request("GET", "/-/metrics", {"Host": "gateway.example"})
        assert response.status == 200, response
        return Metrics(response.text)

    def access_log(self):
        path = self.path / "access.log"
        return path.read_text() if path.exists() else ""


SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \S+)?$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)')


class Metrics:
    """Prometheus' text format, parsed strictly: fails on anything else."""

    def __init__(self, text):
        self.samples = {}
        self.types = {}
        self.helps = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in self.types, f"TYPE twice: {line}"
                self.types[name] = kind
            elif line.startswith("# HELP "):
                self.helps.add(line.split(" ")[2])
            elif line and not line.startswith("#"):
                self._sample(line)

    def _sample(self, line):
        match = SAMPLE.match(line)
        assert match, f"not a sample: {line!r}"
        name, labels, value = match.groups()
        pairs = LABEL.findall(labels or "")
        rebuilt = ",".join(f'{k}="{v}"' for k, v in pairs)
        assert rebuilt == (labels or "").rstrip(","), f"bad labels: {line!r}"
        key = (name, tuple(sorted(pairs)))
        assert key not in self.samples, f"sample twice: {line!r}"
        self.samples[key] = float(value)

    def get(self, name, **labels):
        """Sum of the samples of that name with at least these labels; None: no such."""
        wanted = set(labels.items())
        found = [value for (key, pairs), value in self.samples.items()
                 if key == name and wanted <= set(pairs)]
        return sum(found) if found else None

    def names(self):
        return {name for name, _ in self.samples}
