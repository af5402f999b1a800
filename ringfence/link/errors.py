"""What can go wrong between a client and the control plane, by what helps against it."""

from ringfence.model.errors import RingfenceError


class LinkError(RingfenceError):
    """The control plane was not reached, or it refused."""


class UnreachableError(LinkError):
    """Nobody answered: trying again may help."""


class RefusedError(LinkError):
    """The control plane, or our own check of it, said no: somebody has to mend something first."""
