/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts every packet that passes an interface into one flow per tuple, direction and interface.
 *
 * User space reads a flow map only while no program writes to it: `flows` points at one of two
 * maps, user space points it at the other one, the kernel waits for the programs that still hold
 * the first, and then that one is at rest.
 */
#include "conntrack.h"
#include "fragment.h"
#include "tcp.h"
#include "tunnel.h"

/* TCX_NEXT, and TC_ACT_UNSPEC of a classic filter: other programs and the stack go on. */
#define PASS_ON (-1)

#define MAX_TUNNELS 4 /* one inside the other */

/*
 * Set when the object is loaded: packets of capture files, brought by BPF_PROG_TEST_RUN, instead
 * of an interface's. The verifier takes out what is then dead.
 */
struct settings {
	__u32 replay;
	struct decode_as decode_as[MAX_DECODE_AS];
};
const volatile struct settings settings SEC(".rodata.settings") = {};

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
		from.cut = true;
	}
	return from;
}

static __always_inline __u64 time_of(struct __sk_buff *skb)
{
	if (settings.replay)
		return (__u64)skb->cb[REPLAY_TIME_HIGH] << 32 | skb->cb[REPLAY_TIME_LOW];
	return bpf_ktime_get_boot_ns();
}

/* Count a packet into its flow; NULL where there is no room for one. */
static __always_inline struct flow *count(struct __sk_buff *skb, struct packet *packet,
					  enum hook hook, bool inner, struct audit *audit)
{
	__u32 segments = segments_of(skb, packet);
	__u32 bytes = packet->bytes + (segments - 1) * packet->header_bytes;
	__u64 now = time_of(skb);
	__u32 first = 0;
	void *map = bpf_map_lookup_elem(&flows, &first);
	struct flow *flow, *opposite;

	if ((packet->first_fragment || packet->later_fragment) && !place_fragment(packet))
		audit->unplaced += 1;
	flow = map ? flow_of(map, skb, packet, hook, inner, now) : NULL;
	if (!flow) {
		audit->full_skbs += 1;
		audit->full_packets += segments;
		audit->full_bytes += bytes;
		return NULL;
	}
	__sync_fetch_and_add(&flow->packets, segments);
	__sync_fetch_and_add(&flow->bytes, bytes);
	flow->last_ns = now;
	if (packet->proto == IPPROTO_TCP && !packet->later_fragment) {
		count_tcp(flow, packet, segments, skb->gso_size, now);
		if (is_synack(packet)) {
			opposite = opposite_of(map, packet, skb->ifindex, hook, inner);
			measure_handshake(flow, opposite, now);
		}
	}
	return flow;
}

/* The packet that a tunnel's packet carries. Not inlined, so that it is verified once. */
__noinline int parse_inner(struct __sk_buff *skb, const struct packet *outer,
			   struct packet *packet)
{
	struct source from = source_of(skb);
	struct packet inner = {};
	struct step step = {};
	int outcome;

	if (!outer || !packet)
		return NOT_IP;
	outcome = enter(&from, outer, settings.decode_as, &step);
	if (outcome == PARSED)
		outcome = parse_from(&from, &step, &inner);
	if (outcome == PARSED)
		*packet = inner;
	return outcome;
}

/* Count the innermost packet of a tunnel's packet. */
static __always_inline void observe_inner(struct __sk_buff *skb, struct packet *packet,
					  enum hook hook, struct audit *audit)
{
	int outcome = PARSED, depth;

	for (depth = 0; depth < MAX_TUNNELS; depth++) {
		outcome = parse_inner(skb, packet, packet);
		if (outcome != PARSED)
			break;
	}
	if (outcome >= TRUNCATED && outcome < OUTCOMES)
		audit->inner_malformed[outcome - TRUNCATED] += 1;
	if (depth)
		count(skb, packet, hook, true, audit);
}

/* A GSO skb of a tunnel is cut inside of it: every segment repeats the headers there as well. */
static __always_inline void add_inner_headers(struct __sk_buff *skb, struct packet *packet)
{
	struct packet inner = {};

	if (skb->gso_size && packet->proto != IPPROTO_TCP &&
	    parse_inner(skb, packet, &inner) == PARSED)
		packet->header_bytes = packet->header_bytes + inner.payload - packet->payload;
}

static __always_inline int observe(struct __sk_buff *skb, enum hook hook, bool ethernet)
{
	struct source from = source_of(skb);
	struct step step = {.protocol = ethernet ? ETH_P_TEB : bpf_ntohs(skb->protocol)};
	struct audit *audit = audit_of(skb, hook);
	struct packet packet = {};
	enum outcome outcome = parse_from(&from, &step, &packet);
	struct flow *flow;

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
	add_inner_headers(skb, &packet);
	flow = count(skb, &packet, hook, false, audit);
	if (settings.replay)
		observe_inner(skb, &packet, hook, audit);
	else if (flow)
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
