/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Giving a later fragment the ports that only its datagram's first fragment carries. */
#pragma once

#include "parse.h"

/* RFC 791 lets a sender use a number again; Linux waits so long (net.ipv4.ipfrag_time). */
#define FRAGMENT_LIFE_NS 30000000000ULL

/* What the fragments of one datagram share: RFC 791 section 3.2, RFC 8200 section 4.5. */
struct datagram_key {
	struct address src, dst;
	__u32 id;
	__u8 proto;
	__u8 zero[3];
};

struct datagram {
	__u64 seen_ns;
	__u16 sport, dport;
	__u8 proto;
	__u8 zero[3];
};

/* The oldest go when it is full; their later fragments are then `unplaced`. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram_key);
	__type(value, struct datagram);
} datagrams SEC(".maps");

/* Remember a first fragment, or complete a later one; false where its first was not seen lately. */
static __always_inline bool place_fragment(struct packet *packet, __u64 now)
{
	struct datagram_key key = {
		.src = packet->src,
		.dst = packet->dst,
		.id = packet->fragment_id,
		.proto = packet->fragment_proto,
	};
	struct datagram first = {
		.seen_ns = now,
		.sport = packet->sport,
		.dport = packet->dport,
		.proto = packet->proto,
	};
	struct datagram *known;

	if (packet->first_fragment) {
		bpf_map_update_elem(&datagrams, &key, &first, BPF_ANY);
		return true;
	}
	known = bpf_map_lookup_elem(&datagrams, &key);
	/* Of a capture file the later one may be older. */
	if (!known || now + FRAGMENT_LIFE_NS - known->seen_ns > 2 * FRAGMENT_LIFE_NS)
		return false;
	packet->sport = known->sport;
	packet->dport = known->dport;
	packet->proto = known->proto;
	return true;
}
