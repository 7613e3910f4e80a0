/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * Every map.  Weak, so that each program file sees them and the linker makes them
 * one.  Sizes are the defaults: the agent may set others before loading.
 */

#ifndef TG_MAPS_H
#define TG_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "tg_mesh.h"

#define TG_MAP(name, kind, size, key_type, value_type, map_flag)              \
	struct {                                                              \
		__uint(type, BPF_MAP_TYPE_##kind);                            \
		__uint(max_entries, size);                                    \
		__uint(map_flags, map_flag);                                  \
		__type(key, key_type);                                        \
		__type(value, value_type);                                    \
	} name __weak SEC(".maps")

/* Written by the agent. */
TG_MAP(tg_settings, ARRAY, 1, __u32, struct tg_settings, BPF_F_MMAPABLE);
TG_MAP(tg_workloads, HASH, 16384, __u64, struct tg_workload, 0);
TG_MAP(tg_sources, HASH, 65536, struct tg_source, __u32, 0);
TG_MAP(tg_services, HASH, 32768, struct tg_target, struct tg_service, 0);
TG_MAP(tg_slots, ARRAY, 262144, __u32, struct tg_slot, BPF_F_MMAPABLE);
TG_MAP(tg_endpoints, HASH, 131072, struct tg_target, struct tg_place, 0);
TG_MAP(tg_hosts, HASH, 131072, struct tg_addr, struct tg_place, 0);
TG_MAP(tg_nets, LPM_TRIE, 16384, struct tg_net, struct tg_place, BPF_F_NO_PREALLOC);
TG_MAP(tg_tenants, HASH, 16384, __u32, struct tg_tenant, 0);
TG_MAP(tg_rules, HASH, 131072, struct tg_rule_key, struct tg_rule, 0);
TG_MAP(tg_cidrs, LPM_TRIE, 65536, struct tg_cidr, __u32, BPF_F_NO_PREALLOC);
TG_MAP(tg_limits, HASH, 32768, __u32, struct tg_limit, 0);

/* Written by programs. */
TG_MAP(tg_meters, HASH, 32768, __u32, struct tg_meter, 0);
TG_MAP(tg_flows, LRU_HASH, 65536, struct tg_tuple, struct tg_flow, 0);
TG_MAP(tg_shared, ARRAY, TG_SHARED, __u32, __u32, 0);
TG_MAP(tg_chosen, LRU_HASH, 65536, struct tg_peer_key, struct tg_target, 0);
TG_MAP(tg_origins, LRU_HASH, 65536, struct tg_peer_key, struct tg_target, 0);
TG_MAP(tg_callers, LRU_HASH, 65536, struct tg_peer_key, __u64, 0);
TG_MAP(tg_buckets, LRU_HASH, 16384, struct tg_bucket_key, struct tg_bucket, 0);
TG_MAP(tg_verdicts, PERCPU_ARRAY, TG_RECENT, __u32, struct tg_verdict, 0);
TG_MAP(tg_arrivals, PERCPU_ARRAY, TG_RECENT, __u32, struct tg_arrival, 0);
TG_MAP(tg_departures, PERCPU_ARRAY, TG_RECENT, __u32, struct tg_departure, 0);
TG_MAP(tg_counters, PERCPU_ARRAY, TG_COUNTERS, __u32, __u64, 0);

/* A connection inherits what its listener knows. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tg_socket);
} tg_sockets __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} tg_events __weak SEC(".maps");

#endif /* TG_MAPS_H */
