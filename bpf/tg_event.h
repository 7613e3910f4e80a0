/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Records for the agent.  Each tenant has a bucket for what flows, one for what it
 * was denied, and one for what outsiders were denied at it: whoever floods empties
 * a bucket of their own.  What a bucket left out is told by its next record, what
 * the ring had no room for by a counter.
 */

#ifndef TG_EVENT_H
#define TG_EVENT_H

#include "tg_place.h"

#define TG_SECOND_NS 1000000000ULL
#define TG_EVENTS_CALL 16

/* GCRA on one word: false when there is nothing left. */
TG_INLINE bool tg_gcra(__u64 *due, __u64 now, __u64 interval, __u64 window)
{
	__u64 limit = now + window;
	__u64 seen, next;
	int try;

	for (try = 0; try < 8; try++) {
		seen = *(volatile __u64 *)due;
		next = seen > now ? seen : now;
		if (next > limit)
			return false;

		if (__sync_val_compare_and_swap(due, seen, next + interval) == seen)
			return true;
	}

	return false;
}

/* Whether the record may be made; *lost is what was left out before it. */
TG_INLINE bool tg_sample(const struct tg_settings *settings, __u32 tenant,
			 __u32 class, __u64 now, __u32 *lost)
{
	struct tg_bucket_key key = { .tenant = tenant, .class = class };
	struct tg_bucket *bucket = bpf_map_lookup_elem(&tg_buckets, &key);
	struct tg_bucket fresh = {};

	*lost = 0;

	if (!bucket) {
		if (bpf_map_update_elem(&tg_buckets, &key, &fresh, BPF_NOEXIST))
			tg_count(TG_FULL_BUCKETS);

		bucket = bpf_map_lookup_elem(&tg_buckets, &key);
		if (!bucket)
			return false;
	}

	if (!tg_gcra(&bucket->due, now, settings->event_interval, settings->event_window)) {
		__sync_fetch_and_add(&bucket->lost, 1);
		tg_count(class == TG_BUCKET_FLOW ? TG_LOST_SAMPLED : TG_LOST_DENY_SAMPLED);
		return false;
	}

	if (bucket->lost)
		*lost = __sync_lock_test_and_set(&bucket->lost, 0);

	return true;
}

/* A record, all zero but for the time; NULL when it is left out. */
TG_INLINE struct tg_event *tg_event_begin(const struct tg_settings *settings,
					  const struct tg_who *src,
					  const struct tg_who *dst, __u8 type)
{
	__u32 tenant = src->tenant ? src->tenant : dst->tenant;
	__u32 class = type != TG_EVENT_DENY ? TG_BUCKET_FLOW
		      : src->tenant ? TG_BUCKET_DENY : TG_BUCKET_DENY_OUTSIDE;
	__u64 now = bpf_ktime_get_ns();
	struct tg_event *event;
	__u32 lost;

	if (!tg_sample(settings, tenant, class, now, &lost))
		return NULL;

	event = bpf_ringbuf_reserve(&tg_events, sizeof(*event), 0);
	if (!event) {
		tg_count(TG_LOST_RING);
		return NULL;
	}

	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now;
	event->type = type;
	event->src = *src;
	event->dst = *dst;
	event->lost = lost;
	return event;
}

/*
 * To wake somebody costs more than all the rest of a connect, so nobody is woken: the
 * agent looks by itself.  Only when a quarter of the ring waits it is called, by a few
 * records, of which one at least will see that it is so.
 */
TG_INLINE void tg_event_end(struct tg_event *event)
{
	__u64 waits = bpf_ringbuf_query(&tg_events, BPF_RB_AVAIL_DATA);
	__u64 quarter = bpf_ringbuf_query(&tg_events, BPF_RB_RING_SIZE) / 4;
	bool call = waits >= quarter && waits < quarter + TG_EVENTS_CALL * sizeof(*event);

	bpf_ringbuf_submit(event, call ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

#endif /* TG_EVENT_H */
