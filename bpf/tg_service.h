/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* From a service's address to one of its endpoints, in O(1), by weight. */

#ifndef TG_SERVICE_H
#define TG_SERVICE_H

#include "tg_place.h"

/* 0: no such service.  Else its copy is in *found. */
TG_INLINE bool tg_find_service(const struct tg_target *virt, struct tg_service *found)
{
	struct tg_service *service;
	int try;

	for (try = 0; try < 2; try++) {
		service = bpf_map_lookup_elem(&tg_services, virt);
		if (!service)
			return false;

		*found = *service;
		if (tg_target_equal(&found->target, virt))
			return true;

		tg_count(TG_TORN);
	}

	return false;
}

/* 0, or why there is none.  Another set may be put in between: look once more. */
TG_INLINE __u32 tg_choose(struct tg_service *service, const struct tg_target *virt,
			  struct tg_target *chosen)
{
	const struct tg_endpoint *endpoint;
	struct tg_slot *slot;
	__u32 index;
	int try;

	for (try = 0; try < 2; try++) {
		if (!service->count)
			return TG_WHY_DENY_NO_ENDPOINT;

		index = service->first;
		if (service->count > 1)
			index += ((__u64)bpf_get_prandom_u32() * service->count) >> 32;

		slot = bpf_map_lookup_elem(&tg_slots, &index);
		if (!slot)
			return TG_WHY_DENY_NO_ENDPOINT;

		endpoint = &slot->endpoint[0];
		if (slot->own != TG_OWN_ALL && bpf_get_prandom_u32() >= slot->own)
			endpoint = &slot->endpoint[1];
		chosen->addr = endpoint->addr;
		chosen->port = endpoint->port;
		chosen->proto = virt->proto;
		chosen->reserved = 0;

		if (slot->set == service->set)
			return 0;

		tg_count(TG_TORN);
		if (!tg_find_service(virt, service))
			return TG_WHY_DENY_NO_ENDPOINT;
	}

	return TG_WHY_DENY_NO_ENDPOINT;
}

/*
 * For a socket without connect: what it was given before, as long as that is an
 * endpoint of the service that is up; a protocol with state over one socket (QUIC)
 * would break otherwise.  The way back must be there before anything leaves.
 */
TG_INLINE __u32 tg_choose_again(__u64 cookie, struct tg_service *service,
				const struct tg_target *virt, struct tg_target *chosen)
{
	struct tg_peer_key key = { .cookie = cookie, .target = *virt };
	struct tg_target *before, *origin;
	struct tg_place *place = NULL;
	__u32 reason;

	before = bpf_map_lookup_elem(&tg_chosen, &key);
	if (before) {
		*chosen = *before;
		place = bpf_map_lookup_elem(&tg_endpoints, chosen);
	}

	if (!place || place->flags & TG_DOWN || place->who.service != service->who.service) {
		reason = tg_choose(service, virt, chosen);
		if (reason)
			return reason;

		bpf_map_update_elem(&tg_chosen, &key, chosen, BPF_ANY);
	}

	key.target = *chosen;
	origin = bpf_map_lookup_elem(&tg_origins, &key);

	if ((!origin || !tg_target_equal(origin, virt))
	    && bpf_map_update_elem(&tg_origins, &key, virt, BPF_ANY)) {
		tg_count(TG_FULL_ORIGINS);
		return TG_WHY_DENY_FULL;
	}

	return 0;
}

#endif /* TG_SERVICE_H */
