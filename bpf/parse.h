/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From an IP packet's bytes to its tuple, by the real length of every header: IPv4 options, IPv6
 * extension headers, fragments.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "kernel.h"

#define MAX_EXTENSION_HEADERS 8
#define IP_FRAGMENT_OFFSET 0x1fff /* RFC 791: the low 13 bits, in units of 8 bytes */
#define IP_MORE_FRAGMENTS 0x2000
#define IP6_FRAGMENT_OFFSET 0xfff8 /* RFC 8200: the high 13 bits */
#define IP6_MORE_FRAGMENTS 0x0001
#define JUMBO_HEADER 8 /* a hop-by-hop header with RFC 2675's option alone */
#define SCTP_HEADER 12 /* RFC 9260 */
#define DCCP_HEADER 12 /* RFC 4340: the generic header, with short sequence numbers */
#define LEAST_FRAGMENT 8 /* RFC 791: bytes of what follows the IP header */
#define TCP_FLAGS 0x01ff /* RFC 9293, and AE of RFC 9768; three more bits are reserved */

enum outcome {
	PARSED,
	NOT_IP,
	TRUNCATED,  /* a header is not all there */
	BAD_HEADER, /* a version or a header length that cannot be */
	BAD_LENGTH, /* longer than what carries it, or shorter than its own headers */
	OUTCOMES,
};

/* An address of either family: IPv4 as ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2. */
struct address {
	__u32 words[4];
};

/* One packet as IP sees it; ports in host order, for ICMP the type and the code. */
struct packet {
	struct address src, dst;
	__u16 sport, dport;
	__u8 proto;
	__u8 family;	       /* 4 or 6 */
	bool overlong; /* it does not fit into what carries it */
	bool first_fragment;
	bool later_fragment; /* no transport header: the ports are 0 */
	bool unplaced;	     /* a later fragment whose first is not known */
	__u16 tcp_flags;
	__u32 tcp_seq;
	__u8 fragment_proto; /* of IPv4; with IPv6 only the first fragment's counts */
	__u32 fragment_id;
	__u32 bytes;	    /* from the IP header on, segments not counted apart */
	__u32 header_bytes; /* the IP and transport headers, which every segment repeats */
	__u32 payload;	    /* the offset of what follows them */
};

/* Where the bytes are: behind a TC context, or in the kernel's memory at `base`. */
struct source {
	struct __sk_buff *skb;
	const void *base;
	__u32 len;	/* of the packet on the wire */
	__u32 captured; /* as much of it as there is to read */
	bool replay;	/* of a capture file: perhaps shorter than it was, and `len` does not tell */
};

static __always_inline long load(const struct source *from, __u32 offset, void *to, __u32 size)
{
	if (offset + size > from->captured)
		return -1;
	if (from->skb)
		return bpf_skb_load_bytes(from->skb, offset, to, size);
	return bpf_probe_read_kernel(to, size, from->base + offset);
}

static __always_inline void map_v4(struct address *to, __be32 address)
{
	to->words[0] = 0;
	to->words[1] = 0;
	to->words[2] = bpf_htonl(0xffff);
	to->words[3] = address;
}

static __always_inline enum outcome parse_transport(const struct source *from, __u32 l3, __u32 l4,
						    struct packet *packet)
{
	struct tcphdr tcp;
	struct udphdr udp;
	__u8 icmp[4]; /* type, code, checksum */
	__u32 length = 0, rest = packet->bytes - (l4 - l3);

	if (packet->later_fragment)
		goto done;
	switch (packet->proto) {
	case IPPROTO_TCP:
		/* RFC 791 lets a fragment end in the header, but behind the ports: the rest is not read. */
		if (packet->first_fragment && rest >= LEAST_FRAGMENT && rest < sizeof(tcp)) {
			if (load(from, l4, &tcp, LEAST_FRAGMENT))
				return TRUNCATED;
			length = rest;
			packet->sport = bpf_ntohs(tcp.source);
			packet->dport = bpf_ntohs(tcp.dest);
			break;
		}
		if (load(from, l4, &tcp, sizeof(tcp)))
			return TRUNCATED;
		if (tcp.doff < 5)
			return BAD_HEADER;
		length = tcp.doff * 4;
		packet->sport = bpf_ntohs(tcp.source);
		packet->dport = bpf_ntohs(tcp.dest);
		packet->tcp_flags = bpf_ntohs(((__be16 *)&tcp)[6]) & TCP_FLAGS;
		packet->tcp_seq = bpf_ntohl(tcp.seq);
		break;
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		if (!from->replay) /* no rule on a node, and no report of its drops, has these */
			break;
	case IPPROTO_UDP: /* their ports stand where UDP has them */
	case IPPROTO_SCTP:
		length = packet->proto == IPPROTO_SCTP	 ? SCTP_HEADER
			 : packet->proto == IPPROTO_DCCP ? DCCP_HEADER
							 : sizeof(udp);
		if (l4 + length > from->captured || load(from, l4, &udp, sizeof(udp)))
			return TRUNCATED;
		packet->sport = bpf_ntohs(udp.source);
		packet->dport = bpf_ntohs(udp.dest);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		length = sizeof(icmp);
		if (load(from, l4, &icmp, sizeof(icmp)))
			return TRUNCATED;
		packet->sport = icmp[0];
		packet->dport = icmp[1];
		break;
	}
done:
	packet->payload = l4 + length;
	packet->header_bytes = packet->payload - l3;
	return packet->bytes < packet->header_bytes ? BAD_LENGTH : PARSED;
}

static __always_inline enum outcome parse_ipv4(const struct source *from, __u32 l3,
					       struct packet *packet)
{
	struct iphdr ip;
	__u16 fragment;
	__u8 ah[2]; /* the next header, and its own length in 4 bytes, less 2: RFC 4302 */
	__u32 l4;

	if (load(from, l3, &ip, sizeof(ip)))
		return TRUNCATED;
	if (ip.version != 4 || ip.ihl < 5)
		return BAD_HEADER;
	packet->family = 4;
	map_v4(&packet->src, ip.saddr);
	map_v4(&packet->dst, ip.daddr);
	packet->proto = ip.protocol;
	fragment = bpf_ntohs(ip.frag_off);
	packet->later_fragment = (fragment & IP_FRAGMENT_OFFSET) != 0;
	packet->first_fragment = !packet->later_fragment && (fragment & IP_MORE_FRAGMENTS);
	packet->fragment_id = ip.id;
	packet->fragment_proto = ip.protocol;
	/* Length 0 means more than 65,535 bytes in one GSO packet (BIG TCP). */
	packet->bytes = ip.tot_len ? bpf_ntohs(ip.tot_len) : from->len - l3;
	packet->overlong = l3 + packet->bytes > from->len;
	if (packet->overlong && !from->replay)
		return BAD_LENGTH;
	l4 = l3 + ip.ihl * 4;
	if (packet->proto == IPPROTO_AH && !packet->later_fragment) {
		if (load(from, l4, ah, sizeof(ah)))
			return TRUNCATED;
		packet->proto = ah[0];
		l4 += (ah[1] + 2) * 4;
	}
	return parse_transport(from, l3, l4, packet);
}

/*
 * Before a GSO packet of more than 65,535 bytes (BIG TCP) the stack puts a header that tells its
 * length, and takes it away again where it cuts the packet: no segment has it.
 */
static __always_inline bool has_passing_header(const struct source *from, const struct ipv6hdr *ip)
{
	return !ip->payload_len && ip->nexthdr == IPPROTO_HOPOPTS && from->skb &&
	       from->skb->gso_size;
}

static __always_inline enum outcome parse_ipv6(const struct source *from, __u32 l3,
					       struct packet *packet)
{
	struct ipv6hdr ip;
	__u32 at = l3 + sizeof(ip);
	struct {
		__u8 next;
		__u8 length;
		__be16 fragment;
		__be32 fragment_id;
	} extension;
	__u16 fragment;
	enum outcome outcome;

	if (load(from, l3, &ip, sizeof(ip)))
		return TRUNCATED;
	if (ip.version != 6)
		return BAD_HEADER;
	packet->family = 6;
	__builtin_memcpy(&packet->src, &ip.saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip.daddr, sizeof(packet->dst));
	packet->proto = ip.nexthdr;
	/* Length 0 means a jumbogram, or one GSO packet of more than 65,535 bytes. */
	packet->bytes = ip.payload_len ? sizeof(ip) + bpf_ntohs(ip.payload_len) : from->len - l3;
	packet->overlong = l3 + packet->bytes > from->len;
	if (packet->overlong && !from->replay)
		return BAD_LENGTH;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (packet->proto != IPPROTO_HOPOPTS && packet->proto != IPPROTO_ROUTING &&
		    packet->proto != IPPROTO_DSTOPTS && packet->proto != IPPROTO_FRAGMENT &&
		    packet->proto != IPPROTO_AH)
			break;
		if (load(from, at, &extension, sizeof(extension)))
			return TRUNCATED;
		if (packet->proto == IPPROTO_FRAGMENT) {
			at += sizeof(extension);
			fragment = bpf_ntohs(extension.fragment);
			packet->later_fragment = (fragment & IP6_FRAGMENT_OFFSET) != 0;
			packet->first_fragment =
				!packet->later_fragment && (fragment & IP6_MORE_FRAGMENTS);
			packet->fragment_id = extension.fragment_id;
			packet->fragment_proto = IPPROTO_FRAGMENT;
		} else if (packet->proto == IPPROTO_AH) {
			at += (extension.length + 2) * 4;
		} else {
			at += (extension.length + 1) * 8;
		}
		packet->proto = extension.next;
		if (packet->later_fragment)
			break;
	}
	outcome = parse_transport(from, l3, at, packet);
	if (outcome == PARSED && has_passing_header(from, &ip)) {
		packet->bytes -= JUMBO_HEADER;
		packet->header_bytes -= JUMBO_HEADER;
	}
	return outcome;
}
