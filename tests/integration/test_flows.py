# SPDX-License-Identifier: BSD-2-Clause
"""Flows of the mesh over REST, as docs/reference/flows.md says: reports of agents,
pages and filters, streams that follow across two tenantd, the service map."""

import json
import re
import threading
import time
import xml.etree.ElementTree as ElementTree

import pytest

from support import process, wire
from support.poll import until
from tenantd_fixture import admin, daemon, make_daemon, token  # noqa: F401
from test_openapi import validate

CONFIG = """
[watch]
recheck_interval = 300ms
"""


@pytest.fixture(scope="module", autouse=True)
def mesh(admin, database):
    for name in ("acme", "globex", "initech"):
        admin.call("POST", "/v1/tenants", {"name": name})
    database.psql("INSERT INTO tiergate.mesh_nodes (name, tenants) VALUES ('a', '{acme}'), ('all', '{*}')")


@pytest.fixture(scope="module")
def other(request, database, daemon):
    """A second tenantd on the same database."""
    second = make_daemon(request, database, CONFIG)
    yield second
    second.close()


def flow(type="open", side="source", source=("acme", "web"), destination=("acme", "db"), reason=3, lost=0, port=5432,
         service_port=None, **more):
    """A record as an agent reports it."""
    record = [int(time.time() * 1000), type, side, "tcp", source[0], source[1], "10.0.0.1", 40000, destination[0],
              destination[1], "10.0.0.2", port, "240.64.0.1" if service_port else None, service_port, reason,
              None, None, None, None, None, None, None, 77, 78, lost]
    for column, value in more.items():
        record[int(column[1:])] = value
    return record


class Agent:
    """What an agent does, on a connection of its own."""

    def __init__(self, daemon, node="all", boot="boot"):
        self.rest, self.node, self.boot, self.sequence = daemon.as_(self.token(daemon, node)), node, boot, 0

    tokens = {}

    def token(self, daemon, node):
        if node not in self.tokens:
            self.tokens[node] = token(daemon.rest, f"agent-{node}", "gateway", gateway=f"node-{node}")
        return self.tokens[node]

    def send(self, *flows, lost=0, sequence=None):
        self.sequence += 1
        return self.rest.request("POST", f"/v1/gateways/node-{self.node}/flows", {
            "boot": self.boot, "sequence": sequence or self.sequence, "lost": lost, "flows": list(flows)})

    def report(self, *flows, **more):
        answer = self.send(*flows, **more)
        assert answer.status == 204, answer


class Follower:
    """A stream that follows, read line by line."""

    def __init__(self, daemon, tenant="acme", query="", secret=None, timeout=20):
        self.connection = wire.Connection(daemon.address if secret else daemon.socket, timeout)
        headers = [("Host", "localhost")] + ([("Authorization", f"Bearer {secret}")] if secret else [])
        self.connection.send(wire.compose("GET", f"/v1/tenants/{tenant}/flows?follow=1{query}", headers))
        self.status, self.headers = self.connection.head()
        self.rest = b""
        self.chunks = self.connection.chunks() if self.status == 200 else None

    def line(self):
        """The next line that is none of "alive", or None at the end."""
        while True:
            while b"\n" not in self.rest:
                try:
                    self.rest += next(self.chunks)
                except (StopIteration, wire.Closed, ConnectionResetError):
                    return None
            line, self.rest = self.rest.split(b"\n", 1)
            line = json.loads(line)
            if line["type"] != "alive":
                return line

    def services(self, n):
        return [self.line()["source"]["service"] for _ in range(n)]

    def close(self):
        self.connection.close()


def test_a_report_and_a_page(daemon, admin):
    agent = Agent(daemon, boot="page")
    agent.report(flow(), flow("close", _17=10, _18=20, _19=300, _20=1, _21=5000),
                 flow("denied", reason=64, lost=3, destination=("globex", "api"), _15="acme", _16="stop"))
    page = admin.call("GET", "/v1/tenants/acme/flows")
    assert [item["type"] for item in page["items"]] == ["denied", "close", "open"] and page["lost"] == 3
    for item in page["items"]:
        validate({"$ref": "#/components/schemas/Flow"}, item)
    denied = page["items"][0]
    assert (denied["verdict"], denied["reason"], denied["reason_number"], denied["policy"]) == ("denied", "DENY_RULE", 64, "stop")
    seen = admin.call("GET", "/v1/tenants/globex/flows")["items"]
    assert len(seen) == 1 and not {"node", "policy", "cookie", "cgroup", "lost"} & set(seen[0])
    assert admin.call("GET", "/v1/tenants/initech/flows")["items"] == []

    agent.report(flow(source=("acme", "again")), sequence=1)
    assert len(admin.call("GET", "/v1/tenants/acme/flows")["items"]) == 3, "a report that was seen is passed over"


def test_lines_and_pages(daemon, admin):
    Agent(daemon, boot="lines").report(*[flow(source=("initech", f"s{n}"), destination=("initech", "db")) for n in range(25)])
    seen, cursor = [], ""
    while cursor is not None:
        answer = admin.request("GET", f"/v1/tenants/initech/flows?limit=10{cursor}", headers={"Accept": "application/jsonl"})
        assert answer.headers["content-type"] == "application/jsonl"
        seen += [json.loads(line)["source"]["service"] for line in answer.text.splitlines()]
        cursor = f"&cursor={answer.headers['tiergate-next']}" if "tiergate-next" in answer.headers else None
    assert sorted(seen) == sorted(f"s{n}" for n in range(25))


def test_whose(daemon, admin):
    """A tenant's token reads its tenant's flows; an agent's reports its node's."""
    mine = daemon.as_(token(admin, "mine", "tenant", tenant="acme"))
    assert mine.request("GET", "/v1/tenants/acme/flows").status == 200
    assert mine.request("GET", "/v1/tenants/globex/flows").status == 403
    assert mine.request("GET", "/v1/tenants/globex/flows?follow=1").status == 403
    assert mine.request("GET", "/v1/tenants/globex/servicemap?format=svg").status == 403
    agent = Agent(daemon, "a", "whose")
    body = {"boot": "x", "sequence": 1, "flows": []}
    assert agent.rest.request("POST", "/v1/gateways/node-all/flows", body).status == 403
    assert admin.request("POST", "/v1/gateways/gw-1/flows", body).status == 404
    before = len(admin.call("GET", "/v1/tenants/globex/flows?limit=1000")["items"])
    agent.report(flow(source=("globex", "forged"), destination=("globex", "db")), flow(source=("globex", "forged")))
    assert len(admin.call("GET", "/v1/tenants/globex/flows?limit=1000")["items"]) == before


@pytest.mark.parametrize("query", [
    "source=%3Cb%3E", "source=a/b/c", "verdict=maybe", "reason=x", "port=0", "port=x", "type=x", "since=now", "limit=0",
    "cursor=x", "nonsense=1", "follow=yes", "follow=1&port=x", "follow=1&nonsense=1", "follow=1&limit=5000"])
def test_bad_queries(admin, query):
    answer = admin.request("GET", f"/v1/tenants/acme/flows?{query}")
    assert answer.status == 400 and answer.problem in ("invalid-parameter", "unknown-parameter"), answer


@pytest.mark.parametrize("body", [
    b"{", b"[]", b"null", b"{}", b'{"boot":"b","sequence":1,"flows":{}}', b'{"boot":"b","sequence":"1x","flows":[]}',
    b'{"boot":5,"sequence":1,"flows":[]}', b'{"boot":"b","sequence":1,"flows":[["x"]]}',
    b'{"boot":"b","sequence":1,"flows":[[1,"open","source","tcp","acme","a\\u0000"]]}',
    json.dumps({"boot": "b", "sequence": 1, "flows": [flow()] * 1001}).encode(), b'{"boot":"' + b"x" * 5_000_000 + b'"}'])
def test_hostile_reports(daemon, admin, body):
    Agent(daemon)
    answer = daemon.as_(Agent.tokens["all"]).request("POST", "/v1/gateways/node-all/flows", body,
                                                     {"Content-Type": "application/json"})
    assert answer.status in (400, 413, 422), answer


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", 'x"]; evil [label="', "a\nb", "a\u0001b", "x" * 64, "", "Ünï", "a b"])
def test_names_that_are_none(daemon, admin, name):
    """They are left out, and the others of the report are kept."""
    good = f"n{abs(hash(name))}"
    Agent(daemon, boot=good).report(flow(source=("acme", name)), flow(destination=("acme", name)), flow(source=("acme", good)))
    seen = admin.call("GET", "/v1/tenants/acme/flows?limit=1000")["items"]
    assert good in {item["source"]["service"] for item in seen}
    assert not [item for item in seen if name in (item["source"].get("service"), item["destination"].get("service"))]


def test_follow_across_two_tenantd(daemon, other, admin):
    """Each record once for each follower of a tenant in it, whoever took the report."""
    secret = token(admin, "follows", "tenant", tenant="acme")
    followers = [Follower(daemon), Follower(other), Follower(daemon, secret=secret)]
    foreign = Follower(other, "globex")
    assert all(f.status == 200 and f.headers["content-type"] == "application/jsonl" for f in followers)
    agents = [Agent(daemon, boot="f1"), Agent(other, boot="f2")]
    for n in range(50):
        agents[n % 2].report(flow(source=("acme", f"f{n}")))
    agents[0].report(flow(source=("globex", "api"), destination=("acme", "last"), _0=None))
    for follower in followers:
        assert sorted(follower.services(50)) == sorted(f"f{n}" for n in range(50))
        assert follower.line()["destination"]["service"] == "last"
    assert foreign.line()["destination"] == {"tenant": "acme", "service": "last", "address": "10.0.0.2", "port": 5432}
    for follower in (*followers, foreign):
        follower.close()
    until(lambda: "tiergate_tenantd_flow_followers 0\n" in admin.request("GET", "/metrics").text, "no followers")


FILTERS = {"source=web": "w", "source=globex/*": "g", "source=/*": "o", "destination=api": "a", "verdict=denied": "d",
           "reason=DENY_RATE": "d", "reason=76": "d", "port=81": "p", "port=82": "v", "type=close": "c",
           "source=web&port=81": "", "": "wgoadpvc"}


def test_filters_are_the_same_for_pages_and_streams(daemon, admin):
    begin = int(time.time() * 1000)
    followers = {query: Follower(daemon, query=f"&{query}" if query else "") for query in FILTERS}
    records = {"w": {"source": ("acme", "web")}, "g": {"source": ("globex", "x")}, "o": {"source": (None, None)},
               "a": {"destination": ("acme", "api")}, "d": {"type": "denied", "reason": 76}, "p": {"port": 81},
               "v": {"service_port": 82}, "c": {"type": "close"}}
    made = [flow(**{"source": ("acme", "other"), "side": "destination" if which in "go" else "source", **record, "_23": number})
            for number, (which, record) in enumerate(records.items(), 1000)]
    # Nothing else may come between what passes: so all of it twice, and one for who waits for none.
    last = flow(source=("acme", "web"), port=81, _23=1000 + len(records))
    agent = Agent(daemon, boot="filters")
    agent.report(*made)
    names = {1000 + i: which for i, which in enumerate((*records, "l"))}
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begin / 1000)) + f".{begin % 1000:03}Z"
    for query, expected in FILTERS.items():
        page = admin.call("GET", f"/v1/tenants/acme/flows?since={since}&{query}")["items"]
        assert sorted(names[i["cookie"]] for i in page) == sorted(expected), query
    agent.report(*made, last)
    for query, expected in FILTERS.items():
        passes = expected * 2 + ("l" if query in ("", "source=web", "port=81", "source=web&port=81") else "")
        assert sorted(names[followers[query].line()["cookie"]] for _ in passes) == sorted(passes), query
    for follower in followers.values():
        follower.close()


def test_follow_begins_with_the_last(daemon):
    agent = Agent(daemon, boot="tail")
    agent.report(*[flow(source=("acme", f"t{n}")) for n in range(9)])
    follower = Follower(daemon, query="&limit=3&type=open")
    assert follower.services(3) == ["t6", "t7", "t8"]
    agent.report(flow(source=("acme", "t9")))
    assert follower.services(1) == ["t9"]
    follower.close()


def test_a_slow_reader_loses_and_is_told(daemon, other):
    """Others are not held up, and what is lost is counted."""
    slow, quick = Follower(daemon), Follower(daemon)
    thread = threading.Thread(target=lambda: all(line.get("source", {}).get("service") != "end" for line in iter(quick.line, None)))
    thread.start()
    agent = Agent(other, boot="slow")
    for n in range(40):
        agent.report(*[flow(source=("acme", f"x{n}")) for _ in range(1000)])

    def ended():
        """The quick one may lose something, too, but catches up."""
        agent.report(flow(source=("acme", "end")))
        thread.join(0.2)
        return not thread.is_alive()
    until(ended, "the quick reader to catch up", 60)
    got, lost = 0, 0
    for line in iter(slow.line, None):
        if line["type"] == "lost":
            lost += line["count"]
            continue
        got += 1
        if got + lost >= 40001 or line["source"]["service"] in ("end", "more"):
            break
        if slow.rest.count(b"\n") == 0 and got % 500 == 0:
            agent.report(flow(source=("acme", "more")))
    assert lost > 0 and got + lost >= 40000, (got, lost)
    slow.close()
    quick.close()


def test_a_revoked_credential_ends_the_stream(daemon, admin):
    made = admin.call("POST", "/v1/tokens", {"name": "brief", "scope": "tenant", "tenant": "acme"})
    follower = Follower(daemon, secret=made["token"])
    assert follower.status == 200
    admin.request("DELETE", f"/v1/tokens/{made['id']}")
    assert follower.line() is None
    follower.close()


def test_followers_are_bounded(daemon, admin):
    """Those of a tenant, so that it keeps no other one out; and all of them."""
    # those of other tests may not have been missed yet
    until(lambda: "tiergate_tenantd_flow_followers 0\n" in admin.request("GET", "/metrics").text, "no followers")
    tenants = ["acme", *(f"follows-{n}" for n in range(8))]
    for tenant in tenants[1:]:
        admin.call("POST", "/v1/tenants", {"name": tenant})
    followers = []
    try:
        for tenant in tenants:
            for _ in range(33):
                followers.append(Follower(daemon, tenant))
                if followers[-1].status != 200:
                    break
            assert followers[-1].status == 503
            if tenant == tenants[0]:
                assert len(followers) == 33
                followers.append(Follower(daemon, "globex"))
                assert followers[-1].status == 200
        assert len([f for f in followers if f.status == 200]) == 256
        followers[0].close()
        until(lambda: followers.append(Follower(daemon)) or followers[-1].status == 200, "room for one more of it")
    finally:
        for follower in followers:
            follower.close()
    until(lambda: "tiergate_tenantd_flow_followers 0\n" in admin.request("GET", "/metrics").text, "no followers")


def test_service_map(daemon, admin):
    admin.call("POST", "/v1/tenants", {"name": "mapped"})
    def pair(a, b, **more):
        return flow(source=(("mapped", a) if a else (None, None)), destination=("mapped", b), **more)
    Agent(daemon, boot="map").report(
        pair(None, "gateway", type="accept", side="destination"), pair("gateway", "orders"), pair("gateway", "orders"),
        pair("orders", "db"), pair("db", "orders"), pair("orders", "orders"),
        pair("gateway", "db", type="denied", reason=64), flow(source=("mapped", "orders"), destination=("globex", "pay")))
    answer = admin.call("GET", "/v1/tenants/mapped/servicemap?since=10m")
    validate({"$ref": "#/components/schemas/ServiceMap"}, answer)
    assert len(answer["nodes"]) == 5 and len(answer["edges"]) == 7
    assert answer["edges"][0]["connections"] == 2

    dot = admin.request("GET", "/v1/tenants/mapped/servicemap?format=dot")
    assert dot.headers["content-type"] == "text/vnd.graphviz"
    assert len(re.findall(r"^ +n\d+ -> n\d+ \[", dot.text, re.M)) == 7 and '[label="globex/pay", style=dashed]' in dot.text
    by_accept = admin.request("GET", "/v1/tenants/mapped/servicemap", headers={"Accept": "text/vnd.graphviz"})
    assert by_accept.text == dot.text

    svg = admin.request("GET", "/v1/tenants/mapped/servicemap", headers={"Accept": "image/svg+xml"})
    assert svg.headers["content-type"] == "image/svg+xml" and "sandbox" in svg.headers["content-security-policy"]
    root = ElementTree.fromstring(svg.text)
    boxes = [(int(r.get("x")), int(r.get("y"))) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(boxes) == 5 == len(set(boxes)), "no two services lie on each other"
    assert not list(root.iter("{http://www.w3.org/2000/svg}script")) and "href" not in svg.text
    assert admin.request("GET", "/v1/tenants/mapped/servicemap?format=png").status == 400
    assert admin.request("GET", "/v1/tenants/nobody/servicemap?format=svg").status == 404


def test_reasons_are_those_of_the_programs(database):
    header = (process.ROOT / "bpf" / "tg_mesh.h").read_text()
    named = {(int(number), name, text) for number, name, text in re.findall(r'R\((\d+), ([A-Z_]+), "(.*?)"\)', header)}
    assert len(named) > 20
    assert named == {(int(number), name, text) for number, name, text in
                     database.execute("SELECT number, name, description FROM tiergate.flow_reasons")}


def test_retention_by_rows(daemon, admin, database):
    database.psql("UPDATE tiergate.settings SET value = '2400' WHERE name = 'flows.max_rows'")
    agent = Agent(daemon, boot="rows")
    for _ in range(60):
        agent.report(*[flow() for _ in range(100)])
    assert int(database.one("SELECT count(*) FROM tiergate.flows")) <= 2600
    assert len(admin.call("GET", "/v1/tenants/acme/flows?limit=1000")["items"]) == 1000
