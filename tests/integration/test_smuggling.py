# SPDX-License-Identifier: BSD-2-Clause
"""Request smuggling: the gateway and the backend see the same requests.

Every shape hides a request for /hidden, which needs a credential that it does
not bring.  The backend must never see it, and the connections to the backend
must stay in step afterwards.
"""

import pytest

from support import wire
from support.http2 import Http2, get
from support.platform import route


@pytest.fixture(scope="module")
def tenant(platform, gateway):
    return platform.onboard(routes=[route("open", path="/open", auth="none"),
                                    route("rest", path="/", auth="required")])


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: @HOST@\r\n\r\n"
# Comes after each shape, so that the connection ends.
LAST = b"GET /open/last HTTP/1.1\r\nHost: @HOST@\r\nConnection: close\r\n\r\n"


def head(*lines, method=b"POST", target=b"/open", version=b"HTTP/1.1"):
    return b"\r\n".join([method + b" " + target + b" " + version, b"Host: @HOST@",
                         *lines]) + b"\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


SHAPES = {
    # RFC 9112 section 6.3: both lengths
    "cl-te": head(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    "te-cl": head(b"Transfer-Encoding: chunked", b"Content-Length: 4") + chunk(HIDDEN) + b"0\r\n\r\n",
    "cl0-te": head(b"Content-Length: 0", b"Transfer-Encoding: chunked") + chunk(HIDDEN) + b"0\r\n\r\n",
    # obfuscated codings
    "te-space-colon": head(b"Transfer-Encoding : chunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-tab": head(b"Transfer-Encoding:\tchunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-vtab": head(b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-xchunked": head(b"Transfer-Encoding: xchunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-quoted": head(b'Transfer-Encoding: "chunked"', b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-list": head(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + HIDDEN,
    "te-list2": head(b"Transfer-Encoding: identity, chunked") + b"0\r\n\r\n" + HIDDEN,
    "te-gzip": head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n" + HIDDEN,
    "te-twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n" + HIDDEN,
    "te-twice2": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    "te-case": head(b"tRANSFER-eNCODING: CHUNKED") + chunk(HIDDEN) + b"0\r\n\r\n",
    "te-underscore": head(b"Transfer_Encoding: chunked", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    "te-cr": head(b"X: y\rTransfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-lf": head(b"X: y\nTransfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-fold": head(b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-null": head(b"Transfer-Encoding: chunked\x00", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-trailing": head(b"Transfer-Encoding: chunked ", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-param": head(b"Transfer-Encoding: chunked;q=1", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    "te-http10": head(b"Transfer-Encoding: chunked", b"Connection: keep-alive",
                      version=b"HTTP/1.0") + chunk(HIDDEN) + b"0\r\n\r\n",
    "te-get": head(b"Transfer-Encoding: chunked", method=b"GET") + chunk(HIDDEN) + b"0\r\n\r\n",
    # odd lengths
    "cl-twice": head(b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    "cl-twice-same": head(b"Content-Length: 0", b"Content-Length: 0") + HIDDEN,
    "cl-list": head(b"Content-Length: 0, %d" % len(HIDDEN)) + HIDDEN,
    "cl-plus": head(b"Content-Length: +%d" % len(HIDDEN)) + HIDDEN,
    "cl-minus": head(b"Content-Length: -1") + HIDDEN,
    "cl-hex": head(b"Content-Length: 0x0") + HIDDEN,
    "cl-huge": head(b"Content-Length: 18446744073709551616") + HIDDEN,
    "cl-octal": head(b"Content-Length: 00") + HIDDEN,
    "cl-space": head(b"Content-Length: 0 1") + HIDDEN,
    "cl-empty": head(b"Content-Length:") + HIDDEN,
    "cl-space-colon": head(b"Content-Length : %d" % len(HIDDEN)) + HIDDEN,
    "cl-under": head(b"Content_Length: %d" % len(HIDDEN), b"Content-Length: 0") + HIDDEN,
    "cl-get": head(b"Content-Length: %d" % len(HIDDEN), method=b"GET") + HIDDEN,
    "cl-head": head(b"Content-Length: %d" % len(HIDDEN), method=b"HEAD") + HIDDEN,
    "cl-options": head(b"Content-Length: %d" % len(HIDDEN), method=b"OPTIONS") + HIDDEN,
    "cl-short": head(b"Content-Length: 4") + b"body" + HIDDEN,
    # chunks
    "chunk-ext-lf": head(b"Transfer-Encoding: chunked") + b"0;a=b\nX: y\r\n\r\n" + HIDDEN,
    "chunk-ext": head(b"Transfer-Encoding: chunked") + b"0;a=b\r\n\r\n" + HIDDEN,
    "chunk-hex": head(b"Transfer-Encoding: chunked") + b"0x0\r\n\r\n" + HIDDEN,
    "chunk-overflow": head(b"Transfer-Encoding: chunked") + b"10000000000000000\r\n\r\n" + HIDDEN,
    "chunk-minus": head(b"Transfer-Encoding: chunked") + b"-1\r\n\r\n" + HIDDEN,
    "chunk-empty": head(b"Transfer-Encoding: chunked") + b"\r\n\r\n" + HIDDEN,
    "chunk-no-crlf": head(b"Transfer-Encoding: chunked") + b"4\r\nbodyXX0\r\n\r\n" + HIDDEN,
    "chunk-lf": head(b"Transfer-Encoding: chunked") + b"4\nbody\n0\n\n" + HIDDEN,
    "chunk-trailer": head(b"Transfer-Encoding: chunked") + b"0\r\nContent-Length: 5\r\nX-Tenant: forged\r\n\r\n" + HIDDEN,
    "chunk-space": head(b"Transfer-Encoding: chunked") + b"0 \r\n\r\n" + HIDDEN,
    # request lines and heads
    "bare-lf": head(b"Content-Length: 0").replace(b"\r\n", b"\n") + HIDDEN,
    "line-two-spaces": head(target=b" /open") + HIDDEN,
    "line-tab": b"GET\t/open HTTP/1.1\r\nHost: @HOST@\r\n\r\n" + HIDDEN,
    "line-lead-crlf": b"\r\n\r\nGET /open HTTP/1.1\r\nHost: @HOST@\r\n\r\n" + HIDDEN,
    "line-09": b"GET /open\r\n\r\n" + HIDDEN,
    "line-12": head(version=b"HTTP/1.2", method=b"GET") + HIDDEN,
    "line-20": head(version=b"HTTP/2.0", method=b"GET") + HIDDEN,
    "line-in-target": b"GET /open HTTP/1.1 GET /hidden HTTP/1.1\r\nHost: @HOST@\r\n\r\n",
    "header-space": head(b"X Y: z", b"Content-Length: 0") + HIDDEN,
    "header-no-colon": head(b"Content-Length", b"X: 0") + HIDDEN,
    "header-empty": head(b": x", b"Content-Length: 0") + HIDDEN,
    "header-null": head(b"X: a\x00b", b"Content-Length: 0") + HIDDEN,
    "first-header-fold": b"POST /open HTTP/1.1\r\n Host: @HOST@\r\nHost: @HOST@\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "pipelined": head(method=b"GET") + HIDDEN,
    # upgrades and expectations
    "h2c": head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", method=b"GET") + HIDDEN,
    "websocket-not-allowed": head(b"Connection: Upgrade", b"Upgrade: websocket",
                                  b"Sec-WebSocket-Version: 13",
                                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                                  method=b"GET") + HIDDEN,
    "expect": head(b"Expect: 100-continue", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    "expect-odd": head(b"Expect: 100-continuex", b"Content-Length: 0") + HIDDEN,
    "connection-cl": head(b"Connection: Content-Length", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    "connection-te": head(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked") + chunk(HIDDEN) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_smuggled(platform, tenant, name):
    backend = platform.backend
    backend.clear()
    data = (SHAPES[name] + LAST).replace(b"@HOST@", tenant.host.encode())
    responses = wire.exchange(tenant.gateway.address, data, [data.split(b" ")[0].decode()], 0.5)
    assert responses, "no answer at all"
    for response in responses:
        assert response.status in (9, 200, 400, 401, 404, 405, 411, 413, 417, 501, 505), response

    seen = list(backend.seen)
    assert [s.target for s in seen] in ([], ["/open"], ["/open", "/open/last"], ["/open/last"]), seen
    for s in seen:
        names = [key.lower() for key, _ in s.headers]
        assert names.count("content-length") + names.count("transfer-encoding") <= 1
        assert "forged" not in str(s.headers)

    # the kept connections to the backend are still in step
    for i in range(3):
        assert tenant.reached(f"/open/step{i}").target == f"/open/step{i}"


def test_body_after_a_refusal_is_not_a_request(platform, tenant):
    """A refused POST whose body looks like a request, on a kept connection."""
    backend = platform.backend
    hidden = HIDDEN.replace(b"@HOST@", tenant.host.encode())
    for headers, body in [({"Content-Length": len(hidden)}, hidden),
                          ({"Transfer-Encoding": "chunked"}, wire.chunked(hidden))]:
        backend.clear()
        with tenant.gateway.connect() as connection:
            response = connection.request("POST", "/private", {"Host": tenant.host, **headers}, body)
            assert response.status == 401
            response = connection.request("GET", "/open/after", {"Host": tenant.host})
            assert response.json()["target"] == "/open/after"
        assert [s.target for s in backend.seen] == ["/open/after"]


def test_response_splitting_from_the_backend_stays_there(tenant):
    """What a backend says in a header cannot become a second response."""
    response = tenant.get("/open", {"X-Do": "header=X-Odd:a"})
    assert response.headers["x-odd"] == "a"


@pytest.mark.parametrize("extra", [
    [("transfer-encoding", "chunked")],
    [("content-length", "5")],                      # and no body
    [("content-length", "0"), ("content-length", "5")],
    [("connection", "keep-alive")],
    [("upgrade", "h2c")],
    [("te", "chunked")],
    [("x-evil", "a\r\nX-Tenant: forged")],
    [("x-evil\r\nx-tenant", "forged")],
    [("x-evil: x\r\nX-Tenant", "forged")],
    [("x evil", "1")],
    [("X-Upper", "1")],
    [("x-null", "a\x00b")],
    [(":path", "/hidden")],
    [(":authority", "other.example.com")],
    [("host", "other.example.com")],
    [("", "x")],
    [(":evil", "x")],
])
def test_http2_cannot_smuggle_through_the_downgrade(platform, tenant, extra):
    platform.backend.clear()
    status, _, body = get(tenant.gateway.address2, tenant.host, "/open", extra)
    assert status in (None, 200, 400, 404), (status, body)
    for seen in platform.backend.seen:
        assert seen.target == "/open"
        headers = wire.Headers(seen.headers)
        assert headers.all("x-tenant") == [tenant.name]
        assert "transfer-encoding" not in headers
        assert len(headers.all("host")) == 1
        assert headers["host"].split(":")[0] == tenant.host
        assert "forged" not in str(seen.headers)
    assert tenant.reached("/open/step").target == "/open/step"


def test_http2_body_longer_or_shorter_than_announced(platform, tenant):
    hidden = HIDDEN.replace(b"@HOST@", tenant.host.encode())
    for length in (0, 1, len(hidden) - 1, len(hidden) + 1):
        platform.backend.clear()
        with Http2(tenant.gateway.address2) as connection:
            stream = connection.send([(":method", "POST"), (":scheme", "http"),
                                      (":authority", tenant.host), (":path", "/open"),
                                      ("content-length", str(length))], hidden)
            status, _, _ = connection.response(stream)
        assert status in (None, 400), (length, status)
        assert not [s for s in platform.backend.seen if s.target != "/open"]
        assert tenant.reached("/open/step").target == "/open/step"


def test_interleaved_clients_never_get_each_others_answers(tenant):
    """Two clients with halves of requests in turn over the same worker."""
    with tenant.gateway.connect() as one, tenant.gateway.connect() as two:
        for i in range(20):
            first = wire.compose("POST", f"/open/one{i}", {"Host": tenant.host}, b"1" * 2000)
            second = wire.compose("POST", f"/open/two{i}", {"Host": tenant.host}, b"2" * 2000)
            one.send(first[:30])
            two.send(second[:1500])
            one.send(first[30:])
            two.send(second[1500:])
            assert one.response().json()["target"] == f"/open/one{i}"
            assert two.response().json()["target"] == f"/open/two{i}"
