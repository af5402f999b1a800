"""Errors of the stores."""

from ringfence.model.errors import RingfenceError


class StoreError(RingfenceError):
    """A database cannot do what was asked; the message says which and what to do."""


class StaleError(StoreError):
    """Somebody else changed the same thing at the same time; try again."""


class UnfinishedError(StoreError):
    """An insertion broke off halfway; it is written down, and made again before the next."""
