# SPDX-License-Identifier: BSD-2-Clause
"""docs/openapi.yaml says what tenantd does: the same routes, and answers of the
described form."""

import json
import re

import jsonschema
import pytest
import yaml

from support import process
from tenantd_fixture import PROBLEM, admin, daemon, routes  # noqa: F401
from test_rest import UNTIL, full

DOCUMENT = yaml.safe_load((process.ROOT / "docs" / "openapi.yaml").read_text())
METHODS = ("get", "post", "put", "patch", "delete")


def resolve(node):
    while "$ref" in node:
        at = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        node = at
    return node


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method], item


def validate(schema, value):
    jsonschema.Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]},
        format_checker=jsonschema.FormatChecker()).validate(value)


def validate_answer(pattern, method, answer):
    """The answer's status is described, and its body has the described form."""
    operation = DOCUMENT["paths"][pattern][method.lower()]
    described = resolve(operation["responses"].get(str(answer.status), operation["responses"]["default"]))
    for name in described.get("headers", {}):
        if name != "Retry-After":
            assert name in answer.headers, (method, pattern, name)
    content = described.get("content")
    if not content:
        assert answer.body == b""
        return
    kind = answer.headers["content-type"].split(";")[0]
    assert kind in content, (method, pattern, kind)
    if kind.endswith("json"):
        validate(content[kind]["schema"], answer.json())


def test_the_document_itself():
    assert DOCUMENT["openapi"] == "3.1.0"
    text = json.dumps(DOCUMENT)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        assert resolve({"$ref": reference})
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for _, _, operation, _ in operations()]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, path, operation, item in operations():
        assert operation["summary"] and set(operation["tags"]) <= tags
        parameters = [resolve(p) for p in item.get("parameters", []) + operation.get("parameters", [])]
        assert [p["name"] for p in parameters if p["in"] == "path"] == re.findall(r"{(\w+)}", path)


def test_every_schema_is_used():
    text = json.dumps(DOCUMENT)
    for name in DOCUMENT["components"]["schemas"]:
        assert f"#/components/schemas/{name}\"" in text or name in ("WatchLine", "ImportAnswer"), name


def test_the_same_routes():
    table = {(method, pattern): (scope, function, body) for method, pattern, scope, function, body in routes()}
    described = {(method, path): operation for method, path, operation, _ in operations()}
    assert set(table) == set(described)
    for route, (scope, function, body) in table.items():
        operation = described[route]
        assert function in ("-", operation["operationId"]), route
        assert (operation.get("security") == []) == (scope == "-"), route
        assert (scope == "-") or operation["description"].startswith("Scope: admin"), route
        assert ("requestBody" in operation) == (body != "-"), route
        if body != "-":
            assert operation["requestBody"]["required"] == (body == "required"), route


CALLS = [
    ("GET", "/v1/healthz", None), ("GET", "/v1/readyz", None), ("GET", "/metrics", None),
    ("GET", "/v1/openapi.yaml", None),
    ("PUT", "/v1/issuers/{issuer}", {"issuer": "https://p.example", "algorithms": ["RS256"],
                                     "jwks_uri": "https://p.example/keys"}),
    ("GET", "/v1/issuers/{issuer}", None), ("GET", "/v1/issuers", None),
    ("POST", "/v1/tenants", {**full("acme"), "name": "acme"}),
    ("GET", "/v1/tenants", None), ("GET", "/v1/tenants/{tenant}", None),
    ("PATCH", "/v1/tenants/{tenant}", {"display_name": "x", "labels": {"a": None}}),
    ("POST", "/v1/tenants/{tenant}/suspend", {"reason": "x"}), ("POST", "/v1/tenants/{tenant}/resume", None),
    ("GET", "/v1/tenants/{tenant}/document", None),
    ("PUT", "/v1/tenants/{tenant}/boost", {"factor": 2, "until": UNTIL}), ("GET", "/v1/tenants/{tenant}", None),
    ("DELETE", "/v1/tenants/{tenant}/boost", None),
    ("PUT", "/v1/tenants/{tenant}/hosts/{host}", None), ("GET", "/v1/tenants/{tenant}/hosts/{host}", None),
    ("GET", "/v1/tenants/{tenant}/hosts", None), ("DELETE", "/v1/tenants/{tenant}/hosts/{host}", None),
    ("PUT", "/v1/tenants/{tenant}/issuers/{issuer}", {"ref": "one"}),
    ("GET", "/v1/tenants/{tenant}/issuers/{issuer}", None), ("GET", "/v1/tenants/{tenant}/issuers", None),
    ("DELETE", "/v1/tenants/{tenant}/issuers/{issuer}", None),
    ("PUT", "/v1/tenants/{tenant}/consumers/{consumer}", {"labels": {"a": "b"}}),
    ("GET", "/v1/tenants/{tenant}/consumers/{consumer}", None), ("GET", "/v1/tenants/{tenant}/consumers", None),
    ("DELETE", "/v1/tenants/{tenant}/consumers/{consumer}", None),
    ("PUT", "/v1/tenants/{tenant}/upstreams/{upstream}", {"host": "x.internal", "health": {"max_fails": 1}}),
    ("PUT", "/v1/tenants/{tenant}/upstreams/{upstream}/endpoints/{endpoint}", {"weight": 2}),
    ("GET", "/v1/tenants/{tenant}/upstreams/{upstream}/endpoints", None),
    ("GET", "/v1/tenants/{tenant}/upstreams/{upstream}", None), ("GET", "/v1/tenants/{tenant}/upstreams", None),
    ("PUT", "/v1/tenants/{tenant}/routes/{route}", {
        "match": {"path": {"type": "regex", "value": "/a.*"}, "methods": ["GET"], "hosts": ["acme.example.com"],
                  "headers": [{"name": "x-v", "value": "1"}]},
        "auth": {"mode": "required", "scopes": ["a"], "claims": [{"name": "r", "values": ["x"]}]},
        "rewrite": {"type": "replace_path", "value": "/b"}, "backends": [{"upstream": "one", "weight": 1}],
        "timeouts": {"read_ms": 5}, "retries": 0, "websocket": True}),
    ("GET", "/v1/tenants/{tenant}/routes/{route}", None), ("GET", "/v1/tenants/{tenant}/routes", None),
    ("DELETE", "/v1/tenants/{tenant}/routes/{route}", None),
    ("DELETE", "/v1/tenants/{tenant}/upstreams/{upstream}/endpoints/{endpoint}", None),
    ("DELETE", "/v1/tenants/{tenant}/upstreams/{upstream}", None),
    ("PUT", "/v1/tenants/{tenant}/quotas/{quota}", {"limit": 5, "window": "10s", "burst": 2, "dry_run": True}),
    ("GET", "/v1/tenants/{tenant}/quotas/{quota}", None), ("GET", "/v1/tenants/{tenant}/quotas", None),
    ("GET", "/v1/tenants/{tenant}/quota-status", None), ("DELETE", "/v1/tenants/{tenant}/quotas/{quota}", None),
    ("PUT", "/v1/plugins/{plugin}", {"description": "x", "modules": ["ngx_http_x_module.so"], "schema": {
        "type": "object", "properties": {"size": {"type": "integer", "default": 1}}},
        "snippets": {"location": "client_max_body_size {{size}};"}}),
    ("GET", "/v1/plugins/{plugin}", None), ("GET", "/v1/plugins", None),
    ("PUT", "/v1/tiers/{tier}/plugins/{plugin}", {"parameters": {"size": 2}, "mandatory": False}),
    ("GET", "/v1/tiers", None),
    ("PUT", "/v1/tenants/{tenant}/plugins/{plugin}", {"parameters": {"size": 3}, "enabled": True}),
    ("GET", "/v1/tenants/{tenant}/plugins/{plugin}", None), ("GET", "/v1/tenants/{tenant}/plugins", None),
    ("PATCH", "/v1/tenants/{tenant}", {"tier": "dedicated", "forwarding": "misdirect"}),
    ("GET", "/v1/tenants/{tenant}/gateway", None), ("GET", "/v1/gateways", None),
    ("PATCH", "/v1/tenants/{tenant}", {"tier": "vcluster"}),
    ("DELETE", "/v1/tenants/{tenant}/plugins/{plugin}", None),
    ("DELETE", "/v1/tiers/{tier}/plugins/{plugin}", None), ("DELETE", "/v1/plugins/{plugin}", None),
    ("PUT", "/v1/mesh/nodes/{node}", {"addresses": ["10.9.0.1"], "workload_nets": ["10.10.0.0/24"], "tenants": ["acme"]}),
    ("GET", "/v1/mesh/nodes/{node}", None), ("GET", "/v1/mesh/nodes", None),
    ("PATCH", "/v1/tenants/{tenant}/mesh", {"defaults": {"from_outside": True}, "families": "dual",
                                            "endpoint_nets": ["10.11.0.0/16"]}),
    ("GET", "/v1/tenants/{tenant}/mesh", None),
    ("PUT", "/v1/tenants/{tenant}/mesh/services/{service}", {
        "ports": [{"port": 80}, {"port": 53, "protocol": "udp"}], "limits": {"connections_per_second": 5, "burst": 9},
        "health": {"type": "http", "path": "/healthz", "fall": 2},
        "endpoints": [{"address": "10.11.0.1", "port": 8080, "node": "n1", "weight": 90}]}),
    ("GET", "/v1/tenants/{tenant}/mesh/services/{service}", None), ("GET", "/v1/tenants/{tenant}/mesh/services", None),
    ("PUT", "/v1/tenants/{tenant}/mesh/services/{service}/endpoints/{endpoint}", {"weight": 10, "service_port": 53}),
    ("GET", "/v1/tenants/{tenant}/mesh/services/{service}/endpoints", None),
    ("PUT", "/v1/tenants/{tenant}/mesh/workloads/{workload}", {
        "service": "orders", "node": "n1", "cgroup": "a/b", "addresses": ["10.11.0.1"], "any_source": False}),
    ("GET", "/v1/tenants/{tenant}/mesh/workloads/{workload}", None), ("GET", "/v1/tenants/{tenant}/mesh/workloads", None),
    ("PUT", "/v1/tenants/{tenant}/mesh/policies/{policy}", {
        "action": "allow", "precedence": 5, "from": {"cidr": "10.0.0.0/8"}, "to": {"service": "orders"},
        "protocol": "tcp", "ports": [8080], "description": "x"}),
    ("GET", "/v1/tenants/{tenant}/mesh/policies/{policy}", None), ("GET", "/v1/tenants/{tenant}/mesh/policies", None),
    ("POST", "/v1/gateways/node-n1/mesh", {"boot": "b", "workloads": [
        {"name": "w2", "tenant": "acme", "service": "nope", "cgroup": "x/y", "addresses": []}]}),
    ("POST", "/v1/gateways/node-n1/ack", {"boot": "b", "revision": 1, "state": "live", "mesh": {
        "counters": {"DENY_RULE": 3}, "fill": [{"map": "tg_services", "used": 1, "size": 2, "refused": 0}], "workloads": 1}}),
    ("GET", "/v1/gateways", None),
    ("DELETE", "/v1/tenants/{tenant}/mesh/policies/{policy}", None),
    ("DELETE", "/v1/tenants/{tenant}/mesh/workloads/{workload}", None),
    ("DELETE", "/v1/tenants/{tenant}/mesh/services/{service}/endpoints/{endpoint}", None),
    ("DELETE", "/v1/tenants/{tenant}/mesh/services/{service}", None),
    ("DELETE", "/v1/tenants/{tenant}/mesh", None), ("DELETE", "/v1/mesh/nodes/{node}", None),
    ("POST", "/v1/tenants/{tenant}/keys", {"consumer": "mobile", "scopes": ["a"], "expires_at": UNTIL}),
    ("GET", "/v1/tenants/{tenant}/keys", None), ("POST", "/v1/tenants/{tenant}/keys/{id}/rotate", {"grace": 5}),
    ("GET", "/v1/tenants/{tenant}/keys", None), ("DELETE", "/v1/tenants/{tenant}/keys/{id}", None),
    ("PUT", "/v1/gateways/{gateway}", {"kind": "shared"}),
    ("POST", "/v1/gateways/{gateway}/ack", {"boot": "b", "revision": 1, "state": "live", "tenants": 1,
                                           "zone": {"size": 2, "used": 1}, "rejected": [
                                               {"kind": "tenant", "name": "acme", "revision": 1, "reason": "x"}]}),
    ("POST", "/v1/gateways/{gateway}/usage", {"boot": "b", "counters": [
        {"tenant": "acme", "route": "", "requests": 1}], "quotas": []}),
    ("GET", "/v1/gateways/{gateway}", None), ("GET", "/v1/gateways", None), ("GET", "/v1/tenants/{tenant}", None),
    ("GET", "/v1/tenants/{tenant}/usage", None),
    ("GET", "/v1/tenants/{tenant}/flows", None), ("GET", "/v1/tenants/{tenant}/servicemap", None),
    ("GET", "/v1/gateways/{gateway}/events", None), ("DELETE", "/v1/gateways/{gateway}", None),
    ("POST", "/v1/tokens", {"name": "t", "scope": "tenant", "tenant": "acme", "expires_at": UNTIL}),
    ("POST", "/v1/tokens", {"name": "c", "scope": "reader", "certificate": {"subject": "portal"}}),
    ("GET", "/v1/tokens", None), ("DELETE", "/v1/tokens/{id}", None), ("GET", "/v1/tokens", None),
    ("GET", "/v1/tenants/{tenant}/audit", None), ("GET", "/v1/audit", None),
    ("DELETE", "/v1/tenants/{tenant}", None), ("DELETE", "/v1/issuers/{issuer}", None),
]


def test_answers_have_the_described_form(admin):
    """One life through every route; and each body that is sent is a described one."""
    values = {"tenant": "acme", "issuer": "one", "host": "new.example.org", "consumer": "web", "upstream": "one",
              "route": "one", "quota": "one", "endpoint": "10.0.0.7:80", "gateway": "gw-1", "id": "1",
              "plugin": "extra", "tier": "dedicated", "node": "n1", "service": "orders", "workload": "w1",
              "policy": "one"}
    called = set()
    for method, pattern, body in CALLS:
        path = pattern
        pattern = pattern.replace("/node-n1/", "/{gateway}/")
        path = re.sub(r"{(\w+)}", lambda m: values[m[1]], path)
        if body is not None:
            content = DOCUMENT["paths"][pattern][method.lower()]["requestBody"]["content"]
            validate(content["application/json"]["schema"], body)
        answer = admin.request(method, path, body)
        assert 200 <= answer.status < 300, (method, path, answer)
        validate_answer(pattern, method, answer)
        called.add((method, pattern))
        if method == "POST" and pattern.endswith("/keys") or pattern == "/v1/tokens" and method == "POST":
            values["id"] = str(answer.json()["id"])

    # a handover takes two gateways, and a node one that runs there
    skipped = {("GET", "/v1/watch"), ("POST", "/v1/import"), ("POST", "/v1/gateways/{gateway}/handover"),
               ("POST", "/v1/gateways/{gateway}/flows"),
               ("POST", "/v1/nodes/{node}/evacuate")}
    assert called | skipped == {(method, path) for method, path, _, _ in operations()}


def test_import_answers(admin):
    body = b'{"name": "imported", "keys": [{"consumer": "a"}]}\n{"name": "Bad"}\nnonsense\n'
    answer = admin.request("POST", "/v1/import", body, {"Content-Type": "application/jsonl"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["status"] for line in lines] == [201, 422, 400]
    for line in lines:
        validate({"$ref": "#/components/schemas/ImportAnswer"}, line)


@pytest.mark.parametrize("method,pattern", [(m, p) for m, p, s, *_ in routes() if s != "-"])
def test_refusals_have_the_described_form(daemon, method, pattern):
    answer = daemon.as_("tgt_nobody").request(method, re.sub(r"{\w+}", "x", pattern))
    assert answer.status in (400, 401), answer
    assert answer.headers["content-type"] == PROBLEM
    validate_answer(pattern, method, answer)


def test_problem_kinds_are_documented():
    page = (process.ROOT / "docs" / "reference" / "problems.md").read_text()
    own = re.findall(r'\{ \d+, "([a-z-]+)"', (process.ROOT / "tenantd" / "td_problem.c").read_text())
    gateways = re.findall(r'\{ [1-5]\d\d, ngx_string\("([a-z-]{2,})"\)',
                          (process.ROOT / "modules" / "ngx_http_tenant_problem.c").read_text())
    sql = set()
    for path in (process.ROOT / "sql").glob("*.sql"):
        text = path.read_text()
        sql |= set(re.findall(r"refuse\(\d{3}, '([a-z-]+)'", text))
        sql |= set(re.findall(r"^ +\('[a-z0-9_]+', +\d{3}, '([a-z-]+)', ", text, re.M))
        sql |= {f"unknown-{kind}" for kind in re.findall(r"format\('unknown-%s'", text)}
    assert len(own) > 20 and len(gateways) > 10 and len(sql) > 40
    missing = [slug for slug in sorted({*own, *gateways, *sql}) if f"`{slug}`" not in page]
    assert not missing


def test_metrics_are_documented():
    page = (process.ROOT / "docs" / "reference" / "rest.md").read_text()
    names = re.findall(r'"(tiergate_tenantd_[a-z_]+)"', (process.ROOT / "tenantd" / "td_metrics.c").read_text())
    assert len(names) > 15
    assert not [name for name in names if f"`{name}`" not in page]
