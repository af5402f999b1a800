/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts the packets that netfilter drops, in any network namespace and by anybody's rule but
 * ours: a TC hook cannot see that a packet died later, and other programs' rules report nothing
 * to us. Ours count for themselves, and mark what they are about to drop.
 */
#include "parse.h"

#define SKB_DST_PTRMASK (~7UL)
#define OUR_DROP 0x52464452 /* DROP_MARK in ringfence/policy/backends/nftables.py */

/* Of a packet that could not be parsed, all but `netns` and `reason` is zero. */
struct drop_key {
	struct address src, dst;
	__u32 netns; /* the inode number of the network namespace */
	__u16 sport, dport;
	__u16 reason; /* enum skb_drop_reason */
	__u8 proto;
	__u8 zero;
};

struct drop {
	__u64 packets, bytes;
};

struct drop_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct drop_key);
	__type(value, struct drop);
} drops_0 SEC(".maps"), drops_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct drop_map);
} drops SEC(".maps") = {.values = {&drops_0}};

/* How many packets netfilter dropped for which `drops` had no room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} full SEC(".maps");

/* On the way out the device is not set until after the output hook; the route has it. */
static __always_inline __u32 netns_of(struct sk_buff *skb)
{
	struct net_device *device = BPF_CORE_READ(skb, dev);

	if (!device) {
		unsigned long reference = BPF_CORE_READ(skb, _skb_refdst);
		struct dst_entry *route = (struct dst_entry *)(reference & SKB_DST_PTRMASK);

		device = BPF_CORE_READ(route, dev);
	}
	return BPF_CORE_READ(device, nd_net.net, ns.inum);
}

/* Of a packet in several pieces, only the first stands at `data`; what is not in it is not read. */
static __always_inline enum outcome parse_skb(struct sk_buff *skb, struct packet *packet)
{
	const unsigned char *data = BPF_CORE_READ(skb, data);
	const unsigned char *network = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	__u32 len = BPF_CORE_READ(skb, len) + (data - network);
	__u32 elsewhere = BPF_CORE_READ(skb, data_len);
	struct source from = {.base = network, .len = len, .captured = len - elsewhere};
	__u8 version = 0;

	if (load(&from, 0, &version, sizeof(version)))
		return TRUNCATED;
	switch (version >> 4) {
	case 4:
		return parse_ipv4(&from, 0, packet);
	case 6:
		return parse_ipv6(&from, 0, packet);
	}
	return NOT_IP;
}

SEC("raw_tp/kfree_skb")
int count_drop(struct bpf_raw_tracepoint_args *arguments)
{
	struct sk_buff *skb = (struct sk_buff *)arguments->args[0];
	__u32 reason = arguments->args[2];
	__u32 first = 0;
	__u64 *lost = bpf_map_lookup_elem(&full, &first);
	void *map = bpf_map_lookup_elem(&drops, &first);
	struct packet packet = {};
	struct drop_key key = {};
	struct drop none = {};
	struct drop *drop;

	if (reason != bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_NETFILTER_DROP) ||
	    !map || !lost || BPF_CORE_READ(skb, mark) == OUR_DROP)
		return 0;
	key.netns = netns_of(skb);
	key.reason = reason;
	if (parse_skb(skb, &packet) == PARSED) {
		key.src = packet.src;
		key.dst = packet.dst;
		key.sport = packet.sport;
		key.dport = packet.dport;
		key.proto = packet.proto;
	}
	bpf_map_update_elem(map, &key, &none, BPF_NOEXIST);
	drop = bpf_map_lookup_elem(map, &key);
	if (!drop) {
		__sync_fetch_and_add(lost, 1);
		return 0;
	}
	__sync_fetch_and_add(&drop->packets, 1);
	__sync_fetch_and_add(&drop->bytes, packet.bytes);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
