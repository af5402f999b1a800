"""How a simulation differs from another: what is told, what is lost, how often things happen."""

from dataclasses import dataclass, replace

MINUTE, HOUR, DAY = 60, 3600, 86_400


@dataclass(frozen=True)
class Style:
    slot_s: int = 5 * MINUTE
    """The length of a slot of time that a row of flows tells of."""
    copies: int = 2
    """Namespaces that each hold the whole application."""
    most_replicas: int = 4
    hosts: float = 0.3
    """The share of databases and clients that run outside Kubernetes, without labels."""
    passive: float = 0.25
    """How often some provider gives out ports to a consumer besides, as passive FTP does."""
    rare: float = 0.15
    """The share of edges with one to five conversations a day."""
    median: float = 150.0
    """Conversations of the other edges a day."""
    spread: float = 1.6
    """The sigma of their logarithm."""
    pooled: float = 0.35
    """The share of edges to databases, caches and brokers that keep connections open."""
    lost_batches: float = 0.005
    lost_rows: float = 0.02
    missing_syn: float = 0.03
    turned: float = 0.005
    """Of conversations without a SYN those that are told the wrong way round."""
    processes: bool = True
    dns: bool = True
    references: float = 0.7
    """The share of edges that the consumer's environment names."""
    method: bool = True
    probes: float = 0.8
    lacks: tuple[str, ...] = ()
    """Columns that the file of flows does not have."""
    form: str = "json"
    """Of the inventory: json or yaml."""
    withheld: bool = False
    """Labels, names, owners, selectors and declared ports are not told."""


STYLES = {
    "plain": Style(),
    "withheld": Style(withheld=True, references=0.0),
    # Everything that a lesser source does not tell, in minutes.
    "bare": Style(
        slot_s=MINUTE,
        copies=1,
        most_replicas=3,
        hosts=0.15,
        rare=0.3,
        median=40.0,
        spread=1.2,
        pooled=0.2,
        lost_batches=0.02,
        lost_rows=0.1,
        missing_syn=0.1,
        processes=False,
        dns=False,
        references=0.0,
        method=False,
        probes=0.5,
        lacks=(
            "connection",
            "kubernetes_cluster",
            "disposition",
            "forward_packets",
            "forward_bytes",
            "reverse_bytes",
            "forward_retransmitted",
            "reverse_retransmitted",
            "rtt_samples",
            "dropped",
        ),
    ),
    # Hours, many copies, few losses.
    "coarse": Style(
        slot_s=HOUR,
        copies=3,
        most_replicas=6,
        hosts=0.5,
        rare=0.12,
        median=600.0,
        spread=2.0,
        pooled=0.6,
        lost_batches=0.0,
        lost_rows=0.0,
        missing_syn=0.01,
        turned=0.03,
        processes=False,
        references=0.3,
        probes=1.0,
        form="yaml",
    ),
}


def style(name: str, *, withheld: bool = False) -> Style:
    chosen = STYLES[name]
    return replace(chosen, withheld=True, references=0.0) if withheld else chosen
