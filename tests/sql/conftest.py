# SPDX-License-Identifier: BSD-2-Clause
"""A migrated database of its own for each test module, copied from the one that
run-sql has prepared, and sessions on it that are closed in the end."""

import os
import time

import psycopg
import pytest

TEMPLATE = "tiergate"
DEADLINE = 30


def conninfo(dbname, **options):
    return psycopg.conninfo.make_conninfo(
        host=os.environ["PGHOST"], port=os.environ.get("PGPORT", "5432"),
        user=os.environ.get("PGUSER", "postgres"), dbname=dbname, **options)


@pytest.fixture(scope="module")
def database(request):
    name = request.module.__name__
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    yield name
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def connect(database):
    sessions = []

    def open_session(autocommit=True):
        session = psycopg.connect(conninfo(database), autocommit=autocommit)
        sessions.append(session)
        return session

    yield open_session
    for session in sessions:
        session.close()


@pytest.fixture
def db(connect):
    return connect()


def until(condition, what):
    """Polls until condition() is true; its value is returned."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE} s: {what}")
