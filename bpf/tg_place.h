/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* Who is it: from a cgroup, from an address. */

#ifndef TG_PLACE_H
#define TG_PLACE_H

#include <stdbool.h>

#include "tg_maps.h"
#include "tg_recent.h"

#define TG_INLINE static __always_inline

#define TG_IPPROTO_TCP   6
#define TG_IPPROTO_UDP   17
#define TG_IPPROTO_MPTCP 262

TG_INLINE void tg_count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&tg_counters, &what);

	if (counter)
		*counter += 1;
}

TG_INLINE struct tg_settings *tg_settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tg_settings, &zero);
}

/* Read once, before anything is judged: what is judged by older maps must not pass
 * for judged by newer.  0: the agent has not filled the maps yet. */
TG_INLINE __u32 tg_epoch(const struct tg_settings *settings)
{
	return settings ? *(const volatile __u32 *)&settings->epoch : 0;
}

TG_INLINE bool tg_who_equal(const struct tg_who *a, const struct tg_who *b)
{
	return a->tenant == b->tenant && a->service == b->service;
}

TG_INLINE bool tg_addr_equal(const struct tg_addr *a, const struct tg_addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1]
	       && a->w[0] == b->w[0];
}

TG_INLINE bool tg_target_equal(const struct tg_target *a, const struct tg_target *b)
{
	return a->port == b->port && a->proto == b->proto
	       && tg_addr_equal(&a->addr, &b->addr);
}

TG_INLINE bool tg_is_v4(const struct tg_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

TG_INLINE void tg_set_v4(struct tg_addr *a, __u32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

TG_INLINE bool tg_is_loopback(const struct tg_addr *a)
{
	if (tg_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 24) == 127;

	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0
	       && a->w[3] == bpf_htonl(1);
}

/*
 * The workload of a socket, or without one of the running process: the innermost
 * cgroup on the way up that is known, so that a workload which makes cgroups of
 * its own stays what it is.
 */
TG_INLINE bool tg_find_workload(const struct tg_settings *settings,
				struct bpf_sock *sk, struct tg_workload *found)
{
	__u32 levels = settings->levels;
	struct tg_workload *workload;
	int level = levels & 0xff00 ? 15 : levels & 0xf0 ? 7 : 3;
	__u64 id;

#pragma clang loop unroll(disable)
	for (; level > 0; level--) {
		if (!(levels & (1U << level)))
			continue;

		id = sk ? bpf_sk_ancestor_cgroup_id(sk, level)
			: bpf_get_current_ancestor_cgroup_id(level);
		if (!id)
			continue;

		workload = bpf_map_lookup_elem(&tg_workloads, &id);
		if (!workload)
			continue;

		*found = *workload;
		if (found->cgroup == id)
			return true;

		tg_count(TG_TORN);
	}

	__builtin_memset(found, 0, sizeof(*found));
	return false;
}

/* By address: one host, then loopback, then the longest prefix. */
TG_INLINE void tg_find_addr(const struct tg_addr *addr, struct tg_place *found)
{
	struct tg_place *place = bpf_map_lookup_elem(&tg_hosts, addr);
	struct tg_net net;

	__builtin_memset(found, 0, sizeof(*found));

	if (!place && tg_is_loopback(addr)) {
		found->flags = TG_HOST | TG_LOOPBACK;
		return;
	}

	if (!place) {
		net.prefix = 128;
		net.addr = *addr;
		place = bpf_map_lookup_elem(&tg_nets, &net);
	}

	if (place)
		*found = *place;
}

/* By address and port, which is exact where workloads share an address. */
TG_INLINE void tg_find_target(const struct tg_target *target,
			      struct tg_place *found)
{
	struct tg_place *place = bpf_map_lookup_elem(&tg_endpoints, target);

	if (place)
		*found = *place;
	else
		tg_find_addr(&target->addr, found);
}

#endif /* TG_PLACE_H */
