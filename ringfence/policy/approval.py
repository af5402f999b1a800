"""What becomes of requests: who asked before, what was answered, and which rules answer at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.policy import Action, CatchAll, Workspace
from ringfence.model.protocol import Port, PortRange
from ringfence.model.query import Query
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.policy.ends import resolve
from ringfence.policy.errors import DocumentError
from ringfence.policy.fronts import Fronts
from ringfence.policy.moment import Moment
from ringfence.policy.requests import Needed, Request, grant
from ringfence.policy.sets import AddressSets, of_addresses

_NAMELESS = Workspace(
    WorkspaceName(""), ScopeName(""), False, CatchAll(Action.DENY, Action.DENY), (), ()
)
"""What requests ask for names no cluster, so no workspace is needed to resolve it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is to change: requests that are new or open again, granted by rules, or over."""

    raised: tuple[Request, ...]
    granted: tuple[tuple[Request, ApprovalRule], ...]
    closed: tuple[str, ...]


class Approvals:
    """Answers requests by rules, in one inventory and at one moment."""

    def __init__(
        self, snapshot: Snapshot, tree: ScopeTree, rules: Sequence[ApprovalRule], moment: Moment
    ) -> None:
        self._snapshot, self._tree, self._rules = snapshot, tree, rules
        self._moment = moment

    def decide(self, held: Mapping[str, State], needed: Needed) -> Answers:
        """What becomes of the needed requests, where `held` are the ones known already.

        One that is approved and needed all the same has lost its policy, and is open again; one
        that is rejected stays so. Pending ones that are needed no longer are over.
        """
        raised, granted = [], []
        for request in needed.requests:
            state = held.get(request.id)
            if state is State.REJECTED:
                continue
            rule = next((one for one in self._rules if self.covers(one, request)), None)
            if rule is not None:
                granted.append((request, rule))
            elif state is not State.PENDING:
                raised.append(request)
        wanted = {request.id for request in needed.requests}
        pending = (one for one, state in held.items() if state is State.PENDING)
        closed = sorted(set(pending) - wanted) if needed.whole else []
        return Answers(tuple(raised), tuple(granted), tuple(closed))

    def covers(self, rule: ApprovalRule, request: Request) -> bool:
        """Whether the rule approves the request."""
        wanted = request.wanted
        return (
            rule.provider_workspace == request.provider_workspace
            and not request.denied_by
            and not request.anybody
            and rule.scope in {scope.name for scope in self._tree.path(request.scope)}
            and rule.protocol in (None, wanted.protocol)
            and (not rule.ports or _within(wanted.ports, rule.ports))
            and self._provides(rule.provider, request)
            and _can_be_written(request)
        )

    def _provides(self, query: Query | None, request: Request) -> bool:
        """Whether all workloads that the request opens are known to be ones of the filter."""
        if query is None:
            return True
        wanted = request.wanted
        try:
            end = resolve(
                wanted.provider, wanted.action, _NAMELESS, self._tree, self._snapshot, self._moment
            )
        except InputError:
            return False  # there is no such thing any more: a person may decide
        ports = [one for one in wanted.ports if isinstance(one, PortRange)]
        if end.own_node or len(ports) < len(wanted.ports):
            return False  # which nodes those are, or which ports, depends on the consumers
        sets = AddressSets(self._snapshot)
        opened = BitMap(end.items) | sets.holders(end.ranges)
        fronts = Fronts(self._snapshot)
        for front in fronts.of_services(end.services, wanted.protocol, tuple(ports)):
            opened |= sets.holders(of_addresses(one.address for one in front.backends))
        return bool(opened) and opened.issubset(self._snapshot.select(query))


def _can_be_written(request: Request) -> bool:
    """Whether what would be granted can be read again: two filters joined may be too long."""
    named = replace(_NAMELESS, name=request.provider_workspace, scope=request.scope)
    text = format_documents(Documents(workspaces=(grant(named, [request]),)))
    try:
        parse_documents(text, request.id)
    except DocumentError:
        return False
    return True


def _within(wanted: Collection[Port], allowed: Sequence[PortRange]) -> bool:
    """Whether each of the wanted ports, of which there is one, lies in an allowed range."""
    return bool(wanted) and all(
        isinstance(some, PortRange)
        and any(one.first <= some.first and some.last <= one.last for one in allowed)
        for some in wanted
    )
