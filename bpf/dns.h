/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies answers of DNS servers for user space to read: names are parsed there, not here. The
 * layout of `struct answer` is mirrored in ringfence/kernel/answers.py.
 *
 * Only what was asked for is an answer, for anybody can send from port 53. It is taken where it
 * gets to the one who asked: on its way out of the node's stack to a pod, when translation is
 * undone already, and on its way in if the node itself asked.
 */
#pragma once

#include "flow.h"

#define DNS_PORT 53
#define DNS_HEADER 12	   /* bytes: RFC 1035, section 4.1.1 */
#define DNS_RESPONSE 0x80  /* in its third byte */
#define DNS_ANSWER_COUNT 6 /* where it stands, in two bytes */
#define MAX_DNS_MESSAGE 1472 /* what fits an Ethernet frame */

#define AF_INET 2
#define AF_INET6 10

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

/* Whether a packet that comes in goes no further than to this node. */
static __noinline bool ends_here(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_fib_lookup route = {
		.family = packet->family == 4 ? AF_INET : AF_INET6,
		.ifindex = skb->ifindex,
	};
	long found;

	if (packet->family == 4) {
		route.ipv4_src = packet->src.words[3];
		route.ipv4_dst = packet->dst.words[3];
	} else {
		__builtin_memcpy(route.ipv6_src, &packet->src, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &packet->dst, sizeof(route.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

static __always_inline bool is_from_dns(const struct packet *packet)
{
	return packet->proto == IPPROTO_UDP && packet->sport == DNS_PORT && !packet->later_fragment;
}

/*
 * Have user space read a packet for which `is_from_dns` holds, if it answers with some record. Not
 * static, so that it is verified once.
 */
__noinline int keep_answer(struct __sk_buff *skb, const struct packet *packet, enum hook hook,
			   struct audit *audit)
{
	__u32 length, first = 0;
	struct answer *answer = bpf_map_lookup_elem(&answer_rooms, &first);
	__u8 *message;

	if (!answer || !packet || !audit)
		return 0;
	length = packet->bytes - packet->header_bytes;
	message = answer->message;
	if (length < DNS_HEADER ||
	    bpf_skb_load_bytes(skb, packet->payload, message, DNS_HEADER))
		return 0;
	if (!(message[2] & DNS_RESPONSE) ||
	    !(message[DNS_ANSWER_COUNT] | message[DNS_ANSWER_COUNT + 1]))
		return 0;
	if (hook == INGRESS && !ends_here(skb, packet))
		return 0;
	if (length > MAX_DNS_MESSAGE || packet->first_fragment) {
		audit->dns_overlong += 1;
		return 0;
	}
	if (bpf_skb_load_bytes(skb, packet->payload, message, length))
		return 0;
	answer->resolver = packet->src;
	answer->client = packet->dst;
	answer->at_ns = bpf_ktime_get_boot_ns();
	answer->client_port = packet->dport;
	answer->length = length;
	/* User space looks by itself, now and then. */
	if (bpf_ringbuf_output(&answers, answer, offsetof(struct answer, message) + length,
			       BPF_RB_NO_WAKEUP))
		audit->dns_full += 1;
	return 0;
}
