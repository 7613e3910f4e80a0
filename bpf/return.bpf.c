// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The way back: recvmsg() and getpeername() show the address that the socket asked
 * for, not the endpoint's.  Nothing is refused here.
 */

#include "tg_place.h"
#include "tg_sock_addr.h"

/* The service that stands behind an endpoint, for this socket. */
TG_INLINE bool tg_find_origin(struct bpf_sock_addr *ctx, struct tg_target *target)
{
	struct tg_peer_key key = {};
	struct tg_target *origin;
	struct tg_socket *state;

	if (!ctx->sk)
		return false;

	state = bpf_sk_storage_get(&tg_sockets, ctx->sk, 0, 0);
	if (!state || !(state->flags & TG_SOCK_TRANSLATED))
		return false;

	if (state->role == TG_ROLE_ACTIVE && tg_target_equal(&state->far, target)) {
		*target = state->virt;
		return true;
	}

	key.cookie = bpf_get_socket_cookie(ctx);
	key.target = *target;
	origin = bpf_map_lookup_elem(&tg_origins, &key);
	if (!origin)
		return false;

	*target = *origin;
	return true;
}

TG_INLINE int tg_return4(struct bpf_sock_addr *ctx)
{
	struct tg_target target;

	tg_get4(ctx, &target);
	if (tg_find_origin(ctx, &target))
		tg_put4(ctx, &target);

	return 1;
}

TG_INLINE int tg_return6(struct bpf_sock_addr *ctx)
{
	struct tg_target target;

	tg_get6(ctx, &target);
	if (tg_find_origin(ctx, &target))
		tg_put6(ctx, &target);

	return 1;
}

SEC("cgroup/recvmsg4")
int tg_recvmsg4(struct bpf_sock_addr *ctx)
{
	return tg_return4(ctx);
}

SEC("cgroup/recvmsg6")
int tg_recvmsg6(struct bpf_sock_addr *ctx)
{
	return tg_return6(ctx);
}

SEC("cgroup/getpeername4")
int tg_getpeername4(struct bpf_sock_addr *ctx)
{
	return tg_return4(ctx);
}

SEC("cgroup/getpeername6")
int tg_getpeername6(struct bpf_sock_addr *ctx)
{
	return tg_return6(ctx);
}
