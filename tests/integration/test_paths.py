# SPDX-License-Identifier: BSD-2-Clause
"""Path tricks: what was matched and authorised is what the backend gets."""

import re
import urllib.parse

import pytest

from support import wire
from support.platform import route

GATEWAY = {
    "servers": """
    server {
        listen unix:@PATH@/slashes.sock;
        merge_slashes off;
        location / {
            tenant host; tenant_auth on; tenant_quota on;
            proxy_pass http://tenants;
        }
    }
    """,
}


@pytest.fixture(scope="module")
def tenant(platform, gateway):
    """/public is open, /private needs a credential, and so does /exact alone."""
    return platform.onboard(routes=[
        route("public", path="/public", auth="none"),
        route("private", path="/private", auth="required"),
        route("exact", path="/exact", type="exact", auth="required"),
        route("digits", path="/n/[0-9]+", type="regex", auth="none"),
        route("v2", path="/new", auth="none", rewrite={"type": "replace_prefix", "value": "/old"}),
        route("bare", path="/strip", auth="none", rewrite={"type": "strip_prefix"}),
        route("fixed", path="/fix", auth="none", rewrite={"type": "replace_path", "value": "/a b"
                                                          .replace(" ", "%20")}),
    ])


@pytest.mark.parametrize("sent, got", [
    ("/public", "/public"),
    ("/public/", "/public/"),
    ("/public/a", "/public/a"),
    ("//public/a", "/public/a"),
    ("///public///a", "/public/a"),
    ("/public//a//", "/public/a/"),
    ("/./public/a", "/public/a"),
    ("/public/./a/.", "/public/a/"),
    ("/public/x/../a", "/public/a"),
    ("/public/x/..", "/public/"),
    ("/private/../public/a", "/public/a"),
    ("/public/%61", "/public/a"),
    ("/%70ublic/a", "/public/a"),
    ("/public/%2e/a", "/public/a"),
    ("/public/x/%2e%2E/a", "/public/a"),
    ("/public/x/.%2e/a", "/public/a"),
    ("/public/a%2fb", "/public/a/b"),
    ("/public/a%2Fb%2F", "/public/a/b/"),
    ("/public%2fa", "/public/a"),
    ("/public/x%2f..%2fa", "/public/a"),
    ("/public/a%20b", "/public/a%20b"),
    ("/public/a+b", "/public/a+b"),
    ("/public/a%3fb", "/public/a%3Fb"),
    ("/public/a%3Fb?c=d", "/public/a%3Fb?c=d"),
    ("/public/a%23b", "/public/a%23b"),
    ("/public/a%25b", "/public/a%25b"),
    ("/public/%252e%252e/private", "/public/%252e%252e/private"),
    ("/public/%25252e", "/public/%25252e"),
    ("/public/...", "/public/..."),
    ("/public/..a", "/public/..a"),
    ("/public/a;v=1/b", "/public/a;v=1/b"),
    ("/public/a:b@c&d=e,f$g!h*i'j(k)", "/public/a:b@c&d=e,f$g!h*i'j(k)"),
    ("/public/%e4%bd%a0", "/public/%E4%BD%A0"),
    ("/public/%0d%0aX-Evil:%201", "/public/%0D%0AX-Evil:%201"),
    ("/public/%7f", "/public/%7F"),
    ("/public?", "/public?"),
    ("/public?a=/../private", "/public?a=/../private"),
    ("/public?a=%2e%2e%2f&b=%00", "/public?a=%2e%2e%2f&b=%00"),
    ("/public?a?b?c", "/public?a?b?c"),
    ("/public#/../private", "/public"),
    ("/n/42", "/n/42"),
    ("/n/%34%32", "/n/42"),
    ("/n/./42", "/n/42"),
])
def test_normalised_once_for_both(tenant, sent, got):
    reached = tenant.reached(sent)
    # whether a lone "?" is kept says nothing about where the request goes
    assert reached.target in (got, got.removesuffix("?"))


LEAVES_THE_ROOT = ["/public/../..//private", "/../private", "/../../private", "/private/..%2f..%2fprivate"]


@pytest.mark.parametrize("sent", LEAVES_THE_ROOT + [
    "/private", "/private/", "/private/x", "//private", "/./private", "/public/../private",
    "/public/./../private/x", "/public//../private", "/public/%2e%2e/private",
    "/public/%2E%2E/private", "/public/.%2e/private", "/public/%2e./private",
    "/public/..%2fprivate", "/public%2f..%2fprivate", "/public%2F%2e%2e%2Fprivate",
    "/%70rivate", "/%70%72%69%76%61%74%65", "/private%2fx", "/private%2f", "/private/%2e",
    "/private/../private", "/public/../public/../private", "/x/y/../../private",
    "/private?x", "/private#x", "/public/x/../../private",
    "/public/..//private", "/private//", "/private/./x", "/exact", "/%65xact", "//exact",
    "/exact?x", "/x/../exact", "/exact#",
])
def test_no_spelling_goes_past_the_guard(platform, tenant, sent):
    """Without a credential: 401 from the private route, or 400 for leaving the root."""
    platform.backend.clear()
    response = tenant.get(sent)
    if sent in LEAVES_THE_ROOT:
        assert response.status in (400, 401)
    else:
        assert (response.status, response.problem) == (401, "no-credential"), response
    assert not platform.backend.seen


@pytest.mark.parametrize("sent", [
    "/private", "//private//x", "/public/../private/x", "/%70rivate/%2e/x", "/exact",
    "/private/a%3fb?c#d",
])
def test_with_a_credential_the_same_reach_the_backend_normalised(tenant, sent):
    target = tenant.reached(sent, key=tenant.key).target
    path = urllib.parse.urlsplit(target).path
    assert path == "/exact" or path.split("/")[1] == "private"
    assert "//" not in path and "%2e" not in path.lower()


# Neither private nor public as they stand.  They may be refused or not found; if
# some upstream reads them as private, that must not help.
AMBIGUOUS = [
    "/public/..;/private", "/public/..;x/private", "/public/.;/../private", "/public/;/../private",
    "/public/..%3b/private", "/public/%2e%2e;/private", "/public/..;%2fprivate", "/;/private",
    "/private;x", "/private;/x", "/;x/private", "/private%00", "/public/%00/../private",
    "/public/..%00/private", "/public%00/private", "/private%20", "/private%09",
    "/public/%c0%ae%c0%ae/private", "/public/%c0%ae%c0%ae%c0%afprivate", "/public/%e0%80%ae/private",
    "/public/%e0%80%ae%e0%80%ae/private", "/public/%f0%80%80%ae%f0%80%80%ae/private",
    "/%c0%afprivate", "/public/%u002e%u002e/private", "/public/%uff0e%uff0e/private",
    "/public/..\\private", "/public\\..\\private", "/public/%5c..%5cprivate",
    "/public/..%5cprivate", "/public/%2e%2e%5cprivate", "/public/..%255cprivate",
    "/PRIVATE", "/Private", "/private.", "/private/..", "/exact/", "/exactly", "/privatex",
    "/public/%", "/public/%2", "/public/%zz", "/public/%2e%2e%", "/public/\x7f", "/public/\xe9",
    "/public/%ff%fe", "/public/%ed%a0%80", "/n/42x", "/n/4%0a2", "/n/42%0a", "/n/42/x", "/n/",
    "/public/%0a/../private", "/public/%2e%2e%00/private", "*", "/public/../", "/..", "/.",
    "/public/../../../../etc/passwd", "/public/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "public", "?x", "#", ";", "/public/ ", "\\public",
]


@pytest.mark.parametrize("sent", AMBIGUOUS)
def test_ambiguous_paths(platform, tenant, sent):
    """Without a credential nothing reaches the backend that a reading of the path
    in the manner of some server (Tomcat's parameters, IIS's backslashes, twice
    decoded dots left aside) turns into /private or /exact."""
    platform.backend.clear()
    data = (b"GET " + sent.encode("latin-1") + b" HTTP/1.1\r\nHost: " + tenant.host.encode() +
            b"\r\nConnection: close\r\n\r\n")
    response = wire.exchange(tenant.gateway.address, data)[0]
    assert response.status in (200, 400, 401, 404), response
    for seen in platform.backend.seen:
        assert_safe(seen.target)


def assert_safe(target):
    path = target.split("?")[0]
    assert re.fullmatch(r"/(public|n/[0-9]+|old|a%20b)(/.*)?|/", path), path
    assert not re.search(r"//|/\.{1,2}(/|$)|%2f|%2e|%00|[\x00-\x20\x7f-\xff\\]", path, re.I), path
    decoded = urllib.parse.unquote_to_bytes(path)
    segments = [segment.split(b";")[0] for segment in decoded.replace(b"\\", b"/").split(b"/")]
    assert b".." not in segments and b"." not in segments, path


@pytest.mark.parametrize("sent, got", [
    ("/new", "/old"), ("/new/", "/old/"), ("/new/x/y", "/old/x/y"), ("/new//x", "/old/x"),
    ("/new/%3f?q=1", "/old/%3F?q=1"), ("/new/a%25", "/old/a%25"),
    ("/new/x?a=b&c", "/old/x?a=b&c"), ("/%6eew/x", "/old/x"),
    ("/strip", "/"), ("/strip/", "/"), ("/strip/x", "/x"), ("/strip/x/", "/x/"),
    ("/strip?q", "/?q"), ("/strip/%2fevil.example", "/evil.example"),
    ("/strip//evil.example", "/evil.example"),
])
def test_rewrites_start_from_the_normalised_path(tenant, sent, got):
    target = tenant.reached(sent).target
    assert target == got
    assert not target.startswith("//")


def test_rewrite_to_a_fixed_path_is_sent_as_configured(tenant):
    """The configured value is a path, and is escaped as paths are."""
    target = tenant.reached("/fix/anything?q=1").target
    assert target in ("/a%20b?q=1", "/a%2520b?q=1")


def test_merge_slashes_off_opens_no_way_round(platform, tenant):
    """nginx then leaves // in the path; most upstreams do not."""
    socket = f"{tenant.gateway.path}/slashes.sock"
    for sent in ["//private", "/public/..//private", "/private//x", "//private//", "///exact"]:
        platform.backend.clear()
        response = wire.request(socket, "GET", sent, {"Host": tenant.host})
        assert response.status in (400, 401, 404), (sent, response)
        assert not platform.backend.seen, sent


def test_long_paths(tenant):
    long = "/public/" + "a" * 6000
    assert tenant.reached(long).target == long
    encoded = "/public/" + "%41" * 2000
    assert tenant.reached(encoded).target == "/public/" + "A" * 2000
    grows = "/public/" + "%25" * 2000
    assert tenant.reached(grows).target == grows
    assert tenant.get("/public/" + "a" * 20000).status == 414


def test_deep_paths_are_no_work(tenant):
    assert tenant.reached("/public" + "/a/.." * 1000).target == "/public/"
    assert tenant.reached("/public" + "/." * 2000 + "/x").target == "/public/x"


def test_http2_paths(platform, tenant):
    from support.http2 import get
    for sent in ["/public/../private", "/public/%2e%2e/private", "//private", "/private#", "/private?"]:
        platform.backend.clear()
        status, _, _ = get(tenant.gateway.address2, tenant.host, sent)
        assert status == 401, sent
        assert not platform.backend.seen
    for sent in ["private", "", "*", "/public\r\n/../private", "/public /../private", "/public\x00"]:
        platform.backend.clear()
        status, _, _ = get(tenant.gateway.address2, tenant.host, sent)
        assert status in (None, 400, 401, 404), sent
        for seen in platform.backend.seen:
            assert_safe(seen.target)
