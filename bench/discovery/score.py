"""How good a proposal is: the figures of the table, each against the simulation's truth."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from bench.discovery.graph import Edge, Socket, classes
from bench.discovery.judge import OUTSIDE, Judge, Tuples, Universe, universe
from bench.discovery.proposed import Proposal
from bench.discovery.simulate import EPHEMERAL, Simulation
from bench.discovery.style import DAY
from bench.discovery.traffic import ANSWERED, ATTACK, SERVING, TRUE, Numbers
from bench.discovery.world import World
from ringfence.model.policy import ApiServerEnd, OwnNodeEnd, Policy, ServiceEnd, Workspace
from ringfence.model.protocol import PortRange
from ringfence.policy.document import parse_documents

LEAST_CONVERSATIONS, LEAST_SLOTS = 3, 2
_PASSES = 0.95
"""The share of an edge's conversations that pass if the edge is allowed."""


@dataclass
class Scores:
    """Counts, so that graphs and seeds add up."""

    right: int = 0
    """True edges among the allowed ones."""
    wrong: int = 0
    wanted: int = 0
    """True edges with enough conversations to be allowed."""
    found: int = 0
    observed: int = 0
    told: int = 0
    """Of the observed true edges those allowed or up for review."""
    reviews: int = 0
    proposals: int = 0
    needed: int = 0
    """Connections of the universe that are allowed, and needed."""
    needless: int = 0
    next_day: int = 0
    blocked: int = 0
    serving: int = 0
    serving_blocked: int = 0
    intruders: int = 0
    """Edges of intruders and scanners that are allowed."""
    ephemeral: int = 0
    roles: float = 1.0
    unlabelled_roles: float = 1.0
    met_roles: float = 1.0
    """Of those without labels of which a conversation was seen."""
    policies: int = 0
    """Those for the cluster's own services aside."""
    truth: int = 0
    words: float = 0.0
    seconds: float = 0.0


def score(simulation: Simulation, proposal: Proposal) -> tuple[Scores, list[str]]:
    """The scores, and what was wrong in words."""
    (workspace,) = parse_documents(proposal.text, "proposed").workspaces
    scores, notes = score_workspace(simulation, workspace)
    scores.words = words(proposal.text)
    scores.roles = role_index(simulation, proposal, workspace)
    return scores, notes


def score_workspace(simulation: Simulation, workspace: Workspace) -> tuple[Scores, list[str]]:
    """The scores of what a workspace allows."""
    judge, notes = Judge(simulation.world), list[str]()
    scores = Scores(truth=len(simulation.edges))
    allowed = _conversations(scores, simulation, judge, workspace, notes)
    _intruders(scores, simulation, allowed, notes)
    _universe(scores, simulation, judge, workspace, notes)
    parties = simulation.world.parties.values()
    ports = {port for party in parties if party.workload for _, port in party.workload.listens}
    ports |= {port for some in simulation.world.given.values() for port in some}
    _policies(scores, workspace, ports, notes)
    return scores, notes


def tuples(told: dict[str, Numbers]) -> Tuples:
    return Tuples(*(told[name] for name in Tuples.__dataclass_fields__))


def _conversations(
    scores: Scores, simulation: Simulation, judge: Judge, workspace: Workspace, notes: list[str]
) -> Numbers:
    told = simulation.told
    every = tuples(told)
    allowed = judge.allowed(workspace, every)
    reviewed = allowed
    if any(policy.review for policy in workspace.policies):
        reviewed = judge.allowed(_approved(workspace), every)
    true = (told["why"] == TRUE) & (told["outcome"] == ANSWERED)
    edges = simulation.edges
    many = np.bincount(told["edge"][true], minlength=len(edges))
    passes = np.bincount(told["edge"][true], allowed[true], len(edges)) >= _PASSES * many
    # Of a review it is enough that it tells of the edge: whoever approves it chooses the words.
    true &= told["start"] < DAY
    named = np.bincount(told["edge"][true], reviewed[true], len(edges)) > 0
    wanted = (simulation.seen >= LEAST_CONVERSATIONS) & (simulation.slots >= LEAST_SLOTS)
    observed = simulation.seen > 0
    scores.wanted, scores.found = int(wanted.sum()), int((wanted & passes).sum())
    scores.observed, scores.told = int(observed.sum()), int((observed & named).sum())
    for at in np.flatnonzero(observed & ~passes).tolist():
        what = "not told" if not named[at] else "missed" if wanted[at] else "only reviewed"
        count = f"{simulation.seen[at]} in {simulation.slots[at]}"
        if wanted[at] or not named[at]:
            notes.append(f"{what}: {_said(edges[at])} ({count})")
    later = (told["start"] >= DAY) & (told["outcome"] == ANSWERED)
    for why, total, stopped in (
        (TRUE, "next_day", "blocked"),
        (SERVING, "serving", "serving_blocked"),
    ):
        rows = later & (told["why"] == why)
        setattr(scores, total, int(told["weight"][rows].sum()))
        setattr(scores, stopped, int(told["weight"][rows & ~allowed].sum()))
    bad = np.flatnonzero(later & (told["why"] == SERVING) & ~allowed)
    some = bad[:: max(1, len(bad) // 3)][:3].tolist()
    notes += [f"blocked of the cluster's own: {_row(simulation, at)}" for at in some]
    return allowed


def _approved(workspace: Workspace) -> Workspace:
    """As if everything up for review were approved."""
    policies = tuple(replace(one, review="") for one in workspace.policies)
    return replace(workspace, policies=policies)


def _intruders(scores: Scores, simulation: Simulation, allowed: Numbers, notes: list[str]) -> None:
    told = simulation.told
    hits = np.unique(told["edge"][(told["why"] == ATTACK) & allowed])
    scores.intruders = len(hits)
    for at in hits.tolist():
        rows = np.flatnonzero((told["why"] == ATTACK) & (told["edge"] == at))
        said = _said(simulation.attacks.edges[at])
        notes.append(f"intruder allowed: {said} ({len(rows)}), {_row(simulation, int(rows[0]))}")


def _universe(
    scores: Scores, simulation: Simulation, judge: Judge, workspace: Workspace, notes: list[str]
) -> None:
    world = simulation.world
    ports = {at for policy in workspace.policies for at in _numbers(policy)}
    strangers = [one.address for one in simulation.attacks.sources if one.party == OUTSIDE]
    whole = universe(world, set(sorted(ports)[:60]), strangers, seed=7)
    allows = judge.allowed(workspace, whole.told)
    needed = _needed(world, whole, allows)
    keys = np.stack(
        [whole.consumer, whole.provider, whole.told.protocol, whole.told.port]
    )[:, allows]  # fmt: skip
    aside = {one.name for one in world.parties.values() if one.system or one.kind == "node"}
    inside = np.array([name not in aside for name in whole.names])
    distinct, first = np.unique(keys, axis=1, return_index=True)
    counted = inside[distinct[0]] & inside[distinct[1]]
    right = needed[allows][first]
    # Whoever is a user comes from anywhere: that is one edge, of the graph's own name for them.
    scores.right = int((counted & right).sum())
    scores.wrong = int((counted & ~right).sum())
    for at in np.flatnonzero(counted & ~right).tolist():
        consumer, provider, protocol, port = distinct[:, at].tolist()
        said = _said(Edge(whole.names[consumer], whole.names[provider], protocol, port))
        notes.append(f"needless: {said}")
    listed = allows & whole.listed
    scores.needed = int((listed & needed).sum())
    scores.needless = int((listed & ~needed).sum())


def _needed(world: World, whole: Universe, allows: Numbers) -> Numbers:
    """Which of the allowed connections of the universe the graph or the cluster needs."""
    users = {
        (edge.provider, edge.protocol, edge.port)
        for edge in world.truth
        if world.parties[edge.consumer].kind == "external"
    }
    needed = np.zeros(len(allows), dtype=bool)
    known: dict[tuple[int, ...], bool] = {}
    nodes = [life.node for life in world.by_life]
    columns = (
        whole.consumer, whole.provider, whole.told.protocol, whole.told.port,
        whole.told.consumer_life, whole.told.provider_life,
    )  # fmt: skip
    for at in np.flatnonzero(allows).tolist():
        row = tuple(int(column[at]) for column in columns)
        if row not in known:
            consumer, provider = whole.names[row[0]], whole.names[row[1]]
            socket = row[2], row[3]
            party = world.parties.get(provider)
            own = consumer.startswith("node/") and nodes[row[4]] == nodes[row[5]]
            known[row] = (
                Edge(consumer, provider, *socket) in world.truth
                or (consumer == OUTSIDE and (provider, *socket) in users)
                or (provider == "kube-system/coredns" and socket[1] == 53)
                or _given(world, consumer, provider, socket)
                or (own and party is not None and party.probe == socket)
            )
        needed[at] = known[row]
    return needed


def _given(world: World, consumer: str, provider: str, socket: Socket) -> bool:
    """Whether the provider may give this port to the consumer."""
    ends = consumer, provider, socket[0]
    return any(
        (edge.consumer, edge.provider, edge.protocol) == ends and socket[1] in ports
        for edge, ports in world.given.items()
    )


def _numbers(policy: Policy) -> Iterable[int]:
    for port in policy.ports:
        if isinstance(port, PortRange):
            yield from {port.first, port.last, (port.first + port.last) // 2}


def _policies(scores: Scores, workspace: Workspace, served: set[int], notes: list[str]) -> None:
    scores.reviews = sum(bool(one.review) for one in workspace.policies)
    scores.proposals = len(workspace.policies)
    scores.policies = sum(not (_core(one) or one.review) for one in workspace.policies)
    for one in workspace.policies:
        if any(number >= EPHEMERAL[0] for number in {*_numbers(one)} - served):
            scores.ephemeral += 1
            notes.append(f"ephemeral: {one.id} {' '.join(map(str, one.ports))}")


def _core(policy: Policy) -> bool:
    """Whether it is for what every cluster has: DNS, the API server, probes, nodes, time."""
    ends = policy.consumer, policy.provider
    return any(isinstance(end, OwnNodeEnd | ApiServerEnd) for end in ends) or any(
        (isinstance(end, ServiceEnd) and end.namespace in ("kube-system", "default")
        and end.name in ("kube-dns", "kubernetes"))
        or 'kind = "node"' in str(getattr(end, "query", ""))
        or getattr(end, "cluster", "") in ("coredns", "metrics-server", "kube-system-coredns")
        for end in ends
    )  # fmt: skip


def words(text: str) -> float:
    """Words a policy, without what is for people alone."""
    for document in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if document["kind"] == "Workspace":
            told = document["spec"].get("policies") or []
            plain = [
                {key: one[key] for key in one if key not in ("description", "evidence", "review")}
                for one in told
            ]
            count = sum(len(re.findall(r"[\w./*:-]+", yaml.dump(one))) for one in plain)
            return float(count / max(len(plain), 1))
    return 0.0


def role_index(
    simulation: Simulation, proposal: Proposal, workspace: Workspace, *, met: bool = False
) -> float:
    """The adjusted Rand index of the roles of all that lived at the end of the window, or of those
    `met`, of which a conversation was seen.
    """
    told = [row for row in _role_pairs(simulation, proposal, workspace) if row[3] or not met]
    return adjusted_rand([found for _, _, found, _ in told], [true for _, true, _, _ in told])


def role_mistakes(simulation: Simulation, proposal: Proposal, workspace: Workspace) -> list[str]:
    """The true roles that were parted, and those that were put together, in words."""
    told = _role_pairs(simulation, proposal, workspace)
    notes = []
    for word, one, other in (("parted", 1, 2), ("put together", 2, 1)):
        groups: dict[int, dict[int, set[str]]] = {}
        for row in told:
            groups.setdefault(int(row[one]), {}).setdefault(int(row[other]), set()).add(row[0])
        notes += [
            f"{word}: " + " | ".join(" ".join(sorted(names)) for names in group.values())
            for group in groups.values()
            if len(group) > 1
        ]
    return notes


def _role_pairs(
    simulation: Simulation, proposal: Proposal, workspace: Workspace
) -> list[tuple[str, int, int, bool]]:
    """Of all that lived at the end of the window the party, its true role, the one found, and
    whether a conversation of it was seen.

    With labels each workload is a role; without them those that nobody could tell apart are one.
    """
    world = simulation.world
    ours = [
        name
        for name, party in world.parties.items()
        if party.kind in ("pod", "host") and not party.system and not name.startswith("rogue/")
    ]
    alike = classes(world.parties, world.truth)
    truth = alike if world.style.withheld else {name: at for at, name in enumerate(ours)}
    found = _found_roles(proposal, workspace)
    alone = itertools.count(-1, -1)
    met = {world.by_life[at].uid for at in simulation.met if at >= 0}
    return [
        (name, truth[name], found.get(life.uid, next(alone)), life.uid in met)
        for name in ours
        for life in world.parties[name].lives
        if life.start < DAY <= life.end
    ]


def _found_roles(proposal: Proposal, workspace: Workspace) -> dict[str, int]:
    """The role of each uid: as told, else by the queries of the workspace's clusters."""
    if "roles" in proposal.told:
        return {
            member["key"].rpartition("/")[2]: at
            for at, role in enumerate(proposal.told["roles"])
            for member in role["members"]
        }
    snapshot = proposal.timeline.latest()
    return {
        snapshot.items[position].key.rpartition("/")[2]: at
        for at, cluster in enumerate(workspace.clusters)
        for position in snapshot.select(cluster.query)
    }


def adjusted_rand(one: list[int], other: list[int]) -> float:
    """Hubert and Arabie's index of two partitions of the same things; 1 where they are equal."""
    if not one:
        return 1.0
    first, second = (np.unique(np.array(which), return_inverse=True)[1] for which in (one, other))
    table = np.zeros((first.max() + 1, second.max() + 1), dtype=np.int64)
    np.add.at(table, (first, second), 1)

    def pairs(counts: Numbers) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    every = pairs(np.array([len(one)]))
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _said(edge: Edge) -> str:
    return f"{edge.consumer} → {edge.provider} {edge.protocol}/{edge.port}"


def _row(simulation: Simulation, at: int) -> str:
    told: dict[str, Any] = simulation.told
    lives = simulation.world.by_life

    def end(name: str) -> str:
        life = int(told[f"{name}_life"][at])
        return lives[life].party.name if life >= 0 else f"{int(told[name][at]):#x}"

    ports = f"{told['port'][at]}, dialled {int(told['dialled'][at]):#x}:{told['dialled_port'][at]}"
    return f"{end('consumer')} → {end('provider')} {ports}"
