// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The life of sockets: bind, established, ended, closed.  Makes the records of
 * flows and gives back what limits counted.
 */

#include "tg_flow.h"
#include "tg_limit.h"

#define TG_AF_INET 2

SEC("cgroup/post_bind4")
int tg_post_bind4(struct bpf_sock *ctx)
{
	struct tg_socket *state;

	state = bpf_sk_storage_get(&tg_sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (state)
		state->netns = bpf_get_netns_cookie(ctx);
	else
		tg_count(TG_FULL_SOCKETS);

	return 1;
}

SEC("cgroup/post_bind6")
int tg_post_bind6(struct bpf_sock *ctx)
{
	struct tg_socket *state;

	state = bpf_sk_storage_get(&tg_sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (state)
		state->netns = bpf_get_netns_cookie(ctx);
	else
		tg_count(TG_FULL_SOCKETS);

	return 1;
}

SEC("cgroup/sock_release")
int tg_sock_release(struct bpf_sock *ctx)
{
	struct tg_socket *state = bpf_sk_storage_get(&tg_sockets, ctx, 0, 0);

	if (state)
		tg_limit_release(state);

	return 1;
}

/* Not inline: the verifier takes no address computed into the context, which is
 * what the compiler makes of choosing between two ends. */
static __noinline void tg_ends(struct bpf_sock_ops *ctx, struct tg_target *near,
			       struct tg_target *far)
{
	if (ctx->family == TG_AF_INET) {
		tg_set_v4(&near->addr, ctx->local_ip4);
		tg_set_v4(&far->addr, ctx->remote_ip4);
	} else {
		near->addr.w[0] = ctx->local_ip6[0];
		near->addr.w[1] = ctx->local_ip6[1];
		near->addr.w[2] = ctx->local_ip6[2];
		near->addr.w[3] = ctx->local_ip6[3];
		far->addr.w[0] = ctx->remote_ip6[0];
		far->addr.w[1] = ctx->remote_ip6[1];
		far->addr.w[2] = ctx->remote_ip6[2];
		far->addr.w[3] = ctx->remote_ip6[3];
	}

	near->port = ctx->local_port;
	far->port = bpf_ntohl(ctx->remote_port);
	near->proto = TG_IPPROTO_TCP;
	far->proto = TG_IPPROTO_TCP;
}

/* Not inline: so the record's layout is in the object's BTF. */
static __noinline void tg_sum_up(struct bpf_sock_ops *ctx, struct tg_event *event,
				 __u64 opened_ns)
{
	event->duration_ns = event->time_ns - opened_ns;
	event->bytes_out = ctx->bytes_acked;
	event->bytes_in = ctx->bytes_received;
	event->srtt_us = ctx->srtt_us >> 3;
	event->retransmits = ctx->total_retrans;
}

TG_INLINE void tg_tell_flow(struct bpf_sock_ops *ctx, const struct tg_settings *settings,
			    const struct tg_socket *state, __u8 type)
{
	bool active = state->role == TG_ROLE_ACTIVE;
	struct tg_target near = {}, far = {};
	struct tg_event *event;

	/* Only what a tenant has part in is its flow. */
	if (!state->self.tenant && !state->peer.tenant)
		return;

	event = tg_event_begin(settings, active ? &state->self : &state->peer,
			       active ? &state->peer : &state->self, type);
	if (!event)
		return;

	tg_ends(ctx, &near, &far);
	event->cookie = bpf_get_socket_cookie(ctx);
	event->cgroup = state->cgroup;
	event->passive = !active;
	if (active) {
		event->from = near;
		event->to = far;
	} else {
		event->from = far;
		event->to = near;
	}
	if (state->flags & TG_SOCK_TRANSLATED)
		event->virt = state->virt;
	event->reason = state->reason;
	event->hook = TG_AT_SOCKOPS;

	if (type == TG_EVENT_CLOSE || type == TG_EVENT_FAILED)
		tg_sum_up(ctx, event, state->opened_ns);

	tg_event_end(event);
}

/* Who called: as the packet was judged that made the connection, which is the last
 * that came to a listener on this CPU, or found anew. */
TG_INLINE void tg_find_caller(const struct tg_tuple *tuple, const struct tg_target *near,
			      struct tg_socket *state)
{
	struct tg_arrival *arrival = tg_arrival_get(tuple);
	struct tg_place place, *endpoint;
	struct tg_flow *flow;
	bool known = false;

	if (arrival && tg_turn_take(&arrival->turn)) {
		known = arrival->epoch && arrival->tuple.sport == tuple->sport
			&& tg_tuple_alike(&arrival->tuple, tuple);
		if (known) {
			state->self = arrival->self;
			state->peer = arrival->peer.who;
			state->far_flags = arrival->peer.flags;
			state->epoch = arrival->epoch;
			state->reason = arrival->reason;
		}
		tg_turn_give(&arrival->turn);
	}

	if (known)
		return;

	flow = tg_flow_find(tuple);
	tg_find_sender(tuple, flow, &place);

	endpoint = bpf_map_lookup_elem(&tg_endpoints, near);
	if (endpoint && (!state->self.tenant || endpoint->who.tenant == state->self.tenant))
		state->self = endpoint->who;

	state->peer = place.who;
	state->far_flags = place.flags;
	/* When not now: again with its first packet. */
	state->epoch = tg_flow_is_fresh(flow) ? flow->epoch : 0;
	state->reason = 0;
}

/* What the child of a listener must not take over, and who called. */
TG_INLINE void tg_accepted(struct bpf_sock_ops *ctx, struct tg_socket *state)
{
	struct tg_target near = {}, far = {};
	struct tg_tuple tuple = {};

	tg_ends(ctx, &near, &far);
	tuple.src = far.addr;
	tuple.dst = near.addr;
	tuple.sport = far.port;
	tuple.dport = near.port;
	tuple.proto = TG_IPPROTO_TCP;
	tg_flow_scope(&tuple, state->netns);
	tg_find_caller(&tuple, &near, state);

	state->far = far;
	state->dport = near.port;
	state->role = TG_ROLE_PASSIVE;
	/* It answers from where it was called. */
	state->flags = TG_SOCK_OPENED | TG_SOCK_SOURCE_OK;
	state->counted = 0;
	state->opened_ns = bpf_ktime_get_ns();
	state->pass_in = state->epoch;
	state->pass_out = state->placed == state->epoch ? state->epoch : 0;
}

/* One of those that tg_sockops wants.  Not inline: most are not. */
static __noinline int tg_lives(struct bpf_sock_ops *ctx, __u32 op)
{
	struct tg_settings *settings = tg_settings_get();
	struct bpf_sock *sk = ctx->sk;
	struct tg_socket *state;
	__u8 type = 0;

	if (!settings || !tg_epoch(settings) || !sk)
		return 1;

	state = bpf_sk_storage_get(&tg_sockets, sk, 0, 0);
	if (!state)
		return 1;

	switch (op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (state->role == TG_ROLE_ACTIVE)
			bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;

	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (state->role != TG_ROLE_ACTIVE)
			return 1;
		state->flags |= TG_SOCK_OPENED;
		type = TG_EVENT_CONNECT;
		break;

	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (state->role != TG_ROLE_LISTEN)
			return 1;
		tg_accepted(ctx, state);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		type = TG_EVENT_ACCEPT;
		break;

	default:
		if (state->role != TG_ROLE_ACTIVE && state->role != TG_ROLE_PASSIVE)
			return 1;
		type = state->flags & TG_SOCK_OPENED ? TG_EVENT_CLOSE : TG_EVENT_FAILED;
		break;
	}

	tg_tell_flow(ctx, settings, state, type);

	if (op == BPF_SOCK_OPS_STATE_CB) {
		tg_limit_release(state);
		state->role = TG_ROLE_NONE;
		state->pass_in = 0;
		state->pass_out = 0;
	}

	return 1;
}

SEC("sockops")
int tg_sockops(struct bpf_sock_ops *ctx)
{
	__u32 op = ctx->op;

	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB
	    && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
	    && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;

	if (op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] != BPF_TCP_CLOSE)
		return 1;

	return tg_lives(ctx, op);
}
