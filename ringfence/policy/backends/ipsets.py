"""Sets of addresses and of denied tuples as `ipset restore` reads them.

A set of addresses never changes: its name is a hash of what it holds.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from ringfence.model.address import Network

DROP_SET_SIZE = 4096
"""Distinct tuples that a namespace remembers at a time, of each family, over all denials."""
DROP_SET_LEAST = 64
"""What each denial may remember however many there are."""
_DROP_TIMEOUT = 600
"""Seconds after which a tuple makes room, and is counted anew."""
_FAMILIES = 2
_V4 = 4
_HASH_REGION = 1024
"""HTABLE_REGION_BITS of net/netfilter/ipset/ip_set_hash_gen.h."""


def elements(networks: Iterable[Network], family: int) -> Iterator[str]:
    """What a set of the family, 4 or 6, holds of some networks."""
    for network in networks:
        if network.is_v4 != (family == _V4):
            continue
        text = str(network)
        if text.endswith("/0"):  # which no set of networks holds
            yield from ("0.0.0.0/1", "128.0.0.0/1") if network.is_v4 else ("::/1", "8000::/1")
        else:
            yield text


def name_of(held: frozenset[str], family: int) -> str:
    """The name of the set that holds these elements."""
    digest = blake2b(" ".join(sorted(held)).encode(), digest_size=8).hexdigest()
    return f"rf_{digest}_{family}"


def made(name: str, held: frozenset[str]) -> str:
    """The commands that make a set of addresses and fill it."""
    # The kernel shares the room out among parts of the table, so that there has to be plenty.
    head = f"create {name} hash:net {_sized(name, len(held))} maxelem {4 * len(held)}\n"
    return head + "".join(f"add {name} {element}\n" for element in sorted(held))


def made_for_drops(name: str, shared: int) -> str:
    """The command that makes one of as many sets, of both families, for denied tuples."""
    room = max(DROP_SET_LEAST, DROP_SET_SIZE * _FAMILIES // shared)
    kind = f"hash:ip,port,ip {_sized(name, min(room, _HASH_REGION))}"
    return f"create {name} {kind} maxelem {room} timeout {_DROP_TIMEOUT} counters\n"


def _sized(name: str, count: int) -> str:
    """Family and size of the table. It grows for no packet, and shares no room up to a region."""
    size = max(64, 1 << (count - 1).bit_length())
    return f"family {'inet' if name.endswith('_4') else 'inet6'} hashsize {size}"
