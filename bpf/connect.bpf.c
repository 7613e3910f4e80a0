// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * connect() and sendmsg() with an address: services are translated to endpoints,
 * then the call is judged.  What is refused fails at once with EPERM.
 *
 * Nothing is asked of a socket but its storage: without room for it the call of a
 * workload is refused, for the packets that come back could not be told from calls.
 */

#include "tg_flow.h"
#include "tg_limit.h"
#include "tg_policy.h"
#include "tg_service.h"
#include "tg_sock_addr.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TG_PROCEED 1
#define TG_REFUSE  0

struct tg_attempt {
	struct tg_workload workload;
	struct tg_target virt; /* what was asked for */
	struct tg_target to; /* where it goes */
	struct tg_call call;
	__u8 known; /* the caller is a workload */
	__u8 service; /* virt is a service */
	__u8 hook;
	__u8 reserved;
};

static __noinline void tg_tell_denied(struct bpf_sock_addr *ctx,
				      const struct tg_settings *settings,
				      const struct tg_attempt *a, __u32 reason)
{
	struct tg_event *event;

	event = tg_event_begin(settings, &a->call.src, &a->call.dst, TG_EVENT_DENY);
	if (!event)
		return;

	event->cookie = bpf_get_socket_cookie(ctx);
	event->cgroup = a->workload.cgroup;
	event->from.proto = a->virt.proto;
	event->to = a->to;
	if (a->service)
		event->virt = a->virt;
	event->rule = a->call.rule;
	event->reason = reason;
	event->hook = a->hook;
	tg_event_end(event);
}

/* Fills the call; the verdict's number. */
TG_INLINE __u32 tg_judge_attempt(const struct tg_settings *settings, __u32 epoch,
				 struct tg_attempt *a, const struct tg_service *service,
				 __u64 cookie)
{
	struct tg_call *call = &a->call;
	struct tg_place place;

	if (a->service) {
		call->dst = service->who;
		call->dst_flags = service->flags;
	} else {
		tg_find_target(&a->to, &place);
		call->dst = place.who;
		call->dst_flags = place.flags;
	}

	if (!a->known && !call->dst.tenant)
		return TG_WHY_OUTSIDE;

	if (!a->known && settings->unknown == TG_UNKNOWN_DENY)
		return TG_WHY_DENY_UNKNOWN_CGROUP;

	if (!a->known && settings->unknown == TG_UNKNOWN_HOST)
		return TG_WHY_UNKNOWN_CGROUP;

	if (a->hook == TG_AT_SENDMSG && !a->service && tg_caller_waits(cookie, &a->to))
		return TG_WHY_REPLY;

	call->src = a->workload.who;
	call->src_flags = 0;
	call->dst_addr = a->to.addr;
	call->dport = a->to.port;
	call->proto = a->to.proto;
	call->at_source = 1;
	call->epoch = epoch;
	return tg_judge(call);
}

TG_INLINE void tg_keep_connect(struct bpf_sock_addr *ctx, struct tg_socket *state,
			       __u32 epoch, const struct tg_attempt *a, __u32 reason)
{
	state->netns = bpf_get_netns_cookie(ctx);
	state->cgroup = a->workload.cgroup;
	state->opened_ns = bpf_ktime_get_ns();
	state->self = a->workload.who;
	state->self_flags = a->workload.flags;
	state->peer = a->call.dst;
	state->far_flags = a->call.dst_flags;
	state->far = a->to;
	state->virt = a->virt;
	/* What comes back was judged; what leaves shows its source first. */
	state->pass_in = a->to.proto == TG_IPPROTO_TCP ? epoch : 0;
	state->pass_out = 0;
	state->epoch = epoch;
	state->placed = epoch;
	state->dport = a->to.port;
	state->role = TG_ROLE_ACTIVE;
	state->flags = a->service ? TG_SOCK_TRANSLATED : 0;
	state->reason = reason;
}

/*
 * TG_PROCEED with where to go in a->to, or TG_REFUSE.  A caller that is not in the
 * mesh and goes elsewhere leaves by the first lookups, and nothing is kept of it.
 */
TG_INLINE int tg_attempt(struct bpf_sock_addr *ctx, struct tg_attempt *a, bool connect)
{
	struct tg_settings *settings = tg_settings_get();
	struct tg_service service = {};
	struct tg_socket *state = NULL;
	__u32 reason = 0, epoch = tg_epoch(settings);
	__u64 cookie = connect ? 0 : bpf_get_socket_cookie(ctx);

	if (!settings || !epoch || !ctx->sk)
		return TG_PROCEED;

	a->to = a->virt;
	a->known = tg_find_workload(settings, NULL, &a->workload);
	a->service = tg_find_service(&a->virt, &service);

	if (!a->known && !a->service && settings->unknown == TG_UNKNOWN_HOST)
		return TG_PROCEED;

	state = bpf_sk_storage_get(&tg_sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		tg_count(TG_FULL_SOCKETS);
	else if (connect)
		tg_limit_release(state);

	a->call.dst = service.who;
	a->call.src = a->workload.who;

	if (a->service)
		reason = connect ? tg_choose(&service, &a->virt, &a->to)
				 : tg_choose_again(cookie, &service, &a->virt, &a->to);
	if (!reason && tg_is_v4(&a->to.addr) != tg_is_v4(&a->virt.addr))
		reason = TG_WHY_DENY_FAMILY;

	if (!reason)
		reason = tg_judge_attempt(settings, epoch, a, &service, cookie);

	if (!tg_denied(reason) && !state && (a->known || a->service))
		reason = TG_WHY_DENY_FULL;

	if (!tg_denied(reason) && connect && state) {
		tg_keep_connect(ctx, state, epoch, a, reason);
		if (a->call.dst_flags & TG_LIMITED)
			reason = tg_limit_take(a->call.dst.service, state) ?: reason;
	} else if (!tg_denied(reason) && state) {
		state->netns = bpf_get_netns_cookie(ctx);
		state->flags |= a->service ? TG_SOCK_TRANSLATED : 0;
	}

	tg_count(reason < TG_REASON_LIMIT ? reason : 0);

	if (!tg_denied(reason))
		return TG_PROCEED;

	if (state && connect) {
		state->role = TG_ROLE_NONE;
		state->pass_in = 0;
		state->pass_out = 0;
	}

	tg_tell_denied(ctx, settings, a, reason);
	return TG_REFUSE;
}

TG_INLINE int tg_attempt4(struct bpf_sock_addr *ctx, __u8 hook)
{
	struct tg_attempt a = { .hook = hook };

	tg_get4(ctx, &a.virt);
	if (tg_attempt(ctx, &a, hook == TG_AT_CONNECT) == TG_REFUSE)
		return TG_REFUSE;

	if (a.service)
		tg_put4(ctx, &a.to);

	return TG_PROCEED;
}

TG_INLINE int tg_attempt6(struct bpf_sock_addr *ctx, __u8 hook)
{
	struct tg_attempt a = { .hook = hook };

	tg_get6(ctx, &a.virt);
	if (tg_attempt(ctx, &a, hook == TG_AT_CONNECT) == TG_REFUSE)
		return TG_REFUSE;

	if (a.service)
		tg_put6(ctx, &a.to);

	return TG_PROCEED;
}

SEC("cgroup/connect4")
int tg_connect4(struct bpf_sock_addr *ctx)
{
	return tg_attempt4(ctx, TG_AT_CONNECT);
}

SEC("cgroup/connect6")
int tg_connect6(struct bpf_sock_addr *ctx)
{
	return tg_attempt6(ctx, TG_AT_CONNECT);
}

SEC("cgroup/sendmsg4")
int tg_sendmsg4(struct bpf_sock_addr *ctx)
{
	return tg_attempt4(ctx, TG_AT_SENDMSG);
}

SEC("cgroup/sendmsg6")
int tg_sendmsg6(struct bpf_sock_addr *ctx)
{
	return tg_attempt6(ctx, TG_AT_SENDMSG);
}
