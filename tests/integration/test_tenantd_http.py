# SPDX-License-Identifier: BSD-2-Clause
"""HTTP as an attacker or a broken client speaks it to tenantd."""

import json
import socket
import time

import pytest

from support import wire
from support.poll import until
from tenantd_fixture import PROBLEM, admin, daemon  # noqa: F401

CONFIG = """
[http]
request_timeout = 2s
keepalive_timeout = 5s
max_header = 8k
max_body = 64k
import_max_body = 1m
imports = 1
max_connections = 40
"""

JSON = b"Content-Type: application/json\r\n"


def raw(daemon, data, **more):
    return wire.exchange(daemon.socket, data, timeout=5, **more)


def refused(responses, *statuses):
    """Exactly one answer, a problem document, and the connection is closed."""
    assert len(responses) == 1, responses
    answer = responses[0]
    assert answer.status in (statuses or (400,)), answer
    assert answer.headers["content-type"] == PROBLEM
    assert answer.problem and answer.json()["detail"]
    return answer


def post(body, *headers):
    return b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\n" + JSON + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


HEALTH = b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_pipelined_requests_are_answered_in_order(daemon):
    many = b"".join(b"GET /v1/tenants?limit=1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: n%d\r\n\r\n" % n for n in range(20))
    answers = raw(daemon, many + LAST)
    assert [a.status for a in answers] == [200] * 21
    assert [a.headers["x-request-id"] for a in answers[:20]] == [f"n{n}" for n in range(20)]


def test_pipelined_requests_with_bodies(daemon):
    bodies = [json.dumps({"name": f"pipe{n}"}).encode() for n in range(5)]
    data = b"".join(post(b, b"Content-Length: %d" % len(b)) for b in bodies)
    chunked = b"POST /v1/tenants HTTP/1.1\r\nHost: x\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n" \
        + wire.chunked(b'{"name":', b' "pipe-chunked"}')
    answers = raw(daemon, data + chunked + LAST)
    assert [a.status for a in answers] == [201] * 6 + [200]


SMUGGLING = {
    "both lengths": (b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "both, other order": (b"Transfer-Encoding: chunked", b"Content-Length: 4"),
    "two lengths": (b"Content-Length: 4", b"Content-Length: 44"),
    "the same length twice": (b"Content-Length: 4", b"Content-Length: 4"),
    "list of lengths": (b"Content-Length: 4, 4",),
    "negative length": (b"Content-Length: -1",),
    "signed length": (b"Content-Length: +4",),
    "hex length": (b"Content-Length: 0x4",),
    "no length": (b"Content-Length: ",),
    "huge length": (b"Content-Length: 99999999999999999999",),
    "length with a blank": (b"Content-Length: 4 4",),
    "blank before the colon": (b"Content-Length : 4",),
    "tab before the colon": (b"Transfer-Encoding\t: chunked",),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked",),
    "chunked not last": (b"Transfer-Encoding: chunked, gzip",),
    "unknown coding": (b"Transfer-Encoding: gzip",),
    "coding before chunked": (b"Transfer-Encoding: gzip, chunked",),
    "obfuscated coding": (b"Transfer-Encoding: xchunked",),
    "quoted coding": (b'Transfer-Encoding: "chunked"',),
    "coding in two fields": (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "folded field": (b"Content-Length: 4", b"X-A: b\r\n Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "no name": (b": x",),
    "no colon": (b"nonsense",),
    "control characters": (b"X-A: a\x01b",),
    "two hosts": (b"Host: y",),
}


@pytest.mark.parametrize("headers", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_can_be_read_in_two_ways_is_refused(daemon, admin, headers):
    """Nothing behind such a request may be taken for a request of its own."""
    hidden = b"POST /v1/tenants/none/suspend HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n"
    refused(raw(daemon, post(b"0\r\n\r\n" + hidden, *headers)), 400, 413)
    assert "smuggled" not in daemon.log.text


CHUNKS = {
    "no number": b"x\r\n{}\r\n0\r\n\r\n", "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "huge": b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n", "larger than allowed": b"fffff\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_bad_chunks(daemon, body):
    refused(raw(daemon, post(body, b"Transfer-Encoding: chunked")), 413)


def test_a_chunk_size_without_end_is_bounded(daemon):
    refused(raw(daemon, post(b"0" * (1 << 20), b"Transfer-Encoding: chunked")), 413)


BROKEN = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n",
    b"get / HTTP/1.1 \x00\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"/ GET HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost\r\n\r\n",
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_broken_requests(daemon, data):
    answers = raw(daemon, data)
    assert len(answers) <= 1
    for answer in answers:
        assert answer.status in (400, 501), answer
        assert answer.headers["content-type"] == PROBLEM


def test_unknown_method(daemon):
    assert refused(raw(daemon, b"BREW /v1/tenants HTTP/1.1\r\nHost: x\r\n\r\n"), 501).problem == "method-unknown"
    assert refused(raw(daemon, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).problem


def test_heads_are_bounded(daemon):
    refused(raw(daemon, b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n"))
    refused(raw(daemon, b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"))
    refused(raw(daemon, b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 2000 + b"\r\n"))
    refused(raw(daemon, b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100000))


def test_bodies_are_bounded(daemon):
    assert refused(raw(daemon, post(b"", b"Content-Length: 65537")), 413).problem == "body-too-large"
    assert refused(raw(daemon, post(b"", b"Content-Length: 65537", b"Expect: 100-continue")), 413)
    many = post(wire.chunked(*[b"x" * 1000] * 100), b"Transfer-Encoding: chunked")
    assert refused(raw(daemon, many), 413).problem == "body-too-large"


def test_expect(daemon):
    body = b'{"name": "expect"}'
    with wire.Connection(daemon.socket) as connection:
        connection.send(post(b"", b"Content-Length: %d" % len(body), b"Expect: 100-continue"))
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        connection.send(body)
        assert connection.response().status == 201
    odd = post(b"{}", b"Content-Length: 2", b"Expect: the-spanish-inquisition")
    assert refused(raw(daemon, odd), 417).problem == "expectation-failed"


def test_an_import_may_be_larger_and_only_one_at_a_time(daemon):
    def head(length, more=b""):
        return (b"POST /v1/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/jsonl\r\n"
                b"Content-Length: %d\r\n%s\r\n" % (length, more))
    line = b'{"name": "large"}\n' + b" " * 1000 + b"\n" * 100000
    with wire.Connection(daemon.socket) as first:
        first.send(head(len(line), b"Expect: 100-continue\r\n"))
        assert first.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")       # so its head has been read
        first.send(line[:10])
        with wire.Connection(daemon.socket) as second:
            second.send(head(len(line)) + line)
            answer = second.response()
            assert answer.status == 503 and answer.problem == "overloaded"
            assert answer.headers["retry-after"]
        first.send(line[10:])
        answer = first.response()
        assert answer.status == 200 and answer.json()["status"] == 201
        # the place is free again, on the same connection too
        first.send(head(len(line)) + line)
        assert first.response().json()["status"] == 409
    refused(raw(daemon, head(2 << 20)), 413)


def test_slow_requests_have_a_deadline(daemon):
    """A byte now and then does not keep a request alive."""
    begin = time.monotonic()
    with wire.Connection(daemon.socket) as connection:
        connection.send(b"GET /v1/healthz HTTP/1.1\r\n")
        connection.socket.setblocking(False)

        def trickle():
            try:
                connection.send(b"X: y\r\n")
                connection.buffer += connection.socket.recv(4096)
            except BlockingIOError:
                pass
            return b"408" in connection.buffer
        until(trickle, "408 Request Timeout", every=0.1)
    assert time.monotonic() - begin > 1.9
    with wire.Connection(daemon.socket) as connection:
        connection.send(post(b'{"na', b"Content-Length: 100"))
        assert refused([connection.response()], 408).problem == "request-timeout"
        assert connection.ended()


def test_silence_ends(daemon):
    with wire.Connection(daemon.socket) as connection:
        assert connection.ended()
    with wire.Connection(daemon.socket) as connection:
        connection.send(HEALTH)
        assert connection.response().status == 200
        assert connection.ended()


def test_absolute_form_and_http_1_0(daemon):
    assert raw(daemon, b"GET http://x/v1/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[0].status == 200
    answers = raw(daemon, b"GET /v1/healthz HTTP/1.0\r\n\r\n")
    assert [a.status for a in answers] == [200]
    answers = raw(daemon, b"GET /v1/healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert [a.status for a in answers] == [200, 200]


def test_bodies_where_none_can_be(daemon):
    hidden = b"POST /v1/tenants/none/suspend HTTP/1.1\r\nHost: x\r\nX-Request-Id: hidden\r\n\r\n"
    answers = raw(daemon, b"HEAD /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden,
                  methods=["HEAD"])
    assert [a.status for a in answers] == [400]
    assert "hidden" not in daemon.log.text


def test_clients_that_go_away(daemon):
    """In the middle of a request, and before its answer; tenantd goes on."""
    for data in (b"GE", b"GET /v1/tenants HTTP/1.1\r\nHost: x\r\n", post(b'{"na', b"Content-Length: 100"),
                 b"GET /v1/tenants HTTP/1.1\r\nHost: x\r\n\r\n" * 50, post(b'{"name": "x"}', b"Content-Length: 13"),
                 b"GET /v1/watch?for=x HTTP/1.1\r\nHost: x\r\n\r\n"):
        for _ in range(5):
            connection = wire.Connection(daemon.address)
            connection.send(data)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
    assert raw(daemon, LAST)[0].status == 200


def test_more_connections_than_allowed_wait(daemon):
    crowd = [wire.Connection(daemon.socket) for _ in range(40)]
    try:
        with wire.Connection(daemon.socket, 10) as waiting:
            waiting.send(LAST)
            for connection in crowd[:20]:
                connection.close()
            assert waiting.response().status == 200
    finally:
        for connection in crowd:
            connection.close()


def test_log_lines_cannot_be_forged(daemon):
    raw(daemon, b"GET /v1/%0a2030-01-01T00:00:00.000Z%20[alert]%20fake HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    raw(daemon, b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x1b[31m\r\nConnection: close\r\n\r\n")
    assert "\x1b" not in daemon.log.text
    assert not [line for line in daemon.log.text.splitlines() if line.startswith("2030")]
