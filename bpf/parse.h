/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From bytes to a tuple, by the real length of every header: VLAN tags, IPv4 options, IPv6
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

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8
#define IP_FRAGMENT_OFFSET 0x1fff /* RFC 791: the low 13 bits, in units of 8 bytes */
#define IP6_FRAGMENT_OFFSET 0xfff8 /* RFC 8200: the high 13 bits */

enum outcome {
	PARSED,
	NOT_IP,
	MALFORMED, /* cut short, or its lengths contradict each other */
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
	bool later_fragment;   /* no transport header: the ports are 0 */
	__u8 tcp_flags;
	__u32 tcp_seq;
	__u32 bytes;	       /* from the IP header on, segments not counted apart */
	__u32 header_bytes;    /* the IP and transport headers, which every segment repeats */
};

/* Where the bytes are: behind a TC context, or in the kernel's memory at `base`. */
struct source {
	struct __sk_buff *skb;
	const void *base;
	__u32 len;
};

static __always_inline long load(const struct source *from, __u32 offset, void *to, __u32 size)
{
	if (from->skb)
		return bpf_skb_load_bytes(from->skb, offset, to, size);
	if (offset + size > from->len)
		return -1;
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
	__u32 length = 0;

	if (packet->later_fragment)
		goto done;
	switch (packet->proto) {
	case IPPROTO_TCP:
		if (load(from, l4, &tcp, sizeof(tcp)) || tcp.doff < 5)
			return MALFORMED;
		length = tcp.doff * 4;
		packet->sport = bpf_ntohs(tcp.source);
		packet->dport = bpf_ntohs(tcp.dest);
		packet->tcp_flags = ((__u8 *)&tcp)[13];
		packet->tcp_seq = tcp.seq;
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP: /* its ports stand where UDP has them */
		length = sizeof(udp);
		if (load(from, l4, &udp, sizeof(udp)))
			return MALFORMED;
		packet->sport = bpf_ntohs(udp.source);
		packet->dport = bpf_ntohs(udp.dest);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		length = sizeof(icmp);
		if (load(from, l4, &icmp, sizeof(icmp)))
			return MALFORMED;
		packet->sport = icmp[0];
		packet->dport = icmp[1];
		break;
	}
done:
	packet->header_bytes = l4 - l3 + length;
	return packet->bytes < packet->header_bytes ? MALFORMED : PARSED;
}

static __always_inline enum outcome parse_ipv4(const struct source *from, __u32 l3,
					       struct packet *packet)
{
	struct iphdr ip;

	if (load(from, l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return MALFORMED;
	packet->family = 4;
	map_v4(&packet->src, ip.saddr);
	map_v4(&packet->dst, ip.daddr);
	packet->proto = ip.protocol;
	packet->later_fragment = (ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET)) != 0;
	/* Length 0 means more than 65,535 bytes in one GSO packet (BIG TCP). */
	packet->bytes = ip.tot_len ? bpf_ntohs(ip.tot_len) : from->len - l3;
	if (l3 + packet->bytes > from->len)
		return MALFORMED;
	return parse_transport(from, l3, l3 + ip.ihl * 4, packet);
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
	} extension;

	if (load(from, l3, &ip, sizeof(ip)) || ip.version != 6)
		return MALFORMED;
	packet->family = 6;
	__builtin_memcpy(&packet->src, &ip.saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip.daddr, sizeof(packet->dst));
	packet->proto = ip.nexthdr;
	/* Length 0 means a jumbogram, or one GSO packet of more than 65,535 bytes. */
	packet->bytes = ip.payload_len ? sizeof(ip) + bpf_ntohs(ip.payload_len) : from->len - l3;
	if (l3 + packet->bytes > from->len)
		return MALFORMED;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (packet->proto != IPPROTO_HOPOPTS && packet->proto != IPPROTO_ROUTING &&
		    packet->proto != IPPROTO_DSTOPTS && packet->proto != IPPROTO_FRAGMENT &&
		    packet->proto != IPPROTO_AH)
			break;
		if (load(from, at, &extension, sizeof(extension)))
			return MALFORMED;
		if (packet->proto == IPPROTO_FRAGMENT) {
			at += 8;
			packet->later_fragment =
				(extension.fragment & bpf_htons(IP6_FRAGMENT_OFFSET)) != 0;
		} else if (packet->proto == IPPROTO_AH) {
			at += (extension.length + 2) * 4;
		} else {
			at += (extension.length + 1) * 8;
		}
		packet->proto = extension.next;
		if (packet->later_fragment)
			break;
	}
	return parse_transport(from, l3, at, packet);
}

/* Parse from the IP header on, at offset `l3`. */
static __always_inline enum outcome parse_ip(const struct source *from, __be16 protocol, __u32 l3,
					     struct packet *packet)
{
	switch (protocol) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(from, l3, packet);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(from, l3, packet);
	}
	return NOT_IP;
}

/* Parse from the Ethernet header on. */
static __always_inline enum outcome parse_frame(const struct source *from, struct packet *packet)
{
	struct {
		__be16 tag;
		__be16 protocol;
	} vlan;
	__be16 protocol;
	__u32 l3 = ETH_HLEN;

	if (load(from, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol)))
		return MALFORMED;
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if (load(from, l3, &vlan, sizeof(vlan)))
			return MALFORMED;
		protocol = vlan.protocol;
		l3 += sizeof(vlan);
	}
	return parse_ip(from, protocol, l3, packet);
}
