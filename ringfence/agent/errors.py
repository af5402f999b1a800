"""What can go wrong in an agent."""

from ringfence.model.errors import RingfenceError


class AgentError(RingfenceError):
    """The agent cannot run, or cannot go on, as things are on this node."""


class HostError(AgentError):
    """The node lacks something: a privilege, a kernel feature, or it runs an agent already."""


class SpoolError(AgentError):
    """Reports cannot be kept on disk."""
