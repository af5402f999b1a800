"""The root of every error that Ringfence raises on purpose, so that callers can catch one type."""


class RingfenceError(Exception):
    """Something went wrong that a person can act on: the message says what, and what to do."""


class InputError(RingfenceError):
    """Input from a person does not mean anything; the message names the place and the mend."""
