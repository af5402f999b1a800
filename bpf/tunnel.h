/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a packet carries inside of it, where it is a tunnel's: IP in IP, GRE, and over UDP VXLAN,
 * Geneve, GRE, GTP, Teredo and AYIYA.
 */
#pragma once

#include "flow.h"
#include "link.h"

#define VXLAN_PORT 4789 /* RFC 7348 */
#define VXLAN_GPE_PORT 4790
#define GENEVE_PORT 6081 /* RFC 8926 */
#define GRE_PORT 4754	 /* RFC 8086 */
#define GTP_PORT 2152	 /* 3GPP TS 29.281 */
#define GTP_0_PORT 3386	 /* 3GPP TS 09.60 */
#define TEREDO_PORT 3544 /* RFC 4380 */
#define AYIYA_PORT 5072	 /* draft-massar-v6ops-ayiya */
#define MPLS_PORT 6635	 /* RFC 7510 */
#define PIM_HEADER 8
#define PIM_REGISTER 0x21 /* RFC 7761, section 4.9: version and type */
#define FIRST_USER_PORT 1024 /* RFC 6335: those below are assigned to services */

#define GRE_CHECKSUM 0x8000 /* RFC 2784, RFC 2890 */
#define GRE_ROUTING 0x4000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_ACKNOWLEDGES 0x0080 /* in version 1, RFC 2637 */
#define GRE_VERSION 0x0007

#define GTP_VERSION_0 0x10 /* the version, and GTP rather than GTP' */
#define GTP_VERSION_1 0x30
#define GTP_0_HEADER 20
#define GTP_OPTIONAL 0x07  /* any of these flags: four bytes more */
#define GTP_EXTENDED 0x04
#define GTP_USER_DATA 255
#define MAX_GTP_EXTENSIONS 4

#define TEREDO_ORIGIN 0 /* RFC 4380, section 5.1.1: either may stand before the IPv6 header */
#define TEREDO_AUTHENTICATION 1

/* The numbers are those of ringfence/kernel/tunnel.py. */
enum tunnel { NO_TUNNEL, VXLAN, GENEVE, GRE, GTP, TEREDO, VXLAN_GPE, AYIYA, MPLS };

#define MAX_DECODE_AS 8

/* What a packet to or from a UDP port is, where that is not the registered port; port 0 ends it. */
struct decode_as {
	__u16 port;
	__u16 tunnel;
};
volatile struct decode_as decode_as[MAX_DECODE_AS] SEC(".data.decode_as") = {};

static __always_inline enum outcome enter_gre(const struct source *from, struct step *step)
{
	__u16 flags;

	if (!load_be16(from, step->at, &flags) || !load_be16(from, step->at + 2, &step->protocol))
		return TRUNCATED;
	if (flags & GRE_ROUTING || (flags & GRE_VERSION) > 1)
		return NOT_IP;
	step->at += 4;
	step->at += flags & GRE_CHECKSUM ? 4 : 0;
	step->at += flags & GRE_KEY ? 4 : 0;
	step->at += flags & GRE_SEQUENCE ? 4 : 0;
	step->at += flags & GRE_VERSION && flags & GRE_ACKNOWLEDGES ? 4 : 0;
	if (step->protocol == ETH_P_ERSPAN && !(flags & GRE_SEQUENCE))
		step->protocol = ETH_P_TEB; /* type I has no header of its own */
	return PARSED;
}

/* Of VXLAN-GPE the fourth byte names what follows; 0 is Ethernet, as in VXLAN. */
static __always_inline enum outcome enter_vxlan(const struct source *from, struct step *step,
						bool gpe)
{
	__u8 header[8];

	if (load(from, step->at, header, sizeof(header)))
		return TRUNCATED;
	step->at += sizeof(header);
	step->protocol = gpe && header[3] ? nsh_protocol(header[3]) : ETH_P_TEB;
	return PARSED;
}

static __always_inline enum outcome enter_geneve(const struct source *from, struct step *step)
{
	__u8 header[8];

	if (load(from, step->at, header, sizeof(header)))
		return TRUNCATED;
	step->at += sizeof(header) + (header[0] & 0x3f) * 4;
	step->protocol = header[2] << 8 | header[3];
	return PARSED;
}

static __always_inline enum outcome enter_gtp(const struct source *from, struct step *step)
{
	__u8 header[8], options[4], length;

	if (load(from, step->at, header, sizeof(header)))
		return TRUNCATED;
	if (header[1] != GTP_USER_DATA)
		return NOT_IP;
	if ((header[0] & 0xf0) == GTP_VERSION_0) {
		step->at += GTP_0_HEADER;
		return guess_version(from, step);
	}
	if ((header[0] & 0xf0) != GTP_VERSION_1)
		return NOT_IP;
	step->at += sizeof(header);
	if (!(header[0] & GTP_OPTIONAL))
		return guess_version(from, step);
	if (load(from, step->at, options, sizeof(options)))
		return TRUNCATED;
	step->at += sizeof(options);
	if (!(header[0] & GTP_EXTENDED))
		return guess_version(from, step);
	for (int i = 0; i < MAX_GTP_EXTENSIONS && options[3]; i++) { /* the next one's type */
		if (load(from, step->at, &length, sizeof(length)) || !length)
			return TRUNCATED;
		step->at += length * 4;
		if (load(from, step->at - 1, &options[3], 1))
			return TRUNCATED;
	}
	return guess_version(from, step);
}

static __always_inline enum outcome enter_teredo(const struct source *from, struct step *step)
{
	__u8 header[4], version;

	step->protocol = ETH_P_IPV6;
	for (int i = 0; i < 2; i++) {
		if (load(from, step->at, header, sizeof(header)))
			return TRUNCATED;
		if (header[0] == 0 && header[1] == TEREDO_ORIGIN)
			step->at += 8;
		else if (header[0] == 0 && header[1] == TEREDO_AUTHENTICATION)
			step->at += 13 + header[2] + header[3];
		else
			break;
	}
	if (load(from, step->at, &version, sizeof(version)))
		return TRUNCATED;
	return version >> 4 == 6 ? PARSED : NOT_IP;
}

/*
 * Clients of Teredo send to each other from any port to any: what tells it is an IPv6 packet that
 * ends where its own packet does.
 */
static __always_inline enum outcome guess_teredo(const struct source *from,
						 const struct packet *packet, struct step *step)
{
	__u32 end = packet->payload + packet->bytes - packet->header_bytes;
	__u16 length;

	if (enter_teredo(from, step) != PARSED || !load_be16(from, step->at + 4, &length))
		return NOT_IP;
	return step->at + sizeof(struct ipv6hdr) + length == end ? PARSED : NOT_IP;
}

/* Four bytes, a time, then an identity and a signature of the lengths that the first two tell. */
static __always_inline enum outcome enter_ayiya(const struct source *from, struct step *step)
{
	__u8 header[4];

	if (load(from, step->at, header, sizeof(header)))
		return TRUNCATED;
	if (header[3] != IPPROTO_IPV6 && header[3] != IPPROTO_IPIP)
		return NOT_IP;
	step->at += 8 + (1 << (header[0] >> 4)) + (header[1] >> 4) * 4;
	step->protocol = header[3] == IPPROTO_IPV6 ? ETH_P_IPV6 : ETH_P_IP;
	return PARSED;
}

/* A multicast packet on its way to the rendezvous point. */
static __always_inline enum outcome enter_pim(const struct source *from, struct step *step)
{
	__u8 kind;

	if (load(from, step->at, &kind, sizeof(kind)))
		return TRUNCATED;
	if (kind != PIM_REGISTER)
		return NOT_IP;
	step->at += PIM_HEADER;
	return guess_version(from, step);
}

static __always_inline bool either_port(const struct packet *packet, __u16 port)
{
	return packet->sport == port || packet->dport == port;
}

static __always_inline enum tunnel registered(__u16 port)
{
	switch (port) {
	case VXLAN_PORT:
		return VXLAN;
	case VXLAN_GPE_PORT:
		return VXLAN_GPE;
	case GENEVE_PORT:
		return GENEVE;
	case GRE_PORT:
		return GRE;
	case GTP_PORT:
	case GTP_0_PORT:
		return GTP;
	case TEREDO_PORT:
		return TEREDO;
	case AYIYA_PORT:
		return AYIYA;
	case MPLS_PORT:
		return MPLS;
	}
	return NO_TUNNEL;
}

/* Some answer from the registered port, but a client of a service may have it by chance. */
static __always_inline enum tunnel tunnel_of(const struct packet *packet)
{
	enum tunnel tunnel;

	for (int i = 0; i < MAX_DECODE_AS && decode_as[i].port; i++)
		if (either_port(packet, decode_as[i].port))
			return decode_as[i].tunnel;
	tunnel = registered(packet->dport);
	if (!tunnel && packet->dport >= FIRST_USER_PORT)
		tunnel = registered(packet->sport);
	return tunnel;
}

static __always_inline enum outcome enter_udp(const struct source *from,
					      const struct packet *packet,
					      struct step *step)
{
	switch (tunnel_of(packet)) {
	case VXLAN:
		return enter_vxlan(from, step, false);
	case VXLAN_GPE:
		return enter_vxlan(from, step, true);
	case GENEVE:
		return enter_geneve(from, step);
	case GRE:
		return enter_gre(from, step);
	case GTP:
		return enter_gtp(from, step);
	case TEREDO:
		return enter_teredo(from, step);
	case AYIYA:
		return enter_ayiya(from, step);
	case MPLS:
		step->protocol = ETH_P_MPLS_UC;
		return PARSED;
	default:
		return guess_teredo(from, packet, step);
	}
}

/* What a node's own tunnels look like. */
static __always_inline bool is_tunnel(const struct packet *packet)
{
	if (packet->proto == IPPROTO_IPIP || packet->proto == IPPROTO_IPV6 ||
	    packet->proto == IPPROTO_GRE)
		return true;
	if (packet->proto != IPPROTO_UDP)
		return false;
	if (packet->dport == VXLAN_PORT || packet->dport == GENEVE_PORT)
		return true;
	for (int i = 0; i < MAX_DECODE_AS && decode_as[i].port; i++)
		if (packet->dport == decode_as[i].port)
			return true;
	return false;
}

/*
 * An agent looks into no more than that, not in a tunnel either: the rest of what `enter` knows is
 * too often something else, or a pod's own word.
 */
static __always_inline bool looks_into(const struct packet *packet)
{
	return settings.replay || is_tunnel(packet);
}

/* The step into what `packet` carries; NOT_IP where it is no tunnel's. */
static __always_inline enum outcome enter(const struct source *from, const struct packet *packet,
					  struct step *step)
{
	if (packet->later_fragment)
		return NOT_IP;
	step->at = packet->payload;
	switch (packet->proto) {
	case IPPROTO_IPIP:
		step->protocol = ETH_P_IP;
		return PARSED;
	case IPPROTO_IPV6:
		step->protocol = ETH_P_IPV6;
		return PARSED;
	case IPPROTO_ETHERNET:
		step->protocol = ETH_P_TEB;
		return PARSED;
	case IPPROTO_MPLS:
		step->protocol = ETH_P_MPLS_UC;
		return PARSED;
	case IPPROTO_GRE:
		return enter_gre(from, step);
	case IPPROTO_PIM:
		return enter_pim(from, step);
	case IPPROTO_UDP:
		return enter_udp(from, packet, step);
	}
	return NOT_IP;
}
