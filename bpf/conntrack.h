/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Relating a packet to its connection, as the kernel's connection tracking knows it. */
#pragma once

#include "flow.h"

#define EAGER_PACKETS 16 /* of a flow: these all ask, and later ones now and then */

#define IPS_NAT_MASK ((1 << 4) | (1 << 5)) /* IPS_SRC_NAT, IPS_DST_NAT */

/*
 * A hook at ingress sees a packet before translation, as one of the entry's two tuples has it.
 * At egress it is translated, and only its inverse is a tuple of the entry: the one that its
 * answer will carry.
 */
static __always_inline __u32 wire_tuple(const struct packet *packet, bool inverse,
					struct bpf_sock_tuple *tuple)
{
	const struct address *src = inverse ? &packet->dst : &packet->src;
	const struct address *dst = inverse ? &packet->src : &packet->dst;
	__be16 sport = bpf_htons(inverse ? packet->dport : packet->sport);
	__be16 dport = bpf_htons(inverse ? packet->sport : packet->dport);

	if (packet->family == 4) {
		tuple->ipv4.saddr = src->words[3];
		tuple->ipv4.daddr = dst->words[3];
		tuple->ipv4.sport = sport;
		tuple->ipv4.dport = dport;
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, src, sizeof(*src));
	__builtin_memcpy(tuple->ipv6.daddr, dst, sizeof(*dst));
	tuple->ipv6.sport = sport;
	tuple->ipv6.dport = dport;
	return sizeof(tuple->ipv6);
}

static __always_inline void copy_address(const struct packet *packet, struct address *to,
					 const union nf_inet_addr *from)
{
	if (packet->family == 4) {
		map_v4(to, from->all[0]);
		return;
	}
	to->words[0] = from->all[0];
	to->words[1] = from->all[1];
	to->words[2] = from->all[2];
	to->words[3] = from->all[3];
}

/*
 * Look the packet's connection up and keep the outcome in its flow. The first packet of a
 * connection has no entry until it has left the node, so a flow asks again until one is found,
 * but less often in the end, as there may be no tracking at all. The kernel's lookup knows TCP and
 * UDP only.
 */
static __always_inline void relate(struct __sk_buff *skb, const struct packet *packet,
				   enum hook hook, struct flow *flow)
{
	struct bpf_ct_opts opts = {.netns_id = BPF_F_CURRENT_NETNS, .l4proto = packet->proto};
	struct bpf_sock_tuple tuple = {};
	const struct nf_conntrack_tuple *original;
	struct nf_conn *entry;

	if (flow->nat != NAT_UNKNOWN || packet->later_fragment ||
	    (packet->proto != IPPROTO_TCP && packet->proto != IPPROTO_UDP) ||
	    (flow->packets > EAGER_PACKETS && bpf_get_prandom_u32() % EAGER_PACKETS))
		return;
	if (wire_tuple(packet, hook == EGRESS, &tuple) == sizeof(tuple.ipv4))
		entry = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	else
		entry = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv6), &opts, sizeof(opts));
	if (!entry)
		return;
	flow->reply = opts.dir != hook; /* inverted at egress, and so is the direction found */
	if (entry->status & IPS_NAT_MASK) {
		original = &entry->tuplehash[0].tuple;
		copy_address(packet, &flow->original_src, &original->src.u3);
		copy_address(packet, &flow->original_dst, &original->dst.u3);
		flow->original_sport = bpf_ntohs(original->src.u.all);
		flow->original_dport = bpf_ntohs(original->dst.u.all);
		flow->nat = NAT_TRANSLATED;
	} else {
		flow->nat = NAT_NONE;
	}
	bpf_ct_release(entry);
}
