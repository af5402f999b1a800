"""What every kind of exporter is."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from ringfence.export.url import ExportUrl


class Exporter(ABC):
    """Hands conversations to one receiver. Not for concurrent use."""

    options: ClassVar[frozenset[str]] = frozenset()
    """What may stand behind the `?` of its URL."""

    @abstractmethod
    def __init__(self, url: ExportUrl) -> None:
        """Inert; raises InputError where the URL does not fit the kind."""

    @abstractmethod
    async def send(self, conversations: pa.RecordBatch) -> None:
        """Hand over a batch of CONVERSATIONS, connecting first where need be.

        Raises ExportError, after which the whole batch may be sent again, or RefusedError.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the receiver; `send` connects again."""
