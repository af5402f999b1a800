"""The root of every error that Ringfence raises on purpose."""


class RingfenceError(Exception):
    """Something a person can act on: the message says what is wrong and what to do."""
