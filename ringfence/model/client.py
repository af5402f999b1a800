"""What dials the control plane besides people."""

from enum import StrEnum


class ClientKind(StrEnum):
    """A kind of gRPC client; stands as organisation in its certificate."""

    AGENT = "agent"
    CONNECTOR = "connector"
