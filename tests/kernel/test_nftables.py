"""What only nftables does: elements change alone, and its library has its ways."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel import nft
from ringfence.policy.backends.nftables import Nftables
from tests.kernel import test_backends as backends
from tests.kernel.netns import Namespace, Node, node_with_pods
from tests.kernel.test_backends import ALLOWED, refused
from tests.kernel.traffic import tcp_echo, tcp_exchange

NFTABLES = MECHANISMS[Kind.NFTABLES]
BACKEND = Nftables()


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


load = partial(backends.load, NFTABLES)
drops = partial(backends.drops, NFTABLES)
inbound = partial(backends.inbound, NFTABLES)


def rules(where: Namespace) -> list[dict[str, Any]]:
    """The rules with their counters, as nft tells them."""
    return [found["rule"] for found in nft.list_table(where.path) or () if "rule" in found]


def test_a_change_of_members_changes_elements_only(node: Node) -> None:
    friend, other, server = node.pods
    first, second = inbound(server, friend.address), inbound(server, friend.address, other.address)
    load(server, first)
    with tcp_echo(server, server.address, 80):
        tcp_exchange(friend, server.address, 80, b"hello")
        before = rules(server)
        commands = BACKEND.transaction(second, first)
        assert commands == f"add element inet ringfence rf_friends_4 {{ {other.address} }}\n"
        load(server, second, first)
        assert rules(server) == before
        allowing = [rule["expr"] for rule in before if rule.get("comment") == ALLOWED.handle]
        assert any(part.get("counter", {}).get("packets") for expr in allowing for part in expr)
        tcp_exchange(other, server.address, 80, b"hello")
        load(server, first, second)
        assert refused(other, server.address, 80)
        tcp_exchange(friend, server.address, 80, b"hello")
    assert BACKEND.transaction(first, first) == ""


def test_a_refused_transaction_changes_nothing_and_says_why(node: Node) -> None:
    pod = node.pods[0]
    load(pod, inbound(pod))
    before = pod.run("nft", "-s", "list", "ruleset")
    with pytest.raises(nft.NftError, match="No such file or directory"):
        nft.apply(pod.path, "delete table inet ringfence\nadd rule inet nowhere c accept\n")
    assert pod.run("nft", "-s", "list", "ruleset") == before


def test_many_open_files_are_refused_before_the_library_ends_the_process(node: Node) -> None:
    pod = node.pods[0]
    load(pod, inbound(pod))
    before = pod.run("nft", "-s", "list", "ruleset")
    with ExitStack() as held:
        for _ in range(1024):
            held.enter_context(Path(os.devnull).open())
        with pytest.raises(nft.NftError, match="files are open"):
            nft.remove(pod.path)
    assert pod.run("nft", "-s", "list", "ruleset") == before


def test_a_rule_that_says_nothing_is_one_without_statements() -> None:
    """Written by netlink, it is listed by nft 1.0.6 without `expr`."""
    (rule,) = nft._objects('{"nftables": [{"rule": {"chain": "rf_input", "handle": 7}}]}')
    assert rule["rule"]["expr"] == []
    assert nft.fingerprint([rule])
