/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * The verdict on a call, from a source to a destination.  Both sides have a say;
 * the first of these that refuses is the answer, and the last is what is reported
 * when none does:
 *
 *  1. the source's tenant, where the call begins: its TG_OUT rules, else its
 *     default for calls within the tenant, to other tenants, out of the mesh;
 *  2. the destination's tenant, at both ends: its TG_IN rules, else its default
 *     for callers of the tenant, of other tenants, of nodes, from outside.
 *
 * A destination that nobody knows has no tenant, so only 1 speaks; when the source
 * is not known either, the call is none of the mesh's business and passes.
 *
 * Of the rules of one tenant and direction the one with the highest precedence
 * counts, and of those with the same precedence a denial.  Rules that say the same
 * are folded by the agent, so each combination of wildcards (a shape) costs one
 * hash lookup, and at most TG_SHAPES are made, of those that the tenant uses:
 *
 *     subject service, any  x  peer service, tenant, net, any
 *                           x  protocol and port, protocol, any
 *
 * Peers with an identity match by service and tenant, peers without by net: the
 * same rule holds at both ends, also where one end cannot know the address yet.
 */

#ifndef TG_POLICY_H
#define TG_POLICY_H

#include "tg_place.h"

struct tg_call {
	struct tg_who src;
	struct tg_who dst;
	struct tg_addr src_addr; /* zero before routing */
	struct tg_addr dst_addr;
	__u32 src_flags;
	__u32 dst_flags;
	__u32 rule; /* out: number of the policy that decided */
	__u32 best; /* of the rules seen: rank + 1, or 0 */
	__u32 epoch; /* that it is judged in */
	__u16 dport; /* of the endpoint */
	__u8 proto;
	__u8 at_source;
};

TG_INLINE bool tg_find_tenant(__u32 number, struct tg_tenant *found)
{
	struct tg_tenant *tenant;
	int try;

	for (try = 0; try < 2; try++) {
		tenant = bpf_map_lookup_elem(&tg_tenants, &number);
		if (!tenant)
			return false;

		*found = *tenant;
		if (found->tenant == number)
			return true;

		tg_count(TG_TORN);
	}

	return false;
}

/* The class of an address in a set of rules, 0 for none. */
TG_INLINE __u32 tg_find_class(__u32 set, const struct tg_addr *addr)
{
	struct tg_cidr key = { .prefix = 160, .set = set, .addr = *addr };
	__u32 *class = bpf_map_lookup_elem(&tg_cidrs, &key);

	return class ? *class : 0;
}

/* What the peer's place in a rule's key is for a kind; 0: cannot match. */
TG_INLINE __u32 tg_peer_number(__u32 kind, const struct tg_who *peer, __u32 class)
{
	switch (kind) {
	case TG_PEER_SERVICE: return peer->service;
	case TG_PEER_TENANT: return peer->tenant;
	case TG_PEER_NET: return class;
	}

	return 0;
}

/*
 * The winning rule's rank + 1 in call->best, its number in call->rule.  A global
 * function, so that the verifier goes through the loop once and not at each call.
 */
__weak __noinline int tg_match(struct tg_call *call, __u32 set, __u32 shapes, __u32 direction)
{
	bool in = direction == TG_IN;
	struct tg_rule_key key = { .set = set };
	__u32 class = 0, subject, shape, kind, l4;
	struct tg_rule *rule;
	struct tg_who peer;

	if (!call)
		return 0;

	call->best = 0;
	peer = in ? call->src : call->dst;
	subject = in ? call->dst.service : call->src.service;

	if (!peer.tenant)
		class = tg_find_class(set, in ? &call->src_addr : &call->dst_addr);

#pragma clang loop unroll(disable)
	for (shape = 0; shape < TG_SHAPES; shape++) {
		if (!(shapes & (1U << shape)))
			continue;

		l4 = shape % TG_L4_KINDS;
		kind = shape / TG_L4_KINDS % TG_PEER_KINDS;

		key.subject = shape >= TG_SHAPES / 2 ? 0 : subject;
		key.peer = tg_peer_number(kind, &peer, class);
		if (!key.peer && kind != TG_PEER_ANY)
			continue;

		key.port = l4 == TG_L4_PORT ? call->dport : 0;
		key.proto = l4 == TG_L4_ANY ? 0 : call->proto;
		key.kind = direction << 4 | kind;

		rule = bpf_map_lookup_elem(&tg_rules, &key);
		if (rule && rule->rank + 1 > call->best) {
			call->best = rule->rank + 1;
			call->rule = rule->number;
		}
	}

	return 0;
}

/* Rank + 1 of the rule of the tenant that wins, 0 for none. */
TG_INLINE __u32 tg_best(struct tg_call *call, const struct tg_tenant *tenant, __u32 direction)
{
	if (!tenant->shapes[direction])
		return 0;

	tg_match(call, tenant->set, tenant->shapes[direction], direction);
	return call->best;
}

/* Step 1: 0 when the source's tenant has no objection. */
TG_INLINE __u32 tg_judge_out(struct tg_call *call, const struct tg_tenant *tenant)
{
	__u32 best = tg_best(call, tenant, TG_OUT);

	if (best)
		return (best - 1) & 1 ? TG_WHY_DENY_RULE : TG_WHY_NONE;

	if (!call->dst.tenant)
		return tenant->defaults & TG_TO_OUTSIDE || call->dst_flags & TG_LOOPBACK
			? TG_WHY_NONE : TG_WHY_DENY_TO_OUTSIDE;

	if (call->dst.tenant == call->src.tenant)
		return tenant->defaults & TG_TO_SAME ? TG_WHY_NONE : TG_WHY_DENY_TO_SAME;

	return tenant->defaults & TG_TO_OTHER ? TG_WHY_NONE : TG_WHY_DENY_TO_OTHER;
}

/* Step 2. */
TG_INLINE __u32 tg_judge_in(struct tg_call *call, const struct tg_tenant *tenant)
{
	__u32 best = tg_best(call, tenant, TG_IN);

	if (best)
		return (best - 1) & 1 ? TG_WHY_DENY_RULE : TG_WHY_RULE;

	if (call->src.tenant == call->dst.tenant)
		return tenant->defaults & TG_FROM_SAME
			? TG_WHY_SAME_TENANT : TG_WHY_DENY_SAME_TENANT;

	if (call->src.tenant)
		return tenant->defaults & TG_FROM_OTHER
			? TG_WHY_OTHER_TENANT : TG_WHY_DENY_OTHER_TENANT;

	if (call->src_flags & TG_HOST)
		return tenant->defaults & TG_FROM_HOST
			? TG_WHY_FROM_HOST : TG_WHY_DENY_FROM_HOST;

	return tenant->defaults & TG_FROM_OUTSIDE
		? TG_WHY_FROM_OUTSIDE : TG_WHY_DENY_FROM_OUTSIDE;
}

TG_INLINE __u32 tg_judge_anew(struct tg_call *call)
{
	struct tg_tenant tenant = {};
	__u32 reason;

	call->rule = 0;

	if (call->src.tenant && call->at_source) {
		if (!tg_find_tenant(call->src.tenant, &tenant))
			return TG_WHY_DENY_NO_TENANT;

		reason = tg_judge_out(call, &tenant);
		if (reason)
			return reason;

		call->rule = 0;
	}

	if (!call->dst.tenant)
		return TG_WHY_OUTSIDE;

	if (tenant.tenant != call->dst.tenant && !tg_find_tenant(call->dst.tenant, &tenant))
		return TG_WHY_DENY_NO_TENANT;

	return tg_judge_in(call, &tenant);
}

/* Where the verdict is kept, if it is by identities alone. */
TG_INLINE struct tg_verdict *tg_verdict_get(const struct tg_call *call)
{
	__u32 at = tg_row_of(call->src.service ^ call->dst.service << 8 ^ call->dport, TG_RECENT);

	return call->src.tenant && call->dst.tenant ? bpf_map_lookup_elem(&tg_verdicts, &at)
						    : NULL;
}

TG_INLINE bool tg_judged_before(const struct tg_verdict *verdict, struct tg_call *call,
				__u32 *reason)
{
	__u32 turn = tg_turn(&verdict->turn);
	__u32 rule = verdict->rule;

	*reason = verdict->reason;

	if (verdict->epoch != call->epoch || !tg_who_equal(&verdict->src, &call->src)
	    || !tg_who_equal(&verdict->dst, &call->dst) || verdict->dport != call->dport
	    || verdict->proto != call->proto || verdict->at_source != call->at_source
	    || !tg_turn_holds(&verdict->turn, turn))
		return false;

	call->rule = rule;
	return true;
}

TG_INLINE void tg_verdict_keep(struct tg_verdict *verdict, const struct tg_call *call,
			       __u32 reason)
{
	if (!tg_turn_take(&verdict->turn))
		return;

	verdict->epoch = call->epoch;
	verdict->src = call->src;
	verdict->dst = call->dst;
	verdict->dport = call->dport;
	verdict->proto = call->proto;
	verdict->at_source = call->at_source;
	verdict->reason = reason;
	verdict->rule = call->rule;
	tg_turn_give(&verdict->turn);
}

/* The verdict's number, and in call->rule which policy it was. */
__weak __noinline int tg_judge(struct tg_call *call)
{
	struct tg_verdict *verdict;
	__u32 reason;

	if (!call)
		return TG_WHY_DENY_FULL;

	verdict = tg_verdict_get(call);
	if (verdict && tg_judged_before(verdict, call, &reason))
		return reason;

	reason = tg_judge_anew(call);
	if (verdict)
		tg_verdict_keep(verdict, call, reason);

	return reason;
}

#endif /* TG_POLICY_H */
