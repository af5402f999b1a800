"""Rules of ours beside those of a real kube-proxy in each of its modes, on two nodes.

Services have one backend each here, for kube-proxy throws dice for one of many.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from ringfence.kernel import nft
from ringfence.policy.backends.nftables_table import TABLE
from tests.apiserver import Api, api_server
from tests.kernel import kube_proxy
from tests.kernel.cluster import NODES, SERVICES, address, cluster
from tests.kernel.netns import Namespace
from tests.kernel.test_pairs import Running, Way, hold, running_in

SECOND = ("198.51.100.2", "2001:db8:1::2")
"""The addresses of another load balancer, which leads to the second node."""
BALANCED: dict[str, dict[str, Any]] = {
    "web": {"sources": ("172.30.0.96/27", "10.99.1.0/24")},  # of IPv4 alone
    "near": {"external": SECOND, "sources": ("172.30.0.0/24", "fd00:30::100/128")},
}
ONE_EACH = tuple(
    replace(one, backends=one.backends[-1:], **BALANCED.get(one.name, {}))
    for one in SERVICES
    if one.address
)


@dataclass(frozen=True)
class Proxied:
    """The cluster of the pairs with kube-proxies, and their API."""

    running: Running
    api: Api
    ways: Sequence[Way]
    """Every way through a Service: by ClusterIP, node port, load balancer; hairpins too."""
    before: list[str]
    """The rules of kube-proxy, before there were any of ours."""

    @property
    def nodes(self) -> Sequence[Namespace]:
        return self.running.cluster.nodes


@pytest.fixture(scope="module", params=kube_proxy.MODES)
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    directory = tmp_path_factory.mktemp("api")
    with (
        cluster(ONE_EACH, translating=False) as made,
        api_server(directory, kube_proxy.SERVICE_NETWORKS) as api,
        running_in(made) as running,
    ):
        for front, via in zip(SECOND, NODES[1], strict=True):
            made.outside.run("ip", "route", "add", front, "via", via)
        kube_proxy.declare(api, made.services)
        with kube_proxy.proxying(made, api, request.param):
            ways = [
                one for one in running.ways if one.connection.dialled != one.connection.provider
            ]
            yield Proxied(running, api, ways, theirs(made.nodes))


def theirs(nodes: Sequence[Namespace]) -> list[str]:
    """The rules of all tables but ours, without counters."""
    found = []
    for node in nodes:
        for line in node.run("nft", "list", "tables").splitlines():
            table = line.removeprefix("table ")
            if table != TABLE:
                found += node.run("nft", "-s", "list", "table", *table.split()).splitlines()
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_dialled_through_it_is_judged_and_its_rules_stay(
    proxied: Proxied, seed: int
) -> None:
    hold(proxied.running, Random(seed), len(proxied.ways), proxied.ways)
    assert theirs(proxied.nodes) == proxied.before


def test_it_goes_on_beside_ours_and_stays_when_they_go(proxied: Proxied) -> None:
    """The last one: it moves a Service."""
    hold(proxied.running, Random(1), 1, proxied.ways)
    ours = [_fingerprint(node) for node in proxied.nodes]
    (alone,) = (one for one in ONE_EACH if one.name == "alone")
    nobody_yet, _ = address(1)
    assert not any(nobody_yet in line for line in proxied.before)
    moved = kube_proxy.endpoints(replace(alone, backends=(1,)), 0)
    proxied.api.call("PUT", f"{kube_proxy.SLICES}/{moved['metadata']['name']}", moved)
    for node in proxied.nodes:
        kube_proxy.await_rules(node, [nobody_yet])
    assert [_fingerprint(node) for node in proxied.nodes] == ours

    before = theirs(proxied.nodes)
    for node in proxied.nodes:
        assert f"table {TABLE}" in node.run("nft", "list", "tables")
        nft.remove(node.path)
        assert f"table {TABLE}" not in node.run("nft", "list", "tables")
    assert theirs(proxied.nodes) == before


def _fingerprint(node: Namespace) -> bytes:
    return nft.fingerprint(nft.list_table(node.path) or [])
