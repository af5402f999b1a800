"""`ringfence flows watch`: connections as they are reported."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.client import ApiError, UnauthenticatedError, connect
from ringfence.cli.flows.columns import both, end_name, port, provider_name
from ringfence.cli.flows.options import FilterOption
from ringfence.cli.output import Row, printable, say, tell
from ringfence.model.backoff import Backoff
from ringfence.model.words import counted

_SILENCE_SECONDS = 30
"""Longer than the control plane is ever silent while it lives."""

_LATE = timedelta(seconds=300)
"""How far back is asked for after a break: reports may come that late."""


class WatchFormat(StrEnum):
    """The forms of `watch`."""

    TABLE = "table"
    JSONL = "jsonl"


def watch(
    filter_: FilterOption = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with what was reported since; else with what comes.")
    ] = None,
    output: Annotated[
        WatchFormat,
        typer.Option("--output", "-o", help="How to print them.", case_sensitive=False),
    ] = WatchFormat.TABLE,
) -> None:
    """Follow connections live, until Ctrl-C.

    A line tells what a connection did within one reporting interval; it comes again when a later
    report of the interval adds to it. After a break, as when the control plane starts anew, it
    goes on where it was.

    Example: ringfence flows watch -f 'disposition = "dropped"'
    """
    try:
        for line in _followed(filter_, since):
            say(_told(line) if output is WatchFormat.TABLE else json.dumps(line))
    except KeyboardInterrupt:
        return


def _followed(filter_: str | None, since: str | None) -> Iterator[Row]:
    """Lines of the stream, and of those that take its place after a break."""
    client, recent, backoff = connect(), _Recent(), Backoff()
    began, heard = time.monotonic(), False
    while True:
        try:
            with client.stream(
                "/flows/watch", timeout=_SILENCE_SECONDS, filter=filter_, since=since
            ) as parts:
                for text in _lines(parts):
                    heard = True
                    backoff.reset()
                    if text and recent.is_news(line := json.loads(text), text):
                        yield line
        except UnauthenticatedError:
            raise
        except ApiError as error:
            if not heard:
                raise
            tell(f"{error}; trying again")
        since = recent.go_on() or since or f"{time.monotonic() - began + 1:.0f}s"
        time.sleep(backoff.delay())


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines of a stream, without their ends."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


class _Recent:
    """The lines of the last minutes, so that after a break none is told twice."""

    def __init__(self) -> None:
        self._told: dict[datetime, dict[str, int]] = {}
        self._first: datetime | None = None
        self._since: datetime | None = None

    def go_on(self) -> str | None:
        """The time from which to ask after a break, None where nothing was told yet.

        From here on no interval before it is news: it was told, or lies before what was followed.
        """
        if self._first is None:
            return None
        self._since = max(self._first, max(self._told) - _LATE)
        return self._since.isoformat(timespec="milliseconds")

    def is_news(self, line: Row, text: bytes) -> bool:
        """Whether the line was not told yet as it is."""
        start, connection = datetime.fromisoformat(line["start"]), line["flow"]["connection"]
        if self._since and start < self._since:
            return False
        self._first = self._first or start
        if start not in self._told:
            self._told[start] = {}
            oldest = max(self._told) - _LATE
            self._told = {one: lines for one, lines in self._told.items() if one >= oldest}
        told = self._told.setdefault(start, {})
        known, told[connection] = told.get(connection), hash(text)
        return known != told[connection]


def _told(line: Row) -> str:
    """A line for people."""
    flow = line["flow"]
    return printable(
        f"{line['end'][11:19]}  {end_name(flow['consumer'])} → {provider_name(flow)}"
        f"  {flow['protocol']} {port(flow)}  {counted(flow['opened'], 'connection')}"
        f"  {both(flow, 'bytes')}  {flow['disposition']}"
    )
