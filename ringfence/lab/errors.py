"""The root exception of the lab."""

from ringfence.model.errors import RingfenceError


class LabError(RingfenceError):
    """The lab cannot be built, started or reached; the message says what to do."""
