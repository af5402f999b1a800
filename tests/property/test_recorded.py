"""An inventory that was written to a file and read again tells the same of its time."""

from dataclasses import fields
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ringfence.inventory.file_format import inventory_schema
from ringfence.inventory.recorded import read_inventory
from ringfence.inventory.timeline import Timeline
from ringfence.inventory.written import write_inventory
from ringfence.model.address import Address, Network
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.query import Everything
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)

SINCE, UNTIL = 1_900_000_000_000_000_000, 1_900_000_000_000_000_040
VALIDATOR = Draft202012Validator(inventory_schema())
words = st.text("aé \"'\n:#-0~", max_size=6)
names = st.text("aé \"':#-0~", max_size=6)
"""Of items: what policies are called after is printable."""
ports = st.integers(0, 65535)
protocols = st.sampled_from([6, 17, 132, 1, 47])
addresses = st.builds(Address, st.binary(min_size=16, max_size=16))
networks = st.one_of(
    st.builds(lambda octet: Network(Address(bytes([octet]) + bytes(15)), 8), st.integers(0, 255)),
    st.builds(
        lambda octet: Network(Address(bytes(10) + b"\xff\xff" + bytes([octet, 0, 0, 0])), 104),
        st.integers(0, 255),
    ),
)


def some(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=2).map(tuple)


services = st.builds(
    ServiceSpec,
    st.sampled_from(ServiceType),
    some(st.builds(ServicePort, words, protocols, ports, ports)),
    some(
        st.builds(
            Backend, words, protocols, addresses, ports, st.booleans(), st.none() | st.just("k")
        )
    ),
    some(addresses),
    st.sampled_from(TrafficPolicy),
    some(addresses),
    some(networks),
)


@st.composite
def items(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(ItemKind))
    called = names.filter(bool) if kind is ItemKind.SERVICE else names
    name = draw(called)
    is_network = kind is ItemKind.NETWORK
    return Item(
        key=item_key(ClusterId("lab"), kind, draw(st.sampled_from("abcd"))),
        kind=kind,
        cluster=ClusterId("lab"),
        namespace=draw(called),
        name=name,
        addresses=() if is_network else draw(some(addresses)),
        labels=make_labels([("kind", kind), *draw(st.lists(st.tuples(words, words), max_size=3))]),
        node=draw(words),
        host_network=draw(st.booleans()),
        containers=draw(some(st.builds(ContainerPort, words, protocols, ports))),
        probe_ports=tuple(sorted(draw(st.sets(st.tuples(protocols, ports), max_size=2)))),
        service=draw(st.none() | services),
        network=draw(networks) if is_network else None,
        exact_labels=draw(some(st.tuples(words, words))),
        manifest=draw(words),
        pod_networks=draw(some(networks)),
        net_admin=draw(st.booleans()),
        references=draw(st.sampled_from([(), ("carts:80", "smtp.example.com:25")])),
        workload_name=draw(names),
        since_ns=draw(st.sampled_from([0, SINCE, SINCE + 1])),
    )


events = st.lists(
    st.tuples(st.integers(-5, 45), items(), st.booleans()),
    unique_by=lambda event: (event[0], event[1].key),
    max_size=8,
)


def told(item: Item) -> dict[str, Any]:
    """All of its fields, those as well that do not make items differ."""
    return {field.name: getattr(item, field.name) for field in fields(item)}


@given(events, st.sampled_from(["json", "yaml"]))
def test_what_is_written_is_read_back(told_of: list[tuple[int, Item, bool]], form: str) -> None:
    timeline = Timeline()
    for at, item, here in told_of:
        if here:
            timeline.observe(SINCE + at, item)
        else:
            timeline.gone(SINCE + at, item.key)
    written = write_inventory(timeline.lives(Everything(), SINCE, UNTIL), SINCE, UNTIL)
    values = yaml.safe_load(written)
    VALIDATOR.validate(values)
    text = written.decode()
    if form == "yaml":
        text = yaml.dump(values, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    recorded = read_inventory(text, "inventory")
    for at in range(SINCE, UNTIL):
        before, after = timeline.at(at), recorded.timeline.at(at)
        assert list(map(told, after.items)) == list(map(told, before.items))
        assert after.revisions.tolist() == before.revisions.tolist()
    assert recorded.last().items == timeline.at(UNTIL - 1).items
