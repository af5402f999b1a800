/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Gives the frame of each run another source port, one after the other, and goes on to the
 * program under test: BPF_PROG_TEST_RUN alone repeats one frame.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct settings {
	__u32 ports;
};
const volatile struct settings settings SEC(".rodata.settings") = {1};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

__u32 runs;

SEC("tc")
int vary(struct __sk_buff *skb)
{
	__be16 port = bpf_htons(1 + runs++ % settings.ports);

	bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &port, sizeof(port), 0);
	bpf_tail_call(skb, &next, 0);
	return -1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
