# SPDX-License-Identifier: BSD-2-Clause
"""An agent that reaches tenantd over TCP: both have to show that they are who they say."""

import os
import re
import signal

import pytest

from support.site import integration

Authority = integration("authority").Authority

ORDERS = "10.77.0.1"

LISTENER = """
[listen]
tls_addresses = 127.0.0.1:0
tls_certificate = {files}/server.crt
tls_key = {files}/server.key

[watch]
recheck_interval = 1s
"""


class Here:
    """The network namespace that the tests run in, where tenantd listens."""

    @staticmethod
    def enter():
        pass


@pytest.fixture(scope="module")
def agent(site):
    """Of node a, with another tenantd on the same registry, which listens with TLS."""
    files = site.path / "files"
    files.mkdir()
    authority = Authority()
    authority.write(files / "ca.pem")
    authority.issue(files / "server", "server")
    Authority("another").write(files / "another.pem")
    site.rest.call("POST", "/v1/tenants", {"name": "acme", "tier": "dedicated"})
    site.sql(f"""
        INSERT INTO tiergate.mesh_nodes (name, addresses, tenants) VALUES ('a', '{{10.78.0.1}}', '{{*}}'), ('b', '{{10.78.0.2}}', '{{*}}');
        INSERT INTO tiergate.mesh_services (tenant, name, ports) VALUES ('acme', 'orders', '[{{"port": 80, "protocol": "tcp"}}]');
        INSERT INTO tiergate.mesh_endpoints (tenant, service, address, port) VALUES ('acme', 'orders', '{ORDERS}', 8080)""")
    for name, node in (("right", "a"), ("other", "b"), ("revoked", "a")):
        token = site.database.one("SELECT tiergate.create_token(%s, 'gateway', gateway => %s)", (name, f"node-{node}"))
        (files / name).write_text(token + "\n")
    site.sql("SELECT tiergate.revoke_token('revoked')")
    (files / "invented").write_text("tg_0123456789abcdef0123456789abcdef\n")
    tenantd = integration("tenantd").Tenantd(site.database, site.path / "tls", LISTENER.format(files=files))
    try:
        agent = site.agent(netns=Here)
        agent.files = files
        agent.port = re.search(r"listening on https://127\.0\.0\.1:(\d+)", tenantd.log.text)[1]
        yield agent
    finally:
        tenantd.stop()


def begin(agent, token="right", ca="ca.pem", host="127.0.0.1"):
    """Starts it anew with these, and an empty state; it need not get anywhere."""
    agent.stop(signal.SIGTERM) if agent.process else None
    (agent.state / "registry.jsonl").unlink(missing_ok=True)
    (agent.files / "token").write_bytes((agent.files / token).read_bytes())
    agent.configure(registry=f"https://{host}:{agent.port}", ca=agent.files / ca, token_file=agent.files / "token")
    agent.start(wait=False)


def test_live_over_tls(site, agent):
    """The stream, acknowledgements and what exec reports all go there."""
    begin(agent)
    agent.wait("live at revision")
    assert site.acked(site.database.revision())["rejected"] == []
    assert agent.exec("true").wait(20) == 0
    site.apply("UPDATE tiergate.mesh_endpoints SET weight = 7")


@pytest.mark.parametrize("ca, host, said", [
    ("another.pem", "127.0.0.1", "certificate"),
    ("none.pem", "127.0.0.1", "none.pem"),
    ("ca.pem", "localhost", "localhost"),
], ids=["another CA", "no CA", "another name"])
def test_a_server_that_does_not_prove_itself_is_refused(agent, ca, host, said):
    """It is told no token, and the line says where and why."""
    begin(agent, ca=ca, host=host)
    line = agent.wait(r".* https://.* is not reached: .*")[0]
    assert f"https://{host}:{agent.port}" in line and said in line.split("is not reached")[1], line
    assert agent.process.poll() is None and "live at revision" not in agent.log.since(agent.mark)


@pytest.mark.parametrize("token, status", [("invented", 401), ("revoked", 401), ("other", 403)])
def test_a_token_that_is_not_its_own_is_refused(site, agent, token, status):
    """The line says which status and why; a token that is put right is taken without a restart."""
    begin(agent, token)
    line = agent.wait(r".*the registry refuses the stream of node-a with status .*")[0]
    assert f"with status {status}: " in line and len(line.split(f"{status}: ")[1]) > 20, line
    assert "live at revision" not in agent.log.since(agent.mark)
    (agent.files / "token").write_bytes((agent.files / "right").read_bytes())
    agent.wait("live at revision")
    site.acked(site.database.revision())


def test_a_token_that_is_revoked_ends_the_stream(site, agent):
    """And what is enforced stays, by the pinned programs and maps; a new one is taken."""
    begin(agent)
    agent.wait("live at revision")
    mark = agent.log.mark()
    site.sql("SELECT tiergate.revoke_token('right')")
    agent.wait("the registry refuses the stream of node-a with status 401", mark, 20)
    assert os.path.exists(f"{agent.pins}/links")
    fresh = site.database.one("SELECT tiergate.create_token('fresh', 'gateway', gateway => 'node-a')")
    (agent.files / "token").write_text(fresh + "\n")
    agent.wait("live at revision", mark, 20)
