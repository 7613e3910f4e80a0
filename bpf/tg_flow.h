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

TG_INLINE bool tg_who_equal(const struct tg_who *a, const struct tg_who *b)
{
	return a->tenant == b->tenant && a->service == b->service;
}

/* The sender that was seen leaving this node just now. */
TG_INLINE struct tg_flow *tg_flow_sender(const struct tg_tuple *tuple)
{
	struct tg_flow *flow = bpf_map_lookup_elem(&tg_flows, tuple);

	if (!flow || !flow->local
	    || bpf_ktime_get_ns() - flow->time_ns > TG_FLOW_FRESH_NS)
		return NULL;

	return flow;
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

/* Who sent it, and what the address says of them; when this very flow was judged. */
TG_INLINE void tg_find_sender(const struct tg_tuple *tuple, struct tg_place *found,
			      __u32 *epoch)
{
	struct tg_flow *flow = tg_flow_sender(tuple);

	*epoch = flow ? flow->epoch : 0;
	if (flow) {
		__builtin_memset(found, 0, sizeof(*found));
		found->who = flow->src;
		return;
	}

	tg_find_addr(&tuple->src, found);
}

#endif /* TG_FLOW_H */
