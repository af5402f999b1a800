"""Entering namespaces, and the helpers that the other kernel tests stand on."""

from pathlib import Path

import pytest

from ringfence.kernel.errors import NamespaceError
from ringfence.kernel.netns import inode, run_in
from tests.kernel.netns import ip, namespace, node_with_pods
from tests.kernel.traffic import ping


def test_a_function_runs_inside_and_the_caller_stays_where_it_was() -> None:
    here = inode(Path("/proc/self/ns/net"))
    with namespace("enter") as target:
        inside = run_in(target.path, lambda: inode(Path("/proc/thread-self/ns/net")))
        assert inside == inode(target.path) != here
    assert inode(Path("/proc/thread-self/ns/net")) == here


def test_what_the_function_raises_reaches_the_caller() -> None:
    with namespace("raise") as target, pytest.raises(ZeroDivisionError):
        run_in(target.path, lambda: 1 // 0)


def test_a_namespace_that_is_gone_is_named() -> None:
    with pytest.raises(NamespaceError, match="no network namespace at /run/netns/rf-gone"):
        run_in(Path("/run/netns/rf-gone"), lambda: None)


def test_pods_reach_each_other_through_their_node_and_leave_nothing() -> None:
    with node_with_pods(2) as node:
        one, two = node.pods
        for address in (two.address, two.address6):
            assert ping(one, address)
        names = {node.name, one.name, two.name}
    assert not names & {line.split()[0] for line in ip("netns", "list").splitlines()}
