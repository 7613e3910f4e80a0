/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * What the programs in the kernel and the agent say to each other: keys, values
 * and numbers.  Included from both sides.
 *
 *  1. Types have fixed widths, padding is a member, and each struct has its size
 *     asserted below: a layout that differs between the sides does not compile.
 *  2. A change of any of it raises TG_LAYOUT.  The maps of another layout are
 *     pinned elsewhere and are never opened by mistake.
 *  3. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so that
 *     there is one body of code and one map for both families.  Ports are in
 *     host order.
 *  4. A value that a program reads while it may be replaced ends with a copy of
 *     what it was looked up by: the kernel may reuse an element at once, and a
 *     reader that finds another owner looks again.
 */

#ifndef TG_MESH_H
#define TG_MESH_H

#include <linux/types.h>

#define TG_LAYOUT  3

#define TG_ASSERT_SIZE(type, size)                                            \
	_Static_assert(sizeof(type) == (size), #type " has another size")

struct tg_addr {
	__u32 w[4];
};

/* Who somebody is: numbers that the registry gave out, 0 for nobody known. */
struct tg_who {
	__u32 tenant;
	__u32 service;
};

/* How an address or a workload is to be taken. */
enum tg_flag {
	TG_HOST = 1 << 0, /* of a node: what comes from it was checked there */
	TG_LIMITED = 1 << 1, /* the service has a row in tg_limits */
	TG_ANY_SOURCE = 1 << 2, /* a workload that may send from any address */
	TG_HOST_SOURCE = 1 << 3, /* ... from addresses of nodes */
	TG_DOWN = 1 << 4, /* an endpoint that nothing new goes to */
	TG_LOOPBACK = 1 << 5,
};

/* What to do with a connect of a cgroup that is no workload. */
enum tg_unknown {
	TG_UNKNOWN_HOST, /* services are translated, the destination judges */
	TG_UNKNOWN_OUTSIDE, /* judged at once, as somebody from outside */
	TG_UNKNOWN_DENY, /* destinations in the mesh are refused */
};

/* tg_settings[0], written in place by the agent. */
struct tg_settings {
	__u32 layout;
	__u32 epoch; /* raised when verdicts may have changed; never 0 */
	__u32 levels; /* bit n: some workload's cgroup is n below the root */
	__u32 unknown; /* enum tg_unknown */
	__u64 event_interval; /* of one tenant and class: ns between two events, */
	__u64 event_window; /* and how far ahead of the clock a burst may run */
};

/* tg_workloads: cgroup id -> workload. */
struct tg_workload {
	struct tg_who who;
	__u32 flags;
	__u32 reserved;
	__u64 cgroup; /* the key again */
};

/* tg_sources: addresses that a workload may send from. */
struct tg_source {
	__u64 cgroup;
	struct tg_addr addr;
};

/* tg_endpoints, tg_services: where a connection goes to. */
struct tg_target {
	struct tg_addr addr;
	__u16 port;
	__u8 proto;
	__u8 reserved;
};

/* tg_endpoints, tg_hosts, tg_nets. */
struct tg_place {
	struct tg_who who;
	__u32 flags;
	__u32 reserved;
};

/* tg_nets: longest prefix of addresses. */
struct tg_net {
	__u32 prefix;
	struct tg_addr addr;
};

/*
 * tg_services.  The endpoints are tg_slots[first .. first + count - 1].  Another
 * set of endpoints is written elsewhere in tg_slots, then this value is replaced:
 * a connect sees the old set or the new.
 */
struct tg_service {
	struct tg_who who;
	__u32 flags;
	__u32 first;
	__u32 count; /* 0: known, but nobody is there */
	__u32 set; /* what its slots say */
	struct tg_target target; /* the key again */
};

struct tg_endpoint {
	struct tg_addr addr;
	__u16 port;
	__u16 reserved;
};

/*
 * tg_slots: the alias method of Walker and Vose.  With a random slot and a random
 * number below `own`, the slot's first endpoint is taken, else its second: exact
 * weights with as many slots as endpoints.
 */
#define TG_OWN_ALL  0xffffffffU /* the first, whatever the number is */

struct tg_slot {
	__u32 set;
	__u32 own;
	struct tg_endpoint endpoint[2];
};

/* Defaults of a tenant: a bit for each relation that is allowed. */
enum tg_default {
	TG_FROM_SAME = 1 << 0,
	TG_FROM_OTHER = 1 << 1,
	TG_FROM_OUTSIDE = 1 << 2,
	TG_FROM_HOST = 1 << 3,
	TG_TO_SAME = 1 << 4,
	TG_TO_OTHER = 1 << 5,
	TG_TO_OUTSIDE = 1 << 6,
	TG_DEFAULTS = TG_FROM_SAME | TG_FROM_HOST | TG_TO_SAME | TG_TO_OTHER
		      | TG_TO_OUTSIDE,
};

/*
 * tg_tenants.  `set` names the rules that are in force: another set is written
 * beside them, then this value is replaced.
 */
struct tg_tenant {
	__u32 set;
	__u32 defaults; /* enum tg_default */
	__u32 shapes[2]; /* by direction, a bit for each shape in use */
	__u64 digest; /* of the rules, for the agent alone */
	__u32 reserved;
	__u32 tenant; /* the key again */
};

enum tg_direction {
	TG_IN, /* to a service of the tenant */
	TG_OUT, /* from a service of the tenant */
};

enum tg_peer {
	TG_PEER_SERVICE,
	TG_PEER_TENANT,
	TG_PEER_NET, /* a class of tg_cidrs; for those without identity */
	TG_PEER_ANY,
	TG_PEER_KINDS,
};

enum tg_l4 {
	TG_L4_PORT,
	TG_L4_PROTO,
	TG_L4_ANY,
	TG_L4_KINDS,
};

/* A shape is which members of a rule's key are wildcards; they are 0 then. */
#define TG_SHAPES  (2 * TG_PEER_KINDS * TG_L4_KINDS)
#define TG_SHAPE(any_subject, peer, l4)                                       \
	(((any_subject) * TG_PEER_KINDS + (peer)) * TG_L4_KINDS + (l4))

/* tg_rules. */
struct tg_rule_key {
	__u32 set;
	__u32 subject; /* the tenant's own service */
	__u32 peer;
	__u16 port; /* of the endpoint */
	__u8 proto;
	__u8 kind; /* direction << 4 | enum tg_peer */
};

/* The greatest rank wins: precedence first, then deny over allow. */
struct tg_rule {
	__u32 rank; /* precedence << 1 | deny */
	__u32 number; /* the policy's, for events */
};

/* tg_cidrs: the class of an address in a set of rules. */
struct tg_cidr {
	__u32 prefix; /* 32 + that of the address */
	__u32 set;
	struct tg_addr addr;
};

/* tg_limits: by service; 0 is no limit. */
struct tg_limit {
	__u32 rate; /* connections per second */
	__u32 burst;
	__u32 open; /* connections that are open from this node */
	__u32 reserved;
};

/* tg_meters: by service, written by programs. */
struct tg_meter {
	__u64 due; /* GCRA: when the next connection is due, ns */
	__s64 open;
};

/* tg_flows: who began it, in the direction of the first packet. */
struct tg_tuple {
	struct tg_addr src;
	struct tg_addr dst;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 reserved[3];
	__u64 netns; /* for loopback addresses: they are not unique */
};

struct tg_flow {
	struct tg_who src;
	__u64 time_ns;
	__u32 epoch; /* judged and allowed in this one, or 0 */
	__u32 local; /* seen leaving a socket of this node */
};

/* tg_shared: 1 where some TCP flow from an address of this hash was ever written to
 * tg_flows; most addresses say who calls, and need no look there. */
#define TG_SHARED  4096

/* tg_chosen: the endpoint that a socket without connect keeps for a service;
 * tg_origins: the way back; tg_callers: when a socket last had an allowed datagram
 * from somebody, or answered it.  By cookie of the socket. */
struct tg_peer_key {
	__u64 cookie;
	struct tg_target target;
	__u32 reserved;
};

enum tg_role {
	TG_ROLE_NONE,
	TG_ROLE_ACTIVE,
	TG_ROLE_LISTEN,
	TG_ROLE_PASSIVE,
};

enum tg_socket_flag {
	TG_SOCK_COUNTED = 1 << 0, /* holds one of the service's open ones */
	TG_SOCK_TRANSLATED = 1 << 1, /* `virt` is what was asked for */
	TG_SOCK_SOURCE_OK = 1 << 2,
	TG_SOCK_CUT = 1 << 3, /* the verdict changed: nothing passes */
	TG_SOCK_OPENED = 1 << 4, /* was established */
};

/* tg_sockets: storage of a socket, written by programs. */
struct tg_socket {
	/* Of TCP: the epoch in which packets pass by this alone. */
	__u32 pass_in; /* unless it listens */
	__u32 pass_out; /* unless it calls */
	__u32 epoch; /* last judged */
	__u32 placed; /* epoch in which self was looked up, 0 never */
	__u32 reason;
	__u16 dport; /* the endpoint's, which policies name */
	__u8 role;
	__u8 flags;
	struct tg_who self;
	struct tg_who peer;
	__u64 netns;
	__u64 cgroup; /* of the workload, 0 when none is known */
	__u64 opened_ns;
	struct tg_target far; /* the endpoint, or the client */
	struct tg_target virt;
	__u32 far_flags;
	__u32 self_flags;
	__u32 metered; /* service whose meter it holds */
	__u32 counted; /* 1 while it does */
};

/* What a CPU found out in an epoch; a row is for many, and has the last.  `turn` is
 * odd while it is written (tg_recent.h). */
#define TG_RECENT  64

/* tg_verdicts: between two that are known; addresses have no part in it. */
struct tg_verdict {
	__u32 turn;
	__u32 epoch;
	struct tg_who src;
	struct tg_who dst;
	__u16 dport;
	__u8 proto;
	__u8 at_source;
	__u32 reason;
	__u32 rule;
	__u32 reserved;
};

/* tg_arrivals: a call that was allowed at a listener. */
struct tg_arrival {
	__u32 turn;
	__u32 epoch; /* 0: none */
	struct tg_tuple tuple; /* of the last packet */
	struct tg_who self; /* who was called */
	struct tg_place peer;
	__u32 reason;
	__u32 reserved;
};

/* tg_departures: an address that a workload may call from, and that says who calls. */
struct tg_departure {
	__u32 turn;
	__u32 epoch;
	__u64 cgroup;
	struct tg_who self;
	struct tg_addr addr;
};

/* Numbers of verdicts.  They are in records and metrics: never reuse one. */
#define TG_REASONS(R)                                                         \
	R(0, NONE, "none")                                                    \
	R(1, OUTSIDE, "outside the mesh")                                     \
	R(2, RULE, "allowed by a policy")                                     \
	R(3, SAME_TENANT, "same tenant")                                      \
	R(4, OTHER_TENANT, "other tenants are allowed")                       \
	R(5, FROM_OUTSIDE, "callers from outside are allowed")                \
	R(6, FROM_HOST, "callers of a node are allowed")                      \
	R(7, REPLY, "reply to a datagram")                                    \
	R(8, UNKNOWN_CGROUP, "cgroup without workload, destination judges")   \
	R(9, CLOSED, "connection ended")                                      \
	R(64, DENY_RULE, "denied by a policy")                                \
	R(65, DENY_SAME_TENANT, "same tenant is denied by default")           \
	R(66, DENY_OTHER_TENANT, "other tenants are denied")                  \
	R(67, DENY_FROM_OUTSIDE, "callers from outside are denied")           \
	R(68, DENY_FROM_HOST, "callers of a node are denied")                 \
	R(69, DENY_TO_SAME, "calls within the tenant are denied")             \
	R(70, DENY_TO_OTHER, "calls to other tenants are denied")             \
	R(71, DENY_TO_OUTSIDE, "calls out of the mesh are denied")            \
	R(72, DENY_NO_ENDPOINT, "service without endpoints")                  \
	R(73, DENY_NO_TENANT, "tenant not known on this node")                \
	R(74, DENY_UNKNOWN_CGROUP, "cgroup without workload")                 \
	R(75, DENY_SPOOFED, "source address is not the workload's")           \
	R(76, DENY_RATE, "connections per second")                            \
	R(77, DENY_OPEN, "open connections")                                  \
	R(78, DENY_FULL, "no room to keep state")                             \
	R(79, DENY_FAMILY, "endpoint of another address family")              \
	R(80, DENY_MALFORMED, "headers cannot be read")                       \
	R(81, DENY_TAKEN, "endpoint of another tenant")

enum tg_reason {
#define TG_REASON_NUMBER(number, name, text) TG_WHY_##name = (number),
	TG_REASONS(TG_REASON_NUMBER)
#undef TG_REASON_NUMBER
};

#define TG_DENY           64
#define TG_REASON_LIMIT   96
#define tg_denied(reason) ((reason) >= TG_DENY)

/* tg_counters: first a verdict's number, then these. */
enum tg_counter {
	TG_LOST_RING = TG_REASON_LIMIT, /* events: the ring was full */
	TG_LOST_SAMPLED, /* events: over the tenant's rate */
	TG_LOST_DENY_SAMPLED, /* ... of denials */
	TG_FULL_SOCKETS, /* no storage of a socket */
	TG_FULL_FLOWS,
	TG_FULL_METERS,
	TG_FULL_ORIGINS,
	TG_FULL_BUCKETS,
	TG_TORN, /* reads that found another owner */
	TG_COUNTERS = TG_REASON_LIMIT + 32,
};

enum tg_event_type {
	TG_EVENT_CONNECT = 1,
	TG_EVENT_ACCEPT,
	TG_EVENT_CLOSE, /* of one that was open */
	TG_EVENT_FAILED, /* a connect that found nobody */
	TG_EVENT_DENY,
};

enum tg_hook {
	TG_AT_CONNECT = 1,
	TG_AT_SENDMSG,
	TG_AT_INGRESS,
	TG_AT_EGRESS,
	TG_AT_SOCKOPS,
};

struct tg_event {
	__u64 time_ns; /* of CLOCK_MONOTONIC */
	__u64 cookie;
	__u64 cgroup;
	struct tg_who src;
	struct tg_who dst;
	struct tg_target from; /* zero where the hook comes before routing */
	struct tg_target to;
	struct tg_target virt;
	__u64 bytes_out;
	__u64 bytes_in;
	__u64 duration_ns;
	__u32 srtt_us;
	__u32 retransmits;
	__u32 lost; /* events of the same bucket left out before this one */
	__u32 rule; /* number of the policy, where one decided */
	__u16 reason;
	__u8 type;
	__u8 hook;
	__u8 passive; /* of a connection: seen where it was accepted */
	__u8 reserved[3];
};

/* tg_buckets: fair sampling. */
enum tg_bucket_class {
	TG_BUCKET_FLOW,
	TG_BUCKET_DENY, /* by the tenant that tried */
	TG_BUCKET_DENY_OUTSIDE, /* by the tenant that was tried */
};

struct tg_bucket_key {
	__u32 tenant;
	__u32 class;
};

struct tg_bucket {
	__u64 due;
	__u64 lost;
};

TG_ASSERT_SIZE(struct tg_addr, 16);
TG_ASSERT_SIZE(struct tg_who, 8);
TG_ASSERT_SIZE(struct tg_settings, 32);
TG_ASSERT_SIZE(struct tg_workload, 24);
TG_ASSERT_SIZE(struct tg_source, 24);
TG_ASSERT_SIZE(struct tg_target, 20);
TG_ASSERT_SIZE(struct tg_place, 16);
TG_ASSERT_SIZE(struct tg_net, 20);
TG_ASSERT_SIZE(struct tg_service, 44);
TG_ASSERT_SIZE(struct tg_endpoint, 20);
TG_ASSERT_SIZE(struct tg_slot, 48);
TG_ASSERT_SIZE(struct tg_tenant, 32);
TG_ASSERT_SIZE(struct tg_rule_key, 16);
TG_ASSERT_SIZE(struct tg_rule, 8);
TG_ASSERT_SIZE(struct tg_cidr, 24);
TG_ASSERT_SIZE(struct tg_limit, 16);
TG_ASSERT_SIZE(struct tg_meter, 16);
TG_ASSERT_SIZE(struct tg_tuple, 48);
TG_ASSERT_SIZE(struct tg_flow, 24);
TG_ASSERT_SIZE(struct tg_peer_key, 32);
TG_ASSERT_SIZE(struct tg_socket, 120);
TG_ASSERT_SIZE(struct tg_verdict, 40);
TG_ASSERT_SIZE(struct tg_arrival, 88);
TG_ASSERT_SIZE(struct tg_departure, 40);
TG_ASSERT_SIZE(struct tg_event, 152);
TG_ASSERT_SIZE(struct tg_bucket_key, 8);
TG_ASSERT_SIZE(struct tg_bucket, 16);

#endif /* TG_MESH_H */
