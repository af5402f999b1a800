"""Notices as JSON to a Kafka topic, keyed by alert."""

import asyncio
from collections.abc import Sequence

import msgspec

from ringfence.export.alerts.interface import AlertSink, Message
from ringfence.export.kafka import Messages
from ringfence.export.url import ExportUrl


class Kafka(AlertSink):
    """`kafka://HOST:9092,HOST…/TOPIC`, or `kafka+tls://` with `?ca-file=PATH&username=NAME`.

    With a username the secret is the password; `mechanism=` as of exports.
    """

    options = frozenset({"ca-file", "username", "mechanism"})
    takes_secret = True

    def __init__(self, url: ExportUrl, secret: str) -> None:
        self._messages = Messages(url, secret)

    async def send(self, notices: Sequence[Message]) -> None:
        """Send a message for each, and wait until all in-sync replicas have it."""
        for notice in notices:
            message = msgspec.json.encode(notice.fields())
            await asyncio.to_thread(self._messages.send, [message], notice.id.encode())

    async def close(self) -> None:
        """Close the connections."""
        await self._messages.close()
