"""What every kind of sink of alerts is, and what it is told."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from ringfence.export.url import ExportUrl
from ringfence.model.words import counted

TEST = "test"
"""The category of a notice that somebody asked for to try a sink."""
RECOMMENDATION = "recommendation"
"""The category of what is no alert."""


class Message(ABC):
    """What sinks are told of. What has the same `id` is about the same."""

    __slots__ = ()

    id: str
    state: str
    last: str
    """When, RFC 3339."""

    @property
    @abstractmethod
    def title(self) -> str:
        """One line for people."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What there is to say besides the title, in lines."""

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return {"title": self.title, **msgspec.to_builtins(self)}


@dataclass(frozen=True, slots=True)
class Notice(Message):
    """That an alert was opened or resolved; times are RFC 3339.

    `id` is the alert's, the same in both notices.
    """

    id: str
    state: str
    category: str
    consumer: str
    provider: str
    protocol: str
    port: str
    decided_by: list[str]
    """The deciding rules, such as `DENY shop/catch-all@p2`."""
    conversations: int
    first: str
    last: str

    @property
    def title(self) -> str:
        """One line for people."""
        if self.category == TEST:
            return "Ringfence: this is a test, nothing has happened"
        traffic = f"{self.consumer} → {self.provider} {self.protocol} {self.port}".rstrip()
        return f"Ringfence alert {self.state}: {self.category} {traffic}"

    @property
    def text(self) -> str:
        """What there is to say besides the title, in lines."""
        if self.category == TEST:
            return f"sent at {self.last} to try whether alerts get here"
        rules = ", ".join(self.decided_by) or "no rule"
        return (
            f"{self.conversations} conversations, the first at {self.first}, the last at "
            f"{self.last}\ndecided by {rules}\nalert {self.id}"
        )


MOST_LISTED = 20
"""Of so many things besides the first one people are told."""


@dataclass(frozen=True, slots=True)
class Recommended(Message):
    """That more is recommended for a scope than was before."""

    id: str
    scope: str
    changes: list[str]
    """Those that are new, such as `added front-to-db`."""
    last: str
    state: str = "recommended"
    category: str = RECOMMENDATION

    @property
    def title(self) -> str:
        """One line for people."""
        changes = counted(len(self.changes), "change")
        return f"Ringfence recommends {changes} for scope {self.scope}"

    @property
    def text(self) -> str:
        """What there is to say besides the title, in lines."""
        see = f"see `ringfence recommendations show {self.scope}`"
        return "\n".join([*shortened(self.changes), see])


def shortened(things: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    listed = [*things[:MOST_LISTED]]
    if left := len(things) - len(listed):
        listed.append(f"and {left} more")
    return listed


def read_message(fields: dict[str, Any]) -> Message:
    """A message out of its fields, but for the title."""
    kind = Recommended if fields["category"] == RECOMMENDATION else Notice
    return msgspec.convert(fields, kind)


def title(notices: Sequence[Message]) -> str:
    """One line for people about a message of some notices."""
    more = f" and {len(notices) - 1} more" if notices[1:] else ""
    return f"{notices[0].title}{more}"


def text(notices: Sequence[Message]) -> str:
    """What there is to say besides the title, in lines."""
    listed = [one.title for one in notices[1 : MOST_LISTED + 1]]
    if left := len(notices) - 1 - len(listed):
        listed.append(f"and {left} more: see `ringfence alerts list --since 1d`")
    return "\n".join([notices[0].text, *(["", *listed] if listed else [])])


def fields(notices: Sequence[Message]) -> dict[str, Any]:
    """As JSON: the first notice's, with those of others under `more`."""
    more = [one.fields() for one in notices[1:]]
    return notices[0].fields() | ({"title": title(notices), "more": more} if more else {})


class AlertSink(ABC):
    """Hands notices to one receiver. Not for concurrent use."""

    options: ClassVar[frozenset[str]] = frozenset()
    """What may stand behind the `?` of its URL."""
    takes_secret: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, url: ExportUrl, secret: str) -> None:
        """Inert; raises InputError where the URL or the secret does not fit the kind.

        `secret` is empty for none. No error tells it.
        """

    @abstractmethod
    async def send(self, notices: Sequence[Message]) -> None:
        """Hand over one notice or more: what people read in one message, the others one by one.

        Raises ExportError, after which they may be sent again, or RefusedError. Neither tells the
        secret.
        """

    async def close(self) -> None:  # noqa: B027 - most connect for each notice
        """Let go of the receiver; `send` connects again."""
