"""Who is connected, in what state, and what each agent is to hear next."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.identity import ClientIdentity
from ringfence.control.metrics import Metrics
from ringfence.model.ids import ClusterId, NodeName
from ringfence.wire.generated.agent_pb2 import AgentState
from ringfence.wire.limits import LARGEST_SKEW_SECONDS

NodeKey = tuple[ClusterId, NodeName]

TOLERATED_SKEW_NS = LARGEST_SKEW_SECONDS * 10**9

_ALIVE_NS = 60 * 10**9
"""An agent tells its state at each report: after so long without, nobody may be there."""


@dataclass
class Agent:
    """One agent as last heard of. `skew_ns` is how far its clock runs ahead of ours."""

    key: NodeKey
    state: AgentState
    last_seen_ns: int
    skew_ns: int
    sessions: int = 0
    refused_addresses: str = ""
    """Which of the addresses that it reports are not taken for its own, and why."""
    latest: object = None
    """The session that was opened last."""
    contested_ns: int = -_ALIVE_NS
    """When an earlier session was last heard: two agents have one name and certificate then."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be a new directive."""

    @property
    def connected(self) -> bool:
        """Whether a session is open."""
        return self.sessions > 0

    @property
    def stale_reason(self) -> str:
        """Why the agent is not to be trusted to enforce what it should; empty if it is."""
        if abs(self.skew_ns) > TOLERATED_SKEW_NS:
            return skew_text(self.key[1], self.skew_ns)
        if self.last_seen_ns - self.contested_ns < _ALIVE_NS:
            return (
                f"several agents are connected as {self.key[1]}, and their flows are taken for one"
                " node's: leave one, and enrol each other anew with an empty state directory and a"
                " --node of its own"
            )
        return self.state.stale_reason


class Agents:
    """Every agent that was heard of since the start."""

    def __init__(self, metrics: Metrics) -> None:
        self._agents: dict[NodeKey, Agent] = {}
        metrics.agents.set_function(lambda: sum(agent.connected for agent in self.all()))

    def all(self) -> list[Agent]:
        """Every agent, by Kubernetes cluster and node."""
        return [self._agents[key] for key in sorted(self._agents)]

    def named(self, node: NodeName, cluster: ClusterId | None) -> Agent:
        """The one agent of that name, of a Kubernetes cluster or of any.

        Raises NotFoundError, and ConflictError where there are several.
        """
        found = [
            agent
            for agent in self.all()
            if agent.key[1] == node and cluster in {None, agent.key[0]}
        ]
        if not found:
            where = "" if cluster is None else f" in the Kubernetes cluster {cluster!r}"
            raise NotFoundError(f"no agent of a node {node!r}{where} has been heard of")
        if len(found) > 1:
            clusters = ", ".join(agent.key[0] or "none" for agent in found)
            raise ConflictError(f"several nodes are named {node!r}, in the clusters {clusters}")
        return found[0]

    def require_free(self, name: str, cluster: ClusterId, now_ns: int) -> None:
        """Raise ConflictError where an agent of that name is alive."""
        agent = self._agents.get((cluster, NodeName(name)))
        if agent and agent.connected and now_ns - agent.last_seen_ns < _ALIVE_NS:
            raise ConflictError(
                f"an agent named {name!r} is connected already; give this one another --node, or"
                " stop that one and wait a minute"
            )

    def heard(self, identity: ClientIdentity, state: AgentState, now_ns: int) -> Agent:
        """Note an agent's state."""
        key = (identity.kubernetes_cluster, NodeName(identity.name))
        skew_ns = state.clock_ns - now_ns
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = Agent(key, state, now_ns, skew_ns)
        agent.state, agent.last_seen_ns, agent.skew_ns = state, now_ns, skew_ns
        return agent

    def notify(self, nodes: Iterable[NodeKey]) -> None:
        """Have the sessions of these nodes look for a new directive."""
        for key in nodes:
            if key in self._agents:
                self._agents[key].news.set()


def skew_text(name: str, skew_ns: int) -> str:
    """What is wrong with a clock, and what to do."""
    way = "ahead of" if skew_ns > 0 else "behind"
    seconds = abs(skew_ns) / 10**9
    return (
        f"the clock of {name} is {seconds:.0f} s {way} the control plane's; "
        "synchronise both with NTP"
    )
