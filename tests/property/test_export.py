"""Exported policies permit what the Ringfence policies do, whatever the inventory.

Compared is the reachability of pods and of addresses outside, after writing the policies as
manifests and reading them again. Where a note says that something is left out, it is stricter.
"""

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.ids import (
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    SPOKEN,
    Action,
    CatchAll,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.policy import (
    Cluster as WorkloadCluster,
)
from ringfence.model.protocol import ICMP, SCTP, TCP, UDP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.kubernetes.cluster import Cluster, Pod
from ringfence.policy.kubernetes.export import Form, Target, export
from ringfence.policy.kubernetes.manifests import Manifest, read_policies
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.writing import manifest
from ringfence.policy.order import PolicySet

EAST = ClusterId("east")
NAMESPACES = {"x": {"env": "prod"}, "y": {"env": "test"}, "z": {}}
OUTSIDE = [parse_address(text) for text in ("203.0.113.9", "198.51.100.9", "2001:db8::9")]
QUERIES = [
    parse(text)
    for text in (
        'kubernetes.namespace = "x"',
        'kubernetes.namespace in ("x", "y") and kubernetes.label.app != "a"',
        'kubernetes.namespace != "z" and kind = "pod"',
        'kubernetes.namespace = "y" and kubernetes.label.app exists',
        'kubernetes.namespace = "x" and (kubernetes.label.app = "a" or kubernetes.label.t = "b")',
        'kind = "pod"',
        'kind = "pod" and not (kubernetes.label.app in ("a", "b") and kubernetes.namespace = "x")',
        'kubernetes.namespace.label.env = "prod"',
        'kubernetes.namespace.label.env != "prod" and kind = "pod"',
        'kubernetes.cluster = "east" and kubernetes.namespace = "z"',
        'kubernetes.cluster = "west" and kind = "pod"',
        'kubernetes.label.app = "a"',
        "everything",
    )
]
queries = st.sampled_from(QUERIES)
of_pods = st.sampled_from(QUERIES[:-2])
blocks = st.sampled_from(
    [parse_network(text) for text in ("0.0.0.0/0", "::/0", "203.0.113.0/24", "10.0.0.0/31")]
)


@st.composite
def pods(draw: st.DrawFn) -> list[Pod]:
    values = st.sampled_from(["a", "b"])
    return [
        Pod(
            draw(st.sampled_from(sorted(NAMESPACES))),
            f"p{at}",
            draw(st.dictionaries(st.sampled_from(["app", "t"]), values)),
            (parse_address(f"10.0.0.{at}"), parse_address(f"fd00::{at}")),
        )
        for at in range(5)
    ]


def item(pod: Pod) -> Item:
    labels = [
        ("kind", "pod"),
        ("kubernetes.cluster", "east"),
        ("kubernetes.namespace", pod.namespace),
        *((f"kubernetes.label.{key}", value) for key, value in pod.labels.items()),
        *(
            (f"kubernetes.namespace.label.{key}", value)
            for key, value in NAMESPACES[pod.namespace].items()
        ),
    ]
    key = item_key(EAST, ItemKind.POD, f"{pod.namespace}/{pod.name}")
    return Item(
        key, ItemKind.POD, EAST, pod.namespace, pod.name, pod.addresses, make_labels(labels)
    )


@st.composite
def policies(draw: st.DrawFn, number: int) -> Policy:
    ends: st.SearchStrategy[End] = st.one_of(
        of_pods.map(FilterEnd),
        of_pods.map(FilterEnd),
        st.sampled_from([ScopeEnd(ScopeName("leaf")), ClusterEnd("some")]),
        st.builds(
            CidrEnd,
            st.lists(blocks, min_size=1, max_size=2).map(tuple),
            st.lists(blocks, max_size=1).map(tuple),
        ),
    )
    protocol = draw(st.sampled_from([None, TCP, UDP]))
    ports = st.sampled_from([(), (PortRange(80, 80),), (PortRange(80, 90), PortRange(443, 443))])
    return Policy(
        PolicyId(f"Policy {number}!"),
        draw(ends),
        draw(ends),
        protocol,
        draw(ports) if protocol else (),
        draw(st.sampled_from([Action.ALLOW] * 4 + [Action.DENY])),
        draw(st.sampled_from(Rank)),
        draw(st.sampled_from([1, 2])),
    )


@st.composite
def workspaces(draw: st.DrawFn, name: str, scope: str) -> Workspace:
    actions = st.sampled_from([*SPOKEN, Action.DENY])
    return Workspace(
        WorkspaceName(name),
        ScopeName(scope),
        True,
        CatchAll(draw(actions), draw(actions)),
        (WorkloadCluster("some", draw(of_pods)),),
        tuple(draw(policies(number)) for number in range(draw(st.integers(0, 4)))),
    )


@st.composite
def connections(draw: st.DrawFn, addresses: list[Address]) -> Connection:
    consumer, provider = draw(st.permutations(addresses))[:2]
    port = draw(st.sampled_from([80, 85, 443]))
    protocol = draw(st.sampled_from([TCP, UDP, SCTP]))
    return Connection(protocol, consumer, provider, port, provider, port)


@given(st.data())
def test_exported_policies_mean_the_same(data: st.DataObject) -> None:
    tree = ScopeTree(
        [
            Scope(ScopeName("root"), None, data.draw(queries)),
            Scope(ScopeName("leaf"), ScopeName("root"), data.draw(queries)),
        ]
    )
    enforced = [data.draw(workspaces(name, name)) for name in ("root", "leaf")]
    form = data.draw(st.sampled_from(Form))
    found = export(tree, enforced, form, Target("east", tuple(NAMESPACES)))
    assume(not found.refusals)
    written = yaml.safe_load_all(yaml.safe_dump_all(map(manifest, found.policies)))
    read = read_policies(Manifest("out.yaml", at, one) for at, one in enumerate(written, 1))
    inside = data.draw(pods())
    layer = KubernetesLayer(Cluster(NAMESPACES, inside), read)
    assert not layer.ties
    snapshot = Snapshot((RevisionId(at), item(pod)) for at, pod in enumerate(inside, 1))
    ours = PolicySet(snapshot, tree, [(one, Version(1)) for one in enforced])
    held = [pod.addresses[0] for pod in inside] + [pod.addresses[1] for pod in inside[:2]]
    asked = data.draw(st.lists(connections([*held, *OUTSIDE]), min_size=20, max_size=20))
    own = {address: pod for pod in inside for address in pod.addresses}
    # A workload always reaches itself; the evaluators are not asked.
    asked = [one for one in asked if own.get(one.consumer, 1) is not own.get(one.provider, 2)]
    meant = evaluate(ours, tabulate(ours.snapshot, asked)).allowed
    exported = evaluate(layer, tabulate(layer.snapshot, asked)).allowed
    if found.notes:
        assert not (exported & ~meant).any()
    else:
        assert exported.tolist() == meant.tolist()


@pytest.mark.parametrize("end", [ServiceEnd("x", "web"), OwnNodeEnd(), FilterEnd(QUERIES[-1])])
def test_what_cannot_be_said_is_refused(end: End) -> None:
    tree = ScopeTree([Scope(ScopeName("root"), None, QUERIES[0])])
    said = Policy(PolicyId("p"), FilterEnd(QUERIES[0]), end, TCP, (), Action.ALLOW)
    ping = Policy(
        PolicyId("i"), FilterEnd(QUERIES[0]), FilterEnd(QUERIES[0]), ICMP, (), said.action
    )
    workspace = Workspace(
        WorkspaceName("w"),
        ScopeName("root"),
        True,
        CatchAll(Action.DENY, Action.DENY),
        (),
        (said, ping),
    )
    refusals = export(tree, [workspace], Form.NETWORK_POLICY, Target()).refusals
    assert any(one.startswith("workspace w: policy p: egress: ") for one in refusals)
    assert "workspace w: policy i: ingress: ICMP is none of TCP, UDP, SCTP" in refusals
