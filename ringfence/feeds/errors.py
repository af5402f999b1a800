"""What can go wrong with what others publish."""

from ringfence.model.errors import RingfenceError


class FeedError(RingfenceError):
    """What was asked for did not come, or ought not to be asked for; the message says why."""
