# SPDX-License-Identifier: BSD-2-Clause
"""Directives in other settings than the other files have: what they change, and what nginx -t says of
values that they do not take."""

import pytest

from support import process
from support.nginx import Gateway
from support.platform import quota, route
from support.poll import until
from support.tokens import Issuer

PROXY = "proxy_pass http://tenants; proxy_http_version 1.1;"
GATEWAY = {
    "workers": 1,
    "http": "underscores_in_headers on; tenant_token_cache 0; tenant_auth_failures rate=1r/m burst=2;",
    "locations": f"""
        location /realm/ {{ tenant host; tenant_auth on; tenant_auth_realm "people of $host"; {PROXY} }}
        location /key/   {{ tenant host; tenant_auth on; tenant_api_key_header X-Pass_Key; {PROXY} }}
        location /bare/  {{ tenant host; tenant_auth on; tenant_quota on; tenant_quota_headers off; {PROXY} }}
        location /open/  {{ tenant host; tenant_auth off; {PROXY} }}
        location /vars/  {{
            tenant host; tenant_auth on; {PROXY}
            add_header X-Tenant-Vars "$tenant_id|$tenant_name|$tenant_revision|$tenant_route|$tenant_refusal" always;
            add_header X-Auth-Vars "$tenant_consumer|$tenant_consumer_id|$tenant_auth_method|$tenant_scopes" always;
            add_header X-Claims "$tenant_claim_role|$tenant_claim_level|$tenant_claim_userid|$tenant_claim_none" always;
            add_header X-Balancer "$tenant_upstream|$tenant_upstream_host|$tenant_endpoint|$tenant_connection" always;
        }}
""",
}


@pytest.fixture
def tenant(onboard):
    return onboard(routes=[route(auth="required")])


def test_auth_off(tenant):
    assert tenant.get("/").status == 401
    assert tenant.reached("/open/x", key="tgk_nonsense").headers["x-tenant-auth"] == "anonymous"


def test_realm(tenant):
    assert tenant.get("/realm/").headers["www-authenticate"].startswith(f'Bearer realm="people of {tenant.host}"')
    assert tenant.get("/").headers["www-authenticate"].startswith(f'Bearer realm="{tenant.name}"')


def test_api_key_header(tenant):
    """That header and no other holds keys; the upstream gets neither, in no spelling."""
    assert tenant.get("/key/", [("X-API-Key", tenant.key)]).problem == "no-credential"
    for name in ("X-Pass_Key", "x-pass_key"):
        reached = tenant.reached("/key/", [(name, tenant.key), ("X-Pass-Key", "variant")])
        assert reached.headers["x-tenant-consumer"] == "mobile"
        assert tenant.key not in str(reached.pairs) and "variant" not in str(reached.pairs)
    assert tenant.get("/", [("X-Pass_Key", tenant.key)]).problem == "no-credential"


def test_quota_headers_off(onboard):
    tenant = onboard(quotas=[quota(limit=1, window="day")])
    served, refused = tenant.get("/bare/"), tenant.get("/bare/")
    assert (served.status, refused.status, refused.problem) == (200, 429, "over-quota")
    for response in (served, refused):
        assert "ratelimit" not in response.headers and "ratelimit-policy" not in response.headers
    assert int(refused.headers["retry-after"]) >= 1 and refused.json()["violated-policies"]
    assert "ratelimit" in tenant.get("/").headers


def test_no_token_cache(onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route(auth="required")], issuers=[{"name": "main", **issuer.body()}])
    token = issuer.token()
    for _ in range(5):
        assert tenant.get(token=token).status == 200
    assert tenant.get(token=token[:-8] + "AAAAAAAA").status == 401


def test_auth_failures(onboard):
    tenant, other = onboard(routes=[route(auth="required")]), onboard(routes=[route(auth="required")])
    problems = [tenant.get(key=f"tgk_wrong{i}").problem for i in range(6)]
    assert problems[:2] == ["invalid-credential"] * 2
    assert problems[3:] == ["too-many-failures"] * 3
    limited = tenant.get(key="tgk_wrong")
    assert limited.status == 429 and 1 <= int(limited.headers["retry-after"]) <= 65
    assert tenant.get(key=tenant.key).status == 200             # is in already
    assert tenant.get().problem == "no-credential"              # is no failure
    assert other.get(key="tgk_wrong").problem == "invalid-credential"


def test_auth_failures_off(platform, onboard):
    gateway = platform.gateway(workers=1, http="tenant_auth_failures off;")
    tenant = onboard(routes=[route(auth="required")], gateway=gateway)
    assert {tenant.get(key=f"tgk_wrong{i}").problem for i in range(120)} == {"invalid-credential"}
    platform.retire(gateway)


def test_variables(platform, onboard):
    issuer = Issuer()
    tenant = onboard(routes=[route("r", auth="optional", websocket=True)], issuers=[{"name": "main", **issuer.body()}],
                     consumers=[{"name": "alice"}], keys=[{"consumer": "mobile", "scopes": ["a", "b"]}])
    ids = dict(platform.database.execute("SELECT name, id FROM tiergate.consumers WHERE tenant = %s", [tenant.name]))
    number, revision = platform.database.execute(
        "SELECT id, tiergate.revision_of('tenant', id) FROM tiergate.tenants WHERE name = %s", [tenant.name])[0]

    def shown(**more):
        headers = tenant.get("/vars/", **more).headers
        return [headers[name] for name in ("x-tenant-vars", "x-auth-vars", "x-claims", "x-balancer")]
    own = f"{number}|{tenant.name}|{revision}|r|-"
    balancer = f"main|{tenant.host}|{platform.backend.main.address}|"
    assert shown() == [own, "||anonymous|", "|||", balancer]
    assert shown(key=tenant.key) == [own, f"mobile|{ids.get('mobile', '')}|api_key|a b", "|||", balancer]
    token = issuer.token("alice", scope="x y", role=["admin", "dev"], level=7, userId="u-1")
    assert shown(token=token) == [own, f"alice|{ids['alice']}|jwt|x y", '["admin","dev"]|7|u-1|', balancer]
    refused = shown(key="tgk_wrong")
    assert refused[0] == f"{number}|{tenant.name}|{revision}|r|invalid-credential"
    assert refused[1:] == ["|||", "|||", f"|{tenant.host}||"]


# --- where tenantd is ---

def test_source_over_tcp_with_a_token(platform, backend, postgres, template):
    """By name, of which the first address may answer nothing; with a token of this gateway alone."""
    from support.platform import Platform
    from support.tenantd import Tenantd
    tenantd = Tenantd(postgres.database(template), platform.path / "tcp",
                      more="[listen]\naddresses = 127.0.0.1:0\n[watch]\nrecheck_interval = 500ms\n")
    port = tenantd.log.wait(r"listening on http://127\.0\.0\.1:(\d+)")[1]
    world = Platform(tenantd.database, tenantd, backend, platform.path)
    folder, gateways = process.folder("gw-tcp"), []
    try:
        world.onboard("remote", wait=False)
        made = world.rest.call("POST", "/v1/tokens", {"name": "gw", "scope": "gateway", "gateway": "gw-tcp"})
        (folder / "token").write_text(made["token"] + "\n")
        gateways.append(Gateway("gw-tcp", f"http://localhost:{port} gateway=gw-tcp token={folder}/token", path=folder))
        gateway = gateways[0]
        gateway.log.allow("connect.. failed|Connection refused")

        def status():
            return gateway.request("GET", "/", {"Host": "remote.example.com"}).status
        until(lambda: status() == 200, lambda: gateway.log.text[-2000:])
        world.wait(gateway=gateway)         # it acknowledges, too
        assert made["token"] not in gateway.log.text + tenantd.log.text

        # another gateway's name is not this token's
        wrong = Gateway("gw-other", f"http://127.0.0.1:{port} gateway=gw-other token={folder}/token",
                        path=process.folder("gw-other"), http="tenant_load_wait 50ms;")
        gateways.append(wrong)
        wrong.log.wait("403")
        assert wrong.request("GET", "/", {"Host": "remote.example.com"}).problem == "not-ready"

        # revoked: what is known is served on, and said to be old
        world.rest.request("DELETE", f"/v1/tokens/{made['id']}")
        until(lambda: '"snapshot"' in gateway.request("GET", "/-/ready", {"Host": "x"}).text, "the end of the stream")
        gateway.log.wait("401")
        assert status() == 200
    finally:
        for each in gateways:
            each.stop()
        world.rest.close()
        tenantd.stop()


# --- nginx -t ---

@pytest.mark.parametrize("where, line, said", [
    ("http", "tenant_zone second 4m;", "tenant_zone"),
    ("http", "tenant_source unix:/x gateway=again;", '"tenant_source" directive is duplicate'),
    ("http", "tenant_token_cache -1;", "tenant_token_cache"), ("http", "tenant_token_cache many;", "tenant_token_cache"),
    ("http", "tenant_auth_failures rate=0r/s;", "tenant_auth_failures"),
    ("http", "tenant_auth_failures rate=5r/s burst=-1;", "tenant_auth_failures"),
    ("http", "tenant_auth_failures fast;", "tenant_auth_failures"),
    ("http", "tenant_metrics_tenants 10001;", "tenant_metrics_tenants"),
    ("http", "tenant_metrics_tenants x;", "tenant_metrics_tenants"),
    ("http", "tenant_load_wait soon;", "tenant_load_wait"),
    ("http", "tenant_strip_header;", "tenant_strip_header"),
    ("http", "tenant_snapshot /x/y;", "tenant_snapshot"),
    ("http", "tenant_secret_key /nonexistent/key;", "/nonexistent/key"),
    ("http", "tenant_ready;", "not allowed here"), ("http", "tenant_metrics;", "not allowed here"),
    ("http", "tenant_balancer;", "not allowed here"),
    ("location", "tenant by_magic;", '"tenant" directive takes'), ("location", "tenant header;", "tenant"),
    ("location", "tenant host prefix;", "tenant"),
    ("location", "tenant_auth maybe;", "maybe"), ("location", "tenant_quota maybe;", "maybe"),
    ("location", "tenant_quota_headers maybe;", "maybe"), ("location", "tenant_problem maybe;", "maybe"),
    ("location", "tenant_api_key_header Authorization;", "Authorization"),
    ("location", "tenant_zone x 4m;", "not allowed here"), ("location", "tenant_auth_failures off;", "not allowed here"),
])
def test_refused_settings(platform, where, line, said):
    options = {"http": line} if where == "http" else {"locations": f"location /t/ {{ {line} }}"}
    gateway = Gateway("gw-check", f"unix:{platform.path}/x.sock", path=process.folder("gw-check"), started=False,
                      **options)
    status, output = gateway.check()
    assert status != 0 and "[emerg]" in output and said in output, output


@pytest.mark.parametrize("source, said", [
    ("ftp://x:1 gateway=a", "takes unix:/PATH or http://HOST:PORT"), ("unix: gateway=a", "unix:"), ("http://127.0.0.1:99999 gateway=a", "99999"),
    ("http://127.0.0.1:1 gateway=", "gateway"), ("http://127.0.0.1:1 gateway=Not_A_Label", "Not_A_Label"),
    ("http://127.0.0.1:1 gateway=a token=/nonexistent/token", "/nonexistent/token"),
    ("http://127.0.0.1:1 gateway=a color=red", "color=red"),
])
def test_refused_sources(source, said):
    gateway = Gateway("gw-check", source, path=process.folder("gw-check"), started=False)
    status, output = gateway.check()
    assert status != 0 and "[emerg]" in output and said in output, output
