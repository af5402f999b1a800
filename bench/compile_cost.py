"""What it costs to compile the policies of a big cluster: for each namespace a scope, a workspace
that denies what its policies do not allow, and one Service; a third of the consumers are elsewhere.
"""

import random
import resource
import time
from collections.abc import Iterator
from functools import cache

from bench.company import EAST, FIRST_FRONT, FIRST_POD, nodes, v4
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import (
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    Action,
    CatchAll,
    End,
    FilterEnd,
    Policy,
    Rank,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.program import encode

NODES, NAMESPACES, PODS, POLICIES, APPS = 100, 1_400, 10_000, 14_000, 3
read = cache(parse)
DENY_ALL = CatchAll(Action.DENY, Action.DENY)


def main() -> None:
    items = [*nodes(NODES), *pods(), *services()]
    snapshot = Snapshot((RevisionId(at), item) for at, item in enumerate(items, 1))
    tree, enforced = ScopeTree(scopes()), list(workspaces(random.Random(1)))
    begun, clock = time.process_time(), time.monotonic()
    compiled = compile_policies(PolicySet(snapshot, tree, enforced), ())
    sent = sum(len(encode(policy)) for policy in compiled.policies.values())
    busy, took = time.process_time() - begun, time.monotonic() - clock
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"full compile, {PODS:,} pods, {NAMESPACES:,} namespaces, {POLICIES:,} policies:"
        f" {took:.1f} s, {resident:.0f} MB (targets 30 s, 2,000 MB)"
    )
    print(f"  {busy:.1f} s of the processor; {sent / 10**6:.1f} MB to send to {NODES} nodes")


def pods() -> Iterator[Item]:
    for at in range(PODS):
        name, app = f"pod-{at}", f"app-{at // NAMESPACES % APPS}"
        namespace = f"ns-{at % NAMESPACES}"
        labels = make_labels(
            [
                ("kind", "pod"),
                ("name", name),
                ("kubernetes.cluster", EAST),
                ("kubernetes.namespace", namespace),
                ("kubernetes.label.app", app),
            ]
        )
        key, held = item_key(EAST, "pod", name), (v4(FIRST_POD + at),)
        where = f"node-{at % NODES}"
        yield Item(
            key, ItemKind.POD, EAST, namespace, name, held, labels, node=where, workload_name=app
        )


def services() -> Iterator[Item]:
    for space in range(NAMESPACES):
        backends = tuple(
            Backend("http", TCP, v4(FIRST_POD + at), 8080, True, None)
            for at in range(space, PODS, NAMESPACES * APPS)
        )
        spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("http", TCP, 80, 0),), backends)
        name, labels = f"ns-{space}", make_labels([("kind", "service")])
        key, held = item_key(EAST, "service", f"{name}/app-0"), (v4(FIRST_FRONT + space),)
        yield Item(key, ItemKind.SERVICE, EAST, name, "app-0", held, labels, service=spec)


def scopes() -> Iterator[Scope]:
    yield Scope(ScopeName("east"), None, parse("everything"))
    for at in range(NAMESPACES):
        query = parse(f'kubernetes.namespace = "ns-{at}"')
        yield Scope(ScopeName(f"ns-{at}"), ScopeName("east"), query)


def workspaces(chance: random.Random) -> Iterator[Enforced]:
    for space in range(NAMESPACES):
        said = tuple(policy(space, at, chance) for at in range(POLICIES // NAMESPACES))
        name = f"ns-{space}"
        yield Workspace(WorkspaceName(name), ScopeName(name), True, DENY_ALL, (), said), Version(1)


def policy(space: int, number: int, chance: random.Random) -> Policy:
    def application(namespace: int) -> End:
        app = f"app-{chance.randrange(APPS)}"
        query = f'kubernetes.namespace = "ns-{namespace}" and kubernetes.label.app = "{app}"'
        return FilterEnd(read(query))

    consumer = application(space if number % 3 else chance.randrange(NAMESPACES))
    provider = application(space) if number % 4 else ServiceEnd(f"ns-{space}", "app-0")
    port = 8000 + number if number % 4 else 80
    return Policy(
        PolicyId(f"p{number}"),
        consumer,
        provider,
        TCP,
        (PortRange(port, port),),
        Action.ALLOW if number % 6 else Action.DENY,
        Rank.DEFAULT,
        priority=1,
    )


if __name__ == "__main__":
    main()
