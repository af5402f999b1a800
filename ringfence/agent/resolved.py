"""What DNS servers told clients of this node, for the names of those they then connect to."""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.dns import DnsError, read_answer
from ringfence.flows.names import Names
from ringfence.kernel.answers import Answer
from ringfence.model.address import Address
from ringfence.model.flow import Loss
from ringfence.wire.generated.agent_pb2 import DnsAnswer
from ringfence.wire.limits import MOST_DNS_ANSWERS


class Resolved:
    """Reads answers, remembers names, and puts them to conversations."""

    def __init__(self) -> None:
        self._names = Names()
        self._refused = self._untold = 0
        self._news: dict[tuple[str, tuple[Address, ...]], DnsAnswer] = {}

    def hear(self, answers: Iterable[Answer]) -> None:
        """Take note of answers; those that are none are counted."""
        for answer in answers:
            try:
                resolved = read_answer(answer.message)
            except DnsError:
                self._refused += 1
                continue
            if resolved is not None:
                self._names.learn(answer.client, answer.at_ns, resolved)
                self._news[resolved.name, resolved.addresses] = DnsAnswer(
                    name=resolved.name,
                    addresses=resolved.addresses,
                    ttl_seconds=resolved.ttl,
                    at_ns=answer.at_ns,
                    resolver=answer.resolver,
                )
                if len(self._news) > MOST_DNS_ANSWERS:
                    self._news.pop(next(iter(self._news)))
                    self._untold += 1

    def news(self) -> list[DnsAnswer]:
        """The answers since the last call, of equal ones the latest."""
        news, self._news = [*self._news.values()], {}
        return news

    def names(self, columns: Mapping[str, Any], here: Collection[Address]) -> NDArray[np.object_]:
        """The name by which each conversation's consumer knew its provider, empty for none.

        `columns` are those of `wire.columns.FLOWS`. An address that was translated is looked up as
        the consumer dialled it. `here` are the addresses of this node.
        """
        translated = np.asarray(columns["original_provider"].any(axis=1))[:, None]
        consumer, dialled = (
            np.where(translated, columns[f"original_{end}"], columns[end])
            for end in ("consumer", "provider")
        )
        return self._names.of(consumer, dialled, here, time.time_ns())

    def losses(self) -> dict[str, int]:
        """What of the answers is not in the names, by cause."""
        forgotten = self._names.forgotten + self._untold
        return {Loss.DNS_NOT_PARSED: self._refused, Loss.DNS_FORGOTTEN: forgotten}
