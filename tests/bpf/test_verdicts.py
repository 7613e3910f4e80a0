# SPDX-License-Identifier: BSD-2-Clause
"""Every cell of the verdict table: who calls, what the tenants say, what comes of it."""

import re

import pytest

from support.mesh import (AT_CONNECT, AT_SENDMSG, DEFAULTS, FROM_HOST, FROM_OTHER, FROM_OUTSIDE, FROM_SAME, HOST,
                          TO_OTHER, TO_OUTSIDE, TO_SAME, UDP, WHY, policy)

ORDERS, SHOP, GATEWAY, STRANGER = 11, 12, 13, 21
PLACES = {"orders": (1, ORDERS), "shop": (1, SHOP), "gateway": (1, GATEWAY), "stranger": (2, STRANGER)}
V4 = {name: f"10.77.0.{i}" for i, name in enumerate(PLACES, 1)}
V6 = {name: f"fd77::{i:x}" for i, name in enumerate(PLACES, 1)}
VIRTUAL = {"v4": "10.96.0.1", "v6": "fd96::1", "mapped": "::ffff:10.96.0.1"}
EMPTY = "10.96.0.2"
NODE = {"v4": "10.78.0.2", "v6": "fd78::2", "mapped": "::ffff:10.78.0.2"}
# Nets of policies, and what is the same in IPv6.
NETS = {"10.0.0.0/8": "fd00::/8", "10.78.0.0/24": "fd78::/64", "10.78.0.0/30": "fd78::/126", "10.78.0.2/32": "fd78::2/128",
        "10.79.0.0/24": "fd79::/64"}
DROPPED = 0.4            # s, in which an answer would have come


@pytest.fixture(scope="module")
def cast(stage, namespaces):
    cgroups = {name: stage.cgroup(name) for name in PLACES}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    for name, actor in actors.items():
        actor.live_at(V4[name], V6[name])
    actors["outside"] = stage.actor(stage.outside, namespaces[1])
    actors["orders"].listen("v4", V4["orders"], 8080)
    actors["orders"].listen("v6", V6["orders"], 8080)
    actors["orders"].udp("udp", V4["orders"], 8053)
    actors["orders"].udp("udp6", V6["orders"], 8053)
    actors["stranger"].listen("v4", V4["stranger"], 8080)
    actors["outside"].listen("v4", NODE["v4"], 9000)
    actors["outside"].listen("v6", NODE["v6"], 9000)
    stage.start(rate=100000, burst=100000)
    mesh = stage.mesh
    mesh.tenant(1)
    mesh.tenant(2)
    for name, (tenant, service) in PLACES.items():
        mesh.workload(cgroups[name], tenant, service, V4[name], V6[name])
        mesh.address(V4[name], tenant, service)
        mesh.address(V6[name], tenant, service)
    mesh.service(1, ORDERS, VIRTUAL["v4"], 80, (V4["orders"], 8080))
    mesh.service(1, ORDERS, VIRTUAL["v6"], 80, (V6["orders"], 8080))
    mesh.service(1, ORDERS, VIRTUAL["v4"], 53, (V4["orders"], 8053), proto=UDP)
    mesh.service(1, ORDERS, VIRTUAL["v6"], 53, (V6["orders"], 8053), proto=UDP)
    mesh.service(1, ORDERS, EMPTY, 80)
    mesh.service(2, STRANGER, "10.96.0.3", 80, (V4["stranger"], 8080))
    stage.attach()
    return actors


def allow(peer="any", **kwargs):
    return policy("allow", peer, **kwargs)


def deny(peer="any", **kwargs):
    return policy("deny", peer, **kwargs)


def of_family(policies, family):
    """Policies are written with nets of IPv4."""
    if family != "v6":
        return policies
    return [re.sub(r"net=([^|]+)", lambda found: f"net={NETS[found[1]]}", words) for words in policies]


# Caller, policies of tenant 1, its defaults, reason.
CALLS = [
    ("same tenant", "shop", [], DEFAULTS, "SAME_TENANT"),
    ("other tenant", "stranger", [], DEFAULTS, "DENY_OTHER_TENANT"),
    ("other tenants allowed", "stranger", [], DEFAULTS | FROM_OTHER, "OTHER_TENANT"),
    ("same tenant denied", "shop", [], DEFAULTS & ~FROM_SAME, "DENY_SAME_TENANT"),
    ("only the gateway: it", "gateway", [allow("service=13")], DEFAULTS & ~FROM_SAME, "RULE"),
    ("only the gateway: another", "shop", [allow("service=13")], DEFAULTS & ~FROM_SAME, "DENY_SAME_TENANT"),
    ("tenant by policy", "stranger", [allow("tenant=2")], DEFAULTS, "RULE"),
    ("service of another tenant", "stranger", [allow("service=21")], DEFAULTS, "RULE"),
    ("another service of it", "stranger", [allow("service=22")], DEFAULTS, "DENY_OTHER_TENANT"),
    ("anybody", "stranger", [allow()], DEFAULTS, "RULE"),
    ("own tenant denied by policy", "shop", [deny("tenant=1")], DEFAULTS, "DENY_RULE"),
    ("deny over allow", "shop", [allow("service=12"), deny("tenant=1", number=2)], DEFAULTS, "DENY_RULE"),
    ("deny over allow, same words", "shop", [allow(), deny(number=2)], DEFAULTS, "DENY_RULE"),
    ("precedence over deny", "shop", [allow("tenant=1", precedence=101), deny("service=12", number=2)], DEFAULTS,
     "RULE"),
    ("precedence over allow", "shop", [allow("tenant=1", precedence=99), deny(number=2)], DEFAULTS, "DENY_RULE"),
    ("service of the policy", "shop", [deny(service=ORDERS)], DEFAULTS, "DENY_RULE"),
    ("another service's policy", "shop", [deny(service=GATEWAY)], DEFAULTS, "SAME_TENANT"),
    ("port and protocol", "shop", [deny(proto=6, port=8080)], DEFAULTS, "DENY_RULE"),
    ("another port", "shop", [deny(proto=6, port=8081)], DEFAULTS, "SAME_TENANT"),
    ("any port", "shop", [deny(proto=6)], DEFAULTS, "DENY_RULE"),
    ("another protocol", "shop", [deny(proto=17)], DEFAULTS, "SAME_TENANT"),
    ("any protocol", "shop", [deny(port=8080)], DEFAULTS, "DENY_RULE"),
    ("nets are not for the mesh", "shop", [deny("net=0.0.0.0/0"), deny("net=::/0", number=2)], DEFAULTS,
     "SAME_TENANT"),
    ("calls out of the service", "shop", [deny("service=11", direction="out", service=SHOP)], DEFAULTS, "DENY_RULE"),
    ("calls out of another", "shop", [deny("service=11", direction="out", service=GATEWAY)], DEFAULTS,
     "SAME_TENANT"),
    ("calls within the tenant", "shop", [], DEFAULTS & ~TO_SAME, "DENY_TO_SAME"),
]


@pytest.mark.parametrize("family", VIRTUAL)
@pytest.mark.parametrize("caller, policies, defaults, reason", [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_call(stage, cast, family, caller, policies, defaults, reason):
    stage.mesh.tenant(1, *policies, defaults=defaults)
    stage.mesh.events()
    answer = cast[caller].connect("c", VIRTUAL[family], 80)
    if reason.startswith("DENY"):
        assert answer == "EPERM"
        assert stage.why(hook=AT_CONNECT) == [WHY[reason]]
    else:
        assert answer == (VIRTUAL[family], 80)
        cast["orders"].accept("a", "v6" if family == "v6" else "v4")
        (opened,) = stage.mesh.events(type=1)
        assert opened["reason"] == WHY[reason]
        assert opened["src"] == list(PLACES[caller]) and opened["dst"] == [1, ORDERS]
        cast[caller].close("c")
        cast["orders"].close("a")


# What outsiders get is decided where they arrive.  flags: of their address.
ARRIVALS = [
    ("outside", 0, [], DEFAULTS, "DENY_FROM_OUTSIDE"),
    ("outside allowed", 0, [], DEFAULTS | FROM_OUTSIDE, None),
    ("a node", HOST, [], DEFAULTS, None),
    ("nodes denied", HOST, [], DEFAULTS & ~FROM_HOST, "DENY_FROM_HOST"),
    ("net", 0, [allow("net=10.78.0.0/24")], DEFAULTS, None),
    ("another net", 0, [allow("net=10.79.0.0/24")], DEFAULTS, "DENY_FROM_OUTSIDE"),
    ("net in a net", 0, [allow("net=10.0.0.0/8"), deny("net=10.78.0.2/32", number=2)], DEFAULTS, "DENY_RULE"),
    ("net around a net", 0, [deny("net=10.0.0.0/8", precedence=200), allow("net=10.78.0.0/30", number=2)], DEFAULTS,
     "DENY_RULE"),
    ("services are not for outsiders", 0, [allow("service=12")], DEFAULTS, "DENY_FROM_OUTSIDE"),
    ("anybody", 0, [allow()], DEFAULTS, None),
]


@pytest.mark.parametrize("family, orders", [("v4", V4["orders"]), ("v6", V6["orders"])])
@pytest.mark.parametrize("flags, policies, defaults, reason", [a[1:] for a in ARRIVALS], ids=[a[0] for a in ARRIVALS])
def test_arrival(stage, cast, family, orders, flags, policies, defaults, reason):
    stage.mesh.address(NODE[family], 0, 0, flags)
    stage.mesh.tenant(1, *of_family(policies, family), defaults=defaults)
    stage.mesh.events()
    answer = cast["outside"].connect("c", orders, 8080, bind=(NODE[family], 0), timeout=DROPPED if reason else 3)
    if reason:
        assert answer == "TIMEOUT"
        assert stage.why(hook=3) == [WHY[reason]]
    else:
        assert answer == (orders, 8080)
        cast["orders"].accept("a", family)
        cast["outside"].close("c")
        cast["orders"].close("a")
    stage.mesh.say("delete-address", NODE[family])


def test_identity_by_address(stage, cast):
    """From a node whose connects nobody checked, the source address tells."""
    stage.mesh.tenant(1)
    stage.mesh.address(NODE["v4"], 2, STRANGER)
    assert cast["outside"].connect("c", V4["orders"], 8080, timeout=DROPPED) == "TIMEOUT"
    assert stage.why(hook=3) == [WHY["DENY_OTHER_TENANT"]]
    stage.mesh.address(NODE["v4"], 1, SHOP)
    assert cast["outside"].connect("c", V4["orders"], 8080) == (V4["orders"], 8080)
    cast["orders"].accept("a", "v4")
    (accepted,) = stage.mesh.events(type=2)
    assert accepted["src"] == [1, SHOP] and accepted["from"][0] == NODE["v4"]
    cast["outside"].close("c")
    cast["orders"].close("a")
    stage.mesh.say("delete-address", NODE["v4"])
    stage.mesh.address("10.78.0.0/24", 1, SHOP)
    assert cast["outside"].connect("c", V4["orders"], 8080) == (V4["orders"], 8080)
    cast["orders"].accept("a", "v4")
    cast["outside"].close("c")
    cast["orders"].close("a")
    stage.mesh.say("delete-address", "10.78.0.0/24")


LEAVING = [
    ("outside the mesh", [], DEFAULTS, None),
    ("calls out denied", [], DEFAULTS & ~TO_OUTSIDE, "DENY_TO_OUTSIDE"),
    ("net denied", [deny("net=10.78.0.0/24", direction="out")], DEFAULTS, "DENY_RULE"),
    ("net allowed", [allow("net=10.78.0.0/24", direction="out")], DEFAULTS & ~TO_OUTSIDE, None),
    ("port of it", [allow("net=10.78.0.0/24", direction="out", proto=6, port=9001)], DEFAULTS & ~TO_OUTSIDE,
     "DENY_TO_OUTSIDE"),
]


@pytest.mark.parametrize("family", NODE)
@pytest.mark.parametrize("policies, defaults, reason", [c[1:] for c in LEAVING], ids=[c[0] for c in LEAVING])
def test_leaving(stage, cast, family, policies, defaults, reason):
    stage.mesh.tenant(1, *of_family(policies, family), defaults=defaults)
    stage.mesh.events()
    answer = cast["shop"].connect("c", NODE[family], 9000)
    assert answer == ("EPERM" if reason else (NODE[family], 9000))
    if reason:
        assert stage.why(hook=AT_CONNECT) == [WHY[reason]]
    else:
        cast["outside"].accept("a", "v6" if family == "v6" else "v4")
        cast["shop"].close("c")
        cast["outside"].close("a")


def test_other_tenants_service(stage, cast):
    stage.mesh.tenant(2, defaults=DEFAULTS | FROM_OTHER)
    stage.mesh.tenant(1)
    assert cast["shop"].connect("c", "10.96.0.3", 80) == ("10.96.0.3", 80)
    cast["stranger"].accept("a", "v4")
    cast["shop"].close("c")
    cast["stranger"].close("a")
    stage.mesh.events()
    stage.mesh.tenant(1, defaults=DEFAULTS & ~TO_OTHER)
    assert cast["shop"].connect("c", "10.96.0.3", 80) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_TO_OTHER"]]
    stage.mesh.tenant(2)
    stage.mesh.tenant(1)


def test_service_without_endpoints(stage, cast):
    stage.mesh.events()
    assert cast["shop"].connect("c", EMPTY, 80) == "EPERM"
    assert stage.why(src=[1, SHOP]) == [WHY["DENY_NO_ENDPOINT"]]
    stage.mesh.service(1, ORDERS, EMPTY, 53, proto=UDP)
    cast["shop"].udp("u", V4["shop"])
    assert cast["shop"].sendto("u", b"x", EMPTY, 53) == "EPERM"
    assert stage.why(src=[1, SHOP], hook=AT_SENDMSG) == [WHY["DENY_NO_ENDPOINT"]]


def test_tenant_that_is_not_known_here(stage, cast):
    stage.mesh.say("delete-tenant", 2)
    assert cast["shop"].connect("c", "10.96.0.3", 80) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_NO_TENANT"]]
    stage.mesh.tenant(2)


@pytest.mark.parametrize("policies, reason", [([], None), ([deny(proto=17, port=8053)], "DENY_RULE"),
                                              ([deny(proto=6)], None)])
@pytest.mark.parametrize("family", VIRTUAL)
def test_datagrams(stage, cast, policies, reason, family):
    """Without connect and with it; the answer comes from where it was asked."""
    stage.mesh.tenant(1, *policies)
    stage.mesh.events()
    shop, orders = cast["shop"], cast["orders"]
    server = "udp6" if family == "v6" else "udp"
    for connected in (False, True):
        shop.udp("u", {"v4": V4["shop"], "v6": V6["shop"], "mapped": f"::ffff:{V4['shop']}"}[family])
        if connected:
            answer = shop.connect("u", VIRTUAL[family], 53, kind="udp")
        else:
            answer = shop.sendto("u", b"ask", VIRTUAL[family], 53)
        if reason:
            assert answer == "EPERM"
            continue
        if connected:
            assert answer == (VIRTUAL[family], 53)
            shop.send("u", b"ask")
        data, peer = orders.recvfrom(server)
        assert data == b"ask"
        orders.sendto(server, b"answer", *peer)
        assert shop.recvfrom("u") == (b"answer", (VIRTUAL[family], 53))
        shop.close("u")
    if reason:
        assert stage.why(proto=UDP) == [WHY[reason]]


def test_open_connection_after_a_change(stage, cast):
    """What is denied now does not go on because it began before."""
    stage.mesh.tenant(1)
    cast["shop"].connect("c", VIRTUAL["v4"], 80)
    cast["orders"].accept("a", "v4")
    cast["shop"].send("c", b"one")
    assert cast["orders"].recv("a") == b"one"
    stage.mesh.events()
    stage.mesh.tenant(1, deny("service=12"))
    cast["shop"].send("c", b"two")
    assert cast["orders"].recv("a", DROPPED) == "TIMEOUT"
    assert stage.why(src=[1, SHOP], dst=[1, ORDERS]) == [WHY["DENY_RULE"]]
    stage.mesh.tenant(1)
    assert cast["orders"].recv("a") == b"two"
    cast["shop"].close("c")
    cast["orders"].close("a")


@pytest.mark.parametrize("unknown, answer", [(0, "ok"), (1, "EPERM"), (2, "EPERM")])
def test_unknown_cgroup(stage, cast, namespaces, unknown, answer):
    """A process below the mesh that is no workload, as configured; the rest of the world is open to it."""
    stage.mesh.say("close")
    stage.mesh.open(unknown=unknown, rate=100000, burst=100000)
    who = stage.actor(stage.cgroup(f"nobody{unknown}"))
    got = who.connect("c", VIRTUAL["v4"], 80)
    assert got == ("EPERM" if answer == "EPERM" else (VIRTUAL["v4"], 80))
    if answer == "EPERM":
        assert stage.why(hook=AT_CONNECT) == [WHY["DENY_UNKNOWN_CGROUP" if unknown == 2 else "DENY_FROM_OUTSIDE"]]
    assert who.connect("d", NODE["v4"], 9000) == (NODE["v4"], 9000)
    cast["outside"].accept("a", "v4")
    cast["outside"].close("a")
    stage.mesh.say("close")
    stage.mesh.open(rate=100000, burst=100000)
