// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Packets of sockets.  On the way in a call is judged once more, at its
 * destination: it may come from a node without an agent, or around connect().  On
 * the way out the source address must be the sender's.
 *
 * An open connection costs one look into its socket's storage.  After a change of
 * policies (another epoch) it is judged anew, and cut when it is denied now.
 *
 * Only TCP and UDP are judged; of other protocols the source address is checked.
 * Sockets that were connected before the programs were attached have no storage
 * and pass.
 */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "tg_event.h"
#include "tg_flow.h"
#include "tg_policy.h"

#define TG_PASS 1
#define TG_DROP 0

struct tg_packet {
	struct tg_tuple tuple;
	__u8 l4; /* ports are known */
	__u8 syn; /* and neither ACK nor RST */
	__u8 reserved[6];
};

struct tg_plain {
	struct iphdr ip;
	__u16 sport;
	__u16 dport;
	__u8 tcp[16]; /* from the sequence number on */
};

/* Extension headers: as many as anybody sends, then it is malformed. */
TG_INLINE int tg_skip_extensions(struct __sk_buff *skb, __u32 *offset, __u8 *proto)
{
	__u8 header[2];
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 6; i++) {
		if (*proto != IPPROTO_HOPOPTS && *proto != IPPROTO_ROUTING
		    && *proto != IPPROTO_DSTOPTS)
			return 0;

		if (bpf_skb_load_bytes(skb, *offset, header, sizeof(header)))
			return -1;

		*proto = header[0];
		*offset += (header[1] + 1) * 8;
	}

	return -1;
}

TG_INLINE int tg_parse_l4(struct __sk_buff *skb, __u32 offset, struct tg_packet *packet)
{
	__u16 ports[2];
	__u8 flags;

	if (packet->tuple.proto != TG_IPPROTO_TCP && packet->tuple.proto != TG_IPPROTO_UDP)
		return 0;

	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return -1;

	packet->tuple.sport = bpf_ntohs(ports[0]);
	packet->tuple.dport = bpf_ntohs(ports[1]);
	packet->l4 = 1;

	if (packet->tuple.proto == TG_IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, offset + 13, &flags, 1))
			return -1;
		packet->syn = (flags & 0x16) == 0x02;
	}

	return 0;
}

/* What nearly all of them are: TCP over IPv4 without options, in one piece. */
TG_INLINE bool tg_parse_plain(struct __sk_buff *skb, struct tg_packet *packet)
{
	struct tg_plain *plain = (void *)(long)skb->data;

	if (skb->protocol != bpf_htons(ETH_P_IP)
	    || (void *)(plain + 1) > (void *)(long)skb->data_end
	    || plain->ip.ihl != 5 || plain->ip.protocol != TG_IPPROTO_TCP
	    || plain->ip.frag_off & bpf_htons(0x1fff))
		return false;

	tg_set_v4(&packet->tuple.src, plain->ip.saddr);
	tg_set_v4(&packet->tuple.dst, plain->ip.daddr);
	packet->tuple.proto = TG_IPPROTO_TCP;
	packet->tuple.sport = bpf_ntohs(plain->sport);
	packet->tuple.dport = bpf_ntohs(plain->dport);
	packet->l4 = 1;
	packet->syn = (plain->tcp[9] & 0x16) == 0x02;
	return true;
}

/* 0, or -1 for what cannot be read. */
static __noinline int tg_parse(struct __sk_buff *skb, struct tg_packet *packet)
{
	struct ipv6hdr ip6;
	struct iphdr ip4;
	__u32 offset;
	__u8 proto;

	if (tg_parse_plain(skb, packet))
		return 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &ip4, sizeof(ip4)))
			return -1;

		tg_set_v4(&packet->tuple.src, ip4.saddr);
		tg_set_v4(&packet->tuple.dst, ip4.daddr);
		packet->tuple.proto = ip4.protocol;
		if (ip4.frag_off & bpf_htons(0x1fff))
			return 0;
		return tg_parse_l4(skb, ip4.ihl * 4, packet);
	}

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, 0, &ip6, sizeof(ip6)))
		return -1;

	__builtin_memcpy(&packet->tuple.src, &ip6.saddr, sizeof(struct tg_addr));
	__builtin_memcpy(&packet->tuple.dst, &ip6.daddr, sizeof(struct tg_addr));
	offset = sizeof(ip6);
	proto = ip6.nexthdr;
	if (tg_skip_extensions(skb, &offset, &proto))
		return -1;

	packet->tuple.proto = proto;
	return tg_parse_l4(skb, offset, packet);
}

static __noinline void tg_tell_dropped(struct __sk_buff *skb,
				       const struct tg_settings *settings,
				       const struct tg_tuple *tuple,
				       const struct tg_call *call, __u32 reason)
{
	struct tg_event *event;
	__u8 hook = call->at_source ? TG_AT_EGRESS : TG_AT_INGRESS;

	tg_count(reason < TG_REASON_LIMIT ? reason : 0);

	event = tg_event_begin(settings, &call->src, &call->dst, TG_EVENT_DENY);
	if (!event)
		return;

	event->cookie = bpf_get_socket_cookie(skb);
	event->from.addr = tuple->src;
	event->from.port = tuple->sport;
	event->from.proto = tuple->proto;
	event->to.addr = tuple->dst;
	event->to.port = tuple->dport;
	event->to.proto = tuple->proto;
	event->rule = call->rule;
	event->reason = reason;
	event->hook = hook;
	tg_event_end(event);
}

/* Whose socket it is, looked up once in an epoch. */
TG_INLINE void tg_place_socket(const struct tg_settings *settings, __u32 epoch,
			       struct bpf_sock *sk, struct tg_socket *state)
{
	struct tg_workload workload;

	if (state->placed == epoch)
		return;

	tg_find_workload(settings, sk, &workload);
	/* An accepted connection keeps the service whose endpoint it came to. */
	if (state->role != TG_ROLE_PASSIVE || workload.who.tenant != state->self.tenant)
		state->self = workload.who;
	state->self_flags = workload.flags;
	state->cgroup = workload.cgroup;
	state->flags &= ~TG_SOCK_SOURCE_OK;
	state->placed = epoch;
}

/*
 * A connection that was allowed, in another epoch: 0, or why it is cut.  Either end
 * judges what it would judge now if the call were new.
 */
TG_INLINE __u32 tg_judge_again(__u32 epoch, struct tg_socket *state,
			       struct tg_call *call)
{
	bool active = state->role == TG_ROLE_ACTIVE;
	struct tg_place place;
	__u32 reason;

	/* An endpoint that left its service is still whose it was. */
	if (!state->peer.tenant) {
		tg_find_addr(&state->far.addr, &place);
		state->peer = place.who;
		state->far_flags = place.flags;
	}

	call->src = active ? state->self : state->peer;
	call->dst = active ? state->peer : state->self;
	call->src_addr = state->far.addr;
	call->dst_addr = state->far.addr;
	call->src_flags = active ? 0 : state->far_flags;
	call->dst_flags = active ? state->far_flags : 0;
	call->dport = state->dport;
	call->proto = state->far.proto;
	call->at_source = active;
	call->epoch = epoch;

	if (!call->src.tenant && active)
		reason = TG_WHY_UNKNOWN_CGROUP;
	else
		reason = tg_judge(call);

	state->epoch = epoch;
	state->reason = reason;

	if (!tg_denied(reason)) {
		state->flags &= ~TG_SOCK_CUT;
		return 0;
	}

	state->flags |= TG_SOCK_CUT;
	state->pass_in = 0;
	state->pass_out = 0;
	return reason;
}

/* Whether a datagram answers one of this workload's, which was seen leaving. */
TG_INLINE bool tg_is_reply(const struct tg_tuple *tuple, const struct tg_socket *state)
{
	struct tg_tuple back;
	struct tg_flow *flow;

	tg_flow_reverse(tuple, &back);
	flow = bpf_map_lookup_elem(&tg_flows, &back);
	return flow && flow->local && tg_who_equal(&flow->src, &state->self);
}

/* A call was allowed, by its address or by a row of its own. */
TG_INLINE void tg_arrival_keep(struct tg_arrival *arrival, const struct tg_tuple *tuple,
			       const struct tg_call *call, __u32 reason)
{
	if (!tg_turn_take(&arrival->turn))
		return;

	arrival->epoch = call->epoch;
	arrival->tuple = *tuple;
	arrival->self = call->dst;
	arrival->peer.who = call->src;
	arrival->peer.flags = call->src_flags;
	arrival->reason = reason;
	tg_turn_give(&arrival->turn);
}

/* Whether the address was allowed there before.  Not where flows have rows. */
TG_INLINE bool tg_arrived_before(struct tg_arrival *arrival, const struct tg_tuple *tuple,
				 const struct tg_call *call, __u32 *reason)
{
	bool before;

	if (tg_flow_may_be(tuple) || !tg_turn_take(&arrival->turn))
		return false;

	before = arrival->epoch == call->epoch && tg_tuple_alike(&arrival->tuple, tuple)
		 && tg_who_equal(&arrival->self, &call->dst);
	if (before) {
		arrival->tuple.sport = tuple->sport;
		*reason = arrival->reason;
	}

	tg_turn_give(&arrival->turn);
	return before;
}

/* A call that arrives: at a listener, or a datagram.  Of TCP it is kept who called
 * whom: when the packet makes a connection, that is made next. */
TG_INLINE __u32 tg_judge_arrival(__u32 epoch, struct tg_socket *state,
				 struct tg_packet *packet, struct tg_call *call,
				 bool *caller)
{
	struct tg_target here = { .addr = packet->tuple.dst, .port = packet->tuple.dport,
				  .proto = packet->tuple.proto };
	struct tg_flow *flow = tg_flow_find(&packet->tuple);
	struct tg_arrival *arrival = NULL;
	struct tg_place sender, *endpoint;
	__u32 reason;

	if (here.proto == TG_IPPROTO_TCP)
		arrival = tg_arrival_get(&packet->tuple);

	*caller = flow && flow->epoch == epoch;
	if (*caller) {
		tg_arrival_forget(arrival);
		return TG_WHY_NONE;
	}

	endpoint = bpf_map_lookup_elem(&tg_endpoints, &here);
	call->dst = state->self;
	if (endpoint && (!call->dst.tenant || endpoint->who.tenant == call->dst.tenant))
		call->dst = endpoint->who;
	if (!call->dst.tenant) {
		tg_arrival_forget(arrival);
		return TG_WHY_NONE;
	}

	if (here.proto == TG_IPPROTO_UDP && tg_is_reply(&packet->tuple, state))
		return TG_WHY_REPLY;

	/* Whoever calls there means the other tenant, who has lost the port. */
	if (endpoint && endpoint->who.tenant != call->dst.tenant
	    && !tg_is_loopback(&here.addr)) {
		tg_arrival_forget(arrival);
		call->dst = endpoint->who;
		tg_find_sender(&packet->tuple, flow, &sender);
		call->src = sender.who;
		return TG_WHY_DENY_TAKEN;
	}

	call->epoch = epoch;
	if (arrival && tg_arrived_before(arrival, &packet->tuple, call, &reason))
		return reason;

	tg_find_sender(&packet->tuple, flow, &sender);
	call->src = sender.who;
	call->src_flags = sender.flags;
	call->src_addr = packet->tuple.src;
	call->dst_addr = packet->tuple.dst;
	call->dport = here.port;
	call->proto = here.proto;
	reason = tg_judge(call);

	/* Judged once an epoch; a remote TCP call has but two packets here. */
	if (tg_denied(reason))
		return reason;

	*caller = true;

	if (arrival)
		tg_arrival_keep(arrival, &packet->tuple, call, reason);

	if (flow && tg_who_equal(&flow->src, &call->src))
		flow->epoch = epoch;
	else if (here.proto == TG_IPPROTO_UDP)
		tg_flow_write(&packet->tuple, &call->src, epoch, 0);

	return reason;
}

/* No storage for a socket that needs it: a workload's packets go nowhere. */
TG_INLINE int tg_without_room(const struct tg_settings *settings, struct bpf_sock *sk)
{
	struct tg_workload workload;

	tg_count(TG_FULL_SOCKETS);
	return tg_find_workload(settings, sk, &workload) ? TG_DROP : TG_PASS;
}

TG_INLINE bool tg_from_far(const struct tg_socket *state, const struct tg_packet *packet)
{
	return state->far.port == packet->tuple.sport
	       && tg_addr_equal(&state->far.addr, &packet->tuple.src);
}

/* What is not decided by a look at the storage.  Not inline: an open connection
 * shall not pay for the room that this needs. */
static __noinline int tg_ingress_slow(struct __sk_buff *skb, struct bpf_sock *sk,
				      struct tg_socket *state, __u32 epoch)
{
	struct tg_settings *settings = tg_settings_get();
	bool listens = sk->protocol == TG_IPPROTO_UDP || sk->state == BPF_TCP_LISTEN;
	struct tg_packet packet = {};
	struct tg_call call = {};
	bool caller = false;
	__u32 reason;

	if (!settings)
		return TG_PASS;

	tg_place_socket(settings, epoch, sk, state);

	if (tg_parse(skb, &packet)) {
		reason = TG_WHY_DENY_MALFORMED;
		call.dst = state->self;
		if (!state->self.tenant)
			return TG_PASS;
	} else if (!packet.l4) {
		return TG_PASS;
	} else if (!listens || (state->role == TG_ROLE_ACTIVE && tg_from_far(state, &packet))) {
		if (state->epoch == epoch)
			return state->flags & TG_SOCK_CUT ? TG_DROP : TG_PASS;
		reason = tg_judge_again(epoch, state, &call);
		if (!tg_denied(reason) && !listens)
			state->pass_in = epoch;
	} else {
		if (state->role == TG_ROLE_NONE && sk->protocol == TG_IPPROTO_TCP)
			state->role = TG_ROLE_LISTEN;
		tg_flow_scope(&packet.tuple, state->netns);
		reason = tg_judge_arrival(epoch, state, &packet, &call, &caller);
		if (caller && packet.tuple.proto == TG_IPPROTO_UDP)
			tg_caller_came(bpf_get_socket_cookie(skb), &packet.tuple);
	}

	if (!tg_denied(reason))
		return TG_PASS;

	call.at_source = 0;
	tg_tell_dropped(skb, settings, &packet.tuple, &call, reason);
	return TG_DROP;
}

/* All but the packets of a connection that was judged in this epoch. */
static __noinline int tg_arrives(struct __sk_buff *skb, __u32 epoch)
{
	struct tg_settings *settings = tg_settings_get();
	struct bpf_sock *sk = skb->sk;
	struct tg_socket *state;
	bool listens;

	if (!settings || !sk)
		return TG_PASS;

	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->protocol != TG_IPPROTO_TCP && sk->protocol != TG_IPPROTO_UDP))
		return TG_PASS;

	listens = sk->protocol == TG_IPPROTO_UDP || sk->state == BPF_TCP_LISTEN;
	state = bpf_sk_storage_get(&tg_sockets, sk, 0,
				   listens ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!state)
		return listens ? tg_without_room(settings, sk) : TG_PASS;

	if (!listens && state->epoch == epoch) {
		if (state->flags & TG_SOCK_CUT)
			return TG_DROP;
		state->pass_in = epoch;
		return TG_PASS;
	}

	if (!listens && state->role != TG_ROLE_ACTIVE && state->role != TG_ROLE_PASSIVE)
		return TG_PASS;

	return tg_ingress_slow(skb, sk, state, epoch);
}

SEC("cgroup_skb/ingress")
int tg_ingress(struct __sk_buff *skb)
{
	__u32 epoch = tg_epoch(tg_settings_get());
	struct bpf_sock *sk = skb->sk;
	struct tg_socket *state;

	if (!epoch || !sk)
		return TG_PASS;

	state = bpf_sk_storage_get(&tg_sockets, sk, 0, 0);
	if (state && state->pass_in == epoch && sk->state != BPF_TCP_LISTEN)
		return TG_PASS;

	return tg_arrives(skb, epoch);
}

TG_INLINE bool tg_source_allowed(const struct tg_socket *state, const struct tg_addr *addr)
{
	struct tg_source key = { .cgroup = state->cgroup, .addr = *addr };
	struct tg_place *host;

	if (state->self_flags & TG_ANY_SOURCE || tg_is_loopback(addr))
		return true;

	if (bpf_map_lookup_elem(&tg_sources, &key))
		return true;

	if (!(state->self_flags & TG_HOST_SOURCE))
		return false;

	host = bpf_map_lookup_elem(&tg_hosts, addr);
	return host && host->flags & TG_HOST;
}

TG_INLINE struct tg_departure *tg_departure_get(const struct tg_socket *state)
{
	__u32 at = tg_row_of(state->cgroup, TG_RECENT);

	return bpf_map_lookup_elem(&tg_departures, &at);
}

/* Whether a call from this address needs neither a look at the address nor a row. */
TG_INLINE bool tg_departed_before(const struct tg_tuple *tuple,
				  const struct tg_socket *state, __u32 epoch)
{
	const struct tg_departure *before = tg_departure_get(state);
	__u32 turn;
	bool same;

	if (!before || tg_flow_may_be(tuple))
		return false;

	turn = tg_turn(&before->turn);
	same = before->epoch == epoch && before->cgroup == state->cgroup
	       && tg_who_equal(&before->self, &state->self)
	       && tg_addr_equal(&before->addr, &tuple->src);
	return same && tg_turn_holds(&before->turn, turn);
}

TG_INLINE void tg_departure_keep(const struct tg_addr *addr,
				 const struct tg_socket *state, __u32 epoch)
{
	struct tg_departure *kept = tg_departure_get(state);

	if (!kept || !tg_turn_take(&kept->turn))
		return;

	kept->cgroup = state->cgroup;
	kept->self = state->self;
	kept->addr = *addr;
	kept->epoch = epoch;
	tg_turn_give(&kept->turn);
}

/*
 * Writes down who began the flow.  What answers somebody else's datagram is no
 * beginning: the caller stays the one who is judged.
 */
TG_INLINE void tg_flow_leave(const struct tg_packet *packet, const struct tg_socket *state,
			     __u32 epoch)
{
	bool udp = packet->tuple.proto == TG_IPPROTO_UDP;
	struct tg_place *host;
	struct tg_tuple back;
	struct tg_flow *flow;

	flow = tg_flow_find(&packet->tuple);

	if (!state->self.tenant) {
		if (flow && flow->local)
			bpf_map_delete_elem(&tg_flows, &packet->tuple);
		return;
	}

	if (flow && flow->local && tg_who_equal(&flow->src, &state->self)) {
		if (bpf_ktime_get_ns() - flow->time_ns > TG_FLOW_RENEW_NS)
			flow->time_ns = bpf_ktime_get_ns();
		return;
	}

	/* Where the address says the same, nothing need be written for a connection;
	 * a datagram's tuple is what an answer is known by. */
	if (!udp && !flow) {
		host = bpf_map_lookup_elem(&tg_hosts, &packet->tuple.src);
		if (host && tg_who_equal(&host->who, &state->self)) {
			tg_departure_keep(&packet->tuple.src, state, epoch);
			return;
		}
	}

	if (udp) {
		tg_flow_reverse(&packet->tuple, &back);
		if (bpf_map_lookup_elem(&tg_flows, &back))
			return;
	}

	tg_flow_write(&packet->tuple, &state->self, 0, 1);
}

static __noinline int tg_egress_slow(struct __sk_buff *skb, struct bpf_sock *sk,
				     struct tg_socket *state, __u32 epoch)
{
	struct tg_settings *settings = tg_settings_get();
	bool tcp = sk->protocol == TG_IPPROTO_TCP;
	struct tg_packet packet = {};
	struct tg_call call = {};
	bool malformed, known;
	__u32 reason = 0;

	if (!settings)
		return TG_PASS;

	tg_place_socket(settings, epoch, sk, state);

	malformed = tg_parse(skb, &packet);
	known = packet.syn && tg_departed_before(&packet.tuple, state, epoch);

	if (malformed) {
		reason = state->self.tenant ? TG_WHY_DENY_MALFORMED : 0;
	} else if (!known && state->self.tenant
		   && !tg_source_allowed(state, &packet.tuple.src)) {
		reason = TG_WHY_DENY_SPOOFED;
	} else {
		state->flags |= TG_SOCK_SOURCE_OK;

		if (!known && (packet.syn || (packet.l4 && !tcp))) {
			tg_flow_scope(&packet.tuple, state->netns);
			tg_flow_leave(&packet, state, epoch);
		}

		if (tcp && state->role == TG_ROLE_NONE)
			state->epoch = epoch;
		else if (tcp && state->epoch != epoch)
			reason = tg_judge_again(epoch, state, &call);
		else if (state->flags & TG_SOCK_CUT)
			return TG_DROP;

		if (tcp && !tg_denied(reason))
			state->pass_out = epoch;
	}

	if (!tg_denied(reason))
		return TG_PASS;

	if (!call.src.tenant)
		call.src = state->self;
	call.at_source = 1;
	tg_tell_dropped(skb, settings, &packet.tuple, &call, reason);
	return TG_DROP;
}

static __noinline int tg_leaves(struct __sk_buff *skb, __u32 epoch)
{
	struct tg_settings *settings = tg_settings_get();
	struct bpf_sock *sk = skb->sk;
	struct tg_socket *state;

	if (!settings || !sk)
		return TG_PASS;

	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TG_PASS;

	/* What a listener answers with comes from where it was called. */
	if (sk->protocol == TG_IPPROTO_TCP && sk->state == BPF_TCP_LISTEN)
		return TG_PASS;

	state = bpf_sk_storage_get(&tg_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return tg_without_room(settings, sk);

	return tg_egress_slow(skb, sk, state, epoch);
}

SEC("cgroup_skb/egress")
int tg_egress(struct __sk_buff *skb)
{
	__u32 epoch = tg_epoch(tg_settings_get());
	struct bpf_sock *sk = skb->sk;
	struct tg_socket *state;

	if (!epoch || !sk)
		return TG_PASS;

	state = bpf_sk_storage_get(&tg_sockets, sk, 0, 0);
	if (state && state->pass_out == epoch && sk->state != BPF_TCP_SYN_SENT)
		return TG_PASS;

	return tg_leaves(skb, epoch);
}
