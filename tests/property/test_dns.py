"""The reader of DNS answers against dnspython's, and against bytes that nobody meant."""

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from ringfence.flows.dns import LONGEST_NAME, DnsError, Resolved, read_answer
from ringfence.model.address import parse_address

NAMES = st.sampled_from(["a.", "b.a.", "www.b.a.", "c.", "x_1.c.", "A."])
V4 = st.ip_addresses(v=4).map(str)
RECORDS = st.lists(
    st.one_of(
        st.tuples(NAMES, st.just("CNAME"), NAMES),
        st.tuples(NAMES, st.just("A"), V4),
        st.tuples(NAMES, st.just("AAAA"), st.ip_addresses(v=6).map(str)),
        st.tuples(NAMES, st.just("TXT"), st.just("text")),
    ),
    max_size=12,
)


def message(asked: str, kind: str, records: list[tuple[str, str, str]]) -> dns.message.Message:
    made = dns.message.make_response(dns.message.make_query(asked, kind))
    for name, type_, data in records:
        made.answer.append(dns.rrset.from_text(name, 60, "IN", type_, data))
    return made


def resolved(wire: bytes) -> Resolved | None:
    """What dnspython makes of an answer."""
    read = dns.message.from_wire(wire)
    assert isinstance(read, dns.message.QueryMessage)
    try:
        chain = read.resolve_chaining()
    except (dns.exception.DNSException, KeyError):
        return None
    if chain.answer is None or chain.answer.rdtype == dns.rdatatype.CNAME:
        return None
    name = read.question[0].name.to_text(omit_final_dot=True).lower()
    return Resolved(name, tuple(parse_address(one.address) for one in chain.answer), 60)


@given(NAMES, st.sampled_from(["A", "AAAA"]), RECORDS)
def test_what_is_read_is_what_dnspython_reads(
    asked: str, kind: str, records: list[tuple[str, str, str]]
) -> None:
    # Several CNAMEs of one name are an error (RFC 2181): who follows which is nobody's business.
    owners = [name.lower() for name, type_, _ in records if type_ == "CNAME"]
    records = [
        one for i, one in enumerate(records)
        if (one[1] == "CNAME" and one[0].lower() not in owners[: owners.index(one[0].lower())])
        or one[1] != "CNAME"
    ]  # fmt: skip
    wire = message(asked, kind, records).to_wire()
    read, expected = read_answer(wire), resolved(wire)
    if read is not None and expected is not None:
        assert set(read.addresses) == set(expected.addresses)
        assert (read.name, read.ttl) == (expected.name, expected.ttl)
    else:
        assert read == expected


@given(st.binary(max_size=200), st.data())
def test_nothing_but_a_refusal_comes_of_what_is_damaged(noise: bytes, data: st.DataObject) -> None:
    chain = [("www.b.a.", "CNAME", "x_1.c."), ("x_1.c.", "A", "192.0.2.1")] * 3
    wire = bytearray(message("www.b.a.", "A", chain).to_wire())
    for octet in noise[:8]:
        wire[data.draw(st.integers(0, len(wire) - 1))] = octet
    cut = data.draw(st.integers(0, len(wire)))
    for damaged in (bytes(wire), bytes(wire[:cut]), bytes(wire[:cut]) + noise, noise):
        try:
            read = read_answer(damaged)
        except DnsError:
            continue
        if read is not None:
            assert 0 < len(read.name) <= LONGEST_NAME
            assert read.name.isascii()
            assert read.name.isprintable()
            assert {len(address) for address in read.addresses} == {16}
