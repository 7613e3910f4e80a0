# SPDX-License-Identifier: BSD-2-Clause
"""From the shared gateway to a gateway of one's own and back: no request is lost, and no quota counts anew."""

import collections
import signal
import threading

import pytest

from support import process, wire
from support.platform import quota, route
from support.poll import until
from support.tenantd import Tenantd
from support.websocket import WebSocket
from test_dedicated import Dedicated, Instance, drop

OPEN = {"routes": [route(websocket=True)]}

# For a move on a slow machine: a held request is answered all the same, and the other gateway is waited for.
PATIENT = {"http": "underscores_in_headers on; tenant_load_wait 10s;"}


def patience(database, seconds):
    database.execute(f"UPDATE tiergate.settings SET value = '\"{seconds} seconds\"' WHERE name = 'gateways.handover_timeout'")


@pytest.fixture(scope="module")
def platform(request, database, backend):
    platform = Dedicated(database, backend, process.folder("promotion"), more="trusted = 127.0.0.1/32")
    database.execute("UPDATE tiergate.settings SET value = '\"0 seconds\"' WHERE name = 'gateways.linger'")
    patience(database, 10)
    platform.gateway("shared-1", workers=2, **PATIENT)
    yield platform
    for name, in database.execute("SELECT name FROM tiergate.tenants"):
        platform.rest.call("DELETE", f"/v1/tenants/{name}")
    until(lambda: not database.one("SELECT count(*) FROM tiergate.instances"),
          lambda: platform.tenantd.log.text[-3000:], 30)
    platform.stop()
    problems = platform.problems()
    drop(platform.path, keep=problems or request.session.testsfailed)
    assert not problems, "\n".join(problems)


class Clients:
    """Several clients that ask the shared gateway without pause, each on a kept connection."""

    def __init__(self, tenant, count=3, gateways=()):
        self.tenant, self.ended = tenant, threading.Event()
        gateways = gateways or [tenant.gateway]
        self.statuses, self.errors = collections.Counter(), []
        self.threads = [threading.Thread(target=self.run, args=[gateways[i % len(gateways)]], daemon=True)
                        for i in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, gateway):
        with wire.Connection(gateway.address, 15) as connection:
            while not self.ended.is_set():
                try:
                    self.statuses[connection.request("GET", "/", self.tenant.headers()).status] += 1
                except (OSError, wire.Closed) as error:
                    self.errors.append(error)
                    return

    def more(self, count=100):
        before = sum(self.statuses.values())
        until(lambda: self.errors or sum(self.statuses.values()) >= before + count, "requests")

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(20)
        assert not self.errors, self.errors
        return self.statuses


def placed(platform, tenant, where):
    """Waits until the tenant is there and the move is over."""
    query = ("SELECT t.placement || coalesce((SELECT '/' || h.step FROM tiergate.handovers h"
             " WHERE h.tenant_id = t.id AND h.finished_at IS NULL), '') FROM tiergate.tenants t WHERE t.name = %s")
    until(lambda: platform.database.one(query, [tenant.name]) == where,
          lambda: f"{where}: {platform.database.one(query, [tenant.name])}\n{platform.tenantd.log.text[-3000:]}")


def move(platform, tenant, tier):
    platform.psql(f"SELECT tiergate.set_tier('{tenant.name}', '{tier}')")
    placed(platform, tenant, {"dedicated": "dedicated", "vcluster": "shared"}[tier])


def outcomes(platform, tenant):
    return [row[0] for row in platform.database.execute(
        "SELECT direction || ' ' || coalesce(outcome, step) FROM tiergate.handovers WHERE tenant = %s ORDER BY id",
        [tenant.name])]


def test_there_and_back_under_load(platform):
    """With a WebSocket open all the time."""
    tenant = platform.onboard(**OPEN)
    websocket = WebSocket(tenant.gateway.address, tenant.host)
    clients = Clients(tenant)
    clients.more()
    move(platform, tenant, "dedicated")
    clients.more()
    instance = Instance(platform, tenant)
    inner = WebSocket(tenant.gateway.address, tenant.host)     # goes on to the instance
    before = instance.row["pid"]
    assert websocket.echo("one") == "one"
    move(platform, tenant, "vcluster")
    clients.more()
    assert websocket.echo("two") == "two" and inner.echo("three") == "three"
    assert set(clients.end()) == {200}
    websocket.close()
    inner.close()
    until(lambda: instance.row is None, lambda: f"the instance {before} to go: {instance.row}", 30)
    assert outcomes(platform, tenant) == ["promote complete", "return complete"]


@pytest.mark.parametrize("window", ["day", "86399s"])
def test_no_quota_counts_anew(platform, window):
    """However often a tenant moves while it is used, what it was allowed is its limit."""
    limit = 600
    tenant = platform.onboard(quotas=[quota(limit=limit, window=window)], **OPEN)
    clients = Clients(tenant, 2)
    clients.more(40)
    move(platform, tenant, "dedicated")
    clients.more(40)
    move(platform, tenant, "vcluster")
    clients.more(40)
    move(platform, tenant, "dedicated")
    until(lambda: clients.errors or clients.statuses[429] > 20, "the limit", 60)
    statuses = clients.end()
    assert set(statuses) == {200, 429}
    # a window in seconds refills while the test runs
    assert limit <= statuses[200] <= limit + (0 if window == "day" else 3)
    assert outcomes(platform, tenant) == ["promote complete", "return complete", "promote complete"]


@pytest.fixture
def two(platform):
    """Two shared gateways, to both of which a tenant's clients go."""
    second = platform.gateway("shared-2", **PATIENT)
    yield [platform.gateways[0], second]
    platform.retire(second)


def used(platform, tenant):
    return platform.database.one("SELECT max(used) FROM tiergate.quota_status WHERE tenant = %s", [tenant.name])


@pytest.mark.parametrize("window", ["day", "86399s"])
def test_two_shared_gateways_count_what_they_were_given_once(platform, two, window):
    """Each is given all that was used, on a return; the next promotion adds what each has counted beyond."""
    limit, sent = 1000, 0
    tenant = platform.onboard(quotas=[quota(limit=limit, window=window)], **OPEN)
    for tier in ["dedicated", "vcluster"] * 3 + ["dedicated"]:
        for gateway, count in zip(two, (20, 13)):
            for _ in range(count):
                assert wire.request(gateway.address, "GET", "/", tenant.headers()).status == 200
                sent += 1
        move(platform, tenant, tier)
    for _ in range(3):
        assert wire.request(two[1].address, "GET", "/", tenant.headers()).status == 200
        sent += 1
    until(lambda: sent - 3 <= used(platform, tenant) <= sent, lambda: f"{sent}: {used(platform, tenant)}")
    if window == "day":
        until(lambda: used(platform, tenant) == sent, lambda: f"{sent}: {used(platform, tenant)}")
    assert outcomes(platform, tenant) == ["promote complete", "return complete"] * 3 + ["promote complete"]


def test_several_move_at_once(platform, two):
    """Under load by both shared gateways, there, back, and there again."""
    tenants = [platform.onboard(quotas=[quota(limit=1000000, window="day")], **OPEN) for _ in range(3)]
    loads = [Clients(tenant, 2, two) for tenant in tenants]

    def go(tenant, load):
        for tier in ("dedicated", "vcluster", "dedicated"):
            load.more(30)
            move(platform, tenant, tier)
        load.more(30)
    threads = [threading.Thread(target=go, args=pair) for pair in zip(tenants, loads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()           # each step has a limit of its own
    for tenant, load in zip(tenants, loads):
        statuses = load.end()
        assert set(statuses) == {200}
        assert outcomes(platform, tenant) == ["promote complete", "return complete", "promote complete"]
        until(lambda: used(platform, tenant) == statuses[200], lambda: f"{statuses}: {used(platform, tenant)}")


def test_a_tenantd_without_gateways_moves_tenants_on(platform):
    """The one that runs the gateway dies when the move has begun."""
    other = Tenantd(platform.database, platform.path / "none")
    try:
        # gateways of other tests may still be waited for
        until(lambda: platform.database.one("SELECT tiergate.live_shared_gateways()") == [platform.gateways[0].name],
              "the only gateway")
        tenant = platform.onboard(**OPEN)
        move(platform, tenant, "dedicated")
        # from now on nobody but the other is there: the gateways, and the move, are stuck without it
        platform.tenantd.stop(signal.SIGKILL)
        patience(platform.database, 2)
        platform.database.psql(f"SELECT tiergate.set_tier('{tenant.name}', 'vcluster')")
        placed(platform, tenant, "shared")
        # how the promotion ended is for other tests
        assert outcomes(platform, tenant)[1:] == ["return incomplete"]
        metrics = wire.request(other.socket, "GET", "/metrics", {"Host": "localhost"}).text
        assert 'tiergate_handovers_total{outcome="incomplete"}' in metrics
    finally:
        patience(platform.database, 10)
        other.stop()
        platform.tenantd.start()
    assert not other.log.bad()
    until(lambda: tenant.get().status == 200, "the shared gateways")


def test_misdirected_instead_of_forwarded(platform):
    tenant = platform.onboard(**OPEN)
    move(platform, tenant, "dedicated")
    until(lambda: tenant.get().status == 200, "the instance")
    platform.rest.call("PATCH", f"/v1/tenants/{tenant.name}", {"forwarding": "misdirect"})
    until(lambda: tenant.get().status == 421, "421")
    response = tenant.get()
    assert (response.status, response.problem) == (421, "misdirected-request")
    assert Instance(platform, tenant).get().status == 200


def test_failed_provisioning_leaves_the_tenant_where_it_was(platform):
    tenant = platform.onboard(**OPEN)
    platform.psql("SELECT tiergate.allow_plugin('broken', http => 'no_such_directive on;')")
    platform.psql(f"SELECT tiergate.set_plugin('{tenant.name}', 'broken')")
    clients = Clients(tenant, 1)
    platform.psql(f"SELECT tiergate.set_tier('{tenant.name}', 'dedicated')")
    instance = Instance(platform, tenant)
    row = instance.phase("failed")
    assert "no_such_directive" in str(row["conditions"]) + row["message"]
    clients.more()
    assert platform.database.one("SELECT placement FROM tiergate.tenants WHERE name = %s", [tenant.name]) == "shared"
    assert set(clients.end()) == {200}
    platform.psql(f"SELECT tiergate.drop_plugin('{tenant.name}', 'broken')")
    placed(platform, tenant, "dedicated")                       # and then it goes on
    assert tenant.get().status == 200


def test_usage_is_metered_once(platform):
    tenant = platform.onboard(**OPEN)
    move(platform, tenant, "dedicated")
    for _ in range(10):
        assert tenant.get().status == 200
    query = "SELECT coalesce(sum(requests), 0) FROM tiergate.usage WHERE tenant = %s"
    until(lambda: platform.database.one(query, [tenant.name]) >= 10, "usage")
    assert platform.database.one(query, [tenant.name]) == 10
