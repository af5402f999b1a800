/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What TCP shows of itself on the way: connections that open, segments that are sent again, and
 * how long a handshake takes. Sequence numbers wrap around: RFC 9293, section 3.4.
 */
#pragma once

#include "flow.h"

#define FARTHEST_OVERTAKEN 1024 /* packets */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline bool is_synack(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

/* Whether a SYN or SYN-ACK opens something: sent again, it has the sequence number of the first. */
static __always_inline bool count_opening(__u32 *count, __u32 *counted, __u32 seq)
{
	if (*count && *counted == seq)
		return false;
	*counted = seq;
	__sync_fetch_and_add(count, 1);
	return true;
}

static __always_inline void count_syn(struct flow *flow, const struct packet *packet, __u64 now)
{
	bool opens;

	__sync_fetch_and_add(&flow->syn_packets, 1);
	if (is_synack(packet)) {
		opens = count_opening(&flow->synack, &flow->synack_seq, packet->tcp_seq);
	} else {
		opens = count_opening(&flow->syn, &flow->syn_seq, packet->tcp_seq);
		flow->syn_ns = opens ? now : 0;
	}
	if (opens)
		flow->sequenced = 0; /* another connection, with numbers of its own */
}

/*
 * A probe that asks for an answer: the last number sent, with a byte that means nothing or
 * without (RFC 9293, sections 3.8.4 and 3.8.6.1).
 */
static __always_inline bool is_probe(const struct flow *flow, const struct packet *packet,
				     __u32 length)
{
	return length == 1 && packet->tcp_seq + 1 == flow->next_seq &&
	       !(packet->tcp_flags & (TCP_SYN | TCP_FIN));
}

/*
 * Whether a segment was sent before the last one, and overtaken: the network or the processors of
 * a node put it out of order. Most hosts number the IPv4 packets of a connection one after the
 * other; by those that do not, one in 64 retransmissions is taken for late.
 */
static __always_inline bool is_late(const struct flow *flow, const struct packet *packet)
{
	__u16 behind = flow->ipv4_id - bpf_ntohs(packet->fragment_id);

	return packet->family == 4 && behind && behind < FARTHEST_OVERTAKEN;
}

/* Count the segments that lie wholly before what was seen already. */
static __always_inline void count_sequence(struct flow *flow, const struct packet *packet,
					   __u32 segments, __u32 gso_size)
{
	__u32 length = packet->bytes - packet->header_bytes; /* SEG.LEN: SYN and FIN are of it */
	__u32 end, seen, repeated = 0;

	length += !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
	if (!length || packet->tcp_flags & TCP_RST)
		return;
	end = packet->tcp_seq + length;
	seen = flow->next_seq - packet->tcp_seq;
	if (!flow->sequenced || (__s32)(end - flow->next_seq) > 0) {
		/* Of a GSO skb the first segments may be old and the others new. */
		if (flow->sequenced && gso_size && (__s32)seen > 0)
			repeated = seen / gso_size;
		flow->next_seq = end;
		flow->sequenced = 1;
	} else if (is_probe(flow, packet, length) || is_late(flow, packet)) {
		return;
	} else {
		repeated = segments;
	}
	flow->ipv4_id = bpf_ntohs(packet->fragment_id);
	if (repeated)
		__sync_fetch_and_add(&flow->retransmitted, repeated);
}

static __always_inline void count_tcp(struct flow *flow, const struct packet *packet,
				      __u32 segments, __u32 gso_size, __u64 now)
{
	__u16 flags = packet->tcp_flags;

	if ((flow->tcp_flags & flags) != flags)
		__sync_fetch_and_or(&flow->tcp_flags, flags);
	if (flags & TCP_SYN)
		count_syn(flow, packet, now);
	if (flags & TCP_FIN)
		__sync_fetch_and_add(&flow->fin, 1);
	if (flags & TCP_RST)
		__sync_fetch_and_add(&flow->rst, 1);
	count_sequence(flow, packet, segments, gso_size);
}

/*
 * The time from the SYN that `opposite` saw to this SYN-ACK. A SYN that was repeated tells none:
 * nobody knows which one is answered (Karn's rule, RFC 6298, section 3).
 */
static __always_inline void measure_handshake(struct flow *flow, struct flow *opposite,
					      __u64 now)
{
	__u64 rtt;

	if (!opposite || !opposite->syn_ns || opposite->syn_ns > now)
		return;
	rtt = now - opposite->syn_ns;
	opposite->syn_ns = 0;
	if (!flow->rtt_samples || rtt < flow->rtt_min_ns)
		flow->rtt_min_ns = rtt;
	__sync_fetch_and_add(&flow->rtt_samples, 1);
	__sync_fetch_and_add(&flow->rtt_sum_ns, rtt);
}
