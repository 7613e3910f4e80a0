# SPDX-License-Identifier: BSD-2-Clause
"""The TLS listener: certificates of both sides, and who they make the caller."""

import signal
import socket
import ssl

import pytest

from support import process, wire
from support.authority import Authority
from tenantd_fixture import make_daemon, token


@pytest.fixture(scope="module")
def files():
    return process.folder("tls")


@pytest.fixture(scope="module")
def authority(files):
    authority = Authority()
    authority.write(files / "ca.pem")
    authority.issue(files / "server", "server")
    return authority


@pytest.fixture(scope="module")
def daemon(request, database, authority, files):
    daemon = make_daemon(request, database, f"""
tls_addresses = 127.0.0.1:0
tls_certificate = {files}/server.crt
tls_key = {files}/server.key
tls_client_ca = {files}/ca.pem
tls_admin_subjects = portal, spiffe://example.org/portal
tls_gateway_subjects = edge=edge-1, spiffe://example.org/edge/2=edge-2
[http]
request_timeout = 1s
""")
    yield daemon
    daemon.close()


class TlsConnection(wire.Connection):
    def __init__(self, daemon, files, client=None, context=None, version=None):
        context = context or ssl.create_default_context(cafile=str(files / "ca.pem"))
        if version:
            context.maximum_version = version
        if client:
            context.load_cert_chain(files / f"{client}.crt", files / f"{client}.key")
        super().__init__(("127.0.0.1", daemon.port_of("https")))        # the time for the handshake runs from here
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")


def call(daemon, files, path="/v1/tenants", client=None, method="GET", bearer=None, body=None):
    headers = [("Host", "x"), ("Content-Type", "application/json")]
    if bearer:
        headers.append(("Authorization", f"Bearer {bearer}"))
    with TlsConnection(daemon, files, client) as connection:
        return connection.request(method, path, headers, body)


def test_tokens_over_tls(daemon, files):
    assert call(daemon, files).status == 401
    admin = token(daemon.rest, "tls", "admin")
    assert call(daemon, files, bearer=admin).status == 200
    with TlsConnection(daemon, files) as connection:
        for _ in range(3):
            assert connection.request("GET", "/v1/healthz", {"Host": "x"}).status == 200
        big = connection.request("GET", "/v1/openapi.yaml", {"Host": "x"})
        assert len(big.body) > 20000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(daemon, files):
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.raises((ssl.SSLError, OSError)):
            TlsConnection(daemon, files, context=context, version=version)


def test_certificates_that_the_configuration_names(daemon, files, authority):
    authority.issue(files / "portal", "portal")
    authority.issue(files / "edge", "edge")
    authority.issue(files / "spiffe", uri="spiffe://example.org/edge/2")
    authority.issue(files / "both", "somebody", uri="spiffe://example.org/portal")
    assert call(daemon, files, client="portal").status == 200
    assert call(daemon, files, client="both").status == 200
    ack = b'{"boot": "b", "revision": 0, "state": "live"}'
    for client, own, other in (("edge", "edge-1", "edge-2"), ("spiffe", "edge-2", "edge-1")):
        assert call(daemon, files, client=client).status == 403
        assert call(daemon, files, f"/v1/gateways/{own}/ack", client, "POST", body=ack).status == 204
        assert call(daemon, files, f"/v1/gateways/{other}/ack", client, "POST", body=ack).status == 403
    made = call(daemon, files, client="portal", method="POST", body=b'{"name": "by-cert"}')
    assert made.status == 201
    audit = daemon.rest.call("GET", "/v1/tenants/by-cert/audit")["items"]
    assert audit[0]["actor"] == "peer:certificate:portal"


def test_certificates_that_the_registry_names(daemon, files, authority):
    digest = authority.issue(files / "known", "known")
    authority.issue(files / "subject", "by-subject")
    assert call(daemon, files, client="known").status == 401
    daemon.rest.call("POST", "/v1/tokens", {"name": "c1", "scope": "reader", "certificate": {"sha256": digest}})
    daemon.rest.call("POST", "/v1/tokens", {"name": "c2", "scope": "reader", "certificate": {"subject": "by-subject"}})
    assert call(daemon, files, client="known").status == 200
    assert call(daemon, files, client="subject").status == 200
    assert call(daemon, files, client="known", method="POST", body=b"{}").status == 403


def test_a_token_beats_the_certificate(daemon, files, authority):
    authority.issue(files / "portal2", "portal")
    reader = token(daemon.rest, "weaker", "reader")
    answer = call(daemon, files, client="portal2", method="POST", bearer=reader, body=b'{"name": "never"}')
    assert answer.status == 403
    assert call(daemon, files, client="portal2", bearer="garbage").status == 401


def test_certificates_of_others(daemon, files, authority):
    """Another CA, or too old: the handshake fails, and with it every request."""
    stranger = Authority("ca")
    stranger.issue(files / "stranger", "portal")
    authority.issue(files / "expired", "portal", days=-1)
    for client in ("stranger", "expired"):
        with pytest.raises((ssl.SSLError, OSError, wire.Closed)):
            call(daemon, files, client=client)


def test_handshakes_that_do_not_end(daemon):
    for data in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
        with wire.Connection(("127.0.0.1", daemon.port_of("https")), 5) as connection:
            connection.send(data)
            assert connection.ended(), data


def test_slow_and_broken_requests_over_tls(daemon, files):
    with TlsConnection(daemon, files) as connection:
        connection.send(b"GET /v1/healthz HTTP/1.1\r\n")
        assert connection.response().status == 408
    with TlsConnection(daemon, files) as connection:
        connection.send(b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = connection.response()
        assert answer.status == 400 and answer.problem == "malformed-request"
        assert connection.ended()


def test_watch_over_tls(daemon, files):
    admin = token(daemon.rest, "watcher", "admin")
    for n in range(50):
        daemon.rest.call("POST", "/v1/tenants", {"name": f"tls{n}", "labels": {str(i): "x" * 200 for i in range(40)}})
    with TlsConnection(daemon, files) as connection:
        connection.send(wire.compose("GET", "/v1/watch?for=g", [("Host", "x"), ("Authorization", f"Bearer {admin}")]))
        status, _ = connection.head()
        assert status == 200
        seen = b""
        for chunk in connection.chunks():
            seen += chunk
            if b'"complete":true' in seen:
                break
        assert seen.count(b'"name":"tls') >= 50


def test_new_certificates_on_reload(daemon, files, authority):
    def serial():
        with TlsConnection(daemon, files) as connection:
            return connection.socket.getpeercert()["serialNumber"]

    before = serial()
    authority.issue(files / "server", "server")
    mark = daemon.log.mark()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.log.wait("config: reloaded", mark)
    after = serial()
    assert after != before

    (files / "server.crt").write_text("nonsense")
    mark = daemon.log.mark()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.log.wait("certificates not reloaded", mark)
    assert serial() == after
    authority.issue(files / "server", "server")


def test_clients_that_vanish_in_the_handshake(daemon):
    for _ in range(20):
        connection = wire.Connection(("127.0.0.1", daemon.port_of("https")))
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    assert daemon.rest.request("GET", "/v1/healthz").status == 200
