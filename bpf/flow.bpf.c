/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts every packet that passes an interface into one flow per tuple, direction and interface.
 *
 * User space reads a flow map only while no program writes to it: `flows` points at one of two
 * maps, user space points it at the other one, the kernel waits for the programs that still hold
 * the first, and then that one is at rest.
 */
#include "conntrack.h"
#include "dns.h"
#include "fragment.h"
#include "tcp.h"
#include "tunnel.h"

/* TCX_NEXT, and TC_ACT_UNSPEC of a classic filter: other programs and the stack go on. */
#define PASS_ON (-1)

#define MAX_TUNNELS 4 /* one inside the other */

/* What comes with a packet of a capture file, in skb->cb; the skb is cut or padded. */
enum { REPLAY_CAPTURED, REPLAY_LENGTH, REPLAY_TIME_LOW, REPLAY_TIME_HIGH };

/* Memory as it is needed: most nodes never need what a busy one does. */
struct flow_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows_0 SEC(".maps"), flows_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct flow_map);
} flows SEC(".maps") = {.values = {&flows_0}};

/* Records ever made in either map, so that user space can tell how full the current one is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} made SEC(".maps");

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

/* Packets in a tunnel's packet: the stack has no room for them. */
struct nest {
	struct packet innermost, next;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nest);
} nests SEC(".maps");

/* Not inlined, as `new_flow`: the kernel allows little stack, and this is rare. */
static __noinline struct audit *new_audit(const struct audit_key *key)
{
	struct audit zero = {};
	struct audit *audit;
	__u32 first = 0;

	bpf_map_update_elem(&audits, key, &zero, BPF_NOEXIST);
	audit = bpf_map_lookup_elem(&audits, key);
	return audit ? audit : bpf_map_lookup_elem(&audit_rest, &first);
}

static __always_inline struct audit *audit_of(struct __sk_buff *skb, enum hook hook)
{
	struct audit_key key = {.ifindex = skb->ifindex, .hook = hook};
	struct audit *audit = bpf_map_lookup_elem(&audits, &key);

	return audit ? audit : new_audit(&key);
}

static const struct flow nothing; /* too large for the stack */

static __noinline struct flow *new_flow(void *map, const struct flow_key *key, __u64 now)
{
	__u32 first = 0;
	__u64 *count = bpf_map_lookup_elem(&made, &first);
	struct flow *flow;

	/* Another processor may be first with the same key: both then find the one that won. */
	if (!bpf_map_update_elem(map, key, &nothing, BPF_NOEXIST) && count)
		__sync_fetch_and_add(count, 1);
	flow = bpf_map_lookup_elem(map, key);
	if (flow && !flow->first_ns)
		flow->first_ns = now;
	return flow;
}

static __always_inline struct flow *flow_of(void *map, struct __sk_buff *skb,
					    const struct packet *packet, enum hook hook,
					    bool inner, __u64 now)
{
	struct flow_key key = {
		.src = packet->src,
		.dst = packet->dst,
		.ifindex = skb->ifindex,
		.sport = packet->sport,
		.dport = packet->dport,
		.hook = hook,
		.proto = packet->proto,
		.inner = inner,
		.family = packet->family,
		.unplaced = packet->unplaced,
	};
	struct flow *flow = bpf_map_lookup_elem(map, &key);

	return flow ? flow : new_flow(map, &key, now);
}

/* The record of what runs the other way through the same interface; NULL if there is none. */
static __noinline struct flow *opposite_of(void *map, const struct packet *packet, __u32 ifindex,
					   enum hook hook, bool inner)
{
	struct flow_key key = {
		.src = packet->dst,
		.dst = packet->src,
		.ifindex = ifindex,
		.sport = packet->dport,
		.dport = packet->sport,
		.hook = settings.replay ? hook : !hook, /* a capture file has one side only */
		.proto = packet->proto,
		.inner = inner,
		.family = packet->family,
	};

	return bpf_map_lookup_elem(map, &key);
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

static __always_inline struct source source_of(struct __sk_buff *skb)
{
	struct source from = {.skb = skb, .len = skb->len, .captured = skb->len};

	if (settings.replay) {
		from.len = skb->cb[REPLAY_LENGTH];
		from.captured = skb->cb[REPLAY_CAPTURED];
		from.replay = true;
	}
	return from;
}

static __always_inline __u64 time_of(struct __sk_buff *skb)
{
	if (settings.replay)
		return (__u64)skb->cb[REPLAY_TIME_HIGH] << 32 | skb->cb[REPLAY_TIME_LOW];
	return bpf_ktime_get_boot_ns();
}

static __always_inline __u64 mix(__u64 id, __u32 word)
{
	id = (id ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 over the golden ratio */
	return id ^ id >> 32;
}

/* A hash of what tells a flow from others: `tuple_id` in ringfence/flows/record.py. */
static __always_inline __u64 tuple_id(__u32 ifindex, const struct packet *packet)
{
	__u64 id = mix(ifindex, packet->proto);

	for (int i = 0; i < 4; i++)
		id = mix(mix(id, packet->src.words[i]), packet->dst.words[i]);
	return mix(id, (__u32)packet->sport << 16 | packet->dport);
}

/* Count a packet into its flow, if there is room; `outer` is the one that carried it, or NULL. */
static __always_inline bool count(struct __sk_buff *skb, struct packet *packet,
				  const struct packet *outer, enum hook hook, struct audit *audit)
{
	__u32 segments = segments_of(skb, packet);
	__u32 bytes = packet->bytes + (segments - 1) * packet->header_bytes;
	__u64 now = time_of(skb);
	__u32 first = 0;
	void *map = bpf_map_lookup_elem(&flows, &first);
	struct flow *flow, *opposite;

	if ((packet->first_fragment || packet->later_fragment) && !place_fragment(packet, now)) {
		packet->unplaced = true;
		audit->unplaced += 1;
	}
	flow = map ? flow_of(map, skb, packet, hook, outer, now) : NULL;
	if (!flow && outer)
		return false;
	if (!flow) {
		audit->full_skbs += 1;
		audit->full_packets += segments;
		audit->full_bytes += bytes;
		return false;
	}
	__sync_fetch_and_add(&flow->packets, segments);
	__sync_fetch_and_add(&flow->bytes, bytes);
	flow->last_ns = now;
	if (packet->proto == IPPROTO_TCP && !packet->later_fragment) {
		count_tcp(flow, packet, segments, skb->gso_size, now);
		if (is_synack(packet)) {
			opposite = opposite_of(map, packet, skb->ifindex, hook, outer);
			measure_handshake(flow, opposite, now);
		}
	}
	if (outer && !flow->tunnel)
		flow->tunnel = tuple_id(skb->ifindex, outer);
	if (settings.relate)
		relate(skb, packet, hook, flow);
	return true;
}

/* Not inlined, so that it takes stack and time of no other packet. */
static __noinline bool count_inner(struct __sk_buff *skb, struct packet *packet,
				   const struct packet *outer, enum hook hook, struct audit *audit)
{
	return count(skb, packet, outer, hook, audit);
}

/* The packet that a tunnel's packet carries. Not inlined, so that it is verified once. */
__noinline int parse_inner(struct __sk_buff *skb, const struct packet *outer,
			   struct packet *packet)
{
	struct source from = source_of(skb);
	struct step step = {};
	int outcome;

	if (!outer || !packet || !looks_into(outer))
		return NOT_IP;
	*packet = (struct packet){};
	outcome = enter(&from, outer, &step);
	return outcome == PARSED ? (int)parse_from(&from, &step, packet) : outcome;
}

/* The innermost packet of a tunnel's packet; NULL where there is none. */
static __always_inline struct packet *innermost(struct __sk_buff *skb, const struct packet *outer,
						struct audit *audit)
{
	__u32 first = 0;
	struct nest *nest = bpf_map_lookup_elem(&nests, &first);
	int outcome = PARSED, depth;

	if (!nest)
		return NULL;
	nest->innermost = *outer;
	for (depth = 0; depth < MAX_TUNNELS; depth++) {
		outcome = parse_inner(skb, &nest->innermost, &nest->next);
		if (outcome != PARSED)
			break;
		nest->innermost = nest->next;
	}
	if (outcome >= TRUNCATED && outcome < OUTCOMES)
		audit->inner_malformed[outcome - TRUNCATED] += 1;
	return depth ? &nest->innermost : NULL;
}

/*
 * What comes in by one interface and leaves by another is not sent by a tunnel of this node: those
 * start their packets anew. Whoever sent it can write what he likes into it.
 */
static __always_inline bool is_forwarded(struct __sk_buff *skb, enum hook hook)
{
	return hook == EGRESS && skb->ingress_ifindex;
}

static __always_inline int observe(struct __sk_buff *skb, enum hook hook, bool ethernet)
{
	struct source from = source_of(skb);
	struct step step = {.protocol = ethernet ? ETH_P_TEB : bpf_ntohs(skb->protocol)};
	struct audit *audit = audit_of(skb, hook);
	struct packet packet = {}, *inner = NULL;
	enum outcome outcome = parse_from(&from, &step, &packet);

	if (!audit)
		return PASS_ON;
	audit->skbs += 1;
	audit->bytes += from.len;
	if (outcome != PARSED) {
		if (outcome == NOT_IP)
			audit->non_ip += 1;
		else
			audit->malformed[outcome - TRUNCATED] += 1;
		return PASS_ON;
	}
	if (packet.overlong)
		audit->overlong += 1;
	if (looks_into(&packet) && !is_forwarded(skb, hook))
		inner = innermost(skb, &packet, audit);
	/* A GSO skb of a tunnel is cut inside of it: segments repeat the headers there as well. */
	if (inner && skb->gso_size)
		packet.header_bytes += inner->payload - packet.payload;
	count(skb, &packet, NULL, hook, audit);
	if (settings.dns && is_dns(&packet))
		follow_dns(skb, &packet, hook, audit);
	if (inner && !count_inner(skb, inner, &packet, hook, audit))
		audit->inner_full += 1;
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
