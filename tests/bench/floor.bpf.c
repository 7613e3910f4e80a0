// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Nothing, at each hook that the mesh takes: what it costs that the kernel calls
 * programs there, below which no mesh can be.  They have the names that bpftool has
 * for what they are attached as.  With STORAGE, sockets that connect and listeners
 * have storage of the mesh's size, and what is accepted takes it over.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FLOOR(hook, name, type)                                               \
	SEC(hook) int name(type *ctx)                                         \
	{                                                                     \
		return 1;                                                     \
	}

#ifdef STORAGE

struct value {
	__u64 words[15];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct value);
} sockets SEC(".maps");

SEC("cgroup/connect4") int cgroup_inet4_connect(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	return 1;
}

SEC("cgroup/post_bind4") int cgroup_inet4_post_bind(struct bpf_sock *ctx)
{
	bpf_sk_storage_get(&sockets, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

#else

FLOOR("cgroup/connect4", cgroup_inet4_connect, struct bpf_sock_addr)
FLOOR("cgroup/post_bind4", cgroup_inet4_post_bind, struct bpf_sock)

#endif

FLOOR("cgroup/connect6", cgroup_inet6_connect, struct bpf_sock_addr)
FLOOR("cgroup/sendmsg4", cgroup_udp4_sendmsg, struct bpf_sock_addr)
FLOOR("cgroup/sendmsg6", cgroup_udp6_sendmsg, struct bpf_sock_addr)
FLOOR("cgroup/recvmsg4", cgroup_udp4_recvmsg, struct bpf_sock_addr)
FLOOR("cgroup/recvmsg6", cgroup_udp6_recvmsg, struct bpf_sock_addr)
FLOOR("cgroup/getpeername4", cgroup_inet4_getpeername, struct bpf_sock_addr)
FLOOR("cgroup/getpeername6", cgroup_inet6_getpeername, struct bpf_sock_addr)
FLOOR("cgroup/post_bind6", cgroup_inet6_post_bind, struct bpf_sock)
FLOOR("cgroup/sock_release", cgroup_inet_sock_release, struct bpf_sock)
FLOOR("cgroup_skb/ingress", cgroup_inet_ingress, struct __sk_buff)
FLOOR("cgroup_skb/egress", cgroup_inet_egress, struct __sk_buff)
FLOOR("sockops", cgroup_sock_ops, struct bpf_sock_ops)
