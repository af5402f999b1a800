"""Why conversations did not go out, by what helps against it."""

import os

from ringfence.model.errors import RingfenceError


class ExportError(RingfenceError):
    """The receiver was not reached or could not take it: trying again may help.

    It asked to be left alone for `after` seconds.
    """

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class RefusedError(ExportError):
    """The receiver said no to `records` of them for good: the same words will not help."""

    def __init__(self, message: str, records: int) -> None:
        super().__init__(message)
        self.records = records


def reason(error: OSError) -> str:
    """What the system says went wrong, without the addresses that asyncio adds."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
