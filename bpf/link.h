/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a frame to its IP header, through whatever stands between: VLAN tags and other headers
 * that tell by an Ethernet type what follows them.
 */
#pragma once

#include "flow.h"

#define MAX_LINK_HEADERS 8
#define MAX_LLC_LENGTH 1500 /* IEEE 802.3: up to here the type is a length, and LLC follows */
#define ETH_P_VNTAG 0x8926  /* IEEE 802.1BR */
#define ETH_P_PBB 0x88e7    /* IEEE 802.1ah: an I-TAG of 4 bytes, then the customer's frame */
#define ETH_P_FABRICPATH 0x8903 /* Cisco's: a tag of 2 bytes, then the frame */
#define ETH_P_PPP 0x880b    /* RFC 2637 */
#define PPP_ADDRESS_CONTROL 0xff03
#define PPP_IP 0x0021
#define PPP_IPV6 0x0057

/* What to read next, by its Ethernet type (ETH_P_TEB: an Ethernet header), and where it starts. */
struct step {
	__u16 protocol;
	__u32 at;
};

static __always_inline bool load_be16(const struct source *from, __u32 offset, __u16 *to)
{
	__be16 value;

	if (load(from, offset, &value, sizeof(value)))
		return false;
	*to = bpf_ntohs(value);
	return true;
}

/* What names no protocol carries IP, of the version that stands there, or something else. */
static __always_inline enum outcome guess_version(const struct source *from, struct step *step)
{
	__u8 version;

	if (load(from, step->at, &version, sizeof(version)))
		return TRUNCATED;
	step->protocol = version >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6;
	return version >> 4 == 4 || version >> 4 == 6 ? PARSED : NOT_IP;
}

/* The protocol numbers of NSH (RFC 8300, section 2.2) and of VXLAN-GPE. */
static __always_inline __u16 nsh_protocol(__u8 number)
{
	switch (number) {
	case 1:
		return ETH_P_IP;
	case 2:
		return ETH_P_IPV6;
	case 3:
		return ETH_P_TEB;
	case 4:
		return ETH_P_NSH;
	case 5:
		return ETH_P_MPLS_UC;
	}
	return 0;
}

/* RFC 3032: the lowest bit of the third byte marks the last label. */
static __always_inline enum outcome skip_label(const struct source *from, struct step *step)
{
	__u8 label[4];

	if (load(from, step->at, label, sizeof(label)))
		return TRUNCATED;
	step->at += sizeof(label);
	return label[2] & 1 ? guess_version(from, step) : PARSED;
}

/* RFC 1661: its protocol, which RFC 1662 may put an address and a control byte before. */
static __always_inline enum outcome skip_ppp(const struct source *from, struct step *step)
{
	__u16 protocol;

	if (!load_be16(from, step->at, &protocol))
		return TRUNCATED;
	if (protocol == PPP_ADDRESS_CONTROL) {
		step->at += 2;
		if (!load_be16(from, step->at, &protocol))
			return TRUNCATED;
	}
	step->at += 2;
	step->protocol = protocol == PPP_IP ? ETH_P_IP : ETH_P_IPV6;
	return protocol == PPP_IP || protocol == PPP_IPV6 ? PARSED : NOT_IP;
}

static __always_inline enum outcome skip_nsh(const struct source *from, struct step *step)
{
	__u8 nsh[4];

	if (load(from, step->at, nsh, sizeof(nsh)))
		return TRUNCATED;
	step->at += (nsh[1] & 0x3f) * 4;
	step->protocol = nsh_protocol(nsh[3]);
	return PARSED;
}

/* ERSPAN type III: 12 bytes, and 8 more where the last bit says so. */
static __always_inline enum outcome skip_erspan3(const struct source *from, struct step *step)
{
	__u16 flags;

	if (!load_be16(from, step->at + 10, &flags))
		return TRUNCATED;
	step->at += flags & 1 ? 20 : 12;
	step->protocol = ETH_P_TEB;
	return PARSED;
}

/* IEEE 802.2 LLC: only with a SNAP header of no organisation does it name an Ethernet type. */
static __always_inline enum outcome skip_llc(const struct source *from, struct step *step)
{
	__be32 llc[2] = {};

	if (load(from, step->at, llc, sizeof(llc)))
		return NOT_IP;
	if (llc[0] != bpf_htonl(0xaaaa0300) || bpf_ntohl(llc[1]) >> 16)
		return NOT_IP;
	step->at += sizeof(llc);
	step->protocol = bpf_ntohl(llc[1]);
	return PARSED;
}

/* Where the next type stands in a header of a fixed size. */
static __always_inline enum outcome skip_fixed(const struct source *from, struct step *step,
					       __u32 size)
{
	step->at += size;
	return load_be16(from, step->at - 2, &step->protocol) ? PARSED : TRUNCATED;
}

static __always_inline enum outcome skip_header(const struct source *from, struct step *step)
{
	switch (step->protocol) {
	case ETH_P_TEB:
		return skip_fixed(from, step, ETH_HLEN);
	case ETH_P_8021Q:
	case ETH_P_8021AD:
	case ETH_P_QINQ1:
		return skip_fixed(from, step, 4);
	case ETH_P_VNTAG:
		return skip_fixed(from, step, 6);
	case ETH_P_PBB:
		return settings.replay ? skip_fixed(from, step, 4 + ETH_HLEN) : NOT_IP;
	case ETH_P_FABRICPATH:
		return settings.replay ? skip_fixed(from, step, 2 + ETH_HLEN) : NOT_IP;
	case ETH_P_MPLS_UC:
	case ETH_P_MPLS_MC:
		return skip_label(from, step);
	case ETH_P_PPP_SES:
		step->at += 6; /* RFC 2516 */
		return skip_ppp(from, step);
	case ETH_P_PPP:
		return skip_ppp(from, step);
	case ETH_P_NSH:
		return skip_nsh(from, step);
	case ETH_P_ERSPAN: /* type II: eight bytes, and always an Ethernet frame */
		step->at += 8;
		step->protocol = ETH_P_TEB;
		return PARSED;
	case ETH_P_ERSPAN2:
		return skip_erspan3(from, step);
	}
	return step->protocol <= MAX_LLC_LENGTH ? skip_llc(from, step) : NOT_IP;
}

/* Parse the packet that `step` leads to. */
static __always_inline enum outcome parse_from(const struct source *from, struct step *step,
					       struct packet *packet)
{
	enum outcome outcome;

	for (int i = 0; i < MAX_LINK_HEADERS; i++) {
		if (step->protocol == ETH_P_IP)
			return parse_ipv4(from, step->at, packet);
		if (step->protocol == ETH_P_IPV6)
			return parse_ipv6(from, step->at, packet);
		outcome = skip_header(from, step);
		if (outcome != PARSED)
			return outcome;
	}
	return NOT_IP;
}
