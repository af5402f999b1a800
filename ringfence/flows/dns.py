"""Answers of DNS servers (RFC 1035): which name was asked, and which addresses it has.

Anybody can send such a message, so that reading one ends soon and needs little, whatever is in it.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.model.address import V4_MAPPED, Address
from ringfence.model.errors import RingfenceError

LONGEST_NAME = 253
"""Characters of a name in text: it takes two octets more in a message (RFC 1035, section 2.3.4)."""
LONGEST_TTL = 86_400
"""Seconds for which an address may be believed (RFC 8767 has a resolver keep none much longer)."""

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_A, _CNAME, _AAAA = 1, 5, 28
_IN = 1
_LENGTHS = {_A: 4, _AAAA: 16}
_RESPONSE, _OPCODE, _RCODE = 0x8000, 0x7800, 0x000F
_POINTER = 0xC0
_MOST_STEPS = 1024
"""Labels and pointers read of one message; 90 addresses of a name with ten labels take fewer."""
_LONGEST_CHAIN = 16
"""CNAMEs from the name asked to the one that has addresses; resolvers follow fewer."""
_PLAIN = re.compile(rb"[a-z0-9_-]+")


class DnsError(RingfenceError):
    """A message that is no well-formed answer to one question."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a question was answered with."""

    name: str
    """As it was asked, in lower case and without the last dot; other characters than letters,
    digits, - and _ as RFC 1035, section 5.1, writes them."""
    addresses: tuple[Address, ...]
    ttl: int
    """Seconds, the least of all records that led to the addresses."""


def read_answer(message: bytes) -> Resolved | None:
    """Who has the addresses that a message tells; None if it tells none. Raises DnsError.

    The name is the one asked, not what CNAMEs made of it. Records that do not belong to the
    question are passed over, in whichever order they are.
    """
    reader = _Reader(message)
    try:
        _, flags, questions, answers, _, _ = reader.unpack(_HEADER)
        if not flags & _RESPONSE or flags & _OPCODE or questions != 1:
            raise DnsError("not an answer to one question")
        asked = reader.name()
        kind, class_ = reader.unpack(_QUESTION)
        if kind not in _LENGTHS or class_ != _IN or flags & _RCODE:
            return None
        found = _follow(asked, kind, list(_records(reader, answers)))
    except (struct.error, IndexError) as error:
        raise DnsError("it ends too soon") from error
    return found


@dataclass(frozen=True, slots=True)
class _Record:
    owner: bytes
    kind: int
    ttl: int
    data: bytes
    """An address, or of a CNAME the name."""


def _records(reader: "_Reader", count: int) -> Iterator[_Record]:
    for _ in range(count):
        owner = reader.name()
        kind, class_, ttl, length = reader.unpack(_RECORD)
        end = reader.at + length
        if class_ == _IN and kind == _CNAME:
            yield _Record(owner, kind, ttl, reader.name())
            if reader.at != end:
                raise DnsError("a CNAME is not as long as it says")
        elif class_ == _IN and length == _LENGTHS.get(kind):
            yield _Record(owner, kind, ttl, reader.take(length))
        reader.at = end


def _follow(asked: bytes, kind: int, records: list[_Record]) -> Resolved | None:
    """The addresses at the end of the chain of CNAMEs."""
    aliases = {record.owner: record for record in records if record.kind == _CNAME}
    owner, ttls = asked, [LONGEST_TTL]
    for _ in range(_LONGEST_CHAIN):
        told = [record for record in records if record.kind == kind and record.owner == owner]
        if told and asked:
            ttls += [_seconds(record.ttl) for record in told]
            mapped = V4_MAPPED if kind == _A else b""
            addresses = dict.fromkeys(Address(mapped + record.data) for record in told)
            return Resolved(_text(asked), tuple(addresses), min(ttls))
        if owner not in aliases:
            break
        ttls.append(_seconds(aliases[owner].ttl))
        owner = aliases[owner].data
    return None


def _seconds(ttl: int) -> int:
    """A TTL as RFC 2181, section 8, reads it: with the highest bit set it is 0."""
    return ttl if ttl < 1 << 31 else 0


def _text(name: bytes) -> str:
    """A name's labels, each behind its length, as people write it; raises DnsError."""
    at, labels = 0, []
    while at < len(name):
        end = at + 1 + name[at]
        label = name[at + 1 : end]
        plain = _PLAIN.fullmatch(label)
        labels.append(label.decode() if plain else "".join(_character(octet) for octet in label))
        at = end
    text = ".".join(labels)
    if len(text) > LONGEST_NAME:
        raise DnsError("a name full of odd characters")
    return text


def _character(octet: int) -> str:
    if _PLAIN.fullmatch(bytes([octet])):
        return chr(octet)
    return f"\\{octet:03}"


class _Reader:
    """Goes through a message."""

    def __init__(self, message: bytes) -> None:
        self.at = 0
        self._message = message
        self._steps = 0

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        values = form.unpack_from(self._message, self.at)
        self.at += form.size
        return values

    def take(self, length: int) -> bytes:
        taken = self._message[self.at : self.at + length]
        if len(taken) < length:
            raise IndexError
        self.at += length
        return taken

    def name(self) -> bytes:
        """A name without its last, empty label, in lower case; goes on behind it.

        A pointer leads to a place before all that the name was read from, so that it has an end
        (RFC 1035, section 4.1.4: "a prior occurance").
        """
        labels, length = [], 0
        at, first, end = self.at, self.at, 0
        while size := self._message[at]:
            self._steps += 1
            if size >= _POINTER:
                end = end or at + 2
                at = (size & ~_POINTER) << 8 | self._message[at + 1]
                if at >= first:
                    raise DnsError("a name that points forward")
                first = at
            elif size & _POINTER:
                raise DnsError("a label of an unknown kind")
            else:
                labels.append(self._message[at : at + 1 + size])
                at += 1 + size
                length += 1 + size
            if length > LONGEST_NAME + 1 or self._steps > _MOST_STEPS:
                raise DnsError("names beyond measure")
        self.at = end or at + 1
        return b"".join(labels).lower()
