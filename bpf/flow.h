/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the flow programs share with user space. The layouts are mirrored, field by field, in
 * ringfence/kernel/capture.py, and the enumerations in ringfence/flows/record.py; keep them in
 * step.
 */
#pragma once

#include "parse.h"

#define REASONS (OUTCOMES - TRUNCATED) /* to call a packet malformed */

/* Set when the object is loaded: the verifier takes out what is then dead. */
struct settings {
	__u32 replay; /* packets of capture files, by BPF_PROG_TEST_RUN, not an interface's */
	__u32 dns;    /* keep the answers of DNS servers */
	__u32 relate; /* ask connection tracking, which is loaded */
};
const volatile struct settings settings SEC(".rodata.settings") = {};

enum hook {
	INGRESS, /* from the interface into the node's stack */
	EGRESS,	 /* from the node's stack out of the interface */
};

enum nat {
	NAT_UNKNOWN, /* no connection tracking entry seen */
	NAT_NONE,
	NAT_TRANSLATED,
};

struct flow_key {
	struct address src, dst;
	__u32 ifindex;
	__u16 sport, dport;
	__u8 hook;
	__u8 proto;
	__u8 inner; /* 1: the innermost packet of a tunnel's packet */
	__u8 family; /* 4 or 6: an IPv6 packet can have addresses that look like IPv4's */
	__u8 unplaced; /* 1: later fragments whose ports are not known, rather than 0 */
	__u8 zero[3]; /* a key is compared as bytes: no padding may stay undefined */
};

/* What most packets touch stands first, within one cache line. */
struct flow {
	__u64 packets, bytes; /* as on the wire, from the IP header on */
	__u64 first_ns, last_ns; /* CLOCK_BOOTTIME */
	__u32 tcp_flags;
	__u32 next_seq; /* what follows the highest sequence number seen */
	__u32 retransmitted; /* segments, SYNs and FINs among them, that had been seen before */
	__u8 nat;
	__u8 reply; /* this record runs against the direction of the original tuple */
	__u8 sequenced; /* `next_seq` is known */
	__u8 zero;
	__u16 ipv4_id; /* of the segment sent last */
	__u16 more_zero;
	/* Where translated, the connection as its consumer opened it; else zero. */
	struct address original_src, original_dst;
	__u16 original_sport, original_dport;
	__u32 syn, synack; /* repeated ones are not counted */
	__u32 syn_seq, synack_seq; /* sequence numbers of the last ones counted */
	__u32 syn_packets, fin, rst; /* packets with the flag, repeated ones too */
	__u32 rtt_samples; /* SYN-ACKs of this way that answered a SYN, and how long that took */
	__u64 tunnel; /* of an inner packet, `tuple_id` of the one that carried it; else 0 */
	__u64 rtt_sum_ns, rtt_min_ns;
	__u64 syn_ns; /* when the last SYN came; 0 once it was answered or repeated */
};

struct audit_key {
	__u32 ifindex;
	__u32 hook;
};

/* What passed one hook of one interface, and what of it is in no flow, with the reason. */
struct audit {
	__u64 skbs, bytes;
	__u64 non_ip, malformed[REASONS]; /* skbs */
	/* skbs in a flow, but what they carry is in none */
	__u64 inner_malformed[REASONS], inner_full;
	__u64 overlong; /* longer than their frame, which a capture file may have cut: in a flow */
	__u64 unplaced; /* later fragments whose first was not seen: in a flow without ports */
	__u64 full_skbs, full_packets, full_bytes; /* no room in the flow map */
	__u64 dns_full, dns_overlong, dns_unasked; /* DNS answers that user space does not get */
};
