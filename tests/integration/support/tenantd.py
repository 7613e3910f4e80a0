# SPDX-License-Identifier: BSD-2-Clause
"""tenantd: migrated databases, and a server on a unix socket."""

import pathlib
import secrets
import signal
import subprocess

from . import process, wire
from .poll import until

CONFIG = """\
[listen]
socket = {path}/tenantd.sock

[database]
conninfo = {conninfo}
sql_dir = {root}/sql
connections = 8

[http]
openapi = {root}/docs/openapi.yaml

[secrets]
key_file = {path}/secret.key

[log]
access = no
{more}
"""


def migrate(database):
    """Brings a database to the newest schema, as an operator would."""
    path = process.folder("migrate")
    (path / "tenantd.ini").write_text(
        f"[database]\nconninfo = {database.conninfo()}\nsql_dir = {process.ROOT}/sql\n")
    done = subprocess.run([process.TENANTD, "migrate", "--config", path / "tenantd.ini"], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120, env=process.environment())
    assert done.returncode == 0, done.stdout


class Tenantd:
    """A server that is started at once and can be stopped and started again."""

    def __init__(self, database, path, more=""):
        self.database = database
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.socket = str(self.path / "tenantd.sock")
        self.secret_key = self.path / "secret.key"
        if not self.secret_key.exists():
            self.secret_key.write_text(secrets.token_hex(32) + "\n")
            self.secret_key.chmod(0o600)
        self.config = self.path / "tenantd.ini"
        self.config.write_text(CONFIG.format(path=self.path, conninfo=database.conninfo(),
                                             root=process.ROOT, more=more))
        self.log = process.Log(self.path / "tenantd.log")
        self.process = None
        self.start()

    def start(self):
        self.process = process.start([process.TENANTD, "serve", "--config", self.config], self.log.path)
        try:
            until(self._ready, lambda: f"tenantd:\n{self.log.text[-3000:]}")
        except AssertionError:
            self.stop(signal.SIGKILL)
            raise

    def _ready(self):
        assert self.process.poll() is None, f"tenantd ended:\n{self.log.text[-3000:]}"
        try:
            return wire.request(self.socket, "GET", "/v1/readyz", {"Host": "localhost"},
                                timeout=5).status == 200
        except (OSError, wire.Closed):
            return False

    def stop(self, how=signal.SIGTERM):
        process.stop(self.process, how)
