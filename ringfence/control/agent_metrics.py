"""What agents count about themselves, for Prometheus: a few series a node, none an interface."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ringfence.control.agents import Agent
from ringfence.model.flow import Loss
from ringfence.wire.generated.agent_pb2 import Audit

_NODE = ("kubernetes_cluster", "node")
_COUNTS: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, str], ...] = (
    (CounterMetricFamily, "skbs", "skbs", "Packets (skbs) that the agent's program saw."),
    (CounterMetricFamily, "recorded_skbs", "recorded", "Of these, in a flow record."),
    (
        GaugeMetricFamily, "unaccounted_skbs", "unaccounted",
        "Packets that the kernel counted at veths and the program surely did not.",
    ),
    (
        GaugeMetricFamily, "overcounted_skbs", "overcounted",
        "Packets that the program counted at veths and the kernel surely did not.",
    ),
)  # fmt: skip


class AgentMetrics(Collector):
    """Tells each agent's audit as it was last heard."""

    def __init__(self, agents: Callable[[], Iterable[Agent]]) -> None:
        self._agents = agents

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known to be free."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The series of now."""
        agents = list(self._agents())
        for family, name, field, text in _COUNTS:
            metric = family(f"ringfence_agent_{name}", text, labels=_NODE)
            for agent in agents:
                metric.add_metric(agent.key, getattr(agent.state.audit, field))
            yield metric
        losses = CounterMetricFamily(
            "ringfence_agent_losses", "What is in no record, by cause.", labels=(*_NODE, "cause")
        )
        for agent in agents:
            for cause, count in _losses(agent.state.audit):
                losses.add_metric((*agent.key, cause), count)
        yield losses


def _losses(audit: Audit) -> Iterator[tuple[str, int]]:
    """By known cause: a label's values must not be the agent's words without end."""
    return ((cause, audit.losses[cause]) for cause in Loss if cause in audit.losses)
