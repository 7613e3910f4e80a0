# SPDX-License-Identifier: BSD-2-Clause
"""A compromised workload of tenant 2, with root in its namespace, wants to reach tenant 1."""

import socket
import struct

import pytest

from support.mesh import (AT_CONNECT, AT_EGRESS, AT_INGRESS, AT_SENDMSG, DEFAULTS, FROM_OTHER, HOST, HOST_SOURCE, TCP,
                          UDP, WHY)

ORDERS, SHOP, THIEF = "10.77.0.1", "10.77.0.2", "10.77.0.3"
ORDERS6, SHOP6, THIEF6 = "fd77::1", "fd77::2", "fd77::3"
VIRTUAL = "10.96.0.1"
QUIET = 0.3


@pytest.fixture(scope="module")
def cast(stage, namespaces):
    cgroups = {name: stage.cgroup(name) for name in ("orders", "shop", "thief")}
    actors = {name: stage.actor(cgroup) for name, cgroup in cgroups.items()}
    for name, *addresses in (("orders", ORDERS, ORDERS6), ("shop", SHOP, SHOP6), ("thief", THIEF, THIEF6)):
        actors[name].live_at(*addresses)
    actors["remote"] = stage.actor(stage.outside, namespaces[1])
    actors["orders"].listen("l", ORDERS, 8080)
    actors["orders"].udp("u", ORDERS, 8053)
    actors["orders"].udp("u6", ORDERS6, 8053)
    stage.start(rate=100000, burst=100000)
    mesh = stage.mesh
    mesh.tenant(1)
    mesh.tenant(2)
    for name, tenant, service, *addresses in (("orders", 1, 11, ORDERS, ORDERS6), ("shop", 1, 12, SHOP, SHOP6),
                                              ("thief", 2, 21, THIEF, THIEF6)):
        mesh.workload(cgroups[name], tenant, service, *addresses)
        for address in addresses:
            mesh.address(address, tenant, service)
    mesh.service(1, 11, VIRTUAL, 80, (ORDERS, 8080))
    mesh.service(1, 11, VIRTUAL, 53, (ORDERS, 8053), proto=UDP)
    stage.attach()
    actors["cgroups"] = cgroups
    return actors


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def datagram(source, sport, target, dport, data=b"evil"):
    udp = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                         socket.inet_aton(source), socket.inet_aton(target))
    return header + udp


def datagram6(source, sport, target, dport, options, data=b"evil"):
    """With so many headers of destination options, each of 8 bytes of padding, before it."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    udp = struct.pack("!HHH", sport, dport, 8 + len(data))
    summed = checksum(ends + struct.pack("!II", 8 + len(data), 17) + udp + b"\0\0" + data)
    headers = b"".join(bytes([60 if more else 17, 0, 1, 4, 0, 0, 0, 0]) for more in range(options - 1, -1, -1))
    payload = headers + udp + struct.pack("!H", summed) + data
    return struct.pack("!IHBB", 6 << 28, len(payload), 60 if options else 17, 64) + ends + payload


def test_raw_connect_to_an_endpoint(stage, cast):
    stage.mesh.events()
    assert cast["thief"].connect("c", ORDERS, 8080) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_OTHER_TENANT"]]


def test_mapped_address(stage, cast):
    stage.mesh.events()
    assert cast["thief"].connect("c", f"::ffff:{ORDERS}", 8080) == "EPERM"
    assert cast["thief"].connect("c", f"::ffff:{VIRTUAL}", 80) == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_OTHER_TENANT"]]


@pytest.mark.parametrize("how", ["fast_open", "multipath"])
@pytest.mark.parametrize("address, port", [(ORDERS, 8080), (VIRTUAL, 80), (f"::ffff:{ORDERS}", 8080)])
def test_other_ways_to_connect(stage, cast, how, address, port):
    if how == "multipath" and not hasattr(socket, "IPPROTO_MPTCP"):
        pytest.skip("this Python has no MPTCP")
    stage.mesh.events()
    answer = getattr(cast["thief"], how)(address, port, b"x")
    if answer in ("EPROTONOSUPPORT", "ENOPROTOOPT"):
        pytest.skip("this kernel has no MPTCP")
    assert answer == "EPERM"
    assert stage.why(hook=AT_CONNECT) == [WHY["DENY_OTHER_TENANT"]]
    # The same way is open to whom it may be open.
    assert getattr(cast["shop"], how)(address, port, b"x") == 1
    cast["orders"].accept_all("l")


@pytest.mark.parametrize("address, port", [(ORDERS, 8053), (VIRTUAL, 53)])
def test_datagram_without_connect(stage, cast, address, port):
    stage.mesh.events()
    cast["thief"].udp("d", THIEF)
    assert cast["thief"].sendto("d", b"x", address, port) == "EPERM"
    assert stage.why(hook=AT_SENDMSG) == [WHY["DENY_OTHER_TENANT"]]
    cast["thief"].udp("d6", f"::ffff:{THIEF}")
    assert cast["thief"].sendto("d6", b"x", f"::ffff:{address}", port) == "EPERM"


def test_spoofed_source_of_a_raw_socket(stage, cast):
    stage.mesh.events()
    assert cast["thief"].raw_send(datagram(SHOP, 5000, ORDERS, 8053), ORDERS) == "EPERM"
    (record,) = stage.mesh.events(type=5)
    assert record["hook"] == AT_EGRESS and record["reason"] == WHY["DENY_SPOOFED"]
    assert record["src"] == [2, 21] and record["from"][0] == SHOP
    assert not cast["orders"].peek("u")


@pytest.mark.parametrize("source, options, reason", [(SHOP6, 0, "DENY_SPOOFED"), (THIEF6, 7, "DENY_MALFORMED")])
def test_raw_socket_of_ipv6(stage, cast, source, options, reason):
    """A source that is another's; or headers that no verdict can see through."""
    stage.mesh.events()
    assert cast["thief"].raw_send(datagram6(source, 5000, ORDERS6, 8053, options), ORDERS6) == "EPERM"
    (record,) = stage.mesh.events(type=5)
    assert record["hook"] == AT_EGRESS and record["reason"] == WHY[reason] and record["src"] == [2, 21]
    assert not cast["orders"].peek("u6")


@pytest.mark.parametrize("options", [0, 3])
def test_own_source_of_a_raw_socket_of_ipv6(stage, cast, options):
    stage.mesh.events()
    cast["thief"].raw_send(datagram6(THIEF6, 5000, ORDERS6, 8053, options), ORDERS6)
    assert stage.why(hook=AT_INGRESS) == [WHY["DENY_OTHER_TENANT"]]
    assert not cast["orders"].peek("u6")
    # From whom it may come, it comes: what was refused was not refused for its form.
    cast["shop"].raw_send(datagram6(SHOP6, 5000, ORDERS6, 8053, options), ORDERS6)
    assert cast["orders"].recv("u6") == b"evil"


def test_own_source_of_a_raw_socket(stage, cast):
    """Around sendmsg's check: the destination judges."""
    stage.mesh.events()
    cast["thief"].raw_send(datagram(THIEF, 5000, ORDERS, 8053), ORDERS)
    assert stage.why(hook=AT_INGRESS) == [WHY["DENY_OTHER_TENANT"]]
    assert not cast["orders"].peek("u")


def test_bound_to_another_address(stage, cast):
    """What bind() allows, the way out does not."""
    cast["thief"].udp("s", SHOP, 5001)
    stage.mesh.events()
    assert cast["thief"].sendto("s", b"x", "10.78.0.2", 9) == "EPERM"
    assert stage.why(hook=AT_EGRESS) == [WHY["DENY_SPOOFED"]]


def test_cgroups_of_its_own(stage, cast):
    """A workload stays what it is in cgroups that it makes below its own."""
    deeper = cast["cgroups"]["thief"].child("a").child("b")
    cast["thief"].move(str(deeper.path))
    stage.mesh.events()
    assert cast["thief"].connect("c", VIRTUAL, 80) == "EPERM"
    (record,) = stage.mesh.events(type=5)
    assert record["src"] == [2, 21]
    cast["thief"].move(str(cast["cgroups"]["thief"].path))


def test_socket_from_before_a_move(stage, cast):
    """Who calls counts, not where the socket was made; and the sender of packets is the socket's cgroup."""
    cast["thief"].udp("moved", THIEF)
    cast["thief"].move(str(cast["cgroups"]["shop"].path))
    stage.mesh.events()
    cast["thief"].sendto("moved", b"x", ORDERS, 8053)
    assert stage.why(hook=AT_INGRESS) == [WHY["DENY_OTHER_TENANT"]]
    assert not cast["orders"].peek("u")
    cast["thief"].move(str(cast["cgroups"]["thief"].path))


def test_from_a_node_without_agent(stage, cast, namespaces):
    """The address of another tenant's workload elsewhere: no connect was checked there."""
    stage.mesh.address("10.78.0.2", 2, 21)
    stage.mesh.events()
    assert cast["remote"].connect("c", ORDERS, 8080, timeout=QUIET) == "TIMEOUT"
    assert stage.why(hook=AT_INGRESS, proto=TCP) == [WHY["DENY_OTHER_TENANT"]]
    cast["remote"].udp("d", "10.78.0.2")
    cast["remote"].sendto("d", b"x", ORDERS, 8053)
    assert stage.why(hook=AT_INGRESS, proto=UDP) == [WHY["DENY_OTHER_TENANT"]]
    assert not cast["orders"].peek("u")
    stage.mesh.say("delete-address", "10.78.0.2")


def test_reply_is_no_permission(stage, cast):
    """Having asked tenant 2 lets it answer, from the socket that was asked to the one that asked."""
    cast["thief"].udp("server", THIEF, 8053)
    cast["thief"].udp("other", THIEF, 8054)
    stage.mesh.tenant(2, defaults=0x7f)
    cast["orders"].udp("client", ORDERS, 8055)
    cast["orders"].sendto("client", b"ask", THIEF, 8053)
    data, peer = cast["thief"].recvfrom("server")
    assert data == b"ask" and peer == (ORDERS, 8055)
    assert cast["thief"].sendto("server", b"answer", ORDERS, 8055) == 6
    assert cast["orders"].recvfrom("client") == (b"answer", (THIEF, 8053))
    stage.mesh.events()
    assert cast["thief"].sendto("server", b"evil", ORDERS, 8053) == "EPERM"
    assert cast["thief"].sendto("other", b"evil", ORDERS, 8055) == "EPERM"
    assert stage.why(hook=AT_SENDMSG) == [WHY["DENY_OTHER_TENANT"]]
    stage.mesh.tenant(2)


def test_port_of_anothers_endpoint(stage, cast):
    """On an address that both have: what is meant for the one is not for who took the port, whatever that one allows."""
    mesh, shared = stage.mesh, "10.77.0.9"
    mesh.address(shared, 0, 0, HOST)
    for name, tenant, service in (("orders", 1, 11), ("shop", 1, 12), ("thief", 2, 21)):
        mesh.workload(cast["cgroups"][name], tenant, service, flags=HOST_SOURCE)
        cast[name].live_at(shared)
    mesh.tenant(2, defaults=DEFAULTS | FROM_OTHER)
    mesh.service(1, 11, "10.96.0.9", 80, (shared, 8000))
    mesh.service(1, 11, "10.96.0.9", 53, (shared, 8000), proto=UDP)
    cast["thief"].listen("taken", shared, 8000)
    cast["thief"].udp("taken-u", shared, 8000)
    mesh.events()
    assert cast["shop"].connect("c", "10.96.0.9", 80, timeout=QUIET) == "TIMEOUT"
    (record, *_) = mesh.told(type=5)
    assert record["hook"] == AT_INGRESS and record["reason"] == WHY["DENY_TAKEN"]
    assert record["src"] == [1, 12] and record["dst"] == [1, 11]
    cast["shop"].udp("d", shared)
    cast["shop"].sendto("d", b"secret", "10.96.0.9", 53)
    assert stage.why(hook=AT_INGRESS, proto=UDP) == [WHY["DENY_TAKEN"]]
    assert not cast["thief"].peek("taken-u")
    # Its own port, and that port for whom it is: as before.
    cast["thief"].listen("own", shared, 8001)
    assert cast["shop"].connect("c", shared, 8001) == (shared, 8001)
    cast["thief"].close("taken")
    cast["orders"].listen("back", shared, 8000)
    assert cast["shop"].connect("c", "10.96.0.9", 80) == ("10.96.0.9", 80)
