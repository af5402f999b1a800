"""Chains of ours as iptables and ipset list them, in the words of packets and clauses.

Never a guess: what is not known here, in a rule, a set or a jump, raises UnprovableError.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP
from ringfence.policy.backends.marks import SILENCED_MARK, SILENT_QUEUE
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.matches import Json, shown
from ringfence.policy.proof.packets import (
    Axis,
    Call,
    Clause,
    Match,
    Outcome,
    Packet,
    Ranges,
    State,
    Table,
    joined,
)
from ringfence.policy.proof.reading import not_deep, read_into, shortened

_V4, _V6 = 4, 6
_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward",
          "OUTPUT": "output", "POSTROUTING": "postrouting"}  # fmt: skip
_VERDICTS = {"ACCEPT": Outcome.ACCEPT, "DROP": Outcome.DROP, "RETURN": Outcome.RETURN}
_STATES = {state.name: state.value for state in State}
_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_ICMP_OF = {_V4: ICMP, _V6: ICMPV6}
_ANY_ICMP = 255
_DROP_SETS = "rf_drop_"
_TUPLE = "src,dst,dst"
_ENDS = {"-s": Axis.SOURCE, "-d": Axis.DESTINATION}
_LOOPBACKS = {"-i": Axis.FROM_LOOPBACK, "-o": Axis.TO_LOOPBACK}
_PORTS = {"--sport": Axis.HEAD, "--dport": Axis.PORT}
_MODULES = frozenset({"addrtype", "comment", "conntrack", "hl", "icmp", "icmp6", "multiport",
                      "set", "tcp", "udp"})  # fmt: skip
"""Those that without an option ask nothing; others (eui64, socket) match some packets even so."""
_WITH_PORTS = frozenset({TCP, UDP, SCTP})
_DROP, _SILENCED = "RINGFENCE-DROP", "RINGFENCE-SILENCED"
_MARKS = f"-j MARK --set-xmark {SILENCED_MARK:#x}/0xffffffff"
_VANISHES = f"-j NFQUEUE --queue-num {SILENT_QUEUE}"
_DROPS_SILENCED = f"-m mark --mark {SILENCED_MARK:#x} -g {_DROP}"
"""What no packet meets but one that was silenced, and one whose sender gave it that mark."""


def read(objects: Iterable[Json], family: int) -> Table:
    """Our chains as `kernel.iptables` lists them, as far as packets of the family meet them.

    The number of a rule is its place among all that are listed, from 1. Raises UnprovableError.
    """
    return read_into(_Reader(family), objects, "iptables")


def comment_of(text: str) -> str:
    """The comment of a rule, empty for none."""
    return next((word.values[0] for word in _words(text) if word.name == "--comment"), "")


def holding(text: str, sets: Mapping[str, Json], packet: Packet) -> Iterator[tuple[str, str]]:
    """The sets of addresses in which a rule looks for the packet, each element that holds it."""
    for word in _words(text):
        match word.name, word.values:
            case "--match-set", (name, "src" | "dst" as side) if not word.negated:
                number = packet.numbers[_ENDS[f"-{side[0]}"]]
                for element in sets[name].get("elem", ()):
                    held = f"{element['ip']}/{element['cidr']}"
                    first, last = _block(held, packet.family)
                    if first <= number <= last:
                        yield name, element["ip"] if first == last else held


@dataclass(frozen=True, slots=True)
class _Word:
    """One option of a rule, with what follows it."""

    negated: bool
    name: str
    values: tuple[str, ...]


@dataclass(slots=True)
class _Said:
    """What the words of one rule ask and do."""

    matches: list[Match] = field(default_factory=list)
    protocol: int | None = None
    """Of the packets that pass, if it is one."""
    verdict: Outcome | Call | None = None
    certain: bool = True
    comment: str = ""


class _Reader:
    def __init__(self, family: int) -> None:
        self._family = family
        self._chains: dict[str, list[tuple[int, str]]] = {}
        self._rules = 0
        """So many were listed by now, of both families: the number of the last one."""
        self._sets: dict[str, Json] = {}
        self._jumps: list[tuple[str, str]] = []
        self._spans: dict[str, Ranges] = {}

    def take(self, kind: str, body: Json) -> None:
        match kind:
            case "lo":
                if not body["loopback"]:
                    raise UnprovableError("the interface that is called lo is not the loopback")
            case "set":
                self._sets[body["name"]] = body
            case "rule":
                self._rules += 1
                if body["family"] == self._family:
                    _, chain, text = f"{body['text']} ".split(" ", 2)
                    self._chains[chain].append((self._rules, text.strip()))
            case _ if body["family"] != self._family:
                pass
            case "chain":
                self._chains.setdefault(body["name"], [])
            case "jump":
                self._jump(body)

    def _jump(self, body: Json) -> None:
        _, builtin, *words = body["text"].split()
        if len(words) != 2 or words[0] != "-j":  # noqa: PLR2004
            raise UnprovableError(f"jumps to ours only for some packets: {body['text']}")
        if not body["called"]:
            raise UnprovableError(f"no packet meets {builtin}, whose rule calls ours")
        if not body["first"]:
            raise UnprovableError(f"another's rule is ahead of ours: {body['text']}")
        self._jumps.append((_HOOKS[builtin], words[1]))

    def table(self) -> Table:
        chains = {name: tuple(self._chain(name, rules)) for name, rules in self._chains.items()}
        hooks: dict[str, list[str]] = {}
        for hook, chain in self._jumps:
            base = f"{hook}: {chain}"
            passes = Clause((), Outcome.ACCEPT, f"the end of chain {chain}")
            chains[base] = (Clause((), Call(chain, goto=False), chain), passes)
            hooks.setdefault(hook, []).append(base)
        # Each denial has a chain that ends in the one that drops, by way of the one that silences.
        short = shortened(chains)
        for _ in range(2):
            short = shortened({name: _told_once(held) for name, held in short.items()})
        held = {hook: tuple(bases) for hook, bases in hooks.items()}
        return not_deep(Table(self._family, short, held))

    def _chain(self, name: str, rules: Iterable[tuple[int, str]]) -> Iterator[Clause]:
        before = ""
        for place, (number, text) in enumerate(rules, start=1):
            where = f"rule {place} of chain {name}"
            if text == _VANISHES:
                yield Clause((), self._vanishing(before), where, certain=False, rule=number)
            before = text
            if text in (_VANISHES, _DROPS_SILENCED):
                continue
            try:
                said = self._rule(text)
            except UnprovableError as error:
                raise UnprovableError(f"{where}: {error}") from error
            if said.verdict is not None:
                where += f" ({said.comment})" if said.comment else ""
                yield Clause(tuple(said.matches), said.verdict, where, said.certain, number)

    def _rule(self, text: str) -> _Said:
        said = _Said()
        for word in _words(text):
            if not (self._end(said, word) or self._transport(said, word) or self._does(said, word)):
                told = shown(" ".join(("!" * word.negated, word.name, *word.values)).strip())
                raise UnprovableError(f"has {told}, which no rule of ours has")
        return said

    def _end(self, said: _Said, word: _Word) -> bool:
        """Take a word that asks for addresses, interfaces or the state; False for others."""
        spans: Ranges
        match word.name, word.values:
            case ("-s" | "-d") as name, (block,):
                axis, spans = _ENDS[name], (_block(block, self._family),)
            case ("-i" | "-o") as name, ("lo",):
                axis, spans = _LOOPBACKS[name], ((1, 1),)
            case "--match-set", (name, "src" | "dst" as side):
                axis, spans = _ENDS[f"-{side[0]}"], self._held(name)
            case "--match-set", (name, dimensions) if name.startswith(_DROP_SETS):
                # It may hold the packet's tuple or not.
                said.certain = False
                return name in self._sets and dimensions == _TUPLE and not word.negated
            case "--update-counters", () if word.negated:
                return True
            case "--dst-type", ("LOCAL",):
                axis, spans = Axis.TO_OWN, ((1, 1),)
            case "--src-type", ("LOCAL",):
                axis, spans = Axis.FROM_OWN, ((1, 1),)
            case "--ctstate", (names,):
                states = (_STATES[name] for name in names.split(","))
                axis, spans = Axis.STATE, joined((state, state) for state in states)
            case _:
                return False
        said.matches.append(Match(axis, spans, word.negated))
        return True

    def _transport(self, said: _Said, word: _Word) -> bool:
        """Take a word that asks for the protocol, or what its header says; False for others."""
        spans: Ranges
        match word.name, word.values:
            case "-p", (number,):
                axis, spans = Axis.PROTOCOL, ((int(number), int(number)),)
                said.protocol = None if word.negated else int(number)
            case ("--sport" | "--dport" | "--sports" | "--dports") as name, (ports,):
                axis, spans = _PORTS[name.rstrip("s")], joined(map(_range, ports.split(",")))
                if said.protocol not in _WITH_PORTS:
                    return False
            case (("--icmp-type" | "--icmpv6-type"), (message,)):
                axis, spans = Axis.HEAD, (_messages(message),)
                if said.protocol != _ICMP_OF[self._family]:
                    return False
            case "--tcp-flags", (mask, wanted) if said.protocol == TCP:
                asked, of = _flags(wanted), _flags(mask)
                axis, spans = Axis.FLAGS, joined((n, n) for n in range(256) if n & of == asked)
            case "--hl-eq", (hops,) if self._family == _V6:
                axis, spans = Axis.HOPS, ((int(hops), int(hops)),)
            case _:
                return False
        said.matches.append(Match(axis, spans, word.negated))
        return True

    def _does(self, said: _Said, word: _Word) -> bool:
        """Take a word that says what happens, or nothing; False for others."""
        match word.name, word.values:
            case "-m", (module,) if module in _MODULES:
                pass  # what it asks follows
            case "--comment", (text,):
                said.comment = text
            case ("-j" | "-g") as how, (chain,) if chain in self._chains:
                said.verdict = Call(chain, goto=how == "-g")
            case "-j", (target,) if target in _VERDICTS:
                said.verdict = _VERDICTS[target]
            case ("-j", ("MARK" | "SET",)) | ("--set-xmark", (_,)):
                pass
            case "--add-set", (name, dimensions):
                return name.startswith(_DROP_SETS) and dimensions == _TUPLE
            case _:
                return False
        return not word.negated

    def _vanishing(self, before: str) -> Outcome:
        """What may become of what is let vanish: who listens may give it back.

        Then POSTROUTING is to come, which knows it by the mark that the rule before gave it.
        """
        drops = [text for _, text in self._chains.get(_SILENCED, ())] == [_DROPS_SILENCED]
        if drops and before == _MARKS and ("postrouting", _SILENCED) in self._jumps:
            return Outcome.DROP
        return Outcome.DROP | Outcome.ACCEPT

    def _held(self, name: str) -> Ranges:
        """The addresses in a set that does not change."""
        if name not in self._spans:
            body = self._sets[name]
            known = {"name", "type", "family", "maxelem", "references", "elem"}
            if body["type"] != "hash:net" or body["family"] != self._family or body.keys() - known:
                raise UnprovableError(f"looks into {name}, which is no set of ours")
            if any(element.keys() != {"ip", "cidr"} for element in body.get("elem", ())):
                raise UnprovableError(f"looks into {name}, which holds more than addresses")
            self._spans[name] = joined(
                _block(f"{element['ip']}/{element['cidr']}", self._family)
                for element in body.get("elem", ())
            )
        return self._spans[name]


def _told_once(clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
    """The last clause alone, if all drop and it drops whatever comes."""
    drops = clauses and all(clause.verdict is Outcome.DROP for clause in clauses)
    return clauses[-1:] if drops and clauses[-1].certain and not clauses[-1].matches else clauses


def _words(text: str) -> Iterator[_Word]:
    """The options of a rule. A comment may look like one."""
    words = shlex.split(text)
    at, negated = 0, False
    while at < len(words):
        name, at = words[at], at + 1
        if name == "!":
            negated = True
            continue
        end = at + 1 if name == "--comment" else at
        while name != "--comment" and end < len(words) and words[end][:1] not in ("-", "!"):
            end += 1
        yield _Word(negated, name, tuple(words[at:end]))
        at, negated = end, False


def _block(text: str, family: int) -> tuple[int, int]:
    """The first and the last address of a block, or the one address."""
    first, _, prefix = text.partition("/")
    width = 32 if family == _V4 else 128
    start = int(ip_address(first))
    if ip_address(first).version != family:
        raise UnprovableError(f"compares with {shown(text)}, of another family")
    return start, start | ((1 << (width - int(prefix or width))) - 1)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first), int(last or first)


def _messages(text: str) -> tuple[int, int]:
    kind, _, code = text.partition("/")
    if int(kind) == _ANY_ICMP:
        raise UnprovableError("asks for ICMP of type 255, which may mean any")
    first = int(kind) << 8
    return (first | int(code), first | int(code)) if code else (first, first | 0xFF)


def _flags(text: str) -> int:
    found = 0
    for name in text.split(","):
        found |= _FLAGS[name]
    return found
