"""Words of the flow rooms: how a direction was known, what became of a connection, and so on."""

import re
from enum import IntEnum, StrEnum

from ringfence.model.errors import InputError

TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
"""TCP's flags from the lowest bit (RFC 9293 §3.1)."""


def format_connection(connection: int) -> str:
    """A connection's id as people see it: 64 bits are more than JSON's readers agree on."""
    return f"{connection:016x}"


def parse_connection(text: str) -> int:
    """Read what `format_connection` wrote; raises InputError."""
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise InputError(f"{text!r} is not a connection's id: it has 16 digits and letters a to f")
    return int(text, 16)


class Method(StrEnum):
    """How a flow's direction was known, the surest first (stored with the flow)."""

    SYN = "syn"
    SOCKET = "socket"
    SERVICE = "service"
    DEGREE = "degree"


class Observer(IntEnum):
    """Where a record was seen: at a pod's own interface, or at one of the node's."""

    POD = 1
    NODE = 2


class DropSource(IntEnum):
    """Who reported a drop: one of our rules, or the kernel on behalf of another's."""

    RINGFENCE = 1
    OTHER = 2


class Loss(StrEnum):
    """Why something is in no record, or not in the record where it belongs."""

    TRUNCATED = "truncated"
    BAD_HEADER = "bad header"
    BAD_LENGTH = "bad length"
    FLOW_MAP_FULL = "flow map full"
    UNPLACED = "fragment unplaced"
    INNER_TRUNCATED = "inner truncated"
    INNER_BAD_HEADER = "inner bad header"
    INNER_BAD_LENGTH = "inner bad length"
    INNER_FULL = "inner flow map full"
    DNS_FULL = "dns ring full"
    DNS_OVERLONG = "dns answer too long"
    DNS_UNASKED = "dns answer unasked"
    DNS_NOT_PARSED = "dns answer not parsed"
    DNS_FORGOTTEN = "dns name forgotten"
    DROP_MAP_FULL = "drop map full"
    DROP_NOT_PARSED = "drop not parsed"
    NOT_ATTACHED = "interface not attached"
    BEFORE_ATTACHED = "before attached"
    SPOOL_FULL = "spool full"
    REPORT_TOO_LARGE = "report too large"
    REPORT_NOT_KEPT = "report not kept"
    REPORT_UNREADABLE = "report unreadable"
    REPORT_REFUSED = "report refused"


class Mode(StrEnum):
    """How finely an agent tells flows: consumers' ports folded, or each kept."""

    CONVERSATION = "conversation"
    DETAILED = "detailed"


class Disposition(StrEnum):
    """What became of a connection."""

    PASSED = "passed"
    DROPPED = "dropped"
    UNANSWERED = "unanswered"
    PENDING = "pending"


class Category(StrEnum):
    """A disposition held against a policy version's verdict."""

    PERMITTED = "permitted"
    ESCAPED = "escaped"
    REJECTED = "rejected"
    MISDROPPED = "misdropped"
    UNANSWERED = "unanswered"
    PENDING = "pending"


class Sort(StrEnum):
    """By what groups of connections are ranked, the greatest first."""

    BYTES = "bytes"
    PACKETS = "packets"
    CONNECTIONS = "connections"
    OPENED = "opened"
    REFUSED = "refused"
    DROPPED = "dropped"
    LAST = "last"
