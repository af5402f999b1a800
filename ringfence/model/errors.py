"""The root of every error that Ringfence raises on purpose."""


class RingfenceError(Exception):
    """An error a person can act on: its message says what is wrong and what to do."""
