"""Words of the flow rooms: how a direction was known, what became of a connection, and so on."""

from enum import IntEnum, StrEnum


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
