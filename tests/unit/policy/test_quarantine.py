"""Whom a quarantine means, what it may allow, and which of two counts."""

from dataclasses import replace

import pytest

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, NodeName, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import parse
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.explain import explain
from ringfence.policy.handle import format_handle, tell_handle
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import PolicySet
from ringfence.policy.quarantine import check_allowed, find_workload, quarantined, remember
from tests.golden.shop import CARTS, CLUSTER, FRONT_END, ITEMS, NODE1, policy_set

WEST = ClusterId("west")


def snapshot(*items: Item) -> Snapshot:
    return Snapshot((RevisionId(at), one) for at, one in enumerate(items, 1))


def owned(pod: Item, name: str, owner: str) -> Item:
    labels = {**pod.labels, "name": (name,), "kubernetes.owner.name": (owner,)}
    key = item_key(pod.cluster, pod.kind, name)
    return replace(pod, key=key, name=name, labels=labels, workload_name=owner)


def held(there: Snapshot, text: str, cluster: ClusterId | None = None) -> list[str]:
    found, query = find_workload(there, text, cluster)
    one = Quarantine(found, text, query, (), "", "", 1)
    return [there.items[at].key for at in quarantined(there, one)]


def test_a_name_means_the_pod_and_the_pods_of_that_owner() -> None:
    replicas = [owned(CARTS, f"carts-{number}", "carts") for number in (1, 2)]
    decoy = owned(CARTS, "carts", "somebody")
    there = snapshot(*replicas, decoy, FRONT_END, NODE1)
    assert held(there, "sock-shop/carts") == [one.key for one in (decoy, *replicas)]
    assert held(there, "sock-shop/carts-1") == [replicas[0].key], "not its owner's others"
    assert held(there, "node1") == [NODE1.key]


def test_a_pod_that_its_owner_lets_go_stays_held() -> None:
    replicas = [owned(CARTS, f"carts-{number}", "carts") for number in (1, 2)]
    found, query = find_workload(snapshot(*replicas), "sock-shop/carts", None)
    one = Quarantine(found, "sock-shop/carts", query, (), "", "", 1)
    later = remember(snapshot(*replicas), one)
    assert parse(str(later.query)) == later.query
    let_go = owned(CARTS, "carts-1", "carts-1")
    there = snapshot(let_go, replicas[1], FRONT_END)
    assert [there.items[at].name for at in quarantined(there, one)] == ["carts-2"]
    assert [there.items[at].name for at in quarantined(there, later)] == ["carts-1", "carts-2"]
    assert remember(there, later) == later
    assert remember(snapshot(FRONT_END), later) == one, "what is gone is forgotten"


def test_no_more_is_remembered_than_can_be_read_again() -> None:
    many = [owned(CARTS, f"carts-{number:0240}", "carts") for number in range(400)]
    found, query = find_workload(snapshot(*many), "sock-shop/carts", None)
    later = remember(snapshot(*many), Quarantine(found, "sock-shop/carts", query, (), "", "", 1))
    assert later.query != query
    assert parse(str(later.query)) == later.query


def test_a_host_is_meant_by_its_name() -> None:
    labels = make_labels([("kind", "host"), ("name", "vm1")])
    key = item_key(ClusterId(""), ItemKind.HOST, "vm1")
    host = Item(key, ItemKind.HOST, ClusterId(""), "", "vm1", NODE1.addresses, labels)
    assert held(snapshot(host, CARTS), "vm1") == [key]


def test_what_is_in_several_clusters_is_refused_unless_one_is_named() -> None:
    labels = {**CARTS.labels, "kubernetes.cluster": (str(WEST),)}
    key = item_key(WEST, CARTS.kind, "carts")
    there = snapshot(CARTS, replace(CARTS, cluster=WEST, key=key, labels=labels))
    with pytest.raises(InputError, match=r"in several Kubernetes clusters \(c1, west\)"):
        held(there, "sock-shop/carts")
    assert held(there, "sock-shop/carts", WEST) == [key]
    assert held(there, "sock-shop/carts", CLUSTER) == [CARTS.key]


@pytest.mark.parametrize("text", ["", "/", "carts", "sock-shop/", "other/carts", "a/b/c", "*"])
def test_what_is_no_workload_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no pod, owner of pods, node or host"):
        held(snapshot(CARTS), text)


@pytest.mark.parametrize("word", ["", "DNS", "a/b/c", "/b", "a/", "10.0.0.0/33", "everything"])
def test_only_what_means_something_is_allowed(word: str) -> None:
    with pytest.raises(InputError, match="is nothing that a quarantine can allow"):
        check_allowed([word])


def test_the_latest_of_two_counts_and_says_its_name() -> None:
    wide = Quarantine(
        CLUSTER, "sock-shop/carts", parse('kind = "pod"'), ("10.244.1.10",), "", "", 1
    )
    strict = Quarantine(CLUSTER, "carts", parse('name = "carts"'), (), "", "", 2)
    base = policy_set()
    source, target = FRONT_END.addresses[0], CARTS.addresses[0]
    asked = Connection(TCP, source, target, 8081, target, 8081)
    for quarantines, deciding in (
        ([wide], [(Action.ALLOW, "from 10.244.1.10"), (Action.ALLOW, "from 10.244.1.10")]),
        ([wide, strict], [(Action.ALLOW, "from 10.244.1.10"), (Action.DENY, "")]),
    ):
        rules = PolicySet(base.snapshot, base.tree, base.enforced, quarantines=quarantines)
        (verdict,) = explain([rules], tabulate(base.snapshot, [asked]))
        assert verdict == Oracle(ITEMS, base.tree, base.enforced, quarantines=quarantines).judge(
            asked
        )
        decided = [end.deciding for end in verdict.ends]
        assert [(one.action, one.policy or "") for one in decided if one] == deciding
        assert decided[1]
        assert decided[1].scope == quarantines[-1].name
    assert decided[1]
    assert tell_handle(format_handle(decided[1])) == "quarantine/catch-all"


def test_a_node_keeps_its_fail_safes_and_nothing_else() -> None:
    base = policy_set()
    there = Quarantine(CLUSTER, "node1", parse('name = "node1"'), (), "", "", 1)
    rules = PolicySet(base.snapshot, base.tree, [], quarantines=[there])
    compiled = compile_policies(rules, [(NODE1.addresses[0], 8443)])
    assert compiled.widenings == ()
    node1, node2 = (compiled.policies[CLUSTER, NodeName(name)] for name in ("node1", "node2"))
    binding = node1.binding
    assert {rule.handle for rule in binding.fail_safes_in} == {
        f"fail-safe/{name}" for name in ("kubelet", "etcd", "tunnel", "api-server")
    }
    for bound in (binding.inbound, binding.outbound, binding.received):
        assert bound
        (only,) = node1.programs[bound].rules
        assert (only.action, only.handle) == (Action.DENY, "absolute/quarantine/p0")
    assert (node1.pods, node2.pods) == ((), ()), "its pods are not quarantined with it"
    assert (node2.binding.inbound, node2.binding.outbound) == (None, None)
