/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Limits of a service, per node: connections per second and connections open.  A
 * socket that was counted says so in its storage, and gives the place back once:
 * when its connection ends or it is closed, whichever comes first.  Without room
 * for a meter a limited service is refused.
 */

#ifndef TG_LIMIT_H
#define TG_LIMIT_H

#include "tg_event.h"

TG_INLINE void tg_limit_release(struct tg_socket *state)
{
	struct tg_meter *meter;
	__u32 service = state->metered;

	if (!state->counted || !__sync_lock_test_and_set(&state->counted, 0))
		return;

	meter = bpf_map_lookup_elem(&tg_meters, &service);
	if (meter)
		__sync_fetch_and_add(&meter->open, -1);
}

TG_INLINE struct tg_meter *tg_meter_get(__u32 service)
{
	struct tg_meter *meter = bpf_map_lookup_elem(&tg_meters, &service);
	struct tg_meter fresh = {};

	if (meter)
		return meter;

	bpf_map_update_elem(&tg_meters, &service, &fresh, BPF_NOEXIST);
	meter = bpf_map_lookup_elem(&tg_meters, &service);
	if (!meter)
		tg_count(TG_FULL_METERS);

	return meter;
}

/* 0, or why not.  Counts the socket as open where that is limited. */
TG_INLINE __u32 tg_limit_take(__u32 service, struct tg_socket *state)
{
	struct tg_limit *limit = bpf_map_lookup_elem(&tg_limits, &service);
	struct tg_meter *meter;
	__u64 interval;

	if (!limit || !state)
		return 0;

	meter = tg_meter_get(service);
	if (!meter)
		return TG_WHY_DENY_FULL;

	interval = limit->rate ? TG_SECOND_NS / limit->rate : 0;
	if (interval && !tg_gcra(&meter->due, bpf_ktime_get_ns(), interval,
				 limit->burst ? interval * (limit->burst - 1) : 0))
		return TG_WHY_DENY_RATE;

	if (limit->open) {
		if (__sync_fetch_and_add(&meter->open, 1) >= limit->open) {
			__sync_fetch_and_add(&meter->open, -1);
			return TG_WHY_DENY_OPEN;
		}

		state->metered = service;
		state->counted = 1;
	}

	return 0;
}

#endif /* TG_LIMIT_H */
