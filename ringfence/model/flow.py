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
    DROP_MAP_FULL = "drop map full"
    DROP_NOT_PARSED = "drop not parsed"
    NOT_ATTACHED = "interface not attached"
    REPORTS = "reports"


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
