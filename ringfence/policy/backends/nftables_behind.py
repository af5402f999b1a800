"""What the node judges of its pods behind Services, in its own table.

A pod's namespace sees what is dialled, not which backend kube-proxy then picks. The node does: at
the forward hook, and at the input hook where the node itself is the backend, the destination is
translated, connection tracking knows what was dialled, and the source is the pod's own still. Each
port of a Service of which a pod may not reach all backends has a chain there, of the rules that
speak of it. What comes back to the pod itself passes, and so does what another node is to
translate.

What the node itself dials is judged at the output hook, after kube-proxy.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ringfence.model.address import Address, Network, format_address, is_v4
from ringfence.model.policy import Direction
from ringfence.policy.backends.nftables_gate import interface
from ringfence.policy.backends.nftables_table import FAMILIES, Family, Table
from ringfence.policy.handle import as_written
from ringfence.policy.program import (
    Guarded,
    NodeBinding,
    NodePolicy,
    Parted,
    PodBinding,
    Rule,
)

_CHAIN = "behind"
_TRANSLATED = -99
"""Where a packet of the node's own has its destination: after NF_IP_PRI_NAT_DST."""


def write_behind(
    table: Table, policy: NodePolicy, established: Iterable[str], guarded: Guarded
) -> None:
    """Write the chains, if there is anything to judge; what is `established` passes first.

    A pod is known by the interfaces that lead to it alone, as `guarded` has them, whatever address
    it sends from; by its addresses where there are none.
    """
    calls: list[str] = []
    of_node: list[str] = []
    dialling: list[PodBinding] = []
    for at, (name, whose) in enumerate(sorted(policy.parting().items())):
        if pods := [one for one in whose if isinstance(one, PodBinding)]:
            calls += _from_pods(table, at, pods, guarded)
            dialling += pods
        if len(pods) < len(whose):
            of_node.append(f"jump rf_{_CHAIN}_{at}")
        lines: list[str] = []
        for place, one in enumerate(_distinct(policy, policy.programs[name].parted)):
            rules = [rule for rule in policy.programs[name].rules if _speaks(policy, rule, one)]
            for family in FAMILIES:
                chain = f"{_CHAIN}_{at}_{place}_{family.number}"
                table.chain(chain, (_judging(table, rule, one, family) for rule in rules))
                lines.append(f"ct status dnat {_dialled(table, one, family)} jump rf_{chain}")
        table.chain(f"{_CHAIN}_{at}", lines)
    if calls:
        safe = (*established, *_itself(table, dialling, guarded), *_control_plane(policy))
        for hook in ("forward", "input"):
            table.base_chain(f"{_CHAIN}_{hook}", hook, (*safe, *calls))
    if of_node:
        safe = (*established, *_of_node(table, policy.binding), *_control_plane(policy))
        table.base_chain(f"{_CHAIN}_output", "output", (*safe, *of_node), _TRANSLATED)


def _from_pods(
    table: Table, at: int, pods: Sequence[PodBinding], guarded: Guarded
) -> Iterator[str]:
    ways = [_ways(pod, guarded) for pod in pods]
    name = f"rf_pods{at}"
    table.own_set(name, "type ifname;", frozenset(by for way in ways for by in way))
    yield f"iifname @{name} jump rf_{_CHAIN}_{at}"
    unknown = [pod for pod, way in zip(pods, ways, strict=True) if not way]
    for family in FAMILIES:
        name = f"rf_pods{at}_{family.number}"
        table.own_set(name, f"type {family.type};", frozenset(_texts(unknown, family)))
        yield f"{family.header} saddr @{name} jump rf_{_CHAIN}_{at}"


def _itself(table: Table, pods: Sequence[PodBinding], guarded: Guarded) -> Iterator[str]:
    """A workload to itself."""
    for family in FAMILIES:
        ip, type_ = family.header, f"{family.type} . {family.type};"
        ends: dict[bool, set[str]] = {True: set(), False: set()}
        for pod in pods:
            both = [f"{text} . {text}" for text in _texts((pod,), family)]
            ways = _ways(pod, guarded)
            ends[bool(ways)].update(f"{by} . {one}" for by in ways for one in both)
            ends[False].update(() if ways else both)
        for known, name, by in (
            (True, f"rf_itself_by_{family.number}", "iifname . "),
            (False, f"rf_itself_{family.number}", ""),
        ):
            kind = f"type {'ifname . ' if known else ''}{type_}"
            table.own_set(name, kind, frozenset(ends[known]))
            yield f"{by}{ip} saddr . {ip} daddr @{name} accept"


def _ways(pod: PodBinding, guarded: Guarded) -> list[str]:
    """The interfaces by which nobody else sends, as nftables reads them."""
    return sorted(map(interface, guarded.get(pod.uid, ())))


def _texts(pods: Iterable[PodBinding], family: Family) -> list[str]:
    own = [address for pod in pods for address in pod.addresses]
    return [format_address(one) for one in own if _is_of(one, family)]


def _of_node(table: Table, binding: NodeBinding) -> Iterator[str]:
    """What passes of the node's own: to itself, and what keeps it a node."""
    yield "fib daddr type local accept"
    for rule in binding.fail_safes_out:
        yield from (table.rule(rule, Direction.OUTBOUND, family) for family in FAMILIES)


def _control_plane(policy: NodePolicy) -> Iterator[str]:
    for address, port in policy.control_plane:
        ip = "ip" if is_v4(address) else "ip6"
        dialled = f"ct original {ip} daddr {format_address(address)}"
        yield f"{dialled} meta l4proto tcp ct original proto-dst {port} accept"


def _distinct(policy: NodePolicy, parted: Iterable[Parted]) -> Iterable[Parted]:
    """The ports at other addresses each: several rules may name one Service, by sets of theirs."""
    found: dict[tuple[object, ...], Parted] = {}
    for one in parted:
        found.setdefault((policy.sets[one.dialled], one.protocol, one.port), one)
    return found.values()


def _dialled(table: Table, one: Parted, family: Family) -> str:
    addresses = f"ct original {family.header} daddr @{table.set_name(one.dialled, family)}"
    return f"meta l4proto {one.protocol} {addresses} ct original proto-dst {one.port}"


def _judging(table: Table, rule: Rule, one: Parted, family: Family) -> str:
    """A rule of the program, on what was dialled there; who answers stands in the packet."""
    behind = rule.behind
    translated = replace(
        rule,
        handle=as_written(rule.handle),
        protocol=one.protocol if behind and behind.ports else None,
        ports=behind.ports if behind else (),
        peers=behind.peers if behind else None,
        rejects=True,
        behind=None,
    )
    text = table.rule(translated, Direction.OUTBOUND, family, "return")
    if rule.peers in (None, one.dialled):
        return text
    return f"ct original {family.header} daddr @{table.set_name(rule.peers, family)} {text}"


def _speaks(policy: NodePolicy, rule: Rule, one: Parted) -> bool:
    """Whether the rule is about anything that is dialled there."""
    if rule.protocol not in (None, one.protocol):
        return False
    if rule.ports and not any(one.port in some for some in rule.ports):
        return False
    if rule.peers in (None, one.dialled):
        return True
    return _meet(policy.sets[rule.peers], policy.sets[one.dialled])


def _meet(some: Iterable[Network], others: Iterable[Network]) -> bool:
    """Whether two sets of blocks, disjoint within each family, have an address in common."""
    blocks = sorted(
        (block.is_v4, block.first, block.last, whose)
        for whose, held in enumerate((some, others))
        for block in held
    )
    ends = dict.fromkeys(((v4, whose) for v4 in (True, False) for whose in (0, 1)), -1)
    for v4, first, last, whose in blocks:
        if first <= ends[v4, 1 - whose]:
            return True
        ends[v4, whose] = last
    return False


def _is_of(address: Address, family: Family) -> bool:
    return is_v4(address) == (family.header == "ip")
