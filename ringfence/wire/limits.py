"""What both ends of a connection hold each other to."""

PROTOCOL = 2
"""The version of the agent protocol, checked at enrolment and at the start of each session."""

SIGNED_PREFIX = b"ringfence directive\0"
"""Goes before what is signed of a directive, so that nothing else can be taken for one."""

LARGEST_MESSAGE = 64 << 20
"""Bytes of one gRPC message. A report has some 5 MiB of flows, and 14 MiB of drops at most."""

MOST_ROWS = 65_536
"""Of flows, and of drops, in one report: as many as the flow store takes in at once."""

LONGEST_TEXT = 255
"""Bytes of a text in a report: Kubernetes and DNS have no longer names."""

MOST_ID_BYTES = 64
"""Of a report's id."""

LARGEST_SKEW_SECONDS = 300
"""How far the clocks of a client and the control plane may be apart; beyond, nothing that either
says of times is believed, and certificates mean nothing."""

AUDITED_INTERFACES = 256
"""Interfaces that an agent's audit tells one by one, about 40 bytes each; its totals hold all."""

MOST_DNS_ANSWERS = 1024
"""Answers of DNS servers that one message tells."""

MOST_RULES, LONGEST_RULE = 10_000, 2_000
"""Rules of one namespace, and characters of one, that an agent tells."""

MOST_REPAIRS = 16
"""Namespaces whose last repair of rules an agent tells."""
