"""Answers of DNS servers, honest and hostile; those made by dnspython are as servers send them."""

import struct

import dns.flags
import dns.message
import dns.rrset
import pytest

from ringfence.flows.dns import DnsError, Resolved, read_answer
from ringfence.model.address import parse_address

HEADER = struct.Struct("!HHHHHH")
RESPONSE = 0x8180
QUESTION = b"\1a\0\0\1\0\1"


def told(asked: str, kind: str, *records: str, rcode: int = 0) -> bytes:
    """An answer; each record as `NAME TTL TYPE DATA`."""
    reply = dns.message.make_response(dns.message.make_query(asked, kind))
    reply.set_rcode(dns.rcode.from_text(str(rcode)))
    for record in records:
        name, ttl, type_, data = record.split()
        reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", type_, data))
    return reply.to_wire()


def found(name: str, ttl: int, *addresses: str) -> Resolved:
    return Resolved(name, tuple(parse_address(one) for one in addresses), ttl)


def test_the_name_that_was_asked_counts_for_the_addresses_at_the_end_of_its_chain() -> None:
    chain = ("www.a.example. 300 CNAME b.example.", "b.example. 30 CNAME c.example.")
    ends = ("c.example. 60 A 192.0.2.1", "c.example. 60 A 192.0.2.2")
    expected = found("www.a.example", 30, "192.0.2.1", "192.0.2.2")
    assert read_answer(told("www.a.example.", "A", *chain, *ends)) == expected
    assert read_answer(told("WWW.a.Example.", "A", *ends, *reversed(chain))) == expected
    (six,) = (read_answer(told("a.", "AAAA", "a. 5 AAAA 2001:db8::1")),)
    assert six == found("a", 5, "2001:db8::1")


@pytest.mark.parametrize(
    "message",
    [
        told("a.", "A"),
        told("a.", "A", "b. 5 A 192.0.2.1"),  # another's
        told("a.", "A", "a. 5 AAAA 2001:db8::1"),  # not asked for
        told("a.", "A", "a. 5 CNAME b."),  # a chain without an end
        told("a.", "A", "a. 5 CNAME b.", "b. 5 CNAME a."),  # a ring
        told("a.", "A", "a. 5 A 192.0.2.1", rcode=3),
        told("a.", "TXT", "a. 5 TXT a"),
        told(".", "A", ". 5 A 192.0.2.1"),
    ],
    ids=lambda _: "message",
)
def test_what_tells_no_address_of_the_name_asked(message: bytes) -> None:
    assert read_answer(message) is None


def test_a_name_of_odd_characters_is_written_without_them() -> None:
    name = r"\027[31m.a\.b.\195\188"
    assert read_answer(told(f"{name}.", "A", f"{name}. 5 A 192.0.2.1")) == found(
        r"\027\09131m.a\046b.\195\188", 5, "192.0.2.1"
    )


def test_a_time_to_live_beyond_reason_is_cut() -> None:
    for ttl, kept in ((2**31 - 1, 86_400), (2**31, 0)):
        record = struct.pack("!HHHIH4s", 0xC00C, 1, 1, ttl, 4, b"\xc0\0\2\1")
        message = HEADER.pack(1, RESPONSE, 1, 1, 0, 0) + QUESTION + record
        assert read_answer(message) == found("a", kept, "192.0.2.1")


def answer(body: bytes, questions: int = 1, answers: int = 1, flags: int = RESPONSE) -> bytes:
    return HEADER.pack(1, flags, questions, answers, 0, 0) + body


def record(owner: bytes, kind: int = 1, data: bytes = b"\xc0\0\2\1") -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


LONG = b"".join(bytes([63]) + b"a" * 63 for _ in range(4))
MANY = b"\1a" * 126 + b"\0"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"", "ends too soon"),
        (answer(b"", flags=0), "not an answer"),
        (answer(QUESTION, flags=RESPONSE | 0x2800), "not an answer"),  # an update
        (answer(b"", questions=0), "not an answer"),
        (answer(QUESTION * 2, questions=2), "not an answer"),
        (answer(QUESTION, questions=0xFFFF), "not an answer"),
        (answer(QUESTION, answers=0xFFFF), "ends too soon"),
        (answer(QUESTION + record(b"\xc0\x0c")[:-1]), "ends too soon"),
        (answer(b"\x3fa"), "ends too soon"),
        (answer(b"\xc0"), "ends too soon"),
        (answer(b"\xc0\x0c"), "points forward"),  # to itself
        (answer(b"\xc0\x0e\xc0\x0c"), "points forward"),  # to and fro
        (answer(b"\xc0\xff"), "points forward"),
        (answer(b"\1a\xc0\x0c"), "points forward"),  # to what it is part of
        (answer(b"\x40a\0"), "unknown kind"),  # RFC 2673
        (answer(LONG + b"\0"), "beyond measure"),
        (answer(b"\x3f%b\2%b\0\0\1\0\1" % (bytes(63), bytes(2)) + record(b"\xc0\x0c")), "odd"),
        (answer(QUESTION + record(b"\xc0\x0c", 5, b"\1b\0\0")), "CNAME is not as long"),
        (answer(MANY + b"\0\1\0\1" + record(b"\xc0\x0c") * 70, answers=70), "beyond measure"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_messages_are_refused(message: bytes, problem: str) -> None:
    with pytest.raises(DnsError, match=problem):
        read_answer(message)
