# SPDX-License-Identifier: BSD-2-Clause
"""What tenantd counts of itself: docs/reference/rest.md, by what was done to it."""

import json
import re
import time

from support import process, wire
from support.nginx import Metrics
from support.poll import until
from tenantd_fixture import Stream, admin, daemon, token  # noqa: F401


def metrics(daemon):
    return Metrics(wire.request(daemon.address, "GET", "/metrics", {"Host": "x"}).text)


def test_every_documented_one_is_there(daemon):
    """Under that name, of that type, with its help; and no other."""
    page = (process.ROOT / "docs" / "reference" / "rest.md").read_text()
    documented = dict(re.findall(r"^\| `(tiergate_[a-z_]+)` \| (\w+) \|", page, re.M))
    wire.request(daemon.address, "GET", "/v1/healthz", {"Host": "x"})
    shown = metrics(daemon)
    # these are of what runs gateways
    rest = {"tiergate_instances", "tiergate_handovers_total", "tiergate_reconcile_seconds"}
    assert {name: kind for name, kind in documented.items() if name not in rest} == \
        {name: kind for name, kind in shown.types.items() if name not in rest}
    assert set(shown.types) <= shown.helps


def test_requests(daemon, admin):
    before = metrics(daemon)
    admin.request("GET", "/v1/tenants")
    admin.request("GET", "/v1/tenants/nobody")
    admin.request("GET", "/v1/tenants/somebody")
    for i in range(20):
        wire.request(daemon.address, "GET", f"/nowhere/{i}", {"Host": "x"})
    after = metrics(daemon)

    def grown(name, **labels):
        return (after.get(name, **labels) or 0) - (before.get(name, **labels) or 0)
    name = "tiergate_tenantd_requests_total"
    assert grown(name, method="GET", route="/v1/tenants", status="200") == 1
    assert grown(name, method="GET", route="/v1/tenants/{tenant}", status="404") == 2
    assert grown(name, status="404") == 22
    assert grown("tiergate_tenantd_request_seconds_count") >= 23
    assert grown("tiergate_tenantd_connections_accepted_total") >= 20
    # whatever is asked for, the number of series is that of the routes
    assert "nowhere" not in str(after.samples) and "nobody" not in str(after.samples)


def test_database_and_revision(daemon, admin):
    until(lambda: metrics(daemon).get("tiergate_tenantd_database_connections_busy") == 0, "the end of what is under way")
    shown = metrics(daemon)
    assert shown.get("tiergate_tenantd_database_up") == 1
    assert shown.get("tiergate_tenantd_database_connections") >= 1
    assert shown.get("tiergate_tenantd_database_queue") == 0
    assert abs(shown.get("tiergate_tenantd_start_time_seconds") - time.time()) < 600
    admin.call("POST", "/v1/tenants", {"name": "counted"})
    until(lambda: metrics(daemon).get("tiergate_tenantd_revision")
          == daemon.database.revision(), "the revision")
    answer = admin.request("POST", "/v1/import", b'{"name": "line-1"}\nnonsense\n', {"Content-Type": "application/jsonl"})
    assert len(answer.text.splitlines()) == 2
    assert metrics(daemon).get("tiergate_tenantd_import_lines_total") \
        - (shown.get("tiergate_tenantd_import_lines_total") or 0) == 2


def test_watch_streams(daemon, admin):
    admin.call("POST", "/v1/tenants", {"name": "watched"})
    before = metrics(daemon)
    streams = [Stream(daemon.socket, f"gw{i}") for i in range(3)]
    listed = sum(len(stream.list()[0]) for stream in streams)
    during = metrics(daemon)
    assert during.get("tiergate_tenantd_watch_streams") == before.get("tiergate_tenantd_watch_streams") + 3
    assert during.get("tiergate_tenantd_watch_lists_total") == before.get("tiergate_tenantd_watch_lists_total") + 3
    assert during.get("tiergate_tenantd_watch_lines_total") == before.get("tiergate_tenantd_watch_lines_total") + listed
    admin.call("PATCH", "/v1/tenants/watched", {"display_name": "x"})
    revision = daemon.database.revision()
    for stream in streams:
        assert [line["name"] for line in stream.until_revision(revision)] == ["watched"]
    after = metrics(daemon)
    assert after.get("tiergate_tenantd_watch_lines_total") == during.get("tiergate_tenantd_watch_lines_total") + 3
    until(lambda: metrics(daemon).get("tiergate_tenantd_watch_lag_revisions") == 0, "streams that lack nothing")
    assert after.get("tiergate_tenantd_watch_ring_bytes") > 0
    assert after.get("tiergate_tenantd_watch_dropped_total") == 0
    for stream in streams:
        stream.connection.close()
    until(lambda: metrics(daemon).get("tiergate_tenantd_watch_streams")
          == before.get("tiergate_tenantd_watch_streams"), "the streams' end")


def test_key_set_fetches(daemon, admin):
    """One that cannot be: the address is not public."""
    before = metrics(daemon)
    admin.call("PUT", "/v1/issuers/unreachable", {"issuer": "https://127.0.0.1", "algorithms": ["RS256"],
                                                  "jwks_uri": "https://127.0.0.1:9/keys"})

    def failed():
        shown = metrics(daemon)
        return (shown.get("tiergate_tenantd_jwks_failures_total") > before.get("tiergate_tenantd_jwks_failures_total")
                and shown.get("tiergate_tenantd_jwks_fetches_total") > before.get("tiergate_tenantd_jwks_fetches_total")
                and shown.get("tiergate_tenantd_jwks_pending") == 0)
    until(failed, lambda: json.dumps({name: value for (name, _), value in metrics(daemon).samples.items()
                                      if "jwks" in name}))
    admin.request("DELETE", "/v1/issuers/unreachable")
