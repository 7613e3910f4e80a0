# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures.  A module has one platform (database, tenantd, backend) and usually
one gateway; its tests keep apart by onboarding tenants of their own.

A module says how its gateway is made in GATEWAY, a dict of nginx.DEFAULTS.
"""

import os
import pathlib

import pytest

from support import process
from support.backend import Backend
from support.platform import Platform
from support.postgres import Server
from support.tenantd import Tenantd, migrate

TEMPLATE = "tiergate_template"


def pytest_sessionstart(session):
    process.adopt_orphans()


@pytest.fixture(scope="session")
def postgres():
    server = Server(process.folder("postgres"))
    yield server
    server.end()
    _drop(server.path)


@pytest.fixture(scope="session")
def template(postgres):
    """Name of a database that has every migration."""
    postgres.template(TEMPLATE, migrate)
    return TEMPLATE


@pytest.fixture(scope="module")
def database(postgres, template):
    database = postgres.database(template)
    yield database
    database.close()


@pytest.fixture(scope="module")
def backend():
    backend = Backend()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def platform(request, database, backend):
    path = process.folder(request.module.__name__.removeprefix("test_"))
    tenantd = Tenantd(database, path / "tenantd",
                      **getattr(request.module, "TENANTD", {}))
    platform = Platform(database, tenantd, backend, path)
    yield platform
    platform.stop()
    problems = platform.problems()
    failed = request.session.testsfailed
    for gateway in platform.gateways:
        _drop(gateway.path, keep=problems or failed)
    _drop(path, keep=problems or failed)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def gateway(request, platform):
    return platform.gateway(**getattr(request.module, "GATEWAY", {}))


@pytest.fixture
def onboard(platform, gateway):
    return platform.onboard


@pytest.fixture(autouse=True)
def clean_logs(request):
    """Fails the test after which a log has an alert or a sanitizer's report."""
    yield
    if "platform" in request.fixturenames:
        platform = request.getfixturevalue("platform")
        if platform.backend.held:
            platform.backend.release()      # what a failed test left waiting
        problems = platform.problems()
        reported = request.node.getparent(pytest.Module).__dict__.setdefault("reported", set())
        new = [line for line in problems if line not in reported]
        reported.update(new)
        assert not new, "\n".join(new)


def _drop(path, keep=False):
    """Removes a folder of process.folder(); what a failure left is kept."""
    path = pathlib.Path(path)
    if keep or os.environ.get("KEEP"):
        return
    process.drop(path)
