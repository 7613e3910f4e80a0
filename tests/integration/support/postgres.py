# SPDX-License-Identifier: BSD-2-Clause
"""A private PostgreSQL for a run, and one database in it for each user."""

import itertools
import subprocess

import psycopg
import psycopg.conninfo

from . import process

TOOL = process.ROOT / "tests" / "tools" / "private-postgres"


class Server:
    """The server; see tests/tools/private-postgres."""

    def __init__(self, path):
        self.path = path
        self.numbers = itertools.count(1)
        self.conninfo = None
        self.start()

    def _run(self, command):
        return subprocess.run([TOOL, command, self.path], check=True, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              timeout=400).stdout.strip()

    def start(self):
        self.conninfo = self._run("start")

    def restart(self):
        self._run("restart")

    def kill9(self):
        """All its processes die; whoever was connected finds out by himself."""
        self._run("kill9")

    def stop(self):
        self._run("stop")

    def end(self):
        """For good: its data is not needed any more."""
        self._run("end")

    def execute(self, statement):
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement)

    def template(self, name, migrate):
        """Makes the database that others are copies of; migrate(database) fills it."""
        self.execute(f'CREATE DATABASE "{name}"')
        database = Database(self, name)
        migrate(database)
        database.close()

    def database(self, template="template1"):
        name = f"t{next(self.numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return Database(self, name)


class Database:
    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.connection = None

    def conninfo(self, **more):
        return psycopg.conninfo.make_conninfo(
            self.server.conninfo, dbname=self.name, **more)

    def connect(self, autocommit=False, **more):
        return psycopg.connect(self.conninfo(**more), autocommit=autocommit)

    def execute(self, statement, parameters=None):
        """One statement, committed.  Returns its rows, if it has any."""
        if self.connection is None or self.connection.closed:
            self.connection = self.connect(autocommit=True)
        try:
            cursor = self.connection.execute(statement, parameters)
        except psycopg.OperationalError:
            if not self.connection.closed:
                raise
            # the server was restarted since
            self.connection = self.connect(autocommit=True)
            cursor = self.connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def one(self, statement, parameters=None):
        """The single value that a statement returns."""
        rows = self.execute(statement, parameters)
        assert len(rows) == 1, rows
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    def psql(self, script, **more):
        """What a person at psql would do: (exit status, output with errors)."""
        done = subprocess.run(
            ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-At", self.conninfo(**more)],
            input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60, env=process.environment())
        return done.returncode, done.stdout

    def revision(self):
        """Newest revision of the registry."""
        return self.one("SELECT revision FROM tiergate.registry_state()")
