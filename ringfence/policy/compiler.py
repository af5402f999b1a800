"""Keeps what every node enforces, and works out again only what a change touches.

Each entry of the order is translated by itself, and the facts that it asked for are written down
(`inventory.living`). A change of the inventory tells of which facts it is; only entries that asked
for one of them are translated again, only workloads for which an entry came out different get
another program, and only nodes of these, or that have a set which holds something else, another
policy. Starting from nothing every entry is touched: there is no other way to compile.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ringfence.inventory.living import Living, News
from ringfence.model.ids import ItemKey
from ringfence.model.policy import Action, End, Workspace
from ringfence.model.quarantine import Quarantine
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import ItemKind
from ringfence.policy import notes
from ringfence.policy.bound import NOTHING, Bound, Made, Rules
from ringfence.policy.ends import NAMES, ResolvedEnd, resolve
from ringfence.policy.fronts import Fronts
from ringfence.policy.gate import Gates
from ringfence.policy.hop import Hop
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.layer import OrderedRule
from ringfence.policy.layers import Layers
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import NodeKey, Nodes, Surroundings
from ringfence.policy.order import (
    Enforced,
    Entry,
    all_entries,
    entry_rules,
    in_order_of_time,
    place_of,
)
from ringfence.policy.quarantine import as_workspace
from ringfence.policy.sets import AddressSets
from ringfence.policy.shared import Programs
from ringfence.policy.touched import Ranged, touched
from ringfence.policy.translate import Chain, Translator, Widening
from ringfence.policy.who import CLUSTERS, Held, Served, Who, by_place

_SPARE = 10_000
"""So many sets more than twice those of the beginning may be left over before all is compiled."""


@dataclass
class _Translated:
    """What an entry of the order came to, and the facts that it depends on."""

    entry: Entry
    facts: set[Hashable] = field(default_factory=set)
    made: Made = field(default_factory=lambda: NOTHING)
    widenings: tuple[Widening, ...] = ()


class Compiler:
    """The state of one enforced set, over an inventory that changes. Not thread-safe.

    Raises InputError as `PolicySet` does. After an error nothing of it holds any more.
    """

    def __init__(
        self,
        living: Living,
        tree: ScopeTree,
        enforced: Collection[Enforced],
        moment: Moment,
        quarantines: Collection[Quarantine] = (),
        surroundings: Surroundings = Surroundings(),  # noqa: B008 - frozen
        kubernetes: Sequence[KubernetesLayer] = (),
    ) -> None:
        self._living, self._tree, self._moment = living, tree, moment
        quarantines = in_order_of_time(quarantines)
        apart = {place_of(as_workspace(one)): one.query for one in quarantines}
        of_scopes = {place_of(one): tree.full_query(one.scope) for one, _ in enforced}
        self._governing = of_scopes | apart
        workspaces = (*(one for one, _ in enforced), *map(as_workspace, quarantines))
        self._said = by_place(workspaces)
        self._expired = tuple(notes.void(enforced, moment.at_ns))
        self._sets, self._fronts = AddressSets(living), Fronts(living)
        self._programs = Programs()
        self._bound = Bound(self._programs)
        self._layers = Layers(kubernetes, living, self._programs, self._sets, self._fronts)
        self._gates = Gates(tree, enforced)
        self._nodes = Nodes(living, surroundings, self._programs, self._gates)
        self._entries = [
            _Translated(one) for one in all_entries(tree, enforced, moment.at_ns, quarantines)
        ]
        self._readers: dict[Hashable, set[int]] = {}
        self._unknown: dict[int, tuple[str, ...]] = {}
        self._widened: dict[int, notes.Places] = {}
        self._warnings: tuple[str, ...] | None = None
        """As they were told last, None where others may have come."""
        # Of nodes that are others everything is compiled anew.
        self._overlaps = tuple(notes.overlaps(living.items[at] for at in living.nodes))
        self._ranged: dict[Ranged, None] = {}
        """Of the facts that anything depends on those about ranges."""
        who = self._who()
        self._nodes.expose(who)
        self._translate(range(len(self._entries)), who)
        self._bound.renew()
        self._nodes.renew(self._nodes.all, self._bound.programs, self._layers, who)
        self._most_sets, self._most_programs = 2 * len(self._sets) + _SPARE, 2 * len(self._programs)

    def update(self, news: News, moment: Moment) -> set[NodeKey] | None:
        """The inventory has these news, names and address sets may mean something else.

        Returns the nodes that have another policy now; None, with nothing of it holding any more,
        where all must be compiled. Layers follow the policies that their clusters have.
        """
        clusters = self._living.clusters
        alterations, facts = self._living.change(news)
        others = touched(self._living, self._fronts, alterations, self._ranged)
        if others is None or len(self._sets) > self._most_sets:
            return None
        self._sets.follow(alterations)
        facts |= others | self._told(moment)
        if self._living.clusters != clusters:
            facts.add(CLUSTERS)
        who = self._who()
        stale = self._nodes.follow(alterations)
        if any(one.kind is ItemKind.SERVICE for one in alterations):
            stale |= self._nodes.expose(who)
        places = {place for fact in facts for place in self._readers.get(fact, ())}
        self._translate(sorted(places), who)
        stale |= self._nodes.homes(self._bound.renew())
        bound = self._layers.follow(alterations)
        if bound is None:
            return None
        if self._layers.widened_anew:
            self._warnings = None
        stale |= self._nodes.homes(bound) | self._nodes.using(self._sets.altered)
        changed = self._nodes.renew(stale, self._bound.programs, self._layers, who)
        if len(self._programs) > self._most_programs:
            self._programs.keep({*self._bound.used(), *self._layers.used()})
            self._most_programs = 2 * len(self._programs)
        return changed

    @property
    def nodes(self) -> Nodes:
        """What every node enforces."""
        return self._nodes

    @property
    def widenings(self) -> Iterator[Widening]:
        """Where rules admit more than their policies say."""
        for one in self._entries:
            yield from one.widenings
        yield from self._layers.widenings

    def warnings(self) -> tuple[str, ...]:
        """What a person should know of how the rules came about, a line each."""
        if self._warnings is None:
            unknown = (line for place in sorted(self._unknown) for line in self._unknown[place])
            layers = notes.places(self._layers.widenings, self._display)
            widened = notes.widened([*self._widened.values(), layers])
            self._warnings = (*unknown, *self._expired, *self._overlaps, *widened)
        return (*self._warnings, *self._gates.notes(), *self._nodes.notes())

    def _who(self) -> Who:
        return Who(self._living, self._sets, self._fronts, self._said)

    def _told(self, moment: Moment) -> set[Hashable]:
        """The facts that are others by what DNS told and by what address sets hold."""
        before, self._moment = self._moment, moment
        names = before.sets.keys() | moment.sets.keys()
        facts: set[Hashable] = {
            name for name in names if before.sets.get(name) != moment.sets.get(name)
        }
        return facts | ({NAMES} if before.names != moment.names else set())

    def _translate(self, places: Iterable[int], who: Who) -> None:
        translator = Translator(who)
        for place in places:
            one = self._entries[place]
            self._living.noted = set()
            rules = tuple(self._rules(place, one.entry))
            made, widenings = self._make(rules, translator)
            self._bound.put(place, one.made, made)
            one.made, one.widenings = made, widenings
            self._depend(place, one, self._living.noted)
            self._tell(place, rules, widenings)

    def _rules(self, place: int, entry: Entry) -> Iterator[OrderedRule]:
        governed = self._living.chosen(self._governing[place_of(entry[1])])
        return entry_rules(place, entry, governed, self._resolve, self._living)

    def _resolve(self, end: End, action: Action, workspace: Workspace) -> ResolvedEnd:
        return resolve(end, action, workspace, self._tree, self._living, self._moment)

    def _make(
        self, rules: Iterable[OrderedRule], translator: Translator
    ) -> tuple[Made, tuple[Widening, ...]]:
        """What the rules of an entry become at workloads; those that are alike share them."""
        made: dict[Chain, dict[int, Rules]] = {}
        widenings: dict[Widening, None] = {}
        known: dict[int, tuple[tuple[Hop, ...], Rules]] = {}
        for chain in Chain:
            held = made[chain] = {}
            for rule in rules:
                for at, hops in translator.rules(rule, chain):
                    if id(hops) not in known:
                        known[id(hops)] = hops, tuple(hop.rule for hop in hops if hop.rule)
                    said = known[id(hops)][1]
                    held[at] = held[at] + said if at in held else said
                    for hop in hops:
                        if hop.widening:
                            key = self._living.items[at].key
                            widenings[Widening(rule.decision, key, hop.widening)] = None
        return made, tuple(widenings)

    def _depend(self, place: int, one: _Translated, facts: set[Hashable]) -> None:
        for fact in one.facts - facts:
            self._readers[fact].discard(place)
            if not self._readers[fact]:
                del self._readers[fact]
                self._ranged.pop(fact, None)  # type: ignore[call-overload]
        for fact in facts - one.facts:
            self._readers.setdefault(fact, set()).add(place)
            if isinstance(fact, Held | Served):
                self._ranged[fact] = None
        one.facts = facts

    def _tell(
        self, place: int, rules: Iterable[OrderedRule], widenings: Iterable[Widening]
    ) -> None:
        unknown, widened = tuple(notes.unknown(rules)), notes.places(widenings, self._display)
        if (unknown, widened) == (self._unknown.get(place, ()), self._widened.get(place, {})):
            return
        self._warnings = None
        self._unknown.pop(place, None)
        self._widened.pop(place, None)
        if unknown:
            self._unknown[place] = unknown
        if widened:
            self._widened[place] = widened

    def _display(self, key: ItemKey) -> str:
        return self._living.items[self._living.position(key)].display
