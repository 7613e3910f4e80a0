/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Who began a flow.  The first packet that leaves a workload's socket writes the
 * tuple down, so that on the same node the receiving side knows the sender exactly
 * also when addresses are shared; a sender that is no workload takes a stale tuple
 * away.  From other nodes the source address tells (tg_find_addr).
 */

#ifndef TG_FLOW_H
#define TG_FLOW_H

#include "tg_place.h"

/* How long a tuple says who sent a packet: for the way to a socket of this node. */
#define TG_FLOW_FRESH_NS   10000000000ULL
#define TG_FLOW_RENEW_NS   1000000000ULL
#define TG_CALLER_WAITS_NS 180000000000ULL

TG_INLINE void tg_flow_scope(struct tg_tuple *tuple, __u64 netns)
{
	tuple->netns = tg_is_loopback(&tuple->dst) ? netns : 0;
}

TG_INLINE void tg_flow_reverse(const struct tg_tuple *tuple, struct tg_tuple *back)
{
	back->src = tuple->dst;
	back->dst = tuple->src;
	back->sport = tuple->dport;
	back->dport = tuple->sport;
	back->proto = tuple->proto;
	back->reserved[0] = 0;
	back->reserved[1] = 0;
	back->reserved[2] = 0;
	back->netns = tuple->netns;
}

/* Whether TCP from this address may have rows in tg_flows. */
TG_INLINE __u32 *tg_flow_shared(const struct tg_addr *src)
{
	__u32 at = tg_row_of(src->w[0] ^ src->w[1] ^ src->w[2] ^ src->w[3], TG_SHARED);

	return bpf_map_lookup_elem(&tg_shared, &at);
}

TG_INLINE bool tg_flow_may_be(const struct tg_tuple *tuple)
{
	__u32 *shared;

	if (tuple->proto != TG_IPPROTO_TCP)
		return true;

	shared = tg_flow_shared(&tuple->src);
	return shared && *(volatile __u32 *)shared;
}

TG_INLINE struct tg_flow *tg_flow_find(const struct tg_tuple *tuple)
{
	return tg_flow_may_be(tuple) ? bpf_map_lookup_elem(&tg_flows, tuple) : NULL;
}

TG_INLINE void tg_flow_write(const struct tg_tuple *tuple, const struct tg_who *src,
			     __u32 epoch, __u32 local)
{
	struct tg_flow flow = {
		.src = *src,
		.time_ns = bpf_ktime_get_ns(),
		.epoch = epoch,
		.local = local,
	};
	__u32 *shared = tg_flow_shared(&tuple->src);

	/* First, so that whoever finds 0 finds no row either. */
	if (shared && tuple->proto == TG_IPPROTO_TCP && !*(volatile __u32 *)shared)
		__sync_lock_test_and_set(shared, 1);

	if (bpf_map_update_elem(&tg_flows, tuple, &flow, BPF_ANY))
		tg_count(TG_FULL_FLOWS);
}

/* A datagram was allowed in: for a while the socket may answer. */
TG_INLINE void tg_caller_came(__u64 cookie, const struct tg_tuple *tuple)
{
	struct tg_peer_key key = {
		.cookie = cookie,
		.target = { .addr = tuple->src, .port = tuple->sport, .proto = tuple->proto },
	};
	__u64 now = bpf_ktime_get_ns();
	__u64 *came = bpf_map_lookup_elem(&tg_callers, &key);

	if (came && now - *came < TG_FLOW_RENEW_NS)
		return;

	if (came)
		*came = now;
	else if (bpf_map_update_elem(&tg_callers, &key, &now, BPF_ANY))
		tg_count(TG_FULL_FLOWS);
}

/* Whether what a socket sends there is an answer; keeps the conversation open. */
TG_INLINE bool tg_caller_waits(__u64 cookie, const struct tg_target *to)
{
	struct tg_peer_key key = { .cookie = cookie, .target = *to };
	__u64 now = bpf_ktime_get_ns();
	__u64 *came = bpf_map_lookup_elem(&tg_callers, &key);

	if (!came || now - *came > TG_CALLER_WAITS_NS)
		return false;

	*came = now;
	return true;
}

/* Seen leaving this node just now. */
TG_INLINE bool tg_flow_is_fresh(const struct tg_flow *flow)
{
	return flow && flow->local
	       && bpf_ktime_get_ns() - flow->time_ns <= TG_FLOW_FRESH_NS;
}

/* Who sent it, by the row of its tuple, if there is one, or by the address. */
TG_INLINE void tg_find_sender(const struct tg_tuple *tuple, const struct tg_flow *flow,
			      struct tg_place *found)
{
	if (!tg_flow_is_fresh(flow)) {
		tg_find_addr(&tuple->src, found);
		return;
	}

	__builtin_memset(found, 0, sizeof(*found));
	found->who = flow->src;
}

/* But for the caller's port. */
TG_INLINE bool tg_tuple_alike(const struct tg_tuple *a, const struct tg_tuple *b)
{
	return a->dport == b->dport && a->proto == b->proto && a->netns == b->netns
	       && tg_addr_equal(&a->src, &b->src) && tg_addr_equal(&a->dst, &b->dst);
}

/* Where a call like this one is kept. */
TG_INLINE struct tg_arrival *tg_arrival_get(const struct tg_tuple *tuple)
{
	__u32 at = tg_row_of(tuple->src.w[3] ^ tuple->dst.w[3] ^ tuple->dport, TG_RECENT);

	return bpf_map_lookup_elem(&tg_arrivals, &at);
}

/* For the connection that a packet makes: not by what was kept of another. */
TG_INLINE void tg_arrival_forget(struct tg_arrival *arrival)
{
	if (arrival && tg_turn_take(&arrival->turn)) {
		arrival->epoch = 0;
		tg_turn_give(&arrival->turn);
	}
}

#endif /* TG_FLOW_H */
