/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies answers of DNS servers for user space to read: names are parsed there, not here. The
 * layout of `struct answer` is mirrored in ringfence/kernel/answers.py.
 *
 * Anybody can send from port 53, so only what was asked for is an answer. A question is noted where
 * whoever asks it sends it: on its way in from a pod, or on its way out if the node itself asks.
 * Its answer is taken there on its way back, to a pod when translation is undone already. What the
 * node forwards for others is not taken.
 */
#pragma once

#include "flow.h"

#define DNS_PORT 53
#define DNS_HEADER 12	   /* bytes: RFC 1035, section 4.1.1; the message's id comes first */
#define DNS_RESPONSE 0x80  /* in its third byte */
#define DNS_ANSWER_COUNT 6 /* where it stands, in two bytes */
#define MAX_DNS_MESSAGE 1472 /* what fits an Ethernet frame */

#define AF_INET 2
#define AF_INET6 10

/* What an answer has in common with its question (RFC 5452, section 4), and where that passed. */
struct question {
	struct address resolver, client;
	__u32 ifindex;
	__u32 hook;
	__u16 client_port;
	__u16 id; /* in network order */
};

/* The oldest go when it is full; their answers are then `dns_unasked`. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct question);
	__type(value, __u8); /* 1 if it was asked here, 0 if it was forwarded */
} questions SEC(".maps");

/* Interfaces that have a pod at their other end, by ifindex. Memory as it is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} pod_interfaces SEC(".maps");

struct answer {
	struct address resolver, client;
	__u64 at_ns; /* CLOCK_BOOTTIME */
	__u16 client_port;
	__u16 length; /* of `message` */
	__u8 message[MAX_DNS_MESSAGE];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} answers SEC(".maps");

/* Where an answer is put together: the stack has no room for it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answer_rooms SEC(".maps");

static __always_inline bool is_dns(const struct packet *packet)
{
	return packet->proto == IPPROTO_UDP && !packet->later_fragment &&
	       (packet->sport == DNS_PORT || packet->dport == DNS_PORT);
}

static __always_inline bool leads_to_pod(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;

	return bpf_map_lookup_elem(&pod_interfaces, &ifindex);
}

/* Whether an address is the node's own, as a packet finds that comes in by the skb's interface. */
static __noinline bool is_of_node(struct __sk_buff *skb, const struct address *address, bool is_v4)
{
	struct bpf_fib_lookup route = {
		.family = is_v4 ? AF_INET : AF_INET6,
		.ifindex = skb->ifindex,
	};
	long found;

	if (is_v4)
		route.ipv4_dst = address->words[3];
	else
		__builtin_memcpy(route.ipv6_dst, address, sizeof(route.ipv6_dst));
	found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/*
 * Note a question that a pod or the node asks here, and one that the node forwards under its own
 * address (masquerading): that one's answer seems to be the node's, too.
 */
static __always_inline void note_question(struct __sk_buff *skb, const struct packet *packet,
					  enum hook hook, __u16 id)
{
	struct question question = {
		.resolver = packet->dst,
		.client = packet->src,
		.ifindex = skb->ifindex,
		.hook = hook,
		.client_port = packet->sport,
		.id = id,
	};
	/* What the node forwards came in by some interface. */
	__u8 own = hook == INGRESS ? leads_to_pod(skb) : !skb->ingress_ifindex;

	if (own || (hook == EGRESS && is_of_node(skb, &packet->src, packet->family == 4)))
		bpf_map_update_elem(&questions, &question, &own, BPF_ANY);
}

/* Whether the question of an answer was asked here, or forwarded; NULL if neither. */
static __always_inline const __u8 *was_asked_here(struct __sk_buff *skb,
						  const struct packet *packet, enum hook hook,
						  __u16 id)
{
	struct question question = {
		.resolver = packet->src,
		.client = packet->dst,
		.ifindex = skb->ifindex,
		.hook = !hook,
		.client_port = packet->dport,
		.id = id,
	};

	return bpf_map_lookup_elem(&questions, &question);
}

/* Whether a packet gets to a pod, or to the node itself, by this interface. */
static __always_inline bool arrives(struct __sk_buff *skb, const struct packet *packet,
				    enum hook hook)
{
	return hook == EGRESS ? leads_to_pod(skb)
			      : is_of_node(skb, &packet->dst, packet->family == 4);
}

static __noinline void keep_answer(struct __sk_buff *skb, const struct packet *packet,
				   struct audit *audit)
{
	__u32 length = packet->bytes - packet->header_bytes, first = 0;
	struct answer *answer = bpf_map_lookup_elem(&answer_rooms, &first);

	if (!answer || length < DNS_HEADER)
		return;
	if (length > MAX_DNS_MESSAGE || packet->first_fragment) {
		audit->dns_overlong += 1;
		return;
	}
	if (bpf_skb_load_bytes(skb, packet->payload, answer->message, length))
		return;
	answer->resolver = packet->src;
	answer->client = packet->dst;
	answer->at_ns = bpf_ktime_get_boot_ns();
	answer->client_port = packet->dport;
	answer->length = length;
	/* User space looks by itself, now and then. */
	if (bpf_ringbuf_output(&answers, answer, offsetof(struct answer, message) + length,
			       BPF_RB_NO_WAKEUP))
		audit->dns_full += 1;
}

/*
 * Note a packet for which `is_dns` holds if it asks, and have user space read it if it answers with
 * some record. Not static, so that it is verified once.
 */
__noinline int follow_dns(struct __sk_buff *skb, const struct packet *packet, enum hook hook,
			  struct audit *audit)
{
	__u8 header[DNS_HEADER];
	const __u8 *asked_here;
	__u16 id;

	if (!packet || !audit || packet->bytes - packet->header_bytes < DNS_HEADER ||
	    bpf_skb_load_bytes(skb, packet->payload, header, sizeof(header)))
		return 0;
	__builtin_memcpy(&id, header, sizeof(id));
	if (!(header[2] & DNS_RESPONSE)) {
		if (packet->dport == DNS_PORT)
			note_question(skb, packet, hook, id);
		return 0;
	}
	if (packet->sport != DNS_PORT ||
	    !(header[DNS_ANSWER_COUNT] | header[DNS_ANSWER_COUNT + 1]))
		return 0;
	asked_here = was_asked_here(skb, packet, hook, id);
	if (asked_here && *asked_here)
		keep_answer(skb, packet, audit);
	else if (!asked_here && arrives(skb, packet, hook))
		audit->dns_unasked += 1;
	return 0;
}
