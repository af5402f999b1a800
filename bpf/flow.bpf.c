/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts every packet that passes an interface into one flow per tuple, direction and interface.
 *
 * User space reads a flow map only while no program writes to it: `flows` points at one of two
 * maps, user space points it at the other one, the kernel waits for the programs that still hold
 * the first, and then that one is at rest.
 */
#include "conntrack.h"

/* TCX_NEXT, and TC_ACT_UNSPEC of a classic filter: other programs and the stack go on. */
#define PASS_ON (-1)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct flow_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows_0 SEC(".maps"), flows_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct flow_map);
} flows SEC(".maps") = {.values = {&flows_0}};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct audit_key);
	__type(value, struct audit);
} audits SEC(".maps");

/* All those together for which `audits` has no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct audit);
} audit_rest SEC(".maps");

static __always_inline struct audit *audit_of(struct __sk_buff *skb, enum hook hook)
{
	struct audit_key key = {.ifindex = skb->ifindex, .hook = hook};
	struct audit *audit = bpf_map_lookup_elem(&audits, &key);
	struct audit zero = {};
	__u32 first = 0;

	if (audit)
		return audit;
	bpf_map_update_elem(&audits, &key, &zero, BPF_NOEXIST);
	audit = bpf_map_lookup_elem(&audits, &key);
	return audit ? audit : bpf_map_lookup_elem(&audit_rest, &first);
}

static __always_inline struct flow *flow_of(struct __sk_buff *skb, const struct packet *packet,
					    enum hook hook, __u64 now)
{
	struct flow_key key = {
		.src = packet->src,
		.dst = packet->dst,
		.ifindex = skb->ifindex,
		.sport = packet->sport,
		.dport = packet->dport,
		.hook = hook,
		.proto = packet->proto,
	};
	__u32 first = 0;
	void *map = bpf_map_lookup_elem(&flows, &first);
	struct flow *flow;

	if (!map)
		return NULL;
	flow = bpf_map_lookup_elem(map, &key);
	if (flow)
		return flow;
	struct flow fresh = {.first_ns = now};
	/* Another processor may be first with the same key: both then find the one that won. */
	bpf_map_update_elem(map, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, &key);
}

/* A SYN or SYN-ACK that is sent again has the sequence number of the first, and opens nothing. */
static __always_inline void count_opening(__u32 *count, __u32 *counted, __u32 seq)
{
	if (*count && *counted == seq)
		return;
	*counted = seq;
	__sync_fetch_and_add(count, 1);
}

static __always_inline void count_tcp(struct flow *flow, const struct packet *packet)
{
	__u8 flags = packet->tcp_flags;

	if ((flow->tcp_flags & flags) != flags)
		__sync_fetch_and_or(&flow->tcp_flags, flags);
	if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		count_opening(&flow->syn, &flow->syn_seq, packet->tcp_seq);
	else if (flags & TCP_SYN)
		count_opening(&flow->synack, &flow->synack_seq, packet->tcp_seq);
	if (flags & TCP_FIN)
		__sync_fetch_and_add(&flow->fin, 1);
	if (flags & TCP_RST)
		__sync_fetch_and_add(&flow->rst, 1);
}

/* How many packets the skb is on the wire: a GSO skb is cut into segments after this hook. */
static __always_inline __u32 segments_of(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 payload = packet->bytes - packet->header_bytes;

	if (!skb->gso_size)
		return 1;
	if (skb->gso_segs)
		return skb->gso_segs;
	return (payload + skb->gso_size - 1) / skb->gso_size; /* the sender left the count open */
}

static __always_inline int observe(struct __sk_buff *skb, enum hook hook, bool ethernet)
{
	struct source from = {.skb = skb, .len = skb->len};
	struct audit *audit = audit_of(skb, hook);
	struct packet packet = {};
	enum outcome outcome = ethernet ? parse_frame(&from, &packet)
					: parse_ip(&from, skb->protocol, 0, &packet);
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 segments, bytes;
	struct flow *flow;

	if (!audit)
		return PASS_ON;
	audit->skbs += 1;
	audit->bytes += skb->len;
	if (outcome != PARSED) {
		if (outcome == NOT_IP)
			audit->non_ip += 1;
		else
			audit->malformed += 1;
		return PASS_ON;
	}

	segments = segments_of(skb, &packet);
	bytes = packet.bytes + (segments - 1) * packet.header_bytes;
	flow = flow_of(skb, &packet, hook, now);
	if (!flow) {
		audit->full_skbs += 1;
		audit->full_packets += segments;
		audit->full_bytes += bytes;
		return PASS_ON;
	}
	__sync_fetch_and_add(&flow->packets, segments);
	__sync_fetch_and_add(&flow->bytes, bytes);
	flow->last_ns = now;
	if (packet.proto == IPPROTO_TCP && !packet.later_fragment)
		count_tcp(flow, &packet);
	relate(skb, &packet, hook, flow);
	return PASS_ON;
}

SEC("tc")
int ethernet_ingress(struct __sk_buff *skb)
{
	return observe(skb, INGRESS, true);
}

SEC("tc")
int ethernet_egress(struct __sk_buff *skb)
{
	return observe(skb, EGRESS, true);
}

/* For interfaces whose packets start with the IP header, such as tunnels. */
SEC("tc")
int ip_ingress(struct __sk_buff *skb)
{
	return observe(skb, INGRESS, false);
}

SEC("tc")
int ip_egress(struct __sk_buff *skb)
{
	return observe(skb, EGRESS, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
