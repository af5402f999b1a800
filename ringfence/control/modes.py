"""How finely, and so how often, each agent reports: as people chose, kept over restarts."""

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.audit import Author
from ringfence.control.times import Clock
from ringfence.model.flow import Mode
from ringfence.model.ids import TenantId
from ringfence.store.relational.database import Database
from ringfence.store.relational.modes import agent_modes, set_agent_mode
from ringfence.wire.generated import agent_pb2 as wire

DETAILED_SECONDS = 1
"""Between reports in detailed mode."""

WIRE = {Mode.CONVERSATION: wire.CONVERSATION, Mode.DETAILED: wire.DETAILED}


class Modes:
    """The mode of every agent; conversation for those of which nobody said anything."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        agents: Agents,
        interval_seconds: int,
    ) -> None:
        """`interval_seconds` is between reports in conversation mode."""
        self._clock, self._database, self._tenant, self._agents = clock, database, tenant, agents
        self.interval_seconds = interval_seconds
        self._seconds = {Mode.CONVERSATION: interval_seconds, Mode.DETAILED: DETAILED_SECONDS}
        self._modes: dict[NodeKey, Mode] = {}

    async def start(self) -> None:
        """Learn what was chosen; raises StoreError."""
        async with self._database.read() as connection:
            self._modes = await agent_modes(connection, self._tenant)

    async def stop(self) -> None:
        """Nothing is held open."""

    def of(self, node: NodeKey) -> Mode:
        """The mode in which a node's agent should report."""
        return self._modes.get(node, Mode.CONVERSATION)

    async def choose(self, node: NodeKey, mode: Mode, author: Author) -> None:
        """Have a node's agent report in this mode, from now on."""
        if mode is self.of(node):
            return
        now_ns, actor = self._clock(), author.principal.actor
        async with self._database.write() as connection:
            await set_agent_mode(connection, self._tenant, node, mode, actor, now_ns)
            what = f"{mode} mode for the agent of {node[1]}"
            await author.note(connection, now_ns, what, about=f"agent/{node[1]}")
        self._modes[node] = mode
        self._agents.notify([node])

    def complete(self, node: NodeKey, directive: wire.Directive) -> None:
        """Write mode and interval into a node's directive."""
        mode = self.of(node)
        directive.mode, directive.interval_seconds = WIRE[mode], self._seconds[mode]
