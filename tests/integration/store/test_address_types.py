"""`address.type` in ClickHouse against the same in Python, at the edges of every range."""

from ringfence.inventory.outside import (
    CLOUDS,
    KINDS,
    TYPES,
    ApiServer,
    ApiServers,
    address_types,
)
from ringfence.model.address import Address, format_address, host_network, parse_address
from ringfence.model.ids import NETWORK_KEYS, ClusterId
from ringfence.store.flows import FlowStore
from ringfence.store.flows.outside import API_SERVERS, all_types, as_parameter, has_type

EDGES = sorted(
    {
        edge
        for network in [
            *map(host_network, CLOUDS),
            *(one for networks in KINDS.values() for one in networks),
        ]
        for edge in (network.first - 1, network.first, network.last, network.last + 1)
        if 0 <= edge < 1 << 128
    }
)
ADDRESSES = [Address(edge.to_bytes(16)) for edge in EDGES]
HELD = parse_address("192.0.2.1")
KNOWN = ApiServer(ClusterId("lab"), HELD, 10, 20)
ITEMS = ("", f"{NETWORK_KEYS}10.0.0.0/8 0", "lab/node/n")


async def test_the_store_and_python_agree_on_every_edge(store: FlowStore) -> None:
    each = ", ".join(f"{has_type('provider', one)} AS `{one}`" for one in TYPES)
    question = f"""
    SELECT provider, provider_item, kubernetes_cluster, last_ns,
        {all_types("provider")} AS types, {each}
    FROM (
        SELECT arrayJoin({{addresses:Array(IPv6)}}) AS provider,
            arrayJoin({{items:Array(String)}}) AS provider_item,
            arrayJoin(['lab', 'other']) AS kubernetes_cluster,
            arrayJoin([9, 10, 19, 20]) AS last_ns
    )
    """
    asked = {
        "addresses": [format_address(one) for one in (*ADDRESSES, HELD)],
        "items": list(ITEMS),
        API_SERVERS: as_parameter([KNOWN]),
    }
    rows = (await store.query(question, asked)).to_pylist()
    assert len(rows) == (len(ADDRESSES) + 1) * len(ITEMS) * 8
    servers = ApiServers([KNOWN])
    for row in rows:
        address = Address(row["provider"])
        expected = set() if row["provider_item"] == ITEMS[2] else set(address_types(address))
        if servers.answered(row["kubernetes_cluster"], address, row["last_ns"]):
            assert (address, row["kubernetes_cluster"]) == (HELD, "lab")
            assert 10 <= row["last_ns"] < 20
            expected.add("kube-apiserver")
        assert row["types"] == ",".join(sorted(expected)), row
        assert {one for one in TYPES if row[one]} == expected
    assert {row["types"] for row in rows if address_of(row) == HELD} == {
        "", "public", "kube-apiserver", "kube-apiserver,public"
    }  # fmt: skip


def address_of(row: dict[str, bytes]) -> Address:
    return Address(row["provider"])
