"""From the enforced set to what each node's agent is sent."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from threading import Lock

from ringfence.control.agents import NodeKey
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import Living, News
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ItemKey, RevisionId
from ringfence.model.workload import Item
from ringfence.policy.compile import compiler_of
from ringfence.policy.compiler import Compiler
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.moment import Moment, expiries
from ringfence.policy.nodes import Surroundings
from ringfence.policy.order import PolicySet


@dataclass(frozen=True, slots=True)
class Compilation:
    """Encoded node policies, and what a person should know of how they came about."""

    nodes: Mapping[NodeKey, bytes]
    warnings: tuple[str, ...]


def compile_nodes(
    policy_set: PolicySet,
    surroundings: Surroundings,
    kubernetes: Iterable[KubernetesLayer] = (),
) -> Compilation:
    """The policy of every node in the inventory; the same for the same inputs."""
    compiler = compiler_of(policy_set, surroundings, kubernetes)
    nodes = {node: compiler.nodes.encoded(node) for node in compiler.nodes.policies}
    return Compilation(nodes, compiler.warnings())


class Standing:
    """What is enforced as it stands compiled, brought up to date where that is possible."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._lock = Lock()
        self._items: dict[ItemKey, tuple[RevisionId, Item]] = {}
        self._compiler: Compiler | None = None
        self._living = Living(())
        self._of: tuple[object, ...] = ()
        """All that the compiler was made of, besides the inventory and the moment (`_compile`)."""
        self._lasts: tuple[int, int] = 0, 0
        """From and until when no policy expires, epoch ns."""
        self._nodes: dict[NodeKey, bytes] = {}

    def fork(self) -> "Standing":
        """Another one for another set, that knows the same inventory."""
        with self._lock:
            other = Standing(self._surroundings)
            other._items = dict(self._items)
            return other

    def is_of(self, judged_by: JudgedBy) -> bool:
        """Whether what is compiled is this enforced set."""
        made_of = judged_by.workspaces, judged_by.live
        return self._compiler is not None and self._of[1::2] == made_of

    def compile(self, judged_by: JudgedBy, news: News, moment: Moment) -> Compilation:
        """What nodes enforce after the news: equal to what `compile_nodes` says of it all.

        News may be told again. Raises InputError; they count all the same.
        """
        with self._lock:
            return self._compile(judged_by, news, moment)

    def rest(self, news: News) -> None:
        """Know the news, and hold nothing compiled: nothing is enforced."""
        with self._lock:
            self._take(news)
            self._compiler, self._nodes = None, {}

    def _compile(self, judged_by: JudgedBy, news: News, moment: Moment) -> Compilation:
        compiler, self._compiler = self._compiler, None  # it holds only if all goes well
        self._take(news)
        apart = judged_by.quarantines
        made_of = judged_by.tree, judged_by.workspaces, apart, judged_by.live
        changed: Set[NodeKey] | None = None
        first, last = self._lasts
        if compiler is not None and made_of == self._of and first <= moment.at_ns < last:
            changed = compiler.update(news, moment)
        if compiler is None or changed is None:
            self._living, self._of = Living(self._items.values()), made_of
            self._lasts = _between(expiries(judged_by.workspaces), moment.at_ns)
            compiler = Compiler(
                self._living,
                judged_by.tree,
                judged_by.workspaces,
                moment,
                apart,
                self._surroundings,
                tuple(judged_by.kubernetes(self._snapshot())) if judged_by.live else (),
            )
            self._nodes, changed = {}, compiler.nodes.policies.keys()
        fresh = {node: compiler.nodes.encoded(node) for node in changed}
        self._nodes = self._nodes | fresh
        self._compiler = compiler
        return Compilation(self._nodes, compiler.warnings())

    def _take(self, news: News) -> None:
        for key, now in news.items():
            if now is None:
                self._items.pop(key, None)
            else:
                self._items[key] = now

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._items.values())


def _between(instants: Iterable[int], at_ns: int) -> tuple[int, int]:
    """The last instant that is not after a time, and the first that is."""
    first, last = -(2**63), 2**63
    for one in instants:
        if one <= at_ns:
            first = max(first, one)
        else:
            last = min(last, one)
    return first, last
