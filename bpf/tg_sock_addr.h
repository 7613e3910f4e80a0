/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * The address of a bpf_sock_addr as a target, and back.  The context may only be
 * read and written member by member.
 */

#ifndef TG_SOCK_ADDR_H
#define TG_SOCK_ADDR_H

#include "tg_place.h"

TG_INLINE void tg_get_proto(struct bpf_sock_addr *ctx, struct tg_target *target)
{
	__u32 proto = ctx->protocol;

	target->proto = proto == TG_IPPROTO_MPTCP ? TG_IPPROTO_TCP : proto;
	target->port = bpf_ntohs(ctx->user_port);
	target->reserved = 0;

	if (target->proto != TG_IPPROTO_TCP && target->proto != TG_IPPROTO_UDP)
		target->port = 0;
}

TG_INLINE void tg_get4(struct bpf_sock_addr *ctx, struct tg_target *target)
{
	tg_set_v4(&target->addr, ctx->user_ip4);
	tg_get_proto(ctx, target);
}

TG_INLINE void tg_get6(struct bpf_sock_addr *ctx, struct tg_target *target)
{
	target->addr.w[0] = ctx->user_ip6[0];
	target->addr.w[1] = ctx->user_ip6[1];
	target->addr.w[2] = ctx->user_ip6[2];
	target->addr.w[3] = ctx->user_ip6[3];
	tg_get_proto(ctx, target);
}

TG_INLINE void tg_put4(struct bpf_sock_addr *ctx, const struct tg_target *target)
{
	ctx->user_ip4 = target->addr.w[3];
	ctx->user_port = bpf_htons(target->port);
}

TG_INLINE void tg_put6(struct bpf_sock_addr *ctx, const struct tg_target *target)
{
	ctx->user_ip6[0] = target->addr.w[0];
	ctx->user_ip6[1] = target->addr.w[1];
	ctx->user_ip6[2] = target->addr.w[2];
	ctx->user_ip6[3] = target->addr.w[3];
	ctx->user_port = bpf_htons(target->port);
}

#endif /* TG_SOCK_ADDR_H */
